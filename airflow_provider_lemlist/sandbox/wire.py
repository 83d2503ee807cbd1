# SPDX-License-Identifier: Apache-2.0
"""TCP connections: let a request reset its connection or close it in the middle of a response."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """
    uvicorn's HTTP/1.1 with the connection in the request's scope and without access log.

    Always the pure Python implementation, so that timing does not depend on what else is installed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        # asyncio sets this only on sockets that were created with the protocol number of TCP. Without it,
        # every response on a kept-alive connection waits 40 ms for the client's delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}


def reset(transport: asyncio.Transport) -> None:
    """Abort the connection with a TCP reset."""
    # Closing without lingering sends RST instead of FIN.
    no_linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    transport.abort()
