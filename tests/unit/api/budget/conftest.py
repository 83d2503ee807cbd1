# SPDX-License-Identifier: Apache-2.0
"""A clock that the test sets, and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from airflow_provider_lemlist.api.budget import Budget, Slot
from tests.waiting import wait_for
from tools.private_airflow import free_port
from tools.servers import RedisServer

if TYPE_CHECKING:
    import redis


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


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Three masters, each with a third of the slots."""
    import redis

    # Without a port of its own, the bus of a node listens 10,000 above the node, where no port may be.
    buses = [free_port() for _ in range(3)]
    nodes = []
    for number, bus in enumerate(buses):
        folder = tmp_path / f"node{number}"
        folder.mkdir()
        nodes.append(RedisServer(folder, "--cluster-enabled", "yes", "--cluster-port", str(bus)))
    thirds = (0, 5460), (5461, 10922), (10923, 16383)
    try:
        clients = []
        for number, node in enumerate(nodes):
            node.start()
            clients.append(redis.Redis.from_url(node.url))
            clients[-1].execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            clients[-1].execute_command("CLUSTER ADDSLOTSRANGE", *thirds[number])
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        wait_for(lambda: all(cluster_is_up(client) for client in clients))
        for client in clients:
            client.close()
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def cluster_is_up(client: redis.Redis) -> bool:
    """Return whether a node knows the others and all their slots."""
    info = client.execute_command("CLUSTER INFO")
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "3")


class Watched(NamedTuple):
    """A master, its replica, and the Sentinel that watches them under the name ``mymaster``."""

    master: RedisServer
    replica: RedisServer
    sentinel: RedisServer


@pytest.fixture
def redis_sentinel(tmp_path: Path) -> Iterator[Watched]:
    """Three servers; the Sentinel promotes the replica half a second after the master is gone."""
    import redis

    for name in Watched._fields:
        (tmp_path / name).mkdir()
    # Otherwise the master waits for 5 seconds before it sends the replica its data.
    master = RedisServer(tmp_path / "master", "--save", "", "--repl-diskless-sync-delay", "0")
    replica = RedisServer(tmp_path / "replica", "--save", "", "--replicaof", f"127.0.0.1 {master.port}")
    settings = tmp_path / "sentinel" / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 500\n"
        "sentinel failover-timeout mymaster 2000\n"
    )
    servers = Watched(master, replica, RedisServer(settings.parent, str(settings), "--sentinel"))
    try:
        master.start()
        replica.start()
        with redis.Redis.from_url(replica.url) as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        servers.sentinel.start()
        with redis.Redis.from_url(servers.sentinel.url) as client:
            wait_for(lambda: client.sentinel_slaves("mymaster"))
        yield servers
    finally:
        for server in servers:
            server.stop()
