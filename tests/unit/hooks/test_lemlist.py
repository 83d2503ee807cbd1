# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_lemlist import __version__
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistNotFoundError,
    LemlistUncertainError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from tests.unit.conftest import API_KEY, Act, OpenBudget, Stage

START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 3, 2, 12, 30, 0, 123000, tzinfo=UTC)


@pytest.fixture
def hook(stage: Stage, budget: OpenBudget, monkeypatch: pytest.MonkeyPatch) -> Iterator[LemlistHook]:
    connection = {"conn_type": "lemlist", "password": API_KEY, "host": stage.url}
    monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", json.dumps(connection))
    hook = LemlistHook()
    hook._budget = budget  # type: ignore[assignment]  # the part of a budget that a transport uses
    hook.get_conn()._sleep = lambda seconds: None
    yield hook
    hook.close()


# --- The connection ---------------------------------------------------------------------------------------


def test_building_a_hook_looks_nothing_up() -> None:
    assert LemlistHook("does_not_exist").lemlist_conn_id == "does_not_exist"


def test_the_user_agent_names_us_and_airflow(stage: Stage, hook: LemlistHook) -> None:
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
            "Base URL of the connection ends in /api",
        ),
        (Act(503), "lemlist failed"),
        (Act(429), "rate limit"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_the_connection_test_tells_each_failure_apart(
    stage: Stage, hook: LemlistHook, act: Act, says: str
) -> None:
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


def test_the_connection_test_without_network_or_key_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_A", '{"conn_type": "lemlist", "password": "k", "host": "http://127.0.0.1:9/api"}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_B", '{"conn_type": "lemlist"}')
    ok, message = LemlistHook("a").test_connection()
    assert (ok, "could not be reached" in message) == (False, True)
    ok, message = LemlistHook("b").test_connection()
    assert not ok
    assert message.startswith("Password (API key) is empty")


async def _load(hook: LemlistHook) -> str:
    return (await hook.load_settings()).api_key


def test_the_connection_can_be_looked_up_from_an_event_loop(hook: LemlistHook) -> None:
    import asyncio

    fresh = LemlistHook()
    assert asyncio.run(_load(fresh)) == API_KEY
    assert fresh.settings.api_key == API_KEY
    with pytest.raises(LemlistConfigurationError, match="does not exist"):
        asyncio.run(_load(LemlistHook("nowhere")))


# --- What each method asks --------------------------------------------------------------------------------

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
    (lambda h: h.get_campaign("cam_1"), "GET /campaigns/cam_1", {}, None, RECORD),
    (
        lambda h: h.create_campaign("Spring", campaign_timezone="Europe/Paris", auto_review=False),
        "POST /campaigns",
        {},
        {"name": "Spring", "timezone": "Europe/Paris", "autoReview": False},
        RECORD,
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
        lambda h: list(
            h.paginate("/database/people", "body", method="POST", body={"filters": []}, page_size=50)
        ),
        "POST /database/people",
        {},
        {"filters": [], "page": 1, "size": 50},
        {"results": [RECORD], "total": 1},
    ),
]


@pytest.mark.parametrize(("ask", "route", "query", "body", "answer"), CASES, ids=[case[1] for case in CASES])
def test_each_method_asks_what_the_documents_say(
    stage: Stage,
    hook: LemlistHook,
    ask: Callable[[LemlistHook], Any],
    route: str,
    query: dict[str, str],
    body: Any,
    answer: Any,
) -> None:
    stage.routes[route] = Act(body=answer)
    result = ask(hook)
    (request,) = stage.requests
    assert f"{request.method} {request.path}" == route
    assert {
        name: values[0] for name, values in parse_qs(request.query, keep_blank_values=True).items()
    } == query
    assert (json.loads(request.body) if request.body else None) == body
    assert result in (answer, [RECORD])


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


def test_many_values_are_unsubscribed_ten_thousand_at_a_time(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["POST /v2/unsubscribes/variables"] = Act(body="Variables unsubscribed")
    assert (
        hook.unsubscribe_many([f"a{number}@example.com" for number in range(25_000)] + ["a0@example.com"])
        == 25_000
    )
    assert [len(json.loads(request.body)["values"]) for request in stage.requests] == [10_000, 10_000, 5_000]


def test_a_person_of_whom_lemlist_knows_nothing_has_no_leads(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["GET /leads/ann%40example.com"] = Act(404, b"Lead not found")
    assert hook.get_leads_by_email("ann@example.com") == []
    assert hook.find_lead("cam_1", "ann@example.com") is None


def test_a_lead_is_found_in_its_campaign_in_the_shape_of_its_creation(
    stage: Stage, hook: LemlistHook
) -> None:
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


def test_a_lead_whose_creation_was_lost_is_found_not_made_twice(stage: Stage, hook: LemlistHook) -> None:
    stage.script = [
        Act(fault="reset"),
        Act(body=[{"_id": "lea_1", "campaign": {"id": "cam_1"}, "variables": {"email": "ann@example.com"}}]),
    ]
    assert hook.create_lead("cam_1", {"email": "ann@example.com"})["_id"] == "lea_1"
    assert len(stage.asked("POST")) == 1


@pytest.mark.parametrize(
    ("flags", "least"),
    [
        ({}, 30),
        ({"find_email": False}, 30),
        ({"find_email": True}, 120),
        ({"linkedin_enrichment": True}, 120),
    ],
)
def test_a_lead_that_lemlist_may_be_enriching_is_waited_for_longer(
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


def test_a_lead_without_an_address_whose_creation_was_lost_is_uncertain(
    stage: Stage, hook: LemlistHook
) -> None:
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match="campaign 'cam_1'"):
        hook.create_lead("cam_1", {"linkedinUrl": "https://www.linkedin.com/in/ann"})


def test_a_creation_by_request_that_made_nothing_is_no_success(stage: Stage, hook: LemlistHook) -> None:
    stage.script = [Act(body={}), Act(body={"_id": "lea_1"})]
    with pytest.raises(LemlistUncertainError):
        hook.request("POST", "/campaigns/cam_1/leads/", body={"email": "ann@example.com"})
    made = hook.request("POST", "/campaigns/cam_1/leads/", body={"email": "ann@example.com"})
    assert made == {"_id": "lea_1"}


def test_a_step_whose_answer_was_lost_is_found_by_comparing_the_sequence(
    stage: Stage, hook: LemlistHook
) -> None:
    step = {"type": "email", "subject": "Hi {{firstName}}", "message": "<p>Hello</p>", "delay": 1}
    listed = [
        {"_id": "stp_old", **step},
        {"_id": "stp_new", **step, "message": "<p>Hello</p>\n"},
    ]
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": listed}})
    stage.script = [Act(fault="reset")]
    assert hook.add_step("seq_1", step, campaign_id="cam_1", known=["stp_old"])["_id"] == "stp_new"
    assert len(stage.asked("POST")) == 1


STEP_WITH_IMAGE = {"type": "linkedinSend", "message": "Hi", "images": ["https://example.com/a.png"]}


def test_a_step_with_media_whose_answer_was_lost_is_looked_for_longer_than_lemlist_fetches_them(
    stage: Stage, hook: LemlistHook
) -> None:
    slept: list[float] = []
    steps: list[dict[str, Any]] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) > 45:
            steps.append({"_id": "stp_1", **STEP_WITH_IMAGE})

    hook.get_conn()._sleep = sleep
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": steps}})
    stage.script = [Act(fault="reset")]
    added = hook.add_step("seq_1", STEP_WITH_IMAGE, campaign_id="cam_1", known=[])
    assert added["_id"] == "stp_1"
    assert len(stage.asked("POST")) == 1


@pytest.mark.parametrize(
    "lost", [Act(fault="reset"), Act(502), Act(503), Act(524)], ids=["reset", "502", "503", "524"]
)
def test_a_step_with_media_that_is_not_found_after_a_lost_answer_is_never_added_again(
    stage: Stage, hook: LemlistHook, lost: Act
) -> None:
    stage.routes["GET /campaigns/cam_1/sequences"] = Act(body={"seq_1": {"_id": "seq_1", "steps": []}})
    stage.script = [lost]
    with pytest.raises(LemlistUncertainError, match="Look at sequence 'seq_1'"):
        hook.add_step("seq_1", STEP_WITH_IMAGE, campaign_id="cam_1", known=[])
    assert len(stage.asked("POST")) == 1


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


def test_starting_a_running_campaign_is_no_error(stage: Stage, hook: LemlistHook) -> None:
    stage.routes["POST /campaigns/cam_1/start"] = Act(
        400, b"You can't start campaigns that are already running"
    )
    assert hook.start_campaign("cam_1") == {"_id": "cam_1", "state": "running"}


@pytest.mark.parametrize(
    "ask",
    [
        lambda h: h.delete_lead("cam_1", ""),
        lambda h: h.unsubscribe_lead("cam_1", "lea_1"),
        lambda h: h.update_lead("cam_1", "lea_1", {}),
        lambda h: h.create_lead_variables("lea_1", {}),
        lambda h: h.update_step("seq_1", "stp_1", {"delay": 1}),
        lambda h: h.add_step("seq_1", {"type": "email", "subject": "no message"}),
        lambda h: h.get_campaigns_stats([f"cam_{n}" for n in range(101)], START, END),
        lambda h: h.get_campaigns_stats("cam_1", START, END),
        lambda h: h.unsubscribe_many("ann@example.com"),  # a list of letters
        lambda h: h.erase_lead_variables("lea_1", "city"),
        lambda h: list(h.list_activities(since=datetime(2026, 1, 1))),  # naive is the mistake
        lambda h: h.request("DELETE", "/campaigns/{c}/leads/{l}", path_values={"c": "cam_1", "l": "lea_1"}),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(
    stage: Stage, hook: LemlistHook, ask: Callable[[LemlistHook], Any]
) -> None:
    with pytest.raises(LemlistValidationError):
        ask(hook)
    assert not stage.requests


def test_requests_and_refusals_are_counted_for_airflow(
    stage: Stage, hook: LemlistHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.sdk import Stats

    counted: dict[str, int] = {}
    monkeypatch.setattr(
        Stats, "incr", lambda name, count=1, **more: counted.update({name: counted.get(name, 0) + count})
    )
    monkeypatch.setattr(
        Stats, "timing", lambda name, dt, **more: counted.update({name: counted.get(name, 0) + 1})
    )
    stage.script = [Act(429), Act(body={"_id": "tea_1"})]
    hook.get_team()
    assert counted == {"lemlist.requests": 2, "lemlist.refusals": 1, "lemlist.waits": 2}


def test_importing_the_hook_loads_neither_requests_nor_a_database() -> None:
    code = (
        "import sys; import airflow.providers.common.compat.sdk as sdk; sdk.BaseHook; sdk.conf\n"
        "sdk.AirflowFailException; sdk.AirflowNotFoundException; before = set(sys.modules)\n"
        "import airflow_provider_lemlist.hooks.lemlist; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in eval(done.stdout.strip().splitlines()[-1])}
    assert not loaded & {"requests", "urllib3", "pendulum", "sqlite3", "redis", "starlette", "pyarrow"}
