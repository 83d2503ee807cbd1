# SPDX-License-Identifier: Apache-2.0
"""
The data of lemlist, in memory: one team with its campaigns, schedules, sequences, leads and activities.

The dataclasses hold the data; ``World`` finds, adds and removes it. ``routes/`` formats the responses and
``checks.py`` validates the requests. Hold ``world.lock`` while reading or changing a world.
"""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from threading import RLock
from typing import Any

from airflow_provider_lemlist.sandbox.activity_index import ActivityIndex, Found
from airflow_provider_lemlist.sandbox.errors import ApiError

#: The documented fields of a new lead; any other key is a custom variable.
LEAD_FIELDS = (
    "email", "firstName", "lastName", "companyName", "jobTitle", "linkedinUrl", "picture", "phone",
    "companyDomain", "icebreaker", "timezone", "contactOwner",
)  # fmt: skip
#: The statuses of a campaign.
STATUSES = ("running", "draft", "archived", "ended", "paused", "errors")
#: The sources of unsubscribed values; they are also written in capitals.
SOURCES = ("api", "bounced", "bounce", "lead", "user", "abuse")
#: The statuses of a sender's mailbox.
MAILBOX_STATUSES = ("CONNECTED", "ERROR", "DISCONNECTED")
ENRICHMENTS = ("linkedinEnrichment", "findEmail", "verifyEmail", "findPhone")


@dataclass
class User:
    """A member of the team, who sends the messages of campaigns."""

    id: str
    name: str
    email: str
    mailbox_status: str = "CONNECTED"

    @property
    def mailbox_id(self) -> str:
        return f"usm_{self.id.removeprefix('usr_')}"


@dataclass
class Schedule:
    """The days and the hours in which campaigns send; ``values`` holds its fields in lemlist's names."""

    id: str
    created_by: str
    created_at: float
    values: dict[str, Any]


#: What lemlist fills in for the fields that a new schedule lacks.
SCHEDULE_DEFAULTS: dict[str, Any] = {
    "name": "Default schedule",
    "timezone": "Europe/Paris",
    "start": "09:00",
    "end": "18:00",
    "weekdays": [1, 2, 3, 4, 5],
    "secondsToWait": 1200,
    "public": False,
}


@dataclass
class Branch:
    """One branch of a condition; ``key`` is None for the fallback."""

    sequence_id: str
    key: str | None
    label: str = ""
    delay: int = 0
    delay_type: str = ""


@dataclass
class Step:
    """One step; ``values`` are the stored fields, without type, delay and index."""

    id: str
    sequence_id: str
    type: str
    delay: int
    values: dict[str, Any]
    template_id: str | None = None
    branches: list[Branch] = field(default_factory=list)


@dataclass
class Sequence:
    """The main sequence of a campaign (level 0) or the sequence of a branch of a condition."""

    id: str
    campaign_id: str
    level: int = 0
    parent_id: str | None = None
    condition_id: str | None = None
    steps: list[Step] = field(default_factory=list)

    def step(self, step_id: str) -> Step:
        for step in self.steps:
            if step.id == step_id:
                return step
        raise ApiError(404, "Step not found")


@dataclass
class Lead:
    """A person in one campaign; ``values`` holds the documented fields and the custom variables."""

    id: str
    campaign_id: str
    contact_id: str
    values: dict[str, str]
    created_at: float
    updated_at: float
    #: The type of the last activity, or ``scanned``.
    state: str = "scanned"
    #: The stage in the campaign: review, running, done, interested, notInterested or unsubscribed.
    stage: str = "review"
    is_paused: bool = False
    owner: str | None = None
    preferred_contact_method: str | None = None
    email_status: str | None = None
    #: The requested enrichments; the sandbox does not run them.
    enrichments: tuple[str, ...] = ()
    launched_at: float | None = None

    @property
    def email(self) -> str:
        return self.values.get("email", "")

    @property
    def status(self) -> str:
        """The stage as lemlist shows it: ``paused`` replaces ``review`` and ``running``."""
        return "paused" if self.is_paused and self.stage in ("review", "running") else self.stage

    def launch(self, now: float) -> None:
        self.stage, self.launched_at = "running", now


@dataclass
class Contact:
    """The person of one or more leads, in the CRM of the team."""

    id: str
    email: str
    created_at: float
    do_not_contact: bool = False


@dataclass(frozen=True)
class Statute:
    """
    What lemlist says about a campaign before a launch.

    :param level: 3 blocks a launch, 2 warns, 1 informs.
    :param message: Its text, as HTML.
    """

    level: int
    message: str
    category: str

    def __post_init__(self) -> None:
        if self.level not in (1, 2, 3):
            raise ValueError(f"level must be 1, 2 or 3, not {self.level!r}")

    @property
    def type(self) -> str:
        return "information" if self.level == 1 else "issue"


@dataclass
class Campaign:
    """A campaign; a draft until it is started for the first time."""

    id: str
    name: str
    sequence_id: str
    schedule_ids: list[str]
    created_at: float
    created_by: str
    timezone: str = "Europe/Paris"
    auto_review: bool = False
    auto_review_conditions: list[str] = field(default_factory=list)
    status: str = "draft"
    settings: dict[str, Any] = field(default_factory=dict)
    leads: dict[str, Lead] = field(default_factory=dict)
    variables: set[str] = field(default_factory=set)
    #: The variables that lemlist writes with AI, lead by lead.
    ai_variables: frozenset[str] = frozenset()
    #: Statutes in addition to those that follow from the state.
    statutes: list[Statute] = field(default_factory=list)

    @property
    def sender_ids(self) -> list[str]:
        """The users who send; the one who created the campaign, until an update names others."""
        ids: list[str] = self.settings.get("sendUserIds", [self.created_by])
        return ids

    @property
    def sender_id(self) -> str | None:
        """The user who sends; None if the campaign has no sender."""
        return self.sender_ids[0] if self.sender_ids else None


@dataclass
class Audio:
    """The audio of a voice note for one lead."""

    id: str
    campaign_id: str
    sequence_id: str
    step_id: str
    lead_id: str
    file_name: str
    content_type: str
    content: bytes
    url: str
    created_at: float


@dataclass(eq=False, slots=True)
class Activity:
    """
    An event in a lead's history; it keeps the lead's name and email address of that time.

    :param listed_at: The moment from which on it is listed, which can be later than ``created_at``.
    :param vanished_at: The moment from which on it is not listed any more.
    """

    id: str
    type: str
    created_at: float
    lead: Lead
    email: str
    first_name: str
    last_name: str
    company_name: str
    listed_at: float
    step: Step | None = None
    is_first: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    vanished_at: float | None = None
    #: ``created_at`` as it is shown.
    milliseconds: int = field(init=False)

    def __post_init__(self) -> None:
        # ``iso`` rounds to microseconds first.
        self.milliseconds = round(self.created_at * 1_000_000) // 1000


@dataclass
class Unsubscribe:
    """A value that must not be contacted: an email address, ``@domain``, LinkedIn URL or phone number."""

    id: str
    value: str
    source: str
    created_at: float


@dataclass
class Export:
    """An export of statistics; it is done after a number of polls."""

    id: str
    campaign_id: str
    started_at: float
    polls_left: int
    email: str | None = None


class World:
    """
    All data of one team.

    :param seed: Seed of the ids.
    :param clock: Source of ``createdAt``, in epoch seconds.
    """

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.lock = RLock()
        self.clock = clock
        self._random = random.Random(f"ids {seed}")
        self.team_id = self.new_id("tea")
        self.team_name = "Sandbox team"
        self.created_at = clock()
        self.users = [
            User(self.new_id("usr"), "Ann Sender", "ann@sandbox.example"),
            User(self.new_id("usr"), "Bob Sender", "bob@sandbox.example"),
        ]
        self.campaigns: dict[str, Campaign] = {}
        self.schedules: dict[str, Schedule] = {}
        self.sequences: dict[str, Sequence] = {}
        self.leads: dict[str, Lead] = {}
        self.contacts: dict[str, Contact] = {}
        self.audio: dict[tuple[str, str], Audio] = {}
        #: All activities that ever existed, by id.
        self.all_activities: dict[str, Activity] = {}
        self.unsubscribes: dict[str, Unsubscribe] = {}
        self.exports: dict[str, Export] = {}
        #: By values in lower case: the spellings in which they were ever unsubscribed.
        self._spellings: dict[str, list[str]] = {}
        self._leads_by_contact: dict[str, dict[str, Lead]] = {}
        self._contact_by_email: dict[str, str] = {}
        self._index = ActivityIndex()
        self._late: list[tuple[float, str, Activity]] = []
        self._seen: set[tuple[str, str, str | None]] = set()

    def new_id(self, prefix: str) -> str:
        """Return an id as lemlist creates them: prefix, underscore, 17 letters and digits."""
        return f"{prefix}_" + "".join(self._random.choices(string.ascii_letters + string.digits, k=17))

    # --- Campaigns --------------------------------------------------------------------------------------

    def campaign(self, campaign_id: str) -> Campaign:
        try:
            return self.campaigns[campaign_id]
        except KeyError:
            raise ApiError(404, "Campaign not found") from None

    def add_campaign(
        self,
        name: str,
        *,
        timezone: str = "Europe/Paris",
        auto_review: bool = False,
        auto_review_conditions: Iterable[str] = (),
        status: str = "draft",
        senders: Iterable[str] | None = None,
        ai_variables: Iterable[str] = (),
    ) -> Campaign:
        if status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {status!r}")
        settings = {}
        if senders is not None:
            settings["sendUserIds"] = [self.user(each).id for each in senders]
        campaign = Campaign(
            id=self.new_id("cam"),
            name=name,
            sequence_id=self.new_id("seq"),
            schedule_ids=[self.add_schedule({"timezone": timezone}).id],
            created_at=self.clock(),
            created_by=self.users[0].id,
            timezone=timezone,
            auto_review=auto_review,
            auto_review_conditions=list(auto_review_conditions),
            status=status,
            settings=settings,
            ai_variables=frozenset(ai_variables),
        )
        campaign.variables |= campaign.ai_variables.difference(LEAD_FIELDS)
        self.campaigns[campaign.id] = campaign
        self.sequences[campaign.sequence_id] = Sequence(campaign.sequence_id, campaign.id)
        return campaign

    def user(self, user_id: str) -> User:
        for user in self.users:
            if user.id == user_id:
                return user
        raise ApiError(400, "Bad team")

    def senders_of(self, campaign: Campaign) -> list[User]:
        return [self.user(each) for each in campaign.sender_ids]

    # --- Schedules --------------------------------------------------------------------------------------

    def add_schedule(self, values: Mapping[str, Any]) -> Schedule:
        """Add a schedule whose values have been checked."""
        schedule = Schedule(
            id=self.new_id("skd"),
            created_by=self.users[0].id,
            created_at=self.clock(),
            values={**SCHEDULE_DEFAULTS, **values},
        )
        self.schedules[schedule.id] = schedule
        return schedule

    def remove_schedule(self, schedule: Schedule) -> None:
        """Remove a schedule, also from its campaigns."""
        del self.schedules[schedule.id]
        for campaign in self.campaigns.values():
            if schedule.id in campaign.schedule_ids:
                campaign.schedule_ids.remove(schedule.id)

    # --- Sequences and steps ----------------------------------------------------------------------------

    def sequences_of(self, campaign: Campaign) -> list[Sequence]:
        """Return the sequences of a campaign: the main one first, each branch after its parent."""
        found, wanted = [], [campaign.sequence_id]
        while wanted:
            sequence = self.sequences[wanted.pop(0)]
            found.append(sequence)
            wanted += [branch.sequence_id for step in sequence.steps for branch in step.branches]
        return found

    def step(self, step_id: str) -> Step | None:
        return next(
            (step for sequence in self.sequences.values() for step in sequence.steps if step.id == step_id),
            None,
        )

    def add_step(self, sequence: Sequence, body: Mapping[str, Any]) -> Step:
        """Add a step whose body has been checked."""
        values = {name: value for name, value in body.items() if name not in ("type", "delay", "index")}
        step = Step(
            id=self.new_id("stp"),
            sequence_id=sequence.id,
            type=body["type"],
            delay=body.get("delay", 1 if sequence.steps else 0),
            values=values,
            template_id=self.new_id("etp") if "message" in values else None,
        )
        if step.type == "conditional":
            key = values["conditionKey"]
            label = CONDITION_LABELS.get(key, key)
            step.branches = [
                Branch(self.new_id("seq"), key, label, step.delay, values["delayType"]),
                Branch(self.new_id("seq"), None),
            ]
            for branch in step.branches:
                self.sequences[branch.sequence_id] = Sequence(
                    branch.sequence_id, sequence.campaign_id, sequence.level + 1, sequence.id, step.id
                )
        # The meaning of -1 is not documented; it appends the step, as does an index beyond the end.
        index = body.get("index", -1)
        sequence.steps.insert(len(sequence.steps) if index < 0 else index, step)
        return step

    def remove_step(self, sequence: Sequence, step: Step) -> None:
        """Remove a step, and with a condition its branches and their steps."""
        sequence.steps.remove(step)
        for branch in step.branches:
            below = self.sequences[branch.sequence_id]
            for further in list(below.steps):
                self.remove_step(below, further)
            del self.sequences[branch.sequence_id]

    # --- Leads ------------------------------------------------------------------------------------------

    def lead(self, lead_id: str) -> Lead:
        try:
            return self.leads[lead_id]
        except KeyError:
            raise ApiError(404, "Lead not found") from None

    def leads_of(self, email: str) -> list[Lead]:
        """Return the leads with this email address, one per campaign; the case is ignored."""
        contact_id = self._contact_by_email.get(email.lower())
        return list(self._leads_by_contact[contact_id].values()) if contact_id else []

    def siblings(self, lead: Lead) -> list[Lead]:
        """Return all leads of this lead's person."""
        return list(self._leads_by_contact[lead.contact_id].values())

    def add_lead(
        self,
        campaign: Campaign,
        values: Mapping[str, str],
        *,
        owner: str | None = None,
        enrichments: Iterable[str] = (),
    ) -> Lead:
        """Add a lead; the caller has checked for duplicates."""
        now = self.clock()
        lead = Lead(
            id=self.new_id("lea"),
            campaign_id=campaign.id,
            contact_id=self._contact(values.get("email", ""), now).id,
            values=dict(values),
            created_at=now,
            updated_at=now,
            owner=owner,
            enrichments=tuple(enrichments),
        )
        if "verifyEmail" in lead.enrichments and lead.email:
            lead.email_status = "deliverable"
        # With autoReview a new lead is launched without review, so creating it starts sending.
        if campaign.auto_review:
            lead.launch(now)
        self.leads[lead.id] = campaign.leads[lead.id] = lead
        self._leads_by_contact[lead.contact_id][lead.id] = lead
        campaign.variables.update(name for name in values if name not in LEAD_FIELDS)
        return lead

    def remove_lead(self, lead: Lead) -> None:
        """Remove a lead with its audio and its activities."""
        del self.leads[lead.id]
        del self.campaigns[lead.campaign_id].leads[lead.id]
        del self._leads_by_contact[lead.contact_id][lead.id]
        self.audio = {place: audio for place, audio in self.audio.items() if place[0] != lead.id}
        for activity in [each for each in self.all_activities.values() if each.lead is lead]:
            if activity.vanished_at is None:
                self.remove_activity(activity)

    def _contact(self, email: str, now: float) -> Contact:
        known = self._contact_by_email.get(email.lower())
        if known:
            return self.contacts[known]
        contact = Contact(self.new_id("ctc"), email, now)
        self.contacts[contact.id] = contact
        self._leads_by_contact[contact.id] = {}
        if email:
            self._contact_by_email[email.lower()] = contact.id
        return contact

    # --- Activities, audio, unsubscribes ----------------------------------------------------------------

    @property
    def activities(self) -> list[Activity]:
        """All activities that are listed, oldest first."""
        return self.find_activities().activities

    def find_activities(self, least: float | None = None, most: float | None = None, **wanted: Any) -> Found:
        """Return the listed activities that fit, see ``ActivityIndex.find``."""
        self._list_due()
        return self._index.find(least, most, **wanted)

    def _list_due(self) -> float:
        """List the late activities that are due, and return the time."""
        now = self.clock()
        while self._late and self._late[0][0] <= now:
            activity = heappop(self._late)[2]
            if activity.vanished_at is None:
                self._index.add(activity)
        return now

    def activity(self, activity_id: str) -> Activity:
        """Return an activity that has not vanished."""
        activity = self.all_activities.get(activity_id)
        if activity is None or activity.vanished_at is not None:
            raise ApiError(404, "Activity not found")
        return activity

    def add_activity(
        self,
        lead: Lead,
        type: str,
        *,
        step: Step | None = None,
        created_at: float | None = None,
        listed_at: float | None = None,
        **details: Any,
    ) -> Activity:
        """Add an activity of a lead; with a ``listed_at`` in the future it is listed from then on."""
        activity = self._new_activity(lead, type, step, created_at, **details)
        if listed_at is not None and listed_at > activity.listed_at:
            activity.listed_at = listed_at
            heappush(self._late, (listed_at, activity.id, activity))
        else:
            self._index.add(activity)
        return activity

    def add_activities(self, rows: Iterable[tuple[Lead, str, Step | None, float]]) -> None:
        """Add many activities, each with its lead, type, step and moment."""
        self._index.extend([self._new_activity(*row, bot=False) for row in rows])

    def _new_activity(
        self, lead: Lead, type: str, step: Step | None, created_at: float | None, **details: Any
    ) -> Activity:
        mark, now = (lead.id, type, step.id if step else None), self.clock()
        activity = Activity(
            id=self.new_id("act"),
            type=type,
            created_at=now if created_at is None else created_at,
            lead=lead,
            email=lead.email,
            first_name=lead.values.get("firstName", ""),
            last_name=lead.values.get("lastName", ""),
            company_name=lead.values.get("companyName", ""),
            listed_at=now,
            step=step,
            is_first=mark not in self._seen,
            details=details,
        )
        self._seen.add(mark)
        self.all_activities[activity.id] = activity
        lead.state, lead.updated_at = type, max(lead.updated_at, activity.created_at)
        return activity

    def remove_activity(self, activity: Activity) -> None:
        """Remove an activity; only ``all_activities`` still holds it."""
        activity.vanished_at = now = self._list_due()
        if activity.listed_at <= now:
            self._index.remove(activity)

    def store_audio(
        self, lead: Lead, step: Step, *, file_name: str, content_type: str, content: bytes, url: str
    ) -> Audio:
        """
        Store the audio of a voice note; another one for the same lead and step replaces it.

        :param url: URL of the file, with ``*`` for its id.
        """
        id = self.new_id("fil")
        audio = Audio(
            id=id,
            campaign_id=lead.campaign_id,
            sequence_id=step.sequence_id,
            step_id=step.id,
            lead_id=lead.id,
            file_name=file_name,
            content_type=content_type,
            content=content,
            url=url.replace("*", id),
            created_at=self.clock(),
        )
        self.audio[lead.id, step.id] = audio
        return audio

    def is_unsubscribed(self, lead: Lead) -> bool:
        """
        Return whether a lead must not be contacted: by address, domain, profile, phone or contact.

        The case of addresses and domains is ignored. A domain does not cover its subdomains: whether it does
        is not documented.
        """
        values = [lead.values[name] for name in ("linkedinUrl", "phone") if lead.values.get(name)]
        if email := lead.email.lower():
            for each in (email, f"@{email.rpartition('@')[2]}"):
                values += self._spellings.get(each, ())
        return self.contacts[lead.contact_id].do_not_contact or any(
            each in self.unsubscribes for each in values
        )

    def unsubscribe(self, value: str, source: str = "api") -> Unsubscribe:
        """Unsubscribe a value and return its entry; an existing entry is not changed."""
        if value not in self.unsubscribes:
            self.unsubscribes[value] = Unsubscribe(self.new_id("uns"), value, source, self.clock())
            self._spellings.setdefault(value.lower(), []).append(value)
        return self.unsubscribes[value]


CONDITION_LABELS = {
    "hasEmailAddress": "Has email address",
    "hasLinkedinUrl": "Has LinkedIn URL",
    "hasPhoneNumber": "Has phone number",
    "hasScore": "Has score",
    "emailsOpened": "Opened email",
    "emailsClicked": "Clicked on link in email",
    "emailsUnsubscribed": "Unsubscribed",
    "meetingBooked": "Booked a meeting",
    "linkedinInviteAccepted": "Accepted invite",
    "linkedinOpened": "Opened LinkedIn message",
    "aircallDone": "Call done",
    "linkedinNetworkCheck": "In network",
    "hasWhatsappAccount": "Has WhatsApp account",
}


def iso(moment: float) -> str:
    """Format a moment as lemlist does: UTC, milliseconds, Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
