# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
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


# --- Which requests, how often ----------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "route",
    [
        "*", "* *", "POST *", "post /campaigns/{id}/leads/", "/team", "* /leads/*", "/leads/lea_*",
        "GET /lead?", "GET /[tx]eam", "GET /users/usr_[ab]", "* /campaigns/*/leads/*", "/*/stp_1",
        "*/cam_1/leads/", "GET /campaigns/cam_1/export/*",
        "GET /v2/unsubscribes/variables/%40norte.example", "POST /v2/unsubscribes/variables/",
    ],
)  # fmt: skip
def test_a_fault_on_a_route_of_the_sandbox_is_accepted(lemlist: Sandbox, route: str) -> None:
    lemlist.fault(route, "status")
    assert [each["route"] for each in lemlist.state()["faults"]] == [route]


@pytest.mark.parametrize(
    ("route", "nearest"),
    [
        ("POST /campaigns/{campaignId}/leads", "POST /campaigns/{campaignId}/leads/"),
        ("POST /campaigns/cam_1/leads", "POST /campaigns/{campaignId}/leads/"),
        ("DELETE /team", "GET /team"),
        ("GET /teem", "GET /team"),
        ("POST /lead/review/*", "POST /leads/review/{leadId}"),
        ("POST /leads/reviews/*", "POST /leads/review/{leadId}"),
        ("POST /leads/review/", "POST /leads/review/{leadId}"),
        ("GET /activitys?version=v2", "GET /activities"),
        ("GET /users/*/mailboxes", "GET /users/{userId}"),
        ("GET /users/usr_1/usm_1", "GET /users/{userId}"),
        ("PUT /leads/lea_q8Zr2LmXw4TbYc1Ns", "GET /leads/{email}"),
        ("GET /campaigns/{campaignId}/leads/*", "GET /campaigns/{campaignId}/leads/"),
        ("GET /campaigns/*/statuses", "GET /campaigns/{campaignId}/statutes"),
    ],
)
def test_a_fault_on_no_route_of_the_sandbox_is_refused_with_the_nearest_routes(
    lemlist: Sandbox, http: Client, route: str, nearest: str
) -> None:
    with pytest.raises(ValueError, match="matches no route of the sandbox") as error:
        lemlist.fault(route, "status")
    assert nearest in str(error.value).partition("the nearest are: ")[2].split(", ")
    response = http.post(f"{lemlist.origin}/_sandbox/faults", json={"route": route, "kind": "status"})
    assert (response.status_code, response.json()) == (400, {"error": str(error.value)})
    assert lemlist.state()["faults"] == []


def test_a_fault_applies_the_given_times_after_skipped_requests(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("GET /team", "status", status=503, times=2, skip=1)
    assert [http.get("/team").status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert lemlist.state()["faults"][0]["applied"] == 2


def test_a_probability_is_seeded(lemlist: Sandbox) -> None:
    def selections(seed: int) -> list[bool]:
        script = Script(seed)
        script.add(Fault("*", "status", probability=0.3))
        return [script.select("GET", None, "/") is not None for _ in range(200)]

    assert selections(1) == selections(1) != selections(2)
    assert 30 < sum(selections(1)) < 90


def test_faults_are_added_listed_and_cleared_over_http(lemlist: Sandbox, http: Client) -> None:
    control = f"{lemlist.origin}/_sandbox/faults"
    added = http.post(control, json={"route": "GET /team", "kind": "status", "status": 502})
    assert (added.status_code, added.json()["when"]) == (200, "before")
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
        {"route": "*", "kind": "reset", "status": 502},
        {"route": "*", "kind": "cdn", "text": "no"},
        {"route": "*", "kind": "status", "where": "campaign"},
        {"route": "*", "kind": "missing_id", "when": "before"},
        {"route": "*", "kind": "truncated", "when": "before"},
        {"route": "*", "kind": "truncated", "rows": -1},
        {"route": "*", "kind": "wrapped", "when": "after"},
        {"route": "*", "kind": "wrapped", "rows": 1},
        {"route": "*", "kind": "unbounded", "when": "after"},
        {"route": "*", "kind": "redirect", "location": "http://a\n"},
        {"route": 5, "kind": "reset"},
        {"route": "GET team", "kind": "reset"},
        {"route": "GET /api/team", "kind": "reset"},
        {"route": "*", "kind": "ignored"},
        {"route": "GET /campaigns/*/leads/*", "kind": "ignored"},
        {"route": "PATCH /leads/{leadId}/variables", "kind": "ignored"},
        {"route": "PATCH /campaigns/*/leads/*", "kind": "ignored", "when": "after"},
    ],
    ids=str,
)
def test_an_invalid_fault_is_refused(lemlist: Sandbox, http: Client, wrong: dict[str, Any]) -> None:
    assert http.post(f"{lemlist.origin}/_sandbox/faults", json=wrong).status_code == 400
    assert lemlist.state()["faults"] == []


# --- Each kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "details"),
    [("status", {"status": 502}), ("html", {}), ("empty", {}), ("rate_limited", {}), ("redirect", {})],
)
def test_a_faulty_response_comes_before_or_after_the_effect(
    lemlist: Sandbox, http: Client, leads: str, kind: str, details: dict[str, Any], when: str
) -> None:
    lemlist.fault(CREATE, kind, when=when, **details)
    response = http.post(leads, json=ANA, allow_redirects=False)
    expected = {"status": 502, "html": 200, "empty": 200, "rate_limited": 429, "redirect": 302}
    assert response.status_code == expected[kind]
    assert response.headers["X-RateLimit-Limit"] == "20"
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
def test_a_hanging_request_gets_no_response(lemlist: Sandbox, http: Client, leads: str, when: str) -> None:
    lemlist.fault(CREATE, "hang", when=when)
    with pytest.raises(requests.ReadTimeout):
        http.post(leads, json=ANA, timeout=(LONGEST, 0.2))
    # The request hangs until its client disconnects; then its entry in the log is completed.
    wait_for(lambda: [each for each in lemlist.requests("POST *") if each["milliseconds"]])
    assert count(lemlist) == (when == "after")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_slow_request_gets_its_response(lemlist: Sandbox, http: Client, leads: str, when: str) -> None:
    lemlist.fault(CREATE, "slow", when=when, seconds=0.2)
    started = time.monotonic()
    assert http.post(leads, json=ANA).json()["email"] == ANA["email"]
    assert time.monotonic() - started >= 0.2
    assert count(lemlist) == 1


def test_a_response_can_lack_its_id(lemlist: Sandbox, http: Client, leads: str) -> None:
    lemlist.fault(CREATE, "missing_id")
    response = http.post(leads, json=ANA).json()
    assert response["email"] == ANA["email"]
    assert "_id" not in response
    assert count(lemlist) == 1


@pytest.mark.parametrize("status", [400, 409, 500])
@pytest.mark.parametrize(
    ("where", "text"),
    [("campaign", "Lead already in the campaign"), ("elsewhere", "Lead already in other campaign")],
)
def test_a_duplicate_can_have_each_status(
    lemlist: Sandbox, http: Client, leads: str, status: int, where: str, text: str
) -> None:
    lemlist.fault(CREATE, "duplicate", where=where, status=status)
    response = http.post(leads, json=ANA)
    assert (response.status_code, response.text) == (status, text)
    assert count(lemlist) == 0


def test_the_cdn_responds_without_the_headers_of_the_api(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "cdn")
    response = http.get("/team")
    assert (response.status_code, response.text) == (403, "error code: 1010")
    assert "Retry-After" not in response.headers


def test_an_injected_429_has_its_own_retry_after(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "rate_limited", times=2, seconds=0.5)
    responses = [http.get("/team") for _ in range(3)]
    assert [each.status_code for each in responses] == [429, 429, 200]
    assert (responses[0].headers["Retry-After"], responses[0].headers["X-RateLimit-Remaining"]) == (
        "0.5",
        "0",
    )
    assert lemlist.violations() == [], "an injected fault is no violation of the client"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("status", "title"), [(404, "404 Not Found"), (502, "502 Bad Gateway")])
def test_a_gateway_responds_with_an_html_page_under_the_given_status(
    lemlist: Sandbox, http: Client, leads: str, status: int, title: str, when: str
) -> None:
    lemlist.fault(CREATE, "html", status=status, when=when)
    response = http.post(leads, json=ANA)
    assert (response.status_code, response.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert f"<title>{title}</title>" in response.text
    assert "X-RateLimit-Limit" not in response.headers, "the response is not of the API"
    assert count(lemlist) == (when == "after")


def test_an_html_page_can_have_any_text(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "html", status=520, text="<h1>down</h1>")
    response = http.get("/team")
    assert (response.status_code, response.text) == (520, "<h1>down</h1>")


@pytest.mark.parametrize(
    "route", ["PATCH /campaigns/*/leads/*", "PATCH /campaigns/{campaignId}/leads/{leadId}"]
)
def test_an_ignored_change_is_answered_as_if_it_had_worked_and_has_no_effect(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], route: str
) -> None:
    lead = lemlist.lead(campaign["_id"], "ana@example.com", jobTitle="CTO")
    before = lemlist.state()["leads"]
    change = {"jobTitle": "CEO", "score": "9", "contactOwner": "x", "preferredContactMethod": "email"}
    path = f"/campaigns/{campaign['_id']}/leads/{lead['_id']}"
    lemlist.fault(route, "ignored", times=2)
    assert http.patch(path, json={"jobTitle": 1}).status_code == 400, "what is refused is still refused"
    response = http.patch(path, json=change)
    assert (response.status_code, response.json()["jobTitle"]) == (200, "CTO")
    assert not {"score", "preferredContactMethod"} & response.json().keys()
    assert lemlist.state()["leads"] == before
    assert lemlist.requests()[-1]["fault"] == "ignored"
    assert http.patch(path, json=change).json()["jobTitle"] == "CEO"


@pytest.mark.parametrize(("rows", "kept"), [(None, 2), (0, 0), (1, 1), (9, 5)])
def test_a_truncated_listing_has_only_its_first_rows(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], rows: int | None, kept: int
) -> None:
    for number in range(5):
        lemlist.lead(campaign["_id"], f"p{number}@example.com")
    path = f"/campaigns/{campaign['_id']}/leads/?state=all"
    for each in (path, "/contacts"):
        lemlist.fault(f"GET {each.partition('?')[0]}", "truncated", rows=rows)
    (whole, found), (whole_contacts, contacts) = (
        [http.get(each).json() for _ in range(2)][::-1] for each in (path, "/contacts")
    )
    assert found == whole[:kept]
    assert contacts == {**whole_contacts, "data": whole_contacts["data"][:kept]}, "the total is of all rows"
    assert len(whole) == len(whole_contacts["data"]) == 5


def test_a_wrapped_listing_is_its_first_page_again(lemlist: Sandbox, http: Client) -> None:
    for route, path in (("GET /companies", "/companies?limit=5"), ("GET /tasks", "/tasks?")):
        position = "offset=5" if "limit" in path else "page=1"
        first, second = (http.get(each).json() for each in (path, f"{path}&{position}"))
        lemlist.fault(route, "wrapped")
        assert http.get(f"{path}&{position}").json() == first != second


def test_an_unbounded_listing_ignores_its_window(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lead = lemlist.lead(campaign["_id"], "ana@example.com")["_id"]
    for moment in (1_000, 2_000, 3_000):
        lemlist.activity(lead_id=lead, type="emailsSent", created_at=moment)
    lemlist.fault("GET /activities", "unbounded")
    window = "/activities?version=v2&minDate=2000&maxDate=2500"
    assert [len(http.get(window).json()) for _ in range(2)] == [3, 1]


def test_an_empty_response_can_have_the_status_204(lemlist: Sandbox, http: Client, leads: str) -> None:
    lemlist.fault(CREATE, "empty", status=204)
    response = http.post(leads, json=ANA)
    assert (response.status_code, response.content, count(lemlist)) == (204, b"", 1)
    assert http.get("/team").status_code == 200, "the connection is still usable"


# --- Outages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 503}, {"kind": "reset", "when": "before"}], ids=str
)
def test_a_fault_applies_to_every_route_until_it_is_cleared(
    lemlist: Sandbox, http: Client, leads: str, fault: dict[str, Any]
) -> None:
    def statuses() -> list[int | None]:
        for method, path in (("GET", "/team"), ("POST", leads), ("GET", "/nowhere")):
            with contextlib.suppress(requests.ConnectionError):
                http.request(method, path, json=ANA)
        return [each["status"] for each in lemlist.requests()[-3:]]

    lemlist.fault("*", probability=1, **fault)
    assert statuses() == [fault.get("status")] * 3
    assert count(lemlist) == 0
    lemlist.clear_faults()
    assert statuses() == [200] * 3


def test_an_unreachable_sandbox_refuses_connections_and_keeps_its_data(
    lemlist: Sandbox, http: Client, leads: str
) -> None:
    for number in range(2):
        lemlist.fault("POST *", "hang")
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(http.post, leads, json={"email": f"p{number}@example.com"})
            wait_for(lambda: len(lemlist.requests("POST *")) > number)  # noqa: B023
            with lemlist.unreachable():
                with pytest.raises(requests.ConnectionError, match=r"reset by peer|aborted"):
                    hanging.result(LONGEST)
                for url in (f"{lemlist.url}/team", lemlist.origin):
                    with pytest.raises(requests.ConnectionError, match="refused"):
                        http.get(url)
        assert http.get("/team").status_code == 200
        assert count(lemlist) == number + 1


def test_a_redirect_has_the_given_location(lemlist: Sandbox, http: Client) -> None:
    lemlist.fault("*", "redirect", status=307, location="http://127.0.0.1:9/elsewhere")
    response = http.get("/team", allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (307, "http://127.0.0.1:9/elsewhere")


def test_every_kind_of_fault_is_tested() -> None:
    tested = (
        "status html empty rate_limited redirect reset cut_body hang slow missing_id duplicate cdn ignored "
        "truncated wrapped unbounded"
    )
    assert set(tested.split()) == set(KINDS)
