# SPDX-License-Identifier: Apache-2.0
"""
Tasks that a test kills during a request; each writes its process id to a file.

This DAG is not an example; only the Airflow of the test loads this folder.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.steps import Email

# With a task state store an equal step is there before, and is not the one of the task.
HAS_TASK_STATE_STORE = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 3)
IF_EXISTS = "add" if HAS_TASK_STATE_STORE else "return"


def write_pid(context: Any) -> None:
    Path(os.environ["AIRFLOW_HOME"], f"{context['ti'].task_id}.pid").write_text(str(os.getpid()))


with DAG(
    dag_id="killed",
    schedule="@once",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(0), "pre_execute": write_pid},
):
    for when in ("before", "after"):
        CreateLeadOperator(
            task_id=f"lead_{when}",
            campaign_id=f"{{{{ var.value.campaign_{when} }}}}",
            lead={"email": f"{when}@example.com", "firstName": "Ada"},
        )
        AddStepOperator(
            task_id=f"step_{when}",
            sequence_id=f"{{{{ var.value.sequence_{when} }}}}",
            campaign_id=f"{{{{ var.value.campaign_{when} }}}}",
            step=Email(subject="{{firstName}}, a question", message="<p>Hi {{firstName}}</p>"),
            if_exists=IF_EXISTS,
        )
    ApplyCampaignOperator(
        task_id="apply_after",
        campaign=Campaign(name="Applied", steps=[Email(subject="{{firstName}}", message="<p>Hi</p>")]),
    )
    UploadVoiceAudioOperator(
        task_id="upload_after",
        lead_id="{{ var.value.listener }}",
        step_id="{{ var.value.voice_note }}",
        audio="{{ var.value.audio }}",
    )
