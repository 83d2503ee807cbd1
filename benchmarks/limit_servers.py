# SPDX-License-Identifier: Apache-2.0
"""
Servers that limit requests in four ways: as arithmetic, and as a process on loopback with a network's delays.

``sliding``   at most 20 accepted in any 2 s, the strictest reading of "20 requests per 2 seconds"
``anchored``  a window of 2 s begins with the first request after the last one ended
``fixed``     windows of 2 s on the server's clock
``bucket``    20 tokens, refilled evenly within 2 s
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

KINDS = ("sliding", "anchored", "fixed", "bucket")
LIMIT = 20
WINDOW = 2.0


class Limiter:
    """Decide about one arrival: accepted or not, how many are left, and when to retry."""

    def __init__(self, kind: str) -> None:
        self._decide = {
            "sliding": self._sliding,
            "anchored": self._anchored,
            "fixed": self._fixed,
            "bucket": self._bucket,
        }[kind]
        self._accepted: deque[float] = deque()
        self._start = -math.inf
        self._used = 0
        self._tokens, self._filled = float(LIMIT), 0.0

    def arrive(self, now: float) -> tuple[bool, int, int]:
        accepted, left, wait = self._decide(now)
        # Whole seconds: urllib3 refuses to read a fraction.
        return accepted, left, max(1, math.ceil(wait))

    def _sliding(self, now: float) -> tuple[bool, int, float]:
        while self._accepted and self._accepted[0] <= now - WINDOW:
            self._accepted.popleft()
        accepted = len(self._accepted) < LIMIT
        if accepted:
            self._accepted.append(now)
        return accepted, LIMIT - len(self._accepted), self._accepted[0] + WINDOW - now

    def _anchored(self, now: float) -> tuple[bool, int, float]:
        if now >= self._start + WINDOW:
            self._start, self._used = now, 0
        return self._count(now)

    def _fixed(self, now: float) -> tuple[bool, int, float]:
        start = math.floor(now / WINDOW) * WINDOW
        if start != self._start:
            self._start, self._used = start, 0
        return self._count(now)

    def _count(self, now: float) -> tuple[bool, int, float]:
        accepted = self._used < LIMIT
        self._used += accepted
        return accepted, LIMIT - self._used, self._start + WINDOW - now

    def _bucket(self, now: float) -> tuple[bool, int, float]:
        self._tokens = min(LIMIT, self._tokens + (now - self._filled) * LIMIT / WINDOW)
        self._filled = now
        accepted = self._tokens >= 1
        self._tokens -= accepted
        return accepted, int(self._tokens), max(0.0, 1 - self._tokens) * WINDOW / LIMIT


class Arrival(NamedTuple):
    """One request as the server saw it."""

    at: float
    client: str
    accepted: bool
    #: Seconds since the client wanted to send, without the network.
    wait: float


@dataclass(frozen=True)
class Network:
    """A one-way delay of ``middle`` plus or minus ``spread`` seconds, drawn for each way and request."""

    middle: float = 0.125
    spread: float = 0.05

    def delay(self, rng: random.Random) -> float:
        return rng.uniform(self.middle - self.spread, self.middle + self.spread)


@contextmanager
def limit_server(kind: str, network: Network, seed: int = 0) -> Iterator[LimitServer]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: asyncio.run(_serve(kind, network, seed, theirs)), daemon=True
    )
    process.start()
    try:
        yield LimitServer(f"http://127.0.0.1:{ours.recv()}/api", ours)
    finally:
        process.terminate()
        process.join()


class LimitServer:
    """
    A server of ``limit_server``.

    Clients say in the query which one they are (``client``) and since when they want to send (``since``).
    """

    def __init__(self, url: str, pipe: Connection) -> None:
        self.url = url
        self._pipe = pipe

    def arrivals(self) -> list[Arrival]:
        """Return all arrivals since the start."""
        self._pipe.send(None)
        return self._pipe.recv()


async def _serve(kind: str, network: Network, seed: int, pipe: Connection) -> None:
    # A real server does not share the clients' processor: this one must not be late because they are busy.
    with contextlib.suppress(PermissionError):
        os.nice(-10)
    loop = asyncio.get_running_loop()
    limiter, rng = Limiter(kind), random.Random(seed)
    log: list[Arrival] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            # A request without a body comes in one piece on loopback.
            target = data.split(b" ", 2)[1].decode()
            way = network.delay(rng)
            loop.call_later(way, self.arrive, target, way)

        def arrive(self, target: str, way: float) -> None:
            now = loop.time()
            accepted, left, wait = limiter.arrive(now)
            words = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
            waited = now - way - float(words.get("since", now - way))
            log.append(Arrival(now, words.get("client", ""), accepted, waited))
            body = b'{"_id": "tea_1", "name": "Team"}' if accepted else b"Too many requests"
            status = "200 OK" if accepted else "429 Too Many Requests"
            kind = "application/json" if accepted else "text/plain"
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                f"Retry-After: {wait}\r\nX-RateLimit-Limit: {LIMIT}\r\nX-RateLimit-Remaining: {left}\r\n\r\n"
            )
            loop.call_later(network.delay(rng), self.transport.write, head.encode() + body)

    server = await loop.create_server(Server, "127.0.0.1", 0, backlog=1024)

    def report() -> None:
        pipe.recv()
        pipe.send(log)

    loop.add_reader(pipe.fileno(), report)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()
