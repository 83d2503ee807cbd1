# SPDX-License-Identifier: Apache-2.0
"""
The threads that send, as few as fill the budget.

``Loader.run`` is called by the thread that Airflow interrupts when a task is stopped or out of time. It only
waits and tells how things stand; rows are taken, sent and written down by the other threads, so no exception
of Airflow can cut a line of the ledger in half.
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
from airflow_provider_lemlist.load.ledger import OPEN, Ledger, Line
from airflow_provider_lemlist.load.sending import Stop, Wishes, send, settle_without_asking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.account import Account
    from airflow_provider_lemlist.load.worklist import Task

log = logging.getLogger(__name__)

#: Seconds between two lines of progress, and between two looks at the number of threads.
PROGRESS = 10.0
ADAPT = 5.0
#: The most threads; what more could carry, lemlist's limit does not allow.
MOST_THREADS = 32
#: Seconds that requests under way get to end when the load is stopped. Airflow kills a task after 60,
#: Kubernetes a pod after 30.
GRACE = 15.0
#: So many rows in a row that lemlist could not answer mean that the others would fail too.
HOPELESS = 20
#: So many rows that failed are named in the log.
TOLD = 50

#: Errors that say nothing about the row.
_NOT_OF_THE_ROW = (
    LemlistNetworkError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
)


class Pace:
    """
    How many threads it takes: as many requests are under way as leave each second, times the seconds of one.

    :param rate: Requests that the budget lets go each second.
    :param latency: Seconds that an answer takes, as far as known.
    """

    def __init__(self, rate: float, latency: float) -> None:
        self._rate = rate
        self.threads = min(MOST_THREADS, math.ceil(rate * latency) + 2)
        self._before: tuple[int, float] | None = None
        self._content = False

    def adapt(self, seen: float) -> int:
        """
        Return how many threads it shall be, after so many rows a second were seen with the present number.

        More than before where the budget is not filled, until more threads bring nothing: then it is
        somebody else who uses it, or rows take more than one request.
        """
        if self._before is not None and seen < self._before[1] * 1.05:
            self._content = True
            self.threads, self._before = self._before[0], None
        elif not self._content and seen < self._rate * 0.95:
            self._before = (self.threads, seen)
            wanted = math.ceil(self.threads * self._rate / max(seen, self._rate / 4))
            self.threads = min(MOST_THREADS, max(self.threads + 1, wanted))
        else:
            self._before = None
            self._content = self._content and seen < self._rate * 0.95
        return self.threads


class Loader:
    """
    Send rows, and write down what became of each.

    :param hook: The hook.
    :param tasks: The rows.
    :param ledger: The open ledger.
    :param account: The counts.
    :param wishes: What the user wants for every row.
    :param pace: How many threads it takes.
    """

    def __init__(
        self,
        hook: LemlistHook,
        tasks: Iterator[Task],
        ledger: Ledger,
        account: Account,
        wishes: Wishes,
        pace: Pace,
        *,
        progress: float = PROGRESS,
        grace: float = GRACE,
    ) -> None:
        self._hook = hook
        self._tasks = tasks
        self._ledger = ledger
        self._account = account
        self._wishes = wishes
        self._pace = pace
        self._progress = progress
        self._grace = grace

        self._told_to_stop = False
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._feeding = threading.Lock()
        self._ready: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._failures_in_a_row = 0

    def stop(self) -> None:
        """Begin no further row. May be called from a signal handler."""
        # Not the event: its lock may be held by the very thread that the signal interrupts.
        self._told_to_stop = True

    def run(self) -> None:
        """
        Send all rows.

        Returns when every row was tried, or after ``stop``.

        :raises Exception: What made it pointless or impossible to go on. The rest of the rows is untried.
        """
        try:
            self._watch()
        finally:
            self._wind_down()
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        if self._told_to_stop:
            return
        told = adapted = time.monotonic()
        sent = self._account.sent
        self._employ(self._pace.threads)
        while any(thread.is_alive() for thread in self._threads):
            if self._stopping.wait(0.2) or self._told_to_stop:
                return
            self._ledger.flush(older_than=2.0)
            now = time.monotonic()
            if now - adapted >= ADAPT:
                self._employ(self._pace.adapt((self._account.sent - sent) / (now - adapted)))
                adapted, sent = now, self._account.sent
            if now - told >= self._progress:
                log.info("%s", self._account.progress())
                told = now

    def _wind_down(self) -> None:
        """Let the requests under way end, and give back the rows that were not begun."""
        self._stopping.set()
        patience_until = time.monotonic() + self._grace
        for thread in self._threads:
            thread.join(max(0.0, patience_until - time.monotonic()))
        if left := sum(thread.is_alive() for thread in self._threads):
            log.warning(
                "%d rows are still under way and are left in doubt; the next attempt looks for them.", left
            )
        with self._feeding:
            if self._ready:
                self._ledger.give_back([task.key for task in self._ready])
                self._ready.clear()

    def _employ(self, number: int) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for place in range(len(self._threads), number):
            thread = threading.Thread(
                target=self._work, args=(place,), name=f"lemlist-load-{place}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _work(self, place: int) -> None:
        try:
            while place < self._pace.threads and (task := self._next()) is not None:
                self._handle(task)
        except Exception as error:
            self._give_up(error)

    def _next(self) -> Task | None:
        """Take the next row, which is then known to be under way."""
        with self._feeding:
            while not self._ready and not self._stopping.is_set():
                batch: list[Task] = []
                for task in self._tasks:
                    if line := settle_without_asking(task, self._wishes):
                        self._write(line)
                    else:
                        batch.append(task)
                    if len(batch) >= self._ledger.stride or self._stopping.is_set():
                        break
                if not batch:
                    return None
                self._ledger.start([task.key for task in batch])
                self._ready.extend(batch)
            return None if self._stopping.is_set() else self._ready.popleft()

    def _handle(self, task: Task) -> None:
        try:
            sent = send(self._hook, task, self._wishes)
        except Stop as stop:
            if not stop.in_doubt:
                self._ledger.give_back([task.key])
            self._give_up(stop.error)
            return
        self._ledger.write(sent.line, started=True)
        if sent.line.outcome in OPEN and not sent.in_doubt:
            self._ledger.give_back([task.key])
        self._account.count(sent.line.outcome)
        if isinstance(sent.error, _NOT_OF_THE_ROW):
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= HOPELESS:
                self._give_up(sent.error)
        else:
            self._failures_in_a_row = 0
        if sent.error is not None:
            self._tell(task.number, sent.line.outcome, sent.error)

    def _tell(self, number: int, outcome: str, error: LemlistError) -> None:
        bad = sum(self._account.outcomes[name] for name in ("failed", "uncertain"))
        if bad <= TOLD:
            status = f", status {error.status}" if error.status else ""
            rest = " Further ones stand in the ledger only." if bad == TOLD else ""
            log.warning("Row %d: %s (%s%s).%s", number, outcome, type(error).__name__, status, rest)

    def _write(self, line: Line) -> None:
        self._ledger.write(line)
        self._account.count(line.outcome, sent=False)

    def _give_up(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._stopping.set()
