# SPDX-License-Identifier: Apache-2.0
"""A disk and an object store for ledgers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.sandbox import Sandbox

sys.path.insert(0, str(Path(__file__).parent))

import bucket

#: Returns the path for a name.
Place = Callable[[str], ObjectStoragePath]


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return paths on disk, then in an object store."""
    if request.param == "disk":
        return lambda name: ObjectStoragePath(f"file://{tmp_path}/{name}")
    bucket.use(tmp_path / "bucket")
    return lambda name: ObjectStoragePath(f"bucket://b/{name}")


@pytest.fixture
def lemlist(quick_lemlist: Sandbox) -> Sandbox:
    return quick_lemlist
