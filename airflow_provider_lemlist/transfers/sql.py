# SPDX-License-Identifier: Apache-2.0
"""The operator that writes a dataset into a table of a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.arguments import or_none, refuse_empty, the
from airflow_provider_lemlist.datasets import Dataset, dataset_named, packed, unpacked
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.extract.windows import reaching_back
from airflow_provider_lemlist.templating import is_open
from airflow_provider_lemlist.transfers.base import READ_FIELDS, LemlistTransfer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_lemlist.extract.options import ReadOptions
    from airflow_provider_lemlist.extract.tables import Scope, Table


class LemlistToSqlOperator(LemlistTransfer):
    """
    Write a dataset into a table, and replace the rows of an earlier run in one transaction.

    Replaced are the rows of the window, of the campaigns and of the types of activities that are read; of a
    snapshot, such as ``leads``, all rows of the campaigns that are read. The read is complete before the
    transaction begins; if it fails, the table stays as it was.

    Returns the dataset, the number of rows, the table, the window and a fingerprint of the schema.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/lemlist-to-sql/>

    :param table: ``table`` or ``schema.table``. (templated)
    :param sql_conn_id: Connection of the database. (templated)
    :param create_table: Create the table if it does not exist.
    :param alter_table: Add the columns that the table lacks.
    :param kwargs: The arguments of ``LemlistTransfer``, which say what is read.
    """

    template_fields: Sequence[str] = ("table", "sql_conn_id", *READ_FIELDS, "lemlist_conn_id")

    def __init__(
        self,
        *,
        table: str | XComArg,
        sql_conn_id: str | XComArg,
        create_table: bool = True,
        alter_table: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.sql_conn_id = sql_conn_id
        self.create_table = create_table
        self.alter_table = alter_table
        #: The table, once it is written.
        self._table: Table | None = None
        self._given += ("table", "sql_conn_id")
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        super().check_arguments(arguments)
        for name in ("table", "sql_conn_id"):
            if not is_open(arguments[name]):
                refuse_empty(arguments[name], the(name, arguments), error=LemlistConfigurationError)
        columns = arguments["columns"]
        by = [name for name in READ_FIELDS if or_none(arguments[name]) is not None]
        needed = _replaced_by(dataset_named(arguments["dataset"]), by)
        if missing := [name for name in needed if columns is not None and name not in columns]:
            raise LemlistConfigurationError(
                f"columns must contain {', '.join(missing)}, by which earlier rows are replaced."
            )

    def transfer(self, context: Context) -> dict[str, Any]:
        """Read everything, then replace the rows."""
        from airflow_provider_lemlist.databases import database_hook
        from airflow_provider_lemlist.extract.reader import read
        from airflow_provider_lemlist.extract.tables import Table

        options = self._options(context)
        if self.reread and options.window is not None:
            options = replace(options, window=reaching_back(options.window, self.reread))
        scopes = _scopes(options)
        table = Table(
            database_hook(str(self.sql_conn_id)),
            str(self.table),
            options.columns,
            index=dict.fromkeys(scope.column for scope in scopes),
            create=self.create_table,
            alter=self.alter_table,
        )
        table.check()
        # On disk first: a transaction that waits for lemlist would lock others out.
        with TemporaryFile("w+", encoding="utf-8") as file:
            rows = 0
            for row in read(self.hook, options):
                file.write(f"{packed(row)}\n")
                rows += 1
            if not rows and self.if_empty != "write":
                self._refuse_empty_set(context)
            file.seek(0)
            table.prepare()
            table.replace((unpacked(line, options.columns) for line in file), scopes)
        self._table = table
        self._log_written(f"Table {self.table}", rows, options.window)
        return self._report(context, options.window, rows=rows, table=self.table)

    def _written_places(self) -> list[tuple[str, str]]:
        place = self._table and self._table.lineage()
        return [place] if place else []


def _replaced_by(dataset: Dataset, given: Sequence[str]) -> list[str]:
    """Return the columns by which the rows of an earlier run are found."""
    names = [dataset.moment] if dataset.moment else ["window_start", "window_end"] * dataset.has_window
    return names + [
        column
        for argument, column in (("campaign_id", "campaign_id"), ("activity_type", "type"))
        if argument in given
    ]


def _scopes(options: ReadOptions) -> list[Scope]:
    """Return which rows the new ones replace."""
    from airflow_provider_lemlist.extract.tables import Scope

    scopes, dataset, window = [], options.dataset, options.window
    if window is not None and dataset.moment:
        scopes = [Scope(dataset.moment, ">=", window.since), Scope(dataset.moment, "<", window.until)]
    elif window is not None:
        scopes = [Scope("window_start", "=", window.since), Scope("window_end", "=", window.until)]
    if options.campaign_ids:
        scopes.append(Scope("campaign_id", "in", options.campaign_ids))
    if options.activity_types:
        scopes.append(Scope("type", "in", options.activity_types))
    return scopes
