# SPDX-License-Identifier: Apache-2.0
"""
Simulate the rate budget: its real arithmetic against the limiters of ``limit_servers``, an hour in a second.

    python benchmarks/rate_budget_simulation.py                        one table
    python benchmarks/rate_budget_simulation.py --runs 20              more seeds for each row
    python benchmarks/rate_budget_simulation.py --set LEAST_MARGIN=130000 --set SPREAD=20000

``--set`` changes a constant of the arithmetic, to see its effect; with ``LEAST_MARGIN`` as large as
``MARGIN`` the margin is fixed.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from limit_servers import KINDS, LIMIT, WINDOW, Limiter

from airflow_provider_lemlist.api.budget import arithmetic
from airflow_provider_lemlist.api.budget.arithmetic import SECOND, WHOLE, Booking, Feedback, State, Terms

Delay = Callable[[random.Random], float]


def even(spread: float, late: float = 0.0, latest: float = 0.3) -> Delay:
    """One way of 125 ms plus or minus ``spread``; a part of the packets is up to ``latest`` later."""
    return lambda rng: (
        rng.uniform(0.125 - spread, 0.125 + spread) + (rng.uniform(0, latest) if rng.random() < late else 0)
    )


def normal(deviation: float, late: float, latest: tuple[float, float]) -> Delay:
    """One way of 125 ms and more, in the shape of half a bell; a part of the packets is much later."""
    return lambda rng: (
        0.125 + abs(rng.gauss(0, deviation)) + (rng.uniform(*latest) if rng.random() < late else 0)
    )


NETWORKS: dict[str, Delay] = {
    "+-100 ms": even(0.05),
    "+-100 ms, 1 % late": even(0.05, late=0.01),
    "+-40 ms": even(0.02),
    "+-10 ms": even(0.005),
    "+-10 ms, 0.2 % late": even(0.005, late=0.002),
    "sd 5 ms, 1 % late": normal(0.005, 0.01, (0, 0.3)),
    "sd 15 ms, 2 % 0.2-0.5 s late": normal(0.015, 0.02, (0.2, 0.5)),
    "+-200 ms": even(0.1),
}


@dataclass(frozen=True)
class Run:
    """One simulated run; ``stores`` counts the groups of clients that share nothing."""

    network: str
    server: str = "sliding"
    clients: int = 16
    requests: int = 400
    other_client: float = 0.0
    stores: int = 1
    share: float = 1.0
    seed: int = 0


@dataclass
class Result:
    """The numbers of one run."""

    share: float
    refusals: int
    longest_wait: float
    other_requests: int
    other_refusals: int
    margin: float


class Simulation:
    """Clients that each send a request, wait for its response and send the next, until all are sent."""

    #: A sleeper wakes so many seconds late on average.
    TIMER = 0.001

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rng = random.Random(run.seed)
        self._delay = NETWORKS[run.network]
        self._server = Limiter(run.server)
        self._states = [State(other_clients=arithmetic.PERHAPS) for _ in range(run.stores)]
        self._terms = Terms(share=round(run.share * WHOLE))
        self._events: list[tuple[float, int, Callable[..., None], tuple]] = []
        self._order = itertools.count()
        self._left, self._done = run.requests, 0
        self._refusals = self._other_requests = self._other_refusals = 0
        self._longest = self._last = 0.0
        self._now = 0.0

    def result(self) -> Result:
        start = 100 + self._rng.random() * WINDOW
        for client in range(self._run.clients):
            self._at(start + self._rng.random() * 0.02, self._want, client)
        if self._run.other_client:
            self._at(start, self._send_other)
        while self._done < self._run.requests:
            self._now, _, act, words = heapq.heappop(self._events)
            act(*words)
        return Result(
            self._run.requests / (self._last - start) / (LIMIT / WINDOW),
            self._refusals,
            self._longest,
            self._other_requests,
            self._other_refusals,
            arithmetic.margin(self._states[0]) / 1000,
        )

    def _at(self, moment: float, act: Callable[..., None], *words: object) -> None:
        heapq.heappush(self._events, (moment, next(self._order), act, words))

    @property
    def _micros(self) -> int:
        return round(self._now * SECOND)

    def _want(self, client: int) -> None:
        if self._left:
            self._left -= 1
            self._book(client)

    def _book(self, client: int) -> None:
        store = client % self._run.stores
        self._states[store], booking = arithmetic.book(self._states[store], self._micros, self._terms)
        self._longest = max(self._longest, booking.wait / SECOND)
        late = self._rng.expovariate(1 / self.TIMER) if booking.wait else 0
        self._at(booking.at / SECOND + late, self._wake, client, booking)

    def _wake(self, client: int, booking: Booking) -> None:
        state = self._states[client % self._run.stores]
        at = arithmetic.place(state, booking)
        if at is not None and booking.moves != state.moves and at > self._micros:
            late = self._rng.expovariate(1 / self.TIMER)
            self._at(at / SECOND + late, self._wake, client, booking._replace(at=at, moves=state.moves))
        else:
            self._at(self._now + self._delay(self._rng), self._arrive, client, booking)

    def _arrive(self, client: int, booking: Booking) -> None:
        decision = self._server.arrive(self._now)
        self._at(self._now + self._delay(self._rng), self._receive, client, booking, *decision)

    def _receive(self, client: int, booking: Booking, accepted: bool, left: int, wait: int) -> None:
        store = client % self._run.stores
        feedback = Feedback(
            booking,
            not accepted,
            LIMIT,
            left,
            wait * SECOND,
            self._micros - booking.at,
            share=self._terms.share,
            jitter=round(self._rng.random() * arithmetic.JITTER),
        )
        self._states[store], _ = arithmetic.report(self._states[store], self._micros, feedback)
        if accepted:
            self._done += 1
            self._last = self._now
            self._at(self._now + 0.001, self._want, client)
        else:
            self._refusals += 1
            self._book(client)

    def _send_other(self) -> None:
        self._at(self._now + self._rng.uniform(0.5, 1.5) / self._run.other_client, self._send_other)
        self._at(self._now + self._delay(self._rng), self._arrive_other)

    def _arrive_other(self) -> None:
        self._other_requests += 1
        self._other_refusals += not self._server.arrive(self._now)[0]


def rows() -> list[Run]:
    first = "+-100 ms"
    return [
        *(Run(first, server, clients) for server in KINDS for clients in (8, 16)),
        *(Run(network, server, requests=4_000) for server in ("sliding", "anchored") for network in NETWORKS),
        *(Run(first, server, clients, other_client=3.0) for server in KINDS for clients in (8, 16, 40)),
        *(Run(first, server, stores=4, share=0.25) for server in KINDS),
        *(
            Run(first, server, stores * threads, 1_800, stores=stores)
            for server in KINDS
            for stores in (2, 4, 16, 60)
            for threads in (4, 16)
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=6, help="seeds for each row")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER")
    options = parser.parse_args()
    for name, _, number in (word.partition("=") for word in options.set):
        if not hasattr(arithmetic, name):
            parser.error(f"the arithmetic has no {name}")
        setattr(arithmetic, name, int(number))
    print(
        f"{'server':9}{'network':30}{'clients':>8}{'requests':>9}{'of limit':>9}{'refused':>10}{'max s':>7}"
        f"{'margin ms':>10}  other client refused"
    )
    for row in rows():
        results = [Simulation(replace(row, seed=seed)).result() for seed in range(options.runs)]
        total = row.requests * len(results)
        others = sum(result.other_requests for result in results)
        print(
            f"{row.server:9}{row.network:30}{row.clients:8}{row.requests:9}"
            f"{sum(result.share for result in results) / len(results):9.1%}"
            f"{sum(result.refusals for result in results) / total * 1000:7.2f}/k "
            f"{max(result.longest_wait for result in results):7.2f}{results[-1].margin:10.0f}  "
            + (f"{sum(r.other_refusals for r in results) / others:.1%}" if others else "")
            + (f"{row.stores} stores" if row.stores > 1 else "")
        )


if __name__ == "__main__":
    main()
