# SPDX-License-Identifier: Apache-2.0
"""
Generated activities: many of the past at once, and those that arrive and vanish while a client reads.

What happens depends only on the seed of the sandbox and on its data; when it happens depends on the clock.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from airflow_provider_lemlist.sandbox.model import Lead, Step, World
from airflow_provider_lemlist.sandbox.prospects import STEP_ACTIVITIES

#: What is created in a sandbox without leads.
CAMPAIGNS, LEADS = 4, 250


@dataclass(frozen=True)
class Churn:
    """
    How activities arrive and vanish while a client reads.

    :param since: Start of the window that the client reads, in epoch seconds.
    :param until: End of that window.
    :param per_second: Number of new activities a second.
    :param inside: Probability that the moment of a new activity is inside the window; otherwise it is in the
        window before or after.
    :param vanish: Probability that an activity vanishes with each new one, as those of a deleted lead do.
    """

    since: float
    until: float
    per_second: float = 5.0
    inside: float = 0.5
    vanish: float = 0.2

    def __post_init__(self) -> None:
        _window(self.since, self.until)
        if self.per_second <= 0:
            raise ValueError(f"per_second must be above 0, not {self.per_second!r}")
        for name in ("inside", "vanish"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability and must be 0 to 1, not {getattr(self, name)!r}")


class Traffic:
    """The generated activities of a world."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self._random = random.Random(f"traffic {seed}")
        self._churn: Churn | None = None
        self._due = 0.0

    def fill(self, count: int, since: float, until: float, burst: int = 1) -> None:
        """
        Add activities at random moments, to the leads that exist or to those of new sample campaigns.

        :param since: Their earliest moment, in epoch seconds.
        :param until: The moment before which all of them happen.
        :param burst: Up to so many happen in one second; half of these bursts in one millisecond.
        """
        if count < 0 or burst < 1:
            raise ValueError(f"count must be 0 or more and burst 1 or more, not {count!r} and {burst!r}")
        first, end = _window(since, until)
        rng, moments = self._random, list[int]()
        while len(moments) < count:
            start, width = rng.randrange(first, end), rng.choice((1, 1000))
            moments += [min(start + rng.randrange(width), end - 1) for _ in range(rng.randint(1, burst))]
        with self.world.lock:
            people = self._people()
            self.world.add_activities(
                (*self._event(people), moment / 1000) for moment in sorted(moments[:count])
            )

    def start(self, churn: Churn) -> None:
        self._churn, self._due = churn, self.world.clock()

    def stop(self) -> None:
        self._churn = None

    def tick(self, now: float) -> None:
        """Let happen what is due."""
        with self.world.lock:
            while self._churn and self._due <= now:
                self._due += 1 / self._churn.per_second
                self._change(self._churn)

    def _change(self, churn: Churn) -> None:
        rng = self._random
        first, end = _window(churn.since, churn.until)
        moment = rng.randrange(first, end)
        if rng.random() >= churn.inside:
            moment += rng.choice((first - end, end - first))
        lead, kind, step = self._event(self._people())
        self.world.add_activity(lead, kind, step=step, created_at=moment / 1000, bot=False)
        if rng.random() < churn.vanish:
            self.world.remove_activity(rng.choice(self.world.activities))

    def _event(self, people: list[tuple[Lead, list[Step]]]) -> tuple[Lead, str, Step | None]:
        lead, steps = self._random.choice(people)
        step = self._random.choice(steps) if steps else None
        return lead, self._random.choice(STEP_ACTIVITIES[step.type if step else "email"]), step

    def _people(self) -> list[tuple[Lead, list[Step]]]:
        """Return the leads with the steps of their campaigns."""
        world = self.world
        if not world.leads:
            for number in range(CAMPAIGNS):
                self._add_campaign(number + 1)
        steps = {
            campaign.id: [step for sequence in world.sequences_of(campaign) for step in sequence.steps]
            for campaign in world.campaigns.values()
        }
        return [(lead, steps[lead.campaign_id]) for lead in world.leads.values()]

    def _add_campaign(self, number: int) -> None:
        world = self.world
        campaign = world.add_campaign(f"Campaign {number}", status="running")
        sequence = world.sequences[campaign.sequence_id]
        world.add_step(sequence, {"type": "email", "subject": "Hello", "message": "Hello {{firstName}}"})
        world.add_step(sequence, {"type": "linkedinInvite", "delay": 1})
        world.add_step(sequence, {"type": "linkedinSend", "delay": 2, "message": "Hello {{firstName}}"})
        for each in range(LEADS):
            values = {
                "firstName": f"First{each}",
                "lastName": f"Last{each}",
                "companyName": f"Company {each % 9}",
            }
            world.add_lead(campaign, {"email": f"p{number}-{each}@filled.example", **values})


def _window(since: float, until: float) -> tuple[int, int]:
    """Return the first millisecond of a window and the one after its last."""
    first, end = math.ceil(since * 1000), math.ceil(until * 1000)
    if first >= end:
        raise ValueError("until must be after since")
    return first, end
