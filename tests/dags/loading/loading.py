# SPDX-License-Identifier: Apache-2.0
"""
Loads that a test kills, stops or times out; each writes its process id to a file.

This DAG is not an example; only the Airflow of the test loads this folder.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.operators.load import LoadLeadsOperator

PEOPLE = 100


def write_pid(context: Any) -> None:
    Path(os.environ["AIRFLOW_HOME"], f"{context['ti'].task_id}.pid").write_text(str(os.getpid()))


with DAG(
    dag_id="loading",
    schedule="@once",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(0), "pre_execute": write_pid},
):
    for how in ("killed", "stopped", "timed_out"):
        LoadLeadsOperator(
            task_id=how,
            campaign_id=f"{{{{ var.value.campaign_{how} }}}}",
            leads=[
                {
                    # A third have no address, by which lemlist itself would find a duplicate.
                    **(
                        {"email": f"{how}-{number}@example.com"}
                        if number % 3
                        else {"linkedinUrl": f"https://www.linkedin.com/in/{how}-{number}"}
                    ),
                    "icebreaker": "{{firstName}}",
                }
                for number in range(PEOPLE)
            ],
            execution_timeout=timedelta(hours=1) if how == "timed_out" else None,
        )
