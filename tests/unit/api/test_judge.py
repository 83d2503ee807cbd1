# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.api.judge import (
    MEDIA_CODES,
    Action,
    Asked,
    Failure,
    Fault,
    Reply,
    Success,
    Verdict,
    judge,
)
from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistDuplicateError,
    LemlistError,
    LemlistMediaError,
    LemlistMediaRefusedError,
    LemlistNetworkError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
    LemlistServerError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)

KEY = "k3y/with+signs"


def ask(operation: ops.Operation, **more: Any) -> Asked:
    return Asked(operation, "lemlist_default", (KEY,), **more)


def reply(status: int, body: Any = b"", kind: str | None = None) -> Reply:
    raw = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    default = "text/plain" if isinstance(body, (bytes, str)) else "application/json"
    return Reply(status, {"content-type": kind or default}, raw)


def failure(verdict: Verdict) -> Failure:
    assert isinstance(verdict, Failure)
    return verdict


@pytest.mark.parametrize("status", [400, 409, 500])
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Lead already in the campaign", "campaign"),
        ("Already in the campaign", "campaign"),
        ('"Lead already in the campaign."', "campaign"),
        ("Lead already in other campaign", "elsewhere"),
        ("Lead already in another campaign\n", "elsewhere"),
    ],
)
@pytest.mark.parametrize(
    "envelope", [str, lambda text: {"error": text}, lambda text: {"error": {"message": text}}]
)
def test_a_duplicate_is_known_by_its_text_whatever_the_status(
    status: int, text: str, where: str, envelope: Any
) -> None:
    verdict = failure(judge(ask(ops.CREATE_LEAD), reply(status, envelope(text))))
    assert isinstance(verdict.error, LemlistDuplicateError)
    assert verdict.error.where == where
    assert verdict.action is Action.RAISE


@pytest.mark.parametrize(
    "text",
    [
        "Lead already in the graveyard of the campaign",
        "Invalid value: already in the campaign list",
        "Duplicate",
    ],
)
@pytest.mark.parametrize("status", [400, 409, 500])
def test_an_unknown_text_is_not_a_duplicate(status: int, text: str) -> None:
    assert not isinstance(
        failure(judge(ask(ops.CREATE_LEAD), reply(status, text))).error, LemlistDuplicateError
    )


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (401, "The authentication you supplied is incorrect", LemlistAuthError),
        (401, "", LemlistAuthError),
        (400, "No API key provided", LemlistAuthError),
        (404, "No user found for this API key", LemlistAuthError),
        (403, "User linked to this API key is blocked", LemlistAuthError),
        (403, "error code: 1010", LemlistNetworkError),
        (402, "route is available starting emailPro plan", LemlistPlanError),
        (400, "Bad team", LemlistValidationError),
        (404, "Campaign not found", LemlistNotFoundError),
        (404, "Lead not found", LemlistNotFoundError),
        (404, "An email is required to unsub a lead", LemlistValidationError),
        (405, "Bad method", LemlistValidationError),
        (409, "lead is already being enriched", LemlistValidationError),
        (422, "?", LemlistValidationError),
        (418, "?", LemlistValidationError),
        (500, "Lead in graveyard", LemlistValidationError),
        (400, "Variable not found in unsubscribe list", LemlistNotFoundError),
        (429, "monitored-entity limit exceeded", LemlistPlanError),
        (429, "", LemlistRateLimitError),
        (500, "", LemlistServerError),
        (503, "", LemlistServerError),
        (599, "", LemlistServerError),
    ],
)
def test_each_refusal_of_the_digest_has_its_class(status: int, text: str, error: type[LemlistError]) -> None:
    found = failure(judge(ask(ops.GET_CAMPAIGN), reply(status, text))).error
    assert type(found) is error
    assert found.status == status
    assert found.operation == "GET /campaigns/{campaignId}"
    assert "'lemlist_default'" in str(found)


@pytest.mark.parametrize("words", ["Access denied</title>error code: 1010", "Just a moment...</title>"])
def test_a_page_of_the_cdn_is_not_a_blocked_user(words: str) -> None:
    page = f"<!DOCTYPE html><html><title>{words}</html>"
    error = failure(judge(ask(ops.GET_TEAM), reply(403, page, "text/html"))).error
    assert isinstance(error, LemlistNetworkError)
    assert "User-Agent" in str(error)


@pytest.mark.parametrize("code", MEDIA_CODES)
@pytest.mark.parametrize("body", ["{code}", "Step failed: {code}.", '{{"error": "{code}", "message": "x"}}'])
def test_each_media_code_is_found_in_text_and_in_json_with_its_remedy(code: str, body: str) -> None:
    may_pass, remedy = MEDIA_CODES[code]
    verdict = failure(judge(ask(ops.ADD_STEP), reply(503 if may_pass else 400, body.format(code=code))))
    assert isinstance(verdict.error, LemlistMediaError)
    assert isinstance(verdict.error, LemlistMediaRefusedError) is not may_pass
    assert verdict.error.code == code
    assert remedy in str(verdict.error)
    assert verdict.error.retryable is may_pass
    # A step may have been left behind, so it is looked for, but never added again here.
    assert verdict.action is (Action.LOOK_THEN_RAISE if may_pass else Action.RAISE)


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        (ops.CREATE_LEAD, reply(200, "<html>app</html>", "text/html; charset=utf-8")),
        (ops.CREATE_LEAD, reply(200, "<!doctype html><html></html>", "application/json")),
        (ops.CREATE_LEAD, reply(200, "")),
        (ops.CREATE_LEAD, reply(200, {"email": "x"})),
        (ops.CREATE_LEAD, reply(200, {"_id": ""})),
        (ops.CREATE_LEAD, reply(200, {"_id": None})),
        (ops.CREATE_LEAD, reply(200, [{"_id": "lea_1"}])),
        (ops.CREATE_LEAD, reply(200, '{"_id": "lea_')),
        (ops.LIST_ACTIVITIES, reply(200, {"activities": []})),
        (ops.GET_SEQUENCES, reply(200, [])),
        (ops.UPLOAD_AUDIO, reply(200, {"ok": False, "status": {}})),
        (ops.LIST_CAMPAIGNS, reply(200, '"campaigns"', "application/json")),
        (ops.PAUSE_LEAD, reply(200, '{"ok": tr')),
    ],
)
def test_a_success_that_is_none_is_never_returned(operation: ops.Operation, answer: Reply) -> None:
    assert isinstance(failure(judge(ask(operation), answer)).error, LemlistUnexpectedReplyError)


@pytest.mark.parametrize("body", [[{"_id": "cam_1"}], {"campaigns": [{"_id": "cam_1"}], "pagination": {}}])
def test_both_shapes_of_the_campaign_list_are_right(body: Any) -> None:
    assert judge(ask(ops.LIST_CAMPAIGNS), reply(200, body)) == Success(body)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_error_that_names_the_host(status: int) -> None:
    verdict = failure(judge(ask(ops.GET_TEAM), reply(status)))
    assert isinstance(verdict.error, LemlistUnexpectedReplyError)
    assert verdict.action is Action.RAISE
    assert "host" in str(verdict.error)


DOUBTFUL = [
    Fault.LOST,
    Fault.SILENT,
    Fault.CUT,
    reply(500),
    reply(504),
    reply(200),
    reply(200, "<html>", "text/html"),
]


@pytest.mark.parametrize("outcome", DOUBTFUL)
def test_a_creation_is_never_blindly_repeated(outcome: Reply | Fault) -> None:
    for operation in ops.OPERATIONS:
        verdict = failure(judge(ask(operation), outcome))
        creates = operation.effect in (
            ops.Effect.CREATE,
            ops.Effect.CREATE_SLOWLY,
            ops.Effect.CREATE_ONCE,
        )
        assert (verdict.action is Action.REPLAY) is not creates
        assert verdict.doubt


@pytest.mark.parametrize("outcome", [Fault.SILENT, reply(504), reply(408), reply(522), reply(524)])
def test_a_step_that_lemlist_may_still_be_adding_is_not_added_again(outcome: Reply | Fault) -> None:
    assert failure(judge(ask(ops.ADD_STEP), outcome)).action is Action.LOOK_THEN_DOUBT
    # Of a lead lemlist itself refuses a second one.
    assert failure(judge(ask(ops.CREATE_LEAD), outcome)).action is Action.LOOK_THEN_REPLAY


@pytest.mark.parametrize(
    "outcome", [Fault.LOST, Fault.SILENT, *(reply(status) for status in (408, 502, 503, 504, 520, 524))]
)
def test_a_step_whose_media_lemlist_may_still_be_fetching_is_not_added_again(outcome: Reply | Fault) -> None:
    assert failure(judge(ask(ops.ADD_STEP_WITH_MEDIA), outcome)).action is Action.LOOK_THEN_DOUBT


@pytest.mark.parametrize("outcome", [Fault.CUT, reply(500), reply(200)])
def test_a_step_with_media_of_which_lemlist_itself_said_something_is_looked_for_and_added_again(
    outcome: Reply | Fault,
) -> None:
    assert failure(judge(ask(ops.ADD_STEP_WITH_MEDIA), outcome)).action is Action.LOOK_THEN_REPLAY


@pytest.mark.parametrize("outcome", [Fault.UNSENT, reply(429)])
def test_what_was_certainly_not_done_is_always_asked_again(outcome: Reply | Fault) -> None:
    for operation in ops.OPERATIONS:
        verdict = failure(judge(ask(operation), outcome))
        assert verdict.action is Action.REPLAY
        assert not verdict.doubt


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    verdict = failure(judge(ask(ops.GET_TEAM), Fault.REFUSED_TLS))
    assert verdict.action is Action.RAISE
    assert "REQUESTS_CA_BUNDLE" in str(verdict.error)


def test_not_found_after_a_lost_answer_means_that_a_removal_is_done() -> None:
    gone = reply(404, "Step not found")
    assert judge(ask(ops.DELETE_STEP, doubted=True), gone) == Success({})
    assert isinstance(failure(judge(ask(ops.DELETE_STEP), gone)).error, LemlistNotFoundError)
    assert isinstance(failure(judge(ask(ops.GET_CAMPAIGN, doubted=True), gone)).error, LemlistNotFoundError)


def test_a_duplicate_after_a_lost_answer_is_looked_at_because_it_may_be_ours() -> None:
    verdict = failure(judge(ask(ops.CREATE_LEAD, doubted=True), reply(400, "Lead already in the campaign")))
    assert verdict.action is Action.LOOK_THEN_RAISE
    elsewhere = failure(
        judge(ask(ops.CREATE_LEAD, doubted=True), reply(409, "Lead already in other campaign"))
    )
    assert elsewhere.action is Action.RAISE


def test_starting_what_runs_already_is_a_success() -> None:
    said = reply(400, "You can't start campaigns that are already running")
    assert judge(ask(ops.START_CAMPAIGN), said) == Success({})
    assert isinstance(judge(ask(ops.CREATE_CAMPAIGN), said), Failure)


@given(
    status=st.integers(min_value=200, max_value=599),
    body=st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "message", "_id", "ok"]), inner)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from(["application/json", "text/plain", "text/html", "", "application/octet-stream"]),
    operation=st.sampled_from(ops.OPERATIONS),
    doubted=st.booleans(),
    leak=st.booleans(),
)
def test_whatever_arrives_the_verdict_is_typed_and_holds_no_key(
    status: int, body: bytes, kind: str, operation: ops.Operation, doubted: bool, leak: bool
) -> None:
    if leak:
        body = b"key " + KEY.encode() + b" of ann@example.com " + body
    verdict = judge(ask(operation, doubted=doubted), Reply(status, {"content-type": kind}, body))
    if isinstance(verdict, Failure):
        assert isinstance(verdict.error, LemlistError)
        for text in (str(verdict.error), verdict.error.text or ""):
            assert KEY not in text
            assert "ann@example.com" not in text
            assert len(text) < 800


def test_deeply_nested_json_is_no_crash() -> None:
    verdict = judge(ask(ops.GET_SEQUENCES), reply(200, b"[" * 100_000, "application/json"))
    assert isinstance(verdict, Failure)
    assert isinstance(judge(ask(ops.GET_SEQUENCES), reply(500, b"[" * 100_000)), Failure)
