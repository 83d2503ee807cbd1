# SPDX-License-Identifier: Apache-2.0
"""
Load a table of people into a campaign with one task, which records the outcome of every row.

Here the table is a CSV file beside the DAG; it can also be a path in any object storage, a query on any SQL
connection, or the return value of another task. If the task is killed, its next attempt continues the load.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.operators.campaign import CreateCampaignOperator
from airflow_provider_lemlist.operators.load import LoadLeadsOperator


@task
def summarize(report: dict[str, Any]) -> str:
    """Return the result of the load as text."""
    return f"{report['created']} of {report['rows']} leads were created"


with DAG(
    dag_id="lemlist_load_leads",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    campaign = CreateCampaignOperator(task_id="create_campaign", name="Signups {{ run_id }}")

    # [START howto_operator_load_leads]
    load = LoadLeadsOperator(
        task_id="load",
        campaign_id=campaign.output,
        path=Path(__file__).with_name("signups.csv"),
        column_map={"first_name": "firstName", "company": "companyName", "zone": "timezone"},
        variables=["plan"],  # a custom variable; other columns are left out
        retries=3,
        retry_delay=timedelta(minutes=1),
        execution_timeout=timedelta(hours=2),
    )
    # [END howto_operator_load_leads]

    summarize(load.output)
