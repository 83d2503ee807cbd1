# SPDX-License-Identifier: Apache-2.0
"""
Allow one load at a time on one ledger.

On a local disk the kernel holds the lock and releases it when the process dies. An object store has no locks:
there the owner writes a heartbeat every few seconds. A load that finds a lock observes it for a while and
takes it over if the heartbeat does not advance. Clocks of different machines are never compared.

An exclusive create (fsspec's ``mode="create"`` or ``"xb"`` for S3, GCS and Azure, which its documents include
"on a trial basis") is no substitute: it shows no sign of life, so a killed load would lock the campaign until
someone deletes the object.
"""

from __future__ import annotations

import fcntl
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

_UNKNOWN_OWNER = "another task"


class LocalLock:
    """A kernel lock on a file of this machine."""

    def __init__(self, path: str, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._file: int | None = None

    def acquire(self) -> None:
        """
        Acquire the lock.

        :raises LemlistError: Another load holds it.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 1000).decode("utf-8", "replace").strip()
            os.close(file)
            raise _in_use(self._path, holder) from None
        self._file = file
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, _signature(self._owner).encode(), 0)
        except OSError:
            self.release()
            raise

    def check(self) -> None:
        """Do nothing: a kernel lock cannot be taken over."""

    def release(self) -> None:
        """Release the lock. The file stays: deleting it would invalidate the lock of the next load."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


class StoredLock:
    """A lock in an object store, kept by heartbeats."""

    #: Seconds between two heartbeats, and how many may be missed.
    heartbeat = 5.0
    max_missed = 4
    #: Seconds after which a lock written at the same moment by another load is visible.
    settle_time = 1.0

    def __init__(self, path: ObjectStoragePath, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._token = uuid.uuid4().hex
        self._ended = threading.Event()
        #: When this load was last known to hold the lock.
        self._confirmed = 0.0
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """
        Acquire the lock. An existing lock is observed first, and taken over if its heartbeat has stopped.

        :raises LemlistError: Another load holds it.
        """
        if owner := self._holder():
            raise _in_use(self._path, owner)
        decided = time.monotonic()
        self._write(0)
        # During a slow write, another load may have written its lock, read it back and begun. Its next
        # heartbeat overwrites ours.
        slow = time.monotonic() - decided > self.settle_time
        time.sleep(2 * self.heartbeat if slow else self.settle_time)
        found = self._read() or {}
        if found.get("token") != self._token:
            raise _in_use(self._path, found.get("owner"))
        self._confirmed = time.monotonic()
        self._thread = threading.Thread(target=self._send_heartbeats, name="lemlist-ledger-lock", daemon=True)
        self._thread.start()

    def _holder(self) -> str | None:
        """Observe an existing lock; return its owner if the heartbeat advances, None if the lock is free."""
        found = self._read()
        if found is None:
            return None
        longest = self.heartbeat * self.max_missed
        log.info(
            "The ledger is locked by %s. Waiting up to %g s for its next heartbeat.",
            found.get("owner") or _UNKNOWN_OWNER,
            longest,
        )
        pause = min(1.0, self.heartbeat / 2)
        # Reads are counted instead of seconds: after this machine was suspended, elapsed time proves nothing.
        for _ in range(math.ceil(longest / pause)):
            time.sleep(pause)
            latest = self._read()
            if latest is None:
                return None
            if latest != found:
                return str(latest.get("owner") or _UNKNOWN_OWNER)
        return None

    def check(self) -> None:
        """
        Make sure that this load still holds the lock.

        :raises LemlistError: Another load took it over, or may have because heartbeats were missed.
        """
        # After a suspension this runs before the heartbeat thread has noticed.
        if self._is_lost():
            raise _in_use(self._path, "another task, which took the ledger over")

    def release(self) -> None:
        """Stop the heartbeat and remove the lock."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            if not self._is_lost():
                with suppress(OSError):
                    self._path.unlink()
            self._thread = None

    def _send_heartbeats(self) -> None:
        beat = 0
        while not self._ended.wait(self.heartbeat):
            beat += 1
            try:
                found = self._read()
                if found is not None and found.get("token") != self._token:
                    self._confirmed = -math.inf  # for good
                    return
                began = time.monotonic()
                self._write(beat)
                self._confirmed = began
            except Exception:
                # A short outage of the store costs a heartbeat. After a long one, another load may rightly
                # have taken the ledger over unnoticed.
                if self._is_lost():
                    return

    def _is_lost(self) -> bool:
        """Return whether another load has taken the lock over, or may before the next heartbeat."""
        return time.monotonic() - self._confirmed > self.heartbeat * (self.max_missed - 1)

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


def lock_at(path: ObjectStoragePath, owner: str) -> LocalLock | StoredLock:
    """Return the lock of a path, of the kind that its storage supports."""
    return LocalLock(path.path, owner) if is_local(path) else StoredLock(path, owner)


def _in_use(path: Any, owner: str | None) -> LemlistError:
    return LemlistError(
        f"The ledger is in use by {owner or _UNKNOWN_OWNER} ({path}). Two loads on one ledger would "
        "send rows twice: let it end first, for example with max_active_runs=1 or a pool of one slot. "
        "Nothing was sent."
    )


def _signature(owner: str) -> str:
    return f"{owner} on {socket.gethostname()}, process {os.getpid()}"
