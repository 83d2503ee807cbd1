# SPDX-License-Identifier: Apache-2.0
"""
The decision of ``ActivitySensor``: which activities count, and whether there are enough.

Pure: the sensor's poke passes one listing to ``WaitCondition.find``, the trigger the rows that all waiting
sensors read together. Nothing here imports Airflow, sends requests or reads the clock.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow_provider_lemlist.arguments import given_but_empty, listed
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.validation import hint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What to do with opens and clicks that lemlist attributes to a bot, such as a mail scanner.
Bots = Literal["ignore", "count"]

#: Most activities that a sensor returns, unless ``min_count`` is higher. They pass through Airflow's
#: database, and a task mapped over them must stay below Airflow's ``max_map_length`` of 1024.
RESULT_LIMIT = 500

#: How far a read of the news reaches back behind the read before it, for activities that are listed late.
OVERLAP = timedelta(hours=1)

#: How far an event trigger reaches back now and then, for activities that are listed hours late.
LOOKBACK = timedelta(days=1)

#: The ``min_count`` of a condition that needs all activities, however many there are.
ALL = sys.maxsize

_FIELD_NAMES = """
_id type createdAt isFirst bot stopped relatedSentAt sendUserId
campaignId leadId contactId companyId opportunityId sequenceId stepId sequenceStep sequenceTested
emailId emailTemplateId
"""

#: The fields of an activity that a sensor returns: ids, times and flags. Names, addresses and texts are left
#: out, because the triggerer logs the event that it fires, and every user of Airflow can read an XCom.
RETURNED_FIELDS = tuple(_FIELD_NAMES.split())

_TYPE_NAMES = """
contacted hooked attracted warmed interested notInterested
emailsSent emailsOpened emailsClicked emailsReplied emailsBounced emailsFailed emailsInterested
emailsNotInterested emailsUnsubscribed emailsDone emailsExternalSent emailsExternalReceived emailsIgnored
outOfOffice mailinblackDetected
linkedinSent linkedinOpened linkedinReplied linkedinInterested linkedinNotInterested linkedinSendFailed
linkedinVisitDone linkedinVisitFailed linkedinVisitSkipped linkedinFollowDone linkedinFollowFailed
linkedinFollowSkipped linkedinInviteDone linkedinInviteFailed linkedinInviteAccepted linkedinEndorseDone
linkedinEndorseFailed linkedinEndorseSkipped linkedinVoiceNoteDone linkedinVoiceNoteFailed
linkedinVoiceNoteReplied linkedinLikeLastPostDone linkedinLikeLastPostNoPost linkedinLikeLastPostFailed
linkedinLikeLastPostSkipped linkedinCommentLastPostDone linkedinCommentLastPostFailed
linkedinCommentLastPostSkipped linkedinInMailSent linkedinInMailFailed linkedinInMailSkipped
linkedinWithdrawInvitationDone linkedinWithdrawInvitationFailed linkedinDone linkedinIgnored
whatsappMessageSent whatsappMessageDelivered whatsappMessageOpened whatsappReplied whatsappMessageFailed
whatsappDone whatsappIgnored whatsappVoiceNoteSent whatsappVoiceNoteDelivered whatsappVoiceNoteOpened
whatsappVoiceNoteReplied whatsappVoiceNoteFailed whatsappVoiceNoteIgnored
smsSent smsDelivered smsReplied smsFailed smsDone smsIgnored
aircallCreated aircallEnded aircallDone aircallInterested aircallNotInterested aircallIgnored
apiDone apiInterested apiNotInterested apiFailed apiUnsubscribed apiIgnored
manualInterested manualNotInterested manualDone manualIgnored manualUnsubscribed manualEmailQueued
manualLinkedinSendQueued manualLinkedinVoiceNoteQueued manualLinkedinInviteQueued
manualLinkedinCommentLastPostQueued manualWhatsappMessageQueued manualWhatsappVoiceNoteQueued annotated
snoozed
paused resumed stopped skipped conditionChosen conditionalFailed hasEmailAddress meetingBooked
sendToAnotherCampaign scheduleCancelled
enrichmentDone enrichmentFailed enrichmentSkipped aiVariableDone aiVariableFailed
entityUnsubscribed variableUnsubscribed entitySubscribed variableSubscribed
"""

#: lemlist adds names without notice, so an unknown one is warned about and never refused.
KNOWN_TYPES = frozenset(_TYPE_NAMES.split())


class Activity(NamedTuple):
    """One activity, with the fields that the decision needs read once."""

    id: str
    type: str
    at: datetime
    lead_id: str | None
    is_first: bool | None
    by_bot: bool
    row: dict[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Activity:
        """Read a row of lemlist's listing."""
        lead_id = row.get("leadId") or (row.get("metaData") or {}).get("leadId")
        returned = {name: row[name] for name in RETURNED_FIELDS if name in row}
        if lead_id:
            returned["leadId"] = lead_id
        activity_type = row.get("type", "")
        return cls(
            id=row["_id"],
            type=activity_type,
            at=_created_at(row),
            lead_id=lead_id,
            is_first=row.get("isFirst"),
            # Bots open messages and follow links. Losing a reply would be worse than counting a bot's.
            by_bot=row.get("bot") is True and activity_type.endswith(("Opened", "Clicked")),
            row=returned,
        )


@dataclass(frozen=True, slots=True)
class WaitCondition:
    """What one sensor or event trigger waits for; its arguments are theirs, with ``since`` in UTC."""

    types: tuple[str, ...]
    since: datetime
    min_count: int = 1
    lead_id: str | None = None
    is_first: bool | None = None
    bots: Bots = "ignore"
    overlap: timedelta = OVERLAP

    @classmethod
    def of(cls, waiter: Any, since: datetime) -> WaitCondition:
        """Read the other arguments of a sensor or a trigger."""
        types = checked_types(waiter.activity_type)
        return cls(types, since, waiter.min_count, waiter.lead_id, waiter.is_first, waiter.bots)

    @property
    def limit(self) -> int:
        """The maximum number of activities to return."""
        return max(self.min_count, RESULT_LIMIT)

    def counts(self, activity: Activity) -> bool:
        """Return whether an activity counts."""
        return (
            activity.at >= self.since
            and activity.type in self.types
            and (self.lead_id is None or activity.lead_id == self.lead_id)
            # Not every type has the flag; lemlist has then applied its own filter.
            and (self.is_first is None or activity.is_first is None or activity.is_first == self.is_first)
            and (self.bots == "count" or not activity.by_bot)
        )

    def find(self, activities: Iterable[Activity]) -> list[dict[str, Any]] | None:
        """
        Return the activities that count, oldest first, or None if there are too few.

        Stop reading at the limit, so that a listing of thousands costs no more pages than its result needs.
        """
        found: dict[str, Activity] = {}
        for activity in activities:
            if self.counts(activity):
                found[activity.id] = activity  # offset paging repeats rows while new ones arrive
                if len(found) >= self.limit:
                    break
        if len(found) < self.min_count:
            return None
        return [activity.row for activity in sorted(found.values(), key=lambda activity: activity.at)]


def listing_bounds(since: datetime, now: datetime) -> dict[str, datetime]:
    """
    Return the bounds of a listing. With both of them set, its pages do not move while they are read.

    lemlist refuses an upper bound that is not above the lower one, and may compare whole seconds.
    """
    return {"since": since, "until": max(now, since + timedelta(seconds=1))}


def checked_types(value: Any) -> tuple[str, ...]:
    """
    Return the activity types given as one name or several.

    :raises LemlistConfigurationError: There is none, or one is not text.
    """
    names = listed(value)
    if not names:
        raise LemlistConfigurationError(
            f"activity_type must be a type such as 'emailsReplied' or a list of them, not {value!r}."
        )
    for name in names:
        if not isinstance(name, str) or given_but_empty(name):
            raise LemlistConfigurationError(
                f"activity_type contains {name!r}, which is not an activity type."
            )
    return tuple(dict.fromkeys(name.strip() for name in names))


def unknown_type_warning(activity_type: str) -> str | None:
    """Return a warning about a type that is not in ``KNOWN_TYPES``, or None."""
    if activity_type in KNOWN_TYPES:
        return None
    meant = hint(activity_type, tuple(sorted(KNOWN_TYPES)))
    return f"Activity type {activity_type!r} is unknown here{meant}; the request is sent all the same."


def _created_at(row: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(row["createdAt"])
    except (KeyError, TypeError, ValueError):
        # lemlist listed it within the requested window, so it counts.
        return datetime.max.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
