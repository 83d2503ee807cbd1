# SPDX-License-Identifier: Apache-2.0
"""
The checked rows of one load, together with the history of earlier attempts and runs.

They are kept in SQLite's own temporary database: a file without a name that no other process can open and
that disappears with this one. So the source is read once, the rows that were checked are the rows that are
sent even if the table changes meanwhile, and memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple

from airflow_provider_lemlist.delivery.identity import alternate_key, person_key, profile_key

_TABLES = """
CREATE TABLE rows(
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, alternate BLOB, lead TEXT NOT NULL,
    times INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX alternates ON rows(alternate) WHERE alternate IS NOT NULL;
CREATE TABLE profiles(key BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rejected(
    number INTEGER PRIMARY KEY, key BLOB UNIQUE, outcome TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE settled(key BLOB PRIMARY KEY, outcome TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE in_flight(key BLOB PRIMARY KEY, times INTEGER NOT NULL, in_doubt INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE previous(key BLOB PRIMARY KEY, lead_id TEXT, content TEXT NOT NULL) WITHOUT ROWID;
"""
_PLANNED = """
SELECT rows.number, rows.key, rows.lead, coalesce(in_flight.times, 0), coalesce(in_flight.in_doubt, 0),
       iif(same.key IS NULL, other.lead_id, same.lead_id), coalesce(same.content, other.content),
       coalesce(without_email.in_doubt, 0)
FROM rows LEFT JOIN in_flight USING (key)
     LEFT JOIN in_flight AS without_email ON without_email.key = rows.alternate
     LEFT JOIN previous AS same ON same.key = rows.key
     LEFT JOIN previous AS other ON other.key = rows.alternate
WHERE rows.key NOT IN (SELECT key FROM settled)
  AND (rows.alternate IS NULL OR rows.alternate NOT IN (SELECT key FROM settled))
ORDER BY rows.number
"""
_SETTLED = """
SELECT outcome, count(*)
FROM (SELECT key, alternate FROM rows UNION ALL SELECT key, NULL FROM rejected) AS row
     JOIN settled ON settled.key = iif(row.key IN (SELECT key FROM settled), row.key, row.alternate)
GROUP BY outcome
"""
_SAME_PROFILE = """
SELECT rows.number, rows.lead, profiles.number FROM rows JOIN profiles ON profiles.key = rows.alternate
WHERE rows.key NOT IN (SELECT key FROM settled) ORDER BY rows.number LIMIT 1000
"""
_DOUBTS_OUTSIDE_SOURCE = """
SELECT key, NOT times FROM in_flight
WHERE in_doubt AND key NOT IN (SELECT key FROM settled) AND key NOT IN (SELECT key FROM rows)
"""


class PreviousEntry(NamedTuple):
    """What the ledger of the previous run knows about a row."""

    lead_id: str | None
    content: str


class PlannedRow(NamedTuple):
    """A row to be sent."""

    number: int
    key: bytes
    lead: dict[str, str]
    #: How often earlier attempts sent it.
    attempts: int
    #: Whether it was in flight when an earlier attempt died.
    in_doubt: bool
    previous: PreviousEntry | None
    #: Whether it had no address then, so that its present address does not find the lead.
    sent_without_email: bool = False


# --- Content --------------------------------------------------------------------------------------------


def content_hash(lead: Mapping[str, str]) -> str:
    """Return a short hash per field, from which the next run sees which fields changed."""
    return " ".join(f"{_field_name(name)}={_digest(value)}" for name, value in sorted(lead.items()))


def changed_fields(lead: Mapping[str, str], content: str) -> dict[str, str]:
    """Return the fields whose values differ from the hashed ones."""
    known = dict(item.split("=", 1) for item in content.split(" ") if item)
    return {name: value for name, value in lead.items() if known.get(_field_name(name)) != _digest(value)}


def _field_name(name: str) -> str:
    return name.replace("%", "%25").replace(" ", "%20").replace("=", "%3D")


def _digest(value: str) -> str:
    return blake2b(value.encode(), digest_size=6).hexdigest()


# --- The rows -------------------------------------------------------------------------------------------


class Worklist:
    """The rows of one load, by row number. Not thread-safe."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    def add(self, number: int, lead: Mapping[str, str]) -> tuple[bytes, int | None]:
        """
        Add a row, unless an earlier row is the same person.

        :return: The key of the row, and the number of that earlier row.
        """
        key = person_key(lead)
        known = self._database.execute("SELECT number, times FROM rows WHERE key = ?", (key,)).fetchone()
        if known is not None:
            first, times = known
            self._database.execute("UPDATE rows SET times = ? WHERE key = ?", (times + 1, key))
            return person_key(lead, times + 1), first
        text = json.dumps(lead, ensure_ascii=False, separators=(",", ":"))
        row = (number, key, alternate_key(lead), text)
        self._database.execute("INSERT INTO rows(number, key, alternate, lead) VALUES (?, ?, ?, ?)", row)
        if profile := profile_key(lead):
            self._database.execute("INSERT OR IGNORE INTO profiles VALUES (?, ?)", (profile, number))
        return key, None

    def reject_same_profiles(self) -> Iterator[int]:
        """Reject rows without an address whose LinkedIn profile is also in a row with one; yield numbers."""
        while found := self._database.execute(_SAME_PROFILE).fetchall():
            for number, lead, first in found:
                self._database.execute("DELETE FROM rows WHERE number = ?", (number,))
                # Not the key of the row: if the other row is missing from the next source, this one is sent.
                key = person_key(json.loads(lead), 0)
                self.reject(number, key, "duplicate", f"the same LinkedIn profile as row {first}")
                yield number

    def reject(self, number: int, key: bytes | None, outcome: str, message: str) -> None:
        """Add a row that will not be sent."""
        self._database.execute("INSERT INTO rejected VALUES (?, ?, ?, ?)", (number, key, outcome, message))

    def rejected(self) -> Iterator[tuple[int, bytes | None, str, str]]:
        """Yield number, key, outcome and message of rejected rows that are not settled."""
        yield from self._database.execute(
            "SELECT * FROM rejected WHERE key IS NULL OR key NOT IN (SELECT key FROM settled) ORDER BY number"
        )

    def add_settled(self, rows: Iterable[tuple[bytes, str]]) -> None:
        """Add keys and outcomes that an earlier attempt settled."""
        self._database.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?)", rows)

    def add_in_flight(self, rows: Iterable[tuple[bytes, int, bool]]) -> None:
        """Add in-flight marks in their order: keys, how often each was sent, and whether it is in doubt."""
        self._database.executemany(
            "INSERT INTO in_flight VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "times = times + excluded.times, in_doubt = excluded.in_doubt",
            rows,
        )

    def add_previous(self, rows: Iterable[tuple[bytes, str | None, str]]) -> None:
        """Add what an earlier run settled: keys, lead ids and contents."""
        self._database.executemany("INSERT OR REPLACE INTO previous VALUES (?, ?, ?)", rows)

    def rows(self) -> int:
        """Count the rows of the source."""
        query = "SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM rejected)"
        return int(self._database.execute(query).fetchone()[0])

    def doubts_outside_source(self) -> list[tuple[bytes, int]]:
        """Return keys in doubt that are not in this source, and whether only an earlier run knows each."""
        return self._database.execute(_DOUBTS_OUTSIDE_SOURCE).fetchall()

    def known_absentees(self) -> Iterator[tuple[bytes, str | None, str]]:
        """Yield key, lead id and content of people whom earlier runs know and this source lacks."""
        yield from self._database.execute(
            "SELECT * FROM previous WHERE key NOT IN (SELECT key FROM rows)"
            " AND key NOT IN (SELECT key FROM profiles)"
        )

    def settled_outcomes(self) -> dict[str, int]:
        """Count the rows of this source that an earlier attempt settled, by outcome."""
        return dict(self._database.execute(_SETTLED))

    def planned(self) -> Iterator[PlannedRow]:
        """Yield the rows that are not settled, in the order of the source."""
        found = self._database.execute(_PLANNED)
        for number, key, lead, attempts, in_doubt, lead_id, content, without_email in found:
            previous = None if content is None else PreviousEntry(lead_id, content)
            in_doubt = bool(in_doubt or without_email)
            yield PlannedRow(number, key, json.loads(lead), attempts, in_doubt, previous, bool(without_email))
