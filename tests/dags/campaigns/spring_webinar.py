# SPDX-License-Identifier: Apache-2.0
"""
The definition of the examples in Python.

This DAG is not an example; the docs show it.
"""

# [START spring]
from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.steps import Condition, Email, LinkedinInvite, LinkedinVoiceNote

spring = Campaign(
    name="Spring webinar",
    campaign_timezone="Europe/London",
    auto_review=False,
    stop_on_reply=True,
    steps=[
        Email(
            name="opening",
            subject="{{firstName}}, a question",
            message="""<p>Hi {{firstName}},</p>
<p>who looks after the engines at {{companyName}}?</p>
<p>We show how others do it, in a webinar of 30 minutes on [[ webinar ]].</p>""",
        ),
        LinkedinInvite(delay=2, message="Hi {{firstName}}, let us stay in touch."),
        Condition(
            name="accepted",
            condition_key="linkedinInviteAccepted",
            delay_type="within",
            delay=3,
            yes=[LinkedinVoiceNote(name="voice", record_mode="manual")],
            otherwise=[
                Email(
                    subject="Shall we talk, {{firstName}}?",
                    message="<p>Our webinar is on [[ webinar ]]. May I save you a seat?</p>",
                )
            ],
        ),
    ],
)

with DAG("spring_webinar", schedule=None, start_date=datetime(2026, 1, 1)):
    campaign = ApplyCampaignOperator(
        task_id="campaign",
        campaign=spring,
        parameters={"webinar": "12 March"},  # [[ webinar ]] in the definition
    )
# [END spring]
