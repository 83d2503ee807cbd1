# SPDX-License-Identifier: Apache-2.0
"""The DAGs of ``test_run_windows.py``: a sensor and a transfer under every kind of run, and a load."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, Asset, task
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from airflow_provider_lemlist.templating import AirflowText
from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator

THREE_DAYS = {"start_date": datetime(2026, 3, 1, tzinfo=UTC), "end_date": datetime(2026, 3, 3, tzinfo=UTC)}
#: Airflow starts tasks before its API server listens.
RETRIES = {"retries": 3, "retry_delay": timedelta(seconds=1)}
ASSET = Asset("file:///leads")


def wait() -> ActivitySensor:
    """Send one request, whose filters tell the run, and end."""
    return ActivitySensor(
        task_id="wait",
        activity_type="emailsReplied",
        campaign_id="{{ dag.dag_id }}",
        lead_id="{{ run_id }}",
        timeout=0,
        soft_fail=True,
        deferrable=False,
        trigger_rule="all_done",
    )


def bring() -> LemlistToObjectStorageOperator:
    """Write the window of the run into a directory of the run; fail if there is none."""
    return LemlistToObjectStorageOperator(
        task_id="bring",
        dataset="activities",
        path="{{ var.value.lake }}/{{ dag.dag_id }}/{{ run_id }}",
        file_format="ndjson",
    )


for dag_id, schedule in {
    "cron": "0 0 * * *",
    "interval": CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    "trigger": CronTriggerTimetable("0 0 * * *", timezone="UTC"),
}.items():
    with DAG(dag_id, schedule=schedule, catchup=True, default_args=RETRIES, **THREE_DAYS):
        bring() >> wait()

with DAG("backfilled", schedule="0 0 * * *", catchup=False, default_args=RETRIES, **THREE_DAYS):
    bring() >> wait()

with DAG("nights", schedule="0 0 * * *", catchup=True, max_active_runs=1, default_args=RETRIES, **THREE_DAYS):
    LoadLeadsOperator(
        task_id="load",
        campaign_id="{{ var.value.campaign }}",
        leads=[
            {"email": "ana@example.com", "jobTitle": AirflowText("on [[ dag_run.logical_date | ds ]]")},
            {
                "linkedinUrl": "https://linkedin.com/in/ben",
                "jobTitle": AirflowText("on [[ dag_run.logical_date | ds ]]"),
            },
        ],
        if_exists="update",
    )

with DAG("manual", schedule=None, start_date=datetime(2026, 3, 1, tzinfo=UTC), default_args=RETRIES):
    bring() >> wait()

with DAG("produce", schedule="@once", start_date=datetime(2026, 3, 1, tzinfo=UTC), default_args=RETRIES):

    @task(outlets=[ASSET])
    def change() -> None:
        pass

    change()

with DAG("consume", schedule=[ASSET], start_date=datetime(2026, 3, 1, tzinfo=UTC), default_args=RETRIES):

    @task(outlets=[ASSET], trigger_rule="all_done")
    def change_once_more(**context: Any) -> None:
        """Trigger this DAG a second time."""
        name = (
            "triggering_asset_events" if "triggering_asset_events" in context else "triggering_dataset_events"
        )
        events = next(iter(context[name].values()))
        if {event.source_dag_id for event in events} != {"produce"}:
            raise AirflowSkipException

    wait() >> change_once_more()
