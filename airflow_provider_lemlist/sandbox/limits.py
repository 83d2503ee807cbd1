# SPDX-License-Identifier: Apache-2.0
"""
The rate limit of an API key, by the server's clock, and the four headers of every response.

The documents state the numbers (20 requests in 2 seconds) but not the kind of window, so there are three:

- ``sliding``: no period of two seconds contains more than twenty requests; the strictest, and the default;
- ``fixed``: the count restarts at fixed times, so a burst across the boundary may be twice as large;
- ``anchored``: a window starts with the first request outside a window; probably what lemlist does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple, Protocol


class Admission(NamedTuple):
    """Whether one request is refused; ``wait`` is the time until another is admitted, in seconds."""

    refused: bool
    remaining: int
    wait: float


class Window(Protocol):
    """One way to count requests; ``now`` never decreases."""

    def admit(self, now: float) -> Admission: ...


@dataclass
class Sliding:
    """At most ``limit`` admitted requests in any period of ``length`` seconds."""

    limit: int
    length: float
    admitted: deque[float] = field(default_factory=deque)

    def admit(self, now: float) -> Admission:
        while self.admitted and self.admitted[0] <= now - self.length:
            self.admitted.popleft()
        refused = len(self.admitted) >= self.limit
        if not refused:
            self.admitted.append(now)
        return Admission(refused, self.limit - len(self.admitted), self.admitted[0] + self.length - now)


@dataclass
class Anchored:
    """At most ``limit`` requests in a window that starts with its first request."""

    limit: int
    length: float
    start: float = -math.inf
    used: int = 0

    def window_start(self, now: float) -> float:
        """Return the start of a new window at ``now``."""
        return now

    def admit(self, now: float) -> Admission:
        if now >= self.start + self.length:
            self.start, self.used = self.window_start(now), 0
        refused = self.used >= self.limit
        self.used += not refused
        return Admission(refused, self.limit - self.used, self.start + self.length - now)


class Fixed(Anchored):
    """At most ``limit`` requests in each window; windows start at multiples of ``length``."""

    def window_start(self, now: float) -> float:
        return math.floor(now / self.length) * self.length


@dataclass
class Unlimited:
    """The same headers, but no request is refused."""

    limit: int
    length: float

    def admit(self, now: float) -> Admission:
        return Admission(False, self.limit - 1, self.length)


WINDOWS: dict[str, Callable[[int, float], Window]] = {
    "sliding": Sliding,
    "fixed": Fixed,
    "anchored": Anchored,
    "none": Unlimited,
}


@dataclass
class Meter:
    """The window of one key and its counts; ``busiest`` also counts refused requests."""

    window: Window
    length: float
    admitted: int = 0
    refused: int = 0
    busiest: int = 0
    arrivals: deque[float] = field(default_factory=deque)

    def admit(self, now: float) -> Admission:
        while self.arrivals and self.arrivals[0] <= now - self.length:
            self.arrivals.popleft()
        self.arrivals.append(now)
        self.busiest = max(self.busiest, len(self.arrivals))
        admission = self.window.admit(now)
        self.refused += admission.refused
        self.admitted += not admission.refused
        return admission


class RateLimit:
    """The rate limits; each key has its own."""

    def __init__(self, kind: str, limit: int, length: float) -> None:
        if kind not in WINDOWS:
            raise ValueError(f"limit must be one of {', '.join(WINDOWS)}, not {kind!r}")
        if limit < 1 or length <= 0:
            raise ValueError(f"a limit of {limit} requests in {length} s admits no request")
        self.kind, self.limit, self.length = kind, limit, length
        self.meters: dict[str, Meter] = {}

    def admit(self, key: str, now: float) -> Admission:
        """Count one request of a key, which is identified by its hash."""
        if key not in self.meters:
            self.meters[key] = Meter(WINDOWS[self.kind](self.limit, self.length), self.length)
        return self.meters[key].admit(now)

    def headers(self, admission: Admission, clock: float) -> dict[str, str]:
        """Return the documented headers; a success has ``Retry-After`` too."""
        return {
            "Retry-After": str(max(1, math.ceil(admission.wait))),
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(admission.remaining),
            "X-RateLimit-Reset": javascript_date(clock + admission.wait),
        }


#: The zone of the documented example; not UTC, so that a client that ignores the offset is an hour wrong.
ZONE = timezone(timedelta(hours=1))
ZONE_NAME = "Central European Standard Time"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def javascript_date(moment: float) -> str:
    """
    Format a moment as JavaScript's ``String(new Date())`` does.

    ``strftime`` is not used because its names of days and months depend on the locale of the process.
    """
    at = datetime.fromtimestamp(moment, UTC).astimezone(ZONE)
    date = f"{DAYS[at.weekday()]} {MONTHS[at.month - 1]} {at.day:02} {at.year}"
    return f"{date} {at:%H:%M:%S} GMT{at:%z} ({ZONE_NAME})"
