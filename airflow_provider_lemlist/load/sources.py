# SPDX-License-Identifier: Apache-2.0
"""
Rows, one after the other: from a list, from a query, from a file. None of them is read into memory whole.

A row is a mapping of column to value, or ``Broken`` where there is something that is no row; so one bad line
of a file costs one line of the ledger and not the load.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistValidationError
from airflow_provider_lemlist.storage import shown

if TYPE_CHECKING:
    from typing import BinaryIO

    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: Rows that are fetched at once from a database or a Parquet file.
BATCH = 1000
#: The widest cell of a CSV file; Python's own limit of 131,072 would end the file in the middle.
_WIDEST_CELL = 16 * 1024 * 1024
#: What is no name of a column: an address, a profile.
_OF_A_PERSON = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|.*\blinkedin\.com/.*", re.IGNORECASE)


class Broken(NamedTuple):
    """Something that stands where a row should; the reason tells no value of it."""

    reason: str


Row = Mapping[str, Any] | Broken


def from_list(leads: Iterable[Any]) -> Iterator[Row]:
    """Give the rows of a list, a tuple or what an upstream task returned."""
    for lead in leads:
        yield lead if isinstance(lead, Mapping) else Broken(f"must be a dict, not {type(lead).__name__}")


# --- SQL ------------------------------------------------------------------------------------------------


def from_sql(conn_id: str, sql: str, parameters: Any = None) -> Iterator[Row]:
    """
    Give the rows of a query, through whatever database hook the connection has.

    :param parameters: Bind parameters, as the driver of the database takes them.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    hook = BaseHook.get_hook(conn_id)
    if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
        raise LemlistConfigurationError(
            f"sql_conn_id {conn_id!r} is a connection of {type(hook).__name__}, which speaks no SQL."
        )
    with closing(hook.get_conn()) as connection, closing(_streaming_cursor(connection)) as cursor:
        cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)
        # PostgreSQL's cursors do not know their columns before the first rows were fetched.
        rows = cursor.fetchmany(BATCH)
        if cursor.description is None:
            raise LemlistValidationError(
                "sql returned no rows to read; it must be a query. Nothing was sent."
            )
        columns = [column[0] for column in cursor.description]
        _refuse_repeated(columns, "sql returns")
        while rows:
            for row in rows:
                # A connection may ask for cursors that give dicts.
                yield row if isinstance(row, Mapping) else dict(zip(columns, row, strict=True))
            rows = cursor.fetchmany(BATCH)


def _streaming_cursor(connection: Any) -> Any:
    """
    Return a cursor that leaves the rows at the server.

    The drivers of PostgreSQL and MySQL fetch a whole result at once unless told otherwise; the others stream.
    """
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("psycopg", "psycopg2"):
        return connection.cursor(name="lemlist_load")
    if driver in ("pymysql", "MySQLdb"):
        from importlib import import_module

        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()


def _refuse_repeated(columns: Iterable[str], who: str) -> None:
    repeated = [name for name, times in Counter(columns).items() if times > 1]
    if repeated:
        raise LemlistValidationError(
            f"{who} more than one column of the name {', '.join(map(repr, repeated))}; nothing was sent. "
            "Give each a name of its own."
        )


# --- Files ----------------------------------------------------------------------------------------------


def from_path(path: ObjectStoragePath) -> Iterator[Row]:
    """Give the rows of a file, or of all files of a directory in the order of their names."""
    files = [path]
    if path.is_dir():
        files = sorted(
            (file for file in path.iterdir() if _reader(file.name) is not None and file.name[0] not in "._"),
            key=lambda file: file.name,
        )
        if not files:
            raise LemlistValidationError(f"path {shown(path)} holds no {_KNOWN} file; nothing was sent.")
    for file in files:
        reader = _reader(file.name)
        if reader is None:
            raise LemlistValidationError(
                f"path {shown(file)} does not say by its name what it is; it must end in "
                f"{_KNOWN}. Nothing was sent."
            )
        try:
            opened = file.open("rb")  # type: ignore[no-untyped-call]  # Airflow leaves it without annotations
        except FileNotFoundError:
            raise LemlistValidationError(f"path {shown(path)} does not exist; nothing was sent.") from None
        with opened:
            stream = gzip.GzipFile(fileobj=opened) if file.name.lower().endswith(".gz") else opened
            try:
                yield from reader(stream, file.name)
            except UnicodeDecodeError:
                raise LemlistValidationError(
                    f"path {shown(file)} is not UTF-8 text; save it as UTF-8. Nothing was sent."
                ) from None
            except (gzip.BadGzipFile, zlib.error, EOFError):
                raise LemlistValidationError(
                    f"path {shown(file)} is no whole gzip file; nothing was sent."
                ) from None


def _csv(stream: BinaryIO, name: str) -> Iterator[Row]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    csv.field_size_limit(_WIDEST_CELL)
    head = text.readline()
    records = _records(csv.reader(chain([head], text), delimiter=_delimiter(head, name), strict=True), name)
    columns = [column.strip() for column in next(records, None) or ()]
    if not any(columns):
        raise LemlistValidationError(f"path …/{name} has no line of column names; nothing was sent.")
    if any(map(_OF_A_PERSON.fullmatch, columns)):
        # Not to be told back: these are a person's.
        raise LemlistValidationError(
            f"path …/{name} begins with a row where the line of column names belongs; nothing was sent."
        )
    _refuse_repeated(columns, f"path …/{name} has")
    width = len(columns)
    for cells in records:
        if cells is None:
            yield Broken("has a quote where none can be")
        elif len(cells) == width:
            yield dict(zip(columns, cells, strict=True))
        elif cells:  # an empty line is no row
            yield Broken(f"has {len(cells)} cells where the line of column names has {width}")


def _records(lines: Any, name: str) -> Iterator[list[str] | None]:
    """Give the cells of every record, None for a line that is none."""
    while True:
        begins = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error:
            # A quote that does not end takes the lines after it into its cell: whole people, unseen.
            if lines.line_num > begins:
                raise LemlistValidationError(
                    f"path …/{name} has a quote in line {begins} or below that does not end where its cell "
                    "ends; nothing was sent."
                ) from None
            cells = None
        yield cells


def _delimiter(head: str, name: str) -> str:
    """Return what separates the cells: what stands between the column names, outside of quotes."""
    if name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    bare = "".join(head.split('"')[::2])
    return max(",;\t|", key=bare.count)


def _ndjson(stream: BinaryIO, name: str) -> Iterator[Row]:
    for line in io.TextIOWrapper(stream, encoding="utf-8-sig"):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        yield row if isinstance(row, dict) else Broken("is no JSON object in one line")


def _parquet(stream: BinaryIO, name: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped]  # ships no types
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]  # as above
    except ImportError:
        raise LemlistConfigurationError(
            "Reading Parquet needs pyarrow; install airflow-provider-lemlist[parquet]."
        ) from None
    try:
        file = ParquetFile(stream, buffer_size=1024 * 1024, pre_buffer=False)
        _refuse_repeated(file.schema_arrow.names, f"path …/{name} has")
        for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
            yield from batch.to_pylist()
    except ArrowException as error:
        raise LemlistValidationError(
            f"path …/{name} is no Parquet file that can be read ({type(error).__name__}); nothing was sent."
        ) from error
    except (ValueError, OverflowError):
        raise LemlistValidationError(
            f"path …/{name} holds a time that is finer than a microsecond or too far away; nothing was sent. "
            "Write the column as text, or in microseconds."
        ) from None


_READERS = {
    (".csv", ".csv.gz", ".tsv", ".tsv.gz"): _csv,
    (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz"): _ndjson,
    (".parquet",): _parquet,
}
_KNOWN = ", ".join(chain.from_iterable(_READERS))


def _reader(name: str) -> Any:
    return next((reader for ends, reader in _READERS.items() if name.lower().endswith(ends)), None)
