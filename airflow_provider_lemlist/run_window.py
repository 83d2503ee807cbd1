# SPDX-License-Identifier: Apache-2.0
"""
The time window of a DAG run: the one rule for every default of ``since`` and ``until``.

A run covers its data interval if the interval has a width. Otherwise, as with a cron schedule in Airflow 3 or
a run triggered by an asset, it covers the time from the run before to itself, measured by ``run_after``. The
start of the run is never used, because it moves when the run is cleared.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class RunWindow(NamedTuple):
    """The half-open window of a run; its bounds are equal if it has no interval and no run before it."""

    since: datetime
    until: datetime


class RunTimes(NamedTuple):
    """The times of a run that stay the same when it is cleared, in UTC; None if the run does not have one."""

    interval_start: datetime | None = None
    interval_end: datetime | None = None
    logical_date: datetime | None = None
    run_after: datetime | None = None

    @classmethod
    def of(cls, dag_run: Any) -> RunTimes:
        """Read the times of a DAG run of any Airflow version."""
        names = ("data_interval_start", "data_interval_end", "logical_date", "run_after")
        moments = (getattr(dag_run, name, None) for name in names)
        return cls(*(moment and parse_moment(moment) for moment in moments))

    @property
    def due(self) -> datetime | None:
        """The moment from which the run could start. Airflow 2 does not store it."""
        return self.run_after or max(filter(None, (self.interval_end, self.logical_date)), default=None)


def run_window(context: Context) -> RunWindow:
    """Return the window of the run of a task."""
    from airflow_provider_lemlist.version_compat import last_asset_event_before, previous_run

    run = RunTimes.of(context["dag_run"])
    if window := window_of_interval(run):
        return window
    earlier: list[datetime | None] = [last_asset_event_before(context)]
    if (dag_run := previous_run(context)) is not None:
        previous = RunTimes.of(dag_run)
        earlier += (previous.due, previous.logical_date)
    return window_since_previous(run, filter(None, earlier))


def window_of_interval(run: RunTimes) -> RunWindow | None:
    """Return the data interval of a run if it has a width."""
    if run.interval_start and run.interval_end and run.interval_start < run.interval_end:
        return RunWindow(run.interval_start, run.interval_end)
    return None


def window_since_previous(run: RunTimes, earlier: Iterable[datetime]) -> RunWindow:
    """
    Return the window from the run before to this one.

    :param run: The run.
    :param earlier: When the run before was due, where it is known. The latest moment before the run
        counts: a run that was triggered by hand for a past date may have been due after this one.
    """
    until = run.due
    if until is None:
        raise LemlistConfigurationError("The run has no data interval, logical date or run_after; set since.")
    return RunWindow(max((moment for moment in earlier if moment < until), default=until), until)


def parse_moment(value: Any, name: str = "since") -> datetime:
    """
    Return a moment given as a datetime or as ISO 8601 text, in UTC. Without a time zone it is UTC already.

    :param value: The moment.
    :param name: The argument, for the error.
    :raises LemlistConfigurationError: The value is neither.
    """
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise LemlistConfigurationError(
            f"{name} must be a datetime or ISO 8601 text such as '2026-03-02T08:00:00+01:00', not {value!r}."
        )
    # Always a plain datetime, even from pendulum's: it is compared often, and the trigger stores it as text.
    moment = moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)
    return datetime.fromisoformat(moment.isoformat())
