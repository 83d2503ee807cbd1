# SPDX-License-Identifier: Apache-2.0
"""
One request of the API, from its arrival to the last byte of its response.

The order is: network delay, rate limit, fault, key, route, network delay, response. The decisions are made in
``limits``, ``faults``, ``keys`` and ``routes``; this module calls them in that order.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http.client import responses
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.requests import Request

from airflow_provider_lemlist.sandbox import wire
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.faults import HIDDEN, Fault
from airflow_provider_lemlist.sandbox.keys import fingerprint, key_from_header
from airflow_provider_lemlist.sandbox.limits import Admission
from airflow_provider_lemlist.sandbox.request_log import Exchange
from airflow_provider_lemlist.sandbox.routes import Call, Match, Response, UploadedFile
from airflow_provider_lemlist.sandbox.routes.leads import DUPLICATES
from airflow_provider_lemlist.sandbox.service import Service

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)

WEB_APPLICATION = (
    "<!DOCTYPE html><html><head><title>lemlist</title></head>"
    "<body><div id='app'>The web application, not the API.</div></body></html>"
)
GATEWAY_PAGE = (
    "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr><center>nginx</center></body>"
    "</html>"
)
#: The default User-Agents of Python's HTTP libraries.
DEFAULT_USER_AGENTS = ("python-requests", "python-urllib", "python-httpx", "aiohttp", "python/")


class Api:
    """The ASGI application below ``/api``."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service
        # Read the body before the delay: a client that is killed during the delay has sent its request.
        body = await _read(receive)
        if body is None:
            return
        await asyncio.sleep(service.network_delay())
        arrival = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw_path = scope["raw_path"].decode("latin-1").removeprefix("/api")
        with service.world.lock:
            match = service.routes.find(scope["method"], raw_path)
            key, key_error = _key(headers)
            exchange = service.request_log.open(
                time=time.time(),
                monotonic=arrival,
                method=scope["method"],
                path=raw_path,
                query=scope["query_string"].decode("latin-1"),
                template=match.template if match else None,
                key=fingerprint(key or ""),
                connection=scope["client"][1] if scope["client"] else 0,
                request_headers=_without_key(headers),
            )
            admission = service.limit.admit(exchange.key, arrival)
            fault = None
            if not admission.refused:
                fault = service.script.select(scope["method"], exchange.template, raw_path)
                exchange.fault = fault.kind if fault else None
        exchange.request_body = body
        file = await _file(scope, exchange.request_body, headers)
        if fault and fault.when == "before":
            await _delay(fault, receive)
        response = _fault_response(fault) if fault and fault.when == "before" else None
        if response is None and not _ends_request(fault, "before"):
            with service.world.lock:
                response = self._handle(exchange, match, admission, key, key_error, file, scope["server"])
        if fault and fault.when == "after":
            response = _fault_response(fault, response) or response
            await _delay(fault, receive)
        if response and not (fault and fault.from_gateway):
            response.headers |= service.limit.headers(admission, time.time())
            if fault and fault.kind == "rate_limited":
                response.headers |= _rate_limit_headers(fault, service)
        await asyncio.sleep(service.network_delay())
        await _send(response, fault, exchange, scope["state"]["transport"], receive, send)
        with service.world.lock:
            service.request_log.close(exchange, time.monotonic())

    def _handle(
        self,
        exchange: Exchange,
        match: Match | None,
        admission: Admission,
        key: str | None,
        key_error: ApiError | None,
        file: UploadedFile | None,
        server: tuple[str, int],
    ) -> Response:
        """Return the response to a request; this is the only place where a request takes effect."""
        service, request_log = self.service, self.service.request_log
        agent = exchange.request_headers.get("user-agent", "").lower()
        if service.undocumented.strict_user_agent and agent.startswith(DEFAULT_USER_AGENTS):
            return Response.text("error code: 1010", 403)
        if admission.refused:
            limit = service.limit
            request_log.violation(exchange, "rate", f"more than {limit.limit} requests in {limit.length:g} s")
            return Response.text("Too many requests, please slow down", 429)
        try:
            if key_error:
                raise key_error
            service.keys.check(key)
            if match is None:
                request_log.violation(exchange, "route", f"no such path: {exchange.path}")
                return Response.text(WEB_APPLICATION, content_type="text/html")
            if match.route is None:
                violation = f"{exchange.method} is not a method of {match.template}"
                raise ApiError(405, "Bad method", violation=violation)
            hidden = HIDDEN.get(exchange.fault, frozenset())
            query = [
                pair for pair in parse_qsl(exchange.query, keep_blank_values=True) if pair[0] not in hidden
            ]
            counts = Counter(name for name, _ in query)
            call = Call(
                world=service.world,
                undocumented=service.undocumented,
                origin=f"http://{server[0]}:{server[1]}",
                params=match.params,
                query=dict(query),
                content_type=exchange.request_headers.get("content-type", ""),
                body=exchange.request_body,
                file=file,
                ignored=exchange.fault == "ignored",
            )
            known = match.route.query
            unknown = [] if known is None else sorted(call.query.keys() - known)
            call.violations += [("query", f"unknown parameter {name}") for name in unknown]
            ignored = sorted(call.query.keys() & match.route.ignored)
            call.violations += [("query", f"the sandbox ignores parameter {name}") for name in ignored]
            repeated = sorted(name for name, count in counts.items() if count > 1)
            call.violations += [("query", f"parameter {name} is repeated") for name in repeated]
            try:
                result = match.route.handler(call)
            finally:
                for rule, what in call.violations:
                    request_log.violation(exchange, rule, what)
            return result if isinstance(result, Response) else Response.of(result)
        except ApiError as error:
            if error.violation:
                rule = "route" if error.status == 405 else "body"
                request_log.violation(exchange, rule, error.violation)
            if isinstance(error.body, str):
                return Response.text(error.body, error.status)
            return Response.of(error.body, error.status)
        except Exception:
            log.exception("The sandbox failed internally at %s %s", exchange.method, exchange.template)
            return Response.text("The sandbox failed internally; its log contains the traceback", 500)


# --- Reading ----------------------------------------------------------------------------------------------


def _key(headers: dict[str, str]) -> tuple[str | None, ApiError | None]:
    try:
        return key_from_header(headers.get("authorization")), None
    except ApiError as error:
        return None, error


def _without_key(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers with only the scheme of the authorization."""
    if "authorization" in headers:
        headers = headers | {"authorization": headers["authorization"].partition(" ")[0]}
    return headers


async def _read(receive: Receive) -> bytes | None:
    """Return the body, or None if the client disconnected before it was complete."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


async def _file(scope: Scope, body: bytes, headers: dict[str, str]) -> UploadedFile | None:
    """Return the part named ``file`` of a multipart body."""
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        return None

    async def replay() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(scope, replay).form() as form:
            part = form.get("file")
            if not isinstance(part, UploadFile):
                return None
            return UploadedFile(part.filename or "", part.content_type or "", await part.read())
    except Exception:
        # A body that cannot be parsed contains no file; the route then refuses the request.
        return None


# --- Faults -----------------------------------------------------------------------------------------------


def _ends_request(fault: Fault | None, when: str) -> bool:
    """Return whether a fault ends the request without a response."""
    return fault is not None and fault.when == when and fault.kind in ("reset", "hang", "cut_body")


async def _delay(fault: Fault, receive: Receive) -> None:
    if fault.kind == "slow":
        await asyncio.sleep(1.0 if fault.seconds is None else fault.seconds)
    if fault.kind == "hang":
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _fault_response(fault: Fault, response: Response | None = None) -> Response | None:
    """Return the response that replaces the original one, or None if the fault does not replace it."""
    match fault.kind:
        case "rate_limited":
            return Response.text(fault.text or "Too many requests, please slow down", 429)
        case "status":
            return Response.text(fault.text or "Internal server error", fault.status or 500)
        case "html":
            status = fault.status or 200
            page = WEB_APPLICATION
            if fault.from_gateway:
                page = GATEWAY_PAGE.format(f"{status} {responses.get(status, 'Error')}")
            return Response.text(fault.text or page, status, "text/html")
        case "empty":
            return Response(fault.status or 200, b"", "application/json; charset=utf-8")
        case "duplicate":
            return Response.text(DUPLICATES[fault.where or "campaign"], fault.status or 400)
        case "cdn":
            return Response.text("error code: 1010", 403)
        case "redirect":
            return Response(fault.status or 302, b"", "text/plain", {"Location": fault.location})
        case "missing_id" if response and response.status == 200:
            value = json.loads(response.body)
            if isinstance(value, dict):
                value.pop("_id", None)
            return Response.of(value)
        case "truncated" if response and response.status == 200 and "json" in response.content_type:
            return Response.of(_truncated(json.loads(response.body), fault.rows))
    return None


def _truncated(value: Any, rows: int | None) -> Any:
    """Return a listing with only its first rows, or the first half of them."""
    if isinstance(value, dict):
        return {
            name: _truncated(each, rows) if isinstance(each, list) else each for name, each in value.items()
        }
    return value[: len(value) // 2 if rows is None else rows] if isinstance(value, list) else value


def _rate_limit_headers(fault: Fault, service: Service) -> dict[str, str]:
    wait = service.limit.length if fault.seconds is None else fault.seconds
    headers = service.limit.headers(Admission(True, 0, wait), time.time())
    if fault.seconds is not None:
        headers["Retry-After"] = f"{fault.seconds:g}"
    return headers


# --- Sending ----------------------------------------------------------------------------------------------


async def _send(
    response: Response | None,
    fault: Fault | None,
    exchange: Exchange,
    transport: asyncio.Transport,
    receive: Receive,
    send: Send,
) -> None:
    kind = fault.kind if fault else ""
    if kind == "reset":
        wire.reset(transport)
        await _disconnected(receive)
        return
    if kind == "hang":
        return
    response = response or Response.of({})
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": response.content_type,
        # A cut body is half as long as announced.
        "Content-Length": str(len(response.body) * 2 + 1 if kind == "cut_body" else len(response.body)),
        **response.headers,
    }
    if kind != "cut_body":
        exchange.status = response.status
    exchange.response_headers = {name.lower(): value for name, value in headers.items()}
    exchange.response_body = response.body
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})
    await send({"type": "http.response.body", "body": response.body, "more_body": kind == "cut_body"})
    if kind == "cut_body":
        transport.close()
        await _disconnected(receive)
