# SPDX-License-Identifier: Apache-2.0
"""Differences between Airflow versions, each with its purpose, so that it can be deleted one day."""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger


@cache
def airflow_version() -> str:
    """Return the version of the running Airflow, without importing it."""
    return version("apache-airflow")


def event_trigger_class() -> type[BaseTrigger]:
    """Return the base class of triggers that start DAGs; on Airflow 2, which has none, that of all."""
    from airflow.triggers import base

    return getattr(base, "BaseEventTrigger", base.BaseTrigger)


def has_asset_watchers() -> bool:
    """Return whether this Airflow can start DAGs by the events of a trigger, as it can since 3.0."""
    return not airflow_version().startswith("2.")


def asset_states(trigger: Any) -> list[Any]:
    """Return the state store of each asset that an event trigger watches; Airflow has them since 3.3."""
    stores = getattr(trigger, "asset_state_store", None)
    # Assets with equal watchers share a trigger, which then has to name the asset whose state it wants.
    # Nothing public tells it the names.
    return [] if stores is None else [*stores._by_name.values()]


def look_up_connection(hook: Any, conn_id: str) -> Any:
    """Return a connection; in Airflow 2 without the line in the log that hooks write there."""
    if not airflow_version().startswith("2."):
        return hook.get_connection(conn_id)
    from airflow.models.connection import Connection

    return Connection.get_connection_from_secrets(conn_id)


def running_task() -> Any:
    """Return the task instance that this process runs; None outside a task. Any thread may ask."""
    module = "airflow.operators.python" if airflow_version().startswith("2.") else "airflow.sdk"
    try:
        return import_module(module).get_current_context()["ti"]
    except Exception:  # of various classes
        return None


def runs_remotely() -> bool:
    """Return whether tasks of this Airflow run on other machines than this one, or in pods of their own."""
    # The executor of a Kubernetes pod is often configured as LocalExecutor; only this variable tells.
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        return True
    from airflow.providers.common.compat.sdk import conf

    # One name, or several separated by commas, from 2.10 on; each a name, a module path, or an alias and
    # either after a colon; from 3.1 on one list for each team, "LocalExecutor;team=alias:my.module.Executor".
    # They are compared by name, because importing an executor costs more than a request.
    names = re.findall(r"(\w+)\s*(?:[,;]|$)", conf.get("core", "executor", fallback=""))
    return not {*names} <= {"LocalExecutor", "SequentialExecutor", "DebugExecutor"}


def previous_run(context: Context) -> Any:
    """
    Return the run of the same DAG before this one, whatever its state, or None.

    Airflow orders runs by logical date. Before a run without one, as Airflow 3 makes them for assets and from
    the command line, it is the last run whose logical date precedes ``run_after``.
    """
    ti, dag_run = context["ti"], context["dag_run"]
    if dag_run.logical_date is not None:
        return ti.get_previous_dagrun()
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetPreviousDagRun

    message = GetPreviousDagRun(dag_id=dag_run.dag_id, logical_date=dag_run.run_after)
    response: Any = task_runner.SUPERVISOR_COMMS.send(message)
    return response.dag_run


def last_asset_event_before(context: Context) -> datetime | None:
    """
    Return the time of the last asset event that triggered the run before this one, or None.

    In Airflow 3 a run that assets triggered has no logical date, and nothing else leads to the run before it.
    """
    dag_run = context["dag_run"]
    if dag_run.logical_date is not None:
        return None
    try:
        from airflow.sdk.execution_time.context import InletEventsAccessor
    except ImportError:  # Airflow 3.0 and 3.1 cannot look for earlier events
        return None

    first: dict[tuple[str, str], datetime] = {}
    for event in dag_run.consumed_asset_events:
        asset = (event.asset.name, event.asset.uri)
        first[asset] = min(first.get(asset, event.timestamp), event.timestamp)
    return max(
        (
            event.timestamp
            for asset, at in first.items()
            for event in InletEventsAccessor(*asset)
            .before((at - timedelta(microseconds=1)).isoformat())  # the bound is inclusive
            .ascending(False)
            .limit(1)
            if any(run.dag_id == dag_run.dag_id for run in event.created_dagruns)
        ),
        default=None,
    )


def register_dag(dag: Any) -> None:
    """Let ``dag.test()`` find a DAG: since 3.1 it runs only those of a bundle; Airflow 2 runs any."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    except ImportError:
        return
    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]
    bag = DagBag("/dev/null", collect_dags=False, bundle_name="dags-folder")
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
