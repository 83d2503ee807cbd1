# SPDX-License-Identifier: Apache-2.0
"""Eight days brought home in any order, more than once, are the same files and the same rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.unit.transfers.conftest import DAY, MONDAY, Files, InTable, Lemlist

DAYS = [MONDAY + number * DAY for number in range(8)]


def tree(directory: Path) -> dict[str, str]:
    """Return the digest of each file, the manifests included."""
    return {
        str(file.relative_to(directory)): sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def test_backfill_in_any_order_gives_the_same_bytes_and_rows(
    lemlist: Lemlist, tmp_path: Path, table: InTable, run: Callable[..., Any]
) -> None:
    lemlist.sandbox.fill_activities(1500, DAYS[0].timestamp(), (DAYS[-1] + DAY).timestamp(), burst=20)
    chance = random.Random(7)
    trees, rows = [], []
    for name in ("first", "second", "second"):  # the third time over the files of the second
        for day in chance.sample(DAYS, 8):
            task = Files(tmp_path / name).task(
                dataset="activities",
                path=f"{tmp_path / name}/day={{day}}",
                file_format="parquet",
            )
            run(task, day)
            run(table.task(dataset="activities"), day)
        trees.append(tree(tmp_path / name))
        rows.append(sorted(row["id"] for row in table.rows()))
    assert len(trees[0]) == 8 * 2
    assert trees[0] == trees[1] == trees[2]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0] == sorted(each["_id"] for each in lemlist.sandbox.state()["activities"])
