# SPDX-License-Identifier: Apache-2.0
"""
Replace rows of a table in one transaction, through the hook of any SQL database.

The table has no primary key: ``columns`` may leave the key out, and a table may keep several snapshots.
A row is there once because the rows of its window are deleted in the transaction that inserts them.

Errors name the class and the code of a driver's error, never its text, which may quote values of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError

if TYPE_CHECKING:
    from airflow_provider_lemlist.datasets import Column, Kind, Row

#: Rows that are inserted at a time.
BATCH = 1000
#: Values of one ``in`` in a statement; databases limit the parameters of a statement, some to 999.
_MAX_IN = 500


class Scope(NamedTuple):
    """A condition on the rows that the new ones replace. Moments are aware; ``= None`` is "has no value"."""

    column: str
    operator: Literal["=", ">=", "<", "in"]
    value: Any


class _Database(NamedTuple):
    """
    What differs between databases.

    :param moment: Converts an aware moment.
    :param indexed_text: The type of a text column with an index; empty if tables have no indexes.
    :param options: The end of CREATE TABLE.
    :param lock: Lets only one replacement of a table run at a time, while others can read it: two of the same
        rows would both insert theirs. Not needed if the database has one writer at a time.
    """

    types: Mapping[Kind, str]
    moment: Callable[[datetime], Any]
    indexed_text: str = ""
    options: str = ""
    lock: str = ""


def _types(text: str, timestamp: str) -> Mapping[Kind, str]:
    return {"text": text, "json": text, "integer": "BIGINT", "boolean": "BOOLEAN", "timestamp": timestamp}


def _without_zone(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def _as_text(moment: datetime) -> str:
    return _without_zone(moment).isoformat(" ", "milliseconds")


#: By the name of the SQLAlchemy dialect.
_DATABASES = {
    "sqlite": _Database(_types("TEXT", "TEXT"), _as_text, indexed_text="TEXT"),
    "postgresql": _Database(
        _types("TEXT", "TIMESTAMPTZ(3)"),
        lambda moment: moment,
        indexed_text="TEXT",
        lock="LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE",
    ),
    "mysql": _Database(
        _types("LONGTEXT", "DATETIME(3)"),
        _without_zone,
        # Text of any length cannot be indexed as a whole.
        indexed_text="VARCHAR(255)",
        # The defaults of a database may lack emojis, and take "cam_A" and "cam_a" for the same.
        options=" DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        # Without it, replacements of neighbouring windows deadlock. Closing the connection releases it.
        lock="SELECT GET_LOCK('lemlist {digest}', 3600)",
    ),
}
_ANY_OTHER = _Database(_types("TEXT", "TIMESTAMP(3)"), _without_zone)

#: How databases say that a table does not exist: SQLSTATE, the number of MySQL.
_NO_TABLE = ("42P01", "42S02", 1146)


class Table:
    """
    A table of a dataset in a database.

    :param hook: Hook of the database, from ``databases.database_hook``.
    :param name: ``table`` or ``schema.table``, as the database spells it: every name is quoted.
    :param index: Columns by which rows are replaced. A table that is created gets an index on them, so that
        the rows of one day are found quickly in a table of years.
    :param create: Whether to create the table if it does not exist. A schema is not created.
    :param alter: Whether to add columns that the table lacks.
    """

    def __init__(
        self,
        hook: Any,
        name: str,
        columns: Sequence[Column],
        *,
        index: Collection[str] = (),
        create: bool,
        alter: bool,
    ) -> None:
        parts = name.split(".")
        if not all(part.strip() for part in parts):
            raise LemlistConfigurationError(f"table must be 'table' or 'schema.table', not {name!r}.")
        self._hook = hook
        self._name = name
        self._parts = parts
        self._quoted = ".".join(map(self._quote, parts))
        self._columns = columns
        self._index = index
        self._create = create
        self._alter = alter
        self._database = _DATABASES.get(hook.dialect_name, _ANY_OTHER)
        #: Our name of a column -> that of the table, which may differ in upper and lower case.
        self._spelled: Mapping[str, str] = {}

    # --- Create or check ----------------------------------------------------------------------------------

    def check(self) -> list[str] | None:
        """
        Return the names of the table's columns, or None if it does not exist; nothing is changed.

        :raises LemlistConfigurationError: The table or a column is missing and may not be created.
        """
        found = self._found()
        if found is None and not self._create:
            raise LemlistConfigurationError(
                f"Table {self._name} does not exist; create it, or use create_table=True."
            )
        missing = self._missing(found or ())
        if found is not None and missing and not self._alter:
            names = ", ".join(column.name for column in missing)
            raise LemlistConfigurationError(
                f"Table {self._name} lacks the columns {names}; add them, or use alter_table=True."
            )
        return found

    def prepare(self) -> None:
        """
        Create the table or the columns that are missing. MySQL commits each of these statements by itself.

        :raises LemlistConfigurationError: See ``check``.
        """
        found = self.check()
        if missing := self._missing(found or ()):
            try:
                self._define(self._creation() if found is None else self._additions(missing))
            except LemlistError:
                # Another task may have done the same at this moment, such as another day of a backfill.
                found = self._found()
                if found is None or self._missing(found):
                    raise
            found = self._found()
        self._spelled = self._spelling(found or ())

    def _found(self) -> list[str] | None:
        """Return the names of the table's columns, or None if it does not exist."""
        with self._transaction() as cursor:
            try:
                cursor.execute(f"SELECT * FROM {self._quoted} WHERE 1 = 0")
                cursor.fetchall()
                return [column[0] for column in cursor.description]
            except Exception as error:
                if _is_missing(error):
                    return None
                remedy = "Check its name and the rights of the connection."
                raise self._failed("cannot be read", error, remedy) from None

    def _missing(self, found: Collection[str]) -> list[Column]:
        spelled = self._spelling(found)
        return [column for column in self._columns if column.name not in spelled]

    def _spelling(self, found: Collection[str]) -> Mapping[str, str]:
        folded = {name.casefold(): name for name in found}
        folded |= {name: name for name in found}
        return {column.name: folded[column.name] for column in self._columns if column.name in folded}

    def _creation(self) -> list[str]:
        columns = ", ".join(map(self._defined, self._columns))
        statements = [f"CREATE TABLE {self._quoted} ({columns}){self._database.options}"]
        if self._index and self._database.indexed_text:
            names = ", ".join(map(self._quote, self._index))
            index = self._quote(f"{self._parts[-1][:50]}_replaced")
            on = self._quoted
            if self._hook.dialect_name == "sqlite" and len(self._parts) > 1:
                # SQLite wants the schema at the index instead.
                index, on = f"{self._quote(self._parts[0])}.{index}", self._quote(self._parts[-1])
            statements.append(f"CREATE INDEX {index} ON {on} ({names})")
        return statements

    def _additions(self, missing: Iterable[Column]) -> list[str]:
        return [f"ALTER TABLE {self._quoted} ADD COLUMN {self._defined(column)}" for column in missing]

    def _defined(self, column: Column) -> str:
        sql_type = self._database.types[column.kind]
        if column.name in self._index and column.kind == "text":
            sql_type = self._database.indexed_text or sql_type
        return f"{self._quote(column.name)} {sql_type}"

    def _define(self, statements: Iterable[str]) -> None:
        with self._transaction() as cursor:
            for statement in statements:
                with self._reported(
                    "could not be created or altered",
                    "Its schema must exist, and the connection must have the right to do this.",
                ):
                    cursor.execute(statement)

    # --- Replace ------------------------------------------------------------------------------------------

    def replace(self, rows: Iterable[Row], scopes: Collection[Scope]) -> int:
        """
        Delete the rows in all scopes and insert others, in one transaction; return the number of the others.

        :param scopes: None of them for all rows of the table.
        :raises LemlistError: The database failed; the table is as it was.
        """
        count = 0
        with self._transaction() as cursor:
            with self._reported("could not be locked"):
                self._lock(cursor)
            with self._reported("could not be cleared of the old rows"):
                for statement, parameters in self._deletions(scopes):
                    # Without parameters, drivers leave a percent sign in a name as it is.
                    cursor.execute(statement, *([parameters] if parameters else []))
            adapted = map(self._adapter(), rows)
            while batch := list(islice(adapted, BATCH)):
                with self._reported("could not be filled"):
                    self._insert(cursor, batch)
                count += len(batch)
        return count

    def _lock(self, cursor: Any) -> None:
        if self._database.lock:
            digest = sha256(self._quoted.encode()).hexdigest()[:32]
            cursor.execute(self._database.lock.format(table=self._quoted, digest=digest))
            if cursor.description:
                cursor.fetchall()

    def _deletions(self, scopes: Collection[Scope]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield the statements: more than one if an ``in`` has many values, none if it has no value."""
        for conditions in product(*(list(self._conditions(scope)) for scope in scopes)):
            where = " AND ".join(sql for sql, _ in conditions)
            parameters = tuple(value for _, values in conditions for value in values)
            yield f"DELETE FROM {self._quoted}{where and ' WHERE '}{where}", parameters

    def _conditions(self, scope: Scope) -> Iterator[tuple[str, list[Any]]]:
        column, mark = self._column(scope.column), self._hook.placeholder
        if scope.operator == "in":
            values = list(map(self._value, scope.value))
            for begin in range(0, len(values), _MAX_IN):
                part = values[begin : begin + _MAX_IN]
                yield f"{column} IN ({', '.join([mark] * len(part))})", part
        elif scope.value is None:
            yield f"{column} IS NULL", []
        else:
            yield f"{column} {scope.operator} {mark}", [self._value(scope.value)]

    def _insert(self, cursor: Any, batch: Sequence[Sequence[Any]]) -> None:
        names = ", ".join(self._column(column.name) for column in self._columns)
        insert = f"INSERT INTO {self._quoted} ({names}) VALUES "
        marks = f"({', '.join([self._hook.placeholder] * len(self._columns))})"
        if type(cursor).__module__.partition(".")[0] == "psycopg2":
            from psycopg2.extras import execute_values  # type: ignore[import-untyped]  # ships no types

            # Its executemany() sends one row, and waits for the response, at a time.
            execute_values(cursor, f"{insert}%s", batch, page_size=BATCH)
        else:
            cursor.executemany(insert + marks, batch)

    def _adapter(self) -> Callable[[Row], Sequence[Any]]:
        """Return what makes the parameters of an INSERT of a row."""
        moments = [index for index, column in enumerate(self._columns) if column.kind == "timestamp"]
        convert = self._database.moment

        def adapted(row: Row) -> Sequence[Any]:
            # PostgreSQL cannot store this character, and other programs end a text at it.
            values: list[Any] = [v.replace("\0", "") if isinstance(v, str) and "\0" in v else v for v in row]
            for index in moments:
                if values[index] is not None:
                    values[index] = convert(values[index])
            return values

        return adapted

    def _value(self, value: Any) -> Any:
        return self._database.moment(value) if isinstance(value, datetime) else value

    def _column(self, name: str) -> str:
        return self._quote(self._spelled.get(name, name))

    def _quote(self, name: str) -> str:
        # Not hook.dialect.escape_word(), which quotes only the words that it knows to be reserved.
        form = self._hook.escape_word_format
        return str(form.format(name.replace(form[-1], form[-1] * 2)))

    # --- One transaction ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Yield a cursor, and commit at the end. Closing without a commit rolls back, after any exception."""
        with closing(self._hook.get_conn()) as connection:
            if self._hook.supports_autocommit:
                self._hook.set_autocommit(connection, False)
            with closing(connection.cursor()) as cursor:
                yield cursor
            with self._reported("may or may not have changed: the commit failed", "A retry is safe."):
                connection.commit()

    @contextmanager
    def _reported(self, failure: str, remedy: str = "It is as it was; a retry is safe.") -> Iterator[None]:
        """Replace the error of a driver, which may quote values of rows, by one that does not."""
        try:
            yield
        except Exception as error:
            raise self._failed(failure, error, remedy) from None

    def _failed(self, failure: str, error: Exception, remedy: str) -> LemlistError:
        code = _code(error)
        what = f"{type(error).__name__}{code and f' ({code})'}"
        return LemlistError(f"Table {self._name} {failure}: {what}. {remedy}")

    # --- Lineage ------------------------------------------------------------------------------------------

    def lineage(self) -> tuple[str, str] | None:
        """Return namespace and name of the table for OpenLineage, or None if the hook does not know them."""
        database = self._hook.get_openlineage_database_info(self._hook.connection)
        if database is None:
            return None
        from airflow.providers.openlineage.sqlparser import SQLParser

        parts = list(self._parts)
        if len(parts) == 1:
            # MySQL has no schemas, but databases, and the hook does not name the one of the connection.
            parts.insert(0, self._hook.get_openlineage_default_schema() or self._hook.connection.schema)
        if database.database and len(parts) == 2:
            parts.insert(0, database.database)
        name = ".".join(filter(None, parts))
        return SQLParser.create_namespace(database), name.upper() if database.is_uppercase_names else name


def _is_missing(error: Exception) -> bool:
    return _code(error) in _NO_TABLE or "no such table" in str(error)


def _code(error: Exception) -> Any:
    """Return the SQLSTATE, the name (SQLite) or the number (MySQL) of a driver's error, or an empty text."""
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if code := getattr(error, name, None):
            return code
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else ""
