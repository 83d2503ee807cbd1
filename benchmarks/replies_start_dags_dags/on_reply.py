# SPDX-License-Identifier: Apache-2.0
"""The DAG of ``replies_start_dags.py`` that replies start: many watchers of one campaign."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetAny, AssetWatcher, task

from airflow_provider_lemlist.triggers.events import ActivityEventTrigger, activities_in


def watched(number: int) -> Asset:
    trigger = ActivityEventTrigger(
        ["emailsReplied", "linkedinReplied"],
        campaign_id=os.environ["CAMPAIGN"],
        poll_interval=float(os.environ["INTERVAL"]),
        batch=100 + number,  # equal watchers would share one trigger
    )
    return Asset(f"replies_{number}", watchers=[AssetWatcher(name="lemlist", trigger=trigger)])


assets = [watched(number) for number in range(int(os.environ["WATCHERS"]))]

with DAG("on_reply", schedule=AssetAny(*assets), catchup=False):

    @task
    def receive(triggering_asset_events: Any = None) -> None:
        ids = [activity["_id"] for activity in activities_in(triggering_asset_events)]
        with Path(os.environ["RECEIVED"], "on_reply").open("a") as file:
            file.write("".join(f"{time.time()} {id}\n" for id in ids))

    receive()
