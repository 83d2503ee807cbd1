# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api.limits import LONGEST_WAIT, read_date, read_limits, read_wait

NOW = datetime(2021, 2, 16, 8, 2, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-7", 0.0),
        ("86400", LONGEST_WAIT),
        ("inf", LONGEST_WAIT),
        ("1e999", LONGEST_WAIT),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("Tue, 16 Feb 2021 08:02:43 GMT", 3.0),
        ("Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)", 2.0),
        ("Tue Feb 16 2021 09:02:42 GMT+0100 (heure normale d’Europe centrale)", 2.0),
        ("Tue Feb 16 2021 09:02:42 GMT+0100 (中欧标准时间)", 2.0),
        ("Tue Feb 16 2021 03:02:42 GMT-0500", 2.0),
        ("Tue Feb 16 2021 09:02:30 GMT+0100 (past)", 0.0),
    ],
)
def test_a_wait_is_read_from_seconds_and_both_kinds_of_date(text: str, seconds: float | None) -> None:
    assert read_wait(text, NOW) == seconds


def test_the_reset_date_is_used_when_retry_after_cannot_be_read() -> None:
    reset = "Tue Feb 16 2021 09:02:42 GMT+0100 (CET)"
    assert read_limits({"retry-after": "?", "x-ratelimit-reset": reset}, NOW).retry_after == 2.0
    assert read_limits({"retry-after": "1", "x-ratelimit-reset": reset}, NOW).retry_after == 1.0


@pytest.mark.parametrize(
    ("limit", "remaining", "read"),
    [("20", "7", (20, 7)), ("0", "-1", (None, None)), ("many", "", (None, None)), (" 40 ", "0", (40, 0))],
)
def test_limit_and_remaining_are_whole_numbers_or_nothing(
    limit: str, remaining: str, read: tuple[int | None, int | None]
) -> None:
    limits = read_limits({"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining}, NOW)
    assert (limits.limit, limits.remaining) == read


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]),
        st.text(max_size=80) | st.floats().map(str) | st.integers().map(str),
    )
)
def test_no_header_is_ever_an_error(headers: dict[str, str]) -> None:
    limits = read_limits(headers, NOW)
    assert limits.limit is None or limits.limit >= 1
    assert limits.remaining is None or limits.remaining >= 0
    assert limits.retry_after is None or 0 <= limits.retry_after <= LONGEST_WAIT


@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # naive by design
    st.integers(min_value=-12 * 60, max_value=14 * 60),
)
def test_every_javascript_date_is_read_to_the_second(local: datetime, offset: int) -> None:
    local = local.replace(microsecond=0)
    sign, minutes = "+-"[offset < 0], abs(offset)
    text = local.strftime("%a %b %d %Y %H:%M:%S GMT") + f"{sign}{minutes // 60:02}{minutes % 60:02} (Zone)"
    assert read_date(text) == (local - timedelta(minutes=offset)).replace(tzinfo=UTC)
