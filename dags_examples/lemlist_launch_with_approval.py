# SPDX-License-Identifier: Apache-2.0
"""
Launch a campaign in small steps, after a person has approved it.

The campaign is applied from its definition and the load is rehearsed, which contacts no one. ``approve`` then
shows the figures and waits for a person, at most two days; without an answer, nothing is launched. After the
approval the leads are loaded, and the first 20 are launched. A day later, when their emails were sent, the
rest is launched; but if too many have bounced or unsubscribed, the guard pauses the campaign and fails.

People on lemlist's list of unsubscribed values and those in ``do_not_contact.csv`` are left out.

Needs Airflow 3.1 or later, which has ``ApprovalOperator``; this file has no DAG on earlier versions.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, AirflowOptionalProviderFeatureException, Param

from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.operators.campaign import (
    ApplyCampaignOperator,
    CampaignGuardOperator,
    LaunchLeadsOperator,
    StartCampaignOperator,
)
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sensors.campaign import CampaignStatsSensor
from airflow_provider_lemlist.steps import Email

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator
    from airflow.providers.standard.sensors.date_time import DateTimeSensor
except (ImportError, AirflowOptionalProviderFeatureException):  # Airflow 2, and Airflow 3.0
    ApprovalOperator = None

FOLDER = Path(__file__).parent

CAMPAIGN = Campaign(
    name="Spring launch",
    auto_review=False,  # a lead is contacted when it is launched, not when it is created
    steps=[
        Email(subject="{{firstName}}, a question", message="<p>Who looks after {{companyName}}?</p>"),
        Email(subject="Shall we talk, {{firstName}}?", message="<p>It takes ten minutes.</p>", delay=3),
    ],
)
FIGURES = """
{% set load = ti.xcom_pull(task_ids="rehearsal", key="report") %}
{% set campaign = ti.xcom_pull(task_ids="checks", key="report").readiness %}
| | |
| --- | --- |
| people in the list | {{ load.rows }} |
| to be loaded | {{ load.not_tried }} |
| left out: unsubscribed, or in do_not_contact.csv | {{ load.suppressed }} |
| invalid | {{ load.invalid }} |
| senders | {{ campaign.senders | length }} |
| sending hours | {{ campaign.hours }} |
| warnings of lemlist, before anyone is loaded | {{ campaign.warnings | join("; ") or "none" }} |

If you approve, the first 20 are launched now, and the rest {{ params.pause_hours }} hours later, unless too
many of them bounce or unsubscribe.
"""

if ApprovalOperator:
    with DAG(
        dag_id="lemlist_launch_with_approval",
        schedule=None,
        start_date=datetime(2026, 1, 1),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
        params={"pause_hours": Param(24, type="number", minimum=0, description="Until the rest is launched")},
        tags=["lemlist", "example"],
        doc_md=__doc__,
    ):
        # [START howto_launch_with_approval]
        campaign = ApplyCampaignOperator(task_id="campaign", campaign=CAMPAIGN)
        people = {
            "campaign_id": campaign.output,
            "path": FOLDER / "launch_list.csv",
            "column_map": {"first_name": "firstName", "company": "companyName"},
            "exclude_path": FOLDER / "do_not_contact.csv",  # besides lemlist's list of unsubscribed values
        }
        rehearsal = LoadLeadsOperator(task_id="rehearsal", dry_run=True, **people)
        checks = LaunchLeadsOperator(
            task_id="checks",
            campaign_id=campaign.output,
            max_leads=20,
            dry_run=True,
        )
        approve = ApprovalOperator(
            task_id="approve",
            subject="Launch the campaign 'Spring launch'?",
            body=FIGURES,
            defaults="Reject",  # without an answer
            response_timeout=timedelta(days=2),
        )
        load = LoadLeadsOperator(task_id="load", **people)
        first = LaunchLeadsOperator(task_id="first", campaign_id=campaign.output, max_leads=20)
        start = StartCampaignOperator(task_id="start", campaign_id=campaign.output)
        next_day = DateTimeSensor(
            task_id="next_day",
            target_time='{{ ti.xcom_pull(task_ids="approve")["responded_at"]'
            " + macros.timedelta(hours=params.pause_hours) }}",
            mode="reschedule",
            poke_interval=timedelta(minutes=5),
        )
        # Over a weekend nothing is sent, and a guard that has seen nothing proves nothing.
        sent = CampaignStatsSensor(
            task_id="sent",
            campaign_id=campaign.output,
            metric="sent",
            above=15,
            window=timedelta(days=7),
            timeout=timedelta(days=5).total_seconds(),
            deferrable=True,
        )
        guard = CampaignGuardOperator(
            task_id="guard",
            campaign_id=campaign.output,
            min_sent=15,
            max_bounce_rate=0.07,  # one of 20 is 5 %
            max_unsubscribe_rate=0.07,
        )
        rest = LaunchLeadsOperator(task_id="rest", campaign_id=campaign.output, max_leads=500)

        [rehearsal, checks] >> approve >> load >> first >> start >> next_day >> sent >> guard >> rest
        # [END howto_launch_with_approval]
