# SPDX-License-Identifier: Apache-2.0
"""
Loads that a test kills, stops or lets run out of time; each says in a file which process it is.

Not one of the examples: an Airflow of the test's own reads this folder.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.operators.load import LoadLeadsOperator

PEOPLE = 100


def tell_process(context: Any) -> None:
    Path(os.environ["AIRFLOW_HOME"], f"{context['ti'].task_id}.pid").write_text(str(os.getpid()))


with DAG(
    dag_id="loading",
    schedule="@once",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(0), "pre_execute": tell_process},
):
    for how in ("killed", "stopped", "timed_out"):
        LoadLeadsOperator(
            task_id=how,
            campaign_id=f"{{{{ var.value.campaign_{how} }}}}",
            leads=[
                {"email": f"{how}-{number}@example.com", "icebreaker": "{{firstName}}"}
                for number in range(PEOPLE)
            ],
            execution_timeout=timedelta(hours=1) if how == "timed_out" else None,
        )
