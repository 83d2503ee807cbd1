# SPDX-License-Identifier: Apache-2.0
"""Directories of files: days, formats, manifests, object stores."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, ObjectStoragePath
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.utils.state import TaskInstanceState

from airflow_provider_lemlist.datasets import DATASETS
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.transfers import object_storage
from tests.unit.load.conftest import bucket
from tests.unit.transfers.conftest import DAY, HOUR, MONDAY, Files, Lemlist

Run = Callable[..., Any]
DAYS = [MONDAY + number * DAY for number in range(-3, 3)]


def by_day(files: Files) -> dict[str, list[str]]:
    """Return the ids in each directory of a day."""
    return {
        each.name.removeprefix("day="): [row["id"] for row in Files(each).rows()]
        for each in sorted(files.directory.iterdir())
    }


def daily(files: Files, **arguments: Any) -> Any:
    return files.task(dataset="activities", path=f"{files.directory}/day={{day}}", **arguments)


def manifest(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "_manifest.json").read_text())
    return found


# --- Days -------------------------------------------------------------------------------------------------


def test_window_around_midnight_rewrites_both_days_whole(lemlist: Lemlist, files: Files, run: Run) -> None:
    happened = [lemlist.happen(MONDAY + hour * HOUR) for hour in (-25, -20, -1, 0, 1, 23, 24)]
    report = run(daily(files), MONDAY - HOUR, MONDAY + HOUR)
    assert by_day(files) == {"2026-03-01": happened[1:3], "2026-03-02": happened[3:6]}
    assert report["rows"] == 5
    assert report["files"] == [f"{files.directory}/day=2026-03-0{day}/part-00000.ndjson.gz" for day in (1, 2)]
    # What was read, not what the run covers.
    assert (report["since"], report["until"]) == ("2026-03-01T00:00:00+00:00", "2026-03-03T00:00:00+00:00")


def test_day_is_one_of_utc_whatever_the_time_zone_of_the_window(
    lemlist: Lemlist, files: Files, run: Run
) -> None:
    run(daily(files, since="2026-03-02T00:00:00+02:00", until="2026-03-02T01:00:00+02:00"))
    assert [*by_day(files)] == ["2026-03-01"]


def test_today_is_read_from_midnight_until_now(
    lemlist: Lemlist, files: Files, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 2 * DAY
    clock = SimpleNamespace(now=lambda zone: midnight + 15 * HOUR)
    monkeypatch.setattr(object_storage, "datetime", clock)
    happened = [lemlist.happen(midnight + hour * HOUR) for hour in (-1, 0, 9, 14, 16)]
    report = run(daily(files), midnight + 8 * HOUR, midnight + 10 * HOUR)
    (today,) = by_day(files).values()
    assert today == happened[1:4]
    assert report["until"] == (midnight + 15 * HOUR).isoformat()


def test_days_before_the_window_are_read_again_and_earlier_ones_stay(
    lemlist: Lemlist, files: Files, run: Run
) -> None:
    happened = [lemlist.happen(day) for day in DAYS]
    for day in DAYS[:4]:
        run(daily(files), day)
    late = [lemlist.happen(day + HOUR) for day in DAYS]
    lemlist.sandbox.remove_activity(happened[1])
    run(daily(files, reread=timedelta(days=2)))
    assert [*by_day(files).values()] == [
        [happened[0]],
        [late[1]],
        [happened[2], late[2]],
        [happened[3], late[3]],
    ]


def test_days_without_rows_are_left_alone_and_the_task_is_skipped_only_if_all_are(
    lemlist: Lemlist, files: Files, run: Run
) -> None:
    happened = [lemlist.happen(day) for day in DAYS]
    for day in DAYS[:3]:
        run(daily(files), day)
    for each in (happened[1], happened[3]):
        lemlist.sandbox.remove_activity(each)
    late = lemlist.happen(DAYS[2] + HOUR)
    task = daily(files, reread=timedelta(days=2), if_empty="skip")
    report = run(task)
    assert report["rows"] == 2
    assert report["files"] == [f"{files.directory}/day=2026-03-01/part-00000.ndjson.gz"]
    assert [*by_day(files).values()] == [[happened[0]], [happened[1]], [happened[2], late]]
    with pytest.raises(AirflowSkipException):
        run(daily(files, if_empty="skip"))
    assert len(by_day(files)) == 3


def test_first_day_without_rows_fails_if_told(lemlist: Lemlist, files: Files, run: Run) -> None:
    for day in (DAYS[0], DAYS[2]):
        lemlist.happen(day)
    with pytest.raises(LemlistError, match="no activities to write, and if_empty is 'fail'"):
        run(daily(files, if_empty="fail"), DAYS[0], DAYS[3])
    assert [*by_day(files)] == ["2026-02-27"]


def test_statistics_of_several_days_have_one_window_each(lemlist: Lemlist, files: Files, run: Run) -> None:
    task = files.task(dataset="campaign_stats", path=f"{files.directory}/day={{day}}")
    run(task, DAYS[0], DAYS[2])
    for day in DAYS[:2]:
        (window,) = {
            (row["window_start"], row["window_end"])
            for row in Files(files.directory / f"day={day:%Y-%m-%d}").rows()
        }
        assert [datetime.fromisoformat(each) for each in window] == [day, day + DAY]


# --- Files ------------------------------------------------------------------------------------------------


def test_formats_hold_the_same_rows(lemlist: Lemlist, files: Files, run: Run) -> None:
    happened = [lemlist.happen(MONDAY + number * HOUR) for number in range(3)]
    names = [column.name for column in DATASETS["activities"].columns]
    for file_format in ("ndjson", "csv", "parquet"):
        run(files.task(dataset="activities", file_format=file_format))
        # Those of the other formats are gone.
        (file,) = files.directory.glob("part-*")
        if file_format == "parquet":
            table = pyarrow.parquet.read_table(file)
            assert table.column_names == names
            assert table.column("id").to_pylist() == happened
            assert table.column("created_at").to_pylist() == [MONDAY + number * HOUR for number in range(3)]
        elif file_format == "csv":
            rows = [*csv.DictReader(gzip.decompress(file.read_bytes()).decode().splitlines())]
            assert [row["id"] for row in rows] == happened
            assert [*rows[0]] == names
        else:
            assert [row["id"] for row in files.rows()] == happened


def test_parquet_is_the_default(lemlist: Lemlist, tmp_path: Path, run: Run) -> None:
    task = object_storage.LemlistToObjectStorageOperator(
        task_id="bring", dataset="campaigns", path=tmp_path / "lake"
    )
    assert run(task)["files"] == [f"{tmp_path}/lake/part-00000.parquet"]


def test_manifest_says_what_was_read(lemlist: Lemlist, files: Files, run: Run) -> None:
    lemlist.happen(MONDAY)
    report = run(
        files.task(
            dataset="activities",
            campaign_id=lemlist.first,
            activity_type=["emailsSent", "emailsOpened"],
            columns=["id", "created_at"],
        )
    )
    content = (files.directory / "part-00000.ndjson.gz").read_bytes()
    assert manifest(files.directory) == {
        "dataset": "activities",
        "since": "2026-03-02T00:00:00+00:00",
        "until": "2026-03-03T00:00:00+00:00",
        "campaign_ids": [lemlist.first],
        "activity_types": ["emailsSent", "emailsOpened"],
        "schema": [{"name": "id", "type": "text"}, {"name": "created_at", "type": "timestamp"}],
        "schema_fingerprint": report["schema"],
        "rows": 1,
        "files": [
            {
                "name": "part-00000.ndjson.gz",
                "rows": 1,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ],
    }
    run(files.task(dataset="campaigns"))
    assert not {"since", "until"} & manifest(files.directory).keys()


def test_target_that_is_a_file_fails_before_any_request(lemlist: Lemlist, files: Files, run: Run) -> None:
    files.directory.write_text("a file")
    with pytest.raises(LemlistConfigurationError, match="path must be a directory"):
        run(files.task(dataset="campaigns"))
    assert lemlist.requests == []


@pytest.mark.parametrize("as_object", [False, True])
def test_days_are_written_into_an_object_store(
    lemlist: Lemlist, tmp_path: Path, run: Run, as_object: bool
) -> None:
    bucket.use(tmp_path / "bucket")
    path: Any = "bucket://lake/day={day}"
    if as_object:
        path = ObjectStoragePath(path)
    happened = lemlist.happen(MONDAY)
    task = Files(tmp_path).task(dataset="activities", path=path)
    report = run(task)
    assert report["files"] == ["bucket://lake/day=2026-03-02/part-00000.ndjson.gz"]
    written = Files(tmp_path / "bucket" / "lake")
    assert [row["id"] for row in written.rows()] == [happened]
    assert manifest(written.directory / "day=2026-03-02")["rows"] == 1
    assert lineage(task)[1] == [("bucket://lake", "day=2026-03-02")]


def test_connection_of_the_storage_is_used(
    lemlist: Lemlist, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []
    real = object_storage.storage_path
    monkeypatch.setattr(
        object_storage, "storage_path", lambda path, conn, what: used.append(conn) or real(path, None, what)
    )
    run(Files(tmp_path / "lake").task(dataset="campaigns", storage_conn_id="lake_{{ ds }}"))
    assert used == ["lake_2026-11-20"]


# --- Lineage ----------------------------------------------------------------------------------------------


def lineage(task: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[list[tuple[str, str]]]]:
    """Return what OpenLineage learns: inputs, outputs, and the columns of each output."""
    dag_run: Any = SimpleNamespace(run_id="manual__1")
    found = ExtractorManager().extract_metadata(dag_run, task, TaskInstanceState.SUCCESS, SimpleNamespace())
    return (
        [(each.namespace, each.name) for each in found.inputs],
        [(each.namespace, each.name) for each in found.outputs],
        [[(field.name, field.type) for field in each.facets["schema"].fields] for each in found.outputs],
    )


def test_openlineage_learns_dataset_directories_and_schema(lemlist: Lemlist, files: Files, run: Run) -> None:
    task = daily(files, columns=["id", "created_at", "bot"])
    run(task, MONDAY, MONDAY + 2 * DAY)
    inputs, outputs, schemas = lineage(task)
    assert inputs == [(f"lemlist://{lemlist.sandbox.origin.removeprefix('http://')}", "activities")]
    assert outputs == [("file", f"{files.directory}/day=2026-03-0{day}") for day in (2, 3)]
    assert schemas == [[("id", "text"), ("created_at", "timestamp"), ("bot", "boolean")]] * 2


def test_openlineage_learns_of_no_output_if_nothing_was_written(
    lemlist: Lemlist, files: Files, run: Run
) -> None:
    task = files.task(dataset="activities", if_empty="fail")
    with pytest.raises(LemlistError):
        run(task)
    assert lineage(task)[1] == []
