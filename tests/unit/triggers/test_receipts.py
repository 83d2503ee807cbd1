# SPDX-License-Identifier: Apache-2.0
"""What the cursor knows of what Airflow 3.3 has stored, with Airflow's own shared streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import pytest

from airflow_provider_lemlist.triggers import events, shared
from tests.unit.triggers.watching import (
    HOUR_AGO,
    NEVER,
    REPLY,
    KeptInFile,
    Watcher,
    cancel,
    reads_end,
    trigger,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_lemlist.triggers.events import ActivityEventTrigger
    from tests.unit.activity_listing import Listing

streams = pytest.importorskip("airflow.triggers.shared_stream", reason="Airflow has shared streams since 3.3")

from airflow_provider_lemlist.triggers.receipts import Receipts  # noqa: E402  (where there are streams)

pytestmark = pytest.mark.usefixtures("settled")


class Triggerer:
    """The part of Airflow's triggerer that runs event triggers; the test says what is stored."""

    def __init__(self, **options: Any) -> None:
        self.streams = streams.SharedStreamManager(**options)
        self.tasks: list[asyncio.Task[None]] = []
        #: By trigger: the payload of each event, and the number under which Airflow confirms it.
        self.events: dict[int, list[tuple[dict[str, Any], int]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await cancel(self.tasks)
        await self.streams.stop_all()
        await reads_end()

    def start(self, event_trigger: ActivityEventTrigger) -> int:
        number = event_trigger.trigger_id = len(self.tasks)
        self.events[number] = []
        self.tasks.append(asyncio.create_task(self._run(number, event_trigger)))
        return number

    async def _run(self, number: int, event_trigger: ActivityEventTrigger) -> None:
        """Do as ``TriggerRunner.run_trigger`` does."""
        key = event_trigger.shared_stream_key()
        stream = self.streams.subscribe(trigger_id=number, trigger=event_trigger, key=key)
        try:
            async for event in event_trigger.filter_shared_stream(stream):
                seq = self.streams.bind_pending_event(trigger_id=number, key=key)
                assert seq is not None
                self.events[number].append((event.payload, seq))
        finally:
            await self.streams.unsubscribe(number, key)

    def store(self, number: int = 0) -> None:
        """Confirm all events of a trigger so far."""
        self.streams.confirm_persisted([seq for _, seq in self.events[number]])

    def ids(self, number: int = 0) -> list[str]:
        return [each["_id"] for payload, _ in self.events[number] for each in payload.get("activities", ())]


@pytest.fixture
def kept(tmp_path: Path) -> KeptInFile:
    return KeptInFile(tmp_path / "replies.json")


@pytest.fixture
def others(tmp_path: Path) -> KeptInFile:
    """The cursors of another trigger. One thread writes all, so what was to be saved before is saved."""
    return KeptInFile(tmp_path / "others.json")


class TestReceipts:
    @pytest.mark.asyncio
    async def test_the_cursor_moves_when_airflow_has_stored_the_event(
        self, lemlist: Listing, kept: KeptInFile
    ):
        first, second = lemlist.add(), lemlist.add()
        async with Triggerer() as triggerer:
            triggerer.start(kept.trigger(batch=1))
            await until(triggerer.ids)
            triggerer.store()
            await until(lambda: first in kept.text())
            await until(lambda: triggerer.ids() == [first, second])
            assert second not in kept.text()
            triggerer.store()
            await until(lambda: second in kept.text())
            third = lemlist.add()
            await until(lambda: triggerer.ids() == [first, second, third])

    @pytest.mark.asyncio
    async def test_an_event_without_a_receipt_is_told_again_after_a_restart(
        self, lemlist: Listing, kept: KeptInFile, others: KeptInFile
    ):
        reply = lemlist.add()
        async with Triggerer() as triggerer:
            triggerer.start(kept.trigger())
            await until(triggerer.ids)
            async with Watcher(others.trigger()):
                await until(lambda: reply in others.text())
        assert reply not in kept.text()
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(reply)

    @pytest.mark.asyncio
    async def test_a_receipt_is_not_enough_before_the_event_has_settled(
        self, lemlist: Listing, kept: KeptInFile, others: KeptInFile, monkeypatch
    ):
        monkeypatch.setattr(events, "SETTLE", NEVER)
        reply = lemlist.add()
        async with Triggerer() as triggerer:
            triggerer.start(kept.trigger())
            await until(triggerer.ids)
            triggerer.store()
            [group] = triggerer.streams._groups.values()
            await until(lambda: not group._outstanding)
            async with Watcher(others.trigger()):
                await until(others.text)
        assert reply not in kept.text()

    @pytest.mark.asyncio
    async def test_an_event_that_airflow_could_not_store_fails_the_trigger_and_not_the_cursor(
        self, lemlist: Listing, kept: KeptInFile
    ):
        """Airflow then starts the trigger again, which goes on from its cursor."""
        now = [0.0]
        reply = lemlist.add()
        async with Triggerer(ack_timeout=0.1, _now=lambda: now[0]) as triggerer:
            triggerer.start(kept.trigger())
            await until(triggerer.ids)
            now[0] = 1.0
            await until(triggerer.tasks[0].done)
            assert isinstance(triggerer.tasks[0].exception(), streams.AckTimeout)
            assert reply not in kept.text()
            again = triggerer.start(kept.trigger())
            await until(lambda: triggerer.ids(again) == [reply])

    @pytest.mark.asyncio
    async def test_only_what_airflow_reports_as_stored_is_stored(self):
        outcomes = {"stored": (1, 0, 0), "failed": (0, 1, 0), "rejected": (0, 0, 1), "for nobody": (0, 0, 0)}
        is_stored = {name: asyncio.Event() for name in outcomes}
        await Receipts().advance(
            [
                streams.AdvanceItem(is_stored[name], streams.AdvanceOutcome(*counts))
                for name, counts in outcomes.items()
            ]
        )
        assert [name for name, event in is_stored.items() if event.is_set()] == ["stored"]

    @pytest.mark.asyncio
    async def test_each_trigger_has_its_own_receipts(self, lemlist: Listing, tmp_path: Path):
        files = [KeptInFile(tmp_path / f"{number}.json") for number in range(3)]
        reply = lemlist.add()
        async with Triggerer() as triggerer:
            for file in files:
                triggerer.start(file.trigger())
            await until(lambda: all(triggerer.ids(number) == [reply] for number in range(3)))
            triggerer.store(1)
            await until(lambda: reply in files[1].text())
            assert reply not in files[0].text() + files[2].text()
            assert len(lemlist.reads) <= 2

    @pytest.mark.asyncio
    async def test_what_follows_an_error_event_is_told_when_that_is_stored(
        self, lemlist: Listing, others: KeptInFile
    ):
        lemlist.unknown.add("emailReplied")
        reply = lemlist.add()
        async with Triggerer() as triggerer:
            triggerer.start(trigger(activity_type=["emailReplied", REPLY], tell_errors=True))
            await until(lambda: triggerer.events[0])
            async with Watcher(others.trigger()):
                await until(lambda: reply in others.text())
            [(error, _)] = triggerer.events[0]
            assert error["status"] == "error"
            triggerer.store()
            await until(lambda: triggerer.ids() == [reply])

    @pytest.mark.asyncio
    async def test_a_trigger_that_airflow_ends_leaves_the_feed(self, lemlist: Listing):
        async with Triggerer() as triggerer:
            number = triggerer.start(trigger(start=HOUR_AGO))
            await until(lambda: lemlist.reads)
            assert shared._LOOPS
            await cancel([triggerer.tasks[number]])
            assert not shared._LOOPS
            assert not triggerer.streams._groups
