# SPDX-License-Identifier: Apache-2.0
"""
The store for one machine: a SQLite file for each key, shared by all processes of one user.

The file holds the last seconds of a rate limit and is worth nothing. So nobody waits for the disk, a file
from before the last start of the machine counts as empty, and a broken one is replaced. What must hold is
that all processes use the same file, and that nobody else can touch it.
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
from typing import TypeVar

from airflow_provider_lemlist.api.budget.arithmetic import State, dump, load
from airflow_provider_lemlist.api.budget.stores import LocalStore, StoreError, monotonic

T = TypeVar("T")

#: Seconds to wait for others, each of whom takes less than a millisecond.
PATIENCE = 10.0
#: Failures of the place and not of the file; a new file would fail too.
_OF_THE_PLACE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}
_REMEDY = (
    "Name a directory on a local disk that belongs to the user of the workers, in option budget_dir of "
    "section [lemlist] of the Airflow configuration"
)
#: Connections of a parent process. To close them here could disturb the parent, so they are kept.
_inherited: list[sqlite3.Connection] = []


class SQLiteStore(LocalStore):
    """
    A file in a private directory of this machine.

    :param digest: Stands for the key.
    :param directory: Where the file lies, on a local disk; None for one of the user's own under the
        temporary directory.
    :param clock: Replaces the clock of the machine.
    """

    def __init__(
        self, digest: str, directory: str | None = None, clock: Callable[[], int] = monotonic
    ) -> None:
        super().__init__(clock)
        self._digest = digest
        self._directory = directory
        self.path = Path()  # known when it is opened
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def _change(self, decide: Callable[[State, int], tuple[State, T]]) -> T:
        with self._lock:
            try:
                try:
                    return self._transact(decide)
                except (sqlite3.DatabaseError, FileNotFoundError) as error:
                    if _primary_code(error) in _OF_THE_PLACE:
                        raise
                    return self._replace(decide)
            except (sqlite3.Error, OSError) as error:
                self._close()
                raise StoreError(f"the file {self.path} does not work ({error}). {_REMEDY}") from error

    def _transact(self, decide: Callable[[State, int], tuple[State, T]]) -> T:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT boot, state FROM budget WHERE id = 1").fetchone()
            before = _read(row)
            # The clock is read under the lock, or two bookers could see time run backwards.
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
            # Somebody removed or replaced the file: whoever comes now must meet the others in the new one.
            self._close()
        # Whoever cleans the temporary directory takes the private one away, and somebody else may put theirs
        # there.
        self.path = private_directory(self._directory) / f"{self._digest}.sqlite3"
        connection = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            # No file beside the file, and no write-ahead log, whose first opening ignores the timeout.
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS budget (id INTEGER PRIMARY KEY, boot TEXT, state TEXT)"
            )
            # By its path: to open and close the file here would drop the locks that SQLite holds on it.
            os.chmod(self.path, 0o600)
            self._identity = _identity(self.path)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _replace(self, decide: Callable[[State, int], tuple[State, T]]) -> T:
        """Put a new file in the place of a broken one, unless somebody else just did."""
        self._close()
        guard = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                return self._transact(decide)
            except sqlite3.DatabaseError as error:
                if _primary_code(error) in _OF_THE_PLACE:
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
        self._connection = None

    def _forget_parent(self) -> None:
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None


def private_directory(directory: str | None) -> Path:
    """
    Give the directory of the files: the user's own, closed to everybody else.

    :raises StoreError: It is somebody else's, or not a directory.
    """
    user = os.geteuid()
    own = f"airflow-provider-lemlist-{user}"
    path = Path(directory) if directory else Path(tempfile.gettempdir()) / own
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
        found = path.lstat()
        if found.st_uid == user and stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077:
            # The user's, but not private. It may serve other purposes, so it stays as it is.
            path = path / own
            _make(path)
            found = path.lstat()
    except OSError as error:
        raise StoreError(f"the directory {path} cannot be made ({error}). {_REMEDY}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or stat.S_IMODE(found.st_mode) & 0o077:
        raise StoreError(
            f"{path} is not a directory of user {user} alone, so others could change what is in it. {_REMEDY}"
        )
    return path


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return


def _read(row: tuple[str, str] | None) -> State:
    # The clock starts anew with the machine.
    if row is None or row[0] != _boot():
        return State()
    try:
        return load(row[1])
    except (ValueError, AttributeError, TypeError):
        return State()


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _primary_code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
