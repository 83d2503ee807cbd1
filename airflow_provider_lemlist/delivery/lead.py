# SPDX-License-Identifier: Apache-2.0
"""Carry out what was decided about one lead: create it, look it up, update it, or leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.delivery.evidence import LeadEvidence, differing_fields
from airflow_provider_lemlist.delivery.outcome import Action, Outcome, next_action
from airflow_provider_lemlist.exceptions import (
    LemlistDuplicateError,
    LemlistError,
    LemlistNotFoundError,
    LemlistUncertainError,
    Reason,
)

if TYPE_CHECKING:
    from airflow_provider_lemlist.delivery.policy import LeadPolicy
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook


class Delivered(NamedTuple):
    """
    How a lead ended.

    :param outcome: What became of it.
    :param lead: The lead as lemlist has it, where it is known.
    :param lead_id: Its id, where it is known.
    :param ours: Whether it was created from here, by this attempt or an earlier one.
    :param differing: Fields whose values lemlist does not have.
    :param message: Why, if the outcome does not say it.
    """

    outcome: Outcome
    lead: Mapping[str, Any] | None = None
    lead_id: str | None = None
    ours: bool = False
    differing: Mapping[str, str] = {}
    message: str = ""


def deliver(
    hook: LemlistHook,
    campaign_id: str,
    lead: Mapping[str, str],
    evidence: LeadEvidence,
    policy: LeadPolicy,
    *,
    flags: Mapping[str, bool | None],
    before_create: Callable[[], None] = lambda: None,
) -> Delivered:
    """
    Bring one lead into a campaign, once.

    :param flags: The enrichments and the check for duplicates, as the hook takes them.
    :param before_create: Called before the lead is created, to keep in the history that it may exist.
    :raises LemlistError: The lead could not be created or looked up, or the policy wants an error.
    """
    refusal: LemlistDuplicateError | None = None
    while True:
        action = next_action(evidence, policy)
        if action is Action.CREATE:
            before_create()
            evidence = replace(evidence, lead_id=None, changes=None, looked_up=False, found=None)
            try:
                created = hook.create_lead(campaign_id, lead, **flags)
            except LemlistDuplicateError as error:
                refusal, evidence = error, replace(evidence, refused=error.where)
            else:
                return Delivered(Outcome.CREATED, created, created["_id"], ours=True)
        elif action is Action.LOOK_UP:
            evidence = replace(evidence, looked_up=True, found=_look_up(hook, campaign_id, lead, evidence))
        elif action is Action.UPDATE:
            delivered = _update(hook, campaign_id, lead, evidence)
            if delivered is not None:
                return delivered
            evidence = replace(evidence, looked_up=True, found=None)
        elif action is Action.KEEP:
            return _keep(lead, evidence)
        elif action is Action.SKIP_ELSEWHERE:
            return Delivered(Outcome.ELSEWHERE, message="in another campaign")
        elif action is Action.SKIP_GONE:
            return _gone(evidence.lead_id)
        elif refusal is not None:
            raise refusal
        else:
            raise _error(action, campaign_id, evidence)


def _look_up(
    hook: LemlistHook, campaign_id: str, lead: Mapping[str, str], evidence: LeadEvidence
) -> Mapping[str, Any] | None:
    if evidence.lead_id is None:
        return hook.find_lead(campaign_id, lead["email"])
    try:
        return hook.get_lead(evidence.lead_id)
    except LemlistNotFoundError:
        return None


def _update(
    hook: LemlistHook, campaign_id: str, lead: Mapping[str, str], evidence: LeadEvidence
) -> Delivered | None:
    """Update the fields that differ; return None if the lead has been deleted meanwhile."""
    lead_id = str(evidence.found["_id"]) if evidence.found else evidence.lead_id
    fields = evidence.changes
    if fields is None:
        fields = differing_fields(lead, evidence.found or {})
    if lead_id is None or not fields:
        return _keep(lead, evidence, unchanged=Outcome.UNCHANGED)
    try:
        updated = hook.update_lead(campaign_id, lead_id, fields)
    except LemlistError as error:
        if error.reason is Reason.UNSUBSCRIBED:  # never put back: the person does not want to be contacted
            return _gone(lead_id)
        if not isinstance(error, LemlistNotFoundError) or error.reason is Reason.CAMPAIGN_NOT_FOUND:
            raise
        # lemlist says both that the lead is in the campaign and that it is not: do not go round in circles.
        return None if evidence.lead_id and not evidence.refused else _gone(lead_id)
    return Delivered(Outcome.UPDATED, updated, lead_id, evidence.ours)


def _keep(
    lead: Mapping[str, str], evidence: LeadEvidence, *, unchanged: Outcome = Outcome.EXISTS
) -> Delivered:
    found = evidence.found or {}
    interrupted = evidence.in_doubt and evidence.lead_id is None
    return Delivered(
        Outcome.CREATED if interrupted else unchanged,
        evidence.found,
        found.get("_id", evidence.lead_id),
        evidence.ours,
        differing_fields(lead, found) if found else {},
        "created by an interrupted attempt" if interrupted else "",
    )


def _gone(lead_id: str | None) -> Delivered:
    message = "deleted or unsubscribed in lemlist since it was created"
    return Delivered(Outcome.GONE, lead_id=lead_id, message=message)


def _error(action: Action, campaign_id: str, evidence: LeadEvidence) -> LemlistError:
    if action is Action.FAIL_GONE:
        return LemlistNotFoundError(
            f"Lead {evidence.lead_id} was created from here and has been deleted in lemlist since. Nothing "
            "was sent. Set if_gone to 'create' to put the person back.",
            reason=Reason.LEAD_NOT_FOUND,
        )
    return LemlistUncertainError(
        "It is not known whether an earlier attempt created the lead, which has no email and so cannot be "
        f"looked up. Check campaign {campaign_id!r}; if the lead is there, mark the task as succeeded, "
        "otherwise clear it."
    )
