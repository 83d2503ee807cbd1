# SPDX-License-Identifier: Apache-2.0
"""Rows are read one after the other from every source; a malformed row does not end the load."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistValidationError
from airflow_provider_lemlist.sources import MalformedRow, from_list, from_path, from_sql

Write = Callable[[str, bytes], ObjectStoragePath]


@pytest.fixture
def write(place: Callable[[str], ObjectStoragePath]) -> Write:
    """Write a file and return its path."""

    def write(name: str, content: bytes) -> ObjectStoragePath:
        path = place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def test_list_yields_its_rows() -> None:
    assert list(from_list([{"email": "a"}, "b", None])) == [
        {"email": "a"},
        MalformedRow("must be a dict, not str"),
        MalformedRow("must be a dict, not NoneType"),
    ]


# --- CSV ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
def test_csv_delimiter_is_detected(write: Write, between: str) -> None:
    head, row = between.join(["email", '"a, b; c"', " plan "]), between.join(["x@example.com", '"1,2;3"', ""])
    path = write("leads.csv", f"{head}\r\n{row}\r\n".encode())
    assert list(from_path(path)) == [{"email": "x@example.com", "a, b; c": "1,2;3", "plan": ""}]


def test_csv_file_of_a_spreadsheet_is_read(write: Write) -> None:
    path = write("leads.csv", '\ufeffemail,note\nana@example.com,"two\nlines, ""quoted"""\n\n'.encode())
    assert list(from_path(path)) == [{"email": "ana@example.com", "note": 'two\nlines, "quoted"'}]


def test_csv_line_with_wrong_number_of_cells_is_malformed(write: Write) -> None:
    path = write("leads.csv", b"email,plan\na@example.com\nb@example.com,x,y\nc@example.com,z\n")
    assert list(from_path(path)) == [
        MalformedRow("has 1 cells, the header line has 2"),
        MalformedRow("has 3 cells, the header line has 2"),
        {"email": "c@example.com", "plan": "z"},
    ]


@pytest.mark.parametrize(
    "rows",
    [
        'a@example.com,"Ann\nb@example.com,Bob\n',
        'a@example.com,"Ann\nb@example.com,"Bob"\nc@example.com,Cy\n',
    ],
    ids=["to the end", "to the next quote"],
)
def test_unclosed_quote_is_rejected_because_it_swallows_rows(write: Write, rows: str) -> None:
    with pytest.raises(LemlistValidationError, match="quote in line 2 or below that is not closed"):
        list(from_path(write("leads.csv", f"email,firstName\n{rows}".encode())))


def test_misplaced_quote_makes_a_malformed_row(write: Write) -> None:
    path = write("leads.csv", b'email,plan\na@example.com,"x" y\nb@example.com,z "q"\nc@example.com,"')
    malformed = MalformedRow("has a misplaced quote")
    assert list(from_path(path)) == [malformed, {"email": "b@example.com", "plan": 'z "q"'}, malformed]


@pytest.mark.parametrize("person", ["ana@example.com,Ana", "Ana,https://www.linkedin.com/in/ana"])
def test_csv_file_without_header_is_rejected_without_naming_a_person(write: Write, person: str) -> None:
    with pytest.raises(LemlistValidationError, match="begins with a row of data") as raised:
        list(from_path(write("leads.csv", f"{person}\nx,y\n".encode())))
    assert "ana" not in str(raised.value).lower()


def test_column_may_have_an_unusual_name(write: Write) -> None:
    row = {"@timestamp": "x", "https://schema.org/email": "y"}
    path = write("leads.csv", f"{','.join(row)}\n{','.join(row.values())}\n".encode())
    assert list(from_path(path)) == [row]


def test_long_cell_does_not_end_the_file(write: Write) -> None:
    path = write("leads.csv", b"email,page\na@example.com," + b"x" * 200_000 + b"\nb@example.com,y\n")
    assert [len(row["page"]) for row in from_path(path)] == [200_000, 1]  # type: ignore[call-overload]


def test_compressed_files_and_tsv_are_read(write: Write) -> None:
    rows = [{"email": "ana@example.com"}]
    assert list(from_path(write("a.csv.gz", gzip.compress(b"email\nana@example.com\n")))) == rows
    assert list(from_path(write("b.TSV", b"email\nana@example.com\n"))) == rows
    assert list(from_path(write("c.jsonl.gz", gzip.compress(b'{"email": "ana@example.com"}\n')))) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("leads.csv", b"", "no header line"),
        ("leads.csv", b"email,email\n1,2\n", "more than one column named 'email'"),
        ("leads.csv", "email\nandré\n".encode("latin-1"), "is not UTF-8"),
        ("leads.csv.gz", gzip.compress(b"email\nana@example.com\n" * 9000)[:-9], "not a complete gzip"),
        ("leads.csv.gz", b"email\n", "not a complete gzip"),
        ("leads.xlsx", b"", "unknown extension"),
        ("leads.parquet", b"no parquet", "not a readable Parquet file"),
    ],
)
def test_unreadable_file_is_rejected(write: Write, name: str, content: bytes, message: str) -> None:
    with pytest.raises(LemlistValidationError, match=message):
        list(from_path(write(name, content)))


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(LemlistValidationError, match=r"leads\.csv does not exist. Nothing was sent"):
        list(from_path(ObjectStoragePath(f"file://{tmp_path}/leads.csv")))


def test_directory_yields_all_its_files_in_order(write: Write) -> None:
    second = write("export/part-2.csv", b"email\nb@example.com\n")
    write("export/part-1.ndjson", b'{"email": "a@example.com"}\n')
    write("export/_SUCCESS", b"")
    write("export/.part-0.csv.crc", b"?")
    assert list(from_path(second.parent)) == [{"email": "a@example.com"}, {"email": "b@example.com"}]


def test_directory_without_known_files_is_rejected(write: Write) -> None:
    with pytest.raises(LemlistValidationError, match=r"contains no \.csv"):
        list(from_path(write("empty/readme.md", b"").parent))


# --- NDJSON and Parquet ---------------------------------------------------------------------------------


def test_ndjson_line_that_is_not_an_object_is_malformed(write: Write) -> None:
    path = write("leads.ndjson", b'{"email": "a@example.com", "seats": 3}\n\nnonsense\n[1]\n{"email": null}')
    malformed = MalformedRow("is not a JSON object in one line")
    assert list(from_path(path)) == [
        {"email": "a@example.com", "seats": 3},
        malformed,
        malformed,
        {"email": None},
    ]


@pytest.fixture
def write_parquet(write: Write) -> Callable[[Any], ObjectStoragePath]:
    """Write a table of Arrow to a file, and return its path."""
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write_parquet(table: Any) -> ObjectStoragePath:
        file = io.BytesIO()
        parquet.write_table(table, file, row_group_size=700)
        return write("leads.parquet", file.getvalue())

    return write_parquet


def test_parquet_file_yields_its_rows(write_parquet: Callable[[Any], ObjectStoragePath]) -> None:
    import pyarrow

    table = pyarrow.table(
        {"email": [f"p{n}@example.com" for n in range(2500)], "score": [Decimal("1.50")] * 2500}
    )
    rows = list(from_path(write_parquet(table)))
    assert len(rows) == 2500
    assert rows[2499] == {"email": "p2499@example.com", "score": Decimal("1.50")}


def test_parquet_file_with_repeated_columns_is_rejected(
    write_parquet: Callable[[Any], ObjectStoragePath],
) -> None:
    import pyarrow

    table = pyarrow.table([pyarrow.array(["a@example.com"])] * 2, names=["email", "email"])
    with pytest.raises(LemlistValidationError, match="more than one column named 'email'"):
        list(from_path(write_parquet(table)))


@pytest.mark.parametrize(
    ("nanoseconds", "zone", "text"),
    [
        (1_000_000_000_000_000_001, None, "2001-09-09T01:46:40.000000001"),
        (1_000_000_000_000_000_000, None, "2001-09-09T01:46:40"),
        (1_000_000_000_120_000_000, "UTC", "2001-09-09T01:46:40.120000+00:00"),
        (1_000_000_000_123_456_789, "Europe/Paris", "2001-09-09T03:46:40.123456789+02:00"),
        (-1, None, "1969-12-31T23:59:59.999999999"),
        (None, "UTC", None),
    ],
)
def test_timestamp_of_nanoseconds_becomes_text(
    write_parquet: Callable[[Any], ObjectStoragePath],
    nanoseconds: int | None,
    zone: str | None,
    text: str | None,
) -> None:
    import pyarrow

    column = pyarrow.array([nanoseconds], pyarrow.timestamp("ns", zone))
    table = pyarrow.table({"email": ["ana@example.com"], "at": column, "plan": ["pro"]})
    assert list(from_path(write_parquet(table))) == [{"email": "ana@example.com", "at": text, "plan": "pro"}]


def test_timestamp_out_of_range_is_rejected(write_parquet: Callable[[Any], ObjectStoragePath]) -> None:
    import pyarrow

    table = pyarrow.table({"at": pyarrow.array([10**18 + 1], pyarrow.timestamp("us"))})
    with pytest.raises(LemlistValidationError, match="a date or time that Python cannot hold"):
        list(from_path(write_parquet(table)))


# --- SQL ------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    database = sqlite3.connect(tmp_path / "warehouse.db")
    database.execute("CREATE TABLE people(mail TEXT, name TEXT, seats INTEGER)")
    database.executemany(
        "INSERT INTO people VALUES (?, ?, ?)", [(f"p{n}@example.com", f"P{n}", n) for n in range(2500)]
    )
    database.commit()
    database.close()
    conn = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    return "warehouse"


def test_query_yields_its_rows(sqlite: str) -> None:
    rows = list(from_sql(sqlite, "SELECT mail AS email, seats FROM people ORDER BY seats"))
    assert len(rows) == 2500
    assert rows[2499] == {"email": "p2499@example.com", "seats": 2499}


def test_query_takes_bind_parameters(sqlite: str) -> None:
    assert list(from_sql(sqlite, "SELECT mail FROM people WHERE seats = ?", (7,))) == [
        {"mail": "p7@example.com"}
    ]
    assert list(from_sql(sqlite, "SELECT seats FROM people WHERE mail = :m", {"m": "p7@example.com"})) == [
        {"seats": 7}
    ]


def test_hook_of_a_query_gets_its_parameters(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    hooks = []
    connect = SqliteHook.get_conn
    monkeypatch.setattr(SqliteHook, "get_conn", lambda hook: hooks.append(hook) or connect(hook))
    for log_sql in (True, False):
        assert list(from_sql(sqlite, "SELECT 1 AS one", hook_params={"log_sql": log_sql})) == [{"one": 1}]
    assert [hook.log_sql for hook in hooks] == [True, False]


def test_query_without_rows_yields_none(sqlite: str) -> None:
    assert list(from_sql(sqlite, "SELECT mail FROM people WHERE 0")) == []


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT mail, name AS mail FROM people", "more than one column named 'mail'"),
        ("DELETE FROM people WHERE 0", "must be a query"),
    ],
)
def test_statement_without_usable_result_is_rejected(sqlite: str, sql: str, message: str) -> None:
    with pytest.raises(LemlistValidationError, match=message):
        list(from_sql(sqlite, sql))


def test_connection_without_sql_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "lemlist", "password": "key"}))
    with pytest.raises(
        LemlistConfigurationError, match="'other' is a connection of LemlistHook, which does not"
    ):
        list(from_sql("other", "SELECT 1"))


@pytest.mark.parametrize(
    ("driver", "expected"), [("psycopg2", {"name": "lemlist_load"}), ("psycopg.x", {"name": "lemlist_load"})]
)
def test_postgresql_drivers_get_a_named_cursor(driver: str, expected: Any) -> None:
    from airflow_provider_lemlist.sources import _streaming_cursor

    class Connection:
        __module__ = driver

        def cursor(self, **given: Any) -> Any:
            return given

    assert _streaming_cursor(Connection()) == expected
