# SPDX-License-Identifier: Apache-2.0
"""
What is known: about a lead before it is sent and after lemlist refused it, about a sequence or a name.

Pure. What lemlist lists is compared by ids first: a step that was not there before is ours, whatever lemlist
has made of its text. Contents are compared only to find a step that the user does not want twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any, Literal

from airflow_provider_lemlist.delivery.identity import profile_of
from airflow_provider_lemlist.exceptions import LemlistUncertainError, LemlistValidationError

#: Fields of a step that are not compared: a position moves when steps are put before it, and lemlist hosts
#: its own copies of media.
_NOT_COMPARED = ("type", "index", "images", "videos")
#: What a log says about autoReview, and the warning if it is on.
AUTO_REVIEW = {True: "autoReview on", False: "autoReview off", None: "autoReview not known"}
SENDS_AT_ONCE = "autoReview is on, so lemlist contacts each lead as soon as it is created."


# --- Leads ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeadEvidence:
    """
    What is known of one person in one campaign.

    :param has_email: Whether the lead has an address, by which alone lemlist finds a duplicate or a lead.
    :param in_doubt: Whether an earlier attempt may have created the lead.
    :param lead_id: The lead that an earlier attempt or run has created, as its history says.
    :param changes: Fields to update when ``lead_id`` is known; None to compare with what lemlist has.
    :param refused: Where lemlist said that the person is, instead of creating the lead.
    :param looked_up: Whether lemlist was asked for the lead.
    :param found: The lead as lemlist has it.
    """

    has_email: bool
    in_doubt: bool = False
    lead_id: str | None = None
    changes: Mapping[str, str] | None = None
    refused: Literal["campaign", "elsewhere"] | None = None
    looked_up: bool = False
    found: Mapping[str, Any] | None = None

    @property
    def ours(self) -> bool:
        """Whether a lead that exists was created from here."""
        return self.in_doubt or self.lead_id is not None


def differing_fields(lead: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the fields of a lead whose values lemlist does not have.

    Two spellings of one LinkedIn profile are equal.

    :param found: The lead as lemlist lists it. An address is what a lead is found by, and cannot be changed.
    """
    return {
        name: value
        for name, value in lead.items()
        if name != "email" and not _is_equal_field(name, value, str(found.get(name) or ""))
    }


def _is_equal_field(name: str, value: str, there: str) -> bool:
    return value == there or (name == "linkedinUrl" and profile_of(value) == profile_of(there))


# --- Steps ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepEvidence:
    """
    What is known of one step and of the sequence that it goes to.

    :param listed: The steps of the sequence as lemlist lists them.
    :param in_doubt: Whether an earlier attempt may have added the step.
    :param known: Ids of the steps before that attempt; None where they are not known.
    :param added: The step that this task has added, as its history says.
    :param earlier: The step that this task returned in an earlier run of the DAG.
    :param claimed: Steps that other tasks of this run of the DAG have added.
    :param ahead: How many other tasks want an equal step before this one, and have not come to it yet.
    """

    listed: Collection[Mapping[str, Any]] = ()
    in_doubt: bool = False
    known: Collection[str] | None = None
    added: str | None = None
    earlier: str | None = None
    claimed: Collection[str] = ()
    ahead: int = 0


def added_step(
    step: Mapping[str, Any],
    listed: Iterable[Mapping[str, Any]],
    *,
    known: Collection[str] | None,
) -> Mapping[str, Any] | None:
    """
    Return the listed step that a request whose response was lost has added, or None if it added none.

    :param step: The step as it was sent.
    :param listed: The steps of the sequence as lemlist lists them now.
    :param known: Ids of the steps before the request; None where they are not known.
    :raises LemlistUncertainError: Several steps could be it, or one that may have been there before.
    """
    before = {*(known or ())}
    new = [
        row
        for row in listed
        if row.get("_id") and row["_id"] not in before and row.get("type") == step["type"]
    ]
    if not new:
        return None
    if known is not None:
        # Of several, as when tasks run side by side, only one may have the content of ours.
        equal, unclear = ([*new], []) if len(new) == 1 else equal_steps(step, new)
        if len(equal) == 1 and not unclear:
            return equal[0]
    raise LemlistUncertainError(
        f"It is not known whether lemlist added the {step['type']} step: {_ids(new)} may be it or older. "
        "Check the sequence in lemlist; if the step is there, mark the task as succeeded, otherwise clear it."
    )


def equal_steps(
    step: Mapping[str, Any], listed: Iterable[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """
    Return the listed steps that equal a step, and those of which lemlist lists too little to tell.

    Texts are compared without their markup and spacing, because lemlist may add defaults and tidy HTML.
    """
    equal: list[Mapping[str, Any]] = []
    unclear: list[Mapping[str, Any]] = []
    for row in listed:
        if row.get("_id") and (same := is_equal(step, row)) is not False:
            (unclear if same is None else equal).append(row)
    return equal, unclear


def is_equal(step: Mapping[str, Any], row: Mapping[str, Any]) -> bool | None:
    """Return whether a listed step equals a step; None if what tells them apart is not listed."""
    if row.get("type") != step["type"] or differing_step_fields(step, row):
        return False
    there = listed_fields(row)
    compared = _compared_fields(step)
    is_unlisted = any(there.get(name) is None for name in compared)
    text_is_equal = any(compared.get(name) and there.get(name) is not None for name in ("subject", "message"))
    return None if is_unlisted and not text_is_equal else True


def differing_step_fields(step: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return the fields of a step of which lemlist lists another value."""
    there = listed_fields(row)
    return [
        name
        for name, value in _compared_fields(step).items()
        if there.get(name) is not None and words(value) != words(there[name])
    ]


def _compared_fields(step: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name not in _NOT_COMPARED and value is not None}


def listed_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a listed step; those of a condition are listed on its branches."""
    if row.get("type") != "conditional":
        return dict(row)
    conditions: list[dict[str, Any]] = row.get("conditions") or []
    branch = next((each for each in conditions if not each.get("fallback")), {})
    there = {"conditionKey": branch.get("key"), "delayType": branch.get("delayType"), **row}
    return there | {"delay": branch.get("delay", row.get("delay"))}


def words(value: Any) -> Any:
    """Return the words and links of a text without its markup and spacing; anything else as it is."""
    if not isinstance(value, str):
        return value
    links = " ".join(re.findall(r"""(?:href|src)\s*=\s*["']?([^"'\s>]+)""", value))
    return " ".join(unescape(f"{re.sub(r'<[^>]*>', ' ', value)} {links}").split())


# --- Campaigns --------------------------------------------------------------------------------------------


def campaigns_named(listed: Iterable[Mapping[str, Any]], *names: str) -> list[Mapping[str, Any]]:
    """Return the listed campaigns of these names that are not archived; outer spaces do not count."""
    wanted = {name.strip() for name in names}
    return [
        row
        for row in listed
        if row.get("_id") and str(row.get("name")).strip() in wanted and not is_archived(row)
    ]


def is_archived(campaign: Mapping[str, Any]) -> bool:
    """Return whether a campaign is archived."""
    # The first version of the API has a flag for it. A campaign may have several statuses at once.
    return bool(campaign.get("archived")) or "archived" in (campaign.get("status") or "")


def auto_review(campaign: Mapping[str, Any]) -> bool | None:
    """Return whether lemlist contacts each lead as soon as it is created; None if lemlist does not say."""
    value = campaign.get("autoReview")  # not among the documented fields of a campaign that is read
    return value if isinstance(value, bool) else None


def only_campaign(named: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """
    Return the one campaign of a name, or None.

    :param named: The campaigns of this name.
    :raises LemlistValidationError: There are several.
    """
    if len(named) > 1:
        raise LemlistValidationError(
            f"{len(named)} campaigns have the name {named[0]['name']!r}: {_ids(named)}. Rename or archive "
            "all but one, or give campaign_id."
        )
    return named[0] if named else None


def created_record(
    what: str, named: Iterable[Mapping[str, Any]], *, known: Collection[str] | None
) -> Mapping[str, Any] | None:
    """
    Return the record that a request whose response was lost has created, or None if it created none.

    :param what: The kind of record, for the error: ``campaign``.
    :param named: The records of its name now.
    :param known: Ids of the records of this name before the request; None where they are not known.
    :raises LemlistUncertainError: Several could be it, or one that may have been there before.
    """
    before = {*(known or ())}
    new = [row for row in named if row["_id"] not in before]
    if len(new) > 1 or (new and known is None):
        raise LemlistUncertainError(
            f"It is not known whether lemlist created the {what} {new[0]['name']!r}: {_ids(new)} may be it "
            "or older. Rename or archive what is not it, then clear the task."
        )
    return new[0] if new else None


def _ids(rows: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(str(row["_id"]) for row in rows)
