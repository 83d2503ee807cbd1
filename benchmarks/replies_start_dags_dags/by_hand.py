# SPDX-License-Identifier: Apache-2.0
"""What ``replies_start_dags.py`` compares with: a continuous DAG that keeps a watermark."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG, Variable, task

from airflow_provider_lemlist.hooks.lemlist import LemlistHook

with DAG(
    "by_hand",
    schedule="@continuous" if os.environ.get("BY_HAND") else None,
    start_date=datetime(2026, 1, 1),
    max_active_runs=1,
    catchup=False,
):

    @task
    def look() -> None:
        hook = LemlistHook("lemlist_by_hand")
        watermark = Variable.get("watermark", default=os.environ["STARTED"])
        found = [
            activity
            for activity_type in ("emailsReplied", "linkedinReplied")
            for activity in hook.list_activities(
                activity_type=activity_type,
                campaign_id=os.environ["CAMPAIGN_BY_HAND"],
                since=datetime.fromisoformat(watermark),
            )
            if activity["createdAt"] > watermark
        ]
        if found:
            Variable.set("watermark", max(activity["createdAt"] for activity in found))
        with Path(os.environ["RECEIVED"], "by_hand").open("a") as file:
            file.write("".join(f"{time.time()} {activity['_id']}\n" for activity in found))

    look()
