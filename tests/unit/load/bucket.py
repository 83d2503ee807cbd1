# SPDX-License-Identifier: Apache-2.0
"""
An object store for tests, in a directory: objects are written whole or not at all, and cannot be appended to.

``use(root)`` makes ``bucket://…`` paths work in this process. The objects outlive the process.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem


class Bucket(AbstractFileSystem):
    protocol = "bucket"
    cachable = False
    #: Class attributes, because every path creates an instance.
    root = ""
    puts = 0

    def _place(self, path: str) -> Path:
        return Path(self.root, self._strip_protocol(path).strip("/"))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return self._place(path).open("rb")
        if mode == "wb":
            return _Upload(self._place(path))
        raise NotImplementedError("an object is written whole")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        place = self._place(path)
        kind = "directory" if place.is_dir() else "file"
        return {"name": self._strip_protocol(path), "size": place.stat().st_size, "type": kind}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        names = [f"{self._strip_protocol(path).rstrip('/')}/{name}" for name in os.listdir(self._place(path))]
        return [self.info(name) for name in names] if detail else names

    def rm_file(self, path: str) -> None:
        place = self._place(path)
        place.rmdir() if place.is_dir() else place.unlink()  # a real store has no directories

    _rm = rm_file

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        self._place(path).mkdir(parents=True, exist_ok=True)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.mkdir(path)


class _Upload(io.BytesIO):
    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place

    def close(self) -> None:
        if not self.closed:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            # Outside the bucket, so that a listing never shows a partial object.
            handle, name = tempfile.mkstemp(dir=os.path.dirname(Bucket.root))
            with os.fdopen(handle, "wb") as file:
                file.write(self.getvalue())
            os.replace(name, self._place)
            Bucket.puts += 1
        super().close()


def use(root: Path | str) -> None:
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    Bucket.root = str(root).rstrip("/")
    Path(root).mkdir(exist_ok=True)
    try:
        from airflow.sdk.io import attach
    except ImportError:  # Airflow 2
        from airflow.io.store import attach  # type: ignore[no-redef]

    attach("bucket", fs=Bucket())
    warnings.filterwarnings("ignore", "UPath 'bucket' filesystem not explicitly implemented")
