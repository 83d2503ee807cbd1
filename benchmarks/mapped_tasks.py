# SPDX-License-Identifier: Apache-2.0
"""
16 mapped tasks of 5 leads each, in parallel, in real Airflow with its LocalExecutor: refusals and leads.

    python -m benchmarks.mapped_tasks

Once by the hook, whose processes share the budget of the key, and once by ``requests`` in a loop that waits
as a refusal says. Each has a sandbox of its own with the strict window and the latency of a real line.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from airflow_provider_lemlist.sandbox import Sandbox
from tools.private_airflow import ENGINE, VERSION, PrivateAirflow

TASKS, LEADS = 16, 5
LONGEST = 300
WAYS = {"hook": "by the hook", "plain": "by requests, repeated when refused"}


def main() -> int:
    with Sandbox(latency=0.25, jitter=0.1) as hook, Sandbox(latency=0.25, jitter=0.1) as plain:
        sandboxes = {"hook": hook, "plain": plain}
        environment = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
        environment |= {"AIRFLOW__CORE__PARALLELISM": str(TASKS), "TASKS": str(TASKS), "LEADS": str(LEADS)}
        for way, lemlist in sandboxes.items():
            environment[f"AIRFLOW_CONN_LEMLIST_{way.upper()}"] = lemlist.airflow_connection()
            environment[f"AIRFLOW_VAR_CAMPAIGN_{way.upper()}"] = lemlist.campaign()["_id"]
        with PrivateAirflow(Path(__file__).parent / "mapped_tasks_dags", **environment) as airflow:
            airflow.run("db", "migrate")
            airflow.start(*ENGINE)
            state = wait(airflow)
            if state != "success":
                print(f"The run: {state}\n\n{airflow.tail()}", file=sys.stderr)
                return 1
            print(f"Airflow {VERSION}, {TASKS} mapped tasks of {LEADS} leads each\n")
            print(f"{'':36}{'at once':>8}{'leads':>7}{'twice':>7}{'sent':>6}{'refused':>9}{'seconds':>9}")
            for way, lemlist in sandboxes.items():
                print(f"{WAYS[way]:36}{at_once(airflow, way):8}{figures(lemlist.state())}")
    sent = {way: len(lemlist.state()["requests"]) for way, lemlist in sandboxes.items()}
    print(f"\nWithout the hook it took {sent['plain'] / sent['hook']:.2f} times as many requests.")
    return 0


def wait(airflow: PrivateAirflow) -> str:
    deadline = time.monotonic() + LONGEST
    while airflow.is_alive and time.monotonic() < deadline:
        rows = airflow.query("SELECT state FROM dag_run WHERE dag_id = 'mapped_leads'")
        if rows and rows[0]["state"] in ("success", "failed"):
            return str(rows[0]["state"])
        time.sleep(0.5)
    return "not over"


def at_once(airflow: PrivateAirflow, way: str) -> int:
    """Return how many of the mapped tasks ran at the same time, at most."""
    task_id = {"hook": "by_hook", "plain": "by_requests"}[way]
    rows = airflow.query("SELECT start_date, end_date FROM task_instance WHERE task_id = ?", task_id)
    return max(
        sum(other["start_date"] <= row["start_date"] < other["end_date"] for other in rows) for row in rows
    )


def figures(state: dict[str, Any]) -> str:
    leads = Counter(lead["variables"]["email"] for lead in state["leads"])
    times = [request["monotonic"] for request in state["requests"]]
    refused = sum(request["status"] == 429 for request in state["requests"])
    twice = sum(count > 1 for count in leads.values())
    return f"{len(leads):7}{twice:7}{len(times):6}{refused:9}{max(times) - min(times):9.1f}"


if __name__ == "__main__":
    sys.exit(main())
