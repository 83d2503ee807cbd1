# SPDX-License-Identifier: Apache-2.0
"""
What may be asked of lemlist, and what asking twice would do.

The rows below are the operations that the hook has methods for. ``operation_for`` gives any other
documented operation the same care from its verb and path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from urllib.parse import quote

from airflow_provider_lemlist.exceptions import LemlistValidationError


class Effect(Enum):
    """What a call does, and so whether it may be sent again when its answer was lost."""

    READ = "changes nothing"
    SET = "sets a state; once more leaves the same state"
    REMOVE = "takes something away; 'not found' after a lost answer means that it is gone"
    CREATE_ONCE = "makes a thing of which lemlist itself refuses a second one"
    CREATE = "makes another thing with every call"
    CREATE_SLOWLY = "the same, and goes on with it after the connection is gone"

    @property
    def repeatable(self) -> bool:
        """Whether a lost answer may simply be asked for again."""
        return self in (Effect.READ, Effect.SET, Effect.REMOVE)


class Shape(Enum):
    """What a successful answer must look like; anything else is a false success."""

    RECORD = "an object with an _id"
    OBJECT = "an object"
    ARRAY = "an array"
    ROWS = "an array, or an object around one"
    ANY = "JSON or a sentence"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Operation:
    """One row: the verb, the path as documented (trailing slashes count), its effect and its answer."""

    method: str
    path: str
    effect: Effect
    shape: Shape
    #: Seconds that a read timeout must leave this call whatever the connection says.
    patience: float = 0.0
    #: What lemlist says when the state asked for is already there.
    already: str = ""

    def __str__(self) -> str:
        """Name the call without any id or address of a person."""
        return f"{self.method} {self.path}"

    def url_path(self, **values: str) -> str:
        """
        Fill the path, each value percent-encoded.

        :raises LemlistValidationError: A value is missing. An empty one would silently ask another route:
            ``DELETE /campaigns/{campaignId}/leads/`` names no lead.
        """

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            value = values.get(name)
            if not isinstance(value, str) or not value.strip() or value in (".", ".."):
                given = (
                    "is empty" if not value else "must be text" if not isinstance(value, str) else "is no id"
                )
                raise LemlistValidationError(f"{name} {given}; {self} needs it.", operation=str(self))
            return quote(value, safe="")

        return re.sub(r"\{(\w+)\}", fill, self.path)


# lemlist may spend 45 s on fetching a step's media; the answer must not be given up before that.
_MEDIA = 60.0
_AUDIO = 120.0
# Nobody says whether the answer waits for it. A lead that is asked for again meanwhile could be made twice.
_ENRICHMENT = 120.0

GET_TEAM = Operation("GET", "/team", Effect.READ, Shape.RECORD)

CREATE_LEAD = Operation("POST", "/campaigns/{campaignId}/leads/", Effect.CREATE_ONCE, Shape.RECORD)
CREATE_LEAD_TO_ENRICH = replace(CREATE_LEAD, patience=_ENRICHMENT)
UPDATE_LEAD = Operation("PATCH", "/campaigns/{campaignId}/leads/{leadId}", Effect.SET, Shape.RECORD)
DELETE_LEAD = Operation("DELETE", "/campaigns/{campaignId}/leads/{leadId}", Effect.REMOVE, Shape.ANY)
UNSUBSCRIBE_LEAD = Operation("DELETE", "/campaigns/{campaignId}/leads/{email}", Effect.REMOVE, Shape.ANY)
GET_LEAD = Operation("GET", "/leads", Effect.READ, Shape.RECORD)
GET_LEADS_BY_EMAIL = Operation("GET", "/leads/{email}", Effect.READ, Shape.ARRAY)
PAUSE_LEAD = Operation("POST", "/leads/pause/{leadId}", Effect.SET, Shape.ANY)
RESUME_LEAD = Operation("POST", "/leads/start/{leadId}", Effect.SET, Shape.ANY)
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
UPLOAD_AUDIO = Operation("POST", "/leads/audio", Effect.SET, Shape.OBJECT, patience=_AUDIO)
EXPORT_LEADS = Operation(
    "GET", "/campaigns/{campaignId}/export/leads", Effect.READ, Shape.ARRAY, patience=_AUDIO
)

LIST_CAMPAIGNS = Operation("GET", "/campaigns", Effect.READ, Shape.ROWS)
GET_CAMPAIGN = Operation("GET", "/campaigns/{campaignId}", Effect.READ, Shape.RECORD)
CREATE_CAMPAIGN = Operation("POST", "/campaigns", Effect.CREATE, Shape.RECORD)
START_CAMPAIGN = Operation(
    "POST", "/campaigns/{campaignId}/start", Effect.SET, Shape.OBJECT, already="already running"
)
PAUSE_CAMPAIGN = Operation(
    "POST", "/campaigns/{campaignId}/pause", Effect.SET, Shape.OBJECT, already="already paused|not running"
)
GET_CAMPAIGN_STATS = Operation("GET", "/v2/campaigns/{campaignId}/stats", Effect.READ, Shape.OBJECT)
GET_CAMPAIGNS_STATS = Operation("POST", "/v2/campaigns/stats/batch", Effect.READ, Shape.OBJECT)

GET_SEQUENCES = Operation("GET", "/campaigns/{campaignId}/sequences", Effect.READ, Shape.OBJECT)
ADD_STEP = Operation("POST", "/sequences/{sequenceId}/steps", Effect.CREATE, Shape.RECORD, patience=_MEDIA)
ADD_STEP_WITH_MEDIA = replace(ADD_STEP, effect=Effect.CREATE_SLOWLY)
UPDATE_STEP = Operation(
    "PATCH", "/sequences/{sequenceId}/steps/{stepId}", Effect.SET, Shape.RECORD, patience=_MEDIA
)
DELETE_STEP = Operation("DELETE", "/sequences/{sequenceId}/steps/{stepId}", Effect.REMOVE, Shape.ANY)

LIST_ACTIVITIES = Operation("GET", "/activities", Effect.READ, Shape.ARRAY)

LIST_UNSUBSCRIBES = Operation("GET", "/v2/unsubscribes/variables", Effect.READ, Shape.ARRAY)
UNSUBSCRIBE = Operation("POST", "/v2/unsubscribes/variables/{value}", Effect.SET, Shape.OBJECT)
UNSUBSCRIBE_MANY = Operation("POST", "/v2/unsubscribes/variables", Effect.SET, Shape.ANY)
RESUBSCRIBE = Operation("DELETE", "/v2/unsubscribes/variables/{value}", Effect.REMOVE, Shape.ANY)

#: Every row above, for the look-up and for the test that holds them against the documents.
OPERATIONS: tuple[Operation, ...] = tuple(
    row for row in list(globals().values()) if isinstance(row, Operation)
)

#: Documented calls whose verb does not tell what they do. The rest follows ``_BY_VERB``.
_UNLIKE_THEIR_VERB: tuple[tuple[str, str, Effect], ...] = (
    ("GET", "/campaigns/{campaignId}/export/start", Effect.CREATE),
    ("POST", "/campaigns/{campaignId}/leads/import", Effect.CREATE),
    ("POST", "/leads/review/{leadId}", Effect.SET),
    ("POST", "/campaigns/{campaignId}/schedules/{scheduleId}", Effect.SET),
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
_BY_VERB = {
    "GET": Effect.READ,
    "HEAD": Effect.READ,
    "PUT": Effect.SET,
    "PATCH": Effect.SET,
    "DELETE": Effect.REMOVE,
    "POST": Effect.CREATE,
}

#: Routes that lemlist has retired, or that do what nobody asked for: (verb or *, path, what to use).
_CLOSED: tuple[tuple[str, str, str], ...] = (
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
    Describe a call that has no method of its own.

    :param method: HTTP verb.
    :param path: Path below the base URL, filled in or with ``{names}``.
    :param shape: What a successful answer must look like.
    :raises LemlistValidationError: The route is retired, dangerous or not a path.
    """
    verb = method.upper()
    if verb not in _BY_VERB:
        raise LemlistValidationError(
            f"{method!r} is no verb of lemlist's API; use one of {', '.join(_BY_VERB)}."
        )
    if not path.startswith("/") or "?" in path or "#" in path or "//" in path or "/." in path:
        raise LemlistValidationError(
            f"{path!r} is no path below the base URL; begin with /, and give the query as its own argument."
        )
    if "@" in path or "%40" in path:
        # An address in the path would stand in every log line and error of this call.
        raise LemlistValidationError(
            "An address stands in the path; write {email} there and give it by name."
        )
    for known_verb, template, effect in _UNLIKE_THEIR_VERB:
        if known_verb == verb and _fits(template, path):
            return Operation(verb, path, effect, shape)
    for closed_verb, template, instead in _CLOSED:
        if closed_verb in ("*", verb) and _fits(template, path):
            raise LemlistValidationError(f"{verb} {template} is not to be used; use {instead}.")
    for row in OPERATIONS:
        if row.method == verb and _fits(row.path, path):
            if shape is Shape.ANY and not row.effect.repeatable:
                shape = row.shape  # what was made must be there, whoever asks
            return Operation(verb, path, row.effect, shape, row.patience, row.already)
    return Operation(verb, path, _BY_VERB[verb], shape)


def _fits(template: str, path: str) -> bool:
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template.rstrip("/")))
    return re.fullmatch(pattern, path.rstrip("/")) is not None


def query_text(query: Mapping[str, object]) -> dict[str, str]:
    """Write query values as lemlist reads them: flags as words, None left out."""
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None
    }
