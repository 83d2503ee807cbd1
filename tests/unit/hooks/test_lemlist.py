# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gzip
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_lemlist import __version__
from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistError,
    LemlistNetworkError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.version_compat import runs_remotely
from tests.unit.conftest import API_KEY, Act, OpenBudget, Stage

CSV = {"Content-Type": "text/csv"}
START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 3, 2, 12, 30, 0, 123000, tzinfo=UTC)


@pytest.fixture
def hook(
    stage: Stage, budget: OpenBudget, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LemlistHook]:
    connection = {"conn_type": "lemlist", "password": API_KEY, "host": stage.url}
    monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(LemlistHook, "budget", budget)
    hook = LemlistHook()
    yield hook
    hook.close()


# --- The connection ---------------------------------------------------------------------------------------


def test_only_lemlists_own_word_means_that_a_value_is_not_unsubscribed(
    stage: Stage, hook: LemlistHook
) -> None:
    path = "/v2/unsubscribes/variables/ann%40example.com"
    stage.routes[f"GET {path}"] = Act(404, b"Variable not found")
    assert hook.get_unsubscribe("ann@example.com") is None
    stage.routes[f"GET {path}"] = Act(404, b"No such page")
    with pytest.raises(LemlistNotFoundError):
        hook.get_unsubscribe("ann@example.com")


def test_list_of_unsubscribes_is_read_with_one_request(stage: Stage, hook: LemlistHook) -> None:
    table = b"_id,value,source,createdAt\r\nuns_1,ann@example.com,api,2026-03-02T10:45:21.367Z\r\n"
    stage.routes["GET /v2/unsubscribes/exports/variables"] = Act(body=table, headers=CSV)
    assert [row["value"] for row in hook.iter_unsubscribes()] == ["ann@example.com"]
    assert len(stage.requests) == 1


def test_statutes_are_those_of_the_response(stage: Stage, hook: LemlistHook) -> None:
    statutes = [{"type": "issue", "level": 3, "message": "No sender", "category": "senders"}]
    stage.routes["GET /campaigns/cam_1/statutes"] = Act(body={"status": "draft", "statutes": statutes})
    assert hook.get_statutes("cam_1") == statutes


def test_launched_lead_stays_launched(stage: Stage, hook: LemlistHook) -> None:
    refusal = {"error": "CAMPAIGN_LEAD_REVIEW_LEAD_ALREADY_LAUNCHED", "message": "It was launched"}
    stage.routes["POST /leads/review/lea_1"] = Act(400, refusal)
    assert hook.launch_lead("lea_1") == {}


def test_leads_are_read_with_their_variables(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /campaigns/cam_1/export/leads"] = Act(
        body=b"email,plan,_id\r\na@x.io,trial,lea_1\r\n", headers=CSV
    )
    [lead] = hook.iter_leads("cam_1", with_variables=True)
    assert lead == {"email": "a@x.io", "plan": "trial", "_id": "lea_1"}
    assert parse_qs(stage.requests[0].query) == {"state": ["all"], "format": ["csv"]}


def test_creating_a_hook_does_not_look_up_the_connection() -> None:
    assert LemlistHook("does_not_exist").lemlist_conn_id == "does_not_exist"


def test_the_user_agent_names_the_provider_and_airflow(stage: Stage, hook: LemlistHook) -> None:
    from airflow import __version__ as airflow_version

    stage.routes["GET /team"] = Act(body={"_id": "tea_1"})
    hook.get_team()
    agent = stage.requests[0].headers["User-Agent"]
    assert agent == f"airflow-provider-lemlist/{__version__} (apache-airflow/{airflow_version})"


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (Act(401), "does not accept the API key"),
        (Act(403, b"User linked to this API key is blocked"), "is blocked in lemlist"),
        (Act(404, b"No user found for this API key"), "belongs to no user"),
        (Act(402, b"route is available starting emailPro plan"), "plan lacks"),
        (Act(403, b"error code: 1010"), "refused this client; the key was not looked at"),
        (Act(302, headers={"Location": "https://elsewhere.example/"}), "redirect"),
        (
            Act(200, b"<html></html>", {"Content-Type": "text/html"}),
            "Check the proxy of the worker and the Base URL of the connection",
        ),
        (Act(404, b"<html></html>", {"Content-Type": "text/html"}), "responded, not lemlist"),
        (Act(503), "lemlist failed"),
        (Act(429), "rate limit"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_the_connection_test_names_each_failure(stage: Stage, hook: LemlistHook, act: Act, says: str) -> None:
    stage.routes["GET /team"] = act
    ok, message = hook.test_connection()
    assert not ok
    assert says in message
    assert API_KEY not in message
    assert "connection '" not in message
    assert len(stage.requests) == 1


def test_the_connection_test_names_the_team(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /team"] = Act(body={"_id": "tea_1", "name": "Blue"})
    assert hook.test_connection() == (True, "Connected to the lemlist team 'Blue'.")


def test_the_connection_test_without_network_or_key_returns_a_message_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_A", '{"conn_type": "lemlist", "password": "k", "host": "http://127.0.0.1:9/api"}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_B", '{"conn_type": "lemlist"}')
    ok, message = LemlistHook("a").test_connection()
    assert (ok, "could not be reached" in message) == (False, True)
    ok, message = LemlistHook("b").test_connection()
    assert not ok
    assert message.startswith("Password (API key) is empty")


def test_the_connection_test_fails_if_the_workers_could_not_reach_the_budget_store(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("redis")
    stage.routes["GET /team"] = Act(body={"_id": "tea_1", "name": "Blue"})
    for store, works in {"": True, "redis://:hidden-word@127.0.0.1:9/0": False}.items():
        extra = {"budget_store": store}
        connection = {"conn_type": "lemlist", "password": API_KEY, "host": stage.url, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_FLEET", json.dumps(connection))
        ok, message = LemlistHook("fleet").test_connection()
        assert ok is works
        assert "hidden-word" not in message
    assert "Redis at 127.0.0.1:9 does not work" in message
    assert "budget_store of the connection" in message


# The sandbox has an HTML page for each campaign, and a plain 404 elsewhere.
@pytest.mark.parametrize(
    "read",
    [
        lambda hook, campaign_id: hook.get_campaign(campaign_id),
        lambda hook, campaign_id: hook.find_lead(campaign_id, "ann@example.com"),
    ],
    ids=["page", "404"],
)
def test_a_base_url_without_api_is_named_by_the_connection_test_and_by_every_error(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], read: Callable[[LemlistHook, str], Any]
) -> None:
    with Sandbox(limit="none") as lemlist:
        campaign_id = lemlist.campaign()["_id"]
        connection = {"conn_type": "lemlist", "password": lemlist.api_key, "host": lemlist.origin}
        monkeypatch.setenv("AIRFLOW_CONN_ROOT", json.dumps(connection))
        ok, message = LemlistHook("root").test_connection()
        assert not ok
        assert "The Base URL does not end in /api." in message
        hook = LemlistHook("root")
        with pytest.raises(LemlistError, match="Base URL of connection 'root' does not end in /api"):
            read(hook, campaign_id)


async def _load(hook: LemlistHook) -> str:
    return (await hook.load_settings()).api_key


def test_the_connection_can_be_looked_up_from_an_event_loop(hook: LemlistHook) -> None:
    import asyncio

    fresh = LemlistHook()
    assert asyncio.run(_load(fresh)) == API_KEY
    assert fresh.settings.api_key == API_KEY
    with pytest.raises(LemlistConfigurationError, match="does not exist"):
        asyncio.run(_load(LemlistHook("nowhere")))


# --- What each method sends -------------------------------------------------------------------------------

RECORD = {"_id": "x_1"}
CASES: list[tuple[Callable[[LemlistHook], Any], str, dict[str, str], Any, Any]] = [
    (lambda h: h.get_team(), "GET /team", {"version": "v2"}, None, RECORD),
    (
        lambda h: h.create_lead("cam_1", {"email": "ann@example.com"}, deduplicate=True, find_phone=False),
        "POST /campaigns/cam_1/leads/",
        {"deduplicate": "true", "findPhone": "false"},
        {"email": "ann@example.com"},
        RECORD,
    ),
    (
        lambda h: h.get_leads_by_email("a+b@example.com"),
        "GET /leads/a%2Bb%40example.com",
        {"version": "v2"},
        None,
        [],
    ),
    (lambda h: h.get_lead("lea_1"), "GET /leads", {"id": "lea_1", "version": "v2"}, None, RECORD),
    (
        lambda h: h.update_lead("cam_1", "lea_1", {"jobTitle": "CTO"}),
        "PATCH /campaigns/cam_1/leads/lea_1",
        {},
        {"jobTitle": "CTO"},
        RECORD,
    ),
    (lambda h: h.pause_lead("lea_1"), "POST /leads/pause/lea_1", {}, None, []),
    (
        lambda h: h.pause_lead("lea_1", campaign_id="cam_1"),
        "POST /leads/pause/lea_1",
        {"campaignId": "cam_1"},
        None,
        [],
    ),
    (lambda h: h.resume_lead("lea_1"), "POST /leads/start/lea_1", {}, None, []),
    (lambda h: h.launch_lead("lea_1"), "POST /leads/review/lea_1", {}, None, {"ok": True}),
    (lambda h: h.mark_lead_interested("lea_1"), "POST /leads/interested/lea_1", {}, None, []),
    (
        lambda h: h.mark_lead_not_interested("ann@example.com", campaign_id="cam_1"),
        "POST /campaigns/cam_1/leads/ann%40example.com/notinterested",
        {},
        None,
        {},
    ),
    (
        lambda h: h.delete_lead("cam_1", "lea_1"),
        "DELETE /campaigns/cam_1/leads/lea_1",
        {"action": "remove"},
        None,
        RECORD,
    ),
    (
        lambda h: h.unsubscribe_lead("cam_1", "ann@example.com"),
        "DELETE /campaigns/cam_1/leads/ann%40example.com",
        {},
        None,
        RECORD,
    ),
    (
        lambda h: h.create_lead_variables("lea_1", {"plan": "trial", "hot": True}),
        "POST /leads/lea_1/variables",
        {"plan": "trial", "hot": "true"},
        None,
        {"ok": True},
    ),
    (
        lambda h: h.update_lead_variables("lea_1", {"plan": "paid"}),
        "PATCH /leads/lea_1/variables",
        {"plan": "paid"},
        None,
        {"ok": True},
    ),
    (
        lambda h: h.erase_lead_variables("lea_1", ["plan"]),
        "DELETE /leads/lea_1/variables",
        {"plan": ""},
        None,
        {"ok": True},
    ),
    (
        lambda h: h.export_leads("cam_1"),
        "GET /campaigns/cam_1/export/leads",
        {"state": "all", "format": "json"},
        None,
        [RECORD],
    ),
    (
        lambda h: list(h.iter_leads("cam_1")),
        "GET /campaigns/cam_1/export/leads",
        {"state": "all", "format": "json"},
        None,
        [RECORD],
    ),
    (
        lambda h: h.export_leads("cam_1", state=["interested", "paused"]),
        "GET /campaigns/cam_1/export/leads",
        {"state": "interested,paused", "format": "json"},
        None,
        [RECORD],
    ),
    (lambda h: h.get_campaign("cam_1"), "GET /campaigns/cam_1", {}, None, RECORD),
    (
        lambda h: h.create_campaign("Spring", campaign_timezone="Europe/Paris", auto_review=False),
        "POST /campaigns",
        {},
        {"name": "Spring", "timezone": "Europe/Paris", "autoReview": False},
        RECORD,
    ),
    (
        lambda h: h.update_campaign("cam_1", {"stopOnEmailReplied": True, "name": "Autumn"}),
        "PATCH /campaigns/cam_1",
        {},
        {"stopOnEmailReplied": True, "name": "Autumn"},
        {"stopOnEmailReplied": True, "name": "Autumn"},
    ),
    (
        lambda h: h.create_schedule({"name": "Mornings", "start": "08:00"}),
        "POST /schedules",
        {},
        {"name": "Mornings", "start": "08:00"},
        RECORD,
    ),
    (
        lambda h: h.update_schedule("skd_1", {"start": "09:00"}),
        "PATCH /schedules/skd_1",
        {},
        {"start": "09:00"},
        RECORD,
    ),
    (
        lambda h: h.attach_schedule("cam_1", "skd_1"),
        "POST /campaigns/cam_1/schedules/skd_1",
        {},
        None,
        {"campaignId": "cam_1", "scheduleId": "skd_1"},
    ),
    (
        lambda h: h.start_campaign("cam_1"),
        "POST /campaigns/cam_1/start",
        {},
        None,
        {"_id": "cam_1", "state": "running"},
    ),
    (
        lambda h: h.pause_campaign("cam_1"),
        "POST /campaigns/cam_1/pause",
        {},
        None,
        {"_id": "cam_1", "state": "paused"},
    ),
    (
        lambda h: h.get_campaign_stats("cam_1", START, END, variant="A", channels=["email"]),
        "GET /v2/campaigns/cam_1/stats",
        {
            "startDate": "2026-03-01T00:00:00.000Z",
            "endDate": "2026-03-02T12:30:00.123Z",
            "ABSelected": "A",
            "channels": '["email"]',
        },
        None,
        {"nbLeads": 1},
    ),
    (
        lambda h: h.get_campaigns_stats(["cam_1"], START, END),
        "POST /v2/campaigns/stats/batch",
        {},
        {
            "campaignIds": ["cam_1"],
            "startDate": "2026-03-01T00:00:00.000Z",
            "endDate": "2026-03-02T12:30:00.123Z",
        },
        {"results": [], "errors": []},
    ),
    (lambda h: h.get_sequences("cam_1"), "GET /campaigns/cam_1/sequences", {}, None, {"seq_1": {}}),
    (
        lambda h: h.add_step("seq_1", {"type": "linkedinVisit", "delay": 0}),
        "POST /sequences/seq_1/steps",
        {},
        {"type": "linkedinVisit", "delay": 0},
        RECORD,
    ),
    (
        lambda h: h.update_step("seq_1", "stp_1", {"type": "email", "delay": 2}),
        "PATCH /sequences/seq_1/steps/stp_1",
        {},
        {"type": "email", "delay": 2},
        RECORD,
    ),
    (
        lambda h: h.delete_step("seq_1", "stp_1"),
        "DELETE /sequences/seq_1/steps/stp_1",
        {},
        None,
        {"ok": True},
    ),
    (
        lambda h: list(
            h.list_activities(
                activity_type="emailsReplied", lead_id="lea_1", is_first=True, since=START, until=END
            )
        ),
        "GET /activities",
        {
            "version": "v2",
            "type": "emailsReplied",
            "leadId": "lea_1",
            "isFirst": "true",
            "minDate": "2026-03-01T00:00:00.000Z",
            "maxDate": "2026-03-02T12:30:00.123Z",
            "offset": "0",
            "limit": "100",
        },
        None,
        [RECORD],
    ),
    (
        lambda h: list(h.list_campaigns(status="running", newest_first=True)),
        "GET /campaigns",
        {
            "version": "v2",
            "status": "running",
            "sortBy": "createdAt",
            "sortOrder": "desc",
            "offset": "0",
            "limit": "100",
        },
        None,
        {"campaigns": [RECORD], "pagination": {"nextPage": None}},
    ),
    (
        lambda h: h.unsubscribe("https://www.linkedin.com/in/ann"),
        "POST /v2/unsubscribes/variables/https%3A%2F%2Fwww.linkedin.com%2Fin%2Fann",
        {},
        None,
        RECORD,
    ),
    (
        lambda h: h.resubscribe("@example.org"),
        "DELETE /v2/unsubscribes/variables/%40example.org",
        {},
        None,
        "Variable subscribed",
    ),
    (
        lambda h: h.get_unsubscribe("ann+x@example.com"),
        "GET /v2/unsubscribes/variables/ann%2Bx%40example.com",
        {},
        None,
        RECORD,
    ),
    (
        lambda h: list(h.list_unsubscribes()),
        "GET /v2/unsubscribes/variables",
        {"offset": "0", "limit": "100"},
        None,
        [RECORD],
    ),
    (
        lambda h: h.request("GET", "/users/{userId}", path_values={"userId": "usr_1"}, query={"full": True}),
        "GET /users/usr_1",
        {"full": "true"},
        None,
        RECORD,
    ),
    (
        lambda h: h.request(
            "GET", "/campaigns/reports", query={"campaignIds": ("cam_1", "cam_2"), "since": START}
        ),
        "GET /campaigns/reports",
        {"campaignIds": "cam_1,cam_2", "since": "2026-03-01T00:00:00.000Z"},
        None,
        [RECORD],
    ),
    (
        lambda h: h.request("GET", "/tasks", query={"filters": [{"filterId": "type", "in": ["email"]}]}),
        "GET /tasks",
        {"filters": '[{"filterId": "type", "in": ["email"]}]'},
        None,
        [RECORD],
    ),
    (
        lambda h: list(
            h.paginate("/database/people", "body", method="POST", body={"filters": []}, page_size=50)
        ),
        "POST /database/people",
        {},
        {"filters": [], "page": 1, "size": 50},
        {"results": [RECORD], "total": 1},
    ),
]


@pytest.mark.parametrize(
    ("method", "route", "query", "body", "received"), CASES, ids=[case[1] for case in CASES]
)
def test_each_method_sends_what_the_documents_say(
    stage: Stage,
    hook: LemlistHook,
    method: Callable[[LemlistHook], Any],
    route: str,
    query: dict[str, str],
    body: Any,
    received: Any,
) -> None:
    stage.routes[route] = Act(body=received)
    result = method(hook)
    (request,) = stage.requests
    assert f"{request.method} {request.path}" == route
    assert {
        name: values[0] for name, values in parse_qs(request.query, keep_blank_values=True).items()
    } == query
    assert (json.loads(request.body) if request.body else None) == body
    assert result in (received, [RECORD])


def test_audio_is_uploaded_as_one_file_field(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["POST /leads/audio"] = Act(
        body={"ok": True, "status": {"url": "https://files.example.com/x.m4a"}}
    )
    hook.upload_audio(
        "lea_1", "stp_1", io.BytesIO(b"RIFF...."), file_name="note.m4a", content_type="audio/mp4"
    )
    (request,) = stage.requests
    assert request.query == "leadId=lea_1&stepId=stp_1"
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="file"; filename="note.m4a"\r\nContent-Type: audio/mp4\r\n\r\nRIFF....' in request.body


# --- The export of leads ----------------------------------------------------------------------------------

LEADS = [
    {"_id": f"lea_{number}", "email": f"p{number}@example.com", "firstName": "Zoë"} for number in range(500)
]
PACKED = gzip.compress(json.dumps(LEADS).encode())
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "fault",
    [
        Act(fault="cut", body=json.dumps(LEADS).encode(), headers=JSON),
        Act(body=json.dumps(LEADS).encode()[:-1], headers=JSON),
        Act(body=json.dumps(LEADS).encode()[:-9], headers=JSON),
        Act(body=PACKED[:-50], headers={"Content-Encoding": "gzip"}),
        Act(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
        Act(body=[*LEADS, 7]),
        Act(body={"leads": LEADS}),
        Act(body={"ok": False}),
        Act(body=b"", headers=JSON),
        Act(204),
        Act(body=b"<!doctype html><p>[]", headers=JSON),
        Act(body=b"[]", headers={"Content-Type": "text/html"}),
        Act(fault="reset"),
        Act(429),
        Act(503, b"[]", JSON),
    ],
    ids=lambda act: f"{act.fault}{act.status}-{act.raw()[:12]!r}{act.raw()[-6:]!r}",
)
def test_an_export_that_is_no_array_of_leads_is_requested_again_before_the_first_lead(
    stage: Stage, hook: LemlistHook, fault: Act
) -> None:
    stage.script = [fault, Act(body=LEADS[:3])]
    # Were the file not emptied in between, leads of the first response would follow.
    assert list(hook.iter_leads("cam_1")) == LEADS[:3]
    assert len(stage.requests) == 2


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (Act(fault="cut", body=LEADS), LemlistNetworkError, "in the middle of the response"),
        (Act(body=json.dumps(LEADS).encode()[:-1]), LemlistUnexpectedReplyError, "200 with no JSON instead"),
        (Act(body=[LEADS]), LemlistUnexpectedReplyError, "200 with an array of something else instead of an"),
        (
            Act(body={"leads": LEADS}),
            LemlistUnexpectedReplyError,
            "200 with a JSON value of type dict instead",
        ),
        (Act(body={"ok": False}), LemlistUnexpectedReplyError, "200 with an object that says it failed"),
        (Act(body=b""), LemlistUnexpectedReplyError, "200 with an empty body"),
        (Act(body=b"<html>[]"), LemlistUnexpectedReplyError, "200 with an HTML page"),
        (Act(302), LemlistUnexpectedReplyError, "redirect"),
        (Act(404, b"Campaign not found"), LemlistNotFoundError, "No campaign has this id"),
        (Act(401), LemlistAuthError, "does not accept the API key"),
        (Act(500), LemlistServerError, "lemlist failed"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_failed_export_raises_the_error_of_any_other_request_and_yields_nothing(
    stage: Stage, hook: LemlistHook, act: Act, error: type[LemlistError], text: str
) -> None:
    stage.routes["GET /campaigns/cam_1/export/leads"] = act
    leads = hook.iter_leads("cam_1")
    with pytest.raises(error, match=text) as raised:
        next(leads)
    assert raised.value.operation == "GET /campaigns/{campaignId}/export/leads"
    assert "example.com" not in str(raised.value)
    assert len(stage.requests) == (5 if raised.value.retryable and act.status != 302 else 1)


def test_a_compressed_export_is_read(stage: Stage, hook: LemlistHook) -> None:
    stage.script = [Act(body=PACKED, headers=JSON | {"Content-Encoding": "gzip"})]
    assert hook.export_leads("cam_1") == LEADS


def test_a_campaign_without_leads_has_an_empty_export(stage: Stage, hook: LemlistHook) -> None:
    stage.script = [Act(body=b" [ ] ", headers=JSON)]
    assert list(hook.iter_leads("cam_1")) == []


def test_a_full_disk_is_named_and_is_no_network_error(
    stage: Stage, hook: LemlistHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(io.BytesIO):
        def write(self, chunk: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("airflow_provider_lemlist.hooks.lemlist.TemporaryFile", FullDisk)
    stage.script = [Act(body=LEADS), Act(body=LEADS)]
    with pytest.raises(
        LemlistError, match="temporary file: No space left on device. Free space in"
    ) as raised:
        next(hook.iter_leads("cam_1"))
    assert raised.type is LemlistError
    assert len(stage.requests) == 1


def test_an_export_of_fifty_thousand_leads_takes_little_memory(stage: Stage, hook: LemlistHook) -> None:
    lead = LEADS[0] | {"icebreaker": "x" * 300}
    body = b"[" + b",".join([json.dumps(lead).encode()] * 50_000) + b"]"
    stage.routes["GET /campaigns/cam_1/export/leads"] = Act(body=body, headers=JSON)
    next(hook.iter_leads("cam_1"))  # imports
    tracemalloc.start()
    try:
        assert sum(1 for each in hook.iter_leads("cam_1") if each == lead) == 50_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body) > 15 * 2**20
    assert peak < 3 * 2**20


@pytest.mark.parametrize("kind", ["cut_body", "html", "empty", "reset"])
def test_an_export_survives_each_passing_fault_of_the_sandbox(quick_lemlist: Sandbox, kind: str) -> None:
    campaign = quick_lemlist.campaign()["_id"]
    wanted = [quick_lemlist.lead(campaign, f"p{number}@example.com")["_id"] for number in range(100)]
    quick_lemlist.fault("GET /campaigns/*/export/leads", kind, times=2)
    hook = LemlistHook()
    assert [lead["_id"] for lead in hook.iter_leads(campaign)] == wanted
    assert len(quick_lemlist.requests()) == 3
    assert quick_lemlist.violations() == []
    with pytest.raises(LemlistNotFoundError, match="No campaign has this id"):
        next(hook.iter_leads("cam_none"))


# --- What has a rule of its own ---------------------------------------------------------------------------


def test_many_values_are_unsubscribed_ten_thousand_at_a_time(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["POST /v2/unsubscribes/variables"] = Act(body="Variables unsubscribed")
    assert (
        hook.unsubscribe_many([f"a{number}@example.com" for number in range(25_000)] + ["a0@example.com"])
        == 25_000
    )
    assert [len(json.loads(request.body)["values"]) for request in stage.requests] == [10_000, 10_000, 5_000]


def test_an_email_that_lemlist_does_not_have_has_no_leads(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /leads/ann%40example.com"] = Act(404, b"Lead not found")
    assert hook.get_leads_by_email("ann@example.com") == []
    assert hook.find_lead("cam_1", "ann@example.com") is None


def test_a_found_lead_has_the_shape_of_a_created_one(stage: Stage, hook: LemlistHook) -> None:
    entries = [
        {"_id": "lea_9", "campaign": {"id": "cam_9", "name": "Other"}, "variables": {}},
        {
            "_id": "lea_1",
            "isPaused": False,
            "contactId": "ctc_1",
            "campaign": {"id": "cam_1", "name": "Spring"},
            "variables": {"email": "ann@example.com", "plan": "trial", "_id": "not this"},
        },
    ]
    stage.routes["GET /leads/ann%40example.com"] = Act(body=entries)
    assert hook.find_lead("cam_1", "ann@example.com") == {
        "_id": "lea_1",
        "campaignId": "cam_1",
        "campaignName": "Spring",
        "isPaused": False,
        "contactId": "ctc_1",
        "email": "ann@example.com",
        "plan": "trial",
    }


def test_a_lead_whose_response_was_lost_is_found_and_not_created_twice(
    stage: Stage, hook: LemlistHook
) -> None:
    stage.script = [
        Act(fault="reset"),
        Act(body=[{"_id": "lea_1", "campaign": {"id": "cam_1"}, "variables": {"email": "ann@example.com"}}]),
    ]
    assert hook.create_lead("cam_1", {"email": "ann@example.com"})["_id"] == "lea_1"
    assert len(stage.sent("POST")) == 1


FOUND = [{"_id": "lea_1", "campaign": {"id": "cam_1"}, "variables": {"email": "ann@example.com"}}]
PAGE = Act(404, b"<html></html>", {"Content-Type": "text/html"})


@pytest.mark.parametrize("lookup", [Act(503), Act(fault="reset"), PAGE], ids=["503", "reset", "page"])
def test_a_short_outage_does_not_end_a_create_for_good(
    stage: Stage, hook: LemlistHook, pauses: list[float], lookup: Act
) -> None:
    stage.routes = {"POST /campaigns/cam_1/leads/": Act(503), "GET /leads/ann%40example.com": lookup}
    with pytest.raises((LemlistServerError, LemlistNetworkError)) as caught:
        hook.create_lead("cam_1", {"email": "ann@example.com"})
    assert caught.value.retryable
    assert caught.value.in_doubt
    assert isinstance(caught.value.__cause__, LemlistServerError)
    assert len(stage.sent("POST")) == 1
    assert sum(pauses) >= 15
    stage.routes = {"GET /leads/ann%40example.com": Act(body=FOUND)}
    stage.script = [Act(400, b"Lead already in the campaign")]
    with pytest.raises(LemlistDuplicateError):  # as the next attempt of a task learns that it is there
        hook.create_lead("cam_1", {"email": "ann@example.com"})
    lead = hook.find_lead("cam_1", "ann@example.com")
    assert lead is not None
    assert lead["_id"] == "lea_1"


@pytest.mark.parametrize("fault", ["status", "reset"])
def test_fifteen_seconds_without_lemlist_create_one_lead_over_two_attempts(
    quick_lemlist: Sandbox, fault: str
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    route = "POST /campaigns/{campaignId}/leads/"
    quick_lemlist.fault(route, fault, when="after", **({"status": 503} if fault == "status" else {}))
    quick_lemlist.fault("GET /leads/{email}", "status", status=503, times=5)
    hook, lead = LemlistHook(), {"email": "ann@example.com"}
    with pytest.raises(LemlistServerError) as caught:
        hook.create_lead(campaign_id, lead)
    assert caught.value.in_doubt
    found = hook.find_lead(campaign_id, "ann@example.com")
    with pytest.raises(LemlistDuplicateError):
        hook.create_lead(campaign_id, lead)
    assert [each["_id"] for each in quick_lemlist.state()["leads"]] == [found and found["_id"]]


@pytest.mark.parametrize(
    ("flags", "least"),
    [
        ({}, 30),
        ({"find_email": False}, 30),
        ({"find_email": True}, 120),
        ({"linkedin_enrichment": True}, 120),
    ],
)
def test_the_timeout_is_longer_when_enrichment_is_requested(
    stage: Stage, hook: LemlistHook, monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool], least: float
) -> None:
    import requests

    waited: list[Any] = []
    original = requests.adapters.HTTPAdapter.send

    def send(*args: Any, **kwargs: Any) -> Any:
        waited.append(kwargs["timeout"][1])
        return original(*args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    stage.script = [Act(body={"_id": "lea_1"})]
    hook.create_lead("cam_1", {"email": "ann@example.com"}, **flags)
    assert waited == [least]


def test_a_lead_without_an_email_whose_response_was_lost_is_uncertain(
    stage: Stage, hook: LemlistHook
) -> None:
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match="campaign 'cam_1'"):
        hook.create_lead("cam_1", {"linkedinUrl": "https://www.linkedin.com/in/ann"})


def test_a_create_by_request_that_created_nothing_is_no_success(stage: Stage, hook: LemlistHook) -> None:
    stage.script = [Act(body={}), Act(body={"_id": "lea_1"})]
    with pytest.raises(LemlistUncertainError):
        hook.request("POST", "/campaigns/cam_1/leads/", body={"email": "ann@example.com"})
    made = hook.request("POST", "/campaigns/cam_1/leads/", body={"email": "ann@example.com"})
    assert made == {"_id": "lea_1"}


def test_a_step_whose_response_was_lost_is_found_in_the_sequence(stage: Stage, hook: LemlistHook) -> None:
    step = {"type": "email", "subject": "Hi {{firstName}}", "message": "<p>Hello</p>", "delay": 1}
    listed = [
        {"_id": "stp_old", **step},
        {"_id": "stp_new", **step, "message": "<p>Hello</p>\n"},
    ]
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": listed}})
    stage.script = [Act(fault="reset")]
    assert hook.add_step("seq_1", step, campaign_id="cam_1", known=["stp_old"])["_id"] == "stp_new"
    assert len(stage.sent("POST")) == 1


def sequence(*steps: dict[str, Any]) -> Act:
    return Act(body={"seq_1": {"_id": "seq_1", "steps": list(steps)}})


CALL = {"type": "manual", "title": "Call the boss"}
CONTRACT = {"type": "manual", "title": "Send the contract"}


def test_steps_that_were_there_before_are_listed_if_the_campaign_is_known(
    stage: Stage, hook: LemlistHook
) -> None:
    old, new = {"_id": "stp_old", **CONTRACT}, {"_id": "stp_new", **CONTRACT, "title": "Tidied"}
    stage.script = [sequence(old), Act(fault="reset"), sequence(old, new)]
    assert hook.add_step("seq_1", CONTRACT, campaign_id="cam_1")["_id"] == "stp_new"
    assert len(stage.sent("POST")) == 1


def test_without_the_steps_before_a_lost_step_is_uncertain_and_never_an_older_one(
    stage: Stage, hook: LemlistHook
) -> None:
    stage.routes["GET /campaigns"] = Act(body=[{"_id": "cam_1"}])
    stage.routes["GET /campaigns/cam_1/sequences"] = sequence({"_id": "stp_old", **CALL})
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match="Check sequence 'seq_1'"):
        hook.add_step("seq_1", CONTRACT)
    assert [request.method for request in stage.requests] == ["POST"]


def test_of_several_new_steps_the_one_with_the_content_that_was_sent_is_returned(
    stage: Stage, hook: LemlistHook
) -> None:
    new = [{"_id": "stp_1", **CALL}, {"_id": "stp_2", **CONTRACT}]
    stage.script = [Act(fault="reset"), sequence(*new)]
    added = hook.add_step("seq_1", CONTRACT, campaign_id="cam_1", known=[], resumable=True)
    assert added["_id"] == "stp_2"
    assert len(stage.sent("POST")) == 1


def test_several_new_steps_of_the_type_and_content_are_uncertain(stage: Stage, hook: LemlistHook) -> None:
    new = [{"_id": "stp_1", **CONTRACT}, {"_id": "stp_2", **CONTRACT}]
    stage.script = [Act(fault="reset"), sequence(*new)]
    with pytest.raises(LemlistUncertainError, match="stp_1, stp_2"):
        hook.add_step("seq_1", CONTRACT, campaign_id="cam_1", known=[], resumable=True)
    assert len(stage.sent("POST")) == 1


@pytest.mark.parametrize(("resumable", "error"), [(True, LemlistServerError), (False, LemlistUncertainError)])
def test_an_outage_during_the_lookup_of_a_step_is_retryable_for_a_resumable_caller_only(
    stage: Stage, hook: LemlistHook, resumable: bool, error: type[Exception]
) -> None:
    stage.script = [Act(fault="reset")]
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(503)
    with pytest.raises(error) as caught:
        hook.add_step("seq_1", CONTRACT, campaign_id="cam_1", known=[], resumable=resumable)
    assert caught.value.in_doubt  # type: ignore[attr-defined]
    assert len(stage.sent("POST")) == 1


STEP_WITH_IMAGE = {"type": "linkedinSend", "message": "Hi", "images": ["https://example.com/a.png"]}


def test_a_lost_step_with_media_is_looked_up_for_longer_than_lemlist_fetches_them(
    stage: Stage, hook: LemlistHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    steps: list[dict[str, Any]] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) > 45:
            steps.append({"_id": "stp_1", **STEP_WITH_IMAGE})

    monkeypatch.setattr(CLOCK, "sleep", sleep)
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": steps}})
    stage.script = [Act(fault="reset")]
    added = hook.add_step("seq_1", STEP_WITH_IMAGE, campaign_id="cam_1", known=[])
    assert added["_id"] == "stp_1"
    assert len(stage.sent("POST")) == 1


@pytest.mark.parametrize(
    "lost", [Act(fault="reset"), Act(502), Act(503), Act(524)], ids=["reset", "502", "503", "524"]
)
def test_a_step_with_media_that_is_not_found_after_a_lost_response_is_never_added_again(
    stage: Stage, hook: LemlistHook, lost: Act
) -> None:
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": []}})
    stage.script = [lost]
    with pytest.raises(LemlistUncertainError, match="Check sequence 'seq_1'"):
        hook.add_step("seq_1", STEP_WITH_IMAGE, campaign_id="cam_1", known=[])
    assert len(stage.sent("POST")) == 1


def test_the_campaign_of_a_sequence_is_found_when_it_is_not_known(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /campaigns"] = Act(body=[{"_id": "cam_3"}, {"_id": "cam_2"}, {"_id": "cam_1"}])
    stage.routes["GET /campaigns/cam_3/sequences"] = Act(400, b"Campaign has no sequence")
    stage.routes["GET /campaigns/cam_2/sequences"] = Act(body={"seq_2": {"_id": "seq_2", "steps": []}})
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": []}})
    assert hook.find_sequence("seq_2") == {"_id": "seq_2", "steps": []}
    assert "sortOrder=desc" in stage.requests[0].query
    with pytest.raises(LemlistNotFoundError, match="'seq_9'"):
        hook.find_sequence("seq_9")


def test_a_campaign_without_a_sequence_has_none_and_any_other_refusal_is_raised(
    stage: Stage, hook: LemlistHook
) -> None:
    stage.script = [Act(400, b"Campaign has no sequence"), Act(400, b"Bad team")]
    assert hook.get_sequences("cam_1") == {}
    with pytest.raises(LemlistValidationError, match="another team"):
        hook.get_sequences("cam_1")


def campaign_row(campaign_id: str, name: str = "Spring", **fields: Any) -> dict[str, Any]:
    return {"_id": campaign_id, "name": name, **fields}


@pytest.mark.parametrize("archived", [{"status": "archived"}, {"archived": True}], ids=["v2", "v1"])
def test_a_campaign_is_found_by_its_name_unless_it_is_archived(
    stage: Stage, hook: LemlistHook, archived: dict[str, Any]
) -> None:
    rows = [
        campaign_row("cam_1", **archived),
        campaign_row("cam_2", "Spring 2"),
        campaign_row("cam_3", status="draft"),
    ]
    stage.routes["GET /campaigns"] = Act(body={"campaigns": rows})
    found = hook.find_campaign(" Spring ")
    assert found is not None
    assert found["_id"] == "cam_3"
    assert hook.find_campaign("Autumn") is None


def test_several_campaigns_of_a_name_are_an_error_that_names_them(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /campaigns"] = Act(body=[campaign_row("cam_1"), campaign_row("cam_2")])
    with pytest.raises(
        LemlistValidationError, match="cam_1, cam_2. Rename or archive .* or give campaign_id"
    ):
        hook.find_campaign("Spring")


def test_a_campaign_whose_response_was_lost_is_the_new_one_of_its_name(
    stage: Stage, hook: LemlistHook
) -> None:
    rows = [campaign_row("cam_old"), campaign_row("cam_other", "Autumn"), campaign_row("cam_new")]
    stage.routes["GET /campaigns"] = Act(body=rows)
    stage.routes["GET /campaigns/cam_new"] = Act(body={"_id": "cam_new", "sequenceId": "seq_1"})
    stage.script = [Act(fault="reset")]
    created = hook.create_campaign("Spring", known=["cam_old"])
    assert (created["_id"], created["sequenceId"]) == ("cam_new", "seq_1")
    assert len(stage.sent("POST")) == 1


def test_a_lost_campaign_that_is_not_there_is_created_again(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /campaigns"] = Act(body=[])
    stage.script = [Act(fault="reset")]
    stage.routes["POST /campaigns"] = Act(body={"_id": "cam_1"})
    assert hook.create_campaign("Spring", known=[])["_id"] == "cam_1"
    assert len(stage.sent("POST")) == 2


def test_a_schedule_whose_response_was_lost_is_the_new_one_of_its_name(
    stage: Stage, hook: LemlistHook
) -> None:
    names = {"skd_old": "Mornings", "skd_other": "Evenings", "skd_new": "Mornings"}
    rows = [{"_id": each, "name": name} for each, name in names.items()]
    stage.routes["GET /schedules"] = Act(body={"schedules": rows})
    stage.script = [Act(fault="reset")]
    assert hook.create_schedule({"name": "Mornings"}, known=["skd_old"])["_id"] == "skd_new"
    assert len(stage.sent("POST")) == 1


def test_several_new_campaigns_of_the_name_are_uncertain(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /campaigns"] = Act(body=[campaign_row("cam_1"), campaign_row("cam_2")])
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match="cam_1, cam_2"):
        hook.create_campaign("Spring", known=[], resumable=True)
    assert len(stage.sent("POST")) == 1


def test_a_lost_campaign_is_uncertain_if_those_before_are_not_known(stage: Stage, hook: LemlistHook) -> None:
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match="Check whether the campaign exists"):
        hook.create_campaign("Spring")
    assert [request.method for request in stage.requests] == ["POST"]


def test_starting_a_running_campaign_is_no_error(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["POST /campaigns/cam_1/start"] = Act(
        400, b"You can't start campaigns that are already running"
    )
    assert hook.start_campaign("cam_1") == {"_id": "cam_1", "state": "running"}


@pytest.mark.parametrize(
    "method",
    [
        lambda h: h.delete_lead("cam_1", ""),
        lambda h: h.unsubscribe_lead("cam_1", "lea_1"),
        lambda h: h.update_lead("cam_1", "lea_1", {}),
        lambda h: h.create_lead_variables("lea_1", {}),
        lambda h: h.update_campaign("cam_1", {}),
        lambda h: h.update_step("seq_1", "stp_1", {"delay": 1}),
        lambda h: h.add_step("seq_1", {"type": "email", "subject": "no message"}),
        lambda h: h.get_campaigns_stats([f"cam_{n}" for n in range(101)], START, END),
        lambda h: h.get_campaigns_stats("cam_1", START, END),
        lambda h: h.get_campaign_stats("cam_1", START, END, channels="email"),
        lambda h: h.update_lead("cam_1", "lea_1", None),
        lambda h: h.unsubscribe_many("ann@example.com"),  # a list of letters
        lambda h: h.erase_lead_variables("lea_1", "city"),
        lambda h: list(h.list_activities(since=datetime(2026, 1, 1))),  # naive is the mistake
        lambda h: h.request("GET", "/campaigns/reports", query={"campaignIds": ["cam_1,cam_2"]}),
        lambda h: h.request("DELETE", "/campaigns/{c}/leads/{l}", path_values={"c": "cam_1", "l": "lea_1"}),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    stage: Stage, hook: LemlistHook, method: Callable[[LemlistHook], Any]
) -> None:
    with pytest.raises(LemlistValidationError):
        method(hook)
    assert not stage.requests


@pytest.mark.parametrize(
    ("executor", "remote"),
    [
        ("LocalExecutor", False),
        ("SequentialExecutor", False),
        ("my_alias:LocalExecutor", False),
        ("airflow.executors.local_executor.LocalExecutor", False),
        ("LocalExecutor;team=LocalExecutor", False),
        ("CeleryExecutor", True),
        ("KubernetesExecutor", True),
        ("CeleryKubernetesExecutor", True),
        ("CeleryExecutor,KubernetesExecutor", True),
        ("LocalExecutor, CeleryExecutor", True),
        ("LocalExecutor;team=CeleryExecutor", True),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", True),
        ("ecs:airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor", True),
    ],
)
def test_a_remote_executor_is_known_by_its_name(
    monkeypatch: pytest.MonkeyPatch, executor: str, remote: bool
) -> None:
    monkeypatch.delenv("AIRFLOW_IS_K8S_EXECUTOR_POD", raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert runs_remotely() is remote
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    assert runs_remotely()


@pytest.mark.parametrize(
    ("executor", "warnings"), [("CeleryExecutor", [0, 0, 1, 1]), ("LocalExecutor", [0] * 4)]
)
def test_a_budget_that_is_not_shared_is_one_warning_per_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executor: str, warnings: list[int]
) -> None:
    extras: list[dict[str, Any]] = [{"budget_share": 0.25}, {"budget_store": "memory://"}, {}, {}]
    for number, extra in enumerate(extras):
        connection = {"conn_type": "lemlist", "password": API_KEY, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_C{number}", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", str(tmp_path))
    code = (
        "import logging; from airflow_provider_lemlist.hooks.lemlist import LemlistHook\n"
        "seen, handler = [], logging.Handler(); handler.emit = lambda line: seen.append(line.getMessage())\n"
        "logging.getLogger('airflow_provider_lemlist').addHandler(handler)\n"
        "print([(LemlistHook(f'c{number}').budget, len(seen))[1] for number in range(4)], seen, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    counts, seen = map(eval, done.stdout.strip().splitlines()[-2:])
    assert counts == warnings
    assert all("budget_store" in line and "budget_share" in line for line in seen)


def test_importing_the_hook_loads_neither_requests_nor_a_database() -> None:
    code = (
        "import sys; import airflow.providers.common.compat.sdk as sdk; sdk.BaseHook; sdk.conf\n"
        "sdk.AirflowFailException; sdk.AirflowNotFoundException; before = set(sys.modules)\n"
        "import airflow_provider_lemlist.hooks.lemlist; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in eval(done.stdout.strip().splitlines()[-1])}
    assert not loaded & {"requests", "urllib3", "pendulum", "sqlite3", "redis", "starlette", "pyarrow"}
