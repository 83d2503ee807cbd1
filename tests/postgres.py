# SPDX-License-Identifier: Apache-2.0
"""The connection of Airflow to a real PostgreSQL server."""

from __future__ import annotations

import json

import pytest


def connect(directory: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the id of a connection that uses a driver; skip the test if this Airflow does not."""
    pytest.importorskip(driver)
    hooks = pytest.importorskip("airflow.providers.postgres.hooks.postgres")
    conn = {"conn_type": "postgres", "host": directory, "login": "tester", "schema": "postgres"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    if driver == "psycopg" and not getattr(hooks, "USE_PSYCOPG3", False):
        pytest.skip("this Airflow does not use psycopg 3")
    if driver == "psycopg2":
        monkeypatch.setattr(hooks, "USE_PSYCOPG3", False, raising=False)
    return "warehouse"
