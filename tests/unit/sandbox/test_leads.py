# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

ANA = {"email": "ana.ruiz@example.com", "firstName": "Ana", "plan": "trial"}


@pytest.fixture
def leads(campaign: dict[str, Any]) -> str:
    return f"/campaigns/{campaign['_id']}/leads/"


@pytest.fixture
def ana(lemlist: Sandbox, campaign: dict[str, Any]) -> dict[str, Any]:
    return lemlist.lead(campaign["_id"], **ANA)


def stored(lemlist: Sandbox, lead: dict[str, Any]) -> dict[str, Any]:
    (found,) = [each for each in lemlist.state()["leads"] if each["_id"] == lead["_id"]]
    return found


# --- Create -----------------------------------------------------------------------------------------------


def test_a_lead_keeps_its_fields_and_its_variables(lemlist: Sandbox, http: Client, leads: str) -> None:
    response = http.post(leads, json=ANA)
    assert response.status_code == 200
    assert response.json()["firstName"] == "Ana"
    assert "plan" not in response.json()
    assert stored(lemlist, response.json())["variables"] == ANA


def test_leads_without_email_are_not_deduplicated(http: Client, leads: str) -> None:
    assert [http.post(leads, json={"firstName": "Ana"}).status_code for _ in range(2)] == [200, 200]


def test_a_lead_already_in_the_campaign_is_refused_ignoring_case(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    response = http.post(leads, json={"email": "Ana.Ruiz@Example.com"})
    assert (response.status_code, response.text) == (400, "Lead already in the campaign")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert len(lemlist.state()["leads"]) == 1


@pytest.mark.parametrize("status", [409, 500, 400])
def test_a_lead_in_another_campaign_is_refused_only_with_deduplicate(status: int) -> None:
    with Sandbox(limit="none", elsewhere_status=status) as lemlist, Client(lemlist) as http:
        lemlist.lead(lemlist.campaign("First")["_id"], **ANA)
        path = f"/campaigns/{lemlist.campaign('Second')['_id']}/leads/"
        response = http.post(path, params={"deduplicate": "true"}, json=ANA)
        assert (response.status_code, response.text) == (status, "Lead already in other campaign")
        assert http.post(path, params={"deduplicate": "false"}, json=ANA).status_code == 200


def test_an_unknown_campaign_is_not_found(http: Client) -> None:
    response = http.post("/campaigns/cam_none/leads/", json=ANA)
    assert (response.status_code, response.text) == (404, "Campaign not found")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"jobTitle": 7}, "Match error: Expected string, got integer in field jobTitle"),
        ({"plan": None}, "Match error: Expected string, got null in field plan"),
        ({"plan": ["a"]}, "Match error: Expected string, got array in field plan"),
        ([], "Match error: Expected object, got array"),
        ({"timezone": "Europe/Atlantis"}, "Match error: Expected an IANA time zone in field timezone"),
        ({"timezone": "../etc"}, "Match error: Expected an IANA time zone in field timezone"),
        ({"email": "ana"}, "Invalid email"),
        ({"email": "ana ruiz@example.com"}, "Invalid email"),
        ({"email": "ana@example.com,bo@example.com"}, "Invalid email"),
    ],
    ids=str,
)
def test_an_invalid_body_is_refused_and_is_a_violation(
    lemlist: Sandbox, http: Client, leads: str, body: Any, text: str
) -> None:
    response = http.post(leads, json=body)
    assert (response.status_code, response.text) == (400, text)
    assert lemlist.violations()[-1]["rule"] == "body"
    assert lemlist.state()["leads"] == []


def test_a_body_without_content_type_is_refused(http: Client, leads: str) -> None:
    assert http.post(leads, data=b'{"email": "a@example.com"}').status_code == 400


@pytest.mark.parametrize("value", ["True", "1", ""])
def test_a_flag_must_be_true_or_false(http: Client, leads: str, value: str) -> None:
    assert http.post(leads, params={"findPhone": value}, json=ANA).status_code == 400


def test_enrichment_flags_are_stored(lemlist: Sandbox, http: Client, leads: str) -> None:
    flags = {"verifyEmail": "true", "findPhone": "true", "findEmail": "false"}
    lead = http.post(leads, params=flags, json=ANA).json()
    found = stored(lemlist, lead)
    assert found["enrichments"] == ["verifyEmail", "findPhone"]
    assert found["enrichment"] == {"emailStatus": "deliverable"}


def test_an_unknown_parameter_is_a_violation(lemlist: Sandbox, http: Client, leads: str) -> None:
    assert http.post(leads, params={"dedupe": "true"}, json=ANA).status_code == 200
    assert lemlist.violations()[-1]["what"] == "unknown parameter dedupe"


def test_with_auto_review_a_new_lead_is_launched_immediately(lemlist: Sandbox, http: Client) -> None:
    campaign = lemlist.campaign(auto_review=True)
    lead = http.post(f"/campaigns/{campaign['_id']}/leads/", json=ANA).json()
    assert stored(lemlist, lead)["status"] == "running"


def test_a_path_without_its_slash_creates_nothing(lemlist: Sandbox, http: Client, leads: str) -> None:
    response = http.post(leads.rstrip("/"), json=ANA)
    assert response.headers["Content-Type"].startswith("text/html")
    assert lemlist.state()["leads"] == []


# --- Read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["a+b@example.com", "o/brien@example.com", "x%y@example.com"])
def test_a_lead_is_found_by_percent_encoded_email(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], address: str
) -> None:
    lead = lemlist.lead(campaign["_id"], address)
    found = http.get(f"/leads/{quote(address, safe='')}?version=v2").json()
    assert [each["_id"] for each in found] == [lead["_id"]]
    assert found[0]["campaign"] == {"id": campaign["_id"], "name": "Spring webinar", "status": "draft"}
    assert (found[0]["state"], found[0]["status"]) == ("scanned", "review")


def test_v2_lists_a_person_once_per_campaign_and_v1_is_flat(
    lemlist: Sandbox, http: Client, ana: dict[str, Any]
) -> None:
    second = lemlist.lead(lemlist.campaign("Second")["_id"], **ANA)
    assert second["contactId"] == ana["contactId"]
    assert len(http.get(f"/leads/{ANA['email']}?version=v2").json()) == 2
    assert http.get(f"/leads/{ANA['email']}").json()["plan"] == "trial"
    assert http.get("/leads", params={"id": ana["_id"]}).json()["_id"] == ana["_id"]
    assert http.get("/leads", params={"email": ANA["email"]}).json()["_id"] == second["_id"]


@pytest.mark.parametrize("path", ["/leads/nobody@example.com?version=v2", "/leads?id=lea_none"])
def test_an_unknown_lead_is_not_found(http: Client, path: str) -> None:
    response = http.get(path)
    assert (response.status_code, response.text) == (404, "Lead not found")


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("state=all&limit=501", "limit is 501, the maximum is 500"),
        ("state=scanned,opend", "unknown state opend"),
        ("", "state is missing: the response is empty without state=all"),
    ],
)
def test_an_incorrect_list_query_is_served_and_is_a_violation(
    lemlist: Sandbox, http: Client, leads: str, query: str, what: str
) -> None:
    assert http.get(f"{leads}?{query}").status_code == 200
    assert [each["what"] for each in lemlist.violations()] == [what]


def test_an_update_checks_the_time_zone_and_changes_the_owner(
    lemlist: Sandbox, http: Client, ana: dict[str, Any], leads: str
) -> None:
    assert http.patch(leads + ana["_id"], json={"timezone": "Mars"}).status_code == 400
    assert http.patch(leads + ana["_id"], json={"contactOwner": "bob@sandbox.example"}).status_code == 200
    (lead,) = lemlist.state()["leads"]
    assert lead["contactOwner"] == "bob@sandbox.example"
    assert "contactOwner" not in lead["variables"]


def test_a_search_without_id_or_email_is_refused(lemlist: Sandbox, http: Client) -> None:
    response = http.get("/leads?version=v2")
    assert (response.status_code, response.text) == (400, "Bad team")
    assert lemlist.violations()[-1]["what"] == "Expected id or email"


@pytest.mark.parametrize("path", ["/leads?email=ana@example.com", "/leads/ana@example.com"])
def test_a_search_without_version_is_a_violation(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], path: str
) -> None:
    lemlist.lead(campaign["_id"], "ana@example.com")
    assert http.get(path).status_code == 200
    assert [each["what"] for each in lemlist.violations()] == ["version=v2 is missing: the response is of v1"]


def test_a_lone_surrogate_in_a_lead_is_replaced(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], leads: str
) -> None:
    body = b'{"email": "ana@example.com", "firstName": "\\ud83d", "icebreaker": "\\ud83d\\ude80 \\uDE80"}'
    created = http.post(leads, data=body, headers={"Content-Type": "application/json"})
    assert created.json()["firstName"] == "\ufffd"
    (lead,) = http.get(f"{lemlist.origin}/_sandbox/state").json()["leads"]
    assert lead["variables"]["icebreaker"] == "\U0001f680 \ufffd"
    assert http.get(f"{lemlist.origin}/campaigns/{campaign['_id']}").status_code == 200


def test_a_campaign_lists_its_newest_leads_and_none_without_a_state(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], leads: str
) -> None:
    ids = [lemlist.lead(campaign["_id"], f"p{number}@example.com")["_id"] for number in range(3)]
    found = http.get(leads, params={"state": "all", "limit": "2"}).json()
    assert [each["_id"] for each in found] == [ids[2], ids[1]]
    assert found[0].keys() == {"_id", "contactId", "state"}
    assert http.get(leads).json() == []
    assert lemlist.violations()[-1]["rule"] == "query"


# --- Change and remove ------------------------------------------------------------------------------------


def test_an_update_changes_the_given_fields(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    body = {"jobTitle": "CTO", "preferredContactMethod": "linkedIn", "score": "9"}
    response = http.patch(leads + ana["_id"], json=body)
    assert (response.json()["jobTitle"], response.json()["preferredContactMethod"]) == ("CTO", "linkedIn")
    assert stored(lemlist, ana)["variables"] == {**ANA, "jobTitle": "CTO", "score": "9"}


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"jobTitle": 1}, 400), ({"preferredContactMethod": "fax"}, 400)]
)
def test_an_invalid_update_is_refused(
    http: Client, leads: str, ana: dict[str, Any], body: Any, status: int
) -> None:
    assert http.patch(leads + ana["_id"], json=body).status_code == status


def test_an_unsubscribed_lead_is_in_the_graveyard(http: Client, leads: str, ana: dict[str, Any]) -> None:
    assert http.delete(leads + quote(ANA["email"])).json()["_id"] == ana["_id"]
    response = http.patch(leads + ana["_id"], json={"jobTitle": "CTO"})
    assert (response.status_code, response.text) == (500, "Lead in graveyard")
    assert http.delete(leads + quote(ANA["email"])).status_code == 404


def test_delete_without_action_unsubscribes_and_requires_an_email(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    response = http.delete(leads + ana["_id"])
    assert (response.status_code, response.text) == (404, "An email is required to unsub a lead")
    assert "action=remove is missing" in lemlist.violations()[-1]["what"]
    assert http.delete(leads).status_code == 404
    assert stored(lemlist, ana)["status"] == "review"


def test_delete_with_action_remove_deletes(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    lemlist.activity(lead_id=ana["_id"], type="emailsSent")
    response = http.delete(leads + ana["_id"], params={"action": "remove"})
    assert response.json()["plan"] == "trial"
    assert (lemlist.state()["leads"], lemlist.state()["activities"]) == ([], [])
    assert http.post(leads, json=ANA).status_code == 200


def test_pause_applies_to_all_campaigns_or_to_the_given_one(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    second = lemlist.lead(lemlist.campaign("Second")["_id"], **ANA)
    one = http.post(f"/leads/pause/{ana['_id']}", params={"campaignId": campaign["_id"]}).json()
    assert [(each["_id"], each["isPaused"]) for each in one] == [(ana["_id"], True)]
    assert stored(lemlist, second)["isPaused"] is False
    assert len(http.post(f"/leads/pause/{ana['_id']}").json()) == 2
    assert http.post(f"/leads/start/{ana['_id']}?campaignId={second['campaignId']}").status_code == 404
    assert http.post(f"/leads/start/{ana['_id']}").json()[0]["isPaused"] is False
    assert stored(lemlist, second)["status"] == "paused"


def test_marks_apply_to_one_campaign_or_to_all(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    second = lemlist.lead(lemlist.campaign("Second")["_id"], **ANA)
    http.post(f"/campaigns/{campaign['_id']}/leads/{quote(ANA['email'])}/interested")
    assert [stored(lemlist, each)["status"] for each in (ana, second)] == ["interested", "review"]
    assert len(http.post(f"/leads/notinterested/{ana['_id']}").json()) == 2
    assert stored(lemlist, second)["status"] == "notInterested"


def test_a_review_launches_a_lead_once_and_only_with_steps(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    path = f"/leads/review/{ana['_id']}"
    assert http.post(path).json()["error"] == "CAMPAIGN_LEAD_REVIEW_CAMPAIGN_STEP_ERRORS"
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    assert http.post(path).json() == {"ok": True}
    assert http.post(path).json()["error"] == "CAMPAIGN_LEAD_REVIEW_LEAD_ALREADY_LAUNCHED"
    missing = http.post("/leads/review/lea_none")
    assert (missing.status_code, missing.json()["error"]) == (404, "CAMPAIGN_LEAD_REVIEW_LEAD_NOT_FOUND")


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("no lead", 404, "LEAD_NOT_FOUND"),
        ("archived", 404, "CAMPAIGN_NOT_FOUND"),
        ("paused", 400, "LEAD_PAUSED"),
        ("launched", 400, "LEAD_ALREADY_LAUNCHED"),
        ("interested", 400, "LEAD_ALREADY_LAUNCHED"),
        ("no steps", 400, "CAMPAIGN_STEP_ERRORS"),
        ("statute about steps", 400, "CAMPAIGN_STEP_ERRORS"),
        ("no AI variable", 400, "LEAD_AI_VARIABLE_INVALID"),
        ("empty AI variable", 400, "LEAD_AI_VARIABLE_INVALID"),
        ("no sender", 400, "LEAD_NO_SENDER_AVAILABLE"),
    ],
)
def test_a_review_is_refused_with_each_documented_code(
    lemlist: Sandbox, http: Client, state: str, status: int, code: str
) -> None:
    campaign = lemlist.campaign(
        status="archived" if state == "archived" else "draft",
        senders=[] if state == "no sender" else None,
        ai_variables=["hook"] if "AI" in state else [],
    )
    if state != "no steps":
        lemlist.step(campaign["sequenceId"], "linkedinVisit")
    lead = lemlist.lead(campaign["_id"], **ANA, **({"hook": ""} if state == "empty AI variable" else {}))
    path = f"/leads/review/{'lea_none' if state == 'no lead' else lead['_id']}"
    match state:
        case "paused":
            http.post(f"/leads/pause/{lead['_id']}")
        case "launched":
            assert http.post(path).json() == {"ok": True}
        case "interested":
            http.post(f"/leads/interested/{lead['_id']}")
        case "statute about steps":
            lemlist.statute(campaign["_id"], "The text is empty.", category="steps")
    before = stored(lemlist, lead)
    response = http.post(path)
    assert (response.status_code, response.json()["error"]) == (status, f"CAMPAIGN_LEAD_REVIEW_{code}")
    assert response.json().keys() == {"error", "message"}
    assert stored(lemlist, lead) == before


def test_a_lead_is_launched_when_its_ai_variables_have_a_text(lemlist: Sandbox, http: Client) -> None:
    campaign = lemlist.campaign(ai_variables=["hook", "icebreaker"])
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    lead = lemlist.lead(campaign["_id"], **ANA, icebreaker="Hello")
    assert http.post(f"/leads/review/{lead['_id']}").status_code == 400
    assert http.patch(f"/leads/{lead['_id']}/variables", json={"hook": "Your talk"}).status_code == 200
    assert http.post(f"/leads/review/{lead['_id']}").json() == {"ok": True}


def test_a_review_needs_a_plan_and_is_not_stopped_by_other_statutes(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    path = f"/leads/review/{ana['_id']}"
    response = http.post(path, auth=("", "low-plan-key"))
    assert (response.status_code, response.text) == (402, "route is available starting emailPro plan")
    lemlist.statute(campaign["_id"], "Only a warning about the steps.", level=2, category="steps")
    lemlist.statute(campaign["_id"], "No signature.", category="senders")
    assert http.post(path).json() == {"ok": True}


# --- Custom variables -------------------------------------------------------------------------------------


def test_variables_are_created_updated_and_erased(
    lemlist: Sandbox, http: Client, ana: dict[str, Any]
) -> None:
    path = f"/leads/{ana['_id']}/variables"
    assert http.post(path, params={"region": "north", "Company name": "Ñ & Co"}).json() == {"ok": True}
    again = http.post(path, params={"region": "south"})
    assert (again.status_code, again.json()["status"]) == (400, "Variables region already exist")
    assert http.post(path, params={"firstName": "x"}).status_code == 400
    assert http.patch(path, json={"region": "south"}).json() == {"ok": True}
    assert http.patch(path, params={"colour": "red"}).json()["status"] == "Variables colour not found"
    assert http.delete(path, params={"plan": ""}).json() == {"ok": True}
    variables = stored(lemlist, ana)["variables"]
    assert (variables["region"], variables["Company name"]) == ("south", "Ñ & Co")
    assert "plan" not in variables
    assert http.patch(path, params={"plan": "back"}).json() == {"ok": True}, "the campaign keeps the variable"


@pytest.mark.parametrize(
    ("lead", "status", "text"), [("ana%40x.org", 400, "Invalid leadId"), ("lea_0", 404, "Lead not found")]
)
def test_variables_of_an_unknown_lead_are_refused(http: Client, lead: str, status: int, text: str) -> None:
    response = http.post(f"/leads/{lead}/variables?a=b")
    assert (response.status_code, response.text) == (status, text)


# --- Audio ------------------------------------------------------------------------------------------------


@pytest.fixture
def upload(lemlist: Sandbox, campaign: dict[str, Any], ana: dict[str, Any]) -> dict[str, str]:
    step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
    return {"leadId": ana["_id"], "stepId": step["_id"]}


def test_audio_is_stored_and_can_be_played(lemlist: Sandbox, http: Client, upload: dict[str, str]) -> None:
    sound = bytes(range(256)) * 4000
    response = http.post("/leads/audio", params=upload, files={"file": ("note ana.m4a", sound, "audio/mp4")})
    status = response.json()["status"]
    assert status["fileName"] == "note ana"
    played = http.get(status["url"])
    assert (played.content, played.headers["Content-Type"]) == (sound, "audio/mp4")
    assert lemlist.state()["audio"][0]["size"] == len(sound)


def test_another_upload_replaces_the_first(lemlist: Sandbox, http: Client, upload: dict[str, str]) -> None:
    for sound in (b"one", b"three"):
        http.post("/leads/audio", params=upload, files={"file": ("a.mp3", sound, "audio/mpeg")})
    assert [each["size"] for each in lemlist.state()["audio"]] == [5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"leadId": "lea_0"}, "leadId is missing or is no lead"),
        ({"leadId": None}, "leadId is missing or is no lead"),
        ({"stepId": "stp_0"}, "stepId is missing or is no step of the lead's campaign"),
        ({"stepId": "another campaign's"}, "stepId is missing or is no step of the lead's campaign"),
        ({"stepId": "a visit"}, "the step is no voice note"),
    ],
    ids=str,
)
def test_audio_requires_a_lead_and_a_voice_note_of_its_campaign(
    lemlist: Sandbox,
    http: Client,
    campaign: dict[str, Any],
    upload: dict[str, str],
    change: dict[str, str],
    reason: str,
) -> None:
    others = {
        "another campaign's": lemlist.step(lemlist.campaign()["sequenceId"], "linkedinVoiceNote")["_id"],
        "a visit": lemlist.step(campaign["sequenceId"], "linkedinVisit")["_id"],
    }
    change = {name: others.get(value, value) for name, value in change.items()}
    response = http.post(
        "/leads/audio", params=upload | change, files={"file": ("a.mp3", b"x", "audio/mpeg")}
    )
    assert (response.status_code, response.text) == (400, "Bad team")
    assert lemlist.violations()[-1]["what"] == reason


@pytest.mark.parametrize(
    "files",
    [
        {"file": ("a.mp3", b"", "audio/mpeg")},
        {"file": ("a.txt", b"x", "text/plain")},
        {"audio": ("a.mp3", b"x", "audio/mpeg")},
        {"file": ("a.mp3", bytes(20 * 1024 * 1024 + 1), "audio/mpeg")},
    ],
    ids=["empty", "text", "wrong part", "too large"],
)
def test_a_file_that_is_no_audio_is_refused(http: Client, upload: dict[str, str], files: Any) -> None:
    response = http.post("/leads/audio", params=upload, files=files)
    assert (response.status_code, response.text) == (400, "Invalid audio file")
