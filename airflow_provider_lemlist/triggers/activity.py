# SPDX-License-Identifier: Apache-2.0
"""The part of ``ActivitySensor`` that waits in the triggerer, together with all others of its campaign."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lemlist.activities import Wait, as_moment, as_types
from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.triggers.feed import FeedKey, joined, may_pass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ActivityTrigger(BaseTrigger):
    """
    Wait until lemlist lists enough activities, then fire once.

    It keeps nothing that a restart of the triggerer could lose: started again, it finds the same. The event
    holds ids, times and flags and no personal data, for the triggerer writes it to its log.

    A fault that may pass (no network, a failing server, no budget) is met by asking again after
    ``poke_interval``; the hook has then already replayed the request with growing pauses.

    :param activity_type: Types of activity; one of any counts.
    :param since: The first moment that counts, as ISO 8601 text.
    :param campaign_id: ID of the campaign to look at; None for all campaigns of the team.
    :param lead_id: ID of the lead to look at; None for all leads.
    :param min_count: How many activities it takes.
    :param is_first: True to count only the first activity of its type, False only the later ones.
    :param poke_interval: Seconds between two looks.
    :param max_consecutive_failures: How many passing faults in a row to bear before giving up; None for any.
    :param lemlist_conn_id: lemlist connection to use.
    """

    def __init__(
        self,
        activity_type: str | list[str],
        *,
        since: str,
        campaign_id: str | None = None,
        lead_id: str | None = None,
        min_count: int = 1,
        is_first: bool | None = None,
        poke_interval: float = 60.0,
        max_consecutive_failures: int | None = 10,
        lemlist_conn_id: str = DEFAULT_CONN_ID,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow ships it without annotations
        self.activity_type = activity_type
        self.since = since
        self.campaign_id = campaign_id
        self.lead_id = lead_id
        self.min_count = min_count
        self.is_first = is_first
        self.poke_interval = poke_interval
        self.max_consecutive_failures = max_consecutive_failures
        self.lemlist_conn_id = lemlist_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the constructor's arguments: Airflow stores them while the task waits."""
        return (
            "airflow_provider_lemlist.triggers.activity.ActivityTrigger",
            {
                "activity_type": self.activity_type,
                "since": self.since,
                "campaign_id": self.campaign_id,
                "lead_id": self.lead_id,
                "min_count": self.min_count,
                "is_first": self.is_first,
                "poke_interval": self.poke_interval,
                "max_consecutive_failures": self.max_consecutive_failures,
                "lemlist_conn_id": self.lemlist_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire one event: ``success`` with the activities, or ``error`` with the class and message."""
        yield TriggerEvent(await self._outcome())

    async def _outcome(self) -> dict[str, Any]:
        wait = Wait(
            types=as_types(self.activity_type),
            since=as_moment(self.since),
            min_count=self.min_count,
            lead_id=self.lead_id,
            is_first=self.is_first,
        )
        clock = asyncio.get_running_loop().time
        failures = 0
        with ExitStack() as stack:
            feeds = [
                stack.enter_context(
                    joined(FeedKey(self.lemlist_conn_id, self.campaign_id, name, self.is_first), wait)
                )
                for name in wait.types
            ]
            # What others read within the last interval is new enough for a first look.
            seen = dict.fromkeys(feeds, clock() - self.poke_interval)
            while True:
                for feed in feeds:
                    seen[feed] = await feed.newer(wait, than=seen[feed])
                found = wait.find(activity for feed in feeds for activity in feed.known.matching(wait))
                if found is not None:
                    return {"status": "success", "activities": found}
                error = next((feed.error for feed in feeds if feed.error), None)
                failures = failures + 1 if error else 0
                if error:
                    if not may_pass(error) or self._has_enough_of(failures):
                        return failure(error)
                    self.log.warning(
                        "lemlist could not be asked (%d in a row); asking again in %s s: %s",
                        failures,
                        self.poke_interval,
                        error,
                    )
                await asyncio.sleep(min(seen.values()) + self.poke_interval - clock())

    def _has_enough_of(self, failures: int) -> bool:
        return self.max_consecutive_failures is not None and failures > self.max_consecutive_failures


def failure(error: Exception) -> dict[str, Any]:
    """Write an error so that the sensor can raise it again."""
    ours = isinstance(error, LemlistError)
    return {
        "status": "error",
        "error": type(error).__name__ if ours else LemlistError.__name__,
        "message": str(error) if ours else f"Reading activities failed: {type(error).__name__}: {error}",
        "http_status": getattr(error, "status", None),
    }
