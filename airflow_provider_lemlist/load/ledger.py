# SPDX-License-Identifier: Apache-2.0
"""
What became of every row, kept so that a load can be killed at any moment and go on.

A ledger is a directory, on a disk or in an object store:

    ledger.json               the campaign it belongs to, and whether every row was tried
    settled-0001-0001.ndjson  one line for each row that needs nothing more
    open-0001-0001.ndjson     the same for rows that failed, are uncertain or invalid; the last attempt's only
    started-0001-0001.log     "+ key" before a row is sent, "- key" when it is known not to be in the campaign
    earlier-0001-0001.log     people whom the run before knew and this source does not have
    lock                      held while a load works on it

The first number is the attempt, the second the part; what follows them is of the process, so that two which
both believe to be alone do not write over each other. A row with a "+" and neither a "-" nor a settled line
was under way when a process died; it is looked for before anything else is done with it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.load.lock import LocalLock, StoredLock, held_by
from airflow_provider_lemlist.load.parts import STRIDE, LocalLog, StoredLog, files_of, lines_of, mend
from airflow_provider_lemlist.storage import is_local, shown

if TYPE_CHECKING:
    from types import TracebackType

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.load.worklist import Worklist

FORMAT = 1
#: Outcomes that need nothing more, and those that the next attempt takes up again.
SETTLED = ("created", "updated", "exists", "unchanged", "elsewhere", "gone", "duplicate")
OPEN = ("invalid", "failed", "uncertain")
OUTCOMES = (*SETTLED, *OPEN)


@dataclass(frozen=True, slots=True)
class Line:
    """
    What became of one row.

    :param row: Number of the row in the source, from 1.
    :param row_key: What the row is known by; None for an invalid row, which nothing identifies.
    :param outcome: One of ``OUTCOMES``.
    :param lead_id: Id of the lead, where it is known.
    :param attempts: How often the row was taken up.
    :param message: Why, in words.
    :param content: Hashes of the fields as they were last sent.
    :param profile_key: What a person with an address is known by as well.
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
        """Write the line, with the moment at which it is written."""
        return json.dumps(
            {
                "row": self.row,
                "row_key": self.row_key.hex() if self.row_key else None,
                "profile_key": self.profile_key.hex() if self.profile_key else None,
                "outcome": self.outcome,
                "lead_id": self.lead_id,
                "attempts": self.attempts,
                "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "message": self.message,
                "content": self.content,
            },
            ensure_ascii=False,
        )


class Ledger:
    """
    A ledger, open for one attempt of one load. Any thread may write.

    :param path: The directory.
    :param campaign_id: The campaign that is loaded.
    :param owner: How a task that finds the ledger in use is told of us.
    :param previous: The ledger of the run before, which the run after may need.
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
        #: How many rows are best begun at once.
        self.stride = 1 if self._local else STRIDE
        lock = path / "lock"
        self._lock: LocalLock | StoredLock = (
            LocalLock(lock.path, owner) if self._local else StoredLock(lock, owner)
        )
        self._writing = threading.Lock()
        self._logs: dict[str, LocalLog | StoredLog] = {}
        self._closed = False
        self._unsettled = 0

    def __enter__(self) -> Ledger:
        """Take the lock, and make sure that the ledger belongs to this campaign."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            describe(self.path, self._campaign_id)
            self._write_description(finished=False)
            attempt = max((file.attempt for file in files_of(self.path)), default=0) + 1
            for kind in ("settled", "open", "started", "earlier"):
                self._logs[kind] = (LocalLog if self._local else StoredLog)(self.path, kind, attempt)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is not written yet, and let go."""
        with ExitStack() as stack:  # whatever cannot be written any more, the rest is, and the lock is let go
            stack.callback(self._lock.release)
            with self._writing:
                self._closed = True
                for each in self._logs.values():
                    stack.callback(each.close)

    def read_back(self, worklist: Worklist) -> None:
        """Tell the worklist what earlier attempts did."""
        if self._local:  # what an object store holds is whole
            for file in files_of(self.path):
                mend(file.path.path)
        read_back(self.path, self._campaign_id, worklist)

    def clear_open(self) -> None:
        """Take away what earlier attempts left open, because it is told anew from here on."""
        for file in files_of(self.path, "open"):
            file.path.unlink()

    def start(self, keys: Collection[bytes]) -> None:
        """
        Write down, before they are sent, that rows are under way.

        :raises LemlistError: Another load took the ledger over, or this one has ended.
        """
        with self._writing:
            self._lock.check()
            if self._closed:
                raise LemlistError("The load has ended; nothing more is sent.")
            self._logs["started"].add([f"+ {key.hex()}" for key in keys])
            self._logs["started"].sync()
            self._unsettled += len(keys)

    def give_back(self, keys: Collection[bytes]) -> None:
        """Write down that rows which were started are certainly not in the campaign."""
        with self._writing:
            if not self._closed:
                self._logs["started"].add([f"- {key.hex()}" for key in keys])

    def write(self, line: Line, *, started: bool = False) -> None:
        """
        Write what became of a row.

        :param started: Whether ``start`` was called for it.
        """
        with self._writing:
            if self._closed:
                return  # from a thread that was given up; the row is in doubt and stays so
            settled = line.outcome in SETTLED
            # What took no request will be known again without one.
            self._logs["settled" if settled else "open"].add([line.to_json()], urgent=started)
            if started and settled:
                self._unsettled -= 1

    def flush(self, *, older_than: float = 0.0) -> None:
        """Write what has been waiting for some seconds."""
        with self._writing:
            for each in self._logs.values():
                if each.waiting() >= older_than:
                    each.sync()

    def finish(self, worklist: Worklist) -> None:
        """
        Write down that every row was tried. Where all are settled, outcomes are all that remains.

        The next run will read this ledger and none before it: people whom those knew are carried on, for who
        is not in the source tonight, or invalid, may be back tomorrow.
        """
        with self._writing:
            for key, lead_id, content in worklist.known_before():
                known = {"row_key": key.hex(), "outcome": None, "lead_id": lead_id, "content": content}
                self._logs["earlier"].add([json.dumps(known)], urgent=False)
            for key in worklist.doubts_before():
                self._logs["started"].add([f"+ {key.hex()}"])
        self.flush()
        self._write_description(finished=True)
        if not self._unsettled and not worklist.doubts_elsewhere():
            self._logs["started"].close()
            for file in files_of(self.path, "started"):
                file.path.unlink()

    def _write_description(self, *, finished: bool) -> None:
        about = {
            "format": FORMAT,
            "campaign_id": self._campaign_id,
            "finished": finished,
            "previous": str(self._previous) if self._previous else None,
        }
        name = ".ledger.json" if self._local else "ledger.json"
        (self.path / name).write_bytes(json.dumps(about).encode())
        if self._local:  # a disk writes in place, and what a kill or a full disk leaves could not be read
            os.replace(os.path.join(self.path.path, name), os.path.join(self.path.path, "ledger.json"))


# --- Reading --------------------------------------------------------------------------------------------


def describe(path: ObjectStoragePath, campaign_id: str) -> dict[str, Any] | None:
    """
    Return what a ledger says of itself, None when there is none.

    :raises LemlistConfigurationError: It is of another campaign, whose rows would be taken for loaded here.
    """
    try:
        about = json.loads((path / "ledger.json").read_bytes())
        known = {name: about[name] for name in ("format", "campaign_id", "finished", "previous")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise LemlistConfigurationError(
            f"{shown(path)} holds a ledger.json that is none of ours; give the ledger a directory of its "
            "own. Nothing was sent."
        ) from None
    if known["format"] != FORMAT:
        raise LemlistConfigurationError(
            f"The ledger {shown(path)} was written by another version of this package (its format is "
            f"{known['format']}, not {FORMAT}). Nothing was sent."
        )
    if known["campaign_id"] != campaign_id:
        raise LemlistConfigurationError(
            f"The ledger {shown(path)} belongs to campaign {known['campaign_id']!r}, not to "
            f"{campaign_id!r}; give each campaign a ledger of its own. Nothing was sent."
        )
    return known


def read_back(path: ObjectStoragePath, campaign_id: str, worklist: Worklist) -> None:
    """Tell the worklist which rows are settled, and which were under way when a process died."""
    if describe(path, campaign_id) is None:
        return
    for file in files_of(path, "settled"):
        worklist.note_settled((key, row["outcome"]) for keys, row in _rows(file.path) for key in keys)
    for file in files_of(path, "started"):
        worklist.note_started((key, begun, begun) for key, begun in _marks(file.path))


def read_previous(
    path: ObjectStoragePath, campaign_id: str, worklist: Worklist, seen: Collection[str] = ()
) -> bool:
    """
    Tell the worklist what the ledger of an earlier run knows; say whether there is one.

    A run that did not come to its end does not know of every row, so the one before it is read too.

    :param seen: The ledgers that led to this one.
    """
    about = describe(path, campaign_id)
    if about is None:
        return False
    if owner := held_by(path / "lock"):
        raise LemlistError(
            f"The previous ledger {shown(path)} is in use by {owner}. This load would send again what that "
            "one is about to send: let it end first, as max_active_runs=1 does for the runs of a DAG. "
            "Nothing was sent."
        )
    if not about["finished"] and about["previous"]:
        # A path without a connection has no such attribute on Airflow 2.
        conn_id = getattr(path, "conn_id", None)
        before = type(path)(about["previous"], conn_id=conn_id)
        if str(before) not in (seen := {*seen, str(path)}):
            read_previous(before, campaign_id, worklist, seen)
    # What was under way when that run died is as much in doubt in this one.
    for file in files_of(path, "started"):
        worklist.note_started((key, 0, begun) for key, begun in _marks(file.path))
    for file in [*files_of(path, "earlier"), *files_of(path, "open", "settled")]:
        worklist.note_previous(
            (key, row["lead_id"], row["content"])
            for keys, row in _rows(file.path)
            if row["content"]
            for key in keys
        )
    for file in files_of(path, "settled"):
        worklist.note_started((keys[0], 0, False) for keys, _ in _rows(file.path))
    return True


def last_ledger(path: ObjectStoragePath, ledger: ObjectStoragePath) -> ObjectStoragePath:
    """
    Return the ledger that a path means: itself, or of those in it the last by name before our own.

    So a night that was left out breaks no chain of nightly ledgers.

    :param ledger: Our own.
    """
    if (path / "ledger.json").exists():
        return path
    names: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        names = sorted({entry.name for entry in path.iterdir()}, reverse=True)
    parent, _, own = str(ledger).rstrip("/").rpartition("/")
    beside = parent == str(path).rstrip("/")
    for name in names:
        if (not beside or name < own) and (path / name / "ledger.json").exists():
            return path / name
    return path


def _rows(path: ObjectStoragePath) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
    """Give the lines of a file, each with what its row is known by."""
    for number, line in enumerate(lines_of(path), 1):
        try:
            row = json.loads(line)
            row["outcome"], row["lead_id"], row["content"]
            keys = [bytes.fromhex(key) for key in (row["row_key"], row.get("profile_key")) if key]
        except (ValueError, TypeError, KeyError):
            raise LemlistConfigurationError(
                f"Line {number} of {shown(path)} is no line of a ledger. Put it right: rows that a ledger "
                "does not know are sent again. Nothing was sent."
            ) from None
        if keys:
            yield keys, row


def _marks(path: ObjectStoragePath) -> Iterator[tuple[bytes, bool]]:
    for line in lines_of(path):
        sign, _, key = line.strip().partition(" ")
        yield bytes.fromhex(key), sign == "+"
