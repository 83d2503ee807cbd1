# SPDX-License-Identifier: Apache-2.0
"""The listed activities, sorted for each filter, so that any page of 100,000 is found without a scan."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox.model import Activity


class Found(NamedTuple):
    """The activities ``first`` to ``end`` of a list that must not be changed, oldest first."""

    activities: list[Activity]
    first: int
    end: int

    def all(self) -> list[Activity]:
        return self.activities[self.first : self.end]

    def newest(self, part: slice) -> list[Activity]:
        """Return a part of them, counted from the newest and newest first."""
        first, end = (max(self.first, self.end - offset) for offset in (part.stop, part.start))
        return self.activities[first:end][::-1]


class ActivityIndex:
    """The listed activities; those of the same moment stay in the order in which they were added."""

    def __init__(self) -> None:
        self._lists: dict[object, list[Activity]] = {}

    def add(self, activity: Activity) -> None:
        for key in _keys(activity):
            insort(self._lists.setdefault(key, []), activity, key=_created)

    def extend(self, activities: Iterable[Activity]) -> None:
        """Add many activities: append them, and sort each list once."""
        changed = {}
        for activity in activities:
            for key in _keys(activity):
                changed[key] = self._lists.setdefault(key, [])
                changed[key].append(activity)
        for each in changed.values():
            each.sort(key=_created)

    def remove(self, activity: Activity) -> None:
        for key in _keys(activity):
            found = self._lists[key]
            place = bisect_left(found, activity.created_at, key=_created)
            while found[place] is not activity:
                place += 1
            del found[place]

    def find(
        self,
        least: float | None = None,
        most: float | None = None,
        *,
        type: str | None = None,
        campaign_id: str | None = None,
        is_first: bool | None = None,
        lead_id: str | None = None,
    ) -> Found:
        """Return the activities that fit; both bounds are inclusive, in whole milliseconds as shown."""
        wanted = (type, campaign_id, is_first)
        found = self._lists.get(wanted if lead_id is None else lead_id, [])
        if lead_id is not None:
            found = [each for each in found if wanted in _keys(each)]
        first, end = 0, len(found)
        if least is not None:
            first = bisect_left(found, least * 1000, key=_milliseconds)
        if most is not None:
            end = bisect_right(found, most * 1000, key=_milliseconds)
        return Found(found, first, max(first, end))


def _keys(activity: Activity) -> Iterator[object]:
    """Yield the key of each list that holds the activity: each mix of the filters, and its lead."""
    lead = activity.lead
    yield from product((None, activity.type), (None, lead.campaign_id), (None, activity.is_first))
    yield lead.id


def _created(activity: Activity) -> float:
    return activity.created_at


def _milliseconds(activity: Activity) -> int:
    return activity.milliseconds
