# SPDX-License-Identifier: Apache-2.0
"""
How close to the limit a client can get without a refusal, by what it knows of each request.

    python benchmarks/rate_budget_bound.py

In simulated time, one client that always has something to send, the first minute after the first 20 requests:

``fixed``       each slot is the window and 130 ms after the slot 20 places before it
``round trip``  ... after the latest moment at which that request can have arrived, by its own round trip
``arrival``     ... after the moment at which it did arrive, which no header tells: the bound

A request must not arrive within 2 s of the one 20 places before it, and no client knows how late the next
request will be. So even the third one loses half the range of the delay in each window.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from limit_servers import KINDS, LIMIT, WINDOW, Limiter
from rate_budget_simulation import NETWORKS, even

from airflow_provider_lemlist.api.budget.arithmetic import MARGIN, SECOND, SLACK

SECONDS = 60
#: For what timers and the store are late.
LATE = SLACK / SECOND
#: When a slot was, when its request arrived, its round trip -> how much longer than the window the period is.
Rule = Callable[[float, float, float, float], float]

RULES: dict[str, Rule] = {
    "fixed": lambda slot, arrived, trip, fastest: MARGIN / SECOND,
    "round trip": lambda slot, arrived, trip, fastest: min(MARGIN / SECOND, trip - fastest + LATE),
    "arrival": lambda slot, arrived, trip, fastest: arrived - slot + LATE,
}


def run(rule: Rule, kind: str, network: str, seed: int) -> tuple[float, int]:
    """Return the share of the limit and the refusals."""
    rng, delay, server = random.Random(seed), NETWORKS[network], Limiter(kind)
    least = min(delay(random.Random(number)) for number in range(1_000))
    slots = [100 + number * (WINDOW + MARGIN / SECOND) / LIMIT for number in range(LIMIT)]
    arrivals, fastest = [], 10.0
    for number in range(LIMIT * SECONDS):
        there, back = delay(rng), delay(rng)
        arrivals.append(slots[number] + rng.expovariate(1_000) + there)
        fastest = min(fastest, there + back)
        longer = rule(slots[number], arrivals[-1] - least, there + back, fastest)
        slots.append(max(slots[-1], slots[number] + WINDOW + longer))
        if slots[-1] > slots[0] + SECONDS:
            break
    counted = [slot for slot in slots if slot <= slots[0] + SECONDS]
    sent = len(counted) - LIMIT
    refused = sum(not server.arrive(moment)[0] for moment in sorted(arrivals))
    return sent / (counted[-1] - counted[LIMIT - 1]) / (LIMIT / WINDOW), refused


def main() -> None:
    NETWORKS["+-100 ms each way"] = even(0.1)
    names = ("+-10 ms", "+-40 ms", "+-100 ms", "+-100 ms each way")
    print(f"{'server':9}{'network':20}" + "".join(f"{name:>22}" for name in RULES))
    for kind in KINDS:
        for network in names:
            cells = []
            for rule in RULES.values():
                results = [run(rule, kind, network, seed) for seed in range(100)]
                share = sum(share for share, _ in results) / len(results)
                refused = sum(refused for _, refused in results)
                cells.append(f"{share:13.1%}{refused:9}")
            print(f"{kind:9}{network:20}" + "".join(cells))


if __name__ == "__main__":
    main()
