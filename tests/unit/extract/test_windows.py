# SPDX-License-Identifier: Apache-2.0
"""Windows that meet share no moment and miss none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.extract.windows import Window, closed_window, days_of, reaching_back

NOW = datetime(2026, 3, 20, 15, 30, 0, 123_456, tzinfo=UTC)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

#: Bounds as schedules give them: in any zone, with microseconds.
zones = st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours)))
bounds = st.datetimes(datetime(2026, 2, 1), datetime(2026, 3, 18), timezones=zones)


@given(st.lists(bounds, min_size=2, max_size=6, unique=True), st.data())
def test_windows_that_meet_hold_each_moment_once(cuts: list[datetime], data: st.DataObject) -> None:
    cuts.sort()
    windows = []
    for since, until in zip(cuts, cuts[1:], strict=False):
        if until - since >= MILLISECOND:
            windows.append(closed_window(since, until, NOW))
    near = st.builds(
        lambda cut, microseconds: cut + timedelta(microseconds=microseconds),
        st.sampled_from(cuts),
        st.integers(-2500, 2500),
    )
    happened = data.draw(near | bounds).astimezone(UTC)
    shown = happened.replace(microsecond=happened.microsecond // 1000 * 1000)  # as lemlist writes it
    holding = [window for window in windows if window.since <= shown < window.until]
    assert len(holding) <= 1
    if windows and windows[0].since <= shown < windows[-1].until and len(windows) == len(cuts) - 1:
        assert len(holding) == 1


def test_a_window_that_is_shorter_than_a_millisecond_is_empty_or_holds_one() -> None:
    start = NOON + timedelta(microseconds=1_100)
    with pytest.raises(LemlistConfigurationError, match="must be before until"):
        closed_window(start, start + timedelta(microseconds=800), NOW)
    whole = closed_window(start, start + timedelta(microseconds=900), NOW)
    assert whole.until - whole.since == MILLISECOND


@pytest.mark.parametrize("until", [NOON, NOON - MILLISECOND, NOON + timedelta(microseconds=999)])
def test_an_empty_window_is_refused(until: datetime) -> None:
    with pytest.raises(
        LemlistConfigurationError, match=r"since .* must be before until .*Nothing was requested"
    ):
        closed_window(NOON, until, NOW)


def test_a_window_that_is_not_over_is_refused() -> None:
    assert closed_window(NOON, NOW, NOW).until <= NOW
    with pytest.raises(LemlistConfigurationError, match=r"is in the future.*Nothing was requested"):
        closed_window(NOON, NOW + MILLISECOND, NOW)


def test_bounds_are_compared_in_utc() -> None:
    east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
    window = closed_window(NOON.astimezone(east), (NOON + timedelta(hours=1)).astimezone(west), NOW)
    assert window == (NOON, NOON + timedelta(hours=1))
    assert window.since.tzinfo is window.until.tzinfo is UTC


def test_reaching_back_moves_only_the_beginning() -> None:
    window = Window(NOON, NOON + timedelta(hours=1))
    assert reaching_back(window, timedelta(days=3)) == (NOON - timedelta(days=3), window.until)


@given(bounds, st.integers(1, 10 * 86_400_000))
def test_days_are_whole_cover_the_window_and_do_not_overlap(since: datetime, width: int) -> None:
    now = NOW + timedelta(days=30)
    window = closed_window(since, since + width * MILLISECOND, now)
    days = days_of(window, now)
    assert days[0].since <= window.since
    assert days[-1].since < window.until <= days[-1].until
    assert [day.until for day in days[:-1]] == [day.since for day in days[1:]]
    assert all(day.until - day.since == timedelta(days=1) for day in days)
    assert [day.day for day in days] == [f"{day.since:%Y-%m-%d}" for day in days]


def test_today_is_read_as_far_as_it_has_gone() -> None:
    today = datetime(2026, 3, 20, tzinfo=UTC)
    yesterday, now = days_of(Window(today - timedelta(hours=1), today + timedelta(hours=1)), NOW)
    assert yesterday == (today - timedelta(days=1), today)
    assert now == (today, NOW.replace(microsecond=123_000))


def test_a_window_that_ends_at_midnight_does_not_touch_the_next_day() -> None:
    midnight = datetime(2026, 3, 3, tzinfo=UTC)
    assert days_of(Window(NOON, midnight), NOW) == [Window(midnight - timedelta(days=1), midnight)]
