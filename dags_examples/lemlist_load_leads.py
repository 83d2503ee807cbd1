# SPDX-License-Identifier: Apache-2.0
"""
A table of people, loaded into a campaign by one task that keeps an account of every row.

Here the table is a CSV file beside the DAG; a path in any object storage, a query on any SQL connection, or
what another task returned will do as well. Whatever kills the task, its next attempt goes on where it was.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.operators.load import LoadLeadsOperator


@task(retries=0)
def create_campaign(run_id: str) -> str:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    return str(LemlistHook().create_campaign(f"Signups {run_id}")["_id"])


@task
def tell(report: dict[str, Any]) -> str:
    """Say what became of the rows."""
    return f"{report['created']} of {report['rows']} are new"


with DAG(
    dag_id="lemlist_load_leads",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    # [START howto_operator_load_leads]
    load = LoadLeadsOperator(
        task_id="load",
        campaign_id=create_campaign(),
        path=Path(__file__).with_name("signups.csv"),
        column_map={"first_name": "firstName", "company": "companyName", "zone": "timezone"},
        variables=["plan"],  # a custom variable; other columns are left out
        retries=3,
        retry_delay=timedelta(minutes=1),
        execution_timeout=timedelta(hours=2),
    )
    # [END howto_operator_load_leads]

    tell(load.output)
