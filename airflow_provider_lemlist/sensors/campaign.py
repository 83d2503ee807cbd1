# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for a figure of a campaign: replies, messages sent, the rate of bounces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue, conf

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_count,
    check_duration,
    check_id,
    check_number,
    check_part,
    checked_id,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.run_window import parse_moment, run_window
from airflow_provider_lemlist.sensors.base import LemlistSensor
from airflow_provider_lemlist.stats import (
    METRICS,
    MIN_SENT,
    Channel,
    Period,
    StatsCondition,
    checked_channels,
    checked_metric,
    read_figures,
)
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg


class CampaignStatsSensor(LemlistSensor):
    """
    Wait until a figure of a campaign is above or below a limit.

    Returns the figures of the campaign, by lemlist's own counts.

    With ``deferrable=True`` it waits in the triggerer, where the sensors of one connection, period and
    channels share their requests: one for 100 campaigns. Otherwise every sensor sends its own.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/campaign-stats-sensor/>

    :param campaign_id: ID of the campaign. (templated)
    :param metric: A count, such as ``replied``, or a rate from 0 to 1, such as ``bounce_rate``.
    :param above: Wait until the metric is above this limit.
    :param below: Wait until the metric is below this limit; set one of the two.
    :param min_sent: Number of messages sent below which to go on waiting. Default: 50 for a rate, 0 for a
        count.
    :param since: The first moment that counts, as a datetime or ISO 8601 text; UTC without a time zone.
        Default: the start of the run's data interval if it has a width, else the ``run_after`` of the run
        before, else this run's own. (templated)
    :param window: Count what happened in this time before each read, instead of everything since a moment.
    :param channels: Count only what happened on these channels, of ``email``, ``linkedin`` and ``others``.
        Default: email for bounces, unsubscribes, opens and clicks, and all for the other metrics.
    :param deferrable: Whether to wait in the triggerer.
    :param poke_interval: Seconds between two reads.
    :param lemlist_conn_id: lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "since", "lemlist_conn_id")
    operator_extra_links = (CampaignLink(),)

    def __init__(
        self,
        *,
        campaign_id: str | XComArg,
        metric: str,
        above: float | None = None,
        below: float | None = None,
        min_sent: int | None = None,
        since: datetime | str | XComArg | None = NOT_GIVEN,
        window: timedelta | None = None,
        channels: Sequence[Channel] | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float = 300,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.campaign_id = campaign_id
        self.metric = metric
        self.above = above
        self.below = below
        self.min_sent = min_sent
        self.since = or_none(since)
        self.window = window
        self.channels = channels
        self.deferrable = deferrable
        self._given = given_names({"since": since}, mapped=is_from_mapped(self))
        self._period: Period | None = None
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        metric = checked_metric(arguments["metric"], the("metric", arguments))
        limits = [name for name in ("above", "below") if arguments[name] is not None]
        if len(limits) != 1:
            raise LemlistConfigurationError(f"Set one of above and below of task {arguments['task_id']!r}.")
        (check_part if METRICS[metric].whole else check_number)(limits[0], arguments)
        if arguments["below"] == 0:
            what = the("below", arguments)
            raise LemlistConfigurationError(f"{what} must be above 0: no figure is below it.")
        if arguments["min_sent"] is not None:
            check_count("min_sent", arguments)
        if arguments["channels"] is not None:
            checked_channels(arguments["channels"], the("channels", arguments))
        check_id("campaign_id", arguments, error=LemlistConfigurationError)
        since = or_none(arguments["since"])
        if arguments["window"] is not None:
            check_duration("window", arguments)
            if since is not None:
                task_id = arguments["task_id"]
                raise LemlistConfigurationError(f"Set since or window of task {task_id!r}, not both.")
        if since is not None and not is_open(since):
            _checked_since(arguments)

    def execute(self, context: Context) -> Any:
        # Before Airflow's loop, because soft_fail must not hide a wrong argument; and once, because the
        # default of since costs a request to Airflow.
        self._period = period = self._read_arguments(context)
        self.log.info("Waiting for %s of campaign %s, %s", self._condition, self.campaign_id, period)
        if not self.deferrable:
            with self._pushing_skips(context):
                return super().execute(context)

        from airflow_provider_lemlist.triggers.campaign import CampaignStatsTrigger

        condition, channels = self._condition, self._channels
        # No request before deferring: a hundred sensors that start together would each send one.
        self._wait_in_triggerer(
            CampaignStatsTrigger,
            campaign_id=self.campaign_id,
            metric=condition.metric,
            above=condition.above,
            below=condition.below,
            min_sent=condition.min_sent,
            since=period.since and period.since.isoformat(),
            window=period.window and period.window.total_seconds(),
            channels=channels and list(channels),
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        period = self._period or self._read_arguments(context)
        campaign_id = str(self.campaign_id)
        figures = read_figures(self.hook, [campaign_id], period, self._channels, datetime.now(UTC))[
            campaign_id
        ]
        if isinstance(figures, LemlistError):
            raise figures
        found = self._condition.find(figures)
        return False if found is None else PokeReturnValue(is_done=True, xcom_value=self._done(found))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the figures in the trigger's event, or raise the error in it.

        :raises LemlistError: The class that the hook raised in the triggerer.
        """
        return self._done(self._found(event, "stats"))

    @property
    def _condition(self) -> StatsCondition:
        default = MIN_SENT if METRICS[self.metric].whole else 0
        min_sent = default if self.min_sent is None else self.min_sent
        return StatsCondition(self.metric, self.above, self.below, min_sent)

    @property
    def _channels(self) -> tuple[Channel, ...] | None:
        if self.channels is None:
            return METRICS[self.metric].channels
        return checked_channels(self.channels, self._the("channels"))

    def _read_arguments(self, context: Context) -> Period:
        """Check the rendered arguments, and strip the id."""
        self.campaign_id = checked_id(
            self.campaign_id, self._the("campaign_id"), error=LemlistConfigurationError
        )
        if "since" in self._given:
            return Period(since=_checked_since(vars(self)))
        if self.window is not None:
            return Period(window=self.window)
        return Period(since=run_window(context).since)

    def _done(self, found: dict[str, Any]) -> dict[str, Any]:
        self.log.info("Campaign %s: %s is %s", found["campaign_id"], found["metric"], found["value"])
        return found


def _checked_since(arguments: Mapping[str, Any]) -> datetime:
    refuse_empty(arguments["since"], the("since", arguments), error=LemlistConfigurationError)
    return parse_moment(arguments["since"])
