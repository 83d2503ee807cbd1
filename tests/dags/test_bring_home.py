# SPDX-License-Identifier: Apache-2.0
"""Both transfers in one run of Airflow, with campaigns and types that mapped tasks upstream return."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator
from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator
from tests.dags.conftest import states, xcom

pytestmark = pytest.mark.airflow

TYPES = ["emailsOpened", "emailsClicked"]


def test_outputs_of_mapped_tasks_say_what_is_read_and_empty_sets_skip(
    lemlist: Sandbox, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "warehouse.db"
    conn = {"conn_type": "sqlite", "host": str(database)}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    happened: dict[tuple[str, str], str] = {}
    campaigns = [lemlist.campaign(name)["_id"] for name in ("first", "second", "third")]
    for number, campaign in enumerate(campaigns):
        lead = lemlist.lead(campaign, f"ada{number}@example.com")["_id"]
        for type in ("emailsSent", *TYPES):
            for hours in (-30, -1, 0):
                at = (midnight + timedelta(hours=hours)).timestamp()
                activity = lemlist.activity(lead_id=lead, type=type, created_at=at)
                if hours == -1:  # yesterday, which is the data interval of a run that is started today
                    happened[campaign, type] = activity["_id"]

    with DAG(
        "bring_home",
        schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
    ) as dag:

        @task
        def campaign(id: str) -> str:
            return id

        @task
        def type(name: str) -> str:
            return name

        wanted: Any = {
            "dataset": "activities",
            "campaign_id": campaign.expand(id=campaigns[:2]),
            "activity_type": type.expand(name=TYPES),
        }
        LemlistToObjectStorageOperator(
            task_id="files", path=f"{tmp_path}/lake/day={{day}}", file_format="ndjson", **wanted
        )
        LemlistToSqlOperator(task_id="table", table="activities", sql_conn_id="warehouse", **wanted)
        LemlistToSqlOperator(
            task_id="empty",
            dataset="unsubscribes",
            table="unsubscribes",
            sql_conn_id="warehouse",
            if_empty="skip",
        )

    dag_run = run(dag)
    found = {
        task_id: each for task_id, each in states(dag_run).items() if task_id not in ("campaign", "type")
    }
    assert found == {"files": ["success"], "table": ["success"], "empty": ["skipped"]}
    expected = sorted(happened[each, type] for each in campaigns[:2] for type in TYPES)
    report = xcom(dag_run, "files")
    (file,) = report["files"]
    assert file == f"{tmp_path}/lake/day={midnight - timedelta(days=1):%Y-%m-%d}/part-00000.ndjson.gz"
    lines = gzip.decompress(Path(file).read_bytes()).splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == expected
    with closing(sqlite3.connect(database)) as connection:
        assert [each for (each,) in connection.execute("SELECT id FROM activities ORDER BY id")] == expected
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables == [("activities",)]
    of_table = xcom(dag_run, "table")
    assert (of_table["rows"], of_table["since"]) == (4, (midnight - timedelta(days=1)).isoformat())
