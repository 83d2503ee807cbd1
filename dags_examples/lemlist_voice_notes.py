# SPDX-License-Identifier: Apache-2.0
"""
Upload voice notes from a storage, each for its lead and the campaign's voice-note step.

The DAG finds audio files with ``ObjectStoragePath``, so the folder can be on this machine or on S3, GCS,
Azure, …: trigger the DAG with another ``folder``. The file name identifies the person. The DAG creates a lead
for every file, and one task uploads all files, each for its lead.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, task

from airflow_provider_lemlist.operators.campaign import CreateCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudiosOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.steps import LinkedinVoiceNote


@task
def find_notes(folder: str) -> list[str]:
    return sorted(str(path) for path in ObjectStoragePath(folder).glob("*.m4a"))


def lead_of(note: str) -> dict[str, str]:
    """Return the lead of a note. Here the file is named after the person; it can be a key of your CRM."""
    name = ObjectStoragePath(note).stem
    return {
        "email": f"{name}@example.com",
        "firstName": name.title(),
        "linkedinUrl": f"https://www.linkedin.com/in/{name}-analytical-engines",
    }


@task(trigger_rule="none_failed")
def pair(leads: list[dict[str, Any]], notes: list[str]) -> dict[str, str]:
    """
    Return the note of each lead.

    Match by email address, not by position: after a skipped lead, positions would assign the wrong notes.
    """
    note_for = {lead_of(note)["email"]: note for note in notes}
    return {lead["_id"]: note_for[lead["email"]] for lead in leads}


with DAG(
    dag_id="lemlist_voice_notes",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    params={
        "folder": Param(
            Path(__file__).with_name("voice_notes").as_uri(),
            type="string",
            description="Folder of the audio files, such as s3://bucket/notes",
        )
    },
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    campaign_id = CreateCampaignOperator(task_id="create_campaign", name="Voice notes {{ run_id }}").output
    notes = find_notes("{{ params.folder }}")

    step = AddStepOperator(task_id="step", campaign_id=campaign_id, step=LinkedinVoiceNote())
    leads = CreateLeadOperator.partial(task_id="lead", campaign_id=campaign_id).expand(
        lead=notes.map(lead_of)
    )

    upload = UploadVoiceAudiosOperator(
        task_id="upload",
        campaign_id=campaign_id,
        step_id=step.output,
        audio=pair(leads.output["lead"], notes),  # {"lea_…": "s3://bucket/notes/ada.m4a", …}
    )
