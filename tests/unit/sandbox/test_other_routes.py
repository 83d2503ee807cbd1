# SPDX-License-Identifier: Apache-2.0
"""Unsubscribes, and the lists with each way of paging."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.routes import Route, Table, lists
from tests.unit.sandbox.conftest import Client

VALUES = "/v2/unsubscribes/variables"

# --- Unsubscribes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["ana@example.com", "@norte.example", "https://www.linkedin.com/in/ana", "+33 6 12", "a/b?c#d%e"]
)
def test_any_value_can_be_unsubscribed_read_and_subscribed_again(http: Client, value: str) -> None:
    path = f"{VALUES}/{quote(value, safe='')}"
    first = http.post(path).json()
    assert (first["value"], first["variable"], first["source"]) == (value, value, "api")
    assert http.post(path).json() == first, "an existing entry is returned"
    assert http.get(path).json() == first
    assert http.delete(path).json() == "Variable subscribed"
    assert (http.get(path).status_code, http.get(path).text) == (404, "Variable not found")
    assert http.delete(path).text == "Variable not found in unsubscribe list"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_empty_value_is_refused(http: Client, method: str) -> None:
    response = http.request(method, f"{VALUES}/")
    assert (response.status_code, response.text) == (400, "No value")


def test_many_values_are_unsubscribed_in_one_request_and_paged(http: Client) -> None:
    values = [f"p{number}@example.com" for number in range(150)]
    assert http.post(VALUES, json={"values": values}).json() == "Variables unsubscribed"
    pages = [http.get(VALUES, params={"offset": offset}).json() for offset in (0, 100)]
    assert [each["value"] for page in pages for each in page] == values
    assert len(http.get("/v2/unsubscribes/exports/variables").text.splitlines()) == 151


@pytest.mark.parametrize(
    "body",
    [{}, {"values": "a"}, {"values": [1]}, {"values": ["a"] * 10_001}, {"values": ["a"], "source": "me"}],
)
def test_invalid_values_unsubscribe_none(lemlist: Sandbox, http: Client, body: dict[str, Any]) -> None:
    assert http.post(VALUES, json=body).status_code == 400
    assert lemlist.state()["unsubscribes"] == []


@pytest.mark.parametrize("source", ["abuse", "lead", "LEAD", "Abuse"])
def test_a_complaint_and_a_lead_cannot_be_resubscribed(lemlist: Sandbox, http: Client, source: str) -> None:
    lemlist.unsubscribe("ana@example.com", source)
    assert http.get(f"{VALUES}/ana%40example.com").json()["source"] == source
    response = http.delete(f"{VALUES}/ana%40example.com")
    assert (response.status_code, response.text) == (409, "Variable is protected and cannot be re-subscribed")


@pytest.mark.parametrize("source", ["api", "bounced", "user", "BOUNCED"])
def test_other_values_can_be_resubscribed(lemlist: Sandbox, http: Client, source: str) -> None:
    lemlist.unsubscribe("ana@example.com", source)
    assert http.delete(f"{VALUES}/ana%40example.com").json() == "Variable subscribed"
    assert lemlist.state()["unsubscribes"] == []


def test_100_000_values_are_added_at_once_and_exported_whole(lemlist: Sandbox, http: Client) -> None:
    lemlist.unsubscribe((f"p{number}@example.com" for number in range(100_000)), source="bounced")
    lemlist.unsubscribe(["@norte.example", "p7@example.com"], "user")
    head, *rows = http.get("/v2/unsubscribes/exports/variables").text.splitlines()
    assert head == "_id,value,source,createdAt"
    assert len(rows) == len({row.split(",")[0] for row in rows}) == 100_001
    assert [row.split(",")[1:3] for row in (rows[7], rows[-1])] == [
        ["p7@example.com", "bounced"],
        ["@norte.example", "user"],
    ]
    with pytest.raises(ValueError, match="source must be one of api, bounced, bounce, lead, user, abuse"):
        lemlist.unsubscribe("ana@example.com", "me")


def test_a_contact_is_unsubscribed_and_resubscribed(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    contact = lemlist.lead(campaign["_id"], "ana@example.com")["contactId"]
    path = f"/v2/unsubscribes/contacts/{contact}"
    assert http.get(path).json() == {"_id": contact, "doNotContact": False}
    assert http.post(path).json() == "Contact subscription updated"
    assert http.get(path).json()["doNotContact"] is True
    http.delete(path)
    assert f"{contact},false" in http.get("/v2/unsubscribes/exports/contacts").text
    assert http.get("/v2/unsubscribes/contacts/ctc_0").text == "Bad contact identifier"


# --- Ways of paging ---------------------------------------------------------------------------------------


def test_companies_page_by_offset_up_to_a_total(http: Client) -> None:
    seen: list[str] = []
    while True:
        page = http.get("/companies", params={"offset": len(seen)}).json()
        seen += [each["_id"] for each in page["data"]]
        if page["offset"] + len(page["data"]) >= page["total"]:
            break
    assert len(seen) == len(set(seen)) == lists.COMPANIES


def test_companies_look_as_documented(lemlist: Sandbox, http: Client) -> None:
    first, again = (http.get("/companies?limit=2").json()["data"] for _ in range(2))
    assert first == again
    assert first[0]["fields"] == {"name": "Company 1", "industry": "Logistics"}
    assert {"_id", "domain", "ownerId", "createdBy", "createdAt"} <= first[0].keys()
    assert first[0]["createdAt"] > first[1]["createdAt"]


def test_the_inbox_contains_the_next_page(http: Client) -> None:
    user = http.get("/team?version=v2").json()["userIds"][0]
    seen: list[str] = []
    page: int | None = 1
    while page:
        response = http.get("/inbox", params={"userId": user, "page": page}).json()
        seen += [each["_id"] for each in response["data"]]
        page = response["pagination"]["nextPage"]
    assert len(seen) == len(set(seen)) == lists.CONVERSATIONS


def test_tasks_page_from_zero_until_an_empty_page(http: Client) -> None:
    pages = [http.get("/tasks", params={"page": number}).json() for number in range(4)]
    assert [each["page"] for each in pages] == ["0", "1", "2", "3"]
    assert [len(each["results"]) for each in pages] == [20, 20, 13, 0]


def test_the_watchlist_contains_the_number_of_pages(http: Client) -> None:
    pages = [http.get("/watchlist", params={"page": page, "limit": 100}).json() for page in (1, 2)]
    assert sum(len(each["data"]) for each in pages) == lists.AGENTS
    assert pages[1]["meta"]["pagination"]["totalPages"] == 2


def test_contacts_are_those_of_the_leads(lemlist: Sandbox, http: Client, campaign: dict[str, Any]) -> None:
    for name in ("ana", "bo"):
        lemlist.lead(campaign["_id"], f"{name}@example.com", firstName=name)
    found = http.get("/contacts?limit=1&offset=1").json()
    assert (found["total"], found["data"][0]["fullName"]) == (2, "bo")
    (ana,) = http.get("/contacts", params={"idsOrEmails": "ana@example.com"}).json()
    assert ana["campaigns"][0]["campaignId"] == campaign["_id"]


@pytest.mark.parametrize("path", ["/inbox", "/inbox?userId=usr_0", "/companies?offset=x"])
def test_an_invalid_query_is_refused(http: Client, path: str) -> None:
    assert http.get(path).status_code == 400


def test_senders_with_an_unknown_state_are_refused(lemlist: Sandbox, http: Client) -> None:
    response = http.get("/team/senders?state=runing")
    assert (response.status_code, response.text) == (400, "Bad params (invalid state parameter)")
    assert lemlist.violations()[-1]["rule"] == "body"


def test_a_fixed_segment_has_priority_over_a_parameter() -> None:
    anything, fixed = (Route("GET", path, lambda call: None, None) for path in ("/a/{b}", "/a/b"))
    found = [Table([anything, fixed]).find("GET", path) for path in ("/a/b", "/a/c", "/a/", "/a")]
    assert [each and each.route for each in found] == [fixed, anything, None, None]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/contacts?search=ana", "the sandbox ignores parameter search"),
        ("/companies?idsOrDomains=cpn_1", "the sandbox ignores parameter idsOrDomains"),
        ("/contacts?companyId=cpn_1", "the sandbox ignores parameter companyId"),
        ("/watchlist?type=jobChange", "the sandbox ignores parameter type"),
        ("/companies?limit=1&limit=2", "parameter limit is repeated"),
    ],
)
def test_a_parameter_that_has_no_effect_is_a_violation(
    lemlist: Sandbox, http: Client, path: str, what: str
) -> None:
    assert http.get(path).status_code == 200
    assert [each["what"] for each in lemlist.violations()] == [what]


def test_a_refused_request_keeps_its_other_violations(lemlist: Sandbox, http: Client) -> None:
    assert http.post(f"{VALUES}?source=me", json={}).status_code == 400
    assert [each["rule"] for each in lemlist.violations()] == ["query", "body"]


def test_an_unknown_path_returns_the_web_application(lemlist: Sandbox, http: Client) -> None:
    response = http.get("/nowhere")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert lemlist.violations()[-1]["rule"] == "route"
