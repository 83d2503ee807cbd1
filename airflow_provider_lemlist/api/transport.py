# SPDX-License-Identifier: Apache-2.0
"""
One function asks lemlist: ``Transport.call``.

    book a slot of the budget -> wait for it -> send -> judge -> return | ask again | look | raise

``judge`` decides; here it is carried out. The slot is booked after the connection stands, just before
the bytes leave: a TLS handshake in between would break the spacing of the requests.
"""

from __future__ import annotations

import base64
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3Timeout
from urllib3.util import is_connection_dropped

from airflow_provider_lemlist.api.judge import Action, Asked, Failure, Fault, Reply, Success, judge
from airflow_provider_lemlist.api.limits import read_limits
from airflow_provider_lemlist.api.multipart import MultipartFile
from airflow_provider_lemlist.api.operations import Effect, Operation, query_text
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistNetworkError,
    LemlistRateLimitError,
    LemlistUncertainError,
    LemlistValidationError,
)

if TYPE_CHECKING:
    from airflow_provider_lemlist.api.budget import Budget, Slot
    from airflow_provider_lemlist.connection import Settings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
#: How long before its moment a waiting request makes sure that its connection still stands.
WAKE_EARLY = 1.0
#: Connections kept open; more threads than that open and close their own.
POOL_SIZE = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long one call is tried."""

    attempts: int = 5
    #: Refusals by the rate limit are not failures: they are waited out, within ``seconds``.
    refusals: int = 30
    seconds: float = 600.0
    #: First pause between attempts; each is twice the one before, with jitter, up to ``longest_pause``.
    pause: float = 1.0
    longest_pause: float = 30.0
    #: Pauses before each look for the effect of a lost answer, which may still be under way.
    looks: tuple[float, ...] = (1.0, 4.0)
    #: The same where lemlist may be at work for 45 s, and nobody may ask again.
    long_looks: tuple[float, ...] = (1.0, 4.0, 15.0, 30.0)


class Transport:
    """
    Send requests to lemlist for one connection, from any number of threads.

    :param settings: The checked connection.
    :param budget: The rate budget of its key, shared with everybody else who uses the key.
    :param user_agent: What we call ourselves.
    :param patience: How often and how long one call is tried.
    :param count: Called with the name of a metric and its value.
    :param sleep: Replaces ``time.sleep``.
    """

    def __init__(
        self,
        settings: Settings,
        budget: Budget,
        *,
        user_agent: str,
        patience: Patience | None = None,
        count: Callable[[str, float], None] = lambda name, value: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._budget = budget
        self._patience = patience or Patience()
        self._count = count
        self._sleep = sleep
        basic = base64.b64encode(f":{settings.api_key}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {basic}",
            "User-Agent": user_agent,
            "Accept": "application/json, text/plain;q=0.9, */*;q=0.8",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "keep-alive",
        }
        self._secrets = tuple({settings.api_key, basic, quote(settings.api_key, safe="")})
        # The environment is read once and by us: a proxy has no place before the sandbox on this machine.
        self._proxies = {} if settings.is_local else dict(get_environ_proxies(settings.base_url))
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._adapter: HTTPAdapter | None = None
        self._adapter_pid = 0
        self._lock = threading.Lock()

    def call(
        self,
        operation: Operation,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: Any = None,
        upload: MultipartFile | None = None,
        look: Callable[[], Any] | None = None,
        look_hint: str = "Look in lemlist whether it happened before you do it again.",
    ) -> Any:
        """
        Ask lemlist, and return what it answered.

        :param operation: What to ask.
        :param path: Values of the path's names.
        :param query: Query parameters; None values are left out.
        :param body: JSON body.
        :param upload: Multipart body, in place of ``body``.
        :param look: Finds the effect of a lost answer: returns it, or None when it is certainly not there.
        :param look_hint: What a person should check when nobody can tell.
        :raises LemlistError: What went wrong, after everything that may safely be tried again was tried.
        """
        request = self._prepare(operation, path or {}, query or {}, body, upload)
        asked = Asked(operation, self._settings.conn_id, self._secrets)
        tries = _Tries(self._patience)
        while True:
            if upload is not None:
                upload.rewind()
            verdict = judge(asked, *self._send(asked, request))
            if isinstance(verdict, Success):
                return verdict.value
            error = verdict.error
            asked = replace(asked, doubted=asked.doubted or verdict.doubt)
            if verdict.action is Action.RAISE:
                raise error
            if verdict.action is not Action.REPLAY:
                found = self._look(asked, verdict, look, look_hint)
                if found is not None:
                    return found
            pause = tries.pause_after(error)
            if pause is None:
                raise error
            log.warning(
                "%s: %s. Trying again%s.", operation, _reason(error), f" in {pause:.1f} s" if pause else ""
            )
            self._sleep(pause)

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            if self._adapter and self._adapter_pid == os.getpid():
                self._adapter.close()
            self._adapter = None

    def _look(self, asked: Asked, failure: Failure, look: Callable[[], Any] | None, look_hint: str) -> Any:
        """Find the effect of a lost answer; return None when it is not there and asking again is safe."""
        log.warning("%s: %s. Looking whether it happened.", asked.operation, _reason(failure.error))
        if look is None:
            raise _uncertain(failure.error, look_hint)
        pauses = self._patience.looks
        if failure.action is Action.LOOK_THEN_DOUBT:
            pauses = self._patience.long_looks
        elif asked.operation.effect is Effect.CREATE_ONCE:
            pauses = pauses[:1]  # lemlist's own check covers what is still under way
        for pause in pauses:
            self._sleep(pause)
            try:
                found = look()
            except LemlistError as error:
                raise _uncertain(error, look_hint) from failure.error
            except Exception as error:
                # An answer that nobody can read tells as little as none.
                raise _uncertain(failure.error, look_hint) from error
            if found is not None:
                return found
        if failure.action is Action.LOOK_THEN_REPLAY:
            return None
        if failure.action is Action.LOOK_THEN_RAISE:
            raise failure.error
        raise _uncertain(failure.error, look_hint)

    def _prepare(
        self,
        operation: Operation,
        path: Mapping[str, str],
        query: Mapping[str, object],
        body: Any,
        upload: MultipartFile | None,
    ) -> requests.PreparedRequest:
        request = requests.PreparedRequest()
        headers = self._headers
        if upload is not None:
            headers = {**headers, "Content-Type": upload.content_type}
        try:
            url = self._settings.base_url + operation.url_path(**path)
            if words := query_text(query):
                url = f"{url}?{urlencode(words)}"
            request.prepare(method=operation.method, url=url, headers=headers, data=upload, json=body)
        except LemlistError:
            raise
        except requests.exceptions.InvalidURL:
            raise LemlistConfigurationError(
                f"Host (Base URL) of connection {self._settings.conn_id!r} is no URL; leave it empty for "
                "lemlist itself, or write http(s)://…/api.",
                operation=str(operation),
            ) from None
        except (requests.RequestException, TypeError, ValueError) as error:
            raise LemlistValidationError(
                f"{operation} cannot be written down as it is given: {error}. It takes text, finite numbers, "
                "flags, lists and dicts.",
                operation=str(operation),
            ) from None
        return request

    def _send(self, asked: Asked, request: requests.PreparedRequest) -> tuple[Reply | Fault, str]:
        """Give the answer, or how the network failed and what the machine says about that."""
        timeout = max(self._settings.timeout, asked.operation.patience)
        departure = _current.departure = _Departure(self._budget)
        try:
            response = self._depart(request, timeout)
            if response.status_code < 200:
                # Python takes "early hints" for the answer. The real one must not become that of the next
                # request on the same connection.
                response.close()
                return Fault.LOST, ""
            body_bytes = response.content
        except LemlistRateLimitError as error:
            raise LemlistRateLimitError(
                f"{error} ({asked.operation}, connection {asked.conn_id!r})",
                wait=error.wait,
                operation=str(asked.operation),
            ) from None
        except (requests.RequestException, HTTPError, OSError) as error:
            causes = list(_causes(error))
            return _fault(causes, departure.sent), _why(causes)
        finally:
            _current.departure = None
        names = {name.lower(): value for name, value in response.headers.items()}
        reply = Reply(response.status_code, names, body_bytes)
        self._hear(departure, reply)
        return reply, ""

    def _depart(self, request: requests.PreparedRequest, timeout: float) -> requests.Response:
        # The adapter alone, without a session around it: no redirects, no cookies, no .netrc in place
        # of the key, and a fifth less time.
        send = partial(
            self._get_adapter().send,
            request,
            stream=True,
            timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            verify=self._verify,
            proxies=self._proxies,
        )
        try:
            return send()
        except _Dropped:
            # The pool opens another one: it alone knows the way through a proxy.
            return send()

    def _hear(self, departure: _Departure, reply: Reply) -> None:
        """Tell the budget what the headers say, and count."""
        slot = departure.slot
        refused = reply.status == 429
        self._count("requests", 1)
        if refused:
            self._count("refusals", 1)
        if slot is not None:
            self._count("waits", slot.wait)
            limits = read_limits(reply.headers, datetime.now(UTC))
            self._budget.report(
                slot,
                refused=refused,
                limit=limits.limit,
                remaining=limits.remaining,
                retry_after=limits.retry_after,
            )

    def _get_adapter(self) -> HTTPAdapter:
        # After a fork the sockets belong to the parent too: answers would get mixed up.
        with self._lock:
            if self._adapter is None or self._adapter_pid != os.getpid():
                self._adapter, self._adapter_pid = _BudgetedAdapter(pool_maxsize=POOL_SIZE), os.getpid()
            return self._adapter


class _Tries:
    """What is left of the patience for one call."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._refusals = 0
        self._first_failure: float | None = None

    def pause_after(self, error: LemlistError) -> float | None:
        """Give the seconds to wait before the next attempt, None when there shall be none."""
        patience = self._patience
        now = time.monotonic()
        self._first_failure = now if self._first_failure is None else self._first_failure
        refused = isinstance(error, LemlistRateLimitError)
        if refused:
            self._refusals += 1
        else:
            self._failures += 1
        if (
            self._failures >= patience.attempts
            or self._refusals >= patience.refusals
            or now - self._first_failure > patience.seconds
        ):
            return None
        if refused:
            return 0.0  # the budget has moved every booked slot, the next one of ours too
        full = min(patience.pause * 2.0 ** (self._failures - 1), patience.longest_pause)
        return full * random.uniform(0.5, 1.0)


def _uncertain(error: LemlistError, hint: str) -> LemlistUncertainError:
    return LemlistUncertainError(
        f"Nobody can tell whether this happened: {error} {hint}",
        status=error.status,
        text=error.text,
        operation=error.operation,
    )


def _reason(error: LemlistError) -> str:
    if isinstance(error, LemlistNetworkError) and error.status is None:
        return str(error).partition(". ")[0]
    return f"{type(error).__name__}{f' {error.status}' if error.status else ''}"


#: What the certificate, and a bundle that is missing or holds none, are complained about with.
_NO_TRUST = ("CERTIFICATE_VERIFY_FAILED", "CA certificate bundle", "[X509")


def _fault(causes: list[BaseException], sent: bool) -> Fault:
    if not sent:
        said = " ".join(str(cause) for cause in causes)
        return Fault.REFUSED_TLS if any(words in said for words in _NO_TRUST) else Fault.UNSENT
    if any(isinstance(cause, (requests.Timeout, Urllib3Timeout, TimeoutError)) for cause in causes):
        return Fault.SILENT
    if any(isinstance(cause, requests.exceptions.ChunkedEncodingError) for cause in causes):
        return Fault.CUT
    return Fault.LOST


def _why(causes: list[BaseException]) -> str:
    """Give the words of the system; those of the libraries hold the URL, and that may hold an address."""
    system = [
        cause
        for cause in causes
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException)
    ]
    return next((cause.strerror for cause in system if cause.strerror), str(system[0]) if system else "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    stack: list[Any] = [error]
    while stack:
        cause = stack.pop()
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        stack += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


class _Departure:
    """The moment at which one request leaves: a slot of the budget, and whether bytes went out."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.slot: Slot | None = None
        self.sent = False

    def leave(self, connection: HTTPConnection) -> None:
        """
        Book and wait for the slot.

        :raises _Dropped: The connection did not outlast the wait; the slot stays for the one that follows.
        """
        if connection.sock is None:
            connection.connect()
        if self.slot is None:
            slot = self.slot = self._budget.book()
            if slot.wait > WAKE_EARLY:
                # A server drops an idle connection after some seconds; to find that out at the slot's moment
                # would cost a handshake, or leave doubt about a request that was sent into the void. (A new
                # TLS connection looks dropped too, for its session tickets are unread: it is then opened
                # once more.)
                self._budget.wait(slot, early=WAKE_EARLY)
                if is_connection_dropped(connection):
                    raise _Dropped
        self._budget.wait(self.slot)
        self.sent = True


class _Dropped(Exception):
    """The connection went away while its request waited."""


_current = threading.local()


class _Budgeted:
    """Mixed into urllib3's connections: nothing leaves before its slot of the budget."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the slot, then let the request go."""
        departure: _Departure | None = getattr(_current, "departure", None)
        if departure is not None:
            departure.leave(self)  # type: ignore[arg-type]  # always mixed into an HTTPConnection
        super().request(*args, **kwargs)  # type: ignore[misc]  # as above


class _BudgetedHTTP(_Budgeted, HTTPConnection):
    pass


class _BudgetedHTTPS(_Budgeted, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _BudgetedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _BudgetedHTTPS


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _BudgetedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
