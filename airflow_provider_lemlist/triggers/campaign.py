# SPDX-License-Identifier: Apache-2.0
"""The part of ``CampaignStatsSensor`` that waits in the triggerer and shares its requests with others."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.run_window import parse_moment
from airflow_provider_lemlist.stats import Channel, Figures, Period, StatsCondition, read_figures
from airflow_provider_lemlist.triggers.shared import SensorTrigger, SharedFeed, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor


class StatsKey(NamedTuple):
    """What triggers must have in common to share a request."""

    conn_id: str
    period: Period
    channels: tuple[Channel, ...] | None

    def open(self, readers: ThreadPoolExecutor) -> StatsFeed:
        """Return a feed that reads it."""
        return StatsFeed(self, readers)


class StatsFeed(SharedFeed[str, "Mapping[str, Figures | LemlistError]"]):
    """The figures of all campaigns for which a trigger waits, read with one request for 100 of them."""

    key: StatsKey

    def _covers(self, condition: str) -> bool:
        return False  # what a read was not for, it has not read

    def _fetch(self, conditions: frozenset[str]) -> Mapping[str, Figures | LemlistError]:
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        conn_id, period, channels = self.key
        # A hook for each read: a changed connection takes effect, and no socket is idle between two reads.
        with closing(LemlistHook(conn_id)) as hook:
            return read_figures(hook, sorted(conditions), period, channels, utc_now())


class CampaignStatsTrigger(SensorTrigger[str, StatsFeed]):
    """
    Wait until a metric of a campaign is above or below a limit, then fire once.

    The arguments are those of ``CampaignStatsSensor``, except:

    :param min_sent: Number of messages sent below which to go on waiting.
    :param since: The first moment that counts, as ISO 8601 text; None with a window.
    :param window: Seconds before each read, instead of ``since``.
    :param channels: The channels that count; None for all.
    :param poke_interval: Seconds between two reads.
    :param max_consecutive_failures: Number of retryable errors in a row after which to go on; None for any.
    """

    reads = "statistics"

    def __init__(
        self,
        campaign_id: str,
        metric: str,
        *,
        above: float | None = None,
        below: float | None = None,
        min_sent: int = 0,
        since: str | None = None,
        window: float | None = None,
        channels: Sequence[Channel] | None = None,
        poke_interval: float = 300.0,
        max_consecutive_failures: int | None = 10,
        lemlist_conn_id: str = DEFAULT_CONN_ID,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow ships it without annotations
        self.campaign_id = campaign_id
        self.metric = metric
        self.above = above
        self.below = below
        self.min_sent = min_sent
        self.since = since
        self.window = window
        self.channels = channels
        self.poke_interval = poke_interval
        self.max_consecutive_failures = max_consecutive_failures
        self.lemlist_conn_id = lemlist_conn_id

    def _condition(self) -> str:
        return self.campaign_id

    def _keys(self, condition: str) -> list[StatsKey]:
        period = Period(
            None if self.since is None else parse_moment(self.since),
            None if self.window is None else timedelta(seconds=self.window),
        )
        channels = None if self.channels is None else tuple(self.channels)
        return [StatsKey(self.lemlist_conn_id, period, channels)]

    def _find(self, condition: str, feeds: Sequence[StatsFeed]) -> dict[str, Any] | Exception | None:
        (feed,) = feeds
        figures = feed.error or feed.reading[condition]
        if isinstance(figures, Exception):
            return figures
        try:
            found = StatsCondition(self.metric, self.above, self.below, self.min_sent).find(figures)
        except LemlistError as error:
            return error
        return found and {"stats": found}
