# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.api.judge import (
    MEDIA_CODES,
    REFUSAL_RULES,
    Action,
    Call,
    Failure,
    NetworkFault,
    Response,
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
    Reason,
)

KEY = "k3y/with+signs"


def call(operation: ops.Operation, **more: Any) -> Call:
    return Call(operation, "lemlist_default", (KEY,), **more)


def response(status: int, body: Any = b"", kind: str | None = None) -> Response:
    raw = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    default = "text/plain" if isinstance(body, (bytes, str)) else "application/json"
    return Response(status, {"content-type": kind or default}, raw)


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
    verdict = failure(judge(call(ops.CREATE_LEAD), response(status, envelope(text))))
    assert isinstance(verdict.error, LemlistDuplicateError)
    assert verdict.error.where == where
    assert verdict.error.reason is (
        Reason.ALREADY_IN_CAMPAIGN if where == "campaign" else Reason.ALREADY_IN_OTHER_CAMPAIGN
    )
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
        failure(judge(call(ops.CREATE_LEAD), response(status, text))).error, LemlistDuplicateError
    )


@pytest.mark.parametrize(
    ("status", "text", "error", "reason"),
    [
        (401, "The authentication you supplied is incorrect", LemlistAuthError, Reason.BAD_KEY),
        (401, "", LemlistAuthError, Reason.BAD_KEY),
        (400, "No API key provided", LemlistAuthError, Reason.NO_KEY),
        (404, "No user found for this API key", LemlistAuthError, Reason.NO_USER),
        (403, "User linked to this API key is blocked", LemlistAuthError, Reason.USER_BLOCKED),
        (403, "BETA_NOT_ENABLED", LemlistAuthError, Reason.FORBIDDEN),
        (403, "error code: 1010", LemlistNetworkError, Reason.GATEWAY),
        (402, "route is available starting emailPro plan", LemlistPlanError, Reason.PLAN),
        (400, "Bad team", LemlistValidationError, Reason.BAD_TEAM),
        (400, "Campaign has no sequence", LemlistValidationError, Reason.NO_SEQUENCE),
        (404, "Campaign not found", LemlistNotFoundError, Reason.CAMPAIGN_NOT_FOUND),
        (404, '{"error": "Campaign not found"}', LemlistNotFoundError, Reason.CAMPAIGN_NOT_FOUND),
        (
            404,
            '{"error": "CAMPAIGN_LEAD_REVIEW_LEAD_NOT_FOUND"}',
            LemlistNotFoundError,
            Reason.LEAD_NOT_FOUND,
        ),
        *(
            (400, f'{{"error": "CAMPAIGN_LEAD_REVIEW_{code}"}}', LemlistValidationError, reason)
            for code, reason in {
                "LEAD_PAUSED": Reason.LEAD_PAUSED,
                "LEAD_ALREADY_LAUNCHED": Reason.LEAD_LAUNCHED,
                "LEAD_AI_VARIABLE_INVALID": Reason.AI_VARIABLE_INVALID,
                "LEAD_NO_SENDER_AVAILABLE": Reason.NO_SENDER,
                "CAMPAIGN_STEP_ERRORS": Reason.STEP_ERRORS,
            }.items()
        ),
        (404, "Variable not found", LemlistNotFoundError, Reason.NOT_UNSUBSCRIBED),
        (
            409,
            "Variable is protected and cannot be re-subscribed",
            LemlistValidationError,
            Reason.PROTECTED,
        ),
        (404, "Lead not found", LemlistNotFoundError, Reason.LEAD_NOT_FOUND),
        (404, "Sequence not found", LemlistNotFoundError, Reason.SEQUENCE_NOT_FOUND),
        (404, "Step not found", LemlistNotFoundError, Reason.STEP_NOT_FOUND),
        (404, "Webhook not found", LemlistNotFoundError, Reason.NOT_FOUND),
        (404, "An email is required to unsub a lead", LemlistValidationError, Reason.EMAIL_NEEDED),
        (405, "Bad method", LemlistValidationError, Reason.BAD_METHOD),
        (408, "", LemlistServerError, Reason.SERVER),
        (409, "lead is already being enriched", LemlistValidationError, Reason.CONFLICT),
        (422, "?", LemlistValidationError, Reason.REFUSED),
        (418, "?", LemlistValidationError, Reason.REFUSED),
        (500, "Lead in graveyard", LemlistValidationError, Reason.UNSUBSCRIBED),
        (400, "Variable not found in unsubscribe list", LemlistNotFoundError, Reason.NOT_UNSUBSCRIBED),
        (
            400,
            "You cannot delete this step because the campaign is running",
            LemlistValidationError,
            Reason.CAMPAIGN_RUNNING,
        ),
        (400, "The campaign is not running", LemlistValidationError, Reason.CAMPAIGN_NOT_RUNNING),
        (429, "monitored-entity limit exceeded", LemlistPlanError, Reason.WATCHLIST_FULL),
        (429, "", LemlistRateLimitError, Reason.RATE_LIMITED),
        (500, "", LemlistServerError, Reason.SERVER),
        (503, "", LemlistServerError, Reason.SERVER),
        (503, "upstream not running", LemlistServerError, Reason.SERVER),
        (599, "", LemlistServerError, Reason.SERVER),
    ],
)
def test_each_refusal_of_the_digest_has_its_class_and_its_reason(
    status: int, text: str, error: type[LemlistError], reason: Reason
) -> None:
    found = failure(judge(call(ops.GET_CAMPAIGN), response(status, text))).error
    assert type(found) is error
    assert found.reason is reason
    assert found.status == status
    assert found.operation == "GET /campaigns/{campaignId}"
    assert "'lemlist_default'" in str(found)
    assert "'lemlist_default'" not in found.message


def test_each_reason_is_given_by_one_kind_of_rule() -> None:
    elsewhere = {Reason.SERVER, Reason.REFUSED, Reason.MEDIA, Reason.NETWORK, Reason.UNEXPECTED}
    assert {rule.reason for rule in REFUSAL_RULES} | elsewhere == {*Reason}
    assert len({(rule.reason, rule.error) for rule in REFUSAL_RULES}) == len(
        {rule.reason for rule in REFUSAL_RULES}
    )


HTML = "<!DOCTYPE html><html><title>Not found</title></html>"


@pytest.mark.parametrize("status", [400, 401, 402, 404, 405, 409, 410, 500, 502, 503])
def test_an_html_page_is_a_network_fault_and_never_a_refusal_by_lemlist(status: int) -> None:
    for operation in ops.OPERATIONS:
        for in_doubt in (False, True):
            verdict = failure(judge(call(operation, in_doubt=in_doubt), response(status, HTML, "text/html")))
            assert type(verdict.error) is LemlistNetworkError
            assert verdict.error.reason is Reason.GATEWAY
            assert verdict.error.retryable
            # Below 500 the request did not reach lemlist.
            assert verdict.error.in_doubt is (status >= 500 and operation.effect is not ops.Effect.READ)
            assert (verdict.action is Action.RETRY) is (status < 500 or operation.effect.repeatable)


NO_API = "The Base URL of connection 'lemlist_default' does not end in /api."


@pytest.mark.parametrize("page", [HTML, "Not Found", ""], ids=["html", "text", "empty"])
def test_a_404_page_under_a_base_url_without_api_says_so(page: str) -> None:
    kind = "text/html" if page == HTML else None
    without_api = call(ops.GET_LEADS_BY_EMAIL, base_url_problem=NO_API)
    verdict = failure(judge(without_api, response(404, page, kind)))
    assert type(verdict.error) is LemlistNetworkError
    assert verdict.action is Action.RAISE
    assert NO_API in verdict.error.message
    lead = failure(judge(without_api, response(404, "Lead not found"))).error
    assert isinstance(lead, LemlistNotFoundError)  # a proxy may serve the API at its root
    success = failure(judge(without_api, response(200, HTML, "text/html"))).error
    assert isinstance(success, LemlistUnexpectedReplyError)
    assert NO_API in success.message


@pytest.mark.parametrize("words", ["Access denied</title>error code: 1010", "Just a moment...</title>"])
def test_a_403_page_of_the_cdn_is_not_a_blocked_user(words: str) -> None:
    page = f"<!DOCTYPE html><html><title>{words}</html>"
    error = failure(judge(call(ops.GET_TEAM), response(403, page, "text/html"))).error
    assert isinstance(error, LemlistNetworkError)
    assert "User-Agent" in str(error)


@pytest.mark.parametrize("code", MEDIA_CODES)
@pytest.mark.parametrize("body", ["{code}", "Step failed: {code}.", '{{"error": "{code}", "message": "x"}}'])
def test_each_media_code_is_found_in_text_and_in_json_with_its_remedy(code: str, body: str) -> None:
    may_pass, remedy = MEDIA_CODES[code]
    verdict = failure(judge(call(ops.ADD_STEP), response(503 if may_pass else 400, body.format(code=code))))
    assert isinstance(verdict.error, LemlistMediaError)
    assert isinstance(verdict.error, LemlistMediaRefusedError) is not may_pass
    assert verdict.error.code == code
    assert remedy in str(verdict.error)
    assert verdict.error.retryable is may_pass
    # A step may have been left behind, so it is looked up, but never added again here.
    assert verdict.action is (Action.RECONCILE_THEN_RAISE if may_pass else Action.RAISE)


@pytest.mark.parametrize(
    ("operation", "received"),
    [
        (ops.CREATE_LEAD, response(200, "<html>app</html>", "text/html; charset=utf-8")),
        (ops.CREATE_LEAD, response(200, "<!doctype html><html></html>", "application/json")),
        (ops.CREATE_LEAD, response(200, "")),
        (ops.CREATE_LEAD, response(200, {"email": "x"})),
        (ops.CREATE_LEAD, response(200, {"_id": ""})),
        (ops.CREATE_LEAD, response(200, {"_id": None})),
        (ops.CREATE_LEAD, response(200, [{"_id": "lea_1"}])),
        (ops.CREATE_LEAD, response(200, '{"_id": "lea_')),
        (ops.LIST_ACTIVITIES, response(200, {"activities": []})),
        (ops.GET_SEQUENCES, response(200, [])),
        (ops.UPLOAD_AUDIO, response(200, {"ok": False, "status": {}})),
        (ops.LIST_CAMPAIGNS, response(200, '"campaigns"', "application/json")),
        (ops.PAUSE_LEAD, response(200, '{"ok": tr')),
    ],
)
def test_a_false_success_is_never_returned(operation: ops.Operation, received: Response) -> None:
    assert isinstance(failure(judge(call(operation), received)).error, LemlistUnexpectedReplyError)


@pytest.mark.parametrize("body", [[{"_id": "cam_1"}], {"campaigns": [{"_id": "cam_1"}], "pagination": {}}])
def test_both_shapes_of_the_campaign_list_are_accepted(body: Any) -> None:
    assert judge(call(ops.LIST_CAMPAIGNS), response(200, body)) == Success(body)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_an_error_that_names_the_host(status: int) -> None:
    verdict = failure(judge(call(ops.GET_TEAM), response(status)))
    assert isinstance(verdict.error, LemlistUnexpectedReplyError)
    assert verdict.action is Action.RAISE
    assert "host" in str(verdict.error)


LOST = [
    NetworkFault.DISCONNECTED,
    NetworkFault.TIMED_OUT,
    NetworkFault.INCOMPLETE,
    response(500),
    response(504),
    response(200),
    response(200, "<html>", "text/html"),
]


def is_empty_success(operation: ops.Operation, outcome: Response | NetworkFault) -> bool:
    return operation.may_be_empty and outcome == response(200)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_an_empty_body_is_a_success_where_no_body_is_documented(status: int) -> None:
    whatsapp = ops.operation_for("POST", "/inbox/whatsapp", ops.Shape.ANY)
    for operation in (ops.PAUSE_LEAD, ops.RESUBSCRIBE, ops.DELETE_STEP, whatsapp):
        assert judge(call(operation), response(status)) == Success({})
    for operation in (
        ops.UPDATE_LEAD,
        ops.UPLOAD_AUDIO,
        ops.operation_for("GET", "/x", ops.Shape.ANY),
        ops.operation_for("POST", "/hooks", ops.Shape.ANY),
    ):
        assert isinstance(
            failure(judge(call(operation), response(status))).error, LemlistUnexpectedReplyError
        )


@pytest.mark.parametrize("outcome", LOST)
def test_a_create_is_never_blindly_retried(outcome: Response | NetworkFault) -> None:
    for operation in ops.OPERATIONS:
        if is_empty_success(operation, outcome):
            continue
        verdict = failure(judge(call(operation), outcome))
        creates = operation.effect in (
            ops.Effect.CREATE,
            ops.Effect.CREATE_SLOWLY,
            ops.Effect.CREATE_ONCE,
        )
        assert (verdict.action is Action.RETRY) is not creates
        assert verdict.error.in_doubt is (operation.effect is not ops.Effect.READ)


@pytest.mark.parametrize(
    "outcome", [NetworkFault.TIMED_OUT, response(504), response(408), response(522), response(524)]
)
def test_a_step_that_lemlist_may_still_be_adding_is_not_added_again(outcome: Response | NetworkFault) -> None:
    assert failure(judge(call(ops.ADD_STEP), outcome)).action is Action.RECONCILE_THEN_STOP
    # Of a lead lemlist itself refuses a second one.
    assert failure(judge(call(ops.CREATE_LEAD), outcome)).action is Action.RECONCILE_THEN_RETRY


@pytest.mark.parametrize(
    "outcome",
    [
        NetworkFault.DISCONNECTED,
        NetworkFault.TIMED_OUT,
        *(response(status) for status in (408, 502, 503, 504, 520, 524)),
    ],
)
def test_a_step_whose_media_lemlist_may_still_be_fetching_is_not_added_again(
    outcome: Response | NetworkFault,
) -> None:
    assert failure(judge(call(ops.ADD_STEP_WITH_MEDIA), outcome)).action is Action.RECONCILE_THEN_STOP


@pytest.mark.parametrize("outcome", [NetworkFault.INCOMPLETE, response(500), response(200)])
def test_a_step_with_media_to_which_lemlist_itself_responded_is_looked_up_and_added_again(
    outcome: Response | NetworkFault,
) -> None:
    assert failure(judge(call(ops.ADD_STEP_WITH_MEDIA), outcome)).action is Action.RECONCILE_THEN_RETRY


@pytest.mark.parametrize("outcome", [NetworkFault.UNREACHABLE, response(429)])
def test_what_certainly_did_not_take_effect_is_always_retried(outcome: Response | NetworkFault) -> None:
    for operation in ops.OPERATIONS:
        verdict = failure(judge(call(operation), outcome))
        assert verdict.action is Action.RETRY
        assert not verdict.error.in_doubt


def test_an_untrusted_certificate_is_not_retried() -> None:
    verdict = failure(judge(call(ops.GET_TEAM), NetworkFault.UNTRUSTED))
    assert verdict.action is Action.RAISE
    assert "REQUESTS_CA_BUNDLE" in str(verdict.error)


def test_not_found_after_a_lost_response_means_that_a_removal_is_done() -> None:
    gone = response(404, "Step not found")
    assert judge(call(ops.DELETE_STEP, in_doubt=True), gone) == Success({})
    assert isinstance(failure(judge(call(ops.DELETE_STEP), gone)).error, LemlistNotFoundError)
    assert isinstance(failure(judge(call(ops.GET_CAMPAIGN, in_doubt=True), gone)).error, LemlistNotFoundError)


def test_a_duplicate_after_a_lost_response_is_looked_up_because_it_may_be_ours() -> None:
    verdict = failure(
        judge(call(ops.CREATE_LEAD, in_doubt=True), response(400, "Lead already in the campaign"))
    )
    assert verdict.action is Action.RECONCILE_THEN_RAISE
    elsewhere = failure(
        judge(call(ops.CREATE_LEAD, in_doubt=True), response(409, "Lead already in other campaign"))
    )
    assert elsewhere.action is Action.RAISE


def test_starting_a_running_campaign_is_a_success() -> None:
    refused = response(400, "You can't start campaigns that are already running")
    assert judge(call(ops.START_CAMPAIGN), refused) == Success({})
    assert isinstance(judge(call(ops.CREATE_CAMPAIGN), refused), Failure)


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
    in_doubt=st.booleans(),
    leak=st.booleans(),
)
def test_whatever_arrives_the_verdict_is_typed_and_holds_no_key(
    status: int, body: bytes, kind: str, operation: ops.Operation, in_doubt: bool, leak: bool
) -> None:
    if leak:
        body = b"key " + KEY.encode() + b" of ann@example.com " + body
    verdict = judge(call(operation, in_doubt=in_doubt), Response(status, {"content-type": kind}, body))
    if isinstance(verdict, Failure):
        assert isinstance(verdict.error, LemlistError)
        for text in (str(verdict.error), verdict.error.text or ""):
            assert KEY not in text
            assert "ann@example.com" not in text
            assert len(text) < 800


def test_deeply_nested_json_is_no_crash() -> None:
    verdict = judge(call(ops.GET_SEQUENCES), response(200, b"[" * 100_000, "application/json"))
    assert isinstance(verdict, Failure)
    assert isinstance(judge(call(ops.GET_SEQUENCES), response(500, b"[" * 100_000)), Failure)


def test_each_reason_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
    assert [f"| `{reason.name}` | {reason.value} |" for reason in Reason] == [
        line for line in page.splitlines() if line.startswith("| `") and line.split("`")[1].isupper()
    ]


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"x-request-id": "4f1c-9", "cf-ray": "8f0c", "date": "Sun, 22 Nov 2026 14:00:00 GMT"},
         "x-request-id 4f1c-9 at 2026-11-22T14:00:00Z"),
        ({"cf-ray": "8f0c2d-CDG"}, "cf-ray 8f0c2d-CDG"),
        ({"date": "Sun, 22 Nov 2026 15:00:00 +0100"}, "at 2026-11-22T14:00:00Z"),
        ({"x-request-id": "an id\nwith a line", "date": "yesterday"}, ""),
        ({"x-request-id": "x" * 1000, "date": "Fri, 31 Dec 9999 23:59:59 -1400"}, ""),
        ({"x-request-id": f"for-{KEY}"}, "x-request-id for-***"),
        ({}, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("status", "body"), [(404, b"not found"), (200, b"<html>"), (503, b"")])
def test_error_has_the_id_and_the_time_of_the_response(
    headers: dict[str, str], trace: str, status: int, body: bytes
) -> None:
    error = failure(judge(call(ops.GET_TEAM), Response(status, headers, body))).error
    assert error.trace == trace
    assert str(error).endswith(f", {trace})" if trace else f", status {status})")
