# SPDX-License-Identifier: Apache-2.0
"""Datasets are read completely, or the read fails: over HTTP, against the sandbox."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_lemlist.extract import slices
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)

Connect = Callable[..., LemlistHook]


# --- Activities that arrive and vanish while they are read ------------------------------------------------


class Changing:
    """
    A sandbox whose activities change between the requests of a read.

    :param rate: How many arrive with each request; half as many vanish.
    """

    def __init__(self, lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, rate: float = 0.7) -> None:
        self.lemlist = lemlist
        self.rng = random.Random(lemlist.service.world.team_id)
        self.rate = rate
        self.window: tuple[datetime, datetime] | None = None
        self.find = lemlist.service.world.find_activities

        def find_later(*args: Any, **filters: Any) -> Any:
            self.change()
            return self.find(*args, **filters)

        monkeypatch.setattr(lemlist.service.world, "find_activities", find_later)

    def change(self) -> None:
        if self.window is None:
            return
        rng, world = self.rng, self.lemlist.service.world
        since, until = (each.timestamp() for each in self.window)
        while rng.random() < self.rate / (1 + self.rate):
            near = self.find(since - 3, until + 3).all()
            moment = rng.uniform(since - 3, until + 3)
            if near and rng.random() < 0.5:
                moment = rng.choice(near).created_at
            lead = rng.choice(list(world.leads.values()))
            world.add_activity(lead, "emailsOpened", created_at=round(moment, 3), bot=False)
            if near and rng.random() < 0.5:
                world.remove_activity(rng.choice(near))

    def read(self, hook: LemlistHook, number: int) -> None:
        """Fill a window of its own, read it, and compare."""
        rng = self.rng
        since = MIDNIGHT + timedelta(days=number, milliseconds=rng.randrange(5000))
        until = since + rng.choice((timedelta(seconds=2), timedelta(minutes=5), timedelta(hours=20)))
        for burst in (1, 200):
            around = timedelta(seconds=3)
            count = rng.choice((0, 1, 50, 150, 250))
            self.lemlist.fill_activities(
                count, (since - around).timestamp(), (until + around).timestamp(), burst=burst
            )
        self.window = since, until
        began = time.time()
        rows = list(hook.read("activities", since=since, until=until))
        ended = time.time()
        self.window = None

        found = [row["id"] for row in rows]
        ever, always = set[str](), set[str]()
        for activity, listed_at, vanished_at in self.lemlist.activity_history():
            if since <= datetime.fromisoformat(activity["createdAt"]) < until:
                ever.add(activity["_id"])
                if listed_at < began and (vanished_at is None or vanished_at > ended):
                    always.add(activity["_id"])
        assert always - set(found) == set(), "lost"
        assert len(set(found)) == len(found), "twice"
        assert set(found) <= ever
        keys = [(row["created_at"], row["id"]) for row in rows]
        assert keys == sorted(keys)


@pytest.fixture
def small_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "WORTH_HALVING", 60)


def read_many(
    numbers: range, connect: Connect, monkeypatch: pytest.MonkeyPatch, *faults: dict[str, Any], **options: Any
) -> None:
    """Read windows of a sandbox, whose faults apply to 10 % of the requests."""
    with Sandbox(limit="none", seed=numbers.start, **options) as lemlist:
        changing = Changing(lemlist, monkeypatch)
        for fault in faults:
            lemlist.fault("GET /activities", probability=0.1, **fault)
        hook = connect(lemlist, timeout=1)
        for number in numbers:
            changing.read(hook, number)
        hook.close()


@pytest.mark.usefixtures("small_halves")
def test_activities_that_arrive_and_vanish_are_neither_lost_nor_read_twice(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_many(range(10), connect, monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("small_halves")
def test_two_hundred_reads_while_activities_arrive_and_vanish(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in range(10, 210, 20):
        read_many(range(start, start + 20), connect, monkeypatch)
