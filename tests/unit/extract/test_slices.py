# SPDX-License-Identifier: Apache-2.0
"""Whatever arrives, vanishes or is listed wrongly: all activities of a window, each once, or an error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist.datasets import from_milliseconds
from airflow_provider_lemlist.exceptions import LemlistUnexpectedReplyError
from airflow_provider_lemlist.extract import slices
from airflow_provider_lemlist.extract.plans import END_CLAIMS
from airflow_provider_lemlist.extract.slices import TimeSlices, WindowPage
from tests.unit.extract.listing import Activities, Read, carry_out, is_sorted

#: A read takes a few milliseconds.
many = settings(max_examples=400 if settings.get_current_profile_name() == "steady" else 5_000)

#: A whole second.
START = 1_772_445_600_000


@dataclass(frozen=True)
class Window:
    low: int
    high: int
    moments: tuple[int, ...]
    campaigns: tuple[str | None, ...]
    limit: int
    threads: int
    worth_halving: int
    seed: int


@st.composite
def windows(draw: st.DrawFn, most: int = 60) -> Window:
    low = START + draw(st.integers(0, 2500))
    high = low + draw(
        st.sampled_from((1, 7, 999, 1000, 1001, 5000, 30_000, 86_400_000)) | st.integers(1, 20_000)
    )
    moment = (
        st.integers(low - 2500, high + 2500)
        | st.sampled_from((low, low - 1, high - 1, high))
        | st.integers(low, high - 1)
    )
    bursts = draw(
        st.lists(st.tuples(moment, st.integers(1, 25), st.sampled_from((1, 1, 9, 1000))), max_size=6)
    )
    rng = Random(draw(st.integers(0, 2**32)))
    moments = [at + rng.randrange(width) for at, count, width in bursts for _ in range(count)]
    moments += draw(st.lists(moment, max_size=most))
    return Window(
        low,
        high,
        tuple(moments),
        draw(st.sampled_from(((None,), (None,), ("a", "b"), ("a", "b", "c")))),
        draw(st.integers(2, 7) | st.just(100)),
        draw(st.integers(1, 6)),
        draw(st.sampled_from((2, 5, 10**9))),
        rng.randrange(2**32),
    )


def read(
    window: Window,
    listing: Activities,
    rng: Random,
    *,
    answer: Callable[[WindowPage], Any] | None = None,
    happen: Callable[[], None] = lambda: None,
    most_requests: int,
) -> Read:
    queries = [{"campaign": campaign} for campaign in window.campaigns]
    with patch.object(slices, "WORTH_HALVING", window.worth_halving):
        plan = TimeSlices(
            from_milliseconds(window.low), from_milliseconds(window.high), queries, window.limit
        )
        return carry_out(
            plan,
            answer or listing.page,
            rng,
            threads=window.threads,
            happen=happen,
            most_requests=most_requests,
        )


def check(window: Window, listing: Activities, found: Read) -> None:
    """Check that all that were listed during the whole read were found, and only real ones, once."""
    always = {row.id for row in listing.at_first if window.low <= row.at < window.high}
    assert always <= set(found.ids), "lost"
    assert len(set(found.ids)) == len(found.ids), "twice"
    assert all(int(id.removeprefix("act_")) <= listing.number for id in found.ids)
    assert all(window.low <= each.order < window.high for each in found.used)
    assert is_sorted(found)


@many
@given(windows(), st.sampled_from(("milliseconds", "floored", "seconds")), st.sampled_from((2, 5, 10**9)))
def test_all_activities_are_found_in_few_requests(window: Window, compares: str, cap: int) -> None:
    rng = Random(window.seed)
    listing = Activities(window.moments, window.campaigns, rng, compares=compares, cap=cap)
    parts = set[int]()

    def answer(request: WindowPage) -> Any:
        parts.add(request.number)
        return listing.page(request)

    found = read(window, listing, rng, answer=answer, most_requests=20 * len(window.moments) + 100)
    check(window, listing, found)
    assert len(found.ids) == len({row for row in listing.rows if window.low <= row.at < window.high})
    if compares == "milliseconds":
        pages = math.ceil(len(window.moments) / (min(window.limit, cap) - 1))
        assert found.requests <= pages + (END_CLAIMS + 1) * len(parts)


@many
@given(
    windows(),
    st.sampled_from(("milliseconds", "floored", "seconds")),
    st.sampled_from((2, 5, 10**9)),
    st.sampled_from((0.02, 0.1)),
)
def test_activities_that_arrive_and_vanish_hide_none(
    window: Window, compares: str, cap: int, rate: float
) -> None:
    rng = Random(window.seed)
    listing = Activities(window.moments, window.campaigns, rng, compares=compares, cap=cap)
    moments = [*window.moments, window.low, window.high]

    def happen() -> None:
        if rng.random() >= rate or len(listing.rows) > 3 * len(moments) + 50:
            return
        if listing.rows and rng.random() < 0.5:
            listing.remove(rng.choice(listing.rows))
        else:
            listing.add(
                rng.choice((rng.choice(moments), rng.randrange(window.low - 1500, window.high + 1500)))
            )

    try:
        found = read(window, listing, rng, happen=happen, most_requests=200 * len(moments) + 1000)
    except LemlistUnexpectedReplyError:
        event("error")
        return
    event("complete")
    check(window, listing, found)


def test_a_long_read_keeps_only_what_the_next_pages_must_join() -> None:
    rng = Random(1)
    listing = Activities([START + 997 * number for number in range(3000)], (None,), rng)
    plan = TimeSlices(from_milliseconds(START), from_milliseconds(START + 3_000_000), [{}], 10)
    kept: list[int] = []

    def answer(request: WindowPage) -> Any:
        kept.append(sum(len(part.known) for part in plan._slices))
        return listing.page(request)

    with patch.object(slices, "WORTH_HALVING", 20):
        found = carry_out(plan, answer, rng, threads=8, most_requests=600)
    assert len(found.ids) == 3000
    assert max(kept) <= 8 * 15


# --- Lies -------------------------------------------------------------------------------------------------

Page = list[dict[str, Any]]
Lie = Callable[[Page, WindowPage, Activities], Any]


def wrapped(page: Page, request: WindowPage, listing: Activities) -> Page:
    return listing.page(request._replace(offset=0))


def too_late(page: Page, request: WindowPage, listing: Activities) -> Page:
    return listing.page(request._replace(until=request.until + timedelta(hours=1)))


def too_early(page: Page, request: WindowPage, listing: Activities) -> Page:
    return listing.page(request._replace(since=from_milliseconds(0)))


def oldest_first(page: Page, request: WindowPage, listing: Activities) -> Page:
    whole = listing.page(request._replace(offset=0, limit=10**9))
    return whole[::-1][request.offset : request.offset + request.limit]


LIES: dict[str, Lie] = {
    "empty": lambda page, *_: [],
    "cut to half": lambda page, *_: page[: len(page) // 2],
    "cut to two": lambda page, *_: page[:2],
    "wrapped": wrapped,
    "too late": too_late,
    "too early": too_early,
    "unsorted": lambda page, *_: page[::-1],
}
BROKEN: dict[str, Lie] = {
    "oldest first": oldest_first,
    "without an id": lambda page, *_: [{**each, "_id": None} for each in page],
    "without a moment": lambda page, *_: [{"_id": each["_id"]} for each in page],
    "with a moment that is none": lambda page, *_: [{**each, "createdAt": "soon"} for each in page],
    "with numbers": lambda page, *_: [*range(len(page))],
}


def busy_window(seed: int, threads: int) -> Window:
    """Return a window of some 40 activities, some at the same moment, with others around it."""
    rng = Random(seed)
    low, high = START + 300, START + 20_700
    moments = [rng.randrange(low - 3000, high + 3000) for _ in range(25)]
    moments += [at for at in (low, START + 7_000, START + 9_500, high - 1) for _ in range(rng.randint(1, 6))]
    return Window(low, high, tuple(moments), (None,), 4, threads, 3, seed)


def lied_to(window: Window, lie: Lie, first: int, last: float) -> Read | None:
    """Read with a lie in the answers with these numbers; return None for an error."""
    rng = Random(window.seed)
    listing = Activities(window.moments, window.campaigns, rng)
    answers = 0

    def answer(request: WindowPage) -> Any:
        nonlocal answers
        answers += 1
        page = listing.page(request)
        return lie(page, request, listing) if first <= answers <= last else page

    try:
        found = read(window, listing, rng, answer=answer, most_requests=1000)
    except LemlistUnexpectedReplyError:
        return None
    if answers >= first:
        check(window, listing, found)
    return found


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", LIES)
def test_one_lie_hides_nothing(name: str, threads: int) -> None:
    for number in range(1, 40):
        for seed in range(6):
            assert lied_to(busy_window(seed, threads), LIES[name], number, number) is not None, (number, seed)


@pytest.mark.parametrize("threads", [1, 4])
# Cut to half, the last activity is never listed, so that nothing can tell.
@pytest.mark.parametrize("name", [each for each in (*LIES, *BROKEN) if each != "cut to half"])
def test_lemlist_that_keeps_lying_ends_in_an_error_and_not_in_a_part(name: str, threads: int) -> None:
    for number in range(2, 40):
        for seed in range(6):
            lied_to(busy_window(seed, threads), (LIES | BROKEN)[name], number, math.inf)


def test_a_part_of_the_window_that_seems_empty_is_not_believed() -> None:
    for number in range(2, 30):
        for seed in range(25):
            lied_to(busy_window(seed, 6), LIES["empty"], number, number + END_CLAIMS - 1)
