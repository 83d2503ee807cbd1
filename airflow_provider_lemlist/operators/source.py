# SPDX-License-Identifier: Apache-2.0
"""What the operators share that read their rows from a list, a query or a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lemlist.arguments import or_none, the
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.operators.rows import RowsOperator
from airflow_provider_lemlist.privacy import Hiding, masked, without_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.sources import Row


class SourceOperator(RowsOperator):
    """The base of the operators with one source: the rows in ``rows_in``, ``sql`` or ``path``."""

    #: What the list of rows contains, for errors.
    row_type: ClassVar[str] = "dicts"
    personal_in: ClassVar[Hiding] = {
        "sql": without_addresses,
        "sql_parameters": masked,
    }
    sql: Any
    sql_conn_id: Any
    sql_parameters: Any
    sql_hook_params: Any
    path: Any

    @classmethod
    def check_source(cls, arguments: Mapping[str, Any]) -> None:
        """Check when the DAG is parsed that there is one source, and what belongs to it."""
        names = (cls.rows_in, "sql", "path")
        sources = [name for name in names if or_none(arguments[name]) is not None]
        if len(sources) != 1:
            given = "none is" if not sources else f"{' and '.join(sources)} are"
            raise LemlistConfigurationError(
                f"Task {arguments['task_id']!r} needs exactly one of {cls.rows_in}, sql and path; "
                f"{given} given."
            )
        if ("sql" in sources) != (or_none(arguments["sql_conn_id"]) is not None):
            raise LemlistConfigurationError(f"{the('sql', arguments)} and its sql_conn_id belong together.")
        for name in ("sql_parameters", "sql_hook_params"):
            if "sql" not in sources and arguments[name] is not None:
                raise LemlistConfigurationError(f"{the(name, arguments)} need sql.")

    def _source(self) -> Callable[[], Iterator[Row]]:
        """Return what opens the rows."""
        from airflow_provider_lemlist import sources

        names = (self.rows_in, "sql", "path")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise self._refuse(" or ".join(given or names), f"must be one source, not {len(given)}")
        if self.sql is not None:
            conn_id, query = str(self.sql_conn_id), self._query("sql")
            return partial(
                sources.from_sql, conn_id, query, self._real("sql_parameters"), self.sql_hook_params
            )
        if (file := self._source_file()) is not None:
            return partial(sources.from_path, file)
        rows = self._rendered_rows()
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise self._refuse(self.rows_in, f"must be a list of {self.row_type}, not {type(rows).__name__}")
        return partial(self._opened, rows)

    def _opened(self, rows: Iterable[Any]) -> Iterator[Row]:
        """Yield the rows of a list."""
        from airflow_provider_lemlist import sources

        return sources.from_list(rows)

    def _query(self, argument: str) -> str:
        query = self._real(argument)
        if not isinstance(query, str):
            raise self._refuse(argument, f"must be a query, not {type(query).__name__}")
        return query

    def _source_file(self) -> ObjectStoragePath | None:
        return None if self.path is None else self._storage("path")

    def _lineage_inputs(self) -> list[Any]:
        if self.sql is None:
            return super()._lineage_inputs()
        from airflow.providers.openlineage.sqlparser import get_openlineage_facets_with_sql

        from airflow_provider_lemlist.databases import database_hook

        database: Any = database_hook(str(self.sql_conn_id), self.sql_hook_params)
        # The tables as named in the query, without querying the database for their columns.
        query = get_openlineage_facets_with_sql(
            database, str(self.sql), str(self.sql_conn_id), None, use_connection=False
        )
        return query.inputs if query else []
