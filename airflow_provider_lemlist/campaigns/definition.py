# SPDX-License-Identifier: Apache-2.0
"""
The definition of a campaign: its settings and its tree of steps. Plain Python.

A definition is a mapping with lemlist's own names, as in a YAML file; ``Campaign`` is the same with a
signature. What a definition does not say is left as lemlist has it; only the steps are complete: a branch
that is not written is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.validation import nearest

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_lemlist.steps import Flag, Step, Text

#: Where something stands in a definition: ``("steps", 2, "yes", 0, "subject")``, positions from 0.
Path = tuple[str | int, ...]

#: The branches of a condition, and what lemlist's lists call them.
BRANCHES = {"yes": "condition", "otherwise": "fallback"}
#: The texts of a step that may stand in a file of their own.
TEXTS = tuple(name for name, field in steps.FIELDS.items() if field.lemlist)
#: XCom keys of the operator that applies a definition; the id of a step is pushed under the step's name.
RESERVED_NAMES = ("return_value", "campaign_id", "steps", "sequences", "plan", "applied")

#: A parameter in a text.
PARAMETER = re.compile(r"\[\[\s*([A-Za-z_]\w*)\s*\]\]", re.ASCII)


class _Open(Enum):
    UNKNOWN = "unknown"


#: Stands for a value that is known only when the task runs; nothing is said about it.
UNKNOWN: Final[Any] = _Open.UNKNOWN


class Setting(NamedTuple):
    """
    One setting of a campaign.

    :param type: Its JSON type.
    :param about: What it means.
    :param choices: The accepted texts, or the accepted items of a list.
    :param fields: The fields of an object.
    :param required: Those that it must have.
    :param items: What a list contains, if it is not text.
    :param least: The smallest number.
    :param most: The largest number.
    :param format: What a text must be: the name of a ``time zone``, or a ``time`` of the day.
    :param sent_with: The requests that take it: ``create``, ``update``, or ``attach`` for schedules; without
        any it can only be compared.
    """

    type: type
    about: str
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Setting] | None = None
    required: tuple[str, ...] = ()
    items: Setting | None = None
    least: int | None = None
    most: int | None = None
    format: str = ""
    sent_with: tuple[str, ...] = ("update",)


_BOTH = ("create", "update")
_PROGRESS = Setting(str, "What becomes of the lead.", ("continue", "pause", "stop"))
_TO_COMPANY = Setting(bool, "Whether the same happens to the other leads of the company.")
_NEW_TASK = Setting(bool, "Whether lemlist creates a task.")
_REACTION = {
    "enabled": Setting(bool, "Whether lemlist reacts."),
    "pauseAllCampaignsForLead": Setting(bool, "Pause the lead in every campaign."),
    "pauseCampaignForCompany": Setting(bool, "Pause the company's leads in this campaign."),
    "pauseAllCampaignsForCompany": Setting(bool, "Pause the company's leads in every campaign."),
}
_SCHEDULE = {
    "name": Setting(str, "Name, by which it is found among the schedules of the team."),
    "timezone": Setting(str, "IANA time zone.", format="time zone"),
    "start": Setting(str, "When sending begins, such as 09:00.", format="time"),
    "end": Setting(str, "When sending ends, such as 18:00.", format="time"),
    "weekdays": Setting(
        list, "Days, from 1 for Monday to 7 for Sunday.", items=Setting(int, "A day.", least=1, most=7)
    ),
    "secondsToWait": Setting(int, "Seconds between two messages.", least=0),
    "public": Setting(bool, "Whether the team shares it."),
}

SETTINGS: dict[str, Setting] = {
    "name": Setting(str, "Name of the campaign.", sent_with=_BOTH),
    "timezone": Setting(
        str,
        "IANA time zone; lemlist takes it only when it creates the campaign.",
        format="time zone",
        sent_with=("create",),
    ),
    "autoReview": Setting(
        bool,
        "Launch leads without a review by a person: creating a lead then starts the sending.",
        sent_with=_BOTH,
    ),
    "autoReviewConditions": Setting(
        list,
        "States of an email address with which leads are launched without a review.",
        ("deliverable", "risky", "undeliverable", "unverified"),
        sent_with=_BOTH,
    ),
    "stopOnEmailReplied": Setting(bool, "Stop for a lead that has replied."),
    "stopOnMeetingBooked": Setting(bool, "Stop for a lead that has booked a meeting."),
    "stopOnLinkClicked": Setting(bool, "Stop for a lead that has clicked a link."),
    "stopOnLinkClickedFilter": Setting(str, "Stop only for links that contain this text."),
    "leadsPausedByInterest": Setting(bool, "Pause leads that are interested."),
    "opportunityReplied": Setting(bool, "Create an opportunity for a lead that has replied."),
    "opportunityClicked": Setting(bool, "Create an opportunity for a lead that has clicked a link."),
    "autoLeadInterest": Setting(bool, "Let lemlist decide whether a reply shows interest."),
    "disableTrackOpen": Setting(bool, "Do not track opened emails."),
    "disableTrackClick": Setting(bool, "Do not track clicked links."),
    "disableTrackReply": Setting(bool, "Do not track replies."),
    "disableOutOfOffice": Setting(bool, "Do not count out-of-office replies."),
    "sequenceSharing": Setting(bool, "Share the sequence with the team."),
    "sendUserIds": Setting(list, "Ids (usr_…) of the senders, who together serve every channel."),
    "scheduleIds": Setting(list, "Ids (skd_…) of schedules of the team.", sent_with=("attach",)),
    "schedules": Setting(
        list,
        "Schedules of the team by name; one that it lacks is created, one that differs is changed.",
        items=Setting(
            dict,
            "A schedule.",
            fields=_SCHEDULE,
            required=("name", "timezone", "start", "end", "weekdays"),
        ),
        sent_with=("attach",),
    ),
    "labels": Setting(list, "Labels; lemlist's API cannot change them.", sent_with=()),
    "tracking": Setting(
        dict,
        "What lemlist tracks.",
        fields={
            "trackOpens": Setting(bool, "Opened emails."),
            "trackClicks": Setting(bool, "Clicked links."),
            "trackReplies": Setting(bool, "Replies."),
        },
    ),
    "onReplied": Setting(
        dict,
        "What happens when a lead replies.",
        fields={
            "createNewTask": _NEW_TASK,
            "campaignProgress": _PROGRESS,
            "propagateProgressToCompany": _TO_COMPANY,
            "disableOutOfOffice": Setting(bool, "Do not count out-of-office replies."),
        },
    ),
    "onLinkClicked": Setting(
        dict,
        "What happens when a lead clicks a link.",
        fields={
            "createNewTask": _NEW_TASK,
            "campaignProgress": _PROGRESS,
            "propagateProgressToCompany": _TO_COMPANY,
            "specificLinks": Setting(list, "Only these links."),
        },
    ),
    "onMeetingBooked": Setting(
        dict,
        "What happens when a lead books a meeting.",
        fields={"campaignProgress": _PROGRESS, "propagateProgressToCompany": _TO_COMPANY},
    ),
    "aiFeatures": Setting(
        dict,
        "What lemlist decides with AI.",
        fields={
            "scoreReplies": Setting(bool, "Score replies."),
            "onInterestedReply": Setting(dict, "An interested reply.", fields=_REACTION),
            "onNotInterestedReply": Setting(dict, "A reply without interest.", fields=_REACTION),
        },
    ),
}

#: Python names of settings that differ from lemlist's in more than their underscores.
_PYTHON_NAMES = {"timezone": "campaign_timezone", "stopOnEmailReplied": "stop_on_reply"}


class Campaign(dict[str, Any]):
    """
    The definition of a campaign, with Python names for lemlist's.

    It is checked when an operator uses it, so that the error can name the task.

    :param name: Name of the campaign, by which it is found unless the operator is given its id.
    :param steps: The steps of the main sequence, in their order: typed steps, or dicts with ``type``. A
        condition holds the steps of its branches under ``yes`` and ``otherwise``.
    :param campaign_timezone: IANA time zone; lemlist takes it only when it creates the campaign.
    :param stop_on_reply: Stop for a lead that has replied.
    :param auto_review: Launch leads without a review by a person: **creating a lead then starts the
        sending**.
    :param settings: The other settings of ``SETTINGS``, in Python's spelling: ``send_user_ids=[…]``,
        ``tracking={"trackOpens": False}``. A setting that is None is left out.
    """

    def __init__(
        self,
        *,
        name: Text,
        steps: Sequence[Step | Mapping[str, Any]] | XComArg,
        campaign_timezone: Text | None = None,
        stop_on_reply: Flag | None = None,
        auto_review: Flag | None = None,
        **settings: Any,
    ) -> None:
        given = {
            "name": name,
            "campaign_timezone": campaign_timezone,
            "stop_on_reply": stop_on_reply,
            "auto_review": auto_review,
            **settings,
        }
        names = {_python_name(name): name for name in SETTINGS}
        for each in settings:
            if each not in names:
                meant = nearest(each, (*names, *SETTINGS))
                near = f" (did you mean {_python_name(meant)!r}?)" if meant else ""
                raise TypeError(f"Campaign() got an unexpected keyword argument {each!r}{near}")
        super().__init__({names[each]: value for each, value in given.items() if value is not None})
        self["steps"] = list(steps) if isinstance(steps, (list, tuple)) else steps


def _python_name(name: str) -> str:
    """Return the argument of a setting, ``send_user_ids`` for ``sendUserIds``."""
    return _PYTHON_NAMES.get(name) or re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


# --- Parts ------------------------------------------------------------------------------------------------


def parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the items of a mapping or of a list, each with its part of the path."""
    if isinstance(value, Mapping):
        yield from ((str(name), item) for name, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)


# --- The tree ---------------------------------------------------------------------------------------------


def walk(definition: Mapping[str, Any], path: Path = (), within: str = "steps") -> Iterator[tuple[Path, Any]]:
    """Yield every step with its path: each before the steps of its branches."""
    found = definition.get(within)
    for position, step in enumerate(found if isinstance(found, (list, tuple)) else ()):
        here = (*path, within, position)
        yield here, step
        if isinstance(step, Mapping):
            for branch in BRANCHES:
                yield from walk(step, here, branch)


def plain_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return what lemlist gets of a step: without its name and its branches."""
    return {
        name: value
        for name, value in step.items()
        if name not in steps.DEFINITION_FIELDS and value is not None
    }


def is_condition(step: Mapping[str, Any]) -> bool:
    return step.get("type") == steps.Conditional.type


def show_path(path: Path) -> str:
    """Return a path as people read it, positions from 1: ``step 3, yes 1, subject``."""
    words: list[str] = []
    for part in path:
        if isinstance(part, int):
            words[-1] = f"{'step' if words[-1] == 'steps' else words[-1]} {part + 1}"
        else:
            words.append(part)
    return ", ".join(words)


# --- Parameters -------------------------------------------------------------------------------------------


def parameters_in(definition: Any, path: Path = ()) -> dict[str, Path]:
    """Return the parameters of a definition, written ``[[ name ]]``, and where each is used first."""
    if isinstance(definition, str):
        return dict.fromkeys(PARAMETER.findall(definition), path)
    found: dict[str, Path] = {}
    for name, part in parts(definition):
        found = parameters_in(part, (*path, name)) | found
    return found


def fill(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the definition with the values of its parameters, written ``[[ name ]]`` in any text.

    A text that is nothing but a parameter becomes its value, so that ``delay: "[[ days ]]"`` is a number. A
    parameter without a value stays as it is. A value that no text can hold, such as ``UNKNOWN``, takes the
    place of the text, so that the checks find it there.
    """

    def filled(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: filled(str(key), item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [filled(name, item) for item in value]
        if not isinstance(value, str):
            return value
        used = {each: parameters[each] for each in PARAMETER.findall(value) if each in parameters}
        whole = PARAMETER.fullmatch(value.strip())
        if whole and whole[1] in used and _TYPES.get(name, str) is not str:
            return read_value(name, used[whole[1]])
        for each in used.values():
            if not isinstance(each, (str, int, float)):
                return each
        return PARAMETER.sub(lambda found: str(used.get(found[1], found[0])), value)

    return {key: filled(str(key), item) for key, item in definition.items()}


def _types(settings: Mapping[str, Setting]) -> Iterator[tuple[str, type]]:
    for name, setting in settings.items():
        yield name, setting.type
        yield from _types(setting.fields or {})
        yield from _types((setting.items and setting.items.fields) or {})


#: The type of the values under a name, in a step or among the settings.
_TYPES = dict(_types(SETTINGS)) | {name: field.type for name, field in steps.FIELDS.items()}


def read_value(name: str, value: Any) -> Any:
    """Return the number or the flag that a rendered text under a name stands for; anything else as it is."""
    return steps.read_text(_TYPES.get(name, str), value)
