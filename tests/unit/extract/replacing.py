# SPDX-License-Identifier: Apache-2.0
"""Stop the replacement of files at any line of it, by an exception or by a kill."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist import storage
from airflow_provider_lemlist.extract import files
from tests.unit.load.conftest import bucket

#: Where each line can be the last one that is run.
STOPS = {files.__file__, storage.__file__, bucket.__file__, shutil.__file__}

ObjectStoragePath("file:///").fs  # slow at its first use, which is before the process is forked


@contextmanager
def stopped(after: int, stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` before a line is run of which so many were run before."""
    lines = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in STOPS:
            return None
        if event == "line":
            lines += 1
            if lines > after:
                stop()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def replace_killed(
    after: int, target: str, root: str, parts: list[files.Part], staged: Path, manifest: Any
) -> None:
    bucket.use(root)
    path = ObjectStoragePath(target)
    with stopped(after, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        files.replace(path, parts, staged, manifest)
