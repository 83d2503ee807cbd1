# SPDX-License-Identifier: Apache-2.0
"""The operators that start and pause a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.arguments import check_choice, check_id, check_switch
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.load.options import IfVariableMissing
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.validation import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg


class _SwitchOperator(LemlistOperator):
    """The base of the operators that start and pause a campaign."""

    template_fields: Sequence[str] = ("campaign_id", "lemlist_conn_id")
    operator_extra_links = (CampaignLink(),)

    def __init__(self, *, campaign_id: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_id("campaign_id", arguments)

    def execute(self, context: Context) -> str:
        """Switch the campaign; return its id."""
        campaign_id = self.campaign_id = self._id("campaign_id")
        campaign = self.hook.get_campaign(campaign_id)  # what changes the state does not say what it was
        self._push(context, campaign_id=campaign_id)
        self._switch(campaign_id, campaign, context)
        self._in_flight = ""
        self._update_outlets(context, campaign_id=campaign_id)
        return campaign_id

    def _switch(self, campaign_id: str, campaign: Mapping[str, Any], context: Context) -> None:
        raise NotImplementedError

    def _log_state(self, campaign_id: str, before: Any, now: str) -> None:
        self.log.info("Campaign %s: %s%s.", campaign_id, "already " if before == now else "", now)


class StartCampaignOperator(_SwitchOperator):
    """
    Start a campaign, or resume a paused one.

    **lemlist then sends messages to real people**: to the leads that were launched and, with the campaign's
    ``autoReview`` on, to every lead that is created. The campaign is looked at first: what lemlist says
    against it, who sends and when, and which of these leads lack a variable that the texts need. A campaign
    that is running keeps running, and is not looked at.

    Returns the id of the campaign, which is also pushed under ``campaign_id``. What was looked at is pushed
    under ``report``, including when the task fails.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/start-campaign/>

    :param campaign_id: Id of the campaign. (templated)
    :param if_variable_missing: What to do if a lead that would be contacted lacks a variable that the texts
        need: ``fail`` before the campaign is started, or ``warn``.
    :param dry_run: Look at the campaign, and do not start it.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    ui_color = "#ffe8cc"
    ui_fgcolor = "#5c3400"

    def __init__(
        self, *, if_variable_missing: IfVariableMissing = "fail", dry_run: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.if_variable_missing = if_variable_missing
        self.sends_nothing = dry_run  # BaseOperator has a method named dry_run
        self.check_arguments({**vars(self), "dry_run": dry_run})

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        super().check_arguments(arguments)
        check_choice("if_variable_missing", arguments, IfVariableMissing)
        check_switch("dry_run", arguments)

    def _switch(self, campaign_id: str, campaign: Mapping[str, Any], context: Context) -> None:
        from airflow_provider_lemlist.delivery.evidence import SENDS_AT_ONCE, auto_review

        before = campaign.get("status")
        if before == "running":
            self._log_state(campaign_id, before, before)
            if auto_review(campaign):
                self.log.warning("Campaign %s: %s", campaign_id, SENDS_AT_ONCE)
            return
        self._look(campaign, context)
        if self.sends_nothing:
            return
        self._in_flight = f"start campaign {campaign_id}"
        self._log_state(campaign_id, before, self.hook.start_campaign(campaign_id)["state"])

    def _look(self, campaign: Mapping[str, Any], context: Context) -> None:
        """Log and push what matters before the campaign is started, and refuse what forbids it."""
        from airflow_provider_lemlist.launch import gate

        readiness = gate.look(self.hook, campaign).to_start()
        readiness.log()
        self.log.info(
            "Campaign %s: starting it contacts %s.",
            readiness.campaign_id,
            plural(readiness.to_contact, "lead"),
        )
        self._push(context, report=readiness.to_json())
        gate.check_statutes(readiness)
        if self.if_variable_missing == "fail":
            gate.check_variables(readiness, "'warn'")

    def _changed_campaign(self) -> str | None:
        return None if self.sends_nothing else super()._changed_campaign()


class PauseCampaignOperator(_SwitchOperator):
    """
    Pause a campaign. What lemlist has already scheduled may still be sent.

    A campaign that does not run stays as it is.

    Returns the id of the campaign, which is also pushed under ``campaign_id``.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/pause-campaign/>

    :param campaign_id: Id of the campaign. (templated)
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_arguments(vars(self))

    def _switch(self, campaign_id: str, campaign: Mapping[str, Any], context: Context) -> None:
        self._in_flight = f"pause campaign {campaign_id}"
        self._log_state(campaign_id, campaign.get("status"), self.hook.pause_campaign(campaign_id)["state"])
