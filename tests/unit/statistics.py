# SPDX-License-Identifier: Apache-2.0
"""Campaigns of the sandbox with figures."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from airflow_provider_lemlist.sandbox import Sandbox

BATCH = "POST /v2/campaigns/stats/batch"


def add_campaign(
    lemlist: Sandbox, *, sent: int = 100, status: str = "running", days_ago: float = 1, **more: int
) -> str:
    """
    Add a campaign with one email for each lead.

    :param more: How many of the leads have another activity, by its type.
    """
    campaign_id: str = lemlist.campaign(status=status)["_id"]
    created_at = lemlist.service.world.clock() - days_ago * 86400
    for number in range(max(sent, *more.values(), 0)):
        lead_id = lemlist.lead(campaign_id, f"person{number}@example.com")["_id"]
        for type, count in {"emailsSent": sent, **more}.items():
            if number < count:
                lemlist.activity(lead_id=lead_id, type=type, created_at=created_at)
    return campaign_id


def add_activity(lemlist: Sandbox, campaign_id: str, type: str) -> None:
    """Add an activity of a new lead, which happens now."""
    count = len(lemlist.state()["leads"])
    lead_id = lemlist.lead(campaign_id, f"another{count}@example.com")["_id"]
    lemlist.activity(lead_id=lead_id, type=type)


def asked(lemlist: Sandbox) -> list[dict[str, Any]]:
    """Return the bodies of the requests for statistics of many campaigns."""
    return [json.loads(each["request"]["body"]) for each in lemlist.requests(BATCH)]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
