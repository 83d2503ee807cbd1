# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a thing to hold: a thread with its own event loop and port, and what a test does to it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.server import ServerState

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.faults import Fault, matches
from airflow_provider_lemlist.sandbox.limits import RateLimit
from airflow_provider_lemlist.sandbox.manners import Manners
from airflow_provider_lemlist.sandbox.prospects import TICK, Behaviour
from airflow_provider_lemlist.sandbox.routes.campaigns import campaign_created
from airflow_provider_lemlist.sandbox.routes.leads import lead_reply
from airflow_provider_lemlist.sandbox.routes.sequences import possible_targets, step_reply
from airflow_provider_lemlist.sandbox.service import Service
from airflow_provider_lemlist.sandbox.site import site
from airflow_provider_lemlist.sandbox.wire import Protocol


class Sandbox:
    """
    A lemlist of one's own: ready when entered, gone when left, nothing shared with any other.

    .. code-block:: python

        with Sandbox() as lemlist:
            os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = lemlist.airflow_connection()
            campaign = lemlist.campaign("Spring webinar")
            ...
            assert len(lemlist.state()["leads"]) == 3

    What is done through these methods costs no request and is not in the log.

    :param api_key: The key that works. ``blocked-key``, ``no-user-key``, ``bad-team-key`` and
        ``low-plan-key`` exist too, and fail as their names say.
    :param host: Address to listen on; loopback unless told otherwise, for there is no other protection.
    :param port: Port to listen on; 0 takes a free one.
    :param limit: Kind of rate limit: ``sliding``, ``fixed``, ``anchored`` or ``none``.
    :param requests: Requests that a key may make per window.
    :param window: Length of the window, in seconds.
    :param latency: Seconds that an answer takes longer; half before the request is judged, half after.
    :param jitter: Seconds by which the latency varies either way.
    :param seed: The same seed gives the same ids and the same faults by chance.
    :param manners: Choices where the documents contradict each other, see
        :class:`~airflow_provider_lemlist.sandbox.manners.Manners`.
    """

    def __init__(
        self,
        *,
        api_key: str = "sandbox-key",
        host: str = "127.0.0.1",
        port: int = 0,
        limit: str = "sliding",
        requests: int = 20,
        window: float = 2.0,
        latency: float = 0.0,
        jitter: float = 0.0,
        seed: int = 0,
        **manners: Any,
    ) -> None:
        self.api_key = api_key
        self.service = Service(
            key=api_key,
            limit=RateLimit(limit, requests, window),
            manners=Manners(**manners),
            latency=latency,
            jitter=jitter,
            seed=seed,
        )
        self._address = (host, port)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop
        self._leave: asyncio.Event

    # --- Life -------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("This sandbox is open already; make another one")
        # Bound here, so that a port that is taken is told to the caller and not to a thread.
        listener = socket.create_server(self._address, backlog=2048)
        self._address = listener.getsockname()[:2]
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listener, ready), name="lemlist-sandbox", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure:
            listener.close()
            raise RuntimeError("The sandbox could not start") from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None  # noqa: S101  (entered before left)
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()
        self._thread = None

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(listener, ready))
        except Exception as failure:
            if ready.is_set():
                raise
            # Whoever opens the sandbox waits for it, and is to be told rather than to wait for ever.
            self._failure = failure
            ready.set()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        """
        Serve until the sandbox is left.

        Not by ``uvicorn.Server``: that one sets signal handlers of the whole process, and takes its time to
        start and end.
        """
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        # No log_level and log_config: setting them would change the logging of the process.
        config = uvicorn.Config(
            site(self.service), http=Protocol, ws="none", lifespan="off", log_config=None, log_level=None,
            server_header=False, date_header=False, proxy_headers=False, timeout_keep_alive=60,
        )  # fmt: skip
        config.load()
        state = ServerState()
        server = await self._loop.create_server(
            lambda: Protocol(config=config, server_state=state, app_state={}), sock=listener
        )
        simulation = asyncio.create_task(self._simulate())
        ready.set()
        await self._leave.wait()
        simulation.cancel()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        # Whoever hangs in a request learns that its client is gone, and ends.
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=1)

    async def _simulate(self) -> None:
        while True:
            self.service.prospects.tick(time.time())
            await asyncio.sleep(TICK)

    # --- Where it is ------------------------------------------------------------------------------------

    @property
    def origin(self) -> str:
        """Address of the page."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def url(self) -> str:
        """Base URL of the API, for the host of the Airflow connection."""
        return f"{self.origin}/api"

    def airflow_connection(self) -> str:
        """Return the connection as JSON, for ``AIRFLOW_CONN_LEMLIST_DEFAULT``."""
        return json.dumps({"conn_type": "lemlist", "host": self.url, "password": self.api_key})

    # --- What is there ----------------------------------------------------------------------------------

    def campaign(
        self,
        name: str = "Spring webinar",
        *,
        status: str = "draft",
        auto_review: bool = False,
        timezone: str = "Europe/Paris",
    ) -> dict[str, Any]:
        """
        Make a campaign and return what its creation answers, with ``_id`` and ``sequenceId``.

        :param status: ``draft``, ``running``, ``paused``, ``ended``, ``archived`` or ``errors``.
        :param auto_review: Whether new leads are launched at once.
        """
        world = self.service.world
        with world.lock:
            campaign = world.add_campaign(name, timezone=timezone, auto_review=auto_review, status=status)
            return campaign_created(campaign, world)

    def step(self, sequence_id: str, type: str, **fields: Any) -> dict[str, Any]:
        """Add a step, judged as if it came by the API, and return what its creation answers."""
        world = self.service.world
        with world.lock:
            body = checks.step({"type": type, **fields}, possible_targets(world))
            return step_reply(world.add_step(world.sequences[sequence_id], body))

    def lead(self, campaign_id: str, email: str, **values: str) -> dict[str, Any]:
        """Add a lead, without looking for duplicates, and return what its creation answers."""
        world = self.service.world
        with world.lock:
            campaign = world.campaign(campaign_id)
            lead = world.add_lead(campaign, checks.lead({"email": email, **values}))
            return lead_reply(lead, campaign)

    def activity(
        self, *, lead_id: str, type: str, step_id: str | None = None, created_at: float | None = None
    ) -> dict[str, Any]:
        """
        Let something happen to a lead.

        :param type: Type of the activity, such as ``emailsReplied``.
        :param created_at: When it happened, in epoch seconds; now unless given.
        """
        return self.service.let_happen(lead_id, type, step_id, created_at)

    def simulate(self, **behaviour: Any) -> None:
        """
        Let prospects react from now on.

        :param behaviour: Chances and speed, see
            :class:`~airflow_provider_lemlist.sandbox.prospects.Behaviour`.
        """
        with self.service.world.lock:
            self.service.prospects.start(Behaviour(**behaviour))

    def stop_simulation(self) -> None:
        """Let prospects rest."""
        with self.service.world.lock:
            self.service.prospects.stop()

    def accept_key(self, api_key: str, state: str = "active") -> None:
        """
        Let a further key work, or fail.

        :param state: ``active``, ``blocked``, ``no user``, ``bad team`` or ``plan too low``.
        """
        with self.service.world.lock:
            self.service.keys.accept(api_key, state)

    # --- What goes wrong --------------------------------------------------------------------------------

    def fault(self, route: str, kind: str, **details: Any) -> None:
        """
        Let something go wrong: ``lemlist.fault("POST /campaigns/*/leads/", "reset", times=2)``.

        :param route: Method and path, as documented or with wildcards.
        :param kind: ``rate_limited``, ``status``, ``reset``, ``slow``, ``hang``, ``cut_body``, ``html``,
            ``empty``, ``missing_id``, ``duplicate``, ``cdn`` or ``redirect``.
        :param details: How often, when and how, see :class:`~airflow_provider_lemlist.sandbox.faults.Fault`.
        """
        with self.service.world.lock:
            self.service.script.add(Fault(route, kind, **details))

    def clear_faults(self) -> None:
        """Let everything go well again."""
        with self.service.world.lock:
            self.service.script.clear()

    # --- What was seen ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return everything, as ``GET /_sandbox/state`` does."""
        return self.service.state()

    def requests(self, route: str = "*") -> list[Mapping[str, Any]]:
        """
        Return the log with headers and bodies, oldest first.

        :param route: Method and path, as documented or with wildcards.
        """
        with self.service.world.lock:
            return [
                each.whole()
                for each in self.service.journal.exchanges
                if matches(route, each.method, each.template, each.path)
            ]

    def violations(self) -> list[dict[str, Any]]:
        """Return what clients did that the documents forbid; each names the number of its request."""
        violations: list[dict[str, Any]] = self.state()["violations"]
        return violations
