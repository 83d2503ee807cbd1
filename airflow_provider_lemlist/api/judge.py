# SPDX-License-Identifier: Apache-2.0
"""
What a response means: one pure function, the only place that knows lemlist's undocumented behaviour.

``judge`` reads top down: a network fault, a refusal (the table ``REFUSAL_RULES``, first match wins), or a
success that must be what the operation returns. It decides; ``transport.py`` acts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from airflow_provider_lemlist.api.operations import Effect, Operation, Shape
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


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the operation, its connection, and what must not appear in any message."""

    operation: Operation
    conn_id: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: What is wrong with the Base URL if a response does not come from lemlist's API.
    base_url_problem: str = ""
    #: Whether an earlier attempt of this call may have taken effect.
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """A response as it arrived; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class NetworkFault(Enum):
    """How the network failed."""

    UNREACHABLE = "lemlist could not be reached"
    UNTRUSTED = "lemlist could not be trusted: its TLS certificate was not accepted"
    DISCONNECTED = "The connection to lemlist broke before the response arrived"
    TIMED_OUT = "lemlist did not respond in time"
    INCOMPLETE = "The connection to lemlist broke in the middle of the response"


class Action(Enum):
    """What to do with a failure."""

    RAISE = "raise the error"
    RETRY = "send again after a pause; raise the error when the retry policy ends"
    RECONCILE_THEN_RETRY = "find out whether it took effect; if it did not, send again"
    RECONCILE_THEN_RAISE = "find out whether it took effect; if it did not, raise the error"
    RECONCILE_THEN_STOP = "find out whether it took effect; if it has not yet, the outcome is unknown"


@dataclass(frozen=True, slots=True)
class Success:
    """The response, parsed."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """The error, and what may be done about it."""

    error: LemlistError
    action: Action = Action.RAISE
    #: Whether the request may have taken effect all the same.
    in_doubt: bool = False


Verdict = Success | Failure


@dataclass(frozen=True, slots=True)
class RefusalRule:
    """One row of the table: which responses it fits, and what they mean."""

    #: One status, or None for every status from 400.
    status: int | None
    #: A pattern for the text of the response; the empty pattern fits every text.
    pattern: str
    error: type[LemlistError]
    reason: Reason
    #: What to do, where the reason does not say it.
    remedy: str = ""
    #: Whether ``pattern`` must fit the whole text.
    whole: bool = False


_GET_KEY = "Put a current key into the connection."
_CLIENT_REFUSED = (
    "It refused this client; the key was not looked at. Check whether a proxy changes the User-Agent, or "
    "whether this IP address is blocked."
)
# The text decides before the status does: lemlist sent the same texts with 400, 409 and 500. Duplicates must
# fit wholly, because an unknown text that merely mentions the words is not a duplicate.
REFUSAL_RULES: tuple[RefusalRule, ...] = (
    RefusalRule(None, r"(?:lead )?already in (?:the|this) campaign", LemlistDuplicateError,
                Reason.ALREADY_IN_CAMPAIGN, whole=True),
    RefusalRule(None, r"(?:lead )?already in (?:an)?other campaigns?", LemlistDuplicateError,
                Reason.ALREADY_IN_OTHER_CAMPAIGN, whole=True),
    RefusalRule(404, r"no user found for this api key", LemlistAuthError, Reason.NO_USER, _GET_KEY),
    RefusalRule(400, r"no api key provided", LemlistAuthError, Reason.NO_KEY,
                "Put it into the connection, or check whether a proxy removes the header."),
    RefusalRule(403, r"user linked to this api key is blocked", LemlistAuthError, Reason.USER_BLOCKED,
                "Unblock the user, or use the key of another one."),
    RefusalRule(403, r"error code: ?1\d{3}", LemlistNetworkError, Reason.GATEWAY, _CLIENT_REFUSED),
    RefusalRule(401, r"", LemlistAuthError, Reason.BAD_KEY, _GET_KEY),
    RefusalRule(402, r"", LemlistPlanError, Reason.PLAN, "Check the plan in lemlist."),
    RefusalRule(403, r"", LemlistAuthError, Reason.FORBIDDEN),
    RefusalRule(None, r"graveyard", LemlistValidationError, Reason.UNSUBSCRIBED),
    RefusalRule(400, r"bad team", LemlistValidationError, Reason.BAD_TEAM),
    RefusalRule(400, r"campaign has no sequence", LemlistValidationError, Reason.NO_SEQUENCE),
    RefusalRule(None, r"already paused|campaigns? .*not running", LemlistValidationError,
                Reason.CAMPAIGN_NOT_RUNNING),
    RefusalRule(None, r"already running|campaigns? .*running", LemlistValidationError,
                Reason.CAMPAIGN_RUNNING),
    RefusalRule(400, r"not found in unsubscribe list", LemlistNotFoundError, Reason.NOT_UNSUBSCRIBED),
    RefusalRule(404, r"an email is required to unsub", LemlistValidationError, Reason.EMAIL_NEEDED),
    RefusalRule(404, r"campaign[ _]not[ _]found", LemlistNotFoundError, Reason.CAMPAIGN_NOT_FOUND),
    RefusalRule(404, r"lead[ _]not[ _]found", LemlistNotFoundError, Reason.LEAD_NOT_FOUND),
    RefusalRule(404, r"sequence not found", LemlistNotFoundError, Reason.SEQUENCE_NOT_FOUND),
    RefusalRule(404, r"step not found", LemlistNotFoundError, Reason.STEP_NOT_FOUND),
    RefusalRule(404, r"", LemlistNotFoundError, Reason.NOT_FOUND),
    RefusalRule(405, r"", LemlistValidationError, Reason.BAD_METHOD),
    RefusalRule(408, r"", LemlistServerError, Reason.SERVER, "It timed out while waiting for the request."),
    RefusalRule(409, r"", LemlistValidationError, Reason.CONFLICT),
    RefusalRule(429, r"monitored", LemlistPlanError, Reason.WATCHLIST_FULL, "Waiting does not help."),
    RefusalRule(429, r"", LemlistRateLimitError, Reason.RATE_LIMITED, "Other clients may use the key."),
)  # fmt: skip
_SERVER = RefusalRule(None, r"", LemlistServerError, Reason.SERVER, "Try again later.")
_REFUSED = RefusalRule(None, r"", LemlistValidationError, Reason.REFUSED)

#: lemlist's codes for media of LinkedIn steps: (may another attempt succeed, what to do).
MEDIA_CODES: dict[str, tuple[bool, str]] = {
    "LINKEDIN_MEDIA_TOO_MANY": (False, "Use at most 6 images and videos in all."),
    "LINKEDIN_MEDIA_UNSAFE_URL": (False, "Use public https:// URLs only."),
    "LINKEDIN_MEDIA_TOO_LARGE": (False, "Use files of at most 20 MB."),
    "LINKEDIN_MEDIA_INVALID_TYPE": (False, "Use PNG, JPEG or GIF images, MP4 or QuickTime videos."),
    "LINKEDIN_MEDIA_GIF_INVALID": (False, "LinkedIn does not accept this GIF; use a PNG or JPEG."),
    "LINKEDIN_MEDIA_DOWNLOAD_FAILED": (True, "lemlist could not fetch a file; open its URL without a login."),
    "LINKEDIN_MEDIA_AV_UNAVAILABLE": (True, "lemlist's virus scanner was not available; try again later."),
    "LINKEDIN_MEDIA_TIMEOUT": (True, "Fetching took over 45 s; use smaller files or a faster host."),
}
_MEDIA_CODE = re.compile("|".join(MEDIA_CODES).encode())


def judge(call: Call, outcome: Response | NetworkFault, detail: str = "") -> Verdict:
    """
    Decide what a response, or its absence, means.

    :param call: The call.
    :param outcome: The response, or how the network failed.
    :param detail: What the operating system says about a network fault.
    """
    if isinstance(outcome, NetworkFault):
        return _judge_fault(call, outcome, detail)
    if outcome.status >= 400:
        return _judge_refusal(call, outcome)
    return _judge_success(call, outcome)


def _judge_fault(call: Call, fault: NetworkFault, detail: str) -> Verdict:
    remedies = {
        NetworkFault.UNREACHABLE: "Check the network of the worker and the host of the connection",
        NetworkFault.UNTRUSTED: "Check the host, or set REQUESTS_CA_BUNDLE to a file of certificates",
    }
    because = f" ({excerpt(detail, call.secrets)})" if detail else ""
    remedy = f"{remedies[fault]}; nothing was sent." if fault in remedies else "It usually passes by itself."
    message = f"{fault.value}{because}. {remedy}"
    error = _error(LemlistNetworkError, call, Reason.NETWORK, message)
    if fault is NetworkFault.UNREACHABLE:
        return Failure(error, Action.RETRY)
    if fault is NetworkFault.UNTRUSTED:
        return Failure(error)
    return _unknown_outcome(call, error, fault)


def _judge_refusal(call: Call, response: Response) -> Verdict:
    if code := _MEDIA_CODE.search(response.body):
        return _judge_media(call, response, code[0].decode())
    status, texts = response.status, [] if _is_html(response) else list(_texts(response))
    rule = next((rule for rule in REFUSAL_RULES if _fits(rule, status, texts)), None)
    if rule is None:
        rule = _SERVER if status >= 500 else _REFUSED
    if status != 429 and (_is_html(response) or (rule.reason is Reason.NOT_FOUND and call.base_url_problem)):
        return _judge_page(call, status)
    if rule.reason is call.operation.already:
        return Success({})
    said = excerpt(texts[0] if texts else "", call.secrets)
    message = f"{rule.reason.value} {rule.remedy}".strip() + (f" lemlist said: {said!r}." if said else "")
    error = _error(rule.error, call, rule.reason, message, status, said)

    if rule.reason is Reason.RATE_LIMITED:
        return Failure(error, Action.RETRY)  # refused before it was read, so always safe
    if rule.reason is Reason.SERVER:
        return _unknown_outcome(call, error, status)
    if call.in_doubt and rule.error is LemlistNotFoundError and call.operation.effect is Effect.REMOVE:
        return Success({})
    if call.in_doubt and rule.reason is Reason.ALREADY_IN_CAMPAIGN:
        return Failure(error, Action.RECONCILE_THEN_RAISE)  # most likely ours, whose response was lost
    return Failure(error)


def _judge_page(call: Call, status: int) -> Verdict:
    """Judge an HTML page: never lemlist's word about the request."""
    blocked = status == 403 and not call.base_url_problem
    remedy = _CLIENT_REFUSED if blocked else call.base_url_problem or _CHECK_PROXY
    error = _error(LemlistNetworkError, call, Reason.GATEWAY, f"{Reason.GATEWAY.value} {remedy}", status)
    if status >= 500 or status in _TIMED_OUT:
        return _unknown_outcome(call, error, status)
    return Failure(error, Action.RAISE if blocked or call.base_url_problem else Action.RETRY)


def _judge_media(call: Call, response: Response, code: str) -> Verdict:
    may_pass, remedy = MEDIA_CODES[code]
    kind = LemlistMediaError if may_pass else LemlistMediaRefusedError
    error = _error(kind, call, Reason.MEDIA, f"{code}: {remedy}", response.status, code)
    if may_pass and not call.operation.effect.repeatable:
        # It is not documented whether a failed ingestion leaves the step behind.
        return Failure(error, Action.RECONCILE_THEN_RAISE, in_doubt=True)
    return Failure(error)


def _judge_success(call: Call, response: Response) -> Verdict:
    if response.status >= 300:
        message = (
            "lemlist responded with a redirect, which is not followed because it would carry the key along. "
            "Check the host of the connection."
        )
        return Failure(_error(LemlistUnexpectedReplyError, call, Reason.UNEXPECTED, message, response.status))
    shape = call.operation.shape
    if _is_html(response):
        problem = "an HTML page"
    elif shape is Shape.TEXT:
        return Success(response.body.decode("utf-8", "replace"))
    elif not response.body.strip():
        if call.operation.may_be_empty:
            return Success({})
        problem = "an empty body"
    else:
        try:
            value = json.loads(response.body)
        except (ValueError, RecursionError):
            if shape is Shape.ANY and not response.body.lstrip().startswith((b"{", b"[")):
                return Success(response.body.decode("utf-8", "replace"))
            problem = "no JSON"
        else:
            if _has_shape(value, shape):
                return Success(value)
            problem = _describe(value)
    message = f"lemlist responded {response.status} with {problem} instead of {shape.value}."
    if _is_html(response):
        message = f"{message} {call.base_url_problem or _CHECK_PROXY}"
    error = _error(LemlistUnexpectedReplyError, call, Reason.UNEXPECTED, message, response.status, problem)
    return _unknown_outcome(call, error, response.status)


_CHECK_PROXY = "Check the proxy of the worker and the Base URL of the connection."
#: The client, or a gateway, waited for the response in vain, or lost lemlist while it waited.
_TIMED_OUT = (NetworkFault.TIMED_OUT, 408, 504, 522, 524)
_DISCONNECTED = (NetworkFault.DISCONNECTED, 502, 503, 520, 521, 523)


def _unknown_outcome(call: Call, error: LemlistError, cause: NetworkFault | int) -> Verdict:
    """
    Decide what follows when the request may or may not have taken effect.

    :param cause: The network fault, or the status of the response.
    """
    effect = call.operation.effect
    if effect.repeatable:
        return Failure(error, Action.RETRY, in_doubt=effect is not Effect.READ)
    slow = {Effect.CREATE: _TIMED_OUT, Effect.CREATE_SLOWLY: _TIMED_OUT + _DISCONNECTED}
    if cause in slow.get(effect, ()):
        # lemlist may still be processing the request; a second one would create two.
        return Failure(error, Action.RECONCILE_THEN_STOP, in_doubt=True)
    return Failure(error, Action.RECONCILE_THEN_RETRY, in_doubt=True)


def _fits(rule: RefusalRule, status: int, texts: list[str]) -> bool:
    if rule.status not in (None, status):
        return False
    match = re.fullmatch if rule.whole else re.search
    return not rule.pattern or any(
        match(rule.pattern, text.strip().strip("\"'").rstrip(".!").strip(), re.IGNORECASE) for text in texts
    )


def _texts(response: Response) -> Iterator[str]:
    """Yield every sentence of an error body: the text itself, or the words of its JSON envelope."""
    try:
        value = json.loads(response.body[:10_000])
    except (ValueError, RecursionError):
        if text := response.body[:10_000].decode("utf-8", "replace").strip():
            yield text
        return
    yield from _words(value)


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth < 3:
        for name in ("error", "message", "status", "code"):
            yield from _words(value.get(name), depth + 1)


def _is_html(response: Response) -> bool:
    kind = response.headers.get("content-type", "").lower()
    return "text/html" in kind or response.body[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _has_shape(value: Any, shape: Shape) -> bool:
    if isinstance(value, dict) and (value.get("ok") is False or value.get("success") is False):
        return False
    match shape:
        case Shape.RECORD:
            return isinstance(value, dict) and isinstance(value.get("_id"), str) and bool(value["_id"])
        case Shape.OBJECT:
            return isinstance(value, dict)
        case Shape.ARRAY:
            return isinstance(value, list)
        case Shape.ROWS:
            return isinstance(value, (dict, list))
        case _:
            return True


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        if value.get("ok") is False or value.get("success") is False:
            return "an object that says it failed"
        return "an object without an _id" if not value.get("_id") else "an object"
    return "an array" if isinstance(value, list) else "a bare value"


_ADDRESS = re.compile(r"[^\s\"'<>@,;:]+(?:@|%40)[^\s\"'<>@,;:]+", re.IGNORECASE)


def excerpt(text: str, secrets: tuple[str, ...]) -> str:
    """Shorten a text to one line that holds neither a secret nor an email."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _ADDRESS.sub("<address>", " ".join(text.split()))
    return text if len(text) <= 200 else text[:199] + "…"


def _error(
    kind: type[LemlistError],
    call: Call,
    reason: Reason,
    message: str,
    status: int | None = None,
    text: str | None = None,
) -> LemlistError:
    return kind(
        message,
        status=status,
        text=text,
        operation=str(call.operation),
        reason=reason,
        conn_id=call.conn_id,
    )
