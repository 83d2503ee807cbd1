# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.faults import KINDS, Fault, Script, matches
from tests.unit.sandbox.conftest import Client
from tests.waiting import LONGEST, wait_for

CREATE = "POST /campaigns/{campaignId}/leads/"
ANA = {"email": "ana@example.com"}


@pytest.fixture
def leads(campaign: dict[str, Any]) -> str:
    return f"/campaigns/{campaign['_id']}/leads/"


def count(lemlist: Sandbox) -> int:
    return len(lemlist.state()["leads"])


# --- Which request, how often -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "applied"),
    [
        ("*", True),
        ("* *", True),
        ("POST *", True),
        ("GET *", False),
        ("post /campaigns/{campaignId}/leads/", True),
        ("POST /campaigns/{id}/leads/", True),
        ("/campaigns/{id}/leads/", True),
        ("POST /campaigns/cam_1/leads/", True),
        ("POST /campaigns/*", True),
        ("POST /campaigns/{id}/leads", False),
        ("POST /campaigns/cam_2/leads/", False),
    ],
)
def test_a_route_is_a_documented_path_or_one_with_wildcards(route: str, applied: bool) -> None:
    path = "/campaigns/cam_1/leads/"
    assert matches(route, "POST", "/campaigns/{campaignId}/leads/", path) is applied


def test_a_fault_strikes_as_often_as_it_says_after_those_it_skips(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("GET /team", "status", status=503, times=2, skip=1)
    assert [http.get("/team").status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert lemlist.state()["faults"][0]["applied"] == 2


def test_a_chance_is_seeded(lemlist: Sandbox) -> None:
    def selections(seed: int) -> list[bool]:
        script = Script(seed)
        script.add(Fault("*", "status", probability=0.3))
        return [script.select("GET", None, "/") is not None for _ in range(200)]

    assert selections(1) == selections(1) != selections(2)
    assert 30 < sum(selections(1)) < 90


def test_faults_are_set_read_and_cleared_by_http(lemlist: Sandbox, http: Client) -> None:
    control = f"{lemlist.origin}/_sandbox/faults"
    made = http.post(control, json={"route": "GET /team", "kind": "status", "status": 502})
    assert (made.status_code, made.json()["when"]) == (200, "before")
    assert len(http.get(control).json()) == 1
    assert http.get("/team").status_code == 502
    http.post(control, json={"route": "*", "kind": "reset", "probability": 1})
    http.delete(control)
    assert http.get("/team").status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"route": "*"},
        {"route": "*", "kind": "earthquake"},
        {"route": "*", "kind": "reset", "when": "later"},
        {"route": "*", "kind": "reset", "colour": "red"},
        {"route": "*", "kind": "reset", "probability": 2},
        {"route": "*", "kind": "duplicate", "where": "moon"},
        {"route": "*", "kind": "reset", "times": "3"},
        {"route": "*", "kind": "reset", "skip": -1},
        {"route": "*", "kind": "slow", "seconds": "1"},
        {"route": "*", "kind": "status", "status": 99},
        {"route": "*", "kind": "status", "text": 5},
        {"route": "*", "kind": "redirect", "location": "http://a\n"},
        {"route": 5, "kind": "reset"},
        {"route": "GET team", "kind": "reset"},
        {"route": "GET /api/team", "kind": "reset"},
    ],
    ids=str,
)
def test_a_bad_fault_is_refused(lemlist: Sandbox, http: Client, wrong: dict[str, Any]) -> None:
    assert http.post(f"{lemlist.origin}/_sandbox/faults", json=wrong).status_code == 400
    assert lemlist.state()["faults"] == []


# --- What each kind does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "details"),
    [("status", {"status": 502}), ("html", {}), ("empty", {}), ("rate_limited", {}), ("redirect", {})],
)
def test_a_wrong_answer_comes_before_or_after_the_effect(
    lemlist: Sandbox, http: Client, leads: str, kind: str, details: dict[str, Any], when: str
) -> None:
    lemlist.fault(CREATE, kind, when=when, **details)
    answer = http.post(leads, json=ANA, allow_redirects=False)
    expected = {"status": 502, "html": 200, "empty": 200, "rate_limited": 429, "redirect": 302}
    assert answer.status_code == expected[kind]
    assert answer.headers["X-RateLimit-Limit"] == "20"
    assert count(lemlist) == (when == "after")
    assert lemlist.requests()[-1]["fault"] == kind


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "cut_body"])
def test_a_broken_connection_comes_before_or_after_the_effect(
    lemlist: Sandbox, http: Client, leads: str, kind: str, when: str
) -> None:
    lemlist.fault(CREATE, kind, when=when)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)) as broken:
        http.post(leads, json=ANA)
    assert ("reset by peer" if kind == "reset" else "IncompleteRead") in str(broken.value)
    assert count(lemlist) == (when == "after")
    assert http.get("/team").status_code == 200
    assert lemlist.requests()[0]["status"] is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hanging_request_never_answers(lemlist: Sandbox, http: Client, leads: str, when: str) -> None:
    lemlist.fault(CREATE, "hang", when=when)
    with pytest.raises(requests.ReadTimeout):
        http.post(leads, json=ANA, timeout=(LONGEST, 0.2))
    # It hangs until its client has gone, and only then its entry in the log is complete.
    wait_for(lambda: [each for each in lemlist.requests("POST *") if each["milliseconds"]])
    assert count(lemlist) == (when == "after")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_slow_request_answers_in_the_end(lemlist: Sandbox, http: Client, leads: str, when: str) -> None:
    lemlist.fault(CREATE, "slow", when=when, seconds=0.2)
    started = time.monotonic()
    assert http.post(leads, json=ANA).json()["email"] == ANA["email"]
    assert time.monotonic() - started >= 0.2
    assert count(lemlist) == 1


def test_an_answer_may_lack_its_id(lemlist: Sandbox, http: Client, leads: str) -> None:
    lemlist.fault(CREATE, "missing_id")
    answer = http.post(leads, json=ANA).json()
    assert answer["email"] == ANA["email"]
    assert "_id" not in answer
    assert count(lemlist) == 1


@pytest.mark.parametrize("status", [400, 409, 500])
@pytest.mark.parametrize(
    ("where", "text"),
    [("campaign", "Lead already in the campaign"), ("elsewhere", "Lead already in other campaign")],
)
def test_a_duplicate_comes_under_each_status(
    lemlist: Sandbox, http: Client, leads: str, status: int, where: str, text: str
) -> None:
    lemlist.fault(CREATE, "duplicate", where=where, status=status)
    answer = http.post(leads, json=ANA)
    assert (answer.status_code, answer.text) == (status, text)
    assert count(lemlist) == 0


def test_the_cdn_answers_without_the_headers_of_the_api(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "cdn")
    answer = http.get("/team")
    assert (answer.status_code, answer.text) == (403, "error code: 1010")
    assert "Retry-After" not in answer.headers


def test_a_scripted_429_names_its_own_wait(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "rate_limited", times=2, seconds=0.5)
    answers = [http.get("/team") for _ in range(3)]
    assert [each.status_code for each in answers] == [429, 429, 200]
    assert (answers[0].headers["Retry-After"], answers[0].headers["X-RateLimit-Remaining"]) == ("0.5", "0")
    assert lemlist.violations() == [], "the client did nothing wrong"


def test_a_redirect_points_where_the_script_says(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "redirect", status=307, location="http://127.0.0.1:9/elsewhere")
    answer = http.get("/team", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "http://127.0.0.1:9/elsewhere")


def test_every_kind_was_tried_here() -> None:
    tried = "status html empty rate_limited redirect reset cut_body hang slow missing_id duplicate cdn"
    assert set(tried.split()) == set(KINDS)
