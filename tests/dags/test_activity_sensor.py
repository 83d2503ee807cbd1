# SPDX-License-Identifier: Apache-2.0
"""``ActivitySensor`` in DAGs that real Airflow runs against the sandbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from tests.dags.conftest import states
from tests.waiting import wait_for

pytestmark = pytest.mark.airflow

both_ways = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])


@pytest.fixture
def leads(lemlist: Sandbox) -> list[dict[str, Any]]:
    campaign = lemlist.campaign(status="running")
    return [lemlist.lead(campaign["_id"], f"person{number}@example.com") for number in range(3)]


def reply_after_first_request(lemlist: Sandbox, lead: dict[str, Any]) -> Thread:
    """Let a lead reply after a request that found no reply."""

    def reply() -> None:
        wait_for(lambda: lemlist.requests("GET /activities"))
        lemlist.activity(lead_id=lead["_id"], type="emailsReplied")

    thread = Thread(target=reply)
    thread.start()
    return thread


@both_ways
def test_the_reply_reaches_the_next_task(lemlist: Sandbox, leads, run, deferrable):
    received: list[Any] = []
    with DAG(f"reply_{deferrable}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        wait = ActivitySensor(
            task_id="wait",
            activity_type=["emailsReplied", "linkedinReplied"],
            campaign_id=leads[0]["campaignId"],
            lead_id=leads[0]["_id"],
            poke_interval=0.3,
            deferrable=deferrable,
        )

        @task
        def receive(activities: Any) -> None:
            received.extend(activities)

        receive(wait.output)
    lemlist.activity(lead_id=leads[1]["_id"], type="emailsReplied")
    replying = reply_after_first_request(lemlist, leads[0])
    assert run(dag).state == "success"
    replying.join()
    assert [(activity["type"], activity["leadId"]) for activity in received] == [
        ("emailsReplied", leads[0]["_id"])
    ]
    assert "example.com" not in str(received)
    assert lemlist.requests("GET /activities")
    assert not lemlist.violations()


@both_ways
def test_one_sensor_for_each_lead_by_expand(lemlist: Sandbox, leads, run, deferrable):
    for lead in leads:
        lemlist.activity(lead_id=lead["_id"], type="emailsReplied")
    since = datetime.now(UTC) - timedelta(minutes=1)
    with DAG(f"mapped_{deferrable}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def lead_ids(ids: Any) -> Any:
            return ids

        @task
        def lead_ids_of(found: Any) -> Any:
            return sorted(activity["leadId"] for activities in found for activity in activities)

        wait = ActivitySensor.partial(
            task_id="wait",
            activity_type="emailsReplied",
            since=since.isoformat(),
            poke_interval=0.3,
            deferrable=deferrable,
        ).expand(lead_id=lead_ids([lead["_id"] for lead in leads]))
        lead_ids_of(wait.output)
    dag_run = run(dag)
    assert states(dag_run)["wait"] == ["success"] * 3
    [ti] = [ti for ti in dag_run.get_task_instances() if ti.task_id == "lead_ids_of"]
    assert ti.xcom_pull(task_ids="lead_ids_of") == sorted(lead["_id"] for lead in leads)


@both_ways
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_a_mapped_sensor_without_a_lead_id_fails_instead_of_waiting_for_any_lead(
    lemlist: Sandbox, leads, run, native, deferrable
):
    for lead in leads:
        lemlist.activity(lead_id=lead["_id"], type="emailsReplied")
    with DAG(
        f"mapped_none_{native}_{deferrable}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        render_template_as_native_obj=native,
    ) as dag:

        @task
        def lead_ids(ids: Any) -> Any:
            return ids

        ActivitySensor.partial(
            task_id="wait",
            activity_type="emailsReplied",
            since="2026-01-01T00:00:00Z",
            poke_interval=0.3,
            deferrable=deferrable,
        ).expand(lead_id=lead_ids([leads[0]["_id"], None, "", "{{ none }}"]))
        # Known when the DAG is parsed, but to Airflow a mapped value all the same.
        ActivitySensor.partial(task_id="literal", activity_type="emailsReplied").expand_kwargs(
            [{"campaign_id": None}]
        )
    ended = states(run(dag))
    assert ended["wait"] == ["success", "failed", "failed", "failed"]
    assert ended["literal"] == ["failed"]
    assert {request["query"].count(leads[0]["_id"]) for request in lemlist.requests("GET /activities")} == {1}


@both_ways
@pytest.mark.parametrize(
    ("arguments", "state"),
    [({"soft_fail": True}, "skipped"), ({"never_fail": True}, "skipped"), ({}, "failed")],
)
def test_a_wrong_key_ends_the_wait_as_soft_fail_and_never_fail_say(
    lemlist: Sandbox, leads, run, monkeypatch, deferrable, arguments, state
):
    lemlist.accept_key(lemlist.api_key, "blocked")
    name = f"wrong_key_{deferrable}_{state}_{len(arguments)}_{next(iter(arguments), '')}"
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        # The retries would wait for an hour.
        ActivitySensor(
            task_id="wait",
            activity_type="emailsReplied",
            retries=3,
            retry_delay=timedelta(hours=1),
            deferrable=deferrable,
            **arguments,
        )
    assert states(run(dag)) == {"wait": [state]}
