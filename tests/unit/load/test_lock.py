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

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.load.lock import LocalLock, StoredLock

Place = Callable[[str], ObjectStoragePath]
QUICK = {"beat": 0.1, "missed": 4, "race": 0.05}


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


def test_only_one_of_many_that_come_at_once_gets_it(make: Callable[[str], LocalLock | StoredLock]) -> None:
    got: list[LocalLock | StoredLock] = []
    begin = threading.Barrier(6)

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


class TestInAStore:
    @pytest.fixture
    def path(self, place: Place) -> ObjectStoragePath:
        if place("x").protocol == "file":
            pytest.skip("a disk has the locks of the kernel")
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
        time.sleep(0.3)
        with pytest.raises(LemlistError, match="took the ledger over"):
            slow.check()
        slow.release()
        assert path.exists()  # the lock of the next

    def test_who_cannot_reach_the_store_for_long_starts_nothing_more(
        self, path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock = StoredLock(path, "one", **QUICK)
        lock.acquire()

        def fail(beat: int) -> None:
            raise OSError("no store")

        monkeypatch.setattr(lock, "_write", fail)
        time.sleep(0.15)
        lock.check()  # one sign of life missed is no harm
        time.sleep(0.6)
        with pytest.raises(LemlistError):
            lock.check()
        lock.release()
