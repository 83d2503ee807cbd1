# SPDX-License-Identifier: Apache-2.0
"""
Send one row, and describe the outcome for the ledger.

What to do is decided in ``delivery``. The loader adds where the evidence comes from: the ledgers of this load
and of the previous run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_lemlist.delivery.evidence import LeadEvidence
from airflow_provider_lemlist.delivery.identity import profile_key
from airflow_provider_lemlist.delivery.lead import deliver
from airflow_provider_lemlist.delivery.outcome import Action, Outcome, next_action
from airflow_provider_lemlist.delivery.policy import LeadPolicy
from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
    LemlistUncertainError,
    Reason,
)
from airflow_provider_lemlist.load.ledger import LedgerEntry
from airflow_provider_lemlist.load.worklist import changed_fields, content_hash

if TYPE_CHECKING:
    from airflow_provider_lemlist.delivery.lead import Delivered
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.load.worklist import PlannedRow

#: Errors that concern every row: the load is aborted, and the other rows are not tried.
_CONCERN_EVERY_ROW = (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistRateLimitError,
)
_MAX_MESSAGE = 300
_CHECK_CAMPAIGN = (
    "An attempt was interrupted while this row was in flight, and without an email it cannot be looked up. "
    "Check the campaign; if the lead is not there, add it by hand or load the row with a separate ledger."
)


class Sent(NamedTuple):
    """The result of sending a row."""

    #: None if the error concerns every row, not this one.
    entry: LedgerEntry | None
    #: Whether the lead may have been created although the row is not settled.
    in_doubt: bool = False
    error: LemlistError | None = None


def settle_without_request(row: PlannedRow, options: LoadOptions) -> LedgerEntry | None:
    """Return the entry of a row that the previous ledger settles, or None if the row has to be sent."""
    if row.previous is None or row.in_doubt:
        return None
    if options.if_exists == "skip":
        # Nothing is sent, so lemlist still has what was sent last.
        outcome, content = Outcome.EXISTS, row.previous.content
    elif row.previous.lead_id and not _changes(row.lead, row.previous.content):
        outcome, content = Outcome.UNCHANGED, content_hash(row.lead)
    else:
        return None
    message = "known from the previous ledger"
    return _entry(row, outcome, row.previous.lead_id, content, message=message, attempts=0)


def send(hook: LemlistHook, row: PlannedRow, options: LoadOptions) -> Sent:
    """Send one row."""
    evidence = _evidence(row)
    policy = LeadPolicy(options.if_exists, options.if_elsewhere, options.if_gone)
    lead_id, content = row.previous or (None, "")
    if next_action(evidence, policy) is Action.STOP:
        entry = _entry(row, Outcome.UNCERTAIN, lead_id, content, message=_CHECK_CAMPAIGN)
        return Sent(entry, in_doubt=True)
    try:
        delivered = deliver(hook, options.campaign_id, row.lead, evidence, policy, flags=options.flags)
    except LemlistUncertainError as error:
        entry = _entry(row, Outcome.UNCERTAIN, lead_id, content, message=str(error))
        return Sent(entry, in_doubt=True, error=error)
    except LemlistError as error:
        in_doubt = row.in_doubt or error.in_doubt
        if isinstance(error, _CONCERN_EVERY_ROW) and error.reason is not Reason.LEAD_NOT_FOUND:
            return Sent(None, in_doubt, error)
        return Sent(_entry(row, "failed", lead_id, content, message=str(error)), in_doubt, error)
    content = _content(row, delivered)
    return Sent(_entry(row, delivered.outcome, delivered.lead_id, content, message=delivered.message))


def _evidence(row: PlannedRow) -> LeadEvidence:
    known = row.previous if row.previous and row.previous.lead_id else None
    return LeadEvidence(
        # The address that a row has gained does not find a lead that was created without one.
        has_email=bool(row.lead.get("email")) and not row.sent_without_email,
        in_doubt=row.in_doubt,
        lead_id=known and known.lead_id,
        changes=known and _changes(row.lead, known.content),
    )


def _changes(lead: Mapping[str, str], content: str) -> dict[str, str]:
    """Return the fields to update. The address identifies a lead and cannot be changed."""
    return {name: value for name, value in changed_fields(lead, content).items() if name != "email"}


def _content(row: PlannedRow, delivered: Delivered) -> str:
    """Return the hashes of the values that lemlist has, from which the next run sees what to update."""
    if delivered.outcome is Outcome.ELSEWHERE:
        return ""
    if delivered.outcome in (Outcome.EXISTS, Outcome.GONE) and row.previous:
        return row.previous.content
    there = delivered.lead or {}
    return content_hash(row.lead | {name: str(there.get(name) or "") for name in delivered.differing})


def _entry(
    row: PlannedRow, outcome: str, lead_id: str | None, content: str, *, message: str = "", attempts: int = 1
) -> LedgerEntry:
    return LedgerEntry(
        row=row.number,
        row_key=row.key,
        profile_key=profile_key(row.lead),
        outcome=str(outcome),
        lead_id=lead_id,
        attempts=row.attempts + attempts,
        message=message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…",
        content=content,
    )
