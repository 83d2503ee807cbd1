# SPDX-License-Identifier: Apache-2.0
"""
Simulated prospects: leads of a running campaign open, click, accept and reply a few seconds later.

:func:`journey` decides, purely, all that one person will ever do; :class:`Prospects` lets it come true when
its time has come. The same person does the same for the same seed, whatever else goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from airflow_provider_lemlist.sandbox.model import Lead, Sequence, Step, World

#: How often the simulation looks at the clock, in seconds.
TICK = 0.05


@dataclass(frozen=True)
class Behaviour:
    """
    How people behave.

    :param opens: Chance that a message is opened.
    :param clicks: Chance that a link of an opened message is clicked.
    :param accepts: Chance that a LinkedIn invitation is accepted.
    :param replies: Chance that an opened message is answered; the sequence ends there.
    :param pace: Seconds from one event to the next; the days between steps are not waited for.
    :param speed: Makes everything this many times faster.
    :param review: Whether somebody reviews and launches the leads of a running campaign, as a person would in
        lemlist; without it only launched leads are contacted.
    :param seed: Who does what.
    """

    opens: float = 0.7
    clicks: float = 0.3
    accepts: float = 0.5
    replies: float = 0.35
    pace: float = 1.0
    speed: float = 1.0
    review: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("opens", "clicks", "accepts", "replies"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance and must be 0 to 1, not {getattr(self, name)!r}")
        if self.pace <= 0 or self.speed <= 0:
            raise ValueError("pace and speed must be above 0")


class Event(NamedTuple):
    """What will happen, and how many seconds after the launch."""

    after: float
    type: str
    step: Step


#: What the execution of a step is called, and what shows that its message was opened and answered.
EXECUTED: dict[str, tuple[str, ...]] = {
    "email": ("emailsSent", "emailsOpened", "emailsReplied"),
    "linkedinSend": ("linkedinSent", "linkedinOpened", "linkedinReplied"),
    "linkedinVoiceNote": ("linkedinVoiceNoteDone", "linkedinOpened", "linkedinReplied"),
    "whatsappMessage": ("whatsappMessageSent", "whatsappMessageOpened", "whatsappReplied"),
    "sms": ("smsSent", "smsDelivered", "smsReplied"),
    "linkedinInvite": ("linkedinInviteDone",),
    "manual": ("manualDone",),
    "phone": ("aircallDone",),
    "api": ("apiDone",),
    "linkedinVisit": ("linkedinVisitDone",),
    "linkedinFollow": ("linkedinFollowDone",),
    "linkedinLikeLastPost": ("linkedinLikeLastPostDone",),
    "linkedinCommentLastPost": ("linkedinCommentLastPostDone",),
    "linkedinEndorse": ("linkedinEndorseDone",),
    "linkedinWithdrawInvitation": ("linkedinWithdrawInvitationDone",),
    "sendToAnotherCampaign": ("sendToAnotherCampaign",),
    "conditional": ("conditionChosen",),
}
#: Conditions that ask what the lead has; the others ask what happened.
HAS = {"hasEmailAddress": "email", "hasLinkedinUrl": "linkedinUrl", "hasPhoneNumber": "phone"}


def journey(
    lead: Lead, sequence_id: str, sequences: Mapping[str, Sequence], behaviour: Behaviour
) -> list[Event]:
    """Return everything that will happen to a lead on its way through a sequence."""
    chance = random.Random(f"{behaviour.seed} {lead.email or lead.id}")
    pace = behaviour.pace / behaviour.speed
    events: list[Event] = []
    happened: set[str] = set()

    def happens(type: str, step: Step) -> Event:
        happened.add(type)
        return Event((len(events) + 1) * pace, type, step)

    def walk(steps: list[Step]) -> Iterator[Event]:
        for step in steps:
            done, *reactions = EXECUTED[step.type]
            yield happens(done, step)
            if step.type == "linkedinInvite" and chance.random() < behaviour.accepts:
                yield happens("linkedinInviteAccepted", step)
            if step.branches:
                key = step.values["conditionKey"]
                met = bool(lead.values.get(HAS[key])) if key in HAS else key in happened
                chosen = next(branch for branch in step.branches if (branch.key is not None) == met)
                yield from walk(sequences[chosen.sequence_id].steps)
                return
            if reactions and chance.random() < behaviour.opens:
                opened, replied = reactions
                yield happens(opened, step)
                if step.type == "email" and chance.random() < behaviour.clicks:
                    yield happens("emailsClicked", step)
                if chance.random() < behaviour.replies:
                    yield happens(replied, step)
                    return

    for event in walk(sequences[sequence_id].steps):
        events.append(event)
    return events


class Prospects:
    """The people behind the leads of a world, while they are simulated."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.behaviour: Behaviour | None = None
        self._due: list[tuple[float, int, str, Event | None]] = []
        self._under_way: set[str] = set()
        self._number = 0

    def start(self, behaviour: Behaviour) -> None:
        """Simulate from now on; leads that are under way finish as they began."""
        self.behaviour = behaviour

    def stop(self) -> None:
        self.behaviour = None
        self._due.clear()
        self._under_way.clear()

    def tick(self, now: float) -> None:
        """Launch who is to be launched, and let happen what is due."""
        if self.behaviour is None:
            return
        with self.world.lock:
            for campaign in self.world.campaigns.values():
                if campaign.status == "running":
                    for lead in campaign.leads.values():
                        self._set_off(lead, campaign.sequence_id, self.behaviour, now)
            while self._due and self._due[0][0] <= now:
                self._let_happen(heappop(self._due)[2:], now)

    def _set_off(self, lead: Lead, sequence_id: str, behaviour: Behaviour, now: float) -> None:
        if lead.id in self._under_way or lead.is_paused:
            return
        if lead.place == "review" and behaviour.review:
            lead.launch(now)
        if lead.place != "running":
            return
        self._under_way.add(lead.id)
        events = journey(lead, sequence_id, self.world.sequences, behaviour)
        for event in events:
            self._expect(now + event.after, lead.id, event)
        self._expect(now + (events[-1].after if events else 0), lead.id, None)

    def _expect(self, at: float, lead_id: str, event: Event | None) -> None:
        self._number += 1
        heappush(self._due, (at, self._number, lead_id, event))

    def _let_happen(self, due: tuple[str, Event | None], now: float) -> None:
        lead_id, event = due
        lead = self.world.leads.get(lead_id)
        if lead is None or lead.place != "running":
            return
        if self.world.is_unsubscribed(lead):
            lead.place = "unsubscribed"
            return
        if lead.is_paused or self.world.campaigns[lead.campaign_id].status != "running":
            # Nothing is lost while a lead or its campaign is paused: it waits in line.
            self._expect(now + TICK, lead_id, event)
        elif event is None:
            lead.place = "done"
        else:
            self.world.add_activity(lead, event.type, step=event.step)
