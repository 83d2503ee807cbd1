# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

NOON = 1_790_000_000


@pytest.fixture
def lead(lemlist: Sandbox, campaign: dict[str, Any]) -> str:
    return str(lemlist.lead(campaign["_id"], "ana@example.com", firstName="Ana")["_id"])


def asked(http: Client, **query: Any) -> list[dict[str, Any]]:
    answer = http.get("/activities", params={"version": "v2", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]  # JSON


def test_the_newest_comes_first_whatever_the_order_of_arrival(
    lemlist: Sandbox, http: Client, lead: str
) -> None:
    for moment in (NOON, NOON + 20, NOON + 10):
        lemlist.activity(lead_id=lead, type="emailsOpened", created_at=moment)
    found = [each["createdAt"] for each in asked(http)]
    assert found == sorted(found, reverse=True)


def test_pages_are_cut_by_offset_and_a_hundred_is_the_most(lemlist: Sandbox, http: Client, lead: str) -> None:
    made = [
        lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON + number)["_id"]
        for number in range(120)
    ]
    pages = [asked(http, limit=limit, offset=offset) for limit, offset in ((100, 0), (100, 100), (500, 0))]
    assert [len(page) for page in pages] == [100, 20, 100]
    assert [each["_id"] for page in pages[:2] for each in page] == made[::-1]


def test_both_bounds_are_inclusive_in_either_notation(lemlist: Sandbox, http: Client, lead: str) -> None:
    for number in range(5):
        lemlist.activity(lead_id=lead, type="emailsOpened", created_at=NOON + number)
    shown = [each["createdAt"] for each in asked(http)][::-1]
    assert len(asked(http, minDate=NOON + 1, maxDate=NOON + 3)) == 3
    assert len(asked(http, minDate=shown[1], maxDate=shown[3])) == 3
    assert len(asked(http, startDate=shown[1], endDate=shown[3])) == 3
    assert len(asked(http, minDate=shown[4], startDate=shown[0])) == 1, "minDate wins"


@pytest.mark.parametrize("least", [NOON, NOON + 1])
def test_the_upper_bound_must_be_greater(lemlist: Sandbox, http: Client, least: int) -> None:
    answer = http.get(f"/activities?version=v2&minDate={least}&maxDate={NOON}")
    assert answer.status_code == 400
    assert lemlist.violations()[-1]["rule"] == "body"


def test_filters_are_by_type_campaign_lead_and_first(lemlist: Sandbox, http: Client, lead: str) -> None:
    other = lemlist.lead(lemlist.campaign("Second")["_id"], "bo@example.com")
    for kind in ("emailsSent", "emailsOpened", "emailsOpened"):
        lemlist.activity(lead_id=lead, type=kind)
    lemlist.activity(lead_id=other["_id"], type="emailsOpened")
    assert len(asked(http, type="emailsOpened")) == 3
    assert len(asked(http, leadId=lead)) == 3
    assert len(asked(http, campaignId=other["campaignId"])) == 1
    assert len(asked(http, type="emailsOpened", isFirst="true")) == 2
    assert len(asked(http, type="emailsOpened", isFirst="false")) == 1


def test_an_unknown_type_is_refused(http: Client) -> None:
    assert http.get("/activities?version=v2&type=emailOpened").status_code == 400


def test_it_names_the_step_and_the_person_as_they_were(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], lead: str
) -> None:
    step = lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")
    lemlist.activity(lead_id=lead, type="emailsReplied", step_id=step["_id"])
    http.patch(f"/campaigns/{campaign['_id']}/leads/{lead}", json={"firstName": "Anna"})
    (found,) = asked(http)
    assert (found["stepId"], found["sequenceId"]) == (step["_id"], campaign["sequenceId"])
    assert (found["leadFirstName"], found["lead"]["variables"]["firstName"]) == ("Ana", "Anna")
    assert found["lead"]["state"] == "emailsReplied"


def test_without_v2_the_variables_are_at_the_top_and_it_is_noted(
    lemlist: Sandbox, http: Client, lead: str
) -> None:
    lemlist.activity(lead_id=lead, type="emailsReplied")
    (found,) = http.get("/activities").json()
    assert found["firstName"] == "Ana"
    assert "lead" not in found
    assert lemlist.violations()[-1]["rule"] == "query"


# --- Made by hand -----------------------------------------------------------------------------------------


def test_an_activity_is_made_by_http_at_the_moment_that_is_named(
    lemlist: Sandbox, http: Client, lead: str
) -> None:
    control = f"{lemlist.origin}/_sandbox/activities"
    for moment in (NOON, "2026-03-02T10:00:00Z"):
        http.post(control, json={"leadId": lead, "type": "emailsReplied", "createdAt": moment})
    found = [each["createdAt"] for each in asked(http)]
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
    ],
    ids=str,
)
def test_a_bad_activity_is_refused_and_breaks_nothing(
    lemlist: Sandbox, http: Client, lead: str, wrong: dict[str, Any], status: int
) -> None:
    body = {"leadId": lead, "type": "emailsReplied", **wrong}
    assert http.post(f"{lemlist.origin}/_sandbox/activities", json=body).status_code == status
    assert http.get(f"{lemlist.origin}/_sandbox/state").json()["activities"] == []
