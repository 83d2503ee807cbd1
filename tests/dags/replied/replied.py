# SPDX-License-Identifier: Apache-2.0
"""The DAG of ``test_events.py``: replies start it."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, Variable, task

from airflow_provider_lemlist.triggers.events import ActivityEventTrigger, activities_in

replies = Asset(
    "replies",
    watchers=[
        AssetWatcher(
            name="lemlist",
            trigger=ActivityEventTrigger(
                ["emailsReplied", "linkedinReplied"],
                campaign_id=Variable.get("campaign"),
                poll_interval=1,
            ),
        )
    ],
)

with DAG("replied", schedule=[replies], catchup=False, default_args={"retries": 3, "retry_delay": 1}):

    @task
    def receive(triggering_asset_events: Any = None) -> list[str]:
        return [activity["_id"] for activity in activities_in(triggering_asset_events)]

    receive()
