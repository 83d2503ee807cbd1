# SPDX-License-Identifier: Apache-2.0
"""The ledger has the outcome of every row, on disk and in an object store, however an attempt ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from bucket import Bucket

from airflow_provider_lemlist.delivery.identity import Kind
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.ledger import ledger as ledger_module
from airflow_provider_lemlist.ledger import lock
from airflow_provider_lemlist.ledger.ledger import (
    Ledger,
    LedgerEntry,
    Run,
    default_ledger_path,
    file_name,
    list_parts,
    read_lines,
    write_whole,
)
from airflow_provider_lemlist.ledger.people import Person
from airflow_provider_lemlist.load.worklist import Worklist

Place = Callable[[str], ObjectStoragePath]
CAMPAIGN = "cam_1"
MONDAY, TUESDAY, WEDNESDAY = (
    Run(name, f"2026-11-{day}", "people.load", f"a test of {name}")
    for name, day in (("monday", 16), ("tuesday", 17), ("wednesday", 18))
)
#: Of a load without rows.
NO_OPTIONS: Any = SimpleNamespace(max_new=None)
NO_SITUATION: Any = None
KEYS = [[bytes([Kind.EMAIL, number]) * 8] for number in range(8)]


class Killed(BaseException):
    """What ends an attempt of a test."""


@pytest.fixture(autouse=True)
def _no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.StoredLock, "settle_time", 0.0)
    monkeypatch.setattr(lock.StoredLock, "heartbeat", 0.05)
    # On a busy machine a heartbeat may be late; no test here waits for a lock to expire.
    monkeypatch.setattr(lock.StoredLock, "max_missed", 100)


@pytest.fixture
def path(place: Place) -> ObjectStoragePath:
    return place("ledger")


@contextmanager
def attempt(path: ObjectStoragePath, run: Run = MONDAY) -> Iterator[tuple[Ledger, Worklist]]:
    """Open a ledger and read it; what raises ``Killed`` leaves it as a kill does."""
    ledger = Ledger(path, CAMPAIGN, run).__enter__()
    try:
        with closing(Worklist(ledger.secret)) as worklist:
            ledger.read(worklist.people)
            yield ledger, worklist
    except Killed:
        ledger._lock.release()  # as the death of the process does
        raise
    else:
        ledger.__exit__(None, None, None)


def finish(path: ObjectStoragePath, run: Run, *entries: LedgerEntry, replaced: Any = None) -> None:
    """Record the outcomes of a run, and finish it."""
    with attempt(path, run) as (ledger, worklist):
        ledger.mark_in_flight([entry.keys for entry in entries])
        for entry in entries:
            ledger.write(entry)
        counts = {"created": sum(entry.outcome == "created" for entry in entries)}
        ledger.finish(worklist.people, counts, replaced)


@contextmanager
def reading(path: ObjectStoragePath, run: Run = WEDNESDAY) -> Iterator[Worklist]:
    """Read a ledger as the next load does, without changing it."""
    with Ledger(path, CAMPAIGN, run, read_only=True) as ledger, closing(Worklist(ledger.secret)) as worklist:
        ledger.read(worklist.people)
        yield worklist


def people(path: ObjectStoragePath) -> dict[int, Person]:
    """Return whom the next load knows, by the number of their keys."""
    with reading(path) as worklist:
        found = {number: worklist.people.find(keys) for number, keys in enumerate(KEYS)}
        assert all(len(each) <= 1 for each in found.values())
        return {number: each[0] for number, each in found.items() if each}


def known(path: ObjectStoragePath) -> list[Any]:
    with reading(path) as worklist:
        return sorted(worklist.people.known(), key=lambda person: person["keys"])


def settled(path: ObjectStoragePath, run: Run) -> dict[int, str]:
    """Return what earlier attempts of a run have settled, as its next attempt knows it."""
    with reading(path, run) as worklist:
        found = {number: worklist.people.settled(keys) for number, keys in enumerate(KEYS)}
        return {number: outcome for number, outcome in found.items() if outcome}


def rows(path: ObjectStoragePath, run: Run = MONDAY) -> list[dict[str, Any]]:
    """Read every outcome of a run as a user would: from all its ``*.ndjson`` files."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for file in (path / "runs" / run.name).iterdir():
            if file.name.endswith(".ndjson"):
                found += [json.loads(line) for line in file.read_bytes().decode().splitlines()]
    return sorted(found, key=lambda row: row["row"])


def outcomes(path: ObjectStoragePath, run: Run = MONDAY) -> list[tuple[int, str]]:
    return [(row["row"], row["outcome"]) for row in rows(path, run)]


def kinds(path: ObjectStoragePath) -> set[str]:
    return {part.kind for part in list_parts(path)}


def files(path: ObjectStoragePath) -> dict[str, bytes]:
    return {name: path.fs.cat_file(name) for name in path.fs.find(path.path)}


def created(number: int, **more: Any) -> LedgerEntry:
    return LedgerEntry(number, KEYS[number], "created", f"lea_{number}", **more)


# --- The lines ----------------------------------------------------------------------------------------------


def test_each_outcome_is_one_readable_line(path: ObjectStoragePath) -> None:
    with attempt(path) as (ledger, _):
        ledger.write(created(1, sent={"plan": "abc"}))
        ledger.write(LedgerEntry(2, KEYS[2], "failed", message="why"))
        ledger.write(LedgerEntry(3, [], "invalid", message="email: no"), urgent=False)
        ledger.write(LedgerEntry(None, KEYS[4], "paused", "lea_4"))
    found = [json.loads(line) for part in list_parts(path) for line in read_lines(part.path)]
    assert all(line.pop("at").endswith("Z") for line in found)
    keys = {number: [key.hex() for key in KEYS[number]] for number in (1, 2, 4)}
    assert found == [
        {"row": 2, "keys": keys[2], "outcome": "failed", "lead_id": None, "message": "why"},
        {"row": 3, "keys": [], "outcome": "invalid", "lead_id": None, "message": "email: no"},
        {"row": 1, "keys": keys[1], "outcome": "created", "lead_id": "lea_1", "message": "",
         "sent": {"plan": "abc"}},
        {"row": None, "keys": keys[4], "outcome": "paused", "lead_id": "lea_4", "message": ""},
    ]  # fmt: skip


def test_parts_have_bounded_size(path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PART_LINES", 40)
    with attempt(path) as (ledger, _):
        for number in range(220):
            ledger.mark_in_flight([KEYS[0]])
            ledger.write(LedgerEntry(number, KEYS[0], "created"))
    assert len(rows(path)) == 220
    for kind in ("settled", "marks"):
        lines = [len(list(read_lines(part.path))) for part in list_parts(path) if part.kind == kind]
        assert lines == [40, 40, 40, 40, 40, 20]


def test_outcomes_without_request_are_written_in_full_parts(path: ObjectStoragePath) -> None:
    with attempt(path) as (ledger, _):
        before = Bucket.puts
        for number in range(2000):
            ledger.write(LedgerEntry(number, KEYS[0], "unchanged"), urgent=False)
        assert Bucket.puts - before <= 2 + 1  # a heartbeat of the lock
    assert len(rows(path)) == 2000


def test_outcomes_are_written_after_some_seconds_at_the_latest(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    with attempt(path) as (ledger, _):
        monkeypatch.setattr(ledger_module.time, "monotonic", lambda: now[0])
        ledger.write(created(0))
        ledger.flush(older_than=2.0)
        assert not rows(path)
        now[0] += 2.0
        ledger.flush(older_than=2.0)
        assert outcomes(path) == [(0, "created")]
        monkeypatch.undo()


# --- What a killed or stopped attempt leaves ----------------------------------------------------------------


def test_killed_attempt_leaves_rows_in_flight_in_doubt(path: ObjectStoragePath) -> None:
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.mark_in_flight(KEYS[:4])
        ledger.write(created(0))
        ledger.write(LedgerEntry(1, KEYS[1], "failed"))
        ledger.release(KEYS[1:3])
        ledger.flush()
        ledger.mark_in_flight(KEYS[4:5])
        raise Killed
    found = people(path)
    assert {number: person.in_doubt for number, person in found.items()} == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}
    assert (found[0].lead_id, found[0].run) == ("lea_0", MONDAY.order)
    assert settled(path, MONDAY) == {0: "created"}
    assert not settled(path, TUESDAY)


def test_at_most_twenty_outcomes_are_lost_by_a_kill_and_their_rows_stay_in_doubt(
    path: ObjectStoragePath,
) -> None:
    keys = [[bytes([Kind.EMAIL, *number.to_bytes(2)])] for number in range(250)]
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.mark_in_flight(keys)
        for number, each in enumerate(keys):
            ledger.write(LedgerEntry(number, each, "created", f"lea_{number}"))
        ledger.write(LedgerEntry(250, [b"x"], "created", "lea_250"))
        raise Killed
    with reading(path) as worklist:
        found = [worklist.people.find(each)[0] for each in keys]
    assert sum(person.in_doubt for person in found) < 20
    assert all(person.in_doubt != bool(person.lead_id) for person in found)


def test_stopped_attempt_writes_what_it_knows(path: ObjectStoragePath) -> None:
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.mark_in_flight(KEYS[:3])
        ledger.write(created(0))
        ledger.release([KEYS[1]])
        ledger.__exit__(None, None, None)
        raise Killed
    assert {number: person.in_doubt for number, person in people(path).items()} == {0: 0, 1: 0, 2: 1}
    assert settled(path, MONDAY) == {0: "created"}
    with attempt(path) as (_, worklist):  # its lock was released
        assert worklist.people.settled(KEYS[0]) == "created"


def test_open_outcomes_are_those_of_the_last_attempt(path: ObjectStoragePath) -> None:
    for message in ("first", "second"):
        with attempt(path) as (ledger, _):
            ledger.write(LedgerEntry(1, KEYS[1], "failed", message=message))
            ledger.write(LedgerEntry(2, [], "invalid"), urgent=False)
    assert [(row["row"], row["message"]) for row in rows(path)] == [(1, "second"), (2, "")]


def test_attempts_of_one_run_are_read_in_their_order(path: ObjectStoragePath) -> None:
    for number in range(12):
        with attempt(path) as (ledger, _):
            ledger.mark_in_flight([KEYS[0]])
            if number % 2:
                ledger.release([KEYS[0]])
            ledger.write(LedgerEntry(1, KEYS[1], "updated", sent={"attempt": str(number)}))
    person = people(path)
    assert not person[0].in_doubt  # 11 is odd
    assert json.loads(person[1].sent) == {"attempt": "11"}


def test_doubt_is_over_when_a_newer_run_has_settled_the_person(path: ObjectStoragePath) -> None:
    with suppress(Killed), attempt(path, MONDAY) as (ledger, _):
        ledger.mark_in_flight(KEYS[:2])
        raise Killed
    finish(path, TUESDAY, LedgerEntry(0, KEYS[0], "exists", "lea_0"))
    assert {number: person.in_doubt for number, person in people(path).items()} == {0: 0, 1: 1}


def test_older_run_does_not_change_what_a_newer_one_has_recorded(path: ObjectStoragePath) -> None:
    finish(path, TUESDAY, created(0, sent={"plan": "new"}))
    finish(path, MONDAY, LedgerEntry(0, KEYS[0], "updated", "lea_0", sent={"plan": "old"}), created(1))
    found = people(path)
    assert (found[0].run, found[1].run) == (TUESDAY.order, MONDAY.order)
    assert json.loads(found[0].sent) == {"plan": "new"}


def test_killed_attempt_of_a_cleared_run_is_read_even_if_no_part_of_the_first_is_left(
    path: ObjectStoragePath,
) -> None:
    finish(path, MONDAY)  # of an empty source
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.mark_in_flight([KEYS[1]])
        raise Killed
    assert people(path)[1].in_doubt


def test_two_processes_with_the_lock_do_not_overwrite_each_other(path: ObjectStoragePath) -> None:
    with attempt(path) as (one, _):
        one._lock.release()
        with attempt(path) as (other, _):
            for number, ledger in enumerate((one, other, one, other)):
                ledger.mark_in_flight([KEYS[number]])
                ledger.write(created(number))
    assert outcomes(path) == [(number, "created") for number in range(4)]


def test_thread_that_outlives_grace_period_writes_nothing(path: ObjectStoragePath) -> None:
    with attempt(path) as (ledger, _):
        ledger.mark_in_flight(KEYS[:1])
    ledger.write(created(0))
    ledger.release(KEYS[:1])
    with pytest.raises(LemlistError, match="has ended"):
        ledger.mark_in_flight(KEYS[1:2])
    assert {number: person.in_doubt for number, person in people(path).items()} == {0: True}


def test_load_that_lost_the_lock_marks_nothing_in_flight(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise LemlistError("took the ledger over")

    with attempt(path) as (ledger, _):
        monkeypatch.setattr(ledger._lock, "check", lost)
        with pytest.raises(LemlistError, match="took the ledger over"):
            ledger.mark_in_flight(KEYS[:1])
    assert not people(path)


# --- Writing fails ------------------------------------------------------------------------------------------


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[bool]:
    """Kill the process before it changes a file for the nth time; return these changes."""
    changes: list[bool] = []

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def perform(path: ObjectStoragePath, *arguments: Any) -> None:
            changes.append(path.name != "lock")
            if sum(changes) >= number and path.name != "lock":
                raise Killed
            change(path, *arguments)

        return perform

    monkeypatch.setattr(ledger_module, "write_whole", counted(write_whole))
    monkeypatch.setattr(ObjectStoragePath, "unlink", counted(ObjectStoragePath.unlink))
    return changes


#: What the last run comes to: row 0 takes a request again, rows 2 and 3 are new, row 1 is kept.
LAST = [
    LedgerEntry(0, KEYS[0], "updated", "lea_0", sent={"plan": "b"}),
    created(2),
    LedgerEntry(3, KEYS[3], "exists", "lea_3"),
    LedgerEntry(6, KEYS[6], "uncertain"),
    LedgerEntry(7, KEYS[7], "waiting"),
]


def last_run(path: ObjectStoragePath) -> None:
    """Clear a run that has finished, or continue it: rows that are settled are not sent again."""
    with attempt(path, TUESDAY) as (ledger, worklist):
        sent = [entry for entry in LAST if worklist.people.settled(entry.keys) != entry.outcome]
        replaced = worklist.plan(NO_OPTIONS, NO_SITUATION)
        if LAST[0] in sent:
            replaced[KEYS[0][0]] = 99
        ledger.mark_in_flight([entry.keys for entry in sent])
        for entry in sent:
            ledger.write(entry)
        ledger.finish(worklist.people, {"created": 2}, replaced)


def prepare(path: ObjectStoragePath) -> ObjectStoragePath:
    """Finish a run, and leave a killed attempt of an older one."""
    finish(path, TUESDAY, created(0, sent={"plan": "a"}), created(1))
    with suppress(Killed), attempt(path, MONDAY) as (ledger, _):
        ledger.mark_in_flight(KEYS[4:6])
        ledger.write(created(4))
        ledger.flush()
        raise Killed
    return path


def test_attempt_killed_between_any_two_changes_of_files_is_continued(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_ROWS", 1)
    whole = prepare(place("whole"))
    last_run(whole)
    for number in count(1):
        path = prepare(place(f"killed-{number}"))
        with monkeypatch.context() as patch, suppress(Killed):
            changes = killed_at(patch, number)
            last_run(path)
        if sum(changes) < number:
            break
        if settled(path, TUESDAY) == settled(whole, TUESDAY):  # the next load knows the same already
            assert people(path) == people(whole)
        last_run(path)  # as its retry does
        assert known(path) == known(whole)
        assert outcomes(path, TUESDAY) == outcomes(whole, TUESDAY)
    assert number >= 8


def test_lock_is_released_even_if_last_lines_cannot_be_written(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.mark_in_flight(KEYS[:1])
        ledger.write(created(0))
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "write_whole", fail)
            with pytest.raises(OSError, match="No space"):
                ledger.__exit__(None, None, None)
        raise Killed
    assert people(path)[0].in_doubt
    with attempt(path):
        pass


def test_files_that_are_written_are_timed_and_those_that_fail_are_counted(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch, emitted: Any
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with attempt(path) as (ledger, _):
        ledger.mark_in_flight(KEYS[:1])
        written = len(emitted.timings["lemlist.ledger_writes"])
        assert written == 3  # ledger.json, run.json, the marks
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "write_whole", fail)
            with pytest.raises(OSError, match="No space"):
                ledger.mark_in_flight(KEYS[1:2])
        assert emitted.counters == {"lemlist.ledger_failures": 1}
        assert len(emitted.timings["lemlist.ledger_writes"]) == written


def test_full_disk_loses_no_line_that_was_written_before_or_after(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(path: ObjectStoragePath, lines: Any) -> None:
        (path.parent / f".{path.name}.new").write_bytes(next(iter(lines)).encode()[:30])
        raise OSError(28, "No space left on device")

    with attempt(path) as (ledger, _):
        ledger.write(created(0))
        ledger.flush()
        with monkeypatch.context() as patch:
            patch.setattr(ledger_module, "write_whole", cut_off)
            ledger.write(created(1))
            with pytest.raises(OSError, match="No space"):
                ledger.flush()
            assert outcomes(path) == [(0, "created")]
        ledger.write(created(2))  # there is space again
    assert outcomes(path) == [(0, "created"), (1, "created"), (2, "created")]
    assert {*people(path)} == {0, 1, 2}


def test_interrupted_write_leaves_the_old_file(place: Place) -> None:
    (place("x")).mkdir(parents=True, exist_ok=True)
    path = place("x") / "people.ndjson"
    write_whole(path, ["old", "old"])

    def lines() -> Iterator[str]:
        yield "new"
        if place("x").protocol == "bucket":
            os._exit(7)  # a store drops an upload that is not completed
        os.kill(os.getpid(), 9)

    child = os.fork()
    if not child:
        write_whole(path, lines())
    os.waitpid(child, 0)
    assert list(read_lines(path)) == ["old\n", "old\n"]
    write_whole(path, ["new"])
    assert [file.name for file in path.parent.iterdir()] == ["people.ndjson"]
    assert list(read_lines(path)) == ["new\n"]


# --- Replaced lines -----------------------------------------------------------------------------------------


def test_row_of_cleared_run_that_takes_a_request_again_has_one_line(path: ObjectStoragePath) -> None:
    finish(path, MONDAY, created(0), created(1), created(2))
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.write(LedgerEntry(0, KEYS[0], "updated", "lea_0"))
        ledger.flush()
        raise Killed
    assert settled(path, MONDAY) == {0: "updated", 1: "created", 2: "created"}
    with attempt(path) as (ledger, worklist):
        replaced = worklist.plan(NO_OPTIONS, NO_SITUATION)
        ledger.write(LedgerEntry(1, KEYS[1], "failed"))
        ledger.finish(worklist.people, {}, replaced | dict.fromkeys(KEYS[1], 99))
    assert outcomes(path) == [(0, "updated"), (1, "failed"), (2, "created")]
    assert settled(path, MONDAY) == {0: "updated", 2: "created"}


def test_line_of_another_person_with_the_same_profile_is_not_replaced(path: ObjectStoragePath) -> None:
    profile = bytes([Kind.PROFILE]) * 16
    finish(path, MONDAY, *(created(number)._replace(keys=[*KEYS[number], profile]) for number in (0, 1)))
    assert settled(path, MONDAY) == {0: "created", 1: "created"}
    with reading(path, MONDAY) as worklist:
        assert worklist.people.settled([*KEYS[2], profile]) is None
    updated = LedgerEntry(0, [*KEYS[0], profile], "updated", "lea_0")
    finish(path, MONDAY, updated, replaced=dict.fromkeys(updated.keys, 99))
    assert outcomes(path) == [(0, "updated"), (1, "created")]


# --- Many runs ----------------------------------------------------------------------------------------------


def runs(number: int) -> list[Run]:
    return [Run(f"run-{n}", f"2026-11-{n:02}", "people.load", "a test") for n in range(1, number + 1)]


def test_rows_of_old_runs_are_dropped_and_later_their_counts(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_ROWS", 2)
    monkeypatch.setattr(ledger_module, "KEPT_RUNS", 4)
    for number, run in enumerate(runs(6)):
        finish(path, run, created(number))
    assert [outcomes(path, run) for run in runs(6)] == [[]] * 4 + [[(4, "created")], [(5, "created")]]
    assert {name.split("/")[-2] for name in path.fs.find(f"{path.path}/runs")} == {"run-5", "run-6"}
    head = json.loads(next(read_lines(path / "people.ndjson")))["runs"]
    assert all(run.pop("at").endswith("Z") for run in head)
    assert head == [
        {"run": f"run-{n}", "order": f"2026-11-{n:02}", "source": "people.load", "attempt": 1,
         "counts": {"created": 1}}
        for n in (3, 4, 5, 6)
    ]  # fmt: skip
    assert {number: person.lead_id for number, person in people(path).items()} == {
        number: f"lea_{number}" for number in range(6)
    }


def test_attempt_that_was_not_finished_is_kept_however_old(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_ROWS", 1)
    first, *later = runs(4)
    finish(path, first, created(0))
    with suppress(Killed), attempt(path, first) as (ledger, _):
        ledger.mark_in_flight([KEYS[1]])
        raise Killed
    for run in later:
        finish(path, run)
    assert people(path)[1].in_doubt
    finish(path, first, created(1))
    assert not people(path)[1].in_doubt


def test_cleared_run_whose_rows_were_dropped_is_read_after_a_kill(
    path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_ROWS", 1)
    for number, run in enumerate(runs(3)):
        finish(path, run, created(number))
    with suppress(Killed), attempt(path, runs(1)[0]) as (ledger, _):
        ledger.mark_in_flight([KEYS[4]])
        ledger.write(created(5))
        ledger.flush()
        raise Killed
    found = people(path)
    assert found[4].in_doubt
    assert found[5].lead_id == "lea_5"


def test_person_in_another_campaign_is_asked_for_again_some_time_after_lemlist_was_asked(
    path: ObjectStoragePath,
) -> None:
    elsewhere = LedgerEntry(0, KEYS[0], "elsewhere")
    finish(path, MONDAY, elsewhere)
    asked = people(path)[0].elsewhere
    with attempt(path, TUESDAY) as (ledger, worklist):
        ledger.write(elsewhere, urgent=False)  # without asking
        ledger.finish(worklist.people, {})
    assert asked is not None
    assert people(path)[0].elsewhere == asked
    finish(path, WEDNESDAY, elsewhere)
    assert str(people(path)[0].elsewhere) > asked


# --- Whose ledger it is -------------------------------------------------------------------------------------


def test_reading_changes_nothing(path: ObjectStoragePath) -> None:
    with reading(path):
        pass
    assert not path.exists()
    finish(path, MONDAY, created(0))
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.write(LedgerEntry(1, KEYS[1], "failed"))
        ledger.mark_in_flight([KEYS[2]])
        raise Killed
    before = files(path)
    for run in (MONDAY, TUESDAY):
        with reading(path, run) as worklist:
            assert worklist.people.find(KEYS[2])[0].in_doubt
    assert files(path) == before


def test_reading_does_not_wait_for_the_lock(path: ObjectStoragePath) -> None:
    with attempt(path):
        assert not people(path)


def test_keys_are_those_of_this_ledger_only(place: Place) -> None:
    found = []
    for name in ("one", "other", "one"):
        with attempt(place(name)) as (_, worklist):
            found.append(worklist.people.keys_of({"email": "ana@example.com", "phone": "+33 1"}))
    assert found[0] == found[2]
    assert not {*found[0]} & {*found[1]}


def test_ledger_of_another_campaign_is_rejected(path: ObjectStoragePath) -> None:
    finish(path, MONDAY)
    for read_only in (False, True):
        with (
            pytest.raises(
                LemlistConfigurationError, match="belongs to campaign 'cam_1', not to 'cam_2'.* Nothing was"
            ),
            Ledger(path, "cam_2", MONDAY, read_only=read_only),
        ):
            pass
    finish(path, MONDAY)  # its lock was released


@pytest.mark.parametrize("content", [b"{}", b"[]", b"nonsense", b'{"format": 99}', b"\xff"])
def test_directory_that_is_not_a_ledger_is_rejected(path: ObjectStoragePath, content: bytes) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "ledger.json").write_bytes(content)
    with pytest.raises(LemlistConfigurationError, match="was not written by this package"), attempt(path):
        pass


@pytest.mark.parametrize("form", [1, 2, 4])
def test_ledger_of_another_format_is_rejected(path: ObjectStoragePath, form: int) -> None:
    finish(path, MONDAY)
    description = path / "ledger.json"
    description.write_bytes(json.dumps(json.loads(description.read_bytes()) | {"format": form}).encode())
    match = rf"another version .*\(format {form}, not 3\).* recognised without it\. Nothing was"
    with pytest.raises(LemlistConfigurationError, match=match), attempt(path):
        pass


@pytest.mark.parametrize("line", ["garbage", "{}", "[]", '{"keys": ["xy"]}', "\xff"])
@pytest.mark.parametrize("name", ["people", "settled", "marks", "run"])
def test_damaged_line_aborts_load_because_its_person_could_be_created_again(
    path: ObjectStoragePath, name: str, line: str
) -> None:
    finish(path, MONDAY, created(0), created(1))
    with suppress(Killed), attempt(path) as (ledger, _):
        ledger.mark_in_flight([KEYS[2]])
        ledger.write(created(2))
        ledger.flush()
        raise Killed
    file = {
        "people": path / "people.ndjson",
        "run": path / "runs" / "monday" / "run.json",
        **{part.kind: part.path for part in list_parts(path)},
    }[name]
    damaged = line.encode("latin-1")
    file.write_bytes(damaged if name == "run" else file.read_bytes() + damaged + b"\n")
    with pytest.raises(LemlistConfigurationError, match="is damaged: .* recognised without it. Nothing was"):
        people(path)


# --- Names --------------------------------------------------------------------------------------------------


def test_file_names_are_safe_and_distinct() -> None:
    names = [
        "cam_1", "manual__2026-11-16T00:00:00+00:00", "manual__2026-11-16T00_00_00+00_00", "a/b", "a_b",
        "..", ".", ".hidden", "hidden", "Zoë", "Zo_", "x" * 300, "x" * 301, "A", "a b",
    ]  # fmt: skip
    found = [file_name(name) for name in names]
    assert found[0] == "cam_1"
    assert len({*found}) == len(names)
    for name in found:
        assert name.isascii()
        assert 0 < len(name) <= 100
        assert not name.startswith(".")
        assert not {*name} & {*'/\\:*?"<>| '}


def test_each_campaign_has_a_default_ledger_apart_from_that_of_a_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert default_ledger_path("cam_1", "") == f"{tmp_path}/lemlist-ledgers/cam_1"
    others = [
        default_ledger_path(*each) for each in (("cam_2", ""), ("cam_1", "127.0.0.1:1"), ("cam_1", "host:1"))
    ]
    assert len({*others, default_ledger_path("cam_1", "")}) == 4
    assert all(Path(other).is_relative_to(tmp_path / "lemlist-ledgers") for other in others)
    monkeypatch.delenv("AIRFLOW_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_ledger_path("cam_1", "") == f"{tmp_path}/airflow/lemlist-ledgers/cam_1"
