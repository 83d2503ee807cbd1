# SPDX-License-Identifier: Apache-2.0
"""The example ``lemlist_launch_with_approval``: a person approves, a few are launched, and then the rest."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import EXAMPLES, HAS_APPROVAL, dag_bag, states, xcom
from tests.dags.cut_off import has_ended, running, wait_until
from tests.unit.statistics import BATCH
from tools.private_airflow import PrivateAirflow

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not HAS_APPROVAL, reason="Airflow before 3.1 has no ApprovalOperator"),
]

DAG_ID = "lemlist_launch_with_approval"
FILES = (f"{DAG_ID}.py", "launch_list.csv", "do_not_contact.csv")
#: On lemlist's list of unsubscribed values; 7 others of the 30 are in do_not_contact.csv.
UNSUBSCRIBED = "joan@proofs.example"
FIRST, REST = 20, 2
#: Requests that prepare, contact people, or look whether all went well.
ROUTES = {
    "load": "POST /campaigns/*/leads/",
    "launch": "POST /leads/review/*",
    "start": "POST /campaigns/*/start",
    "look": BATCH,
    "pause": "POST /campaigns/*/pause",
}


@pytest.fixture(autouse=True)
def _list(lemlist: Sandbox) -> None:
    lemlist.unsubscribe(UNSUBSCRIBED)


def done(lemlist: Sandbox) -> list[tuple[str, int]]:
    """Return what was done, in order, and with how many requests."""
    numbers = {
        request["number"]: name for name, route in ROUTES.items() for request in lemlist.requests(route)
    }
    names = [numbers[number] for number in sorted(numbers)]
    return [(name, len([*group])) for name, group in groupby(names)]


def status(lemlist: Sandbox) -> str:
    [campaign] = lemlist.state()["campaigns"]
    found: str = campaign["status"]
    return found


def contacted(lemlist: Sandbox) -> set[str]:
    """Return the leads to whom something was sent."""
    return {each["leadId"] for each in lemlist.state()["activities"] if each["type"] == "emailsSent"}


class Api:
    """Airflow's REST API, as a person uses it who triggers the DAG and approves."""

    def __init__(self, airflow: PrivateAirflow) -> None:
        self._session = requests.Session()
        token = self._session.get(f"{airflow.url}/auth/token", timeout=30).json()["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._url = f"{airflow.url}/api/v2/dags/{DAG_ID}/dagRuns"

    def __call__(self, method: str, path: str = "", **body: Any) -> dict[str, Any]:
        response = self._session.request(method, self._url + path, json=body or None, timeout=30)
        assert response.ok, response.text
        found: dict[str, Any] = response.json()
        return found


def is_up(airflow: PrivateAirflow) -> bool:
    try:
        return requests.get(f"{airflow.url}/api/v2/monitor/health", timeout=30).ok
    except requests.ConnectionError:
        return False


def has_seen(airflow: PrivateAirflow, task_id: str) -> bool:
    """Return whether the scheduler has seen the end of the task's process."""
    seen = "Received executor event with state success for task instance"
    lines = airflow.log.read_text(errors="replace").splitlines()
    return any(seen in line and f"task_id='{task_id}'" in line for line in lines)


@pytest.mark.slow
def test_a_person_sees_the_figures_and_approves_20_are_launched_and_the_rest_after_a_look(
    lemlist: Sandbox, tmp_path: Path
):
    for name in FILES:
        shutil.copy(EXAMPLES / name, tmp_path)
    lemlist.simulate(review=False, opens=1, speed=50)
    with running(tmp_path, lemlist, tasks=2, variables={}) as airflow:
        airflow.start("triggerer")
        wait_until(lambda: is_up(airflow), "a response", airflow)
        wait_until(lambda: bool(airflow.query("SELECT 1 FROM dag")), "the DAG", airflow)
        api = Api(airflow)
        api("POST", dag_run_id="spring", logical_date=None, conf={"pause_hours": 0})
        # Before Airflow 3.3 it is deferred.
        waits = "FROM task_instance WHERE task_id = 'approve' AND state IN ('awaiting_input', 'deferred')"
        wait_until(lambda: bool(airflow.query(f"SELECT 1 {waits}")), "the question", airflow)
        # Airflow 3.3 takes an answer that is faster than this for a failure, and asks again.
        wait_until(lambda: has_seen(airflow, "approve"), "the end of the question's process", airflow)

        assert done(lemlist) == []
        assert (status(lemlist), lemlist.state()["leads"]) == ("draft", [])
        question = "/spring/taskInstances/approve/-1/hitlDetails"
        body = api("GET", question)["body"]
        rows = [row.split(" | ") for row in re.findall(r"^\| (\w.*) \|$", body, re.MULTILINE)]
        assert [(re.split("[:,]", name)[0], value) for name, value in rows] == [
            ("people in the list", "30"),
            ("to be loaded", f"{FIRST + REST}"),
            ("left out", "8"),
            ("invalid", "0"),
            ("senders", "1"),
            ("sending hours", "Monday to Friday, 09:00 to 18:00 (Europe/Paris)"),
            ("warnings of lemlist", "Your campaign doesn't have any leads yet."),
        ]

        api("PATCH", question, chosen_options=["Approve"])
        wait_until(lambda: has_ended(airflow), "the end", airflow)
        assert airflow.query("SELECT task_id FROM task_instance WHERE state <> 'success'") == []
    assert done(lemlist) == [
        ("load", FIRST + REST), ("launch", FIRST), ("start", 1), ("look", 2), ("launch", REST),
    ]  # fmt: skip
    assert status(lemlist) == "running"
    with (EXAMPLES / "launch_list.csv").open() as file:
        people = {row["email"] for row in csv.DictReader(file)}
    left_out = {each for each in people if each.endswith("@switches.example")}
    left_out |= {"alan@orbits.example", UNSUBSCRIBED}
    assert len(left_out) == 8
    assert {lead["variables"]["email"] for lead in lemlist.state()["leads"]} == people - left_out


@pytest.fixture
def answered(
    lemlist: Sandbox, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """Return a function that runs the DAG with an answer, and returns the run."""
    dag = dag_bag(EXAMPLES / f"{DAG_ID}.py").dags[DAG_ID]
    monkeypatch.setattr(dag.task_dict["sent"], "poke_interval", 0.5)

    def answered(answer: str) -> Any:
        approve = dag.task_dict["approve"]
        event = {
            "chosen_options": [answer],
            "params_input": {},
            "responded_at": datetime.now(UTC),
            "responded_by_user": None,
        }
        # dag.test() does not wait for a person.
        monkeypatch.setattr(approve, "execute", lambda context: approve.execute_complete(context, event))
        return run(dag, pause_hours=0)

    return answered


def test_without_an_approval_the_campaign_stays_a_draft_without_leads(lemlist: Sandbox, answered):
    lemlist.simulate(review=False, speed=50)
    dag_run = answered("Reject")
    after = {"load", "first", "start", "next_day", "sent", "guard", "rest"}
    assert {task_id for task_id, [state] in states(dag_run).items() if state == "skipped"} == after
    assert done(lemlist) == []
    assert (status(lemlist), lemlist.state()["leads"]) == ("draft", [])


def test_emails_that_bounce_pause_the_campaign_and_no_one_beyond_the_first_20_is_contacted(
    lemlist: Sandbox, answered
):
    lemlist.simulate(review=False, bounces=1, speed=50)
    dag_run = answered("Approve")
    of_tasks = states(dag_run)
    assert (of_tasks["guard"], of_tasks["rest"]) == (["failed"], ["upstream_failed"])
    assert status(lemlist) == "paused"
    assert [each for each in done(lemlist) if each[0] != "look"] == [
        ("load", FIRST + REST), ("launch", FIRST), ("start", 1), ("pause", 1),
    ]  # fmt: skip
    assert contacted(lemlist) == set(xcom(dag_run, "first", "lead_ids"))
    assert len(contacted(lemlist)) == FIRST
