# SPDX-License-Identifier: Apache-2.0
"""A server that lists activities, behind the default connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.activity_listing import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    listing = Listing()
    monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", listing.connection)
    yield listing
    listing.close()
