# SPDX-License-Identifier: Apache-2.0
"""
One request of the API from its arrival to the last byte of its answer.

The way: travel - rate limit - fault - key - route - travel - answer. What is decided on the way lives
elsewhere (``limits``, ``faults``, ``keys``, ``routes``); here is the order in which it is asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.requests import Request

from airflow_provider_lemlist.sandbox import wire
from airflow_provider_lemlist.sandbox.faults import Fault
from airflow_provider_lemlist.sandbox.journal import Exchange
from airflow_provider_lemlist.sandbox.keys import fingerprint, presented
from airflow_provider_lemlist.sandbox.limits import Verdict
from airflow_provider_lemlist.sandbox.refusal import Refusal
from airflow_provider_lemlist.sandbox.routes import Call, Match, Part, Reply
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
#: What Python's HTTP libraries call themselves unless they are told otherwise.
DEFAULT_USER_AGENTS = ("python-requests", "python-urllib", "python-httpx", "aiohttp", "python/")


class Api:
    """The ASGI application below ``/api``."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service
        # Read at once: a client that is killed while its request travels has sent it all the same.
        body = await _read(receive)
        if body is None:
            return
        await asyncio.sleep(service.travel_time())
        arrival = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw_path = scope["raw_path"].decode("latin-1").removeprefix("/api")
        with service.world.lock:
            match = service.routes.find(scope["method"], raw_path)
            key, wrong_key = _key(headers)
            exchange = service.journal.open(
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
            verdict = service.limit.admit(exchange.key, arrival)
            fault = None
            if not verdict.refused:
                fault = service.script.strike(scope["method"], exchange.template, raw_path)
                exchange.fault = fault.kind if fault else None
        exchange.request_body = body
        file = await _file(scope, exchange.request_body, headers)
        if fault and fault.when == "before":
            await _linger(fault, receive)
        reply = _struck(fault) if fault and fault.when == "before" else None
        if reply is None and not _broken(fault, "before"):
            with service.world.lock:
                reply = self._answer(exchange, match, verdict, key, wrong_key, file, scope["server"])
        if fault and fault.when == "after":
            reply = _struck(fault, reply) or reply
            await _linger(fault, receive)
        if reply and not (fault and fault.kind == "cdn"):
            reply.headers |= service.limit.headers(verdict, time.time())
            if fault and fault.kind == "rate_limited":
                reply.headers |= _exhausted(fault, service)
        await asyncio.sleep(service.travel_time())
        await _deliver(reply, fault, exchange, scope["state"]["transport"], receive, send)
        with service.world.lock:
            service.journal.close(exchange, time.monotonic())

    def _answer(
        self,
        exchange: Exchange,
        match: Match | None,
        verdict: Verdict,
        key: str | None,
        wrong_key: Refusal | None,
        file: Part | None,
        server: tuple[str, int],
    ) -> Reply:
        """Judge a request and do what it asks; the only place where a request takes effect."""
        service, journal = self.service, self.service.journal
        agent = exchange.request_headers.get("user-agent", "").lower()
        if service.manners.strict_user_agent and agent.startswith(DEFAULT_USER_AGENTS):
            return Reply.text("error code: 1010", 403)
        if verdict.refused:
            limit = service.limit
            journal.violation(exchange, "rate", f"more than {limit.limit} requests in {limit.length:g} s")
            return Reply.text("Too many requests, please slow down", 429)
        try:
            if wrong_key:
                raise wrong_key
            service.keys.check(key)
            if match is None:
                journal.violation(exchange, "route", f"no such path: {exchange.path}")
                return Reply.text(WEB_APPLICATION, content_type="text/html")
            if match.route is None:
                violation = f"{exchange.method} is not a method of {match.template}"
                raise Refusal(405, "Bad method", violation=violation)
            call = Call(
                world=service.world,
                manners=service.manners,
                origin=f"http://{server[0]}:{server[1]}",
                params=match.params,
                query=dict(parse_qsl(exchange.query, keep_blank_values=True)),
                content_type=exchange.request_headers.get("content-type", ""),
                body=exchange.request_body,
                file=file,
            )
            known = match.route.query
            unknown = [] if known is None else sorted(call.query.keys() - known)
            call.remarks += [("query", f"unknown parameter {name}") for name in unknown]
            answer = match.route.handler(call)
            for remark in call.remarks:
                journal.violation(exchange, *remark)
            return answer if isinstance(answer, Reply) else Reply.of(answer)
        except Refusal as refusal:
            if refusal.violation:
                rule = "route" if refusal.status == 405 else "body"
                journal.violation(exchange, rule, refusal.violation)
            if isinstance(refusal.body, str):
                return Reply.text(refusal.body, refusal.status)
            return Reply.of(refusal.body, refusal.status)
        except Exception:
            log.exception("The sandbox itself failed at %s %s", exchange.method, exchange.template)
            return Reply.text("The sandbox itself failed; its log has the reason", 500)


# --- Reading ----------------------------------------------------------------------------------------------


def _key(headers: dict[str, str]) -> tuple[str | None, Refusal | None]:
    try:
        return presented(headers.get("authorization")), None
    except Refusal as refusal:
        return None, refusal


def _without_key(headers: dict[str, str]) -> dict[str, str]:
    """Leave of the authorization only its scheme."""
    if "authorization" in headers:
        headers = headers | {"authorization": headers["authorization"].partition(" ")[0]}
    return headers


async def _read(receive: Receive) -> bytes | None:
    """Return the body; None when the client was gone before it was whole."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


async def _file(scope: Scope, body: bytes, headers: dict[str, str]) -> Part | None:
    """Return the part named ``file`` of a multipart body."""
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        return None

    async def again() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(scope, again).form() as form:
            part = form.get("file")
            if not isinstance(part, UploadFile):
                return None
            return Part(part.filename or "", part.content_type or "", await part.read())
    except Exception:
        # Whatever is wrong with the body, it holds no file.
        return None


# --- Faults -----------------------------------------------------------------------------------------------


def _broken(fault: Fault | None, when: str) -> bool:
    """Say whether a fault ends the request without any answer to be made."""
    return fault is not None and fault.when == when and fault.kind in ("reset", "hang", "cut_body")


async def _linger(fault: Fault, receive: Receive) -> None:
    if fault.kind == "slow":
        await asyncio.sleep(1.0 if fault.seconds is None else fault.seconds)
    if fault.kind == "hang":
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _struck(fault: Fault, reply: Reply | None = None) -> Reply | None:
    """Return what a fault answers instead; None where it leaves the answer as it is."""
    match fault.kind:
        case "rate_limited":
            return Reply.text(fault.text or "Too many requests, please slow down", 429)
        case "status":
            return Reply.text(fault.text or "Internal server error", fault.status or 500)
        case "html":
            return Reply.text(WEB_APPLICATION, content_type="text/html")
        case "empty":
            return Reply(200, b"", "application/json; charset=utf-8")
        case "duplicate":
            return Reply.text(DUPLICATES[fault.where], fault.status or 400)
        case "cdn":
            return Reply.text("error code: 1010", 403)
        case "redirect":
            return Reply(fault.status or 302, b"", "text/plain", {"Location": fault.location})
        case "missing_id" if reply and reply.status == 200:
            answer = json.loads(reply.body)
            if isinstance(answer, dict):
                answer.pop("_id", None)
            return Reply.of(answer)
    return None


def _exhausted(fault: Fault, service: Service) -> dict[str, str]:
    wait = service.limit.length if fault.seconds is None else fault.seconds
    headers = service.limit.headers(Verdict(True, 0, wait), time.time())
    if fault.seconds is not None:
        headers["Retry-After"] = f"{fault.seconds:g}"
    return headers


# --- Answering --------------------------------------------------------------------------------------------


async def _deliver(
    reply: Reply | None,
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
    reply = reply or Reply.of({})
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": reply.content_type,
        # A body that is cut ends halfway of what was promised.
        "Content-Length": str(len(reply.body) * 2 + 1 if kind == "cut_body" else len(reply.body)),
        **reply.headers,
    }
    if kind != "cut_body":
        exchange.status = reply.status
    exchange.response_headers = {name.lower(): value for name, value in headers.items()}
    exchange.response_body = reply.body
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": raw})
    await send({"type": "http.response.body", "body": reply.body, "more_body": kind == "cut_body"})
    if kind == "cut_body":
        wire.hang_up(transport)
        await _disconnected(receive)
