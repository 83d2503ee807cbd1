# SPDX-License-Identifier: Apache-2.0
"""The TCP side: requests can reach their connection, to reset it or to leave an answer short."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """
    HTTP/1.1 as uvicorn speaks it, with the connection in the request's scope and no access log.

    Always the pure Python one: every machine then has the same timing, whatever else is installed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        # asyncio does this only for sockets that were made with the protocol number of TCP. Without it every
        # answer on a kept-alive connection waits 40 ms for the client's delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}


def reset(transport: asyncio.Transport) -> None:
    """Break the connection so that the peer sees a reset, not an orderly end."""
    end = transport.get_extra_info("socket")
    # Closing without lingering sends RST instead of FIN.
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def hang_up(transport: asyncio.Transport) -> None:
    """End the connection after what was written so far."""
    transport.close()
