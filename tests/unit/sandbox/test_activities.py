# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import time
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.model import iso
from tests.unit.sandbox.conftest import Client

NOON = 1_790_000_000


@pytest.fixture
def lead(lemlist: Sandbox, campaign: dict[str, Any]) -> str:
    return str(lemlist.lead(campaign["_id"], "ana@example.com", firstName="Ana")["_id"])


def listed(http: Client, **query: Any) -> list[dict[str, Any]]:
    response = http.get("/activities", params={"version": "v2", **query})
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]  # JSON


def test_activities_are_sorted_newest_first(lemlist: Sandbox, http: Client, lead: str) -> None:
    for moment in (NOON, NOON + 20, NOON + 10):
        lemlist.activity(lead_id=lead, type="emailsOpened", created_at=moment)
    found = [each["createdAt"] for each in listed(http)]
    assert found == sorted(found, reverse=True)


def test_a_page_has_at_most_100_activities(lemlist: Sandbox, http: Client, lead: str) -> None:
    added = [
        lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON + number)["_id"]
        for number in range(120)
    ]
    pages = [listed(http, limit=limit, offset=offset) for limit, offset in ((100, 0), (100, 100), (500, 0))]
    assert [len(page) for page in pages] == [100, 20, 100]
    assert [each["_id"] for page in pages[:2] for each in page] == added[::-1]


def test_both_bounds_are_inclusive_in_both_formats(lemlist: Sandbox, http: Client, lead: str) -> None:
    for number in range(5):
        lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON + number)
    shown = [each["createdAt"] for each in listed(http)][::-1]
    assert len(listed(http, minDate=NOON + 1, maxDate=NOON + 3)) == 3
    assert len(listed(http, minDate=shown[1], maxDate=shown[3])) == 3
    assert len(listed(http, startDate=shown[1], endDate=shown[3])) == 3
    assert len(listed(http, minDate=shown[4], startDate=shown[0])) == 1, "minDate wins"


@pytest.mark.parametrize("least", [NOON, NOON + 1])
def test_the_upper_bound_must_be_greater_than_the_lower(lemlist: Sandbox, http: Client, least: int) -> None:
    response = http.get(f"/activities?version=v2&minDate={least}&maxDate={NOON}")
    assert response.status_code == 400
    assert lemlist.violations()[-1]["rule"] == "body"


def test_activities_are_filtered_by_type_campaign_lead_and_is_first(
    lemlist: Sandbox, http: Client, lead: str
) -> None:
    other = lemlist.lead(lemlist.campaign("Second")["_id"], "bo@example.com")
    for kind in ("emailsSent", "emailsOpened", "emailsOpened"):
        lemlist.activity(lead_id=lead, type=kind)
    lemlist.activity(lead_id=other["_id"], type="emailsOpened")
    assert len(listed(http, type="emailsOpened")) == 3
    assert len(listed(http, leadId=lead)) == 3
    assert len(listed(http, campaignId=other["campaignId"])) == 1
    assert len(listed(http, type="emailsOpened", isFirst="true")) == 2
    assert len(listed(http, type="emailsOpened", isFirst="false")) == 1


def test_any_page_of_any_window_and_filter_is_that_of_a_plain_scan(lemlist: Sandbox, http: Client) -> None:
    rng = random.Random(7)
    campaigns = [lemlist.campaign(name)["_id"] for name in ("A", "B")]
    leads = [lemlist.lead(rng.choice(campaigns), f"p{number}@example.com")["_id"] for number in range(6)]
    types = ("emailsSent", "emailsOpened")
    for _ in range(300):
        # Several activities have the same moment, and some differ by less than a millisecond.
        moment = NOON + rng.randrange(50) / 1000 + rng.choice((0, 0, 0.0004, 0.0009998))
        lemlist.activity(lead_id=rng.choice(leads), type=rng.choice(types), created_at=moment)
    world = lemlist.service.world
    for activity in rng.sample(world.activities, 40):
        world.remove_activity(activity)
    newest = lemlist.state()["activities"]
    assert [each["createdAt"] for each in newest] == sorted(
        (each["createdAt"] for each in newest), reverse=True
    )
    for _ in range(100):
        query: dict[str, Any] = {"offset": rng.randrange(60), "limit": rng.randrange(1, 30)}
        expected = newest
        for name, values in (("type", types), ("campaignId", campaigns), ("leadId", leads)):
            if rng.random() < 0.4:
                query[name] = rng.choice(values)
                expected = [each for each in expected if each[name] == query[name]]
        if rng.random() < 0.4:
            query["isFirst"] = "true"
            expected = [each for each in expected if each["isFirst"]]
        least, most = sorted(rng.sample(range(50), 2))
        for name, moment in (("minDate", NOON + least / 1000), ("maxDate", NOON + most / 1000)):
            query[name] = rng.choice((moment, iso(moment)))
        expected = [
            each
            for each in expected
            if iso(NOON + least / 1000) <= each["createdAt"] <= iso(NOON + most / 1000)
        ]
        page = expected[query["offset"] : query["offset"] + query["limit"]]
        assert [each["_id"] for each in listed(http, **query)] == [each["_id"] for each in page], query


def test_a_removed_lead_takes_its_activities_along_also_those_listed_later(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], lead: str
) -> None:
    other = lemlist.lead(campaign["_id"], "bo@example.com")["_id"]
    world = lemlist.service.world
    for lead_id in (lead, other):
        lemlist.activity(lead_id=lead_id, type="emailsSent")
        world.add_activity(world.lead(lead_id), "emailsOpened", listed_at=world.clock() + 100)
    assert http.delete(f"/campaigns/{campaign['_id']}/leads/{lead}?action=remove").status_code == 200
    world.clock = lambda: time.time() + 200
    assert [each["leadId"] for each in listed(http)] == [other, other]


def test_a_page_can_be_smaller_than_its_limit() -> None:
    with Sandbox(limit="none", activity_page_limit=3) as lemlist, Client(lemlist) as http:
        lead = lemlist.lead(lemlist.campaign()["_id"], "ana@example.com")["_id"]
        added = [
            lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON + number)["_id"]
            for number in range(7)
        ]
        pages = [listed(http, limit=limit, offset=offset) for limit, offset in ((100, 0), (100, 3), (2, 6))]
        assert [[each["_id"] for each in page] for page in pages] == [
            added[:3:-1],
            added[3:0:-1],
            added[:1],
        ]


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="must be 1 to 100"):
        Sandbox(activity_page_limit=limit)


def test_an_unknown_type_is_refused(http: Client) -> None:
    assert http.get("/activities?version=v2&type=emailOpened").status_code == 400


def test_an_activity_contains_its_step_and_the_name_of_that_time(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], lead: str
) -> None:
    step = lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")
    lemlist.activity(lead_id=lead, type="emailsReplied", step_id=step["_id"])
    http.patch(f"/campaigns/{campaign['_id']}/leads/{lead}", json={"firstName": "Anna"})
    (found,) = listed(http)
    assert (found["stepId"], found["sequenceId"]) == (step["_id"], campaign["sequenceId"])
    assert (found["leadFirstName"], found["lead"]["variables"]["firstName"]) == ("Ana", "Anna")
    assert found["lead"]["state"] == "emailsReplied"


def test_without_version_v2_the_variables_are_at_the_top_level(
    lemlist: Sandbox, http: Client, lead: str
) -> None:
    lemlist.activity(lead_id=lead, type="emailsReplied")
    (found,) = http.get("/activities").json()
    assert found["firstName"] == "Ana"
    assert "lead" not in found
    assert lemlist.violations()[-1]["rule"] == "query"


# --- Added through the controls ---------------------------------------------------------------------------


def test_an_activity_can_be_marked_as_caused_by_a_bot(lemlist: Sandbox, http: Client, lead: str) -> None:
    lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON)
    lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON + 1, bot=True)
    body = {"leadId": lead, "type": "emailsClicked", "createdAt": NOON + 2, "bot": True}
    http.post(f"{lemlist.origin}/_sandbox/activities", json=body)
    assert [each["bot"] for each in listed(http)] == [True, True, False]


def test_an_activity_is_added_over_http_with_its_time(lemlist: Sandbox, http: Client, lead: str) -> None:
    control = f"{lemlist.origin}/_sandbox/activities"
    for moment in (NOON, "2026-03-02T10:00:00Z"):
        http.post(control, json={"leadId": lead, "type": "emailsReplied", "createdAt": moment})
    found = [each["createdAt"] for each in listed(http)]
    assert found == ["2026-09-21T14:13:20.000Z", "2026-03-02T10:00:00.000Z"]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"type": 5}, 400),
        ({"createdAt": "soon"}, 400),
        ({"createdAt": 1e18}, 400),
        ({"stepId": "stp_none"}, 404),
        ({"leadId": "lea_none"}, 404),
        ({"step": "stp_none"}, 400),
        ({"bot": "yes"}, 400),
    ],
    ids=str,
)
def test_an_invalid_activity_is_refused(
    lemlist: Sandbox, http: Client, lead: str, wrong: dict[str, Any], status: int
) -> None:
    body = {"leadId": lead, "type": "emailsReplied", **wrong}
    assert http.post(f"{lemlist.origin}/_sandbox/activities", json=body).status_code == status
    assert http.get(f"{lemlist.origin}/_sandbox/state").json()["activities"] == []
