# SPDX-License-Identifier: Apache-2.0
"""lemlist as the fleet finds it, and what happens there: functions for the process of the sandbox."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tools.fleet.plan import Part, Plan

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox

#: The day whose activities are read back, and their number.
DAY = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
ACTIVITIES = 2_000


def build(lemlist: Sandbox, shared: Path, names: Sequence[str], leads: int, rows: int, sensors: int) -> Plan:
    """
    Create the campaigns and people, and write the files of the loads.

    :param shared: The directory that all machines see.
    :param names: Names of the parts.
    :param leads: Number of mapped tasks that create a lead each.
    :param rows: Number of rows of the load.
    :param sensors: Number of sensors, each for the reply of a lead of its own.
    """
    waiting, end = lemlist.campaign("Replies")["_id"], DAY + timedelta(days=1)
    reply_leads = [lemlist.lead(waiting, f"p{number}@replies.example")["_id"] for number in range(sensors)]
    lemlist.fill_activities(ACTIVITIES, DAY.timestamp(), end.timestamp())
    # Every person of a running campaign gets its email as soon as lemlist has the lead.
    lemlist.simulate(opens=0, clicks=0, replies=0)
    return Plan(
        parts=[_part(lemlist, shared, name, leads, rows) for name in names],
        reply_campaign=waiting,
        reply_leads=reply_leads,
        history=ACTIVITIES,
        history_since=DAY.isoformat(),
        history_until=end.isoformat(),
    )


def _part(lemlist: Sandbox, shared: Path, name: str, leads: int, rows: int) -> Part:
    emails = [f"row{number}@{name}.example" for number in range(rows)]
    rows_path = shared / f"{name}.csv"
    with rows_path.open("w", newline="") as file:
        csv.writer(file).writerows([("email", "firstName"), *((email, "Grace") for email in emails)])
    return Part(
        name=name,
        load_campaign=_running_campaign(lemlist, f"{name}: load"),
        load_emails=emails,
        rows_path=str(rows_path),
        ledger_path=str(shared / "ledgers" / name),
        lead_campaign=_running_campaign(lemlist, f"{name}: mapped tasks"),
        lead_emails=[f"lead{number}@{name}.example" for number in range(leads)],
        lake_path=str(shared / "lake" / name),
    )


def _running_campaign(lemlist: Sandbox, name: str) -> str:
    campaign = lemlist.campaign(name, status="running")
    lemlist.step(campaign["sequenceId"], "email", subject="Hello", message="<p>Hi {{firstName}}</p>")
    return str(campaign["_id"])


def count_leads(lemlist: Sandbox) -> dict[str, int]:
    """Return how many leads each campaign has. Unlike the whole state, this does not hold up requests."""
    return {campaign.id: len(campaign.leads) for campaign in lemlist.service.world.campaigns.values()}


def count_emails(lemlist: Sandbox) -> Counter[tuple[str, str]]:
    """Return how many emails lemlist has sent, by campaign and address."""
    sent = (each for each, *_ in lemlist.activity_history() if each["type"] == "emailsSent")
    return Counter((each["campaignId"], each["leadEmail"]) for each in sent)


def reply(lemlist: Sandbox, lead_ids: Sequence[str]) -> None:
    """Let leads reply."""
    for lead_id in lead_ids:
        lemlist.activity(lead_id=lead_id, type="emailsReplied")
