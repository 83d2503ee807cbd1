# SPDX-License-Identifier: Apache-2.0
"""
The DAGs of ``make fleet``: one for the sensors, and one for each part with everything else that runs at once.

The file that ``FLEET_PLAN`` names holds their campaigns, people and paths.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator

plan = json.loads(Path(os.environ["FLEET_PLAN"]).read_text())
settings = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    "max_active_tasks": 1_000,
    "default_args": {"retries": 5, "retry_delay": timedelta(seconds=1)},
}

with DAG("replies", **settings):
    ActivitySensor.partial(
        task_id="reply",
        activity_type="emailsReplied",
        campaign_id=plan["reply_campaign"],
        poke_interval=5,
        timeout=900,
        deferrable=True,
    ).expand(lead_id=plan["reply_leads"])

for part in plan["parts"]:
    with DAG(part["name"], **settings):
        LoadLeadsOperator(
            task_id="load",
            campaign_id=part["load_campaign"],
            path=part["rows_path"],
            ledger_path=part["ledger_path"],
            priority_weight=100,
        )
        LemlistToObjectStorageOperator(
            task_id="read_back",
            dataset="activities",
            since=plan["history_since"],
            until=plan["history_until"],
            path=part["lake_path"],
            file_format="ndjson",
            priority_weight=90,
        )
        CreateLeadOperator.partial(
            task_id="lead", campaign_id=part["lead_campaign"], priority_weight=10
        ).expand(lead=[{"email": email, "firstName": "Ada"} for email in part["lead_emails"]])
