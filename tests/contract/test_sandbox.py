# SPDX-License-Identifier: Apache-2.0
"""The responses and the checks of the sandbox agree with the documents."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.routes import ROUTES, table
from tests.contract.documents import operation_of, operations, violations

MEDIA = "https://cdn.example.com"
CAMPAIGN = "the other campaign"

#: One step of each documented type with all its fields.
STEPS: list[dict[str, Any]] = [
    {"type": "email", "subject": "{{firstName}}, a question", "message": "<p>Hi</p>", "delay": 1, "index": 0},
    {"type": "manual", "title": "Call", "message": "about the demo"},
    {"type": "phone", "message": "Follow up"},
    {"type": "api", "method": "PATCH", "url": "http://api.example.com/hook"},
    {"type": "linkedinVisit", "delay": 1500},
    {
        "type": "linkedinInvite",
        "message": "Hello",
        "images": [f"{MEDIA}/a.png"],
        "videos": [f"{MEDIA}/b.mp4"],
    },
    {"type": "linkedinSend", "message": "Hello", "altMessage": "Hi", "images": [f"{MEDIA}/a.gif"]},
    {"type": "linkedinVoiceNote", "recordMode": "ai"},
    {"type": "linkedinFollow", "index": -1},
    {"type": "linkedinLikeLastPost", "index": 99},
    {"type": "linkedinCommentLastPost"},
    {"type": "linkedinEndorse", "skillName": "SQL", "endorseAnyFallback": True},
    {"type": "linkedinWithdrawInvitation"},
    {"type": "sendToAnotherCampaign", "campaignId": CAMPAIGN},
    {"type": "conditional", "conditionKey": "emailsOpened", "delayType": "within", "delay": 2},
    {"type": "whatsappMessage", "message": "Hi"},
    {"type": "sms", "message": "Hi"},
]


@pytest.fixture(scope="module")
def lemlist() -> Iterator[Sandbox]:
    with Sandbox(limit="none") as lemlist:
        yield lemlist


@pytest.fixture
def http(lemlist: Sandbox) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.auth = ("", lemlist.api_key)
        yield session


def last_violations(lemlist: Sandbox) -> list[str]:
    exchange = lemlist.requests()[-1]
    assert operation_of(exchange), f"{exchange['path']} is no documented operation"
    return violations(exchange)


def test_the_steps_of_these_tests_cover_the_documented_types() -> None:
    (add_step,) = [each for each in operations() if each.template == "/sequences/{sequenceId}/steps"]
    schema = add_step.description["requestBody"]["content"]["application/json"]["schema"]
    assert [step["type"] for step in STEPS] == schema["properties"]["type"]["enum"]
    assert set().union(*STEPS) == set(schema["properties"])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["type"])
def test_a_step_of_each_type_is_accepted_with_the_documented_response(
    lemlist: Sandbox, http: requests.Session, step: dict[str, Any]
) -> None:
    campaign = lemlist.campaign()
    if "campaignId" in step:
        step = {**step, "campaignId": lemlist.campaign()["_id"]}
    response = http.post(f"{lemlist.url}/sequences/{campaign['sequenceId']}/steps", json=step)
    assert response.status_code == 200
    assert last_violations(lemlist) == []


def test_a_lead_with_every_field_is_accepted_with_the_documented_response(
    lemlist: Sandbox, http: requests.Session
) -> None:
    (create,) = [each for each in operations() if each.template.endswith("/leads/")]
    schema = create.description["requestBody"]["content"]["application/json"]["schema"]
    lead = dict.fromkeys(schema["properties"], "x")
    lead |= {"email": "ana.ruiz@example.com", "timezone": "Europe/Madrid", "plan": "trial"}
    flags = {each["name"]: "true" for each in create.parameters if each["in"] == "query"}
    path = f"{lemlist.url}/campaigns/{lemlist.campaign()['_id']}/leads/"
    response = http.post(path, params=flags, json=lead)
    assert response.status_code == 200
    assert last_violations(lemlist) == []
    documented = create.description["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert response.json().keys() == documented.keys()


def test_an_audio_file_is_accepted_with_the_documented_response(
    lemlist: Sandbox, http: requests.Session
) -> None:
    campaign = lemlist.campaign()
    step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    response = http.post(
        f"{lemlist.url}/leads/audio",
        params={"leadId": lead["_id"], "stepId": step["_id"]},
        files={"file": ("note-ana.m4a", b"\x00\xff audio", "audio/mp4")},
    )
    assert response.status_code == 200
    assert last_violations(lemlist) == []
    (upload,) = [each for each in operations() if each.template == "/leads/audio"]
    documented = upload.description["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert response.json().keys() == documented.keys()
    assert response.json()["status"].keys() == documented["status"]["properties"].keys()


@pytest.mark.parametrize(
    ("key", "status"),
    [(None, 404), ("", 400), ("x", 401), ("blocked-key", 403), ("no-user-key", 404)],
)
def test_errors_are_as_documented(lemlist: Sandbox, key: str | None, status: int) -> None:
    auth = ("", lemlist.api_key if key is None else key)
    response = requests.post(f"{lemlist.url}/campaigns/cam_none/leads/", auth=auth, json={}, timeout=5)
    assert response.status_code == status
    assert last_violations(lemlist) == []


def test_statutes_have_the_documented_shape(lemlist: Sandbox, http: requests.Session) -> None:
    campaign = lemlist.campaign(senders=[])
    lemlist.lead(campaign["_id"], "ana@example.com")
    lemlist.statute(campaign["_id"], "a warning", level=2)
    found = http.get(f"{lemlist.url}/campaigns/{campaign['_id']}/statutes").json()
    assert found.keys() == {"name", "status", "statutes"}
    assert {each["level"] for each in found["statutes"]} == {1, 2, 3}
    for each in found["statutes"]:
        assert each.keys() == {"type", "level", "message", "category"}
        assert each["type"] in ("issue", "information")
        assert {type(value) for name, value in each.items() if name != "level"} == {str}


#: The codes of a refused review, with their statuses, as the prose documents them.
REVIEW_CODES = {
    "CAMPAIGN_LEAD_REVIEW_LEAD_PAUSED": 400,
    "CAMPAIGN_LEAD_REVIEW_LEAD_ALREADY_LAUNCHED": 400,
    "CAMPAIGN_LEAD_REVIEW_LEAD_AI_VARIABLE_INVALID": 400,
    "CAMPAIGN_LEAD_REVIEW_LEAD_NO_SENDER_AVAILABLE": 400,
    "CAMPAIGN_LEAD_REVIEW_CAMPAIGN_STEP_ERRORS": 400,
    "CAMPAIGN_LEAD_REVIEW_LEAD_NOT_FOUND": 404,
    "CAMPAIGN_LEAD_REVIEW_CAMPAIGN_NOT_FOUND": 404,
}


def test_reviews_have_exactly_the_documented_responses(lemlist: Sandbox, http: requests.Session) -> None:
    def review(lead_id: str) -> requests.Response:
        return http.post(f"{lemlist.url}/leads/review/{lead_id}")

    def lead(**options: Any) -> str:
        campaign = lemlist.campaign(**options)
        lemlist.step(campaign["sequenceId"], "linkedinVisit")
        lead: str = lemlist.lead(campaign["_id"], "ana@example.com")["_id"]
        return lead

    paused, launched = lead(), lead()
    http.post(f"{lemlist.url}/leads/pause/{paused}")  # in every campaign
    http.post(f"{lemlist.url}/leads/start/{launched}")
    assert review(launched).json() == {"ok": True}
    stepless = lemlist.lead(lemlist.campaign()["_id"], "ana@example.com")["_id"]
    archived, unsent, unwritten = lead(status="archived"), lead(senders=[]), lead(ai_variables=["hook"])
    refused = [review(each) for each in ("lea_none", launched, paused, stepless, archived, unsent, unwritten)]
    assert {each.json()["error"]: each.status_code for each in refused} == REVIEW_CODES
    for each in refused:
        assert each.json().keys() == {"error", "message"}


def test_the_headers_of_a_429_are_as_documented() -> None:
    with Sandbox(requests=1, window=30) as lemlist:
        path = f"{lemlist.url}/campaigns/{lemlist.campaign()['_id']}/leads/"
        responses = [
            requests.post(path, auth=("", lemlist.api_key), json={}, timeout=5).status_code for _ in range(2)
        ]
        assert responses == [200, 429]
        assert [violations(each) for each in lemlist.requests()] == [[], []]


# --- The sandbox's checks and the schema ------------------------------------------------------------------


INVALID = pytest.mark.parametrize(
    "wrong",
    [
        {"type": "fax"},
        {"type": "email", "subject": 1, "message": "x"},
        {"type": "linkedinVisit", "delay": 1.5},
        {"type": "linkedinVisit", "delay": "1"},
        {"type": "linkedinVisit", "index": None},
        {"type": "linkedinVisit", "note": "x"},
        {"type": "api", "method": "FETCH", "url": "https://example.com"},
        {"type": "conditional", "conditionKey": "isRich", "delayType": "waitUntil"},
        {"type": "linkedinEndorse", "endorseAnyFallback": "yes"},
        {"type": "linkedinVoiceNote", "recordMode": "loud"},
        {"type": "linkedinSend", "message": "x", "images": "https://example.com/a.png"},
    ],
    ids=str,
)


@INVALID
def test_the_sandbox_refuses_everything_that_the_schema_forbids(
    lemlist: Sandbox, http: requests.Session, wrong: dict[str, Any]
) -> None:
    sequence = lemlist.campaign()["sequenceId"]
    response = http.post(f"{lemlist.url}/sequences/{sequence}/steps", json=wrong)
    assert response.status_code == 400
    assert lemlist.violations()[-1]["rule"] == "body"
    found = last_violations(lemlist)
    assert found
    assert all(each.startswith("body: ") for each in found), "the response is as documented"
    assert lemlist.service.world.sequences[sequence].steps == []


@INVALID
def test_an_update_refuses_everything_that_the_schema_forbids(
    lemlist: Sandbox, http: requests.Session, wrong: dict[str, Any]
) -> None:
    sequence = lemlist.campaign()["sequenceId"]
    valid = next((each for each in STEPS if each["type"] == wrong["type"]), STEPS[0])
    added = lemlist.step(sequence, **valid)
    (step,) = lemlist.service.world.sequences[sequence].steps
    before = copy.deepcopy(step)
    response = http.patch(f"{lemlist.url}/sequences/{sequence}/steps/{added['_id']}", json=wrong)
    assert response.status_code == 400
    assert lemlist.violations()[-1]["rule"] == "body"
    assert step == before


def test_every_route_of_the_sandbox_is_documented() -> None:
    table()
    documented = set((Path(__file__).parent / "endpoints.txt").read_text().splitlines())
    ours = {f"{each.method} {each.template}" for each in ROUTES}
    # The file of an export is on the same host. An empty value in the path has a documented error text.
    also = {
        "GET /files/exports/{file}",
        "GET /v2/unsubscribes/variables/",
        "POST /v2/unsubscribes/variables/",
    }
    assert ours - documented == also
