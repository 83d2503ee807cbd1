# SPDX-License-Identifier: Apache-2.0
"""
The account of a campaign: who was loaded into it from here, and what became of every row of every run.

A ledger is a directory, on disk or in an object store, one for each campaign:

    ledger.json                            the campaign it belongs to, and the secret of its keys
    lock                                   held while a load runs
    people.ndjson                          the runs, then everyone who was ever loaded from here
    runs/<run>/run.json                    when the run was due, and which task reads its source
    runs/<run>/settled-0001-0001.ndjson    one line per row that is done
    runs/<run>/open-0001-0001.ndjson       one line per other row; of the last attempt only
    runs/<run>/marks-0001-0001.log         rows that went in flight, or were released

The numbers are the attempt and the part; the suffix differs per process, so that two processes that both
believe to hold the lock do not overwrite each other's files. Every file is written whole, as an object store
requires it: a part is rewritten until it is full.

``people.ndjson`` is replaced at the end of a run, and names the attempts that it contains. The parts of other
attempts, which were killed or stopped, are read after it. So the files that a load reads do not grow with the
number of runs, and of old runs only the counts are kept.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.load.lock import lock_at
from airflow_provider_lemlist.storage import is_local, shown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.load.options import Run
    from airflow_provider_lemlist.load.people import People
    from airflow_provider_lemlist.load.worklist import Worklist

FORMAT = 3
READDRESSED = "address_changed"
#: What a load did to a lead because its person left the source.
LEFT = ("paused", "unsubscribed", "deleted")
#: Outcomes that stay, and those that every attempt works out again.
SETTLED = ("created", "updated", "exists", "unchanged", "elsewhere", "gone", READDRESSED, *LEFT)
OPEN = ("duplicate", "newer", "waiting", "invalid", "failed", "uncertain")
OUTCOMES = (*SETTLED, *OPEN)

#: Lines that are collected before a part is written, and lines of a full part.
FLUSH_LINES = 20
PART_LINES = 1000
#: Runs whose rows are kept, and runs whose counts are.
KEPT_ROWS = 30
KEPT_RUNS = 1000

_PART = re.compile(r"(settled|open|marks)-(\d+)-(\d+)-\w+\.(?:ndjson|log)")


class LedgerEntry(NamedTuple):
    """
    The outcome of one row; the names are those of its line.

    :param row: Its number in the source; None for a person who left it.
    :param keys: Under which the person is recognised, the strongest first.
    :param sent: Hashes of sent values that the campaign's export does not show.
    """

    row: int | None
    keys: Sequence[bytes]
    outcome: str
    lead_id: str | None = None
    message: str = ""
    sent: Mapping[str, str] | None = None

    def to_json(self) -> str:
        """Return the line of the ledger, with the current time."""
        line = self._asdict() | {"keys": [key.hex() for key in self.keys], "at": now()}
        if not self.sent:
            del line["sent"]
        return json.dumps(line, ensure_ascii=False)


class Ledger:
    """
    A ledger, open for one attempt of one load. Thread-safe.

    :param read_only: Whether nothing is written and nothing locked, as in a dry run.
    """

    def __init__(
        self, path: ObjectStoragePath, campaign_id: str, run: Run, *, read_only: bool = False
    ) -> None:
        self.path = path
        self._folder = path / "runs" / run.name
        self._campaign_id = campaign_id
        self._run = run
        self._read_only = read_only
        self._lock = lock_at(path / "lock", run.owner)
        self._writing = threading.Lock()
        self._logs: dict[str, _Log] = {}
        self._closed = False
        #: The runs that ``people.ndjson`` contains, by name.
        self._runs: dict[str, dict[str, Any]] = {}
        self._attempt = 1

    def __enter__(self) -> Ledger:
        """Acquire the lock, and make sure that the ledger belongs to this campaign."""
        if self._read_only:
            self.secret = self._read_secret() or token_bytes(32)
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self.secret = self._read_secret() or self._create()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is not written yet, and release the lock."""
        if self._read_only:
            return
        with ExitStack() as stack:  # a log that cannot be written keeps neither the others nor the lock open
            stack.callback(self._lock.release)
            with self._writing:
                self._closed = True
                for log in self._logs.values():
                    stack.callback(log.sync)

    def read(self, worklist: Worklist) -> None:
        """Read what earlier runs and attempts have written, and open the files of this attempt."""
        try:
            self._read(worklist)
        except (ValueError, TypeError, LookupError) as error:
            raise self._unusable(
                "is damaged: a line in it was not written by this package. Restore it, or set another "
                "ledger_path: the people in the campaign are recognised without it"
            ) from error
        if not self._read_only:
            description = {"order": self._run.order, "source": self._run.source, "owner": self._run.owner}
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / "run.json", [json.dumps(description)])
            self._logs = {
                kind: _Log(self._folder, kind, self._attempt) for kind in ("settled", "open", "marks")
            }
            self._remove(part for part in self._parts() if part.run == self._run.name and part.kind == "open")

    def mark_in_flight(self, rows: Collection[Sequence[bytes]]) -> None:
        """
        Record the keys of rows that are in flight, before they are sent.

        :raises LemlistError: Another load took the ledger over, or this one has ended.
        """
        with self._writing:
            self._lock.check()
            if self._closed:
                raise LemlistError("The load has ended; nothing more is sent.")
            self._logs["marks"].add([_mark("+", keys) for keys in rows])
            self._logs["marks"].sync()

    def release(self, rows: Collection[Sequence[bytes]]) -> None:
        """Record that rows are no longer in flight and that nothing was created for them."""
        with self._writing:
            if not self._closed:
                self._logs["marks"].add([_mark("-", keys) for keys in rows])

    def write(self, entry: LedgerEntry, *, urgent: bool = True) -> None:
        """Write the outcome of a row; one that took no request is not ``urgent``, for it is found again."""
        with self._writing:
            if not self._closed:  # otherwise a thread outlived the grace period; its row stays in doubt
                self._logs["open" if entry.outcome in OPEN else "settled"].add(
                    [entry.to_json()], urgent=urgent
                )

    def flush(self, *, older_than: float = 0.0) -> None:
        """Write lines that have been waiting for longer than some seconds."""
        with self._writing:
            for log in self._logs.values():
                log.sync(older_than=older_than)

    def finish(
        self, people: People, counts: Mapping[str, int], replaced: Mapping[bytes, int] | None = None
    ) -> None:
        """
        Record that every row was tried, and write what the next load reads.

        :param counts: The counts of this run.
        :param replaced: Keys of rows that several attempts have settled, and the attempt whose line counts.
        :raises LemlistError: Another load took the ledger over.
        """
        self.flush()
        self._lock.check()
        parts = [part for part in self._parts() if part.run == self._run.name]
        people.keep_seen(self._run.source, self._run.order)
        self._fold(people, self._run._asdict(), [part for part in parts if part.attempt == self._attempt])
        for part in parts:
            if replaced and part.kind == "settled" and part.attempt < self._attempt:
                lines = _outcomes(part)
                kept = (line for keys, line in lines if replaced.get(keys[0], 0) <= part.attempt)
                write_whole(part.path, map(json.dumps, kept))
        run = {"run": self._run.name, "order": self._run.order, "source": self._run.source, "at": now()}
        self._runs[self._run.name] = {**run, "attempt": self._attempt, "counts": dict(counts)}
        newest = sorted(self._runs.values(), key=lambda run: str(run["at"]))[-KEPT_RUNS:]
        head = json.dumps({"runs": newest})
        write_whole(self.path / "people.ndjson", chain([head], map(json.dumps, people.known())))
        self._remove(part for part in parts if part.kind == "marks")
        self._remove_runs(kept={str(run["run"]) for run in newest[-KEPT_ROWS:]})

    # --- Within -----------------------------------------------------------------------------------------

    def _read_secret(self) -> bytes | None:
        try:
            content = json.loads((self.path / "ledger.json").read_bytes())
            form, other = content["format"], content["campaign_id"]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise self._unusable(
                "has a ledger.json that was not written by this package; use an empty directory"
            ) from None
        if form != FORMAT:
            raise self._unusable(
                f"was written by another version of this package (format {form}, not {FORMAT}); set another "
                "ledger_path: the people in the campaign are recognised without it"
            )
        if other != self._campaign_id:
            raise self._unusable(f"belongs to campaign {other!r}, not to {self._campaign_id!r}")
        return bytes.fromhex(content["secret"])

    def _create(self) -> bytes:
        secret = token_bytes(32)
        content = {"format": FORMAT, "campaign_id": self._campaign_id, "secret": secret.hex()}
        write_whole(self.path / "ledger.json", [json.dumps(content)])
        return secret

    def _unusable(self, why: str) -> LemlistConfigurationError:
        return LemlistConfigurationError(f"The ledger {shown(self.path)} {why}. Nothing was sent.")

    def _read(self, worklist: Worklist) -> None:
        people = worklist.people
        lines = read_lines(self.path / "people.ndjson")
        self._runs = {run["run"]: run for run in json.loads(next(lines, '{"runs": []}'))["runs"]}
        for line in lines:
            people.add_known(json.loads(line))
        # Not only after its parts: a finished attempt may have none, or none any more.
        self._attempt = self._runs.get(self._run.name, {}).get("attempt", 0) + 1
        unread: dict[str, list[Part]] = {}
        for part in self._parts():
            contained = self._runs.get(part.run, {}).get("attempt", 0)
            if part.run == self._run.name:
                self._attempt = max(self._attempt, part.attempt + 1)
                if part.kind == "settled":
                    rows = (each for each in _outcomes(part) if each[1]["row"] is not None)
                    worklist.add_settled(part.attempt, ((keys, line["outcome"]) for keys, line in rows))
            if part.attempt > contained:
                unread.setdefault(part.run, []).append(part)
        for name, parts in unread.items():
            description = json.loads("".join(read_lines(self.path / "runs" / name / "run.json")))
            run = {"run": name, **description, "at": now(), "counts": {}}
            self._fold(people, run, parts)
            # The end of this load writes what they say. An interrupted run is then read no more.
            attempt = max(part.attempt for part in parts)
            self._runs[name] = {**run, **self._runs.get(name, {}), "attempt": attempt}

    def _parts(self) -> list[Part]:
        return list_parts(self.path)

    def _remove_runs(self, kept: Collection[str]) -> None:
        """Delete the files of all other runs; ``people.ndjson`` contains them."""
        for address in self.path.fs.find(f"{self.path.path}/runs"):
            if address.split("/")[-2] not in kept:
                self.path.fs.rm_file(address)
                if is_local(self.path):  # an object store has no empty directories
                    with suppress(OSError):
                        os.rmdir(os.path.dirname(address))

    def _remove(self, parts: Iterable[Part]) -> None:
        for part in parts:
            part.path.unlink()

    def _fold(self, people: People, run: Mapping[str, Any], parts: Iterable[Part]) -> None:
        """Add the marks and the outcomes of some attempts of one run, in the order of the attempts."""
        for part in sorted(parts, key=lambda part: (part.attempt, part.kind != "marks", part.number)):
            if part.kind == "marks":
                for line in read_lines(part.path):
                    keys = [bytes.fromhex(key) for key in line[1:].split()]
                    people.mark(keys, run, in_flight=line[0] == "+")
            elif part.kind == "settled":
                for keys, outcome in _outcomes(part):
                    people.record(keys, outcome, run)


# --- Files --------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """One file of a run: its kind, the attempt that wrote it, and its number within both."""

    run: str
    kind: str
    attempt: int
    number: int
    path: ObjectStoragePath


def list_parts(ledger: ObjectStoragePath) -> list[Part]:
    """List the files of all runs of a ledger, in the order in which each run wrote them."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):  # there is no ledger yet
        for address in ledger.fs.find(f"{ledger.path}/runs"):
            *_, run, name = address.split("/")
            if match := _PART.fullmatch(name):
                path = ledger / "runs" / run / name
                found.append(Part(run, match[1], int(match[2]), int(match[3]), path))
    return sorted(found, key=lambda part: part[:4])


def _outcomes(part: Part) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
    """Yield the keys and the line of each outcome."""
    for text in read_lines(part.path):
        line = json.loads(text)
        yield [bytes.fromhex(key) for key in line["keys"]], line


def read_lines(path: ObjectStoragePath) -> Iterator[str]:
    """Yield the lines of a file; none if it does not exist."""
    # Not path.open(): Airflow 2 wraps files in an object that is not iterable.
    with suppress(FileNotFoundError), path.fs.open(path.path, "rb") as file:
        for line in file:
            yield line.decode()


def write_whole(path: ObjectStoragePath, lines: Iterable[str]) -> None:
    """Write a file so that a reader, also after a kill, finds it as it was before or as it is now."""
    # An object store does that by itself.
    place = str(path.path)
    if is_local(path):
        place = os.path.join(os.path.dirname(place), f".{path.name}.new")
    with path.fs.open(place, "wb") as file:
        for line in lines:
            file.write(f"{line}\n".encode())
        if place != path.path:
            file.flush()
            os.fsync(file.fileno())
    if place != path.path:
        os.replace(place, path.path)


class _Log:
    """
    Collect lines and write them in whole parts.

    Lines are written by ``sync``, or when ``FLUSH_LINES`` have been collected. Lines that are not urgent wait
    until they fill a part.
    """

    def __init__(self, folder: ObjectStoragePath, kind: str, attempt: int) -> None:
        ends = "log" if kind == "marks" else "ndjson"
        self._folder = folder
        self._name = f"{kind}-{attempt:04}-{{:04}}-{token_hex(2)}.{ends}"
        self._part = 1
        self._lines: list[str] = []
        self._written = 0
        self._since = math.inf

    def add(self, lines: Sequence[str], *, urgent: bool = True) -> None:
        self._since = min(self._since, time.monotonic())
        self._lines += lines
        if len(self._lines) >= (self._written + FLUSH_LINES if urgent else PART_LINES):
            self.sync()

    def sync(self, *, older_than: float = 0.0) -> None:
        """Write lines if one has been waiting for so many seconds."""
        if time.monotonic() - self._since >= older_than:
            write_whole(self._folder / self._name.format(self._part), self._lines)
            self._written = len(self._lines)
            self._since = math.inf
            if self._written >= PART_LINES:
                self._part += 1
                self._lines, self._written = [], 0


def _mark(sign: str, keys: Sequence[bytes]) -> str:
    return f"{sign} {' '.join(key.hex() for key in keys)}"


def now() -> str:
    """Return the present moment as the ledger writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- Places -------------------------------------------------------------------------------------------------


def default_ledger_path(campaign_id: str, server: str) -> str:
    """
    Return the default directory of the ledger of a campaign.

    :param server: The host and port of a sandbox; empty for lemlist itself.
    """
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    names = filter(None, ("lemlist-ledgers", server, campaign_id))
    return os.path.join(os.path.expanduser(home), *map(file_name, names))


def file_name(name: str) -> str:
    """Return a valid file name that is distinct for every name."""
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:80].lstrip(".")
    return plain if plain == name else f"{plain}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
