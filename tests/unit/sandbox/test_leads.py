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
    answer = http.post(leads, json=ANA)
    assert answer.status_code == 200
    assert answer.json()["firstName"] == "Ana"
    assert "plan" not in answer.json()
    assert stored(lemlist, answer.json())["variables"] == ANA


def test_a_lead_without_an_address_is_allowed_any_number_of_times(http: Client, leads: str) -> None:
    assert [http.post(leads, json={"firstName": "Ana"}).status_code for _ in range(2)] == [200, 200]


def test_a_lead_already_in_the_campaign_is_refused_whatever_its_case(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    answer = http.post(leads, json={"email": "Ana.Ruiz@Example.com"})
    assert (answer.status_code, answer.text) == (400, "Lead already in the campaign")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert len(lemlist.state()["leads"]) == 1


@pytest.mark.parametrize("status", [409, 500, 400])
def test_a_lead_of_another_campaign_is_refused_only_with_deduplicate(status: int) -> None:
    with Sandbox(limit="none", elsewhere_status=status) as lemlist, Client(lemlist) as http:
        lemlist.lead(lemlist.campaign("First")["_id"], **ANA)
        path = f"/campaigns/{lemlist.campaign('Second')['_id']}/leads/"
        answer = http.post(path, params={"deduplicate": "true"}, json=ANA)
        assert (answer.status_code, answer.text) == (status, "Lead already in other campaign")
        assert http.post(path, params={"deduplicate": "false"}, json=ANA).status_code == 200


def test_a_campaign_that_does_not_exist_is_not_found(http: Client) -> None:
    answer = http.post("/campaigns/cam_none/leads/", json=ANA)
    assert (answer.status_code, answer.text) == (404, "Campaign not found")


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
def test_a_bad_body_is_refused_and_noted(
    lemlist: Sandbox, http: Client, leads: str, body: Any, text: str
) -> None:
    answer = http.post(leads, json=body)
    assert (answer.status_code, answer.text) == (400, text)
    assert lemlist.violations()[-1]["rule"] == "body"
    assert lemlist.state()["leads"] == []


def test_a_body_without_its_content_type_is_not_read(http: Client, leads: str) -> None:
    assert http.post(leads, data=b'{"email": "a@example.com"}').status_code == 400


@pytest.mark.parametrize("value", ["True", "1", ""])
def test_a_flag_is_the_word_true_or_false(http: Client, leads: str, value: str) -> None:
    assert http.post(leads, params={"findPhone": value}, json=ANA).status_code == 400


def test_enrichment_flags_are_kept(lemlist: Sandbox, http: Client, leads: str) -> None:
    flags = {"verifyEmail": "true", "findPhone": "true", "findEmail": "false"}
    lead = http.post(leads, params=flags, json=ANA).json()
    found = stored(lemlist, lead)
    assert found["enrichments"] == ["verifyEmail", "findPhone"]
    assert found["enrichment"] == {"emailStatus": "deliverable"}


def test_an_unknown_parameter_is_noted(lemlist: Sandbox, http: Client, leads: str) -> None:
    assert http.post(leads, params={"dedupe": "true"}, json=ANA).status_code == 200
    assert lemlist.violations()[-1]["what"] == "unknown parameter dedupe"


def test_with_auto_review_a_new_lead_is_launched_at_once(lemlist: Sandbox, http: Client) -> None:
    campaign = lemlist.campaign(auto_review=True)
    lead = http.post(f"/campaigns/{campaign['_id']}/leads/", json=ANA).json()
    assert stored(lemlist, lead)["status"] == "running"


def test_without_the_slash_nothing_is_created(lemlist: Sandbox, http: Client, leads: str) -> None:
    answer = http.post(leads.rstrip("/"), json=ANA)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert lemlist.state()["leads"] == []


# --- Read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["a+b@example.com", "o/brien@example.com", "x%y@example.com"])
def test_a_person_is_found_by_a_percent_encoded_address(
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
def test_nobody_is_not_found(http: Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.text) == (404, "Lead not found")


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("state=all&limit=501", "limit is 501, the most is 500"),
        ("state=scanned,opend", "unknown state opend"),
        ("", "state is missing: the answer is empty without state=all"),
    ],
)
def test_a_list_that_is_asked_for_wrongly_is_answered_and_written_down(
    lemlist: Sandbox, http: Client, leads: str, query: str, what: str
) -> None:
    assert http.get(f"{leads}?{query}").status_code == 200
    assert [each["what"] for each in lemlist.violations()] == [what]


def test_an_update_judges_the_time_zone_and_changes_the_owner(
    lemlist: Sandbox, http: Client, ana: dict[str, Any], leads: str
) -> None:
    assert http.patch(leads + ana["_id"], json={"timezone": "Mars"}).status_code == 400
    assert http.patch(leads + ana["_id"], json={"contactOwner": "bob@sandbox.example"}).status_code == 200
    (lead,) = lemlist.state()["leads"]
    assert lead["contactOwner"] == "bob@sandbox.example"
    assert "contactOwner" not in lead["variables"]


def test_a_look_up_of_nobody_in_particular_is_refused(lemlist: Sandbox, http: Client) -> None:
    answer = http.get("/leads?version=v2")
    assert (answer.status_code, answer.text) == (400, "Bad team")
    assert lemlist.violations()[-1]["what"] == "Expected id or email"


@pytest.mark.parametrize("path", ["/leads?email=ana@example.com", "/leads/ana@example.com"])
def test_a_look_up_without_a_version_is_written_down(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], path: str
) -> None:
    lemlist.lead(campaign["_id"], "ana@example.com")
    assert http.get(path).status_code == 200
    assert [each["what"] for each in lemlist.violations()] == ["version=v2 is missing: the answer is of v1"]


def test_half_a_character_in_a_lead_is_replaced_and_breaks_nothing(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], leads: str
) -> None:
    body = b'{"email": "ana@example.com", "firstName": "\\ud83d", "icebreaker": "\\ud83d\\ude80 \\uDE80"}'
    made = http.post(leads, data=body, headers={"Content-Type": "application/json"})
    assert made.json()["firstName"] == "\ufffd"
    (lead,) = http.get(f"{lemlist.origin}/_sandbox/state").json()["leads"]
    assert lead["variables"]["icebreaker"] == "\U0001f680 \ufffd"
    assert http.get(f"{lemlist.origin}/campaigns/{campaign['_id']}").status_code == 200


def test_a_campaign_lists_its_newest_leads_and_nothing_without_a_state(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], leads: str
) -> None:
    ids = [lemlist.lead(campaign["_id"], f"p{number}@example.com")["_id"] for number in range(3)]
    found = http.get(leads, params={"state": "all", "limit": "2"}).json()
    assert [each["_id"] for each in found] == [ids[2], ids[1]]
    assert found[0].keys() == {"_id", "contactId", "state"}
    assert http.get(leads).json() == []
    assert lemlist.violations()[-1]["rule"] == "query"


# --- Change and remove ------------------------------------------------------------------------------------


def test_an_update_changes_what_was_sent(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    body = {"jobTitle": "CTO", "preferredContactMethod": "linkedIn", "score": "9"}
    answer = http.patch(leads + ana["_id"], json=body)
    assert (answer.json()["jobTitle"], answer.json()["preferredContactMethod"]) == ("CTO", "linkedIn")
    assert stored(lemlist, ana)["variables"] == {**ANA, "jobTitle": "CTO", "score": "9"}


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"jobTitle": 1}, 400), ({"preferredContactMethod": "fax"}, 400)]
)
def test_a_bad_update_is_refused(
    http: Client, leads: str, ana: dict[str, Any], body: Any, status: int
) -> None:
    assert http.patch(leads + ana["_id"], json=body).status_code == status


def test_an_unsubscribed_lead_is_in_the_graveyard(http: Client, leads: str, ana: dict[str, Any]) -> None:
    assert http.delete(leads + quote(ANA["email"])).json()["_id"] == ana["_id"]
    answer = http.patch(leads + ana["_id"], json={"jobTitle": "CTO"})
    assert (answer.status_code, answer.text) == (500, "Lead in graveyard")
    assert http.delete(leads + quote(ANA["email"])).status_code == 404


def test_delete_without_action_unsubscribes_and_wants_an_address(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    answer = http.delete(leads + ana["_id"])
    assert (answer.status_code, answer.text) == (404, "An email is required to unsub a lead")
    assert "action=remove is missing" in lemlist.violations()[-1]["what"]
    assert http.delete(leads).status_code == 404
    assert stored(lemlist, ana)["status"] == "review"


def test_delete_with_action_remove_deletes(
    lemlist: Sandbox, http: Client, leads: str, ana: dict[str, Any]
) -> None:
    lemlist.activity(lead_id=ana["_id"], type="emailsSent")
    answer = http.delete(leads + ana["_id"], params={"action": "remove"})
    assert answer.json()["plan"] == "trial"
    assert (lemlist.state()["leads"], lemlist.state()["activities"]) == ([], [])
    assert http.post(leads, json=ANA).status_code == 200


def test_pause_reaches_every_campaign_unless_one_is_named(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    second = lemlist.lead(lemlist.campaign("Second")["_id"], **ANA)
    one = http.post(f"/leads/pause/{ana['_id']}", params={"campaignId": campaign["_id"]}).json()
    assert [(each["_id"], each["isPaused"]) for each in one] == [(ana["_id"], True)]
    assert stored(lemlist, second)["isPaused"] is False
    assert len(http.post(f"/leads/pause/{ana['_id']}").json()) == 2
    assert http.post(f"/leads/start/{ana['_id']}").json()[0]["isPaused"] is False
    assert stored(lemlist, second)["status"] == "paused"


def test_marks_reach_one_campaign_or_all(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    second = lemlist.lead(lemlist.campaign("Second")["_id"], **ANA)
    http.post(f"/campaigns/{campaign['_id']}/leads/{quote(ANA['email'])}/interested")
    assert [stored(lemlist, each)["status"] for each in (ana, second)] == ["interested", "review"]
    assert len(http.post(f"/leads/notinterested/{ana['_id']}").json()) == 2
    assert stored(lemlist, second)["status"] == "notInterested"


def test_a_review_launches_once_and_only_where_there_are_steps(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], ana: dict[str, Any]
) -> None:
    path = f"/leads/review/{ana['_id']}"
    assert http.post(path).json()["error"] == "CAMPAIGN_LEAD_REVIEW_CAMPAIGN_STEP_ERRORS"
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    assert http.post(path).json() == {"ok": True}
    assert http.post(path).json()["error"] == "CAMPAIGN_LEAD_REVIEW_LEAD_ALREADY_LAUNCHED"
    missing = http.post("/leads/review/lea_none")
    assert (missing.status_code, missing.json()["error"]) == (404, "CAMPAIGN_LEAD_REVIEW_LEAD_NOT_FOUND")


# --- Custom variables -------------------------------------------------------------------------------------


def test_variables_are_created_once_changed_and_erased(
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
    assert http.patch(path, params={"plan": "back"}).json() == {"ok": True}, "the variable itself remains"


@pytest.mark.parametrize(
    ("lead", "status", "text"), [("ana%40x.org", 400, "Invalid leadId"), ("lea_0", 404, "Lead not found")]
)
def test_variables_of_nobody_are_refused(http: Client, lead: str, status: int, text: str) -> None:
    answer = http.post(f"/leads/{lead}/variables?a=b")
    assert (answer.status_code, answer.text) == (status, text)


# --- Audio ------------------------------------------------------------------------------------------------


@pytest.fixture
def place(lemlist: Sandbox, campaign: dict[str, Any], ana: dict[str, Any]) -> dict[str, str]:
    step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
    return {"leadId": ana["_id"], "stepId": step["_id"]}


def test_audio_is_stored_and_can_be_played(lemlist: Sandbox, http: Client, place: dict[str, str]) -> None:
    sound = bytes(range(256)) * 4000
    answer = http.post("/leads/audio", params=place, files={"file": ("note ana.m4a", sound, "audio/mp4")})
    status = answer.json()["status"]
    assert status["fileName"] == "note ana"
    played = http.get(status["url"])
    assert (played.content, played.headers["Content-Type"]) == (sound, "audio/mp4")
    assert lemlist.state()["audio"][0]["size"] == len(sound)


def test_a_further_upload_replaces_the_first(lemlist: Sandbox, http: Client, place: dict[str, str]) -> None:
    for sound in (b"one", b"three"):
        http.post("/leads/audio", params=place, files={"file": ("a.mp3", sound, "audio/mpeg")})
    assert [each["size"] for each in lemlist.state()["audio"]] == [5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"leadId": "lea_0"}, "leadId is missing or names no lead"),
        ({"leadId": None}, "leadId is missing or names no lead"),
        ({"stepId": "stp_0"}, "stepId is missing or names no step of the lead's campaign"),
        ({"stepId": "another campaign's"}, "stepId is missing or names no step of the lead's campaign"),
        ({"stepId": "a visit"}, "stepId names a step that is no voice note"),
    ],
    ids=str,
)
def test_audio_needs_a_lead_and_a_voice_note_of_its_campaign(
    lemlist: Sandbox,
    http: Client,
    campaign: dict[str, Any],
    place: dict[str, str],
    change: dict[str, str],
    reason: str,
) -> None:
    others = {
        "another campaign's": lemlist.step(lemlist.campaign()["sequenceId"], "linkedinVoiceNote")["_id"],
        "a visit": lemlist.step(campaign["sequenceId"], "linkedinVisit")["_id"],
    }
    change = {name: others.get(value, value) for name, value in change.items()}
    answer = http.post("/leads/audio", params=place | change, files={"file": ("a.mp3", b"x", "audio/mpeg")})
    assert (answer.status_code, answer.text) == (400, "Bad team")
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
def test_what_is_no_audio_file_is_refused(http: Client, place: dict[str, str], files: Any) -> None:
    answer = http.post("/leads/audio", params=place, files=files)
    assert (answer.status_code, answer.text) == (400, "Invalid audio file")
