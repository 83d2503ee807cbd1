# SPDX-License-Identifier: Apache-2.0
"""The operator that loads a table of people into a campaign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_count,
    check_flag,
    check_id,
    check_names,
    check_part,
    check_switch,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.delivery.policy import IfElsewhere, IfGone
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistValidationError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.load.options import (
    IfAddressChanged,
    IfExists,
    IfMissing,
    IfVariableMissing,
    LoadOptions,
)
from airflow_provider_lemlist.operators.lead import FLAGS
from airflow_provider_lemlist.operators.rows import LedgerOperator, run_of
from airflow_provider_lemlist.operators.source import SourceOperator
from airflow_provider_lemlist.privacy import Hiding, masked, without_addresses
from airflow_provider_lemlist.templating import KeepsPlaceholders, is_open, misplaced_templates
from airflow_provider_lemlist.validation import validation_error

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_lemlist.load.run import Load
    from airflow_provider_lemlist.sources import Row
    from airflow_provider_lemlist.suppression.options import Exclusions

_CHOICES = {
    "if_exists": IfExists,
    "if_elsewhere": IfElsewhere,
    "if_gone": IfGone,
    "if_address_changed": IfAddressChanged,
    "if_missing": IfMissing,
    "if_variable_missing": IfVariableMissing,
}
_MAPPING = ("column_map", "variables", "defaults", "drop_empty", "require", "key", "allow_unidentified")
#: Arguments that a load takes as they are.
_AS_GIVEN = (*_CHOICES, "resume_returned", "max_missing", "max_new", "recheck_elsewhere")
#: If these are given, they must not be empty when the task runs.
_OPTIONAL = (
    "sql",
    "sql_conn_id",
    "path",
    "exclude_sql",
    "exclude_sql_conn_id",
    "exclude_path",
    "storage_conn_id",
    "ledger_path",
)


class LoadLeadsOperator(KeepsPlaceholders, SourceOperator, LedgerOperator):
    """
    Load many people into a campaign. With the campaign's ``autoReview`` on, lemlist contacts them at once.

    The campaign is looked at first: people who are in it cost no request, and an update changes only what
    lemlist does not have. Every row is checked before the first one is sent, and a ledger, one for each
    campaign, records the outcome of each. After a kill, a stop or a clear, no person is created twice and no
    row is lost; runs may be repeated in any order.

    People whom lemlist's list of unsubscribed values names, or a list of the user's, are never sent. An entry
    is an email address, a domain with its subdomains, a LinkedIn profile or a phone number.

    Returns the count of every outcome and the path of the ledger. They are also pushed under the key
    ``report``, including when the task fails.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/load-leads/>

    :param campaign_id: Id of the campaign. (templated)
    :param leads: The rows: a list of dicts, or the result of an upstream task. Airflow does not render their
        values. Exactly one of ``leads``, ``sql`` and ``path`` is required.
    :param sql: A query, or a ``.sql`` file. (templated)
    :param sql_conn_id: Connection of the database. (templated)
    :param sql_parameters: Bind parameters of the query. (templated)
    :param sql_hook_params: Arguments of the database hook, such as ``{"use_legacy_sql": False}``.
    :param path: A CSV, NDJSON or Parquet file, or a directory of them, also in an object storage. (templated)
    :param exclude_unsubscribed: Leave out the people on lemlist's list of unsubscribed values.
    :param exclude_sql: A query for more entries by which people are left out, or a ``.sql`` file. (templated)
    :param exclude_sql_conn_id: Connection of its database; that of ``sql`` by default. (templated)
    :param exclude_path: A file of such entries, as for ``path``: with one column, or with columns such as
        ``value``, ``email``, ``domain``, ``linkedinUrl`` or ``phone``. (templated)
    :param allow_empty_exclusions: Go on if ``exclude_sql`` or ``exclude_path`` has no entries. Otherwise the
        task fails, because a broken query would let everyone through.
    :param storage_conn_id: Connection of the object storage of the paths and the ledgers. (templated)
    :param ledger_path: Directory of the campaign's ledger; by default one on the worker. (templated)
    :param column_map: Column to field or variable; None leaves the column out. Others keep their names.
    :param variables: The custom variables that may be sent; other columns are left out. All by default.
    :param defaults: Values for fields and variables that are blank in a row. Airflow does not render them.
    :param drop_empty: Leave blank values out instead of sending empty texts.
    :param key: Column by which the source identifies a person whatever the address; it need not be sent.
    :param require: Fields, variables or columns that must not be blank.
    :param allow_unidentified: Accept rows without an address, LinkedIn profile, phone number and key, which
        cannot be found in the campaign again.
    :param if_exists: What to do with a person in the campaign: ``skip`` the row, or ``update`` the lead.
    :param if_elsewhere: What to do with a person whom ``deduplicate`` found in another campaign: ``skip`` the
        row, or let it ``fail``.
    :param recheck_elsewhere: After how long to ask lemlist again for such a person.
    :param if_gone: What to do with a person who was loaded from here and whose lead was deleted in lemlist:
        ``skip`` the row, ``create`` the lead again, or let the row ``fail``. People who have unsubscribed are
        never put back.
    :param if_address_changed: What to do with a person of a ``key`` who is in the campaign with another
        address: ``skip`` the row, ``create`` a lead for the new address, or let the row ``fail``.
    :param if_missing: What to do with people in the campaign who are no longer in the source: ``keep`` them
        as they are, ``pause``, ``unsubscribe`` or ``delete`` them.
    :param resume_returned: Resume those whom ``pause`` has paused, and create those whom ``delete`` has
        deleted, when they are in the source again.
    :param max_missing: The largest part of the people that may be missing; if it is more, or the source is
        empty, nothing is done to them and the task fails.
    :param max_new: How many new people a run may create; the others wait for the next run.
    :param if_variable_missing: What to do if the campaign's texts use a variable that no column provides:
        ``fail`` before anything is sent, or ``warn``.
    :param deduplicate: Let lemlist refuse people who are in another campaign. (templated)
    :param linkedin_enrichment: Enrich the leads from LinkedIn; costs credits. (templated)
    :param find_email: Find verified addresses; costs credits. (templated)
    :param verify_email: Verify the addresses; costs credits. (templated)
    :param find_phone: Find phone numbers; costs credits. (templated)
    :param dry_run: Do everything except sending, and report what would be sent. No ledger is written.
    :param max_failed: How many rows may be invalid, failed or uncertain before the task fails.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = (
        "campaign_id",
        "leads",
        "sql_parameters",
        "defaults",
        *_OPTIONAL,
        *FLAGS,
        "lemlist_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "sql": "sql",
        "exclude_sql": "sql",
        "leads": "json",
        "defaults": "json",
    }
    operator_extra_links = (CampaignLink(),)
    placeholders_in = ("defaults", "leads")
    rows_in = "leads"
    personal_in: ClassVar[Hiding] = {
        **SourceOperator.personal_in,
        "exclude_sql": without_addresses,
        "defaults": masked,
    }

    def __init__(
        self,
        *,
        campaign_id: str | XComArg,
        leads: Iterable[Mapping[str, Any]] | XComArg | None = None,
        sql: str | XComArg | None = NOT_GIVEN,
        sql_conn_id: str | XComArg | None = NOT_GIVEN,
        sql_parameters: Any = None,
        sql_hook_params: Mapping[str, Any] | None = None,
        path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        exclude_unsubscribed: bool = True,
        exclude_sql: str | XComArg | None = NOT_GIVEN,
        exclude_sql_conn_id: str | XComArg | None = NOT_GIVEN,
        exclude_path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        allow_empty_exclusions: bool = False,
        storage_conn_id: str | XComArg | None = NOT_GIVEN,
        ledger_path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        column_map: Mapping[str, str | None] | None = None,
        variables: Collection[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_empty: bool = True,
        key: str | None = None,
        require: Collection[str] = (),
        allow_unidentified: bool = False,
        if_exists: IfExists = "skip",
        if_elsewhere: IfElsewhere = "skip",
        recheck_elsewhere: timedelta = timedelta(days=7),
        if_gone: IfGone = "skip",
        if_address_changed: IfAddressChanged = "skip",
        if_missing: IfMissing = "keep",
        resume_returned: bool = True,
        max_missing: float = 0.1,
        max_new: int | None = None,
        if_variable_missing: IfVariableMissing = "fail",
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
        self.leads: Any = leads
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.sql_parameters = sql_parameters
        self.sql_hook_params = sql_hook_params
        self.path = path
        self.exclude_unsubscribed = exclude_unsubscribed
        self.exclude_sql = exclude_sql
        self.exclude_sql_conn_id = exclude_sql_conn_id
        self.exclude_path = exclude_path
        self.allow_empty_exclusions = allow_empty_exclusions
        self.storage_conn_id: Any = storage_conn_id
        self.ledger_path = ledger_path
        self._note_given(_OPTIONAL)
        self.column_map = column_map
        self.variables = variables
        self.defaults = defaults
        self.drop_empty = drop_empty
        self.key = key
        self.require = require
        self.allow_unidentified = allow_unidentified
        self.if_exists = if_exists
        self.if_elsewhere = if_elsewhere
        self.recheck_elsewhere = recheck_elsewhere
        self.if_gone = if_gone
        self.if_address_changed = if_address_changed
        self.if_missing = if_missing
        self.resume_returned = resume_returned
        self.max_missing = max_missing
        self.max_new = max_new
        self.if_variable_missing = if_variable_missing
        self.deduplicate = deduplicate
        self.linkedin_enrichment = linkedin_enrichment
        self.find_email = find_email
        self.verify_email = verify_email
        self.find_phone = find_phone
        self.sends_nothing = dry_run  # BaseOperator has a method named dry_run
        self.max_failed = max_failed
        self.check_arguments(vars(self))

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Return False: every value of a lead belongs to lemlist."""
        return False

    def _prepare(self, context: Context) -> Load:
        from airflow_provider_lemlist.ledger.ledger import default_ledger_path
        from airflow_provider_lemlist.load.mapping import ColumnMapping
        from airflow_provider_lemlist.load.run import Load

        self.campaign_id = self._id("campaign_id")
        for name in self._given:
            refuse_empty(getattr(self, name), self._the(name))
        ti: Any = context["ti"]
        if self.if_missing != "keep" and (ti.map_index or 0) >= 0 and is_from_mapped(self):
            raise self._refuse("if_missing", "needs the whole source in one task, not in mapped ones")
        options = LoadOptions(
            campaign_id=self.campaign_id,
            rows=self._source(),
            mapping=ColumnMapping(**{name: self._real(name) for name in _MAPPING}),
            ledger_path=self._storage(
                "ledger_path", default_ledger_path(self.campaign_id, self.hook.settings.other_host)
            ),
            run=run_of(context),
            exclusions=self._exclusions(),
            **{name: getattr(self, name) for name in _AS_GIVEN},
            flags=self._flags(FLAGS),
            is_retry=ti.try_number > 1,
            dry_run=self.sends_nothing,
            time_limit=self.execution_timeout,
        )
        self._ledger = options.ledger_path
        return Load(self.hook, options)

    def _exclusions(self) -> Exclusions:
        from airflow_provider_lemlist import sources
        from airflow_provider_lemlist.suppression.options import Exclusions

        lists: dict[str, Callable[[], Iterator[Row]]] = {}
        if self.exclude_sql is not None:
            conn_id = str(self.exclude_sql_conn_id or self.sql_conn_id)
            hook_params = None if self.exclude_sql_conn_id else self.sql_hook_params
            query = self._query("exclude_sql")
            lists["exclude_sql"] = partial(sources.from_sql, conn_id, query, hook_params=hook_params)
        if self.exclude_path is not None:
            lists["exclude_path"] = partial(sources.from_path, self._storage("exclude_path"))
        return Exclusions(self.exclude_unsubscribed, lists, self.allow_empty_exclusions)

    def _changed_campaign(self) -> str | None:
        return None if self.sends_nothing else super()._changed_campaign()

    # --- Parsing ----------------------------------------------------------------------------------------

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        cls.check_source(arguments)
        exclude_sql, conn_id = (or_none(arguments[name]) for name in ("exclude_sql", "exclude_sql_conn_id"))
        if exclude_sql is not None and conn_id is None and or_none(arguments["sql"]) is None:
            raise LemlistConfigurationError(f"{the('exclude_sql', arguments)} needs exclude_sql_conn_id.")
        if conn_id is not None and exclude_sql is None:
            raise LemlistConfigurationError(f"{the('exclude_sql_conn_id', arguments)} needs exclude_sql.")
        for name in ("exclude_unsubscribed", "allow_empty_exclusions"):
            check_switch(name, arguments)
        for name, choices in _CHOICES.items():
            check_choice(name, arguments, choices)
        check_count("max_failed", arguments)
        if arguments["max_new"] is not None:
            check_count("max_new", arguments)
        check_part("max_missing", arguments)
        if not isinstance(arguments["recheck_elsewhere"], timedelta):
            raise LemlistConfigurationError(f"{the('recheck_elsewhere', arguments)} must be a timedelta.")
        key = arguments["key"]
        if key is not None and not (isinstance(key, str) and key.strip()):
            raise LemlistConfigurationError(f"{the('key', arguments)} must be the name of a column.")
        check_names("variables", arguments)
        check_names("require", arguments)
        if not isinstance(arguments["column_map"] or {}, Mapping):
            raise LemlistConfigurationError(f"{the('column_map', arguments)} must be a dict.")
        check_id("campaign_id", arguments)
        for name in FLAGS:
            check_flag(name, arguments)
        leads, defaults = arguments["leads"], arguments["defaults"]
        if isinstance(leads, (str, bytes, Mapping)):
            raise LemlistValidationError(
                f"{the('leads', arguments)} must be a list of dicts, not {type(leads).__name__}."
            )
        written = {"defaults": defaults}
        if isinstance(leads, (list, tuple)):
            written |= {f"leads[{number}]": row for number, row in enumerate(leads)}
        for name, values in written.items():
            if isinstance(values, Mapping) and (found := misplaced_templates(values, lambda name: True)):
                raise validation_error(the(name, arguments), found)
        if not is_open(defaults, rendered=False):
            from airflow_provider_lemlist.load.mapping import ColumnMapping

            ColumnMapping(**{name: arguments[name] for name in _MAPPING})
