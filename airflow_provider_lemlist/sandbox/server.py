# SPDX-License-Identifier: Apache-2.0
"""``Sandbox``: a thread with its own event loop and port, and the methods that tests use."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.server import ServerState

from airflow_provider_lemlist.sandbox import checks, wire
from airflow_provider_lemlist.sandbox.app import create_app
from airflow_provider_lemlist.sandbox.faults import Fault
from airflow_provider_lemlist.sandbox.limits import RateLimit
from airflow_provider_lemlist.sandbox.model import MAILBOX_STATUSES, SOURCES, Statute
from airflow_provider_lemlist.sandbox.prospects import TICK, SimulationOptions
from airflow_provider_lemlist.sandbox.routes.campaigns import campaign_created
from airflow_provider_lemlist.sandbox.routes.leads import lead_response
from airflow_provider_lemlist.sandbox.routes.sequences import step_response, stored_step
from airflow_provider_lemlist.sandbox.service import ActivityHistory, Service
from airflow_provider_lemlist.sandbox.traffic import Churn
from airflow_provider_lemlist.sandbox.undocumented import Undocumented


class Sandbox:
    """
    A simulated lemlist that runs inside a ``with`` block and shares nothing with other sandboxes.

    .. code-block:: python

        with Sandbox() as lemlist:
            os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = lemlist.airflow_connection()
            campaign = lemlist.campaign("Spring webinar")
            ...
            assert len(lemlist.state()["leads"]) == 3

    The methods make no requests and are not in the request log.

    :param api_key: The valid key; None for another one in each sandbox. ``blocked-key``, ``no-user-key``,
        ``bad-team-key``, ``low-plan-key`` exist too and fail as their names say.
    :param host: Address to listen on. The default is loopback because there is no other protection.
    :param port: Port to listen on; 0 uses a free port.
    :param limit: Kind of rate limit: ``sliding``, ``fixed``, ``anchored`` or ``none``.
    :param requests: Number of requests that a key may make per window.
    :param window: Length of the window, in seconds.
    :param latency: Seconds added to every response, half before and half after the request is handled.
    :param jitter: Seconds by which the latency varies in either direction.
    :param seed: Seed of the ids and of random faults; None for another one in each sandbox.
    :param undocumented: Choices where the documents are ambiguous, see ``Undocumented``.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limit: str = "sliding",
        requests: int = 20,
        window: float = 2.0,
        latency: float = 0.0,
        jitter: float = 0.0,
        seed: int | None = None,
        **undocumented: Any,
    ) -> None:
        # A key of its own has a rate budget of its own, also in processes that know other sandboxes.
        self.api_key = f"sandbox-{secrets.token_hex(12)}" if api_key is None else api_key
        self.service = Service(
            key=self.api_key,
            limit=RateLimit(limit, requests, window),
            options=Undocumented(**undocumented),
            latency=latency,
            jitter=jitter,
            seed=secrets.randbits(64) if seed is None else seed,
        )
        self._address = (host, port)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop
        self._leave: asyncio.Event
        self._server: asyncio.Server

    # --- Start and stop ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("This sandbox is already running; create another one")
        # Bind here, not in the thread, so that the caller gets the error if the port is in use.
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
            # The caller waits for ``ready``; it raises this error.
            self._failure = failure
            ready.set()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        """
        Serve until the ``with`` block ends.

        ``uvicorn.Server`` is not used because it sets signal handlers of the process and is slow to start and
        stop.
        """
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        # Setting log_level or log_config would change the logging of the process.
        self._config = uvicorn.Config(
            create_app(self.service), http=wire.Protocol, ws="none", lifespan="off", timeout_keep_alive=60,
            log_config=None, log_level=None, server_header=False, date_header=False, proxy_headers=False,
        )  # fmt: skip
        self._config.load()
        self._state = ServerState()
        await self._listen(listener)
        simulation = asyncio.create_task(self._simulate())
        ready.set()
        await self._leave.wait()
        simulation.cancel()
        self._server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        # A request that hangs ends because its client is disconnected.
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=1)

    async def _listen(self, listener: socket.socket) -> None:
        self._server = await self._loop.create_server(
            lambda: wire.Protocol(config=self._config, server_state=self._state, app_state={}),
            sock=listener,
            backlog=2048,
        )

    async def _stop_listening(self) -> socket.socket:
        """Close the listener, reset the connections, and return a new socket that keeps the port reserved."""
        self._server.close()
        # A socket that is bound but does not listen refuses connections.
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(self._address)
        for connection in list(self._state.connections):
            wire.reset(connection.transport)
        return reserved

    def _in_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _simulate(self) -> None:
        while True:
            self.service.prospects.tick(time.time())
            self.service.traffic.tick(time.time())
            await asyncio.sleep(TICK)

    # --- Addresses --------------------------------------------------------------------------------------

    @property
    def origin(self) -> str:
        """URL of the web page."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def url(self) -> str:
        """Base URL of the API: the host of the Airflow connection."""
        return f"{self.origin}/api"

    def airflow_connection(self) -> str:
        """
        Return the connection as JSON, for ``AIRFLOW_CONN_LEMLIST_DEFAULT``.

        Without a limit it lifts the client's rate budget too, which clients allow only on this machine.
        """
        connection: dict[str, Any] = {"conn_type": "lemlist", "host": self.url, "password": self.api_key}
        if self.service.limit.kind == "none" and self._address[0] == "127.0.0.1":
            connection["extra"] = {"budget_store": "unlimited://"}
        return json.dumps(connection)

    # --- Data -------------------------------------------------------------------------------------------

    def campaign(
        self,
        name: str = "Spring webinar",
        *,
        status: str = "draft",
        auto_review: bool = False,
        timezone: str = "Europe/Paris",
        senders: Iterable[str] | None = None,
        ai_variables: Iterable[str] = (),
    ) -> dict[str, Any]:
        """
        Create a campaign and return the API's response, with ``_id`` and ``sequenceId``.

        :param status: ``draft``, ``running``, ``paused``, ``ended``, ``archived`` or ``errors``.
        :param auto_review: Whether new leads are launched immediately.
        :param senders: Ids of the users who send, which may be none; default the user who creates campaigns.
        :param ai_variables: Names of variables that lemlist writes with AI; a lead without a text for one of
            them cannot be launched.
        """
        world = self.service.world
        with world.lock:
            campaign = world.add_campaign(
                name,
                timezone=timezone,
                auto_review=auto_review,
                status=status,
                senders=senders,
                ai_variables=ai_variables,
            )
            return campaign_created(campaign, world)

    def mailbox(self, user_id: str, status: str) -> None:
        """
        Change the status of the mailbox of a user.

        :param status: ``CONNECTED``, ``ERROR`` or ``DISCONNECTED``.
        """
        if status not in MAILBOX_STATUSES:
            raise ValueError(f"status must be one of {', '.join(MAILBOX_STATUSES)}, not {status!r}")
        world = self.service.world
        with world.lock:
            world.user(user_id).mailbox_status = status

    def statute(self, campaign_id: str, message: str, *, level: int = 3, category: str = "campaign") -> None:
        """
        Add a statute to those that follow from the state of a campaign.

        :param message: Its text, as HTML.
        :param level: 3 blocks a launch and is an error of the campaign, 2 warns, 1 informs.
        :param category: ``steps``, ``senders``, ``leads`` or any other word.
        """
        world = self.service.world
        with world.lock:
            world.campaign(campaign_id).statutes.append(Statute(level, message, category))

    def step(self, sequence_id: str, type: str, **fields: Any) -> dict[str, Any]:
        """Add a step with the API's checks, and return the API's response."""
        world = self.service.world
        with world.lock:
            body = stored_step({"type": type, **fields}, world, self.service.undocumented)
            return step_response(world.add_step(world.sequences[sequence_id], body))

    def lead(self, campaign_id: str, email: str, **values: str) -> dict[str, Any]:
        """Add a lead without checking for duplicates, and return the API's response."""
        world = self.service.world
        with world.lock:
            campaign = world.campaign(campaign_id)
            lead = world.add_lead(campaign, checks.lead({"email": email, **values}))
            return lead_response(lead, campaign)

    def unsubscribe(self, values: str | Iterable[str], source: str = "api") -> None:
        """
        Unsubscribe one or many email addresses, ``@domains``, LinkedIn URLs or phone numbers.

        :param source: ``api``, ``bounced``, ``lead``, ``user`` or ``abuse``, in any case. lemlist does not
            subscribe those of ``lead`` and ``abuse`` again.
        """
        if source.lower() not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
        world = self.service.world
        with world.lock:
            for value in [values] if isinstance(values, str) else values:
                world.unsubscribe(value, source)

    def activity(
        self,
        *,
        lead_id: str,
        type: str,
        step_id: str | None = None,
        created_at: float | None = None,
        bot: bool = False,
        listed_at: float | None = None,
    ) -> dict[str, Any]:
        """
        Add an activity of a lead and return it as the API lists it.

        :param type: Type of the activity, such as ``emailsReplied``.
        :param created_at: Time of the activity, in epoch seconds; default now.
        :param bot: Whether lemlist marks the activity as caused by a bot.
        :param listed_at: The moment from which on it is listed, in epoch seconds, if it is listed late.
        """
        return self.service.add_activity(lead_id, type, step_id, created_at, bot, listed_at)

    def complete_activity(self, activity_id: str, step_id: str) -> dict[str, Any]:
        """Set the step of an activity that was added without one, and return it as the API lists it."""
        return self.service.complete_activity(activity_id, step_id)

    def remove_activity(self, activity_id: str) -> None:
        """Remove an activity, as lemlist does with those of a deleted lead."""
        self.service.remove_activity(activity_id)

    def fill_activities(self, count: int, since: float, until: float, *, burst: int = 1) -> None:
        """
        Add activities at random moments, to the leads that exist or to those of new sample campaigns.

        :param since: Their earliest moment, in epoch seconds.
        :param until: The moment before which all of them happen.
        :param burst: Up to so many happen in one second; half of these bursts in one millisecond.
        """
        self.service.traffic.fill(count, since, until, burst)

    def churn(self, since: float, until: float, **behaviour: float) -> None:
        """
        Let activities arrive and vanish in the background until ``stop_churn()``.

        :param since: Start of the window that a client reads, in epoch seconds.
        :param until: End of that window.
        :param behaviour: How many, where and how often, see ``Churn``.
        """
        with self.service.world.lock:
            self.service.traffic.start(Churn(since, until, **behaviour))

    def stop_churn(self) -> None:
        """Let no more activities arrive and vanish."""
        with self.service.world.lock:
            self.service.traffic.stop()

    def activity_history(self) -> list[ActivityHistory]:
        """Return all activities that ever existed, and when each was listed and vanished."""
        return self.service.activity_history()

    def simulate(self, **behaviour: Any) -> None:
        """
        Start the simulation of prospects.

        :param behaviour: Probabilities and speed, see ``SimulationOptions``.
        """
        with self.service.world.lock:
            self.service.prospects.start(SimulationOptions(**behaviour))

    def stop_simulation(self) -> None:
        """Stop the simulation of prospects."""
        with self.service.world.lock:
            self.service.prospects.stop()

    def accept_key(self, api_key: str, state: str = "active") -> None:
        """
        Add a key or change the state of a key.

        :param state: ``active``, ``blocked``, ``no user``, ``bad team`` or ``plan too low``.
        """
        with self.service.world.lock:
            self.service.keys.accept(api_key, state)

    # --- Faults -----------------------------------------------------------------------------------------

    def fault(self, route: str, kind: str, **details: Any) -> None:
        """
        Inject a fault: ``lemlist.fault("POST /campaigns/*/leads/", "reset", times=2)``.

        :param route: Method and path, as documented or with wildcards; it must match a route of the sandbox.
        :param kind: ``rate_limited``, ``status``, ``reset``, ``slow``, ``hang``, ``cut_body``, ``html``,
            ``empty``, ``missing_id``, ``duplicate``, ``cdn``, ``redirect``, ``ignored``, ``truncated``,
            ``wrapped`` or ``unbounded``.
        :param details: How often, when and how, see ``Fault``.
        """
        self.service.add_fault(Fault(route, kind, **details))

    def clear_faults(self) -> None:
        """Remove all faults."""
        with self.service.world.lock:
            self.service.script.clear()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Simulate an outage inside the ``with`` block: reset open connections and refuse new ones."""
        listener = self._in_loop(self._stop_listening())
        try:
            yield
        finally:
            self._in_loop(self._listen(listener))

    # --- Observation ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all data, the request log and the violations, as ``GET /_sandbox/state`` does."""
        return self.service.state()

    def requests(self, route: str = "*") -> list[dict[str, Any]]:
        """
        Return the request log with headers and bodies, oldest first.

        :param route: Method and path, as documented or with wildcards; it must match a route of the sandbox.
        """
        return self.service.requests(route)

    def violations(self) -> list[dict[str, Any]]:
        """Return the requests that contradict the documents, each with its number, rule and reason."""
        return self.service.violations()
