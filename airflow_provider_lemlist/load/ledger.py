# SPDX-License-Identifier: Apache-2.0
"""
Record the outcome of every row, so that a load can be killed at any moment and continued.

A ledger is a directory, on disk or in an object store:

    ledger.json               the campaign it belongs to, and whether every row was tried
    settled-0001-0001.ndjson  one line per row that is done
    open-0001-0001.ndjson     one line per row that failed, is uncertain or invalid; of the last attempt only
    started-0001-0001.log     "+ key" when a row goes in flight, "- key" when it is released
    earlier-0001-0001.log     people that the previous ledger knows and this source does not contain
    lock                      held while a load runs

The first number is the attempt, the second the part; the suffix differs per process, so that two processes
that both believe to hold the lock do not overwrite each other's files. A row with a "+" and neither a "-" nor
a settled line was in flight when a process died. It is in doubt: the next attempt looks the lead up first.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.load.lock import lock_at
from airflow_provider_lemlist.load.parts import (
    FLUSH_LINES,
    LocalLog,
    StoredLog,
    list_parts,
    read_lines,
    truncate_partial_line,
)
from airflow_provider_lemlist.storage import is_local, shown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.load.worklist import Worklist

FORMAT = 2
#: Outcomes that are final, and outcomes that the next attempt tries again.
SETTLED = ("created", "updated", "exists", "unchanged", "elsewhere", "gone", "duplicate")
OPEN = ("invalid", "failed", "uncertain")
OUTCOMES = (*SETTLED, *OPEN)


class LedgerEntry(NamedTuple):
    """
    The outcome of one row; the names are those of its line.

    :param row_key: Identity of the person; None for an invalid row.
    :param content: Hashes of the fields as they were last sent.
    :param profile_key: Identity of the LinkedIn profile of a person who also has an address.
    """

    row: int
    row_key: bytes | None
    outcome: str
    lead_id: str | None = None
    attempts: int = 0
    message: str = ""
    content: str = ""
    profile_key: bytes | None = None

    def to_json(self) -> str:
        """Return the line of the ledger, with the current time."""
        line = self._asdict() | {
            "row_key": self.row_key.hex() if self.row_key else None,
            "profile_key": self.profile_key.hex() if self.profile_key else None,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return json.dumps(line, ensure_ascii=False)


class Ledger:
    """
    A ledger, open for one attempt of one load. Thread-safe.

    :param owner: Name of this load in the error of another one that finds the ledger in use.
    :param previous: The ledger of the previous run, recorded for the next one.
    """

    def __init__(
        self,
        path: ObjectStoragePath,
        campaign_id: str,
        owner: str,
        *,
        previous: ObjectStoragePath | None = None,
    ) -> None:
        self.path = path
        self._campaign_id = campaign_id
        self._previous = previous
        self._local = is_local(path)
        #: How many rows go in flight with one write.
        self.batch_size = 1 if self._local else FLUSH_LINES
        self._lock = lock_at(path / "lock", owner)
        self._writing = threading.Lock()
        self._logs: dict[str, LocalLog | StoredLog] = {}
        self._closed = False
        self._unsettled = 0

    def __enter__(self) -> Ledger:
        """Acquire the lock, and make sure that the ledger belongs to this campaign."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            read_description(self.path, self._campaign_id)
            self._write_description(finished=False)
            files = list_parts(self.path)
            if self._local:  # an object is always complete
                for file in files:
                    truncate_partial_line(file.path.path)
            attempt = files[-1].attempt + 1 if files else 1
            for kind in ("settled", "open", "started", "earlier"):
                self._logs[kind] = (LocalLog if self._local else StoredLog)(self.path, kind, attempt)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is not written yet, and release the lock."""
        with ExitStack() as stack:  # a log that cannot be written keeps neither the others nor the lock open
            stack.callback(self._lock.release)
            with self._writing:
                self._closed = True
                for each in self._logs.values():
                    stack.callback(each.close)

    def remove(self, kind: str) -> None:
        """Remove the files of one kind."""
        for file in list_parts(self.path, kind):
            file.path.unlink()

    def mark_in_flight(self, keys: Collection[bytes]) -> None:
        """
        Record that rows are in flight, before they are sent.

        :raises LemlistError: Another load took the ledger over, or this one has ended.
        """
        with self._writing:
            self._lock.check()
            if self._closed:
                raise LemlistError("The load has ended; nothing more is sent.")
            self._logs["started"].add([f"+ {key.hex()}" for key in keys])
            self._logs["started"].sync()
            self._unsettled += len(keys)

    def release(self, keys: Collection[bytes]) -> None:
        """Record that rows are no longer in flight and that nothing was created for them."""
        with self._writing:
            if not self._closed:
                self._logs["started"].add([f"- {key.hex()}" for key in keys])

    def write(self, entry: LedgerEntry, *, in_flight: bool = False) -> None:
        """Write the outcome of a row; ``in_flight`` if the row was."""
        with self._writing:
            if self._closed:
                return  # a thread outlived the grace period; its row stays in doubt
            settled = entry.outcome in SETTLED
            # An outcome that took no request is found again without one.
            self._logs["settled" if settled else "open"].add([entry.to_json()], urgent=in_flight)
            if in_flight and settled:
                self._unsettled -= 1

    def flush(self, *, older_than: float = 0.0) -> None:
        """Write lines that have been waiting for longer than some seconds."""
        with self._writing:
            for each in self._logs.values():
                each.sync(older_than=older_than)

    def finish(self, worklist: Worklist) -> None:
        """
        Record that every row was tried, and drop the in-flight marks if every row is settled.

        The next run reads this ledger and none before it. People that earlier ledgers know are carried over,
        because a person who is missing from this source, or invalid, may be back in the next one.
        """
        with self._writing:
            for key, lead_id, content in worklist.known_absentees():
                known = {"row_key": key.hex(), "outcome": None, "lead_id": lead_id, "content": content}
                self._logs["earlier"].add([json.dumps(known)], urgent=False)
            doubts = worklist.doubts_outside_source()
            for key, inherited in doubts:
                if inherited:
                    self._logs["started"].add([f"+ {key.hex()}"])
        self.flush()
        self._write_description(finished=True)
        if not self._unsettled and not doubts:
            self._logs["started"].close()
            self.remove("started")

    def _write_description(self, *, finished: bool) -> None:
        description = {
            "format": FORMAT,
            "campaign_id": self._campaign_id,
            "finished": finished,
            "previous": str(self._previous) if self._previous else None,
        }
        name = ".ledger.json" if self._local else "ledger.json"
        (self.path / name).write_bytes(json.dumps(description).encode())
        if self._local:  # written in place, it would be unreadable after a kill or on a full disk
            os.replace(os.path.join(self.path.path, name), os.path.join(self.path.path, "ledger.json"))


# --- Places ---------------------------------------------------------------------------------------------


def default_ledger_path(ti: Any) -> str:
    """Return the default ledger directory of a task instance, the same one for all its attempts."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    names = [ti.dag_id, ti.run_id, ti.task_id]
    if ti.map_index is not None and ti.map_index >= 0:
        names.append(str(ti.map_index))
    return os.path.join(os.path.expanduser(home), "lemlist-ledgers", *map(_file_name, names))


def _file_name(name: str) -> str:
    """Return a valid file name that is distinct for every name."""
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:80].lstrip(".")
    return plain if plain == name else f"{plain}-{blake2b(name.encode(), digest_size=4).hexdigest()}"


def latest_ledger(path: ObjectStoragePath, ledger: ObjectStoragePath) -> ObjectStoragePath:
    """
    Return the previous ledger: the path, or the last ledger by name below it before ``ledger``, our own.

    A run that was skipped therefore does not break a chain of daily ledgers.
    """
    if (path / "ledger.json").exists():
        return path
    parent, _, own = str(ledger).rstrip("/").rpartition("/")
    beside = parent == str(path).rstrip("/")
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted({entry.name for entry in path.iterdir()}, reverse=True):
            if (not beside or name < own) and (path / name / "ledger.json").exists():
                return path / name
    return path


# --- Reading --------------------------------------------------------------------------------------------


def read_description(path: ObjectStoragePath, campaign_id: str) -> dict[str, Any] | None:
    """
    Return the description of a ledger, or None if there is no ledger.

    :raises LemlistConfigurationError: It belongs to another campaign, or is not a ledger of this version.
    """
    try:
        content = json.loads((path / "ledger.json").read_bytes())
        description = {name: content[name] for name in ("format", "campaign_id", "finished", "previous")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        why = "has a ledger.json that was not written by this package; use an empty directory"
        raise _unusable(path, why) from None
    version, other = description["format"], description["campaign_id"]
    if version != FORMAT:
        why = f"was written by another version of this package (format {version}, not {FORMAT})"
        raise _unusable(path, why)
    if other != campaign_id:
        raise _unusable(path, f"belongs to campaign {other!r}, not to {campaign_id!r}; use one per campaign")
    return description


def _unusable(path: ObjectStoragePath, why: str) -> LemlistConfigurationError:
    return LemlistConfigurationError(f"The ledger {shown(path)} {why}. Nothing was sent.")


def read_history(path: ObjectStoragePath, campaign_id: str, worklist: Worklist) -> None:
    """Add to the worklist which rows are settled, and which were in flight when a process died."""
    if read_description(path, campaign_id) is None:
        return
    for file in list_parts(path, "settled"):
        worklist.add_settled(
            (key, line["outcome"]) for keys, line in _read_outcomes(file.path) for key in keys
        )
    for file in list_parts(path, "started"):
        worklist.add_in_flight((key, begun, begun) for key, begun in _read_marks(file.path))


def read_previous(
    path: ObjectStoragePath, campaign_id: str, worklist: Worklist, seen: Collection[str] = ()
) -> bool:
    """
    Add what the ledger of an earlier run knows to the worklist; return whether there is one.

    A run that did not finish does not know every row, so its own previous ledger is read as well.

    :param seen: The ledgers that led to this one.
    """
    description = read_description(path, campaign_id)
    if description is None:
        return False
    if owner := lock_at(path / "lock").holder():
        raise LemlistError(
            f"The previous ledger {shown(path)} is in use by {owner}. This load would send rows that the "
            "other one is about to send: let it end first, for example with max_active_runs=1. "
            "Nothing was sent."
        )
    if not description["finished"] and description["previous"]:
        # On Airflow 2 a path without a connection has no such attribute.
        before = type(path)(description["previous"], conn_id=getattr(path, "conn_id", None))
        if str(before) not in (seen := {*seen, str(path)}):
            read_previous(before, campaign_id, worklist, seen)
    # A row that was in flight when that run died is still in doubt.
    for file in list_parts(path, "started"):
        worklist.add_in_flight((key, 0, begun) for key, begun in _read_marks(file.path))
    for file in [*list_parts(path, "earlier"), *list_parts(path, "open", "settled")]:
        worklist.add_previous(
            (key, line["lead_id"], line["content"])
            for keys, line in _read_outcomes(file.path)
            if line["content"]
            for key in keys
        )
    for file in list_parts(path, "settled"):
        worklist.add_in_flight((keys[0], 0, False) for keys, _ in _read_outcomes(file.path))
    return True


def _read_outcomes(path: ObjectStoragePath) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
    """Yield the lines of a file with the keys of their rows."""
    for number, text in enumerate(read_lines(path), 1):
        try:
            line = json.loads(text)
            line["outcome"], line["lead_id"], line["content"]
            keys = [bytes.fromhex(key) for key in (line["row_key"], line.get("profile_key")) if key]
        except (ValueError, TypeError, KeyError):
            why = f"is damaged in line {number} of {path.name}: the row of that line would be sent again"
            raise _unusable(path.parent, why) from None
        if keys:
            yield keys, line


def _read_marks(path: ObjectStoragePath) -> Iterator[tuple[bytes, bool]]:
    for line in read_lines(path):
        sign, _, key = line.strip().partition(" ")
        yield bytes.fromhex(key), sign == "+"
