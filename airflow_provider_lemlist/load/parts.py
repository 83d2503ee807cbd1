# SPDX-License-Identifier: Apache-2.0
"""
The files of a ledger: append lines on disk or in an object store, and read them back.

On disk, lines are appended to one file. An object store cannot append: there a file is a part, which is
rewritten whole as it grows and followed by the next one.
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

#: In an object store: lines that are collected before a part is written, and lines of a full part.
FLUSH_LINES = 20
PART_LINES = 1000

_NAME = re.compile(r"(settled|open|started|earlier)-(\d+)-(\d+)-\w+\.(?:ndjson|log)")


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file of a ledger: its kind, the attempt that wrote it, and its position within that attempt."""

    kind: str
    attempt: int
    part: int
    path: ObjectStoragePath


def part_name(kind: str, attempt: int, part: int, process: str) -> str:
    """Return the name of a file. Files of outcomes are named ``*.ndjson``, the others ``*.log``."""
    return f"{kind}-{attempt:04}-{part:04}-{process}.{'ndjson' if kind in ('settled', 'open') else 'log'}"


def list_parts(directory: ObjectStoragePath, *kinds: str) -> list[PartFile]:
    """List the files of some kinds, or all, in the order in which they were written."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):  # there is no ledger yet
        for entry in directory.iterdir():
            match = _NAME.fullmatch(entry.name)
            if match and (not kinds or match[1] in kinds):
                found.append(PartFile(match[1], int(match[2]), int(match[3]), entry))
    return sorted(found, key=lambda file: (file.attempt, file.kind, file.part))


def read_lines(path: ObjectStoragePath) -> Iterator[str]:
    """Yield the complete lines of a file. A line that was cut off by a kill is left out."""
    # Not path.open(): Airflow 2 wraps files in an object that is not iterable.
    with path.fs.open(path.path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line.decode()


def truncate_partial_line(path: str) -> None:
    """Remove a line that was cut off by a kill, so that other programs can read the file."""
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
    Append lines to a file, which is created with the first one.

    An added line survives the death of the process; after ``sync`` it also survives a power failure.
    """

    def __init__(self, directory: ObjectStoragePath, kind: str, attempt: int) -> None:
        self._path = os.path.join(directory.path, part_name(kind, attempt, 1, token_hex(2)))
        self._file: int | None = None
        self._synced = True

    def add(self, lines: Iterable[str], *, urgent: bool = True) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        # A single write for all lines, so that a kill cannot separate them.
        data = "".join(f"{line}\n" for line in lines).encode()
        written = 0
        self._synced = False
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            # A full disk takes half a line, and the next line would be appended to that half.
            if written:
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise

    def unwritten_for(self) -> float:
        """Return for how many seconds a line has been waiting to be written."""
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
    Collect lines and write them to an object store in whole parts.

    Lines are written by ``sync``, or when ``FLUSH_LINES`` have been collected. Lines that are not urgent wait
    until they fill a part.
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
        if self._unwritten >= FLUSH_LINES if urgent else len(self._lines) >= PART_LINES:
            self.sync()

    def unwritten_for(self) -> float:
        """Return for how many seconds a line has been waiting to be written."""
        return time.monotonic() - self._since if self._unwritten else 0.0

    def sync(self) -> None:
        if not self._unwritten:
            return
        path = self._directory / part_name(self._kind, self._attempt, self._part, self._process)
        path.write_bytes("".join(f"{line}\n" for line in self._lines).encode())
        self._unwritten = 0
        if len(self._lines) >= PART_LINES:
            self._part += 1
            self._lines = []

    def close(self) -> None:
        self.sync()
