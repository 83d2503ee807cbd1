# SPDX-License-Identifier: Apache-2.0
"""
The suppression lists of a task: lemlist's own and the user's, read before anything is sent.

They are kept in SQLite's own temporary database, so that memory does not grow with them. One person is looked
up in lemlist instead, because the whole list would cost more than the few requests.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistValidationError
from airflow_provider_lemlist.sources import MalformedRow, Row
from airflow_provider_lemlist.suppression.values import Form, Value, read_value, spellings_of, values_of

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.suppression.options import Exclusions

log = logging.getLogger(__name__)

#: How lemlist's own list is called where a row says by which list it is suppressed.
OF_LEMLIST = "lemlist's list"
#: Columns that hold entries, without case and punctuation. A list with a single column needs none of them.
COLUMNS = ("value", "email", "emailaddress", "domain", "companydomain", "linkedinurl", "linkedin", "phone",
           "phonenumber")  # fmt: skip


class Suppressions:
    """The entries of some lists. Not thread-safe."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE suppressed(text TEXT, form INTEGER, list TEXT NOT NULL, PRIMARY KEY (text, form))"
            " WITHOUT ROWID; BEGIN"
        )

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    def read(self, hook: LemlistHook, exclusions: Exclusions) -> None:
        """
        Read every list.

        :raises LemlistValidationError: A list of the user's is empty, or cannot be understood.
        """
        for name, rows in exclusions.lists.items():
            entries = Entries(rows, name, allow_empty=exclusions.allow_empty)
            self.add((each.value for each in entries), name)
            entries.log_findings()
        if exclusions.unsubscribed:
            read = (read_value(row.get("value", "")) for row in hook.iter_unsubscribes())
            number = self.add((value for value in read if value is not None), OF_LEMLIST)
            log.info("lemlist has %s unsubscribed values.", f"{number:,}")

    def add(self, values: Iterable[Value], list: str) -> int:
        """Add the entries of a list; return their number. An entry stays with the list that had it first."""
        number = 0
        while batch := [(text, form, list) for form, text in islice(values, 10_000)]:
            self._database.executemany("INSERT OR IGNORE INTO suppressed VALUES (?, ?, ?)", batch)
            number += len(batch)
        return number

    def find(self, lead: Mapping[str, str]) -> str:
        """Return why a lead is suppressed, such as ``its domain is in exclude_sql``; empty if it is not."""
        # One query for each value: with all of them in one IN, SQLite scans the whole list.
        query = "SELECT list FROM suppressed WHERE text = ? AND form = ?"
        for form, text in values_of(lead):
            if found := self._database.execute(query, (text, form)).fetchone():
                return f"its {form} is in {found[0]}"
        return ""


class Entry(NamedTuple):
    """One entry of a list of the user's: its row, how it is written, and what it means."""

    row: int
    text: str
    value: Value


class Entries:
    """
    The entries of a list of the user's, in rows with one or several columns.

    :param rows: Opens the rows.
    :param argument: What the list is called in errors, such as ``exclude_sql``.
    :param allow_empty: Whether it may be empty.
    :param switch: The argument that allows it.
    """

    def __init__(
        self,
        rows: Callable[[], Iterator[Row]],
        argument: str,
        *,
        allow_empty: bool = False,
        switch: str = "allow_empty_exclusions",
    ) -> None:
        self._rows = rows
        self._argument = argument
        self._allow_empty = allow_empty
        self._switch = switch
        #: Rows with a value that is none of the forms.
        self.unknown: list[int] = []
        self._number = 0

    def __iter__(self) -> Iterator[Entry]:
        """
        Yield every entry.

        :raises LemlistValidationError: The list is empty, is malformed, or has no column of entries.
        """
        columns: dict[tuple[str, ...], list[str]] = {}
        for number, row in enumerate(self._opened(), 1):
            if isinstance(row, MalformedRow):
                raise self._error(f"row {number} {row.reason}")
            # Rows of NDJSON may have different columns.
            names = tuple(row)
            if names not in columns:
                columns[names] = self._columns_of(names)
            for text in filter(None, (_text(row[name]) for name in columns[names])):
                value = read_value(text)
                if value is None:
                    self.unknown.append(number)
                else:
                    self._number += 1
                    yield Entry(number, text, value)
        if self.unknown and not self._number:
            known = sorted({name for used in columns.values() for name in used})
            raise self._error(
                f"no value of {' or '.join(map(repr, known))} is an address, a domain, a LinkedIn URL or a "
                "phone number"
            )
        if not self._number and not self._allow_empty:
            raise self._error(f"it has no values. If that is right, set {self._switch}=True")

    def log_findings(self) -> None:
        """Log how many entries were read, and which rows were not understood."""
        log.info("%s: %s values.", self._argument, f"{self._number:,}")
        if self.unknown:
            rows = ", ".join(map(str, self.unknown[:5])) + (", …" if len(self.unknown) > 5 else "")
            log.warning(
                "%s: %s rows have a value that is no address, domain, LinkedIn URL or phone number (%s).",
                self._argument,
                f"{len(self.unknown):,}",
                rows,
            )

    def _opened(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        except (LemlistValidationError, LemlistConfigurationError) as error:
            raise type(error)(f"{self._argument}: {error.message}") from error

    def _columns_of(self, names: tuple[str, ...]) -> list[str]:
        if len(names) == 1:
            return [*names]
        known = [name for name in names if re.sub(r"[\W_]", "", name).lower() in COLUMNS]
        if not known:
            raise self._error(
                f"its columns are {', '.join(map(repr, names))}, and none is known to hold entries. Name it "
                "value, email, domain, linkedinUrl or phone"
            )
        return known

    def _error(self, why: str) -> LemlistValidationError:
        return LemlistValidationError(f"{self._argument} cannot be used: {why}. Nothing was sent.")


def find_unsubscribed(hook: LemlistHook, lead: Mapping[str, str]) -> Form | None:
    """Return the form of the entry by which lemlist has a person as unsubscribed, or None."""
    for form, spelling in spellings_of(lead):
        if hook.get_unsubscribe(spelling) is not None:
            return form
    return None


def _text(value: Any) -> str:
    """Return a cell as text; a phone number may have been read as a number."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
