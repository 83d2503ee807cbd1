# SPDX-License-Identifier: Apache-2.0
"""
Definitions with a field that lemlist does not list, applied by a task and by a mapped one.

This DAG is not an example; only the Airflow of the test loads this folder.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator
from airflow_provider_lemlist.steps import Condition, LinkedinVoiceNote, Manual
from airflow_provider_lemlist.templating import AirflowText

AUDIO = os.fspath(Path(__file__).parents[3] / "dags_examples" / "voice_notes" / "ada.m4a")

with DAG("applying", schedule=None, start_date=datetime(2026, 1, 1), params={"title": "A"}):
    accepted = Condition(
        condition_key="linkedinInviteAccepted",
        delay_type="waitUntil",
        name="accepted",
        yes=[LinkedinVoiceNote(name="voice")],
    )
    one = ApplyCampaignOperator(
        task_id="one",
        campaign=Campaign(
            name="Spring {{ 40 + 2 }}",
            steps=[Manual(title=AirflowText("{{firstName}} [[ params.title ]]"), name="call"), accepted],
        ),
    )
    ApplyCampaignOperator.partial(task_id="mapped", campaign="webinar.yaml").expand(
        parameters=[{"city": city, "title": "{{ params.title }}"} for city in ("Paris", "Rome")]
    )

    leads = CreateLeadOperator.partial(task_id="leads", campaign_id=one.output).expand(
        lead=[{"email": f"{name}@example.com"} for name in ("ada", "grace")]
    )

    UploadVoiceAudioOperator.partial(
        task_id="upload", step_id=one.output["steps"]["voice"], audio=AUDIO
    ).expand(lead_id=leads.output)

    @task
    def ids(steps: dict[str, str], sequences: dict[str, dict[str, str]]) -> list[str]:
        return [steps["voice"], sequences["accepted"]["yes"]]

    ids(one.output["steps"], one.output["sequences"])
