# SPDX-License-Identifier: Apache-2.0
"""Campaigns: create, read, update, start, pause, statistics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError, bad_team
from airflow_provider_lemlist.sandbox.model import STATUSES, Activity, Campaign, User, World, iso
from airflow_provider_lemlist.sandbox.routes import Call, route
from airflow_provider_lemlist.sandbox.statutes import errors, statutes

PROGRESS = {"campaignProgress": ("continue", "pause", "stop"), "propagateProgressToCompany": "boolean"}
INTEREST = dict.fromkeys(
    ("enabled", "pauseAllCampaignsForLead", "pauseCampaignForCompany", "pauseAllCampaignsForCompany"),
    "boolean",
)

#: The fields of an update, and what each accepts: see ``checks.setting``.
SETTINGS: dict[str, Any] = {
    **dict.fromkeys(
        (
            "stopOnEmailReplied",
            "stopOnMeetingBooked",
            "stopOnLinkClicked",
            "leadsPausedByInterest",
            "opportunityReplied",
            "opportunityClicked",
            "autoLeadInterest",
            "disableTrackOpen",
            "disableTrackClick",
            "disableTrackReply",
            "disableOutOfOffice",
            "sequenceSharing",
            "autoReview",
        ),
        "boolean",
    ),
    **dict.fromkeys(("name", "stopOnLinkClickedFilter"), "string"),
    **dict.fromkeys(("autoReviewConditions", "sendUserIds"), "array"),
    "tracking": dict.fromkeys(("trackOpens", "trackClicks", "trackReplies"), "boolean"),
    "onReplied": {**PROGRESS, "createNewTask": "boolean", "disableOutOfOffice": "boolean"},
    "onLinkClicked": {**PROGRESS, "createNewTask": "boolean", "specificLinks": "array"},
    "onMeetingBooked": PROGRESS,
    "aiFeatures": {
        "scoreReplies": "boolean",
        "onInterestedReply": INTEREST,
        "onNotInterestedReply": INTEREST,
    },
}


@route(
    "GET /campaigns",
    query=["version", "limit", "offset", "page", "sortBy", "sortOrder", "status", "createdBy"],
)
def list_campaigns(call: Call) -> Any:
    query = call.query
    if query.get("version") != "v2":
        call.violations.append(("query", "version=v2 is missing: the response may be of v1"))
    if query.get("sortBy") not in (None, "createdAt"):  # the only value, and the order of the world
        raise checks.mismatch("Expected createdAt in sortBy")
    wanted, by = query.get("status"), query.get("createdBy")
    if wanted not in (None, *STATUSES):
        raise checks.mismatch("Expected a known status in status")
    found = [
        each
        for each in call.world.campaigns.values()
        if wanted in (None, each.status) and by in (None, each.created_by)
    ]
    if query.get("sortOrder") == "desc":
        found.reverse()
    part = call.page()
    if "page" in query:
        size = part.stop - part.start
        start = (checks.number(query, "page", 1, minimum=1) - 1) * size
        part = slice(start, start + size)
    items = [campaign_item(each, call.world) for each in found[part]]
    if call.undocumented.campaign_list == "array":
        return items
    return {"campaigns": items, "pagination": pagination(len(found), part)}


def pagination(total: int, part: slice) -> dict[str, Any]:
    """Return the ``pagination`` of schedules and of campaigns as an object."""
    size = part.stop - part.start
    pages, current = max(1, -(-total // size)), part.start // size + 1
    return {
        "totalRecords": total,
        "currentPage": current,
        "nextPage": current + 1 if current < pages else None,
        "totalPage": pages,
    }


@route("POST /campaigns")
def create_campaign(call: Call) -> Any:
    body = call.json()
    if not isinstance(body.get("name"), str) or not body["name"].strip():
        raise checks.mismatch("Missing key 'name'")
    checks.known_keys(body, {"name", "timezone", "autoReview", "autoReviewConditions"})
    campaign = call.world.add_campaign(
        body["name"],
        timezone=checks.timezone(checks.expect("string", body.get("timezone", "Europe/Paris"), "timezone")),
        auto_review=checks.expect("boolean", body.get("autoReview", False), "autoReview"),
        auto_review_conditions=_conditions(body),
    )
    return campaign_created(campaign, call.world)


def _conditions(body: Mapping[str, Any]) -> list[str]:
    given: list[str] = checks.expect("array", body.get("autoReviewConditions", []), "autoReviewConditions")
    for each in given:
        if each not in checks.REVIEW_CONDITIONS:
            raise checks.mismatch("Expected a known condition in field autoReviewConditions")
    return given


@route("GET /campaigns/{campaignId}")
def get_campaign(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    creator = call.world.users[0]
    return {
        **campaign_item(campaign, call.world),
        "creator": {"userId": creator.id, "userEmail": creator.email},
        "senders": senders(campaign, call.world),
        "sequenceId": campaign.sequence_id,
        "scheduleIds": list(campaign.schedule_ids),
        "teamId": call.world.team_id,
        **({"autoReview": campaign.auto_review} if call.undocumented.auto_review_listed else {}),
    }


@route("PATCH /campaigns/{campaignId}")
def update_campaign(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    body = call.update(SETTINGS)
    checks.setting("body", body, SETTINGS)
    conditions = _conditions(body)
    if "sendUserIds" in body:
        body["sendUserIds"] = _members(call, body["sendUserIds"])
    campaign.settings |= body
    campaign.name = body.get("name", campaign.name)
    campaign.auto_review = body.get("autoReview", campaign.auto_review)
    if "autoReviewConditions" in body:
        campaign.auto_review_conditions = conditions
    shown = {
        "_id": campaign.id,
        "name": campaign.name,
        "autoReview": campaign.auto_review,
        **{name: value for name, value in campaign.settings.items() if name != "sendUserIds"},
    }
    if "sendUserIds" in body:
        shown["sendUsers"] = [_send_user(each) for each in call.world.senders_of(campaign)]
    return shown


def _members(call: Call, user_ids: list[Any]) -> list[str]:
    """Return those who are members of the team; lemlist's documented refusal is for a list without any."""
    for each in user_ids:
        checks.expect("string", each, "sendUserIds")
    known = {user.id for user in call.world.users}
    members = [each for each in dict.fromkeys(user_ids) if each in known]
    if not members:
        raise checks.bad_request("None of the provided sender IDs are members of this team")
    if not known.issuperset(user_ids):
        call.violations.append(("body", "sendUserIds contains users who are not members of the team"))
    return members


@route("POST /campaigns/{campaignId}/start")
def start_campaign(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    if campaign.status == "running" and call.undocumented.restart == "refused":
        raise ApiError(400, "You can't start campaigns that are already running")
    if campaign.status == "archived":
        raise bad_team()
    campaign.status = "running"
    return {"_id": campaign.id, "state": "running"}


@route("POST /campaigns/{campaignId}/pause")
def pause_campaign(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    if campaign.status != "running" and call.undocumented.restart == "refused":
        raise ApiError(400, "You can't pause campaigns that are not running")
    if campaign.status == "running":
        campaign.status = "paused"
    return {"_id": campaign.id, "state": "paused"}


@route("GET /campaigns/{campaignId}/statutes")
def get_statutes(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    found = statutes(campaign, call.world)
    return {
        "name": campaign.name,
        "status": campaign.status,
        "statutes": [
            {"type": each.type, "level": each.level, "message": each.message, "category": each.category}
            for each in found
        ],
    }


# --- Statistics -------------------------------------------------------------------------------------------

CHANNELS = ("others", "email", "linkedin")
STATS_QUERY = ["startDate", "endDate", "sendUser", "ABSelected", "channels"]

#: The counters and the activities that each counts; emails that bounced are not delivered.
COUNTERS: dict[str, tuple[str, ...]] = {
    "messagesSent": ("emailsSent", "linkedinSent", "linkedinInviteDone", "whatsappMessageSent", "smsSent"),
    "messagesNotSent": ("emailsFailed", "linkedinSendFailed", "linkedinInviteFailed"),
    "messagesBounced": ("emailsBounced",),
    "delivered": ("emailsSent", "linkedinSent", "whatsappMessageDelivered", "smsDelivered"),
    "opened": ("emailsOpened", "linkedinOpened", "whatsappMessageOpened"),
    "clicked": ("emailsClicked",),
    "replied": ("emailsReplied", "linkedinReplied", "whatsappReplied", "smsReplied"),
    "invitationAccepted": ("linkedinInviteAccepted",),
    "meetingBooked": ("meetingBooked",),
}
UNSUBSCRIBED = (
    "emailsUnsubscribed", "apiUnsubscribed", "manualUnsubscribed", "entityUnsubscribed",
    "variableUnsubscribed",
)  # fmt: skip
#: The counts of leads; a lead is counted if one of these counters or types of activities is above zero.
REACHED: dict[str, tuple[str, ...]] = {
    "nbLeadsReached": ("delivered",),
    "nbLeadsOpened": ("opened",),
    "nbLeadsInteracted": ("clicked", "invitationAccepted", "replied"),
    "nbLeadsAnswered": ("replied",),
    "nbLeadsUnsubscribed": UNSUBSCRIBED,
}


@route("GET /v2/campaigns/{campaignId}/stats", query=STATS_QUERY)
def get_stats(call: Call) -> Any:
    channels = call.query.get("channels")
    try:
        parsed = json.loads(channels) if channels else []
    except ValueError:
        raise checks.bad_request("Bad params: channels must be a valid array") from None
    campaign = call.world.campaign(call.params["campaignId"])
    return stats(campaign, call.world, StatsFilter.read({**call.query, "channels": parsed}, call.world))


@route("POST /v2/campaigns/stats/batch")
def get_stats_batch(call: Call) -> Any:
    body = call.json()
    ids = body.get("campaignIds")
    if not isinstance(ids, list) or not ids:
        raise checks.bad_request("Bad params: campaignIds must be a non-empty array")
    if len(ids) > 100:
        raise checks.bad_request("Bad params: campaignIds must contain at most 100 items")
    checks.known_keys(body, {"campaignIds", *STATS_QUERY})
    for each in ids:
        checks.expect("string", each, "campaignIds")
    wanted = StatsFilter.read(body, call.world)
    known = [each for each in ids if each in call.world.campaigns]
    return {
        "results": [
            {"campaignId": each, **stats(call.world.campaigns[each], call.world, wanted)} for each in known
        ],
        "errors": [{"campaignId": each, "error": "Campaign not found"} for each in ids if each not in known],
    }


class StatsFilter(NamedTuple):
    """The activities that statistics count; no channels means all channels, no sender all senders."""

    start: float
    end: float
    channels: tuple[str, ...] = ()
    sender: str = ""

    @classmethod
    def read(cls, params: Mapping[str, Any], world: World) -> StatsFilter:
        if not params.get("startDate") or not params.get("endDate"):
            raise checks.bad_request("Bad params: startDate and endDate are required")
        channels = params.get("channels", [])
        if not isinstance(channels, list):
            raise checks.bad_request("Bad params: channels must be a valid array")
        if not all(each in CHANNELS for each in channels):
            text = 'Bad params: channels must be empty or contain "others", "email" or "linkedin"'
            raise checks.bad_request(text)
        if params.get("ABSelected") not in (None, "A", "B"):
            raise checks.bad_request("Bad params: ABSelected must be A or B")
        sender, bar, email = str(params.get("sendUser") or "").partition("|")
        if sender and not bar:
            text = "Bad param format: sendUser must be formatted as follow: <sendUserId>|<sendUserEmail>"
            raise checks.bad_request(text)
        if sender and email not in [user.email for user in world.users if user.id == sender]:
            raise checks.bad_request("Bad params: the send user email is not related to the send user id")
        start, end = (checks.parse_moment(str(params[name]), name) for name in ("startDate", "endDate"))
        return cls(start, end, tuple(channels), sender)

    def select(self, campaign: Campaign, world: World) -> list[Activity]:
        """Return the activities of a campaign that are counted."""
        if self.sender not in ("", campaign.sender_id):
            return []
        found = world.find_activities(self.start, self.end, campaign_id=campaign.id).all()
        return [each for each in found if not self.channels or _channel(each.type) in self.channels]


def _channel(type: str) -> str:
    return "email" if type.startswith("emails") else "linkedin" if type.startswith("linkedin") else "others"


def stats(campaign: Campaign, world: World, wanted: StatsFilter) -> dict[str, Any]:
    """Return the statistics of a campaign over the activities that the filter selects."""
    happened = wanted.select(campaign, world)
    of_lead = _counters((each.lead.id, each.type) for each in happened)
    leads = campaign.leads.values()
    stages = Counter(lead.stage for lead in leads)
    return {
        "nbLeads": len(leads),
        "nbLeadsLaunched": sum(lead.launched_at is not None for lead in leads),
        **{
            name: sum(any(counts[each] for each in counters) for counts in of_lead.values())
            for name, counters in REACHED.items()
        },
        "nbLeadsInterested": stages["interested"],
        "nbLeadsNotInterested": stages["notInterested"],
        "nbLeadsInterrupted": 0,
        **{name: sum(counts[name] for counts in of_lead.values()) for name in COUNTERS},
        "steps": _step_rows(campaign, world, happened),
    }


Owner = TypeVar("Owner", bound=Hashable)


def _counters(happened: Iterable[tuple[Owner, str]]) -> dict[Owner, Counter[str]]:
    """Return how often each owner has each type of activity, and the counters of these."""
    found: dict[Owner, Counter[str]] = {}
    for (owner, type), number in Counter(happened).items():
        counts = found.setdefault(owner, Counter())
        for name in (type, *(name for name, types in COUNTERS.items() if type in types)):
            counts[name] += number
    for counts in found.values():
        # The bounce of an email that was sent before the window takes nothing from what was sent inside it.
        counts["delivered"] -= min(counts["emailsSent"], counts["emailsBounced"])
    return found


def _step_rows(campaign: Campaign, world: World, happened: list[Activity]) -> list[dict[str, Any]]:
    of_step: dict[str, Counter[str]] = {}
    of_lead = _counters(((each.step.id, each.lead.id), each.type) for each in happened if each.step)
    for (step_id, _), counts in of_lead.items():
        of_step.setdefault(step_id, Counter()).update(counts)
    rows = []
    for sequence in world.sequences_of(campaign):
        for position, step in enumerate(sequence.steps):
            counts = of_step.get(step.id, Counter())
            rows.append(
                {
                    "index": position + 1,
                    "sequenceId": sequence.id,
                    "sequenceStep": position,
                    "taskType": step.type,
                    "invited": counts["linkedinInviteDone"],
                    "sent": counts["messagesSent"],
                    "delivered": counts["delivered"],
                    "opened": counts["opened"],
                    "clicked": counts["clicked"],
                    "replied": counts["replied"],
                    "notDelivered": counts["messagesNotSent"],
                    "bounced": counts["messagesBounced"],
                    "unsubscribed": sum(counts[type] for type in UNSUBSCRIBED),
                }
            )
    return rows


# --- Shapes -----------------------------------------------------------------------------------------------


def campaign_item(campaign: Campaign, world: World) -> dict[str, Any]:
    """Return a campaign as the list shows it."""
    found = errors(campaign, world)
    return {
        "_id": campaign.id,
        "name": campaign.name,
        "emoji": "🚀",
        "timezone": campaign.timezone,
        "labels": [],
        "createdAt": iso(campaign.created_at),
        "createdBy": campaign.created_by,
        "status": campaign.status,
        "hasError": bool(found),
        "errors": found,
    }


def senders(campaign: Campaign, world: World) -> list[dict[str, Any]]:
    return [
        {"id": user.id, "email": user.email, "sendUserMailboxId": user.mailbox_id}
        for user in world.senders_of(campaign)
    ]


def _send_user(user: User) -> dict[str, Any]:
    """Return a sender as the response to an update does."""
    return {
        "id": user.id,
        "mailboxes": [{"sendUserMailboxId": user.mailbox_id, "email": user.email}],
        "phoneNumbers": [],
        "whatsappAccountIds": [],
    }


def campaign_created(campaign: Campaign, world: World) -> dict[str, Any]:
    """Return a new campaign as the create route does: its ``state`` is ``running``, its status ``draft``."""
    return {
        "_id": campaign.id,
        "name": campaign.name,
        "sequenceId": campaign.sequence_id,
        "scheduleIds": list(campaign.schedule_ids),
        "teamId": world.team_id,
        "createdBy": campaign.created_by,
        "createdAt": iso(campaign.created_at),
        "state": "running",
        "scannedCount": 0,
        "reviewedCount": 0,
        "inSequenceLeadCount": 0,
        "variableKeys": [],
        "senders": [],
        "sendUsers": [],
        "displayedVariableKeys": [],
        "emoji": "🚀",
        "stopOnEmailReplied": True,
        "crmOpportunitiesOnTask": False,
        "unsubscribe": False,
    }
