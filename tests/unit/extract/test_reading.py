# SPDX-License-Identifier: Apache-2.0
"""Datasets are read completely, or the read fails: over HTTP, against the sandbox."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_lemlist.datasets import DATASETS
from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)
from airflow_provider_lemlist.extract import slices
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox

MIDNIGHT = datetime(2024, 3, 2, tzinfo=UTC)

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
            count = rng.choice((0, 50, 150, 250))
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
            lemlist.fault("GET /activities", **{"probability": 0.1, **fault})
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


#: What may happen to a request of the list. ``hang`` costs a second each time, so it happens a few times.
FAULTS: dict[str, dict[str, Any]] = {
    "rate_limited": {"kind": "rate_limited"},
    "status 503": {"kind": "status", "status": 503},
    "reset": {"kind": "reset"},
    "slow": {"kind": "slow", "seconds": 0.03},
    "hang": {"kind": "hang", "times": 2},
    "cut_body": {"kind": "cut_body"},
    "html": {"kind": "html"},
    "html 502": {"kind": "html", "status": 502},
    "empty": {"kind": "empty"},
    "truncated": {"kind": "truncated"},
    "wrapped": {"kind": "wrapped"},
    "unbounded": {"kind": "unbounded"},
}


@pytest.mark.usefixtures("small_halves")
def test_faults_and_lies_hide_no_activities(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [{**fault, "probability": 0.01} for name, fault in FAULTS.items() if name != "hang"]
    read_many(range(300, 308), connect, monkeypatch, *mixed)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.usefixtures("small_halves")
def test_every_fault_on_a_tenth_of_the_requests_hides_no_activities(
    name: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_many(range(400, 415), connect, monkeypatch, FAULTS[name])


def test_an_activity_that_is_listed_late_is_found_when_its_window_is_read_again(
    lemlist: Sandbox, connect: Connect
) -> None:
    lemlist.fill_activities(5, MIDNIGHT.timestamp(), (MIDNIGHT + timedelta(hours=1)).timestamp())
    listed_at = time.time() + 0.5
    late = lemlist.activity(
        lead_id=lemlist.state()["leads"][0]["_id"],
        type="emailsReplied",
        created_at=MIDNIGHT.timestamp() + 60,
        listed_at=listed_at,
    )
    hook = connect(lemlist)
    window = {"since": MIDNIGHT, "until": MIDNIGHT + timedelta(hours=1)}
    before = [row["id"] for row in hook.read("activities", **window)]
    time.sleep(max(0.0, listed_at - time.time()) + 0.01)
    after = [row["id"] for row in hook.read("activities", **window)]
    assert len(before) == 5
    assert sorted(after) == sorted([*before, late["_id"]])


# --- Streams and threads ----------------------------------------------------------------------------------


def reading_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("lemlist-read")]


@pytest.fixture
def busy_hour(lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, small_halves: None) -> dict[str, datetime]:
    """An hour of 3,000 activities, most of them in its second half, whose requests take a moment."""
    monkeypatch.setattr(lemlist.service, "latency", 0.02)
    window = {"since": MIDNIGHT, "until": MIDNIGHT + timedelta(hours=1)}
    since, until = (each.timestamp() for each in window.values())
    lemlist.fill_activities(100, since, since + 1800)
    lemlist.fill_activities(2900, since + 1800, until)
    return window


def test_rows_are_typed_and_the_first_arrives_before_the_last_request_was_sent(
    lemlist: Sandbox, connect: Connect, busy_hour: dict[str, datetime]
) -> None:
    rows = connect(lemlist).read("activities", **busy_hour, columns=["id", "created_at", "is_first", "extra"])
    first = next(rows)
    so_far = len(lemlist.requests("GET /activities"))
    others = list(rows)
    assert so_far < len(lemlist.requests("GET /activities")) - 3
    assert len(others) == 2999
    assert [*first] == ["id", "created_at", "is_first", "extra"]
    assert isinstance(first["created_at"], datetime)
    assert isinstance(first["is_first"], bool)
    assert reading_threads() == []


def test_a_read_that_is_given_up_ends_its_threads(
    lemlist: Sandbox, connect: Connect, busy_hour: dict[str, datetime]
) -> None:
    rows = connect(lemlist).read("activities", **busy_hour)
    next(rows)
    so_far, threads = len(lemlist.requests("GET /activities")), len(reading_threads())
    assert threads
    rows.close()  # type: ignore[attr-defined]  # a generator
    assert reading_threads() == []
    requests = len(lemlist.requests("GET /activities"))
    assert requests <= so_far + threads
    time.sleep(0.2)
    assert len(lemlist.requests("GET /activities")) == requests


def test_an_error_in_a_thread_is_raised_with_its_class_instead_of_an_end(
    lemlist: Sandbox, connect: Connect, busy_hour: dict[str, datetime]
) -> None:
    lemlist.fault("GET /activities", "status", status=401, skip=12)
    rows = connect(lemlist).read("activities", **busy_hour)
    seen: list[Any] = []
    with pytest.raises(LemlistAuthError):
        seen.extend(rows)
    assert len(seen) < 3000
    assert reading_threads() == []


# --- All datasets -----------------------------------------------------------------------------------------

VARIABLES = {
    "lucky number": "7", "quoted": 'He said "no", twice', "lines": "one\ntwo\r\nthree", "ünï": "€ 5; 6",
}  # fmt: skip


def fill(lemlist: Sandbox) -> list[dict[str, Any]]:
    """Create three campaigns: with two leads and two steps, with one lead, and without any."""
    campaigns = [lemlist.campaign(name) for name in ("Spring", "Summer", "Autumn")]
    for number, (campaign, count) in enumerate(zip(campaigns, (2, 1, 0), strict=True)):
        for each in range(count):
            email = f"p{number}-{each}@example.com"
            lead = lemlist.lead(campaign["_id"], email, firstName="Ana", **VARIABLES)
            lemlist.activity(lead_id=lead["_id"], type="emailsSent", created_at=MIDNIGHT.timestamp())
    lemlist.step(campaigns[0]["sequenceId"], "email", subject="Hello", message="Hello {{firstName}}")
    lemlist.step(campaigns[0]["sequenceId"], "linkedinInvite", delay=1)
    return campaigns


@pytest.fixture
def team(lemlist: Sandbox) -> list[dict[str, Any]]:
    return fill(lemlist)


DAY = {"since": MIDNIGHT, "until": MIDNIGHT + timedelta(days=1)}


@pytest.mark.parametrize(
    ("dataset", "window", "count"),
    [
        ("activities", DAY, 3),
        ("leads", {}, 3),
        ("campaigns", {}, 3),
        ("campaign_stats", DAY, 5),
        ("sequences", {}, 2),
        ("unsubscribes", {}, 2),
        ("contacts", {}, 3),
        ("companies", {}, 230),
        ("team_members", {}, 2),
    ],
)
@pytest.mark.parametrize("campaign_list", ["array", "object"])
def test_every_dataset_is_read_with_its_columns_and_a_key_of_its_own(
    dataset: str, window: Any, count: int, campaign_list: str, connect: Connect
) -> None:
    with Sandbox(limit="none", campaign_list=campaign_list) as lemlist:
        fill(lemlist)
        hook = connect(lemlist)
        hook.unsubscribe_many(["ana@example.com", "@example.org"])
        rows = list(hook.read(dataset, **window))
    described = DATASETS[dataset]
    assert len(rows) >= count if dataset == "team_members" else len(rows) == count
    assert all([*row] == [column.name for column in described.columns] for row in rows)
    keys = {tuple(row[name] for name in described.key) for row in rows}
    assert len(keys) == len(rows)
    types = {"text": str, "json": str, "integer": int, "boolean": bool, "timestamp": datetime}
    for row in rows:
        for column in described.columns:
            assert row[column.name] is None or type(row[column.name]) is types[column.kind], column


def test_leads_of_several_campaigns_keep_their_campaign_and_their_variables(
    lemlist: Sandbox, connect: Connect, team: list[dict[str, Any]]
) -> None:
    hook = connect(lemlist)
    rows = list(hook.read("leads"))
    assert [(row["campaign_name"], row["email"]) for row in rows] == [
        ("Spring", "p0-0@example.com"), ("Spring", "p0-1@example.com"), ("Summer", "p1-0@example.com"),
    ]  # fmt: skip
    for row in rows:
        assert VARIABLES.items() <= json.loads(row["variables"]).items()  # type: ignore[arg-type]
    some = hook.read("leads", campaign_id=[team[1]["_id"], team[2]["_id"]], columns=["campaign_id"])
    assert list(some) == [{"campaign_id": team[1]["_id"]}]


@pytest.mark.parametrize("dataset", ["leads", "sequences", "campaign_stats"])
def test_an_unknown_campaign_is_refused_before_its_rows_are_requested(
    dataset: str, lemlist: Sandbox, connect: Connect, team: list[dict[str, Any]]
) -> None:
    window = DAY if dataset == "campaign_stats" else {}
    wanted = [team[0]["_id"], "cam_0123456789abcdefg"]
    with pytest.raises(LemlistValidationError, match="no campaign 'cam_0123456789abcdefg'"):
        list(connect(lemlist).read(dataset, campaign_id=wanted, **window))
    assert {each["path"] for each in lemlist.requests()} == {"/campaigns"}


def test_statistics_without_a_campaign_are_an_error_or_a_warning(
    lemlist: Sandbox, connect: Connect, team: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    hook = connect(lemlist)
    gone = team[1]["_id"]
    whole = hook.get_campaigns_stats

    def stats(*args: Any, **options: Any) -> dict[str, Any]:
        response = whole(*args, **options)
        return {**response, "results": [each for each in response["results"] if each["campaignId"] != gone]}

    monkeypatch.setattr(hook, "get_campaigns_stats", stats)
    problem = rf"no statistics for 1 of 3 campaigns \({gone}\)"
    with pytest.raises(LemlistError, match=rf"{problem}, and allow_missing is 0"):
        list(hook.read("campaign_stats", **DAY))
    rows = list(hook.read("campaign_stats", **DAY, allow_missing=1))
    assert {row["campaign_id"] for row in rows} == {team[0]["_id"], team[2]["_id"]}
    assert re.search(problem, caplog.text)


@pytest.mark.parametrize("shape", ["missing", "null", "empty"])
def test_a_team_without_users_has_no_rows(
    shape: str, lemlist: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(lemlist)
    users = {"missing": {}, "null": {"users": None}, "empty": {"users": []}}[shape]
    monkeypatch.setattr(hook, "get_team", lambda: {"_id": "tea_1", "name": "Team", **users})
    assert list(hook.read("team_members")) == []


def test_a_team_without_campaigns_has_no_leads(lemlist: Sandbox, connect: Connect) -> None:
    hook = connect(lemlist)
    for dataset in ("campaigns", "leads", "sequences"):
        assert list(hook.read(dataset)) == []
    assert list(hook.read("campaign_stats", **DAY)) == []


# --- Tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut_body", "html", "empty", "reset"])
def test_a_table_that_breaks_once_is_read_again(
    kind: str, lemlist: Sandbox, connect: Connect, team: list[dict[str, Any]]
) -> None:
    lemlist.fault("GET /campaigns/*/export/leads", kind, times=2)
    assert len(list(connect(lemlist).read("leads"))) == 3


def test_a_table_that_keeps_breaking_is_an_error(
    lemlist: Sandbox, connect: Connect, team: list[dict[str, Any]]
) -> None:
    lemlist.fault("GET /campaigns/*/export/leads", "html", probability=1.0)
    with pytest.raises(LemlistUnexpectedReplyError, match="HTML page"):
        list(connect(lemlist).read("leads"))
