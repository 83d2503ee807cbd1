# SPDX-License-Identifier: Apache-2.0
"""
The rows of one load, with what will be done about each.

They are kept, with the people of the campaign, in SQLite's own temporary database: a file without a name that
no other process can open and that disappears with this one. So the source is read once, the rows that were
checked are the rows that are sent even if the table changes meanwhile, and memory does not grow with the
number of rows.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from airflow_provider_lemlist.delivery.identity import Kind
from airflow_provider_lemlist.ledger.ledger import LedgerEntry
from airflow_provider_lemlist.ledger.people import Keyring, People, Person, strength_of
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.plan import Plan, Situation, plan_departure, plan_row

_TABLES = """
CREATE TABLE rows(
    number INTEGER PRIMARY KEY, keys TEXT NOT NULL, lead TEXT, suppressed_by TEXT NOT NULL DEFAULT '',
    outcome TEXT, message TEXT, lead_id TEXT, plan TEXT, is_kept INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE departures(
    number INTEGER PRIMARY KEY, keys TEXT NOT NULL, lead TEXT NOT NULL, plan TEXT NOT NULL
);
"""


class Job(NamedTuple):
    """
    A row, or a person who left the source, that takes a request.

    :param row: Number of the row; None for a person who left.
    :param lead: The fields of the row; of a person who left, as lemlist lists them.
    """

    row: int | None
    keys: Sequence[bytes]
    lead: dict[str, str]
    plan: Plan

    @property
    def is_marked(self) -> bool:
        """Whether the ledger records that it is in flight: a lead must not be created twice."""
        return self.plan.action == "create"


class Worklist:
    """The rows of one load, by row number. Not thread-safe."""

    def __init__(self, secret: bytes) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES}")
        #: Whom the rows may mean.
        self.people = People(self._database, secret)
        self._keys = Keyring(self._database, "row_keys")
        self._database.execute("BEGIN")
        #: Rows that are invalid and name no one: they may be anyone who seems to have left the source.
        self.nameless = 0

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    # --- Reading the source -----------------------------------------------------------------------------

    def add(
        self, number: int, lead: Mapping[str, str], key: str | None = None, suppressed_by: str = ""
    ) -> list[int]:
        """
        Add a row. If two rows are one person, the one that says more about who it is stays.

        :param suppressed_by: By what the row is suppressed; the other rows of the person are, too.
        :return: The rows that turned out to be duplicates.
        """
        keys = self.people.keys_of(lead, key)
        query = "INSERT INTO rows(number, keys, lead, suppressed_by) VALUES (?, ?, ?, ?)"
        self._database.execute(query, (number, _joined(keys), json.dumps(lead), suppressed_by))
        duplicates: list[int] = []
        for first in self._keys.find(keys):
            if strength_of(self._keys.of(first)) <= strength_of(keys):
                self._reject(number, "duplicate", f"the same person as row {first}")
                self._share_suppression(number, first)
                return [*duplicates, number]
            self._keys.remove(first)
            self._reject(first, "duplicate", f"the same person as row {number}")
            self._share_suppression(first, number)
            duplicates.append(first)
        self._keys.add(number, keys)
        return duplicates

    def _share_suppression(self, duplicate: int, row: int) -> None:
        self._database.execute(
            "UPDATE rows SET suppressed_by = (SELECT suppressed_by FROM rows WHERE number = ?)"
            " WHERE number = ? AND suppressed_by = ''",
            (duplicate, row),
        )

    def add_invalid(self, number: int, lead: Mapping[str, str], key: str | None, message: str) -> None:
        """Add a row that cannot be sent; ``lead`` holds what is valid in it."""
        keys = [each for each in self.people.keys_of(lead, key) if each[0] != Kind.CONTENT]
        self.nameless += not keys
        query = "INSERT INTO rows(number, keys) VALUES (?, ?)"
        self._database.execute(query, (number, _joined(keys)))
        self._reject(number, "invalid", message)

    def _reject(self, number: int, outcome: str, message: str) -> None:
        query = "UPDATE rows SET outcome = ?, message = ? WHERE number = ?"
        self._database.execute(query, (outcome, message, number))

    # --- Planning ---------------------------------------------------------------------------------------

    def plan(self, options: LoadOptions, situation: Situation) -> dict[bytes, int]:
        """
        Work out what to do about every row.

        Rows that earlier attempts of this run settled keep that outcome, unless they need a request.

        :return: The keys of rows that several attempts have settled, or will have, and the last of these.
        """
        replaced: dict[bytes, int] = self.people.settled_twice()
        is_retry = self._count("settled") > 0
        update = (
            "UPDATE rows SET outcome = ?, message = ?, lead_id = ?, plan = ?, is_kept = ? WHERE number = ?"
        )
        columns = "number, keys, lead, suppressed_by, outcome, message"
        for number, joined, text, suppressed_by, outcome, message in self._all(columns):
            keys = _split(joined)
            candidates = self.people.find(keys)
            moved = [each for each in candidates if self.people.has_other_address(each, keys)]
            other = bool(moved) and moved[0] == candidates[0]
            if outcome is not None:
                plan = Plan(outcome, message=message)
            elif reason := suppressed_by or _listed_suppression(candidates, situation):
                plan = Plan("suppressed", message=reason)
            else:
                lead = json.loads(text) if options.if_exists == "update" else {}
                plan = plan_row(lead, keys, candidates, options, situation, other_address=other)
            # A lead of another address is in the source only if the person keeps it, as the next load finds.
            keeps = other and (outcome == "invalid" or options.if_address_changed != "create")
            self.people.see(each for each in candidates if keeps or each not in moved)
            before = self.people.settled(keys) if is_retry and plan.outcome != "duplicate" else None
            if before and plan.action:
                replaced.update(dict.fromkeys(keys, sys.maxsize))
            is_kept = bool(before and plan.outcome)
            job = json.dumps(plan) if plan.action else None
            outcome = before if is_kept else plan.outcome or None
            self._database.execute(update, (outcome, plan.message, plan.lead_id, job, is_kept, number))
        if options.max_new is not None:
            self._limit_new(options.max_new)
        return replaced

    def _limit_new(self, most: int) -> None:
        """Let new people beyond the limit wait, in the order of the source."""
        allowed = max(0, most - self._count("rows WHERE outcome = 'created'"))
        self._database.execute(
            "UPDATE rows SET outcome = 'waiting', plan = NULL, message = ? WHERE number IN (SELECT number"
            " FROM rows WHERE json_extract(plan, '$[1]') = 'create' ORDER BY number LIMIT -1 OFFSET ?)",
            (f"more new people than max_new={most}; a later run loads this row", allowed),
        )

    def plan_departures(self, options: LoadOptions) -> int:
        """Work out what to do about everyone who left the source; return how many have."""
        number = 0
        for person in self.people.left(options.run.source):
            number += 1
            is_elsewhere = self.people.is_in_another_source(person, options.run.source)
            if not is_elsewhere and (plan := plan_departure(person, options)):
                keys = self.people.keys.of(person.id)
                row = (number, _joined(keys), person.lead, json.dumps(plan))
                self._database.execute("INSERT INTO departures VALUES (?, ?, ?, ?)", row)
        return number

    def cancel_departures(self) -> None:
        """Leave the people who left the source alone."""
        self._database.execute("DELETE FROM departures")

    # --- The plan ---------------------------------------------------------------------------------------

    def rows(self) -> int:
        """Count the rows of the source."""
        return self._count("rows")

    def departures(self) -> int:
        """Count the people who left the source and about whom something will be done."""
        return self._count("departures")

    def requests(self) -> int:
        """Count the rows and people that take a request."""
        return self._count("rows WHERE plan IS NOT NULL") + self.departures()

    def kept(self) -> Counter[str]:
        """Count the outcomes that earlier attempts of this run have written."""
        query = "SELECT outcome, count(*) FROM rows WHERE is_kept GROUP BY outcome"
        return Counter(dict(self._database.execute(query)))

    def settled(self) -> Iterator[LedgerEntry]:
        """Yield the outcomes that take no request and are not written yet."""
        for number, keys, outcome, lead_id, message in self._all(
            "number, keys, outcome, lead_id, message", "outcome IS NOT NULL AND NOT is_kept"
        ):
            yield LedgerEntry(number, _split(keys), outcome, lead_id, message)

    def jobs(self) -> Iterator[Job]:
        """Yield the rows that take a request, in the order of the source, then the people who left it."""
        for number, keys, lead, plan in self._all("number, keys, lead, plan", "plan IS NOT NULL"):
            yield Job(number, _split(keys), json.loads(lead), Plan(*json.loads(plan)))
        for keys, lead, plan in self._database.execute(
            "SELECT keys, lead, plan FROM departures ORDER BY number"
        ):
            yield Job(None, _split(keys), json.loads(lead), Plan(*json.loads(plan)))

    def _all(self, columns: str, which: str = "true") -> Iterator[tuple]:  # type: ignore[type-arg]
        return self._database.execute(f"SELECT {columns} FROM rows WHERE {which} ORDER BY number")

    def _count(self, what: str) -> int:
        return int(self._database.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def _listed_suppression(people: Sequence[Person], situation: Situation) -> str:
    """Return by what a person is suppressed as lemlist lists the leads, whose addresses may be other ones."""
    leads = (json.loads(person.lead) for person in people if person.lead)
    return next(filter(None, map(situation.suppressed_by, leads)), "")


def _joined(keys: Sequence[bytes]) -> str:
    return " ".join(key.hex() for key in keys)


def _split(keys: str) -> list[bytes]:
    return [bytes.fromhex(key) for key in keys.split()]
