# SPDX-License-Identifier: Apache-2.0
"""The budget of a fleet, against a real Redis."""

from __future__ import annotations

import logging
import multiprocessing
import random
import socket
import time

import pytest

redis = pytest.importorskip("redis")

from airflow_provider_lemlist.api.budget import Budget, open_budget  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget import redis as redis_module  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget.arithmetic import (  # noqa: E402  # as above
    SECOND,
    WHOLE,
    WINDOW,
    Answer,
    State,
    Terms,
    book,
    dump,
    hear,
    load,
    settle,
)
from airflow_provider_lemlist.api.budget.redis import RedisStore  # noqa: E402  # needs redis
from airflow_provider_lemlist.exceptions import LemlistConfigurationError  # noqa: E402  # as above
from tests.unit.api.budget.conftest import RedisServer, free_port  # noqa: E402  # as above
from tests.waiting import wait_for  # noqa: E402  # as above

pytestmark = pytest.mark.redis

KEY = "7d1f0a5c-secret-key"
TERMS = Terms(max_wait=10**10)


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


def keys(client):
    return client.keys("*")


class ScriptOnOwnClock:
    """The script, with the clock given from outside."""

    def __init__(self, client):
        text = redis_module._script()
        clock = "redis.call('TIME')"
        assert text.count(clock) == 1
        self._script = client.register_script(text.replace(clock, "{ARGV[#ARGV], 0}"))
        self._client = client

    def run(self, now, *words):
        # The clock is multiplied by a million within; a decimal keeps it exact enough for a double.
        return self._script(keys=["state"], args=[*words, f"{now}e-6"])

    @property
    def line(self):
        return self._client.get("state")


@pytest.mark.parametrize("seed", range(12))
def test_lua_and_python_calculate_the_same(client, seed):
    """The same random life of a key in both, every state compared to the last digit."""
    rng = random.Random(seed)
    script = ScriptOnOwnClock(client)
    state, now, bookings = State(), 1_000_000 * SECOND, []
    busy = rng.choice([0.02, 0.3, 1.0])
    for _ in range(400):
        now += round(rng.expovariate(1 / busy) * SECOND) if rng.random() < 0.7 else 0
        if rng.random() < 0.01:
            now -= rng.randrange(5 * SECOND)
        if not bookings or rng.random() < 0.55:
            share = rng.choice([WHOLE, WHOLE, WHOLE // 4, 333_333, 20_000])
            terms = Terms(share, rng.choice([0, 10 * SECOND, 10**10]))
            state, booking = book(state, now, terms)
            assert script.run(now, "book", *terms) == [int(booking[0]), *booking[1:]]
            if booking.granted:
                bookings.append(booking)
        else:
            heard = rng.choice(bookings[-30:])
            said = Answer(
                heard,
                rng.random() < 0.05,
                rng.choice([-1, 20, 20, 20, 1, 7, 33, 900]),
                rng.choice([-1, *range(21)]),
                rng.choice([-1, 0, SECOND, 2_500_000, 10**11]),
                rng.choice([-1, rng.randrange(400_000)]),
                rng.choice([0, 0, rng.randrange(200_000)]),
                rng.choice([WHOLE, WHOLE, WHOLE, WHOLE // 4]),
            )
            state = hear(state, now, said)
            script.run(
                now, "hear", heard.at, heard.number, heard.crowd, heard.capacity, int(said.refused), *said[2:]
            )
        assert script.line == dump(state)
        assert load(script.run(now, "look")) == settle(state, now)


def test_the_store_speaks_the_language_of_the_script(redis_server):
    store = RedisStore(redis_server.url, "digest")
    booking = store.book(TERMS)
    assert (booking.granted, booking.number, booking.wait, booking.crowd) == (True, 1, 0, 1)
    store.hear(Answer(booking, True, 20, 0, 50 * SECOND, -1))
    state = store.look()
    assert state.pause - state.seen == pytest.approx(50 * SECOND, abs=40 * SECOND)
    assert state.booked == 1
    assert state.others > 0


def test_two_machines_share_one_budget_whatever_their_clocks_say(redis_server):
    """Clocks five minutes apart: only the server's counts."""
    one = Budget(RedisStore(redis_server.url, "digest"), clock=time.monotonic)
    two = Budget(RedisStore(redis_server.url, "digest"), clock=lambda: time.monotonic() + 300)
    slots = [(one if turn % 2 else two).book() for turn in range(21)]
    # Far less than the five minutes, however slow this machine is.
    a_while = 100
    assert WINDOW < slots[-1].booking.at - slots[0].booking.at < a_while * SECOND
    assert all(slot.wait < a_while for slot in slots)
    late = two.book()
    assert two.remaining(late) < a_while
    one.heard(slots[1], refused=True, limit=20, remaining=0, retry_after=50)
    assert 10 < two.remaining(late) < a_while


def book_in_child(url, count, sender):
    budget = open_budget(KEY, store=url, max_wait=1e6)
    sender.send([budget.book().booking.number for _ in range(count)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_never_get_the_same_slot(redis_server, method):
    context = multiprocessing.get_context(method)
    budget = open_budget(KEY, store=redis_server.url, max_wait=1e6)
    numbers = [budget.book().booking.number]
    pipes = []
    for _ in range(3):
        receiver, sender = context.Pipe(duplex=False)
        context.Process(target=book_in_child, args=(redis_server.url, 50, sender)).start()
        pipes.append(receiver)
    for pipe in pipes:
        numbers += pipe.recv()
    numbers.append(budget.book().booking.number)
    assert sorted(numbers) == list(range(1, 153))


def test_a_budget_is_used_on_both_sides_of_a_fork(redis_server):
    budget = open_budget(KEY, store=redis_server.url, max_wait=1e6)
    budget.book()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(budget.book().booking.number))
    child.start()
    assert {receiver.recv(), budget.book().booking.number} == {2, 3}
    child.join(10)


def test_a_forgotten_script_is_loaded_again(redis_server, client):
    budget = open_budget(KEY, store=redis_server.url)
    assert budget.book().booking.number == 1
    client.script_flush()
    assert budget.book().booking.number == 2


def test_a_restart_in_mid_run_is_survived(redis_server, caplog, monkeypatch):
    budget = open_budget(KEY, store=redis_server.url, max_wait=1e6)
    budget.book()
    redis_server.stop()
    pauses = []

    def restart(seconds):
        pauses.append(seconds)
        if sum(pauses) > 0.4:
            redis_server.start()

    monkeypatch.setattr("redis.retry.sleep", restart)
    slot = budget.book()
    budget.heard(slot, refused=False, limit=20, remaining=19, retry_after=2)
    assert [slot.booking.number, budget.book().booking.number] == [1, 2], "of the store, which forgot"
    assert caplog.records == [], "nobody was warned, the store was there again in time"


def test_without_redis_the_task_goes_on_with_one_warning(redis_server, monkeypatch, caplog):
    monkeypatch.setattr(redis_module, "ATTEMPTS", 1)
    budget = open_budget(KEY, store=redis_server.url.replace("redis://", "redis://:hidden-word@"))
    redis_server.stop()
    try:
        with caplog.at_level(logging.WARNING):
            slots = [budget.book() for _ in range(3)]
            budget.wait(slots[-1])
            budget.heard(slots[-1], refused=False, limit=20, remaining=19, retry_after=2)
    finally:
        redis_server.start()
    assert len(caplog.records) == 1
    assert "budget_store" in caplog.text
    assert KEY not in caplog.text
    assert "hidden-word" not in caplog.text


def test_a_redis_that_does_not_answer_is_waited_for_once(monkeypatch, caplog):
    """A machine that hangs, a firewall that swallows: each further attempt would hold the task as long."""
    monkeypatch.setattr(redis_module, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        budget = open_budget(KEY, store=f"redis://127.0.0.1:{silent.getsockname()[1]}")
        budget.wait(budget.book())
        silent.settimeout(0.1)
        callers = [silent.accept()[0]]
        with pytest.raises(TimeoutError):
            silent.accept()
        callers[0].close()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("option", ["foo=1", "ssl_ca_certs=x", "protocol=9", "db=x", "socket_timeout=x"])
def test_an_option_that_redis_does_not_have_is_a_mistake_in_the_connection(redis_server, option):
    with pytest.raises(LemlistConfigurationError, match="budget_store"):
        open_budget(KEY, store=f"{redis_server.url}?{option}")


def test_one_node_of_a_cluster_is_a_redis_like_any_other(tmp_path):
    # Else the port of the cluster is 10,000 above the other one, where there may be none.
    server = RedisServer(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            wait_for(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        budget = open_budget(KEY, store=server.url)
        assert [budget.book().booking.number for _ in range(3)] == [1, 2, 3]
        assert isinstance(budget.book().store, RedisStore)
    finally:
        server.stop()


def test_a_password_in_the_url_is_used(redis_server, client):
    client.config_set("requirepass", "a-password")
    try:
        url = redis_server.url.replace("redis://", "redis://:a-password@")
        assert open_budget(KEY, store=url).book().booking.number == 1
    finally:
        client.execute_command("AUTH", "a-password")
        client.config_set("requirepass", "")


def test_rediss_means_tls():
    store = RedisStore("rediss://:word@127.0.0.1:6390/2?ssl_cert_reqs=required", "digest")
    assert isinstance(store._client.connection_pool.make_connection(), redis.SSLConnection)


def test_the_state_expires_and_its_name_holds_no_key(redis_server, client):
    open_budget(KEY, store=redis_server.url).book()
    (name,) = keys(client)
    assert name.startswith("lemlist:budget:{")
    assert name.endswith("}")
    assert KEY not in name
    assert KEY not in client.get(name)
    assert 3_500_000 < client.pttl(name) <= 3_600_000


def test_a_long_queue_outlives_its_last_slot(redis_server, client):
    budget = open_budget(KEY, store=redis_server.url, max_wait=1e6)
    for _ in range(2_000):
        last = budget.book()
    (name,) = keys(client)
    assert client.pttl(name) / 1000 > last.wait + 3_500


@pytest.mark.parametrize(
    "line", ["nonsense", "", "9 1 2 3", "1 2 3", "1 " + "0 " * 14 + "0 5 3", "1" + " nan" * 15]
)
def test_a_foreign_value_is_replaced(redis_server, client, line):
    budget = open_budget(KEY, store=redis_server.url)
    budget.book()
    (name,) = keys(client)
    client.set(name, line)
    assert budget.state()["booked"] == 0
    assert [budget.book().booking.number for _ in range(2)] == [1, 2]
