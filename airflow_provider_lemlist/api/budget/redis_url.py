# SPDX-License-Identifier: Apache-2.0
"""
The URL of a budget store in Redis: one server, a cluster, or the master that Sentinels name.

    redis://user:password@host:6379/0
    redis+cluster://user:password@host:6379,host2:6379
    redis+sentinel://user:password@host:26379,host2:26379/master name/0?sentinel_password=…

``rediss`` instead of ``redis`` means TLS. Options after ``?`` are those of a connection of redis-py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.sentinel import Sentinel

PORT = 6379
SENTINEL_PORT = 26379
#: Seconds to wait for one reply of a Sentinel. The next one may know the master, too.
SENTINEL_TIMEOUT = 1.0


class RedisURLError(ValueError):
    """What is wrong with a URL, in words that quote no part of it: the part may be the password."""


class Node(NamedTuple):
    """The address of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisURL:
    """A URL that was read. What may hold a password stays out of ``repr``."""

    #: Empty for one server; ``cluster`` or ``sentinel``.
    kind: str
    nodes: tuple[Node, ...]
    #: The name of the master, with Sentinels.
    master: str
    #: The URL of the first server, without what only Sentinels have.
    first: str = field(repr=False)
    #: Username and password of the Sentinels.
    sentinel_login: dict[str, str] = field(repr=False)

    def __str__(self) -> str:
        nodes = ", ".join(map(str, self.nodes))
        if self.kind == "sentinel":
            return f"Redis master {self.master!r} of the Sentinel{'s' * (len(self.nodes) > 1)} at {nodes}"
        return f"Redis{' Cluster' * (self.kind == 'cluster')} at {nodes}"

    def open(self, **options: Any) -> Redis | RedisCluster:
        """
        Return a client. That of a cluster connects, the others do so when they are used.

        :param options: Options of every connection; those of the URL precede them.
        """
        client: Redis
        if self.kind == "cluster":
            others = [ClusterNode(*node) for node in self.nodes[1:]]
            return RedisCluster.from_url(self.first, startup_nodes=others, **options)
        if not self.kind:
            client = Redis.from_url(self.first, **options)
            return client
        of_url = parse_url(self.first)
        del of_url["host"]
        of_url.pop("port", None)
        tls = {name: value for name, value in of_url.items() if name.startswith("ssl_")}
        if of_url.pop("connection_class", None):
            tls["ssl"] = of_url["ssl"] = True
        timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), SENTINEL_TIMEOUT)
        sentinels = Sentinel(self.nodes, sentinel_kwargs=options | tls | timeouts | self.sentinel_login)
        client = sentinels.master_for(self.master, **options | of_url)
        return client


def read_redis_url(url: str) -> RedisURL:
    """
    Read a URL, without connecting.

    :raises RedisURLError: It is wrong, and the message says why.
    :raises ValueError, TypeError, RedisError: An option is wrong; the message may quote the URL.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    login, at, hosts = parts.netloc.rpartition("@")
    path, query, sentinel_login, master = parts.path.strip("/"), parts.query, {}, ""
    if kind == "sentinel":
        master, _, path = path.partition("/")
        if not master:
            raise RedisURLError("names no master: redis+sentinel://host:26379/master/0")
        options = parse_qsl(query)
        query = urlencode([each for each in options if not each[0].startswith("sentinel_")])
        sentinel_login = {
            name.removeprefix("sentinel_"): value
            for name, value in options
            if name in ("sentinel_username", "sentinel_password")
        }
        if len(sentinel_login) < sum(name.startswith("sentinel_") for name, _ in options):
            raise RedisURLError("has an option sentinel_… other than sentinel_username and sentinel_password")
    urls = [urlunsplit((scheme, login + at + host, path, query, "")) for host in hosts.split(",")]
    servers = [parse_url(each) for each in urls]
    if kind and not all(server.get("host") for server in servers):
        raise RedisURLError("names no host, or has a comma too many")
    if not kind and len(servers) > 1:
        raise RedisURLError("names several hosts: redis+cluster:// or redis+sentinel:// takes several")
    if kind == "cluster" and servers[0].get("db"):
        raise RedisURLError("names a database, and a Redis Cluster has only database 0")
    port = SENTINEL_PORT if kind == "sentinel" else PORT
    nodes = tuple(Node(each.get("host", "localhost"), each.get("port", port)) for each in servers)
    # Finds options that no connection has.
    pool = Redis.from_url(urls[0]).connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return RedisURL(kind, nodes, unquote(master), urls[0], sentinel_login)
