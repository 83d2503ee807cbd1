# SPDX-License-Identifier: Apache-2.0
"""Everything that one sandbox consists of, except its socket; sandboxes share nothing."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any, NamedTuple

from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.faults import Fault, Script, matches, refuse_unknown_route
from airflow_provider_lemlist.sandbox.keys import KeyRing
from airflow_provider_lemlist.sandbox.limits import RateLimit
from airflow_provider_lemlist.sandbox.model import Step, World, iso
from airflow_provider_lemlist.sandbox.prospects import Prospects
from airflow_provider_lemlist.sandbox.request_log import RequestLog
from airflow_provider_lemlist.sandbox.routes import ROUTES, Table, table
from airflow_provider_lemlist.sandbox.routes.activities import activity_json
from airflow_provider_lemlist.sandbox.routes.campaigns import campaign_item, senders
from airflow_provider_lemlist.sandbox.routes.leads import lead_entry
from airflow_provider_lemlist.sandbox.routes.schedules import schedule_json
from airflow_provider_lemlist.sandbox.routes.sequences import step_response
from airflow_provider_lemlist.sandbox.traffic import Traffic
from airflow_provider_lemlist.sandbox.undocumented import Undocumented


class ActivityHistory(NamedTuple):
    """
    An activity as the API shows it, and when it was listed.

    :param listed_at: The first moment at which it is listed, in epoch seconds.
    :param vanished_at: The moment from which on it is not listed any more; None if it has not vanished.
    """

    activity: dict[str, Any]
    listed_at: float
    vanished_at: float | None


class Service:
    """
    The state and the options of one sandbox; ``world.lock`` guards all of them.

    :param latency: Seconds added to every response, half before and half after the request is handled.
    :param jitter: Seconds by which the latency varies in either direction.
    """

    def __init__(
        self, *, key: str, limit: RateLimit, options: Undocumented, latency: float, jitter: float, seed: int
    ) -> None:
        self.world = World(seed)
        self.keys = KeyRing(key)
        self.limit = limit
        self.undocumented = options
        self.script = Script(seed)
        self.request_log = RequestLog()
        self.prospects = Prospects(self.world)
        self.traffic = Traffic(self.world, seed)
        self.routes: Table = table()
        self._operations = [f"{each.method} {each.template}" for each in ROUTES]
        self.latency, self.jitter = latency, jitter
        self._random = random.Random(f"travel {seed}")

    def network_delay(self) -> float:
        """Return the delay of the next request or response, in seconds."""
        return max(0.0, self.latency + self._random.uniform(-self.jitter, self.jitter)) / 2

    def add_fault(self, fault: Fault) -> None:
        """Inject a fault; raise ValueError if its route matches no route of the API."""
        refuse_unknown_route(fault.route, self._operations)
        with self.world.lock:
            self.script.add(fault)

    def add_activity(
        self,
        lead_id: str,
        type: str,
        step_id: str | None = None,
        created_at: float | None = None,
        bot: bool = False,
        listed_at: float | None = None,
    ) -> dict[str, Any]:
        """Add an activity of a lead, and return it as the list of activities does."""
        world = self.world
        for name, value in (("lead_id", lead_id), ("type", type), ("step_id", step_id)):
            if not isinstance(value, str) and (name, value) != ("step_id", None):
                raise ValueError(f"{name} must be text, not {value!r}")
        if not isinstance(bot, bool):
            raise ValueError(f"bot must be true or false, not {bot!r}")
        if created_at is not None:
            iso(created_at)
        with world.lock:
            lead, step = world.lead(lead_id), self._step(step_id) if step_id else None
            activity = world.add_activity(
                lead, type, step=step, created_at=created_at, listed_at=listed_at, bot=bot
            )
            return activity_json(activity, world)

    def complete_activity(self, activity_id: str, step_id: str) -> dict[str, Any]:
        """Set the step of an activity, and return it as the list of activities does."""
        with self.world.lock:
            activity = self.world.activity(activity_id)
            activity.step = self._step(step_id)
            return activity_json(activity, self.world)

    def _step(self, step_id: str) -> Step:
        step = self.world.step(step_id)
        if step is None:
            raise ApiError(404, "Step not found")
        return step

    def remove_activity(self, activity_id: str) -> None:
        with self.world.lock:
            self.world.remove_activity(self.world.activity(activity_id))

    def activity_history(self) -> list[ActivityHistory]:
        """Return all activities that ever existed, in the order in which they were added."""
        with self.world.lock:
            return [
                ActivityHistory(activity_json(each, self.world), each.listed_at, each.vanished_at)
                for each in self.world.all_activities.values()
            ]

    def requests(self, route: str) -> list[dict[str, Any]]:
        """Return the logged requests that match a route of the API, oldest first."""
        refuse_unknown_route(route, self._operations)
        with self.world.lock:
            return [
                each.whole()
                for each in self.request_log.exchanges
                if matches(route, each.method, each.template, each.path)
            ]

    def state(self) -> dict[str, Any]:
        """Return everything as JSON: the data of lemlist, and the requests of its clients."""
        world, request_log = self.world, self.request_log
        with world.lock:
            return {
                "team": {"_id": world.team_id, "name": world.team_name},
                "campaigns": [
                    {
                        **campaign_item(each, world),
                        "sequenceId": each.sequence_id,
                        "autoReview": each.auto_review,
                        "settings": dict(each.settings),
                        "scheduleIds": list(each.schedule_ids),
                        "senders": senders(each, world),
                        "sequences": {
                            sequence.id: {
                                "level": sequence.level,
                                "parentId": sequence.parent_id,
                                "steps": [
                                    {**step_response(step), "delay": step.delay, **step.values}
                                    for step in sequence.steps
                                ],
                            }
                            for sequence in world.sequences_of(each)
                        },
                    }
                    for each in world.campaigns.values()
                ],
                "schedules": [schedule_json(each, world) for each in world.schedules.values()],
                "leads": [
                    {
                        **lead_entry(each, world),
                        "campaignId": each.campaign_id,
                        "createdAt": iso(each.created_at),
                        "contactOwner": each.owner,
                        "preferredContactMethod": each.preferred_contact_method,
                        "enrichments": list(each.enrichments),
                    }
                    for each in world.leads.values()
                ],
                "audio": [
                    {
                        "_id": each.id,
                        "leadId": each.lead_id,
                        "stepId": each.step_id,
                        "campaignId": each.campaign_id,
                        "fileName": each.file_name,
                        "contentType": each.content_type,
                        "size": len(each.content),
                        "url": each.url,
                    }
                    for each in world.audio.values()
                ],
                "activities": [activity_json(each, world) for each in reversed(world.activities)],
                "unsubscribes": [asdict(each) for each in world.unsubscribes.values()],
                "limit": {
                    "kind": self.limit.kind,
                    "requests": self.limit.limit,
                    "seconds": self.limit.length,
                    "keys": {
                        key: {"admitted": each.admitted, "refused": each.refused, "busiest": each.busiest}
                        for key, each in self.limit.meters.items()
                    },
                },
                "faults": [fault.as_json() for fault in self.script],
                "counts": dict(request_log.counts),
                "requests": [exchange.line() for exchange in request_log.exchanges],
                "violations": self.violations(),
            }

    def violations(self) -> list[dict[str, Any]]:
        """Return the requests that contradict the documents."""
        with self.world.lock:
            return [asdict(each) for each in self.request_log.violations]
