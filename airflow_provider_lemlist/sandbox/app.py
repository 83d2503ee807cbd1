# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: the API below ``/api``, the controls below ``/_sandbox``, the page at ``/``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette

from airflow_provider_lemlist.sandbox import control, page
from airflow_provider_lemlist.sandbox.api import Api, Receive, Scope, Send
from airflow_provider_lemlist.sandbox.service import Service


def create_app(service: Service) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application of a sandbox."""
    api = Api(service)
    rest: Any = Starlette(routes=[*control.routes(service), *page.routes(service)])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The API bypasses Starlette's router because it needs the undecoded path.
        await (api if scope["path"].startswith("/api/") else rest)(scope, receive, send)

    return app
