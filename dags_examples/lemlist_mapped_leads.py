# SPDX-License-Identifier: Apache-2.0
"""
Create a lead for each row of a query, with one mapped task per row.

All mapped tasks on all workers share the rate budget of the key, so they can run in parallel within lemlist's
rate limit. A person who is already in another campaign of the team is skipped. A task that is retried or
cleared does not create a lead twice.

For thousands of rows, use ``LoadLeadsOperator``: one task that sends many requests in parallel and keeps a
ledger.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.operators.campaign import CreateCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator

SIGNUPS = """
    WITH signups (email, first_name, company, seats) AS (VALUES
        ('grace@example.com',     'Grace',     'Compilers & Sons',   40),
        ('katherine@example.com', 'Katherine', 'Trajectories Ltd',   12),
        ('hedy@example.com',      'Hedy',      'Frequency Hoppers',   7),
        ('mary@example.com',      'Mary',      'Trajectories Ltd',    3),
        ('radia@example.com',     'Radia',     'Spanning Trees',     90),
        ('dorothy@example.com',   'Dorothy',   'Trajectories Ltd',   25)
    )
    SELECT email, first_name AS firstName, company AS companyName, seats FROM signups WHERE seats > 5
"""


@task
def read_signups() -> list[dict[str, Any]]:
    """Query a database in memory; in your DAG, query the warehouse with ``SQLExecuteQueryOperator``."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(SIGNUPS)]


@task(trigger_rule="none_failed")
def count(lead_ids: list[str]) -> int:
    """Count the leads; a skipped task has no lead id."""
    return len(list(lead_ids))


with DAG(
    dag_id="lemlist_mapped_leads",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    campaign = CreateCampaignOperator(task_id="create_campaign", name="New signups {{ run_id }}")

    # [START howto_operator_create_lead_mapped]
    leads = CreateLeadOperator.partial(
        task_id="lead",
        campaign_id=campaign.output,
        deduplicate=True,
        if_elsewhere="skip",
    ).expand(lead=read_signups())
    # [END howto_operator_create_lead_mapped]

    count(leads.output)
