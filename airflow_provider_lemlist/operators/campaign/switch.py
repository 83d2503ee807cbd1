# SPDX-License-Identifier: Apache-2.0
"""The operators that start and pause a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.arguments import check_id
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator

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
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_id("campaign_id", arguments)

    def execute(self, context: Context) -> str:
        """Switch the campaign; return its id."""
        campaign_id = self.campaign_id = self._id("campaign_id")
        before = self.hook.get_campaign(campaign_id).get("status")  # what changes the state does not say it
        state = self._switch(campaign_id)["state"]
        self._in_flight = ""
        self.log.info("Campaign %s: %s%s.", campaign_id, "already " if before == state else "", state)
        self._push(context, campaign_id=campaign_id)
        self._update_outlets(context, campaign_id=campaign_id)
        return campaign_id

    def _switch(self, campaign_id: str) -> dict[str, Any]:
        raise NotImplementedError


class StartCampaignOperator(_SwitchOperator):
    """
    Start a campaign, or resume a paused one.

    **lemlist then sends messages to real people**: to the leads that were reviewed and, with the campaign's
    ``autoReview`` on, to every lead that is created. A campaign that is running keeps running.

    Returns the id of the campaign, which is also pushed under ``campaign_id``.

    :param campaign_id: Id of the campaign. (templated)
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    def _switch(self, campaign_id: str) -> dict[str, Any]:
        self._in_flight = f"start campaign {campaign_id}"
        return self.hook.start_campaign(campaign_id)


class PauseCampaignOperator(_SwitchOperator):
    """
    Pause a campaign. What lemlist has already scheduled may still be sent.

    A campaign that does not run stays as it is.

    Returns the id of the campaign, which is also pushed under ``campaign_id``.

    :param campaign_id: Id of the campaign. (templated)
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    def _switch(self, campaign_id: str) -> dict[str, Any]:
        self._in_flight = f"pause campaign {campaign_id}"
        return self.hook.pause_campaign(campaign_id)
