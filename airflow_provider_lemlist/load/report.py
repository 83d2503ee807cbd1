# SPDX-License-Identifier: Apache-2.0
"""The counts of a load: per outcome, as a progress line, and as the final table."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.ledger.ledger import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Seconds over which the rate in the progress line is averaged.
_RATE_WINDOW = 60.0


class LoadReport:
    """
    The counts of one load. Thread-safe.

    :param settled: Outcomes of the rows that earlier attempts settled.
    :param left: Number of people in the campaign who are no longer in the source.
    :param departures: Number of those about whom something will be done.
    """

    #: The outcomes, in the order in which they are shown.
    names: ClassVar[Sequence[str]] = OUTCOMES
    #: What is counted.
    units: ClassVar[str] = "rows"

    def __init__(
        self,
        rows: int,
        settled: Mapping[str, int],
        *,
        left: int = 0,
        departures: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows = rows
        self.left = left
        self._all = rows + departures
        self.settled_before = sum(settled.values())
        self.outcomes = Counter(settled)
        self._emitted = Counter(settled)
        #: How often lemlist did not take the new value of a field.
        self.refused: Counter[str] = Counter()
        #: Rows that took a request in this attempt.
        self.sent = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def count(self, outcome: str, *, sent: bool = True) -> None:
        """Count a row; one that took a request (``sent``) also counts towards the rate."""
        with self._lock:
            self.outcomes[outcome] += 1
            self.sent += sent

    def emit(self) -> None:
        """Add the outcomes since the last time to the metrics."""
        with self._lock:
            new, self._emitted = self.outcomes - self._emitted, self.outcomes.copy()
        for outcome, count in new.items():
            metrics.ROWS.add(count, outcome)

    @property
    def done(self) -> int:
        """Number of rows that have an outcome."""
        return self.outcomes.total()

    @property
    def not_tried(self) -> int:
        """Number of rows, and of people to be handled, that have no outcome yet."""
        return self._all - self.done

    def progress(self) -> str:
        """Return the progress line."""
        with self._lock:
            now = self._clock()
            self._samples.append((now, self.sent))
            while len(self._samples) > 2 and now - self._samples[1][0] >= _RATE_WINDOW:
                self._samples.popleft()
            since, sent = self._samples[0]
            rate = (self.sent - sent) / (now - since) if now > since else 0.0
        outcomes = ", ".join(f"{name} {count:,}" for name, count in self._occurred())
        left = f"about {duration(self.not_tried / rate)} left" if rate and self.not_tried else ""
        parts = [f"{self.done:,} of {self._all:,} {self.units}", outcomes, f"{rate:.1f} {self.units}/s", left]
        return " · ".join(filter(None, parts))

    def table(self) -> str:
        """Return the final table."""
        rows = self._occurred()
        if self.not_tried:
            rows.append(("not tried", self.not_tried))
        rows.append((self.units, self.rows))
        if self.left:
            rows.append(("left the source", self.left))
        return "\n".join(f"    {name:<15} {count:>9,}" for name, count in rows)

    def counts(self) -> dict[str, int]:
        """Return every count, as pushed to XCom."""
        return {
            "rows": self.rows,
            **{name: self.outcomes[name] for name in self.names},
            "left": self.left,
            "not_tried": self.not_tried,
            "settled_before": self.settled_before,
        }

    def _occurred(self) -> list[tuple[str, int]]:
        return [(name, self.outcomes[name]) for name in self.names if self.outcomes[name]]


def duration(seconds: float) -> str:
    """Format a duration for a log line."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
