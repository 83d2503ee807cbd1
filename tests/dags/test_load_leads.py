# SPDX-License-Identifier: Apache-2.0
"""
Loads in a running Airflow that are interrupted: the next attempt continues, and no person is loaded twice.

One is killed, one is stopped as Airflow stops a task, one exceeds its execution_timeout, each with a quarter
of its rows loaded. In the end all are cleared, which sends no request for a lead.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import assert_within_the_documents
from tests.dags.cut_off import cut_off, has_ended, running, wait_until
from tools.private_airflow import PrivateAirflow

pytestmark = pytest.mark.airflow

TASKS = ("killed", "stopped", "timed_out")
PEOPLE = 100


class Scene(NamedTuple):
    """The state after the run, and after all its tasks were cleared and had run again."""

    lemlist: Sandbox
    airflow: PrivateAirflow
    tries: dict[str, int]
    states: list[str]
    creates: int
    creates_after_clear: int
    cleared: list[dict[str, Any]]
    look_ups: int


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Sandbox(limit="none", requests=40, latency=0.1) as lemlist:
        campaigns = {how: lemlist.campaign(how)["_id"] for how in TASKS}

        def loaded(how: str) -> int:
            return sum(lead["campaignId"] == campaigns[how] for lead in lemlist.state()["leads"])

        def creates() -> int:
            return len(lemlist.requests("POST /campaigns/*/leads/"))

        variables = {f"campaign_{how}": campaigns[how] for how in TASKS}
        with running("loading", lemlist, tasks=len(TASKS), variables=variables) as airflow:
            # Airflow implements execution_timeout by an alarm in the process of the task.
            waiting = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM, "timed_out": signal.SIGALRM}

            def interrupt() -> bool:
                for how, number in list(waiting.items()):
                    if loaded(how) >= PEOPLE // 4:
                        cut_off(airflow, how, number)
                        assert loaded(how) < PEOPLE
                        del waiting[how]
                return not waiting

            def ended() -> bool:
                return has_ended(airflow)

            wait_until(interrupt, "a quarter of each load", airflow)
            wait_until(ended, "the end of the run", airflow)
            rows = airflow.query("SELECT task_id, state, try_number FROM task_instance")
            created = creates()
            look_ups = len(lemlist.requests("GET /leads*"))
            airflow.run("tasks", "clear", "--yes", "loading")
            wait_until(lambda: not ended(), "the clearing", airflow)
            wait_until(ended, "the end of the cleared run", airflow)
            yield Scene(
                lemlist,
                airflow,
                {row["task_id"]: row["try_number"] for row in rows},
                [row["state"] for row in rows],
                created,
                creates(),
                airflow.query("SELECT task_id, state FROM task_instance"),
                look_ups,
            )


def name_of(lead: dict[str, Any]) -> str:
    """Return what the rows call a person."""
    values = lead["variables"]
    return str(values.get("email") or values["linkedinUrl"]).removesuffix("@example.com").rpartition("/")[2]


def test_each_load_took_several_attempts_and_finished(scene: Scene) -> None:
    assert scene.states == ["success"] * 3
    assert min(scene.tries[how] for how in TASKS) >= 2


def test_every_person_was_created_once(scene: Scene) -> None:
    assert Counter(name_of(lead) for lead in scene.lemlist.state()["leads"]) == Counter(
        f"{how}-{number}" for how in TASKS for number in range(PEOPLE)
    )


@pytest.mark.parametrize("how", TASKS)
def test_ledger_agrees_with_lemlist_line_by_line(scene: Scene, how: str) -> None:
    (run,) = scene.airflow.home.glob(f"lemlist-ledgers/*/*/runs/*loading.{how}*")
    lines = [json.loads(line) for file in run.glob("*.ndjson") for line in file.read_text().splitlines()]
    ids = {name_of(lead): lead["_id"] for lead in scene.lemlist.state()["leads"]}
    assert {line["row"]: (line["outcome"], line["lead_id"]) for line in lines} == {
        number + 1: ("created", ids[f"{how}-{number}"]) for number in range(PEOPLE)
    }
    assert len(lines) == PEOPLE
    assert not list(run.glob("marks-*"))


def test_no_person_was_looked_up(scene: Scene) -> None:
    assert scene.look_ups == 0


def test_clearing_finished_load_sends_no_row_again(scene: Scene) -> None:
    assert {row["state"] for row in scene.cleared} == {"success"}
    assert scene.creates_after_clear == scene.creates


def test_values_reach_lemlist_unrendered(scene: Scene) -> None:
    assert {lead["variables"]["icebreaker"] for lead in scene.lemlist.state()["leads"]} == {"{{firstName}}"}


def test_counts_are_in_xcom(scene: Scene) -> None:
    rows = scene.airflow.query("SELECT value FROM xcom WHERE key = 'return_value'")
    assert len(rows) == 3
    for row in rows:
        report = json.loads(row["value"])
        report = json.loads(report) if isinstance(report, str) else report
        assert (report["rows"], report["created"], report["settled_before"]) == (PEOPLE, PEOPLE, PEOPLE)


def test_every_request_conforms_to_the_documents(scene: Scene) -> None:
    assert_within_the_documents(scene.lemlist)
