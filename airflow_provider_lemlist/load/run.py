# SPDX-License-Identifier: Apache-2.0
"""One load from start to end: read the history, check the rows, send them, report every outcome."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.load import preflight
from airflow_provider_lemlist.load.ledger import (
    Ledger,
    LedgerEntry,
    latest_ledger,
    read_history,
    read_previous,
)
from airflow_provider_lemlist.load.pool import Concurrency, SenderPool
from airflow_provider_lemlist.load.report import LoadReport
from airflow_provider_lemlist.load.sending import settle_without_request
from airflow_provider_lemlist.load.worklist import Worklist
from airflow_provider_lemlist.storage import is_local, shown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.load.sources import Row

log = logging.getLogger(__name__)


class Load:
    """Load the rows of a source into a campaign."""

    def __init__(self, hook: LemlistHook, options: LoadOptions) -> None:
        self._hook = hook
        self._options = options
        self._stop_requested = False
        self._previous: ObjectStoragePath | None = None
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
        with closing(Worklist()) as worklist:
            if options.previous_ledger:
                self._read_previous(options.previous_ledger, worklist)
            with nullcontext() if options.dry_run else self._open_ledger() as ledger:
                read_history(options.ledger_path, options.campaign_id, worklist)
                latency = self._check(worklist)
                report = self.report = self._open_report(worklist, ledger)
                try:
                    if ledger is not None:
                        self._send(ledger, worklist, report, latency)
                        ledger.finish(worklist)
                finally:
                    log.info("Campaign %s: the load has ended.\n%s", options.campaign_id, report.table())
        return report

    def _read_previous(self, path: ObjectStoragePath, worklist: Worklist) -> None:
        self._previous = latest_ledger(path, self._options.ledger_path)
        if read_previous(self._previous, self._options.campaign_id, worklist):
            log.info("The previous ledger is %s.", shown(self._previous))
        else:
            log.warning(
                "There is no previous ledger at %s; every row is treated as new.", shown(self._previous)
            )

    def _open_ledger(self) -> Ledger:
        options = self._options
        local = " (local to this machine; a retry on another machine does not find it)"
        log.info("The ledger is %s%s.", shown(options.ledger_path), local * is_local(options.ledger_path))
        return Ledger(options.ledger_path, options.campaign_id, options.owner, previous=self._previous)

    def _check(self, worklist: Worklist) -> float:
        """Check the campaign and every row; return the seconds that lemlist takes to respond."""
        options = self._options
        variables, latency = preflight.read_campaign(self._hook, options.campaign_id)
        rows = self._until_stopped(options.rows())
        found = preflight.check_rows(rows, options.mapping, worklist, variables.needed)
        preflight.log_findings(found, options.mapping)
        if found.rows:
            preflight.check_variables(variables, options)
        return latency

    def _open_report(self, worklist: Worklist, ledger: Ledger | None) -> LoadReport:
        """Count the rows that are settled already and the rows that will not be sent."""
        report = LoadReport(worklist.rows(), worklist.settled_outcomes())
        if ledger is not None:
            ledger.remove("open")  # this attempt writes its own
        for number, key, outcome, message in worklist.rejected():
            report.count(outcome, sent=False)
            if ledger is not None:
                ledger.write(LedgerEntry(number, key, outcome, message=message))
        if report.settled_before:
            log.info("Earlier attempts settled %s rows.", f"{report.settled_before:,}")
        known: Counter[str] = Counter()  # the rows that will need no request, by outcome
        if self._options.previous_ledger:
            entries = (settle_without_request(row, self._options) for row in worklist.planned())
            known.update(entry.outcome for entry in entries if entry is not None)
        if known:
            log.info("The previous ledger settles %s rows without a request.", f"{known.total():,}")
        unsettled = report.not_tried - known.total()
        preflight.log_estimate(self._options, unsettled, preflight.request_rate(self._hook))
        if ledger is None:
            for outcome in known.elements():
                report.count(outcome, sent=False)
        return report

    def _send(self, ledger: Ledger, worklist: Worklist, report: LoadReport, latency: float) -> None:
        concurrency = Concurrency(preflight.request_rate(self._hook), latency)
        pool = SenderPool(self._hook, worklist.planned(), ledger, report, self._options, concurrency)
        pool.run(lambda: self._stop_requested)
        if report.not_tried:
            raise LemlistError(
                f"The load was stopped; {report.not_tried:,} rows were not tried. "
                "The next attempt continues from the ledger."
            )

    def _until_stopped(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            if self._stop_requested:
                raise LemlistError("The load was stopped before anything was sent.")
            yield row
