# SPDX-License-Identifier: Apache-2.0
"""
What to request next, and what a page proves: the plans of a read. Pure; ``reader`` sends the requests.

A plan is used by several threads, one call at a time. ``take`` gives the next request or None if there is
none right now, ``accept`` judges its page and gives the records to keep, ``settle`` says that they are kept.
Everything of a lower order than ``settled`` is then complete, so that rows can be used while others are read.

Pages move while they are read: a new record shifts the offsets of all that follow, a deleted one shifts them
back. So two pages overlap by one record, and the end of a list counts only when lemlist repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from airflow_provider_lemlist.exceptions import LemlistUnexpectedReplyError

Record = Mapping[str, Any]

#: How often a part is read again, because it changed meanwhile or lemlist contradicted itself.
MAX_REREADS = 20
#: How often lemlist has to say that nothing follows. If a tenth of its empty pages were wrong, one end in a
#: thousand would be.
END_CLAIMS = 3
#: Pages that are requested beyond the last one that is known to exist.
PAGES_AHEAD = 8


class Found(NamedTuple):
    """A record to keep, with its place in the order of the rows, and what its request says about it."""

    order: int
    id: str
    record: Record
    known: Mapping[str, Any] = {}


SomeRequest = TypeVar("SomeRequest")


class Plan(Protocol[SomeRequest]):
    """What the reader has to know of a plan."""

    @property
    def done(self) -> bool:
        """Whether everything was read and kept."""
        ...

    @property
    def settled(self) -> float:
        """The order below which all rows are complete."""
        ...

    def take(self) -> SomeRequest | None:
        """Return the next request, or None if there is none before another page has arrived."""
        ...

    def accept(self, request: SomeRequest, page: Any) -> Iterable[Found]:
        """
        Judge the page of a request, and return the records to keep.

        :raises LemlistUnexpectedReplyError: The pages contradict each other, and keep doing so.
        """
        ...

    def settle(self, request: SomeRequest) -> None:
        """Note that the records of a request are kept."""
        ...


def record_id(record: Any, what: str) -> str:
    """Return the id of a record."""
    found = record.get("_id") if isinstance(record, Mapping) else None
    if not isinstance(found, str) or not found:
        raise LemlistUnexpectedReplyError(f"lemlist listed {what} without an _id. Run the task again.")
    return found


def moved_too_often(what: str) -> LemlistUnexpectedReplyError:
    """Return the error of a list that could not be read completely."""
    return LemlistUnexpectedReplyError(
        f"lemlist's pages of {what} contradict each other, and {MAX_REREADS} further reads did not help, so "
        "some may be missing. Nothing was written. Run the task again."
    )


# --- One request for each job -----------------------------------------------------------------------------

Job = TypeVar("Job")


class EachJob(Generic[Job]):
    """
    One request for each job, in any order; the rows are in the order of the jobs.

    The page of a job is its records, each with what the job says about it.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._next = 0
        self._kept: set[int] = set()
        self._settled = 0

    @property
    def done(self) -> bool:
        return self._settled == len(self._jobs)

    @property
    def settled(self) -> float:
        return self._settled

    def take(self) -> tuple[int, Job] | None:
        if self._next == len(self._jobs):
            return None
        self._next += 1
        return self._next - 1, self._jobs[self._next - 1]

    def accept(
        self, request: tuple[int, Job], page: Iterable[tuple[Record, Mapping[str, Any]]]
    ) -> Iterable[Found]:
        # Lazily: the leads of a campaign may be too many for the memory.
        return (Found(request[0], f"{number:012}", *record) for number, record in enumerate(page))

    def settle(self, request: tuple[int, Job]) -> None:
        self._kept.add(request[0])
        while self._settled in self._kept:
            self._kept.remove(self._settled)
            self._settled += 1


# --- Pages by offset --------------------------------------------------------------------------------------


class OffsetPage(NamedTuple):
    """A page to request. Those of an earlier ``generation`` are void."""

    offset: int
    limit: int
    generation: int


class Listed(NamedTuple):
    """The records of a page, and how many the whole list has, where lemlist says it."""

    records: Sequence[Record]
    total: int | None = None


class OffsetPages:
    """
    Pages by offset, several at a time, each beginning with the last record of the page before.

    If one does not, the list has moved: the page before and all that follow are read again.

    :param what: What is listed, for errors.
    :param limit: Records of a page.
    """

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._generation = 0
        self._ids: set[str] = set()
        self._first_page: list[str] = []
        #: The page in line: where it begins, and which record it must begin with.
        self._offset = 0
        self._expected: str | None = None
        self._previous = 0
        #: Pages requested from there on, those that have arrived early, and how many may be requested.
        self._requested = 0
        self._early: dict[int, Listed] = {}
        self._ahead = 1
        self._claims = 0
        self._rereads = 0
        #: The first record of each page that is accepted and not yet kept.
        self._unkept: dict[OffsetPage, int] = {}

    @property
    def done(self) -> bool:
        return self._ended and not self._unkept

    @property
    def settled(self) -> float:
        return min(self._unkept.values(), default=len(self._ids))

    @property
    def _ended(self) -> bool:
        return self._claims >= END_CLAIMS

    def take(self) -> OffsetPage | None:
        if self._ended or self._requested >= self._ahead:
            return None
        self._requested += 1
        offset = self._offset + (self._requested - 1) * (self._limit - 1)
        return OffsetPage(offset, self._limit, self._generation)

    def accept(self, request: OffsetPage, page: Listed) -> list[Found]:
        if request.generation != self._generation or self._ended:
            return []
        self._early[request.offset] = page
        found: list[Found] = []
        while not self._ended and (listed := self._early.pop(self._offset, None)) is not None:
            found += self._join(listed)
        if found:
            self._unkept[request] = found[0].order
        return found

    def settle(self, request: OffsetPage) -> None:
        self._unkept.pop(request, None)

    def _join(self, page: Listed) -> list[Found]:
        """Return the new records of the page in line, and find the next one."""
        ids = [record_id(record, self._what) for record in page.records]
        if not self._joins(ids):
            self._go_back()
            return []
        found = []
        for each, record in zip(ids, page.records, strict=True):
            if each not in self._ids:
                found.append(Found(len(self._ids), each, record))
                self._ids.add(each)
        self._first_page = self._first_page or ids
        self._expected = ids[-1] if ids else self._expected
        self._previous = self._offset
        if found:
            self._rereads = 0
        elif self._offset >= len(self._ids):
            self._count_reread()  # known ones are further up
        if len(ids) >= self._limit:
            self._claims = 0
            self._offset += self._limit - 1
            self._requested -= 1
            left = PAGES_AHEAD if page.total is None else math.ceil((page.total - self._offset) / self._limit)
            self._ahead = max(1, min(left, PAGES_AHEAD))
            return found
        # A page that is short for another reason shows more than the record it begins with.
        if found or (len(ids) > 1 and ids != self._first_page):
            self._claims = 0
        elif page.total is None or self._offset + len(ids) >= page.total:
            self._claims += 1
        else:
            self._count_reread()
        self._line_up(self._offset + max(len(ids) - 1, 0))
        return found

    def _joins(self, ids: list[str]) -> bool:
        """Return whether a page continues what was read before."""
        if self._expected is not None:
            # Some routes ignore the offset; then a short first page is the whole list.
            return ids[:1] == [self._expected] or (ids == self._first_page and len(ids) < self._limit)
        if not ids or not self._ids:
            return not self._ids  # where some were listed before, an empty page is not the end
        return self._offset == 0 or ids[0] in self._ids

    def _go_back(self) -> None:
        self._count_reread()
        self._previous = max(0, min(self._previous, self._offset) - self._limit)
        self._expected, self._claims = None, 0
        self._line_up(self._previous)

    def _count_reread(self) -> None:
        self._rereads += 1
        if self._rereads > MAX_REREADS:
            raise moved_too_often(self._what)

    def _line_up(self, offset: int) -> None:
        """Continue at an offset; pages that were requested ahead are void."""
        self._offset = offset
        self._generation += 1
        self._requested, self._ahead = 0, 1
        self._early.clear()
