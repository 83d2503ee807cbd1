# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.run_window import (
    RunWindow,
    parse_moment,
    run_window,
    window_of_interval,
    window_since_previous,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class Task:
    """The task instance of a run, with what it knows of the run before."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous
        self.lookups = 0

    def get_previous_dagrun(self) -> Any:
        self.lookups += 1
        return self.previous


def dag_run(**times: datetime | None) -> SimpleNamespace:
    names = ("data_interval_start", "data_interval_end", "logical_date", "run_after", "start_date")
    return SimpleNamespace(**(dict.fromkeys(names) | {"start_date": NOON + 9 * DAY} | times))


def cron(at: datetime) -> SimpleNamespace:
    """A run of a cron schedule in Airflow 3."""
    return dag_run(data_interval_start=at, data_interval_end=at, logical_date=at, run_after=at)


def window(run: Any, previous: Any = None) -> RunWindow:
    context: Any = {"dag_run": run, "ti": Task(previous)}
    return run_window(context)


class TestRunWindow:
    def test_an_interval_with_a_width_is_the_window(self):
        run = dag_run(data_interval_start=NOON - DAY, data_interval_end=NOON, logical_date=NOON - DAY)
        task = Task(cron(NOON - HOUR))
        context: Any = {"dag_run": run, "ti": task}
        assert run_window(context) == (NOON - DAY, NOON)
        assert task.lookups == 0

    def test_an_interval_without_a_width_reaches_from_the_run_before_to_this_one(self):
        assert window(cron(NOON), cron(NOON - DAY)) == (NOON - DAY, NOON)

    def test_airflow_2_without_run_after_has_the_same_window(self):
        run, previous = cron(NOON), cron(NOON - DAY)
        del run.run_after, previous.run_after
        assert window(run, previous) == (NOON - DAY, NOON)

    def test_a_previous_run_with_an_interval_counts_by_when_it_was_due(self):
        previous = dag_run(
            data_interval_start=NOON - 2 * DAY, data_interval_end=NOON - DAY, logical_date=NOON - 2 * DAY
        )
        assert window(cron(NOON), previous).since == NOON - DAY

    def test_the_first_run_begins_when_it_is_due(self):
        assert window(cron(NOON)) == (NOON, NOON)

    def test_a_previous_run_triggered_later_for_a_past_date_counts_by_its_logical_date(self):
        previous = dag_run(logical_date=NOON - HOUR, run_after=NOON + 30 * DAY)
        assert window(cron(NOON), previous) == (NOON - HOUR, NOON)

    def test_the_start_of_the_run_is_never_used(self):
        with pytest.raises(LemlistConfigurationError, match="set since"):
            window_since_previous(dag_run(), [])

    @given(st.lists(st.datetimes(timezones=st.just(UTC)), max_size=5))
    def test_the_window_never_ends_before_it_begins(self, earlier):
        since, until = window_since_previous(dag_run(run_after=NOON), earlier)
        assert since <= until == NOON
        assert since == until or since in earlier

    @given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20, unique=True))
    def test_successive_runs_leave_no_gap_and_do_not_overlap(self, seconds):
        runs = [cron(NOON + timedelta(seconds=each)) for each in sorted(seconds)]
        windows = [window(run, previous) for previous, run in zip([None, *runs[:-1]], runs, strict=True)]
        assert all(one.until == next_one.since for one, next_one in zip(windows, windows[1:], strict=False))

    def test_an_interval_needs_both_bounds(self):
        assert window_of_interval(dag_run(data_interval_start=NOON)) is None
        assert window_of_interval(dag_run(data_interval_start=NOON, data_interval_end=NOON)) is None
        assert window_of_interval(dag_run(data_interval_start=NOON, data_interval_end=NOON - DAY)) is None


class TestMoments:
    @pytest.mark.parametrize(
        "given",
        [
            NOON,
            datetime(2026, 3, 2, 12),
            datetime(2026, 3, 2, 13, tzinfo=timezone(timedelta(hours=1))),
            "2026-03-02T12:00:00Z",
            "2026-03-02T12:00:00.000Z",
            "2026-03-02 12:00:00+00:00",  # how a template writes a datetime
            "2026-03-02T13:00:00+01:00",
            "2026-03-02T12:00",
            " 2026-03-02T12:00:00Z ",
        ],
    )
    def test_a_moment_is_a_datetime_or_iso_text_and_utc_without_a_zone(self, given):
        assert parse_moment(given) == NOON
        assert parse_moment(given).utcoffset() == timedelta(0)

    def test_a_date_is_its_midnight(self):
        assert parse_moment("2026-03-02") == NOON - timedelta(hours=12)

    @pytest.mark.parametrize("given", ["", "None", "yesterday", "{{ ds }}", 5, None, date(2026, 3, 2)])
    def test_values_that_are_not_a_moment_are_refused(self, given):
        with pytest.raises(LemlistConfigurationError, match="since must be"):
            parse_moment(given)

    def test_the_error_names_the_argument(self):
        with pytest.raises(LemlistConfigurationError, match="until must be"):
            parse_moment(None, "until")
