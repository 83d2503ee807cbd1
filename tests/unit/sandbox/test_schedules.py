# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

INVALID = {"error": "BadRequest", "message": "Bad team or invalid schedule fields"}


def test_a_new_campaign_has_a_schedule_in_its_time_zone(http: Client) -> None:
    campaign = http.post("/campaigns", json={"name": "Spring", "timezone": "Asia/Tokyo"}).json()
    (schedule,) = http.get(f"/campaigns/{campaign['_id']}/schedules/").json()
    assert [schedule["_id"]] == campaign["scheduleIds"]
    assert schedule == http.get(f"/schedules/{schedule['_id']}").json()
    assert {name: schedule[name] for name in ("name", "timezone", "start", "end", "weekdays")} == {
        "name": "Default schedule",
        "timezone": "Asia/Tokyo",
        "start": "09:00",
        "end": "18:00",
        "weekdays": [1, 2, 3, 4, 5],
    }


def test_a_schedule_is_created_read_updated_and_deleted(lemlist: Sandbox, http: Client) -> None:
    mornings = {"name": "Mornings", "end": "12:00", "weekdays": [1, 7], "secondsToWait": 60}
    created = http.post("/schedules", json=mornings).json()
    path = f"/schedules/{created['_id']}"
    assert created["_id"].startswith("skd_")
    assert created == {**created, **mornings, "start": "09:00", "timezone": "Europe/Paris", "public": False}
    updated = http.patch(path, json={"start": "08:30"}).json()
    assert updated == {**created, "start": "08:30"} == http.get(path).json()
    assert lemlist.state()["schedules"] == [updated]
    assert http.delete(path).json() == {"_id": created["_id"]}
    assert (http.get(path).status_code, http.get(path).text) == (404, "Schedule not found")
    assert lemlist.violations() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "9:00"},
        {"end": "24:00"},
        {"weekdays": [0]},
        {"weekdays": [8]},
        {"weekdays": ["monday"]},
        {"weekdays": 1},
        {"timezone": "Mars"},
        {"secondsToWait": "60"},
        {"public": 1},
        {"_id": "skd_1"},
    ],
    ids=str,
)
def test_an_invalid_schedule_is_refused(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], wrong: dict[str, Any]
) -> None:
    before = lemlist.state()["schedules"]
    for verb, path in (("POST", "/schedules"), ("PATCH", f"/schedules/{before[0]['_id']}")):
        response = http.request(verb, path, json=wrong)
        assert (response.status_code, response.json()) == (400, INVALID)
    assert lemlist.state()["schedules"] == before
    assert [each["rule"] for each in lemlist.violations()] == ["body", "body"]


def test_a_schedule_serves_several_campaigns_and_is_attached_once(lemlist: Sandbox, http: Client) -> None:
    schedule = http.post("/schedules", json={"name": "Mornings"}).json()["_id"]
    for campaign in (lemlist.campaign("A"), lemlist.campaign("B")):
        path = f"/campaigns/{campaign['_id']}"
        for _ in range(2):
            response = http.post(f"{path}/schedules/{schedule}")
            assert response.json() == {"scheduleId": schedule, "campaignId": campaign["_id"]}
        attached = [*campaign["scheduleIds"], schedule]
        assert [each["_id"] for each in http.get(f"{path}/schedules/").json()] == attached
        assert http.get(path).json()["scheduleIds"] == attached
    http.delete(f"/schedules/{schedule}")
    assert http.get(path).json()["scheduleIds"] == campaign["scheduleIds"]


def test_an_unknown_schedule_or_campaign_is_not_found(http: Client, campaign: dict[str, Any]) -> None:
    schedule = campaign["scheduleIds"][0]
    for verb, path, text in (
        ("POST", f"/campaigns/{campaign['_id']}/schedules/skd_0", "Schedule not found"),
        ("POST", f"/campaigns/cam_0/schedules/{schedule}", "Campaign not found"),
        ("GET", "/campaigns/cam_0/schedules/", "Campaign not found"),
        ("DELETE", "/schedules/skd_0", "Schedule not found"),
    ):
        response = http.request(verb, path)
        assert (response.status_code, response.text) == (404, text)
    response = http.patch("/schedules/skd_0", json={})
    assert (response.status_code, response.json()) == (404, {"error": "Schedule not found"})


def test_schedules_contain_the_next_page(http: Client) -> None:
    ids = [http.post("/schedules", json={}).json()["_id"] for _ in range(45)]
    seen: list[str] = []
    page: int | None = 1
    while page:
        response = http.get("/schedules", params={"page": page}).json()
        seen += [each["_id"] for each in response["schedules"]]
        page = response["pagination"]["nextPage"]
    assert seen == ids
    assert [each["_id"] for each in http.get("/schedules?offset=43").json()["schedules"]] == ids[43:]
