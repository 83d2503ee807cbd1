# SPDX-License-Identifier: Apache-2.0
"""
When a campaign may send: the hours of its schedules in words, and the next moment at which one is open. Pure.

A schedule that cannot be read is "unknown"; it is never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any, NamedTuple

from airflow_provider_lemlist.leads import wrong_time_zone

UNKNOWN = "unknown"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_MINUTE = timedelta(minutes=1)
#: A window that a change of the clock has swallowed opens a week later.
_HORIZON = timedelta(days=15)


class Hours(NamedTuple):
    """The hours of one schedule: from ``start`` to before ``end``, on some days; 1 is Monday."""

    days: frozenset[int]
    start: time
    end: time
    zone: tzinfo
    zone_name: str

    def __str__(self) -> str:
        return f"{_days_in_words(self.days)}, {self.start:%H:%M} to {self.end:%H:%M} ({self.zone_name})"

    def are_open(self, moment: datetime) -> bool:
        """Return whether the clock of the zone shows a time within the hours."""
        clock = moment.astimezone(self.zone)
        return clock.isoweekday() in self.days and self.start <= clock.time() < self.end

    def next_opening(self, now: datetime) -> datetime | None:
        """Return the first moment from now on at which the hours are open, to the minute, in the zone."""
        moment = now.astimezone(UTC)  # adding to the time of another zone would not add real time
        while moment < now + _HORIZON:
            if self.are_open(moment):
                return moment.astimezone(self.zone)
            moment = self._later(moment)
        return None

    def _later(self, moment: datetime) -> datetime:
        """Return a later moment before which the hours do not open."""
        clock = moment.astimezone(self.zone)
        opens_today = clock.isoweekday() in self.days and clock.time() < self.start
        day = clock.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
        target = datetime.combine(day, self.start) if opens_today else day + timedelta(days=1)
        later = moment + (target - clock.replace(tzinfo=None))
        if later.astimezone(self.zone).utcoffset() == clock.utcoffset():
            return later
        # The clock is changed on the way, so every minute counts.
        return moment.replace(second=0, microsecond=0) + _MINUTE


def read_hours(schedule: Mapping[str, Any]) -> Hours | None:
    """Return the hours of a schedule of lemlist's, or None if it cannot be read."""
    import pendulum

    start, end = _time(schedule.get("start")), _time(schedule.get("end"))
    zone, days = schedule.get("timezone"), schedule.get("weekdays")
    if start is None or end is None or start >= end:
        return None
    if not isinstance(zone, str) or wrong_time_zone(zone):
        return None
    if not isinstance(days, list) or not days or not all(type(day) is int and 1 <= day <= 7 for day in days):
        return None
    return Hours(frozenset(days), start, end, pendulum.timezone(zone), zone)


def hours_in_words(schedules: Iterable[Mapping[str, Any]]) -> str:
    """Return when the schedules of a campaign are open, for people."""
    return "; ".join(str(read_hours(each) or UNKNOWN) for each in schedules) or UNKNOWN


def next_opening(schedules: Iterable[Mapping[str, Any]], now: datetime) -> datetime | None:
    """
    Return the next moment at which one of the schedules is open, in its zone; None if that is unknown.

    :param now: With a time zone. It is returned itself if one is open.
    """
    hours = filter(None, map(read_hours, schedules))
    openings = filter(None, (each.next_opening(now) for each in hours))
    return min(openings, key=datetime.timestamp, default=None)


def _time(value: Any) -> time | None:
    return time.fromisoformat(value) if isinstance(value, str) and _TIME.fullmatch(value) else None


def _days_in_words(days: frozenset[int]) -> str:
    if len(days) == 7:
        return "every day"
    first, last = min(days), max(days)
    if last - first >= 2 and len(days) == last - first + 1:
        return f"{_DAYS[first - 1]} to {_DAYS[last - 1]}"
    return ", ".join(_DAYS[day - 1] for day in sorted(days))
