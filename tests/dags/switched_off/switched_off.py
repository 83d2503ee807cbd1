# SPDX-License-Identifier: Apache-2.0
"""
A load that a test stops by the connection, which is in Airflow's database.

This DAG is not an example; only the Airflow of the test loads this folder.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.operators.load import LoadLeadsOperator

PEOPLE = 700

with DAG(
    dag_id="switched_off",
    schedule="@once",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(0)},
):
    LoadLeadsOperator(
        task_id="load",
        lemlist_conn_id="stored",
        campaign_id="{{ var.value.campaign }}",
        leads=[{"email": f"p{number}@example.com"} for number in range(PEOPLE)],
    )
