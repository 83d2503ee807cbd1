# SPDX-License-Identifier: Apache-2.0
"""
What is looked at before a campaign is started or leads are launched, and what forbids it.

One request each: the campaign, its statutes, its sequences, its schedules and the export of its leads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.delivery.evidence import AUTO_REVIEW, SENDS_AT_ONCE, auto_review
from airflow_provider_lemlist.exceptions import LemlistGuardError
from airflow_provider_lemlist.launch.checks import (
    CONTACTED,
    LAUNCHABLE,
    IsSuppressed,
    LeadState,
    Statutes,
    blank_variables,
    count_statuses,
    lead_state,
    read_statutes,
    senders_of,
    statuses_of,
)
from airflow_provider_lemlist.launch.hours import UNKNOWN, hours_in_words, next_opening
from airflow_provider_lemlist.placeholders import texts_of, variables_of
from airflow_provider_lemlist.validation import Finding, plural

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.launch.options import IfPaused

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readiness:
    """
    Whether a campaign is ready to send, to whom and when; without personal data.

    :param status: Its statuses, mostly one.
    :param senders: Ids of the users who send.
    :param auto_review: Whether lemlist contacts each lead as soon as it is created, None if it does not say.
    :param leads: How many leads have each status.
    :param hours: When it may send, in words.
    :param opening: The next such moment from now on, None if unknown.
    :param to_contact: How many leads would be launched, or contacted.
    :param blank: The variables that the texts need and that are blank in some of these leads.
    """

    campaign_id: str
    name: str
    status: str
    senders: tuple[str, ...]
    auto_review: bool | None
    statutes: Statutes
    leads: Mapping[str, int]
    hours: str
    opening: datetime | None
    is_open: bool
    to_contact: int = 0
    blank: Mapping[str, Finding] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything for XCom."""
        return {
            "campaign_id": self.campaign_id,
            "name": self.name,
            "status": self.status,
            "senders": list(self.senders),
            "auto_review": self.auto_review,
            "blocking": list(self.statutes.blocking),
            "warnings": list(self.statutes.warnings),
            "information": list(self.statutes.information),
            "leads": dict(self.leads),
            "hours": self.hours,
            "next_opening": None if self.opening is None else self.opening.isoformat(timespec="minutes"),
            "to_contact": self.to_contact,
            "missing_variables": {name: finding.number for name, finding in self.blank.items()},
        }

    def _when(self) -> str:
        """Return when the campaign may send next, as the end of a line."""
        if self.is_open:
            return "; open now"
        return f"; next {self.opening:%Y-%m-%d %H:%M}" if self.opening else ""

    def log(self) -> None:
        """Log it, for a person who reads the log before anything starts."""
        campaign_id, leads = self.campaign_id, self.leads
        senders = f"{plural(len(self.senders), 'sender')} {', '.join(self.senders)}".strip()
        known = self.name, self.status, senders, AUTO_REVIEW[self.auto_review]
        log.info("Campaign %s: %r, %s, %s, %s.", campaign_id, *known)
        counts = ", ".join(f"{number:,} {status}" for status, number in leads.items())
        log.info(
            "Campaign %s: %s%s.", campaign_id, plural(sum(leads.values()), "lead"), counts and f": {counts}"
        )
        log.info("Campaign %s: hours of sending: %s%s.", campaign_id, self.hours, self._when())
        if self.auto_review:
            log.warning("Campaign %s: %s", campaign_id, SENDS_AT_ONCE)
        for text in self.statutes.blocking:
            log.error("Campaign %s: lemlist says: %s", campaign_id, text)
        for text in self.statutes.warnings:
            log.warning("Campaign %s: lemlist warns: %s", campaign_id, text)
        for text in self.statutes.information:
            log.info("Campaign %s: lemlist informs: %s", campaign_id, text)
        for name, finding in self.blank.items():
            log.warning("The texts of the campaign use %r, which is blank in %s.", name, finding)


class Look(NamedTuple):
    """What was found: whether the campaign is ready, and each lead in the order of the export."""

    readiness: Readiness
    leads: list[LeadState]
    #: The seconds that lemlist took to respond.
    latency: float

    def to_start(self) -> Readiness:
        """Return whether the campaign is ready to be started: it then contacts leads that were launched."""
        contacted = [lead for lead in self.leads if lead.status == CONTACTED]
        return replace(self.readiness, to_contact=len(contacted), blank=blank_variables(contacted))


def look(
    hook: LemlistHook,
    campaign: Mapping[str, Any],
    is_suppressed: IsSuppressed = lambda lead: False,
) -> Look:
    """
    Look at everything that matters before a campaign contacts people.

    :param campaign: The campaign, as lemlist returns it.
    """
    campaign_id = str(campaign["_id"])
    # The request for the campaign has opened the connection, so this one shows the latency.
    began = time.monotonic()
    statutes = read_statutes(hook.get_statutes(campaign_id))
    latency = time.monotonic() - began
    needed = sorted(variables_of(texts_of(hook.get_sequences(campaign_id))).needed)
    schedules = list(hook.list_schedules(campaign_id))
    rows = hook.iter_leads(campaign_id, with_variables=True)
    leads = [lead_state(row, needed, is_suppressed) for row in rows]
    now = datetime.now(UTC)
    opening = next_opening(schedules, now)
    readiness = Readiness(
        campaign_id=campaign_id,
        name=str(campaign.get("name") or ""),
        status=", ".join(sorted(statuses_of(campaign))) or UNKNOWN,
        senders=senders_of(campaign),
        auto_review=auto_review(campaign),
        statutes=statutes,
        leads=count_statuses(leads),
        hours=hours_in_words(schedules),
        opening=opening,
        is_open=opening == now,
    )
    return Look(readiness, leads, latency)


def check_statutes(readiness: Readiness) -> None:
    """
    Make sure that lemlist names nothing that blocks a launch.

    :raises LemlistGuardError: It does.
    """
    if texts := readiness.statutes.blocking:
        raise LemlistGuardError(
            f"Campaign {readiness.campaign_id} is not ready. lemlist says: {' · '.join(texts[:5])} "
            "Mend that in lemlist. Nothing was sent."
        )


def check_status(readiness: Readiness, if_paused: IfPaused) -> None:
    """
    Make sure that the campaign is running, or a draft.

    :raises LemlistGuardError: It is not.
    """
    statuses = frozenset(readiness.status.split(", "))
    if statuses <= LAUNCHABLE or (if_paused == "launch" and "archived" not in statuses):
        return
    raise LemlistGuardError(
        f"Campaign {readiness.campaign_id} is {readiness.status}: leads that are launched now are contacted "
        "when it is resumed. Find out why it is, and start it again, or set if_paused='launch'. "
        "Nothing was sent."
    )


def check_variables(readiness: Readiness, ways_out: str) -> None:
    """
    Make sure that every lead to contact has a value for the variables that the texts need.

    :param ways_out: The values of ``if_variable_missing`` that do not fail.
    :raises LemlistGuardError: Some lack one.
    """
    if readiness.blank:
        lacking = "; ".join(f"{name!r} in {finding}" for name, finding in readiness.blank.items())
        raise LemlistGuardError(
            f"The texts of campaign {readiness.campaign_id} use variables that are blank: {lacking}. Give "
            f"the leads a value or the texts a default, or set if_variable_missing to {ways_out}. "
            "Nothing was sent."
        )
