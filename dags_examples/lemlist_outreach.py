# SPDX-License-Identifier: Apache-2.0
"""
Build a campaign, start it, and wait for the first reply.

The campaign has an email, a LinkedIn invitation, and a condition with a voice note in one branch and a second
email in the other. The DAG creates one lead, uploads a voice note for this lead, starts the campaign, waits
for a reply in the triggerer, and marks the lead as interested.

Tasks pass ids through ``.output``. lemlist renders ``{{firstName}}`` in a message; Airflow renders
``[[ params.webinar ]]`` in an ``AirflowText``.

The connection ``lemlist_default`` selects lemlist or the sandbox. lemlist sends no messages to a lead until a
user of lemlist has reviewed it, and the email address of this lead does not exist.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_lemlist.operators.campaign import CreateCampaignOperator, StartCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from airflow_provider_lemlist.steps import Condition, Email, LinkedinInvite, LinkedinVoiceNote
from airflow_provider_lemlist.templating import AirflowText


# [START howto_hook_lemlist]
@task
def mark_interested(replies: list[dict[str, Any]]) -> None:
    """Mark the leads that replied as interested, so that a salesperson continues."""
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    hook = LemlistHook()
    for reply in replies:
        hook.mark_lead_interested(reply["leadId"], campaign_id=reply["campaignId"])


# [END howto_hook_lemlist]


with DAG(
    dag_id="lemlist_outreach",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    params={"webinar": Param("12 March", type="string", description="The day of the webinar")},
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    campaign = CreateCampaignOperator(
        task_id="create_campaign",
        name="Outreach {{ run_id }}",
        campaign_timezone="Europe/London",
    )
    campaign_id = campaign.output

    lead = CreateLeadOperator(
        task_id="lead",
        campaign_id=campaign_id,
        lead={
            "email": "ada@example.com",
            "firstName": "Ada",
            "companyName": "Analytical Engines",
            "jobTitle": "Head of Programming",
            "linkedinUrl": "https://www.linkedin.com/in/ada-analytical-engines",
            "timezone": "Europe/London",
            "favouriteEngine": "Difference Engine No. 2",  # not a field of lemlist, so a custom variable
        },
    )

    opening = AddStepOperator(
        task_id="opening",
        campaign_id=campaign_id,
        step=Email(
            subject="{{firstName}}, a question about {{companyName}}",
            message="<p>Hi {{firstName}},</p><p>who looks after your {{favouriteEngine}}?</p>",
        ),
    )
    invite = AddStepOperator(
        task_id="invite",
        campaign_id=campaign_id,
        step=LinkedinInvite(message="Hi {{firstName}}, let us stay in touch.", delay=2),
    )

    # [START howto_operator_add_step_condition]
    condition = AddStepOperator(
        task_id="condition",
        campaign_id=campaign_id,
        step=Condition(condition_key="linkedinInviteAccepted", delay_type="within", delay=3),
    )
    voice_note = AddStepOperator(
        task_id="voice_note",
        campaign_id=campaign_id,
        sequence_id=condition.output["linkedinInviteAccepted"],
        step=LinkedinVoiceNote(record_mode="manual"),
    )
    second_email = AddStepOperator(
        task_id="second_email",
        campaign_id=campaign_id,
        sequence_id=condition.output["fallback"],
        step=Email(
            subject="Shall we talk, {{firstName}}?",
            message=AirflowText("<p>Our webinar is on [[ params.webinar ]]. May I save you a seat?</p>"),
        ),
    )
    # [END howto_operator_add_step_condition]

    upload = UploadVoiceAudioOperator(
        task_id="upload",
        lead_id=lead.output,
        step_id=voice_note.output,
        audio=Path(__file__).with_name("voice_notes") / "ada.m4a",
    )

    start = StartCampaignOperator(task_id="start_campaign", campaign_id=campaign_id)

    # [START howto_sensor_activity]
    reply = ActivitySensor(
        task_id="reply",
        activity_type=["emailsReplied", "linkedinReplied"],
        campaign_id=campaign_id,
        lead_id=lead.output,
        deferrable=True,
        poke_interval=2,  # the sandbox replies within seconds; for people, minutes will do
        timeout=timedelta(days=14).total_seconds(),
    )
    # [END howto_sensor_activity]

    # A step goes to the end of its sequence, so the order of the tasks is the order of the steps.
    opening >> invite >> condition
    [upload, second_email] >> start >> reply
    mark_interested(reply.output)
