# SPDX-License-Identifier: Apache-2.0
"""
Replies start a DAG of real Airflow through ``ActivityEventTrigger``, with everything that can go wrong.

    python -m benchmarks.replies_start_dags chaos --minutes 5   # the status is 1 if a reply is lost
    python -m benchmarks.replies_start_dags delay --minutes 5   # without trouble, in Airflow's defaults
    python -m benchmarks.replies_start_dags pause               # what Airflow does around a pause
    python -m benchmarks.replies_start_dags requests            # 1 and 100 watchers, beside a DAG by hand

In ``chaos`` the triggerer is killed and restarted, the DAG is paused and resumed, and lemlist fails, each at
random moments. Airflow is set to notice a killed triggerer and a resumed DAG within seconds, so that more of
the time is spent watching. ``--seed`` repeats the random choices, but not how the processes interleave.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import requests

from airflow_provider_lemlist.sandbox import Sandbox
from tools.private_airflow import ENGINE, VERSION, PrivateAirflow

TYPES = ("emailsReplied", "linkedinReplied")
LEADS = 20
LOOKS = "GET /activities"
#: Seconds after which something has failed: a restart of the triggerer, a long pause of a trigger and a read.
LONGEST = 480
#: How Airflow is set where it is to recover quickly; by default 5, 30 and 30.
QUICK = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
}


class Event(NamedTuple):
    """An asset event."""

    at: float
    replies: list[str]


class Run(NamedTuple):
    """A DAG run, and the replies of its asset events."""

    start: float
    replies: list[str]


class Scene:
    """A campaign whose prospects reply, and an Airflow that watches it."""

    def __init__(self, airflow: PrivateAirflow, lemlist: Sandbox, leads: list[str], received: Path) -> None:
        self.airflow = airflow
        self.lemlist = lemlist
        self._leads = leads
        self._received = received
        self._token = ""
        #: When lemlist lists each reply, by id.
        self.replies: dict[str, float] = {}

    def reply(self, rng: random.Random, *, listed_late: float = 0) -> str:
        """Let a prospect reply, now, which lemlist lists some seconds later."""
        listed_at = time.time() + listed_late
        activity = self.lemlist.activity(
            lead_id=rng.choice(self._leads),
            type=rng.choice(TYPES),
            listed_at=listed_at if listed_late else None,
        )
        self.replies[activity["_id"]] = listed_at
        return str(activity["_id"])

    def pause(self, is_paused: bool) -> None:
        """Pause or resume the DAG, as the button of the web interface does."""
        url = self.airflow.url
        if not self._token:
            self._token = requests.get(f"{url}/auth/token", timeout=60).json()["access_token"]
        response = requests.patch(
            f"{url}/api/v2/dags/on_reply",
            json={"is_paused": is_paused},
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=60,
        )
        response.raise_for_status()

    # --- What Airflow has ---------------------------------------------------------------------------------

    def events(self) -> dict[int, Event]:
        """Return the asset events by id."""
        rows = self.airflow.query("SELECT id, timestamp, extra FROM asset_event ORDER BY id")
        return {
            row["id"]: Event(
                moment(row["timestamp"]),
                [each["_id"] for each in json.loads(row["extra"])["payload"].get("activities", ())],
            )
            for row in rows
        }

    def runs(self) -> list[Run]:
        """Return the runs that have started, the first one first."""
        events = self.events()
        rows = self.airflow.query(
            "SELECT start_date, group_concat(event_id) AS events FROM dag_run LEFT JOIN dagrun_asset_event "
            "ON dag_run_id = dag_run.id WHERE dag_id = 'on_reply' AND start_date IS NOT NULL "
            "GROUP BY dag_run.id ORDER BY start_date"
        )
        return [
            Run(
                moment(row["start_date"]),
                [reply for id in (row["events"] or "").split(",") if id for reply in events[int(id)].replies],
            )
            for row in rows
        ]

    def ended(self, dag_id: str, state: str) -> int:
        rows = self.airflow.query("SELECT 1 FROM dag_run WHERE dag_id = ? AND state = ?", dag_id, state)
        return len(rows)

    def received(self, dag_id: str = "on_reply") -> dict[str, float]:
        """Return when a task first received each reply."""
        path, first = self._received / dag_id, dict[str, float]()
        for line in path.read_text().splitlines() if path.exists() else ():
            at, id = line.split()
            first.setdefault(id, float(at))
        return first

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = LONGEST) -> bool:
        """Wait until a condition is true; return whether it became true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.airflow.is_alive:
                raise SystemExit(f"A process of Airflow has ended:\n{self.airflow.tail(100)}")
            if time.monotonic() > deadline:
                print(f"{what}: not within {seconds:g} s", file=sys.stderr)
                return False
            time.sleep(0.25)
        return True


def moment(value: str) -> float:
    """Read a time of Airflow's database."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()


@contextmanager
def watching(lemlist: Sandbox, *, interval: float, watchers: int = 1, **environment: str) -> Iterator[Scene]:
    """Run Airflow until the watchers have looked at a new campaign for the first time, then the block."""
    campaign = lemlist.campaign(status="running")["_id"]
    leads = [lemlist.lead(campaign, f"p{number}@example.com")["_id"] for number in range(LEADS)]
    with (
        tempfile.TemporaryDirectory() as received,
        PrivateAirflow(
            Path(__file__).parent / "replies_start_dags_dags",
            AIRFLOW_CONN_LEMLIST_DEFAULT=lemlist.airflow_connection(),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__CORE__PARALLELISM="4",
            CAMPAIGN=campaign,
            INTERVAL=str(interval),
            WATCHERS=str(watchers),
            RECEIVED=received,
            **environment,
        ) as airflow,
    ):
        airflow.run("db", "migrate")
        airflow.start(*ENGINE, "triggerer")
        scene = Scene(airflow, lemlist, leads, Path(received))
        # Each cursor is saved with its first look, from when on no reply may be lost.
        cursors = "SELECT count(*) AS saved FROM asset_state_store"
        with_cursor = len(TYPES) * watchers
        if not scene.wait_for(
            lambda: (
                any(row["saved"] == with_cursor for row in airflow.query(cursors))
                if airflow.query("SELECT 1 FROM sqlite_master WHERE name = 'asset_state_store'")
                else False
            ),
            "the first looks",
        ):
            raise SystemExit(airflow.tail(100))
        yield scene


# --- Trouble ------------------------------------------------------------------------------------------------


class Trouble:
    """What goes wrong, in threads of its own, until ``end``."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self._scene = scene
        self._rng = rng
        self._over = threading.Event()
        self.done: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._repeat, args=(*pauses, actions), daemon=True)
            for pauses, actions in {
                (15, 40): {"kills of the triggerer": self._kill},
                (20, 50): {"pauses of the DAG": self._pause},
                (20, 60): {
                    "outages of lemlist (503)": self._fail,
                    "outages of lemlist (no response)": self._hang,
                    "outages of lemlist (refused connections)": self._disappear,
                    "revoked keys": self._revoke,
                },
            }.items()
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Repair everything, and return when it is repaired."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, least: float, most: float, actions: dict[str, Callable[[], None]]) -> None:
        turn = 0
        while not self._over.wait(self._rng.uniform(least, most)):
            name, action = list(actions.items())[turn % len(actions)]
            self.done[name] = self.done.get(name, 0) + 1
            action()
            turn += 1

    def _kill(self) -> None:
        self._scene.airflow.kill("triggerer")
        time.sleep(self._rng.uniform(0, 10))
        self._scene.airflow.start("triggerer")

    def _pause(self) -> None:
        self._scene.pause(True)
        time.sleep(self._rng.uniform(0, 20))
        self._scene.pause(False)

    def _fail(self) -> None:
        self._inject("status", status=503)

    def _hang(self) -> None:
        self._inject("hang")

    def _inject(self, kind: str, **details: Any) -> None:
        self._scene.lemlist.fault("*", kind, probability=1, **details)
        time.sleep(20)
        self._scene.lemlist.clear_faults()

    def _disappear(self) -> None:
        with self._scene.lemlist.unreachable():
            time.sleep(20)

    def _revoke(self) -> None:
        lemlist = self._scene.lemlist
        lemlist.accept_key(lemlist.api_key, "blocked")
        time.sleep(20)
        lemlist.accept_key(lemlist.api_key)


def chaos(given: argparse.Namespace, *, trouble: bool = True) -> int:
    rng = random.Random(given.seed)
    interval = given.interval or (5 if trouble else 30)
    with Sandbox() as lemlist, watching(lemlist, interval=interval, **(QUICK if trouble else {})) as scene:
        calm = replies_for(scene, rng, given.calm if trouble else given.minutes, every=given.every)
        troubles = Trouble(scene, random.Random(given.seed))
        if trouble:
            troubles.begin()
            replies_for(scene, rng, given.minutes, every=given.every, late=0.2)
            troubles.end()
        told = scene.wait_for(lambda: scene.replies.keys() <= in_any(scene.events().values()), "all replies")
        # Airflow leaves an event to the next one if the run for the one before it is not made yet.
        last = scene.reply(rng)
        scene.wait_for(lambda: last in scene.received(), "the last run")
        scene.wait_for(lambda: not unfinished(scene), "the end of the runs")
        print(f"Airflow {VERSION}, a look every {interval:g} s, seed {given.seed}\n")
        lost = summary(scene, {"undisturbed": calm, "all": [*scene.replies]} if trouble else {"all": calm})
        for name, times in troubles.done.items():
            print(f"{name:44}{times:>6}")
        return int(bool(lost) or not told)


def replies_for(
    scene: Scene, rng: random.Random, minutes: float, *, every: float, late: float = 0
) -> list[str]:
    """Let prospects reply at random moments; return the ids of their replies."""
    ids, deadline = [], time.monotonic() + minutes * 60
    while (pause := rng.expovariate(1 / every)) < deadline - time.monotonic():
        time.sleep(pause)
        ids.append(scene.reply(rng, listed_late=rng.uniform(5, 60) if rng.random() < late else 0))
    return ids


def in_any(those: Iterable[Event | Run]) -> set[str]:
    return {reply for each in those for reply in each.replies}


def unfinished(scene: Scene) -> int:
    return scene.ended("on_reply", "running") + scene.ended("on_reply", "queued")


def summary(scene: Scene, groups: dict[str, list[str]]) -> set[str]:
    """Print what became of the replies; return those that are lost."""
    events, runs, received = [*scene.events().values()], scene.runs(), scene.received()
    places = {
        "in an asset event": in_any(events),
        "in a run": in_any(runs),
        "received by a task": {*received},
    }
    lost = {name: scene.replies.keys() - found for name, found in places.items()}
    told = [reply for event in events for reply in event.replies]
    consumed = [reply for run in runs for reply in run.replies]
    print(f"{'replies':44}{len(scene.replies):>6}")
    for name, missing in lost.items():
        print(f"{'  not ' + name:44}{len(missing):>6}{'  ' + ', '.join(missing) if missing else ''}")
    print(f"{'asset events':44}{len(events):>6}")
    print(f"{'  repeats of replies in other events':44}{len(told) - len({*told}):>6}")
    print(f"{'runs':44}{len(runs):>6}, failed {scene.ended('on_reply', 'failed')}")
    print(f"{'  repeats of replies in other runs':44}{len(consumed) - len({*consumed}):>6}")
    print(f"\n{'seconds from the listed reply to':32}{'':12}{'median':>9}{'p95':>9}{'max':>9}")
    for group, ids in groups.items():
        for name, first in {
            "the asset event": firsts((event.at, event.replies) for event in events),
            "the start of the run": firsts((run.start, run.replies) for run in runs),
            "the task": received,
        }.items():
            delays = sorted(first[id] - scene.replies[id] for id in ids if id in first)
            print(f"{name:32}{group:12}{figures(delays)}")
    print()
    return set().union(*lost.values())


def firsts(those: Iterable[tuple[float, list[str]]]) -> dict[str, float]:
    first: dict[str, float] = {}
    for at, replies in those:
        for reply in replies:
            first[reply] = min(at, first.get(reply, at))
    return first


def figures(delays: list[float]) -> str:
    if not delays:
        return f"{'-':>9}" * 3
    return f"{statistics.median(delays):9.1f}{delays[int(len(delays) * 0.95)]:9.1f}{delays[-1]:9.1f}"


# --- Around a pause -----------------------------------------------------------------------------------------


def pause(given: argparse.Namespace) -> int:
    """Print what becomes of replies before, in and after a pause, with Airflow's own settings."""
    rng, began, names = random.Random(given.seed), time.time(), dict[str, str]()
    with Sandbox() as lemlist, watching(lemlist, interval=given.interval or 5) as scene:

        def say(what: str) -> None:
            print(f"{time.time() - began:7.1f} s  {what}", flush=True)

        def reply(name: str) -> str:
            names[id := scene.reply(rng)] = name
            say(f"reply {name}")
            return id

        def is_told(id: str) -> bool:
            return id in in_any(scene.events().values())

        def is_watched() -> bool:
            return bool(scene.airflow.query("SELECT 1 FROM asset_watcher"))

        def runs() -> str:
            return "; ".join(", ".join(names[each] for each in run.replies) for run in scene.runs()) or "none"

        def see(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
            outcome = scene.wait_for(condition, what, seconds)
            say(f"{what if outcome else f'not {what}'} (runs: {runs()})")

        scene.pause(False)  # which also gets the token, so that the next ones take no time
        before = reply("A")
        see(lambda: is_told(before), "A is in an asset event")
        scene.pause(True)
        say("paused at once")
        inside = reply("B")
        see(lambda: is_told(inside), "B is in an asset event")
        see(lambda: not is_watched(), "the watcher is removed")
        unwatched = reply("C")
        time.sleep(20)
        say(f"C is {'' if is_told(unwatched) else 'not '}in an asset event (runs: {runs()})")
        scene.pause(False)
        say("resumed")
        see(lambda: unwatched in in_any(scene.runs()), "a run with C")
        # Again, but nothing happens while there is no watcher.
        scene.pause(True)
        say("paused")
        inside = reply("D")
        see(lambda: is_told(inside), "D is in an asset event")
        see(lambda: not is_watched(), "the watcher is removed")
        scene.pause(False)
        say("resumed")
        see(is_watched, "the watcher is back")
        see(lambda: inside in in_any(scene.runs()), "a run with D", 60)
        after = reply("E")
        see(lambda: after in in_any(scene.runs()), "a run with E")
    return 0


# --- Requests -----------------------------------------------------------------------------------------------


def count_requests(given: argparse.Namespace) -> int:
    interval = given.interval or 30
    print(f"Airflow {VERSION}, a look every {interval:g} s; requests a minute\n")
    beside_by_hand(given, interval)
    with Sandbox() as lemlist, watching(lemlist, interval=interval, watchers=100) as scene:
        row("100 watchers", per_minute([lemlist], given.minutes)[0])
        reply = scene.reply(random.Random(given.seed))
        scene.wait_for(lambda: reply in scene.received(), "a run")
        told = sum(reply in event.replies for event in scene.events().values())
        print(f"{'':4}one reply: {told} asset events, {len(scene.runs())} runs")
    row(
        f"100 watchers and {given.sensors:,} sensors, one event loop",
        asyncio.run(in_one_loop(given, interval)),
    )
    return 0


def row(what: str, number: float) -> None:
    print(f"{what:52}{number:>8.1f}", flush=True)


def per_minute(sandboxes: list[Sandbox], minutes: float) -> list[float]:
    before = [len(lemlist.requests(LOOKS)) for lemlist in sandboxes]
    time.sleep(minutes * 60)
    return [
        (len(lemlist.requests(LOOKS)) - count) / minutes
        for lemlist, count in zip(sandboxes, before, strict=True)
    ]


def beside_by_hand(given: argparse.Namespace, interval: float) -> None:
    """Compare a watcher with a continuous DAG in one Airflow: the same replies, a sandbox each."""
    rng = random.Random(given.seed)
    with Sandbox() as lemlist, Sandbox() as other:
        campaign = other.campaign(status="running")["_id"]
        lead = other.lead(campaign, "p@example.com")["_id"]
        environment = {
            "BY_HAND": "1",
            "AIRFLOW_CONN_LEMLIST_BY_HAND": other.airflow_connection(),
            "CAMPAIGN_BY_HAND": campaign,
            "STARTED": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        with watching(lemlist, interval=interval, **environment) as scene:
            scene.wait_for(lambda: other.requests(LOOKS), "a look by hand")
            by_hand: dict[str, float] = {}

            def replies() -> None:
                """Reply three times a minute; every fourth reply is listed late, after the next ones."""
                for number in range(int(given.minutes * 3)):
                    late = 45 if number % 4 == 1 else 0
                    scene.reply(rng, listed_late=late)
                    listed_at = time.time() + late
                    activity = other.activity(
                        lead_id=lead, type=rng.choice(TYPES), listed_at=listed_at if late else None
                    )
                    by_hand[activity["_id"]] = listed_at
                    time.sleep(20)

            thread = threading.Thread(target=replies)
            thread.start()
            ours, theirs = per_minute([lemlist, other], given.minutes)
            thread.join()
            scene.wait_for(lambda: scene.replies.keys() <= scene.received().keys(), "all replies", 120)
            row("1 watcher", ours)
            row("continuous DAG with a watermark", theirs)
            print(f"{'':4}ratio {theirs / ours:.1f}; {scene.ended('by_hand', 'success')} runs by hand")
            for name, dag_id, listed in (
                ("watcher", "on_reply", scene.replies),
                ("by hand", "by_hand", by_hand),
            ):
                received = scene.received(dag_id)
                delays = sorted(received[id] - at for id, at in listed.items() if id in received)
                print(
                    f"{'':4}{name}: {len(listed)} replies, {len(listed.keys() - received.keys())} lost; ",
                    end="",
                )
                print(f"seconds from the listed reply to the task: median, p95, max{figures(delays)}")
            for sandbox in (lemlist, other):
                sandbox.accept_key(sandbox.api_key, "blocked")
            time.sleep(30)  # runs that began before
            failed = {dag_id: scene.ended(dag_id, "failed") for dag_id in ("on_reply", "by_hand")}
            ours, theirs = per_minute([lemlist, other], 2)
            row("with a blocked key: 1 watcher", ours)
            row("with a blocked key: continuous DAG", theirs)
            for dag_id, before in failed.items():
                print(
                    f"{'':4}{dag_id}: {(scene.ended(dag_id, 'failed') - before) / 2:.1f} failed runs a minute"
                )


async def in_one_loop(given: argparse.Namespace, interval: float) -> float:
    """Return the requests a minute of watchers and sensors as Airflow's triggerer runs them."""
    from airflow_provider_lemlist.triggers.activity import ActivityTrigger
    from airflow_provider_lemlist.triggers.events import ActivityEventTrigger

    async def run(trigger: Any) -> None:
        async for _ in trigger.run():
            pass

    with Sandbox() as lemlist:
        os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = lemlist.airflow_connection()
        campaign = lemlist.campaign()["_id"]
        leads = [lemlist.lead(campaign, f"p{number}@example.com")["_id"] for number in range(given.sensors)]
        since = datetime.now(UTC).isoformat()
        triggers: list[Any] = [
            ActivityEventTrigger([*TYPES], campaign_id=campaign, poll_interval=interval, batch=100 + number)
            for number in range(100)
        ]
        triggers += [
            ActivityTrigger(
                "emailsReplied", since=since, campaign_id=campaign, lead_id=lead, poke_interval=interval
            )
            for lead in leads
        ]
        tasks = [asyncio.create_task(run(trigger)) for trigger in triggers]
        await asyncio.sleep(interval)
        before = len(lemlist.requests(LOOKS))
        await asyncio.sleep(given.minutes * 60)
        number = (len(lemlist.requests(LOOKS)) - before) / given.minutes
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return number


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=("chaos", "delay", "pause", "requests"))
    parser.add_argument("--minutes", type=float, default=5, help="minutes of trouble, or of each measurement")
    parser.add_argument("--calm", type=float, default=1, help="minutes before the trouble of chaos")
    parser.add_argument("--every", type=float, default=5, help="mean seconds between two replies")
    parser.add_argument("--interval", type=float, help="poll_interval; 5 in chaos and pause, otherwise 30")
    parser.add_argument("--sensors", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.scenario == "chaos":
        return chaos(given)
    if given.scenario == "delay":
        return chaos(given, trouble=False)
    return pause(given) if given.scenario == "pause" else count_requests(given)


if __name__ == "__main__":
    sys.exit(main())
