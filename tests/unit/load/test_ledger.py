# SPDX-License-Identifier: Apache-2.0
"""The ledger knows what became of every row, on a disk and in an object store, whatever cut it off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from bucket import Bucket

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.load import lock, parts
from airflow_provider_lemlist.load.ledger import Ledger, Line, last_ledger, read_previous
from airflow_provider_lemlist.load.worklist import Worklist, content_hash

Place = Callable[[str], ObjectStoragePath]
CAMPAIGN = "cam_1"


@pytest.fixture(autouse=True)
def _no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lock.StoredLock.__init__.__kwdefaults__, "race", 0.0)
    monkeypatch.setitem(lock.StoredLock.__init__.__kwdefaults__, "beat", 0.05)


def opened(path: ObjectStoragePath, **more: Any) -> Ledger:
    return Ledger(path, CAMPAIGN, "a test", **more)


def known(path: ObjectStoragePath, keys: list[bytes]) -> dict[int, tuple[int, bool]]:
    """Give the rows that are still to be sent: their numbers, attempts, and whether they are in doubt."""
    with closing(Worklist()) as worklist:
        for number, key in enumerate(keys):
            worklist._database.execute("INSERT INTO rows VALUES (?, ?, NULL, '{}')", (number, key))
        with opened(path) as ledger:
            ledger.read_back(worklist)
        return {task.number: (task.attempts, task.in_doubt) for task in worklist.tasks()}


def rows(path: ObjectStoragePath) -> list[dict[str, Any]]:
    """Read every outcome as a user would: all files of one name pattern."""
    found = []
    for file in path.iterdir():
        if file.name.endswith(".ndjson"):
            found += [json.loads(line) for line in file.read_bytes().decode().splitlines()]
    return sorted(found, key=lambda row: row["row"])


def kinds(path: ObjectStoragePath) -> set[str]:
    return {file.kind for file in parts.files_of(path)}


KEYS = [bytes([number]) * 16 for number in range(6)]


@pytest.fixture
def worklist() -> Iterator[Worklist]:
    with closing(Worklist()) as worklist:
        for number in range(6):
            worklist._database.execute("INSERT INTO rows VALUES (?, ?, NULL, '{}')", (number, KEYS[number]))
        yield worklist


def test_each_outcome_is_one_line_that_anybody_can_read(place: Place) -> None:
    with opened(place("ledger")) as ledger:
        ledger.start(KEYS[:3])
        ledger.write(Line(1, KEYS[0], "created", "lea_1", 1, content="email=1"), started=True)
        ledger.write(Line(2, KEYS[1], "failed", attempts=1, message="why"), started=True)
        ledger.write(Line(3, KEYS[2], "exists", attempts=1), started=True)
        ledger.write(Line(4, None, "invalid", message="email: no"))
    found = rows(place("ledger"))
    assert [(row["row"], row["outcome"], row["lead_id"], row["message"]) for row in found] == [
        (1, "created", "lea_1", ""),
        (2, "failed", None, "why"),
        (3, "exists", None, ""),
        (4, "invalid", None, "email: no"),
    ]
    assert found[0]["row_key"] == KEYS[0].hex()
    assert found[0]["at"].endswith("Z")


def test_an_attempt_that_died_leaves_its_rows_under_way_in_doubt(place: Place) -> None:
    path = place("ledger")
    ledger = opened(path).__enter__()
    ledger.start(KEYS[:4])
    ledger.write(Line(0, KEYS[0], "created", "lea_0"), started=True)
    ledger.write(Line(1, KEYS[1], "failed"), started=True)
    ledger.give_back(KEYS[1:3])
    ledger.flush()
    ledger._lock.release()  # all that the death of a process does
    assert known(path, KEYS[:5]) == {1: (1, False), 2: (1, False), 3: (1, True), 4: (0, False)}


def test_in_a_store_an_unwritten_outcome_is_a_doubt_and_never_a_row_that_nobody_knows(place: Place) -> None:
    path = place("ledger")
    ledger = opened(path).__enter__()
    ledger.start(KEYS[:2])
    ledger.write(Line(0, KEYS[0], "created", "lea_0"), started=True)
    ledger._lock.release()
    ledger._logs = {}
    left = known(path, KEYS[:2])
    assert left[1] == (1, True)
    assert left.get(0) in (None, (1, True))  # a disk has it, a store has not


def test_what_an_earlier_attempt_left_open_is_told_anew(place: Place) -> None:
    path = place("ledger")
    for attempt in (1, 2):
        with opened(path) as ledger, closing(Worklist()) as worklist:
            ledger.read_back(worklist)
            ledger.clear_open()
            ledger.start([KEYS[0]])
            ledger.write(Line(1, KEYS[0], "failed", attempts=attempt), started=True)
            ledger.give_back([KEYS[0]])
    assert [(row["outcome"], row["attempts"]) for row in rows(path)] == [("failed", 2)]
    assert known(path, KEYS[:1]) == {0: (2, False)}


def test_what_an_earlier_attempt_left_open_stands_until_it_is_told_anew(place: Place) -> None:
    path = place("ledger")
    with opened(path) as ledger:
        ledger.write(Line(1, KEYS[0], "failed"))
    known(path, KEYS[:1])  # an attempt that ends before it accounts for anything
    assert [row["outcome"] for row in rows(path)] == ["failed"]


def test_a_finished_ledger_holds_outcomes_only(place: Place, worklist: Worklist) -> None:
    with opened(place("ledger")) as ledger:
        ledger.start(KEYS[:1])
        ledger.write(Line(1, KEYS[0], "created"), started=True)
        ledger.finish(worklist)
    assert kinds(place("ledger")) == {"settled"}


def test_a_ledger_whose_last_lines_cannot_be_written_is_let_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(place("ledger")).__enter__()
    ledger.start(KEYS[:1])
    ledger.write(Line(0, KEYS[0], "created"), started=True)

    def fail(self: Any) -> None:
        raise OSError("no store")

    with monkeypatch.context() as patch:
        patch.setattr(parts.LocalLog if ledger._local else parts.StoredLog, "sync", fail)
        with pytest.raises(OSError, match="no store"):
            ledger.__exit__(None, None, None)
    with opened(place("ledger")):
        pass


@pytest.mark.parametrize("elsewhere", [0, 1])
def test_a_finished_ledger_keeps_the_doubts_that_are_left(
    place: Place, worklist: Worklist, elsewhere: int
) -> None:
    if elsewhere:
        worklist.note_started([(b"of another source", 1, True)])
    with opened(place("ledger")) as ledger:
        ledger.start(KEYS[:2])
        ledger.write(Line(1, KEYS[0], "created"), started=True)
        ledger.write(Line(2, KEYS[1], "uncertain" if not elsewhere else "created"), started=True)
        ledger.finish(worklist)
    assert "started" in kinds(place("ledger"))


def test_a_thread_that_was_given_up_writes_no_more(place: Place) -> None:
    with opened(place("ledger")) as ledger:
        ledger.start(KEYS[:1])
    ledger.write(Line(1, KEYS[0], "created"), started=True)
    ledger.give_back(KEYS[:1])
    with pytest.raises(LemlistError, match="has ended"):
        ledger.start(KEYS[1:2])
    assert known(place("ledger"), KEYS[:2]) == {0: (1, True), 1: (0, False)}


def test_a_full_disk_leaves_no_half_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ObjectStoragePath(f"file://{tmp_path}/ledger")
    real = os.write
    room = [300]

    def write(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(file, data[: room[0]])
        room[0] -= written
        return written

    with opened(path) as ledger:
        monkeypatch.setattr(os, "write", write)
        ledger.write(Line(0, KEYS[0], "created", "lea"))
        with pytest.raises(OSError, match="No space"):
            ledger.write(Line(1, KEYS[1], "created", "lea"))
        monkeypatch.setattr(os, "write", real)  # somebody has cleared up
        ledger.write(Line(5, KEYS[5], "created", "lea"))
    assert [row["row"] for row in rows(path)] == [0, 5]
    assert {*known(path, KEYS)} == {1, 2, 3, 4}


def test_a_description_that_is_cut_off_does_not_harm_the_one_before(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ObjectStoragePath(f"file://{tmp_path}/ledger")
    with opened(path):
        pass

    def cut_off(self: Any, data: bytes) -> None:
        with open(self.path, "wb"):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(path / "x"), "write_bytes", cut_off)
        with pytest.raises(OSError, match="No space"):
            opened(path).__enter__()
    with opened(path):
        pass


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_does_not_count_and_is_taken_away(tmp_path: Any, cut: int) -> None:
    path = ObjectStoragePath(f"file://{tmp_path}/ledger")
    ledger = opened(path).__enter__()
    ledger.start(KEYS[:2])
    for number in (0, 1):
        ledger.write(Line(number, KEYS[number], "created", "lea"), started=True)
    ledger._lock.release()
    (settled,) = parts.files_of(path, "settled")
    size = os.path.getsize(settled.path.path)
    os.truncate(settled.path.path, size - cut)
    assert known(path, KEYS[:2]) == {1: (1, True)}
    assert [row["row"] for row in rows(path)] == [0]


def test_a_file_with_nothing_but_half_a_line_is_emptied(tmp_path: Any) -> None:
    (tmp_path / "half").write_bytes(b"x" * 10_000)
    parts.mend(str(tmp_path / "half"))
    assert (tmp_path / "half").read_bytes() == b""
    parts.mend(str(tmp_path / "half"))


def test_a_store_gets_parts_of_bounded_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 50)
    path = place("ledger")
    with opened(path) as ledger:
        for number in range(220):
            ledger.write(Line(number, bytes([number]) * 16, "created"))
    files = parts.files_of(path, "settled")
    assert len(rows(path)) == 220
    if not ledger._local:
        assert len(files) == 5
        assert max(len(list(parts.lines_of(file.path))) for file in files) <= 60


def test_a_ledger_of_another_campaign_is_refused(place: Place) -> None:
    with opened(place("ledger")):
        pass
    with (
        pytest.raises(LemlistConfigurationError, match="belongs to campaign 'cam_1', not to 'cam_2'"),
        Ledger(place("ledger"), "cam_2", "a test"),
    ):
        pass
    with opened(place("ledger")):  # and is let go of
        pass


@pytest.mark.parametrize("content", [b"{}", b"[]", b"nonsense", b'{"format": 99}'])
def test_a_directory_of_something_else_is_refused(place: Place, content: bytes) -> None:
    place("ledger").mkdir(parents=True, exist_ok=True)
    (place("ledger") / "ledger.json").write_bytes(content)
    with pytest.raises(LemlistConfigurationError, match="none of ours"), opened(place("ledger")):
        pass


def test_a_damaged_line_stops_the_load_because_its_row_would_be_sent_again(place: Place) -> None:
    path = place("ledger")
    with opened(path) as ledger:
        ledger.write(Line(1, KEYS[0], "created"))
        ledger.write(Line(2, KEYS[1], "created"))
    (settled,) = parts.files_of(path, "settled")
    lines = settled.path.read_bytes().splitlines(keepends=True)
    settled.path.write_bytes(b"".join([b"garbage\n", *lines[1:]]))
    with pytest.raises(LemlistConfigurationError, match="Line 1 of .* is no line of a ledger"):
        known(path, KEYS[:2])


# --- The run before -------------------------------------------------------------------------------------


@pytest.fixture
def night(place: Place, worklist: Worklist) -> Callable[..., ObjectStoragePath]:
    """Write the ledger of one night."""

    def write(
        name: str, *lines: Line, previous: str = "", finished: bool = True, under_way: Any = ()
    ) -> ObjectStoragePath:
        with opened(place(name), previous=place(previous) if previous else None) as ledger:
            ledger.start([*(line.row_key for line in lines if line.row_key), *under_way])
            for line in lines:
                ledger.write(line, started=True)
            if finished:
                ledger.finish(worklist)
        return place(name)

    return write


def before(worklist: Worklist) -> dict[int, Any]:
    return {task.number: task.before and tuple(task.before) for task in worklist.tasks()}


def test_the_previous_ledger_tells_who_is_there_and_as_what(
    night: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    content = content_hash({"email": "a"})
    path = night(
        "monday",
        Line(0, KEYS[0], "created", "lea_0", content=content),
        Line(1, KEYS[1], "exists", None, content=content),
        Line(2, KEYS[2], "elsewhere"),
        Line(3, KEYS[3], "failed", "lea_3", content="old"),  # an update that failed
        Line(4, KEYS[4], "failed"),
        Line(5, None, "invalid"),
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert before(worklist) == {
        0: ("lea_0", content),
        1: (None, content),
        2: None,
        3: ("lea_3", "old"),
        4: None,
        5: None,
    }


def test_a_row_left_in_doubt_by_the_run_before_is_in_doubt_in_this_one(
    night: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    path = night(
        "monday",
        Line(0, KEYS[0], "created", "lea_0", content="x"),
        Line(1, KEYS[1], "uncertain"),
        under_way=[KEYS[2]],
        finished=False,
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert {task.number: task.in_doubt for task in worklist.tasks()} == {
        0: False, 1: True, 2: True, 3: False, 4: False, 5: False,
    }  # fmt: skip
    assert all(task.attempts == 0 for task in worklist.tasks())


def test_behind_a_run_that_did_not_come_to_its_end_the_one_before_it_counts(
    night: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    night("sunday", Line(0, KEYS[0], "created", "lea_0", content="sunday"))
    night(
        "monday",
        Line(0, KEYS[0], "created", "lea_0", content="a"),
        Line(1, KEYS[1], "created", "lea_1", content="a"),
        previous="sunday",
    )
    path = night(
        "tuesday", Line(1, KEYS[1], "updated", "lea_1", content="b"), previous="monday", finished=False
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert before(worklist) == {0: ("lea_0", "a"), 1: ("lea_1", "b"), 2: None, 3: None, 4: None, 5: None}


def test_a_finished_ledger_carries_on_whom_the_one_before_knew(
    night: Callable[..., ObjectStoragePath], worklist: Worklist, place: Place
) -> None:
    monday = night(
        "monday",
        Line(7, b"L" * 16, "created", "lea_7", content="x", profile_key=b"P" * 16),
        under_way=[b"D" * 16],
    )
    with closing(Worklist()) as tonight:
        assert read_previous(monday, CAMPAIGN, tonight)
        with opened(place("tuesday"), previous=monday) as ledger:
            ledger.finish(tonight)
    assert not rows(place("tuesday"))  # none of its own
    assert read_previous(place("tuesday"), CAMPAIGN, worklist)
    assert sorted(worklist.known_before()) == [(b"L" * 16, "lea_7", "x"), (b"P" * 16, "lea_7", "x")]
    assert list(worklist.doubts_before()) == [b"D" * 16]


def test_two_processes_that_both_believe_to_be_alone_do_not_write_over_each_other(place: Place) -> None:
    path = place("ledger")
    with opened(path) as one:
        one._lock.release()
        with opened(path) as other:
            for number, ledger in enumerate((one, other, one, other)):
                ledger.start([KEYS[number]])
                ledger.write(Line(number, KEYS[number], "created"), started=True)
    assert [row["row"] for row in rows(path)] == [0, 1, 2, 3]


def test_lines_that_took_no_request_are_written_a_thousand_at_a_time(place: Place) -> None:
    path = place("ledger")
    with opened(path) as ledger:
        before = Bucket.puts
        for number in range(2000):
            ledger.write(Line(number, number.to_bytes(16), "unchanged"))
        assert Bucket.puts - before <= 2 + 1  # a sign of life of the lock
    assert len(rows(path)) == 2000


def test_ledgers_that_name_each_other_are_read_once(
    night: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    night("monday", Line(0, KEYS[0], "created", "lea_0", content="a"), previous="tuesday", finished=False)
    path = night(
        "tuesday", Line(1, KEYS[1], "created", "lea_1", content="b"), previous="monday", finished=False
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert before(worklist) == {0: ("lea_0", "a"), 1: ("lea_1", "b"), 2: None, 3: None, 4: None, 5: None}


def test_of_a_directory_of_ledgers_the_last_before_this_one_counts(place: Place) -> None:
    for name in ("2026-11-18", "2026-11-20", "2026-11-21"):
        with opened(place(f"nights/{name}")):
            pass
    (place("nights/2026-11-19")).mkdir(parents=True, exist_ok=True)
    (place("nights/2026-11-19") / "notes.txt").write_bytes(b"not a ledger")

    def last(path: str, ledger: str) -> str:
        return last_ledger(place(path), place(ledger)).name

    assert last("nights", "nights/2026-11-22") == "2026-11-21"
    assert last("nights", "nights/2026-11-21") == "2026-11-20"
    assert last("nights/", "nights/2026-11-20/") == "2026-11-18"
    assert last("nights", "nights/2026-11-18") == "nights"  # which is none
    assert last("nights", "elsewhere/2026-11-01") == "2026-11-21"
    assert last("nights/2026-11-18", "nights/2026-11-21") == "2026-11-18"
    assert last("never", "never/2026-11-21") == "never"


def test_no_previous_ledger_is_said_and_no_error(place: Place, worklist: Worklist) -> None:
    assert not read_previous(place("never"), CAMPAIGN, worklist)


def test_a_run_that_has_not_ended_is_no_previous_one(
    place: Place, worklist: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lock.StoredLock.__init__.__kwdefaults__, "missed", 1000)  # however slow the machine
    with (
        opened(place("sunday")),
        pytest.raises(LemlistError, match="previous ledger .* is in use by a test on .*Nothing was") as told,
    ):
        read_previous(place("sunday"), CAMPAIGN, worklist)
    assert told.value.retryable
    assert read_previous(place("sunday"), CAMPAIGN, worklist)
