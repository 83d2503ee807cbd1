# SPDX-License-Identifier: Apache-2.0
"""
The files of a ledger: append lines on disk or in an object store, and read them back.

On disk, lines are appended to one file. An object store cannot append: there a file is a part, which is
rewritten whole as it grows and followed by the next one.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: In an object store: lines that are collected before a part is written, and lines of a full part.
FLUSH_LINES = 20
PART_LINES = 1000

_NAME = re.compile(r"(settled|open|started|earlier)-(\d+)-(\d+)-\w+\.(?:ndjson|log)")


class PartFile(NamedTuple):
    """One file of a ledger: the attempt that wrote it, its kind, and its position within both."""

    attempt: int
    kind: str
    part: int
    path: ObjectStoragePath


def list_parts(directory: ObjectStoragePath, *kinds: str) -> list[PartFile]:
    """List the files of some kinds, or all, in the order in which they were written."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):  # there is no ledger yet
        for entry in directory.iterdir():
            match = _NAME.fullmatch(entry.name)
            if match and (not kinds or match[1] in kinds):
                found.append(PartFile(int(match[2]), match[1], int(match[3]), entry))
    return sorted(found, key=lambda file: file[:3])


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
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


class LocalLog:
    """
    Append lines to a file, which is created with the first one.

    An added line survives the death of the process; after ``sync`` it also survives a power failure.
    """

    def __init__(self, directory: ObjectStoragePath, kind: str, attempt: int) -> None:
        self._path = os.path.join(directory.path, _name(kind, attempt).format(1))
        self._file: int | None = None
        self._since = math.inf

    def add(self, lines: Sequence[str], *, urgent: bool = True) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        # A single write for all lines, so that a kill cannot separate them.
        data = _encode(lines)
        written = 0
        self._since = min(self._since, time.monotonic())
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            # A full disk takes half a line, and the next line would be appended to that half.
            if written:
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise

    def sync(self, *, older_than: float = 0.0) -> None:
        """Make lines durable if one has been waiting for so many seconds."""
        if self._file is not None and time.monotonic() - self._since >= older_than:
            os.fdatasync(self._file)
            self._since = math.inf

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
        self._name = _name(kind, attempt)
        self._part = 1
        self._lines: list[str] = []
        self._written = 0
        self._since = math.inf

    def add(self, lines: Sequence[str], *, urgent: bool = True) -> None:
        self._since = min(self._since, time.monotonic())
        self._lines += lines
        if len(self._lines) >= (self._written + FLUSH_LINES if urgent else PART_LINES):
            self.sync()

    def sync(self, *, older_than: float = 0.0) -> None:
        """Write lines if one has been waiting for so many seconds."""
        if time.monotonic() - self._since >= older_than:
            (self._directory / self._name.format(self._part)).write_bytes(_encode(self._lines))
            self._written = len(self._lines)
            self._since = math.inf
            if self._written >= PART_LINES:
                self._part += 1
                self._lines, self._written = [], 0

    def close(self) -> None:
        self.sync()


def _name(kind: str, attempt: int) -> str:
    """Return the name of the files of one kind and attempt, with a place for the number of the part."""
    ends = "ndjson" if kind in ("settled", "open") else "log"
    return f"{kind}-{attempt:04}-{{:04}}-{token_hex(2)}.{ends}"


def _encode(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
