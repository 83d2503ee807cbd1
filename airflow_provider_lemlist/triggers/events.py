# SPDX-License-Identifier: Apache-2.0
"""
The trigger with which activities of lemlist start DAGs, as the watcher of an asset (Airflow 3).

It looks at lemlist again and again, and tells what is new in events of the asset. The cursor names the
activities of an event only when Airflow has stored it: a kill at any moment repeats an event, and loses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from inspect import signature
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from airflow.triggers.base import TriggerEvent

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.activities import OVERLAP, Bots, checked_types, unknown_type_warning
from airflow_provider_lemlist.arguments import checked_choice, checked_id, given_but_empty
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.run_window import parse_moment
from airflow_provider_lemlist.triggers.cursors import AssetStates, NoStore, StateFile
from airflow_provider_lemlist.triggers.shared import error_event, is_lasting, message_of, utc_now
from airflow_provider_lemlist.triggers.watch import Watch
from airflow_provider_lemlist.version_compat import asset_states, event_trigger_class, has_asset_watchers

if TYPE_CHECKING:
    from airflow.triggers.base import BaseEventTrigger

    from airflow_provider_lemlist.triggers.cursors import CursorStore
else:
    BaseEventTrigger = event_trigger_class()

#: Seconds from Airflow's receipt for an event to the cursor that names its activities. Airflow also gives a
#: receipt for an event that it drops because the watcher was removed, as when its DAG is paused; it then ends
#: the trigger within a second or two, before the cursor has moved. This also keeps events apart: Airflow 3.3
#: leaves an event that follows another one before the scheduler has made a run to the run of the next event.
SETTLE = 5.0


@dataclass
class Told:
    """What a trigger tells: the payload of an event, and what is set once Airflow has stored it."""

    payload: dict[str, Any]
    is_stored: asyncio.Event = field(default_factory=asyncio.Event)

    async def settled(self) -> None:
        """Wait until Airflow has stored the event, and has had the time to make a run of it."""
        await self.is_stored.wait()
        await asyncio.sleep(SETTLE)


class ActivityEventTrigger(BaseEventTrigger):
    """
    Watch lemlist for activities, as the trigger of an ``AssetWatcher``: what is new becomes an asset event.

    Each activity is told at least once, the oldest first; one look makes one event, with at most ``batch``
    activities. An event holds ids, times and flags, and no personal data; ``activities_in`` reads it.

    Airflow 3.3 keeps the cursor, from which the trigger goes on after a restart, in the state store of the
    asset. Before 3.3, a file at ``state_path`` keeps it; without one, the trigger begins again at ``start``.

    All watchers and deferred sensors of one connection and campaign share their requests: a hundred of them
    cost the requests of one. While lemlist fails, looks become rarer. A refused key is logged once, and tried
    again every five minutes, so a repaired connection needs no restart.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/activity-event-trigger/>

    :param activity_type: Type of activity, such as ``emailsReplied``, or several.
    :param campaign_id: ID of the campaign; None for all campaigns of the team.
    :param lead_id: ID of the lead; None for all leads.
    :param poll_interval: Seconds between two looks.
    :param start: First moment that counts while there is no cursor, as a datetime or ISO 8601 text; ``now``
        means when the trigger runs for the first time.
    :param batch: Maximum number of activities in an event.
    :param bots: ``count`` to tell opens and clicks that lemlist attributes to a bot, too.
    :param overlap: How far each look reaches back, because lemlist lists some activities late. Every half
        hour one reaches back for a day.
    :param tell_errors: Whether an error that does not pass by itself, such as a refused key, makes an event,
        too.
    :param state_path: File that keeps the cursor, on disk or in an object storage; also on Airflow 3.3.
    :param lemlist_conn_id: lemlist connection to use.
    """

    def __init__(
        self,
        activity_type: str | list[str],
        *,
        campaign_id: str | None = None,
        lead_id: str | None = None,
        poll_interval: float = 30.0,
        start: datetime | str = "now",
        batch: int = 100,
        bots: Bots = "ignore",
        overlap: timedelta | float = OVERLAP,
        tell_errors: bool = False,
        state_path: str | None = None,
        lemlist_conn_id: str = DEFAULT_CONN_ID,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow ships it without annotations
        if not has_asset_watchers():
            raise LemlistConfigurationError(
                "ActivityEventTrigger needs the asset watchers of Airflow 3. On Airflow 2, use "
                "ActivitySensor in a DAG that runs every few minutes."
            )
        # As Airflow stores them: a datetime would come back as one of another class.
        self.activity_type = list(checked_types(activity_type))
        self.campaign_id = _checked_id("campaign_id", campaign_id)
        self.lead_id = _checked_id("lead_id", lead_id)
        self.poll_interval = _checked_number("poll_interval", poll_interval)
        self.start = start if start == "now" else parse_moment(start, "start").isoformat()
        self.batch = _checked_number("batch", batch, whole=True)
        self.bots = checked_choice(bots, _the("bots"), get_args(Bots))
        seconds = overlap.total_seconds() if isinstance(overlap, timedelta) else overlap
        self.overlap = _checked_number("overlap", seconds)
        self.tell_errors = checked_choice(tell_errors, _the("tell_errors"), (True, False))
        self.state_path = _checked_path("state_path", state_path)
        self.lemlist_conn_id = checked_id(
            lemlist_conn_id, _the("lemlist_conn_id"), error=LemlistConfigurationError
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the constructor's arguments, which Airflow stores and compares."""
        return (
            "airflow_provider_lemlist.triggers.events.ActivityEventTrigger",
            {name: getattr(self, name) for name in signature(ActivityEventTrigger).parameters},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each look that finds something (before Airflow 3.3)."""
        async with aclosing(self.tell()) as events:
            async for told in events:
                yield TriggerEvent(told.payload)
                told.is_stored.set()

    # --- Airflow 3.3 says when it has stored an event, to triggers that consume a shared stream -------------

    def shared_stream_key(self) -> tuple[str, Any]:
        """Return a key of this trigger alone: requests are shared by the feed, also with sensors."""
        return (type(self).__name__, self.trigger_id)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        """Return what passes the events on to Airflow, and its receipts back."""
        from airflow_provider_lemlist.triggers.receipts import Receipts

        return Receipts()

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Introduce this trigger to its stream, then fire its events."""
        async for item in shared_stream:
            if isinstance(item, asyncio.Future):
                item.set_result(self)
            else:
                yield TriggerEvent(item)

    # --- Looking and telling --------------------------------------------------------------------------------

    async def tell(self) -> AsyncGenerator[Told]:
        """Yield what is to be told. The caller sets ``is_stored`` once Airflow has stored it."""
        for warning in filter(None, map(unknown_type_warning, self.activity_type)):
            self.log.warning(warning)
        clock, store = asyncio.get_running_loop().time, self._store()
        watches = [Watch(self, name, store) for name in self.activity_type]
        told_errors: set[str] = set()
        with ExitStack() as stack:
            for watch in watches:
                stack.enter_context(watch.joined())
            while True:
                await asyncio.sleep(min(watch.due for watch in watches) - clock())
                # Together, or the second type would have to wait until what the first one found is told.
                together = clock() + self.poll_interval / 10
                due = [watch for watch in watches if watch.due <= together]
                await asyncio.gather(*(watch.look() for watch in due))
                # Several types fail in the same way, again and again; each way is told once.
                errors = {
                    message_of(error): error
                    for error in (watch.error for watch in watches)
                    if is_lasting(error)
                }
                if self.tell_errors:
                    for message in errors.keys() - told_errors:
                        told = Told(error_event(errors[message]))
                        yield told
                        await told.settled()
                told_errors = {*errors}
                found = iter(
                    sorted(
                        ((activity, watch) for watch in due for activity in watch.found),
                        key=lambda each: (each[0].at, each[0].id),
                    )
                )
                while part := list(islice(found, self.batch)):
                    now = utc_now()
                    for activity, _ in part:
                        metrics.EVENT_DELAY.record((now - activity.at).total_seconds())
                    told = Told({"status": "success", "activities": [activity.row for activity, _ in part]})
                    yield told
                    await told.settled()
                    for watch in due:
                        await watch.note([activity for activity, owner in part if owner is watch])
                for watch in due:
                    await watch.end_look()

    def _store(self) -> CursorStore:
        if self.state_path is not None:
            return StateFile(self.state_path)
        states = asset_states(self)
        return AssetStates(states) if states else NoStore()


def activities_in(triggering_asset_events: Mapping[Any, Sequence[Any]]) -> list[dict[str, Any]]:
    """
    Return the activities that triggered a run, each once, the oldest first.

    :param triggering_asset_events: The entry of the task's context with this name.
    """
    found: dict[str, dict[str, Any]] = {}
    for events in triggering_asset_events.values():
        for event in events:
            payload = event.extra.get("payload")
            if not isinstance(payload, dict):
                continue  # of another asset of the DAG
            found |= {activity["_id"]: activity for activity in payload.get("activities", ())}
    return sorted(found.values(), key=lambda activity: activity.get("createdAt", ""))


# --- Arguments --------------------------------------------------------------------------------------------


def _the(name: str) -> str:
    return f"The {name} of ActivityEventTrigger"


def _checked_id(name: str, value: str | None) -> str | None:
    return None if value is None else checked_id(value, _the(name), error=LemlistConfigurationError)


def _checked_number(name: str, value: Any, *, whole: bool = False) -> Any:
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    # Python's moments do not reach back for any number of seconds.
    if not (is_number and 0 < value < 1e9):
        raise LemlistConfigurationError(
            f"{_the(name)} must be a {'whole ' if whole else ''}number above 0 and below 1e9, not {value!r}."
        )
    return value if whole else float(value)  # 60 and 60.0 are the same trigger


def _checked_path(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or given_but_empty(value):
        raise LemlistConfigurationError(
            f"{_the(name)} must be a path such as 's3://bucket/replies.json', not {value!r}."
        )
    return value
