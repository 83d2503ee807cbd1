# SPDX-License-Identifier: Apache-2.0
"""
The 17 types of step in a lemlist sequence: what each field accepts, the checks, and a class for each type.

``FIELDS`` lists the values that each field accepts; the classes at the end of the module (``Email``,
``Conditional``, …) list the fields of each type, and fill ``CATALOGUE``. The checks (``problems``, ``check``)
and the choice of the fields that Airflow renders follow from these two. A typed step is a plain dict with a
signature, so it works where a dict works: in ``.expand()``, in XCom, in a serialized DAG.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, dataclass_transform
from urllib.parse import urlsplit

from airflow_provider_lemlist.validation import Problem, hint, validation_error

if TYPE_CHECKING:
    from typing import TypeAlias

    from airflow.providers.common.compat.sdk import XComArg

    Text: TypeAlias = str | XComArg
    Number: TypeAlias = int | str | XComArg
    Flag: TypeAlias = bool | str | XComArg
    Urls: TypeAlias = list[str] | list[str | XComArg] | XComArg

HTTP_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
CONDITIONS = (
    "hasEmailAddress",
    "hasLinkedinUrl",
    "hasPhoneNumber",
    "hasScore",
    "emailsOpened",
    "emailsClicked",
    "emailsUnsubscribed",
    "meetingBooked",
    "linkedinInviteAccepted",
    "linkedinOpened",
    "aircallDone",
    "linkedinNetworkCheck",
    "hasWhatsappAccount",
)
#: The limit for images and videos of one step together.
MOST_MEDIA = 6

_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


class Field(NamedTuple):
    """
    The values that one field of a step accepts.

    :param type: The JSON type; a ``list`` contains URLs.
    :param about: What the field means.
    :param least: The smallest number.
    :param most: The largest number, or the maximum length of a text.
    :param choices: The accepted values, if there are few.
    :param schemes: The accepted schemes of a URL.
    :param lemlist: Whether lemlist renders its own ``{{…}}`` in the text, so that Airflow does not.
    """

    type: type
    about: str
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    lemlist: bool = False


class Kind(NamedTuple):
    """
    One type of step.

    :param about: What lemlist does when a lead reaches the step.
    :param required: Its required fields.
    :param optional: Its optional fields.
    """

    about: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ("delay", "index")

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of this type except ``type``."""
        return (*self.required, *self.optional)


FIELDS: dict[str, Field] = {
    "index": Field(int, "Position in the sequence; without it the step goes to the end.", least=-1),
    "delay": Field(
        int, "Whole days before the step. lemlist's default: 0 for the first, else 1.", least=0, most=1500
    ),
    "subject": Field(str, "Subject of the email, placeholders counted as written.", most=400, lemlist=True),
    "message": Field(str, "The email (HTML), the message, or the note of the task.", lemlist=True),
    "altMessage": Field(str, "Message for leads that `message` cannot reach.", lemlist=True),
    "title": Field(str, "Title of the task.", most=400, lemlist=True),
    "method": Field(str, "HTTP method of the call.", choices=HTTP_METHODS),
    "url": Field(str, "URL that lemlist calls.", schemes=("http", "https")),
    "conditionKey": Field(str, "Condition that lemlist checks.", choices=CONDITIONS),
    "delayType": Field(
        str,
        "within: check for `delay` days; waitUntil: wait until it is true.",
        choices=("within", "waitUntil"),
    ),
    "campaignId": Field(str, "Campaign to move the lead to; of the same team and not archived."),
    "images": Field(list, "Public HTTPS URLs of PNG, JPEG or GIF, up to 20 MB each.", schemes=("https",)),
    "videos": Field(list, "Public HTTPS URLs of MP4 or QuickTime, up to 20 MB each.", schemes=("https",)),
    "skillName": Field(str, "Skill to endorse."),
    "endorseAnyFallback": Field(bool, "Endorse any skill if the lead does not have this one."),
    "recordMode": Field(
        str,
        "manual: the audio is recorded or uploaded; ai: lemlist speaks a text.",
        choices=("manual", "ai"),
    ),
}

_MEDIA = ("images", "videos")

#: What a step in the definition of a campaign may hold beside its fields; lemlist does not know these.
DEFINITION_FIELDS = {
    "name": "Name by which other tasks find the step; lemlist does not see it.",
    "yes": "Steps for the leads that meet the condition.",
    "otherwise": "Steps for the other leads.",
}

#: The types of step, in the order of their classes below.
CATALOGUE: dict[str, Kind] = {}


# --- Checks -----------------------------------------------------------------------------------------------


def body(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the step as a plain dict, without the fields that are None."""
    return {name: value for name, value in step.items() if value is not None}


def problems(step: Any) -> list[Problem]:
    """
    Return all problems of a step, without raising.

    :param step: A typed step, or a mapping with ``type`` and the fields of that type.
    """
    if not isinstance(step, Mapping):
        return [Problem("step", f"must be a typed step or a dict with 'type', not {type(step).__name__}")]
    step = body(step)
    name = step.get("type")
    if not isinstance(name, str) or name not in CATALOGUE:
        return [Problem("type", _unknown_type(name))]
    kind = CATALOGUE[name]
    found = [Problem(field, f"{name!r} needs it") for field in kind.required if field not in step]
    if step.get("delayType") == "within" and "delay" not in step:
        found.append(Problem("delay", "delayType 'within' needs it: the number of days to check"))
    for field, value in step.items():
        if field == "type":
            continue
        if field in kind.fields:
            found += [Problem(field, reason) for reason in _reasons(field, value, field in kind.required)]
        else:
            if field in DEFINITION_FIELDS:
                found.append(Problem(field, "belongs to a campaign definition; use ApplyCampaignOperator"))
                continue
            near = hint(str(field), kind.fields)
            takes = ", ".join(kind.fields)
            found.append(Problem(str(field), f"{name!r} has no such field{near}; it takes {takes}"))
    media = [step[field] for field in _MEDIA if isinstance(step.get(field), (list, tuple))]
    if sum(map(len, media)) > MOST_MEDIA:
        found.append(
            Problem(" and ".join(_MEDIA), f"at most {MOST_MEDIA} together, not {sum(map(len, media))}")
        )
    return found


def check(step: Mapping[str, Any], what: str = "The step") -> dict[str, Any]:
    """
    Return the step as a plain dict that can be sent.

    :param step: A typed step, or a mapping with ``type`` and the fields of that type.
    :param what: The subject of the error message.
    :raises LemlistValidationError: The step has problems; the error lists all of them.
    """
    if found := problems(step):
        raise validation_error(what, found)
    return body(step)


def read_text(kind: type, value: Any) -> Any:
    """Return the number or the flag that a text stands for; anything else as it is."""
    if not isinstance(value, str) or kind not in (int, bool):
        return value
    if kind is bool:
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    try:
        return int(value)
    except ValueError:
        return value


def _unknown_type(name: Any) -> str:
    wrong = "is missing" if name is None else f"{name!r} is not a step type"
    near = hint(name, tuple(CATALOGUE)) if isinstance(name, str) else ""
    return f"{wrong}{near}; the types are {', '.join(CATALOGUE)}"


def _reasons(name: str, value: Any, required: bool) -> list[str]:
    """Return what is wrong with the value of one field."""
    field = FIELDS[name]
    if field.type is int:
        # In Python, True is an int; lemlist accepts only numbers.
        if isinstance(value, bool) or not isinstance(value, int):
            return [f"must be a whole number, not {value!r}"]
        if (field.least is not None and value < field.least) or (
            field.most is not None and value > field.most
        ):
            most = "or more" if field.most is None else f"to {field.most}"
            return [f"must be {field.least} {most}, not {value}"]
        return []
    if field.type is bool:
        return [] if isinstance(value, bool) else [f"must be true or false, not {value!r}"]
    if field.type is list:
        if not isinstance(value, (list, tuple)):
            return [f"must be a list of URLs, not {type(value).__name__}"]
        return [
            f"item {number} {reason}"
            for number, url in enumerate(value, 1)
            if (reason := _wrong_url(url, field.schemes, public=True))
        ]
    if not isinstance(value, str):
        return [f"must be text, not {type(value).__name__}"]
    if required and not value.strip():
        return ["must not be empty"]
    if field.most is not None and len(value) > field.most:
        return [f"at most {field.most} characters, not {len(value)}"]
    if field.choices and value not in field.choices:
        near = hint(value, field.choices)
        return [f"{value!r} is not one of {', '.join(field.choices)}{near}"]
    if field.schemes and (reason := _wrong_url(value, field.schemes)):
        return [reason]
    return []


def _wrong_url(url: Any, schemes: tuple[str, ...], *, public: bool = False) -> str:
    """Return what is wrong with a URL, or an empty text if nothing is."""
    must = " or ".join(f"{scheme}://" for scheme in schemes)
    if not isinstance(url, str):
        return f"must be a URL, not {type(url).__name__}"
    plain = _PLACEHOLDER.sub("x", url)  # a placeholder may contain spaces
    try:
        parts = urlsplit(plain)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"is not a URL: {url!r}"
    if parts.scheme not in schemes or not host:
        return f"must start with {must} and a host, not {url!r}"
    if any(character.isspace() for character in plain):
        return f"contains spaces: {url!r}"
    if public and _is_private(host):
        return f"must be public: lemlist cannot reach {host!r}"
    return ""


def _is_private(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))


# --- After sending ----------------------------------------------------------------------------------------


def branches(step: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the sequence id of each branch of a condition, by condition key; the other branch is ``fallback``.

    :param step: A step as lemlist returned or listed it.
    """
    found: dict[str, str] = {}
    for branch in step.get("conditions") or ():
        key = "fallback" if branch.get("fallback") else branch.get("key")
        if key and branch.get("sequenceId"):
            found[key] = branch["sequenceId"]
    return found


# --- The types --------------------------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True)
class _Typed(dict[str, Any]):
    """Tell type checkers that annotations are arguments; they ignore those of the class that says so."""


class _LazySignature:
    """The signature of a type of step, made when it is needed, because DAG files are parsed all the time."""

    def __get__(self, step: Step | None, cls: type[Step]) -> Any:
        from inspect import Parameter, Signature

        one = partial(Parameter, kind=Parameter.KEYWORD_ONLY)
        return Signature([*map(one, cls.required), *(one(name, default=None) for name in cls.optional)])


class Step(_Typed):
    """
    A step with a signature: the dict that lemlist accepts, with Python names for its fields.

    A field that is None is left out. Values are checked when an operator uses the step, so that the error
    can name the task; any value can be an ``XComArg``. A subclass is one type of step, named like it: its
    annotations are the fields that the type takes, those without a default are required. ``name``, and the
    branches of a condition, are for the definition of a campaign.
    """

    type: ClassVar[str]
    required: ClassVar[list[str]]
    optional: ClassVar[list[str]]
    __signature__: ClassVar[Any] = _LazySignature()
    delay: Number | None = None
    index: Number | None = None
    name: str | None = None

    def __init_subclass__(cls) -> None:
        if Step not in cls.__bases__:
            return
        cls.type = cls.__name__[0].lower() + cls.__name__[1:]
        names = [*cls.__annotations__, "delay", "index", "name"]
        cls.required = [name for name in names if not hasattr(cls, name)]
        cls.optional = [name for name in names if name not in cls.required]
        required, optional = (
            tuple(_camel(name) for name in part if name not in DEFINITION_FIELDS)
            for part in (cls.required, cls.optional)
        )
        CATALOGUE[cls.type] = Kind(cls.__doc__ or "", required, optional)

    def __init__(self, **fields: Any) -> None:
        self.__signature__.bind(**fields)  # raises Python's TypeError for a missing or an unknown argument
        super().__init__(type=self.type)
        self.update((_camel(name), value) for name, value in fields.items() if value is not None)


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.title() for word in tail)


class Email(Step):
    """Send an email."""

    subject: Text
    message: Text


class Manual(Step):
    """Create a task for the sender."""

    title: Text
    message: Text | None = None


class Phone(Step):
    """Create a phone call task for the sender."""

    message: Text | None = None


class Api(Step):
    """Send an HTTP request to a URL."""

    method: Text
    url: Text


class LinkedinVisit(Step):
    """Visit the lead's LinkedIn profile."""


class LinkedinInvite(Step):
    """Invite the lead on LinkedIn."""

    message: Text | None = None
    images: Urls | None = None
    videos: Urls | None = None


class LinkedinSend(Step):
    """Send a LinkedIn message."""

    message: Text
    alt_message: Text | None = None
    images: Urls | None = None
    videos: Urls | None = None


class LinkedinVoiceNote(Step):
    """Send a LinkedIn voice note."""

    record_mode: Text | None = None


class LinkedinFollow(Step):
    """Follow the lead on LinkedIn."""


class LinkedinLikeLastPost(Step):
    """Like the lead's last LinkedIn post."""


class LinkedinCommentLastPost(Step):
    """Comment on the lead's last LinkedIn post."""


class LinkedinEndorse(Step):
    """Endorse a skill of the lead on LinkedIn."""

    skill_name: Text | None = None
    endorse_any_fallback: Flag | None = None


class LinkedinWithdrawInvitation(Step):
    """Withdraw a pending LinkedIn invitation."""


class SendToAnotherCampaign(Step):
    """Move the lead to another campaign."""

    campaign_id: Text


class Conditional(Step):
    """Split the sequence into two branches."""

    condition_key: Text
    delay_type: Text
    yes: list[Step] | None = None
    otherwise: list[Step] | None = None


class WhatsappMessage(Step):
    """Send a WhatsApp message."""

    message: Text


class Sms(Step):
    """Send an SMS."""

    message: Text


#: The name that most people look for.
Condition = Conditional
