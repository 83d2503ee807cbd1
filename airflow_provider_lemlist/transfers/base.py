# SPDX-License-Identifier: Apache-2.0
"""What the transfers share: what is read, for which window, and what is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow_provider_lemlist.activities import checked_types
from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_count,
    checked_ids,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
)
from airflow_provider_lemlist.datasets import PersonalData, dataset_named, fingerprint, selected_columns
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.extract.options import ReadOptions, check_applicable
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.run_window import parse_moment, run_window
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lemlist.datasets import Column
    from airflow_provider_lemlist.extract.windows import Window

#: What to do if there are no rows.
IfEmpty = Literal["write", "skip", "fail"]

#: Templated arguments that say what is read. If they are given, they must not be empty when the task runs.
READ_FIELDS = ("since", "until", "campaign_id", "activity_type")

#: Checks of those that are known when the DAG is parsed.
_CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    "since": parse_moment,
    "until": parse_moment,
    "campaign_id": checked_ids,
    "activity_type": lambda value, _: checked_types(value),
}

#: How far the end of a window may be ahead of this machine's clock, as that of the scheduler may be.
CLOCK_SKEW = timedelta(minutes=1)


class LemlistTransfer(LemlistOperator):
    """
    The base of the transfers.

    :param dataset: ``activities``, ``leads``, ``campaigns``, ``campaign_stats``, ``sequences``,
        ``unsubscribes``, ``contacts``, ``companies`` or ``team_members``.
    :param since: First moment of the window of ``activities`` and ``campaign_stats``; by default that of the
        run. (templated)
    :param until: The moment after the last; by default that of the run. (templated)
    :param reread: How far before the window to read again, for activities that lemlist lists late.
    :param campaign_id: Only this campaign, or these. (templated)
    :param activity_type: Only activities of this type, or these. (templated)
    :param columns: Only these columns.
    :param personal_data: ``drop`` leaves the columns with personal data out.
    :param allow_missing: For how many campaigns lemlist may return no ``campaign_stats``.
    :param if_empty: What to do if there are no rows: ``write`` an empty set, ``skip`` the task and leave the
        target as it is, or ``fail``.
    """

    ui_color = "#e9f5ec"
    ui_fgcolor = "#12422a"

    def __init__(
        self,
        *,
        dataset: str,
        since: datetime | str | XComArg | None = NOT_GIVEN,
        until: datetime | str | XComArg | None = NOT_GIVEN,
        reread: timedelta | None = None,
        campaign_id: str | Sequence[str] | XComArg | None = NOT_GIVEN,
        activity_type: str | Sequence[str] | XComArg | None = NOT_GIVEN,
        columns: Collection[str] | None = None,
        personal_data: PersonalData = "keep",
        allow_missing: int = 0,
        if_empty: IfEmpty = "write",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset = dataset
        self.since = or_none(since)
        self.until = or_none(until)
        self.reread = reread
        self.campaign_id = or_none(campaign_id)
        self.activity_type = or_none(activity_type)
        self.columns = columns
        self.personal_data = personal_data
        self.allow_missing = allow_missing
        self.if_empty = if_empty
        given = {"since": since, "until": until, "campaign_id": campaign_id, "activity_type": activity_type}
        self._given = given_names(given, mapped=is_from_mapped(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        dataset = dataset_named(arguments["dataset"])
        check_choice("personal_data", arguments, PersonalData)
        check_choice("if_empty", arguments, IfEmpty)
        check_count("allow_missing", arguments)
        selected_columns(dataset, arguments["columns"], arguments["personal_data"])
        given = {name: or_none(arguments[name]) for name in (*READ_FIELDS, "reread")}
        check_applicable(dataset, {**given, "allow_missing": arguments["allow_missing"] or None})
        for name, check in _CHECKS.items():
            if given[name] is not None and not is_open(given[name]):
                check(given[name], name)
        reread = arguments["reread"]
        if reread is not None and not (isinstance(reread, timedelta) and reread > timedelta()):
            raise LemlistConfigurationError(f"reread must be a positive timedelta, not {reread!r}.")

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the dataset, and write it."""
        return self.transfer(context)

    def transfer(self, context: Context) -> dict[str, Any]:
        """Do what ``execute`` does, for an operator that uses this one: Airflow guards ``execute``."""
        raise NotImplementedError

    def on_kill(self) -> None:
        """Send no further request; the target stays as it is, or is marked as incomplete."""
        if "hook" in vars(self):  # it is opened when the read begins
            self.hook.get_conn().stop()

    def _selected(self) -> tuple[Column, ...]:
        """Return the columns of the rows."""
        return selected_columns(dataset_named(self.dataset), self.columns, self.personal_data)

    def _options(self, context: Context) -> ReadOptions:
        """Check the rendered arguments; a window that ends at this moment is waited for."""
        for name in self._given:
            refuse_empty(getattr(self, name), self._the(name), error=LemlistConfigurationError)
        since, until = self._bounds(context)
        options = ReadOptions.of(
            self.dataset,
            since=since,
            until=until,
            now=datetime.now(UTC) + CLOCK_SKEW,
            campaign_id=self.campaign_id,
            activity_type=self.activity_type,
            columns=self.columns,
            personal_data=self.personal_data,
            allow_missing=self.allow_missing,
        )
        if options.window is not None:
            from airflow_provider_lemlist.api.wire import CLOCK

            CLOCK.sleep(max(0.0, (options.window.until - datetime.now(UTC)).total_seconds()))
        return options

    def _bounds(self, context: Context) -> tuple[Any, Any]:
        """Return the window that was given, completed by that of the run."""
        since, until = self.since, self.until
        if not dataset_named(self.dataset).has_window or None not in (since, until):
            return since, until
        window = run_window(context)
        if since is None and window.since == window.until:
            raise LemlistConfigurationError(
                f"The run of task {self.task_id!r} has no data interval and no run before it. Set since, or "
                "use a schedule with intervals, such as CronDataIntervalTimetable. Nothing was requested."
            )
        return window.since if since is None else since, window.until if until is None else until

    def _refuse_empty_set(self, context: Context) -> None:
        """Raise what ``if_empty`` says for a read without rows."""
        if self.if_empty == "fail":
            raise LemlistError(f"lemlist has no {self.dataset} to write, and if_empty is 'fail'.")
        self._skip(context, "empty", f"lemlist has no {self.dataset} to write.")

    def _log_written(self, place: str, rows: int, window: Window | None) -> None:
        bounds = "" if window is None else f", {window.since} to {window.until}"
        self.log.info("%s: %s rows of %s%s", place, f"{rows:,}", self.dataset, bounds)

    def _report(self, context: Context, window: Window | None, **written: Any) -> dict[str, Any]:
        """Return what was written, and put it into the events of the outlets."""
        report = {
            "dataset": self.dataset,
            **written,
            "since": window and window.since.isoformat(),
            "until": window and window.until.isoformat(),
            "schema": fingerprint(self._selected()),
        }
        self._update_outlets(context, **report)
        return report

    # --- Lineage ----------------------------------------------------------------------------------------

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return to OpenLineage, where it is installed, the dataset and what was written, with its schema."""
        from airflow.providers.common.compat.openlineage.facet import (
            Dataset,
            SchemaDatasetFacet,
            SchemaDatasetFacetFields,
        )
        from airflow.providers.openlineage.extractors import OperatorLineage

        fields = [SchemaDatasetFacetFields(name=each.name, type=each.kind) for each in self._selected()]
        lemlist = f"lemlist://{urlsplit(self.hook.settings.base_url).netloc}"
        return OperatorLineage(
            inputs=[Dataset(lemlist, self.dataset)],
            outputs=[
                Dataset(namespace, name, facets={"schema": SchemaDatasetFacet(fields=fields)})
                for namespace, name in self._written_places()
            ],
        )

    def _written_places(self) -> list[tuple[str, str]]:
        """Return namespace and name of what was written, for OpenLineage."""
        raise NotImplementedError
