# SPDX-License-Identifier: Apache-2.0
"""Rows of a table are replaced whole or not at all, in SQLite and with both drivers of PostgreSQL."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_lemlist.databases import database_hook
from airflow_provider_lemlist.datasets import DATASETS, Column, Row
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.extract.tables import Scope, Table
from tests.postgres import connect
from tests.waiting import LONGEST, wait_for

COLUMNS = (
    Column("id", "text", ()),
    Column("created_at", "timestamp", ()),
    # Reserved words, and a name with a capital.
    Column("index", "integer", ()),
    Column("Value", "boolean", ()),
    Column("extra", "json", ()),
)
DAY = datetime(2026, 11, 20, tzinfo=UTC)
MS = timedelta(milliseconds=1)


def row(number: int, moment: datetime = DAY) -> Row:
    return (f"act_{number}", moment, number, number % 2 == 0, json.dumps({"n": number}))


def of_day(day: datetime = DAY) -> list[Scope]:
    return [Scope("created_at", ">=", day), Scope("created_at", "<", day + timedelta(days=1))]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("psycopg", marks=pytest.mark.postgres),
        pytest.param("psycopg2", marks=pytest.mark.postgres),
    ]
)
def hook(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the hook of a database, of each kind."""
    if request.param == "sqlite":
        conn = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
        return database_hook("warehouse")
    return database_hook(connect(request.getfixturevalue("postgres_server"), request.param, monkeypatch))


@pytest.fixture
def name() -> str:
    """Return a name that no other test uses, and that needs quotes."""
    return f"Order-{uuid4().hex[:12]}"


def opened(hook: Any, name: str, columns: tuple[Column, ...] = COLUMNS, **options: bool) -> Table:
    table = Table(hook, name, columns, index=["created_at"], **{"create": True, "alter": False, **options})
    table.prepare()
    return table


def ids(hook: Any, name: str) -> list[str]:
    table = ".".join(f'"{part}"' for part in name.split("."))
    return [found[0] for found in hook.get_records(f"SELECT id FROM {table} ORDER BY created_at, id")]


# --- Create and alter -----------------------------------------------------------------------------------


def test_values_arrive_in_the_types_of_the_database(hook: Any, name: str) -> None:
    moment = DAY.replace(hour=1, microsecond=123_000).astimezone(timezone(timedelta(hours=2)))
    table = opened(hook, name)
    assert table.replace([("act_1", moment, 2**40, True, '{"a": "😀"}'), ("a\0b", *[None] * 4)], []) == 2
    first, second = hook.get_records(f'SELECT * FROM "{name}" ORDER BY "index" IS NULL')
    if hook.conn_type == "sqlite":
        assert first == ("act_1", "2026-11-20 01:00:00.123", 2**40, 1, '{"a": "😀"}')
        later = hook.get_first(f"SELECT datetime(max(created_at), '+1 day') FROM \"{name}\"")
        assert later == ("2026-11-21 01:00:00",)
    else:
        assert first == ("act_1", moment, 2**40, True, '{"a": "😀"}')
    assert second == ("ab", None, None, None, None)


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS.keys())
def test_every_dataset_fits_into_a_table(hook: Any, name: str, dataset: Any) -> None:
    table = Table(hook, name, dataset.columns, index=dataset.key, create=True, alter=False)
    table.prepare()
    assert table.replace([tuple([None] * len(dataset.columns))], []) == 1


def test_missing_table_is_not_created_unless_asked(hook: Any, name: str) -> None:
    with pytest.raises(LemlistConfigurationError, match=f"Table {name} does not exist.*create_table=True"):
        opened(hook, name, create=False)
    opened(hook, name)
    opened(hook, name, create=False)


def test_missing_columns_are_named_and_added_if_asked(hook: Any, name: str) -> None:
    opened(hook, name, COLUMNS[:2]).replace([("old", DAY - MS)], [])
    with pytest.raises(LemlistConfigurationError, match="lacks the columns index, Value, extra.*alter_table"):
        opened(hook, name)
    table = opened(hook, name, alter=True, create=False)
    table.replace([row(1)], of_day())
    assert ids(hook, name) == ["old", "act_1"]


def test_columns_of_others_stay_and_names_may_differ_in_case(hook: Any, name: str) -> None:
    hook.run(f'CREATE TABLE "{name}" ("ID" TEXT, note TEXT, "Created_At" TEXT)')
    opened(hook, name, COLUMNS[:2]).replace([("act_1", DAY)], [Scope("id", "=", "act_1")])
    assert hook.get_records(f'SELECT "ID", note FROM "{name}"') == [("act_1", None)]


def test_tasks_that_create_the_same_table_at_once_all_succeed(hook: Any, name: str) -> None:
    start = threading.Barrier(4)

    def create(_: int) -> None:
        start.wait()
        opened(database_hook("warehouse"), name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))


def test_schema_of_sqlite_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    hook = database_hook("warehouse")
    opened(hook, "main.activities").replace([row(1)], of_day())
    assert ids(hook, "activities") == ["act_1"]
    assert hook.get_first("SELECT name FROM sqlite_master WHERE type = 'index'") == ("activities_replaced",)


def test_empty_name_is_rejected(hook: Any) -> None:
    with pytest.raises(LemlistConfigurationError, match=r"'lemlist\.'"):
        opened(hook, "lemlist.")


# --- Scopes ---------------------------------------------------------------------------------------------


def test_window_is_half_open_to_the_millisecond(hook: Any, name: str) -> None:
    table = opened(hook, name)
    next_day = DAY + timedelta(days=1)
    table.replace([row(1, DAY - MS), row(2, DAY), row(3, next_day - MS), row(4, next_day)], [])
    for _ in range(2):
        assert table.replace([row(5, DAY + MS)], of_day()) == 1
        assert ids(hook, name) == ["act_1", "act_5", "act_4"]


def test_many_values_of_a_scope_are_all_deleted_and_no_value_deletes_nothing(hook: Any, name: str) -> None:
    table = opened(hook, name)
    table.replace(map(row, range(2500)), [])
    every = [f"act_{number}" for number in range(1, 2500)]
    table.replace([], [Scope("id", "in", []), Scope("index", ">=", 0)])
    assert len(ids(hook, name)) == 2500
    table.replace([], [Scope("id", "in", every), Scope("index", "in", range(2499))])
    assert ids(hook, name) == ["act_0", "act_2499"]


def test_missing_value_can_be_a_scope(hook: Any, name: str) -> None:
    table = opened(hook, name)
    table.replace([row(1), ("act_2", None, None, None, None)], [])
    table.replace([], [Scope("created_at", "=", None)])
    assert ids(hook, name) == ["act_1"]


# --- All or nothing -------------------------------------------------------------------------------------


class Signalled(BaseException):
    """What Airflow raises in the handler of a signal."""


@pytest.mark.parametrize("error", [ValueError, Signalled])
def test_failing_read_leaves_the_table_as_it_was(hook: Any, name: str, error: type[BaseException]) -> None:
    table = opened(hook, name)
    table.replace([row(1)], [])

    def rows() -> Iterator[Row]:
        yield from map(row, range(2500))
        raise error

    with pytest.raises(error):
        table.replace(rows(), of_day())
    assert ids(hook, name) == ["act_1"]


def test_failing_insert_leaves_the_table_as_it_was_and_quotes_no_value(hook: Any, name: str) -> None:
    hook.run(f'CREATE TABLE "{name}" (id TEXT, created_at TIMESTAMPTZ NOT NULL)')
    personal = f"{name}@example.com"
    table = opened(hook, name, COLUMNS[:2])
    table.replace([("act_1", DAY)], [])
    with pytest.raises(
        LemlistError, match=f"Table {name} could not be filled: .*; a retry is safe"
    ) as raised:
        table.replace([*((f"new_{n}", DAY) for n in range(2500)), (personal, None)], of_day())
    assert raised.value.retryable
    assert personal not in "".join(traceback.format_exception(raised.value))
    assert ids(hook, name) == ["act_1"]


def test_kill_in_the_middle_leaves_the_table_as_it_was(hook: Any, name: str) -> None:
    table = opened(hook, name)
    table.replace([row(1)], [])
    processes = multiprocessing.get_context("fork")
    reached = processes.Event()

    def rows() -> Iterator[Row]:
        yield from map(row, range(2500))
        reached.set()
        signal.pause()

    killed = processes.Process(target=table.replace, args=(rows(), of_day()))
    killed.start()
    assert reached.wait(LONGEST)
    assert ids(hook, name) == ["act_1"]
    killed.kill()
    killed.join()
    assert ids(hook, name) == ["act_1"]
    table.replace([row(2)], of_day())
    assert ids(hook, name) == ["act_2"]


# --- In PostgreSQL -----------------------------------------------------------------------------------------


@pytest.mark.postgres
def test_reader_sees_the_old_or_the_new_rows_and_never_a_mixture(warehouse: str, name: str) -> None:
    hook = database_hook(warehouse)
    table = opened(hook, name)
    table.replace([("old", DAY, n, None, None) for n in range(3000)], [])
    seen, done = [], threading.Event()

    def read() -> None:
        other = database_hook(warehouse)
        while not done.is_set():
            seen.append(other.get_records(f'SELECT id, count(*) FROM "{name}" GROUP BY id'))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        wait_for(lambda: len(seen) > 0)
        table.replace([("new", DAY, n, None, None) for n in range(5000)], of_day())
        done.set()
        reading.result()
    assert {json.dumps(each) for each in seen} <= {'[["old", 3000]]', '[["new", 5000]]'}


@pytest.mark.postgres
def test_replacing_the_same_rows_twice_at_once_leaves_them_once(warehouse: str, name: str) -> None:
    table = opened(database_hook(warehouse), name)
    table.replace([row(0)], [])
    begun, start = threading.Event(), threading.Event()

    def slowly() -> Iterator[Row]:
        begun.set()
        assert start.wait(LONGEST)
        yield row(1)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(table.replace, slowly(), of_day())
        assert begun.wait(LONGEST)
        second = pool.submit(opened(database_hook(warehouse), name).replace, [row(1)], of_day())
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_for(lambda: database_hook(warehouse).get_first(blocked) == (1,))
        start.set()
        assert (first.result(), second.result()) == (1, 1)
    assert ids(database_hook(warehouse), name) == ["act_1"]


@pytest.mark.postgres
def test_autocommit_of_the_connection_is_turned_off(
    warehouse: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = database_hook(warehouse)
    table = opened(hook, name)
    table.replace([row(1)], [])
    real = type(hook).get_conn

    def autocommitting(hook: Any) -> Any:
        connection = real(hook)
        connection.autocommit = True
        return connection

    monkeypatch.setattr(type(hook), "get_conn", autocommitting)
    with pytest.raises(LemlistError, match="could not be filled"):
        table.replace([row(2), (b"not text", "not a moment", "not a number", None, None)], of_day())
    assert ids(hook, name) == ["act_1"]


@pytest.mark.postgres
def test_table_without_the_right_to_read_it_is_not_taken_for_missing(
    warehouse: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, guest = database_hook(warehouse), f"guest_{uuid4().hex[:8]}"
    opened(hook, name)
    hook.run(f"CREATE ROLE {guest} LOGIN")
    conn = json.loads(os.environ["AIRFLOW_CONN_WAREHOUSE"]) | {"login": guest}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    with pytest.raises(LemlistError, match=r"cannot be read: InsufficientPrivilege \(42501\)"):
        opened(database_hook(warehouse), name)


@pytest.mark.postgres
def test_schema_is_part_of_the_name_and_is_not_created(warehouse: str) -> None:
    hook, schema = database_hook(warehouse), f"Lake-{uuid4().hex[:8]}"
    with pytest.raises(LemlistError, match=r"could not be created.*3F000.*Its schema must exist"):
        opened(hook, f"{schema}.activities")
    hook.run(f'CREATE SCHEMA "{schema}"')
    table = opened(hook, f"{schema}.activities")
    table.replace([row(1)], of_day())
    assert ids(hook, f"{schema}.activities") == ["act_1"]
    assert hook.get_records("SELECT indexdef FROM pg_indexes WHERE schemaname = %s", (schema,)) == [
        (f'CREATE INDEX activities_replaced ON "{schema}".activities USING btree (created_at)',)
    ]


# --- Lineage --------------------------------------------------------------------------------------------


def lineage(uri: str, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str] | None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", uri)
    return Table(database_hook("warehouse"), name, COLUMNS, create=False, alter=False).lineage()


def test_lineage_names_the_table_as_that_of_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    # The only query that it would send to the database.
    monkeypatch.setattr(PostgresHook, "get_openlineage_default_schema", lambda self: "public")
    for name, full in (("acts", "crm.public.acts"), ("lake.acts", "crm.lake.acts")):
        named = lineage("postgres://reader@db.example.com/crm", name, monkeypatch)
        assert named == ("postgres://db.example.com:5432", full)


def test_lineage_of_a_database_that_has_no_name_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lineage("sqlite:///w.db", "acts", monkeypatch) is None
