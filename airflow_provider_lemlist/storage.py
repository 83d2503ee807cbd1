# SPDX-License-Identifier: Apache-2.0
"""Paths on disk or in an object store: from what users write and back, and files that are written whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_lemlist.exceptions import LemlistConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


def storage_path(address: Any, conn_id: str | None, argument: str) -> ObjectStoragePath:
    """
    Return the path of an address such as ``s3://bucket/key`` or ``/data/leads.csv``.

    :param address: Text, a path on disk, or an ``ObjectStoragePath``.
    :param conn_id: Connection of the storage. One in the address takes precedence: ``s3://conn_id@bucket/key``.
    :param argument: Name of the argument in errors.
    :raises LemlistConfigurationError: The storage cannot be opened.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    if isinstance(address, ObjectStoragePath):
        return address
    try:
        text = str(os.fspath(address)).strip()
    except TypeError:
        raise LemlistConfigurationError(
            f"{argument} must be a path, not {type(address).__name__}; nothing was sent."
        ) from None
    if not text:
        raise LemlistConfigurationError(f"{argument} is empty; nothing was sent.")
    if "://" not in text:
        return ObjectStoragePath(f"file://{os.path.abspath(os.path.expanduser(text))}")
    named = "@" in text.partition("://")[2].partition("/")[0]
    try:
        path = ObjectStoragePath(text, **({} if named else {"conn_id": conn_id}))
        path.fs  # noqa: B018  (opens the storage, which raises if it cannot be used)
    except (ImportError, ValueError) as error:
        raise LemlistConfigurationError(
            f"{argument} is in a storage that this worker cannot open ({error}). Install the provider "
            "package of the storage, such as apache-airflow-providers-amazon[s3fs]. Nothing was sent."
        ) from error
    return path


def is_local(path: ObjectStoragePath) -> bool:
    """Return whether a path is on a file system, which may be shared with other machines."""
    return path.protocol in ("", "file", "local")


def shown(path: ObjectStoragePath) -> str:
    """Return a path as users write it."""
    return str(path.path) if is_local(path) else str(path)


def shown_to_workers(path: ObjectStoragePath) -> str:
    """Return the path of a file that several tasks use, with what a path on disk takes."""
    # Whether a file system is shared by the machines cannot be seen from one of them.
    return f"{shown(path)} (on disk; every worker must see this path)" if is_local(path) else shown(path)


def name_in_storage(path: ObjectStoragePath) -> str:
    """Return the path without its bucket; a local path as it is."""
    return shown(path) if is_local(path) else str(path.key)


def read_lines(path: ObjectStoragePath) -> Iterator[str]:
    """Yield the lines of a file; none if it does not exist."""
    # Not path.open(): Airflow 2 wraps files in an object that is not iterable.
    with suppress(FileNotFoundError), path.fs.open(path.path, "rb") as file:
        for line in file:
            yield line.decode()


def write_whole(path: ObjectStoragePath, lines: Iterable[str]) -> None:
    """Write a file so that a reader, also after a kill, finds it as it was before or as it is now."""
    with _open_whole(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def put_whole(path: ObjectStoragePath, local_file: Path) -> None:
    """Copy a local file so that a reader, also after a kill, finds it as it was before or as it is now."""
    if not is_local(path):
        # Not through an open file: fsspec completes its upload even if an error interrupts the copy.
        path.fs.put_file(str(local_file), str(path.path))
        return
    with local_file.open("rb") as source, _open_whole(path) as file:
        shutil.copyfileobj(source, file)


@contextmanager
def _open_whole(path: ObjectStoragePath) -> Iterator[BinaryIO]:
    # An object store does that by itself.
    place = str(path.path)
    if is_local(path):
        place = os.path.join(os.path.dirname(place), f".{path.name}.new")
    with path.fs.open(place, "wb") as file:
        yield file
        if place != path.path:
            file.flush()
            os.fsync(file.fileno())
    if place != path.path:
        os.replace(place, path.path)
