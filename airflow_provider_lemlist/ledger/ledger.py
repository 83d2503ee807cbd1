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
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.ledger.lock import lock_at
from airflow_provider_lemlist.storage import is_local, read_lines, shown, write_whole

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.ledger.people import People

FORMAT = 3
READDRESSED = "address_changed"
#: What a load did to a lead because its person left the source.
LEFT = ("paused", "unsubscribed", "deleted")
#: Outcomes that stay, and those that every attempt works out again.
SETTLED = ("created", "updated", "exists", "unchanged", "elsewhere", "gone", READDRESSED, *LEFT)
OPEN = ("duplicate", "suppressed", "newer", "waiting", "invalid", "failed", "uncertain")
OUTCOMES = (*SETTLED, *OPEN)
#: With those of voice notes.
ANY_OUTCOME = ("uploaded", *OUTCOMES)

#: Lines that are collected before a part is written, and lines of a full part.
FLUSH_LINES = 20
PART_LINES = 1000
#: Runs whose rows are kept, and runs whose counts are.
KEPT_ROWS = 30
KEPT_RUNS = 1000

_PART = re.compile(r"(settled|open|marks)-(\d+)-(\d+)-\w+\.(?:ndjson|log)")


class Run(NamedTuple):
    """
    One run of a DAG, as the ledger knows it.

    :param name: Name of its folder, the same for every attempt.
    :param order: The moment up to which its data goes, as sortable text.
    :param source: Which task reads the source. People leave the source of the task that loaded them.
    :param owner: Name of this attempt, in the error of another load that finds the ledger in use.
    """

    name: str
    order: str
    source: str
    owner: str


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
        return json.dumps(line)


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
        #: The open lines of the attempt before; this one replaces them with its first line.
        self._outdated: list[Part] = []
        #: The runs that were read, by name; one that was interrupted has no counts.
        self.runs: dict[str, dict[str, Any]] = {}
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

    def read(self, people: People) -> None:
        """Read what earlier runs and attempts have written, and open the files of this attempt."""
        with damage_named(self.path):
            self._read(people)
        if not self._read_only:
            description = {"order": self._run.order, "source": self._run.source, "owner": self._run.owner}
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(self._folder / "run.json", [json.dumps(description)])
            self._logs = {
                kind: _Log(self._folder, kind, self._attempt) for kind in ("settled", "open", "marks")
            }

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
                self._remove_outdated()
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
        self._remove_outdated()
        parts = [part for part in self._parts() if part.run == self._run.name]
        people.keep_seen(self._run.source, self._run.order)
        self._fold(people, self._run._asdict(), [part for part in parts if part.attempt == self._attempt])
        for part in parts:
            if replaced and part.kind == "settled" and part.attempt < self._attempt:
                lines = outcomes_in(part)
                kept = (line for keys, line in lines if replaced.get(b"".join(keys[:1]), 0) <= part.attempt)
                _write(part.path, map(json.dumps, kept))
        run = {"run": self._run.name, "order": self._run.order, "source": self._run.source, "at": now()}
        self.runs[self._run.name] = {**run, "attempt": self._attempt, "counts": dict(counts)}
        newest = sorted(self.runs.values(), key=lambda run: str(run["at"]))[-KEPT_RUNS:]
        head = json.dumps({"runs": newest})
        _write(self.path / "people.ndjson", chain([head], map(json.dumps, people.known())))
        self._remove(part for part in parts if part.kind == "marks")
        self._remove_runs(kept={str(run["run"]) for run in newest[-KEPT_ROWS:]})

    # --- Within -----------------------------------------------------------------------------------------

    def _read_secret(self) -> bytes | None:
        if (description := read_description(self.path)) is None:
            return None
        other, secret = description
        if other != self._campaign_id:
            raise _unusable(self.path, f"belongs to campaign {other!r}, not to {self._campaign_id!r}")
        return secret

    def _create(self) -> bytes:
        secret = token_bytes(32)
        content = {"format": FORMAT, "campaign_id": self._campaign_id, "secret": secret.hex()}
        _write(self.path / "ledger.json", [json.dumps(content)])
        return secret

    def _read(self, people: People) -> None:
        lines = read_lines(self.path / "people.ndjson")
        self.runs = {run["run"]: run for run in json.loads(next(lines, '{"runs": []}'))["runs"]}
        for line in lines:
            people.add_known(json.loads(line))
        # Not only after its parts: a finished attempt may have none, or none any more.
        self._attempt = self.runs.get(self._run.name, {}).get("attempt", 0) + 1
        unread: dict[str, list[Part]] = {}
        for part in self._parts():
            contained = self.runs.get(part.run, {}).get("attempt", 0)
            if part.run == self._run.name:
                self._attempt = max(self._attempt, part.attempt + 1)
                if part.kind == "open":
                    self._outdated.append(part)
                elif part.kind == "settled":
                    rows = (each for each in outcomes_in(part) if each[1]["row"] is not None)
                    people.add_settled(part.attempt, ((keys, line["outcome"]) for keys, line in rows))
            if part.attempt > contained:
                unread.setdefault(part.run, []).append(part)
        for name, parts in unread.items():
            description = json.loads("".join(read_lines(self.path / "runs" / name / "run.json")))
            run = {"run": name, **description, "at": now(), "counts": {}}
            self._fold(people, run, parts)
            # The end of this load writes what they say. An interrupted run is then read no more.
            self.runs[name] = {**run, "attempt": max(part.attempt for part in parts)}

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

    def _remove_outdated(self) -> None:
        self._remove(self._outdated)
        self._outdated = []

    def _remove(self, parts: Iterable[Part]) -> None:
        for part in parts:
            part.path.unlink()

    def _fold(self, people: People, run: Mapping[str, Any], parts: Iterable[Part]) -> None:
        """Add the marks and the outcomes of some attempts of one run, in the order of the attempts."""
        for part in sorted(parts, key=lambda part: (part.attempt, part.kind != "marks", part.number)):
            if part.kind == "marks":
                for keys, in_flight in marks_in(part):
                    people.mark(keys, run, in_flight=in_flight)
            elif part.kind == "settled":
                for keys, outcome in outcomes_in(part):
                    people.record(keys, outcome, run)


# --- Files --------------------------------------------------------------------------------------------------


def read_description(ledger: ObjectStoragePath) -> tuple[str, bytes] | None:
    """
    Return the campaign of a ledger and the secret of its keys, or None if there is no ledger.

    :raises LemlistConfigurationError: It is not a ledger of this format.
    """
    try:
        content = json.loads((ledger / "ledger.json").read_bytes())
        form, campaign_id = content["format"], content["campaign_id"]
        if form == FORMAT:
            return campaign_id, bytes.fromhex(content["secret"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise _unusable(
            ledger, "has a ledger.json that was not written by this package; use an empty directory"
        ) from None
    raise _unusable(
        ledger,
        f"was written by another version of this package (format {form}, not {FORMAT}); set "
        "another ledger_path: the people in the campaign are recognised without it",
    )


@contextmanager
def damage_named(ledger: ObjectStoragePath) -> Iterator[None]:
    """
    Raise one error for whatever in the files of a ledger cannot be read.

    :raises LemlistConfigurationError: A file is damaged.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise _unusable(
            ledger,
            "is damaged: a line in it was not written by this package. Restore it, or set another "
            "ledger_path: the people in the campaign are recognised without it",
        ) from error


def _unusable(ledger: ObjectStoragePath, why: str) -> LemlistConfigurationError:
    return LemlistConfigurationError(f"The ledger {shown(ledger)} {why}. Nothing was sent.")


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


def outcomes_in(part: Part) -> Iterator[tuple[list[bytes], dict[str, Any]]]:
    """Yield the keys and the line of each outcome."""
    for text in read_lines(part.path):
        line = json.loads(text)
        yield [bytes.fromhex(key) for key in line["keys"]], line


def marks_in(part: Part) -> Iterator[tuple[list[bytes], bool]]:
    """Yield the keys of each mark, and whether the row went in flight."""
    for line in read_lines(part.path):
        yield [bytes.fromhex(key) for key in line[1:].split()], line[0] == "+"


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
        if not lines:
            return
        self._since = min(self._since, time.monotonic())
        self._lines += lines
        if len(self._lines) >= (self._written + FLUSH_LINES if urgent else PART_LINES):
            self.sync()

    def sync(self, *, older_than: float = 0.0) -> None:
        """Write lines if one has been waiting for so many seconds."""
        if time.monotonic() - self._since >= older_than:
            _write(self._folder / self._name.format(self._part), self._lines)
            self._written = len(self._lines)
            self._since = math.inf
            if self._written >= PART_LINES:
                self._part += 1
                self._lines, self._written = [], 0


def _write(path: ObjectStoragePath, lines: Iterable[str]) -> None:
    began = time.monotonic()
    try:
        write_whole(path, lines)
    except Exception:
        metrics.LEDGER_FAILURES.add()
        raise
    metrics.LEDGER_WRITES.record(time.monotonic() - began)


def _mark(sign: str, keys: Sequence[bytes]) -> str:
    return f"{sign} {' '.join(key.hex() for key in keys)}"


def now() -> str:
    """Return the present moment as the ledger writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- Places -------------------------------------------------------------------------------------------------


def default_ledger_path(campaign_id: str, server: str, *, step_id: str = "") -> str:
    """
    Return the default directory of the ledger of a campaign.

    :param server: The host and port of a sandbox; empty for lemlist itself.
    :param step_id: The voice-note step, for the ledger of its voice notes.
    """
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    names = filter(None, ("lemlist-ledgers", server, campaign_id, step_id and f"voice-{step_id}"))
    return os.path.join(os.path.expanduser(home), *map(file_name, names))


def file_name(name: str) -> str:
    """Return a valid file name that is distinct for every name."""
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:80].lstrip(".")
    return plain if plain == name else f"{plain}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
