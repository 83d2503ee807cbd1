# SPDX-License-Identifier: Apache-2.0
"""Differences between Airflow versions, each with its purpose, so that it can be deleted one day."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def airflow_version() -> str:
    """Return the version of the running Airflow, without importing it."""
    return version("apache-airflow")


def stats() -> Callable[[str, float], None]:
    """
    Return the function that counts for this Airflow, called with the name of a metric and its value.

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


def runs_remotely() -> bool:
    """Return whether tasks of this Airflow run on other machines than this one, or in pods of their own."""
    # The executor of a Kubernetes pod is often configured as LocalExecutor; only this variable tells.
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        return True
    from airflow.providers.common.compat.sdk import conf

    # One name, or several separated by commas, from 2.10 on; each a name, a module path, or an alias and
    # either after a colon; from 3.1 on one list for each team, "LocalExecutor;team=alias:my.module.Executor".
    # They are compared by name, because importing an executor costs more than a request.
    configured = re.split("[,;]", conf.get("core", "executor", fallback=""))
    names = {re.split("[=:.]", each)[-1].strip() for each in configured}
    return bool(names - {"", "LocalExecutor", "SequentialExecutor", "DebugExecutor"})
