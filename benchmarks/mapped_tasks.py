# SPDX-License-Identifier: Apache-2.0
"""
Run 16 mapped tasks of 5 leads each in parallel, in real Airflow with its LocalExecutor.

    python -m benchmarks.mapped_tasks

The leads are created once by the hook, whose processes share the budget of the key, and once by ``requests``
in a loop that waits for the ``Retry-After`` of a 429. Each uses its own sandbox with the strictest window and
a realistic latency.
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
TIMEOUT = 300
CLIENTS = {"hook": "hook", "plain": "requests, retried after a 429"}


def main() -> int:
    with Sandbox(latency=0.25, jitter=0.1) as hook, Sandbox(latency=0.25, jitter=0.1) as plain:
        sandboxes = {"hook": hook, "plain": plain}
        environment = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
        environment |= {"AIRFLOW__CORE__PARALLELISM": str(TASKS), "TASKS": str(TASKS), "LEADS": str(LEADS)}
        for client, lemlist in sandboxes.items():
            environment[f"AIRFLOW_CONN_LEMLIST_{client.upper()}"] = lemlist.airflow_connection()
            environment[f"AIRFLOW_VAR_CAMPAIGN_{client.upper()}"] = lemlist.campaign()["_id"]
        with PrivateAirflow(Path(__file__).parent / "mapped_tasks_dags", **environment) as airflow:
            airflow.run("db", "migrate")
            airflow.start(*ENGINE)
            state = wait(airflow)
            if state != "success":
                print(f"The run: {state}\n\n{airflow.tail()}", file=sys.stderr)
                return 1
            print(f"Airflow {VERSION}, {TASKS} mapped tasks of {LEADS} leads each\n")
            print(f"{'':32}{'parallel':>9}{'leads':>7}{'duplicates':>12}{'sent':>6}{'429':>5}{'seconds':>9}")
            for client, lemlist in sandboxes.items():
                print(f"{CLIENTS[client]:32}{parallel(airflow, client):9}{figures(lemlist.state())}")
    sent = {client: len(lemlist.state()["requests"]) for client, lemlist in sandboxes.items()}
    print(f"\nWithout the hook, {sent['plain'] / sent['hook']:.2f} times as many requests were sent.")
    return 0


def wait(airflow: PrivateAirflow) -> str:
    deadline = time.monotonic() + TIMEOUT
    while airflow.is_alive and time.monotonic() < deadline:
        rows = airflow.query("SELECT state FROM dag_run WHERE dag_id = 'mapped_leads'")
        if rows and rows[0]["state"] in ("success", "failed"):
            return str(rows[0]["state"])
        time.sleep(0.5)
    return "timeout"


def parallel(airflow: PrivateAirflow, client: str) -> int:
    """Return the largest number of mapped tasks that ran at the same time."""
    task_id = {"hook": "by_hook", "plain": "by_requests"}[client]
    rows = airflow.query("SELECT start_date, end_date FROM task_instance WHERE task_id = ?", task_id)
    return max(
        sum(other["start_date"] <= row["start_date"] < other["end_date"] for other in rows) for row in rows
    )


def figures(state: dict[str, Any]) -> str:
    leads = Counter(lead["variables"]["email"] for lead in state["leads"])
    times = [request["monotonic"] for request in state["requests"]]
    refused = sum(request["status"] == 429 for request in state["requests"])
    duplicates = sum(count > 1 for count in leads.values())
    return f"{len(leads):7}{duplicates:12}{len(times):6}{refused:5}{max(times) - min(times):9.1f}"


if __name__ == "__main__":
    sys.exit(main())
