# SPDX-License-Identifier: Apache-2.0
"""
One reading of lemlist's activities for all triggers that wait for them in the same triggerer.

A feed is one type of activity of one campaign. The first trigger that needs a newer read starts it, all
others wait for the same read, and each decides by itself over the same rows. There is no background task: a
feed exists while a trigger has joined it, and a read ends by itself.

What is requested:

* the listing of one lead while all triggers wait for the same lead, of the whole campaign once they differ:
  a thousand sensors with a lead each cost the requests of one;
* the whole window at first, when a trigger joins that needs an earlier moment, and now and then, because
  lemlist lists some activities hours late; otherwise only the news, with an overlap.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeGuard
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_lemlist.activities import ALL, LOOKBACK, Activity, WaitCondition, listing_bounds
from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.extract.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

log = logging.getLogger(__name__)

#: How often the whole window is read again, for activities that lemlist lists later than the overlap. At one
#: read per minute this adds one long read to thirty short ones.
FULL_READ_INTERVAL = timedelta(minutes=30)

#: Reads at a time. Enough for the whole budget of a key, and the loop's own threads stay free for other
#: triggers, which would have to wait too when the budget is short.
MAX_READERS = 8


def utc_now() -> datetime:
    """Return the time. Tests replace it."""
    return datetime.now(UTC)


class FeedKey(NamedTuple):
    """What a feed reads."""

    conn_id: str
    campaign_id: str | None
    activity_type: str
    is_first: bool | None


class Reading(NamedTuple):
    """What a feed has read. Immutable, so that triggers and threads can share it."""

    #: Newest first: of each lead, and of all leads under None.
    activities: Mapping[str | None, list[Activity]]
    #: The window that was read to its end; none includes the default, which is for a read that stopped early.
    since: datetime = datetime.max.replace(tzinfo=UTC)
    until: datetime = datetime.max.replace(tzinfo=UTC)
    #: The lead that was read, or None for all leads.
    lead_id: str | None = None
    #: When the whole window was last read.
    full_read: datetime = datetime.max.replace(tzinfo=UTC)

    def covers(self, condition: WaitCondition) -> bool:
        """Return whether all activities that may count for a condition have been read."""
        return self.since <= condition.since and self.lead_id in (None, condition.lead_id)

    def matching(self, condition: WaitCondition) -> Iterator[Activity]:
        """Yield what may count for a condition: nothing of other leads or before its moment."""
        activities = self.activities.get(condition.lead_id, [])
        return takewhile(lambda activity: activity.at >= condition.since, activities)


class Feed:
    """The activities of one type and campaign, while a trigger waits for them."""

    def __init__(self, key: FeedKey, readers: ThreadPoolExecutor) -> None:
        self.key = key
        #: What each trigger that has joined waits for. An event trigger's moment moves on.
        self.waiting: dict[object, WaitCondition] = {}
        self.reading = Reading({None: []})
        self.error: Exception | None = None
        self._readers = readers
        self._last_read_for: frozenset[WaitCondition] = frozenset()
        self._read_at = float("-inf")
        self._read_task: asyncio.Task[None] | None = None

    async def wait_for_read(self, condition: WaitCondition, *, after: float) -> float:
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

    def _applies_to(self, condition: WaitCondition) -> bool:
        """Return whether the outcome of the last read is valid for a condition."""
        if condition in self._last_read_for:
            return True
        if self.error is not None:
            # A retryable error concerns all triggers. Another one may be due to the arguments of some.
            return is_retryable(self.error)
        return self.reading.covers(condition)

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

    def _fetch(self, conditions: frozenset[WaitCondition]) -> Reading:
        """Read what these conditions need, in a thread, and change nothing: the loop's thread does that."""
        now = utc_now()
        plan, start = plan_read(self.reading, conditions, now)
        # Activities before the oldest moment were needed by triggers that have left.
        known = {each.id: each for each in self.reading.activities[None] if each.at >= plan.since}
        strictest = _strictest(conditions)
        counted = set()
        is_whole = any(condition.min_count == ALL for condition in conditions)
        for activity in self._list(plan.lead_id, listing_bounds(start, now), is_whole=is_whole):
            known[activity.id] = activity
            if strictest and strictest.counts(activity):
                counted.add(activity.id)
                if len(counted) >= strictest.limit:
                    return Reading(_by_lead(known.values()))  # enough for all; other pages stay unread
        return plan._replace(activities=_by_lead(known.values()))

    def _list(
        self, lead_id: str | None, bounds: dict[str, datetime], *, is_whole: bool
    ) -> Iterator[Activity]:
        from airflow_provider_lemlist.extract.reader import activities
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        key, window = self.key, Window(**bounds)
        # A hook for each read: a changed connection takes effect, and no socket is idle between two reads.
        with closing(LemlistHook(key.conn_id)) as hook:
            if is_whole and window.until - window.since > LOOKBACK:
                # What a shorter read misses because pages shift, the following ones find.
                filters = {"campaignId": key.campaign_id, "leadId": lead_id, "isFirst": key.is_first}
                rows = activities(hook, window, {"type": key.activity_type, **filters})
            else:
                rows = hook.list_activities(
                    activity_type=key.activity_type,
                    campaign_id=key.campaign_id,
                    lead_id=lead_id,
                    is_first=key.is_first,
                    **bounds,
                )
            yield from map(Activity.of, rows)


def plan_read(last: Reading, conditions: frozenset[WaitCondition], now: datetime) -> tuple[Reading, datetime]:
    """Return what the next read covers when it is complete, and the moment from which it reads."""
    since = min(condition.since for condition in conditions)
    if not all(map(last.covers, conditions)):
        leads = {condition.lead_id for condition in conditions}
        lead_id = leads.pop() if len(leads) == 1 else None
        return Reading(last.activities, since, until=now, lead_id=lead_id, full_read=now), since
    # Never narrower than before, or the next trigger that joins would need all of it again.
    if now - last.full_read >= FULL_READ_INTERVAL:
        return last._replace(since=since, until=now, full_read=now), since
    overlap = max(condition.overlap for condition in conditions)
    return last._replace(since=since, until=now), max(since, last.until - overlap)


def is_retryable(error: Exception) -> bool:
    """Return whether the next read may succeed after an error."""
    return isinstance(error, LemlistError) and error.retryable


def is_lasting(error: Exception | None) -> TypeGuard[LemlistError]:
    """Return whether an error does not pass by itself, such as that of a refused key; an unknown one may."""
    return isinstance(error, LemlistError) and not error.retryable


def _by_lead(activities: Iterable[Activity]) -> Mapping[str | None, list[Activity]]:
    newest_first = sorted(activities, key=lambda activity: activity.at, reverse=True)
    found: dict[str | None, list[Activity]] = {None: newest_first}
    for activity in newest_first:
        if activity.lead_id is not None:
            found.setdefault(activity.lead_id, []).append(activity)
    return found


def _strictest(conditions: frozenset[WaitCondition]) -> WaitCondition | None:
    """Return a condition that, once it has all it can use, leaves no other one short; None if none does."""
    if len({condition.lead_id for condition in conditions}) > 1:
        return None
    return replace(
        next(iter(conditions)),
        since=max(condition.since for condition in conditions),
        min_count=max(condition.min_count for condition in conditions),
        bots="count" if all(condition.bots == "count" for condition in conditions) else "ignore",
    )


class _LoopFeeds(dict[FeedKey, Feed]):
    """The feeds of one event loop and their threads, which end with the last feed."""

    def __init__(self) -> None:
        self.readers = ThreadPoolExecutor(MAX_READERS, thread_name_prefix="lemlist-activities")

    def __missing__(self, key: FeedKey) -> Feed:
        return self.setdefault(key, Feed(key, self.readers))


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopFeeds] = WeakKeyDictionary()


@contextmanager
def join_feed(key: FeedKey, trigger: object, condition: WaitCondition) -> Iterator[Feed]:
    """Yield the feed of this event loop, and remove it when the last trigger has left."""
    loop = asyncio.get_running_loop()
    feeds = _LOOPS.setdefault(loop, _LoopFeeds())
    feed = feeds[key]
    feed.waiting[trigger] = condition
    try:
        yield feed
    finally:
        del feed.waiting[trigger]
        if not feed.waiting:
            del feeds[key]
        if not feeds:
            _LOOPS.pop(loop, None)
