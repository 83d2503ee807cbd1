# SPDX-License-Identifier: Apache-2.0
"""A second load on a ledger fails with the name of the first; the lock of a dead load is taken over."""

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
from airflow_provider_lemlist.ledger import lock as lock_module
from airflow_provider_lemlist.ledger.lock import LocalLock, StoredLock
from tests.waiting import LONGEST, wait_for

Place = Callable[[str], ObjectStoragePath]


class Quick(StoredLock):
    heartbeat = 0.1
    settle_time = 0.05


@pytest.fixture
def make(place: Place) -> Callable[[str], LocalLock | StoredLock]:
    path = place("lock")

    def make(owner: str) -> LocalLock | StoredLock:
        path.parent.mkdir(parents=True, exist_ok=True)
        return LocalLock(path.path, owner) if path.protocol == "file" else Quick(path, owner)

    return make


def test_second_load_gets_name_of_owner(make: Callable[[str], LocalLock | StoredLock]) -> None:
    first, second = make("task one"), make("task two")
    first.acquire()
    with pytest.raises(LemlistError, match="in use by task one on .*Nothing was sent") as raised:
        second.acquire()
    assert raised.value.retryable
    first.check()
    first.release()
    second.acquire()
    second.release()


def together(method: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Make every lock wait until all have called a method for the first time."""
    barrier, arrived = threading.Barrier(count), set()

    def synchronized(lock: StoredLock, *arguments: Any) -> Any:
        result = method(lock, *arguments)
        if lock not in arrived:
            arrived.add(lock)
            barrier.wait(LONGEST)
        return result

    return synchronized


def test_only_one_of_many_concurrent_loads_gets_lock(
    make: Callable[[str], LocalLock | StoredLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[LocalLock | StoredLock] = []
    begin = threading.Barrier(6)
    # The worst case in a store: all find no lock, and all have written theirs before one reads it back.
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


def test_kernel_releases_lock_of_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from airflow_provider_lemlist.ledger.lock import LocalLock\n"
        "LocalLock(sys.argv[1], 'the dead load').acquire(); print('locked', flush=True); time.sleep(60)"
    )
    path = str(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"locked" not in process.stdout.readline():
            assert process.poll() is None
        with pytest.raises(LemlistError, match="in use by the dead load"):
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

    def test_lock_without_heartbeat_is_taken_over(self, path: ObjectStoragePath) -> None:
        dead = Quick(path, "the dead load")
        dead._write(7)
        began = time.monotonic()
        lock = Quick(path, "the next")
        lock.acquire()
        assert time.monotonic() - began >= 0.4
        lock.release()

    def test_invalid_lock_file_is_taken_over(self, path: ObjectStoragePath) -> None:
        path.write_bytes(b"nonsense")
        lock = Quick(path, "the next")
        lock.acquire()
        lock.release()

    def test_load_that_lost_lock_sends_nothing_more(self, path: ObjectStoragePath) -> None:
        slow = Quick(path, "the slow")
        slow.acquire()
        Quick(path, "the next")._write(0)
        wait_for(lambda: is_stopped(slow))
        with pytest.raises(LemlistError, match="took the ledger over"):
            slow.check()
        slow.release()
        assert path.exists()  # the lock of the next

    def test_load_that_was_suspended_sends_nothing_more(self, path: ObjectStoragePath) -> None:
        lock = Quick(path, "the sleeper")
        lock.acquire()
        lock._ended.set()  # as if its thread was suspended, too
        time.sleep(0.4)
        with pytest.raises(LemlistError):
            lock.check()
        lock.release()

    def test_load_that_cannot_reach_store_sends_nothing_more(
        self, path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, missed = [0.0], []
        monkeypatch.setattr(lock_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
        lock = Quick(path, "one")
        lock.acquire()

        def fail(beat: int) -> None:
            missed.append(beat)
            raise OSError("no store")

        monkeypatch.setattr(lock, "_write", fail)
        now[0] = Quick.heartbeat
        wait_for(lambda: len(missed) >= 2)
        lock.check()  # one missed heartbeat is allowed
        now[0] = Quick.heartbeat * Quick.max_missed
        wait_for(lambda: is_stopped(lock))
        lock.release()

    def test_lock_after_slow_write_holds_once_the_other_load_has_stopped(
        self, path: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = Quick(path, "first")
        first.heartbeat = 1.0
        second = Quick(path, "second")
        write, sleep = second._write, time.sleep

        def write_slowly(beat: int) -> None:
            if not beat:
                first.acquire()  # it found no lock either, and was quicker
            write(beat)

        def first_has_stopped() -> bool:
            try:
                first.check()
            except LemlistError:
                return True
            return False

        def sleep_until_stopped(seconds: float) -> None:
            sleep(seconds)
            until = time.monotonic() + (60 if seconds >= 2 * Quick.heartbeat else 0)
            while time.monotonic() < until and not first_has_stopped():
                sleep(0.01)

        monkeypatch.setattr(second, "_write", write_slowly)
        monkeypatch.setattr(lock_module.time, "sleep", sleep_until_stopped)
        second.acquire()
        assert first_has_stopped()
        second.check()
        first.release()
        second.release()
