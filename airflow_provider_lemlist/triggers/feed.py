# SPDX-License-Identifier: Apache-2.0
"""
One reading of lemlist's activities for everybody who waits for them in the same triggerer.

A feed is one type of activity of one campaign. The first trigger that finds the feed older than it can use
starts a read, all others wait for the same read, each decides for itself over the same rows. There is no
background task: a feed exists while somebody has joined it, and a read ends by itself.

What is asked for, by design:

* the listing of one lead while all wait for the same lead, of the whole campaign as soon as they differ:
  a thousand sensors with a lead each cost the requests of one;
* the whole window at first and when somebody joins who looks further back, then only the news, with an
  overlap for what lemlist lists late.
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

from airflow_provider_lemlist.activities import Activity, Wait, window
from airflow_provider_lemlist.exceptions import LemlistError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

#: How far a read of the news reaches back behind the one before.
OVERLAP = timedelta(hours=1)

#: Reads at a time. Enough for the whole budget of a key; the loop's own threads stay free for others, who
#: would have to wait with us when the budget is short.
READERS = 8


class FeedKey(NamedTuple):
    """What a feed is about."""

    conn_id: str
    campaign_id: str | None
    activity_type: str
    is_first: bool | None


class Known:
    """The activities of a feed, newest first. Never changed: whoever holds it may look at it at leisure."""

    def __init__(self, activities: Iterable[Activity] = ()) -> None:
        self.newest_first = sorted(activities, key=lambda activity: activity.at, reverse=True)
        self._of_lead: defaultdict[str | None, list[Activity]] = defaultdict(list)
        for activity in self.newest_first:
            self._of_lead[activity.lead_id].append(activity)

    def matching(self, wait: Wait) -> Iterator[Activity]:
        """Yield what may count for a wait, without looking at other leads or behind its moment."""
        activities = self.newest_first if wait.lead_id is None else self._of_lead.get(wait.lead_id, [])
        return takewhile(lambda activity: activity.at >= wait.since, activities)


@dataclass(frozen=True, slots=True)
class Reach:
    """
    What the known activities are complete for.

    :param since: From this moment,
    :param until: to this one,
    :param lead_id: for this lead, or for all when None.
    """

    since: datetime
    until: datetime
    lead_id: str | None

    def holds(self, wait: Wait) -> bool:
        """Whether a wait finds here all that there is for it."""
        return self.since <= wait.since and self.lead_id in (None, wait.lead_id)


class Feed:
    """
    One type of activity of one campaign, as far as somebody waits for it.

    :param key: What the feed is about.
    :param readers: The threads in which it asks lemlist.
    """

    def __init__(self, key: FeedKey, readers: ThreadPoolExecutor) -> None:
        self.key = key
        self.waiting: Counter[Wait] = Counter()
        self.known = Known()
        self.error: Exception | None = None
        self._readers = readers
        self._reach: Reach | None = None
        self._answered: frozenset[Wait] = frozenset()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def newer(self, wait: Wait, *, than: float) -> float:
        """
        Come back when a read that serves this wait has ended after a moment of the loop's clock.

        :return: When that read ended. Its outcome is in ``known`` or ``error``.
        """
        while self._read_at <= than or not self._serves(wait):
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
            # The read is everybody's: a trigger that is cancelled leaves it to the others.
            await asyncio.shield(self._reading)
        return self._read_at

    def _serves(self, wait: Wait) -> bool:
        if wait in self._answered:
            return True
        if self.error is not None:
            # A fault that passes is everybody's. One that stays may be due to what the others asked for.
            return may_pass(self.error)
        return self._reach is not None and self._reach.holds(wait)

    async def _read(self) -> None:
        # Only now, not when the task was made: all who start in the same turn of the loop are in by now.
        waits = frozenset(self.waiting)
        try:
            if waits:
                # Not asyncio.to_thread: before Airflow 3.3 a connection can be looked up in the triggerer
                # only from a thread that asgiref has started.
                read = sync_to_async(self._ask, thread_sensitive=False, executor=self._readers)
                self.known, self._reach = await read(waits)
                self.error = None
        except Exception as error:
            if not isinstance(error, LemlistError):
                log.exception("Reading %s failed", self.key)
            self.error = error
        finally:
            self._answered = waits
            self._read_at = asyncio.get_running_loop().time()
            self._reading = None

    def _ask(self, waits: frozenset[Wait]) -> tuple[Known, Reach | None]:
        """Read what these waits need, in a thread. Changes nothing: that is for the loop's own thread."""
        since = min(wait.since for wait in waits)
        now = datetime.now(UTC)
        if self._reach is not None and all(map(self._reach.holds, waits)):
            lead_id = self._reach.lead_id  # as wide as before, or the next one to join needs it all again
            read_from = max(since, self._reach.until - OVERLAP)
        else:
            lead_id = _common_lead(waits)
            read_from = since
        # What lies before the oldest wait is for those who have left.
        known = {activity.id: activity for activity in self.known.newest_first if activity.at >= since}
        reach: Reach | None = Reach(since, now, lead_id)
        strictest = _strictest(waits)
        counted = set()
        for activity in self._listed(lead_id, window(read_from, now)):
            known[activity.id] = activity
            if strictest and strictest.counts(activity):
                counted.add(activity.id)
                if len(counted) >= strictest.limit:
                    reach = None  # all who wait are served; the other pages stay unread
                    break
        return Known(known.values()), reach

    def _listed(self, lead_id: str | None, bounds: dict[str, datetime]) -> Iterator[Activity]:
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        # A hook for each read: a changed connection is seen, and no socket lies idle between two reads.
        with closing(LemlistHook(self.key.conn_id)) as hook:
            for row in hook.list_activities(
                activity_type=self.key.activity_type,
                campaign_id=self.key.campaign_id,
                lead_id=lead_id,
                is_first=self.key.is_first,
                **bounds,
            ):
                yield Activity.of(row)


def may_pass(error: Exception) -> bool:
    """Whether asking again later may cure an error."""
    return isinstance(error, LemlistError) and error.retryable


def _common_lead(waits: frozenset[Wait]) -> str | None:
    """Return the lead that all waits look at, or None where they differ or look at all."""
    leads = {wait.lead_id for wait in waits}
    return leads.pop() if len(leads) == 1 else None


def _strictest(waits: frozenset[Wait]) -> Wait | None:
    """Return the wait that leaves no other one short once it has all it can use, or None if none does."""
    if len({wait.lead_id for wait in waits}) > 1:
        return None
    since = max(wait.since for wait in waits)
    min_count = max(wait.min_count for wait in waits)
    return replace(next(iter(waits)), since=since, min_count=min_count)


@dataclass
class _Loop:
    """The feeds of one event loop and their threads, which end with the last of them."""

    feeds: dict[FeedKey, Feed] = field(default_factory=dict)
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(READERS, thread_name_prefix="lemlist-activities")
    )


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()


@contextmanager
def joined(key: FeedKey, wait: Wait) -> Iterator[Feed]:
    """
    Take part in the feed of this event loop, and end it when nobody is left.

    :param key: What to read.
    :param wait: What the caller looks for in it.
    """
    loop = asyncio.get_running_loop()
    if loop not in _LOOPS:
        _LOOPS[loop] = _Loop()
    mine = _LOOPS[loop]
    if key not in mine.feeds:
        mine.feeds[key] = Feed(key, mine.readers)
    feed = mine.feeds[key]
    feed.waiting[wait] += 1
    try:
        yield feed
    finally:
        feed.waiting[wait] -= 1
        if not feed.waiting[wait]:
            del feed.waiting[wait]
        if not feed.waiting:
            del mine.feeds[key]
        if not mine.feeds:
            _LOOPS.pop(loop, None)
