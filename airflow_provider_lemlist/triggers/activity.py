# SPDX-License-Identifier: Apache-2.0
"""The part of ``ActivitySensor`` that waits in the triggerer and shares its requests with other sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.activities import Bots, WaitCondition
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.run_window import parse_moment
from airflow_provider_lemlist.triggers.feed import Feed, FeedKey
from airflow_provider_lemlist.triggers.shared import SensorTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence


class ActivityTrigger(SensorTrigger[WaitCondition, Feed]):
    """
    Wait until lemlist lists enough activities, then fire once.

    Its event holds ids, times and flags and no personal data, because the triggerer logs it.

    The arguments are those of ``ActivitySensor``, except:

    :param since: The first moment that counts, as ISO 8601 text.
    :param poke_interval: Seconds between two reads.
    :param max_consecutive_failures: Number of retryable errors in a row after which to go on; None for any.
    """

    reads = "activities"

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

    def _condition(self) -> WaitCondition:
        return WaitCondition.of(self, parse_moment(self.since))

    def _keys(self, condition: WaitCondition) -> list[FeedKey]:
        return [
            FeedKey(self.lemlist_conn_id, self.campaign_id, name, self.is_first) for name in condition.types
        ]

    def _find(self, condition: WaitCondition, feeds: Sequence[Feed]) -> dict[str, Any] | Exception | None:
        found = condition.find(row for feed in feeds for row in feed.reading.matching(condition))
        if found is not None:
            return {"activities": found}
        return next((feed.error for feed in feeds if feed.error), None)
