# SPDX-License-Identifier: Apache-2.0
"""
The threads that send rows, as few as use the whole budget.

``SenderPool.run`` is called by the thread that Airflow interrupts when a task is stopped or times out. That
thread only waits and logs progress; the other threads take, send and record rows. So an exception raised by
Airflow cannot interrupt the writing of an outcome.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from airflow_provider_lemlist.exceptions import (
    LemlistError,
    LemlistNetworkError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
)
from airflow_provider_lemlist.load.ledger import OPEN, Ledger, LedgerEntry
from airflow_provider_lemlist.load.sending import send, settle_without_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.load.report import LoadReport
    from airflow_provider_lemlist.load.worklist import PlannedRow

log = logging.getLogger(__name__)

#: Seconds between two progress lines, and between two adjustments of the number of threads.
PROGRESS_INTERVAL = 10.0
ADAPT_INTERVAL = 5.0
#: The most threads; lemlist's rate limit cannot use more.
MAX_THREADS = 32
#: Seconds that rows in flight have to complete when the load is stopped. Airflow kills a task after 60,
#: Kubernetes a pod after 30.
GRACE_PERIOD = 15.0
#: After so many consecutive failures that are not specific to a row, the load is aborted.
MAX_CONSECUTIVE_FAILURES = 20
#: The most failed rows that are named in the log.
MAX_LOGGED_FAILURES = 50

#: Errors that are not specific to the row.
_UNSPECIFIC = (LemlistNetworkError, LemlistServerError, LemlistUncertainError, LemlistUnexpectedReplyError)


class Concurrency:
    """
    The number of sender threads: requests per second times the seconds that one takes.

    :param rate: Requests per second that the budget allows.
    :param latency: Seconds until a response, measured once.
    """

    def __init__(self, rate: float, latency: float) -> None:
        self._rate = rate
        self.threads = min(MAX_THREADS, math.ceil(rate * latency) + 2)
        self._last_step: tuple[int, float] | None = None
        self._at_best = False

    def adapt(self, seen: float) -> int:
        """
        Return the next number of threads, given the rows per second that the present number achieved.

        The number grows while the budget is not used up, until growing has no effect: then other clients
        use the key, or rows take more than one request.
        """
        if self._last_step is not None and seen < self._last_step[1] * 1.05:
            self._at_best = True
            self.threads, self._last_step = self._last_step[0], None
        elif not self._at_best and seen < self._rate * 0.95:
            self._last_step = (self.threads, seen)
            wanted = math.ceil(self.threads * self._rate / max(seen, self._rate / 4))
            self.threads = min(MAX_THREADS, max(self.threads + 1, wanted))
        else:
            self._last_step = None
            self._at_best = self._at_best and seen < self._rate * 0.95
        return self.threads


class SenderPool:
    """Send rows, and record the outcome of each."""

    def __init__(
        self,
        hook: LemlistHook,
        rows: Iterator[PlannedRow],
        ledger: Ledger,
        report: LoadReport,
        options: LoadOptions,
        concurrency: Concurrency,
    ) -> None:
        self._hook = hook
        self._rows = rows
        self._ledger = ledger
        self._report = report
        self._options = options
        self._concurrency = concurrency

        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._taking = threading.Lock()
        self._ready: deque[PlannedRow] = deque()
        self._threads: list[threading.Thread] = []
        self._consecutive_failures = 0

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """
        Send all rows; return when every row was tried, or a stop was requested.

        :raises Exception: An error that concerns every row. The other rows are not tried.
        """
        try:
            self._supervise(stop_requested)
        finally:
            self._wind_down()
        if self._error is not None:
            raise self._error

    def _supervise(self, stop_requested: Callable[[], bool]) -> None:
        if stop_requested():
            return
        logged = adapted = time.monotonic()
        sent = self._report.sent
        self._start_threads(self._concurrency.threads)
        while any(thread.is_alive() for thread in self._threads):
            if self._stopping.wait(0.2) or stop_requested():
                return
            self._ledger.flush(older_than=2.0)
            now = time.monotonic()
            if now - adapted >= ADAPT_INTERVAL:
                self._start_threads(self._concurrency.adapt((self._report.sent - sent) / (now - adapted)))
                adapted, sent = now, self._report.sent
            if now - logged >= PROGRESS_INTERVAL:
                log.info("%s", self._report.progress())
                logged = now

    def _wind_down(self) -> None:
        """Wait for rows in flight, and release the rows that were not sent."""
        self._stopping.set()
        deadline = time.monotonic() + GRACE_PERIOD
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self._threads):
            log.warning("%d rows are in flight and stay in doubt; the next attempt looks them up.", left)
        with self._taking:
            if self._ready:
                self._ledger.release([row.key for row in self._ready])
                self._ready.clear()

    def _start_threads(self, number: int) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for place in range(len(self._threads), number):
            name = f"lemlist-load-{place}"
            self._threads.append(threading.Thread(target=self._work, args=(place,), name=name, daemon=True))
            self._threads[-1].start()

    def _work(self, place: int) -> None:
        try:
            while place < self._concurrency.threads and (row := self._take()) is not None:
                self._handle(row)
        except Exception as error:
            self._abort(error)

    def _take(self) -> PlannedRow | None:
        """Take the next row, which is then recorded as in flight."""
        with self._taking:
            while not self._ready and not self._stopping.is_set():
                batch: list[PlannedRow] = []
                for row in self._rows:
                    if entry := settle_without_request(row, self._options):
                        self._ledger.write(entry)
                        self._report.count(entry.outcome, sent=False)
                    else:
                        batch.append(row)
                    if len(batch) >= self._ledger.batch_size or self._stopping.is_set():
                        break
                if not batch:
                    return None
                self._ledger.mark_in_flight([row.key for row in batch])
                self._ready.extend(batch)
            return None if self._stopping.is_set() else self._ready.popleft()

    def _handle(self, row: PlannedRow) -> None:
        entry, in_doubt, error = send(self._hook, row, self._options)
        if entry is not None:
            self._ledger.write(entry, in_flight=True)
        if (entry is None or entry.outcome in OPEN) and not in_doubt:
            self._ledger.release([row.key])
        if entry is not None:
            self._report.count(entry.outcome)
            if error is not None:
                self._log_failure(entry, error)
        failures = self._consecutive_failures + 1 if isinstance(error, _UNSPECIFIC) else 0
        self._consecutive_failures = failures
        if error and (entry is None or failures >= MAX_CONSECUTIVE_FAILURES):
            self._abort(error)

    def _log_failure(self, entry: LedgerEntry, error: LemlistError) -> None:
        failures = self._report.outcomes["failed"] + self._report.outcomes["uncertain"]
        if failures <= MAX_LOGGED_FAILURES:
            status = f", status {error.status}" if error.status else ""
            rest = " Further failures are in the ledger only." if failures == MAX_LOGGED_FAILURES else ""
            log.warning("Row %d: %s (%s%s).%s", entry.row, entry.outcome, type(error).__name__, status, rest)

    def _abort(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._stopping.set()
