# SPDX-License-Identifier: Apache-2.0
"""The operator that launches the leads of a campaign that wait for review."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_count,
    check_id,
    check_switch,
    checked_number,
    listed,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError
from airflow_provider_lemlist.launch.options import IfPaused, IfVariableMissing, LaunchOptions
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.operators.rows import run_of
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    import os
    from collections.abc import Collection

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_lemlist.launch.run import Launch

#: If these are given, they must not be empty when the task runs.
_OPTIONAL = ("lead_ids", "ledger_path", "storage_conn_id")


class LaunchLeadsOperator(LemlistOperator):
    """
    Launch leads that wait for review: **lemlist then sends messages to real people**.

    The campaign is looked at first: what lemlist says against a launch, who sends and when, and which leads
    lack a variable that the texts need. The log shows it before anything is launched, and a check that fails
    stops the task.

    All attempts of the task in one run of the DAG together launch at most ``max_leads``, also after a kill, a
    retry or a clear: the leads are chosen once, and the choice is kept beside the ledger of the campaign.

    Returns the count of every outcome, the ids of the leads that were launched, and what was looked at. They
    are also pushed under the key ``report``, and the ids under ``lead_ids``, including when the task fails; a
    dry run pushes the ids of the leads that it would launch under ``would_launch``.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/launch-leads/>

    :param campaign_id: Id of the campaign. (templated)
    :param max_leads: How many leads the run may launch, from 1. (templated)
    :param lead_ids: The leads to launch, a list or the result of an upstream task; by default those that wait
        for review, in the order of lemlist's export. (templated)
    :param if_variable_missing: What to do if a lead lacks a variable that the texts need: ``fail`` before
        anything is launched, ``skip`` the lead and take the next one, or ``warn``.
    :param if_paused: What to do if the campaign neither runs nor is a draft, so that the leads would be
        contacted when it is resumed: ``fail``, or ``launch`` them.
    :param exclude_unsubscribed: Leave out the people on lemlist's list of unsubscribed values.
    :param ledger_path: Directory of the campaign's ledger, where the choice is kept; by default one on the
        worker. (templated)
    :param storage_conn_id: Connection of the object storage of the ledger. (templated)
    :param dry_run: Do everything except launching, and report what would be launched.
    :param max_failed: How many leads may fail before the task fails.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "max_leads", *_OPTIONAL, "lemlist_conn_id")
    operator_extra_links = (CampaignLink(),)
    ui_color = "#ffe8cc"
    ui_fgcolor = "#5c3400"
    _launch: Launch | None = None

    def __init__(
        self,
        *,
        campaign_id: str | XComArg,
        max_leads: int | str | XComArg,
        lead_ids: Collection[str] | str | XComArg | None = NOT_GIVEN,
        if_variable_missing: IfVariableMissing = "fail",
        if_paused: IfPaused = "fail",
        exclude_unsubscribed: bool = True,
        ledger_path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        storage_conn_id: str | XComArg | None = NOT_GIVEN,
        dry_run: bool = False,
        max_failed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.max_leads: Any = max_leads
        self.lead_ids: Any = lead_ids
        self.ledger_path: Any = ledger_path
        self.storage_conn_id: Any = storage_conn_id
        self._note_given(_OPTIONAL)
        self.if_variable_missing = if_variable_missing
        self.if_paused = if_paused
        self.exclude_unsubscribed = exclude_unsubscribed
        self.sends_nothing = dry_run  # BaseOperator has a method named dry_run
        self.max_failed = max_failed
        self.check_arguments({**vars(self), "dry_run": dry_run})

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_id("campaign_id", arguments)
        if not is_open(arguments["max_leads"]):
            checked_number(arguments["max_leads"], the("max_leads", arguments), least=1)
        if not is_open(arguments["lead_ids"]) and or_none(arguments["lead_ids"]) is not None:
            _checked_leads(arguments["lead_ids"], the("lead_ids", arguments))
        check_choice("if_variable_missing", arguments, IfVariableMissing)
        check_choice("if_paused", arguments, IfPaused)
        check_switch("exclude_unsubscribed", arguments)
        check_switch("dry_run", arguments)
        check_count("max_failed", arguments)

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the campaign, and launch the leads."""
        from airflow_provider_lemlist.launch.run import Launch
        from airflow_provider_lemlist.storage import shown

        options = self._options(context)
        launch = self._launch = Launch(self.hook, options)
        place = None if options.dry_run else shown(options.ledger_path)
        try:
            report = launch.run()
        finally:
            figures: dict[str, Any] = self._shown(
                {**launch.figures(), "ledger_path": place, "dry_run": options.dry_run}
            )
            leads = "would_launch" if options.dry_run else "lead_ids"
            self._push(context, report=figures, **{leads: figures[leads]})
        if (failed := report.outcomes["failed"]) > self.max_failed:
            raise LemlistError(
                f"{failed:,} of {report.rows:,} leads could not be launched, and max_failed is "
                f"{self.max_failed}; see the log. A retry tries them again."
            )
        self._update_outlets(context, **report.counts(), campaign_id=options.campaign_id)
        return figures

    def on_kill(self) -> None:
        """Launch no further lead; requests in flight may complete."""
        if self._launch is not None:
            self.log.warning(
                "Stopping: no further lead is launched. The next attempt launches those that were chosen and "
                "still wait."
            )
            self._launch.stop()

    def _options(self, context: Context) -> LaunchOptions:
        from airflow_provider_lemlist.ledger.ledger import default_ledger_path
        from airflow_provider_lemlist.storage import storage_path

        campaign_id = self.campaign_id = self._id("campaign_id")
        max_leads = checked_number(self.max_leads, self._the("max_leads"), least=1)
        lead_ids = None
        if "lead_ids" in self._given:
            lead_ids = _checked_leads(self.lead_ids, self._the("lead_ids"))
            if len(lead_ids) > max_leads:
                raise self._refuse("lead_ids", f"has {len(lead_ids):,} leads, and max_leads is {max_leads:,}")
        for name in {*self._given} - {"lead_ids"}:
            refuse_empty(getattr(self, name), self._the(name))
        ledger = self.ledger_path
        if ledger is None:
            ledger = default_ledger_path(campaign_id, self.hook.settings.other_host)
        ti: Any = context["ti"]
        return LaunchOptions(
            campaign_id=campaign_id,
            max_leads=max_leads,
            ledger_path=storage_path(ledger, self.storage_conn_id, self._the("ledger_path")),
            run=run_of(context),
            lead_ids=lead_ids,
            if_variable_missing=self.if_variable_missing,
            if_paused=self.if_paused,
            exclude_unsubscribed=self.exclude_unsubscribed,
            is_retry=ti.try_number > 1,
            dry_run=self.sends_nothing,
        )

    def _changed_campaign(self) -> str | None:
        return None if self.sends_nothing else super()._changed_campaign()


def _checked_leads(value: Any, what: str) -> list[str]:
    """Return the ids of the leads, each once."""
    refuse_empty(value, what, ", but must be a list of lead ids")
    ids = listed(value)
    if not ids:
        kind = "is empty" if isinstance(value, (Sequence, Set)) else "must be a list of lead ids"
        raise LemlistValidationError(f"{what} {kind}. Nothing was sent.")
    for number, each in enumerate(ids):
        refuse_empty(each, f"{what}: the value at place {number}")
        # What is no id may be personal data, so it is not repeated.
        if not isinstance(each, str) or not re.fullmatch(r"[\w-]+", each.strip()):
            raise LemlistValidationError(
                f"{what} must be a list of ids such as lea_…; the value at place {number} is none. Pass an "
                "upstream task's list as .output, not in a template. Nothing was sent."
            )
    return list(dict.fromkeys(each.strip() for each in ids))
