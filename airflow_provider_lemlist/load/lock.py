# SPDX-License-Identifier: Apache-2.0
"""
One load at a time on one ledger.

On a local disk the kernel holds the lock and lets go of it when the process dies. An object store knows no
locks, so there the owner leaves a sign of life every few seconds; who finds a lock watches it for a while,
and takes it over when it does not move. No clock is compared with another machine's.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.storage import is_local

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

#: Seconds between two signs of life in an object store, and how many may be missed.
BEAT = 5.0
MISSED = 4
#: Seconds after which whoever wrote the lock at the same moment as we has done so.
RACE = 1.0
_SOMEBODY = "another task"


class LocalLock:
    """A lock of the kernel on a file of this machine."""

    def __init__(self, path: str, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._file: int | None = None

    def acquire(self) -> None:
        """
        Take the lock.

        :raises LemlistError: Another load has it.
        """
        import fcntl

        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = os.read(file, 1000).decode("utf-8", "replace")
            os.close(file)
            raise in_use(self._path, held) from None
        self._file = file
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, _signature(self._owner).encode(), 0)
        except OSError:
            self.release()
            raise

    def watch(self) -> str | None:
        """Return whose the lock is, None when nobody holds it."""
        import fcntl

        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(file, 1000).decode("utf-8", "replace").strip() or _SOMEBODY
        finally:
            os.close(file)
        return None

    def check(self) -> None:
        """Do nothing: nobody takes a lock of the kernel away."""

    def release(self) -> None:
        """Let go of the lock. The file stays: deleting it would pull it from under the next one."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


class StoredLock:
    """A lock in an object store, kept by signs of life."""

    def __init__(
        self,
        path: ObjectStoragePath,
        owner: str,
        *,
        beat: float = BEAT,
        missed: int = MISSED,
        race: float = RACE,
    ) -> None:
        self._path = path
        self._owner = owner
        self._token = uuid.uuid4().hex
        self._beat = beat
        self._missed = missed
        self._race = race
        self._ended = threading.Event()
        self._lost = False
        #: When the lock was last known to be ours.
        self._seen = 0.0
        self._keeper: threading.Thread | None = None

    def acquire(self) -> None:
        """
        Take the lock, after watching one that is there for signs of life.

        :raises LemlistError: Another load has it.
        """
        if owner := self.watch():
            raise in_use(self._path, owner)
        decided = time.monotonic()
        self._write(0)
        # After a slow write somebody else may have written, looked and begun before ours arrived: until
        # the next sign of life, which tells them.
        slow = time.monotonic() - decided > self._race
        time.sleep(2 * self._beat if slow else self._race)
        now = self._read()
        if now is None or now.get("token") != self._token:
            raise in_use(self._path, str((now or {}).get("owner")))
        self._seen = time.monotonic()
        self._keeper = threading.Thread(target=self._keep, name="lemlist-ledger-lock", daemon=True)
        self._keeper.start()

    def watch(self) -> str | None:
        """Watch a lock that is there for signs of life; return whose it is, None when nobody holds it."""
        found = self._read()
        if found is not None:
            log.info(
                "The ledger is locked by %s. Watching for %g s whether that is still alive.",
                found.get("owner") or _SOMEBODY,
                self._beat * self._missed,
            )
        pause = min(1.0, self._beat / 2)
        # Looks are counted, not seconds: a machine that stood still, and its owner with it, proves no death.
        looks = math.ceil(self._beat * self._missed / pause)
        while found is not None and looks:
            time.sleep(pause)
            looks -= 1
            now = self._read()
            if now is not None and (now.get("token"), now.get("beat")) != (
                found.get("token"),
                found.get("beat"),
            ):
                return str(now.get("owner"))
            found = now
        return None

    def check(self) -> None:
        """
        Make sure that the lock is still ours.

        :raises LemlistError: Another load took it, because ours gave no sign of life for too long.
        """
        # Who was asleep for long is asked before the keeper has looked.
        if self._lost or self._is_overdue():
            raise in_use(self._path, "another task, which took the ledger over")

    def release(self) -> None:
        """Stop the signs of life and take the lock away."""
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
            if not self._lost:
                with suppress(OSError):
                    self._path.unlink()
            self._keeper = None

    def _keep(self) -> None:
        beat = 0
        while not self._ended.wait(self._beat):
            beat += 1
            try:
                now = self._read()
                if now is not None and now.get("token") != self._token:
                    self._lost = True
                    return
                asked = time.monotonic()
                self._write(beat)
                self._seen = asked
            except Exception:
                # A store that cannot be reached for a moment costs a sign of life. For longer, and somebody
                # may rightly have taken the ledger over without our seeing it.
                if self._is_overdue():
                    self._lost = True
                    return

    def _is_overdue(self) -> bool:
        """Say whether whoever watches may take the lock over before our next sign of life."""
        return time.monotonic() - self._seen > self._beat * (self._missed - 1)

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, beat: int) -> None:
        lock = {"owner": _signature(self._owner), "token": self._token, "beat": beat}
        self._path.write_bytes(json.dumps(lock).encode())


def held_by(path: ObjectStoragePath) -> str | None:
    """Return who holds the lock of another ledger, None when nobody does."""
    return (LocalLock(path.path, "") if is_local(path) else StoredLock(path, "")).watch()


def in_use(path: Any, owner: str) -> LemlistError:
    """Make the error for whoever finds the ledger in use."""
    return LemlistError(
        f"The ledger is in use by {owner.strip() or _SOMEBODY} ({path}). Two loads on one ledger would "
        "send rows twice: wait for that one to end, or give this task a ledger_path of its own. "
        "Nothing was sent."
    )


def _signature(owner: str) -> str:
    return f"{owner} on {socket.gethostname()}, process {os.getpid()}"
