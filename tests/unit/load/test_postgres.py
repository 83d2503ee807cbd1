# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL: the rows are streamed from the server with each of its drivers."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist import sources
from airflow_provider_lemlist.exceptions import LemlistValidationError

pytestmark = pytest.mark.postgres

ROWS = 200_000


QUERY = f"""
    SELECT 'p' || n || '@example.com' AS email, n AS seats, repeat('x', 500) AS note
    FROM generate_series(1, {ROWS}) n
"""


def test_first_rows_of_large_result_arrive_without_the_rest(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursors: list[Any] = []
    real = sources._streaming_cursor

    def kept(connection: Any) -> Any:
        cursors.append(real(connection))
        return cursors[-1]

    monkeypatch.setattr(sources, "_streaming_cursor", kept)
    before = resident()
    rows = sources.from_sql(warehouse, QUERY)
    first = list(islice(rows, 2500))
    assert first[2499] == {"email": "p2500@example.com", "seats": 2500, "note": "x" * 500}
    assert cursors[0].name == "lemlist_load"  # server-side
    assert resident() - before < 30 * 1024  # of more than 100 MiB
    rows.close()  # type: ignore[attr-defined]  # a generator


def resident() -> int:
    """Return the memory of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_parameters_and_an_empty_result(warehouse: str) -> None:
    sql = "SELECT n AS seats, now() AS at FROM generate_series(1, 5) n WHERE n > %(least)s"
    assert [row["seats"] for row in sources.from_sql(warehouse, sql, {"least": 3})] == [4, 5]  # type: ignore[call-overload,index]
    assert list(sources.from_sql(warehouse, sql, {"least": 9})) == []


def test_repeated_columns_are_rejected(warehouse: str) -> None:
    with pytest.raises(LemlistValidationError, match="more than one column named 'n'"):
        list(sources.from_sql(warehouse, "SELECT 1 AS n, 2 AS n"))


def test_connection_with_dict_cursors_yields_same_rows(
    warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.postgres.hooks import postgres

    kind = "dictcursor" if getattr(postgres, "USE_PSYCOPG3", False) else "realdictcursor"
    conn = json.loads(os.environ["AIRFLOW_CONN_WAREHOUSE"]) | {"extra": {"cursor": kind}}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    rows = list(sources.from_sql(warehouse, "SELECT 'ana' AS name, 100 % 7 AS rest"))
    assert rows == [{"name": "ana", "rest": 2}]
