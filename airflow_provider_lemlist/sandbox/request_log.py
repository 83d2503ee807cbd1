# SPDX-License-Identifier: Apache-2.0
"""
The request log: requests, responses and violations.

It is bounded: old entries are dropped, counts stay exact. A hash stands for the API key.
"""

from __future__ import annotations

import base64
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Bytes kept of one body, and of all bodies together.
BODY_LIMIT = 256 * 1024
BODIES_LIMIT = 64 * 1024 * 1024


@dataclass
class Exchange:
    """
    One request and its response.

    :param number: Number of the request since the sandbox was started.
    :param time: Arrival, in epoch seconds.
    :param monotonic: Arrival by the clock of the rate limit, in seconds.
    :param template: The documented path that the request matches.
    :param key: Hash of the API key.
    :param connection: Port of the client: equal numbers are one kept-alive connection.
    :param status: None if no complete response was sent.
    :param fault: Kind of the fault that was injected.
    :param milliseconds: From arrival to the end of the response.
    """

    number: int
    time: float
    monotonic: float
    method: str
    path: str
    query: str
    template: str | None
    key: str
    connection: int
    request_headers: Mapping[str, str]
    request_body: bytes = b""
    status: int | None = None
    response_headers: Mapping[str, str] = field(default_factory=dict)
    response_body: bytes = b""
    fault: str | None = None
    milliseconds: float = 0.0
    bodies_dropped: bool = False

    @property
    def size(self) -> int:
        return len(self.request_body) + len(self.response_body)

    def drop_bodies(self) -> None:
        self.request_body = self.response_body = b""
        self.bodies_dropped = True

    def line(self) -> dict[str, Any]:
        """Return the entry without headers and bodies."""
        return {
            "number": self.number,
            "time": self.time,
            "monotonic": self.monotonic,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "route": self.template,
            "status": self.status,
            "user_agent": self.request_headers.get("user-agent", ""),
            "key": self.key,
            "connection": self.connection,
            "fault": self.fault,
            "milliseconds": round(self.milliseconds, 3),
        }

    def whole(self) -> dict[str, Any]:
        """Return the entry with headers and bodies."""
        return {
            **self.line(),
            "request": {"headers": dict(self.request_headers), **self._body(self.request_body)},
            "response": {"headers": dict(self.response_headers), **self._body(self.response_body)},
        }

    def _body(self, body: bytes) -> dict[str, Any]:
        """Return a body as a JSON value: text if it is UTF-8, otherwise base64."""
        kept = body[:BODY_LIMIT]
        complete = len(body) <= BODY_LIMIT and not self.bodies_dropped
        try:
            return {"body": kept.decode(), "encoding": "utf-8", "complete": complete}
        except UnicodeDecodeError:
            return {"body": base64.b64encode(kept).decode(), "encoding": "base64", "complete": complete}


@dataclass
class Violation:
    """
    A way in which a request contradicts the documents.

    :param request: Number of the request.
    :param rule: ``rate``, ``route``, ``query`` or ``body``.
    """

    request: int
    rule: str
    what: str


class RequestLog:
    """The requests, counts and violations of a sandbox."""

    def __init__(self, length: int = 20_000) -> None:
        self._length = length
        self.exchanges: deque[Exchange] = deque(maxlen=length)
        self.violations: deque[Violation] = deque(maxlen=1_000)
        self.counts: Counter[str] = Counter()
        self._with_bodies: deque[Exchange] = deque()
        self._bytes = 0

    def open(self, **request: Any) -> Exchange:
        """Add a request on its arrival."""
        self.counts["requests"] += 1
        exchange = Exchange(number=self.counts["requests"], **request)
        self.exchanges.append(exchange)
        return exchange

    def close(self, exchange: Exchange, now: float) -> None:
        """Complete the entry after the response was sent."""
        exchange.milliseconds = (now - exchange.monotonic) * 1000
        self.counts[f"status {exchange.status or 'none'}"] += 1
        exchange.request_body = _trim(exchange.request_body)
        exchange.response_body = _trim(exchange.response_body)
        self._with_bodies.append(exchange)
        self._bytes += exchange.size
        while self._bytes > BODIES_LIMIT or len(self._with_bodies) > self._length:
            old = self._with_bodies.popleft()
            self._bytes -= old.size
            old.drop_bodies()

    def violation(self, exchange: Exchange, rule: str, what: str) -> None:
        """Add a violation."""
        self.counts[f"violations {rule}"] += 1
        self.violations.append(Violation(exchange.number, rule, what))


def _trim(body: bytes) -> bytes:
    # One byte over the limit marks the body as incomplete.
    return body[: BODY_LIMIT + 1]
