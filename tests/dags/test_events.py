# SPDX-License-Identifier: Apache-2.0
"""Replies start a DAG of a running Airflow, also those that lemlist gets while the triggerer is killed."""

from __future__ import annotations

import json

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import assert_within_the_documents
from tests.dags.cut_off import running, wait_until
from tools.private_airflow import AIRFLOW_3, PrivateAirflow

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no asset watchers"),
]

#: A restarted triggerer takes the watchers over when this many seconds have passed without a sign of life of
#: the killed one; 30 by default.
TAKE_OVER = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "3",
}


def received(airflow: PrivateAirflow) -> list[list[str]]:
    """Return the ids of the activities that each run received, in the order of the runs."""
    rows = airflow.query("SELECT value FROM xcom WHERE key = 'return_value' ORDER BY timestamp")
    return [json.loads(row["value"]) for row in rows]


def test_a_reply_while_the_triggerer_is_killed_starts_the_next_run_and_no_reply_is_received_twice():
    with Sandbox() as lemlist:
        campaign = lemlist.campaign(status="running")
        lead = lemlist.lead(campaign["_id"], "ada@example.com")
        variables = {"campaign": campaign["_id"]}
        with running("replied", lemlist, tasks=1, variables=variables, **TAKE_OVER) as airflow:
            airflow.start("triggerer")
            wait_until(lambda: bool(lemlist.requests("GET /activities")), "a look", airflow)
            first = lemlist.activity(lead_id=lead["_id"], type="emailsReplied")["_id"]
            wait_until(lambda: len(received(airflow)) == 1, "a run", airflow)
            told = "SELECT 1 FROM asset_state_store WHERE value LIKE ?"
            wait_until(lambda: bool(airflow.query(told, f"%{first}%")), "the cursor", airflow)
            airflow.kill("triggerer")
            second = lemlist.activity(lead_id=lead["_id"], type="linkedinReplied")["_id"]
            airflow.start("triggerer")
            wait_until(lambda: len(received(airflow)) == 2, "a second run", airflow)
            assert received(airflow) == [[first], [second]]
        assert_within_the_documents(lemlist)
