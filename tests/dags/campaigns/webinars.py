# SPDX-License-Identifier: Apache-2.0
"""
Several campaigns of one definition.

This DAG is not an example; the docs show a part of it, and a test runs it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator

NOTE = Path(__file__).parents[3] / "dags_examples" / "voice_notes" / "ada.m4a"
ada = {"email": "ada@example.com", "firstName": "Ada"}


# [START mapped]
@task_group
def webinar(parameters):
    campaign = ApplyCampaignOperator(
        task_id="campaign",
        campaign="webinar.yaml",  # name: Webinar in [[ city ]]
        parameters=parameters,
    )
    lead = CreateLeadOperator(task_id="lead", campaign_id=campaign.output, lead=ada)
    UploadVoiceAudioOperator(
        task_id="upload",
        lead_id=lead.output,
        step_id=campaign.output["steps"]["voice"],
        audio=NOTE,
    )


with DAG("webinars", schedule=None, start_date=datetime(2026, 1, 1)):
    webinar.expand(parameters=[{"city": "Lyon", "days": 2}, {"city": "Oslo", "days": 3}])
# [END mapped]
