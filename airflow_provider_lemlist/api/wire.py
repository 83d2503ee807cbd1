# SPDX-License-Identifier: Apache-2.0
"""
The wire: a request leaves at its slot of the budget, and a response arrives or the network fails.

The slot is booked inside the connection, after it is established and just before the first byte: a TLS
handshake in between would break the spacing of the requests.
"""

from __future__ import annotations

import base64
import io
import os
import random
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, InvalidURL, RequestException, Timeout
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3Timeout
from urllib3.util import is_connection_dropped

from airflow_provider_lemlist.api.arrays import CHUNK, is_array
from airflow_provider_lemlist.api.judge import NetworkFault, Response
from airflow_provider_lemlist.api.operations import Operation, query_text
from airflow_provider_lemlist.api.pending import PENDING, PendingRequest, WaitsFor
from airflow_provider_lemlist.connection import not_a_url
from airflow_provider_lemlist.exceptions import LemlistError, LemlistStoppedError, LemlistValidationError

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

    from airflow_provider_lemlist.api.budget import Budget, Slot
    from airflow_provider_lemlist.api.switch import WriteSwitch
    from airflow_provider_lemlist.connection import Settings

CONNECT_TIMEOUT = 10.0
#: Seconds before its slot at which a waiting request checks that its connection is still open.
WAKE_EARLY = 1.0
#: Connections kept open; more threads than that open and close their own.
POOL_SIZE = 64


@dataclass(slots=True)
class Clock:
    """Time and chance for the pauses between attempts."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform


#: The clock of every transport; tests replace its attributes.
CLOCK = Clock()

#: Seconds after which a request whose response or process was lost has taken effect, or never will.
SETTLE_TIME = 5.0


class Exchange(NamedTuple):
    """What became of one request that was sent."""

    outcome: Response | NetworkFault
    #: What the operating system says about a network fault.
    detail: str
    #: The slot at which the request left; None if it did not leave.
    slot: Slot | None


class Wire:
    """Send requests over the connections of this process, each at a slot of the budget."""

    def __init__(self, settings: Settings, budget: Budget, *, user_agent: str) -> None:
        self._settings = settings
        self._budget = budget
        basic = base64.b64encode(f":{settings.api_key}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {basic}",
            "User-Agent": user_agent,
            "Accept": "application/json, text/plain;q=0.9, */*;q=0.8",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "keep-alive",
        }
        #: The key in every form in which it could come back in a text.
        self.secrets = tuple({settings.api_key, basic, quote(settings.api_key, safe="")})
        # The environment is read once: no proxy belongs between this process and a sandbox on its machine.
        self._proxies = {} if settings.is_local else dict(get_environ_proxies(settings.base_url))
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._adapter: HTTPAdapter | None = None
        self._adapter_pid = 0
        self._lock = threading.Lock()
        #: Set to True to send nothing more.
        self.stopped = False

    def prepare(
        self,
        operation: Operation,
        path: Mapping[str, object],
        query: Mapping[str, object],
        body: Any,
        upload: MultipartFile | None,
    ) -> requests.PreparedRequest:
        """Write a request, to be sent once or several times; raise if a value cannot be written."""
        request = requests.PreparedRequest()
        headers = self._headers | ({} if upload is None else {"Content-Type": upload.content_type})
        try:
            url = self._settings.base_url + operation.url_path(**path)
            if words := query_text(query):
                url = f"{url}?{urlencode(words)}"
            request.prepare(method=operation.method, url=url, headers=headers, data=upload, json=body)
        except LemlistError:
            raise
        except InvalidURL:
            raise not_a_url(self._settings.of_connection) from None
        except (RequestException, TypeError, ValueError) as error:
            raise LemlistValidationError(
                f"{operation} cannot be written as it is given: {error}. It takes text, finite numbers, "
                "flags, lists and dicts.",
                operation=operation,
            ) from None
        return request

    def send(
        self,
        request: requests.PreparedRequest,
        timeout: float,
        into: BinaryIO | None = None,
        switch: WriteSwitch | None = None,
    ) -> Exchange:
        """
        Send a request once.

        :param timeout: Seconds without a byte of the response before it counts as lost.
        :param into: File for the body of a success that is a JSON array or a CSV table.
        :param switch: May refuse the request until it leaves.
        :raises LemlistRateLimitError: The wait for a slot would be too long; nothing was sent.
        :raises LemlistStoppedError: The wire was stopped; nothing was sent.
        :raises LemlistWritesStoppedError: The switch is set; nothing was sent.
        """
        if self.stopped:
            raise LemlistStoppedError
        if switch is not None:
            switch.check()
        upload: Any = request.body
        if isinstance(upload, MultipartFile):
            upload.rewind()
        pending, responded = PENDING.begin(), False
        departure = _current.departure = _Departure(self._budget, self._is_stopped, pending, switch)
        try:
            response = self._depart(request, timeout)
            if response.status_code < 200:
                # Python takes "early hints" for the response. The real one must not become that of the next
                # request on the same connection.
                response.close()
                return Exchange(NetworkFault.DISCONNECTED, "", departure.slot)
            body, file = _receive(response, into)
            responded = True
        except (RequestException, HTTPError, OSError) as error:
            causes = _causes(error)
            return Exchange(_fault(causes, departure.sent), _detail(causes), departure.slot)
        finally:
            _current.departure = None
            PENDING.end(pending, responded=responded)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Exchange(Response(response.status_code, headers, body, file), "", departure.slot)

    def _is_stopped(self) -> bool:
        PENDING.look()  # waits ask at each slice
        return self.stopped

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            if self._adapter and self._adapter_pid == os.getpid():
                self._adapter.close()
            self._adapter = None

    def _depart(self, request: requests.PreparedRequest, timeout: float) -> requests.Response:
        # The adapter alone, without a session around it: no redirects, no cookies, no .netrc instead of the
        # key, and a fifth less time.
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

    def _get_adapter(self) -> HTTPAdapter:
        # After a fork the sockets belong to the parent too: responses would get mixed up.
        with self._lock:
            if self._adapter is None or self._adapter_pid != os.getpid():
                self._adapter, self._adapter_pid = _BudgetedAdapter(pool_maxsize=POOL_SIZE), os.getpid()
            return self._adapter


def _receive(response: requests.Response, into: BinaryIO | None) -> tuple[bytes, BinaryIO | None]:
    """Return the body, or the file that now holds it: only a success can be long."""
    if into is None or response.status_code >= 300:
        return response.content, None
    into.seek(0)
    into.truncate()
    for chunk in response.iter_content(CHUNK):
        try:
            into.write(chunk)
            into.flush()
        except OSError as error:
            raise LemlistError(
                f"The response could not be written to a temporary file: {error.strerror}. Free space in "
                f"{tempfile.gettempdir()}, or set TMPDIR to another directory."
            ) from None
    into.seek(0)
    beginning = into.read(CHUNK)
    if is_array(beginning) or "text/csv" in response.headers.get("Content-Type", "").lower():
        return b"", into
    return beginning + into.read(), None


#: Words of complaints about a certificate, and about a bundle that is missing or holds none.
_NO_TRUST = ("CERTIFICATE_VERIFY_FAILED", "CA certificate bundle", "[X509")


def _fault(causes: list[BaseException], sent: bool) -> NetworkFault:
    if not sent:
        words = " ".join(str(cause) for cause in causes)
        untrusted = any(each in words for each in _NO_TRUST)
        return NetworkFault.UNTRUSTED if untrusted else NetworkFault.UNREACHABLE
    if any(isinstance(cause, (Timeout, Urllib3Timeout, TimeoutError)) for cause in causes):
        return NetworkFault.TIMED_OUT
    if any(isinstance(cause, ChunkedEncodingError) for cause in causes):
        return NetworkFault.INCOMPLETE
    return NetworkFault.DISCONNECTED


def _detail(causes: list[BaseException]) -> str:
    """Return the words of the system; those of the libraries hold the URL, and that may hold an email."""
    system = [each for each in causes if isinstance(each, OSError) and not isinstance(each, RequestException)]
    return next((cause.strerror for cause in system if cause.strerror), str(system[0]) if system else "")


def _causes(error: BaseException) -> list[BaseException]:
    causes: dict[int, BaseException] = {}
    stack: list[Any] = [error]
    while stack:
        cause = stack.pop()
        if isinstance(cause, BaseException) and id(cause) not in causes:
            causes[id(cause)] = cause
            stack += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
    return [*causes.values()]


@dataclass(slots=True)
class _Departure:
    """The moment at which one request leaves: a slot of the budget, and whether bytes went out."""

    budget: Budget
    stopped: Callable[[], bool]
    pending: PendingRequest
    switch: WriteSwitch | None = None
    slot: Slot | None = None
    sent: bool = False

    def leave(self, connection: HTTPConnection) -> None:
        """
        Book a slot and wait for it.

        :raises _Dropped: The connection did not outlast the wait; the slot stays for the next one.
        :raises LemlistStoppedError: The wire was stopped before the request left.
        :raises LemlistWritesStoppedError: The switch was set before the request left.
        """
        if connection.sock is None:
            connection.connect()
        if self.slot is None:
            self.pending.waits_for = WaitsFor.STORE
            slot = self.slot = self.budget.book()
            PENDING.wait(self.pending, slot.wait)
            if slot.wait > WAKE_EARLY:
                # A server drops an idle connection after some seconds; to find that out at the slot itself
                # would cost a handshake, or leave in doubt a request that was sent on a dead connection. (A
                # new TLS connection looks dropped too, because its session tickets are unread: it is then
                # opened once more.)
                self.budget.wait(slot, early=WAKE_EARLY, stopped=partial(self._given_up, may_read=True))
                if is_connection_dropped(connection):
                    raise _Dropped
        self.budget.wait(self.slot, stopped=self._given_up)
        self.sent = True
        PENDING.send(self.pending)

    def _given_up(self, *, may_read: bool = False) -> bool:
        """Return whether the wire was stopped. Just before the slot there is no time to read the switch."""
        if self.switch is not None:
            self.switch.check(may_read=may_read)
        return self.stopped()


class _Dropped(Exception):
    """The connection was closed while its request waited."""


_current = threading.local()


class _Budgeted:
    """Mixed into urllib3's connections: nothing leaves before its slot of the budget."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the slot, then send the request."""
        departure: _Departure | None = getattr(_current, "departure", None)
        if departure is not None:
            departure.leave(self)  # type: ignore[arg-type]  # always mixed into an HTTPConnection
        super().request(*args, **kwargs)  # type: ignore[misc]  # as above


@cache
def _budgeted(connection: type[HTTPConnection]) -> type[HTTPConnection]:
    return type(connection.__name__, (_Budgeted, connection), {})


class _BudgetedAdapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _Budgeted):
            pool.ConnectionCls = _budgeted(pool.ConnectionCls)
        return pool


class MultipartFile:
    """
    One file as a multipart body of known length that is read while it is sent, never held in memory whole.

    requests would read the whole file to build the same bytes. The file is sent from its start, whatever its
    position, and must be seekable.
    """

    def __init__(self, field: str, file: BinaryIO, *, file_name: str, content_type: str) -> None:
        boundary = secrets.token_hex(16)
        # The three characters that could end the header line or the quotes around the name.
        safe_name = file_name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{safe_name}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        )
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._file = file
        self._head = head.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._length = len(self._head) + file.seek(0, os.SEEK_END) + len(self._tail)
        self.rewind()

    def __len__(self) -> int:
        return self._length

    def rewind(self) -> None:
        """Start again, for another attempt."""
        self._file.seek(0)
        self._parts: list[BinaryIO] = [io.BytesIO(self._head), self._file, io.BytesIO(self._tail)]

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, all that is left if it is negative."""
        chunks = (part.read(size) for part in self._parts)
        return b"".join(chunks) if size < 0 else next(filter(None, chunks), b"")
