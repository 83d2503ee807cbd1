# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox, request_log
from airflow_provider_lemlist.sandbox.request_log import RequestLog
from tests.unit.sandbox.conftest import Client


def test_each_request_is_logged(lemlist: Sandbox, http: Client, campaign: dict[str, Any]) -> None:
    http.get("/team?version=v2", headers={"User-Agent": "mine/1.0"})
    http.post(f"/campaigns/{campaign['_id']}/leads/", json={"email": "ana@example.com"}, auth=("", "other"))
    first, second = lemlist.state()["requests"]
    assert (first["method"], first["path"], first["query"], first["status"]) == (
        "GET",
        "/team",
        "version=v2",
        200,
    )
    assert (first["user_agent"], first["route"]) == ("mine/1.0", "/team")
    assert (second["route"], second["status"]) == ("/campaigns/{campaignId}/leads/", 401)
    assert first["key"] != second["key"]
    assert first["monotonic"] < second["monotonic"]


def test_the_log_identifies_kept_alive_connections(lemlist: Sandbox, http: Client) -> None:
    for _ in range(3):
        http.get("/team")
    with Client(lemlist) as other:
        other.get("/team")
    ports = [each["connection"] for each in lemlist.state()["requests"]]
    assert len(set(ports[:3])) == 1
    assert ports[3] != ports[0]


def test_bodies_are_logged_unchanged_and_found_by_route(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    path = f"/campaigns/{campaign['_id']}/leads/"
    http.post(path, json={"email": "ana@example.com", "lastName": "Ñu"})
    http.post(path, data=b"\xff\xfe", headers={"Content-Type": "application/json"})
    http.get("/team")
    good, bad = lemlist.requests("POST /campaigns/{campaignId}/leads/")
    assert '"email": "ana@example.com"' in good["request"]["body"]
    assert '"_id": "lea_' in good["response"]["body"]
    assert base64.b64decode(bad["request"]["body"]) == b"\xff\xfe"
    assert good["request"]["headers"]["authorization"] == "Basic"
    over_http = http.get(f"{lemlist.origin}/_sandbox/requests", params={"route": "POST *"}).json()
    assert over_http == [good, bad]


def test_the_log_of_a_route_that_does_not_exist_is_refused(lemlist: Sandbox, http: Client) -> None:
    with pytest.raises(
        ValueError, match="matches no route of the sandbox; the nearest are: POST /leads/review/"
    ):
        lemlist.requests("POST /leads/reviews/*")
    response = http.get(f"{lemlist.origin}/_sandbox/requests?route=GET+/teem")
    assert (response.status_code, response.json()["error"][:16]) == (400, "route 'GET /teem")


def test_the_log_is_bounded_and_its_counts_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "BODY_LIMIT", 10)
    monkeypatch.setattr(request_log, "BODIES_LIMIT", 50)
    log = RequestLog(length=8)
    for number in range(20):
        exchange = log.open(
            time=0.0,
            monotonic=0.0,
            method="GET",
            path="/",
            query="",
            template=None,
            key="",
            connection=1,
            request_headers={},
            request_body=b"x" * 100,
        )
        exchange.status = 200 + number % 2
        log.close(exchange, 0.0)
    assert log.counts["requests"] == 20
    assert (log.counts["status 200"], log.counts["status 201"]) == (10, 10)
    assert [each.number for each in log.exchanges] == list(range(13, 21))
    assert sum(each.size for each in log.exchanges) <= 50
    shown = log.exchanges[-1].whole()["request"]
    assert (shown["body"], shown["complete"]) == ("x" * 10, False)
    assert log.exchanges[0].whole()["request"]["complete"] is False


def test_the_state_is_the_same_over_http_and_in_python(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lemlist.step(campaign["sequenceId"], "api", method="GET", url="https://example.com")
    lemlist.lead(campaign["_id"], "ana@example.com")
    state = http.get(f"{lemlist.origin}/_sandbox/state").json()
    assert state == lemlist.state()
    (sequence,) = state["campaigns"][0]["sequences"].values()
    assert sequence["steps"][0]["url"] == "https://example.com"
