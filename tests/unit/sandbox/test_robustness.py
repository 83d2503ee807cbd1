# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import random
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.routes import ROUTES, Route, table
from tests.unit.sandbox.conftest import Client

NAMES = (
    "email", "firstName", "type", "subject", "message", "images", "videos", "index", "delay", "conditionKey",
    "delayType", "campaignId", "url", "campaignIds", "startDate", "endDate", "sendUser", "channels", "values",
    "ABSelected", "name", "timezone", "autoReviewConditions", "sendUserIds", "preferredContactMethod",
    "method", "start", "weekdays", "secondsToWait", "tracking", "onReplied",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**400, float("nan"), "", "x", "\ud800", "a|b", "\0", "2026-01-01", "email",
    "conditional", "within", "https://a.example.com/x.png", "http://[::1", "09:00", [], ["x"], [1], [{}],
    [[]], {}, {"a": {}},
)  # fmt: skip
WORDS = (
    "", "--5", "-1", "9" * 5000, "\u0663", "nan", "inf", "true", "TRUE", "v2", "[", "[{}]", "all,", "a|b",
    "2026-01-01", "0001-01-01", "9999-12-31T23:59:59Z",
)  # fmt: skip


table()  # fills ROUTES


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_no_request_makes_the_sandbox_fail_internally(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], route: Route
) -> None:
    chance = random.Random(route.template)
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    step = lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")
    ids = {
        "{campaignId}": campaign["_id"],
        "{sequenceId}": campaign["sequenceId"],
        "{stepId}": step["_id"],
        "{contactId}": lead["contactId"],
        "{scheduleId}": campaign["scheduleIds"][0],
    }
    path = "/".join(ids.get(part, lead["_id"] if part.startswith("{") else part) for part in route.segments)
    for _ in range(40):
        query = {name: chance.choice(WORDS) for name in sorted(route.query or ()) if chance.random() < 0.4}
        body: Any = {name: chance.choice(VALUES) for name in chance.sample(NAMES, 5)}
        if "/steps" in path and chance.random() < 0.8:
            body["type"] = chance.choice(("email", "conditional", "sendToAnotherCampaign"))
        response = http.request(
            route.method,
            path,
            params=query,
            data=json.dumps(body) if route.method in ("POST", "PATCH") else None,
            headers={"Content-Type": "application/json"},
        )
        assert "sandbox failed internally" not in response.text, (query, body)
    for page in ("/", f"/campaigns/{campaign['_id']}?page={'9' * 5000}", "/_sandbox/state"):
        assert http.get(lemlist.origin + page).status_code == 200, page
