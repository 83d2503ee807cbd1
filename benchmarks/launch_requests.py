# SPDX-License-Identifier: Apache-2.0
"""
Count the requests of the checks before a launch and of the guard, and time them against a plain loop.

    python -m benchmarks.launch_requests

The sandbox has lemlist's limit and a latency of 250 ms. The operators run in this process, without Airflow's
scheduler. The loop requests the statistics of one campaign after the other with ``requests.Session``, as a
script does that does not know the batch route.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import requests

from airflow_provider_lemlist.operators.campaign import CampaignGuardOperator, LaunchLeadsOperator
from airflow_provider_lemlist.operators.campaign.switch import StartCampaignOperator
from airflow_provider_lemlist.sandbox import Sandbox

HEAD = f"{'what':44}{'requests':>10}{'seconds':>9}"


def context(task: Any) -> Any:
    ti = SimpleNamespace(
        dag_id="benchmark", run_id="run", task_id=task.task_id, map_index=-1, task=task, try_number=1,
        xcom_push=lambda key, value: json.dumps(value),
    )  # fmt: skip
    return {"ti": ti, "dag_run": None, "outlet_events": {}, "params": {}}


def execute(task: Any) -> None:
    task.execute(context(task))


def guard_by_loop(lemlist: Sandbox, campaign_ids: list[str]) -> None:
    """Request the statistics of each campaign."""
    now = datetime.now(UTC)
    bounds = {"startDate": (now - timedelta(days=7)).isoformat(), "endDate": now.isoformat()}
    with requests.Session() as session:
        session.auth = ("", lemlist.api_key)
        session.headers["User-Agent"] = "a script"
        for campaign_id in campaign_ids:
            while True:
                response = session.get(f"{lemlist.url}/v2/campaigns/{campaign_id}/stats", params=bounds)
                if response.status_code != 429:
                    break
                time.sleep(float(response.headers["Retry-After"]))


def measure(lemlist: Sandbox, what: str, act: Callable[[], None]) -> None:
    before, began = len(lemlist.requests()), time.monotonic()
    act()
    seconds = time.monotonic() - began
    print(f"{what:44}{len(lemlist.requests()) - before:>10,}{seconds:>9.1f}", flush=True)
    time.sleep(lemlist.service.limit.length)  # the next one begins with an idle key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--leads", type=int, default=2000, help="leads that wait for review")
    parser.add_argument("--campaigns", type=int, default=100, help="campaigns of the guard")
    options = parser.parse_args()
    with Sandbox(latency=0.25, jitter=0.1) as lemlist:
        os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = lemlist.airflow_connection()
        campaign = lemlist.campaign("Launch")
        lemlist.step(campaign["sequenceId"], "email", subject="Hello", message="Hi {{firstName}}")
        for number in range(options.leads):
            lemlist.lead(campaign["_id"], f"p{number}@norte.example", firstName=f"P{number}")
        ids = [lemlist.campaign(f"Campaign {number}")["_id"] for number in range(options.campaigns)]
        given: dict[str, Any] = {"campaign_id": campaign["_id"]}
        launch: dict[str, Any] = {**given, "max_leads": options.leads, "dry_run": True}
        print(HEAD)
        what = f"checks before a launch, {options.leads:,} leads"
        measure(lemlist, what, lambda: execute(LaunchLeadsOperator(task_id="launch", **launch)))
        what = "checks before a start, and the start"
        measure(lemlist, what, lambda: execute(StartCampaignOperator(task_id="start", **given)))
        what = f"guard, {options.campaigns:,} campaigns"
        measure(lemlist, what, lambda: execute(CampaignGuardOperator(task_id="guard", campaign_id=ids)))
        what = f"a loop, {options.campaigns:,} campaigns"
        measure(lemlist, what, lambda: guard_by_loop(lemlist, ids))


if __name__ == "__main__":
    main()
