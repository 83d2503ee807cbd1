# SPDX-License-Identifier: Apache-2.0
"""
What an answer means: one pure function, the only place that knows lemlist's manners.

``judge`` reads top down: a fault of the network, a refusal (the table ``REFUSALS``, first match wins),
or a success that has to prove itself. It decides; ``transport.py`` acts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

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
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: the operation, who asks, and what must not be repeated in any message."""

    operation: Operation
    conn_id: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: Whether an earlier attempt of this question may have taken effect.
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it arrived; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Fault(Enum):
    """How the network failed."""

    UNSENT = "could not be reached"
    REFUSED_TLS = "could not be trusted: its TLS certificate was not accepted"
    LOST = "broke the connection before it answered"
    SILENT = "did not answer in time"
    CUT = "broke off in the middle of the answer"


class Action(Enum):
    """What to do with a failure."""

    RAISE = "raise the error"
    REPLAY = "ask again after a pause; raise the error when patience ends"
    LOOK_THEN_REPLAY = "find out whether it happened; if it did not, ask again"
    LOOK_THEN_RAISE = "find out whether it happened; if it did not, raise the error"
    LOOK_THEN_DOUBT = "find out whether it happened; if it did not yet, nobody can tell"


@dataclass(frozen=True, slots=True)
class Success:
    """The answer, parsed."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """The error, and what may be done about it."""

    error: LemlistError
    action: Action = Action.RAISE
    #: Whether the request may have taken effect all the same.
    doubt: bool = False


Verdict = Success | Failure


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table: which answers it fits, and what they are."""

    #: One status, or None for every status from 400.
    status: int | None
    #: What the text of the answer says, as a pattern; the empty pattern fits every text.
    says: str
    error: type[LemlistError]
    remedy: str
    where: Literal["", "campaign", "elsewhere"] = ""
    #: Whether ``says`` must fit the whole text.
    whole: bool = False


# The text decides before the status does: lemlist gave the same texts under 400, 409 and 500. Duplicates
# must fit wholly, because an unknown text that merely mentions the words is not a duplicate.
REFUSALS: tuple[Refusal, ...] = (
    Refusal(None, r"(?:lead )?already in (?:the|this) campaign", LemlistDuplicateError,
            "The lead is already in this campaign.", where="campaign", whole=True),
    Refusal(None, r"(?:lead )?already in (?:an)?other campaigns?", LemlistDuplicateError,
            "The lead is already in another campaign, and deduplicate is on.", where="elsewhere", whole=True),
    Refusal(404, r"no user found for this api key", LemlistAuthError,
            "The API key belongs to no user; put a current key into the connection."),
    Refusal(400, r"no api key provided", LemlistAuthError,
            "No API key arrived; put it into the connection, or ask whether a proxy removes the header."),
    Refusal(403, r"user linked to this api key is blocked", LemlistAuthError,
            "The user of this API key is blocked in lemlist; unblock the user or use the key of another."),
    Refusal(403, r"error code: ?1\d{3}|^an HTML page$", LemlistNetworkError,
            "The network in front of lemlist refused this client; the key was not looked at. "
            "Ask whether a proxy changes the User-Agent, or whether this address is blocked."),
    Refusal(401, r"", LemlistAuthError,
            "lemlist does not accept the API key; put a current key into the connection."),
    Refusal(402, r"", LemlistPlanError,
            "The plan lacks this route, or the credits are used up; see the plan in lemlist."),
    Refusal(403, r"", LemlistAuthError, "This API key may not do that."),
    Refusal(None, r"graveyard", LemlistValidationError, "The lead is unsubscribed and cannot be changed."),
    Refusal(400, r"bad team", LemlistValidationError,
            "An id belongs to another team than the API key, or the key has no team."),
    Refusal(400, r"variable not found in unsubscribe list", LemlistNotFoundError,
            "The value is not unsubscribed."),
    Refusal(404, r"an email is required to unsub", LemlistValidationError,
            "Unsubscribing takes the address of the lead, not its id."),
    Refusal(404, r"", LemlistNotFoundError, "Nothing of that id exists for this API key."),
    Refusal(405, r"", LemlistValidationError, "This route does not take this verb."),
    Refusal(408, r"", LemlistServerError, "lemlist gave up waiting for the request."),
    Refusal(409, r"", LemlistValidationError, "This conflicts with what is there."),
    Refusal(429, r"monitored", LemlistPlanError,
            "The limit of monitored entities is reached; waiting does not help."),
    Refusal(429, r"", LemlistRateLimitError, "The key's rate limit was exceeded; others may use the key."),
)  # fmt: skip
_SERVER = Refusal(None, r"", LemlistServerError, "lemlist failed; try again later.")
_CLIENT = Refusal(None, r"", LemlistValidationError, "lemlist refused the request as it is.")

#: lemlist's codes for media of LinkedIn steps: (may another try succeed, what to do).
MEDIA_CODES: dict[str, tuple[bool, str]] = {
    "LINKEDIN_MEDIA_TOO_MANY": (False, "Give at most 6 images and videos in all."),
    "LINKEDIN_MEDIA_UNSAFE_URL": (False, "Give public https:// addresses only."),
    "LINKEDIN_MEDIA_TOO_LARGE": (False, "Give files of at most 20 MB."),
    "LINKEDIN_MEDIA_INVALID_TYPE": (False, "Give PNG, JPEG or GIF images, MP4 or QuickTime videos."),
    "LINKEDIN_MEDIA_GIF_INVALID": (False, "LinkedIn does not take this GIF; give a PNG or JPEG."),
    "LINKEDIN_MEDIA_DOWNLOAD_FAILED": (
        True,
        "lemlist could not fetch a file; open its address without a login.",
    ),
    "LINKEDIN_MEDIA_AV_UNAVAILABLE": (True, "lemlist's virus scanner was not available; try again later."),
    "LINKEDIN_MEDIA_TIMEOUT": (
        True,
        "Fetching the files took over 45 s; give smaller files or a faster host.",
    ),
}
_MEDIA_CODE = re.compile("|".join(MEDIA_CODES).encode())


def judge(asked: Asked, outcome: Reply | Fault, why: str = "") -> Verdict:
    """
    Decide what an answer, or its absence, means.

    :param asked: The question.
    :param outcome: The answer, or how the network failed.
    :param why: What the machine says about a fault of the network.
    """
    if isinstance(outcome, Fault):
        return _judge_fault(asked, outcome, why)
    if outcome.status >= 400:
        return _judge_refusal(asked, outcome)
    return _judge_success(asked, outcome)


def _judge_fault(asked: Asked, fault: Fault, why: str) -> Verdict:
    remedies = {
        Fault.UNSENT: "Check the network of the worker and the host of the connection; nothing was sent.",
        Fault.REFUSED_TLS: (
            "Check the host, or trust the certificate of a proxy by REQUESTS_CA_BUNDLE, which must name a "
            "file of certificates; nothing was sent."
        ),
    }
    because = f" ({excerpt(why, asked.secrets)})" if why else ""
    message = f"lemlist {fault.value}{because}. {remedies.get(fault, 'It is usually gone in a moment.')}"
    error = _error(LemlistNetworkError, asked, message)
    if fault is Fault.UNSENT:
        return Failure(error, Action.REPLAY)
    if fault is Fault.REFUSED_TLS:
        return Failure(error)
    return _after_doubt(asked, error, silent=fault is Fault.SILENT, cut_off=fault is Fault.LOST)


def _judge_refusal(asked: Asked, reply: Reply) -> Verdict:
    texts = list(_texts(reply))
    if asked.operation.already and any(_says(asked.operation.already, text) for text in texts):
        return Success({})
    if code := _MEDIA_CODE.search(reply.body):
        return _judge_media(asked, reply, code[0].decode())
    refusal = next((row for row in REFUSALS if _fits(row, reply.status, texts)), None)
    if refusal is None:
        refusal = _SERVER if reply.status >= 500 else _CLIENT
    kind = refusal.error
    said = excerpt(texts[0] if texts else "", asked.secrets)
    message = f"{refusal.remedy}" + (f" lemlist said: {said!r}." if said else "")
    if kind is LemlistDuplicateError:
        error: LemlistError = _error(kind, asked, message, reply.status, said, where=refusal.where)
    else:
        error = _error(kind, asked, message, reply.status, said)

    effect = asked.operation.effect
    if kind is LemlistRateLimitError:
        return Failure(error, Action.REPLAY)  # refused before it was looked at, so always safe
    if kind is LemlistServerError:
        return _after_doubt(
            asked, error, silent=reply.status in _WAITED_IN_VAIN, cut_off=reply.status in _FROM_IN_BETWEEN
        )
    if asked.doubted and kind is LemlistNotFoundError and effect is Effect.REMOVE:
        return Success({})
    if asked.doubted and kind is LemlistDuplicateError and refusal.where == "campaign":
        return Failure(error, Action.LOOK_THEN_RAISE)  # most likely ours, whose answer was lost
    return Failure(error)


def _judge_media(asked: Asked, reply: Reply, code: str) -> Verdict:
    may_pass, remedy = MEDIA_CODES[code]
    kind = LemlistMediaError if may_pass else LemlistMediaRefusedError
    error = _error(kind, asked, f"{code}: {remedy}", reply.status, code, code=code)
    if may_pass and not asked.operation.effect.repeatable:
        # Nobody says whether a failed ingestion leaves the step behind.
        return Failure(error, Action.LOOK_THEN_RAISE, doubt=True)
    return Failure(error)


def _judge_success(asked: Asked, reply: Reply) -> Verdict:
    if reply.status >= 300:
        message = (
            "lemlist answered with a redirect, never followed because it would carry the key along. "
            "Check the host of the connection."
        )
        return Failure(_error(LemlistUnexpectedReplyError, asked, message, reply.status))
    shape = asked.operation.shape
    if _is_html(reply):
        problem = "an HTML page"
    elif shape is Shape.TEXT:
        return Success(reply.body.decode("utf-8", "replace"))
    elif not reply.body.strip():
        problem = "nothing"
    else:
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            if shape is Shape.ANY and not reply.body.lstrip().startswith((b"{", b"[")):
                return Success(reply.body.decode("utf-8", "replace"))
            problem = "no JSON"
        else:
            if _has_shape(value, shape):
                return Success(value)
            problem = _describe(value)
    message = (
        f"lemlist answered {reply.status} with {problem} where {shape.value} belongs, so this is no success."
    )
    if _is_html(reply):
        message += " Check that the Base URL of the connection ends in /api."
    error = _error(LemlistUnexpectedReplyError, asked, message, reply.status, problem)
    return _after_doubt(asked, error)


#: Statuses of who waited for an answer in vain: lemlist's gateway, and the network in front of it.
_WAITED_IN_VAIN = (408, 504, 522, 524)
#: Statuses of who lost lemlist on the way.
_FROM_IN_BETWEEN = (502, 503, 520, 521, 523)


def _after_doubt(
    asked: Asked, error: LemlistError, *, silent: bool = False, cut_off: bool = False
) -> Verdict:
    """
    Decide what follows when the effect may or may not have happened.

    :param silent: Whether somebody waited for the answer as long as it may take.
    :param cut_off: Whether the answer was lost before that.
    """
    effect = asked.operation.effect
    if effect.repeatable:
        return Failure(error, Action.REPLAY, doubt=True)
    if (silent and effect is Effect.CREATE) or ((silent or cut_off) and effect is Effect.CREATE_SLOWLY):
        # lemlist may still be at work on what it did not answer; another one would make two.
        return Failure(error, Action.LOOK_THEN_DOUBT, doubt=True)
    return Failure(error, Action.LOOK_THEN_REPLAY, doubt=True)


def _fits(row: Refusal, status: int, texts: list[str]) -> bool:
    if row.status not in (None, status):
        return False
    return not row.says or any(_says(row.says, text, whole=row.whole) for text in texts)


def _says(pattern: str, text: str, *, whole: bool = False) -> bool:
    text = text.strip().strip("\"'").rstrip(".!").strip()
    return bool((re.fullmatch if whole else re.search)(pattern, text, re.IGNORECASE))


def _texts(reply: Reply) -> Iterator[str]:
    """Give every sentence of an error body: the text itself, or the words of its JSON envelope."""
    body = reply.body[:10_000].decode("utf-8", "replace").strip()
    try:
        value = json.loads(reply.body[:10_000])
    except (ValueError, RecursionError):
        if body and not _is_html(reply):
            yield body
        elif body:
            code = re.search(r"error code: ?1\d{3}", body, re.IGNORECASE)
            yield code[0] if code else "an HTML page"
        return
    yield from _words(value)


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and depth < 3:
        for name in ("error", "message", "status", "code"):
            yield from _words(value.get(name), depth + 1)


def _is_html(reply: Reply) -> bool:
    kind = reply.headers.get("content-type", "").lower()
    return "text/html" in kind or reply.body[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))


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
    """Shorten what lemlist said to one line that holds neither a secret nor an address."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _ADDRESS.sub("<address>", " ".join(text.split()))
    return text if len(text) <= 200 else text[:199] + "…"


def _error(
    kind: type[LemlistError],
    asked: Asked,
    message: str,
    status: int | None = None,
    text: str | None = None,
    **more: Any,
) -> LemlistError:
    operation = str(asked.operation)
    return kind(
        f"{message} ({operation}, connection {asked.conn_id!r}" + (f", status {status})" if status else ")"),
        status=status,
        text=text,
        operation=operation,
        **more,
    )
