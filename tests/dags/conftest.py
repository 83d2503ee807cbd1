# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests in real Airflow: one database per session, a sandbox per test, and a DAG runner."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.testing import run_dag
from tests.contract.documents import departures
from tests.waiting import WINDOW
from tools.private_airflow import VERSION

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
#: Whether Airflow has ApprovalOperator.
HAS_APPROVAL = tuple(map(int, VERSION.split(".")[:2])) >= (3, 1)
#: Timeout of a test in seconds; Airflow limits neither a run nor a deferred task.
LONGEST = 240


@pytest.fixture(scope="session", autouse=True)
def _database() -> None:
    from airflow.utils import db

    db.initdb()


@pytest.fixture(autouse=True)
def _timeout() -> Iterator[None]:
    def fail(*_: object) -> None:
        pytest.fail(f"not finished after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _executor(monkeypatch: pytest.MonkeyPatch) -> None:
    # The executor is not used, but Airflow 2 checks it and refuses the default of its test mode with SQLite.
    try:
        import airflow.sdk  # noqa: F401
    except ImportError:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "SequentialExecutor")


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Yield the sandbox of the connection ``lemlist_default``; then check its requests."""
    with Sandbox(window=WINDOW) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
        yield sandbox
        assert_within_the_documents(sandbox)


def assert_within_the_documents(sandbox: Sandbox) -> None:
    """Check every request against the OpenAPI documents and the violations of the sandbox."""
    assert departures(sandbox.requests()) == []
    assert sandbox.violations() == []


def dag_bag(folder: Path) -> Any:
    """Load a folder of DAGs as Airflow does."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

        return DagBag(os.fspath(folder), include_examples=False)
    return DagBag(os.fspath(folder))


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    """Return the function that runs a DAG with the given params and returns the run."""
    return run_dag


def states(dag_run: Any) -> dict[str, list[str]]:
    """Return the states by task id, those of a mapped task in the order of the index."""
    found: dict[str, list[str]] = {}
    for ti in sorted(dag_run.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index)):
        found.setdefault(ti.task_id, []).append(str(ti.state))
    return found


def xcom(dag_run: Any, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
    """Return an XCom value of a task."""
    ti = next(ti for ti in dag_run.get_task_instances() if ti.task_id == task_id)
    return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)
