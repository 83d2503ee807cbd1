# SPDX-License-Identifier: Apache-2.0
"""
Measure how fast leads are loaded into a campaign by LoadLeadsOperator and by common alternatives.

    python -m benchmarks.load_leads                 # 2,000 leads, about 20 minutes
    python -m benchmarks.load_leads --leads 200 --mapped 0

Every way has its own sandbox with lemlist's limit (20 requests in any 2 seconds) and a latency of 250 ms. The
ways run at the same time, each in its own process; the mapped tasks run after them, because Airflow needs the
whole machine for these.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

LATENCY = 0.25
LIMIT = 10.0  # requests a second
THREADS = 8


def people(number: int) -> list[dict[str, str]]:
    return [{"email": f"person-{n}@example.com", "firstName": f"Person {n}"} for n in range(number)]


# --- The ways, each in its own process ------------------------------------------------------------------


def load_leads_operator(url: str, key: str, campaign: str, leads: list[dict[str, str]]) -> None:
    from types import SimpleNamespace

    from airflow_provider_lemlist.operators.load import LoadLeadsOperator

    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = json.dumps(
        {"conn_type": "lemlist", "host": url, "password": key}
    )
    with tempfile.TemporaryDirectory() as ledger:
        task = LoadLeadsOperator(task_id="load", campaign_id=campaign, leads=leads, ledger_path=ledger)
        ti = SimpleNamespace(
            dag_id="d", run_id="r", task_id="load", map_index=-1, try_number=1, xcom_push=lambda **_: None
        )
        task.execute({"ti": ti})  # type: ignore[arg-type]  # the part of a context that the operator needs


def plain_loop(url: str, key: str, campaign: str, leads: list[dict[str, str]]) -> None:
    import requests

    with requests.Session() as session:
        session.auth = ("", key)
        for lead in leads:
            while True:
                response = session.post(f"{url}/campaigns/{campaign}/leads/", json=lead, timeout=30)
                if response.status_code != 429:
                    response.raise_for_status()
                    break
                time.sleep(float(response.headers["Retry-After"]))


def thread_pool(url: str, key: str, campaign: str, leads: list[dict[str, str]]) -> None:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    with requests.Session() as session:
        session.auth = ("", key)
        retry = Retry(total=20, status_forcelist=[429], allowed_methods=None, backoff_factor=0.5)
        session.mount("http://", HTTPAdapter(max_retries=retry, pool_maxsize=THREADS))

        def post(lead: dict[str, str]) -> None:
            url_ = f"{url}/campaigns/{campaign}/leads/"
            session.post(url_, json=lead, timeout=30).raise_for_status()

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(post, leads))


WAYS = {
    "LoadLeadsOperator": load_leads_operator,
    "a plain loop": plain_loop,
    f"{THREADS} threads, urllib3 Retry": thread_pool,
}


def in_process(way: str, number: int, **where: str) -> dict[str, float]:
    """Run one way in its own process, and return its seconds and CPU seconds."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
            "AIRFLOW__LEMLIST__BUDGET_DIR": f"{home}/budget",
        }
        command = [sys.executable, "-m", "benchmarks.load_leads", "--child", way]
        done = subprocess.run(
            [*command, "--leads", str(number)], env={**environment, "LEMLIST_BENCHMARK": json.dumps(where)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(way: str, number: int) -> None:
    leads = people(number)
    where = json.loads(os.environ["LEMLIST_BENCHMARK"])
    if way == "LoadLeadsOperator":
        from airflow_provider_lemlist.hooks import lemlist  # noqa: F401  (so that imports are not measured)
        from airflow_provider_lemlist.load import run  # noqa: F401  (as above)
    began, cpu = time.monotonic(), time.process_time()
    WAYS[way](**where, leads=leads)
    print(json.dumps({"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}))


# --- One mapped task for each lead ----------------------------------------------------------------------


def mapped_tasks(sandbox: Any, campaign: str, number: int) -> dict[str, float]:
    from tools.private_airflow import ENGINE, PrivateAirflow

    with PrivateAirflow(
        Path(__file__).parent / "load_leads_dags",
        AIRFLOW_CONN_LEMLIST_DEFAULT=sandbox.airflow_connection(),
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__PARALLELISM="8",
        LEMLIST_BENCHMARK_CAMPAIGN=campaign,
        LEMLIST_BENCHMARK_LEADS=str(number),
    ) as airflow:
        airflow.run("db", "migrate")
        airflow.start(*ENGINE)
        while not sandbox.state()["leads"]:
            time.sleep(0.05)
        began = time.monotonic()  # without the start of Airflow itself
        while len(sandbox.state()["leads"]) < number:
            time.sleep(0.2)
            if not airflow.is_alive:
                raise SystemExit(airflow.tail())
        return {"seconds": time.monotonic() - began, "cpu": float("nan")}


# --- The table ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--leads", type=int, default=2000)
    parser.add_argument("--mapped", type=int, default=200, help="leads of the mapped tasks; 0 for none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.leads)
        return

    from airflow_provider_lemlist.sandbox import Sandbox

    print(f"{'way':<28}{'leads':>7}{'seconds':>9}{'leads/s':>9}{'of 10/s':>9}{'429s':>7}{'CPU/lead':>10}")

    def print_result(way: str, number: int, took: dict[str, float], sandbox: Sandbox) -> None:
        leads = sandbox.state()["leads"]
        if len({lead["variables"]["email"] for lead in leads}) != len(leads) or len(leads) != number:
            raise SystemExit(f"{way}: {len(leads)} leads of {number}")
        refused = sandbox.state()["counts"].get("violations rate", 0)
        each = number / took["seconds"]
        cpu = f"{took['cpu'] / number * 1000:.1f} ms" if took["cpu"] == took["cpu"] else "-"
        figures = f"{took['seconds']:>9.1f}{each:>9.2f}{each / LIMIT:>9.0%}{refused:>7}{cpu:>10}"
        print(f"{way:<28}{number:>7}{figures}", flush=True)

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        running = []
        for way in WAYS:
            sandbox = stack.enter_context(Sandbox(latency=LATENCY))
            where = {"url": sandbox.url, "key": sandbox.api_key, "campaign": sandbox.campaign()["_id"]}
            running.append((way, sandbox, pool.submit(in_process, way, given.leads, **where)))
        for way, sandbox, future in running:
            print_result(way, given.leads, future.result(), sandbox)

    if given.mapped:
        with Sandbox(latency=LATENCY) as sandbox:
            took = mapped_tasks(sandbox, sandbox.campaign()["_id"], given.mapped)
            print_result("one mapped task per lead", given.mapped, took, sandbox)
            whole = took["seconds"] / given.mapped * given.leads
            print(f"{'  extrapolated':<28}{given.leads:>7}{whole:>9.1f}")


if __name__ == "__main__":
    main()
