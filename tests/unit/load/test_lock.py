# SPDX-License-Identifier: Apache-2.0
"""The second load on a ledger is told; the lock of a dead one is no obstacle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.load import lock as lock_module
from airflow_provider_lemlist.load.lock import LocalLock, StoredLock
from tests.waiting import LONGEST, wait_for

Place = Callable[[str], ObjectStoragePath]
QUICK: dict[str, Any] = {"beat": 0.1, "missed": 4, "race": 0.05}


@pytest.fixture
def make(place: Place) -> Callable[[str], LocalLock | StoredLock]:
    path = place("lock")

    def make(owner: str) -> LocalLock | StoredLock:
        path.parent.mkdir(parents=True, exist_ok=True)
        return LocalLock(path.path, owner) if path.protocol == "file" else StoredLock(path, owner, **QUICK)

    return make


def test_the_second_is_told_who_has_it(make: Callable[[str], LocalLock | StoredLock]) -> None:
    first, second = make("task one"), make("task two")
    first.acquire()
    with pytest.raises(LemlistError, match="in use by task one on .*Nothing was sent") as told:
        second.acquire()
    assert told.value.retryable
    first.check()
    first.release()
    second.acquire()
    second.release()


def together(method: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Let nobody go on before all locks have called a method for the first time."""
    meet, met = threading.Barrier(count), set()

    def met_by_all(lock: StoredLock, *arguments: Any) -> Any:
        answer = method(lock, *arguments)
        if lock not in met:
            met.add(lock)
            meet.wait(LONGEST)
        return answer

    return met_by_all


def test_only_one_of_many_that_come_at_once_gets_it(
    make: Callable[[str], LocalLock | StoredLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[LocalLock | StoredLock] = []
    begin = threading.Barrier(6)
    # In a store, at the worst: all find no lock, and all have written theirs before anybody looks again.
    monkeypatch.setattr(StoredLock, "_read", together(StoredLock._read, 6))
    monkeypatch.setattr(StoredLock, "_write", together(StoredLock._write, 6))

    def try_it(number: int) -> None:
        lock = make(f"task {number}")
        begin.wait()
        try:
            lock.acquire()
        except LemlistError:
            return
        got.append(lock)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].release()


def test_the_kernel_lets_go_when_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from airflow_provider_lemlist.load.lock import LocalLock\n"
        "LocalLock(sys.argv[1], 'the dead').acquire(); print('has it', flush=True); time.sleep(60)"
    )
    path = str(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"has it" not in process.stdout.readline():
            assert process.poll() is None
        with pytest.raises(LemlistError, match="in use by the dead"):
            LocalLock(path, "the next").acquire()
        os.kill(process.pid, signal.SIGKILL)
    lock = LocalLock(path, "the next")
    lock.acquire()
    lock.release()


def is_stopped(lock: StoredLock) -> bool:
    try:
        lock.check()
    except LemlistError:
        return True
    return False


@pytest.mark.parametrize("place", ["bucket"], indirect=True)
class TestInAStore:
    @pytest.fixture
    def path(self, place: Place) -> ObjectStoragePath:
        return place("lock")

    def test_a_lock_without_signs_of_life_is_taken_over(self, path: ObjectStoragePath) -> None:
        dead = StoredLock(path, "the dead", **QUICK)
        dead._write(7)
        began = time.monotonic()
        lock = StoredLock(path, "the next", **QUICK)
        lock.acquire()
        assert time.monotonic() - began >= 0.4
        lock.release()

    def test_what_is_no_lock_is_taken_over(self, path: ObjectStoragePath) -> None:
        path.write_bytes(b"nonsense")
        lock = StoredLock(path, "the next", **QUICK)
        lock.acquire()
        lock.release()

    def test_who_lost_the_lock_starts_nothing_more(self, path: ObjectStoragePath) -> None:
        slow = StoredLock(path, "the slow", **QUICK)
        slow.acquire()
        StoredLock(path, "the next", **QUICK)._write(0)
        wait_for(lambda: is_stopped(slow))
        with pytest.raises(LemlistError, match="took the ledger over"):
            slow.check()
        slow.release()
        assert path.exists()  # the lock of the next

    def test_who_was_asleep_for_long_starts_nothing_more(self, path: ObjectStoragePath) -> None:
        lock = StoredLock(path, "the sleeper", **QUICK)
        lock.acquire()
        lock._ended.set()  # as if its thread slept, too
        time.sleep(0.4)
        with pytest.raises(LemlistError):
            lock.check()
        lock.release()

    def test_who_cannot_reach_the_store_for_long_starts_nothing_more(
        self, path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, missed = [0.0], []
        monkeypatch.setattr(lock_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
        lock = StoredLock(path, "one", **QUICK)
        lock.acquire()

        def fail(beat: int) -> None:
            missed.append(beat)
            raise OSError("no store")

        monkeypatch.setattr(lock, "_write", fail)
        now[0] = QUICK["beat"]
        wait_for(lambda: len(missed) >= 2)
        lock.check()  # a sign of life missed is no harm
        now[0] = QUICK["beat"] * QUICK["missed"]
        wait_for(lambda: is_stopped(lock))
        lock.release()

    def test_a_lock_that_was_long_on_its_way_holds_when_the_other_has_stopped(
        self, path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = StoredLock(path, "first", **{**QUICK, "beat": 1.0})  # type: ignore[arg-type]
        second = StoredLock(path, "second", **QUICK)
        write, sleep = second._write, time.sleep

        def write_late(beat: int) -> None:
            if not beat:
                first.acquire()  # it saw no lock either, and was quicker
            write(beat)

        def first_is_told() -> bool:
            try:
                first.check()
            except LemlistError:
                return True
            return False

        def sleep_long(seconds: float) -> None:
            sleep(seconds)
            until = time.monotonic() + (60 if seconds >= 2 * QUICK["beat"] else 0)  # however slow the machine
            while time.monotonic() < until and not first_is_told():
                sleep(0.01)

        monkeypatch.setattr(second, "_write", write_late)
        monkeypatch.setattr(lock_module.time, "sleep", sleep_long)
        second.acquire()
        assert first_is_told()
        second.check()
        first.release()
        second.release()
