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


def run_window(context: Context) -> RunWindow:
    """Return the window of the run of a task."""
    from airflow_provider_lemlist.version_compat import last_asset_event_before, previous_run

    run = context["dag_run"]
    if window := window_of_interval(run):
        return window
    earlier = [last_asset_event_before(context)]
    if (previous := previous_run(context)) is not None:
        earlier += (_due(previous), _time(previous, "logical_date"))
    return window_since_previous(run, filter(None, earlier))


def window_of_interval(dag_run: Any) -> RunWindow | None:
    """Return the data interval of a run if it has a width."""
    start, end = _time(dag_run, "data_interval_start"), _time(dag_run, "data_interval_end")
    return RunWindow(start, end) if start and end and start < end else None


def window_since_previous(dag_run: Any, earlier: Iterable[datetime]) -> RunWindow:
    """
    Return the window from the run before to this one.

    :param earlier: The known times of the run before. The latest moment before the run counts: a run that
        was triggered by hand for a past date may have been due after this one.
    """
    until = _due(dag_run)
    if until is None:
        raise LemlistConfigurationError("The run has no data interval, logical date or run_after; set since.")
    return RunWindow(max((moment for moment in earlier if moment < until), default=until), until)


def run_order(dag_run: Any) -> str:
    """
    Return the moment up to which the data of a run goes, as text that sorts like the moments.

    A run without any moment is the newest, as of now.
    """
    names = ("data_interval_end", "logical_date", "run_after")
    moments = (_time(dag_run, name) for name in names)
    moment = next(filter(None, moments), None) or datetime.now(UTC)
    return moment.isoformat(timespec="microseconds")


def _time(dag_run: Any, name: str) -> datetime | None:
    moment = getattr(dag_run, name, None)
    return moment and parse_moment(moment)


def _due(dag_run: Any) -> datetime | None:
    """Return the moment from which a run could start. Airflow 2 does not store it."""
    parts = _time(dag_run, "data_interval_end"), _time(dag_run, "logical_date")
    return _time(dag_run, "run_after") or max(filter(None, parts), default=None)


def parse_moment(value: Any, name: str = "since") -> datetime:
    """
    Return a moment given as a datetime or as ISO 8601 text, in UTC. Without a time zone it is UTC already.

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
