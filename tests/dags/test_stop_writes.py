# SPDX-License-Identifier: Apache-2.0
"""``stop_writes`` is set in the database while a load runs: the load stops, and continues when cleared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_lemlist.api.switch import READ_AGAIN_AFTER
from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.cut_off import has_ended, wait_until
from tests.dags.switched_off.switched_off import PEOPLE
from tools.private_airflow import ENGINE, PrivateAirflow

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


#: Requests per second that the sandbox allows.
RATE = 10


def store(airflow: PrivateAirflow, lemlist: Sandbox, stop_writes: bool) -> None:
    """Write the connection into the database of Airflow."""
    connection = {**json.loads(lemlist.airflow_connection()), "extra": {"stop_writes": stop_writes}}
    file = airflow.home / "connections.json"
    file.write_text(json.dumps({"stored": connection}))
    airflow.run("connections", "import", "--overwrite", str(file))


def test_a_running_load_stops_and_a_cleared_one_continues() -> None:
    with Sandbox(limit="none", requests=2 * RATE) as lemlist:
        campaign_id = lemlist.campaign()["_id"]

        def created() -> int:
            return len(lemlist.state()["leads"])

        with PrivateAirflow(
            Path(__file__).parent / "switched_off",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW_VAR_CAMPAIGN=campaign_id,
        ) as airflow:
            airflow.run("db", "migrate")
            store(airflow, lemlist, False)
            airflow.start(*ENGINE)
            wait_until(lambda: created() >= 2 * RATE, "the beginning of the load", airflow)
            store(airflow, lemlist, True)
            before = created()
            wait_until(lambda: has_ended(airflow), "the end of the run", airflow)
            stopped = created()
            # A request more than the interval allows may be in flight in each of the few threads.
            assert before <= stopped <= before + RATE * (READ_AGAIN_AFTER + 5)
            assert stopped < PEOPLE
            [task] = airflow.query("SELECT state, try_number FROM task_instance")
            assert (task["state"], task["try_number"]) == ("failed", 1)
            store(airflow, lemlist, False)
            airflow.run("tasks", "clear", "--yes", "switched_off")
            wait_until(lambda: not has_ended(airflow), "the clearing", airflow)
            wait_until(lambda: has_ended(airflow), "the end of the cleared run", airflow)
            [task] = airflow.query("SELECT state FROM task_instance")
        assert task["state"] == "success"
        emails = {lead["variables"]["email"] for lead in lemlist.state()["leads"]}
        assert len(emails) == created() == PEOPLE
        assert len(lemlist.requests(f"POST /campaigns/{campaign_id}/leads/")) == PEOPLE
