# SPDX-License-Identifier: Apache-2.0
"""A sandbox without a limit behind the default connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.conftest import OpenBudget


class QuickBudget(OpenBudget):
    """A budget without a limit, for which three or four threads are enough."""

    def state(self) -> dict[str, Any]:
        return {"capacity": 60, "period": 1.0}


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a hook of a sandbox; the pauses between attempts are not slept."""
    monkeypatch.setattr(LemlistHook, "budget", QuickBudget())
    monkeypatch.setattr(CLOCK, "sleep", lambda seconds: None)

    def connected(sandbox: Sandbox, **extra: Any) -> LemlistHook:
        connection = {**json.loads(sandbox.airflow_connection()), "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", json.dumps(connection))
        return LemlistHook()

    return connected


@pytest.fixture
def lemlist() -> Iterator[Sandbox]:
    with Sandbox(limit="none", seed=1) as sandbox:
        yield sandbox
