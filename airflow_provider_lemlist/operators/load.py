# SPDX-License-Identifier: Apache-2.0
"""The operator for many leads: a table of people into a campaign, by a task that may be killed and go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistValidationError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.load.choices import IfElsewhere, IfExists, IfMissing
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.operators.lead import FLAGS
from airflow_provider_lemlist.templating import KeepsPlaceholders, is_open

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_lemlist.load.account import Account
    from airflow_provider_lemlist.load.run import Load
    from airflow_provider_lemlist.load.sources import Row

_CHOICES = {"if_exists": IfExists, "if_elsewhere": IfElsewhere, "if_variable_missing": IfMissing}
_SOURCES = ("leads", "sql", "path")


class LoadLeadsOperator(KeepsPlaceholders, LemlistOperator):
    """
    Put many people into a campaign. With the campaign's ``autoReview`` on, lemlist starts to write at once.

    Every row is checked before the first one is sent, and a ledger keeps what became of each. An attempt that
    is killed, stopped or cleared goes on where it was: rows that are settled cost no request, rows that were
    under way are looked for, and none is sent twice.

    Returns the count of every outcome and the path of the ledger; they are also pushed under the key
    ``report``, which is there when the task fails, too.

    .. seealso::
        For more information on how to use this operator, take a look at the guide:
        :ref:`howto/operator:LoadLeadsOperator`

    :param campaign_id: Id of the campaign. (templated)
    :param leads: The rows as dicts: a list, or what an upstream task returned. Airflow leaves their values
        alone. One of ``leads``, ``sql`` and ``path`` is needed.
    :param sql: A query, or a ``.sql`` file. (templated)
    :param sql_conn_id: Connection of the database, any with a SQL hook. (templated)
    :param sql_parameters: Bind parameters of the query. (templated)
    :param path: A CSV, NDJSON or Parquet file, or a directory of such files, on the worker or in any object
        storage. (templated)
    :param storage_conn_id: Connection of the object storage of ``path`` and the ledgers. (templated)
    :param ledger_path: Directory of the ledger, best in an object storage; by default one for each run of the
        task below ``AIRFLOW_HOME`` of the worker. (templated)
    :param previous_ledger: The ledger of an earlier run, or the directory in which they lie: then the last by
        name before that of this run. People whom it knows cost a request only where they changed and
        ``if_exists`` is ``update``. (templated)
    :param column_map: Column to field of lemlist or custom variable; None leaves the column out. Other
        columns go under their own names.
    :param variables: The custom variables that may be sent; other columns are left out. All by default.
    :param defaults: Values for fields and variables that a row leaves blank. Airflow leaves them alone.
    :param drop_empty: Leave blank values out; otherwise they are sent as empty texts.
    :param if_exists: What to do with a person who is in the campaign: ``skip`` the row, or ``update`` the
        lead.
    :param if_elsewhere: What to do with a person whom ``deduplicate`` found in another campaign: ``skip`` the
        row, or let it ``fail``.
    :param if_variable_missing: What to do when the texts of the campaign use a variable that no column gives:
        ``fail`` before anything is sent, or ``warn``.
    :param deduplicate: Let lemlist refuse people who are in another campaign. (templated)
    :param linkedin_enrichment: Enrich the leads from LinkedIn; costs credits. (templated)
    :param find_email: Find verified addresses; costs credits. (templated)
    :param verify_email: Verify the addresses; costs credits. (templated)
    :param find_phone: Find phone numbers; costs credits. (templated)
    :param dry_run: Do everything but send, and tell what would be sent. No ledger is written.
    :param max_failed: How many rows may be invalid, fail or be left uncertain before the task fails, which it
        does after the other rows were sent.
    :param lemlist_conn_id: :ref:`lemlist connection <howto/connection:lemlist>` to use. (templated)
    """

    template_fields: Sequence[str] = (
        "campaign_id",
        "leads",
        "sql",
        "sql_conn_id",
        "sql_parameters",
        "path",
        "storage_conn_id",
        "ledger_path",
        "previous_ledger",
        "defaults",
        *FLAGS,
        "lemlist_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "leads": "json", "defaults": "json"}
    operator_extra_links = (CampaignLink(),)
    placeholders_in = ("defaults", "leads")

    def __init__(
        self,
        *,
        campaign_id: str | XComArg,
        leads: Iterable[Mapping[str, Any]] | XComArg | None = None,
        sql: str | XComArg | None = None,
        sql_conn_id: str | None = None,
        sql_parameters: Any = None,
        path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = None,
        storage_conn_id: str | None = None,
        ledger_path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = None,
        previous_ledger: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = None,
        column_map: Mapping[str, str | None] | None = None,
        variables: Collection[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_empty: bool = True,
        if_exists: IfExists = "skip",
        if_elsewhere: IfElsewhere = "skip",
        if_variable_missing: IfMissing = "fail",
        deduplicate: bool | str | XComArg = False,
        linkedin_enrichment: bool | str | XComArg = False,
        find_email: bool | str | XComArg = False,
        verify_email: bool | str | XComArg = False,
        find_phone: bool | str | XComArg = False,
        dry_run: bool = False,
        max_failed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.leads = leads
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.sql_parameters = sql_parameters
        self.path = path
        self.storage_conn_id = storage_conn_id
        self.ledger_path = ledger_path
        self.previous_ledger = previous_ledger
        self.column_map = column_map
        self.variables = variables
        self.defaults = defaults
        self.drop_empty = drop_empty
        self.if_exists = if_exists
        self.if_elsewhere = if_elsewhere
        self.if_variable_missing = if_variable_missing
        self.deduplicate = deduplicate
        self.linkedin_enrichment = linkedin_enrichment
        self.find_email = find_email
        self.verify_email = verify_email
        self.find_phone = find_phone
        # Airflow's operators have a method of the argument's name.
        self.sends_nothing = dry_run
        self.max_failed = max_failed
        self._load: Load | None = None
        self._check_written()

    # --- Templates --------------------------------------------------------------------------------------

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Say no: a value of a lead is what the prospect reads, or what lemlist puts there."""
        return False

    # --- Running ----------------------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        """Check everything, send what is not settled, and account for every row."""
        self._load = self._prepare(context)
        try:
            account = self._load.run()
        finally:
            if (known := self._load.account) is not None:
                self._push(context, report=self._report(known))
        self._judge(account)
        report = self._report(account)
        self._tell_outlets(context, **report)
        return report

    def on_kill(self) -> None:
        """Begin no further row; what is under way may end, and the ledger is kept."""
        if self._load is not None:
            self.log.warning("Stopping: no further row is begun; the next attempt goes on from the ledger.")
            self._load.stop()

    def _prepare(self, context: Context) -> Load:
        """Turn the rendered arguments into an order; every mistake in them is found here."""
        from airflow_provider_lemlist.load.home import default_ledger
        from airflow_provider_lemlist.load.mapping import ColumnMapping
        from airflow_provider_lemlist.load.run import Load, Order
        from airflow_provider_lemlist.load.sending import Wishes
        from airflow_provider_lemlist.storage import storage_path

        self._check_id("campaign_id")
        ti: Any = context["ti"]
        self._ledger = storage_path(
            self.ledger_path or default_ledger(ti), self.storage_conn_id, self._the("ledger_path")
        )
        previous = (
            storage_path(self.previous_ledger, self.storage_conn_id, self._the("previous_ledger"))
            if self.previous_ledger
            else None
        )
        if previous is not None and str(previous).rstrip("/") == str(self._ledger).rstrip("/"):
            raise self._refuse("previous_ledger", "is the ledger itself; it must be that of an earlier run")
        order = Order(
            rows=self._source(),
            mapping=ColumnMapping(
                column_map=self.column_map,
                variables=self.variables,
                defaults=self.defaults,
                drop_empty=self.drop_empty,
            ),
            wishes=Wishes(
                campaign_id=str(self.campaign_id),
                if_exists=self.if_exists,
                if_elsewhere=self.if_elsewhere,
                flags={name: self._flag(name) for name in FLAGS},
            ),
            ledger_path=self._ledger,
            previous_ledger=previous,
            owner=f"task {ti.dag_id}.{ti.task_id} of run {ti.run_id}, attempt {ti.try_number}",
            if_variable_missing=self.if_variable_missing,
            dry_run=self.sends_nothing,
            time_limit=self.execution_timeout,
        )
        return Load(self.hook, order)

    def _source(self) -> Callable[[], Iterator[Row]]:
        """Return what opens the source."""
        from airflow_provider_lemlist.load import sources

        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise self._refuse(" or ".join(given or _SOURCES), f"must be one source, not {len(given)}")
        if self.sql is not None:
            if not isinstance(self.sql, str) or not self.sql.strip():
                raise self._refuse("sql", "must be a query")
            if not self.sql_conn_id:
                raise self._refuse("sql_conn_id", "is empty, and sql needs the connection of its database")
            return partial(sources.from_sql, self.sql_conn_id, self.sql, self.sql_parameters)
        if (file := self._source_file()) is not None:
            return partial(sources.from_path, file)
        if isinstance(self.leads, (str, bytes, Mapping)) or not isinstance(self.leads, Iterable):
            raise self._refuse("leads", f"must be a list of dicts, not {type(self.leads).__name__}")
        return partial(sources.from_list, self.leads)

    def _source_file(self) -> ObjectStoragePath | None:
        from airflow_provider_lemlist.storage import storage_path

        if self.path is None:
            return None
        return storage_path(self.path, self.storage_conn_id, self._the("path"))

    def _filled_campaign(self) -> str | None:
        return None if self.sends_nothing else super()._filled_campaign()

    def _lineage_inputs(self) -> list[Any]:
        if self.sql is None:
            return super()._lineage_inputs()
        from airflow.providers.common.compat.sdk import BaseHook
        from airflow.providers.openlineage.sqlparser import get_openlineage_facets_with_sql

        database: Any = BaseHook.get_hook(str(self.sql_conn_id))
        # The tables as the query names them; nobody asks the database for their columns.
        query = get_openlineage_facets_with_sql(
            database, str(self.sql), str(self.sql_conn_id), None, use_connection=False
        )
        return query.inputs if query else []

    def _report(self, account: Account) -> dict[str, Any]:
        from airflow_provider_lemlist.storage import shown

        return {
            **account.report(),
            "campaign_id": self.campaign_id,
            "ledger_path": None if self.sends_nothing else shown(self._ledger),
        }

    def _judge(self, account: Account) -> None:
        """Fail the task when too many rows could not be loaded."""
        bad = {name: account.outcomes[name] for name in ("invalid", "failed", "uncertain")}
        if sum(bad.values()) <= self.max_failed:
            return
        told = ", ".join(f"{count:,} {name}" for name, count in bad.items() if count)
        rest = "nothing was sent" if self.sends_nothing else "the other rows are settled"
        message = (
            f"{told} of {account.rows:,} rows, and max_failed is {self.max_failed}; {rest}. The log says "
            "why, and the ledger for every row."
        )
        if bad["failed"] or bad["uncertain"]:
            raise LemlistError(f"{message} Another attempt takes up these rows only.")
        raise LemlistValidationError(message)  # what is invalid stays so, however often it is tried

    # --- Parsing ----------------------------------------------------------------------------------------

    def _check_written(self) -> None:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            told = "none is" if not given else f"{' and '.join(given)} are"
            raise LemlistConfigurationError(
                f"Task {self.task_id!r} needs exactly one of leads, sql and path; {told} given."
            )
        if (self.sql is None) != (self.sql_conn_id is None):
            raise LemlistConfigurationError(f"{self._the('sql')} and its sql_conn_id belong together.")
        if self.sql is None and self.sql_parameters is not None:
            raise LemlistConfigurationError(f"{self._the('sql_parameters')} need sql.")
        for argument, choices in _CHOICES.items():
            if getattr(self, argument) not in get_args(choices):
                raise LemlistConfigurationError(
                    f"{self._the(argument)} must be one of {', '.join(get_args(choices))}, "
                    f"not {getattr(self, argument)!r}."
                )
        if isinstance(self.max_failed, bool) or not isinstance(self.max_failed, int) or self.max_failed < 0:
            raise LemlistConfigurationError(f"{self._the('max_failed')} must be a whole number from 0.")
        if isinstance(self.variables, str):
            raise LemlistConfigurationError(f"{self._the('variables')} must be a list of names, not a text.")
        if self.column_map is not None and not isinstance(self.column_map, Mapping):
            raise LemlistConfigurationError(f"{self._the('column_map')} must be a dict.")
        if isinstance(self.leads, (str, bytes, Mapping)):
            raise self._refuse("leads", f"must be a list of dicts, not {type(self.leads).__name__}")
        self._check_id("campaign_id", written=True)
        for name in FLAGS:
            if not is_open(getattr(self, name)):
                self._flag(name)
        if not is_open(self.defaults, rendered=False):
            from airflow_provider_lemlist.load.mapping import ColumnMapping

            ColumnMapping(column_map=self.column_map, variables=self.variables, defaults=self.defaults)
