# SPDX-License-Identifier: Apache-2.0
"""
Rows as the files of a directory, on disk or in an object store.

A read is staged on the worker's disk. Only if it is complete, its files replace those of the target.
``_manifest.json`` is removed before anything else changes and written last, so if it is there, the files that
it lists are complete.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from gzip import GzipFile
from hashlib import file_digest
from io import StringIO
from itertools import islice
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow_provider_lemlist.datasets import Column, Row, Value, fingerprint
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.storage import put_whole, shown
from airflow_provider_lemlist.validation import hint

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: The format of the files.
FileFormat = Literal["parquet", "ndjson", "csv"]
#: What the names of the files of each format end in.
FORMATS: Mapping[str, str] = {"parquet": "parquet", "ndjson": "ndjson.gz", "csv": "csv.gz"}
#: Most rows of one file.
PART_ROWS = 50_000
#: Rows that are in memory together; a row group of Parquet.
GROUP_ROWS = 2_500
MANIFEST = "_manifest.json"

#: Beginnings of the names of a directory for staged files: before and after it is locked.
_NEW, _STAGED = "lemlist-new-", "lemlist-staged-"

_NAME = rf"part-\d{{5,}}\.({'|'.join(map(re.escape, FORMATS.values()))})"
#: A file of an earlier run, or what a killed one left on disk. All other files are foreign.
_PART = re.compile(rf"{_NAME}|\.{_NAME}\.new")


class Part(NamedTuple):
    """One file."""

    name: str
    rows: int
    bytes: int
    sha256: str


def check_format(file_format: str) -> None:
    """
    Make sure that files of a format can be written.

    :raises LemlistConfigurationError: There is no such format, or a package is missing.
    """
    if file_format not in FORMATS:
        raise LemlistConfigurationError(
            f"file_format must be one of {', '.join(FORMATS)}, not {file_format!r}"
            f"{hint(str(file_format), tuple(FORMATS))}."
        )
    if file_format == "parquet":
        try:
            import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401  # ships no types
        except ImportError:
            raise LemlistConfigurationError(
                "Writing Parquet needs pyarrow; install airflow-provider-lemlist[parquet], or choose another "
                "file_format. Nothing was read."
            ) from None


def check_target(target: ObjectStoragePath) -> None:
    """
    Make sure that a target is not a file.

    :raises LemlistConfigurationError: It is a file.
    """
    if target.fs.isfile(target.path):
        raise LemlistConfigurationError(f"path must be a directory; {shown(target)} is a file.")


def described(columns: Sequence[Column]) -> dict[str, Any]:
    """Return what a manifest says of the columns."""
    return {
        "schema": [{"name": column.name, "type": column.kind} for column in columns],
        "schema_fingerprint": fingerprint(columns),
    }


@contextmanager
def staging_directory() -> Iterator[Path]:
    """
    Yield a directory for ``stage``, and remove it, and those that killed processes left.

    They may hold personal data. The process that uses one holds its lock, which ends with the process.
    """
    for left in Path(gettempdir()).glob(f"{_STAGED}*"):
        _remove_unless_used(left)
    directory = Path(mkdtemp(prefix=_NEW))
    lock = os.open(directory, os.O_RDONLY)
    try:
        flock(lock, LOCK_EX)
        # Not before it is locked; the lock stays with the directory.
        directory = directory.rename(directory.with_name(directory.name.replace(_NEW, _STAGED, 1)))
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _remove_unless_used(directory: Path) -> None:
    # Another process may remove it at the same time, and one of another user cannot be opened.
    with suppress(OSError):
        lock = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            flock(lock, LOCK_EX | LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)


def stage(rows: Iterable[Row], columns: Sequence[Column], file_format: str, directory: Path) -> list[Part]:
    """
    Write rows into files of a local directory while they arrive. The same rows give the same bytes.

    :param rows: The rows; if there are none, one file with the columns and without rows is written.
    :param columns: The columns of the rows, in their order.
    :param file_format: One of ``FORMATS``.
    :param directory: An empty directory.
    :raises LemlistConfigurationError: See ``check_format``.
    """
    check_format(file_format)
    parts: list[Part] = []
    rows = iter(rows)
    group = list(islice(rows, GROUP_ROWS))
    while group or not parts:
        name = f"part-{len(parts):05}.{FORMATS[file_format]}"
        written = 0
        with _WRITERS[file_format](directory / name, columns) as write:
            while group and written < PART_ROWS:
                write(group)
                written += len(group)
                group.clear()  # not two of them in memory together
                group.extend(islice(rows, GROUP_ROWS))
        with (directory / name).open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        parts.append(Part(name, written, (directory / name).stat().st_size, digest))
    return parts


def replace(
    target: ObjectStoragePath, parts: Sequence[Part], directory: Path, manifest: Mapping[str, Any]
) -> list[str]:
    """
    Replace the files of a target, and return their paths as users write them.

    After a kill the target is as it was, or has no manifest until this is called again. Foreign files stay.

    :param target: A directory; made if it is missing.
    :param parts: The new files.
    :param directory: Where they were staged.
    :param manifest: What the manifest says besides the files: the dataset, the window, and ``described``.
    :raises LemlistConfigurationError: The target is a file.
    """
    filesystem = target.fs
    # Object stores remember listings, and other workers may have written since.
    filesystem.invalidate_cache(target.path)
    check_target(target)
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    with suppress(FileNotFoundError):  # an object store has no empty directories
        found = {place.rsplit("/", 1)[-1]: place for place in filesystem.ls(target.path, detail=False)}
    if MANIFEST in found:
        filesystem.rm_file(found[MANIFEST])
    for part in parts:
        put_whole(target / part.name, directory / part.name)
    for name in found.keys() - {part.name for part in parts}:
        if _PART.fullmatch(name):
            with suppress(FileNotFoundError):  # put_whole has reused what a killed run left
                filesystem.rm_file(found[name])
    files = [part._asdict() for part in parts]
    content = {**manifest, "rows": sum(part.rows for part in parts), "files": files}
    (directory / MANIFEST).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
    put_whole(target / MANIFEST, directory / MANIFEST)
    return [shown(target / part.name) for part in parts]


# --- Formats ------------------------------------------------------------------------------------------------

#: Writes the next rows of a file.
Write = Callable[[Sequence[Row]], object]


@contextmanager
def _parquet(path: Path, columns: Sequence[Column]) -> Iterator[Write]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = {
        "text": pyarrow.string(),
        "json": pyarrow.string(),
        "integer": pyarrow.int64(),
        "boolean": pyarrow.bool_(),
        "timestamp": pyarrow.timestamp("ms", tz="UTC"),
    }
    schema = pyarrow.schema([(column.name, types[column.kind]) for column in columns])

    with ParquetWriter(path, schema, compression="zstd") as writer:

        def write(rows: Sequence[Row]) -> None:
            cells = zip(zip(*rows, strict=True), schema.types, strict=True)
            arrays = [pyarrow.array(values, of) for values, of in cells]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))

        yield write


@contextmanager
def _ndjson(path: Path, columns: Sequence[Column]) -> Iterator[Write]:
    names = [column.name for column in columns]
    encode = json.JSONEncoder(ensure_ascii=False, default=_moment).encode
    with _gzipped(path) as file:
        yield lambda rows: file.write(
            "".join(f"{encode(dict(zip(names, row, strict=True)))}\n" for row in rows).encode()
        )


@contextmanager
def _csv(path: Path, columns: Sequence[Column]) -> Iterator[Write]:
    forms = [_CELLS.get(column.kind) for column in columns]

    def lines(rows: Iterable[Iterable[Value]]) -> bytes:
        text = StringIO(newline="")
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()

    def write(rows: Sequence[Row]) -> None:
        # By column, which is much faster than cell by cell.
        cells = zip(forms, zip(*rows, strict=True), strict=True)
        formed = [map(form, values) if form else values for form, values in cells]
        file.write(lines(zip(*formed, strict=True)))

    with _gzipped(path) as file:
        file.write(lines([[column.name for column in columns]]))
        yield write


@contextmanager
def _gzipped(path: Path) -> Iterator[GzipFile]:
    # A name or a time inside would differ between runs. Higher levels take several times as long.
    with path.open("wb") as file, GzipFile("", "wb", 1, file, mtime=0) as stream:
        yield stream


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_CELLS: Mapping[str, Callable[[Any], str | None]] = {
    "boolean": {True: "true", False: "false"}.get,
    "timestamp": lambda moment: moment and _moment(moment),
}
_WRITERS: Mapping[str, Callable[[Path, Sequence[Column]], AbstractContextManager[Write]]] = {
    "parquet": _parquet,
    "ndjson": _ndjson,
    "csv": _csv,
}
