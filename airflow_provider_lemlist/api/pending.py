# SPDX-License-Identifier: Apache-2.0
"""
The requests of this process that are under way: what the log and the metrics say while they wait.

    request = PENDING.begin()
    request.wait_until(...)     # and what else it waits for
    PENDING.look()              # at each slice of a wait: log and count
    PENDING.end(request, responded=True)

The threads that wait look here whenever they wake, so this needs no thread of its own. Nothing is locked: a
fork or a signal finds no lock taken.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from enum import Enum

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.validation import plural

log = logging.getLogger(__name__)

#: A wait of this many seconds is logged.
LONG_WAIT = 5.0
#: Seconds between two lines about such waits.
LOG_INTERVAL = 60.0
#: Seconds without a response while a request is due, after which a stall is logged.
STALL = 60.0
#: Seconds between two times that the wait of a request is counted.
COUNT_INTERVAL = 1.0


class WaitsFor(Enum):
    """What a request waits for."""

    CONNECTION = "a connection to lemlist"
    STORE = "the store of the rate budget"
    SLOT = "a slot of the rate budget"
    RESPONSE = "a response"


class PendingRequest:
    """
    One request that is under way.

    :param now: When it began.
    """

    __slots__ = ("counted", "due", "sent_at", "waits_for")

    def __init__(self, now: float) -> None:
        self.waits_for = WaitsFor.CONNECTION
        #: The moment at which it was to leave, as it was told first.
        self.due = now
        #: Until when its wait for a slot is counted.
        self.counted = now
        self.sent_at: float | None = None


class PendingRequests:
    """The requests of one process, from any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._requests: set[PendingRequest] = set()
        self._responded_at = -math.inf
        #: Since when requests have been due without a response to any; None if there was one, or none is due.
        self._silent_since: float | None = None
        self._stalled = False
        self._logged_at = -math.inf

    def begin(self) -> PendingRequest:
        """Add a request."""
        if self._pid != os.getpid():  # a fork does not have the threads of its parent
            self._forget()
        request = PendingRequest(self._clock())
        self._requests.add(request)
        return request

    def wait(self, request: PendingRequest, seconds: float) -> None:
        """Note that a request has a slot, so many seconds from now."""
        request.counted = self._clock()
        request.due = request.counted + seconds
        request.waits_for = WaitsFor.SLOT

    def send(self, request: PendingRequest) -> None:
        """Note that a request leaves."""
        request.sent_at = self._clock()
        _count_wait(request, request.sent_at)
        request.waits_for = WaitsFor.RESPONSE

    def end(self, request: PendingRequest, *, responded: bool) -> None:
        """Remove a request; it was ``responded`` to by lemlist, or by a gateway in front of it."""
        now = self._clock()
        _count_wait(request, now)
        if request.sent_at is not None:
            metrics.REQUESTS.add()
            if responded:
                metrics.LATENCY.record(now - request.sent_at)
        if responded:
            self._note_response(now)
        else:
            self.look()
        self._requests.discard(request)

    def look(self) -> None:
        """Count the waits so far; log waits that are long, and a stall."""
        now, requests = self._clock(), tuple(self._requests)
        for request in requests:
            if now - request.counted >= COUNT_INTERVAL:
                _count_wait(request, now)
        dues = [request.due for request in requests]
        if dues and max(dues) - now >= LONG_WAIT and now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            log.info(
                "Rate budget: %s for a slot; the next leaves in %.1f s, the last in %.1f s",
                plural(sum(due > now for due in dues), "request", "waits", "wait"),
                min(due for due in dues if due > now) - now,
                max(dues) - now,
            )
        if self._silent_since is None and dues and min(dues) <= now:
            self._silent_since = max(min(dues), self._responded_at)
        if not self._stalled and self._silent_since is not None and now - self._silent_since >= STALL:
            self._stalled = True
            metrics.STALLS.add()
            log.warning(
                "No response from lemlist for %.0f s. %s: %s",
                now - self._silent_since,
                plural(len(requests), "request", "is under way", "are under way"),
                "; ".join(
                    f"{number:,} waiting for {what.value}"
                    for what in WaitsFor
                    if (number := sum(request.waits_for is what for request in requests))
                ),
            )

    def _note_response(self, now: float) -> None:
        if self._stalled and self._silent_since is not None:
            log.info("lemlist responds again, after %.0f s", now - self._silent_since)
        self._responded_at, self._silent_since, self._stalled = now, None, False


def _count_wait(request: PendingRequest, now: float) -> None:
    if request.waits_for is WaitsFor.SLOT:
        milliseconds = int((now - request.counted) * 1000)
        metrics.WAITING.add(milliseconds)
        request.counted += milliseconds / 1000


#: The requests of this process.
PENDING = PendingRequests()
