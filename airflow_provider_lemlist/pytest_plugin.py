# SPDX-License-Identifier: Apache-2.0
"""
The pytest fixtures ``lemlist``, ``lemlist_run`` and ``lemlist_fleet``, for tests of DAGs against the sandbox.

pytest loads this module in every test run of an environment that has the package, so it imports only pytest;
what a fixture needs is imported when a test uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox
    from airflow_provider_lemlist.testing import Fleet

MARKER = "lemlist"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for runs with ``--strict-markers``."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(conn_id='lemlist_default', **options): the connection, and the options of the sandbox, of "
        "the fixtures lemlist and lemlist_fleet, such as limit='sliding'",
    )


@pytest.fixture
def lemlist(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sandbox]:
    """Yield a sandbox without a rate limit, behind the connection ``lemlist_default``."""
    with _connected(request, monkeypatch, tmp_path_factory, limit="none") as sandbox:
        yield sandbox


@pytest.fixture
def lemlist_fleet(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """Yield worker processes, and a sandbox with lemlist's rate limit behind their connection."""
    with _connected(request, monkeypatch, tmp_path_factory, limit="sliding") as sandbox:
        from airflow_provider_lemlist.testing import Fleet

        yield Fleet(sandbox, tmp_path_factory.mktemp("lemlist-fleet"))


@pytest.fixture
def lemlist_run() -> Callable[..., Any]:
    """Return ``run_dag``, which runs a DAG in this process and returns the run."""
    from airflow_provider_lemlist.testing import run_dag

    return run_dag


@contextmanager
def _connected(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    **options: Any,
) -> Iterator[Sandbox]:
    """Run a sandbox with the options of the markers, as the only lemlist that this process knows."""
    for marker in reversed([*request.node.iter_markers(MARKER)]):  # that of the function comes last, and wins
        if marker.args:
            pytest.fail(f"@pytest.mark.{MARKER} takes named options only, not {marker.args}", pytrace=False)
        options |= marker.kwargs
    conn_id = options.pop("conn_id", "lemlist_default")
    try:
        from airflow_provider_lemlist.sandbox import Sandbox
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)
    with Sandbox(**options) as sandbox:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", sandbox.airflow_connection())
        monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", str(tmp_path_factory.mktemp("lemlist-budget")))
        yield sandbox
