# SPDX-License-Identifier: Apache-2.0
"""
The files of a ledger: how lines get onto a disk or into an object store, and how they are read back.

A disk is written line by line. An object store cannot append: there a file is a part, rewritten whole as it
grows, and followed by the next one.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: In an object store: lines that are written without being asked to, and lines of one part.
STRIDE = 20
PART = 1000

_NAME = re.compile(r"(settled|open|started|earlier)-(\d+)-(\d+)-\w+\.(?:ndjson|log)")


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file: what its lines tell, the attempt that wrote it, its place among the files of that attempt."""

    kind: str
    attempt: int
    part: int
    path: ObjectStoragePath


def name_of(kind: str, attempt: int, part: int, process: str) -> str:
    """Return the name of a file; ``*.ndjson`` are those that tell of outcomes."""
    return f"{kind}-{attempt:04}-{part:04}-{process}.{'ndjson' if kind in ('settled', 'open') else 'log'}"


def files_of(directory: ObjectStoragePath, *kinds: str) -> list[PartFile]:
    """List the files of some kinds, or all, in the order in which they were written."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):  # there is no ledger yet
        for entry in directory.iterdir():
            match = _NAME.fullmatch(entry.name)
            if match and (not kinds or match[1] in kinds):
                found.append(PartFile(match[1], int(match[2]), int(match[3]), entry))
    return sorted(found, key=lambda file: (file.attempt, file.kind, file.part))


def lines_of(path: ObjectStoragePath) -> Iterator[str]:
    """Give the whole lines of a file; one that a kill has cut off does not count."""
    # Not path.open(): what Airflow 2 wraps around a file cannot be iterated.
    with path.fs.open(path.path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line.decode()


def mend(path: str) -> None:
    """Take away a line that a kill has cut off, so that other readers do not stumble over it."""
    with open(path, "rb+") as file:
        at = file.seek(0, os.SEEK_END)
        while at:
            start = max(0, at - 4096)
            file.seek(start)
            found = file.read(at - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            at = start
        file.truncate(0)


class LocalLog:
    """
    Appends lines to a file, which appears with the first of them.

    What was added is safe from the death of the process, and after ``sync`` from a power cut.
    """

    def __init__(self, directory: ObjectStoragePath, kind: str, attempt: int) -> None:
        self._path = os.path.join(directory.path, name_of(kind, attempt, 1, token_hex(2)))
        self._file: int | None = None
        self._synced = True

    def add(self, lines: Iterable[str], *, urgent: bool = True) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        # One write for all: a line is there or it is not.
        data = "".join(f"{line}\n" for line in lines).encode()
        written = 0
        self._synced = False
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            # A full disk takes half a line, and the next one would be written behind it.
            if written:
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise

    def waiting(self) -> float:
        """Return for how many seconds a line has not been written."""
        return 0.0

    def sync(self) -> None:
        if self._file is not None and not self._synced:
            os.fdatasync(self._file)
            self._synced = True

    def close(self) -> None:
        if self._file is not None:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file = None


class StoredLog:
    """
    Collects lines, and writes a part of the log whole.

    What was added is safe after ``sync``, or when enough lines have come together; those that are not urgent
    wait until they fill a part.
    """

    def __init__(self, directory: ObjectStoragePath, kind: str, attempt: int) -> None:
        self._directory = directory
        self._kind = kind
        self._attempt = attempt
        self._process = token_hex(2)
        self._part = 1
        self._lines: list[str] = []
        self._unwritten = 0
        self._since = 0.0

    def add(self, lines: Iterable[str], *, urgent: bool = True) -> None:
        if not self._unwritten:
            self._since = time.monotonic()
        for line in lines:
            self._lines.append(line)
            self._unwritten += 1
        if self._unwritten >= STRIDE if urgent else len(self._lines) >= PART:
            self.sync()

    def waiting(self) -> float:
        """Return for how many seconds a line has not been written."""
        return time.monotonic() - self._since if self._unwritten else 0.0

    def sync(self) -> None:
        if not self._unwritten:
            return
        path = self._directory / name_of(self._kind, self._attempt, self._part, self._process)
        path.write_bytes("".join(f"{line}\n" for line in self._lines).encode())
        self._unwritten = 0
        if len(self._lines) >= PART:
            self._part += 1
            self._lines = []

    def close(self) -> None:
        self.sync()
