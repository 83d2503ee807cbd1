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
    """Open the campaign of the task in lemlist's app; no link while the campaign is not known."""

    name = "lemlist campaign"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Find the campaign on the operator, else in what the task pushed; never in the network."""
        # Airflow 3 asks in the worker, where the operator is rendered. Airflow 2 asks in the webserver, where
        # it is as written, and a mapped one knows only its partial arguments: there the XComs help.
        partial = getattr(operator, "partial_kwargs", {})
        written = getattr(operator, "campaign_id", partial.get("campaign_id", "{{ not known here }}"))
        if written is None:
            return ""
        campaign_id = written if _is_id(written) else _pushed_campaign(ti_key)
        return f"{APP}{quote(campaign_id, safe='')}" if campaign_id else ""


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "{{" not in value and "{%" not in value


def _pushed_campaign(ti_key: TaskInstanceKey) -> str | None:
    """Return the campaign that the task pushed under one of its documented keys."""
    for key, path in (
        ("campaign_id", ()),
        ("lead", ("campaignId",)),
        ("upload", ("status", "campaignId")),
    ):
        value: Any = XCom.get_value(key=key, ti_key=ti_key)
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if _is_id(value):
            return str(value)
    return None
