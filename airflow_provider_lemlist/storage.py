# SPDX-License-Identifier: Apache-2.0
"""Paths as people write them, on a disk or in an object store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.exceptions import LemlistConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


def storage_path(address: Any, conn_id: str | None, argument: str) -> ObjectStoragePath:
    """
    Return the path of an address such as ``s3://bucket/key`` or ``/data/leads.csv``.

    :param address: A text, a path of this machine, or an ``ObjectStoragePath``.
    :param conn_id: Connection of the storage, unless the address names one: ``s3://conn_id@bucket/key``.
    :param argument: What an error calls it.
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
        path.fs  # noqa: B018  (opening the storage tells whether it can be used at all)
    except (ImportError, ValueError) as error:
        raise LemlistConfigurationError(
            f"{argument} is in a storage that this worker cannot open ({error}). Install the provider of "
            "that storage, such as apache-airflow-providers-amazon[s3fs] for s3://. Nothing was sent."
        ) from error
    return path


def is_local(path: ObjectStoragePath) -> bool:
    """Say whether a path is on a file system of this machine."""
    return path.protocol in ("", "file", "local")


def shown(path: ObjectStoragePath) -> str:
    """Return a path as people write it."""
    return str(path.path) if is_local(path) else str(path)


def name_in_storage(path: ObjectStoragePath) -> str:
    """Return the name of a path within its disk or bucket."""
    return shown(path) if is_local(path) else str(path.key)
