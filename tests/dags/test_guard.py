# SPDX-License-Identifier: Apache-2.0
"""The guard of campaigns and the sensor of their figures, in DAGs that real Airflow runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.operators.campaign import CampaignGuardOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sensors.campaign import CampaignStatsSensor
from tests.dags.conftest import states, xcom
from tests.unit.statistics import BATCH, add_activity, add_campaign, asked
from tests.waiting import wait_for

pytestmark = pytest.mark.airflow


def test_campaign_beyond_a_limit_stops_what_follows_and_is_reported(lemlist: Sandbox, run: Any) -> None:
    bad, good = add_campaign(lemlist, emailsBounced=9), add_campaign(lemlist)
    with DAG("guard", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def campaigns(ids: Any) -> Any:
            return ids

        @task
        def follow(report: Any) -> None:
            raise AssertionError("what follows must not run")

        # The retries would wait for an hour.
        guard = CampaignGuardOperator(
            task_id="guard", campaign_id=campaigns([bad, good]), retries=3, retry_delay=timedelta(hours=1)
        )
        follow(guard.output)
    dag_run = run(dag)
    assert states(dag_run)["guard"] == ["failed"]
    assert states(dag_run)["follow"] == ["upstream_failed"]
    assert {each["_id"]: each["status"] for each in lemlist.state()["campaigns"]} == {
        bad: "paused",
        good: "running",
    }
    assert xcom(dag_run, "guard", "paused") == [bad]
    assert xcom(dag_run, "guard", "report")[bad]["rates"]["bounce_rate"] == 0.09


@pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
def test_figures_reach_the_next_task(lemlist: Sandbox, run: Any, deferrable: bool) -> None:
    ids = [add_campaign(lemlist, sent=2) for _ in range(2)]
    received: list[Any] = []

    def reply() -> None:
        wait_for(lambda: asked(lemlist))
        for campaign_id in ids:
            add_activity(lemlist, campaign_id, "emailsReplied")

    name = f"stats_{deferrable}"
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def campaigns(given: Any) -> Any:
            return given

        @task
        def receive(found: Any) -> None:
            received.extend(found)

        wait = CampaignStatsSensor.partial(
            task_id="wait",
            metric="replied",
            above=0,
            window=timedelta(days=7),
            poke_interval=0.3,
            deferrable=deferrable,
        ).expand(campaign_id=campaigns(ids))
        receive(wait.output)
    replying = Thread(target=reply)
    replying.start()
    assert run(dag).state == "success"
    replying.join()
    assert [(each["campaign_id"], each["value"], each["figures"]["sent"]) for each in received] == [
        (campaign_id, 1, 2) for campaign_id in ids
    ]
    assert lemlist.requests(BATCH)
