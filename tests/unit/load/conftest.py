# SPDX-License-Identifier: Apache-2.0
"""A disk and an object store to lay ledgers in, and a sandbox that is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.api.transport import Transport
from airflow_provider_lemlist.sandbox import Sandbox

sys.path.insert(0, str(Path(__file__).parent))

import bucket

#: Makes the path of a name.
Place = Callable[[str], ObjectStoragePath]


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Make paths on a disk, then in an object store."""
    if request.param == "disk":
        return lambda name: ObjectStoragePath(f"file://{tmp_path}/{name}")
    bucket.use(tmp_path / "bucket")
    return lambda name: ObjectStoragePath(f"bucket://b/{name}")


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox that allows a hundred requests a second, with a key and so a budget of its own."""
    with Sandbox(api_key=uuid4().hex, limit="none", requests=200) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
        monkeypatch.setitem(Transport.__init__.__kwdefaults__, "sleep", lambda seconds: None)
        yield sandbox
