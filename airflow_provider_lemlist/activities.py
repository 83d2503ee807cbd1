# SPDX-License-Identifier: Apache-2.0
"""
The decision of ``ActivitySensor``: which activities count, since when, and whether there are enough.

Pure: the sensor's poke reads one listing and asks :meth:`Wait.find`, the trigger asks the same of the rows
that all waiting sensors read together. Nothing here knows Airflow, HTTP or the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Most activities that a sensor hands on, unless it waits for more. They go through Airflow's database, and
#: a task mapped over them must stay below Airflow's ``max_map_length`` of 1024.
RESULT_LIMIT = 500

#: What the next task gets of an activity: ids, times and flags. Names, addresses and texts stay out, because
#: the triggerer writes the event it fires to its log, and an XCom is there for everybody to see.
KEPT = (
    "_id",
    "type",
    "createdAt",
    "isFirst",
    "bot",
    "stopped",
    "campaignId",
    "leadId",
    "contactId",
    "companyId",
    "sequenceId",
    "stepId",
    "sequenceStep",
    "sequenceTested",
    "emailId",
    "emailTemplateId",
    "opportunityId",
    "relatedSentAt",
    "sendUserId",
)

_SEEN_SO_FAR = """
contacted hooked attracted warmed interested notInterested

emailsSent emailsOpened emailsClicked emailsReplied emailsBounced emailsFailed emailsInterested
emailsNotInterested emailsUnsubscribed emailsDone emailsExternalSent emailsExternalReceived emailsIgnored
outOfOffice mailinblackDetected

linkedinSent linkedinOpened linkedinReplied linkedinInterested linkedinNotInterested linkedinSendFailed
linkedinVisitDone linkedinVisitFailed linkedinVisitSkipped
linkedinFollowDone linkedinFollowFailed linkedinFollowSkipped
linkedinInviteDone linkedinInviteFailed linkedinInviteAccepted
linkedinEndorseDone linkedinEndorseFailed linkedinEndorseSkipped
linkedinVoiceNoteDone linkedinVoiceNoteFailed linkedinVoiceNoteReplied
linkedinLikeLastPostDone linkedinLikeLastPostNoPost linkedinLikeLastPostFailed linkedinLikeLastPostSkipped
linkedinCommentLastPostDone linkedinCommentLastPostFailed linkedinCommentLastPostSkipped
linkedinInMailSent linkedinInMailFailed linkedinInMailSkipped
linkedinWithdrawInvitationDone linkedinWithdrawInvitationFailed linkedinDone linkedinIgnored

whatsappMessageSent whatsappMessageDelivered whatsappMessageOpened whatsappReplied whatsappMessageFailed
whatsappDone whatsappIgnored whatsappVoiceNoteSent whatsappVoiceNoteDelivered whatsappVoiceNoteOpened
whatsappVoiceNoteReplied whatsappVoiceNoteFailed whatsappVoiceNoteIgnored

smsSent smsDelivered smsReplied smsFailed smsDone smsIgnored

aircallCreated aircallEnded aircallDone aircallInterested aircallNotInterested aircallIgnored

apiDone apiInterested apiNotInterested apiFailed apiUnsubscribed apiIgnored

manualInterested manualNotInterested manualDone manualIgnored manualUnsubscribed manualEmailQueued
manualLinkedinSendQueued manualLinkedinVoiceNoteQueued manualLinkedinInviteQueued
manualLinkedinCommentLastPostQueued manualWhatsappMessageQueued manualWhatsappVoiceNoteQueued
annotated snoozed

paused resumed stopped skipped conditionChosen conditionalFailed hasEmailAddress meetingBooked
sendToAnotherCampaign scheduleCancelled

enrichmentDone enrichmentFailed enrichmentSkipped aiVariableDone aiVariableFailed

entityUnsubscribed variableUnsubscribed entitySubscribed variableSubscribed
"""

#: lemlist adds names without notice, so that this list can advise and never refuse.
KNOWN_TYPES = frozenset(_SEEN_SO_FAR.split())


class Activity(NamedTuple):
    """One activity, with what the decision looks at read once."""

    id: str
    type: str
    at: datetime
    lead_id: str | None
    is_first: bool | None
    row: dict[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Activity:
        """Read a row of lemlist's listing."""
        lead_id = row.get("leadId") or (row.get("metaData") or {}).get("leadId")
        kept = {name: row[name] for name in KEPT if name in row}
        if lead_id:
            kept["leadId"] = lead_id
        return cls(
            id=row["_id"],
            type=row.get("type", ""),
            at=_created(row),
            lead_id=lead_id,
            is_first=row.get("isFirst"),
            row=kept,
        )


@dataclass(frozen=True, slots=True)
class Wait:
    """
    What one sensor waits for.

    :param types: Activity types; one of any of them counts.
    :param since: The first moment that counts, in UTC.
    :param min_count: How many it takes.
    :param lead_id: Count those of this lead only.
    :param is_first: Count the first of their type only, or the later ones only.
    """

    types: tuple[str, ...]
    since: datetime
    min_count: int = 1
    lead_id: str | None = None
    is_first: bool | None = None

    @property
    def limit(self) -> int:
        """How many activities are handed on at most."""
        return max(self.min_count, RESULT_LIMIT)

    def counts(self, activity: Activity) -> bool:
        """Whether the sensor waits for this activity."""
        return (
            activity.at >= self.since
            and activity.type in self.types
            and (self.lead_id is None or activity.lead_id == self.lead_id)
            # Not every type says whether it is a first one; then lemlist's own filter has decided.
            and (self.is_first is None or activity.is_first is None or activity.is_first == self.is_first)
        )

    def find(self, activities: Iterable[Activity]) -> list[dict[str, Any]] | None:
        """
        Return the activities that count, oldest first, or None while there are too few.

        Stops reading at the limit, so that a listing of thousands costs no more pages than its result needs.
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


def window(since: datetime, now: datetime) -> dict[str, datetime]:
    """
    Return the bounds of a listing: with both of them set, its pages stand still while it is read.

    lemlist refuses an upper bound that is not above the lower one, and may look at whole seconds.
    """
    return {"since": since, "until": max(now, since + timedelta(seconds=1))}


def as_types(value: Any) -> tuple[str, ...]:
    """
    Return the activity types that a user gave as one name or several.

    :raises LemlistConfigurationError: There is none, or one is no text.
    """
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple, set, frozenset)) or not names:
        raise LemlistConfigurationError(
            f"activity_type must be a type such as 'emailsReplied' or a list of them, not {value!r}."
        )
    for name in names:
        if not isinstance(name, str) or not name.strip() or name == "None":
            raise LemlistConfigurationError(f"activity_type holds {name!r}, which is no activity type.")
    return tuple(dict.fromkeys(name.strip() for name in names))


def as_moment(value: Any) -> datetime:
    """
    Return the moment that a user gave as a datetime or as ISO 8601 text. Without a time zone it is UTC.

    :raises LemlistConfigurationError: It is neither.
    """
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise LemlistConfigurationError(
            f"since must be a datetime or ISO 8601 text such as '2026-03-02T08:00:00+01:00', not {value!r}."
        )
    # A plain datetime also where pendulum gave its own: compared often, and written as text for the trigger.
    moment = moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)
    return datetime.fromisoformat(moment.isoformat())


def start_of_run(dag_run: Any) -> datetime:
    """
    Return the start of a run's data interval, or the run's own start where it has none.

    A run that was triggered by hand, by an asset or by the API may come without a data interval.
    """
    moment = getattr(dag_run, "data_interval_start", None) or getattr(dag_run, "start_date", None)
    if moment is None:
        raise LemlistConfigurationError("The run has neither a data interval nor a start; give since=.")
    return as_moment(moment)


def advice(activity_type: str) -> str | None:
    """Return what to tell about a type that nobody has seen yet, or None for a known one."""
    if activity_type in KNOWN_TYPES:
        return None
    from difflib import get_close_matches

    near = get_close_matches(activity_type, sorted(KNOWN_TYPES), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Activity type {activity_type!r} is unknown here; lemlist is asked for it all the same.{hint}"


def _created(row: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(row["createdAt"])
    except (KeyError, TypeError, ValueError):
        # Without a date it is inside the window that lemlist was asked for, or it would not be listed.
        return datetime.max.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
