# SPDX-License-Identifier: Apache-2.0
"""What ``lemlist_to_warehouse.py`` wrote, listed and compared with what is in the sandbox."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet


def lake_lines(lake: Path) -> Iterator[str]:
    """List the directories with the row count of the manifest, and their files."""
    for directory, manifest in _manifests(lake):
        files = ", ".join(sorted(path.name for path in directory.iterdir()))
        yield f"{directory.relative_to(lake)!s:<28}{manifest['rows']:>6,} rows  {files}"


def differences(lake: Path, warehouse: Path, state: Mapping[str, Any]) -> list[str]:
    """
    Return one line for each directory or table whose rows are not exactly those of the sandbox.

    :param state: The state of the sandbox; nothing may have happened in it since it was read.
    """
    wrong = []
    for directory, manifest in _manifests(lake):
        parts = [pyarrow.parquet.read_table(directory / each["name"]) for each in manifest["files"]]
        ids = [id for part in parts for id in part["id"].to_pylist()]
        expected = _expected(state, manifest["dataset"], manifest.get("since"), manifest.get("until"))
        if sorted(ids) != sorted(expected) or len(ids) != manifest["rows"]:
            wrong.append(f"{directory.relative_to(lake)}: {len(ids)} rows, {len(expected)} in the sandbox")
    with closing(sqlite3.connect(warehouse)) as database:
        for dataset in ("activities", "leads", "sequences"):
            ids = [id for (id,) in database.execute(f"SELECT id FROM lemlist_{dataset}")]
            expected = _expected(state, dataset)
            if sorted(ids) != sorted(expected):
                wrong.append(f"lemlist_{dataset}: {len(ids)} rows, {len(expected)} in the sandbox")
    return wrong


def _manifests(lake: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(lake.glob("*/*/_manifest.json")):
        yield path.parent, json.loads(path.read_text())


def _expected(
    state: Mapping[str, Any], dataset: str, since: str | None = None, until: str | None = None
) -> list[str]:
    """Return the ids of a dataset in the sandbox."""
    records = {
        "activities": state["activities"],
        "leads": state["leads"],
        "sequences": [
            step
            for campaign in state["campaigns"]
            for sequence in campaign["sequences"].values()
            for step in sequence["steps"]
        ],
    }[dataset]
    if since is None or until is None:
        return [record["_id"] for record in records]
    first, end = datetime.fromisoformat(since), datetime.fromisoformat(until)
    return [record["_id"] for record in records if first <= datetime.fromisoformat(record["createdAt"]) < end]
