# SPDX-License-Identifier: Apache-2.0
"""The budget in a Redis Cluster, and behind a Sentinel, each of three real servers."""

from __future__ import annotations

import pytest

redis = pytest.importorskip("redis")

from airflow_provider_lemlist.api.budget import open_budget  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget import redis as redis_module  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget.arithmetic import Terms  # noqa: E402  # as above
from airflow_provider_lemlist.api.budget.redis import RedisStore  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget.redis_url import read_redis_url  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget.stores import StoreError  # noqa: E402  # as above
from airflow_provider_lemlist.exceptions import LemlistConfigurationError  # noqa: E402  # as above
from tests.unit.api.budget.conftest import Watched  # noqa: E402  # as above
from tests.waiting import wait_for  # noqa: E402  # as above
from tools.private_airflow import free_port  # noqa: E402  # as above
from tools.servers import RedisServer  # noqa: E402  # as above

pytestmark = pytest.mark.redis

KEY = "7d1f0a5c-secret-key"
TERMS = Terms(max_wait=10**10)


def test_all_nodes_of_a_cluster_are_one_budget(redis_cluster: list[RedisServer]) -> None:
    """Named as a cluster, or as any one of its nodes: two of three refuse the key with MOVED."""
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster)
    urls = [f"redis+cluster://{hosts}", *(node.url for node in redis_cluster)]
    for digest in ("a", "b", "c", "d"):  # keys of several nodes
        stores = [RedisStore(url, digest) for url in urls]
        numbers = [store.book(TERMS).number for store in stores * 3]
        assert numbers == list(range(1, 13))
    assert {store.place for store in stores} >= {f"Redis Cluster at {hosts.replace(',', ', ')}"}


def test_a_cluster_serves_while_one_of_its_named_nodes_is_down(redis_cluster: list[RedisServer]) -> None:
    hosts = ",".join(f"127.0.0.1:{port}" for port in (free_port(), *(node.port for node in redis_cluster)))
    assert RedisStore(f"redis+cluster://{hosts}", "digest").book(TERMS).number == 1


def test_a_node_that_restarts_is_waited_for(redis_cluster: list[RedisServer], monkeypatch) -> None:
    store = RedisStore(redis_cluster[0].url, "digest")
    store.book(TERMS)
    for node in redis_cluster:
        node.stop()
    pauses = []

    def restart(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            for node in redis_cluster:
                node.start()

    monkeypatch.setattr("redis.retry.sleep", restart)
    wait_for(lambda: _books(store))
    assert len(pauses) >= 3


def _books(store: RedisStore) -> bool:
    """Return whether the store works; a cluster needs a moment after its nodes are back."""
    try:
        return store.book(TERMS).granted
    except StoreError:
        return False


def test_a_server_that_is_no_cluster_is_named(redis_server: RedisServer, monkeypatch) -> None:
    monkeypatch.setattr(redis_module, "ATTEMPTS", 1)
    url = redis_server.url.replace("redis://", "redis+cluster://:hidden-word@")
    with pytest.raises(StoreError, match=r"Redis Cluster at 127.0.0.1:\d+ does not work") as raised:
        RedisStore(url, "digest").book(TERMS)
    assert "hidden-word" not in str(raised.value)


def sentinel_url(servers: Watched, options: str = "") -> str:
    return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{servers.sentinel.port}/mymaster/0{options}"


def test_the_budget_goes_on_at_the_replica_that_a_sentinel_promotes(redis_sentinel: Watched) -> None:
    store = RedisStore(sentinel_url(redis_sentinel), "digest")
    assert [store.book(TERMS).number for _ in range(3)] == [1, 2, 3]
    with redis.Redis.from_url(redis_sentinel.master.url) as client:
        assert client.wait(1, 10_000) == 1, "the replica has the state"
    redis_sentinel.master.stop()
    wait_for(lambda: _books(store))
    assert store.read().booked >= 4, "with the state that the master had"
    with redis.Redis.from_url(redis_sentinel.replica.url) as client:
        assert len(client.keys("lemlist:budget:*")) == 1


def test_a_master_that_no_sentinel_watches_is_named(redis_sentinel: Watched, monkeypatch) -> None:
    monkeypatch.setattr(redis_module, "ATTEMPTS", 1)
    url = sentinel_url(redis_sentinel).replace("mymaster", "other")
    with pytest.raises(StoreError, match="Redis master 'other' of the Sentinels at 127.0.0.1"):
        RedisStore(url, "digest").book(TERMS)


def test_sentinels_have_a_password_of_their_own(redis_sentinel: Watched, monkeypatch) -> None:
    monkeypatch.setattr(redis_module, "ATTEMPTS", 1)
    with redis.Redis.from_url(redis_sentinel.sentinel.url) as client:
        client.execute_command("ACL SETUSER", "default", "resetpass", ">hidden-word")
    with pytest.raises(StoreError) as raised:
        RedisStore(sentinel_url(redis_sentinel, "?sentinel_password=wrong-word"), "digest").book(TERMS)
    assert "-word" not in str(raised.value)
    store = RedisStore(sentinel_url(redis_sentinel, "?sentinel_password=hidden-word"), "digest")
    assert store.book(TERMS).number == 1


def test_tls_is_for_the_sentinels_and_for_the_master() -> None:
    url = "rediss+sentinel://:word@a:26379,b/mymaster/2?ssl_cert_reqs=required&sentinel_password=p%40ss"
    client = read_redis_url(url).open()
    pool = client.connection_pool
    assert isinstance(pool.make_connection(), redis.SSLConnection)
    assert (pool.connection_kwargs["password"], pool.connection_kwargs["db"]) == ("word", 2)
    for sentinel, port in zip(pool.sentinel_manager.sentinels, (26379, 26379), strict=True):
        assert isinstance(sentinel.connection_pool.make_connection(), redis.SSLConnection)
        assert sentinel.connection_pool.connection_kwargs["password"] == "p@ss"
        assert sentinel.connection_pool.connection_kwargs["port"] == port


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:word@h", "Redis at h:6379"),
        ("redis://u:word@[::1]:7000/3", "Redis at [::1]:7000"),
        ("rediss+cluster://u:word@a,b:7001", "Redis Cluster at a:6379, b:7001"),
        ("redis+sentinel://a/the%20master", "Redis master 'the master' of the Sentinel at a:26379"),
        ("redis+sentinel://a,b:1/m/3", "Redis master 'm' of the Sentinels at a:26379, b:1"),
    ],
)
def test_a_store_is_named_without_its_password(url: str, place: str) -> None:
    assert str(read_redis_url(url)) == place
    assert "word" not in repr(read_redis_url(url))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://:word@a:26379", "names no master"),
        ("redis+sentinel://:word@a:26379/m?sentinel_word=1", "sentinel_username"),
        ("redis+cluster://:word@a:6379,", "a comma too many"),
        ("redis+cluster://:word@a:6379/2", "only database 0"),
        ("redis://:word@a,b", "takes several"),
        ("redis+other://:word@a", "redis\\+cluster"),
        ("redis+cluster://:word@a:word", "cannot be read"),
    ],
)
def test_a_wrong_url_is_an_error_that_says_why_and_quotes_nothing(url: str, says: str) -> None:
    with pytest.raises(LemlistConfigurationError, match=says) as raised:
        open_budget(KEY, store=url)
    assert "word" not in str(raised.value).replace("sentinel_password", "")
