# SPDX-License-Identifier: Apache-2.0
"""lemlist as the fleet finds it: the campaigns and people of each part, in a sandbox."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from tools.fleet.parts import Part

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox

#: The moments between which the activities lie that are read back, and their number.
HISTORY = ("2026-01-05T00:00:00+00:00", "2026-01-06T00:00:00+00:00")
SINCE, UNTIL = 1_767_571_200.0, 1_767_657_600.0
ACTIVITIES = 2_000


def build(
    lemlist: Sandbox, shared: Path, names: list[str], leads: int, rows: int, sensors: int
) -> list[Part]:
    """
    Create the campaigns and people, and write the files of the loads.

    :param shared: The directory that all machines see.
    :param names: Names of the parts.
    :param leads: Number of mapped tasks that create a lead each.
    :param rows: Number of rows of the load.
    :param sensors: Number of sensors, each for the reply of a lead of its own.
    """
    parts = [_part(lemlist, shared, name, leads, rows, sensors) for name in names]
    lemlist.fill_activities(ACTIVITIES, SINCE, UNTIL)
    # Every person of a running campaign gets its email as soon as lemlist has the lead.
    lemlist.simulate(opens=0, clicks=0, replies=0)
    return parts


def _part(lemlist: Sandbox, shared: Path, name: str, leads: int, rows: int, sensors: int) -> Part:
    sending = []
    for what in ("load", "mapped"):
        campaign = lemlist.campaign(f"{name}: {what}", status="running")
        lemlist.step(campaign["sequenceId"], "email", subject="Hello", message="<p>Hi {{firstName}}</p>")
        sending.append(campaign["_id"])
    waiting = lemlist.campaign(f"{name}: replies")["_id"]
    rows_path = shared / f"{name}.csv"
    emails = [f"row{number}@{name}.example" for number in range(rows)]
    with rows_path.open("w", newline="") as file:
        csv.writer(file).writerows([("email", "firstName"), *((email, "Grace") for email in emails)])
    return Part(
        name=name,
        load_campaign=sending[0],
        load_emails=emails,
        rows_path=str(rows_path),
        ledger_path=str(shared / "ledgers"),
        lead_campaign=sending[1],
        lead_emails=[f"lead{number}@{name}.example" for number in range(leads)],
        reply_campaign=waiting,
        reply_leads=[lemlist.lead(waiting, f"p{each}@{name}.example")["_id"] for each in range(sensors)],
        history=ACTIVITIES,
        history_since=HISTORY[0],
        history_until=HISTORY[1],
        lake_path=str(shared / "lake" / name),
    )
