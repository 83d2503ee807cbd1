# SPDX-License-Identifier: Apache-2.0
"""
One launch of leads from start to end.

    read what this run has chosen -> look at the campaign -> choose -> check -> write the choice -> launch
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.concurrency import Concurrency, request_rate
from airflow_provider_lemlist.exceptions import (
    LemlistError,
    LemlistStoppedError,
    LemlistValidationError,
    Reason,
)
from airflow_provider_lemlist.launch import gate
from airflow_provider_lemlist.launch.choice import Choice, ChoiceFile, choose
from airflow_provider_lemlist.ledger.ledger import LedgerEntry
from airflow_provider_lemlist.load.pool import SenderPool
from airflow_provider_lemlist.load.report import LoadReport, duration
from airflow_provider_lemlist.load.sending import Sent, concerns_every_row
from airflow_provider_lemlist.storage import shown_to_workers
from airflow_provider_lemlist.suppression.lists import Suppressions
from airflow_provider_lemlist.suppression.options import Exclusions
from airflow_provider_lemlist.validation import plural

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.launch.gate import Readiness
    from airflow_provider_lemlist.launch.options import LaunchOptions

log = logging.getLogger(__name__)

#: Refusals that concern one lead and are no failure: the outcome of each.
_OUTCOMES = {
    Reason.LEAD_PAUSED: "paused",
    Reason.LEAD_NOT_FOUND: "gone",
    Reason.UNSUBSCRIBED: "suppressed",
}
#: Refusals that every other lead would meet as well, besides those that the loader knows.
_CONCERN_EVERY_LEAD = (Reason.NO_SENDER, Reason.STEP_ERRORS)
#: The most unknown ids that an error names.
_MAX_NAMED = 5


class LaunchReport(LoadReport):
    """
    The counts of a launch.

    :param choice: The leads that are launched, and what becomes of the others.
    """

    names = (
        "launched",
        "already_launched",
        "waiting",
        "not_ready",
        "paused",
        "suppressed",
        "variable_missing",
        "gone",
        "failed",
    )
    units = "leads"

    def __init__(self, choice: Choice) -> None:
        self.launched_before = len(choice.launched_before)
        settled = Counter(choice.outcomes) + Counter(launched=self.launched_before)
        super().__init__(settled.total() + len(choice.to_launch), settled)

    def counts(self) -> dict[str, int]:
        """Return every count, as pushed to XCom."""
        outcomes = {name: self.outcomes[name] for name in self.names}
        return {**outcomes, "not_tried": self.not_tried, "launched_before": self.launched_before}


class Job(NamedTuple):
    """One lead to launch."""

    lead_id: str
    keys: Sequence[bytes] = ()
    #: It may be launched again after a kill, so nothing has to be recorded before.
    is_marked: bool = False


class Launched:
    """The leads that were launched; takes the place of a ledger, because the campaign shows them."""

    def __init__(self) -> None:
        self.lead_ids: list[str | None] = []

    def write(self, entry: LedgerEntry) -> None:
        if entry.outcome == "launched":
            self.lead_ids.append(entry.lead_id)

    def mark_in_flight(self, rows: Collection[Sequence[bytes]]) -> None:
        """Do nothing: no lead is marked."""

    def release(self, rows: Collection[Sequence[bytes]]) -> None:
        """Do nothing: no lead is marked."""

    def flush(self, *, older_than: float = 0.0) -> None:
        """Do nothing: nothing waits to be written."""


class Launch:
    """Launch leads of a campaign."""

    def __init__(self, hook: LemlistHook, options: LaunchOptions) -> None:
        self._hook = hook
        self._options = options
        self._transport = hook.get_conn()
        self._file = ChoiceFile(options.ledger_path, options.run.name, options.campaign_id)
        self._stop_requested = False
        self._choice = Choice()
        self._readiness: Readiness | None = None
        self._launched = Launched()
        self.report = LaunchReport(self._choice)

    def stop(self) -> None:
        """Launch no further lead. Safe to call from a signal handler."""
        # Not an event: its lock may be held by the very thread that the signal interrupts.
        self._stop_requested = True
        self._transport.stop()

    def run(self) -> LaunchReport:
        """
        Launch the leads that were chosen and still wait.

        :raises LemlistError: A check failed before anything was launched, an error concerns every lead, or
            the task was stopped.
        """
        options = self._options
        earlier = None if options.dry_run else self._begin()
        readiness, leads, latency = self._look()
        choice = self._choice = choose(
            leads,
            options.max_leads,
            lead_ids=options.lead_ids,
            earlier=earlier,
            skip_blank=options.if_variable_missing == "skip",
        )
        self._readiness = replace(readiness, to_contact=len(choice.to_launch), blank=choice.blank)
        report = self.report = LaunchReport(choice)
        self._readiness.log()
        self._check(self._readiness, choice)
        rate = request_rate(self._hook.budget)
        log.info(
            "Campaign %s: %s to launch, at most %s, at least %s.",
            options.campaign_id,
            plural(len(choice.to_launch), "lead"),
            f"{options.max_leads:,}",
            duration(len(choice.to_launch) / rate),
        )
        if choice.to_launch and not options.dry_run:
            self._file.choose(choice.of_run, earlier=earlier)
            self._send(choice.to_launch, report, Concurrency(rate, latency))
        return report

    def figures(self) -> dict[str, Any]:
        """Return what was found and done, for XCom."""
        choice = self._choice
        launched = {*self._launched.lead_ids, *choice.launched_before}
        figures = {
            **self.report.counts(),
            "lead_ids": [lead_id for lead_id in choice.of_run if lead_id in launched],
            "campaign_id": self._options.campaign_id,
            "readiness": self._readiness and self._readiness.to_json(),
        }
        return figures | {"would_launch": choice.to_launch} if self._options.dry_run else figures

    def _begin(self) -> list[str] | None:
        options = self._options
        log.info("The leads of this run are kept in %s.", shown_to_workers(self._file.path))
        earlier = self._file.begin(must_exist=options.is_retry and options.lead_ids is None)
        if earlier is not None:
            log.info("An earlier attempt of this run has chosen %s.", plural(len(earlier), "lead"))
        return earlier

    def _look(self) -> gate.Look:
        with closing(Suppressions()) as suppressions:
            suppressions.read(self._hook, Exclusions(self._options.exclude_unsubscribed))
            campaign = self._hook.get_campaign(self._options.campaign_id)
            return gate.look(self._hook, campaign, lambda lead: bool(suppressions.find(lead)))

    def _check(self, readiness: Readiness, choice: Choice) -> None:
        options = self._options
        if choice.unknown:
            named = ", ".join(choice.unknown[:_MAX_NAMED]) + ", …" * (len(choice.unknown) > _MAX_NAMED)
            raise LemlistValidationError(
                f"lead_ids names {plural(len(choice.unknown), 'lead')} that campaign {options.campaign_id} "
                f"does not have: {named}. Nothing was sent."
            )
        if choice.is_too_many:
            raise LemlistValidationError(
                "lead_ids has changed: with the leads that an earlier attempt has chosen, this run would "
                f"launch {len(choice.of_run):,}, and max_leads is {options.max_leads:,}. Trigger a new run "
                "for other leads. No lead was launched by this attempt."
            )
        gate.check_statutes(readiness)
        gate.check_status(readiness, options.if_paused)
        if options.if_variable_missing == "fail":
            gate.check_variables(readiness, "'skip' or 'warn'")

    def _send(self, lead_ids: Sequence[str], report: LaunchReport, concurrency: Concurrency) -> None:
        jobs = map(Job, lead_ids)
        pool = SenderPool(
            jobs, self._launch, self._launched, report, concurrency, interrupt=self._transport.stop
        )
        try:
            with self._transport.in_parts():
                pool.run(lambda: self._stop_requested)
        except LemlistStoppedError:
            pass  # as below; a thread may see the stop before the pool does
        except LemlistError as error:
            error.message += f" {self._so_far(lead_ids)}"
            raise
        finally:
            log.info("Campaign %s: the launch has ended.\n%s", self._options.campaign_id, report.table())
        if report.not_tried:
            raise LemlistError(
                f"The task was stopped. {self._so_far(lead_ids)} The next attempt launches the rest of them."
            )

    def _so_far(self, lead_ids: Sequence[str]) -> str:
        return f"{len(self._launched.lead_ids):,} of {len(lead_ids):,} leads were launched."

    def _launch(self, job: Job) -> Sent:
        entry = LedgerEntry(None, job.keys, "launched", job.lead_id)
        try:
            self._hook.launch_lead(job.lead_id)
        except LemlistError as error:
            if error.reason in _OUTCOMES:
                entry = entry._replace(outcome=_OUTCOMES[error.reason])
                log.info("Lead %s: %s, not launched.", job.lead_id, entry.outcome)
                return Sent(entry)
            if error.reason in _CONCERN_EVERY_LEAD or concerns_every_row(error):
                return Sent(None, error=error)
            return Sent(entry._replace(outcome="failed"), error=error)
        return Sent(entry)
