# SPDX-License-Identifier: Apache-2.0
"""The OpenLineage provider gets the data that a task has read and the campaign that it has filled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, ObjectStoragePath
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.utils.state import TaskInstanceState

from airflow_provider_lemlist.operators.campaign import LaunchLeadsOperator, StartCampaignOperator
from airflow_provider_lemlist.operators.lead import (
    CreateLeadOperator,
    UploadVoiceAudioOperator,
    UploadVoiceAudiosOperator,
)
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import LinkedinVisit
from airflow_provider_lemlist.storage import name_in_storage

AUDIO = Path(__file__).parents[3] / "dags_examples" / "voice_notes" / "ada.m4a"
ADA = {"email": "ada@example.com"}

Datasets = list[tuple[str, str]]


def lineage_of(task: BaseOperator) -> tuple[Datasets, Datasets]:
    """Return the inputs and outputs that OpenLineage extracts."""
    run: Any = SimpleNamespace(run_id="manual__1")
    metadata = ExtractorManager().extract_metadata(run, task, TaskInstanceState.SUCCESS, SimpleNamespace())
    return (
        [(dataset.namespace, dataset.name) for dataset in metadata.inputs],
        [(dataset.namespace, dataset.name) for dataset in metadata.outputs],
    )


@pytest.fixture
def real_lemlist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", '{"conn_type": "lemlist", "password": "a-key"}')


@pytest.mark.parametrize(
    "task",
    [
        CreateLeadOperator(task_id="task", campaign_id="cam_1", lead=ADA),
        AddStepOperator(task_id="task", campaign_id="cam_1", step=LinkedinVisit()),
        LoadLeadsOperator(task_id="task", campaign_id="cam_1", leads=[ADA]),
        StartCampaignOperator(task_id="task", campaign_id="cam_1"),
        LaunchLeadsOperator(task_id="task", campaign_id="cam_1", max_leads=1),
    ],
    ids=["lead", "step", "load", "start", "launch"],
)
@pytest.mark.usefixtures("real_lemlist")
def test_campaign_is_the_output(task: BaseOperator) -> None:
    assert lineage_of(task) == ([], [("lemlist://api.lemlist.com", "campaigns/cam_1")])


def test_audio_is_the_input_and_the_campaign_of_the_response_the_output(
    lemlist: Sandbox, worker: Any
) -> None:
    campaign = lemlist.campaign()
    step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
    lead = lemlist.lead(campaign["_id"], "ada@example.com")
    task = UploadVoiceAudioOperator(task_id="task", lead_id=lead["_id"], step_id=step["_id"], audio=AUDIO)
    worker.run(task)
    here = f"lemlist://{lemlist.origin.removeprefix('http://')}"
    assert lineage_of(task) == ([("file", str(AUDIO))], [(here, f"campaigns/{campaign['_id']}")])


@pytest.mark.usefixtures("real_lemlist")
def test_directory_of_voice_notes_is_the_input_and_a_mapping_is_none() -> None:
    here = [("lemlist://api.lemlist.com", "campaigns/cam_1")]
    for audio, inputs in ((AUDIO.parent, [("file", str(AUDIO.parent))]), ({"lea_1": AUDIO}, [])):
        task = UploadVoiceAudiosOperator(task_id="task", campaign_id="cam_1", step_id="stp_1", audio=audio)
        assert lineage_of(task) == (inputs, here)


@pytest.mark.usefixtures("real_lemlist")
def test_file_of_a_load_is_the_input(tmp_path: Path) -> None:
    task = LoadLeadsOperator(task_id="task", campaign_id="cam_1", path=tmp_path / "leads.csv")
    assert lineage_of(task)[0] == [("file", f"{tmp_path}/leads.csv")]


@pytest.mark.usefixtures("real_lemlist")
def test_tables_of_a_query_are_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://reader@db.example.com/crm")
    # The only query that it would send to the database.
    monkeypatch.setattr(PostgresHook, "get_openlineage_default_schema", lambda self: "public")
    sql = "SELECT email FROM people JOIN sales.signups USING (email)"
    task = LoadLeadsOperator(task_id="task", campaign_id="cam_1", sql=sql, sql_conn_id="warehouse")
    inputs, outputs = lineage_of(task)
    assert sorted(inputs) == [
        ("postgres://db.example.com:5432", "crm.public.people"),
        ("postgres://db.example.com:5432", "crm.sales.signups"),
    ]
    assert len(outputs) == 1


@pytest.mark.usefixtures("real_lemlist")
def test_dry_run_has_no_output(tmp_path: Path) -> None:
    task = LoadLeadsOperator(task_id="task", campaign_id="cam_1", path=tmp_path / "leads.csv", dry_run=True)
    assert lineage_of(task) == ([("file", f"{tmp_path}/leads.csv")], [])
    for dry in (
        StartCampaignOperator(task_id="task", campaign_id="cam_1", dry_run=True),
        LaunchLeadsOperator(task_id="task", campaign_id="cam_1", max_leads=1, dry_run=True),
    ):
        assert lineage_of(dry) == ([], [])


@pytest.mark.usefixtures("real_lemlist")
def test_step_without_a_campaign_id_has_no_output() -> None:
    task = AddStepOperator(task_id="task", sequence_id="seq_1", step=LinkedinVisit())
    assert lineage_of(task) == ([], [])


def test_file_in_a_bucket_is_named_without_the_bucket() -> None:
    path = ObjectStoragePath("s3://bucket/2026/leads.csv")
    assert (path.namespace, name_in_storage(path)) == ("s3://bucket", "2026/leads.csv")
