# SPDX-License-Identifier: Apache-2.0
"""
The smallest useful DAG: add a step to a campaign, create one lead, and wait for a reply.

The parameter ``campaign_id`` is the id of one of your campaigns.
"""

# [START readme]
from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from airflow_provider_lemlist.steps import Email

campaign_id = "{{ params.campaign_id }}"
hello = Email(subject="{{firstName}}, a question", message="<p>Hi {{firstName}}, shall we talk?</p>")
ada = {"email": "ada@example.com", "firstName": "Ada", "timezone": "Europe/London"}

with DAG("lemlist_first_lead", start_date=datetime(2026, 1, 1), schedule=None, params={"campaign_id": ""}):
    step = AddStepOperator(task_id="step", campaign_id=campaign_id, step=hello)
    lead = CreateLeadOperator(task_id="lead", campaign_id=campaign_id, lead=ada)
    reply = ActivitySensor(
        task_id="reply",
        activity_type=["emailsReplied", "linkedinReplied"],
        campaign_id=campaign_id,
        lead_id=lead.output,
        timeout=timedelta(days=7).total_seconds(),
        deferrable=True,
    )
    step >> lead
# [END readme]
