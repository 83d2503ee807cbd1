# SPDX-License-Identifier: Apache-2.0
"""Kill transfers at random moments: in the end there is every row once, and nothing else is left."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import bringing  # beside this file
import pyarrow.parquet
import pytest

from airflow_provider_lemlist.databases import database_hook
from airflow_provider_lemlist.extract.files import staging_directory
from airflow_provider_lemlist.sandbox import Sandbox
from tests.forkserver import forkserver
from tests.postgres import connect
from tests.unit.transfers.conftest import DAY, MONDAY

ACTIVITIES = 2500
KILLS = 10


@pytest.fixture(scope="module")
def processes() -> Any:
    return forkserver("bringing")


@pytest.fixture(scope="module")
def lemlist() -> Iterator[Sandbox]:
    with Sandbox(limit="none", requests=1000, latency=0.01, seed=7) as lemlist:
        window = MONDAY - timedelta(hours=1), MONDAY + DAY + timedelta(hours=1)
        lemlist.fill_activities(ACTIVITIES, *(each.timestamp() for each in window), burst=20)
        yield lemlist


@pytest.fixture
def truth(lemlist: Sandbox) -> list[str]:
    """Return the ids of the window in the order of the rows."""
    bounds = [f"{day:%Y-%m-%dT%H:%M:%S}.000Z" for day in (MONDAY, MONDAY + DAY)]
    found = [
        (each["createdAt"], each["_id"])
        for each in lemlist.state()["activities"]
        if bounds[0] <= each["createdAt"] < bounds[1]
    ]
    return [each for _, each in sorted(found)]


def bring_killed_often(
    processes: Any, lemlist: Sandbox, warehouse: str, places: tuple[str, str], temporary: Path
) -> None:
    """
    Bring the window home: into the first place undisturbed, into the second with kills.

    The moment of a kill is a part of the time that the first attempt took.
    """
    chance = random.Random(7)

    def begin(place: str) -> Any:
        arguments = (lemlist.airflow_connection(), warehouse, place, str(temporary), MONDAY, MONDAY + DAY)
        process = processes.Process(target=bringing.attempt, args=arguments)
        process.start()
        return process

    began = time.monotonic()
    first = begin(places[0])
    first.join()
    took = time.monotonic() - began
    assert first.exitcode == 0
    killed = 0
    for _ in range(KILLS):
        process = begin(places[1])
        process.join(chance.uniform(0.1, 1) * took)
        process.kill()
        process.join()
        killed += process.exitcode == -9
    assert killed > KILLS / 2
    last = begin(places[1])
    last.join()
    assert last.exitcode == 0


def tree(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}


@pytest.mark.slow
def test_files_of_a_transfer_that_is_killed_often_are_those_of_one_that_is_not(
    processes: Any, lemlist: Sandbox, truth: list[str], tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    places = tmp_path / "calm", tmp_path / "killed"
    bring_killed_often(processes, lemlist, "", (str(places[0]), str(places[1])), tmp_path / "temporary")
    content = tree(places[1])
    manifest = json.loads(content["_manifest.json"])
    parts = [each["name"] for each in manifest["files"]]
    assert len(parts) > 3
    assert {*content} == {"_manifest.json", *parts}
    ids = [id for name in parts for id in pyarrow.parquet.read_table(places[1] / name)["id"].to_pylist()]
    assert ids == truth
    assert content == tree(places[0])
    assert not [*(tmp_path / "temporary").glob("lemlist-staged-*")]


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", pytest.param("psycopg2", marks=pytest.mark.postgres)])
def test_table_of_a_transfer_that_is_killed_often_has_every_row_once(
    processes: Any,
    lemlist: Sandbox,
    truth: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
) -> None:
    if database == "sqlite":
        conn = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    else:
        connect(request.getfixturevalue("postgres_server"), database, monkeypatch)
    names = [f"{kind}_{uuid4().hex[:8]}" for kind in ("calm", "killed")]
    warehouse = os.environ["AIRFLOW_CONN_WAREHOUSE"]
    bring_killed_often(processes, lemlist, warehouse, (names[0], names[1]), tmp_path)
    hook = database_hook("warehouse")
    calm, killed = (hook.get_records(f"SELECT * FROM {name} ORDER BY created_at, id") for name in names)
    assert [row[0] for row in killed] == truth
    assert killed == calm


def test_staged_files_of_killed_processes_are_removed_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, foreign = tmp_path / "lemlist-staged-left", tmp_path / "staged"
    for each in (left, foreign):
        each.mkdir()
        (each / "part-00000.csv.gz").write_text("ada@lovelace.example")
    (tmp_path / "lemlist-staged-link").symlink_to(foreign)
    with staging_directory() as first:
        assert not left.exists()
        (first / "part").touch()
        with staging_directory() as second:
            assert (first / "part").exists()
            assert second != first
        assert not second.exists()
    assert {each.name for each in tmp_path.iterdir()} == {"staged", "lemlist-staged-link"}
    assert (foreign / "part-00000.csv.gz").exists()
