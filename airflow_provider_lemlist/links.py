# SPDX-License-Identifier: Apache-2.0
"""The link from a task to its campaign in lemlist's app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

APP = "https://app.lemlist.com/campaigns/"


class CampaignLink(BaseOperatorLink):
    """Open the task's campaign; there is no link until the campaign is known."""

    name = "lemlist campaign"
    #: Whether the task may find a campaign that its arguments do not name.
    finds_campaign = False

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, from the operator's campaign or from its XComs, without network access."""
        # Airflow 3 calls this in the worker, where the operator is rendered. Airflow 2 calls it in the
        # webserver, where templates are not rendered and a mapped operator has only its partial arguments.
        partial = getattr(operator, "partial_kwargs", {})
        written = getattr(operator, "campaign_id", partial.get("campaign_id", "{{ unknown }}"))
        if written is None and not self.finds_campaign:
            return ""
        campaign_id = written if _is_id(written) else _pushed_campaign(ti_key)
        return f"{APP}{quote(campaign_id, safe='')}" if campaign_id else ""


class FoundCampaignLink(CampaignLink):
    """Open the campaign that the task has found by its name."""

    finds_campaign = True


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
