# SPDX-License-Identifier: Apache-2.0
"""
The checked rows of one load, and what earlier attempts and earlier runs know of them.

They are kept in SQLite's own temporary database: a file that has no name, that nobody else can open, and that
is gone with the process however it ends. So the source is read once, what was checked is what is sent even
when the table changes meanwhile, and memory stays flat however many rows there are.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

_TABLES = """
CREATE TABLE rows(
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, other BLOB, lead TEXT NOT NULL
);
CREATE INDEX others ON rows(other) WHERE other IS NOT NULL;
CREATE TABLE profiles(key BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE refused(
    number INTEGER PRIMARY KEY, key BLOB UNIQUE, outcome TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE persons(key BLOB PRIMARY KEY, number INTEGER NOT NULL, times INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE settled(key BLOB PRIMARY KEY, outcome TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE started(key BLOB PRIMARY KEY, times INTEGER NOT NULL, in_doubt INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE previous(key BLOB PRIMARY KEY, lead_id TEXT, content TEXT NOT NULL) WITHOUT ROWID;
"""
_TO_SEND = """
SELECT rows.number, rows.key, rows.lead, coalesce(started.times, 0), coalesce(started.in_doubt, 0),
       iif(same.key IS NULL, other.lead_id, same.lead_id), coalesce(same.content, other.content),
       coalesce(nameless.in_doubt, 0)
FROM rows LEFT JOIN started USING (key) LEFT JOIN started AS nameless ON nameless.key = rows.other
     LEFT JOIN previous AS same ON same.key = rows.key LEFT JOIN previous AS other ON other.key = rows.other
WHERE rows.key NOT IN (SELECT key FROM settled)
  AND (rows.other IS NULL OR rows.other NOT IN (SELECT key FROM settled))
ORDER BY rows.number
"""
_SETTLED = """
SELECT outcome, count(*)
FROM (SELECT key, other FROM rows UNION ALL SELECT key, NULL FROM refused) AS row
     JOIN settled ON settled.key = iif(row.key IN (SELECT key FROM settled), row.key, row.other)
GROUP BY outcome
"""
_NAMESAKES = """
SELECT rows.number, rows.lead, profiles.number FROM rows JOIN profiles ON profiles.key = rows.other
WHERE rows.key NOT IN (SELECT key FROM settled) ORDER BY rows.number LIMIT 1000
"""
_PERSON = re.compile(r"(?:.*\.)?linkedin\.com(/in/[^/]+)")


class Before(NamedTuple):
    """What the previous run knew of a row."""

    lead_id: str | None
    content: str


class Task(NamedTuple):
    """One row that is to be sent."""

    number: int
    key: bytes
    lead: dict[str, str]
    #: How often earlier attempts began with it.
    attempts: int
    #: Whether an earlier attempt died while the row was under way.
    in_doubt: bool
    before: Before | None
    #: Whether it had no address then, so that nobody can look it up by the one it has now.
    was_nameless: bool = False


# --- Keys and hashes ------------------------------------------------------------------------------------


def row_key(lead: Mapping[str, str], occurrence: int = 1) -> bytes:
    """
    Return what makes a row the same row in another attempt, in another order, on another day.

    The address of the person; without one the LinkedIn profile; without either, everything in the row. A
    hash, so that a ledger does not show who was loaded.

    :param occurrence: Which row of this person it is within one source, from 1.
    """
    if lead.get("email"):
        name = f"email {lead['email'].strip().casefold()}"
    elif lead.get("linkedinUrl"):
        name = f"linkedin {_profile(lead['linkedinUrl'])}"
    else:
        name = f"content {json.dumps(sorted((k, v) for k, v in lead.items() if v))}"
    return _key(f"{name} {occurrence}")


def profile_key(lead: Mapping[str, str]) -> bytes | None:
    """Return what a person with an address is known by as well: the LinkedIn profile."""
    profile = _profile(lead.get("linkedinUrl", ""))
    return _key(f"profile {profile}") if lead.get("email") and profile.startswith("/in/") else None


def other_key(lead: Mapping[str, str]) -> bytes | None:
    """
    Return what the same person was known by when a row said less of them, or more.

    A row that has lost its address is looked for by profile among those that have one. One that has an
    address is looked for among those that had none; never among the others, for two people with two
    addresses may well have been given one profile by mistake.
    """
    profile = _profile(lead.get("linkedinUrl", ""))
    if not profile.startswith("/in/"):
        return None
    return _key(f"linkedin {profile} 1" if lead.get("email") else f"profile {profile}")


def _key(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16, person=b"lemlist row key").digest()


def _profile(url: str) -> str:
    """Return what all ways of writing the address of a profile have in common; of a person, ``/in/name``."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").removeprefix("www.")
    address = f"{host}{unquote(parts.path).rstrip('/')}".casefold()
    person = _PERSON.match(address)
    return person[1] if person else address


def content_hash(lead: Mapping[str, str]) -> str:
    """Return a short hash of every field, so that the next run can tell which of them changed."""
    return " ".join(f"{_field_name(name)}={_digest(value)}" for name, value in sorted(lead.items()))


def changes(lead: Mapping[str, str], content: str) -> dict[str, str]:
    """Return the fields whose values differ from those that were hashed."""
    known = dict(item.split("=", 1) for item in content.split(" ") if item)
    return {name: value for name, value in lead.items() if known.get(_field_name(name)) != _digest(value)}


def _field_name(name: str) -> str:
    return name.replace("%", "%25").replace(" ", "%20").replace("=", "%3D")


def _digest(value: str) -> str:
    return blake2b(value.encode(), digest_size=6).hexdigest()


# --- The rows -------------------------------------------------------------------------------------------


class Worklist:
    """The rows of one load, by row number; used by one thread at a time."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    def add(self, number: int, lead: Mapping[str, str]) -> tuple[bytes, int | None]:
        """
        Take a row in, unless an earlier row is the same person.

        :return: The key of the row, and the number of that earlier row.
        """
        person = row_key(lead)
        known = self._database.execute(
            "SELECT number, times FROM persons WHERE key = ?", (person,)
        ).fetchone()
        if known is None:
            self._database.execute("INSERT INTO persons VALUES (?, ?, 1)", (person, number))
            text = json.dumps(lead, ensure_ascii=False, separators=(",", ":"))
            row = (number, person, other_key(lead), text)
            self._database.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", row)
            if profile := profile_key(lead):
                self._database.execute("INSERT OR IGNORE INTO profiles VALUES (?, ?)", (profile, number))
            return person, None
        first, times = known
        self._database.execute("UPDATE persons SET times = ? WHERE key = ?", (times + 1, person))
        return row_key(lead, times + 1), first

    def refuse_namesakes(self) -> Iterator[int]:
        """Refuse rows without an address whose LinkedIn profile a row with one has; give their numbers."""
        while found := self._database.execute(_NAMESAKES).fetchall():
            for number, lead, first in found:
                self._database.execute("DELETE FROM rows WHERE number = ?", (number,))
                # Not the key of the row: should that person's other row be gone tomorrow, it is to be sent.
                key = row_key(json.loads(lead), 0)
                self.refuse(number, key, "duplicate", f"the same LinkedIn profile as row {first}")
                yield number

    def refuse(self, number: int, key: bytes | None, outcome: str, message: str) -> None:
        """Take in a row that will not be sent."""
        self._database.execute("INSERT INTO refused VALUES (?, ?, ?, ?)", (number, key, outcome, message))

    def refused(self) -> Iterator[tuple[int, bytes | None, str, str]]:
        """Give the rows that will not be sent and are not settled: numbers, keys, outcomes and messages."""
        yield from self._database.execute(
            "SELECT * FROM refused WHERE key IS NULL OR key NOT IN (SELECT key FROM settled) ORDER BY number"
        )

    def note_settled(self, rows: Iterable[tuple[bytes, str]]) -> None:
        """Note what an earlier attempt settled: keys and outcomes."""
        self._database.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?)", rows)

    def note_started(self, rows: Iterable[tuple[bytes, int, bool]]) -> None:
        """Note in their order how rows were taken up: keys, how often, and whether they are in doubt."""
        self._database.executemany(
            "INSERT INTO started VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "times = times + excluded.times, in_doubt = excluded.in_doubt",
            rows,
        )

    def note_previous(self, rows: Iterable[tuple[bytes, str | None, str]]) -> None:
        """Note what an earlier run settled: keys, lead ids and contents."""
        self._database.executemany("INSERT OR REPLACE INTO previous VALUES (?, ?, ?)", rows)

    def rows(self) -> int:
        """Count the rows of the source."""
        return int(self._one("SELECT (SELECT count(*) FROM rows) + (SELECT count(*) FROM refused)"))

    def doubts_elsewhere(self) -> int:
        """Count the rows that an earlier attempt left in doubt and this source does not have."""
        return int(
            self._one(
                "SELECT count(*) FROM started WHERE in_doubt AND key NOT IN (SELECT key FROM settled)"
                " AND key NOT IN (SELECT key FROM rows)"
            )
        )

    def doubts_before(self) -> Iterator[bytes]:
        """Give those of them that only the ledger of an earlier run knows: keys."""
        for (key,) in self._database.execute(
            "SELECT key FROM started WHERE in_doubt AND NOT times AND key NOT IN (SELECT key FROM settled)"
            " AND key NOT IN (SELECT key FROM rows)"
        ):
            yield key

    def known_before(self) -> Iterator[tuple[bytes, str | None, str]]:
        """Give the people whom earlier runs knew and this source does not have: keys, lead ids, contents."""
        yield from self._database.execute(
            "SELECT * FROM previous WHERE key NOT IN (SELECT key FROM rows)"
            " AND key NOT IN (SELECT key FROM profiles)"
        )

    def settled_outcomes(self) -> dict[str, int]:
        """Count the rows of this source that an earlier attempt settled, by outcome."""
        return dict(self._database.execute(_SETTLED))

    def tasks(self) -> Iterator[Task]:
        """Give the rows that are not settled, in the order of the source."""
        for number, key, lead, attempts, in_doubt, lead_id, content, nameless in self._database.execute(
            _TO_SEND
        ):
            before = None if content is None else Before(lead_id, content)
            in_doubt = bool(in_doubt or nameless)
            yield Task(number, key, json.loads(lead), attempts, in_doubt, before, bool(nameless))

    def _one(self, query: str, *values: Any) -> Any:
        return self._database.execute(query, values).fetchone()[0]
