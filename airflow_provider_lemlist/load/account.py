# SPDX-License-Identifier: Apache-2.0
"""How a load stands: the counts of every outcome, the line of progress, and the table at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from airflow_provider_lemlist.load.ledger import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Seconds of the past that the rate and the remaining time are told from.
_RECENT = 60.0


class Account:
    """
    The counts of one load. Any thread may count.

    :param rows: Rows of the source.
    :param settled: Outcomes of those that earlier attempts settled.
    """

    def __init__(
        self, rows: int, settled: Mapping[str, int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rows = rows
        self.before = sum(settled.values())
        self.outcomes = Counter(settled)
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._sent = 0
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])

    def count(self, outcome: str, *, sent: bool = True) -> None:
        """
        Count a row.

        :param sent: Whether it took a request, and so belongs to the rate.
        """
        with self._lock:
            self.outcomes[outcome] += 1
            self._sent += sent

    @property
    def done(self) -> int:
        """Rows of which is known what became of them."""
        return self.outcomes.total()

    @property
    def not_tried(self) -> int:
        """Rows that were not reached."""
        return self.rows - self.done

    @property
    def sent(self) -> int:
        """Rows that took a request in this attempt."""
        return self._sent

    def rate(self) -> float:
        """Return how many rows a second were sent of late."""
        with self._lock:
            now = self._clock()
            self._marks.append((now, self._sent))
            while len(self._marks) > 2 and now - self._marks[1][0] >= _RECENT:
                self._marks.popleft()
            since, sent = self._marks[0]
            return (self._sent - sent) / (now - since) if now > since else 0.0

    def progress(self) -> str:
        """Say how the load stands, in one line."""
        rate = self.rate()
        rest = f"about {duration(self.not_tried / rate)} left" if rate and self.not_tried else ""
        told = [f"{self.done:,} of {self.rows:,} rows", self.summary(), f"{rate:.1f} rows/s", rest]
        return " · ".join(filter(None, told))

    def summary(self) -> str:
        """Name every outcome that occurred with its count."""
        return ", ".join(f"{name} {self.outcomes[name]:,}" for name in OUTCOMES if self.outcomes[name])

    def table(self) -> str:
        """Draw the final table."""
        rows = [(name, self.outcomes[name]) for name in OUTCOMES if self.outcomes[name]]
        if self.not_tried:
            rows.append(("not tried", self.not_tried))
        rows.append(("rows", self.rows))
        return "\n".join(f"    {name:<10} {count:>9,}" for name, count in rows)

    def report(self) -> dict[str, int]:
        """Return every count, as XCom has it."""
        return {
            "rows": self.rows,
            **{name: self.outcomes[name] for name in OUTCOMES},
            "not_tried": self.not_tried,
            "settled_before": self.before,
        }

    def seconds(self) -> float:
        """Return how long the load has taken."""
        return self._clock() - self._began


def duration(seconds: float) -> str:
    """Write a duration for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
