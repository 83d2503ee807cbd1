# SPDX-License-Identifier: Apache-2.0
"""The ledger has the outcome of every row, on disk and in an object store, however an attempt ended."""

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
from airflow_provider_lemlist.load.ledger import (
    Ledger,
    LedgerEntry,
    latest_ledger,
    read_history,
    read_previous,
)
from airflow_provider_lemlist.load.worklist import Worklist, content_hash

Place = Callable[[str], ObjectStoragePath]
CAMPAIGN = "cam_1"
ROW = "INSERT INTO rows(number, key, lead) VALUES (?, ?, '{}')"


@pytest.fixture(autouse=True)
def _no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.StoredLock, "settle_time", 0.0)
    monkeypatch.setattr(lock.StoredLock, "heartbeat", 0.05)
    # On a busy machine a heartbeat may be late; no test here waits for a lock to expire.
    monkeypatch.setattr(lock.StoredLock, "max_missed", 100)


def opened(path: ObjectStoragePath, **more: Any) -> Ledger:
    return Ledger(path, CAMPAIGN, "a test", **more)


def known(path: ObjectStoragePath, keys: list[bytes]) -> dict[int, tuple[int, bool]]:
    """Return the rows still to be sent: number, attempts, and whether each is in doubt."""
    with closing(Worklist()) as worklist:
        for number, key in enumerate(keys):
            worklist._database.execute(ROW, (number, key))
        with opened(path):
            read_history(path, CAMPAIGN, worklist)
        return {row.number: (row.attempts, row.in_doubt) for row in worklist.planned()}


def rows(path: ObjectStoragePath) -> list[dict[str, Any]]:
    """Read every outcome as a user would: from all ``*.ndjson`` files."""
    found = []
    for file in path.iterdir():
        if file.name.endswith(".ndjson"):
            found += [json.loads(line) for line in file.read_bytes().decode().splitlines()]
    return sorted(found, key=lambda row: row["row"])


def kinds(path: ObjectStoragePath) -> set[str]:
    return {file.kind for file in parts.list_parts(path)}


KEYS = [bytes([number]) * 16 for number in range(6)]


@pytest.fixture
def worklist() -> Iterator[Worklist]:
    with closing(Worklist()) as worklist:
        for number in range(6):
            worklist._database.execute(ROW, (number, KEYS[number]))
        yield worklist


def test_each_outcome_is_one_readable_line(place: Place) -> None:
    with opened(place("ledger")) as ledger:
        ledger.mark_in_flight(KEYS[:3])
        ledger.write(LedgerEntry(1, KEYS[0], "created", "lea_1", 1, content="email=1"), in_flight=True)
        ledger.write(LedgerEntry(2, KEYS[1], "failed", attempts=1, message="why"), in_flight=True)
        ledger.write(LedgerEntry(3, KEYS[2], "exists", attempts=1), in_flight=True)
        ledger.write(LedgerEntry(4, None, "invalid", message="email: no"))
    found = rows(place("ledger"))
    assert [(row["row"], row["outcome"], row["lead_id"], row["message"]) for row in found] == [
        (1, "created", "lea_1", ""),
        (2, "failed", None, "why"),
        (3, "exists", None, ""),
        (4, "invalid", None, "email: no"),
    ]
    assert found[0]["row_key"] == KEYS[0].hex()
    assert found[0]["at"].endswith("Z")


def test_killed_attempt_leaves_rows_in_flight_in_doubt(place: Place) -> None:
    path = place("ledger")
    ledger = opened(path).__enter__()
    ledger.mark_in_flight(KEYS[:4])
    ledger.write(LedgerEntry(0, KEYS[0], "created", "lea_0"), in_flight=True)
    ledger.write(LedgerEntry(1, KEYS[1], "failed"), in_flight=True)
    ledger.release(KEYS[1:3])
    ledger.flush()
    ledger._lock.release()  # as the death of the process does
    assert known(path, KEYS[:5]) == {1: (1, False), 2: (1, False), 3: (1, True), 4: (0, False)}


def test_unwritten_outcome_in_object_store_leaves_row_in_doubt(place: Place) -> None:
    path = place("ledger")
    ledger = opened(path).__enter__()
    ledger.mark_in_flight(KEYS[:2])
    ledger.write(LedgerEntry(0, KEYS[0], "created", "lea_0"), in_flight=True)
    ledger._lock.release()
    ledger._logs = {}
    left = known(path, KEYS[:2])
    assert left[1] == (1, True)
    assert left.get(0) in (None, (1, True))  # written on disk, not in a store


def test_open_outcomes_of_earlier_attempt_are_replaced(place: Place) -> None:
    path = place("ledger")
    for attempt in (1, 2):
        with opened(path) as ledger, closing(Worklist()) as worklist:
            read_history(path, CAMPAIGN, worklist)
            ledger.remove("open")
            ledger.mark_in_flight([KEYS[0]])
            ledger.write(LedgerEntry(1, KEYS[0], "failed", attempts=attempt), in_flight=True)
            ledger.release([KEYS[0]])
    assert [(row["outcome"], row["attempts"]) for row in rows(path)] == [("failed", 2)]
    assert known(path, KEYS[:1]) == {0: (2, False)}


def test_open_outcomes_of_earlier_attempt_stay_until_replaced(place: Place) -> None:
    path = place("ledger")
    with opened(path) as ledger:
        ledger.write(LedgerEntry(1, KEYS[0], "failed"))
    known(path, KEYS[:1])  # an attempt that ends before it writes anything
    assert [row["outcome"] for row in rows(path)] == ["failed"]


def test_finished_ledger_contains_only_outcomes(place: Place, worklist: Worklist) -> None:
    with opened(place("ledger")) as ledger:
        ledger.mark_in_flight(KEYS[:1])
        ledger.write(LedgerEntry(1, KEYS[0], "created"), in_flight=True)
        ledger.finish(worklist)
    assert kinds(place("ledger")) == {"settled"}


def test_lock_is_released_even_if_last_lines_cannot_be_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(place("ledger")).__enter__()
    ledger.mark_in_flight(KEYS[:1])
    ledger.write(LedgerEntry(0, KEYS[0], "created"), in_flight=True)

    def fail(self: Any) -> None:
        raise OSError("no store")

    with monkeypatch.context() as patch:
        patch.setattr(parts.LocalLog if ledger._local else parts.StoredLog, "sync", fail)
        with pytest.raises(OSError, match="no store"):
            ledger.__exit__(None, None, None)
    with opened(place("ledger")):
        pass


@pytest.mark.parametrize("elsewhere", [0, 1])
def test_finished_ledger_keeps_remaining_doubts(place: Place, worklist: Worklist, elsewhere: int) -> None:
    if elsewhere:
        worklist.add_in_flight([(b"of another source", 1, True)])
    with opened(place("ledger")) as ledger:
        ledger.mark_in_flight(KEYS[:2])
        ledger.write(LedgerEntry(1, KEYS[0], "created"), in_flight=True)
        ledger.write(LedgerEntry(2, KEYS[1], "uncertain" if not elsewhere else "created"), in_flight=True)
        ledger.finish(worklist)
    assert "started" in kinds(place("ledger"))


def test_thread_that_outlives_grace_period_writes_nothing(place: Place) -> None:
    with opened(place("ledger")) as ledger:
        ledger.mark_in_flight(KEYS[:1])
    ledger.write(LedgerEntry(1, KEYS[0], "created"), in_flight=True)
    ledger.release(KEYS[:1])
    with pytest.raises(LemlistError, match="has ended"):
        ledger.mark_in_flight(KEYS[1:2])
    assert known(place("ledger"), KEYS[:2]) == {0: (1, True), 1: (0, False)}


def test_full_disk_leaves_no_partial_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ledger.write(LedgerEntry(0, KEYS[0], "created", "lea"))
        with pytest.raises(OSError, match="No space"):
            ledger.write(LedgerEntry(1, KEYS[1], "created", "lea"))
        monkeypatch.setattr(os, "write", real)  # there is space again
        ledger.write(LedgerEntry(5, KEYS[5], "created", "lea"))
    assert [row["row"] for row in rows(path)] == [0, 5]
    assert {*known(path, KEYS)} == {1, 2, 3, 4}


def test_interrupted_write_of_description_keeps_the_old_one(
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
def test_partial_line_is_ignored_and_removed(tmp_path: Any, cut: int) -> None:
    path = ObjectStoragePath(f"file://{tmp_path}/ledger")
    ledger = opened(path).__enter__()
    ledger.mark_in_flight(KEYS[:2])
    for number in (0, 1):
        ledger.write(LedgerEntry(number, KEYS[number], "created", "lea"), in_flight=True)
    ledger._lock.release()
    (settled,) = parts.list_parts(path, "settled")
    size = os.path.getsize(settled.path.path)
    os.truncate(settled.path.path, size - cut)
    assert known(path, KEYS[:2]) == {1: (1, True)}
    assert [row["row"] for row in rows(path)] == [0]


def test_file_with_only_a_partial_line_is_emptied(tmp_path: Any) -> None:
    (tmp_path / "half").write_bytes(b"x" * 10_000)
    parts.truncate_partial_line(str(tmp_path / "half"))
    assert (tmp_path / "half").read_bytes() == b""
    parts.truncate_partial_line(str(tmp_path / "half"))


def test_parts_in_object_store_have_bounded_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_LINES", 50)
    path = place("ledger")
    with opened(path) as ledger:
        for number in range(220):
            ledger.write(LedgerEntry(number, bytes([number]) * 16, "created"))
    files = parts.list_parts(path, "settled")
    assert len(rows(path)) == 220
    if not ledger._local:
        assert len(files) == 5
        assert max(len(list(parts.read_lines(file.path))) for file in files) <= 60


def test_ledger_of_another_campaign_is_rejected(place: Place) -> None:
    with opened(place("ledger")):
        pass
    with (
        pytest.raises(LemlistConfigurationError, match="belongs to campaign 'cam_1', not to 'cam_2'"),
        Ledger(place("ledger"), "cam_2", "a test"),
    ):
        pass
    with opened(place("ledger")):  # its lock was released
        pass


@pytest.mark.parametrize("content", [b"{}", b"[]", b"nonsense", b'{"format": 99}'])
def test_directory_that_is_not_a_ledger_is_rejected(place: Place, content: bytes) -> None:
    place("ledger").mkdir(parents=True, exist_ok=True)
    (place("ledger") / "ledger.json").write_bytes(content)
    with (
        pytest.raises(LemlistConfigurationError, match="was not written by this package"),
        opened(place("ledger")),
    ):
        pass


@pytest.mark.parametrize("previous", [False, True])
def test_ledger_of_format_1_is_rejected(place: Place, worklist: Worklist, previous: bool) -> None:
    with opened(place("ledger")):
        pass
    description = place("ledger") / "ledger.json"
    description.write_bytes(json.dumps(json.loads(description.read_bytes()) | {"format": 1}).encode())
    with pytest.raises(
        LemlistConfigurationError, match=r"another version .*\(format 1, not 2\)\. Nothing was"
    ):
        read_previous(place("ledger"), CAMPAIGN, worklist) if previous else opened(
            place("ledger")
        ).__enter__()


def test_damaged_line_aborts_load_because_its_row_would_be_sent_again(place: Place) -> None:
    path = place("ledger")
    with opened(path) as ledger:
        ledger.write(LedgerEntry(1, KEYS[0], "created"))
        ledger.write(LedgerEntry(2, KEYS[1], "created"))
    (settled,) = parts.list_parts(path, "settled")
    lines = settled.path.read_bytes().splitlines(keepends=True)
    settled.path.write_bytes(b"".join([b"garbage\n", *lines[1:]]))
    with pytest.raises(LemlistConfigurationError, match="damaged in line 1 of settled-"):
        known(path, KEYS[:2])


# --- The previous run -------------------------------------------------------------------------------------


@pytest.fixture
def day(place: Place, worklist: Worklist) -> Callable[..., ObjectStoragePath]:
    """Write the ledger of one day."""

    def write(
        name: str, *lines: LedgerEntry, previous: str = "", finished: bool = True, in_flight: Any = ()
    ) -> ObjectStoragePath:
        with opened(place(name), previous=place(previous) if previous else None) as ledger:
            ledger.mark_in_flight([*(line.row_key for line in lines if line.row_key), *in_flight])
            for line in lines:
                ledger.write(line, in_flight=True)
            if finished:
                ledger.finish(worklist)
        return place(name)

    return write


def previous_entries(worklist: Worklist) -> dict[int, Any]:
    return {row.number: row.previous and tuple(row.previous) for row in worklist.planned()}


def test_previous_ledger_knows_leads_and_their_values(
    day: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    content = content_hash({"email": "a"})
    path = day(
        "monday",
        LedgerEntry(0, KEYS[0], "created", "lea_0", content=content),
        LedgerEntry(1, KEYS[1], "exists", None, content=content),
        LedgerEntry(2, KEYS[2], "elsewhere"),
        LedgerEntry(3, KEYS[3], "failed", "lea_3", content="old"),  # a failed update
        LedgerEntry(4, KEYS[4], "failed"),
        LedgerEntry(5, None, "invalid"),
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert previous_entries(worklist) == {
        0: ("lea_0", content),
        1: (None, content),
        2: None,
        3: ("lea_3", "old"),
        4: None,
        5: None,
    }


def test_row_in_doubt_in_previous_run_is_in_doubt_in_this_run(
    day: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    path = day(
        "monday",
        LedgerEntry(0, KEYS[0], "created", "lea_0", content="x"),
        LedgerEntry(1, KEYS[1], "uncertain"),
        in_flight=[KEYS[2]],
        finished=False,
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert {row.number: row.in_doubt for row in worklist.planned()} == {
        0: False, 1: True, 2: True, 3: False, 4: False, 5: False,
    }  # fmt: skip
    assert all(row.attempts == 0 for row in worklist.planned())


def test_ledger_before_an_unfinished_run_is_read_too(
    day: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    day("sunday", LedgerEntry(0, KEYS[0], "created", "lea_0", content="sunday"))
    day(
        "monday",
        LedgerEntry(0, KEYS[0], "created", "lea_0", content="a"),
        LedgerEntry(1, KEYS[1], "created", "lea_1", content="a"),
        previous="sunday",
    )
    path = day(
        "tuesday", LedgerEntry(1, KEYS[1], "updated", "lea_1", content="b"), previous="monday", finished=False
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert previous_entries(worklist) == {
        0: ("lea_0", "a"),
        1: ("lea_1", "b"),
        2: None,
        3: None,
        4: None,
        5: None,
    }


def test_finished_ledger_carries_over_people_of_previous_ledger(
    day: Callable[..., ObjectStoragePath], worklist: Worklist, place: Place
) -> None:
    monday = day(
        "monday",
        LedgerEntry(7, b"L" * 16, "created", "lea_7", content="x", profile_key=b"P" * 16),
        in_flight=[b"D" * 16],
    )
    with closing(Worklist()) as tuesday:
        assert read_previous(monday, CAMPAIGN, tuesday)
        with opened(place("tuesday"), previous=monday) as ledger:
            ledger.finish(tuesday)
    assert not rows(place("tuesday"))  # it has no rows of its own
    assert read_previous(place("tuesday"), CAMPAIGN, worklist)
    assert sorted(worklist.known_absentees()) == [(b"L" * 16, "lea_7", "x"), (b"P" * 16, "lea_7", "x")]
    assert worklist.doubts_outside_source() == [(b"D" * 16, True)]


def test_two_processes_with_the_lock_do_not_overwrite_each_other(place: Place) -> None:
    path = place("ledger")
    with opened(path) as one:
        one._lock.release()
        with opened(path) as other:
            for number, ledger in enumerate((one, other, one, other)):
                ledger.mark_in_flight([KEYS[number]])
                ledger.write(LedgerEntry(number, KEYS[number], "created"), in_flight=True)
    assert [row["row"] for row in rows(path)] == [0, 1, 2, 3]


def test_outcomes_without_request_are_written_in_full_parts(place: Place) -> None:
    path = place("ledger")
    with opened(path) as ledger:
        before = Bucket.puts
        for number in range(2000):
            ledger.write(LedgerEntry(number, number.to_bytes(16), "unchanged"))
        assert Bucket.puts - before <= 2 + 1  # a heartbeat of the lock
    assert len(rows(path)) == 2000


def test_ledgers_that_refer_to_each_other_are_read_once(
    day: Callable[..., ObjectStoragePath], worklist: Worklist
) -> None:
    day(
        "monday", LedgerEntry(0, KEYS[0], "created", "lea_0", content="a"), previous="tuesday", finished=False
    )
    path = day(
        "tuesday", LedgerEntry(1, KEYS[1], "created", "lea_1", content="b"), previous="monday", finished=False
    )
    assert read_previous(path, CAMPAIGN, worklist)
    assert previous_entries(worklist) == {
        0: ("lea_0", "a"),
        1: ("lea_1", "b"),
        2: None,
        3: None,
        4: None,
        5: None,
    }


def test_last_ledger_before_this_one_is_taken_from_a_directory(place: Place) -> None:
    for name in ("2026-11-18", "2026-11-20", "2026-11-21"):
        with opened(place(f"days/{name}")):
            pass
    (place("days/2026-11-19")).mkdir(parents=True, exist_ok=True)
    (place("days/2026-11-19") / "notes.txt").write_bytes(b"not a ledger")

    def last(path: str, ledger: str) -> str:
        return latest_ledger(place(path), place(ledger)).name

    assert last("days", "days/2026-11-22") == "2026-11-21"
    assert last("days", "days/2026-11-21") == "2026-11-20"
    assert last("days/", "days/2026-11-20/") == "2026-11-18"
    assert last("days", "days/2026-11-18") == "days"  # which is not a ledger
    assert last("days", "elsewhere/2026-11-01") == "2026-11-21"
    assert last("days/2026-11-18", "days/2026-11-21") == "2026-11-18"
    assert last("never", "never/2026-11-21") == "never"


def test_missing_previous_ledger_is_no_error(place: Place, worklist: Worklist) -> None:
    assert not read_previous(place("never"), CAMPAIGN, worklist)


def test_ledger_of_a_running_load_is_rejected_as_previous_ledger(
    place: Place, worklist: Worklist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock.StoredLock, "max_missed", 1000)  # even on a slow machine
    with (
        opened(place("sunday")),
        pytest.raises(
            LemlistError, match="previous ledger .* is in use by a test on .*Nothing was"
        ) as raised,
    ):
        read_previous(place("sunday"), CAMPAIGN, worklist)
    assert raised.value.retryable
    assert read_previous(place("sunday"), CAMPAIGN, worklist)
