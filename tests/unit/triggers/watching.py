# SPDX-License-Identifier: Apache-2.0
"""Event triggers that run as in a triggerer, until they are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from airflow_provider_lemlist.triggers.events import ActivityEventTrigger
from airflow_provider_lemlist.version_compat import has_asset_watchers
from tests.unit.activity_listing import ago
from tests.waiting import LONGEST

REPLY, LINKEDIN = "emailsReplied", "linkedinReplied"
HOUR_AGO = ago(hours=1)
NEVER = 3600.0

needs_watchers = pytest.mark.skipif(
    not has_asset_watchers(), reason="Airflow 2 has no asset watchers, for which the trigger is"
)


def trigger(**changes: Any) -> ActivityEventTrigger:
    arguments: dict[str, Any] = {
        "activity_type": REPLY,
        "campaign_id": "cam_1",
        "start": HOUR_AGO,
        "poll_interval": 0.02,
    }
    return ActivityEventTrigger(**arguments | changes)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONGEST):
        while not condition():  # noqa: ASYNC110  what is waited for happens in a thread, or in a server
            await asyncio.sleep(0.01)


async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def reads_end() -> None:
    """Wait for the read of triggers that are gone, before its server goes too."""
    reads = [task for task in asyncio.all_tasks() if "Feed._read" in repr(task.get_coro())]
    if reads:
        await asyncio.wait(reads)


class Watcher:
    """A running trigger and its events, until the ``with`` block kills it."""

    def __init__(self, event_trigger: ActivityEventTrigger) -> None:
        self.trigger = event_trigger
        self.events: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        ended = self.task.done()
        await cancel([self.task])
        await reads_end()
        assert not ended, f"the trigger ended: {self.task!r}"

    async def _run(self) -> None:
        async for event in self.trigger.run():
            self.events.append(event.payload)

    @property
    def parts(self) -> list[list[str]]:
        """The ids of the activities of each event."""
        return [
            [activity["_id"] for activity in event["activities"]]
            for event in self.events
            if event["status"] == "success"
        ]

    @property
    def ids(self) -> list[str]:
        return [each for part in self.parts for each in part]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["status"] == "error"]

    async def tells(self, *ids: str) -> None:
        """Wait until so many are told; they must be these, in this order."""
        await until(lambda: len(self.ids) >= len(ids) or self.task.done())
        assert self.ids == [*ids]


class KeptInFile:
    """Triggers whose cursors a file keeps."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def trigger(self, **changes: Any) -> ActivityEventTrigger:
        return trigger(state_path=str(self.file), **changes)

    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""
