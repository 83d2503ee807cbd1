# SPDX-License-Identifier: Apache-2.0
"""
The figures of a campaign, and what is beyond a limit: shared by ``CampaignGuardOperator`` and its sensor.

Pure except ``read_figures``, which is passed the hook. A figure that lemlist did not return is an error and
never zero, because a guard that reads zero finds every campaign safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)
from airflow_provider_lemlist.validation import hint

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

#: The channels by which lemlist's statistics can be restricted.
Channel = Literal["email", "linkedin", "others"]

#: Bounces and unsubscribes are those of emails, and so are the messages they are compared with: LinkedIn
#: messages would dilute the rates.
EMAIL: tuple[Channel, ...] = ("email",)

#: From how many messages on a rate says something. Below it, one bounce more or less would decide.
MIN_SENT = 50

#: Most campaigns that lemlist takes in one request for statistics.
BATCH = 100

_SENT = "messagesSent"
_REQUEST = "POST /v2/campaigns/stats/batch"


class Metric(NamedTuple):
    """
    How a metric is counted.

    :param about: What it is.
    :param counter: lemlist's counter; that of the part, if it is a rate.
    :param whole: Of a rate, lemlist's counter of the whole.
    :param channels: The channels that are counted; None for all.
    """

    about: str
    counter: str
    whole: str = ""
    channels: tuple[Channel, ...] | None = None


#: The names for which the sensor can wait, and those in the report of the guard.
METRICS: dict[str, Metric] = {
    "sent": Metric("messages sent", _SENT),
    "not_sent": Metric("messages that could not be sent", "messagesNotSent"),
    "delivered": Metric("messages delivered", "delivered"),
    "bounced": Metric("emails bounced", "messagesBounced", channels=EMAIL),
    "opened": Metric("emails opened", "opened", channels=EMAIL),
    "clicked": Metric("emails with a clicked link", "clicked", channels=EMAIL),
    "replied": Metric("messages replied to", "replied"),
    "launched": Metric("leads launched", "nbLeadsLaunched"),
    "reached": Metric("leads reached", "nbLeadsReached"),
    "answered": Metric("leads who replied", "nbLeadsAnswered"),
    "interested": Metric("leads marked as interested", "nbLeadsInterested"),
    "not_interested": Metric("leads marked as not interested", "nbLeadsNotInterested"),
    "unsubscribed": Metric("leads unsubscribed", "nbLeadsUnsubscribed", channels=EMAIL),
    "invitation_accepted": Metric("LinkedIn invites accepted", "invitationAccepted"),
    "meeting_booked": Metric("meetings booked", "meetingBooked"),
    "bounce_rate": Metric("bounced of all emails sent", "messagesBounced", _SENT, EMAIL),
    "unsubscribe_rate": Metric(
        "unsubscribed of all leads reached by email", "nbLeadsUnsubscribed", "nbLeadsReached", EMAIL
    ),
    "open_rate": Metric("opened of all emails delivered", "opened", "delivered", EMAIL),
    "click_rate": Metric("clicked of all emails delivered", "clicked", "delivered", EMAIL),
    "reply_rate": Metric("replied to of all messages delivered", "replied", "delivered"),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What lemlist counted for a campaign between two moments.

    :param counts: lemlist's counters, those that it returned.
    """

    campaign_id: str
    since: datetime
    until: datetime
    counts: Mapping[str, int]

    @classmethod
    def of(cls, campaign_id: str, row: Mapping[str, Any], since: datetime, until: datetime) -> Figures:
        """Read a row of lemlist's statistics; a counter that is no count counts as missing."""
        counts = {name: value for name, value in row.items() if type(value) is int and value >= 0}
        return cls(campaign_id, since, until, counts)

    @property
    def sent(self) -> int:
        """The number of messages sent."""
        return self._count(_SENT)

    def value(self, metric: str) -> float | None:
        """
        Return a count, or a rate from 0 to 1; None for a rate of nothing.

        :raises LemlistUnexpectedReplyError: lemlist did not return a counter that the metric needs.
        """
        part, whole = self.parts(metric)
        if whole is None:
            return part
        return part / whole if whole else None

    def is_above(self, metric: str, limit: float) -> bool:
        """Return whether a metric is above a limit, as 5 of 0 are above every limit of a rate."""
        part, whole = self.parts(metric)
        if whole is None:
            return part > limit
        return part / whole > limit if whole else part > 0

    def parts(self, metric: str) -> tuple[int, int | None]:
        """Return a count and None, or the part and the whole of a rate."""
        of = METRICS[metric]
        return self._count(of.counter), self._count(of.whole) if of.whole else None

    def text(self, metric: str) -> str:
        """Return a metric as text: ``bounce_rate 5.17% (62 of 1,200)``."""
        part, whole = self.parts(metric)
        if whole is None:
            return f"{metric} {part:,}"
        rate = f" {part / whole:.2%}" if whole else ""
        return f"{metric}{rate} ({part:,} of {whole:,})"

    def report(self) -> dict[str, Any]:
        """Return the figures for XCom: counts and rates by name, None where they are not known."""
        return {
            "campaign_id": self.campaign_id,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "figures": {
                name: self.counts.get(metric.counter) for name, metric in METRICS.items() if not metric.whole
            },
            "rates": {
                name: self.value(name) if {metric.counter, metric.whole} <= self.counts.keys() else None
                for name, metric in METRICS.items()
                if metric.whole
            },
        }

    def _count(self, counter: str) -> int:
        try:
            return self.counts[counter]
        except KeyError:
            raise LemlistUnexpectedReplyError(
                f"The statistics of campaign {self.campaign_id} lack {counter}, which is not taken for 0.",
                operation=_REQUEST,
            ) from None


# --- Decisions --------------------------------------------------------------------------------------------


class Excess(NamedTuple):
    """A metric that is beyond its limit; no value means a part of nothing."""

    metric: str
    value: float | None
    limit: float


def exceeded(figures: Figures, limits: Mapping[str, float], *, min_sent: int) -> list[Excess] | None:
    """
    Return the metrics that are above their limits, or None if too few messages were sent to judge.

    :param limits: The limits by metric.
    :raises LemlistUnexpectedReplyError: lemlist did not return a counter that a limit needs, and no other
        limit is exceeded.
    """
    above: list[Excess] = []
    missing: LemlistUnexpectedReplyError | None = None
    for metric, limit in limits.items():
        try:
            if figures.is_above(metric, limit):
                above.append(Excess(metric, figures.value(metric), limit))
        except LemlistUnexpectedReplyError as error:
            missing = error
    has_enough = figures.sent >= min_sent
    if missing and not (above and has_enough):
        raise missing
    return above if has_enough else None


class Period(NamedTuple):
    """From when on is counted: a fixed moment, or a window before each read."""

    since: datetime | None = None
    window: timedelta | None = None

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """Return the first and the last moment of a read."""
        since = self.since or now - (self.window or timedelta())
        return since, max(now, since + timedelta(seconds=1))  # lemlist may refuse equal bounds

    def __str__(self) -> str:
        return f"since {self.since}" if self.since else f"in the last {self.window}"


@dataclass(frozen=True, slots=True)
class StatsCondition:
    """What a sensor waits for: a metric above or below a limit; one of the two is None."""

    metric: str
    above: float | None = None
    below: float | None = None
    min_sent: int = 0

    def find(self, figures: Figures) -> dict[str, Any] | None:
        """
        Return the figures for XCom, with the metric and its value, or None to go on waiting.

        :raises LemlistUnexpectedReplyError: lemlist did not return a counter that the condition needs.
        """
        if self.min_sent and figures.sent < self.min_sent:
            return None
        value = figures.value(self.metric)
        if self.above is not None:
            is_met = figures.is_above(self.metric, self.above)
        else:
            is_met = value is not None and self.below is not None and value < self.below
        return {"metric": self.metric, "value": value, **figures.report()} if is_met else None

    def __str__(self) -> str:
        limit = f"above {self.above}" if self.above is not None else f"below {self.below}"
        return f"{self.metric} {limit}" + (f", from {self.min_sent} messages on" if self.min_sent else "")


# --- Arguments --------------------------------------------------------------------------------------------


def checked_metric(value: Any, what: str) -> str:
    """Return the name of a metric."""
    if not isinstance(value, str) or value not in METRICS:
        names = tuple(METRICS)
        meant = hint(value, names) if isinstance(value, str) else ""
        raise LemlistConfigurationError(f"{what} must be one of {', '.join(names)}, not {value!r}{meant}.")
    return value


def checked_channels(value: Any, what: str) -> tuple[Channel, ...]:
    """Return the channels of a list of them."""
    names = get_args(Channel)
    if not isinstance(value, (list, tuple)) or not value or any(each not in names for each in value):
        raise LemlistConfigurationError(f"{what} must be a list of {', '.join(names)}, not {value!r}.")
    return tuple(name for name in names if name in value)


# --- Reading ----------------------------------------------------------------------------------------------


def read_figures(
    hook: LemlistHook,
    campaign_ids: Sequence[str],
    period: Period,
    channels: Sequence[Channel] | None,
    now: datetime,
) -> dict[str, Figures | LemlistError]:
    """
    Return the figures of each campaign, or why there are none: with one request for 100 campaigns.

    A campaign that is missing in lemlist's response is requested by itself, and so is each of a batch that
    lemlist refuses: one wrong id must not hide the figures of all others.

    :param channels: None for all.
    :param now: The end of the period.
    """
    since, until = period.bounds(now)
    found: dict[str, Figures | LemlistError] = {}
    for start in range(0, len(campaign_ids), BATCH):
        batch = campaign_ids[start : start + BATCH]
        try:
            response = hook.get_campaigns_stats(batch, since, until, channels=channels)
            rows = {row.get("campaignId"): row for row in response.get("results") or ()}
        except (LemlistNotFoundError, LemlistValidationError):
            rows = {}
        except LemlistError as error:
            found.update(dict.fromkeys(batch, error))
            continue
        for campaign_id in batch:
            try:
                row = rows.get(campaign_id) or hook.get_campaign_stats(
                    campaign_id, since, until, channels=channels
                )
                found[campaign_id] = Figures.of(campaign_id, row, since, until)
            except LemlistError as error:
                found[campaign_id] = error
    return found
