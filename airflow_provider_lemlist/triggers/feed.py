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
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_lemlist.activities import Activity, WaitCondition, listing_bounds
from airflow_provider_lemlist.exceptions import LemlistError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

#: How far a read of the news reaches back behind the read before it.
OVERLAP = timedelta(hours=1)

#: How often the whole window is read again, for activities that lemlist lists later than ``OVERLAP``. At one
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


class ActivityIndex:
    """The activities of a feed, newest first and by lead. Immutable, so that triggers can share it."""

    def __init__(self, activities: Iterable[Activity] = ()) -> None:
        self.newest_first = sorted(activities, key=lambda activity: activity.at, reverse=True)
        self._of_lead: defaultdict[str | None, list[Activity]] = defaultdict(list)
        for activity in self.newest_first:
            self._of_lead[activity.lead_id].append(activity)

    def matching(self, condition: WaitCondition) -> Iterator[Activity]:
        """Yield what may count for a condition: nothing of other leads or before its moment."""
        lead_id = condition.lead_id
        activities = self.newest_first if lead_id is None else self._of_lead.get(lead_id, [])
        return takewhile(lambda activity: activity.at >= condition.since, activities)


@dataclass(frozen=True, slots=True)
class Coverage:
    """
    What a feed has read completely.

    :param since: The start of its window.
    :param until: The end of its window.
    :param lead_id: The lead, or None for all leads.
    :param full_read: When the whole window was last read.
    """

    since: datetime
    until: datetime
    lead_id: str | None
    full_read: datetime

    def includes(self, condition: WaitCondition) -> bool:
        """Return whether all activities that may count for a condition have been read."""
        return self.since <= condition.since and self.lead_id in (None, condition.lead_id)


class Feed:
    """
    The activities of one type and campaign, while a trigger waits for them.

    :param key: What to read.
    :param readers: The threads that send the requests.
    """

    def __init__(self, key: FeedKey, readers: ThreadPoolExecutor) -> None:
        self.key = key
        self.waiting: Counter[WaitCondition] = Counter()
        self.activities = ActivityIndex()
        self.error: Exception | None = None
        self._readers = readers
        self._coverage: Coverage | None = None
        self._last_read_for: frozenset[WaitCondition] = frozenset()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def wait_for_read(self, condition: WaitCondition, *, after: float) -> float:
        """
        Wait until a read that covers a condition has ended after a moment of the loop's clock.

        :return: When that read ended. Its outcome is in ``activities`` or ``error``.
        """
        while self._read_at <= after or not self._applies_to(condition):
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
            # The read is shared: cancelling one trigger must not cancel it for the others.
            await asyncio.shield(self._reading)
        return self._read_at

    def _applies_to(self, condition: WaitCondition) -> bool:
        """Return whether the outcome of the last read is valid for a condition."""
        if condition in self._last_read_for:
            return True
        if self.error is not None:
            # A retryable error concerns all triggers. Another one may be due to the arguments of some.
            return is_retryable(self.error)
        return self._coverage is not None and self._coverage.includes(condition)

    async def _read(self) -> None:
        # Read here and not when the task was made: all triggers that start in one turn of the loop are in.
        conditions = frozenset(self.waiting)
        try:
            if conditions:
                # Not asyncio.to_thread: before Airflow 3.3 a connection can be looked up in the triggerer
                # only from a thread that asgiref has started.
                fetch = sync_to_async(self._fetch, thread_sensitive=False, executor=self._readers)
                self.activities, self._coverage = await fetch(conditions)
                self.error = None
        except Exception as error:
            if not isinstance(error, LemlistError):
                log.exception("Reading %s failed", self.key)
            self.error = error
        finally:
            self._last_read_for = conditions
            self._read_at = asyncio.get_running_loop().time()
            self._reading = None

    def _fetch(self, conditions: frozenset[WaitCondition]) -> tuple[ActivityIndex, Coverage | None]:
        """Read what these conditions need, in a thread, and change nothing: the loop's thread does that."""
        now = utc_now()
        plan, read_from = plan_read(self._coverage, conditions, now)
        # Activities before the oldest moment were needed by triggers that have left.
        known = {each.id: each for each in self.activities.newest_first if each.at >= plan.since}
        strictest = _strictest(conditions)
        counted = set()
        for activity in self._list(plan.lead_id, listing_bounds(read_from, now)):
            known[activity.id] = activity
            if strictest and strictest.counts(activity):
                counted.add(activity.id)
                if len(counted) >= strictest.limit:
                    return ActivityIndex(known.values()), None  # enough for all; other pages stay unread
        return ActivityIndex(known.values()), plan

    def _list(self, lead_id: str | None, bounds: dict[str, datetime]) -> Iterator[Activity]:
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        # A hook for each read: a changed connection takes effect, and no socket is idle between two reads.
        with closing(LemlistHook(self.key.conn_id)) as hook:
            for row in hook.list_activities(
                activity_type=self.key.activity_type,
                campaign_id=self.key.campaign_id,
                lead_id=lead_id,
                is_first=self.key.is_first,
                **bounds,
            ):
                yield Activity.of(row)


def plan_read(
    coverage: Coverage | None, conditions: frozenset[WaitCondition], now: datetime
) -> tuple[Coverage, datetime]:
    """
    Decide what the next read covers when it succeeds, and from which moment it reads.

    :param coverage: What has been read before.
    :param conditions: What the triggers wait for now.
    :param now: The end of the read.
    """
    since = min(condition.since for condition in conditions)
    if coverage is None or not all(map(coverage.includes, conditions)):
        return Coverage(since, now, _common_lead(conditions), full_read=now), since
    # Never narrower than before, or the next trigger that joins would need all of it again.
    if now - coverage.full_read >= FULL_READ_INTERVAL:
        return Coverage(since, now, coverage.lead_id, full_read=now), since
    return (
        Coverage(since, now, coverage.lead_id, coverage.full_read),
        max(since, coverage.until - OVERLAP),
    )


def is_retryable(error: Exception) -> bool:
    """Return whether the next read may succeed after an error."""
    return isinstance(error, LemlistError) and error.retryable


def _common_lead(conditions: frozenset[WaitCondition]) -> str | None:
    """Return the lead of all conditions, or None if they differ or one of them has none."""
    leads = {condition.lead_id for condition in conditions}
    return leads.pop() if len(leads) == 1 else None


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


@dataclass
class _LoopFeeds:
    """The feeds of one event loop and their threads, which end with the last feed."""

    feeds: dict[FeedKey, Feed] = field(default_factory=dict)
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MAX_READERS, thread_name_prefix="lemlist-activities")
    )


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopFeeds] = WeakKeyDictionary()


@contextmanager
def join_feed(key: FeedKey, condition: WaitCondition) -> Iterator[Feed]:
    """
    Yield the feed of this event loop, and remove it when the last trigger has left.

    :param key: What to read.
    :param condition: What the caller waits for.
    """
    loop = asyncio.get_running_loop()
    if loop not in _LOOPS:
        _LOOPS[loop] = _LoopFeeds()
    mine = _LOOPS[loop]
    if key not in mine.feeds:
        mine.feeds[key] = Feed(key, mine.readers)
    feed = mine.feeds[key]
    feed.waiting[condition] += 1
    try:
        yield feed
    finally:
        feed.waiting[condition] -= 1
        if not feed.waiting[condition]:
            del feed.waiting[condition]
        if not feed.waiting:
            del mine.feeds[key]
        if not mine.feeds:
            _LOOPS.pop(loop, None)
