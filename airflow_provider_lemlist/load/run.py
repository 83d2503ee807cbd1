# SPDX-License-Identifier: Apache-2.0
"""One load from its beginning to its end: read back, look, check, send, account for every row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.load import preflight
from airflow_provider_lemlist.load.account import Account
from airflow_provider_lemlist.load.ledger import Ledger, Line, last_ledger, read_back, read_previous
from airflow_provider_lemlist.load.loader import Loader, Pace
from airflow_provider_lemlist.load.sending import settle_without_asking
from airflow_provider_lemlist.load.worklist import Worklist
from airflow_provider_lemlist.storage import is_local, shown

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.choices import IfMissing
    from airflow_provider_lemlist.load.mapping import ColumnMapping
    from airflow_provider_lemlist.load.sending import Wishes
    from airflow_provider_lemlist.load.sources import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """
    What is to be loaded, and how.

    :param rows: Opens the source.
    :param mapping: Turns its rows into leads.
    :param wishes: The campaign, and what is wanted for every row.
    :param ledger_path: Where the ledger is or shall be.
    :param previous_ledger: The ledger of an earlier run, or a directory of ledgers.
    :param owner: How another load on this ledger is told of us.
    :param if_variable_missing: Whether a variable of the campaign that no column gives is an error.
    :param dry_run: Whether nothing is sent and no ledger written.
    :param time_limit: How long the task may take.
    """

    rows: Callable[[], Iterator[Row]]
    mapping: ColumnMapping
    wishes: Wishes
    ledger_path: ObjectStoragePath
    previous_ledger: ObjectStoragePath | None = None
    owner: str = "a load"
    if_variable_missing: IfMissing = "fail"
    dry_run: bool = False
    time_limit: timedelta | None = None


class Load:
    """
    Carry out an order.

    :param hook: The hook.
    :param order: What is to be loaded, and how.
    """

    def __init__(self, hook: LemlistHook, order: Order) -> None:
        self._hook = hook
        self._order = order
        self._stopped = False
        self._loader: Loader | None = None
        self._previous: ObjectStoragePath | None = None
        #: The counts, as soon as the rows were looked through.
        self.account: Account | None = None

    def stop(self) -> None:
        """Begin no further row. May be called from a signal handler."""
        self._stopped = True
        if self._loader is not None:
            self._loader.stop()

    def run(self) -> Account:
        """
        Load everything that is not settled.

        :raises LemlistError: A mistake was found before anything was sent, no further row could be sent, or
            the load was stopped. What was done by then is in the ledger.
        """
        order = self._order
        campaign_id = order.wishes.campaign_id
        with closing(Worklist()) as worklist:
            if order.previous_ledger:
                self._previous = last_ledger(order.previous_ledger, order.ledger_path)
                if read_previous(self._previous, campaign_id, worklist):
                    log.info("The previous ledger is %s.", shown(self._previous))
                else:
                    log.warning(
                        "There is no previous ledger at %s; every row counts as new.", shown(self._previous)
                    )
            with nullcontext() if order.dry_run else self._open_ledger() as ledger:
                if ledger is None:
                    read_back(order.ledger_path, campaign_id, worklist)
                else:
                    ledger.read_back(worklist)
                campaign = self._look(worklist)
                account = self.account = self._open_account(worklist, ledger)
                try:
                    if ledger is not None:
                        self._send(ledger, worklist, account, campaign.latency)
                        ledger.finish(worklist)
                finally:
                    log.info("Load of campaign %s:\n%s", campaign_id, account.table())
        return account

    def _open_ledger(self) -> Ledger:
        order = self._order
        warning = ", on this machine: an attempt on another one will not find it"
        log.info(
            "The ledger is %s%s.", shown(order.ledger_path), warning if is_local(order.ledger_path) else ""
        )
        return Ledger(order.ledger_path, order.wishes.campaign_id, order.owner, previous=self._previous)

    def _look(self, worklist: Worklist) -> preflight.Campaign:
        """Look at the campaign and at every row."""
        order = self._order
        campaign = preflight.look_at_campaign(self._hook, order.wishes.campaign_id)
        log.info("Campaign %s, %r, is %s.", order.wishes.campaign_id, campaign.name, campaign.status)
        found = preflight.look_through(
            self._until_stopped(order.rows()), order.mapping, worklist, campaign.variables.needed
        )
        preflight.tell(found, order.mapping)
        if found.rows:
            preflight.check_variables(
                campaign.variables,
                order.mapping.offered,
                enriched=any(value for name, value in order.wishes.flags.items() if name != "deduplicate"),
                if_missing=order.if_variable_missing,
            )
        return campaign

    def _open_account(self, worklist: Worklist, ledger: Ledger | None) -> Account:
        """Account for the rows that are settled already, and for those that will not be sent."""
        account = Account(worklist.rows(), worklist.settled_outcomes())
        if ledger is not None:
            ledger.clear_open()
        for number, key, outcome, message in worklist.refused():
            account.count(outcome, sent=False)
            if ledger is not None:
                ledger.write(Line(number, key, outcome, message=message))
        if account.before:
            log.info("Earlier attempts settled %s rows.", f"{account.before:,}")
        known = self._known(worklist)
        if known:
            log.info("The previous ledger settles %s rows without a request.", f"{known.total():,}")
        to_send = account.not_tried - known.total()
        preflight.tell_duration(to_send, preflight.present_rate(self._hook), self._order.time_limit)
        if ledger is None:
            for outcome in known.elements():
                account.count(outcome, sent=False)
        return account

    def _known(self, worklist: Worklist) -> Counter[str]:
        """Count the rows that will need no request, by outcome."""
        if not self._order.previous_ledger:
            return Counter()
        lines = (settle_without_asking(task, self._order.wishes) for task in worklist.tasks())
        return Counter(line.outcome for line in lines if line is not None)

    def _send(self, ledger: Ledger, worklist: Worklist, account: Account, latency: float) -> None:
        pace = Pace(preflight.present_rate(self._hook), latency)
        self._loader = Loader(self._hook, worklist.tasks(), ledger, account, self._order.wishes, pace)
        if self._stopped:
            self._loader.stop()
        self._loader.run()
        if account.not_tried:
            raise LemlistError(
                f"The load was stopped from outside, {account.not_tried:,} rows were not tried. The ledger "
                "is whole, and the next attempt goes on from there."
            )

    def _until_stopped(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            if self._stopped:
                raise LemlistError("The load was stopped from outside before anything was sent.")
            yield row
