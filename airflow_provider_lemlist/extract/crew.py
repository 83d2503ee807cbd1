# SPDX-License-Identifier: Apache-2.0
"""
The threads that read, as few as use the whole rate budget.

Each takes a request of the plan, sends it, has its page judged and keeps the records, until the plan is done.
The thread of the caller only waits and yields the rows that are complete, so an exception that Airflow raises
in it, to stop a task, interrupts nothing half-way.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from itertools import islice
from typing import Any, Generic

from airflow_provider_lemlist.concurrency import ADAPT_INTERVAL, Concurrency
from airflow_provider_lemlist.extract.plans import Found, Plan, SomeRequest
from airflow_provider_lemlist.extract.spool import BATCH, Spool

log = logging.getLogger(__name__)

#: Seconds between two progress lines.
PROGRESS_INTERVAL = 10.0
#: Seconds after which the caller looks again at what has become complete.
POLL_INTERVAL = 0.1
#: Seconds that requests have to end when a read is given up; then their threads are left to themselves.
GRACE_PERIOD = 3.0


class Crew(Generic[SomeRequest]):
    """
    Read everything that a plan asks for.

    :param fetch: Sends a request and returns its page.
    :param pack: Writes a record as the text of its row.
    :param rate: Requests per second that the budget allows.
    :param what: What is read, for the log.
    """

    def __init__(
        self,
        plan: Plan[SomeRequest],
        fetch: Callable[[SomeRequest], Any],
        pack: Callable[[Found], str],
        rate: float,
        what: str,
    ) -> None:
        self._plan = plan
        self._fetch = fetch
        self._pack = pack
        self._rate = rate
        self._what = what
        self._changed = threading.Condition()
        self._concurrency: Concurrency | None = None
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._is_over = False
        self._requests = 0
        self._spool = Spool()

    def rows(self) -> Generator[str]:
        """
        Yield the rows in their order, while others are still read.

        :raises LemlistError: The read is not complete; rows that were yielded are a part of it.
        """
        began = logged = adapted = time.monotonic()
        requests = rows = 0
        self._start_threads(1)  # the first response says how many are worth it
        try:
            while not self._is_over:
                with self._changed:
                    self._changed.wait(POLL_INTERVAL)
                    settled = self._plan.settled
                for row in self._spool.take(settled):
                    rows += 1
                    yield row
                now = time.monotonic()
                if self._concurrency is not None:
                    if now - adapted >= ADAPT_INTERVAL:
                        self._concurrency.adapt((self._requests - requests) / (now - adapted))
                        adapted, requests = now, self._requests
                    self._start_threads(self._concurrency.threads)
                if now - logged >= PROGRESS_INTERVAL:
                    log.info("Reading %s: %s requests so far", self._what, f"{self._requests:,}")
                    logged = now
            if self._error is not None:
                raise self._error
            for row in self._spool.take(math.inf):
                rows += 1
                yield row
        finally:
            self._end()
        log.info(
            "Read %s: %s rows, %s requests, %.1f s",
            *(self._what, f"{rows:,}", f"{self._requests:,}", time.monotonic() - began),
        )

    def _end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        deadline = time.monotonic() + GRACE_PERIOD
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._spool.close()

    def _start_threads(self, number: int) -> None:
        for place in range(len(self._threads), number):
            name = f"lemlist-read-{place}"
            self._threads.append(threading.Thread(target=self._work, args=(place,), name=name, daemon=True))
            self._threads[-1].start()

    def _work(self, place: int) -> None:
        try:
            while (request := self._take(place)) is not None:
                began = time.monotonic()
                page = self._fetch(request)
                self._keep(request, page)
                if self._concurrency is None:
                    self._concurrency = Concurrency(self._rate, time.monotonic() - began)
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._is_over = True
                self._changed.notify_all()

    def _take(self, place: int) -> SomeRequest | None:
        """Wait for the next request; return None when there is none any more."""
        with self._changed:
            while not self._is_over:
                if place < (self._concurrency.threads if self._concurrency else 1):
                    request = self._plan.take()
                    if request is not None:
                        self._requests += 1
                        return request
                    if self._plan.done:
                        self._is_over = True
                        self._changed.notify_all()
                        break
                self._changed.wait()
        return None

    def _keep(self, request: SomeRequest, page: Any) -> None:
        with self._changed:
            found = iter(self._plan.accept(request, page))
        while batch := list(islice(found, BATCH)):
            self._spool.add([(each.order, each.id, self._pack(each)) for each in batch])
        with self._changed:
            self._plan.settle(request)
            self._changed.notify_all()
