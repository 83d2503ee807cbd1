# SPDX-License-Identifier: Apache-2.0
"""
The metrics: one table, and how they are emitted.

    metrics.REQUESTS.add()
    metrics.ROWS.add(12, "created")      # lemlist.rows.created
    metrics.WAITS.record(seconds)

They go to Airflow's ``Stats``, and so to StatsD or OpenTelemetry as section ``[metrics]`` of the Airflow
configuration says. What a counter counts apart, such as outcomes of rows, is the last part of its name and
not a tag: Airflow's StatsD client drops tags by default. There are no gauges: the processes of a fleet would
overwrite each other's, while counts add up. Emitting never raises.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

log = logging.getLogger(__name__)

#: The first part of every name. Airflow puts its own prefix before it, by default ``airflow``.
PREFIX = "lemlist"


@dataclass(frozen=True, slots=True)
class Metric:
    """
    What is measured.

    :param name: Without the prefix.
    :param meaning: One sentence for the docs.
    :param variant: What the last part of the name says, such as ``outcome``; empty if there is none.
    """

    name: str
    meaning: str
    variant: str = ""

    def full_name(self, variant: str = "") -> str:
        """Return the name as Airflow gets it."""
        return f"{PREFIX}.{self.name}.{variant}" if variant else f"{PREFIX}.{self.name}"


@dataclass(frozen=True, slots=True)
class Counter(Metric):
    """A number that only grows; the processes add to it."""

    def add(self, count: int = 1, variant: str = "") -> None:
        """Add to the counter."""
        if count:
            _emit("incr", self.full_name(variant), count)


@dataclass(frozen=True, slots=True)
class Timing(Metric):
    """A duration."""

    def record(self, seconds: float) -> None:
        """Record one duration."""
        _emit("timing", self.full_name(), seconds)


REQUESTS = Counter(
    "requests", "Requests that were sent, each attempt, once lemlist responded or the network failed."
)
LATENCY = Timing("latency", "Time from sending a request to the end of lemlist's response.")
WAITS = Timing("waits", "Time for which a request that lemlist responded to had waited for its slot.")
WAITING = Counter(
    "waiting_milliseconds",
    "Milliseconds that requests wait for their slots, counted while they wait. 1000 in a second mean that "
    "one request waits.",
)
REFUSALS = Counter("refusals", "Requests that lemlist refused because of the rate limit (429).")
RETRIES = Counter("retries", "Requests that are sent again.")
RECONCILED = Counter(
    "reconciled",
    "Requests in doubt of which it was found out whether they took effect: `found` or `absent`.",
    "result",
)
UNCERTAIN = Counter("uncertain", "Requests of which it is not known whether they took effect.")
ERRORS = Counter(
    "errors",
    "Calls that ended with an error, also with one that an operator handles, such as `already_in_campaign`.",
    "reason",
)
STALLS = Counter("stalls", "Times that a process had no response for a minute while requests were due.")
FALLBACK = Counter("fallback", "Slots that were booked without the shared store, because it does not work.")
ROWS = Counter("rows", "Rows of loads and of voice notes, and leads of `CreateLeadOperator`.", "outcome")
LEDGER_WRITES = Timing("ledger_writes", "Time to write a part of a ledger.")
LEDGER_FAILURES = Counter("ledger_failures", "Parts of ledgers that could not be written.")
EVENT_DELAY = Timing("event_delay", "Time from an activity in lemlist to the asset event that tells it.")

#: Every metric, by its name.
METRICS: dict[str, Metric] = {each.name: each for each in [*globals().values()] if isinstance(each, Metric)}


def _emit(kind: str, name: str, value: float) -> None:
    """Pass a value on to Airflow. A backend that fails must not make a request fail."""
    try:
        # A timedelta means the same to every backend; a bare number is milliseconds or seconds.
        getattr(_stats(), kind)(name, timedelta(seconds=value) if kind == "timing" else value)
    except Exception as error:
        _warn_not_emitted(f"{type(error).__name__}: {error}")


@cache
def _stats() -> Any:
    # Imported when the first value is emitted: DAG files are parsed without it.
    from airflow.providers.common.compat.sdk import Stats

    return Stats


@cache  # one line per process and error is enough
def _warn_not_emitted(why: str) -> None:
    log.warning("Metrics are not emitted: %s", why)
