# SPDX-License-Identifier: Apache-2.0
"""Real Airflow in the tests: a database once per session, a sandbox per test, and one way to run any DAG."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.contract.documents import departures

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
#: Seconds after which a test hangs; Airflow bounds neither a run nor a deferred task of it.
LONGEST = 240


@pytest.fixture(scope="session", autouse=True)
def _database() -> None:
    from airflow.utils import db

    db.initdb()


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    def give_up(*_: object) -> None:
        pytest.fail(f"still not done after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _executor(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody uses it here; but Airflow 2 looks at it, and refuses the default of its test mode with SQLite.
    try:
        import airflow.sdk  # noqa: F401
    except ImportError:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "SequentialExecutor")


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox behind the connection ``lemlist_default``; its clients must keep to the documents."""
    with Sandbox() as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
        yield sandbox
        assert_within_the_documents(sandbox)


def assert_within_the_documents(sandbox: Sandbox) -> None:
    """Hold every request of a test against the OpenAPI documents, and against what the sandbox saw."""
    assert departures(sandbox.requests()) == []
    assert sandbox.violations() == []


def dag_bag(folder: Path) -> Any:
    """Read a folder of DAGs as Airflow does."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

        return DagBag(os.fspath(folder), include_examples=False)
    return DagBag(os.fspath(folder))


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    """Run a DAG, of a file or made by a test, with params of its run, and return the run."""

    def run(dag: Any, **params: Any) -> Any:
        try:
            from airflow.dag_processing.bundles.manager import DagBundlesManager
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        except ImportError:
            pass  # Airflow 2 runs any DAG
        else:
            # Airflow 3 only runs those that it has met in a bundle.
            DagBundlesManager().sync_bundles_to_db()
            bag = DagBag("/dev/null", collect_dags=False, bundle_name="dags-folder")
            bag.bag_dag(dag)
            sync_bag_to_db(bag, "dags-folder", None)
        return dag.test(run_conf=params or None)

    return run


def states(dag_run: Any) -> dict[str, list[str]]:
    """Return the states of a run's tasks, those of a mapped one in the order of their index."""
    found: dict[str, list[str]] = {}
    for ti in sorted(dag_run.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index)):
        found.setdefault(ti.task_id, []).append(str(ti.state))
    return found


def xcom(dag_run: Any, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
    """Return what a task of a run has pushed."""
    ti = next(ti for ti in dag_run.get_task_instances() if ti.task_id == task_id)
    return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)
