# SPDX-License-Identifier: Apache-2.0
"""
What is done for one row: which request, and what its answer makes of the row.

A row that an earlier attempt left under way is looked for first. One without an address cannot be looked for,
and is never sent again: a person has to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
    LemlistUncertainError,
    LemlistValidationError,
)
from airflow_provider_lemlist.load.ledger import Line
from airflow_provider_lemlist.load.worklist import changes, content_hash, profile_key

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.choices import IfElsewhere, IfExists
    from airflow_provider_lemlist.load.worklist import Task

#: What concerns every row alike: the load stops at once, and the rest stays untried.
FATAL = (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
)
#: The longest message of a line.
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants for every row."""

    campaign_id: str
    if_exists: IfExists = "skip"
    if_elsewhere: IfElsewhere = "skip"
    #: The enrichments and the check for duplicates, as the hook takes them.
    flags: Mapping[str, bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a row, and whether it may be in the campaign all the same."""

    line: Line
    in_doubt: bool = False
    #: The error of a row that failed.
    error: LemlistError | None = None


class Stop(Exception):
    """
    Tell that no row can be sent any more.

    :param error: Why.
    :param in_doubt: Whether the row that found out may be in the campaign all the same.
    """

    def __init__(self, error: Exception, *, in_doubt: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.in_doubt = in_doubt


def settle_without_asking(task: Task, wishes: Wishes) -> Line | None:
    """Return the line of a row that needs no request: the previous run knows that it is there as it is."""
    if task.before is None or task.in_doubt:
        return None
    if wishes.if_exists == "skip":
        # Nothing is sent, so what was sent last is still what lemlist has.
        outcome = "exists"
    elif task.before.lead_id and not _to_change(task.lead, task.before.content):
        outcome = "unchanged"
    else:
        return None
    return _line(
        task,
        outcome,
        task.before.lead_id,
        attempts=0,
        message="known from the previous ledger",
        content=task.before.content if outcome == "exists" else None,
    )


def send(hook: LemlistHook, task: Task, wishes: Wishes) -> Sent:
    """
    Send one row.

    :raises Stop: No other row could be sent either.
    """
    try:
        return _try(hook, task, wishes)
    except LemlistUncertainError as error:
        return Sent(_line(task, "uncertain", message=str(error)), in_doubt=True, error=error)
    except LemlistError as error:
        # Without an address lemlist sees no duplicate, so the hook never asks again after a doubt: any other
        # error says that it did not happen. With one, an attempt before the last may have arrived.
        in_doubt = "email" in task.lead and not isinstance(error, LemlistValidationError)
        if isinstance(error, FATAL):
            raise Stop(error, in_doubt=in_doubt) from error
        return Sent(_line(task, "failed", message=str(error)), in_doubt=in_doubt, error=error)


def _try(hook: LemlistHook, task: Task, wishes: Wishes) -> Sent:
    lead_email = task.lead.get("email")
    if task.before is not None and task.before.lead_id:
        return _update(hook, task, wishes, task.before.lead_id, _to_change(task.lead, task.before.content))
    if task.in_doubt:
        if not lead_email or task.was_nameless:
            return Sent(_line(task, "uncertain", message=_LOOK_YOURSELF), in_doubt=True)
        if found := hook.find_lead(wishes.campaign_id, lead_email):
            return _arrived(hook, task, wishes, found)
    try:
        reply = hook.create_lead(wishes.campaign_id, task.lead, **wishes.flags)
    except LemlistDuplicateError as error:
        here = error.where == "campaign"
        found = None
        if lead_email and (task.in_doubt or (here and wishes.if_exists == "update")):
            found = hook.find_lead(wishes.campaign_id, lead_email)
        if task.in_doubt and (found or here):
            return _arrived(hook, task, wishes, found)
        if found:
            return _update(hook, task, wishes, found["_id"], _differing(task.lead, found))
        if here:
            return Sent(_line(task, "exists"))
        outcome = "elsewhere" if wishes.if_elsewhere == "skip" else "failed"
        return Sent(_line(task, outcome, message=str(error)))
    return Sent(_line(task, "created", reply["_id"]))


def _arrived(hook: LemlistHook, task: Task, wishes: Wishes, found: Mapping[str, Any] | None) -> Sent:
    """Settle a row that an attempt which was cut off has sent, or found there and not updated any more."""
    if found and wishes.if_exists == "update" and (fields := _differing(task.lead, found)):
        return _update(hook, task, wishes, found["_id"], fields)
    # The row may have changed since: what that attempt sent is what lemlist has.
    there = {name: str((found or {}).get(name) or "") for name in task.lead}
    line = _line(
        task,
        "created",
        found["_id"] if found else None,
        message="sent by an attempt that was cut off",
        content=content_hash(there),
    )
    return Sent(line)


def _update(hook: LemlistHook, task: Task, wishes: Wishes, lead_id: str, fields: Mapping[str, str]) -> Sent:
    if not fields:
        return Sent(_line(task, "unchanged", lead_id))
    try:
        hook.update_lead(wishes.campaign_id, lead_id, fields)
    except LemlistError as error:
        said = (error.text or "").lower()
        # Who deleted the lead does not want it back, and who unsubscribed does not want to be written to.
        if "graveyard" in said or (isinstance(error, LemlistNotFoundError) and "campaign" not in said):
            return Sent(_line(task, "gone", lead_id, message="deleted or unsubscribed since it was loaded"))
        if isinstance(error, FATAL):
            raise Stop(error, in_doubt=False) from error
        # The hash of what lemlist has, not of what we wanted: so that the next run sends it again.
        content = task.before.content if task.before else ""
        return Sent(_line(task, "failed", lead_id, message=str(error), content=content), error=error)
    return Sent(_line(task, "updated", lead_id))


_LOOK_YOURSELF = (
    "An attempt was cut off while this row was under way, and without an email it cannot be looked up. Look "
    "in the campaign; if the lead is not there, add it by hand or load it with a ledger of its own."
)


def _to_change(lead: Mapping[str, str], content: str) -> dict[str, str]:
    """Return what an update has to send. An address is what a lead is known by, and cannot be changed."""
    return {name: value for name, value in changes(lead, content).items() if name != "email"}


def _differing(lead: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value for name, value in lead.items() if name != "email" and str(found.get(name) or "") != value
    }


def _line(
    task: Task,
    outcome: str,
    lead_id: str | None = None,
    *,
    attempts: int = 1,
    message: str = "",
    content: str | None = None,
) -> Line:
    if content is None:
        content = content_hash(task.lead) if outcome not in ("failed", "uncertain", "elsewhere") else ""
    return Line(
        row=task.number,
        row_key=task.key,
        profile_key=profile_key(task.lead),
        outcome=outcome,
        lead_id=lead_id,
        attempts=task.attempts + attempts,
        message=message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…",
        content=content,
    )
