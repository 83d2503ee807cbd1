# SPDX-License-Identifier: Apache-2.0
"""
What a load will do about each row, and about the people who left the source: pure decisions.

``plan_row`` gets a row and the people whom it may mean; ``plan_departure`` gets a person who is missing. Both
return a ``Plan``: an outcome, where no request is needed, or an action for ``sending``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_lemlist.delivery.evidence import differing_fields
from airflow_provider_lemlist.delivery.identity import Kind
from airflow_provider_lemlist.ledger.ledger import READDRESSED
from airflow_provider_lemlist.ledger.people import UNSUBSCRIBED, Person

if TYPE_CHECKING:
    from airflow_provider_lemlist.load.options import LoadOptions

#: What is done to a lead under each choice of ``if_missing``, and the outcome.
DEPARTURES = {"pause": "paused", "unsubscribe": UNSUBSCRIBED, "delete": "deleted"}

_UNCLEAR = (
    "An attempt was interrupted while this row was in flight, and nothing in it tells whether the lead is "
    "in the campaign. Check the campaign; if the lead is not there, add it by hand."
)
#: Identities that the export shows. It has no keys, and a lead without these may lack some values there.
_IN_EXPORT = (Kind.EMAIL, Kind.PROFILE, Kind.PHONE)
_OTHER_ADDRESS = "the person of this key has another address in the campaign"


class Plan(NamedTuple):
    """
    What to do about one row or person.

    :param outcome: The outcome, if no request is needed.
    :param action: Otherwise ``create``, ``update``, ``resume``, or a choice of ``if_missing``.
    :param lead_id: The lead in the campaign, or the one that was.
    :param changes: The fields to update.
    :param in_doubt: Whether an earlier attempt may have created the lead.
    """

    outcome: str = ""
    action: str = ""
    lead_id: str | None = None
    changes: Mapping[str, str] = {}
    in_doubt: bool = False
    message: str = ""


class Situation(NamedTuple):
    """
    What is the same for every row.

    :param now: The present moment.
    :param newest: Order of the newest run that loaded from this source.
    :param sent: Returns the hashes of a lead's values that the campaign's export does not show.
    :param suppressed_by: Returns by what a lead is suppressed; empty if it is not.
    """

    now: datetime
    newest: str
    sent: Callable[[Mapping[str, str]], Mapping[str, str]]
    suppressed_by: Callable[[Mapping[str, str]], str] = lambda lead: ""


def plan_row(
    lead: Mapping[str, str],
    keys: Sequence[bytes],
    people: Sequence[Person],
    options: LoadOptions,
    situation: Situation,
    *,
    other_address: bool = False,
) -> Plan:
    """
    Return what to do about a row.

    :param people: Whom it may mean, the likeliest first.
    :param other_address: Whether the likeliest has another address than the row.
    """
    order = options.run.order
    if any(person.run > order for person in people):
        return Plan("newer", lead_id=people[0].lead_id, message="a newer run has loaded this person")
    is_missing = not people or people[0].left in ("paused", "deleted")
    if is_missing and options.if_missing != "keep" and situation.newest > order:
        return Plan("newer", message="a newer run no longer has this person")
    if not people:
        return Plan(action="create")
    person = people[0]
    if person.left == UNSUBSCRIBED:
        return Plan("gone", lead_id=person.lead_id, message="unsubscribed in lemlist")
    if person.status is not None:
        if other_address and options.if_address_changed == "create":
            # For the new address, as for any other person.
            plan = plan_row(lead, keys, people[1:], options, situation)
            return plan._replace(message=plan.message or "the address has changed")
        if other_address:
            outcome = READDRESSED if options.if_address_changed == "skip" else "failed"
            return Plan(outcome, lead_id=person.lead_id, message=_OTHER_ADDRESS)
        return _plan_present(lead, person, options, situation)
    unclear = person.in_doubt and not any(key[0] in _IN_EXPORT for key in keys)
    if person.lead_id is not None and not (person.left == "deleted" and options.resume_returned):
        if options.if_gone == "skip":
            return Plan("gone", lead_id=person.lead_id, message="deleted in lemlist")
        return Plan(action="create", lead_id=person.lead_id, in_doubt=unclear)
    asked = person.elsewhere if options.flags.get("deduplicate") and options.if_elsewhere == "skip" else None
    if asked and situation.now - datetime.fromisoformat(asked) < options.recheck_elsewhere:
        return Plan("elsewhere", message="in another campaign; not asked for again yet")
    if unclear:
        return Plan("uncertain", message=_UNCLEAR)
    return Plan(action="create", in_doubt=person.in_doubt)


def _plan_present(
    lead: Mapping[str, str], person: Person, options: LoadOptions, situation: Situation
) -> Plan:
    """Return what to do about a person who is in the campaign."""
    changes: dict[str, str] = {}
    if options.if_exists == "update":
        known = json.loads(person.sent)
        hidden = situation.sent(lead)
        changes = {
            name: value
            for name, value in differing_fields(lead, json.loads(person.lead or "{}")).items()
            if name not in hidden or hidden[name] != known.get(name)
        }
    if person.left == "paused" and person.status == "paused" and options.resume_returned:
        return Plan(action="resume", lead_id=person.lead_id, changes=changes)
    if changes:
        return Plan(action="update", lead_id=person.lead_id, changes=changes, in_doubt=person.in_doubt)
    if person.in_doubt:
        return Plan("created", lead_id=person.lead_id, message="created by an interrupted attempt")
    return Plan("unchanged" if options.if_exists == "update" else "exists", lead_id=person.lead_id)


def plan_departure(person: Person, options: LoadOptions) -> Plan | None:
    """Return what to do about a person who left the source, or None for nothing."""
    if person.left is not None or options.if_missing == "keep" or person.run > options.run.order:
        return None
    if (options.if_missing, person.status) == ("pause", "paused"):
        return None  # a user paused the lead, so a load must not resume it later
    return Plan(action=options.if_missing, lead_id=person.lead_id)
