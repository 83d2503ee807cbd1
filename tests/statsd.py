# SPDX-License-Identifier: Apache-2.0
"""A StatsD server on loopback that keeps the lines that it receives."""

from __future__ import annotations

import socket
import threading
from typing import Self


class StatsDServer:
    """Reads while the processes run: what a full buffer drops, a test would miss."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        while datagram := self._socket.recv(65_536):
            self.lines += datagram.decode().splitlines()

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until everything that was sent before is read: an empty datagram is the last one."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._reader.join()
        self._socket.close()
