# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/load_leads.py` compares with: one mapped task for each lead."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.operators.lead import CreateLeadOperator

with DAG(
    dag_id="one_task_per_lead",
    schedule="@once",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_tasks=1000,
):
    CreateLeadOperator.partial(
        task_id="create", campaign_id=os.environ.get("LEMLIST_BENCHMARK_CAMPAIGN", "cam_none")
    ).expand(
        lead=[
            {"email": f"person-{number}@example.com", "firstName": f"Person {number}"}
            for number in range(int(os.environ.get("LEMLIST_BENCHMARK_LEADS", "1")))
        ]
    )
