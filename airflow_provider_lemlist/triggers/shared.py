# SPDX-License-Identifier: Apache-2.0
"""
What the triggers of one triggerer share: reads for which they wait together, and the wait of a sensor.

The first trigger that needs a newer read starts it, all others of the feed wait for the same read, and each
decides by itself over the same result. There is no background task: a feed exists while a trigger has joined
it, and a read ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeGuard, TypeVar
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_lemlist.exceptions import LemlistError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

log = logging.getLogger(__name__)

#: Reads at a time. Enough for the whole budget of a key, and the loop's own threads stay free for other
#: triggers, which would have to wait too when the budget is short.
MAX_READERS = 8

C = TypeVar("C")
R = TypeVar("R")
F = TypeVar("F", bound="SharedFeed[Any, Any]", covariant=True)


def utc_now() -> datetime:
    """Return the time. Tests replace it."""
    return datetime.now(UTC)


class SharedFeed(Generic[C, R]):
    """
    A read that is repeated while triggers wait for it.

    Each trigger waits with a condition, and a read is for all conditions of its moment.
    """

    def __init__(self, key: object, readers: ThreadPoolExecutor) -> None:
        self.key = key
        #: What each trigger that has joined waits for. An event trigger's moment moves on.
        self.waiting: dict[object, C] = {}
        #: The result of the last read that succeeded.
        self.reading: R
        self.error: Exception | None = None
        self._readers = readers
        self._last_read_for: frozenset[C] = frozenset()
        self._read_at = float("-inf")
        self._read_task: asyncio.Task[None] | None = None

    async def wait_for_read(self, condition: C, *, after: float) -> float:
        """
        Wait until a read that covers a condition has ended after a moment of the loop's clock.

        :return: When that read ended. Its outcome is in ``reading`` or ``error``.
        """
        while self._read_at <= after or not self._applies_to(condition):
            if self._read_task is None:
                self._read_task = asyncio.create_task(self._read())
            # The read is shared: cancelling one trigger must not cancel it for the others.
            await asyncio.shield(self._read_task)
        return self._read_at

    def _covers(self, condition: C) -> bool:
        """Return whether the reading is enough for a condition that the read was not for."""
        raise NotImplementedError

    def _fetch(self, conditions: frozenset[C]) -> R:
        """Read what these conditions need, in a thread, and change nothing: the loop's thread does that."""
        raise NotImplementedError

    def _applies_to(self, condition: C) -> bool:
        """Return whether the outcome of the last read is valid for a condition."""
        if condition in self._last_read_for:
            return True
        if self.error is not None:
            # A retryable error concerns all triggers. Another one may be due to the arguments of some.
            return is_retryable(self.error)
        return self._covers(condition)

    async def _read(self) -> None:
        # Read here and not when the task was made: all triggers that start in one turn of the loop are in.
        conditions = frozenset(self.waiting.values())
        try:
            if conditions:
                # Not asyncio.to_thread: before Airflow 3.3 a connection can be looked up in the triggerer
                # only from a thread that asgiref has started.
                fetch = sync_to_async(self._fetch, thread_sensitive=False, executor=self._readers)
                self.reading = await fetch(conditions)
                self.error = None
        except Exception as error:
            if not isinstance(error, LemlistError):
                log.exception("Reading %s failed", self.key)
            self.error = error
        finally:
            self._last_read_for = conditions
            self._read_at = asyncio.get_running_loop().time()
            self._read_task = None


class OpensFeed(Protocol[F]):
    """What a feed reads; it is the key by which triggers find the same feed."""

    def open(self, readers: ThreadPoolExecutor) -> F:
        """Return a feed that reads it."""


class _LoopFeeds(dict[OpensFeed[Any], SharedFeed[Any, Any]]):
    """The feeds of one event loop and their threads, which end with the last feed."""

    def __init__(self) -> None:
        self.readers = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="lemlist-reads")

    def __missing__(self, key: OpensFeed[Any]) -> SharedFeed[Any, Any]:
        return self.setdefault(key, key.open(self.readers))


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopFeeds] = WeakKeyDictionary()


@contextmanager
def join_feed(key: OpensFeed[F], trigger: object, condition: Any) -> Iterator[F]:
    """Yield the feed of this event loop, and remove it when the last trigger has left."""
    loop = asyncio.get_running_loop()
    feeds = _LOOPS.setdefault(loop, _LoopFeeds())
    feed: Any = feeds[key]
    feed.waiting[trigger] = condition
    try:
        yield feed
    finally:
        del feed.waiting[trigger]
        if not feed.waiting:
            del feeds[key]
        if not feeds:
            _LOOPS.pop(loop, None)


# --- The wait of a sensor ---------------------------------------------------------------------------------


class SensorTrigger(BaseTrigger, Generic[C, F]):
    """
    The base of the triggers of the sensors: read together with others, until what it waits for is there.

    The trigger has no state that a restart of the triggerer could lose.

    After an error that a retry may cure (no network, a failing server, no budget) it reads again after
    ``poke_interval``; the hook has then already retried the request with growing pauses.
    """

    #: What is read, for the log.
    reads: ClassVar[str]

    lemlist_conn_id: str
    poke_interval: float
    max_consecutive_failures: int | None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the constructor's arguments: Airflow stores them while the task waits."""
        cls = type(self)
        arguments = {name: getattr(self, name) for name in signature(cls).parameters}
        return f"{cls.__module__}.{cls.__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire one event: ``success`` with what was found, or ``error`` with the class and message."""
        yield TriggerEvent(await self._wait())

    def _condition(self) -> C:
        """Return with what the trigger waits."""
        raise NotImplementedError

    def _keys(self, condition: C) -> Sequence[OpensFeed[F]]:
        """Return the keys of its feeds."""
        raise NotImplementedError

    def _find(self, condition: C, feeds: Sequence[F]) -> dict[str, Any] | Exception | None:
        """Return what the event holds, why the last read failed, or None to wait for another read."""
        raise NotImplementedError

    async def _wait(self) -> dict[str, Any]:
        condition = self._condition()
        clock = asyncio.get_running_loop().time
        failures, most = 0, self.max_consecutive_failures
        with ExitStack() as stack:
            feeds = [stack.enter_context(join_feed(key, self, condition)) for key in self._keys(condition)]
            # A read of another trigger within the last interval is recent enough for the first decision.
            read_at = dict.fromkeys(feeds, clock() - self.poke_interval)
            while True:
                for feed in feeds:
                    read_at[feed] = await feed.wait_for_read(condition, after=read_at[feed])
                found = self._find(condition, feeds)
                if isinstance(found, dict):
                    return {"status": "success", **found}
                failures = failures + 1 if found else 0
                if found:
                    if not is_retryable(found) or (most is not None and failures > most):
                        return error_event(found)
                    self.log.warning(
                        "Reading %s failed (%d in a row); next read in %s s: %s",
                        self.reads,
                        failures,
                        self.poke_interval,
                        found,
                    )
                await asyncio.sleep(min(read_at.values()) + self.poke_interval - clock())


# --- Errors -----------------------------------------------------------------------------------------------


def is_retryable(error: Exception) -> bool:
    """Return whether the next read may succeed after an error."""
    return isinstance(error, LemlistError) and error.retryable


def is_lasting(error: Exception | None) -> TypeGuard[LemlistError]:
    """Return whether an error does not pass by itself, such as that of a refused key; an unknown one may."""
    return isinstance(error, LemlistError) and not error.retryable


def message_of(error: Exception | None) -> str:
    """Return what is wrong, the same each time; ``str`` adds the time of the response."""
    return error.message if isinstance(error, LemlistError) else str(error)


def error_event(error: Exception) -> dict[str, Any]:
    """Return the event for an error, from which the sensor raises it again."""
    ours = isinstance(error, LemlistError)
    return {
        "status": "error",
        "error": type(error).__name__ if ours else LemlistError.__name__,
        "message": str(error) if ours else f"Reading from lemlist failed: {type(error).__name__}: {error}",
        "http_status": getattr(error, "status", None),
    }
