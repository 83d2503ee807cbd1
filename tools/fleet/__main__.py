# SPDX-License-Identifier: Apache-2.0
"""
``make fleet``: prove on one machine what is promised to a fleet of many.

    python -m tools.fleet [--only calm|killed]

Real Airflow with CeleryExecutor, two workers and two triggerers, runs 40 mapped tasks that create a lead each,
a load, 200 deferred sensors and a read-back at once against the sandbox. Then it does so again, and a worker,
a triggerer and the Redis of the rate budget are killed meanwhile and started again. The exit status is 1 if a
promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import requests

from tools.fleet.airflow import TRIGGERERS, Fleet, raise_on_signals
from tools.fleet.parts import LEAST_RATE, Part, broken, traffic
from tools.fleet.scene import build
from tools.private_airflow import VERSION
from tools.servers import RedisServer, postgres, sandbox

CALM, KILLED = "calm", "killed"
#: Timeout of one part, in seconds.
TIMEOUT = 420
#: Seconds between two looks at Airflow and at the sandbox, and between two lines of progress.
LOOK, LINE = 1.5, 10.0
#: Seconds until what was killed is started again. A booking waits 3 s for Redis, and then gives it up.
WORKER_AWAY, REDIS_AWAY = 3, 5


def main() -> int:
    """Run the parts; return the exit code."""
    arguments = parser().parse_args()
    if problem := missing():
        print(f"missing: {problem}", file=sys.stderr)
        return 1
    names = [arguments.only] if arguments.only else [CALM, KILLED]
    with scene(names, arguments) as running:
        outcomes = [running.play(part) for part in running.parts]
    print(f"\n{'':8}{'requests':>10}{'refused':>9}{'of the limit':>14}{'over':>8}{'again':>7}{'seconds':>9}")
    for outcome in outcomes:
        print(outcome.line())
    problems = [f"{each.part}: {problem}" for each in outcomes for problem in each.problems]
    for problem in problems:
        print(f"NOT KEPT: {problem}")
    if not problems:
        print("Kept: every person was created once and contacted once, every row and every reply arrived.")
    return 1 if problems else 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m tools.fleet", description=__doc__.splitlines()[1])
    add = options.add_argument
    add("--only", choices=(CALM, KILLED), help="run this part only")
    add("--leads", type=int, default=40, help="mapped tasks that create a lead each (default: %(default)s)")
    add("--rows", type=int, default=600, help="rows of the load (default: %(default)s)")
    add("--sensors", type=int, default=200, help="deferred sensors (default: %(default)s)")
    add("--latency", type=float, default=0.1, help="seconds that a response takes (default: %(default)s)")
    add("--jitter", type=float, default=0.05, help="seconds by which that varies (default: %(default)s)")
    return options


def missing() -> str | None:
    """Return what this machine lacks."""
    if VERSION.startswith("2."):
        return "Airflow 3 (this is the environment of an older one)"
    if not shutil.which("redis-server"):
        return "redis-server (Debian: apt-get install redis-server)"
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return "PostgreSQL's server (Debian: apt-get install postgresql)"
    try:
        import airflow.providers.celery  # noqa: F401
    except ImportError:
        return "apache-airflow-providers-celery (make fleet installs it)"
    return None


# --- The parts ------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """The figures of a part, and the promises that were not kept."""

    part: str
    requests: int
    refused: int
    rate: float
    loaded: float
    again: int
    seconds: float
    problems: list[str]

    def line(self) -> str:
        return (
            f"{self.part:8}{self.requests:10}{self.refused:9}{self.rate:14.1%}{self.loaded:6.0f} s"
            f"{self.again:7}{self.seconds:9.0f}"
        )


class Progress(NamedTuple):
    """How far a part is."""

    rows: int
    leads: int
    states: dict[str, Counter[str]]

    @property
    def waiting(self) -> int:
        return self.states["reply"]["deferred"]

    @property
    def only_replies_are_missing(self) -> bool:
        done = all(set(self.states[task_id]) == {"success"} for task_id in ("load", "lead", "read_back"))
        return done and set(self.states["reply"]) == {"deferred"}


class Running:
    """The running fleet with its parts."""

    def __init__(self, fleet: Fleet, budget: RedisServer, origin: str, parts: list[Part]) -> None:
        self.fleet, self.budget, self.parts = fleet, budget, parts
        self._origin = origin
        self._started = time.monotonic()

    def play(self, part: Part) -> Outcome:
        """Run everything of a part at once, kill what it says, and measure."""
        self.say(
            f"{part.name}: {len(part.lead_emails)} leads tasks, {len(part.load_emails)} rows, "
            f"{len(part.reply_leads)} sensors and a read-back of {part.history} activities start at once"
        )
        before, started = len(self.state()["requests"]), time.monotonic()
        run_id = self.fleet.trigger(part.name)
        blows = self.blows(part, run_id) if part.name == KILLED else []
        replied, line_at = False, started
        while self.fleet.run_state(run_id) not in ("success", "failed"):
            time.sleep(LOOK)
            progress = self.progress(part, run_id)
            if time.monotonic() >= line_at:
                self.say(self.describe(part, progress))
                line_at = time.monotonic() + LINE
            if not replied and progress.only_replies_are_missing:
                replied = True
                self.say(f"{part.name}: everything else is done; the replies arrive")
                self.reply(part)
            for due, strike in [blow for blow in blows if blow[0](progress)][:1]:
                blows.remove((due, strike))
                strike()
            if time.monotonic() > started + TIMEOUT or not self.fleet.is_alive:
                break
        seconds = time.monotonic() - started
        state = self.state()
        figures = traffic(part, state["requests"][before:])
        contacts = Counter(
            (each["campaignId"], each["leadEmail"])
            for each, *_ in self.get("activities")
            if each["type"] == "emailsSent" and each["createdAt"] > part.history_until
        )
        problems = list(broken(part, self.fleet.results(run_id), state, contacts))
        problems += [f"{part.name} was not killed as planned"] if blows else []
        if part.name == CALM and figures.refused:
            problems.append(f"{figures.refused} requests were refused")
        if part.name == CALM and figures.rate < LEAST_RATE:
            problems.append(f"{figures.rate:.1%} of the limit was used, less than {LEAST_RATE:.0%}")
        again = self.fleet.attempts(run_id)
        return Outcome(
            part.name,
            figures.requests,
            figures.refused,
            figures.rate,
            figures.seconds,
            again,
            seconds,
            problems,
        )

    def blows(self, part: Part, run_id: str) -> list[tuple[Callable[[Progress], bool], Callable[[], None]]]:
        """Return what is killed, and when."""
        rows, sensors = len(part.load_emails), len(part.reply_leads)
        return [
            (lambda now: now.rows > rows * 0.15, lambda: self.kill_worker(run_id)),
            (lambda now: now.rows > rows * 0.4, self.kill_budget),
            (lambda now: now.rows > rows * 0.5 and now.waiting > sensors * 0.5, self.kill_triggerer),
        ]

    def kill_worker(self, run_id: str) -> None:
        name = self.fleet.worker_of(run_id, "load")
        assert name, "the load runs on no worker"
        self.say(f"  SIGKILL {name}, which runs the load; it starts again after {WORKER_AWAY} s")
        self.fleet.kill(name)
        time.sleep(WORKER_AWAY)
        self.fleet.start_machine(name)

    def kill_budget(self) -> None:
        self.say(f"  SIGKILL the Redis of the budget; it starts again after {REDIS_AWAY} s, and is empty")
        self.budget.kill()
        time.sleep(REDIS_AWAY)
        self.budget.start()

    def kill_triggerer(self) -> None:
        self.say(f"  SIGKILL {TRIGGERERS[0]}; it starts again at once")
        self.fleet.kill(TRIGGERERS[0])
        self.fleet.start_machine(TRIGGERERS[0])

    # --- The sandbox --------------------------------------------------------------------------------------

    def get(self, what: str) -> Any:
        return requests.get(f"{self._origin}/_sandbox/{what}", timeout=60).json()

    def state(self) -> dict[str, Any]:
        return dict(self.get("state"))

    def reply(self, part: Part) -> None:
        with requests.Session() as session:
            for lead in part.reply_leads:
                activity = {"leadId": lead, "type": "emailsReplied"}
                session.post(
                    f"{self._origin}/_sandbox/activities", json=activity, timeout=60
                ).raise_for_status()

    def progress(self, part: Part, run_id: str) -> Progress:
        created = Counter(lead["campaignId"] for lead in self.state()["leads"])
        return Progress(created[part.load_campaign], created[part.lead_campaign], self.fleet.states(run_id))

    # --- What is printed ----------------------------------------------------------------------------------

    def describe(self, part: Part, now: Progress) -> str:
        return (
            f"  {now.leads} of {len(part.lead_emails)} leads, {now.rows} of {len(part.load_emails)} rows, "
            f"{now.waiting} of {len(part.reply_leads)} sensors wait, {now.states['reply']['success']} have a reply"
        )

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self._started:5.0f} s  {line}", flush=True)


@contextmanager
def scene(names: list[str], arguments: argparse.Namespace) -> Iterator[Running]:
    """Start everything that the parts need, and end it."""
    shared = Path(tempfile.mkdtemp(prefix="lemlist-fleet-"))
    prepare = partial(
        build,
        shared=shared,
        names=names,
        leads=arguments.leads,
        rows=arguments.rows,
        sensors=arguments.sensors,
    )
    try:
        with (
            sandbox(prepare, latency=arguments.latency, jitter=arguments.jitter) as (
                origin,
                connection,
                parts,
            ),
            postgres() as database,
            RedisServer() as broker,
            RedisServer() as budget,
        ):
            (shared / "parts.json").write_text(json.dumps([asdict(part) for part in parts]))
            with Fleet(
                database=database, broker=broker.url.removesuffix("/0"), parts=shared / "parts.json"
            ) as fleet:
                running = Running(fleet, budget, origin, parts)
                running.say(f"Airflow {VERSION}, CeleryExecutor, 2 workers and 2 triggerers start")
                try:
                    fleet.run("db", "migrate")
                    connections = shared / "connections.json"
                    connections.write_text(json.dumps(airflow_connections(connection, budget)))
                    fleet.run("connections", "import", str(connections))
                    fleet.start_all()
                    yield running
                except Exception:
                    print(f"The end of Airflow's log:\n\n{fleet.tail(80)}", file=sys.stderr)
                    raise
                finally:
                    running.say("everything is stopped")
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def airflow_connections(connection: str, budget: RedisServer) -> dict[str, Any]:
    """Return the connections that Airflow stores: lemlist's names that of the budget."""
    return {
        "lemlist_default": {
            **json.loads(connection),
            "extra": json.dumps({"budget_store": "lemlist_budget"}),
        },
        "lemlist_budget": {"conn_type": "redis", "host": "127.0.0.1", "port": budget.port},
    }


if __name__ == "__main__":
    raise_on_signals()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)
