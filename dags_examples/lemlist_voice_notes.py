# SPDX-License-Identifier: Apache-2.0
"""
Voice notes that lie in a storage, each uploaded for its lead and the campaign's voice-note step.

The DAG looks for audio files with ``ObjectStoragePath``, so the folder may be on this machine or on S3, GCS,
Azure, …: trigger it with another ``folder``. The name of a file says who is to hear it. Every file becomes
a lead, and every lead gets its own note.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, task

from airflow_provider_lemlist.operators.lead import CreateLeadOperator, UploadVoiceAudioOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.steps import LinkedinVoiceNote


@task
def create_campaign(run_id: str) -> str:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    return str(LemlistHook().create_campaign(f"Voice notes {run_id}")["_id"])


@task
def find_notes(folder: str) -> list[str]:
    return sorted(str(path) for path in ObjectStoragePath(folder).glob("*.m4a"))


def listener(note: str) -> dict[str, str]:
    """Say who a note is for. Here its name is the person's; in your DAG it may be a key of your CRM."""
    name = ObjectStoragePath(note).stem
    return {
        "email": f"{name}@example.com",
        "firstName": name.title(),
        "linkedinUrl": f"https://www.linkedin.com/in/{name}-analytical-engines",
    }


@task(trigger_rule="none_failed")
def pair(leads: list[dict[str, Any]], notes: list[str]) -> list[dict[str, str]]:
    """
    Give every lead the note that is for this person.

    By address and not by position: were one lead skipped, others would hear what is meant for someone else.
    """
    note_for = {listener(note)["email"]: note for note in notes}
    return [{"lead_id": lead["_id"], "audio": note_for[lead["email"]]} for lead in leads]


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
    campaign_id = create_campaign.override(retries=0)()
    notes = find_notes("{{ params.folder }}")

    step = AddStepOperator(task_id="step", campaign_id=campaign_id, step=LinkedinVoiceNote())
    leads = CreateLeadOperator.partial(task_id="lead", campaign_id=campaign_id).expand(
        lead=notes.map(listener)
    )

    # [START howto_operator_upload_voice_audio_mapped]
    UploadVoiceAudioOperator.partial(task_id="upload", step_id=step.output).expand_kwargs(
        pair(leads.output["lead"], notes)
    )
    # [END howto_operator_upload_voice_audio_mapped]
