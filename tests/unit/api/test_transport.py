# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import logging
import math
import multiprocessing
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.api import pending as pending_module
from airflow_provider_lemlist.api import transport as transport_module
from airflow_provider_lemlist.api import wire as wire_module
from airflow_provider_lemlist.api.budget import Budget, Slot
from airflow_provider_lemlist.api.budget.stores import MemoryStore
from airflow_provider_lemlist.api.operations import Reconcile
from airflow_provider_lemlist.api.pending import PendingRequests
from airflow_provider_lemlist.api.transport import RetryPolicy, Transport
from airflow_provider_lemlist.api.wire import CLOCK, MultipartFile
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistError,
    LemlistMediaError,
    LemlistNetworkError,
    LemlistNotFoundError,
    LemlistRateLimitError,
    LemlistServerError,
    LemlistStoppedError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
    Reason,
)
from tests.unit.conftest import API_KEY, Act, Emitted, OpenBudget, Stage
from tests.waiting import LONGEST, wait_for

TEAM = {"_id": "tea_1", "name": "Blue"}
LEAD = {"_id": "lea_1"}
CAMPAIGN = {"campaignId": "cam_1"}


def create(transport: Transport, **more: Any) -> Any:
    return transport.call(ops.CREATE_LEAD, path=CAMPAIGN, body={"email": "ann@example.com"}, **more)


# --- What leaves ------------------------------------------------------------------------------------------


def test_a_request_carries_the_key_as_basic_password_with_an_empty_login(
    stage: Stage, transport: Transport
) -> None:
    stage.script = [Act(body=TEAM)]
    assert transport.call(ops.GET_TEAM) == TEAM
    kind, _, value = stage.requests[0].headers["Authorization"].partition(" ")
    assert kind == "Basic"
    assert base64.b64decode(value).decode() == f":{API_KEY}"
    assert stage.requests[0].headers["User-Agent"] == "airflow-provider-lemlist/test"


def test_a_hundred_calls_use_one_connection(stage: Stage, transport: Transport) -> None:
    stage.routes["GET /team"] = Act(body=TEAM)
    for _ in range(100):
        transport.call(ops.GET_TEAM)
    assert len(stage.requests) == 100
    assert stage.connections == 1


def test_threads_share_a_transport_without_mixing_responses(stage: Stage, transport: Transport) -> None:
    for number in range(50):
        stage.routes[f"GET /campaigns/cam_{number}"] = Act(body={"_id": f"cam_{number}"})

    def send(number: int) -> bool:
        response = transport.call(ops.GET_CAMPAIGN, path={"campaignId": f"cam_{number % 50}"})
        return bool(response["_id"] == f"cam_{number % 50}")

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(send, range(400)))
    assert stage.connections <= 16


def _call_in_child(transport: Transport, responses: Any) -> None:
    responses.put([transport.call(ops.GET_TEAM)["_id"] for _ in range(20)])


def test_a_forked_process_opens_connections_of_its_own(stage: Stage, transport: Transport) -> None:
    stage.routes["GET /team"] = Act(body=TEAM)
    transport.call(ops.GET_TEAM)
    context = multiprocessing.get_context("fork")
    responses = context.Queue()
    children = [context.Process(target=_call_in_child, args=(transport, responses)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in range(20):
        transport.call(ops.GET_TEAM)
    assert [responses.get(timeout=LONGEST) for _ in children] == [["tea_1"] * 20] * 2
    for child in children:
        child.join(LONGEST)
    assert stage.connections == 3


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("ann+test@example.com", "/api/leads/ann%2Btest%40example.com"),
        ("a/b@example.com", "/api/leads/a%2Fb%40example.com"),
        ("o'neill@example.com", "/api/leads/o%27neill%40example.com"),
        ("ann@bücher.example", "/api/leads/ann%40b%C3%BCcher.example"),
        ("100%@example.com", "/api/leads/100%25%40example.com"),
        ("a?b#c@example.com", "/api/leads/a%3Fb%23c%40example.com"),
    ],
)
def test_path_values_are_percent_encoded(
    stage: Stage, transport: Transport, address: str, target: str
) -> None:
    stage.script = [Act(body=[])]
    transport.call(ops.GET_LEADS_BY_EMAIL, path={"email": address})
    assert stage.requests[0].target == target


@pytest.mark.parametrize("value", ["", " ", None, ".", "..", 7])
def test_an_empty_path_value_never_becomes_another_route(
    stage: Stage, transport: Transport, value: Any
) -> None:
    with pytest.raises(LemlistValidationError, match="leadId"):
        transport.call(ops.DELETE_LEAD, path={"campaignId": "cam_1", "leadId": value})
    assert not stage.requests


def test_flags_are_sent_as_words_and_none_is_left_out(stage: Stage, transport: Transport) -> None:
    stage.script = [Act(body=LEAD)]
    create(transport, query={"deduplicate": True, "findEmail": False, "findPhone": None})
    assert stage.requests[0].query == "deduplicate=true&findEmail=false"


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, datetime(2026, 1, 1), Decimal(1), UUID(int=1), b"x", {1}],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_cannot_hold_is_an_error_before_anything_is_sent(
    stage: Stage, transport: Transport, value: Any
) -> None:
    with pytest.raises(LemlistValidationError, match=r"POST /campaigns/\{campaignId\}/leads/ cannot"):
        transport.call(ops.CREATE_LEAD, path=CAMPAIGN, body={"email": "ann@example.com", "score": value})
    assert not stage.requests


@pytest.mark.parametrize(
    "host", ["http://a b/api", "http://*.example.com/api", "http://.example.com", "https://ex\u200bample.com"]
)
def test_a_host_that_is_no_url_is_a_configuration_error(settings: Any, budget: OpenBudget, host: str) -> None:
    transport = Transport(replace(settings, base_url=host), budget, user_agent="x")  # type: ignore[arg-type]
    with pytest.raises(LemlistConfigurationError, match="Host .* of connection 'lemlist_default'"):
        transport.call(ops.GET_TEAM)


def test_a_redirect_is_not_followed(stage: Stage, transport: Transport) -> None:
    elsewhere = Stage()
    try:
        stage.script = [Act(302, headers={"Location": elsewhere.url + "/team"})]
        with pytest.raises(LemlistUnexpectedReplyError, match="redirect"):
            transport.call(ops.GET_TEAM)
        assert not elsewhere.requests
    finally:
        elsewhere.close()


def test_neither_netrc_nor_a_proxy_is_used_for_this_machine(
    stage: Stage, settings: Any, budget: OpenBudget, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    stage.script = [Act(body=TEAM)]
    transport = Transport(settings, budget, user_agent="x")  # type: ignore[arg-type]
    transport.call(ops.GET_TEAM)
    assert len(stage.requests) == 1
    assert "Basic OnM" in stage.requests[0].headers["Authorization"]


def test_a_file_is_streamed_and_sent_whole_again_after_a_fault(stage: Stage, transport: Transport) -> None:
    class Watched(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            chunk = super().read(size)
            self.largest = max(self.largest, len(chunk))
            return chunk

    audio = Watched(bytes(range(256)) * 4096)
    upload = MultipartFile("file", audio, file_name='no"te\r\nX: y.m4a', content_type="audio/mp4")
    stage.script = [Act(fault="reset"), Act(body={"ok": True})]
    transport.call(ops.UPLOAD_AUDIO, query={"leadId": "lea_1", "stepId": "stp_1"}, upload=upload)
    first, second = stage.requests
    for request in (first, second):
        assert request.headers["Content-Length"] == str(len(request.body))
        assert audio.getvalue() in request.body
        assert b"\r\nX: y" not in request.body
    assert first.body == second.body
    assert audio.largest <= 64 * 1024


# --- What comes back --------------------------------------------------------------------------------------


def test_a_read_is_retried_after_each_passing_fault(
    stage: Stage, transport: Transport, pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    stage.script = [
        Act(fault="reset"),
        Act(503),
        Act(fault="cut", body=b'{"_id":'),
        Act(body=b""),
        Act(body=TEAM),
    ]
    with caplog.at_level(logging.INFO):
        assert transport.call(ops.GET_TEAM) == TEAM
    assert len(pauses) == 4
    assert pauses == sorted(pauses)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert len([record for record in caplog.records if "Retrying" in record.message]) == 4
    assert API_KEY not in caplog.text


def test_the_last_error_is_raised_when_the_retry_policy_ends(
    stage: Stage, transport: Transport, pauses: list[float]
) -> None:
    stage.script = [Act(fault="reset"), Act(500, b"one"), Act(502), Act(503), Act(500, b"the last")]
    with pytest.raises(LemlistServerError, match="the last"):
        transport.call(ops.GET_TEAM)
    assert len(stage.requests) == 5
    assert len(pauses) == 4


def test_time_is_bounded_too(stage: Stage, settings: Any, budget: OpenBudget) -> None:
    stage.routes["GET /team"] = Act(500)
    transport = Transport(
        settings,
        budget,
        user_agent="x",
        retry_policy=RetryPolicy(attempts=100, seconds=0.05, pause=0.02),  # type: ignore[arg-type]
    )
    with pytest.raises(LemlistServerError):
        transport.call(ops.GET_TEAM)
    assert 2 <= len(stage.requests) < 20


def test_a_rate_limited_request_is_sent_again_even_if_it_creates(
    stage: Stage, transport: Transport, budget: OpenBudget, pauses: list[float]
) -> None:
    refused = Act(
        429, b"slow down", {"Retry-After": "1.5", "X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"}
    )
    stage.script = [
        refused,
        refused,
        Act(body=LEAD, headers={"Retry-After": "2", "X-RateLimit-Remaining": "19"}),
    ]
    assert create(transport) == LEAD
    assert budget.booked == 3
    assert budget.reports[0] == {"refused": True, "limit": 20, "remaining": 0, "retry_after": 1.5}
    assert budget.reports[2] == {"refused": False, "limit": None, "remaining": 19, "retry_after": 2.0}
    assert pauses == [0.1]  # none after the first refusal


def test_the_response_after_early_hints_never_becomes_that_of_the_next_request(
    stage: Stage, transport: Transport
) -> None:
    stage.script = [Act(103), Act(body={"_id": "tea_second"})]
    assert transport.call(ops.GET_TEAM) == {"_id": "tea_second"}
    assert stage.connections == 2


def test_endless_refusals_end_as_a_rate_limit_error(stage: Stage, transport: Transport) -> None:
    stage.routes["GET /team"] = Act(429)
    with pytest.raises(LemlistRateLimitError):
        transport.call(ops.GET_TEAM)
    assert len(stage.requests) == RetryPolicy().refusals


def test_a_wait_that_is_too_long_sends_nothing(
    stage: Stage, transport: Transport, budget: OpenBudget
) -> None:
    def full() -> Any:
        raise LemlistRateLimitError("The wait would be 400 s", wait=400)

    budget.book = full  # type: ignore[method-assign]
    with pytest.raises(LemlistRateLimitError, match="connection 'lemlist_default'") as caught:
        transport.call(ops.GET_TEAM)
    assert caught.value.wait == 400
    assert not stage.requests


def test_every_attempt_books_a_slot_after_the_connection_is_established(
    stage: Stage, transport: Transport, budget: OpenBudget
) -> None:
    happened: list[str] = []
    book = budget.book

    def booked() -> SimpleNamespace:
        wait_for(lambda: stage.connections == 1)  # the server's thread may see it a moment later
        happened.append("booked")
        return book()

    budget.book = booked  # type: ignore[method-assign]
    stage.script = [
        Act(503, effect=lambda _: happened.append("sent")),
        Act(body=TEAM, effect=lambda _: happened.append("sent")),
    ]
    transport.call(ops.GET_TEAM)
    assert happened == ["booked", "sent", "booked", "sent"]


def test_a_connection_that_was_dropped_during_a_long_wait_leaves_nothing_in_doubt(
    stage: Stage, transport: Transport, budget: OpenBudget
) -> None:
    def wait(slot: object, *, early: float = 0.0, stopped: object) -> None:
        if early:
            stage.drop_connections()

    stage.routes["POST /campaigns/cam_1/leads/"] = Act(body=LEAD)
    create(transport)
    budget.book = lambda: SimpleNamespace(wait=7.0, ahead=70)  # type: ignore[method-assign]
    budget.wait = wait  # type: ignore[method-assign]
    assert create(transport) == LEAD
    assert len(stage.requests) == 2
    assert stage.connections == 2


# --- What a "not found" names -----------------------------------------------------------------------------

IDS = {
    "campaignId": "cam_1",
    "sequenceId": "seq_1",
    "stepId": "stp_1",
    "scheduleId": "skd_1",
    "leadId": "lea_1",
    "leadIdOrEmail": "lea_1",
}
WITH_IDS = [
    each for each in dict.fromkeys(ops.OPERATIONS) if set(IDS) & set(re.findall(r"{(\w+)}", each.path))
]


@pytest.mark.parametrize("operation", WITH_IDS, ids=str)
def test_not_found_names_every_id_of_the_path_and_no_email(
    stage: Stage, transport: Transport, operation: ops.Operation
) -> None:
    names = re.findall(r"{(\w+)}", operation.path)
    path = {name: IDS.get(name, "ana@norte.example") for name in names}
    stage.script = [Act(404, b"Not found")]
    with pytest.raises(LemlistNotFoundError) as caught:
        transport.call(operation, path=path, into=io.BytesIO())
    assert all(IDS[name] in str(caught.value) for name in names if name in IDS)
    assert "ana" not in str(caught.value)


def test_not_found_names_the_ids_of_the_query(stage: Stage, transport: Transport) -> None:
    stage.script = [Act(404, b"Lead not found")]
    with pytest.raises(LemlistNotFoundError) as caught:
        transport.call(ops.GET_LEAD, query={"id": "lea_1", "version": "v2"})
    assert "(GET /leads?id=lea_1, connection" in str(caught.value)


@pytest.mark.parametrize(
    "where", ["ana@norte.example", "+34600123456", "34600123456", "https://linkedin.com/in/ana"]
)
def test_not_found_does_not_repeat_what_stands_in_for_the_id_of_a_lead(
    stage: Stage, transport: Transport, where: str
) -> None:
    stage.script = [Act(404, b"Lead not found")] * 2
    for call in (
        {"operation": ops.MARK_INTERESTED, "path": {"leadIdOrEmail": where}},
        {"operation": ops.GET_LEAD, "query": {"id": where}},
    ):
        with pytest.raises(LemlistNotFoundError) as caught:
            transport.call(**call)
        assert where not in str(caught.value)


# --- In doubt ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    [
        Act(fault="reset"),
        Act(fault="close"),
        Act(500),
        Act(504),
        Act(fault="cut", body=b'{"_id": "lea_1"'),
        Act(body=b"<html></html>", headers={"Content-Type": "text/html"}),
        Act(body=b""),
        Act(body={"email": "x"}),
    ],
    ids=["reset", "close", "500", "504", "cut", "html", "empty", "no id"],
)
def test_a_created_lead_whose_response_was_lost_is_found_and_not_created_again(
    stage: Stage, transport: Transport, lost: Act
) -> None:
    effects: list[str] = []
    stage.script = [replace(lost, effect=lambda request: effects.append(request.path))]
    found = create(transport, reconcile=Reconcile(lambda: LEAD if effects else None))
    assert found == LEAD
    assert len(effects) == 1


@pytest.mark.parametrize("lost", [Act(fault="reset"), Act(500), Act(body=b"")], ids=["reset", "500", "empty"])
def test_a_lead_that_was_not_created_is_created_once(stage: Stage, transport: Transport, lost: Act) -> None:
    effects: list[str] = []
    stage.script = [lost, Act(body=LEAD, effect=lambda request: effects.append(request.path))]
    assert create(transport, reconcile=Reconcile(lambda: LEAD if effects else None)) == LEAD
    assert len(effects) == 1


def test_without_a_lookup_a_lost_response_is_uncertain_and_the_error_says_what_to_check(
    stage: Stage, transport: Transport
) -> None:
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match="Look for the lead in campaign 'cam_1'"):
        create(transport, reconcile=Reconcile(None, "Look for the lead in campaign 'cam_1'."))
    assert len(stage.requests) == 1


STEP = {"path": {"sequenceId": "seq_1"}, "body": {}}
DOWN = LemlistServerError("down")


def failing(error: Exception) -> Any:
    def find() -> None:
        raise error

    return find


@pytest.mark.parametrize("error", [DOWN, KeyError("_id"), LemlistNotFoundError("gone")])
def test_a_lookup_that_fails_leaves_the_outcome_unknown(
    stage: Stage, transport: Transport, error: Exception
) -> None:
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError, match=r"not known whether .*\(POST /sequences.*"):
        transport.call(ops.ADD_STEP, **STEP, reconcile=Reconcile(failing(error)))
    assert len(stage.requests) == 1


@pytest.mark.parametrize("error", [KeyError("_id"), LemlistNotFoundError("gone")])
def test_a_lookup_of_a_lead_that_fails_for_good_leaves_the_outcome_unknown(
    stage: Stage, transport: Transport, error: Exception
) -> None:
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError):
        create(transport, reconcile=Reconcile(failing(error)))
    assert len(stage.requests) == 1


@pytest.mark.parametrize("operation", [ops.CREATE_LEAD, ops.ADD_STEP, ops.ADD_STEP_WITH_MEDIA])
def test_a_lookup_that_fails_for_now_is_retryable_if_a_later_attempt_finds_the_effect(
    stage: Stage, transport: Transport, operation: ops.Operation
) -> None:
    stage.script = [Act(fault="reset")]
    path = {"campaignId": "cam_1", "sequenceId": "seq_1"}
    with pytest.raises(LemlistServerError) as caught:
        transport.call(operation, path=path, reconcile=Reconcile(failing(DOWN), resumable=True))
    assert caught.value is DOWN
    assert caught.value.in_doubt
    assert isinstance(caught.value.__cause__, LemlistNetworkError)
    assert len(stage.requests) == 1


def test_an_uncertain_lookup_is_raised_as_it_is(stage: Stage, transport: Transport) -> None:
    several = LemlistUncertainError("Several steps could be it.")
    stage.script = [Act(fault="reset")]
    with pytest.raises(LemlistUncertainError) as caught:
        transport.call(ops.ADD_STEP, **STEP, reconcile=Reconcile(failing(several), resumable=True))
    assert caught.value is several
    assert caught.value.in_doubt


@pytest.mark.parametrize(
    ("script", "in_doubt"),
    [
        ([Act(400, b"Bad team")], False),
        ([Act(429)] * 2 + [Act(400, b"Bad team")], False),
        # The look-up after a 503 says that it is not there; a request that the network lost may still arrive.
        ([Act(503), Act(400, b"Bad team")], False),
        ([Act(503)] * 5, False),
        ([Act(fault="reset"), Act(401)], True),
    ],
    ids=["refused", "rate limited", "refused after a 503", "503 to the end", "reset, then refused"],
)
def test_an_error_says_whether_an_attempt_of_its_call_is_in_doubt(
    stage: Stage, transport: Transport, script: list[Act], in_doubt: bool
) -> None:
    stage.script = [*script]
    with pytest.raises(LemlistError) as caught:
        create(transport, reconcile=Reconcile(lambda: None))
    assert caught.value.in_doubt is in_doubt
    assert ("outcome unknown" in str(caught.value)) is in_doubt


def test_a_read_is_never_in_doubt(stage: Stage, transport: Transport) -> None:
    stage.routes["GET /team"] = Act(503)
    with pytest.raises(LemlistServerError) as caught:
        transport.call(ops.GET_TEAM)
    assert not caught.value.in_doubt


def test_a_step_whose_response_timed_out_is_never_added_again(
    stage: Stage, settings: Any, budget: OpenBudget, pauses: list[float]
) -> None:
    add_step = replace(ops.ADD_STEP, min_read_timeout=0.0)
    transport = Transport(replace(settings, timeout=0.2), budget, user_agent="x")  # type: ignore[arg-type]
    stage.script = [Act(fault="hang")]
    with pytest.raises(LemlistUncertainError):
        transport.call(add_step, path={"sequenceId": "seq_1"}, body={}, reconcile=Reconcile(lambda: None))
    wait_for(lambda: stage.requests)  # the server may read it after the client has given it up
    assert len(stage.requests) == 1
    # lemlist may work on it for 45 s.
    assert sum(pauses) > 45


def test_a_step_whose_media_lemlist_could_not_take_is_looked_up_but_not_added_again(
    stage: Stage, transport: Transport
) -> None:
    stage.script = [Act(503, b"LINKEDIN_MEDIA_AV_UNAVAILABLE")]
    with pytest.raises(LemlistMediaError) as caught:
        transport.call(ops.ADD_STEP, path={"sequenceId": "seq_1"}, body={}, reconcile=Reconcile(lambda: None))
    assert caught.value.code == "LINKEDIN_MEDIA_AV_UNAVAILABLE"
    assert len(stage.requests) == 1


def test_a_duplicate_is_raised_and_one_after_a_lost_response_is_ours(
    stage: Stage, transport: Transport
) -> None:
    duplicate = Act(500, b"Lead already in the campaign")
    stage.script = [duplicate]
    with pytest.raises(LemlistDuplicateError):
        create(transport, reconcile=Reconcile(lambda: LEAD))
    found = iter([None, LEAD])
    stage.script = [Act(fault="reset"), duplicate]
    assert create(transport, reconcile=Reconcile(lambda: next(found))) == LEAD


def test_a_step_that_is_gone_after_a_lost_response_counts_as_deleted(
    stage: Stage, transport: Transport
) -> None:
    path = {"sequenceId": "seq_1", "stepId": "stp_1"}
    stage.script = [Act(fault="reset"), Act(404, b"Step not found")]
    assert transport.call(ops.DELETE_STEP, path=path) == {}
    stage.script = [Act(404, b"Step not found")]
    with pytest.raises(LemlistNotFoundError):
        transport.call(ops.DELETE_STEP, path=path)


def test_a_removal_that_never_left_does_not_count_as_done(
    settings: Any, budget: OpenBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    late: list[Stage] = []

    def sleep(seconds: float) -> None:
        if not late:
            late.append(Stage(port))  # nothing listened at the first attempt
            late[0].script = [Act(404, b"Step not found")]

    monkeypatch.setattr(CLOCK, "sleep", sleep)
    settings = replace(settings, base_url=f"http://127.0.0.1:{port}/api")
    transport = Transport(settings, budget, user_agent="x")  # type: ignore[arg-type]
    try:
        with pytest.raises(LemlistNotFoundError) as caught:
            transport.call(ops.DELETE_STEP, path={"sequenceId": "seq_1", "stepId": "stp_1"})
        assert not caught.value.in_doubt
        assert len(late[0].requests) == 1
    finally:
        late[0].close()


def test_a_page_of_a_gateway_is_retried_and_never_means_that_a_step_is_deleted(
    stage: Stage, transport: Transport
) -> None:
    page = Act(404, b"<!DOCTYPE html><html></html>", {"Content-Type": "text/html"})
    path = {"sequenceId": "seq_1", "stepId": "stp_1"}
    stage.script = [Act(fault="reset"), page, Act(404, b"Step not found")]
    assert transport.call(ops.DELETE_STEP, path=path) == {}
    stage.script = [Act(fault="reset")] + [page] * 4
    with pytest.raises(LemlistNetworkError) as caught:
        transport.call(ops.DELETE_STEP, path=path)
    assert (caught.value.reason, caught.value.in_doubt) == (Reason.GATEWAY, True)


# --- Stop -------------------------------------------------------------------------------------------------

#: Airflow kills a task this many seconds after it has asked it to stop.
KILLED_AFTER = 5
#: All pauses last a minute.
PATIENT = RetryPolicy(pause=120.0, longest_pause=120.0, lookups=(60.0,))


def in_thread(function: Callable[[], Any]) -> Future[Any]:
    """Call a function in a thread that does not hold up the tests if it never returns."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def full_budget() -> Budget:
    """A budget whose next slot is a minute away."""
    budget = Budget(MemoryStore())
    budget.report(budget.book(), refused=True, limit=20, remaining=0, retry_after=60)
    return budget


def test_a_request_that_waits_for_its_slot_is_released_by_a_stop(stage: Stage, settings: Any) -> None:
    budget = full_budget()
    transport = Transport(settings, budget, user_agent="x")
    future = in_thread(lambda: create(transport))
    wait_for(lambda: budget.state()["booked"] == 2)
    transport.stop()
    error = future.exception(KILLED_AFTER)
    assert isinstance(error, LemlistStoppedError)
    assert (error.retryable, error.in_doubt, error.status) == (True, False, None)
    assert "POST /campaigns/cam_1/leads/, connection 'lemlist_default'" in str(error)
    assert not stage.requests


def test_a_signal_handler_may_stop_the_transport_that_it_interrupts(stage: Stage, settings: Any) -> None:
    transport = Transport(settings, full_budget(), user_agent="x")
    before = signal.signal(signal.SIGALRM, lambda *_: transport.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(LemlistStoppedError):
            transport.call(ops.GET_TEAM)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not stage.requests


@pytest.mark.parametrize(
    ("act", "in_doubt"), [(Act(503), False), (Act(fault="reset"), True)], ids=["503", "reset"]
)
def test_a_call_in_a_retry_pause_is_released_by_a_stop(
    stage: Stage, settings: Any, budget: OpenBudget, caplog: Any, act: Act, in_doubt: bool
) -> None:
    stage.script = [act]
    policy = replace(PATIENT, lookups=(0.0,))
    transport = Transport(settings, budget, user_agent="x", retry_policy=policy)  # type: ignore[arg-type]
    future = in_thread(lambda: create(transport, reconcile=Reconcile(lambda: None)))
    wait_for(lambda: "Retrying" in caplog.text)
    transport.stop()
    error = future.exception(KILLED_AFTER)
    assert isinstance(error, LemlistStoppedError)
    assert error.in_doubt is in_doubt
    assert len(stage.requests) == 1
    assert budget.booked == 1


@pytest.mark.parametrize(
    ("operation", "resumable", "kind"),
    [
        (ops.CREATE_LEAD, False, LemlistStoppedError),
        (ops.ADD_STEP, True, LemlistStoppedError),
        # A later attempt could not find the step, and would add another one.
        (ops.ADD_STEP, False, LemlistUncertainError),
    ],
    ids=["lead", "resumable step", "step"],
)
def test_a_call_in_a_pause_before_a_look_up_is_released_by_a_stop(
    stage: Stage,
    settings: Any,
    budget: OpenBudget,
    caplog: Any,
    operation: ops.Operation,
    resumable: bool,
    kind: type[LemlistError],
) -> None:
    stage.script = [Act(fault="reset")]
    transport = Transport(settings, budget, user_agent="x", retry_policy=PATIENT)  # type: ignore[arg-type]
    path = {"campaignId": "cam_1", "sequenceId": "seq_1"}
    reconcile = Reconcile(lambda: transport.call(ops.GET_TEAM), resumable=resumable)
    future = in_thread(lambda: transport.call(operation, path=path, reconcile=reconcile))
    wait_for(lambda: "Checking whether it took effect" in caplog.text)
    transport.stop()
    error = future.exception(KILLED_AFTER)
    assert type(error) is kind
    assert error.in_doubt
    assert len(stage.requests) == 1


def test_a_request_whose_response_is_under_way_is_completed_after_a_stop(
    stage: Stage, settings: Any, budget: OpenBudget
) -> None:
    stage.script = [Act(body=LEAD, effect=lambda _: stage.released.wait(LONGEST))]
    transport = Transport(settings, budget, user_agent="x")  # type: ignore[arg-type]
    future = in_thread(lambda: create(transport))
    wait_for(lambda: stage.requests)
    transport.stop()
    stage.released.set()
    assert future.result(KILLED_AFTER) == LEAD
    assert len(budget.reports) == 1


def test_a_request_that_fails_after_a_stop_is_not_retried(stage: Stage, transport: Transport) -> None:
    stage.script = [Act(503, effect=lambda _: transport.stop())]
    with pytest.raises(LemlistStoppedError) as caught:
        transport.call(ops.GET_TEAM)
    assert not caught.value.in_doubt
    assert len(stage.requests) == 1


def test_a_request_that_fails_for_good_after_a_stop_raises_what_lemlist_refused(
    stage: Stage, transport: Transport
) -> None:
    stage.script = [Act(500, b"Lead already in the campaign", effect=lambda _: transport.stop())]
    with pytest.raises(LemlistDuplicateError):
        create(transport)


def test_nothing_is_sent_after_a_stop(stage: Stage, transport: Transport, budget: OpenBudget) -> None:
    transport.stop()
    with pytest.raises(LemlistStoppedError):
        transport.call(ops.GET_TEAM)
    assert (stage.connections, budget.booked) == (0, 0)


def test_a_request_that_has_just_booked_its_slot_does_not_leave_after_a_stop(
    stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(MemoryStore())
    transport = Transport(settings, budget, user_agent="x")
    book = budget.book

    def book_and_stop() -> Slot:
        slot = book()
        transport.stop()
        return slot

    monkeypatch.setattr(budget, "book", book_and_stop)
    with pytest.raises(LemlistStoppedError):
        transport.call(ops.GET_TEAM)
    assert not stage.requests


def test_a_pause_is_slept_in_slices_of_the_same_length_in_all(
    stage: Stage, settings: Any, budget: OpenBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(CLOCK, "sleep", slept.append)
    monkeypatch.setattr(CLOCK, "uniform", lambda least, most: most)
    stage.script = [Act(503), Act(503), Act(body=TEAM)]
    transport = Transport(settings, budget, user_agent="x")  # type: ignore[arg-type]
    transport.call(ops.GET_TEAM)
    assert sum(slept) == pytest.approx(3.0)
    assert max(slept) <= 0.2


# --- No network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:9/api", "http://unknown.invalid/api"], ids=["refused", "dns"]
)
def test_without_a_network_even_a_create_is_retried_and_the_error_says_nothing_was_sent(
    settings: Any, budget: OpenBudget, pauses: list[float], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def unknown_host(name: str, *more: Any) -> Any:
        if (
            name == "unknown.invalid"
        ):  # not left to the network of the machine: some resolvers resolve anything
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(name, *more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown_host)
    transport = Transport(replace(settings, base_url=host), budget, user_agent="x")  # type: ignore[arg-type]
    why = "Connection refused" if "127.0.0.1" in host else ".+"  # each resolver has its words
    with pytest.raises(LemlistNetworkError, match=rf"could not be reached \(.*({why}).*\).*nothing was sent"):
        create(transport)
    assert len(pauses) == RetryPolicy().attempts - 1
    assert budget.booked == 0


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A self-signed certificate of this machine, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("lemlist.test")]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + built.public_bytes(pem)
    )
    return str(path)


def _with_tls(stage: Stage, certificate: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    stage._server.socket = context.wrap_socket(stage._server.socket, server_side=True)
    return stage.url.replace("http:", "https:")


def test_an_untrusted_certificate_is_refused_at_once_and_the_key_is_not_sent(
    stage: Stage, settings: Any, budget: OpenBudget, pauses: list[float], certificate: str
) -> None:
    url = _with_tls(stage, certificate)
    transport = Transport(replace(settings, base_url=url), budget, user_agent="x")  # type: ignore[arg-type]
    with pytest.raises(LemlistNetworkError, match="certificate"):
        transport.call(ops.GET_TEAM)
    assert not stage.requests
    assert not pauses


@pytest.mark.parametrize("bundle", ["missing.pem", "no-certificate.pem"])
def test_an_unusable_certificate_bundle_is_named_at_once(
    settings: Any,
    budget: OpenBudget,
    pauses: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bundle: str,
) -> None:
    (tmp_path / "no-certificate.pem").write_text("nothing\n")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / bundle))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/api"
        transport = Transport(replace(settings, base_url=url), budget, user_agent="x")  # type: ignore[arg-type]
        with pytest.raises(LemlistNetworkError, match="REQUESTS_CA_BUNDLE"):
            transport.call(ops.GET_TEAM)
    assert not pauses


def test_a_trusted_certificate_of_a_proxy_is_used(
    stage: Stage, settings: Any, budget: OpenBudget, certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _with_tls(stage, certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    stage.routes["GET /team"] = Act(body=TEAM)
    transport = Transport(replace(settings, base_url=url), budget, user_agent="x")  # type: ignore[arg-type]
    for _ in range(5):
        assert transport.call(ops.GET_TEAM) == TEAM
    assert stage.connections == 1


class Tunnels:
    """A proxy that leads every CONNECT to the stage."""

    def __init__(self, stage: Stage) -> None:
        self._target = stage._server.server_address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            head = client.recv(65536)
            self.requests.append(head.split(b"\r\n")[0])
            if not head.startswith(b"CONNECT "):
                client.shutdown(socket.SHUT_RDWR)
                return
            server = socket.create_connection(self._target)
            self._open.append(server)
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=self._pipe, args=(server, client), daemon=True).start()
            self._pipe(client, server)

    @staticmethod
    def _pipe(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)

    def drop_connections(self) -> None:
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.drop_connections()


@pytest.fixture
def tunnels(stage: Stage) -> Iterator[Tunnels]:
    tunnels = Tunnels(stage)
    yield tunnels
    tunnels.close()


def test_a_proxy_tunnel_that_was_dropped_during_a_long_wait_is_opened_again(
    stage: Stage,
    settings: Any,
    budget: OpenBudget,
    tunnels: Tunnels,
    certificate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait(slot: object, *, early: float = 0.0, stopped: object) -> None:
        if early:
            tunnels.drop_connections()

    _with_tls(stage, certificate)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, tunnels.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    monkeypatch.setattr(budget, "wait", wait)
    booked = iter([7.0])
    monkeypatch.setattr(budget, "book", lambda: SimpleNamespace(wait=next(booked), ahead=70))
    stage.routes["POST /campaigns/cam_1/leads/"] = Act(body=LEAD)
    transport = Transport(replace(settings, base_url="https://lemlist.test/api"), budget, user_agent="x")  # type: ignore[arg-type]
    assert create(transport) == LEAD
    assert len(stage.requests) == 1
    assert [line.split()[:2] for line in tunnels.requests] == [[b"CONNECT", b"lemlist.test:443"]] * 2


def test_the_error_of_a_proxy_that_refuses_quotes_it(
    settings: Any, budget: OpenBudget, pauses: list[float], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    refusing = Stage()
    try:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, refusing.url.replace("http://", "http://user:pr0xy-word@"))
        transport = Transport(replace(settings, base_url="https://lemlist.test/api"), budget, user_agent="x")  # type: ignore[arg-type]
        with pytest.raises(LemlistNetworkError, match=r"could not be reached \(.*501.*\)") as caught:
            transport.call(ops.GET_LEADS_BY_EMAIL, path={"email": "ann@example.com"})
        assert "501" in caplog.text
        for secret in ("pr0xy-word", "ann", API_KEY):
            assert secret not in caplog.text + str(caught.value)
    finally:
        refusing.close()


def test_no_error_of_any_kind_holds_the_key(stage: Stage, transport: Transport) -> None:
    echo = f"bad key {API_KEY} for ann@example.com".encode()
    for status in (400, 401, 402, 403, 404, 405, 409, 422):
        stage.script = [Act(status, echo)]
        with pytest.raises(LemlistError) as caught:
            create(transport)
        assert API_KEY not in f"{caught.value!r} {caught.value.text}"
        assert "ann@" not in f"{caught.value!r} {caught.value.text}"


# --- What is told of requests -----------------------------------------------------------------------------


def test_every_attempt_is_counted_and_every_end_of_a_call(
    stage: Stage, transport: Transport, emitted: Emitted
) -> None:
    stage.script = [Act(429), Act(503), Act(fault="reset"), Act(body=TEAM), Act(404, b"Campaign not found")]
    transport.call(ops.GET_TEAM)
    with pytest.raises(LemlistError):
        transport.call(ops.GET_CAMPAIGN, path=CAMPAIGN)
    assert emitted.counters == {
        "lemlist.requests": 5,
        "lemlist.refusals": 1,
        "lemlist.retries": 3,
        "lemlist.errors.campaign_not_found": 1,
    }
    assert {name: len(seconds) for name, seconds in emitted.timings.items()} == {
        "lemlist.waits": 4,
        "lemlist.latency": 4,
    }


@pytest.mark.parametrize(
    ("script", "reconcile", "counted"),
    [
        ([Act(fault="reset")], Reconcile(lambda: LEAD), {"reconciled.found": 1}),
        (
            [Act(fault="reset"), Act(body=LEAD)],
            Reconcile(lambda: None),
            {"reconciled.absent": 1, "retries": 1},
        ),
        ([Act(fault="reset")], Reconcile(None), {"uncertain": 1, "errors.network": 1}),
    ],
)
def test_what_becomes_of_a_request_in_doubt_is_counted(
    stage: Stage, transport: Transport, emitted: Emitted, script: Any, reconcile: Reconcile, counted: Any
) -> None:
    stage.script = [*script]
    with suppress(LemlistUncertainError):
        create(transport, reconcile=reconcile)
    expected = {f"lemlist.{name}": count for name, count in counted.items()}
    assert emitted.counters == {"lemlist.requests": len(script), **expected}


def test_an_error_without_a_reason_is_counted_by_its_class(
    transport: Transport, budget: OpenBudget, emitted: Emitted
) -> None:
    def full() -> Any:
        raise LemlistRateLimitError("The wait would be 400 s", wait=400)

    budget.book = full  # type: ignore[method-assign]
    with pytest.raises(LemlistRateLimitError):
        transport.call(ops.GET_TEAM)
    with pytest.raises(LemlistValidationError):
        transport.call(ops.GET_CAMPAIGN, path={"campaignId": ""})
    assert emitted.counters == {"lemlist.errors.ratelimit": 1, "lemlist.errors.validation": 1}


def test_a_request_that_waits_is_counted_before_it_leaves(
    stage: Stage, settings: Any, emitted: Emitted
) -> None:
    transport = Transport(settings, full_budget(), user_agent="x")
    future = in_thread(lambda: create(transport))
    wait_for(lambda: emitted.counters["lemlist.waiting_milliseconds"] >= 1000)
    assert not stage.requests
    transport.stop()
    assert isinstance(future.exception(KILLED_AFTER), LemlistStoppedError)
    assert emitted.counters["lemlist.requests"] == 0


def test_silence_of_lemlist_is_one_warning_and_its_end_is_told(
    stage: Stage, settings: Any, budget: Any, pauses: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    pending = PendingRequests()
    for module in (wire_module, transport_module):
        monkeypatch.setattr(module, "PENDING", pending)
    monkeypatch.setattr(pending_module, "STALL", 0.2)
    stage.script = [Act(fault="hang")] * 3 + [Act(body=TEAM)] * 2
    transport = Transport(replace(settings, timeout=0.3), budget, user_agent="x")
    with caplog.at_level(logging.INFO, logger="airflow_provider_lemlist"):
        transport.call(ops.GET_TEAM)
        transport.call(ops.GET_TEAM)
    told = [each for each in caplog.messages if "Retrying" not in each]
    assert len(told) == 2
    assert told[0].endswith("1 request is under way: 1 waiting for a response")
    assert told[1].startswith("lemlist responds again, after ")


def test_errors_and_warnings_name_the_ids_that_the_support_of_lemlist_can_look_up(
    stage: Stage, transport: Transport, caplog: Any
) -> None:
    headers = {"CF-Ray": "8f0c2d7e1a-CDG"}
    stage.routes["PATCH /campaigns/cam_1/leads/lea_7"] = Act(503, b"down", headers)
    with pytest.raises(LemlistServerError) as caught:
        transport.call(ops.UPDATE_LEAD, path={**CAMPAIGN, "leadId": "lea_7"}, body={})
    trace = r"cf-ray 8f0c2d7e1a-CDG at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    named = r"PATCH /campaigns/cam_1/leads/lea_7"
    assert re.search(
        rf"\({named}, connection 'lemlist_default', status 503, outcome unknown, {trace}\)$",
        str(caught.value),
    )
    assert caught.value.operation == "PATCH /campaigns/{campaignId}/leads/{leadId}"
    retries = [message for message in caplog.messages if "Retrying" in message]
    assert len(retries) == 4
    assert all(re.match(rf"{named}: LemlistServerError 503 \({trace}\). Retrying", each) for each in retries)


@pytest.mark.parametrize("value", ["ann@example.com", "+33612345678", "example.com", "Ann_Smith", "ann"])
def test_nothing_that_may_be_a_person_in_a_path_is_named(
    stage: Stage, transport: Transport, caplog: Any, value: str
) -> None:
    stage.script = [Act(503)] * 5
    with pytest.raises(LemlistServerError, match=r"\(GET /leads/{email}, ") as caught:
        transport.call(ops.GET_LEADS_BY_EMAIL, path={"email": value})
    assert value not in "".join([str(caught.value), *caplog.messages])
