# SPDX-License-Identifier: Apache-2.0
"""
What a response means: one pure function, the only place that knows lemlist's undocumented behaviour.

``judge`` reads top down: a network fault, a refusal (the table ``REFUSAL_RULES``, first match wins), or a
success that must be what the operation returns. It decides; ``transport.py`` acts.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, BinaryIO, TypeVar

from airflow_provider_lemlist.api import arrays, tables
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

E = TypeVar("E", bound=LemlistError)


@dataclass(frozen=True, slots=True)
class Call:
    """What a verdict depends on, besides the response."""

    operation: Operation
    conn_id: str
    #: What must not appear in any message.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: What is wrong with the Base URL if a response does not come from lemlist's API.
    base_url_problem: str = ""
    #: The operation with the ids in its path.
    shown: str = ""
    #: Whether an earlier attempt of this call may have taken effect.
    in_doubt: bool = False

    def error(self, kind: type[E], reason: Reason | None, message: str, **response: Any) -> E:
        """Return an error that names this call."""
        return kind(
            message,
            operation=self.operation,
            request=self.shown,
            conn_id=self.conn_id,
            reason=reason,
            **response,
        )


@dataclass(frozen=True, slots=True)
class Response:
    """A response as it arrived; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: The file that holds a JSON array or a CSV table instead of ``body``.
    file: BinaryIO | None = None

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page, whatever its status says."""
        kind = self.headers.get("content-type", "").lower()
        return "text/html" in kind or self.body[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))


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


Verdict = Success | Failure


@dataclass(frozen=True, slots=True)
class RefusalRule:
    """One row of the table: which responses it fits, and what they mean."""

    #: A pattern for the status.
    status: str
    #: A pattern for the text of the response; the empty pattern fits every text, and none.
    pattern: str
    error: type[LemlistError]
    reason: Reason
    #: What to do, where the reason does not say it.
    remedy: str = ""


_ANY = "..."
_GET_KEY = "Put a current key into the connection."
_CLIENT_REFUSED = (
    "It refused this client; the key was not looked at. Check whether a proxy changes the User-Agent, or "
    "whether this IP address is blocked."
)
# The text decides before the status does: lemlist sent the same texts with 400, 409 and 500. Duplicates must
# fit wholly, because an unknown text that merely mentions the words is not a duplicate.
REFUSAL_RULES: tuple[RefusalRule, ...] = (
    RefusalRule(_ANY, r"^(?:lead )?already in (?:the|this) campaign$", LemlistDuplicateError,
                Reason.ALREADY_IN_CAMPAIGN),
    RefusalRule(_ANY, r"^(?:lead )?already in (?:an)?other campaigns?$", LemlistDuplicateError,
                Reason.ALREADY_IN_OTHER_CAMPAIGN),
    RefusalRule("404", r"no user found for this api key", LemlistAuthError, Reason.NO_USER, _GET_KEY),
    RefusalRule("400", r"no api key provided", LemlistAuthError, Reason.NO_KEY,
                "Put it into the connection, or check whether a proxy removes the header."),
    RefusalRule("403", r"user linked to this api key is blocked", LemlistAuthError, Reason.USER_BLOCKED,
                "Unblock the user, or use the key of another one."),
    RefusalRule("403", r"error code: ?1\d{3}", LemlistNetworkError, Reason.GATEWAY, _CLIENT_REFUSED),
    RefusalRule("401", r"", LemlistAuthError, Reason.BAD_KEY, _GET_KEY),
    RefusalRule("402", r"", LemlistPlanError, Reason.PLAN, "Check the plan in lemlist."),
    RefusalRule("403", r"", LemlistAuthError, Reason.FORBIDDEN),
    RefusalRule("400", r"^campaign_lead_review_lead_already_launched$", LemlistValidationError,
                Reason.LEAD_LAUNCHED),
    RefusalRule("400", r"^campaign_lead_review_lead_paused$", LemlistValidationError, Reason.LEAD_PAUSED),
    RefusalRule("400", r"^campaign_lead_review_lead_ai_variable_invalid$", LemlistValidationError,
                Reason.AI_VARIABLE_INVALID),
    RefusalRule("400", r"^campaign_lead_review_lead_no_sender_available$", LemlistValidationError,
                Reason.NO_SENDER),
    RefusalRule("400", r"^campaign_lead_review_campaign_step_errors$", LemlistValidationError,
                Reason.STEP_ERRORS),
    RefusalRule("409", r"protected", LemlistValidationError, Reason.PROTECTED),
    RefusalRule(_ANY, r"graveyard", LemlistValidationError, Reason.UNSUBSCRIBED),
    RefusalRule("400", r"bad team", LemlistValidationError, Reason.BAD_TEAM),
    RefusalRule("400", r"campaign has no sequence", LemlistValidationError, Reason.NO_SEQUENCE),
    RefusalRule(_ANY, r"already paused|campaigns? .*not running", LemlistValidationError,
                Reason.CAMPAIGN_NOT_RUNNING),
    RefusalRule(_ANY, r"already running|campaigns? .*running", LemlistValidationError,
                Reason.CAMPAIGN_RUNNING),
    RefusalRule("400", r"not found in unsubscribe list", LemlistNotFoundError, Reason.NOT_UNSUBSCRIBED),
    RefusalRule("404", r"variable not found", LemlistNotFoundError, Reason.NOT_UNSUBSCRIBED),
    RefusalRule("404", r"an email is required to unsub", LemlistValidationError, Reason.EMAIL_NEEDED),
    RefusalRule("404", r"campaign[ _]not[ _]found", LemlistNotFoundError, Reason.CAMPAIGN_NOT_FOUND),
    RefusalRule("404", r"lead[ _]not[ _]found", LemlistNotFoundError, Reason.LEAD_NOT_FOUND),
    RefusalRule("404", r"sequence not found", LemlistNotFoundError, Reason.SEQUENCE_NOT_FOUND),
    RefusalRule("404", r"step not found", LemlistNotFoundError, Reason.STEP_NOT_FOUND),
    RefusalRule("404", r"", LemlistNotFoundError, Reason.NOT_FOUND),
    RefusalRule("405", r"", LemlistValidationError, Reason.BAD_METHOD),
    RefusalRule("408", r"", LemlistServerError, Reason.SERVER, "It timed out while waiting for the request."),
    RefusalRule("409", r"", LemlistValidationError, Reason.CONFLICT),
    RefusalRule("429", r"monitored", LemlistPlanError, Reason.WATCHLIST_FULL, "Waiting does not help."),
    RefusalRule("429", r"", LemlistRateLimitError, Reason.RATE_LIMITED, "Other clients may use the key."),
    RefusalRule("[5-9]..", r"", LemlistServerError, Reason.SERVER, "Try again later."),
    RefusalRule(_ANY, r"", LemlistValidationError, Reason.REFUSED),
)  # fmt: skip

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
    """Decide what a response means, or a network fault with what the system says about it (``detail``)."""
    if isinstance(outcome, NetworkFault):
        return _judge_fault(call, outcome, detail)
    verdict = (_judge_refusal if outcome.status >= 400 else _judge_success)(call, outcome)
    if isinstance(verdict, Failure):
        verdict.error.trace = _trace(outcome.headers, call.secrets)
    return verdict


#: Faults before anything was sent: what to check, and what follows.
_NOT_SENT = {
    NetworkFault.UNREACHABLE: ("the network of the worker and the host of the connection", Action.RETRY),
    NetworkFault.UNTRUSTED: ("the host, or set REQUESTS_CA_BUNDLE to a file of certificates", Action.RAISE),
}


def _judge_fault(call: Call, fault: NetworkFault, detail: str) -> Verdict:
    check, action = _NOT_SENT.get(fault, (None, None))
    because = f" ({excerpt(detail, call.secrets)})" if detail else ""
    remedy = f"Check {check}; nothing was sent." if check else "It usually passes by itself."
    error = call.error(LemlistNetworkError, Reason.NETWORK, f"{fault.value}{because}. {remedy}")
    return Failure(error, action) if action else _unknown_outcome(call, error, fault)


def _judge_refusal(call: Call, response: Response) -> Verdict:
    if code := _MEDIA_CODE.search(response.body):
        return _judge_media(call, response, code[0].decode())
    body = response.body[:10_000]
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = body.decode("utf-8", "replace")
    status, texts = response.status, [] if response.is_html else [*_words(said)]
    rule = next(rule for rule in REFUSAL_RULES if _fits(rule, status, texts))
    if status != 429 and (response.is_html or (rule.reason is Reason.NOT_FOUND and call.base_url_problem)):
        return _judge_page(call, status)
    if rule.reason is call.operation.already:
        return Success({})
    said = excerpt(texts[0] if texts else "", call.secrets)
    message = f"{rule.reason.value} {rule.remedy}".strip() + (f" lemlist said: {said!r}." if said else "")
    error = call.error(rule.error, rule.reason, message, status=status, text=said)

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
    message = f"{Reason.GATEWAY.value} {remedy}"
    error = call.error(LemlistNetworkError, Reason.GATEWAY, message, status=status)
    if status >= 500 or status == 408:
        return _unknown_outcome(call, error, status)
    return Failure(error, Action.RAISE if blocked or call.base_url_problem else Action.RETRY)


def _judge_media(call: Call, response: Response, code: str) -> Verdict:
    may_pass, remedy = MEDIA_CODES[code]
    kind = LemlistMediaError if may_pass else LemlistMediaRefusedError
    error = call.error(kind, Reason.MEDIA, f"{code}: {remedy}", status=response.status, text=code)
    # It is not documented whether a failed ingestion leaves the step behind.
    error.in_doubt = may_pass and not call.operation.effect.repeatable
    return Failure(error, Action.RECONCILE_THEN_RAISE if error.in_doubt else Action.RAISE)


def _judge_success(call: Call, response: Response) -> Verdict:
    status = response.status
    if status >= 300:
        message = (
            "lemlist responded with a redirect, which is not followed because it would carry the key along. "
            "Check the host of the connection."
        )
        return Failure(call.error(LemlistUnexpectedReplyError, Reason.UNEXPECTED, message, status=status))
    read = _read(call.operation, response)
    if isinstance(read, Success):
        return read
    message = f"lemlist responded {status} with {read} instead of {call.operation.shape.value}."
    if response.is_html:
        message += f" {call.base_url_problem or _CHECK_PROXY}"
    error = call.error(LemlistUnexpectedReplyError, Reason.UNEXPECTED, message, status=status, text=read)
    return _unknown_outcome(call, error, status)


_KIND: dict[Shape, Any] = {
    Shape.RECORD: dict,
    Shape.OBJECT: dict,
    Shape.ARRAY: list,
    Shape.OBJECTS: (),  # it is in a file
    Shape.TABLE: (),
    Shape.ROWS: dict | list,
}


def _read(operation: Operation, response: Response) -> Success | str:
    """Return the parsed response, or what arrived instead of what the operation returns."""
    shape, body = operation.shape, response.body
    if response.is_html:
        return "an HTML page"
    if response.file is not None:
        return (_read_table if shape is Shape.TABLE else _read_objects)(response.file)
    if shape is Shape.TEXT:
        return Success(body.decode("utf-8", "replace"))
    if not body.strip():
        return Success({}) if operation.may_be_empty else "an empty body"
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        is_sentence = shape is Shape.ANY and not body.lstrip().startswith((b"{", b"["))
        return Success(body.decode("utf-8", "replace")) if is_sentence else "no JSON"
    if isinstance(value, dict):
        if value.get("ok") is False or value.get("success") is False:
            return "an object that says it failed"
        if shape is Shape.RECORD and not (isinstance(value.get("_id"), str) and value["_id"]):
            return "an object without an _id"
    if isinstance(value, _KIND.get(shape, object)):
        return Success(value)
    return f"a JSON value of type {type(value).__name__}"


def _read_objects(file: BinaryIO) -> Success | str:
    """Read the array to its end first, so that its reader never meets an error half-way through."""
    try:
        for _ in arrays.read_objects(file):
            pass
    except arrays.NotAnObjectError:
        return "an array of something else"
    except (ValueError, RecursionError):
        return "no JSON"
    return Success(arrays.read_objects(file))


def _read_table(file: BinaryIO) -> Success | str:
    """Read the table to its end first, as ``_read_objects`` does."""
    try:
        for row in tables.read_rows(file):
            if not row.get("_id"):
                return "a table with a line without an _id"
    except (ValueError, csv.Error):
        return "no CSV table, or a part of one"
    return Success(tables.read_rows(file))


_CHECK_PROXY = "Check the proxy of the worker and the Base URL of the connection."
#: The client, or a gateway, waited for the response in vain, or lost lemlist while it waited.
_TIMED_OUT = (NetworkFault.TIMED_OUT, 408, 504, 522, 524)
_DISCONNECTED = (NetworkFault.DISCONNECTED, 502, 503, 520, 521, 523)
#: When lemlist may still be processing the request, so that a second one would create two.
_STILL_PROCESSING = {Effect.CREATE: _TIMED_OUT, Effect.CREATE_SLOWLY: _TIMED_OUT + _DISCONNECTED}


def _unknown_outcome(call: Call, error: LemlistError, cause: NetworkFault | int) -> Verdict:
    """Decide what follows a network fault or a status that leaves open whether the request took effect."""
    effect = call.operation.effect
    error.in_doubt = effect is not Effect.READ
    if effect.repeatable:
        return Failure(error, Action.RETRY)
    if cause in _STILL_PROCESSING.get(effect, ()):
        return Failure(error, Action.RECONCILE_THEN_STOP)
    return Failure(error, Action.RECONCILE_THEN_RETRY)


def _fits(rule: RefusalRule, status: int, texts: list[str]) -> bool:
    return re.fullmatch(rule.status, str(status)) is not None and (
        not rule.pattern
        or any(re.search(rule.pattern, text.strip(" \t\r\n\"'.!"), re.IGNORECASE) for text in texts)
    )


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts of an error body: the body itself, or the words of its JSON envelope."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth < 3:
        for name in ("error", "message", "status", "code"):
            yield from _words(value.get(name), depth + 1)


#: Headers with the id of a response. lemlist documents none; these are what servers and Cloudflare send.
_ID_HEADERS = ("x-request-id", "x-correlation-id", "cf-ray")


def _trace(headers: Mapping[str, str], secrets: tuple[str, ...]) -> str:
    """Return the id of a response and when it was sent, as "cf-ray 8f0c2d-CDG at 2026-11-22T14:00:00Z"."""
    parts = []
    for name in _ID_HEADERS:
        if re.fullmatch(r"[\w.:=/+-]{1,80}", value := headers.get(name, "")):
            parts.append(f"{name} {excerpt(value, secrets)}")
            break
    with suppress(ValueError, OverflowError):  # a header may hold anything
        sent_at = parsedate_to_datetime(headers.get("date", "")).astimezone(UTC)
        parts.append(f"at {sent_at:%Y-%m-%dT%H:%M:%SZ}")
    return " ".join(parts)


_ADDRESS = re.compile(r"[^\s\"'<>@,;:]+(?:@|%40)[^\s\"'<>@,;:]+", re.IGNORECASE)


def excerpt(text: str, secrets: tuple[str, ...]) -> str:
    """Shorten a text to one line that holds neither a secret nor an email."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _ADDRESS.sub("<address>", " ".join(text.split()))
    return text if len(text) <= 200 else text[:199] + "…"
