# SPDX-License-Identifier: Apache-2.0
"""What reaches a run: events that the scheduler can tell apart, and only activities of lemlist."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lemlist.triggers import events
from airflow_provider_lemlist.triggers.events import ActivityEventTrigger, activities_in
from airflow_provider_lemlist.version_compat import has_asset_watchers
from tests.unit.activity_listing import ago

if TYPE_CHECKING:
    from tests.unit.activity_listing import Listing


@pytest.mark.skipif(not has_asset_watchers(), reason="Airflow 2 has no asset watchers")
@pytest.mark.asyncio
async def test_no_event_follows_an_error_event_before_airflow_has_stored_it(
    lemlist: Listing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(events, "SETTLE", 0)
    lemlist.unknown.add("emailReplied")
    reply = lemlist.add()
    trigger = ActivityEventTrigger(["emailReplied", "emailsReplied"], start=ago(hours=1), tell_errors=True)
    telling = trigger.tell()
    error = await anext(telling)
    assert error.payload["status"] == "error"
    following = asyncio.ensure_future(anext(telling))
    await asyncio.sleep(0.1)
    assert not following.done()
    error.is_stored.set()
    told = await following
    assert [activity["_id"] for activity in told.payload["activities"]] == [reply]
    await telling.aclose()


@pytest.mark.parametrize("payload", ["a text", ["a", "list"], 7, None, {"message": {}}], ids=str)
def test_events_of_other_assets_hold_no_activities(payload: object):
    row = {"_id": "act_1", "createdAt": "2026-03-02T08:00:00.000Z"}
    ours = SimpleNamespace(extra={"from_trigger": True, "payload": {"activities": [row]}})
    other = SimpleNamespace(extra={"from_trigger": True, "payload": payload})
    assert activities_in({"replies": [ours], "orders": [other]}) == [row]
