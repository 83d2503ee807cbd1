# SPDX-License-Identifier: Apache-2.0
"""The operator that keeps lemlist's list of unsubscribed values and a list of the user's together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_part,
    check_switch,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.extract.files import FileFormat
from airflow_provider_lemlist.operators.source import SourceOperator

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_lemlist.sources import Row
    from airflow_provider_lemlist.transfers.base import LemlistTransfer

#: Which list gets the values of the other.
Direction = Literal["to_lemlist", "both"]
#: If these are given, they must not be empty when the task runs.
_OPTIONAL = (
    "sql",
    "sql_conn_id",
    "path",
    "storage_conn_id",
    "target_table",
    "target_conn_id",
    "target_path",
)


class SyncUnsubscribesOperator(SourceOperator):
    """
    Unsubscribe values in lemlist that another system has, such as a CRM or a warehouse.

    A value is an email address, a domain (``@example.org``), a LinkedIn URL or a phone number. Only those are
    sent that lemlist lacks, 10,000 with each request; then lemlist's list is read back and compared. It may
    be repeated.

    Nothing is re-subscribed unless ``resubscribe_missing=True`` says so. lemlist keeps people who have
    unsubscribed or reported abuse; these are named by their ids in lemlist.

    Returns the numbers of ``values``, ``listed``, ``unsubscribed``, ``resubscribed`` and ``protected`` ones,
    the ids of the last, and under ``target`` what was written.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/sync-unsubscribes/>

    :param values: The values: a list of texts or dicts, or the result of an upstream task. Exactly one of
        ``values``, ``sql`` and ``path`` is required. (templated)
    :param sql: A query, or a ``.sql`` file. (templated)
    :param sql_conn_id: Connection of the database. (templated)
    :param sql_parameters: Bind parameters of the query. (templated)
    :param sql_hook_params: Arguments of the database hook.
    :param path: A CSV, NDJSON or Parquet file, or a directory of them, also in an object storage: with one
        column, or with columns such as ``value``, ``email``, ``domain``, ``linkedinUrl`` or ``phone``.
        (templated)
    :param storage_conn_id: Connection of the object storage of the paths. (templated)
    :param direction: ``to_lemlist``, or ``both`` to write lemlist's list afterwards into ``target_table`` or
        ``target_path``.
    :param target_table: ``table`` or ``schema.table``, whose rows are replaced. (templated)
    :param target_conn_id: Connection of its database; that of ``sql`` by default. (templated)
    :param target_path: A directory, whose files are replaced. (templated)
    :param file_format: Format of the files: ``parquet``, ``ndjson`` or ``csv``.
    :param resubscribe_missing: Re-subscribe what lemlist has and the source has not: **these people may be
        contacted again**.
    :param max_missing: The largest part of lemlist's list that may be re-subscribed; if it is more, nothing
        is, and the task fails.
    :param allow_empty: Go on if there are no values. Otherwise the task fails, because the query may be
        broken.
    :param dry_run: Log what would be done, and send nothing.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("values", "sql_parameters", *_OPTIONAL, "lemlist_conn_id")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "values": "json"}
    rows_in = "values"
    row_type = "values"

    def __init__(
        self,
        *,
        values: Iterable[str | Mapping[str, Any]] | XComArg | None = None,
        sql: str | XComArg | None = NOT_GIVEN,
        sql_conn_id: str | XComArg | None = NOT_GIVEN,
        sql_parameters: Any = None,
        sql_hook_params: Mapping[str, Any] | None = None,
        path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        storage_conn_id: str | XComArg | None = NOT_GIVEN,
        direction: Direction = "to_lemlist",
        target_table: str | XComArg | None = NOT_GIVEN,
        target_conn_id: str | XComArg | None = NOT_GIVEN,
        target_path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        file_format: FileFormat = "parquet",
        resubscribe_missing: bool = False,
        max_missing: float = 0.1,
        allow_empty: bool = False,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.values: Any = values
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.sql_parameters = sql_parameters
        self.sql_hook_params = sql_hook_params
        self.path = path
        self.storage_conn_id: Any = storage_conn_id
        self.target_table = target_table
        self.target_conn_id = target_conn_id
        self.target_path: Any = target_path
        self._note_given(_OPTIONAL)
        self.direction = direction
        self.file_format = file_format
        self.resubscribe_missing = resubscribe_missing
        self.max_missing = max_missing
        self.allow_empty = allow_empty
        self.sends_nothing = dry_run  # BaseOperator has a method named dry_run
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        cls.check_source(arguments)
        check_choice("direction", arguments, Direction)
        check_choice("file_format", arguments, FileFormat)
        check_part("max_missing", arguments)
        for name in ("resubscribe_missing", "allow_empty"):
            check_switch(name, arguments)
        given = [name for name in _OPTIONAL if or_none(arguments[name]) is not None]
        targets = [name for name in ("target_table", "target_path") if name in given]
        if len(targets) != (arguments["direction"] == "both"):
            raise LemlistConfigurationError(
                f"{the('direction', arguments)} is {arguments['direction']!r}, which takes "
                f"{'one of' if arguments['direction'] == 'both' else 'none of'} target_table and target_path."
            )
        if "target_table" in targets and not {"target_conn_id", "sql_conn_id"} & {*given}:
            raise LemlistConfigurationError(f"{the('target_table', arguments)} needs target_conn_id.")
        if "target_conn_id" in given and "target_table" not in targets:
            raise LemlistConfigurationError(f"{the('target_conn_id', arguments)} needs target_table.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Unsubscribe what lemlist lacks, read back, and write lemlist's list if that is wanted."""
        from airflow_provider_lemlist.suppression.options import SyncOptions
        from airflow_provider_lemlist.suppression.sync import sync

        for name in self._given:
            refuse_empty(getattr(self, name), self._the(name))
        options = SyncOptions(
            self._source(),
            next(name for name in (self.rows_in, "sql", "path") if getattr(self, name) is not None),
            self.allow_empty,
            self.resubscribe_missing,
            self.max_missing,
            self.sends_nothing,
        )
        report = sync(self.hook, options)
        if self.direction == "both" and not self.sends_nothing:
            report["target"] = self._transfer().transfer(context)
        self._update_outlets(context, **report)
        return report

    def on_kill(self) -> None:
        """Send no further request; what was sent stays, and the next attempt sends the rest."""
        if "hook" in vars(self):
            self.hook.get_conn().stop()

    def _transfer(self) -> LemlistTransfer:
        """Return the operator that writes lemlist's list, with the hook of this one."""
        from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator
        from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator

        transfer: LemlistTransfer
        task_id, dataset = f"{self.task_id}_target", "unsubscribes"
        if self.target_table is not None:
            conn_id = self.target_conn_id or self.sql_conn_id
            transfer = LemlistToSqlOperator(
                task_id=task_id, dataset=dataset, table=str(self.target_table), sql_conn_id=str(conn_id)
            )
        else:
            transfer = LemlistToObjectStorageOperator(
                task_id=task_id,
                dataset=dataset,
                path=self.target_path,
                storage_conn_id=self.storage_conn_id,
                file_format=self.file_format,
            )
        transfer.hook = self.hook
        return transfer

    def _opened(self, rows: Iterable[Any]) -> Iterator[Row]:
        # A text is a row with one column.
        return super()._opened({"value": row} if isinstance(row, str) else row for row in rows)
