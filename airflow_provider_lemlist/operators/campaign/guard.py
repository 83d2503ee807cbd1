# SPDX-License-Identifier: Apache-2.0
"""The operator that stops campaigns with too many bounces or unsubscribes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_lemlist.arguments import (
    check_choice,
    check_count,
    check_duration,
    check_part,
    checked_ids,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistGuardError,
    LemlistValidationError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.stats import (
    EMAIL,
    MIN_SENT,
    Excess,
    Figures,
    Period,
    exceeded,
    read_figures,
)
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

#: What to do about a campaign that is beyond a limit.
GuardAction = Literal["pause", "fail", "warn"]

#: The arguments that are limits, and the metric that each of them limits.
LIMITS = {"max_bounce_rate": "bounce_rate", "max_unsubscribe_rate": "unsubscribe_rate"}

#: The states in which a campaign sends nothing. One with the status ``errors`` may still send.
NOT_SENDING = ("draft", "paused", "ended", "archived")

#: How many campaigns an error names; the report has them all.
MOST_NAMED = 10


class CampaignGuardOperator(LemlistOperator):
    """
    Pause campaigns with too many bounces or unsubscribes, and fail the task.

    What counts is what happened by email in the ``window`` before now, by lemlist's own counts. One request
    reads the figures of 100 campaigns. A campaign without figures fails the task, too, after the others were
    handled.

    Returns a report: for each campaign its ``figures`` and ``rates``, whether it was ``judged``, the limits
    that it is ``beyond``, and whether the task has ``paused`` it. It is also pushed under ``report``, before
    the task fails; the ids of the paused campaigns are pushed under ``paused``.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/campaign-guard/>

    :param campaign_id: Id of the campaign, or a list of ids. (templated)
    :param window: Count what happened in this time before now.
    :param max_bounce_rate: The largest part of the emails sent that may bounce, from 0 to 1; None for any.
    :param max_unsubscribe_rate: The largest part of the leads reached that may unsubscribe, from 0 to 1; None
        for any.
    :param min_sent: Number of emails sent in the window below which a campaign is not judged.
    :param action: What to do about a campaign that is beyond a limit: ``pause`` it and fail the task, only
        ``fail`` the task, or only ``warn`` in the log.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "lemlist_conn_id")
    operator_extra_links = (CampaignLink(),)

    def __init__(
        self,
        *,
        campaign_id: str | Sequence[str] | XComArg,
        window: timedelta = timedelta(days=7),
        max_bounce_rate: float | None = 0.03,
        max_unsubscribe_rate: float | None = 0.02,
        min_sent: int = MIN_SENT,
        action: GuardAction = "pause",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id: Any = campaign_id
        self.window = window
        self.max_bounce_rate = max_bounce_rate
        self.max_unsubscribe_rate = max_unsubscribe_rate
        self.min_sent = min_sent
        self.action = action
        self._paused: list[str] = []
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_choice("action", arguments, GuardAction)
        check_count("min_sent", arguments)
        check_duration("window", arguments)
        limits = [name for name in LIMITS if arguments[name] is not None]
        for name in limits:
            check_part(name, arguments)
        if not limits:
            task_id = arguments["task_id"]
            raise LemlistConfigurationError(f"Set {' or '.join(LIMITS)} of task {task_id!r}: both are None.")
        if not is_open(arguments["campaign_id"]):
            _checked_campaigns(arguments["campaign_id"], the("campaign_id", arguments))

    def execute(self, context: Context) -> dict[str, dict[str, Any]]:
        """Judge the campaigns, and pause those that are beyond a limit; return the report."""
        ids = _checked_campaigns(self.campaign_id, self._the("campaign_id"))
        if len(ids) == 1:
            (self.campaign_id,) = ids  # for the link
            self._push(context, campaign_id=self.campaign_id)
        # Bounces and unsubscribes are those of emails: LinkedIn messages would dilute the rates.
        read = read_figures(self.hook, ids, Period(window=self.window), EMAIL, datetime.now(UTC))
        findings = [self._judge(campaign_id, found) for campaign_id, found in read.items()]
        if self.action == "pause":
            for finding in findings:
                if finding.beyond:
                    self._pause(finding)
        for finding in findings:
            log = self.log.warning if finding.beyond or finding.error else self.log.info
            log("Campaign %s", finding)
        report = {finding.campaign_id: finding.report() for finding in findings}
        self._push(context, report=report, paused=self._paused)
        self._raise_for(findings)
        beyond = [finding.campaign_id for finding in findings if finding.beyond]
        self._update_outlets(context, campaigns=len(findings), beyond=beyond)
        return report

    def _judge(self, campaign_id: str, found: Figures | LemlistError) -> _Finding:
        if isinstance(found, LemlistError):
            return _Finding(campaign_id, error=found)
        given = ((metric, getattr(self, name)) for name, metric in LIMITS.items())
        limits = {metric: limit for metric, limit in given if limit is not None}
        finding = _Finding(campaign_id, found, metrics=tuple(limits))
        try:
            finding.beyond = exceeded(found, limits, min_sent=self.min_sent)
        except LemlistError as error:
            finding.error = error
        return finding

    def _pause(self, finding: _Finding) -> None:
        """Pause a campaign unless it does not run; the next one is paused whatever happens to this one."""
        campaign_id = finding.campaign_id
        try:
            finding.status = self.hook.get_campaign(campaign_id).get("status") or "unknown"
            if finding.status not in NOT_SENDING:
                self._in_flight = f"pause campaign {campaign_id}"
                self.hook.pause_campaign(campaign_id)
                finding.paused = True
                self._paused.append(campaign_id)
        except LemlistError as error:
            finding.error = error
        self._in_flight = ""

    def _raise_for(self, findings: Sequence[_Finding]) -> None:
        beyond = [each for each in findings if each.beyond and self.action != "warn"]
        unjudged = [each for each in findings if each.error and not each.beyond]
        errors = [each.error for each in findings if each.error]
        if errors and not beyond and all(each.error is errors[0] for each in findings):
            raise errors[0]  # of the only campaign, or of the request for all of them
        problems = [
            f"{len(these)} of {len(findings)} campaigns {what}"
            for these, what in ((beyond, "beyond a limit"), (unjudged, "not judged"))
            if these
        ]
        if not problems:
            return
        concerned = beyond + unjudged
        named = "; ".join(map(str, concerned[:MOST_NAMED]))
        more = f"; and {len(concerned) - MOST_NAMED} more, see the log" if concerned[MOST_NAMED:] else ""
        remedy = " Mend the list of leads before a campaign goes on." if beyond else ""
        kind: type[LemlistError] = LemlistGuardError
        if len({*map(type, errors)}) == 1 and not beyond:
            kind = type(errors[0])
        elif any(error.retryable for error in errors):
            kind = LemlistError  # the next attempt reads and pauses what this one could not
        raise kind(f"{', '.join(problems)}: {named}{more}.{remedy}")

    def _changed_campaigns(self) -> list[str]:
        return self._paused


@dataclass
class _Finding:
    """What the guard has found out about a campaign, and has done."""

    campaign_id: str
    figures: Figures | None = None
    #: The metrics that are limited.
    metrics: Sequence[str] = ()
    #: The limits that it is beyond; None if it was not judged.
    beyond: list[Excess] | None = None
    #: Why it was not judged, or could not be paused.
    error: LemlistError | None = None
    #: lemlist's status before anything was done; None if it was not requested.
    status: str | None = None
    paused: bool = False

    def report(self) -> dict[str, Any]:
        """Return it for XCom."""
        figures = self.figures.report() if self.figures else {"campaign_id": self.campaign_id}
        return {
            **figures,
            "judged": self.beyond is not None,
            "beyond": [excess._asdict() for excess in self.beyond or ()],
            "status": self.status,
            "paused": self.paused,
            "error": self.error and self.error.message,
        }

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self._outcome()}"

    def _outcome(self) -> str:
        if self.figures is None or (self.error and not self.beyond):
            return f"not judged: {self.error and self.error.message.rstrip('.')}"
        if self.beyond is None:
            return f"not judged, because too few emails were sent ({self.figures.sent:,})"
        if not self.beyond:
            return f"within the limits, {', '.join(map(self.figures.text, self.metrics))}"
        texts = (f"{self.figures.text(each.metric)} is above {each.limit:.2%}" for each in self.beyond)
        return ", ".join(texts) + self._done()

    def _done(self) -> str:
        if self.paused:
            return ", paused"
        if self.error:
            return f", may still send because pausing it failed: {self.error.message.rstrip('.')}"
        return f", was not running ({self.status})" if self.status else ""


def _checked_campaigns(value: Any, what: str) -> tuple[str, ...]:
    refuse_empty(value, what, ", but must be an id or a list of them")
    return checked_ids(value, what, error=LemlistValidationError)
