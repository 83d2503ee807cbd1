# SPDX-License-Identifier: Apache-2.0
"""Lists that move while they are read by offset: each record once, or an error."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist.exceptions import LemlistUnexpectedReplyError
from airflow_provider_lemlist.extract.plans import END_CLAIMS, EachJob, Listed, OffsetPage, OffsetPages
from tests.unit.extract.listing import Read, Records, carry_out, is_sorted

many = settings(max_examples=400 if settings.get_current_profile_name() == "steady" else 5_000)

seeds = st.integers(0, 2**32)
limits = st.integers(2, 7) | st.just(100)
threads = st.integers(1, 9)


def check(records: Records, found: Read) -> None:
    assert records.at_first <= set(found.ids), "lost"
    assert len(set(found.ids)) == len(found.ids), "twice"
    assert all(int(id.removeprefix("row_")) < records.number for id in found.ids)
    assert is_sorted(found)


@many
@given(st.integers(0, 120), limits, threads, st.booleans(), st.sampled_from((2, 3, 10**9)), seeds)
def test_a_list_is_read_in_order_and_in_few_requests(
    count: int, limit: int, threads: int, says_total: bool, cap: int, seed: int
) -> None:
    records = Records(count, says_total=says_total, cap=cap)
    plan = OffsetPages("records", limit)
    found = carry_out(plan, records.page, Random(seed), threads=threads, most_requests=2 * count + 10)
    assert found.ids == records.rows
    ahead = 1 if cap < limit else min(threads, 8)
    assert found.requests <= count / (min(limit, cap) - 1) + 1 + END_CLAIMS + ahead


@many
@given(
    st.integers(0, 60), limits, threads, st.booleans(), st.sampled_from((3, 10**9)),
    st.sampled_from((0.02, 0.1)), seeds,
)  # fmt: skip
def test_records_that_arrive_and_vanish_hide_none(
    count: int, limit: int, threads: int, says_total: bool, cap: int, rate: float, seed: int
) -> None:
    rng = Random(seed)
    records = Records(count, says_total=says_total, cap=cap)

    def happen() -> None:
        places = (0, len(records.rows) // 2, len(records.rows) - 1, rng.randint(0, len(records.rows)))
        if rng.random() >= rate:
            return
        if rng.random() < 0.5 and records.number < 3 * count + 20:
            records.add(max(0, rng.choice(places)))
        else:
            for _ in range(min(rng.choice((1, 1, 12)), len(records.rows))):
                records.remove(max(0, min(rng.choice(places), len(records.rows) - 1)))

    plan, most = OffsetPages("records", limit), 100 * count + 1000
    try:
        found = carry_out(plan, records.page, rng, threads=threads, happen=happen, most_requests=most)
    except LemlistUnexpectedReplyError:
        event("error")
        return
    event("complete")
    check(records, found)


@pytest.mark.parametrize("says_total", [False, True])
def test_a_short_list_is_complete_although_the_route_ignores_its_offset(says_total: bool) -> None:
    for count in range(9):
        records = Records(count, says_total=says_total, ignores_offset=True)
        found = carry_out(OffsetPages("records", 10), records.page, Random(count), most_requests=4)
        assert found.ids == records.rows


def test_a_long_list_whose_route_ignores_its_offset_is_an_error() -> None:
    records = Records(25, ignores_offset=True)
    with pytest.raises(LemlistUnexpectedReplyError, match="contradict each other"):
        carry_out(OffsetPages("records", 10), records.page, Random(1), threads=3, most_requests=200)


# --- Lies -------------------------------------------------------------------------------------------------

Lie = Callable[[Listed, OffsetPage, Records], Listed]


def first(number: int) -> Lie:
    return lambda page, *_: page._replace(records=page.records[:number])


LIES: dict[str, Lie] = {
    "empty": first(0),
    "cut to two": first(2),
    "cut to half": lambda page, *_: page._replace(records=page.records[: len(page.records) // 2]),
    "wrapped": lambda page, request, records: records.page(request._replace(offset=0)),
    "turned round": lambda page, *_: page._replace(records=page.records[::-1]),
}
BROKEN: dict[str, Lie] = {
    "without an id": lambda page, *_: page._replace(records=[{} for _ in page.records]),
    "with numbers": lambda page, *_: page._replace(records=[*range(len(page.records))]),  # type: ignore[list-item]
}


def lied_to(lie: Lie, numbers: range, seed: int, threads: int, *, says_total: bool) -> Read | None:
    """Read with a lie in the answers with these numbers; return None for an error."""
    rng = Random(seed)
    records = Records(rng.randint(2, 40), says_total=says_total)
    answers = 0

    def answer(request: OffsetPage) -> Any:
        nonlocal answers
        answers += 1
        page = records.page(request)
        return lie(page, request, records) if answers in numbers else page

    try:
        found = carry_out(OffsetPages("records", 4), answer, rng, threads=threads, most_requests=1000)
    except LemlistUnexpectedReplyError:
        return None
    check(records, found)
    return found


@pytest.mark.parametrize("says_total", [False, True])
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("name", LIES)
def test_one_lie_hides_nothing(name: str, threads: int, says_total: bool) -> None:
    for number in range(1, 25):
        for seed in range(20):
            numbers = range(number, number + 1)
            found = lied_to(LIES[name], numbers, seed, threads, says_total=says_total)
            assert found is not None, (number, seed)


@pytest.mark.parametrize("says_total", [False, True])
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("name", [*LIES, *BROKEN])
def test_lemlist_that_keeps_lying_ends_in_an_error_and_not_in_a_part(
    name: str, threads: int, says_total: bool
) -> None:
    if name == "cut to half" and not says_total:
        return  # the last record is never listed
    for number in range(2, 25):
        for seed in range(20):
            lied_to((LIES | BROKEN)[name], range(number, 10**9), seed, threads, says_total=says_total)


# --- One request for each job -----------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), max_size=12), threads, seeds)
def test_each_job_is_requested_once_and_its_records_keep_their_order(
    sizes: list[int], threads: int, seed: int
) -> None:
    def answer(request: tuple[int, int]) -> list[Any]:
        return [({"_id": f"{request[0]}-{number}"}, {"job": request[0]}) for number in range(request[1])]

    plan = EachJob(sizes)
    found = carry_out(plan, answer, Random(seed), threads=threads, most_requests=len(sizes))
    assert found.requests == len(sizes)
    assert [each.record["_id"] for each in found.used] == [
        f"{job}-{number}" for job, size in enumerate(sizes) for number in range(size)
    ]
    assert all(each.known == {"job": each.order} for each in found.used)
