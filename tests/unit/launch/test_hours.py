# SPDX-License-Identifier: Apache-2.0
"""The hours of schedules: in words, and when one of them opens, also on days when the clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_lemlist.launch.hours import hours_in_words, next_opening

WEEK = {"timezone": "Europe/Paris", "start": "09:00", "end": "18:00", "weekdays": [1, 2, 3, 4, 5]}
#: Zones whose clocks are changed at night, at midnight, by half an hour, by an odd offset, and never.
ZONES = (
    "Europe/Paris", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu",
    "Pacific/Chatham", "Asia/Beirut", "UTC",
)  # fmt: skip
MINUTE = timedelta(minutes=1)

zones = st.sampled_from(ZONES)
clocks = st.times().map(lambda each: f"{each:%H:%M}")


@st.composite
def schedules(draw: Any) -> dict[str, Any]:
    start, end = sorted((draw(clocks), draw(clocks)))
    assume(start < end)
    days = draw(st.lists(st.integers(1, 7), min_size=1, unique=True))
    return {"timezone": draw(zones), "start": start, "end": end, "weekdays": days}


def is_open(schedule: dict[str, Any], moment: datetime) -> bool:
    """Read the clock on the wall."""
    clock = moment.astimezone(ZoneInfo(schedule["timezone"]))
    return (
        clock.isoweekday() in schedule["weekdays"] and schedule["start"] <= f"{clock:%H:%M}" < schedule["end"]
    )


def first_open_minute(of: list[dict[str, Any]], now: datetime) -> datetime:
    """Look at the clock every minute."""
    moment = now
    while not any(is_open(each, moment) for each in of):
        moment = moment.replace(second=0, microsecond=0) + MINUTE
    return moment


class TestOpening:
    @given(
        of=st.lists(schedules(), min_size=1, max_size=2),
        now=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),
    )
    def test_opening_is_the_first_minute_at_which_a_clock_is_within_the_hours(
        self, of: list[dict[str, Any]], now: datetime
    ) -> None:
        opening = next_opening(of, now)
        assert opening == first_open_minute(of, now)
        assert str(opening and opening.tzinfo) in {each["timezone"] for each in of}

    @given(
        zone=zones,
        start=st.integers(0, 23 * 60),
        length=st.integers(1, 59),
        change=st.sampled_from(
            [datetime(2026, 3, 29), datetime(2026, 10, 25), datetime(2026, 4, 5), datetime(2026, 9, 6)]
        ),
        minutes=st.integers(-600, 2000),
    )
    def test_opening_is_right_around_a_change_of_the_clock(
        self, zone: str, start: int, length: int, change: datetime, minutes: int
    ) -> None:
        begins = datetime.combine(change, time()) + start * MINUTE
        schedule = {
            "timezone": zone,
            "start": f"{begins:%H:%M}",
            "end": f"{begins + length * MINUTE:%H:%M}",
            "weekdays": [change.isoweekday(), change.isoweekday() % 7 + 1],
        }
        assume(schedule["start"] < schedule["end"])
        now = change.replace(tzinfo=UTC) + minutes * MINUTE
        assert next_opening([schedule], now) == first_open_minute([schedule], now)

    def test_open_schedule_opens_now(self) -> None:
        now = datetime(2026, 11, 20, 17, 59, 30, tzinfo=ZoneInfo("Europe/Paris"))
        assert next_opening([WEEK], now) == now
        assert str(next_opening([WEEK], now + 30 * timedelta(seconds=1))) == "2026-11-23 09:00:00+01:00"

    def test_window_that_the_clock_skips_opens_a_week_later_and_a_cut_one_at_the_change(self) -> None:
        night = WEEK | {"start": "02:10", "end": "02:50", "weekdays": [7]}
        before = datetime(2026, 3, 28, tzinfo=UTC)
        assert str(next_opening([night], before)) == "2026-04-05 02:10:00+02:00"
        cut = night | {"end": "04:00"}
        assert str(next_opening([cut], before)) == "2026-03-29 03:00:00+02:00"

    def test_hour_that_comes_twice_is_open_twice(self) -> None:
        night = WEEK | {"start": "02:10", "end": "02:50", "weekdays": [7]}
        first = next_opening([night], datetime(2026, 10, 24, tzinfo=UTC))
        assert str(first) == "2026-10-25 02:10:00+02:00"
        assert str(next_opening([night], datetime(2026, 10, 25, 0, 50, tzinfo=UTC))) == (
            "2026-10-25 02:10:00+01:00"
        )

    def test_earliest_of_several_schedules_counts_in_its_zone(self) -> None:
        now = datetime(2026, 11, 20, 20, tzinfo=UTC)  # a Friday
        tokyo = WEEK | {"timezone": "Asia/Tokyo", "weekdays": [6]}
        broken = WEEK | {"timezone": "Mars"}
        assert str(next_opening([WEEK, broken, tokyo], now)) == "2026-11-21 09:00:00+09:00"


class TestWords:
    @pytest.mark.parametrize(
        ("days", "words"),
        [
            ([1, 2, 3, 4, 5], "Monday to Friday"),
            ([5, 4, 3, 2, 1, 1], "Monday to Friday"),
            ([6, 7], "Saturday, Sunday"),
            ([1, 3], "Monday, Wednesday"),
            ([7], "Sunday"),
            ([1, 2, 3, 4, 5, 6, 7], "every day"),
        ],
    )
    def test_hours_are_told_in_words(self, days: list[int], words: str) -> None:
        assert hours_in_words([WEEK | {"weekdays": days}]) == f"{words}, 09:00 to 18:00 (Europe/Paris)"

    def test_several_schedules_are_told_one_after_the_other(self) -> None:
        evening = {"timezone": "America/New_York", "start": "18:05", "end": "23:59", "weekdays": [6, 7]}
        assert hours_in_words([WEEK, {}, evening]) == (
            "Monday to Friday, 09:00 to 18:00 (Europe/Paris); unknown; "
            "Saturday, Sunday, 18:05 to 23:59 (America/New_York)"
        )
        assert hours_in_words([]) == "unknown"

    @pytest.mark.parametrize(
        "odd",
        [
            {"timezone": "Mars/Olympus"},
            {"timezone": ""},
            {"timezone": None},
            {"timezone": "../../etc/passwd"},
            {"timezone": ["Europe/Paris"]},
            {"start": "9:00"},
            {"start": "24:00"},
            {"start": "09:60"},
            {"start": "09:00:00"},
            {"start": 9},
            {"start": None},
            {"start": "18:00"},  # it would end when it begins
            {"start": "22:00", "end": "06:00"},
            {"end": "١٨:٠٠"},
            {"weekdays": []},
            {"weekdays": [0]},
            {"weekdays": [8]},
            {"weekdays": ["1"]},
            {"weekdays": [True]},
            {"weekdays": [1.5]},
            {"weekdays": "12345"},
            {"weekdays": None},
        ],
        ids=str,
    )
    def test_odd_schedule_is_unknown(self, odd: dict[str, Any]) -> None:
        assert hours_in_words([WEEK | odd]) == "unknown"
        assert next_opening([WEEK | odd], datetime(2026, 11, 20, tzinfo=UTC)) is None

    @given(
        st.dictionaries(
            st.sampled_from(sorted(WEEK)),
            st.none() | st.text() | st.integers() | st.floats() | st.lists(st.integers() | st.text()),
        )
    )
    def test_no_schedule_is_an_error(self, values: dict[str, Any]) -> None:
        odd = WEEK | values
        opening = next_opening([odd], datetime(2026, 11, 20, tzinfo=UTC))
        assert (opening is None) == (hours_in_words([odd]) == "unknown")
