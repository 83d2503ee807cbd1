# SPDX-License-Identifier: Apache-2.0
"""
One function sends a call to lemlist: ``Transport.call``.

    book a slot of the budget -> wait for it -> send -> judge -> return | retry | reconcile | raise

``wire`` books, waits and sends; ``judge`` decides; here the decision is carried out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.api.budget import SLICE
from airflow_provider_lemlist.api.judge import Action, Call, Failure, Response, Success, Verdict, judge
from airflow_provider_lemlist.api.limits import read_limits
from airflow_provider_lemlist.api.operations import Effect, Operation, Reconcile
from airflow_provider_lemlist.api.pending import PENDING
from airflow_provider_lemlist.api.wire import CLOCK, Exchange, Wire
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistNetworkError,
    LemlistRateLimitError,
    LemlistStoppedError,
    LemlistUncertainError,
)

if TYPE_CHECKING:
    import requests

    from airflow_provider_lemlist.api.budget import Budget
    from airflow_provider_lemlist.api.switch import WriteSwitch
    from airflow_provider_lemlist.api.wire import MultipartFile
    from airflow_provider_lemlist.audit import Audit
    from airflow_provider_lemlist.connection import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one call is retried."""

    attempts: int = 5
    #: Refusals by the rate limit are not failures: they are waited out, within ``seconds``.
    refusals: int = 30
    seconds: float = 600.0
    #: First pause between attempts; each is twice the one before, with jitter, up to ``longest_pause``.
    pause: float = 1.0
    longest_pause: float = 30.0
    #: Longest jitter after the second refusal, twice that after the third, and so on up to ``longest_pause``.
    refusal_jitter: float = 0.1
    #: Pauses before each look-up of a lost effect, which may still be under way.
    lookups: tuple[float, ...] = (1.0, 4.0)
    #: The same where lemlist may need 45 s, and the request must not be sent again.
    long_lookups: tuple[float, ...] = (1.0, 4.0, 15.0, 30.0)


class Transport:
    """
    Send calls to lemlist for one connection, from any number of threads.

    :param budget: The rate budget of the connection's key.
    :param switch: Refuses requests that change something while it is set.
    :param audit: Records them.
    """

    def __init__(
        self,
        settings: Settings,
        budget: Budget,
        *,
        user_agent: str,
        retry_policy: RetryPolicy | None = None,
        switch: WriteSwitch | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._wire = Wire(settings, budget, user_agent=user_agent)
        self._policy = retry_policy or RetryPolicy()
        self._switch = switch
        self._audit = audit

    def call(
        self,
        operation: Operation,
        *,
        path: Mapping[str, object] | None = None,
        query: Mapping[str, object] | None = None,
        body: Any = None,
        upload: MultipartFile | None = None,
        reconcile: Reconcile | None = None,
        into: BinaryIO | None = None,
    ) -> Any:
        """
        Send a call, and return the parsed response.

        :param path: Values of the path's names.
        :param query: Query parameters; None values are left out.
        :param upload: Multipart body, instead of ``body``.
        :param reconcile: How to find out whether it took effect when the response was lost.
        :param into: File for the response of an operation with ``Shape.OBJECTS`` or ``Shape.TABLE``; the
            returned iterator reads from it.
        :raises LemlistError: What went wrong, after everything that may safely be retried was retried.
        """
        path, query = path or {}, query or {}
        try:
            request = self._wire.prepare(operation, path, query, body, upload)
            call = Call(
                operation,
                self._settings.conn_id,
                self._wire.secrets,
                self._settings.base_url_problem,
                operation.shown(path, query),
            )
            send = partial(self._complete, call, request, reconcile or Reconcile(None), into)
            if self._audit is None or not operation.writes:
                return send()
            return self._audit.around(operation, path, query, body, send)
        except LemlistError as error:
            _count_error(error)
            raise

    def in_parts(self) -> AbstractContextManager[None]:
        """Let the audit trail gather records while many requests are sent."""
        return nullcontext() if self._audit is None else self._audit.in_parts()

    def _complete(
        self, call: Call, request: requests.PreparedRequest, reconcile: Reconcile, into: BinaryIO | None
    ) -> Any:
        """Send a call until it succeeds, or no attempt may follow."""
        attempts = _Attempts(self._policy)
        in_doubt = False
        while True:
            verdict = self._attempt(call, request, into)
            if isinstance(verdict, Success):
                return verdict.value
            error = verdict.error
            call = replace(call, in_doubt=call.in_doubt or error.in_doubt)
            in_doubt = error.in_doubt = in_doubt or error.in_doubt
            if verdict.action is Action.RAISE:
                raise error
            if verdict.action is not Action.RETRY:
                found = self._reconcile(call, verdict, reconcile)
                if found is not None:
                    return found
                # It is not there; only a request that the network has lost may still arrive.
                in_doubt = error.in_doubt = isinstance(error, LemlistNetworkError)
            pause = attempts.pause_after(error)
            if pause is None:
                raise error
            metrics.RETRIES.add()
            log.warning(
                "%s: %s. Retrying%s.", call.shown, _name(error), f" in {pause:.1f} s" if pause else ""
            )
            self._pause(pause)

    def probe(self, operation: Operation) -> tuple[Verdict, Response | None]:
        """Send a call once, and return what it means with the response; None if none arrived."""
        exchange = self._wire.send(self._wire.prepare(operation, {}, {}, None, None), self._settings.timeout)
        response = exchange.outcome if isinstance(exchange.outcome, Response) else None
        if response is not None:
            self._report(exchange, response)
        call = Call(operation, "", self._wire.secrets, self._settings.base_url_problem)
        return judge(call, exchange.outcome, exchange.detail), response

    def stop(self) -> None:
        """
        Send nothing more: calls that wait raise ``LemlistStoppedError``, those that are sent are completed.

        A signal handler may call this. It takes no lock, which the interrupted thread could hold.
        """
        self._wire.stopped = True

    def close(self) -> None:
        """Close the connections of this process."""
        self._wire.close()

    def _attempt(self, call: Call, request: requests.PreparedRequest, into: BinaryIO | None) -> Verdict:
        """Send the request once, and judge the response."""
        timeout = max(self._settings.timeout, call.operation.min_read_timeout)
        try:
            switch = self._switch if call.operation.writes else None
            exchange = self._wire.send(request, timeout, into, switch)
        except (LemlistConfigurationError, LemlistRateLimitError, LemlistStoppedError) as error:
            error.operation, error.request, error.conn_id = str(call.operation), call.shown, call.conn_id
            return Failure(error)
        if isinstance(exchange.outcome, Response):
            self._report(exchange, exchange.outcome)
        return judge(call, exchange.outcome, exchange.detail)

    def _reconcile(self, call: Call, failure: Failure, reconcile: Reconcile) -> Any:
        """Find the lost effect; return None if it is not there and the request may be sent again."""
        log.warning("%s: %s. Checking whether it took effect.", call.shown, _name(failure.error))
        if reconcile.find is None:
            raise _uncertain(call, failure.error, reconcile)
        once = call.operation.effect is Effect.CREATE_ONCE
        pauses = self._policy.lookups
        if failure.action is Action.RECONCILE_THEN_STOP:
            pauses = self._policy.long_lookups
        elif once:
            pauses = pauses[:1]  # lemlist's own check covers what is still under way
        for pause in pauses:
            self._pause(pause)
            try:
                found = reconcile.find()
            except LemlistUncertainError as error:
                raise error from failure.error
            except LemlistError as error:
                if not (error.retryable and (once or reconcile.resumable)):
                    raise _uncertain(call, error, reconcile) from failure.error
                # A later attempt finds the effect, or lemlist refuses a second one.
                error.in_doubt = True
                raise error from failure.error
            except Exception as error:
                # A response that cannot be read says as little as none.
                raise _uncertain(call, failure.error, reconcile) from error
            if found is not None:
                metrics.RECONCILED.add(variant="found")
                return found
        if failure.action is Action.RECONCILE_THEN_RETRY:
            metrics.RECONCILED.add(variant="absent")
            return None
        if failure.action is Action.RECONCILE_THEN_RAISE:
            metrics.RECONCILED.add(variant="absent")
            raise failure.error
        raise _uncertain(call, failure.error, reconcile)

    def _pause(self, seconds: float) -> None:
        """Sleep until the pause is over or the transport is stopped; the next request raises then."""
        while seconds > 0 and not self._wire.stopped:
            CLOCK.sleep(min(seconds, SLICE))
            seconds -= SLICE
            PENDING.look()

    def _report(self, exchange: Exchange, response: Response) -> None:
        """Report to the budget what the headers say, and count."""
        refused = response.status == 429
        if refused:
            metrics.REFUSALS.add()
        if exchange.slot is not None:
            metrics.WAITS.record(exchange.slot.wait)
            limits = read_limits(response.headers, datetime.now(UTC))
            self._budget.report(exchange.slot, refused=refused, **limits._asdict())


@dataclass(slots=True)
class _Attempts:
    """What is left of the retry policy for one call."""

    policy: RetryPolicy
    failures: int = 0
    refusals: int = 0
    first_failure: float | None = None

    def pause_after(self, error: LemlistError) -> float | None:
        """Return the seconds to wait before the next attempt, None if there is none left."""
        policy, now = self.policy, CLOCK.now()
        self.first_failure = now if self.first_failure is None else self.first_failure
        refused = isinstance(error, LemlistRateLimitError)
        if refused:
            self.refusals += 1
        else:
            self.failures += 1
        too_long = now - self.first_failure > policy.seconds
        if too_long or self.failures >= policy.attempts or self.refusals >= policy.refusals:
            return None
        if refused:
            # The budget has moved every booked slot, the next one of this call too. Refusals that repeat come
            # from clients that do not share the budget: jitter keeps two of them from colliding again.
            return CLOCK.uniform(0.0, min(policy.refusal_jitter * (self.refusals - 1), policy.longest_pause))
        full = min(policy.pause * 2.0 ** (self.failures - 1), policy.longest_pause)
        return full * CLOCK.uniform(0.5, 1.0)


def _uncertain(call: Call, error: LemlistError, reconcile: Reconcile) -> LemlistUncertainError:
    message = f"It is not known whether lemlist carried out this request: {error.message} {reconcile.hint}"
    return call.error(
        LemlistUncertainError, error.reason, message, status=error.status, text=error.text, trace=error.trace
    )


def _name(error: LemlistError) -> str:
    if isinstance(error, LemlistNetworkError) and error.status is None:
        return error.message.partition(". ")[0]
    status = f" {error.status}" if error.status else ""
    return f"{type(error).__name__}{status}{f' ({error.trace})' if error.trace else ''}"


def _count_error(error: LemlistError) -> None:
    if isinstance(error, LemlistUncertainError):
        metrics.UNCERTAIN.add()
    name = type(error).__name__.removeprefix("Lemlist").removesuffix("Error")
    # Without a reason it was not sent: RateLimit is a wait beyond max_wait, Validation a mistake found here.
    metrics.ERRORS.add(variant=error.reason.name.lower() if error.reason else name.lower())
