# SPDX-License-Identifier: Apache-2.0
"""
Bring values of the user's into lemlist's list of unsubscribed values.

    read both lists -> plan -> unsubscribe what lemlist lacks -> re-subscribe, if wanted -> read back
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.api.wire import CLOCK, SETTLE_TIME
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError, Reason
from airflow_provider_lemlist.suppression.lists import Entries, Entry
from airflow_provider_lemlist.suppression.values import Form, read_value, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.suppression.options import SyncOptions

log = logging.getLogger(__name__)

#: The sources of values that lemlist keeps unsubscribed whatever is asked for.
PROTECTED = ("lead", "abuse")
#: The most values that the log and the report name, by their ids in lemlist.
MAX_NAMED = 100


class Listed(NamedTuple):
    """An entry of lemlist's list."""

    id: str
    value: str
    source: str

    @property
    def is_protected(self) -> bool:
        return self.source.lower() in PROTECTED


def sync(hook: LemlistHook, options: SyncOptions) -> dict[str, Any]:
    """
    Unsubscribe every value that lemlist lacks; return the counts.

    :raises LemlistError: The values cannot be used, so nothing was sent; lemlist's list is another one
        afterwards; or more would be re-subscribed than is allowed, so nothing is.
    """
    with closing(_Lists()) as lists:
        entries = Entries(
            options.rows, options.argument, allow_empty=options.allow_empty, switch="allow_empty"
        )
        values = lists.read_wanted(entries)
        entries.log_findings()
        listed = lists.read_listed(hook)
        missing = lists.missing()
        extra = lists.extra() if options.resubscribe_missing else []
        refusal = _check_extra(options, len(extra), listed)
        kept = [each for each in extra if each.is_protected]
        # A value that cannot be read may be any of these.
        may_free = refusal is None and not entries.unknown
        freed = [each for each in extra if may_free and not each.is_protected]
        log.info(
            "lemlist has %s unsubscribed values, and lacks %s of the %s; %s to re-subscribe.",
            *(f"{number:,}" for number in (listed, len(missing), values, len(freed))),
        )
        if not options.dry_run:
            hook.unsubscribe_many([each.written for each in missing])
            refused = _resubscribe(hook, freed)
            freed, kept = [each for each in freed if each not in refused], kept + refused
            if missing or freed:
                _read_back(hook, lists, freed)
    if kept:
        names = ", ".join(f"{each.id} ({each.source})" for each in kept[:MAX_NAMED])
        log.warning(
            "lemlist keeps %s values unsubscribed, because the person unsubscribed or reported abuse: %s%s.",
            f"{len(kept):,}",
            names,
            ", …" * (len(kept) > MAX_NAMED),
        )
    if refusal is not None:
        raise refusal
    if entries.unknown:
        rest = "Nothing was sent" if options.dry_run else "lemlist has the others"
        raise LemlistValidationError(
            f"{options.argument}: {len(entries.unknown):,} rows have a value that is no address, domain, "
            f"LinkedIn URL or phone number; the log has their numbers. {rest}."
            + " Nothing was re-subscribed."
            * bool(extra)
        )
    return {
        "values": values,
        "listed": listed,
        "unsubscribed": len(missing),
        "resubscribed": len(freed),
        "protected": len(kept),
        "protected_ids": [each.id for each in kept[:MAX_NAMED]],
    }


def _check_extra(options: SyncOptions, extra: int, listed: int) -> LemlistValidationError | None:
    """Return an error if so much of lemlist's list is not wanted that the source is more likely broken."""
    if extra <= options.max_missing * listed:
        return None
    return LemlistValidationError(
        f"{options.argument} seems to be incomplete: it lacks {extra:,} of the {listed:,} values in lemlist, "
        f"and max_missing is {options.max_missing:g}. Nothing was re-subscribed. Check it, or raise "
        "max_missing for one run."
    )


def _resubscribe(hook: LemlistHook, entries: Sequence[Listed]) -> list[Listed]:
    """Remove entries from lemlist's list; return those that lemlist keeps."""
    kept: list[Listed] = []
    for each in entries:
        try:
            hook.resubscribe(each.value)
        except LemlistError as error:
            if error.reason is Reason.PROTECTED:
                kept.append(each)
            elif error.reason is not Reason.NOT_UNSUBSCRIBED:
                raise
    return kept


def _read_back(hook: LemlistHook, lists: _Lists, freed: Sequence[Listed]) -> None:
    """Make sure that lemlist's list has become what was asked for; it may take a moment."""
    for pause in (0.0, SETTLE_TIME):
        CLOCK.sleep(pause)
        lists.read_listed(hook)
        missing = lists.missing()
        left = {each.id for each in lists.extra()} & {each.id for each in freed}
        if not missing and not left:
            return
    rows = ", ".join(str(each.row) for each in missing[:5])
    raise LemlistError(
        f"lemlist took all values, but afterwards it lacks {len(missing):,} of them"
        f"{f' (rows {rows}, …)' * bool(rows)} and still has {len(left):,} that were re-subscribed. A retry "
        "sends these again."
    )


class Wanted(NamedTuple):
    """A value of the user's: its row, and how it is sent."""

    row: int
    written: str


class _Lists:
    """Both lists, in SQLite's own temporary database, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE wanted(text TEXT, form INTEGER, row INTEGER, written TEXT,"
            " PRIMARY KEY (text, form)) WITHOUT ROWID;"
            "CREATE TABLE listed(text TEXT, form INTEGER, id TEXT, value TEXT, source TEXT,"
            " PRIMARY KEY (text, form, id)) WITHOUT ROWID;"
            "BEGIN"
        )

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    def read_wanted(self, entries: Entries) -> int:
        """Read the values of the user's; return how many different ones they are."""
        rows = ((each.value.text, each.value.form, each.row, _sent(each)) for each in entries)
        self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, ?)", rows)
        return self._count("wanted")

    def read_listed(self, hook: LemlistHook) -> int:
        """Read lemlist's list again; return the number of its values."""
        self._database.execute("DELETE FROM listed")
        number = 0
        for row in hook.iter_unsubscribes():
            number += 1
            # What is none of the forms cannot be in the user's list, so it is never re-subscribed.
            if (value := read_value(row.get("value", ""))) is not None:
                listed = (value.text, value.form, row["_id"], row["value"], row.get("source", ""))
                self._database.execute("INSERT OR IGNORE INTO listed VALUES (?, ?, ?, ?, ?)", listed)
        return number

    def missing(self) -> list[Wanted]:
        """Return the values that lemlist lacks, in the order of the source."""
        query = f"SELECT row, written FROM wanted WHERE NOT EXISTS ({_SAME.format('listed')}) ORDER BY row"
        return [Wanted(*row) for row in self._database.execute(query)]

    def extra(self) -> list[Listed]:
        """Return what lemlist has and the user's list has not."""
        query = (
            "SELECT form, text, id, value, source FROM listed"
            f" WHERE NOT EXISTS ({_SAME.format('wanted')}) ORDER BY id"
        )
        found = self._database.execute(query).fetchall()
        return [Listed(*entry) for form, text, *entry in found if not self._is_covered(form, text)]

    def _is_covered(self, form: Form, text: str) -> bool:
        """Return whether the user's list has the domain of an entry, or one above it."""
        field = {Form.ADDRESS: "email", Form.DOMAIN: "companyDomain"}.get(form)
        query = "SELECT 1 FROM wanted WHERE form = ? AND text = ?"
        return field is not None and any(
            self._database.execute(query, value).fetchone() for value in values_of({field: text})
        )

    def _count(self, table: str) -> int:
        return int(self._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


_SAME = "SELECT 1 FROM {} WHERE listed.text = wanted.text AND listed.form = wanted.form"


def _sent(entry: Entry) -> str:
    """Return how a value is written in lemlist."""
    match entry.value.form:
        case Form.ADDRESS:
            return entry.value.text
        case Form.DOMAIN:
            return f"@{entry.value.text}"
        case _:
            return entry.text
