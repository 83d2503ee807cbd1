# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.media import SCRIPTED
from tests.unit.sandbox.conftest import Client


@pytest.fixture
def steps(campaign: dict[str, Any]) -> str:
    return f"/sequences/{campaign['sequenceId']}/steps"


def listed(http: Client, campaign: dict[str, Any], sequence_id: str | None = None) -> list[dict[str, Any]]:
    found: dict[str, Any] = http.get(f"/campaigns/{campaign['_id']}/sequences").json()
    return found[sequence_id or campaign["sequenceId"]]["steps"]  # type: ignore[no-any-return]  # JSON


def test_a_step_is_inserted_at_its_index_or_appended(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    for index in (None, 99, 0, -1, 1):
        body = {"type": "phone", "message": str(index)} | ({} if index is None else {"index": index})
        http.post(steps, json=body)
    found = listed(http, campaign)
    assert [each["message"] for each in found] == ["0", "1", "None", "99", "-1"]
    assert [each["index"] for each in found] == [1, 2, 3, 4, 5]
    assert [each["sequenceStep"] for each in found] == [0, 1, 2, 3, 4]


def test_the_default_delay_is_none_for_the_first_step_and_one_day_for_others(
    http: Client, steps: str
) -> None:
    assert [http.post(steps, json={"type": "linkedinVisit"}).json()["delay"] for _ in range(3)] == [0, 1, 1]


def test_adding_the_same_step_twice_creates_two_steps(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    ids = {http.post(steps, json={"type": "linkedinVisit"}).json()["_id"] for _ in range(2)}
    assert {each["_id"] for each in listed(http, campaign)} == ids
    assert len(ids) == 2


def test_a_listed_step_has_only_the_documented_fields(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    http.post(steps, json={"type": "email", "subject": "Hi", "message": "<p>Hi</p>"})
    http.post(steps, json={"type": "api", "method": "GET", "url": "https://example.com"})
    email, api = listed(http, campaign)
    assert (email["subject"], email["message"]) == ("Hi", "<p>Hi</p>")
    assert email["emailTemplateId"].startswith("etp_")
    assert "url" not in api


# --- Conditions -------------------------------------------------------------------------------------------


def test_a_condition_creates_two_branches_that_accept_steps(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    body = {"type": "conditional", "conditionKey": "linkedinInviteAccepted", "delayType": "waitUntil"}
    response = http.post(steps, json=body).json()
    accepted, otherwise = response["conditions"]
    assert (accepted["key"], accepted["label"]) == ("linkedinInviteAccepted", "Accepted invite")
    assert otherwise["fallback"] is True
    assert http.post(f"/sequences/{otherwise['sequenceId']}/steps", json={"type": "sms", "message": "Hi"}).ok
    found = http.get(f"/campaigns/{campaign['_id']}/sequences").json()
    assert list(found) == [campaign["sequenceId"], accepted["sequenceId"], otherwise["sequenceId"]]
    branch = found[otherwise["sequenceId"]]
    assert (branch["level"], branch["parentId"]) == (1, campaign["sequenceId"])
    assert [each["type"] for each in branch["steps"]] == ["sms"]
    assert listed(http, campaign)[0]["conditions"] == response["conditions"]


def test_removing_a_condition_removes_its_branches(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], steps: str
) -> None:
    body = {"type": "conditional", "conditionKey": "hasScore", "delayType": "waitUntil"}
    outer = http.post(steps, json=body).json()
    inner = http.post(f"/sequences/{outer['conditions'][0]['sequenceId']}/steps", json=body).json()
    assert len(http.get(f"/campaigns/{campaign['_id']}/sequences").json()) == 5
    assert http.delete(f"{steps}/{outer['_id']}").json() == {"ok": True}
    assert list(http.get(f"/campaigns/{campaign['_id']}/sequences").json()) == [campaign["sequenceId"]]
    gone = f"/sequences/{inner['conditions'][1]['sequenceId']}/steps"
    assert http.post(gone, json={"type": "linkedinVisit"}).text == "Bad team"


# --- What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "Match error: Missing key 'type'"),
        ({"type": "email", "subject": "x"}, "Match error: Missing key 'message' for a step of type email"),
        ({"type": "linkedinSend", "message": " "}, "Match error: Expected a text in field message"),
        ({"type": "sms", "message": "x", "subject": "y"}, "Match error: Unknown key 'subject' for a step of"),
        ({"type": "phone", "delay": True}, "Match error: Expected integer, got boolean in field delay"),
        ({"type": "phone", "delay": 1.5}, "Match error: Expected integer, got number in field delay"),
        ({"type": "phone", "delay": -1}, "Match error: Expected at least 0 in field delay"),
        ({"type": "phone", "delay": 1501}, "Match error: Expected at most 1500 in field delay"),
        ({"type": "phone", "index": -2}, "Match error: Expected at least -1 in field index"),
        ({"type": "manual", "title": "x" * 401}, "Match error: Expected at most 400 characters in field"),
        ({"type": "api", "method": "GET", "url": "ftp://x.org"}, "Match error: Expected a URL that"),
        (
            {"type": "conditional", "conditionKey": "hasScore", "delayType": "within"},
            "Match error: Missing key 'delay' for delayType within",
        ),
        ({"type": "sendToAnotherCampaign", "campaignId": "cam_none"}, "Campaign not found"),
    ],
    ids=str,
)
def test_an_invalid_step_is_refused_and_not_added(
    http: Client, campaign: dict[str, Any], steps: str, wrong: dict[str, Any], text: str
) -> None:
    response = http.post(steps, json=wrong)
    assert response.status_code == 400
    assert response.text.startswith(text)
    assert listed(http, campaign) == []


@pytest.mark.parametrize("good", [{"delay": 0}, {"delay": 1500}, {"index": -1}], ids=str)
def test_the_limits_are_inclusive(http: Client, steps: str, good: dict[str, int]) -> None:
    assert http.post(steps, json={"type": "phone", **good}).status_code == 200


def test_leads_cannot_be_sent_to_an_archived_campaign(lemlist: Sandbox, http: Client, steps: str) -> None:
    body = {"type": "sendToAnotherCampaign", "campaignId": lemlist.campaign(status="archived")["_id"]}
    assert http.post(steps, json=body).text == "Campaign not found"


def test_an_unknown_sequence_is_a_bad_team(http: Client) -> None:
    response = http.post("/sequences/seq_none/steps", json={"type": "linkedinVisit"})
    assert (response.status_code, response.text) == (400, "Bad team")


def test_an_undocumented_method_is_refused(http: Client, steps: str) -> None:
    response = http.get(steps)
    assert (response.status_code, response.text) == (405, "Bad method")


def test_a_branch_contains_the_index_of_its_condition(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    http.post(steps, json={"type": "linkedinVisit"})
    condition = {"type": "conditional", "conditionKey": "emailsOpened", "delayType": "waitUntil"}
    branches = http.post(steps, json=condition).json()["conditions"]
    found = http.get(f"/campaigns/{campaign['_id']}/sequences").json()
    assert [found[each["sequenceId"]]["conditionalStepIndex"] for each in branches] == [1, 1]


# --- LinkedIn media ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code", "status"), [(name, *error) for name, error in SCRIPTED.items()])
def test_each_media_code_can_be_requested(
    http: Client, campaign: dict[str, Any], steps: str, name: str, code: str, status: int
) -> None:
    url = f"https://cdn.example.com/{name}.png"
    response = http.post(steps, json={"type": "linkedinInvite", "images": [url]})
    assert response.status_code == status
    assert code in response.text
    assert listed(http, campaign) == []


def test_the_eight_documented_media_codes_exist() -> None:
    assert len({code for code, _ in SCRIPTED.values()}) == 8


@pytest.mark.parametrize(
    ("media", "code"),
    [
        ({"images": ["https://x.org/a.png"] * 4, "videos": ["https://x.org/a.mp4"] * 3}, "TOO_MANY"),
        ({"images": ["http://x.org/a.png"]}, "UNSAFE_URL"),
        ({"images": ["https://127.0.0.1/a.png"]}, "UNSAFE_URL"),
        ({"images": ["https://localhost/a.png"]}, "UNSAFE_URL"),
        ({"images": ["https://localhost./a.png"]}, "UNSAFE_URL"),
        ({"images": ["https://x.org/a.webp"]}, "INVALID_TYPE"),
        ({"videos": ["https://x.org/a.png"]}, "INVALID_TYPE"),
    ],
    ids=str,
)
def test_invalid_media_is_refused_without_being_requested(
    http: Client, steps: str, media: dict[str, Any], code: str
) -> None:
    response = http.post(steps, json={"type": "linkedinSend", "message": "x", **media})
    assert f"LINKEDIN_MEDIA_{code}" in response.text


def test_media_that_the_documents_forbid_are_a_violation(lemlist: Sandbox, http: Client, steps: str) -> None:
    for images in (["https://x.org/a.png"] * 7, ["http://x.org/a.png"]):
        http.post(steps, json={"type": "linkedinSend", "message": "x", "images": images})
    assert [each["what"].partition(":")[0] for each in lemlist.violations()] == [
        "LINKEDIN_MEDIA_TOO_MANY",
        "LINKEDIN_MEDIA_UNSAFE_URL",
    ]


def test_six_items_and_a_url_without_extension_are_accepted(http: Client, steps: str) -> None:
    media = {"images": ["https://x.org/a.png"] * 3, "videos": ["https://x.org/v/1?x=.png"] * 3}
    assert http.post(steps, json={"type": "linkedinSend", "message": "x", **media}).status_code == 200


# --- Update and delete ------------------------------------------------------------------------------------


def test_an_update_requires_the_type_and_keeps_the_position(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    step = http.post(steps, json={"type": "email", "subject": "a", "message": "b"}).json()
    path = f"{steps}/{step['_id']}"
    assert http.patch(path, json={"type": "email", "message": "c", "delay": 3}).json()["message"] == "c"
    assert http.patch(path, json={"message": "d"}).status_code == 400
    assert http.patch(path, json={"type": "sms", "message": "d"}).status_code == 400
    assert http.patch(path, json={"type": "email", "index": 0}).status_code == 400
    (found,) = listed(http, campaign)
    assert (found["subject"], found["message"], found["delay"]) == ("a", "c", 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay": "3"},
        {"delay": 1.5},
        {"delay": 1501},
        {"subject": 1},
        {"subject": "x" * 401},
        {"message": None},
        {"message": " "},
        {"index": 0},
        {"title": "x"},
        {"name": "opening"},
        {"_id": "stp_1"},
    ],
    ids=str,
)
def test_an_invalid_update_changes_no_step(
    http: Client, campaign: dict[str, Any], steps: str, wrong: dict[str, Any]
) -> None:
    step = http.post(steps, json={"type": "email", "subject": "a", "message": "b"}).json()
    before = listed(http, campaign)
    body = {"type": "email", "subject": "c", "delay": 2, **wrong}
    response = http.patch(f"{steps}/{step['_id']}", json=body)
    assert (response.status_code, response.text[:12]) == (400, "Match error:")
    assert listed(http, campaign) == before


def test_a_step_of_another_sequence_or_none_cannot_be_updated(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], steps: str
) -> None:
    other = lemlist.step(lemlist.campaign()["sequenceId"], "phone")["_id"]
    for path in (f"{steps}/{other}", f"{steps}/stp_none", f"/sequences/seq_none/steps/{other}"):
        response = http.patch(path, json={"type": "phone", "message": "x"})
        assert (response.status_code, response.text) == (400, "Bad team")


def test_an_update_can_clear_media_and_add_a_message(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], steps: str
) -> None:
    body = {"type": "linkedinInvite", "images": ["https://x.org/a.png"]}
    path = f"{steps}/{http.post(steps, json=body).json()['_id']}"
    updated = http.patch(path, json={"type": "linkedinInvite", "images": [], "message": "Hi"}).json()
    assert (updated["message"], updated["emailTemplateId"][:4]) == ("Hi", "etp_")
    assert listed(http, campaign)[0]["message"] == "Hi"
    (sequence,) = lemlist.state()["campaigns"][0]["sequences"].values()
    assert sequence["steps"][0]["images"] == []


def test_an_updated_condition_keeps_its_branches(http: Client, campaign: dict[str, Any], steps: str) -> None:
    body = {"type": "conditional", "conditionKey": "hasScore", "delayType": "waitUntil"}
    step = http.post(steps, json=body).json()
    yes, otherwise = step["conditions"]
    body = {"type": "conditional", "conditionKey": "emailsOpened", "delayType": "within", "delay": 4}
    updated = http.patch(f"{steps}/{step['_id']}", json=body).json()
    changed = {"key": "emailsOpened", "label": "Opened email", "delayType": "within", "delay": 4}
    assert updated["conditions"] == [{**yes, **changed}, otherwise]
    assert listed(http, campaign)[0]["conditions"] == updated["conditions"]


@pytest.mark.parametrize(("edit_running", "status"), [("allowed", 200), ("refused", 400)])
def test_a_step_of_a_running_campaign_can_be_updated_or_not(edit_running: str, status: int) -> None:
    with Sandbox(limit="none", edit_running=edit_running) as lemlist, Client(lemlist) as http:
        campaign = lemlist.campaign()
        steps = f"/sequences/{campaign['sequenceId']}/steps"
        path = f"{steps}/{http.post(steps, json={'type': 'phone', 'message': 'a'}).json()['_id']}"
        http.post(f"/campaigns/{campaign['_id']}/start")
        response = http.patch(path, json={"type": "phone", "message": "b"})
        assert response.status_code == status
        refusal = "You cannot edit this step because the campaign is running"
        assert (response.text == refusal) is (status == 400)
        assert http.post(steps, json={"type": "linkedinVisit"}).ok, "a step can be added in any case"
        assert listed(http, campaign)[0]["message"] == ("b" if status == 200 else "a")
        http.post(f"/campaigns/{campaign['_id']}/pause")
        assert http.patch(path, json={"type": "phone", "message": "b"}).ok


def test_a_step_of_a_running_campaign_cannot_be_deleted(
    http: Client, campaign: dict[str, Any], steps: str
) -> None:
    step = http.post(steps, json={"type": "linkedinVisit"}).json()
    http.post(f"/campaigns/{campaign['_id']}/start")
    response = http.delete(f"{steps}/{step['_id']}")
    assert response.text == "You cannot delete this step because the campaign is running"
    http.post(f"/campaigns/{campaign['_id']}/pause")
    assert http.delete(f"{steps}/{step['_id']}").json() == {"ok": True}
    assert http.delete(f"{steps}/{step['_id']}").text == "Step not found"
    assert http.delete("/sequences/seq_none/steps/stp_1").text == "Sequence not found"
