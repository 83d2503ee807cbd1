# SPDX-License-Identifier: Apache-2.0
"""The part of ``ActivitySensor`` that waits in the triggerer and shares its requests with other sensors."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from inspect import signature
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_lemlist.activities import Bots, WaitCondition
from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.run_window import parse_moment
from airflow_provider_lemlist.triggers.feed import FeedKey, is_retryable, join_feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ActivityTrigger(BaseTrigger):
    """
    Wait until lemlist lists enough activities, then fire once.

    The trigger has no state that a restart of the triggerer could lose. Its event holds ids, times and flags
    and no personal data, because the triggerer logs it.

    After an error that a retry may cure (no network, a failing server, no budget) it reads again after
    ``poke_interval``; the hook has then already retried the request with growing pauses.

    The arguments are those of ``ActivitySensor``, except:

    :param since: The first moment that counts, as ISO 8601 text.
    :param poke_interval: Seconds between two reads.
    :param max_consecutive_failures: Number of retryable errors in a row after which to go on; None for any.
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
        bots: Bots = "ignore",
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
        self.bots = bots
        self.poke_interval = poke_interval
        self.max_consecutive_failures = max_consecutive_failures
        self.lemlist_conn_id = lemlist_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the constructor's arguments: Airflow stores them while the task waits."""
        return (
            "airflow_provider_lemlist.triggers.activity.ActivityTrigger",
            {name: getattr(self, name) for name in signature(ActivityTrigger).parameters},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire one event: ``success`` with the activities, or ``error`` with the class and message."""
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        condition = WaitCondition.of(self, parse_moment(self.since))
        clock = asyncio.get_running_loop().time
        failures, most = 0, self.max_consecutive_failures
        with ExitStack() as stack:
            feeds = [
                stack.enter_context(
                    join_feed(
                        FeedKey(self.lemlist_conn_id, self.campaign_id, name, self.is_first), self, condition
                    )
                )
                for name in condition.types
            ]
            # A read of another trigger within the last interval is recent enough for the first decision.
            read_at = dict.fromkeys(feeds, clock() - self.poke_interval)
            while True:
                for feed in feeds:
                    read_at[feed] = await feed.wait_for_read(condition, after=read_at[feed])
                found = condition.find(row for feed in feeds for row in feed.reading.matching(condition))
                if found is not None:
                    return {"status": "success", "activities": found}
                error = next((feed.error for feed in feeds if feed.error), None)
                failures = failures + 1 if error else 0
                if error:
                    if not is_retryable(error) or (most is not None and failures > most):
                        return error_event(error)
                    self.log.warning(
                        "Reading activities failed (%d in a row); next read in %s s: %s",
                        failures,
                        self.poke_interval,
                        error,
                    )
                await asyncio.sleep(min(read_at.values()) + self.poke_interval - clock())


def error_event(error: Exception) -> dict[str, Any]:
    """Return the event for an error, from which the sensor raises it again."""
    ours = isinstance(error, LemlistError)
    return {
        "status": "error",
        "error": type(error).__name__ if ours else LemlistError.__name__,
        "message": str(error) if ours else f"Reading activities failed: {type(error).__name__}: {error}",
        "http_status": getattr(error, "status", None),
    }
