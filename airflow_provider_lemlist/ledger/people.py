# SPDX-License-Identifier: Apache-2.0
"""
Who is known in a campaign: the people whom lemlist lists there, and those who were loaded from here before.

They are kept in the temporary database of the load, so that memory does not grow with their number. A person
has any number of keys, each the hash of one identity with the secret of the ledger; the first byte is the
kind. ``delivery.identity.is_same`` says when two descriptions are one person; ``Keyring.find`` is the same
rule for keys that are stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from airflow_provider_lemlist.delivery.identity import Kind, identities
from airflow_provider_lemlist.leads import LEAD_FIELDS
from airflow_provider_lemlist.ledger.ledger import LEFT, READDRESSED

#: Fields of a lead that every export shows; whether it shows a custom variable is seen from its rows.
EXPORTED = frozenset(LEAD_FIELDS) - {"contactOwner"}
#: The status of a lead whose person does not want to be contacted, and what a load did to such a lead.
UNSUBSCRIBED = "unsubscribed"
#: What else a row of the export holds.
_STATES = ("_id", "emailStatus", "lastState", "status")

_TABLES = """
CREATE TABLE people(
    id INTEGER PRIMARY KEY, lead_id TEXT UNIQUE,
    run TEXT NOT NULL DEFAULT '', left TEXT, elsewhere TEXT,
    sent TEXT NOT NULL DEFAULT '{}', in_doubt INTEGER NOT NULL DEFAULT 0,
    status TEXT, lead TEXT, seen INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE settled(
    key BLOB, attempt INTEGER, outcome TEXT NOT NULL, PRIMARY KEY (key, attempt)
) WITHOUT ROWID;
CREATE TABLE sources(
    person INTEGER, source TEXT, run TEXT NOT NULL, PRIMARY KEY (person, source)
) WITHOUT ROWID;
"""


_IS_IN = "INSERT INTO sources {} ON CONFLICT (person, source) DO UPDATE SET run = max(run, excluded.run)"
#: The people in the campaign who were loaded from a source.
_LOADED = (
    "people WHERE status IS NOT NULL AND EXISTS (SELECT 1 FROM sources WHERE person = id AND source = ?)"
)


class Person(NamedTuple):
    """
    One person in the campaign, or one who was.

    :param lead_id: The lead in the campaign, also after it was deleted there.
    :param run: Order of the newest run that settled the person; empty for people not loaded from here.
    :param left: What a load did to the lead because the person was missing from the source; ``unsubscribed``
        also if the person has unsubscribed.
    :param elsewhere: When lemlist last said that the person is in another campaign.
    :param sent: Hashes of what was sent last in variables that the export does not show.
    :param in_doubt: Whether an attempt that died may have created the lead.
    :param status: The state of the lead in lemlist; None if it is not in the campaign.
    :param lead: The fields as lemlist lists them, as JSON.
    """

    id: int
    lead_id: str | None
    run: str
    left: str | None
    elsewhere: str | None
    sent: str
    in_doubt: bool
    status: str | None
    lead: str | None


_COLUMNS = ", ".join(Person._fields)


class People:
    """The people of one campaign. Not thread-safe."""

    def __init__(self, database: sqlite3.Connection, secret: bytes) -> None:
        database.executescript(_TABLES)
        self._database = database
        self._secret = secret
        self.keys = Keyring(database, "people_keys")
        #: Fields and variables that the export shows.
        self.shown: set[str] = set(EXPORTED)

    # --- What the ledger says ---------------------------------------------------------------------------

    def add_known(self, line: Mapping[str, Any]) -> None:
        """Add a person from the ledger."""
        values = [line[name] for name in ("lead_id", "run", "left", "elsewhere", "in_doubt")]
        person = self._insert(
            "lead_id, run, left, elsewhere, in_doubt, sent", *values, json.dumps(line["sent"])
        )
        self.keys.add(person, [bytes.fromhex(key) for key in line["keys"]])
        sources = [(person, *item) for item in line["sources"].items()]
        self._database.executemany("INSERT INTO sources VALUES (?, ?, ?)", sources)

    def known(self) -> Iterator[dict[str, Any]]:
        """Yield everyone whom the next load has to know, in the form of ``add_known``."""
        found = self._database.execute(
            "SELECT lead_id, run, left, elsewhere, in_doubt, sent,"
            " (SELECT json_group_object(source, sources.run) FROM sources WHERE person = id),"
            " (SELECT group_concat(lower(hex(key)), ' ') FROM people_keys WHERE number = id)"
            " FROM people WHERE run != '' OR in_doubt"
        )
        names = ("lead_id", "run", "left", "elsewhere", "in_doubt")
        for *values, sent, sources, keys in found:
            hidden = {name: value for name, value in json.loads(sent).items() if name not in self.shown}
            yield {
                "keys": (keys or "").split(),
                **dict(zip(names, values, strict=True)),
                "sent": hidden,
                "sources": json.loads(sources),
            }

    def record(self, keys: Sequence[bytes], line: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Add what one line of a run says about a person, unless a newer run has said something."""
        outcome, lead_id = line["outcome"], line["lead_id"]
        person = self._person(keys, lead_id, replaces=True)
        if person.run > run["order"]:
            return
        sent = line.get("sent")
        left = person.left if outcome in ("gone", READDRESSED) else None  # nothing was done to the lead
        self._database.execute(
            "UPDATE people SET lead_id = ?, run = ?, left = ?, elsewhere = ?, sent = ?, in_doubt = 0"
            " WHERE id = ?",
            (
                lead_id or person.lead_id,
                run["order"],
                outcome if outcome in LEFT else left,
                (person.elsewhere or line["at"]) if outcome == "elsewhere" else None,
                json.dumps(json.loads(person.sent) | sent) if sent else person.sent,
                person.id,
            ),
        )
        if outcome not in LEFT:
            self._database.execute(
                _IS_IN.format("VALUES (?, ?, ?)"), (person.id, run["source"], run["order"])
            )
        # A person keeps the address under which the lead was created.
        self.keys.add(person.id, [key for key in keys if outcome != READDRESSED or key[0] != Kind.EMAIL])

    def mark(self, keys: Sequence[bytes], run: Mapping[str, Any], *, in_flight: bool) -> None:
        """Note that an attempt was about to create a lead, or did not create it."""
        person = self._person(keys, None)
        if person.run > run["order"]:
            return
        # It asked lemlist whether the person is in another campaign, too.
        self._database.execute(
            "UPDATE people SET in_doubt = ?, elsewhere = NULL WHERE id = ?", (in_flight, person.id)
        )

    def add_settled(self, attempt: int, rows: Iterable[tuple[Sequence[bytes], str]]) -> None:
        """Add the keys and outcomes of rows that an earlier attempt of this run settled."""
        # Under the strongest key only: people with different addresses may have been given one profile.
        settled = ((keys[0], attempt, outcome) for keys, outcome in rows if keys)
        self._database.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?, ?)", settled)

    def settled(self, keys: Sequence[bytes]) -> str | None:
        """Return the outcome that an earlier attempt of this run wrote for a row, or None."""
        query = "SELECT outcome FROM settled WHERE key = ? ORDER BY attempt DESC"
        found = (self._database.execute(query, (key,)).fetchone() for key in keys)
        return next((row[0] for row in found if row), None)

    def settled_twice(self) -> dict[bytes, int]:
        """Return the keys of rows that several attempts of this run settled, and the last of these."""
        query = "SELECT key, max(attempt) FROM settled GROUP BY key HAVING count(*) > 1"
        return dict(self._database.execute(query))

    def are_in_doubt(self) -> bool:
        """Return whether an attempt that died may have created leads."""
        return self._database.execute("SELECT 1 FROM people WHERE in_doubt LIMIT 1").fetchone() is not None

    # --- What lemlist says ------------------------------------------------------------------------------

    def add_leads(self, leads: Iterable[Mapping[str, Any]]) -> int:
        """Add the leads of the campaign as its export lists them; return their number."""
        number = 0
        self._database.execute("UPDATE people SET status = NULL, lead = NULL")
        for lead in leads:
            number += 1
            values = {name: str(value) for name, value in lead.items() if value and name not in _STATES}
            self.shown.update(lead.keys())
            keys = self.keys_of(values)
            person = self._person(keys, lead.get("_id"))
            status = lead.get("status") or "unknown"
            # Kept in the ledger, because the lead may be deleted later.
            left = UNSUBSCRIBED if status == UNSUBSCRIBED else person.left
            self._database.execute(
                "UPDATE people SET lead_id = ?, status = ?, left = ?, lead = ? WHERE id = ?",
                (lead.get("_id") or person.lead_id, status, left, json.dumps(values), person.id),
            )
            self.keys.add(person.id, keys)
        return number

    # --- Looking people up ------------------------------------------------------------------------------

    def keys_of(self, lead: Mapping[str, str], key: str | None = None) -> list[bytes]:
        """Return the keys of a row or a lead, the strongest first."""
        return [self._hash(kind, text, 16) for kind, text in sorted(identities(lead, key).items())]

    def sent(self, lead: Mapping[str, str]) -> dict[str, str]:
        """Return the hashes of values that the export does not show, from which changes are seen later."""
        hidden = (item for item in lead.items() if item[0] not in self.shown)
        return {name: self._hash(255, f"{name} {value}", 8)[1:].hex() for name, value in hidden}

    def find(self, keys: Sequence[bytes]) -> list[Person]:
        """
        Return the people whom a row may mean: those in the campaign first, then those with its address.

        One person may have had several leads; of those that were deleted, the last one counts.
        """
        found = [self._get(id) for id in self.keys.find(keys)]
        if len(found) > 1:
            found.sort(key=lambda person: person.run if person.status is None else "", reverse=True)
            found.sort(key=lambda person: (person.status is None, self.has_other_address(person, keys)))
        return found

    def has_other_address(self, person: Person, keys: Sequence[bytes]) -> bool:
        """Return whether a row and a person have different addresses, as when a ``key`` connects them."""
        if keys[0][0] != Kind.KEY:  # nothing else connects two addresses
            return False
        mine = {key for key in keys if key[0] == Kind.EMAIL}
        theirs = {key for key in self.keys.of(person.id) if key[0] == Kind.EMAIL}
        return bool(mine and theirs) and not mine & theirs

    def loaded(self) -> int:
        """Count the people who were ever loaded from here, or found in the campaign then."""
        query = "SELECT count(*) FROM people WHERE run != '' AND elsewhere IS NULL"
        return int(self._database.execute(query).fetchone()[0])

    def in_doubt(self) -> Iterator[Person]:
        """Yield the people who may have been created although no outcome says so."""
        found = self._database.execute(f"SELECT {_COLUMNS} FROM people WHERE in_doubt")
        return (Person(*row) for row in found)

    # --- People who left the source ---------------------------------------------------------------------

    def see(self, people: Iterable[Person]) -> None:
        """Note that people are in the source."""
        for person in people:
            self._database.execute("UPDATE people SET seen = 1 WHERE id = ?", (person.id,))

    def keep_seen(self, source: str, run: str) -> None:
        """Note for the next loads who was in the source of a run, also in rows that were not sent."""
        self._database.execute(_IS_IN.format("SELECT id, ?, ? FROM people WHERE seen"), (source, run))

    def newest_run(self, source: str) -> str:
        """Return the order of the newest run that loaded from a source; empty if there is none."""
        query = "SELECT max(run) FROM sources WHERE source = ?"
        return str(self._database.execute(query, (source,)).fetchone()[0] or "")

    def loaded_from(self, source: str) -> int:
        """Count the people in the campaign who were loaded from a source and were not handled as left."""
        query = f"SELECT count(*) FROM {_LOADED} AND left IS NULL"
        return int(self._database.execute(query, (source,)).fetchone()[0])

    def left(self, source: str) -> Iterator[Person]:
        """Yield the people in the campaign who were loaded from a source and are no longer in it."""
        found = self._database.execute(f"SELECT {_COLUMNS} FROM {_LOADED} AND NOT seen", (source,))
        return (Person(*row) for row in found)

    def is_in_another_source(self, person: Person, source: str) -> bool:
        """Return whether a person was in the newest run of another source that loads into the campaign."""
        query = (
            "SELECT 1 FROM sources AS one WHERE person = ? AND source != ?"
            " AND run >= (SELECT max(run) FROM sources WHERE source = one.source)"
        )
        return self._database.execute(query, (person.id, source)).fetchone() is not None

    # --- Within -----------------------------------------------------------------------------------------

    def _hash(self, kind: int, text: str, size: int) -> bytes:
        return bytes([kind]) + blake2b(text.encode(), digest_size=size, key=self._secret).digest()

    def _person(self, keys: Sequence[bytes], lead_id: str | None, *, replaces: bool = False) -> Person:
        """
        Return the person of a lead, or of some keys without another lead; a new one if there is none.

        :param replaces: Whether the lead takes the place of one that was deleted.
        """
        if lead_id is not None:
            query = f"SELECT {_COLUMNS} FROM people WHERE lead_id = ?"
            if found := self._database.execute(query, (lead_id,)).fetchone():
                return Person(*found)
        for person in map(self._get, self.keys.find(keys)):
            if lead_id is None or person.lead_id is None:
                return person
            if replaces and person.status is None and not self.has_other_address(person, keys):
                return person
        person = self._get(self._insert("lead_id", lead_id))
        self.keys.add(person.id, keys)
        return person

    def _insert(self, columns: str, *values: Any) -> int:
        places = ", ".join("?" * len(values))
        query = f"INSERT INTO people({columns}) VALUES ({places})"
        return int(self._database.execute(query, values).lastrowid or 0)

    def _get(self, id: int) -> Person:
        query = f"SELECT {_COLUMNS} FROM people WHERE id = ?"
        return Person(*self._database.execute(query, (id,)).fetchone())


class Keyring:
    """The keys of people, or of the rows of a source, by number."""

    def __init__(self, database: sqlite3.Connection, table: str) -> None:
        self._database = database
        self._table = table
        # The strength is that of all keys of the number. The index has it, because one profile may have been
        # given to every row of a source.
        database.executescript(
            f"CREATE TABLE {table}(key BLOB, strength INTEGER, number INTEGER,"
            " PRIMARY KEY (key, strength, number)) WITHOUT ROWID;"
            f"CREATE INDEX {table}_by_number ON {table}(number, key);"
        )

    def add(self, number: int, keys: Collection[bytes]) -> None:
        """Add keys. A key of the user's belongs to one only, the last."""
        before = self.of(number)
        strength = strength_of([*before, *keys])
        if before and strength != strength_of(before):
            query = f"UPDATE {self._table} SET strength = ? WHERE number = ?"
            self._database.execute(query, (strength, number))
        for key in keys:
            if key[0] == Kind.KEY:
                query = f"DELETE FROM {self._table} WHERE key = ? AND number != ?"
                self._database.execute(query, (key, number))
        rows = [(key, strength, number) for key in keys]
        self._database.executemany(f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?, ?)", rows)

    def remove(self, number: int) -> None:
        """Remove all keys of one."""
        self._database.execute(f"DELETE FROM {self._table} WHERE number = ?", (number,))

    def of(self, number: int) -> list[bytes]:
        """Return the keys of one, the strongest first."""
        query = f"SELECT key FROM {self._table} WHERE number = ? ORDER BY key"
        return [row[0] for row in self._database.execute(query, (number,))]

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Return who is the same person, the strongest match first."""
        found: list[int] = []
        stronger: set[int] = set()
        for key in keys:
            # An identity that both have and that is stronger has decided already.
            others = ", ".join(str(kind) for kind in _STRENGTHS if kind not in stronger)
            query = f"SELECT number FROM {self._table} WHERE key = ? AND strength IN ({others})"
            for (number,) in self._database.execute(query, (key,)).fetchall():
                if number not in found and not (
                    stronger and stronger & {each[0] for each in self.of(number)}
                ):
                    found.append(number)
            if key[0] != Kind.KEY:
                stronger.add(key[0])
        return found


_STRENGTHS = range(len(Kind) + 1)


def strength_of(keys: Sequence[bytes]) -> int:
    """Return how much keys say about who is meant, apart from a key of the user's: the lower, the more."""
    return min((key[0] for key in keys if key[0] != Kind.KEY), default=len(Kind))
