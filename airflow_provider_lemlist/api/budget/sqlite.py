# SPDX-License-Identifier: Apache-2.0
"""
The store for one machine: a SQLite file for each key, shared by all processes of one user.

The file holds the last seconds of a rate limit and is worth nothing after them. So no write waits for the
disk, a file from before the last start of the machine counts as empty, and a broken one is replaced. All
processes must use the same file, and no other user may be able to change it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from airflow_provider_lemlist.api.budget.arithmetic import dump
from airflow_provider_lemlist.api.budget.stores import Decide, Store, StoreError, T, monotonic, restore

#: Seconds to wait for the lock of the file, which each process holds for less than a millisecond.
TIMEOUT = 10.0
#: Errors of the file, which a new one cures; all others are of the directory or the disk.
_BROKEN = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}
_REMEDY = (
    "In section [lemlist] of the Airflow configuration, set budget_dir to a directory on a local disk that "
    "belongs to the user of the workers"
)
#: Connections of a parent process. Closing them here could disturb the parent, so they are kept.
_inherited: list[sqlite3.Connection | None] = []


class SQLiteStore(Store):
    """A file in a private directory of this machine."""

    shared_by = "one user on this machine"

    def __init__(
        self, digest: str, directory: str | None = None, clock: Callable[[], int] = monotonic
    ) -> None:
        super().__init__()
        self._clock = clock
        self._digest = digest
        self._directory = directory
        self.path = Path()  # known once it is open
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """The file; its directory is known once it is open."""
        return f"the file {self.path}" if self.path.name else "a file that is not open"

    def _change(self, decide: Decide[T]) -> T:
        try:
            try:
                return self._transact(decide)
            except (sqlite3.DatabaseError, FileNotFoundError) as error:
                if not _is_broken(error):
                    raise
                return self._replace(decide)
        except (sqlite3.Error, OSError) as error:
            self._close()
            raise StoreError(f"{self.place} does not work ({error}). {_REMEDY}") from error

    def _transact(self, decide: Decide[T]) -> T:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT boot, state FROM budget WHERE id = 1").fetchone()
            # The clock restarts with the machine.
            before = restore(row[1] if row and row[0] == _boot() else None)
            # The clock is read under the lock; otherwise time could run backwards between two bookings.
            after, result = decide(before, self._clock())
            if after is not before:
                connection.execute(
                    "INSERT OR REPLACE INTO budget (id, boot, state) VALUES (1, ?, ?)", (_boot(), dump(after))
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identity == _identity(self.path):
                return self._connection
            # The file was removed or replaced: all processes must meet in the new one.
            self._close()
        # A cleaner of the temporary directory may have removed the private one, and another user may have
        # created one of that name.
        self.path = private_directory(self._directory) / f"{self._digest}.sqlite3"
        self._connection = connection = sqlite3.connect(
            self.path, timeout=TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # No file beside the file, and no write-ahead log, whose first opening ignores the timeout.
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS budget (id INTEGER PRIMARY KEY, boot TEXT, state TEXT)"
        )
        # By its path: opening and closing the file here would drop the locks that SQLite holds on it.
        os.chmod(self.path, 0o600)
        self._identity = _identity(self.path)
        return connection

    def _replace(self, decide: Decide[T]) -> T:
        """Replace a broken file by a new one, unless another process just did."""
        self._close()
        guard = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                return self._transact(decide)
            except sqlite3.DatabaseError as error:
                if not _is_broken(error):
                    raise
                self._close()
                for leftover in (self.path, Path(f"{self.path}-journal"), Path(f"{self.path}-wal")):
                    leftover.unlink(missing_ok=True)
                return self._transact(decide)
        finally:
            os.close(guard)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = None

    def _forget_parent(self) -> None:
        _inherited.append(self._connection)
        self._connection = None


def private_directory(directory: str | None) -> Path:
    """Return the directory of the files, which belongs to the user and is closed to all others."""
    user = os.geteuid()
    own = f"airflow-provider-lemlist-{user}"
    given = Path(directory) if directory else Path(tempfile.gettempdir()) / own
    # One that is not private may serve other purposes: its mode is left alone, and one within it is used.
    for path in (given, given / own):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.lstat()
        except OSError as error:
            raise StoreError(f"the directory {path} cannot be created ({error}). {_REMEDY}") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
            break
        if not found.st_mode & 0o077:
            return path
    raise StoreError(
        f"{path} is not a directory of user {user} alone, and others could change its files. {_REMEDY}"
    )


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _identity(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino


def _is_broken(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _BROKEN
