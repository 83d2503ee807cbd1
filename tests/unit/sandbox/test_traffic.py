# SPDX-License-Identifier: Apache-2.0
"""Activities that are generated, listed late, completed later, and vanish while a client reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.traffic import Churn
from tests.unit.sandbox.conftest import Client
from tests.unit.sandbox.test_activities import NOON, listed
from tests.waiting import wait_for

DAY = 86_400


@pytest.fixture
def lead(lemlist: Sandbox, campaign: dict[str, Any]) -> str:
    return str(lemlist.lead(campaign["_id"], "ana@example.com", firstName="Ana")["_id"])


@pytest.fixture
def later(lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass for the sandbox's data."""
    passed = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(lemlist.service.world, "clock", lambda: time.time() + passed)
    return pass_time


def ids(activities: list[dict[str, Any]]) -> list[str]:
    return [each["_id"] for each in activities]


# --- Filled -----------------------------------------------------------------------------------------------


def test_a_sandbox_is_filled_with_activities_of_a_window(lemlist: Sandbox, http: Client) -> None:
    for count in (1_500, 500):
        lemlist.fill_activities(count, NOON, NOON + DAY)
    state = lemlist.state()
    found = state["activities"]
    assert found == sorted(found, key=lambda each: str(each["createdAt"]), reverse=True)
    assert len(set(ids(found))) == 2_000
    assert len(listed(http, minDate=NOON, maxDate=NOON + DAY - 0.001, offset=1_950)) == 50
    assert len({each["campaignId"] for each in found}) == len(state["campaigns"]) == 4
    assert len({each["leadId"] for each in found}) > 500
    assert len({each["type"] for each in found}) > 5
    assert {each["stepId"] for each in found} == {
        step["_id"]
        for campaign in state["campaigns"]
        for sequence in campaign["sequences"].values()
        for step in sequence["steps"]
    }


def test_the_leads_that_exist_are_used(lemlist: Sandbox, http: Client, lead: str) -> None:
    http.post(
        f"{lemlist.origin}/_sandbox/activities/fill",
        json={"count": 20, "since": "2026-03-02T10:00:00Z", "until": "2026-03-02T10:00:00.010Z"},
    )
    found = listed(http)
    assert {each["leadId"] for each in found} == {lead}
    assert {each["createdAt"][:22] for each in found} == {"2026-03-02T10:00:00.00"}
    assert len(found) == 20


def test_bursts_share_a_second_or_a_millisecond(lemlist: Sandbox) -> None:
    lemlist.fill_activities(500, NOON, NOON + 30 * DAY, burst=30)
    moments = [each["createdAt"] for each in lemlist.state()["activities"]]
    assert len({each[:19] for each in moments}) < 150 < len(set(moments)) < 450


def test_the_same_seed_gives_the_same_activities_and_changes() -> None:
    def history(seed: int) -> list[Any]:
        with Sandbox(seed=seed) as lemlist:
            lemlist.fill_activities(50, NOON, NOON + DAY, burst=3)
            traffic, world = lemlist.service.traffic, lemlist.service.world
            traffic.start(Churn(NOON, NOON + DAY, per_second=10))
            traffic.tick(world.clock() + 5)
            traffic.stop()
            return [
                (each["_id"], each["createdAt"], each["leadId"], each["type"], vanished_at is None)
                for each, _, vanished_at in lemlist.activity_history()
            ]

    assert history(1) == history(1) != history(2)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("activities/fill", {"count": -1}),
        ("activities/fill", {"count": "5"}),
        ("activities/fill", {"burst": 0}),
        ("activities/fill", {"until": NOON}),
        ("activities/fill", {"until": "soon"}),
        ("activities/fill", {"color": "red"}),
        ("churn", {"until": NOON}),
        ("churn", {"per_second": 0}),
        ("churn", {"inside": 2}),
        ("churn", {"vanish": -1}),
    ],
    ids=str,
)
def test_invalid_traffic_is_refused(lemlist: Sandbox, http: Client, path: str, wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"since": NOON, "until": NOON + 1, **({} if path == "churn" else {"count": 5})}
    response = http.post(f"{lemlist.origin}/_sandbox/{path}", json={**right, **wrong})
    assert (response.status_code, lemlist.state()["activities"]) == (400, [])


# --- Late and completed -----------------------------------------------------------------------------------


def test_a_late_activity_is_listed_from_its_moment_on_with_its_old_time(
    lemlist: Sandbox, http: Client, lead: str, later: Callable[[float], None]
) -> None:
    soon = time.time() + 100
    first = lemlist.activity(lead_id=lead, type="emailsSent", created_at=NOON)
    late = lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON - 5, listed_at=soon)
    body = {"leadId": lead, "type": "emailsReplied", "createdAt": NOON + 5, "listedAt": soon + 100}
    latest = http.post(f"{lemlist.origin}/_sandbox/activities", json=body).json()
    assert ids(listed(http)) == [first["_id"]]
    later(150)
    assert ids(listed(http)) == [first["_id"], late["_id"]]
    assert [each.listed_at for each in lemlist.activity_history()][1:] == [soon, soon + 100]
    later(100)
    assert ids(listed(http)) == [latest["_id"], first["_id"], late["_id"]]


def test_an_activity_without_a_step_is_completed_later(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], lead: str
) -> None:
    step = lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")["_id"]
    added = [lemlist.activity(lead_id=lead, type="emailsSent")["_id"] for _ in range(3)]
    assert not any("stepId" in each for each in listed(http))
    lemlist.complete_activity(added[0], step)
    http.patch(f"{lemlist.origin}/_sandbox/activities/{added[1]}", json={"stepId": step})
    assert [each.get("stepId") for each in listed(http)] == [None, step, step]
    for id_, body in ((added[2], {"stepId": "stp_none"}), ("act_none", {"stepId": step})):
        assert http.patch(f"{lemlist.origin}/_sandbox/activities/{id_}", json=body).status_code == 404


# --- Arriving and vanishing -------------------------------------------------------------------------------


def test_a_removed_activity_is_kept_only_in_the_history(lemlist: Sandbox, http: Client, lead: str) -> None:
    started = time.time()
    added = [lemlist.activity(lead_id=lead, type="emailsSent")["_id"] for _ in range(3)]
    lemlist.remove_activity(added[1])
    for status in (200, 404):
        assert http.delete(f"{lemlist.origin}/_sandbox/activities/{added[2]}").status_code == status
    assert ids(listed(http)) == added[:1]
    history = lemlist.activity_history()
    assert ids([each.activity for each in history]) == added
    assert [each.vanished_at is None for each in history] == [True, False, False]
    for each in history[1:]:
        assert each.vanished_at is not None
        assert started <= each.listed_at <= each.vanished_at <= time.time()
    assert http.get(f"{lemlist.origin}/_sandbox/activities").json() == [list(each) for each in history]


def test_activities_arrive_and_vanish_in_the_background_until_they_are_stopped(
    lemlist: Sandbox, http: Client
) -> None:
    control = f"{lemlist.origin}/_sandbox/churn"
    lemlist.fill_activities(50, NOON, NOON + 10)
    http.post(control, json={"since": NOON, "until": NOON + 10, "per_second": 400, "vanish": 0.5})
    wait_for(lambda: len(lemlist.activity_history()) > 250)
    before = len(lemlist.activity_history())
    http.delete(control)
    lemlist.service.traffic.tick(time.time() + 1)
    history = lemlist.activity_history()
    assert len(history) < before + 300, "400 more would have been due"
    window = {"minDate": NOON, "maxDate": NOON + 9.999}
    inside = [
        each for offset in range(0, len(history), 100) for each in listed(http, **window, offset=offset)
    ]
    there = {each.activity["_id"] for each in history if each.vanished_at is None}
    assert set(ids(lemlist.state()["activities"])) == there
    assert set(ids(inside)) < there, "some are outside the window"
    vanished = len(history) - len(there)
    assert 0.3 < vanished / (len(history) - 50) < 0.7


def test_every_new_activity_can_be_inside_or_outside_the_window(lemlist: Sandbox, http: Client) -> None:
    traffic, world = lemlist.service.traffic, lemlist.service.world
    for inside, expected in ((1.0, 20), (0.0, 0)):
        before = len(listed(http, minDate=NOON, maxDate=NOON + 9.999))
        lemlist.churn(NOON, NOON + 10, inside=inside, vanish=0)
        traffic.tick(world.clock() + 3.9)
        lemlist.stop_churn()
        traffic.tick(world.clock() + 100)
        assert len(listed(http, minDate=NOON, maxDate=NOON + 9.999)) - before == expected
    assert len(world.activities) == 40, "5 a second, the first at once"
