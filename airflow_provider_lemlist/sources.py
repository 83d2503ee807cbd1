# SPDX-License-Identifier: Apache-2.0
"""
Read rows from a list, a query or a file, one after the other and without holding all of them in memory.

A row is a mapping of column to value, or a ``MalformedRow``, so that one malformed line of a file becomes one
invalid row instead of ending the load.
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

from airflow_provider_lemlist.api.tables import MAX_CELL
from airflow_provider_lemlist.databases import database_hook
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistValidationError
from airflow_provider_lemlist.storage import shown

if TYPE_CHECKING:
    from datetime import datetime
    from typing import BinaryIO

    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: Rows that are fetched at a time from a database or a Parquet file.
BATCH = 1000
#: An address or a profile, which is not the name of a column.
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|.*\blinkedin\.com/.*", re.IGNORECASE)


class MalformedRow(NamedTuple):
    """An item of a source that is not a row. The reason contains no value of it."""

    reason: str


Row = Mapping[str, Any] | MalformedRow


def from_list(leads: Iterable[Any]) -> Iterator[Row]:
    """Yield the rows of a list, or of the result of an upstream task."""
    for lead in leads:
        yield (
            lead if isinstance(lead, Mapping) else MalformedRow(f"must be a dict, not {type(lead).__name__}")
        )


# --- SQL ------------------------------------------------------------------------------------------------


def from_sql(
    conn_id: str, sql: str, parameters: Any = None, hook_params: Mapping[str, Any] | None = None
) -> Iterator[Row]:
    """Yield the rows of a query."""
    hook = database_hook(conn_id, hook_params)
    with closing(hook.get_conn()) as connection, closing(_streaming_cursor(connection)) as cursor:
        cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)
        # A server-side cursor of PostgreSQL knows its columns only after the first rows were fetched.
        rows = cursor.fetchmany(BATCH)
        if cursor.description is None:
            raise LemlistValidationError("sql has no result; it must be a query. Nothing was sent.")
        columns = [column[0] for column in cursor.description]
        _check_unique(columns, "sql returns")
        while rows:
            for row in rows:
                # A connection may configure cursors that return dicts.
                yield row if isinstance(row, Mapping) else dict(zip(columns, row, strict=True))
            rows = cursor.fetchmany(BATCH)


def _streaming_cursor(connection: Any) -> Any:
    """
    Return a cursor that does not fetch the whole result at once.

    The drivers of PostgreSQL and MySQL need a server-side cursor for that; the others stream by default.
    """
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("psycopg", "psycopg2"):
        return connection.cursor(name="lemlist_load")
    if driver in ("pymysql", "MySQLdb"):
        from importlib import import_module

        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()


def _check_unique(columns: Iterable[str], what: str) -> None:
    if repeated := [name for name, times in Counter(columns).items() if times > 1]:
        raise LemlistValidationError(
            f"{what} more than one column named {', '.join(map(repr, repeated))}; nothing was sent. "
            "Give each column a different name."
        )


# --- Files ----------------------------------------------------------------------------------------------


def from_path(path: ObjectStoragePath) -> Iterator[Row]:
    """Yield the rows of a file, or of all files of a directory in the order of their names."""
    files = [path]
    if path.is_dir():
        known = (file for file in path.iterdir() if _reader(file.name) and file.name[0] not in "._")
        files = sorted(known, key=lambda file: file.name)
        if not files:
            raise _invalid(shown(path), f"contains no {_KNOWN} file")
    for file in files:
        reader = _reader(file.name)
        if reader is None:
            raise _invalid(shown(file), f"has an unknown extension; it must end in {_KNOWN}")
        try:
            opened = file.open("rb")  # type: ignore[no-untyped-call]  # Airflow leaves it without annotations
        except FileNotFoundError:
            raise _invalid(shown(path), "does not exist") from None
        with opened:
            stream = gzip.GzipFile(fileobj=opened) if file.name.lower().endswith(".gz") else opened
            try:
                yield from reader(stream, file.name)
            except UnicodeDecodeError:
                raise _invalid(shown(file), "is not UTF-8 text; save it as UTF-8") from None
            except (gzip.BadGzipFile, zlib.error, EOFError):
                raise _invalid(shown(file), "is not a complete gzip file") from None


def _invalid(file: str, why: str) -> LemlistValidationError:
    return LemlistValidationError(f"path {file} {why}. Nothing was sent.")


def _csv(stream: BinaryIO, name: str) -> Iterator[Row]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    csv.field_size_limit(MAX_CELL)
    head = text.readline()
    records = _records(csv.reader(chain([head], text), delimiter=_delimiter(head, name), strict=True), name)
    columns = [column.strip() for column in next(records, None) or ()]
    if not any(columns):
        raise _invalid(f"…/{name}", "has no header line")
    if any(map(_PERSONAL.fullmatch, columns)):
        # The message does not repeat them: they are personal data.
        raise _invalid(f"…/{name}", "begins with a row of data instead of a header line")
    _check_unique(columns, f"path …/{name} has")
    width = len(columns)
    for cells in records:
        if cells is None:
            yield MalformedRow("has a misplaced quote")
        elif len(cells) == width:
            yield dict(zip(columns, cells, strict=True))
        elif cells:  # an empty line is not a row
            yield MalformedRow(f"has {len(cells)} cells, the header line has {width}")


def _records(lines: Any, name: str) -> Iterator[list[str] | None]:
    """Yield the cells of every record, or None for a malformed one."""
    while True:
        begins = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error:
            # An unclosed quote swallows the lines after it into its cell, and with them other people.
            if lines.line_num > begins:
                why = f"has a quote in line {begins} or below that is not closed at the end of its cell"
                raise _invalid(f"…/{name}", why) from None
            cells = None
        yield cells


def _delimiter(head: str, name: str) -> str:
    """Return the delimiter that occurs most often in the header line, outside of quotes."""
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
        yield row if isinstance(row, dict) else MalformedRow("is not a JSON object in one line")


def _parquet(stream: BinaryIO, name: str) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped]  # ships no types
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]  # as above
        from pyarrow.types import is_timestamp  # type: ignore[import-untyped]  # as above
    except ImportError:
        raise LemlistConfigurationError(
            "Reading Parquet needs pyarrow; install airflow-provider-lemlist[parquet]."
        ) from None
    try:
        file = ParquetFile(stream, buffer_size=1024 * 1024, pre_buffer=False)
        _check_unique(file.schema_arrow.names, f"path …/{name} has")
        for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
            for index, column in enumerate(batch.schema):
                if is_timestamp(column.type) and column.type.unit == "ns":
                    batch = batch.set_column(index, column.name, _nanoseconds(batch.column(index)))
            yield from batch.to_pylist()
    except LemlistValidationError:  # a ValueError, too
        raise
    except ArrowException as error:
        raise _invalid(f"…/{name}", f"is not a readable Parquet file ({type(error).__name__})") from error
    except (ValueError, OverflowError):
        why = "has a date or time that Python cannot hold, such as one after the year 9999; write it as text"
        raise _invalid(f"…/{name}", why) from None


def _nanoseconds(column: Any) -> Any:
    """Return timestamps of nanoseconds as ISO text; Python's timestamps have microseconds."""
    from pyarrow import array, int64, timestamp

    ticks = column.cast(int64()).to_pylist()
    micros = [None if tick is None else tick // 1000 for tick in ticks]
    moments = array(micros, timestamp("us", column.type.tz)).to_pylist()
    return array([moment and _iso(moment, tick % 1000) for moment, tick in zip(moments, ticks, strict=True)])


def _iso(moment: datetime, nanos: int) -> str:
    if not nanos:
        return moment.isoformat()
    text = moment.isoformat(timespec="microseconds")
    return f"{text[:26]}{nanos:03}{text[26:]}"


_READERS = {
    (".csv", ".csv.gz", ".tsv", ".tsv.gz"): _csv,
    (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz"): _ndjson,
    (".parquet",): _parquet,
}
_KNOWN = ", ".join(chain.from_iterable(_READERS))


def _reader(name: str) -> Any:
    return next((reader for ends, reader in _READERS.items() if name.lower().endswith(ends)), None)
