# SPDX-License-Identifier: Apache-2.0
"""
The operations of lemlist's API, and what sending each of them twice would do.

The rows below are the operations that the hook has methods for. ``operation_for`` derives any other
documented operation from its method and path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import quote

from airflow_provider_lemlist.exceptions import LemlistValidationError, Reason


class Effect(Enum):
    """What a call does, and so whether it may be sent again when its response was lost."""

    READ = "changes nothing"
    SET = "sets a state; sending it again leaves the same state"
    REMOVE = "removes something; 'not found' after a lost response means that it is removed"
    CREATE_ONCE = "creates something of which lemlist itself refuses a second one"
    CREATE = "creates another one with every call"
    CREATE_SLOWLY = "the same, and continues after the connection is closed"

    @property
    def repeatable(self) -> bool:
        """Whether the request may simply be sent again when its response was lost."""
        return self in (Effect.READ, Effect.SET, Effect.REMOVE)


class Shape(Enum):
    """What a successful response must look like; anything else is a false success."""

    RECORD = "an object with an _id"
    OBJECT = "an object"
    ARRAY = "an array"
    #: It may be too long for the memory, so it is read from a file (``Transport.call(into=…)``).
    OBJECTS = "an array of objects"
    #: The same for a table.
    TABLE = "a CSV table with an _id in every line"
    ROWS = "an array, or an object around one"
    ANY = "JSON or a sentence"
    TEXT = "text"


#: An id of lemlist's, such as ``lea_9bZc4kP2Qe``. Addresses, phone numbers and domains do not fit.
_ID = re.compile(r"[a-z]{2,5}_[A-Za-z0-9]{1,40}")
#: The query parameters that are ids.
_QUERY_IDS = ("id", "campaignId", "leadId", "stepId")


@dataclass(frozen=True, slots=True)
class Reconcile:
    """How to find out whether a request took effect when its response was lost."""

    #: Returns the effect, or None if it is certainly not there. None if nothing can be looked up.
    find: Callable[[], Any] | None
    #: What a person should check when the outcome stays unknown.
    hint: str = "Check in lemlist whether it took effect before you send it again."
    #: Whether a later attempt of the caller reconciles by itself.
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """The method, the path as documented (trailing slashes count), the effect and the response of a call."""

    method: str
    path: str
    effect: Effect
    shape: Shape
    #: Seconds that the read timeout must be at least, whatever the connection says.
    min_read_timeout: float = 0.0
    #: The refusal which means that the wanted state is there already.
    already: Reason | None = None

    def __str__(self) -> str:
        """Name the call without an id or an email."""
        return f"{self.method} {self.path}"

    @property
    def writes(self) -> bool:
        """Whether it changes something in lemlist; ``stop_writes`` refuses it then."""
        return self.effect is not Effect.READ

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty body is a success: the documents name no body, or contradict each other."""
        return self.shape is Shape.ANY and (
            self.effect in (Effect.SET, Effect.REMOVE) or (self.method, self.path) in _NO_BODY
        )

    def shown(self, path: Mapping[str, object], query: Mapping[str, object]) -> str:
        """Name the call with its ids; what is no id, such as an email, stays a placeholder or is left out."""

        def fill(match: re.Match[str]) -> str:
            value = str(path.get(match[1]))
            return value if _ID.fullmatch(value) else match[0]

        named = re.sub(r"\{(\w+)\}", fill, self.path)
        ids = {name: str(query.get(name)) for name in _QUERY_IDS}
        words = "&".join(f"{name}={value}" for name, value in ids.items() if _ID.fullmatch(value))
        return f"{self.method} {named}{'?' * bool(words)}{words}"

    def url_path(self, **values: object) -> str:
        """
        Fill the path, each value percent-encoded.

        :raises LemlistValidationError: A value is missing. An empty one would silently name another route:
            ``DELETE /campaigns/{campaignId}/leads/`` names no lead.
        """

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            value = values.get(name)
            if not isinstance(value, str) or not value.strip() or value in (".", ".."):
                problem = "is empty" if not value else "is no id" if value in (".", "..") else "must be text"
                raise LemlistValidationError(f"{name} {problem}; {self} needs it.", operation=self)
            return quote(value, safe="")

        return re.sub(r"\{(\w+)\}", fill, self.path)


# lemlist may spend 45 s on fetching a step's media; the response must not time out before that.
_MEDIA = 60.0
# It is not documented whether the response waits for an enrichment; a second request meanwhile could create
# a second lead.
_LONG = 120.0

GET_TEAM = Operation("GET", "/team", Effect.READ, Shape.RECORD)

CREATE_LEAD = Operation("POST", "/campaigns/{campaignId}/leads/", Effect.CREATE_ONCE, Shape.RECORD)
CREATE_LEAD_TO_ENRICH = replace(CREATE_LEAD, min_read_timeout=_LONG)
UPDATE_LEAD = Operation("PATCH", "/campaigns/{campaignId}/leads/{leadId}", Effect.SET, Shape.RECORD)
DELETE_LEAD = Operation("DELETE", "/campaigns/{campaignId}/leads/{leadId}", Effect.REMOVE, Shape.ANY)
UNSUBSCRIBE_LEAD = Operation("DELETE", "/campaigns/{campaignId}/leads/{email}", Effect.REMOVE, Shape.ANY)
GET_LEAD = Operation("GET", "/leads", Effect.READ, Shape.RECORD)
GET_LEADS_BY_EMAIL = Operation("GET", "/leads/{email}", Effect.READ, Shape.ARRAY)
PAUSE_LEAD = Operation("POST", "/leads/pause/{leadId}", Effect.SET, Shape.ANY)
RESUME_LEAD = Operation("POST", "/leads/start/{leadId}", Effect.SET, Shape.ANY)
LAUNCH_LEAD = Operation(
    "POST", "/leads/review/{leadId}", Effect.SET, Shape.OBJECT, already=Reason.LEAD_LAUNCHED
)
MARK_INTERESTED = Operation("POST", "/leads/interested/{leadIdOrEmail}", Effect.SET, Shape.ANY)
MARK_NOT_INTERESTED = Operation("POST", "/leads/notinterested/{leadIdOrEmail}", Effect.SET, Shape.ANY)
MARK_INTERESTED_IN_CAMPAIGN = Operation(
    "POST", "/campaigns/{campaignId}/leads/{leadIdOrEmail}/interested", Effect.SET, Shape.ANY
)
MARK_NOT_INTERESTED_IN_CAMPAIGN = Operation(
    "POST", "/campaigns/{campaignId}/leads/{leadIdOrEmail}/notinterested", Effect.SET, Shape.ANY
)
CREATE_LEAD_VARIABLES = Operation("POST", "/leads/{leadId}/variables", Effect.CREATE, Shape.OBJECT)
UPDATE_LEAD_VARIABLES = Operation("PATCH", "/leads/{leadId}/variables", Effect.SET, Shape.OBJECT)
ERASE_LEAD_VARIABLES = Operation("DELETE", "/leads/{leadId}/variables", Effect.SET, Shape.OBJECT)
# Whether a second upload replaces the first is not documented; a lost one has no other way to be completed.
UPLOAD_AUDIO = Operation("POST", "/leads/audio", Effect.SET, Shape.OBJECT, _LONG)
EXPORT_LEADS = Operation("GET", "/campaigns/{campaignId}/export/leads", Effect.READ, Shape.OBJECTS, _LONG)
# Only as CSV does the export contain the custom variables.
EXPORT_LEADS_WITH_VARIABLES = replace(EXPORT_LEADS, shape=Shape.TABLE)

LIST_CAMPAIGNS = Operation("GET", "/campaigns", Effect.READ, Shape.ROWS)
GET_CAMPAIGN = Operation("GET", "/campaigns/{campaignId}", Effect.READ, Shape.RECORD)
CREATE_CAMPAIGN = Operation("POST", "/campaigns", Effect.CREATE, Shape.RECORD)
UPDATE_CAMPAIGN = Operation("PATCH", "/campaigns/{campaignId}", Effect.SET, Shape.OBJECT)
LIST_SCHEDULES = Operation("GET", "/schedules", Effect.READ, Shape.ROWS)
LIST_CAMPAIGN_SCHEDULES = Operation("GET", "/campaigns/{campaignId}/schedules/", Effect.READ, Shape.ARRAY)
CREATE_SCHEDULE = Operation("POST", "/schedules", Effect.CREATE, Shape.RECORD)
UPDATE_SCHEDULE = Operation("PATCH", "/schedules/{scheduleId}", Effect.SET, Shape.RECORD)
ATTACH_SCHEDULE = Operation(
    "POST", "/campaigns/{campaignId}/schedules/{scheduleId}", Effect.SET, Shape.OBJECT
)
START_CAMPAIGN = Operation(
    "POST", "/campaigns/{campaignId}/start", Effect.SET, Shape.OBJECT, already=Reason.CAMPAIGN_RUNNING
)
PAUSE_CAMPAIGN = Operation(
    "POST", "/campaigns/{campaignId}/pause", Effect.SET, Shape.OBJECT, already=Reason.CAMPAIGN_NOT_RUNNING
)
GET_STATUTES = Operation("GET", "/campaigns/{campaignId}/statutes", Effect.READ, Shape.OBJECT)
GET_CAMPAIGN_STATS = Operation("GET", "/v2/campaigns/{campaignId}/stats", Effect.READ, Shape.OBJECT)
GET_CAMPAIGNS_STATS = Operation("POST", "/v2/campaigns/stats/batch", Effect.READ, Shape.OBJECT)

GET_SEQUENCES = Operation("GET", "/campaigns/{campaignId}/sequences", Effect.READ, Shape.OBJECT)
ADD_STEP = Operation("POST", "/sequences/{sequenceId}/steps", Effect.CREATE, Shape.RECORD, _MEDIA)
ADD_STEP_WITH_MEDIA = replace(ADD_STEP, effect=Effect.CREATE_SLOWLY)
UPDATE_STEP = Operation("PATCH", "/sequences/{sequenceId}/steps/{stepId}", Effect.SET, Shape.RECORD, _MEDIA)
DELETE_STEP = Operation("DELETE", "/sequences/{sequenceId}/steps/{stepId}", Effect.REMOVE, Shape.ANY)

LIST_ACTIVITIES = Operation("GET", "/activities", Effect.READ, Shape.ARRAY)

EXPORT_UNSUBSCRIBES = Operation("GET", "/v2/unsubscribes/exports/variables", Effect.READ, Shape.TABLE, _LONG)
LIST_UNSUBSCRIBES = Operation("GET", "/v2/unsubscribes/variables", Effect.READ, Shape.ARRAY)
GET_UNSUBSCRIBE = Operation("GET", "/v2/unsubscribes/variables/{value}", Effect.READ, Shape.OBJECT)
UNSUBSCRIBE = Operation("POST", "/v2/unsubscribes/variables/{value}", Effect.SET, Shape.OBJECT)
UNSUBSCRIBE_MANY = Operation("POST", "/v2/unsubscribes/variables", Effect.SET, Shape.ANY)
RESUBSCRIBE = Operation("DELETE", "/v2/unsubscribes/variables/{value}", Effect.REMOVE, Shape.ANY)

#: Every row above, for ``operation_for`` and for the test that compares them with the documents.
OPERATIONS = tuple(row for row in list(globals().values()) if isinstance(row, Operation))

#: Documented calls whose method does not tell their effect. The rest follows ``_BY_METHOD``.
UNLIKE_THEIR_METHOD: tuple[tuple[str, str, Effect], ...] = (
    ("GET", "/campaigns/{campaignId}/export/start", Effect.CREATE),
    ("POST", "/campaigns/{campaignId}/leads/import", Effect.CREATE),
    ("POST", "/v2/unsubscribes/contacts/{contactId}", Effect.SET),
    ("POST", "/contacts", Effect.SET),
    ("POST", "/companies", Effect.SET),
    ("POST", "/contacts/lists/{listId}/entities", Effect.SET),
    ("POST", "/tasks/ignore", Effect.SET),
    ("POST", "/sequences/{sequenceId}/steps/{stepId}/ab-test/winner", Effect.SET),
    ("POST", "/user/email-accounts/{emailAccountId}/test", Effect.READ),
    ("POST", "/database/people", Effect.READ),
    ("POST", "/database/companies", Effect.READ),
    ("POST", "/lemwarm/{userMailboxId}/start", Effect.SET),
    ("POST", "/lemwarm/{userMailboxId}/pause", Effect.SET),
)
#: Documented calls that create something and have no body described.
_NO_BODY = (("POST", "/inbox/whatsapp"),)
_BY_METHOD = {
    "GET": Effect.READ,
    "HEAD": Effect.READ,
    "PUT": Effect.SET,
    "PATCH": Effect.SET,
    "DELETE": Effect.REMOVE,
    "POST": Effect.CREATE,
}

#: Routes that lemlist has retired, or that do not do what they say: (method or *, path, what to use).
CLOSED: tuple[tuple[str, str, str], ...] = (
    ("*", "/unsubscribes", "/v2/unsubscribes/variables"),
    ("*", "/unsubscribes/{email}", "/v2/unsubscribes/variables/{value}"),
    ("*", "/unsubs/export", "/v2/unsubscribes/exports/variables"),
    ("GET", "/campaigns/{campaignId}/export", "/campaigns/{campaignId}/export/start"),
    ("GET", "/campaigns/{campaignId}/stats", "/v2/campaigns/{campaignId}/stats"),
    ("POST", "/campaigns/{campaignId}/leads/{email}", "POST /campaigns/{campaignId}/leads/"),
    ("DELETE", "/campaigns/{campaignId}/leads", "delete_lead or unsubscribe_lead"),
    ("DELETE", "/campaigns/{campaignId}/leads/{leadId}", "delete_lead or unsubscribe_lead"),
)


def operation_for(method: str, path: str, shape: Shape) -> Operation:
    """
    Describe a call that the hook has no method for.

    :param path: The path below the Base URL, filled in or with ``{names}``.
    :raises LemlistValidationError: The route is retired, dangerous or not a path.
    """
    verb = method.upper()
    if verb not in _BY_METHOD:
        raise LemlistValidationError(
            f"{method!r} is not a method of lemlist's API; use one of {', '.join(_BY_METHOD)}."
        )
    if not path.startswith("/") or "?" in path or "#" in path or "//" in path or "/." in path:
        raise LemlistValidationError(
            f"{path!r} is not a path below the Base URL; begin with /, and pass the query by itself."
        )
    if "@" in path or "%40" in path:
        # It would appear in every log line and error of this call.
        raise LemlistValidationError("The path holds an email; write {email} there and pass it by name.")
    for known_method, template, effect in UNLIKE_THEIR_METHOD:
        if known_method == verb and _fits(template, path):
            return Operation(verb, path, effect, shape)
    for closed_method, template, instead in CLOSED:
        if closed_method in ("*", verb) and _fits(template, path):
            raise LemlistValidationError(f"{verb} {template} must not be used; use {instead}.")
    for row in OPERATIONS:
        if row.method == verb and _fits(row.path, path):
            if shape is Shape.ANY and not row.effect.repeatable:
                shape = row.shape  # what is created must have an id, whichever method sends it
            return Operation(verb, path, row.effect, shape, row.min_read_timeout, row.already)
    return Operation(verb, path, _BY_METHOD[verb], shape)


def _fits(template: str, path: str) -> bool:
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template.rstrip("/")))
    return re.fullmatch(pattern, path.rstrip("/")) is not None


#: Query parameters documented as a JSON array; every other list is documented as comma-separated.
_JSON_QUERY = ("channels", "filters")


def query_text(query: Mapping[str, object]) -> dict[str, str]:
    """Write query values as lemlist reads them: flags as words, moments in UTC, None left out."""
    return {name: _value_text(name, value) for name, value in query.items() if value is not None}


def _value_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        if name in _JSON_QUERY:
            return json.dumps(list(value))
        parts = [_value_text(name, part) for part in value]
        if any("," in part for part in parts):
            raise LemlistValidationError(f"A value of {name} holds a comma, which separates values there.")
        return ",".join(parts)
    return str(value)


def iso(moment: datetime) -> str:
    """Write a moment as lemlist does: UTC, milliseconds."""
    if moment.tzinfo is None:
        raise LemlistValidationError(f"{moment.isoformat()} has no time zone; add one.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
