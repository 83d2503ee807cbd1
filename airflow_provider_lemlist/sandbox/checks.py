# SPDX-License-Identifier: Apache-2.0
"""
What lemlist accepts: pure functions that check values and raise the error for an invalid one.

They are independent of the client's checks, so that a test finds differences; only the table of steps is
shared. The documents state few texts for invalid values. The other texts have the form of a documented one,
``Match error: Expected string, got number``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.media import refuse_scripted
from airflow_provider_lemlist.steps import CATALOGUE, FIELDS

MEDIA = ("images", "videos")
MAX_MEDIA = 6
REVIEW_CONDITIONS = ("deliverable", "risky", "undeliverable", "unverified")


def mismatch(what: str) -> ApiError:
    """Return the error for a value of the wrong form; it is also a violation."""
    return ApiError(400, f"Match error: {what}", violation=what)


def bad_request(text: str) -> ApiError:
    """Return the error with this text; it is also a violation."""
    return ApiError(400, text, violation=text)


def json_type(value: Any) -> str:
    """Return the JavaScript name of a value's type, or ``integer`` for a whole number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def expect(wanted: str, value: Any, field: str) -> Any:
    if json_type(value) != wanted:
        raise mismatch(f"Expected {wanted}, got {json_type(value)} in field {field}")
    return value


# --- Bodies and queries -----------------------------------------------------------------------------------


def json_object(content_type: str, body: bytes) -> dict[str, Any]:
    """Return a JSON body; lemlist does not parse it without the right content type."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise mismatch(f"Expected a body of application/json, got {content_type or 'no content type'}")
    try:
        found = json.loads(body)
    except ValueError:
        raise mismatch("Expected JSON, got something else") from None
    if not isinstance(found, dict):
        raise mismatch(f"Expected object, got {json_type(found)}")
    return _without_lone_surrogates(found, body)


def _without_lone_surrogates(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Replace lone surrogates, which JSON can escape but UTF-8 cannot encode, as JavaScript does."""
    if b"\\ud" not in body.lower():
        return found
    text = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
    whole: dict[str, Any] = json.loads(text.decode("utf-16", "replace"))
    return whole


def flag(query: Mapping[str, str], name: str, default: bool = False) -> bool:
    """Return a boolean of the query: only ``true`` and ``false`` are valid."""
    value = query.get(name)
    if value is None:
        return default
    if value not in ("true", "false"):
        raise mismatch(f"Expected true or false, got another word in {name}")
    return value == "true"


def number(
    query: Mapping[str, str], name: str, default: int, *, minimum: int = 0, maximum: int = 2**31
) -> int:
    """Return a whole number of the query, clamped to the limits."""
    value = query.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise mismatch(f"Expected integer in {name}")
    return max(minimum, min(maximum, int(value)))


def moment(query: Mapping[str, str], *names: str) -> float | None:
    """Return a moment of the query, epoch seconds or ISO 8601, from the first parameter that is present."""
    for name in names:
        if value := query.get(name):
            return parse_moment(value, name)
    return None


def parse_moment(value: str, name: str) -> float:
    try:
        return float(value)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise mismatch(f"Expected epoch seconds or an ISO 8601 date in {name}") from None
    return at.timestamp() if at.tzinfo else at.replace(tzinfo=ZoneInfo("UTC")).timestamp()


def timezone(value: str, field: str = "timezone") -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise mismatch(f"Expected an IANA time zone in field {field}") from None
    return value


def known_keys(body: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in body:
        if name not in names:
            raise mismatch(f"Unknown key '{name}'")


def split_unknown(body: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """
    Return a body without its unknown fields, and the names of these.

    :param wanted: What each field accepts, as in ``setting``.
    """
    known, unknown = {}, []
    for name, value in body.items():
        below = wanted.get(name)
        if name not in wanted:
            unknown.append(name)
        elif isinstance(below, dict) and isinstance(value, dict):
            known[name], more = split_unknown(value, below)
            unknown += [f"{name}.{each}" for each in more]
        else:
            known[name] = value
    return known, unknown


# --- Campaigns and schedules ------------------------------------------------------------------------------


def setting(name: str, value: Any, wanted: Any) -> None:
    """
    Check a setting, or all settings of an object.

    :param wanted: A JSON type, the accepted texts, or what each key of an object accepts.
    """
    if isinstance(wanted, dict):
        known_keys(expect("object", value, name), wanted)
        for key, each in value.items():
            setting(key, each, wanted[key])
    elif isinstance(wanted, tuple):
        if value not in wanted:
            raise mismatch(f"Expected one of {', '.join(wanted)} in field {name}")
    else:
        expect(wanted, value, name)


SCHEDULE_TYPES = {
    "name": "string",
    "timezone": "string",
    "start": "string",
    "end": "string",
    "weekdays": "array",
    "secondsToWait": "integer",
    "public": "boolean",
}


def schedule(body: Mapping[str, Any]) -> dict[str, Any]:
    """Check the fields of a new schedule or of an update; each has a default."""
    setting("body", body, SCHEDULE_TYPES)
    if "timezone" in body:
        timezone(body["timezone"])
    for name in ("start", "end"):
        if name in body and not re.fullmatch("([01][0-9]|2[0-3]):[0-5][0-9]", body[name]):
            raise mismatch(f"Expected HH:mm in field {name}")
    for day in body.get("weekdays", ()):
        if json_type(day) != "integer" or not 1 <= day <= 7:
            raise mismatch("Expected days from 1 to 7 in field weekdays")
    return dict(body)


# --- Leads ------------------------------------------------------------------------------------------------


def lead(body: Mapping[str, Any]) -> dict[str, str]:
    """Check the body of a new lead: only strings, a valid email address, an existing time zone."""
    for name, value in body.items():
        expect("string", value, name)
    if body.get("email"):
        email(body["email"])
    if body.get("timezone"):
        timezone(body["timezone"])
    return dict(body)


def email(value: str) -> str:
    local, _, domain = value.rpartition("@")
    if (
        not local
        or "@" in local
        or "." not in domain.strip(".")
        or any(character.isspace() for character in value)
    ):
        raise ApiError(400, "Invalid email", violation="Expected an email address in field email")
    return value


# --- Steps ------------------------------------------------------------------------------------------------


def step(body: Mapping[str, Any], campaigns: Iterable[str], *, of_type: str | None = None) -> dict[str, Any]:
    """
    Check the body of a step.

    :param campaigns: Ids of the campaigns that a lead may be sent to: of the team, not archived.
    :param of_type: On an update, the type of the step; then only the type is required, and the step cannot be
        moved.
    """
    name = body.get("type")
    if not isinstance(name, str) or name not in CATALOGUE:
        raise mismatch("Missing key 'type'" if name is None else "Expected a known step type in field type")
    if of_type is not None and name != of_type:
        raise mismatch(f"Expected type {of_type}, got {name}: the type of a step cannot be changed")
    required = CATALOGUE[name].required if of_type is None else ()
    allowed = step_fields(name, update=of_type is not None)
    for field in required:
        if field not in body:
            raise mismatch(f"Missing key '{field}' for a step of type {name}")
    if of_type is None and body.get("delayType") == "within" and "delay" not in body:
        raise mismatch("Missing key 'delay' for delayType within")
    for field, value in body.items():
        if field not in allowed:
            raise mismatch(f"Unknown key '{field}' for a step of type {name}")
        if field != "type":
            _step_value(field, value, required=field in CATALOGUE[name].required)
    if name == "sendToAnotherCampaign" and "campaignId" in body and body["campaignId"] not in set(campaigns):
        raise ApiError(400, "Campaign not found", violation="campaignId is no active campaign")
    _media(body)
    return dict(body)


def step_fields(type: str, *, update: bool) -> set[str]:
    """Return the fields of a step; an update cannot move it."""
    return {"type", *CATALOGUE[type].fields} - ({"index"} if update else set())


JSON_TYPES = {str: "string", int: "integer", bool: "boolean", list: "array"}


def _step_value(name: str, value: Any, *, required: bool) -> None:
    field = FIELDS[name]
    expect(JSON_TYPES[field.type], value, name)
    if isinstance(value, int) and not isinstance(value, bool):
        if field.least is not None and value < field.least:
            raise mismatch(f"Expected at least {field.least} in field {name}")
        if field.most is not None and value > field.most:
            raise mismatch(f"Expected at most {field.most} in field {name}")
    if isinstance(value, list):
        for item in value:
            expect("string", item, name)
    if isinstance(value, str):
        if required and not value.strip():
            raise mismatch(f"Expected a text in field {name}")
        if field.most is not None and len(value) > field.most:
            raise mismatch(f"Expected at most {field.most} characters in field {name}")
        if field.choices and value not in field.choices:
            raise mismatch(f"Expected one of {', '.join(field.choices)} in field {name}")
        if field.schemes and not value.startswith(tuple(f"{scheme}://" for scheme in field.schemes)):
            raise mismatch(f"Expected a URL that starts with http:// or https:// in field {name}")


def _media(body: Mapping[str, Any]) -> None:
    """Check images and videos as lemlist's ingestion does, without downloading them."""
    urls = [(name, url) for name in MEDIA for url in body.get(name, ())]
    if len(urls) > MAX_MEDIA:
        raise bad_request(f"LINKEDIN_MEDIA_TOO_MANY: at most {MAX_MEDIA} images and videos")
    for name, url in urls:
        if not is_public(url):
            raise bad_request("LINKEDIN_MEDIA_UNSAFE_URL: the URL must be HTTPS and public")
        refuse_scripted(name, url)


def is_public(url: str) -> bool:
    """Return whether a URL is HTTPS and its host is public, by its name or address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme != "https" or not host:
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".localhost"))
