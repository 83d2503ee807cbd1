# SPDX-License-Identifier: Apache-2.0
"""The audit trail in real Airflow: a record names the attempt of the task, also that of a mapped one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task

from airflow_provider_lemlist.audit import read_audit
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import states

pytestmark = pytest.mark.airflow


def test_every_record_names_its_task(
    lemlist: Sandbox, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LEMLIST__AUDIT_PATH", str(tmp_path / "audit"))
    campaign_id, other_id = (lemlist.campaign(name)["_id"] for name in ("One", "Two"))
    with DAG("audited", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        CreateLeadOperator.partial(task_id="mapped", campaign_id=campaign_id).expand(
            lead=[{"email": f"m{n}@norte.example"} for n in range(2)]
        )
        LoadLeadsOperator(
            task_id="load",  # its threads record, too
            campaign_id=other_id,
            leads=[{"email": f"l{n}@norte.example"} for n in range(5)],
            ledger_path=str(tmp_path / "ledger"),
        )

        @task
        def by_hook() -> None:
            LemlistHook().unsubscribe("gone@norte.example")

        by_hook()
    dag_run = run(dag)
    assert {state for each in states(dag_run).values() for state in each} == {"success"}
    records = list(read_audit(ObjectStoragePath(f"file://{tmp_path}/audit")))
    assert {(record["dag_id"], record["run_id"], record["try_number"]) for record in records} == {
        ("audited", dag_run.run_id, 1)
    }
    found = sorted((record["task_id"], record["map_index"], record["outcome"]) for record in records)
    assert found == [
        ("by_hook", -1, "done"),
        *[("load", -1, "done")] * 5,
        ("mapped", 0, "done"),
        ("mapped", 1, "done"),
    ]
