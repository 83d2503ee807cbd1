# SPDX-License-Identifier: Apache-2.0
"""
The rate limit of an API key, by the server's clock, and the four headers that every answer carries.

The documents give the numbers (20 requests in 2 seconds) and not the kind of window, so three are offered:

- ``sliding``: no stretch of two seconds ever holds more than twenty; the strictest, and the default;
- ``fixed``: the count starts anew at fixed moments, so a burst across the boundary may be twice as large;
- ``anchored``: a window opens with the first request that finds none open; probably what lemlist does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple, Protocol


class Verdict(NamedTuple):
    """What the limit says to one request; ``wait`` is the time until it has room again, in seconds."""

    refused: bool
    remaining: int
    wait: float


class Window(Protocol):
    """One way to count requests; ``now`` never goes back."""

    def admit(self, now: float) -> Verdict: ...


@dataclass
class Sliding:
    """At most ``limit`` admitted requests in any stretch of ``length`` seconds."""

    limit: int
    length: float
    admitted: deque[float] = field(default_factory=deque)

    def admit(self, now: float) -> Verdict:
        while self.admitted and self.admitted[0] <= now - self.length:
            self.admitted.popleft()
        refused = len(self.admitted) >= self.limit
        if not refused:
            self.admitted.append(now)
        return Verdict(refused, self.limit - len(self.admitted), self.admitted[0] + self.length - now)


@dataclass
class Anchored:
    """At most ``limit`` requests from the moment that opened the window."""

    limit: int
    length: float
    start: float = -math.inf
    used: int = 0

    def opening(self, now: float) -> float:
        """When a window begins that ``now`` finds no open one."""
        return now

    def admit(self, now: float) -> Verdict:
        if now >= self.start + self.length:
            self.start, self.used = self.opening(now), 0
        refused = self.used >= self.limit
        self.used += not refused
        return Verdict(refused, self.limit - self.used, self.start + self.length - now)


class Fixed(Anchored):
    """At most ``limit`` requests in each window of a grid that nobody's requests move."""

    def opening(self, now: float) -> float:
        return math.floor(now / self.length) * self.length


@dataclass
class Unlimited:
    """Headers as ever, and never a refusal."""

    limit: int
    length: float

    def admit(self, now: float) -> Verdict:
        return Verdict(False, self.limit - 1, self.length)


WINDOWS: dict[str, Callable[[int, float], Window]] = {
    "sliding": Sliding,
    "fixed": Fixed,
    "anchored": Anchored,
    "none": Unlimited,
}


@dataclass
class Meter:
    """The window of one key and what it has seen; ``busiest`` counts every arrival, refused ones too."""

    window: Window
    length: float
    admitted: int = 0
    refused: int = 0
    busiest: int = 0
    arrivals: deque[float] = field(default_factory=deque)

    def admit(self, now: float) -> Verdict:
        while self.arrivals and self.arrivals[0] <= now - self.length:
            self.arrivals.popleft()
        self.arrivals.append(now)
        self.busiest = max(self.busiest, len(self.arrivals))
        verdict = self.window.admit(now)
        self.refused += verdict.refused
        self.admitted += not verdict.refused
        return verdict


class RateLimit:
    """The limit of every key; keys do not share it."""

    def __init__(self, kind: str, limit: int, length: float) -> None:
        if kind not in WINDOWS:
            raise ValueError(f"limit must be one of {', '.join(WINDOWS)}, not {kind!r}")
        if limit < 1 or length <= 0:
            raise ValueError(f"a limit of {limit} requests in {length} s lets nobody in")
        self.kind, self.limit, self.length = kind, limit, length
        self.meters: dict[str, Meter] = {}

    def admit(self, key: str, now: float) -> Verdict:
        """Count one request of a key (by the hash that stands for it)."""
        if key not in self.meters:
            self.meters[key] = Meter(WINDOWS[self.kind](self.limit, self.length), self.length)
        return self.meters[key].admit(now)

    def headers(self, verdict: Verdict, clock: float) -> dict[str, str]:
        """Write the documented headers; ``Retry-After`` is there on a success too."""
        return {
            "Retry-After": str(max(1, math.ceil(verdict.wait))),
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(verdict.remaining),
            "X-RateLimit-Reset": javascript_date(clock + verdict.wait),
        }


#: The zone of the documented example; not UTC, so that a client which ignores the offset is an hour wrong.
ZONE = timezone(timedelta(hours=1))
ZONE_NAME = "Central European Standard Time"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def javascript_date(moment: float) -> str:
    """
    Write a moment as JavaScript's ``String(new Date())`` does.

    Not by ``strftime``: its names of days and months follow the locale of this process.
    """
    at = datetime.fromtimestamp(moment, UTC).astimezone(ZONE)
    date = f"{DAYS[at.weekday()]} {MONTHS[at.month - 1]} {at.day:02} {at.year}"
    return f"{date} {at:%H:%M:%S} GMT{at:%z} ({ZONE_NAME})"
