# SPDX-License-Identifier: Apache-2.0
"""A sandbox with people and activities, and the two kinds of targets: files, and a table of SQLite."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator
from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator
from tests.contract.documents import departures
from tests.unit.worker import Worker

# Where processes of tests find the module that they run.
sys.path.insert(0, str(Path(__file__).parent))

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)

#: Texts that are only in personal values.
PERSONAL = ("lovelace", "Augusta", "Enchantress", "hopper", "+331", "Sorry")


class Lemlist:
    """
    A sandbox with the campaigns ``first`` and ``second``, which have one lead each.

    Activities are named by their id here and in the targets.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.first, self.second = (sandbox.campaign(name)["_id"] for name in ("first", "second"))
        self.step = sandbox.step(
            sandbox.state()["campaigns"][0]["sequenceId"], "email", subject="Hi", message="Hi"
        )
        ada = {"firstName": "Augusta", "lastName": "lovelace", "nickname": "Enchantress", "phone": "+331"}
        grace = sandbox.lead(self.second, "grace@hopper.example")
        self.leads = {
            self.first: sandbox.lead(self.first, "ada@lovelace.example", **ada)["_id"],
            self.second: grace["_id"],
        }

    def happen(self, at: datetime, type: str = "emailsSent", campaign: str = "") -> str:
        """Add an activity and return its id."""
        lead = self.leads[campaign or self.first]
        return str(self.sandbox.activity(lead_id=lead, type=type, created_at=at.timestamp())["_id"])

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.sandbox.requests()


@pytest.fixture
def lemlist(quick_lemlist: Sandbox) -> Iterator[Lemlist]:
    yield Lemlist(quick_lemlist)
    assert departures(quick_lemlist.requests()) == []


@pytest.fixture
def worker() -> Worker:
    return Worker(has_store=True)


@pytest.fixture
def run(worker: Worker) -> Callable[..., Any]:
    """Return a function that runs a task for a data interval, by default the one of Monday."""

    def run(task: Any, since: datetime | None = MONDAY, until: datetime | None = None) -> Any:
        end = until or (since and since + DAY)
        worker.dag_run = SimpleNamespace(
            data_interval_start=since, data_interval_end=end, logical_date=since or MONDAY
        )
        return worker.run(task)

    return run


class Files:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def task(self, **arguments: Any) -> LemlistToObjectStorageOperator:
        given = {"task_id": "bring", "path": str(self.directory), "file_format": "ndjson", **arguments}
        return LemlistToObjectStorageOperator(**given)

    def rows(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for file in sorted(self.directory.rglob("part-*"))
            for line in gzip.decompress(file.read_bytes()).splitlines()
        ]

    def content(self) -> dict[str, bytes]:
        """Return everything that was written, by name."""
        return {
            str(file.relative_to(self.directory)): file.read_bytes()
            for file in sorted(self.directory.rglob("*"))
            if file.is_file()
        }

    def clear(self) -> None:
        shutil.rmtree(self.directory)


class InTable:
    """A table of SQLite."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def task(self, **arguments: Any) -> LemlistToSqlOperator:
        given = {"task_id": "bring", "table": "activities", "sql_conn_id": "warehouse", **arguments}
        return LemlistToSqlOperator(**given)

    def rows(self) -> list[dict[str, Any]]:
        return self._query("SELECT * FROM activities")

    def content(self) -> dict[str, bytes]:
        """Return everything that was written, by table."""
        tables = self._query("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            each["name"]: json.dumps(self._query(f"SELECT * FROM {each['name']}")).encode() for each in tables
        }

    def clear(self) -> None:
        self.database.unlink()

    def _query(self, sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]


Target = Files | InTable


def ids(target: Target) -> list[str]:
    return [row["id"] for row in target.rows()]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "lake")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InTable:
    database = tmp_path / "warehouse.db"
    conn = {"conn_type": "sqlite", "host": str(database)}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    return InTable(database)


@pytest.fixture(params=["files", "table"])
def target(request: pytest.FixtureRequest) -> Target:
    """Return each kind of target."""
    found: Target = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog
