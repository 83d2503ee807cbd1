# SPDX-License-Identifier: Apache-2.0
"""How many threads use the whole rate budget: as few as possible, found while they work. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_lemlist.api.budget import Budget

#: The most threads; lemlist's rate limit cannot use more.
MAX_THREADS = 32
#: Seconds between two adjustments of the number of threads.
ADAPT_INTERVAL = 5.0


class Concurrency:
    """
    The number of threads: requests per second times the seconds that one takes.

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


def request_rate(budget: Budget) -> float:
    """Return the requests per second that the budget of a key allows."""
    state = budget.state()
    return max(state["capacity"] / state["period"], 0.1)
