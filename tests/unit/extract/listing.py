# SPDX-License-Identifier: Apache-2.0
"""lemlist's lists in memory, and a crew without threads: requests are answered and judged in any order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from airflow_provider_lemlist.datasets import milliseconds
from airflow_provider_lemlist.extract.plans import Found, Listed, OffsetPage
from airflow_provider_lemlist.extract.slices import WindowPage

SECOND = 1000


class Happened(NamedTuple):
    """An activity, in the order of lemlist's list: the newest first, those of a moment by their number."""

    minus_at: int
    number: int
    campaign: str | None = None

    @property
    def at(self) -> int:
        return -self.minus_at

    @property
    def id(self) -> str:
        return f"act_{self.number}"


class Activities:
    """
    The list of activities.

    :param compares: ``milliseconds``, ``floored`` bounds, or whole ``seconds`` on both sides.
    :param cap: The most activities of a page, whatever is asked for.
    """

    def __init__(
        self,
        moments: Sequence[int],
        campaigns: Sequence[str | None],
        rng: Random,
        *,
        compares: str = "milliseconds",
        cap: int = 10**9,
        ignores_offset: bool = False,
    ) -> None:
        self.rng = rng
        self.campaigns = campaigns
        self.compares = compares
        self.cap = cap
        self.ignores_offset = ignores_offset
        self.rows: list[Happened] = []
        self.number = 0
        for at in moments:
            self.add(at)
        self.at_first = set(self.rows)

    def add(self, at: int) -> None:
        self.number += 1
        insort(self.rows, Happened(-at, self.number, self.rng.choice(self.campaigns)))

    def remove(self, row: Happened) -> None:
        self.rows.remove(row)
        self.at_first.discard(row)

    def page(self, request: WindowPage) -> list[dict[str, Any]]:
        since, until = milliseconds(request.since), milliseconds(request.until)
        assert since < until, "lemlist refuses equal bounds"
        assert request.offset >= 0
        if self.compares != "milliseconds":
            since, until = since // SECOND * SECOND, until // SECOND * SECOND
        if self.compares == "seconds":
            until += SECOND - 1
        first, end = bisect_left(self.rows, (-until,)), bisect_left(self.rows, (-since + 1,))
        campaign = request.query.get("campaign")
        fits = [row for row in self.rows[first:end] if campaign in (None, row.campaign)]
        start = 0 if self.ignores_offset else request.offset
        size = min(request.limit, self.cap)
        return [{"_id": row.id, "createdAt": row.at} for row in fits[start : start + size]]


class Records:
    """A list that is read by offset."""

    def __init__(
        self, count: int, *, says_total: bool = False, cap: int = 10**9, ignores_offset: bool = False
    ) -> None:
        self.rows = [f"row_{number}" for number in range(count)]
        self.at_first = set(self.rows)
        self.number = count
        self.says_total = says_total
        self.cap = cap
        self.ignores_offset = ignores_offset

    def add(self, place: int) -> None:
        self.rows.insert(place, f"row_{self.number}")
        self.number += 1

    def remove(self, place: int) -> None:
        self.at_first.discard(self.rows.pop(place))

    def page(self, request: OffsetPage) -> Listed:
        start = 0 if self.ignores_offset else request.offset
        found = self.rows[start : start + min(request.limit, self.cap)]
        return Listed([{"_id": id} for id in found], len(self.rows) if self.says_total else None)


class Read(NamedTuple):
    """What a plan has read: the records in the order in which they were used, and the number of requests."""

    used: list[Found]
    requests: int

    @property
    def ids(self) -> list[str]:
        return [found.id for found in self.used]


def carry_out(
    plan: Any,
    answer: Callable[[Any], Any],
    rng: Random,
    *,
    threads: int = 1,
    happen: Callable[[], None] = lambda: None,
    most_requests: int,
) -> Read:
    """
    Carry a plan out as a crew does, with several requests under way that are answered in any order.

    :param happen: Called between any two steps.
    """
    under_way: list[Any] = []
    arrived: list[tuple[Any, Any]] = []
    kept: dict[tuple[int, str], Found] = {}
    used: list[Found] = []
    settled, requests = -float("inf"), 0

    def use() -> None:
        nonlocal settled
        assert plan.settled >= settled, "what was complete is not any more"
        settled = plan.settled
        for key in sorted(key for key in kept if key[0] < settled):
            used.append(kept.pop(key))

    while True:
        happen()
        use()
        steps = ["answer"] * bool(under_way) + ["judge"] * bool(arrived)
        if len(under_way) + len(arrived) < threads:
            steps.append("take")
        step = rng.choice(steps)
        if step == "take":
            if (request := plan.take()) is not None:
                requests += 1
                assert requests <= most_requests, f"{requests} requests and no end"
                under_way.append(request)
            elif not under_way and not arrived:
                break
        elif step == "answer":
            request = under_way.pop(rng.randrange(len(under_way)))
            arrived.append((request, answer(request)))
        else:
            request, page = arrived.pop(rng.randrange(len(arrived)))
            for found in plan.accept(request, page):
                assert found.order >= settled, f"{found} comes after what is above {settled} was used"
                kept[found.order, found.id] = found
                assert found.order >= plan.settled, "complete before it is kept"
            plan.settle(request)
    assert plan.done
    settled = float("inf")
    used += [kept[key] for key in sorted(kept)]
    return Read(used, requests)


def is_sorted(read: Read) -> bool:
    keys = [(found.order, found.id) for found in read.used]
    return keys == sorted(keys)
