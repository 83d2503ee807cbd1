# SPDX-License-Identifier: Apache-2.0
"""A clock that the test sets, and a real Redis."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_lemlist.api.budget import Budget, Slot
from tests.waiting import LONGEST, wait_for


class Time:
    """A clock that moves only when a caller sleeps, and a list of those sleeps."""

    def __init__(self, start: float = 1_000.0) -> None:
        self.micros = round(start * 1_000_000)
        self.slept: list[float] = []

    def read(self) -> int:
        return self.micros

    def seconds(self) -> float:
        return self.micros / 1_000_000

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.micros += round(seconds * 1_000_000)

    def pass_by(self, seconds: float) -> None:
        self.micros += round(seconds * 1_000_000)


def remaining(budget: Budget, slot: Slot) -> float:
    """Return the seconds until the slot, after all moves since it was booked."""
    budget._find(slot)
    return slot.due - budget._clock()


@pytest.fixture
def clock() -> Time:
    return Time()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A redis-server on loopback that can be stopped and started again on the same port."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self._settings = settings
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                self.folder,
                *self._settings,
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self._process
        assert self._process.poll() is None, "redis-server did not start"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=LONGEST).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(LONGEST)
            self._process = None


@pytest.fixture(scope="module")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(running_redis: RedisServer) -> RedisServer:
    import redis

    with redis.Redis.from_url(running_redis.url) as client:
        client.flushall()
    return running_redis
