# SPDX-License-Identifier: Apache-2.0
"""
The rows that were read and are not yet used, in their order.

Threads read different parts of a dataset at once, so rows arrive out of order. They wait in SQLite's own
temporary database: a file without a name that no other process can open and that disappears with this one.
Memory does not grow with their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from threading import Lock

#: Rows that are written or read at once.
BATCH = 1000


class Spool:
    """Rows as text, by their order and id; a row that is added again replaces itself. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute(
            "CREATE TABLE rows(place INTEGER, id TEXT, row TEXT, PRIMARY KEY(place, id)) WITHOUT ROWID"
        )
        self._taken: tuple[int, str] = (-(2**63), "")

    def add(self, rows: Iterable[tuple[int, str, str]]) -> None:
        with self._lock, self._database as database:
            database.execute("BEGIN")
            database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)

    def take(self, below: float) -> Iterator[str]:
        """Yield the rows of a lower order that were not taken yet."""
        # SQLite compares an infinity with whole numbers as one expects.
        while True:
            with self._lock:
                batch = self._database.execute(
                    "SELECT place, id, row FROM rows WHERE (place, id) > (?, ?) AND place < ? "
                    "ORDER BY place, id LIMIT ?",
                    (*self._taken, below, BATCH),
                ).fetchall()
            if not batch:
                return
            self._taken = batch[-1][:2]
            for _, _, row in batch:
                yield row

    def close(self) -> None:
        with self._lock:
            self._database.close()
