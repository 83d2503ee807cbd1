# SPDX-License-Identifier: Apache-2.0
"""
The plan that reads all activities of a window: by time, in slices that several threads read at once. Pure.

lemlist lists activities newest first, between two inclusive moments, by offset. Offsets shift while new
activities arrive and old ones vanish. So the next page is requested by time: up to the moment of the last
activity of the page before. An offset passes over those of the same moment, except for that last one. A page
must begin with an activity that was listed before, so that there is no gap. Nothing that arrives or vanishes
at other moments moves such a page.

It is not documented whether lemlist compares milliseconds or whole seconds. Milliseconds are tried first,
because the offsets are smaller then; when a page leaves a gap, whole seconds are requested, from offset 0.

A thread without work takes the lower half of the slice with the most left. All slices are requested down to
the beginning of the window, so a slice ends with an activity that belongs to the one below it, and not
because a page was short. Only the end of the window rests on lemlist's word, which is asked for repeatedly. A
slice that seems to be empty waits until the one above it is done, which lists the first of its activities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_lemlist.datasets import converted, from_milliseconds, milliseconds
from airflow_provider_lemlist.exceptions import LemlistUnexpectedReplyError
from airflow_provider_lemlist.extract.plans import (
    END_CLAIMS,
    MAX_REREADS,
    Found,
    Record,
    moved_too_often,
    record_id,
)

#: How many activities a slice must have left, by estimate, so that halving it saves time.
WORTH_HALVING = 500

#: After how many further reads an activity that was listed counts as deleted.
MISSED_OFTEN_ENOUGH = 3

#: In milliseconds.
SECOND = 1000


class WindowPage(NamedTuple):
    """A page to request; both moments are inclusive."""

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
    #: The next page: up to which moment, and after how many. All later activities were listed.
    until: int
    offset: int = 0
    #: The bound before, to go back to, and what was listed from there on, without a gap.
    anchor: int = 0
    known: dict[str, int] = field(default_factory=dict)
    #: Activities per millisecond, from the last page or the slice that this one was cut from.
    density: float = 0.0
    #: How often lemlist claimed that nothing is below this moment.
    claims: int = 0
    end: int = 0
    rereads: int = 0
    is_busy: bool = False
    is_done: bool = False

    @property
    def is_open(self) -> bool:
        return self.is_busy or not self.is_done

    @property
    def has_claimed_end(self) -> bool:
        return self.claims >= END_CLAIMS and not self.is_done

    def finish(self) -> None:
        self.is_done = True
        self.known.clear()

    @property
    def left(self) -> float:
        """How many activities are left, estimated by the density of the last page."""
        return 0.0 if self.is_done or self.claims else self.density * max(0, self.until - self.low)


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
        self._since = low // SECOND * SECOND
        self._is_exact = True
        self._slices = [_Slice(_Listing(query), low, high, _whole(high)) for query in queries]

    @property
    def done(self) -> bool:
        return not any(each.is_open for each in self._slices)

    @property
    def settled(self) -> float:
        return min((each.low for each in self._slices if each.is_open), default=math.inf)

    def take(self) -> WindowPage | None:
        free = (
            number
            for number, each in enumerate(self._slices)
            if not (each.is_busy or each.is_done or each.has_claimed_end)
        )
        number = next(free, None)
        if number is None:
            number = self._halve()
        if number is None:
            return None
        part = self._slices[number]
        part.is_busy = True
        since, until = from_milliseconds(self._since), from_milliseconds(part.until)
        return WindowPage(number, since, until, part.offset, self._limit, part.listing.query)

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
        for part in sorted(self._slices, key=lambda each: each.high, reverse=True):
            if part.has_claimed_end:
                self._conclude(part)

    def _halve(self) -> int | None:
        """Cut the lower half off the slice with the most left; return the number of the new one."""
        part = max(self._slices, key=lambda each: each.left)
        middle = (part.low + part.until) // 2 // SECOND * SECOND
        if part.left < WORTH_HALVING or not part.low < middle < part.until:
            return None
        self._slices.append(_Slice(part.listing, part.low, middle, middle, density=part.density))
        part.low = middle
        return len(self._slices) - 1

    def _is_possible(self, part: _Slice, seen: list[_Seen]) -> bool:
        """Return whether a page can be what was requested, without a gap to what was listed before."""
        if not seen:
            # Where one was listed before, an empty page is not the end.
            return not part.known and part.listing.oldest > part.until
        if any(below.at > above.at for above, below in zip(seen, seen[1:], strict=False)):
            return False
        if seen[0].at >= part.until + SECOND or seen[-1].at < self._since:
            return False
        if part.offset == 0 and part.until % SECOND == 0:
            return True
        return seen[0].id in part.known and part.offset < len(part.known)

    def _advance(self, part: _Slice, seen: list[_Seen]) -> None:
        """Find out what to request after a page."""
        is_new = any(each.id not in part.known for each in seen)
        if is_new:
            part.rereads = 0
        if seen:
            part.listing.oldest = min(part.listing.oldest, seen[-1].at)
            if seen[-1].at < part.low:
                part.finish()
                return
        if len(seen) <= 1 and not is_new:
            part.claims += 1
            part.end = seen[0].at if seen else part.until + 1
            return
        part.claims = 0
        if len(seen) >= self._limit:
            part.density = len(seen) / max(1, seen[0].at - seen[-1].at)
        if seen[0].at > part.until:
            self._is_exact = False
        part.known.update((each.id, each.at) for each in seen)
        until = self._bound(seen[-1].at)
        if until < part.until:
            part.anchor, part.until = part.until, until
            part.known = {id: at for id, at in part.known.items() if at < part.anchor + SECOND}
            part.offset = sum(at <= until for at in part.known.values()) - 1
        else:
            part.offset += len(seen) - 1

    def _conclude(self, part: _Slice) -> None:
        """Believe that nothing follows, unless something was listed there: then only when it stays away."""
        if not part.known and any(
            each.is_open and each.listing is part.listing and each.low == part.high for each in self._slices
        ):
            return  # the slice above ends with an activity of this one, if there is any
        if part.listing.oldest < part.end and part.rereads < MISSED_OFTEN_ENOUGH:
            self._go_back(part)
        else:
            part.finish()

    def _go_back(self, part: _Slice) -> None:
        """Read on from whole seconds, then from the bound before: an offset of 0 leaves no gap there."""
        part.rereads += 1
        if part.rereads > MAX_REREADS:
            raise moved_too_often("activities")
        self._is_exact = False
        until = self._bound(part.until)
        if part.offset == 0 and until == part.until:
            until = max(until, self._bound(part.anchor))
        part.until, part.offset, part.claims = until, 0, 0

    def _bound(self, at: int) -> int:
        """Return the moment to request so that lemlist lists an activity; it refuses equal bounds."""
        return max(at if self._is_exact else _whole(at), self._since + SECOND)


def _whole(at: int) -> int:
    """Return the next whole second."""
    return -(-at // SECOND) * SECOND


def _seen(record: Record) -> _Seen:
    at = converted(record.get("createdAt"), "timestamp") if isinstance(record, Mapping) else None
    if not isinstance(at, datetime):
        raise LemlistUnexpectedReplyError("lemlist listed an activity without createdAt. Run the task again.")
    return _Seen(milliseconds(at), record_id(record, "activities"))
