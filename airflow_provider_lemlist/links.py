# SPDX-License-Identifier: Apache-2.0
"""
The link from a task to its campaign, in lemlist's app or on the page of the sandbox.

lemlist documents no address of its app. That of a campaign is the one that its users share; none is known
that opens a lead, a sequence or a step. So these have no link of their own: the campaign shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

    from airflow_provider_lemlist.connection import Settings

APP = "https://app.lemlist.com"


class CampaignLink(BaseOperatorLink):
    """Open the task's campaign; there is no link until the campaign and the connection are known."""

    name = "lemlist campaign"
    #: Whether the task may find a campaign that its arguments do not name.
    finds_campaign = False

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, from the operator's campaign or from its XComs, without a request to lemlist."""
        # Airflow 3 calls this in the worker, where the operator is rendered. Airflow 2 calls it in the
        # webserver, where templates are not rendered and a mapped operator has only its partial arguments.
        partial = getattr(operator, "partial_kwargs", {})
        written = getattr(operator, "campaign_id", partial.get("campaign_id", "{{ unknown }}"))
        if written is None and not self.finds_campaign:
            return ""
        campaign_id = written if _is_id(written) else _pushed_campaign(ti_key)
        site = _site(operator) if campaign_id else ""
        return f"{site}/campaigns/{quote(campaign_id, safe='')}" if campaign_id and site else ""


class FoundCampaignLink(CampaignLink):
    """Open the campaign that the task has found by its name."""

    finds_campaign = True


def _site(operator: BaseOperator) -> str:
    """Return the address of what shows the campaigns of the task's connection; empty if it is not known."""
    hook = vars(operator).get("hook")  # the one that the task has used, in a worker
    if hook is None:
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        partial = getattr(operator, "partial_kwargs", {})
        conn_id = getattr(operator, "lemlist_conn_id", partial.get("lemlist_conn_id", DEFAULT_CONN_ID))
        if not _is_id(conn_id):
            return ""
        hook = LemlistHook(conn_id)
    try:
        return site_of(hook.settings)
    except LemlistConfigurationError:
        return ""


def site_of(settings: Settings) -> str:
    """Return the address of the app that shows what a connection leads to; empty if it is not known."""
    if not settings.other_host:
        return APP
    # On this machine it is a sandbox. Another host may be a proxy of lemlist, or a sandbox that the user's
    # browser does not reach.
    url = urlsplit(settings.base_url)
    return f"{url.scheme}://{url.netloc}" if settings.is_local else ""


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "{{" not in value and "{%" not in value


def _pushed_campaign(ti_key: TaskInstanceKey) -> str | None:
    """Return the id of the campaign from the documented XCom keys of the task."""
    for key, *path in (("campaign_id",), ("lead", "campaignId"), ("upload", "status", "campaignId")):
        value: Any = XCom.get_value(key=key, ti_key=ti_key)
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if _is_id(value):
            return str(value)
    return None
