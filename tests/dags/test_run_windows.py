# SPDX-License-Identifier: Apache-2.0
"""
The default ``since`` of the sensor and the default window of a transfer under every kind of DAG run, and
loads of cleared nights, in a running Airflow.

It runs without Airflow's unit test mode, which gives cron schedules data intervals with a width. By default,
Airflow 3 does not do that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.cut_off import wait_until
from tools.private_airflow import AIRFLOW_3, ENGINE, PrivateAirflow

pytestmark = pytest.mark.airflow

NIGHTS = FIRST, SECOND, THIRD = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]
DAY = timedelta(days=1)

#: Runs Airflow's commands in one process, because each start of Airflow takes seconds; and again while the
#: scheduler has locked the SQLite database.
RUN_COMMANDS = """
import json, sys, time
from airflow.cli.cli_parser import get_parser
from sqlalchemy.exc import OperationalError
for command in json.loads(sys.argv[1]):
    arguments = get_parser().parse_args(command)
    for attempt in range(20):
        try:
            arguments.func(arguments)
            break
        except OperationalError as error:
            print("locked:", command, error)
            time.sleep(0.5)
    else:
        sys.exit("the database stayed locked")
"""
DATE_OPTION = "--logical-date" if AIRFLOW_3 else "--exec-date"
COMMANDS = [
    ["dags", "trigger", "manual", "--run-id", "one", DATE_OPTION, FIRST.isoformat()],
    ["dags", "trigger", "manual", "--run-id", "two", DATE_OPTION, SECOND.isoformat()],
    ["dags", "trigger", "manual", "--run-id", "now"],
    ["tasks", "clear", "--yes", "--task-regex", "wait", "cron"],
    ["tasks", "clear", "--yes", "--task-regex", "wait", "consume"],
    ["tasks", "clear", "--yes", "--end-date", SECOND.isoformat(), "nights"],
    ["backfill", "create", "--dag-id", "backfilled", "--from-date", "2026-03-01", "--to-date", "2026-03-03"]
    if AIRFLOW_3
    else ["dags", "backfill", "backfilled", "--start-date", "2026-03-01", "--end-date", "2026-03-03"],
]
#: Requests of each DAG: first of what Airflow starts by itself, in the end with what the commands start.
SCHEDULED = {"cron": 3, "interval": 3, "trigger": 3, "consume": 2}
ALL = {"cron": 6, "interval": 3, "trigger": 3, "consume": 4, "manual": 3, "backfilled": 3}


class Runs:
    """What a running Airflow did: its runs, and the ``since`` that each attempt of their sensor requested."""

    def __init__(self, airflow: PrivateAirflow, lemlist: Sandbox, lake: Path) -> None:
        self.airflow = airflow
        self.lemlist = lemlist
        self.lake = lake

    def requested(self) -> dict[str, dict[str, list[datetime]]]:
        """Return the lower bounds of all requests by DAG and run."""
        found: dict[str, dict[str, list[datetime]]] = {}
        for request in self.lemlist.requests("GET /activities"):
            query = dict(parse_qsl(request["query"]))
            if "leadId" not in query:
                continue  # the transfer
            since = datetime.fromisoformat(query["minDate"])
            found.setdefault(query["campaignId"], {}).setdefault(query["leadId"], []).append(since)
        return found

    def have_sent(self, expected: dict[str, int]) -> bool:
        """Return whether all runs have ended, after as many requests; a task that was retried sent more."""
        states = {row["state"] for row in self.airflow.query("SELECT state FROM dag_run")}
        assert "failed" not in states, self.airflow.tail()
        sent = {dag_id: sum(map(len, runs.values())) for dag_id, runs in self.requested().items()}
        loads = self.airflow.query("SELECT try_number FROM task_instance WHERE dag_id = 'nights'")
        ended = states == {"success"} and len(loads) == len(NIGHTS)
        return ended and all(sent.get(name, 0) >= count for name, count in expected.items())

    def windows(self, dag_id: str) -> list[tuple[datetime, datetime] | None]:
        """Return the window that the transfer of each run has written, in the order of the runs."""
        found = []
        for run in self.of(dag_id):
            manifest = self.lake / dag_id / run["run_id"] / "_manifest.json"
            content = json.loads(manifest.read_text()) if manifest.exists() else None
            found.append(
                content and tuple(datetime.fromisoformat(content[name]) for name in ("since", "until"))
            )
        return found

    def of(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG in the order in which they were due, with their bounds as ``since``."""
        requested = self.requested()[dag_id]
        rows = self.airflow.query("SELECT * FROM dag_run WHERE dag_id = ?", dag_id)
        runs = [
            {
                "since": requested[row["run_id"]],
                "run_id": row["run_id"],
                "logical_date": moment(row["logical_date" if AIRFLOW_3 else "execution_date"]),
                "due": moment(row["run_after"] if AIRFLOW_3 else row["execution_date"]),
            }
            for row in rows
        ]
        return sorted(runs, key=lambda run: run["due"])


def moment(value: str | None) -> datetime | None:
    """Read a time of Airflow's database, as precisely as lemlist is asked for it."""
    if value is None:
        return None
    at = datetime.fromisoformat(value).replace(tzinfo=UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    lake = tmp_path_factory.mktemp("lake")
    with (
        Sandbox() as lemlist,
        PrivateAirflow(
            Path(__file__).parent / "windows",
            AIRFLOW_CONN_LEMLIST_DEFAULT=lemlist.airflow_connection(),
            AIRFLOW_VAR_CAMPAIGN=lemlist.campaign()["_id"],
            AIRFLOW_VAR_LAKE=str(lake),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__CORE__PARALLELISM="4",
            AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME="0.2",
        ) as airflow,
    ):
        airflow.run("db", "migrate")
        airflow.start(*ENGINE)
        runs = Runs(airflow, lemlist, lake)
        wait_until(lambda: runs.have_sent(SCHEDULED), "A scheduled run", airflow)
        with airflow.log.open("ab") as log:
            done = subprocess.run(
                (sys.executable, "-c", RUN_COMMANDS, json.dumps(COMMANDS)),
                env=airflow.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert done.returncode == 0, airflow.tail(100)
        wait_until(lambda: runs.have_sent(ALL), "A run started by a command", airflow)
        yield runs


def test_a_cron_schedule_counts_from_the_previous_run(runs: Runs):
    if AIRFLOW_3:
        assert [run["since"][0] for run in runs.of("cron")] == [FIRST, FIRST, SECOND]
    else:  # where it has data intervals with a width by default
        assert [run["since"][0] for run in runs.of("cron")] == [FIRST, SECOND, THIRD]


def test_a_cron_schedule_with_data_intervals_counts_from_their_start(runs: Runs):
    assert [run["since"][0] for run in runs.of("interval")] == [FIRST, SECOND, THIRD]


def test_a_trigger_timetable_counts_from_the_previous_run(runs: Runs):
    assert [run["since"][0] for run in runs.of("trigger")] == [FIRST, FIRST, SECOND]


def test_a_backfill_counts_as_the_schedule_does(runs: Runs):
    scheduled = [run["since"][0] for run in runs.of("cron")]
    assert [run["since"][0] for run in runs.of("backfilled")] == scheduled


def test_a_run_triggered_by_hand_counts_from_the_previous_run(runs: Runs):
    one, two, now = runs.of("manual")
    assert [each["run_id"] for each in (one, two, now)] == ["one", "two", "now"]
    assert (now["logical_date"] is None) == AIRFLOW_3
    assert one["since"][0] == one["due"], "there is no run before"
    assert two["since"][0] == one["due"]
    assert now["since"][0] == two["due"]


def test_a_transfer_reads_the_time_since_the_previous_run_of_a_cron_schedule(runs: Runs):
    since_previous = [None, (FIRST, SECOND), (SECOND, THIRD)]
    of_interval = [(night, night + DAY) for night in NIGHTS]
    assert runs.windows("cron") == (since_previous if AIRFLOW_3 else of_interval)
    assert runs.windows("trigger") == since_previous
    assert runs.windows("backfilled") == runs.windows("cron")


def test_a_transfer_reads_the_data_interval(runs: Runs):
    assert runs.windows("interval") == [(night, night + DAY) for night in NIGHTS]


def test_a_transfer_of_a_run_triggered_by_hand_reads_the_time_since_the_previous_run(runs: Runs):
    one, two, now = (run["due"] for run in runs.of("manual"))
    assert runs.windows("manual") == [None, (one, two), (two, now)]


def test_a_run_triggered_by_an_asset_counts_from_the_previous_run(runs: Runs):
    first, second = runs.of("consume")
    events = runs.airflow.query(
        f"SELECT timestamp FROM {'asset_event' if AIRFLOW_3 else 'dataset_event'} ORDER BY timestamp"
    )
    assert first["since"][0] == first["due"], "there is no run before"
    # Airflow 3 knows the event that triggered the run before, which was due right after it.
    assert second["since"][0] == (moment(events[0]["timestamp"]) if AIRFLOW_3 else first["due"])


def test_a_cleared_run_counts_from_the_same_moment(runs: Runs):
    cleared = runs.of("cron") + runs.of("consume")
    assert len(cleared) == 5
    for run in cleared:
        assert len(run["since"]) > 1
        assert len(set(run["since"])) == 1


def test_loads_of_cleared_nights_do_not_overwrite_the_last_one(runs: Runs):
    tries = runs.airflow.query("SELECT try_number FROM task_instance WHERE dag_id = 'nights'")
    assert sorted(row["try_number"] > 1 for row in tries) == [False, True, True]
    leads = runs.lemlist.state()["leads"]
    assert [lead["variables"]["jobTitle"] for lead in leads] == ["on 2026-03-03"] * 2
    ledgers = runs.airflow.home.glob("lemlist-ledgers/*/*/runs/*/*.ndjson")
    lines = [json.loads(line) for file in ledgers for line in file.read_text().splitlines()]
    assert sorted(line["row"] for line in lines) == [1, 1, 1, 2, 2, 2]


def test_rendered_templates_of_a_load_show_a_number_of_rows_and_no_row(runs: Runs):
    rendered = runs.airflow.query("SELECT * FROM rendered_task_instance_fields WHERE dag_id = 'nights'")
    assert rendered
    for row in rendered:
        assert '"2 rows"' in row["rendered_fields"]
        assert "ana@example.com" not in row["rendered_fields"]
