# SPDX-License-Identifier: Apache-2.0
"""Differences between Airflow versions, each with what it is for, so that it can be deleted one day."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def airflow_version() -> str:
    """Return the version of the Airflow that runs us, without importing it."""
    return version("apache-airflow")


def stats() -> Callable[[str, float], None]:
    """
    Return how this Airflow counts: called with the name of a metric and its value.

    ``waits`` are seconds and become timings; the others are counters.
    """
    from airflow.providers.common.compat.sdk import Stats

    def count(name: str, value: float) -> None:
        if name == "waits":
            # A timedelta means the same everywhere; a bare number is milliseconds on Airflow 2.
            Stats.timing(f"lemlist.{name}", timedelta(seconds=value))
        else:
            Stats.incr(f"lemlist.{name}", int(value))

    return count
