# SPDX-License-Identifier: Apache-2.0
"""
What follows: pure decisions from evidence and policy, and the outcomes in which they end.

``next_action`` decides about a lead, ``choose_step`` about a step, ``choose_campaign`` about a campaign.
Every safeguard against creating something twice is a line of one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from airflow_provider_lemlist.delivery.evidence import (
    LeadEvidence,
    StepEvidence,
    added_step,
    created_record,
    equal_steps,
    only_campaign,
)
from airflow_provider_lemlist.delivery.policy import IfCampaignExists, IfStepExists, LeadPolicy
from airflow_provider_lemlist.exceptions import LemlistDuplicateError


class Outcome(StrEnum):
    """How one lead ended; the words of the ledger."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    EXISTS = "exists"
    ELSEWHERE = "elsewhere"
    GONE = "gone"
    UNCERTAIN = "uncertain"


class Action(Enum):
    """What to do next about a lead."""

    CREATE = "create the lead"
    LOOK_UP = "look the lead up: by its id where that is known, otherwise by address in the campaign"
    UPDATE = "update the fields that differ, if any"
    KEEP = "leave the lead as it is"
    SKIP_ELSEWHERE = "leave the person to the other campaign"
    SKIP_GONE = "leave a deleted lead deleted"
    FAIL = "raise what lemlist refused"
    FAIL_GONE = "raise an error, because the lead has been deleted"
    STOP = "raise an error, because it is not known whether the lead exists"


_IF_GONE = {"create": Action.CREATE, "skip": Action.SKIP_GONE, "fail": Action.FAIL_GONE}


def next_action(evidence: LeadEvidence, policy: LeadPolicy) -> Action:
    """
    Decide what to do next about one lead.

    An attempt that was interrupted may have created the lead. With an address lemlist refuses a second one,
    and then the lead that is there is ours, whatever the policy says about leads that were there before.
    """
    existing = Action.UPDATE if policy.if_exists == "update" else Action.KEEP
    if evidence.lead_id is not None:
        if not evidence.looked_up:
            return Action.LOOK_UP if evidence.changes is None else existing
        if not evidence.found and policy.if_gone == "create" and evidence.in_doubt and not evidence.has_email:
            return Action.STOP  # the attempt in doubt may have put the person back
        return existing if evidence.found else _IF_GONE[policy.if_gone]

    may_look_up = evidence.has_email and not evidence.looked_up
    if evidence.refused is None:
        if not evidence.in_doubt:
            return Action.CREATE
        if evidence.looked_up:
            return existing if evidence.found else Action.CREATE
        return Action.LOOK_UP if evidence.has_email else Action.STOP

    if evidence.refused == "campaign":
        if evidence.in_doubt or policy.if_exists in ("return", "update"):
            return Action.LOOK_UP if may_look_up else existing
        return Action.KEEP if policy.if_exists == "skip" else Action.FAIL
    # Which of two duplicates lemlist names first is not documented: ours may stand behind the other one.
    if evidence.in_doubt and may_look_up:
        return Action.LOOK_UP
    if evidence.in_doubt and evidence.found:
        return existing
    return Action.SKIP_ELSEWHERE if policy.if_elsewhere == "skip" else Action.FAIL


class StepChoice(NamedTuple):
    """
    Which listed step is the one that a task wants.

    :param row: The step; None to add it.
    :param unclear: Listed steps that could equal it: lemlist lists too little of them to tell.
    """

    row: Mapping[str, Any] | None = None
    unclear: tuple[str, ...] = ()


def choose_step(step: Mapping[str, Any], evidence: StepEvidence, if_exists: IfStepExists) -> StepChoice:
    """
    Decide which listed step is the one that a task wants, or that it has to be added.

    :raises LemlistUncertainError: An earlier attempt may have added the step, and several could be it.
    :raises LemlistDuplicateError: An equal step is there, and ``if_exists`` is ``fail``.
    """
    rows = {str(row["_id"]): row for row in evidence.listed if row.get("_id")}
    if evidence.added in rows:
        return StepChoice(rows[evidence.added])
    free = [row for step_id, row in rows.items() if step_id not in evidence.claimed]
    equal, unclear = equal_steps(step, free)
    if evidence.in_doubt:
        if evidence.known is None and if_exists == "return" and len(equal) == 1:
            return StepChoice(equal[0])
        return StepChoice(added_step(step, free, known=evidence.known))
    if if_exists == "add":
        return StepChoice()
    earlier = rows.get(evidence.earlier or "")
    if earlier is None or earlier["type"] != step["type"]:
        # Those in front are for the tasks that want an equal step too, and have not come to it yet.
        earlier = equal[evidence.ahead] if len(equal) > evidence.ahead else None
    if earlier is not None and if_exists == "fail":
        raise LemlistDuplicateError(
            f"An equal step is in the sequence already: {earlier['_id']}. Nothing was sent. Set if_exists to "
            "'return' or 'add' to accept that."
        )
    return StepChoice(earlier, () if earlier else tuple(str(row["_id"]) for row in unclear))


def choose_campaign(
    named: Sequence[Mapping[str, Any]],
    if_exists: IfCampaignExists,
    *,
    in_doubt: bool,
    known: Collection[str] | None,
) -> Mapping[str, Any] | None:
    """
    Return the campaign that a task wants, or None to create it.

    :param named: The campaigns of this name that are not archived.
    :param in_doubt: Whether an earlier attempt may have created it.
    :param known: Ids of the campaigns of this name before that attempt; None where they are not known.
    :raises LemlistUncertainError: An earlier attempt may have created it, and several could be it.
    :raises LemlistValidationError: Several campaigns have the name, and ``if_exists`` is ``return``.
    :raises LemlistDuplicateError: A campaign has the name, and ``if_exists`` is ``fail``.
    """
    if in_doubt and (known is not None or if_exists != "return"):
        return created_record("campaign", named, known=known)
    if if_exists == "return":
        return only_campaign(named)
    if named and if_exists == "fail":
        raise LemlistDuplicateError(
            f"A campaign has the name {named[0]['name']!r} already: {named[0]['_id']}. Nothing was sent. Set "
            "if_exists to 'return' or 'create' to accept that."
        )
    return None
