# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.sandbox.conftest import Client

YEAR = {"startDate": "2000-01-01T00:00:00Z", "endDate": "2100-01-01T00:00:00Z"}


def test_a_new_campaign_has_the_state_running_and_the_status_draft(http: Client) -> None:
    created = http.post("/campaigns", json={"name": "Spring", "autoReview": True}).json()
    assert (created["state"], created["sequenceId"][:4], created["scheduleIds"][0][:4]) == (
        "running",
        "seq_",
        "skd_",
    )
    read = http.get(f"/campaigns/{created['_id']}").json()
    assert (read["status"], read["timezone"], read["creator"]["userEmail"]) == (
        "draft",
        "Europe/Paris",
        "ann@sandbox.example",
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": 1},
        {"name": "x", "timezone": "Mars"},
        {"name": "x", "autoReview": "yes"},
        {"name": "x", "autoReviewConditions": ["perhaps"]},
        {"name": "x", "colour": "red"},
    ],
    ids=str,
)
def test_an_invalid_campaign_is_refused(lemlist: Sandbox, http: Client, body: dict[str, Any]) -> None:
    assert http.post("/campaigns", json=body).status_code == 400
    assert lemlist.state()["campaigns"] == []


def test_the_list_pages_by_offset_or_page_and_sorts_by_creation(lemlist: Sandbox, http: Client) -> None:
    ids = [lemlist.campaign(str(number))["_id"] for number in range(5)]

    def found(**query: Any) -> list[str]:
        return [each["_id"] for each in http.get("/campaigns", params={"version": "v2", **query}).json()]

    assert found() == ids
    assert found(limit=2, offset=3) == ids[3:]
    assert found(limit=2, page=2) == ids[2:4]
    assert found(sortBy="createdAt", sortOrder="desc") == ids[::-1]
    assert found(status="running") == []
    assert found(createdBy="usr_none") == []
    assert lemlist.violations() == []


def test_a_page_has_at_most_100_campaigns(lemlist: Sandbox, http: Client) -> None:
    for number in range(101):
        lemlist.campaign(str(number))
    assert len(http.get("/campaigns?version=v2&limit=500").json()) == 100
    assert lemlist.violations()[-1]["what"] == "limit is 500, the maximum is 100"


def test_the_list_can_be_an_object() -> None:
    with Sandbox(limit="none", campaign_list="object") as lemlist, Client(lemlist) as http:
        for number in range(3):
            lemlist.campaign(str(number))
        first = http.get("/campaigns?version=v2&limit=2&page=1").json()
        assert [len(first["campaigns"]), first["pagination"]["nextPage"]] == [2, 2]
        last = http.get("/campaigns?version=v2&limit=2&page=2").json()
        assert [len(last["campaigns"]), last["pagination"]["nextPage"]] == [1, None]
        assert last["pagination"]["totalRecords"] == 3


def test_a_list_without_version_v2_is_a_violation(lemlist: Sandbox, http: Client) -> None:
    http.get("/campaigns")
    assert lemlist.violations()[-1]["rule"] == "query"


def test_the_list_is_sorted_only_by_creation(lemlist: Sandbox, http: Client) -> None:
    assert http.get("/campaigns?version=v2&sortBy=name").status_code == 400
    assert lemlist.violations()[-1]["what"] == "Expected createdAt in sortBy"


@pytest.mark.parametrize("restart", ["ignored", "refused"])
def test_starting_a_running_campaign_is_ignored_or_refused(restart: str) -> None:
    with Sandbox(limit="none", restart=restart) as lemlist, Client(lemlist) as http:
        path = f"/campaigns/{lemlist.campaign()['_id']}"
        assert http.post(f"{path}/start").json()["state"] == "running"
        again = http.post(f"{path}/start")
        assert again.status_code == (200 if restart == "ignored" else 400)
        assert http.post(f"{path}/pause").json()["state"] == "paused"
        assert lemlist.state()["campaigns"][0]["status"] == "paused"


def test_an_update_changes_settings_and_refuses_unknown_fields(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    path = f"/campaigns/{campaign['_id']}"
    assert http.patch(path, json={"name": "New", "autoReview": True}).json()["name"] == "New"
    assert lemlist.state()["campaigns"][0]["autoReview"] is True
    nested = {"tracking": {"trackOpens": False}, "onReplied": {"campaignProgress": "pause"}}
    assert nested.items() <= http.patch(path, json=nested).json().items()
    assert lemlist.violations() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "red"},
        {"timezone": "Europe/Paris"},
        {"labels": ["EMEA"]},
        {"stopOnEmailReplied": "yes"},
        {"stopOnEmailReplied": None},
        {"autoReviewConditions": ["perhaps"]},
        {"tracking": True},
        {"tracking": {"trackOpens": 1}},
        {"tracking": {"opens": True}},
        {"onReplied": {"campaignProgress": "halt"}},
        {"aiFeatures": {"onInterestedReply": {"enabled": "yes"}}},
        {"sendUserIds": "usr_0"},
        {"sendUserIds": [{}]},
    ],
    ids=str,
)
def test_an_invalid_update_changes_nothing(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], wrong: dict[str, Any]
) -> None:
    before = lemlist.state()["campaigns"]
    response = http.patch(f"/campaigns/{campaign['_id']}", json={"name": "New", **wrong})
    assert response.status_code == 400
    assert lemlist.state()["campaigns"] == before


def test_unknown_fields_of_an_update_can_be_ignored_but_not_in_silence() -> None:
    with Sandbox(limit="none", unknown_fields="ignored") as lemlist, Client(lemlist) as http:
        campaign = lemlist.campaign()
        body = {"colour": "red", "name": "New", "tracking": {"trackOpens": False, "opens": True}}
        response = http.patch(f"/campaigns/{campaign['_id']}", json=body)
        assert (response.status_code, response.json()) == (
            200,
            {"_id": campaign["_id"], "name": "New", "autoReview": False, "tracking": {"trackOpens": False}},
        )
        assert lemlist.state()["campaigns"][0]["settings"] == {
            "name": "New",
            "tracking": {"trackOpens": False},
        }
        (schedule,) = campaign["scheduleIds"]
        response = http.patch(f"/schedules/{schedule}", json={"start": "10:00", "colour": "red"})
        assert (response.json()["start"], "colour" in response.json()) == ("10:00", False)
        step = lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")
        path = f"/sequences/{campaign['sequenceId']}/steps"
        body = {"type": "email", "message": "c", "index": 0, "colour": "red"}
        assert http.patch(f"{path}/{step['_id']}", json=body).json()["message"] == "c"
        assert [(each["rule"], each["what"]) for each in lemlist.violations()] == [
            ("body", f"unknown field {name} is ignored")
            for name in ("colour", "tracking.opens", "colour", "index", "colour")
        ]
        assert (
            http.patch(f"/campaigns/{campaign['_id']}", json={"tracking": {"trackOpens": 1}}).status_code
            == 400
        )
        assert http.patch(f"/schedules/{schedule}", json={"start": "soon"}).status_code == 400
        assert http.post("/schedules", json={"colour": "red"}).status_code == 400
        assert http.post("/campaigns", json={"name": "x", "colour": "red"}).status_code == 400
        assert http.post(path, json={**body, "subject": "a"}).status_code == 400


@pytest.mark.parametrize("auto_review", [True, False])
def test_a_campaign_can_show_its_auto_review(auto_review: bool) -> None:
    with Sandbox(limit="none", auto_review_listed=True) as lemlist, Client(lemlist) as http:
        campaign = lemlist.campaign(auto_review=auto_review)
        assert http.get(f"/campaigns/{campaign['_id']}").json()["autoReview"] is auto_review


def test_a_campaign_shows_the_senders_of_the_last_update(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    path = f"/campaigns/{campaign['_id']}"
    ann, bob = http.get("/team?version=v2").json()["users"]

    def shown() -> list[str]:
        return [each["email"] for each in http.get(path).json()["senders"]]

    assert shown() == [ann["email"]]
    updated = http.patch(path, json={"sendUserIds": [bob["userId"]]}).json()
    assert [each["id"] for each in updated["sendUsers"]] == [bob["userId"]]
    assert shown() == [bob["email"]]
    (sender,) = http.get(path).json()["senders"]
    assert sender == {
        "id": bob["userId"],
        "email": bob["email"],
        "sendUserMailboxId": updated["sendUsers"][0]["mailboxes"][0]["sendUserMailboxId"],
    }
    assert "sendUsers" not in http.patch(path, json={"name": "New"}).json()
    assert [len(each["campaigns"]) for each in http.get("/team/senders").json()] == [0, 1]
    both = [bob["userId"], ann["userId"]]
    http.patch(path, json={"sendUserIds": both})
    assert shown() == [bob["email"], ann["email"]]
    assert lemlist.violations() == []


@pytest.mark.parametrize("ids", [[], ["usr_0"]])
def test_senders_of_whom_none_is_a_member_are_refused(
    http: Client, campaign: dict[str, Any], ids: list[str]
) -> None:
    response = http.patch(f"/campaigns/{campaign['_id']}", json={"sendUserIds": ids})
    assert response.status_code == 400
    assert response.text == "None of the provided sender IDs are members of this team"


def test_a_sender_who_is_not_a_member_is_ignored_and_a_violation(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    path = f"/campaigns/{campaign['_id']}"
    (sender,) = http.get(path).json()["senders"]
    assert http.patch(path, json={"sendUserIds": ["usr_0", sender["id"]]}).status_code == 200
    assert http.get(path).json()["senders"] == [sender]
    assert [each["rule"] for each in lemlist.violations()] == ["body"]


def test_a_campaign_can_have_no_sender(lemlist: Sandbox, http: Client) -> None:
    campaign = lemlist.campaign(senders=[])
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")["_id"]
    lemlist.activity(lead_id=lead, type="paused")
    path = f"/campaigns/{campaign['_id']}"
    read = http.get(path).json()
    assert (read["senders"], read["errors"]) == ([], ["Your campaign does not have sender."])
    assert statutes(http, campaign)[0] == (3, "issue", "senders")
    assert "sendUserId" not in http.get("/activities?version=v2").json()[0]
    assert [each["campaigns"] for each in http.get("/team/senders").json()] == [[], []]
    ann, bob = http.get("/team?version=v2").json()["users"]
    stats = {**YEAR, "sendUser": f"{ann['userId']}|{ann['email']}"}
    assert http.get(f"/v2{path}/stats", params=stats).status_code == 200
    http.patch(path, json={"sendUserIds": [bob["userId"]]})
    assert http.get(path).json()["errors"] == []
    second = lemlist.campaign(senders=[bob["userId"]])
    assert [each["email"] for each in http.get(f"/campaigns/{second['_id']}").json()["senders"]] == [
        bob["email"]
    ]


@pytest.mark.parametrize("status", ["ERROR", "DISCONNECTED"])
def test_a_mailbox_that_is_not_connected_is_a_warning(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], status: str
) -> None:
    (sender,) = http.get(f"/campaigns/{campaign['_id']}").json()["senders"]

    def mailboxes() -> list[tuple[str, str]]:
        found = http.get(f"/users/{sender['id']}").json()["mailboxes"]
        return [(each["_id"], each["status"]) for each in found]

    assert mailboxes() == [(sender["sendUserMailboxId"], "CONNECTED")]
    lemlist.mailbox(sender["id"], status)
    assert mailboxes() == [(sender["sendUserMailboxId"], status)]
    assert (2, "issue", "senders") in statutes(http, campaign)
    lemlist.mailbox(sender["id"], "CONNECTED")
    assert (2, "issue", "senders") not in statutes(http, campaign)
    with pytest.raises(ValueError, match="status must be one of CONNECTED, ERROR, DISCONNECTED"):
        lemlist.mailbox(sender["id"], "broken")
    assert http.get("/users/usr_none").text == "Bad team"


def test_a_campaign_shows_only_what_is_documented(http: Client, campaign: dict[str, Any]) -> None:
    http.patch(f"/campaigns/{campaign['_id']}", json={"stopOnEmailReplied": True, "name": "New"})
    assert http.get(f"/campaigns/{campaign['_id']}").json().keys() == {
        "_id", "name", "createdAt", "status", "creator", "senders", "emoji", "labels", "createdBy",
        "sequenceId", "scheduleIds", "timezone", "teamId", "hasError", "errors",
    }  # fmt: skip


# --- Statutes ---------------------------------------------------------------------------------------------


def statutes(http: Client, campaign: dict[str, Any]) -> list[tuple[int, str, str]]:
    found = http.get(f"/campaigns/{campaign['_id']}/statutes").json()["statutes"]
    return [(each["level"], each["type"], each["category"]) for each in found]


def test_the_statutes_follow_from_the_state_of_a_campaign(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    found = http.get(f"/campaigns/{campaign['_id']}/statutes").json()
    assert (found["name"], found["status"]) == ("Spring webinar", "draft")
    assert statutes(http, campaign) == [(3, "issue", "steps"), (2, "issue", "leads")]
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    assert statutes(http, campaign) == [(1, "information", "leads")]
    http.post(f"/leads/review/{lead['_id']}")
    assert statutes(http, campaign) == []
    assert http.get("/campaigns/cam_none/statutes").text == "Campaign not found"


def test_the_errors_of_a_campaign_are_its_statutes_of_level_3_as_text(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    def shown() -> tuple[bool, list[str]]:
        (listed,) = http.get("/campaigns?version=v2").json()
        read = http.get(f"/campaigns/{campaign['_id']}").json()
        assert (listed["hasError"], listed["errors"]) == (read["hasError"], read["errors"])
        return read["hasError"], read["errors"]

    assert shown() == (True, ["Your campaign does not have any steps."])
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    lemlist.statute(campaign["_id"], "Only a <i>warning</i>.", level=2)
    assert shown() == (False, [])
    lemlist.statute(campaign["_id"], "Tom &amp; <b>Ann</b> can&#39;t send.", category="senders")
    assert shown() == (True, ["Tom & Ann can't send."])


def test_a_test_can_add_statutes_of_each_level(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lemlist.step(campaign["sequenceId"], "linkedinVisit")
    for level in (1, 2, 3):
        lemlist.statute(campaign["_id"], "<p>a &lt; b</p>", level=level, category=f"own {level}")
    found = statutes(http, campaign)
    assert [each for each in found if each[2].startswith("own")] == [
        (3, "issue", "own 3"),
        (2, "issue", "own 2"),
        (1, "information", "own 1"),
    ]
    (first, *_) = http.get(f"/campaigns/{campaign['_id']}/statutes").json()["statutes"]
    assert first["message"] == "<p>a &lt; b</p>"
    with pytest.raises(ValueError, match="level must be 1, 2 or 3"):
        lemlist.statute(campaign["_id"], "x", level=4)


# --- Statistics -------------------------------------------------------------------------------------------


def test_statistics_count_activities(lemlist: Sandbox, http: Client, campaign: dict[str, Any]) -> None:
    step = lemlist.step(campaign["sequenceId"], "email", subject="x", message="y")
    for number in range(3):
        lead = lemlist.lead(campaign["_id"], f"p{number}@example.com")
        lemlist.activity(lead_id=lead["_id"], type="emailsSent", step_id=step["_id"])
    for kind in ("emailsOpened", "emailsOpened", "emailsReplied"):
        lemlist.activity(lead_id=lead["_id"], type=kind, step_id=step["_id"])
    stats = http.get(f"/v2/campaigns/{campaign['_id']}/stats", params=YEAR).json()
    counts = [stats[name] for name in ("nbLeads", "nbLeadsReached", "nbLeadsOpened", "opened", "replied")]
    assert counts == [3, 3, 1, 2, 1]
    assert (stats["steps"][0]["sent"], stats["steps"][0]["opened"]) == (3, 2)
    past = http.get(f"/v2/campaigns/{campaign['_id']}/stats", params={**YEAR, "endDate": "2001-01-01"}).json()
    assert past["messagesSent"] == 0


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "Bad params: startDate and endDate are required"),
        ({**YEAR, "channels": "email"}, "Bad params: channels must be a valid array"),
        ({**YEAR, "channels": '["fax"]'}, "Bad params: channels must be empty or contain"),
        ({**YEAR, "ABSelected": "C"}, "Bad params: ABSelected must be A or B"),
        ({**YEAR, "sendUser": "usr_1"}, "Bad param format: sendUser must be formatted as follow"),
        ({**YEAR, "sendUser": "usr_1|a@b.c"}, "Bad params: the send user email is not related to"),
    ],
)
def test_invalid_statistics_queries_are_refused(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], query: dict[str, str], text: str
) -> None:
    response = http.get(f"/v2/campaigns/{campaign['_id']}/stats", params=query)
    assert response.status_code == 400
    assert response.text.startswith(text)
    assert lemlist.violations()[-1]["what"] == response.text


@pytest.mark.parametrize(
    ("channels", "replied"),
    [("", 3), ("[]", 3), ('["email"]', 1), ('["linkedin"]', 1), ('["others", "email"]', 2)],
)
def test_statistics_are_filtered_by_channel(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], channels: str, replied: int
) -> None:
    lead = lemlist.lead(campaign["_id"], "ana@example.com")["_id"]
    for type in ("emailsReplied", "linkedinReplied", "smsReplied"):
        lemlist.activity(lead_id=lead, type=type)
    path, query = f"/v2/campaigns/{campaign['_id']}/stats", {**YEAR, "channels": channels}
    assert http.get(path, params=query).json()["replied"] == replied


def figures(http: Client, campaign: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """Return the statistics of a campaign from the batch, after checking that its own route has the same."""
    query = {**wanted, "channels": json.dumps(wanted.get("channels", []))}
    single: dict[str, Any] = http.get(f"/v2/campaigns/{campaign['_id']}/stats", params=query).json()
    body = {"campaignIds": [campaign["_id"]], **wanted}
    (batch,) = http.post("/v2/campaigns/stats/batch", json=body).json()["results"]
    assert batch == {"campaignId": campaign["_id"], **single}
    return single


def test_an_email_that_bounced_is_sent_but_not_delivered(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    first, second = (
        lemlist.step(campaign["sequenceId"], "email", subject="x", message="y")["_id"] for _ in range(2)
    )
    for number, kinds in enumerate([["emailsSent"], ["emailsSent", "emailsBounced"], ["emailsBounced"]]):
        lead = lemlist.lead(campaign["_id"], f"p{number}@example.com")["_id"]
        for kind in kinds:
            lemlist.activity(lead_id=lead, type=kind, step_id=first)
    lemlist.activity(lead_id=lead, type="linkedinSent", step_id=second)
    found = figures(http, campaign, **YEAR)
    assert (found["messagesSent"], found["messagesBounced"], found["delivered"]) == (3, 2, 2)
    assert found["nbLeadsReached"] == 2
    rows = [(each["sent"], each["bounced"], each["delivered"]) for each in found["steps"]]
    assert rows == [(2, 2, 1), (1, 0, 1)]
    email = figures(http, campaign, **YEAR, channels=["email"])
    assert (email["messagesSent"], email["messagesBounced"], email["delivered"]) == (2, 2, 1)
    other = figures(http, campaign, **YEAR, channels=["linkedin"])
    assert (other["messagesSent"], other["messagesBounced"], other["delivered"]) == (1, 0, 1)


def test_unsubscribed_leads_are_counted_in_the_window_in_which_they_unsubscribed(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    step = lemlist.step(campaign["sequenceId"], "email", subject="x", message="y")["_id"]
    for number, kind in enumerate(["emailsUnsubscribed", "emailsUnsubscribed", "manualUnsubscribed"]):
        lead = lemlist.lead(campaign["_id"], f"p{number}@example.com")["_id"]
        for _ in range(2):
            at = 1_700_000_000.0 + number * 86400
            lemlist.activity(lead_id=lead, type=kind, step_id=step, created_at=at)
    email = lemlist.lead(campaign["_id"], "by-route@example.com")["email"]
    http.delete(f"/campaigns/{campaign['_id']}/leads/{email}")

    def found(**wanted: Any) -> tuple[int, int]:
        shown = figures(http, campaign, **{**YEAR, **wanted})
        return shown["nbLeadsUnsubscribed"], shown["steps"][0]["unsubscribed"]

    assert found() == (4, 6)
    assert found(endDate="2023-11-15T00:00:00Z") == (1, 2)
    assert found(channels=["email"]) == (3, 4)
    assert found(channels=["linkedin"]) == (0, 0)


def test_statistics_are_filtered_by_sender(lemlist: Sandbox, http: Client, campaign: dict[str, Any]) -> None:
    lead = lemlist.lead(campaign["_id"], "ana@example.com")["_id"]
    lemlist.activity(lead_id=lead, type="emailsSent")
    users = http.get("/team?version=v2").json()["users"]
    path = f"/v2/campaigns/{campaign['_id']}/stats"
    queries = [{**YEAR, "sendUser": f"{each['userId']}|{each['email']}"} for each in users]
    assert [http.get(path, params=query).json()["delivered"] for query in queries] == [1, 0]
    http.patch(f"/campaigns/{campaign['_id']}", json={"sendUserIds": [users[1]["userId"]]})
    assert [http.get(path, params=query).json()["delivered"] for query in queries] == [0, 1]
    assert http.get("/activities?version=v2").json()[0]["sendUserId"] == users[1]["userId"]


def test_a_batch_of_statistics_lists_the_errors(http: Client, campaign: dict[str, Any]) -> None:
    path = "/v2/campaigns/stats/batch"
    body = {"campaignIds": [campaign["_id"], "cam_none"], "channels": ["email"], **YEAR}
    found = http.post(path, json=body).json()
    assert [each["campaignId"] for each in found["results"]] == [campaign["_id"]]
    assert found["errors"] == [{"campaignId": "cam_none", "error": "Campaign not found"}]
    assert http.post(path, json={**YEAR, "campaignIds": []}).status_code == 400
    assert "at most 100" in http.post(path, json={**YEAR, "campaignIds": ["x"] * 101}).text


# --- Exports ----------------------------------------------------------------------------------------------


def test_leads_are_exported_as_csv_and_as_json(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lemlist.lead(campaign["_id"], "ana@example.com", firstName='A, "B"', **{"Company size": "9"})
    path = f"/campaigns/{campaign['_id']}/export/leads"
    response = http.get(path, params={"state": "all"})
    assert response.headers["Content-Type"].startswith("text/csv")
    head, row = response.text.splitlines()
    assert head == "emailStatus,email,firstName,Company size,lastState,status,_id"
    assert row.startswith(',ana@example.com,"A, ""B""",9,scanned,review,lea_')
    (lead,) = http.get(path, params={"state": "all", "format": "json"}).json()
    assert (lead["firstName"], lead["lastState"]) == ('A, "B"', "scanned")
    assert http.get(path, params={"format": "json"}).json() == []
    assert http.get(path, params={"state": "all", "format": "xml"}).status_code == 400


def test_an_export_without_state_can_contain_all_leads() -> None:
    with Sandbox(limit="none", state_required=False) as lemlist, Client(lemlist) as http:
        campaign = lemlist.campaign()["_id"]
        lemlist.lead(campaign, "ana@example.com")
        assert len(http.get(f"/campaigns/{campaign}/export/leads?format=json").json()) == 1


@pytest.mark.parametrize(("options", "score"), [({}, None), ({"export_variables": True}, "9")])
def test_the_json_export_has_custom_variables_if_wanted(options: dict[str, Any], score: str | None) -> None:
    with Sandbox(limit="none", **options) as lemlist, Client(lemlist) as http:
        campaign = lemlist.campaign()["_id"]
        lemlist.lead(campaign, "ana@example.com", firstName="Ana", score="9")
        (lead,) = http.get(f"/campaigns/{campaign}/export/leads?state=all&format=json").json()
        assert (lead["firstName"], lead.get("score")) == ("Ana", score)


@pytest.mark.parametrize(
    ("state", "people"),
    [
        ("all", "new sent opened replied paused"),
        ("scanned", "new"),
        ("contacted", "sent"),
        ("hooked", "opened"),
        ("emailsOpened", "opened"),
        ("warmed,paused", "replied paused"),
        ("interested", ""),
        ("nonsense", ""),
    ],
)
def test_an_export_is_filtered_by_states_and_groups_of_states(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any], state: str, people: str
) -> None:
    activities = {"sent": "emailsSent", "opened": "emailsOpened", "replied": "emailsReplied"}
    for name in ("new", "sent", "opened", "replied", "paused"):
        lead = lemlist.lead(campaign["_id"], f"{name}@example.com")
        if name in activities:
            lemlist.activity(lead_id=lead["_id"], type=activities[name])
    http.post(f"/leads/pause/{lead['_id']}")
    query = {"state": state, "format": "json"}
    found = http.get(f"/campaigns/{campaign['_id']}/export/leads", params=query).json()
    assert [each["email"].partition("@")[0] for each in found] == people.split()


def test_an_export_of_statistics_is_polled_until_it_is_done(http: Client, campaign: dict[str, Any]) -> None:
    path = f"/campaigns/{campaign['_id']}/export"
    started = http.get(f"{path}/start").json()
    assert (started["_id"][:4], started["status"]) == ("axp_", "pending")
    polls = [http.get(f"{path}/{started['_id']}/status").json()["status"] for _ in range(3)]
    assert [each["status"] for each in polls] == ["pending", "pending", "done"]
    assert http.get(polls[-1]["url"]).headers["Content-Type"].startswith("text/csv")
    mailed = http.put(f"{path}/{started['_id']}/email/a%40example.com").json()
    assert mailed["status"]["email"] == "a@example.com"
    missing = http.get(f"{path}/axp_none/status")
    assert (missing.status_code, json.loads(missing.text)["ok"]) == (404, False)
    missing = http.put(f"{path}/axp_none/email/a%40example.com")
    assert (missing.status_code, missing.text) == (404, "Export not found")


def test_an_export_is_not_found_in_another_campaign(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    started = http.get(f"/campaigns/{campaign['_id']}/export/start").json()["_id"]
    other = lemlist.campaign()["_id"]
    assert http.get(f"/campaigns/{other}/export/{started}/status").status_code == 404
