# SPDX-License-Identifier: Apache-2.0
"""Run the parts of a plan in a running fleet, kill what is due, and find what was not kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from airflow_provider_lemlist.api.budget import Budget
from airflow_provider_lemlist.sandbox.server import Sandbox
from tools.fleet.airflow import TRIGGERERS, Fleet
from tools.fleet.plan import Part, Plan, Traffic, broken_by_part, broken_by_sensors, traffic
from tools.fleet.scene import count_emails, count_leads, reply
from tools.servers import RedisServer, SandboxProcess

#: The names of the parts: nothing is killed, or a worker, a triggerer and the budget's Redis.
CALM, KILLED = "calm", "killed"
#: The part of the limit that must be used while the load has rows to send and nothing is killed.
LEAST_RATE = 0.95
#: Timeout of each part, and of the sensors, in seconds.
TIMEOUT = 420
#: Seconds between two looks at Airflow and the sandbox, and between two lines of progress.
LOOK, LINE = 1.5, 10.0
#: Seconds until what was killed is started again. A booking waits 3 s for Redis before it gives it up.
WORKER_AWAY, REDIS_AWAY = 3, 5
HEADER = f"{'':8}{'requests':>10}{'refused':>9}{'of the limit':>14}{'retries':>9}{'seconds':>9}"


class Progress(NamedTuple):
    """How many leads of a part lemlist has."""

    rows: int
    leads: int


class Blow(NamedTuple):
    """What is killed, and when."""

    is_due: Callable[[Progress], bool]
    strike: Callable[[], None]


class Proof:
    """
    The running fleet and its plan.

    :param redis: The Redis of the rate budget.
    :param budget: The budget in it.
    """

    def __init__(
        self, fleet: Fleet, redis: RedisServer, budget: Budget, lemlist: SandboxProcess, plan: Plan
    ) -> None:
        self.fleet, self.redis, self.budget, self.lemlist, self.plan = fleet, redis, budget, lemlist, plan
        self._sensors = ""  # the id of their DAG run
        self._started = self._line_at = time.monotonic()

    def run(self) -> list[str]:
        """Run the parts, while the sensors wait, and let the leads reply; return what was not kept."""
        problems, lines, people = [], [HEADER], len(self.plan.reply_leads)
        for part in self.plan.parts:
            figures, found = self.play(part)
            lines.append(figures)
            problems += [f"{part.name}: {problem}" for problem in found]
            self.wait(lambda: self._sensor_states()["deferred"] == people)
        self.say(f"{people} people reply")
        replied = time.monotonic()
        self.lemlist.call(reply, self.plan.reply_leads)
        self.wait(lambda: self.fleet.has_ended(self._sensors))
        self.say(f"all sensors have ended, {time.monotonic() - replied:.0f} s after the replies")
        found = broken_by_sensors(self.plan, self.fleet.run_of(self._sensors))
        print("", *lines, "", sep="\n")
        return problems + [f"sensors: {problem}" for problem in found]

    def play(self, part: Part) -> tuple[str, list[str]]:
        """Run a part and kill what is due; return the line of figures and what was not kept."""
        self.say(
            f"{part.name}: {len(part.lead_emails)} tasks that create a lead, a load of "
            f"{len(part.load_emails)} rows and a read-back of {self.plan.history} activities start at once"
        )
        logged, started = len(self.lemlist.call(Sandbox.state)["requests"]), time.monotonic()
        run_id = self.fleet.trigger(part.name)
        self._sensors = self._sensors or self.fleet.trigger("replies")
        blows = self._blows(part, run_id) if part.name == KILLED else []

        def has_ended() -> bool:
            now = self._progress(part)
            if blows and blows[0].is_due(now):
                blows.pop(0).strike()
            self._report(f"{now.leads} leads and {now.rows} rows are created, ")
            return self.fleet.has_ended(run_id)

        self.wait(has_ended)
        seconds, state = time.monotonic() - started, self.lemlist.call(Sandbox.state)
        figures = traffic(part, state["requests"][logged:])
        self.say(
            f"  {figures.rate:.1%} of the limit was used for {figures.seconds:.0f} s, "
            f"{figures.refused} of {figures.requests} requests were refused"
        )
        emails = self.lemlist.call(count_emails)
        problems = list(broken_by_part(self.plan, part, self.fleet.run_of(run_id), state, emails))
        if part.name == CALM:
            problems += broken_by_traffic(figures)
        if blows:
            problems.append("it ended before everything was killed")
        if problems:
            print(self.fleet.failures(run_id))
        line = f"{part.name:8}{figures.requests:10}{figures.refused:9}{figures.rate:14.1%}"
        return f"{line}{self.fleet.attempts(run_id):9}{seconds:9.0f}", problems

    # --- Killing ------------------------------------------------------------------------------------------

    def _blows(self, part: Part, run_id: str) -> list[Blow]:
        rows = len(part.load_emails)
        return [
            Blow(lambda now: now.rows > 0.15 * rows, lambda: self._kill_worker(run_id)),
            Blow(lambda now: now.rows > 0.4 * rows, self._kill_budget),
            Blow(lambda now: now.rows > 0.6 * rows, self._kill_triggerer),
        ]

    def _kill_worker(self, run_id: str) -> None:
        name = self.fleet.worker_of(run_id, "load")
        assert name, "the load runs on no worker"
        self.say(f"  SIGKILL {name}, which runs the load; it starts again after {WORKER_AWAY} s")
        self.fleet.kill(name)
        time.sleep(WORKER_AWAY)
        self.fleet.start_machine(name)

    def _kill_budget(self) -> None:
        self.say(f"  SIGKILL the Redis of the budget; it starts again, empty, after {REDIS_AWAY} s")
        self.redis.kill()
        time.sleep(REDIS_AWAY)
        self.redis.start()

    def _kill_triggerer(self) -> None:
        self.say(f"  SIGKILL {TRIGGERERS[0]}; it starts again at once")
        self.fleet.kill(TRIGGERERS[0])
        self.fleet.start_machine(TRIGGERERS[0])

    def _progress(self, part: Part) -> Progress:
        created = self.lemlist.call(count_leads)
        return Progress(created[part.load_campaign], created[part.lead_campaign])

    # --- Waiting and printing -----------------------------------------------------------------------------

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            self._report()
            if not self.fleet.is_alive:
                raise RuntimeError("A process of Airflow has ended")
            if time.monotonic() > deadline:
                raise RuntimeError(f"Not finished after {TIMEOUT} s")
            time.sleep(LOOK)

    def _sensor_states(self) -> Counter[str]:
        return self.fleet.states(self._sensors)["reply"]

    def _report(self, what: str = "") -> None:
        """Print a line of progress, if the last one was long enough ago."""
        if time.monotonic() >= self._line_at:
            states, budget = self._sensor_states(), self.budget.state()
            self.say(
                f"  {what}{states['deferred']} sensors wait, {states['success']} have their reply; "
                f"{budget['waiting']:.0f} requests wait, the margin is {budget['margin'] * 1000:.0f} ms, "
                f"other clients seem to use {budget['other_clients']:.1f}"
            )
            self._line_at = time.monotonic() + LINE

    def say(self, line: str) -> None:
        """Print a line with the time since the start."""
        print(f"{time.monotonic() - self._started:5.0f} s  {line}", flush=True)


def broken_by_traffic(figures: Traffic) -> Iterator[str]:
    """Return what was not kept of the limit while nothing was killed."""
    if figures.refused:
        yield f"{figures.refused} requests were refused"
    if figures.rate < LEAST_RATE:
        used = f"{figures.rate:.1%} of the limit was used for {figures.seconds:.0f} s"
        yield f"{used}, less than {LEAST_RATE:.0%}"
