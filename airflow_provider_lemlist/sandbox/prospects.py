# SPDX-License-Identifier: Apache-2.0
"""
Simulated prospects: leads of a running campaign open, click, accept and reply a few seconds later.

``plan_events`` is pure and returns all events of one lead; ``Prospects`` adds each as an activity when it is
due. The events of a person depend only on the seed and the person.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from airflow_provider_lemlist.sandbox.model import Lead, Sequence, Step, World

#: Interval of the simulation, in seconds.
TICK = 0.05


@dataclass(frozen=True)
class SimulationOptions:
    """
    How prospects behave.

    :param opens: Probability that a message is opened.
    :param clicks: Probability that a link in an opened message is clicked.
    :param accepts: Probability that a LinkedIn invitation is accepted.
    :param replies: Probability that a prospect replies to an opened message, which ends the sequence.
    :param bounces: Probability that an email bounces, which ends the sequence.
    :param unsubscribes: Probability that a prospect unsubscribes in an opened email, which ends the sequence.
    :param pace: Seconds between two events; the delays of steps are ignored.
    :param speed: Factor by which everything is faster.
    :param review: Whether the leads of a running campaign are reviewed and launched, as a user of lemlist
        would do; otherwise only leads that were launched are contacted.
    :param seed: Seed of the decisions.
    """

    opens: float = 0.7
    clicks: float = 0.3
    accepts: float = 0.5
    replies: float = 0.35
    bounces: float = 0.0
    unsubscribes: float = 0.0
    pace: float = 1.0
    speed: float = 1.0
    review: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("opens", "clicks", "accepts", "replies", "bounces", "unsubscribes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability and must be 0 to 1, not {getattr(self, name)!r}")
        if self.pace <= 0 or self.speed <= 0:
            raise ValueError("pace and speed must be above 0")


class Event(NamedTuple):
    """A planned activity; ``after`` is the number of seconds after the launch."""

    after: float
    type: str
    step: Step


#: By type of step: the activity of its execution, then those of an opened message and of a reply.
STEP_ACTIVITIES: dict[str, tuple[str, ...]] = {
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
#: By activity that ends a sequence: the lead's stage, and the source with which its address is unsubscribed.
#: That lemlist unsubscribes an address that bounced is an assumption from the documented source.
LOSSES = {"emailsBounced": ("done", "bounced"), "emailsUnsubscribed": ("unsubscribed", "lead")}
#: Conditions on a field of the lead; the other conditions are on activities.
LEAD_CONDITIONS = {"hasEmailAddress": "email", "hasLinkedinUrl": "linkedinUrl", "hasPhoneNumber": "phone"}


def plan_events(
    lead: Lead, sequence_id: str, sequences: Mapping[str, Sequence], behaviour: SimulationOptions
) -> list[Event]:
    """Return all events of a lead in a sequence."""
    person = f"{behaviour.seed} {lead.email or lead.id}"
    # Bounces and unsubscribes have their own numbers, so that all who do neither react as without them.
    rng, losses = random.Random(person), random.Random(f"losses {person}")
    pace = behaviour.pace / behaviour.speed
    events: list[Event] = []
    types: set[str] = set()

    def event(type: str, step: Step) -> Event:
        types.add(type)
        return Event((len(events) + 1) * pace, type, step)

    def walk(steps: list[Step]) -> Iterator[Event]:
        for step in steps:
            done, *reactions = STEP_ACTIVITIES[step.type]
            yield event(done, step)
            if step.type == "email" and losses.random() < behaviour.bounces:
                yield event("emailsBounced", step)
                return
            if step.type == "linkedinInvite" and rng.random() < behaviour.accepts:
                yield event("linkedinInviteAccepted", step)
            if step.branches:
                key = step.values["conditionKey"]
                met = bool(lead.values.get(LEAD_CONDITIONS[key])) if key in LEAD_CONDITIONS else key in types
                chosen = next(branch for branch in step.branches if (branch.key is not None) == met)
                yield from walk(sequences[chosen.sequence_id].steps)
                return
            if reactions and rng.random() < behaviour.opens:
                opened, replied = reactions
                yield event(opened, step)
                if step.type == "email" and losses.random() < behaviour.unsubscribes:
                    yield event("emailsUnsubscribed", step)
                    return
                if step.type == "email" and rng.random() < behaviour.clicks:
                    yield event("emailsClicked", step)
                if rng.random() < behaviour.replies:
                    yield event(replied, step)
                    return

    for each in walk(sequences[sequence_id].steps):
        events.append(each)
    return events


class Prospects:
    """The simulation of the leads of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.behaviour: SimulationOptions | None = None
        self._due: list[tuple[float, int, str, Event | None]] = []
        self._in_progress: set[str] = set()
        self._number = 0

    def start(self, behaviour: SimulationOptions) -> None:
        """Start the simulation; leads that have started keep their planned events."""
        self.behaviour = behaviour

    def stop(self) -> None:
        self.behaviour = None
        self._due.clear()
        self._in_progress.clear()

    def tick(self, now: float) -> None:
        """Start the leads of running campaigns and add the activities that are due."""
        if self.behaviour is None:
            return
        with self.world.lock:
            for campaign in self.world.campaigns.values():
                if campaign.status == "running":
                    for lead in campaign.leads.values():
                        self._launch(lead, campaign.sequence_id, self.behaviour, now)
            while self._due and self._due[0][0] <= now:
                self._apply(heappop(self._due)[2:], now)

    def _launch(self, lead: Lead, sequence_id: str, behaviour: SimulationOptions, now: float) -> None:
        if lead.id in self._in_progress or lead.is_paused:
            return
        if lead.stage == "review" and behaviour.review:
            lead.launch(now)
        if lead.stage != "running":
            return
        self._in_progress.add(lead.id)
        events = plan_events(lead, sequence_id, self.world.sequences, behaviour)
        for event in events:
            self._schedule(now + event.after, lead.id, event)
        self._schedule(now + (events[-1].after if events else 0), lead.id, None)

    def _schedule(self, at: float, lead_id: str, event: Event | None) -> None:
        self._number += 1
        heappush(self._due, (at, self._number, lead_id, event))

    def _apply(self, due: tuple[str, Event | None], now: float) -> None:
        lead_id, event = due
        lead = self.world.leads.get(lead_id)
        if lead is None or lead.stage != "running":
            return
        if self.world.is_unsubscribed(lead):
            lead.stage = "unsubscribed"
            return
        if lead.is_paused or self.world.campaigns[lead.campaign_id].status != "running":
            # While a lead or its campaign is paused, the event stays in the queue.
            self._schedule(now + TICK, lead_id, event)
        elif event is None:
            lead.stage = "done"
        else:
            self.world.add_activity(lead, event.type, step=event.step)
            if event.type in LOSSES:
                lead.stage, source = LOSSES[event.type]
                if lead.email:
                    self.world.unsubscribe(lead.email, source)
