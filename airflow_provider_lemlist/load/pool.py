# SPDX-License-Identifier: Apache-2.0
"""
The threads that send rows, as few as use the whole budget.

``SenderPool.run`` is called by the thread that Airflow interrupts when a task is stopped or times out. That
thread only waits and logs progress; the other threads take, send and record rows. So an exception raised by
Airflow cannot interrupt the writing of an outcome.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from airflow_provider_lemlist.concurrency import ADAPT_INTERVAL
from airflow_provider_lemlist.exceptions import (
    LemlistError,
    LemlistNetworkError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
)
from airflow_provider_lemlist.ledger.ledger import FLUSH_LINES, OPEN, LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow_provider_lemlist.concurrency import Concurrency
    from airflow_provider_lemlist.load.report import LoadReport
    from airflow_provider_lemlist.load.sending import Sent

log = logging.getLogger(__name__)

#: Seconds between two progress lines.
PROGRESS_INTERVAL = 10.0
#: Seconds between two looks at whether the load is done, or is to be stopped.
POLL_INTERVAL = 0.05
#: Seconds that rows in flight have to complete when the load is stopped. Airflow 3.3 kills a task 5 s after
#: it has asked it to stop, and the ledger is written after them.
GRACE_PERIOD = 3.0
#: After so many consecutive failures that are not specific to a row, the load is aborted.
MAX_CONSECUTIVE_FAILURES = 20
#: The most failed rows that are named in the log.
MAX_LOGGED_FAILURES = 50

#: Errors that are not specific to the row.
_UNSPECIFIC = (LemlistNetworkError, LemlistServerError, LemlistUncertainError, LemlistUnexpectedReplyError)


class Job(Protocol):
    """What the pool has to know of a row."""

    @property
    def keys(self) -> Sequence[bytes]: ...

    @property
    def is_marked(self) -> bool:
        """Whether the ledger records that the row is in flight before it is sent."""
        ...


class Journal(Protocol):
    """Where the pool records what becomes of each row, such as a ledger."""

    def mark_in_flight(self, rows: Collection[Sequence[bytes]]) -> None: ...

    def release(self, rows: Collection[Sequence[bytes]]) -> None: ...

    def write(self, entry: LedgerEntry) -> None: ...

    def flush(self, *, older_than: float = 0.0) -> None: ...


SomeJob = TypeVar("SomeJob", bound=Job)


class SenderPool(Generic[SomeJob]):
    """
    Send rows, and record the outcome of each.

    :param jobs: What to send, in this order.
    :param send: Sends one.
    :param interrupt: Makes threads that wait for a slot of the budget, or for a retry, give up.
    """

    def __init__(
        self,
        jobs: Iterator[SomeJob],
        send: Callable[[SomeJob], Sent],
        ledger: Journal,
        report: LoadReport,
        concurrency: Concurrency,
        *,
        interrupt: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._send = send
        self._ledger = ledger
        self._report = report
        self._concurrency = concurrency
        self._interrupt = interrupt
        #: Rows whose outcome is not known; it is not written yet.
        self.uncertain: list[LedgerEntry] = []

        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._taking = threading.Lock()
        self._ready: deque[SomeJob] = deque()
        self._threads: list[threading.Thread] = []
        self._consecutive_failures = 0

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """
        Send everything; return when everything was tried, or a stop was requested.

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
            if self._stopping.wait(POLL_INTERVAL) or stop_requested():
                return
            self._ledger.flush(older_than=2.0)
            now = time.monotonic()
            if now - adapted >= ADAPT_INTERVAL:
                self._start_threads(self._concurrency.adapt((self._report.sent - sent) / (now - adapted)))
                adapted, sent = now, self._report.sent
            if now - logged >= PROGRESS_INTERVAL:
                log.info("%s", self._report.progress())
                self._report.emit()
                logged = now

    def _wind_down(self) -> None:
        """Release the rows that have not left, and wait for those that have."""
        self._stopping.set()
        if any(thread.is_alive() for thread in self._threads):
            self._interrupt()
        with self._taking:
            self._ledger.release([job.keys for job in self._ready if job.is_marked])
            self._ready.clear()
        deadline = time.monotonic() + GRACE_PERIOD
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self._threads):
            log.warning("%d rows are in flight and stay in doubt; the next attempt looks for them.", left)

    def _start_threads(self, number: int) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for place in range(len(self._threads), number):
            name = f"lemlist-load-{place}"
            self._threads.append(threading.Thread(target=self._work, args=(place,), name=name, daemon=True))
            self._threads[-1].start()

    def _work(self, place: int) -> None:
        try:
            while place < self._concurrency.threads and (job := self._take()) is not None:
                self._handle(job)
        except Exception as error:
            self._abort(error)

    def _take(self) -> SomeJob | None:
        """Take the next row, after it was recorded as in flight."""
        with self._taking:
            if not self._ready and not self._stopping.is_set():
                batch = list(islice(self._jobs, FLUSH_LINES))
                if marked := [job.keys for job in batch if job.is_marked]:
                    self._ledger.mark_in_flight(marked)
                self._ready.extend(batch)
            return None if self._stopping.is_set() or not self._ready else self._ready.popleft()

    def _handle(self, job: SomeJob) -> None:
        sent = self._send(job)
        entry, error = sent.entry, sent.error
        if entry is not None and entry.outcome == "uncertain":
            self.uncertain.append(entry)
        elif entry is not None:
            self._ledger.write(entry)
            self._report.count(entry.outcome)
            self._report.refused.update(sent.refused)
        if (entry is None or entry.outcome in OPEN) and not sent.in_doubt and job.is_marked:
            self._ledger.release([job.keys])
        if entry is not None and error is not None:
            self._log_failure(entry, error)
        failures = self._consecutive_failures + 1 if isinstance(error, _UNSPECIFIC) else 0
        self._consecutive_failures = failures
        if error and (entry is None or failures >= MAX_CONSECUTIVE_FAILURES):
            self._abort(error)

    def _log_failure(self, entry: LedgerEntry, error: LemlistError) -> None:
        failures = self._report.outcomes["failed"] + len(self.uncertain)
        if failures <= MAX_LOGGED_FAILURES:
            what = f"Row {entry.row}" if entry.row else f"Lead {entry.lead_id}"
            status = f", status {error.status}" if error.status else ""
            why = f": {error.reason.value}" if error.reason else "."
            rest = " Further failures are not logged." if failures == MAX_LOGGED_FAILURES else ""
            log.warning("%s: %s (%s%s)%s%s", what, entry.outcome, type(error).__name__, status, why, rest)

    def _abort(self, error: Exception) -> None:
        # What follows a stop, such as waits that were given up, is not the reason for it.
        if not self._stopping.is_set():
            self._error = error
        self._stopping.set()
