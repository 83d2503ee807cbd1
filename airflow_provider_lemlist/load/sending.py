# SPDX-License-Identifier: Apache-2.0
"""Carry out the plan for one row or person, and describe the outcome for the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.delivery.evidence import LeadEvidence, differing_fields
from airflow_provider_lemlist.delivery.lead import deliver
from airflow_provider_lemlist.delivery.outcome import Outcome
from airflow_provider_lemlist.delivery.policy import LeadPolicy
from airflow_provider_lemlist.exceptions import (
    LemlistAuditError,
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
    LemlistStoppedError,
    LemlistUncertainError,
    LemlistValidationError,
    Reason,
)
from airflow_provider_lemlist.ledger.ledger import LedgerEntry
from airflow_provider_lemlist.load.plan import DEPARTURES

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.load.worklist import Job

#: Errors that concern every row: the load is aborted, and the other rows are not tried.
_CONCERN_EVERY_ROW = (
    LemlistAuditError,
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
    LemlistStoppedError,
)
#: Fields that the response to an update contains where the lead has a value.
_IN_RESPONSE = ("email", "firstName", "lastName", "companyName", "jobTitle", "companyDomain")
_MAX_MESSAGE = 300


class Sent(NamedTuple):
    """The result of sending a row."""

    #: None if the error concerns every row, not this one.
    entry: LedgerEntry | None
    #: Whether the lead may have been created although the row is not settled.
    in_doubt: bool = False
    error: LemlistError | None = None
    #: Fields whose new values lemlist did not take.
    refused: tuple[str, ...] = ()


class LeadSender:
    """
    Send the rows and people of one load. Thread-safe.

    :param sent: Returns the hashes of a lead's values that the campaign's export does not show.
    """

    def __init__(
        self, hook: LemlistHook, options: LoadOptions, sent: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> None:
        self._hook = hook
        self._options = options
        self._sent = sent

    def __call__(self, job: Job) -> Sent:
        """Carry out the plan for one row or person."""
        try:
            return self._depart(job) if job.row is None else self._deliver(job)
        except LemlistUncertainError as error:
            return Sent(_entry(job, Outcome.UNCERTAIN, str(error)), in_doubt=True, error=error)
        except LemlistError as error:
            in_doubt = job.plan.action == "create" and (job.plan.in_doubt or error.in_doubt)
            if concerns_every_row(error):
                return Sent(None, in_doubt, error)
            return Sent(_entry(job, "failed", str(error)), in_doubt, error)

    def _deliver(self, job: Job) -> Sent:
        action, plan, options = job.plan.action, job.plan, self._options
        if action == "resume":
            self._hook.resume_lead(str(plan.lead_id))
            if not plan.changes:
                return Sent(_entry(job, "exists", "resumed, because the person is back in the source"))
        is_new = action == "create"
        evidence = LeadEvidence(
            has_email=bool(job.lead.get("email")),
            in_doubt=plan.in_doubt,
            lead_id=plan.lead_id,
            changes=None if is_new else plan.changes,
            # The campaign was looked at. A lead that is gone is looked up once more before it is put back.
            looked_up=is_new and plan.lead_id is None,
        )
        policy = LeadPolicy(options.if_exists, options.if_elsewhere, options.if_gone)
        delivered = deliver(self._hook, options.campaign_id, job.lead, evidence, policy, flags=options.flags)
        outcome, message = delivered.outcome, delivered.message or plan.message
        refused: tuple[str, ...] = ()
        if outcome is Outcome.UPDATED and (refused := _refused(plan.changes, delivered.lead or {})):
            message = f"lemlist did not take {', '.join(refused)}"
        has_values = outcome in (Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED)
        sent = self._sent(job.lead) if has_values else None
        return Sent(_entry(job, outcome, message, delivered.lead_id, sent), refused=refused)

    def _depart(self, job: Job) -> Sent:
        hook, campaign_id, lead_id = self._hook, self._options.campaign_id, str(job.plan.lead_id)
        try:
            if job.plan.action == "pause":
                hook.pause_lead(lead_id, campaign_id=campaign_id)
            elif job.plan.action == "delete":
                hook.delete_lead(campaign_id, lead_id)
            elif job.lead.get("email"):
                hook.unsubscribe_lead(campaign_id, job.lead["email"])
            elif value := job.lead.get("linkedinUrl") or job.lead.get("phone"):
                hook.unsubscribe(value)
            else:
                raise LemlistValidationError("The lead has nothing by which it could be unsubscribed.")
        except LemlistNotFoundError as error:
            if error.reason is not Reason.LEAD_NOT_FOUND:
                raise
            return Sent(_entry(job, Outcome.GONE, "deleted in lemlist"))
        return Sent(_entry(job, DEPARTURES[job.plan.action], "no longer in the source"))


def concerns_every_row(error: LemlistError) -> bool:
    """Return whether the load is aborted, because every other row would fail as well."""
    return isinstance(error, _CONCERN_EVERY_ROW) and error.reason is not Reason.LEAD_NOT_FOUND


def shortened(message: str) -> str:
    """Return a message for a line of the ledger."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…"


def _refused(changes: Mapping[str, str], response: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields whose new values the response to an update should show, and does not."""
    differing = differing_fields(changes, response)
    return tuple(sorted(name for name in differing if name in response or name in _IN_RESPONSE))


def _entry(
    job: Job,
    outcome: str,
    message: str = "",
    lead_id: str | None = None,
    sent: Mapping[str, str] | None = None,
) -> LedgerEntry:
    return LedgerEntry(job.row, job.keys, str(outcome), lead_id or job.plan.lead_id, shortened(message), sent)
