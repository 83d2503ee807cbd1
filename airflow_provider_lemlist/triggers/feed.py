# SPDX-License-Identifier: Apache-2.0
"""
One reading of lemlist's activities for all triggers that wait for them in the same triggerer.

A feed is one type of activity of one campaign; ``shared.py`` has what all feeds share.

What is requested:

* the listing of one lead while all triggers wait for the same lead, of the whole campaign once they differ:
  a thousand sensors with a lead each cost the requests of one;
* the whole window at first, when a trigger joins that needs an earlier moment, and now and then, because
  lemlist lists some activities hours late; otherwise only the news, with an overlap.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_lemlist.activities import ALL, LOOKBACK, Activity, WaitCondition, listing_bounds
from airflow_provider_lemlist.extract.windows import Window
from airflow_provider_lemlist.triggers.shared import SharedFeed, utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import ThreadPoolExecutor

#: How often the whole window is read again, for activities that lemlist lists later than the overlap. At one
#: read per minute this adds one long read to thirty short ones.
FULL_READ_INTERVAL = timedelta(minutes=30)


class FeedKey(NamedTuple):
    """What a feed reads."""

    conn_id: str
    campaign_id: str | None
    activity_type: str
    is_first: bool | None

    def open(self, readers: ThreadPoolExecutor) -> Feed:
        """Return a feed that reads it."""
        return Feed(self, readers)


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


class Feed(SharedFeed[WaitCondition, Reading]):
    """The activities of one type and campaign, while a trigger waits for them."""

    key: FeedKey

    def __init__(self, key: FeedKey, readers: ThreadPoolExecutor) -> None:
        super().__init__(key, readers)
        self.reading = Reading({None: []})

    def _covers(self, condition: WaitCondition) -> bool:
        return self.reading.covers(condition)

    def _fetch(self, conditions: frozenset[WaitCondition]) -> Reading:
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
