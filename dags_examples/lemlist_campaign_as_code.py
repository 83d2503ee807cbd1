# SPDX-License-Identifier: Apache-2.0
"""
Apply the definition of a campaign, and use one of its steps.

The campaign is declared in ``campaigns/spring_webinar.yaml``. The task ``campaign`` compares the file with
lemlist and sends only what differs: the first run creates the campaign, and the next ones change nothing
until the file or the campaign is edited. The task log shows the plan.

The DAG then creates a lead and uploads its voice note for the step that the file names ``voice``. Every run
finds the same campaign, steps and lead. The campaign is not started, so lemlist sends no messages.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator

with DAG(
    dag_id="lemlist_campaign_as_code",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # two runs at once would wait for each other
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    params={"webinar": Param("12 March", type="string", description="The day of the webinar")},
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    # [START howto_operator_apply_campaign]
    campaign = ApplyCampaignOperator(
        task_id="campaign",
        campaign="campaigns/spring_webinar.yaml",  # beside this file
        parameters={"webinar": "{{ params.webinar }}"},  # [[ webinar ]] in the file
    )
    # [END howto_operator_apply_campaign]

    lead = CreateLeadOperator(
        task_id="lead",
        campaign_id=campaign.output,
        lead={
            "email": "ada@example.com",
            "firstName": "Ada",
            "companyName": "Analytical Engines",
            "linkedinUrl": "https://www.linkedin.com/in/ada-analytical-engines",
        },
    )

    # [START howto_operator_apply_campaign_steps]
    upload = UploadVoiceAudioOperator(
        task_id="upload",
        lead_id=lead.output,
        step_id=campaign.output["steps"]["voice"],  # the step with `name: voice`
        audio=Path(__file__).with_name("voice_notes") / "ada.m4a",
    )
    # [END howto_operator_apply_campaign_steps]
