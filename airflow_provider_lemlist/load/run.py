# SPDX-License-Identifier: Apache-2.0
"""
One load from start to end, one way.

    read who is suppressed, and what earlier runs wrote -> look at the campaign -> check the rows -> plan
    -> send -> write
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_lemlist.api.wire import CLOCK, SETTLE_TIME
from airflow_provider_lemlist.concurrency import Concurrency, request_rate
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError
from airflow_provider_lemlist.ledger.ledger import Ledger, LedgerEntry
from airflow_provider_lemlist.load import preflight
from airflow_provider_lemlist.load.plan import Situation
from airflow_provider_lemlist.load.pool import SenderPool
from airflow_provider_lemlist.load.report import LoadReport
from airflow_provider_lemlist.load.sending import LeadSender
from airflow_provider_lemlist.load.worklist import Worklist
from airflow_provider_lemlist.storage import shown_to_workers
from airflow_provider_lemlist.suppression.lists import Suppressions
from airflow_provider_lemlist.validation import plural

if TYPE_CHECKING:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.sources import Row

log = logging.getLogger(__name__)


class Load:
    """Load the rows of a source into a campaign."""

    def __init__(self, hook: LemlistHook, options: LoadOptions) -> None:
        self._hook = hook
        self._options = options
        self._stop_requested = False
        #: The counts; None until the rows were checked.
        self.report: LoadReport | None = None

    def stop(self) -> None:
        """Send no further row. Safe to call from a signal handler."""
        # Not an event: its lock may be held by the very thread that the signal interrupts.
        self._stop_requested = True

    def run(self) -> LoadReport:
        """
        Load every row that is not settled.

        :raises LemlistError: A mistake was found before anything was sent, an error concerns every row, or
            the load was stopped. The ledger contains what was done until then.
        """
        options = self._options
        log.info("The ledger is %s.", shown_to_workers(self._options.ledger_path))
        with (
            Ledger(
                options.ledger_path, options.campaign_id, options.run, read_only=options.dry_run
            ) as ledger,
            closing(Worklist(ledger.secret)) as worklist,
            closing(Suppressions()) as suppressions,
        ):
            suppressions.read(self._hook, options.exclusions)
            ledger.read(worklist.people)
            newest = worklist.people.newest_run(options.run.source)
            variables, latency = preflight.read_campaign(self._hook, options.campaign_id)
            self._look(worklist)
            found = preflight.check_rows(
                self._until_stopped(), options.mapping, worklist, variables.needed, suppressions.find
            )
            preflight.log_findings(found, options, worklist.people)
            if found.rows:
                preflight.check_variables(variables, options)
            situation = Situation(datetime.now(UTC), newest, worklist.people.sent, suppressions.find)
            replaced = worklist.plan(options, situation)
            left, refusal = self._plan_departures(worklist, found.rows, newest)
            report = self.report = LoadReport(
                worklist.rows(), worklist.kept(), left=left, departures=worklist.departures()
            )
            self._write_settled(ledger, worklist, report)
            rate = request_rate(self._hook.budget)
            preflight.log_estimate(options.campaign_id, worklist.requests(), rate, options.time_limit)
            try:
                if not options.dry_run:
                    self._send(ledger, worklist, report, Concurrency(rate, latency))
                    ledger.finish(worklist.people, report.counts(), replaced)
            finally:
                if not options.dry_run:
                    report.emit()
                log.info("Campaign %s: the load has ended.\n%s", options.campaign_id, report.table())
        if refusal is not None:
            raise refusal
        return report

    def _look(self, worklist: Worklist) -> None:
        """Read who is in the campaign."""
        if self._options.is_retry or worklist.people.are_in_doubt():
            CLOCK.sleep(SETTLE_TIME)  # what an attempt that died had sent may still be under way
        number = worklist.people.add_leads(self._hook.iter_leads(self._options.campaign_id))
        log.info("Campaign %s: %s in it.", self._options.campaign_id, plural(number, "lead"))

    def _plan_departures(
        self, worklist: Worklist, rows: int, newest: str
    ) -> tuple[int, LemlistValidationError | None]:
        """Plan what to do about the people who left the source; return how many have, and why not."""
        options, people = self._options, worklist.people
        if newest > options.run.order:
            return 0, None  # the source of an older run says nothing about who is missing now
        known = people.loaded_from(options.run.source)
        left = worklist.plan_departures(options)
        refusal = preflight.check_departures(options, rows, known, worklist.departures())
        if refusal is not None or worklist.nameless:
            worklist.cancel_departures()
        if worklist.nameless and left and refusal is None and options.if_missing != "keep":
            log.warning(
                "%s invalid and %s no one. They may be people who seem to have left the source, so nothing "
                "is done to those.",
                plural(worklist.nameless, "row", "is", "are"),
                "names" if worklist.nameless == 1 else "name",
            )
        return left, refusal

    def _write_settled(self, ledger: Ledger, worklist: Worklist, report: LoadReport) -> None:
        """Write the outcomes that take no request."""
        if report.settled_before:
            log.info("Earlier attempts settled %s rows.", f"{report.settled_before:,}")
        for entry in worklist.settled():
            report.count(entry.outcome, sent=False)
            if not self._options.dry_run:
                ledger.write(entry, urgent=False)

    def _send(self, ledger: Ledger, worklist: Worklist, report: LoadReport, concurrency: Concurrency) -> None:
        hook = self._hook
        pool = SenderPool(
            worklist.jobs(),
            LeadSender(hook, self._options, worklist.people.sent),
            ledger,
            report,
            concurrency,
            interrupt=hook.get_conn().stop,
        )
        uncertain = pool.uncertain
        try:
            with hook.get_conn().in_parts():
                pool.run(lambda: self._stop_requested)
            uncertain = self._look_again(ledger, uncertain)
        finally:
            for entry in uncertain:
                ledger.write(entry)
                report.count(entry.outcome)
        for name, times in sorted(report.refused.items()):
            log.warning("lemlist did not take the new value of %r for %s.", name, plural(times, "lead"))
        if report.not_tried:
            raise LemlistError(
                f"The load was stopped; {report.not_tried:,} rows were not tried. "
                "The next attempt continues from the ledger."
            )

    def _look_again(self, ledger: Ledger, uncertain: list[LedgerEntry]) -> list[LedgerEntry]:
        """Look for the leads of rows whose outcome is not known; lemlist has had time to create them."""
        if not uncertain or self._stop_requested:
            return uncertain
        log.info("Looking for the leads of %s in doubt.", plural(len(uncertain), "row"))
        CLOCK.sleep(SETTLE_TIME)
        with closing(Worklist(ledger.secret)) as now:
            now.people.add_leads(self._hook.iter_leads(self._options.campaign_id))
            return [_settled_by(now, entry) for entry in uncertain]

    def _until_stopped(self) -> Iterator[Row]:
        for row in self._options.rows():
            if self._stop_requested:
                raise LemlistError("The load was stopped before anything was sent.")
            yield row


def _settled_by(now: Worklist, entry: LedgerEntry) -> LedgerEntry:
    """Return the outcome of a row in doubt, after the campaign was looked at again."""
    found = now.people.find(entry.keys)
    if not found:
        return entry
    return entry._replace(
        outcome="created", lead_id=found[0].lead_id, message="found after its response was lost"
    )
