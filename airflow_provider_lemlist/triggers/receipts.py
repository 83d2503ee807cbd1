# SPDX-License-Identifier: Apache-2.0
"""
How an event trigger learns that Airflow has stored an event (Airflow 3.3, which alone calls this).

Airflow 3.3 reports it to the producer of a shared stream: an object that it makes from the arguments of a
trigger, and that does not know the trigger. So the stream begins with a question, to which the trigger
answers with itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

if TYPE_CHECKING:
    from airflow_provider_lemlist.triggers.events import ActivityEventTrigger


class Receipts(SharedStreamProducer):
    """Passes on what a trigger tells, and tells the trigger what Airflow has stored."""

    async def open_stream(self) -> AsyncIterator[tuple[Any, asyncio.Event]]:
        """Yield the question for the trigger, then its events, each with what is set once it is stored."""
        trigger: asyncio.Future[ActivityEventTrigger] = asyncio.get_running_loop().create_future()
        yield trigger, asyncio.Event()
        async with aclosing((await trigger).tell()) as told:
            async for event in told:
                yield event.payload, event.is_stored

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Note which events are stored."""
        for item in batch:
            if item.outcome.is_clean:
                item.broker_payload.set()
