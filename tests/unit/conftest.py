# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on loopback that responds as a test scripts it, and a transport that talks to it."""

from __future__ import annotations

import json
import math
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.api import transport as transport_module
from airflow_provider_lemlist.api.budget.stores import MemoryStore
from airflow_provider_lemlist.api.transport import Transport
from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.connection import Settings
from airflow_provider_lemlist.sandbox import Sandbox
from tests.postgres import connect
from tools.servers import postgres

API_KEY = "s3cr3t+k/ey%7E:with=signs"


@dataclass
class Act:
    """What the server does with one request."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: "" to respond, else "reset", "close", "cut" or "hang".
    fault: str = ""
    #: Called with the request before the response: the effect.
    effect: Callable[[Any], None] | None = None

    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Stage:
    """
    A server that responds by script.

    ``script`` is played in order; when it is used up, ``routes`` decides by "METHOD path", else 404.
    """

    def __init__(self, port: int = 0) -> None:
        self.script: list[Act] = []
        self.routes: dict[str, Act] = {}
        self.requests: list[SimpleNamespace] = []
        #: Every connection that was accepted. Their number is its length: handlers run side by side.
        self.sockets: list[socket.socket] = []
        self.released = threading.Event()
        stage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                stage.sockets.append(self.connection)

            def log_message(self, *args: object) -> None:
                pass

            def _play(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = SimpleNamespace(
                    method=self.command,
                    target=self.path,
                    path=self.path.partition("?")[0].removeprefix("/api"),
                    query=self.path.partition("?")[2],
                    headers=dict(self.headers),
                    body=self.rfile.read(length),
                )
                stage.requests.append(request)
                act = (
                    stage.script.pop(0)
                    if stage.script
                    else stage.routes.get(f"{request.method} {request.path}", Act(404, b"Not found"))
                )
                if act.effect:
                    act.effect(request)
                self._perform(act)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _play

            def _perform(self, act: Act) -> None:
                if act.fault == "hang":
                    stage.released.wait(10)
                if act.fault in ("hang", "close", "reset"):
                    if act.fault == "reset":
                        self.connection.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
                    self.close_connection = True
                    self.connection.close()
                    return
                raw = act.raw()
                headers = {"Content-Type": "text/plain", "Content-Length": str(len(raw))} | act.headers
                if not isinstance(act.body, bytes):
                    headers = {"Content-Type": "application/json"} | {
                        name: value for name, value in headers.items() if name != "Content-Type"
                    }
                if act.fault == "cut":
                    headers["Content-Length"] = str(len(raw) + 100)
                    self.close_connection = True
                self.send_response(act.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass  # connections are broken on purpose

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/api"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        return len(self.sockets)

    def sent(self, method: str) -> list[SimpleNamespace]:
        return [request for request in self.requests if request.method == method]

    def drop_connections(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


class OpenBudget:
    """A budget without a limit that records what was reported to it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.booked = 0
        self.reports: list[dict[str, Any]] = []

    def book(self) -> SimpleNamespace:
        self.booked += 1
        return SimpleNamespace(wait=0.0, ahead=0)

    def wait(self, slot: object, **options: Any) -> None:
        pass

    def report(self, slot: object, **feedback: Any) -> None:
        self.reports.append(feedback)

    def state(self) -> dict[str, float]:
        return {"capacity": 20.0, "period": 2.0}


@pytest.fixture
def budget() -> OpenBudget:
    return OpenBudget()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not slept; each has the largest jitter."""
    made: list[float] = []
    monkeypatch.setattr(transport_module, "SLICE", math.inf)
    monkeypatch.setattr(CLOCK, "sleep", made.append)
    monkeypatch.setattr(CLOCK, "uniform", lambda least, most: most)
    return made


class Emitted:
    """What was emitted: the sum of each counter, and every duration of each timing in seconds."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.timings: dict[str, list[float]] = {}

    def incr(self, name: str, count: int) -> None:
        self.counters[name] += count

    def timing(self, name: str, duration: timedelta) -> None:
        self.timings.setdefault(name, []).append(duration.total_seconds())


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> Emitted:
    """What reaches Airflow's ``Stats``."""
    emitted = Emitted()
    monkeypatch.setattr(metrics, "_stats", lambda: emitted)
    return emitted


@pytest.fixture
def settings(stage: Stage) -> Settings:
    return Settings(
        conn_id="lemlist_default",
        api_key=API_KEY,
        base_url=stage.url,
        timeout=5,
        max_wait=300,
        budget_store="memory://",
        budget_share=1,
    )


@pytest.fixture
def transport(settings: Settings, budget: OpenBudget, pauses: list[float]) -> Iterator[Transport]:
    transport = Transport(
        settings,
        budget,  # type: ignore[arg-type]  # the part of a budget that a transport uses
        user_agent="airflow-provider-lemlist/test",
    )
    yield transport
    transport.close()


@pytest.fixture
def quick_lemlist(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox without a rate limit, for which the budget does not wait either."""
    with Sandbox(limit="none") as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
        monkeypatch.setattr(CLOCK, "sleep", lambda seconds: None)
        yield sandbox


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Return the directory of the socket of a PostgreSQL server; the user is ``tester``."""
    with postgres() as directory:
        yield directory


@pytest.fixture(params=["psycopg", "psycopg2"])
def warehouse(postgres_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the connection of a PostgreSQL database, with each of the drivers."""
    return connect(postgres_server, request.param, monkeypatch)
