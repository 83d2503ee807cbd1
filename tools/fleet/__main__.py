# SPDX-License-Identifier: Apache-2.0
"""
``make fleet``: prove on one machine what is promised to a fleet of many.

    python -m tools.fleet [--only calm|killed]

Real Airflow with CeleryExecutor, two workers and two triggerers, runs 40 mapped tasks that create a lead
each, a load, 200 deferred sensors and a read-back at once, against the sandbox. Then it does so again while a
worker, a triggerer and the Redis of the rate budget are killed and started again. The exit status is 1 if a
promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from airflow_provider_lemlist.api.budget import open_budget
from airflow_provider_lemlist.sandbox.server import Sandbox
from tools.fleet.airflow import Fleet
from tools.fleet.proof import CALM, KILLED, Proof
from tools.fleet.scene import build
from tools.private_airflow import VERSION
from tools.servers import RedisServer, SandboxProcess, postgres


def main() -> int:
    """Run the parts; return the exit code."""
    arguments = parser().parse_args()
    if problem := missing():
        print(f"missing: {problem}", file=sys.stderr)
        return 1
    with scene([arguments.only] if arguments.only else [CALM, KILLED], arguments) as proof:
        problems = proof.run()
    for problem in problems:
        print(f"NOT KEPT: {problem}")
    if not problems:
        print("Every person was created once and contacted once; every row and every reply arrived.")
    return 1 if problems else 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m tools.fleet",
        description="Run a fleet on one machine against the sandbox, and kill parts of it.",
    )
    add = options.add_argument
    add("--only", choices=(CALM, KILLED), help="run this part only")
    add("--leads", type=int, default=40, help="mapped tasks that create a lead each (default: %(default)s)")
    add("--rows", type=int, default=600, help="rows of the load (default: %(default)s)")
    add("--sensors", type=int, default=200, help="deferred sensors (default: %(default)s)")
    add("--concurrency", type=int, default=4, help="tasks of a worker at a time (default: %(default)s)")
    add("--latency", type=float, default=0.1, help="seconds that a response takes (default: %(default)s)")
    add("--jitter", type=float, default=0.02, help="seconds by which that varies (default: %(default)s)")
    return options


def missing() -> str | None:
    """Return what this machine lacks."""
    if VERSION.startswith("2."):
        return "Airflow 3 (this environment has an older one)"
    if not shutil.which("redis-server"):
        return "redis-server (Debian: apt-get install redis-server)"
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return "the server of PostgreSQL (Debian: apt-get install postgresql)"
    try:
        import airflow.providers.celery  # noqa: F401
    except ImportError:
        return "apache-airflow-providers-celery (make fleet installs it)"
    return None


@contextmanager
def scene(names: list[str], arguments: argparse.Namespace) -> Iterator[Proof]:
    """Start everything that the parts need, and end it."""
    shared = Path(tempfile.mkdtemp(prefix="lemlist-fleet-"))
    try:
        with (
            SandboxProcess(latency=arguments.latency, jitter=arguments.jitter) as lemlist,
            postgres() as database,
            RedisServer() as broker,
            RedisServer() as redis,
        ):
            amounts = arguments.leads, arguments.rows, arguments.sensors
            plan = lemlist.call(build, shared, names, *amounts)
            plan_path = shared / "plan.json"
            plan_path.write_text(json.dumps(asdict(plan)))
            with Fleet(
                database=database, broker=broker.url, plan=plan_path, concurrency=arguments.concurrency
            ) as fleet:
                connection = json.loads(lemlist.call(Sandbox.airflow_connection))
                shown = open_budget(connection["password"], store=redis.url)
                proof = Proof(fleet, redis, shown, lemlist, plan)
                proof.say(f"Airflow {VERSION} starts, with CeleryExecutor, 2 workers and 2 triggerers")
                proof.say(f"lemlist responds after {arguments.latency:g} s, +- {arguments.jitter:g} s")
                try:
                    fleet.run("db", "migrate")
                    fleet.start_all()
                    # lemlist's connection names the one of the Redis in which all share the budget.
                    fleet.add_connection(
                        "lemlist_budget", conn_type="redis", host="127.0.0.1", port=redis.port
                    )
                    connection["extra"] = json.dumps({"budget_store": "lemlist_budget"})
                    fleet.add_connection("lemlist_default", **connection)
                    yield proof
                except Exception:
                    print(f"The end of Airflow's log:\n\n{fleet.tail(80)}", file=sys.stderr)
                    raise
    finally:
        shutil.rmtree(shared, ignore_errors=True)


if __name__ == "__main__":
    # SIGTERM also cleans up. SIGINT is set because a shell may have disabled it for background processes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted, everything is stopped")
        sys.exit(130)
