# SPDX-License-Identifier: Apache-2.0
"""A sandbox behind the default connection, and workers of several Airflow versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from tests.contract.documents import departures
from tests.unit.worker import Worker


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch, budget: Any) -> Iterator[Sandbox]:
    with Sandbox(limit="none") as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
        # The budget and the waits between retries have their own tests.
        monkeypatch.setattr(LemlistHook, "budget", budget)
        monkeypatch.setattr(CLOCK, "sleep", lambda seconds: None)
        yield sandbox
        # The log of the sandbox shortens large uploads; other tests check small ones against the documents.
        wrong = [each for each in departures(sandbox.requests()) if "too long for the log" not in each]
        assert wrong == []


@pytest.fixture
def worker() -> Worker:
    """Return a worker of Airflow 3.3, which has a task state store."""
    return Worker(has_store=True)


@pytest.fixture(params=[True, False], ids=["3.3", "2.11"])
def any_worker(request: pytest.FixtureRequest) -> Worker:
    """Return a worker with and one without a task state store."""
    return Worker(has_store=request.param)


@pytest.fixture
def old_worker() -> Worker:
    """Return a worker of Airflow 2.11, which has no task state store."""
    return Worker(has_store=False)


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``kill(task, "create_lead")`` ends the worker between the effect and the response."""

    def arm(task: Any, method: str, *, before: bool = False) -> None:
        real = getattr(task.hook, method)

        def die(*args: Any, **kwargs: Any) -> None:
            if not before:
                real(*args, **kwargs)
            raise SystemExit(1)  # as when a worker is terminated

        monkeypatch.setattr(task.hook, method, die)

    return arm
