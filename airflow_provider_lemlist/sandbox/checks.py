# SPDX-License-Identifier: Apache-2.0
"""
What lemlist accepts: pure functions that judge values and raise the refusal they deserve.

Written apart from the client's own checks, so that the two can disagree in a test; only the table of steps
is shared. The documents give few texts for bad values: where they are silent, the text has the form of the
one they print, ``Match error: Expected string, got number``.
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

from airflow_provider_lemlist.sandbox.media import refuse_scripted
from airflow_provider_lemlist.sandbox.refusal import Refusal
from airflow_provider_lemlist.steps import CATALOGUE, FIELDS

MEDIA = ("images", "videos")
MOST_MEDIA = 6
CONDITIONS_OF_REVIEW = ("deliverable", "risky", "undeliverable", "unverified")


def mismatch(what: str) -> Refusal:
    """Refuse a value of the wrong shape; it also counts as a violation."""
    return Refusal(400, f"Match error: {what}", violation=what)


def mistaken(text: str) -> Refusal:
    """Refuse with a text that tells the mistake by itself."""
    return Refusal(400, text, violation=text)


def kind(value: Any) -> str:
    """Name the JSON type of a value as JavaScript does, whole numbers apart."""
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
    if kind(value) != wanted:
        raise mismatch(f"Expected {wanted}, got {kind(value)} in field {field}")
    return value


# --- Bodies and queries -----------------------------------------------------------------------------------


def json_object(content_type: str, body: bytes) -> dict[str, Any]:
    """Read a JSON body; without the right content type lemlist's parser does not look at it."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise mismatch(f"Expected a body of application/json, got {content_type or 'no content type'}")
    try:
        found = json.loads(body)
    except ValueError:
        raise mismatch("Expected JSON, got something else") from None
    if not isinstance(found, dict):
        raise mismatch(f"Expected object, got {kind(found)}")
    return _without_lone_surrogates(found, body)


def _without_lone_surrogates(found: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Replace halves of characters, which JSON can escape and UTF-8 cannot hold, as JavaScript does."""
    if b"\\ud" not in body.lower():
        return found
    text = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
    whole: dict[str, Any] = json.loads(text.decode("utf-16", "replace"))
    return whole


def flag(query: Mapping[str, str], name: str, default: bool = False) -> bool:
    """Read a boolean of the query: the words true and false, nothing else."""
    value = query.get(name)
    if value is None:
        return default
    if value not in ("true", "false"):
        raise mismatch(f"Expected true or false, got another word in {name}")
    return value == "true"


def number(query: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int = 2**31) -> int:
    """Read a whole number of the query; one beyond the limits is brought back to them."""
    value = query.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise mismatch(f"Expected integer in {name}")
    return max(least, min(most, int(value)))


def moment(query: Mapping[str, str], *names: str) -> float | None:
    """Read a moment of the query, epoch seconds or ISO 8601; the first name that is given wins."""
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


# --- Leads ------------------------------------------------------------------------------------------------


def lead(body: Mapping[str, Any]) -> dict[str, str]:
    """Judge the body of a new lead: strings only, an address that is one, a time zone that exists."""
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
        raise Refusal(400, "Invalid email", violation="Expected an email address in field email")
    return value


# --- Steps ------------------------------------------------------------------------------------------------


def step(body: Mapping[str, Any], campaigns: Iterable[str], *, of_type: str | None = None) -> dict[str, Any]:
    """
    Judge the body of a step.

    :param campaigns: Ids that a lead may be sent to: of the team, not archived.
    :param of_type: On an update, the type that the step has; then nothing is required but the type, and a
        step cannot be moved.
    """
    name = body.get("type")
    if not isinstance(name, str) or name not in CATALOGUE:
        raise mismatch("Missing key 'type'" if name is None else "Expected a known step type in field type")
    if of_type is not None and name != of_type:
        raise mismatch(f"Expected type {of_type}, got {name}: a step keeps its type")
    required = CATALOGUE[name].required if of_type is None else ()
    allowed = set(CATALOGUE[name].fields) | {"type"}
    if of_type is not None:
        allowed.discard("index")
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
        raise Refusal(400, "Campaign not found", violation="campaignId names no campaign that is in use")
    _media(body)
    return dict(body)


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
            raise mismatch(f"Expected an address that starts with http:// or https:// in field {name}")


def _media(body: Mapping[str, Any]) -> None:
    """Judge images and videos as lemlist's ingestion does, without downloading anything."""
    urls = [(name, url) for name in MEDIA for url in body.get(name, ())]
    if len(urls) > MOST_MEDIA:
        raise mistaken(f"LINKEDIN_MEDIA_TOO_MANY: at most {MOST_MEDIA} images and videos")
    for name, url in urls:
        if not is_public(url):
            raise mistaken("LINKEDIN_MEDIA_UNSAFE_URL: the address must be HTTPS and public")
        refuse_scripted(name, url)


def is_public(url: str) -> bool:
    """Say whether an address is HTTPS and, as far as its name tells, on the open internet."""
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
