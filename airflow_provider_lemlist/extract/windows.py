# SPDX-License-Identifier: Apache-2.0
"""
The windows that are read: half open, closed before they are read, and whole days where a target has days.

Pure; ``run_window`` finds the window of a run.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

from airflow_provider_lemlist.datasets import whole_milliseconds
from airflow_provider_lemlist.exceptions import LemlistConfigurationError

DAY = timedelta(days=1)


class Window(NamedTuple):
    """From ``since`` to before ``until``, in UTC and whole milliseconds, as lemlist writes its moments."""

    since: datetime
    until: datetime

    @property
    def day(self) -> str:
        """The day on which it begins, as ``{day}`` in a path."""
        return self.since.date().isoformat()


def closed_window(since: datetime, until: datetime, now: datetime) -> Window:
    """
    Return a window, cut to milliseconds at both ends so that windows which meet share no row and miss none.

    :raises LemlistConfigurationError: It is empty, or not over yet.
    """
    window = Window(_whole(since), _whole(until))
    if window.since >= window.until:
        raise LemlistConfigurationError(
            f"since ({window.since.isoformat()}) must be before until ({window.until.isoformat()}). "
            "Nothing was requested."
        )
    if window.until > now:
        raise LemlistConfigurationError(
            f"until ({window.until.isoformat()}) is in the future, so the window is not complete yet. "
            "Nothing was requested."
        )
    return window


def reaching_back(window: Window, reread: timedelta) -> Window:
    """Return the window with the time before it that is read again."""
    return window._replace(since=window.since - reread)


def days_of(window: Window, now: datetime) -> list[Window]:
    """Return the days that a window touches, each whole; today up to now."""
    found, day = [], datetime.combine(window.since.date(), time(), UTC)
    while day < window.until:
        found.append(Window(day, min(day + DAY, max(_whole(now), window.until))))
        day += DAY
    return found


def _whole(moment: datetime) -> datetime:
    return whole_milliseconds(moment.astimezone(UTC))
