# SPDX-License-Identifier: Apache-2.0
"""
The plan that reads all activities of a window: by time, in slices that several threads read at once. Pure.

lemlist lists activities newest first, between two inclusive moments, by offset. Offsets shift while new
activities arrive and old ones vanish. So the next page is requested by time: up to the moment of the last
activity of the page before, which must be listed again. An offset is used only within a second that fills a
page. Nothing that arrives or vanishes elsewhere moves such a page.

A thread without work takes the lower half of the slice with the most left. All slices are requested down to
the beginning of the window, so a slice ends with an activity that belongs to the one below it, and not
because a page was short. Only the end of the window rests on lemlist's word, and that is asked for twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_provider_lemlist.datasets import converted, milliseconds
from airflow_provider_lemlist.exceptions import LemlistUnexpectedReplyError
from airflow_provider_lemlist.extract.plans import (
    END_CLAIMS,
    MAX_REREADS,
    Found,
    Record,
    moved_too_often,
    record_id,
)

#: Activities that must be left in a slice, as far as can be told, so that halving it saves time.
WORTH_HALVING = 300

#: After how many further reads an activity that was listed counts as deleted.
MISSED_OFTEN_ENOUGH = 3

#: In milliseconds.
SECOND = 1000


class WindowPage(NamedTuple):
    """A page to request: both moments are inclusive, whole seconds, because lemlist may compare those."""

    number: int
    since: datetime
    until: datetime
    offset: int
    limit: int
    query: Mapping[str, Any]


class _Seen(NamedTuple):
    """An activity of a page: its moment in milliseconds, and its id."""

    at: int
    id: str


@dataclass
class _Listing:
    """One listing of the window, with its filters; what its slices know together."""

    query: Mapping[str, Any]
    oldest: float = math.inf


@dataclass
class _Slice:
    """The activities from ``low`` to below ``high``, in milliseconds, that one thread reads downwards."""

    listing: _Listing
    low: int
    high: int
    #: The second up to which the next page is requested, and how many of its activities are passed over.
    second: int
    offset: int = 0
    #: The last activity of the page before, which the next page must list again.
    expected: _Seen | None = None
    #: The second to go back to if it does not, and what was listed up to there, to tell what is new.
    anchor: int = 0
    recent: dict[str, int] = field(default_factory=dict)
    #: Activities per millisecond, from the last page or the slice that this one was cut from.
    density: float = 0.0
    claims: int = 0
    rereads: int = 0
    is_busy: bool = False
    is_done: bool = False

    @property
    def is_open(self) -> bool:
        return self.is_busy or not self.is_done

    @property
    def left(self) -> float:
        """How many activities are left, as far as can be told."""
        return 0.0 if self.is_done else self.density * max(0, self.second * SECOND - self.low)


class TimeSlices:
    """
    All activities of a half-open window.

    :param since: First moment.
    :param until: The moment after the last.
    :param queries: The filters; each is a listing of its own.
    :param limit: Activities of a page.
    """

    def __init__(
        self, since: datetime, until: datetime, queries: Sequence[Mapping[str, Any]], limit: int
    ) -> None:
        low, high = milliseconds(since), milliseconds(until)
        self._limit = limit
        self._since = low // SECOND
        top = max(-(-high // SECOND), self._since + 1)  # lemlist refuses equal bounds
        self._slices = [_Slice(_Listing(query), low, high, top, anchor=top) for query in queries]

    @property
    def done(self) -> bool:
        return not any(each.is_open for each in self._slices)

    @property
    def settled(self) -> float:
        return min((each.low for each in self._slices if each.is_open), default=math.inf)

    def take(self) -> WindowPage | None:
        number = next(
            (number for number, each in enumerate(self._slices) if not (each.is_busy or each.is_done)), None
        )
        if number is None:
            number = self._halve()
        if number is None:
            return None
        wanted = self._slices[number]
        wanted.is_busy = True
        return WindowPage(
            number,
            datetime.fromtimestamp(self._since, UTC),
            datetime.fromtimestamp(max(wanted.second, self._since + 1), UTC),
            wanted.offset,
            self._limit,
            wanted.listing.query,
        )

    def accept(self, request: WindowPage, page: Sequence[Record]) -> list[Found]:
        part = self._slices[request.number]
        seen = [_seen(record) for record in page]
        if not self._is_possible(part, seen):
            self._go_back(part)
            return []
        self._advance(part, seen)
        return [
            Found(each.at, each.id, record)
            for each, record in zip(seen, page, strict=True)
            if part.low <= each.at < part.high
        ]

    def settle(self, request: WindowPage) -> None:
        self._slices[request.number].is_busy = False

    def _halve(self) -> int | None:
        """Cut the lower half off the slice with the most left; return the number of the new one."""
        part = max(self._slices, key=lambda each: each.left)
        middle = (part.low // SECOND + part.second) // 2
        if part.left < WORTH_HALVING or not part.low < middle * SECOND < part.second * SECOND:
            return None
        self._slices.append(
            _Slice(part.listing, part.low, middle * SECOND, middle, anchor=middle, density=part.density)
        )
        part.low = middle * SECOND
        return len(self._slices) - 1

    def _is_possible(self, part: _Slice, seen: list[_Seen]) -> bool:
        """Return whether a page can be what was requested, and continues what was read before."""
        if any(below.at > above.at for above, below in zip(seen, seen[1:], strict=False)):
            return False
        top = max(part.second, self._since + 1) * SECOND
        if seen and (seen[0].at >= top + SECOND or seen[-1].at < self._since * SECOND):
            return False
        expected = part.expected
        if expected is None:
            # Lower ones were listed before, so an empty page is not the end.
            return bool(seen) or part.listing.oldest >= part.second * SECOND
        if part.offset:
            return bool(seen) and seen[0].id == expected.id
        reaches_it = len(seen) < self._limit or seen[-1].at < expected.at
        return not reaches_it or any(each.id == expected.id for each in seen)

    def _advance(self, part: _Slice, seen: list[_Seen]) -> None:
        """Find out what to request after a page."""
        fresh = [each for each in seen if each.id not in part.recent]
        if fresh:
            part.rereads = 0
        if seen:
            part.listing.oldest = min(part.listing.oldest, seen[-1].at)
            if seen[-1].at < part.low:
                part.is_done = True
                return
        if len(seen) < self._limit and not fresh:
            part.claims += 1
            if part.claims >= END_CLAIMS:
                self._end(part)
                return
        else:
            part.claims = 0
        if not seen:
            return
        if len(seen) >= self._limit:
            part.density = len(seen) / max(1, seen[0].at - seen[-1].at)
        last = part.expected = seen[-1]
        part.recent.update((each.id, each.at) for each in seen)
        second = -(-last.at // SECOND)
        if second < part.second:
            part.anchor, part.second, part.offset = part.second, second, 0
            passed = (part.anchor + 1) * SECOND
            part.recent = {id: at for id, at in part.recent.items() if at < passed}
        else:
            part.offset += len(seen) - 1

    def _end(self, part: _Slice) -> None:
        """Believe that nothing is below; if something was listed there, only when it stays away."""
        lowest = min(part.recent.values(), default=part.high)
        if part.listing.oldest < lowest and part.rereads < MISSED_OFTEN_ENOUGH:
            self._go_back(part)
        else:
            part.is_done = True

    def _go_back(self, part: _Slice) -> None:
        part.rereads += 1
        if part.rereads > MAX_REREADS:
            raise moved_too_often("activities")
        if part.offset == 0:
            part.second = part.anchor
        part.offset, part.expected, part.claims = 0, None, 0


def _seen(record: Record) -> _Seen:
    moment = converted(record.get("createdAt"), "timestamp") if isinstance(record, Mapping) else None
    if not isinstance(moment, datetime):
        raise LemlistUnexpectedReplyError("lemlist listed an activity without createdAt. Run the task again.")
    return _Seen(milliseconds(moment), record_id(record, "activities"))
