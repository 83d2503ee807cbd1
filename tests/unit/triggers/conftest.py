# SPDX-License-Identifier: Apache-2.0
"""A server that lists activities, behind the default connection, and a clock that a test can set."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lemlist.triggers import events, feed, watch
from tests.unit.activity_listing import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listing]:
    listing = Listing()
    monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", listing.connection)
    yield listing
    listing.close()


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as feeds and event triggers see it."""
    clock = Clock()
    for module in (feed, watch):
        monkeypatch.setattr(module, "utc_now", lambda: clock.now)
    return clock


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cursor move as soon as Airflow has stored an event."""
    monkeypatch.setattr(events, "SETTLE", 0.0)
