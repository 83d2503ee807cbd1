# SPDX-License-Identifier: Apache-2.0
"""The budget of a fleet, against a real Redis."""

from __future__ import annotations

import logging
import multiprocessing
import random
import socket
import threading
import time

import pytest

redis = pytest.importorskip("redis")

from airflow_provider_lemlist.api.budget import Budget, open_budget  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget import redis as redis_module  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget.arithmetic import (  # noqa: E402  # as above
    PERHAPS,
    SECOND,
    WHOLE,
    WINDOW,
    Feedback,
    State,
    Terms,
    advance,
    book,
    dump,
    load,
    report,
)
from airflow_provider_lemlist.api.budget.redis import RedisStore  # noqa: E402  # needs redis
from airflow_provider_lemlist.api.budget.stores import StoreError  # noqa: E402  # as above
from airflow_provider_lemlist.exceptions import LemlistConfigurationError  # noqa: E402  # as above
from tests.unit.api.budget.conftest import remaining  # noqa: E402  # as above
from tests.waiting import LONGEST, wait_for  # noqa: E402  # as above
from tools.private_airflow import free_port  # noqa: E402  # as above
from tools.servers import RedisServer  # noqa: E402  # as above

pytestmark = pytest.mark.redis

KEY = "7d1f0a5c-secret-key"
TERMS = Terms(max_wait=10**10)


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


def keys(client):
    return client.keys("*")


@pytest.mark.parametrize("seed", range(4))
def test_redis_keeps_what_the_arithmetic_decides_to_the_last_digit(redis_server, client, seed):
    """The random life of a key in Redis, and the same one without it, at the moments that Redis measured."""
    rng = random.Random(seed)
    store, expected, bookings = RedisStore(redis_server.url, "digest"), None, []
    for _ in range(300):
        if not bookings or rng.random() < 0.55:
            share = rng.choice([WHOLE, WHOLE, WHOLE // 4, 333_333, 20_000])
            terms = Terms(share, rng.choice([0, 10 * SECOND, 10**10]))
            booking = store.book(terms)
            kept = kept_in(client)
            expected = expected or State(epoch=booking.epoch, other_clients=PERHAPS)
            expected, same = book(expected, kept.seen, terms)
            assert booking == same
            if booking.granted:
                bookings.append(booking)
        else:
            feedback = Feedback(
                rng.choice(bookings[-30:]),
                rng.random() < 0.05,
                rng.choice([-1, 20, 20, 20, 1, 7, 33, 900]),
                rng.choice([-1, *range(21)]),
                rng.choice([-1, 0, SECOND, 2_500_000, 10**11]),
                rng.choice([-1, rng.randrange(400_000)]),
                rng.choice([0, 0, rng.randrange(200_000)]),
                rng.choice([WHOLE, WHOLE, WHOLE, WHOLE // 4]),
                rng.randrange(SECOND),
            )
            caused = store.report(feedback)
            kept = kept_in(client)
            expected, same = report(expected, kept.seen, feedback)
            assert caused == same
        assert kept == expected
        seen = store.read()
        assert seen == advance(expected, seen.seen)


def kept_in(client):
    (name,) = keys(client)
    return load(client.get(name))


def test_a_store_that_is_overtaken_calculates_again(redis_server):
    """Another process books between the reading and the writing of a booking, three times."""
    store, other = RedisStore(redis_server.url, "digest"), RedisStore(redis_server.url, "digest")
    overtaken = []

    def decide(state, now):
        if len(overtaken) < 3:
            overtaken.append(other.book(TERMS).number)
        return book(state, now, TERMS)

    assert store._run(decide).number == 4
    assert overtaken == [1, 2, 3]
    assert other.book(TERMS).number == 5


def test_a_store_that_is_always_overtaken_gives_up(redis_server, monkeypatch):
    monkeypatch.setattr(redis_module, "CONTENTION", 0.2)
    store, other = RedisStore(redis_server.url, "digest"), RedisStore(redis_server.url, "digest")

    def decide(state, now):
        other.book(TERMS)
        return book(state, now, TERMS)

    with pytest.raises(StoreError, match="overtook"):
        store._run(decide)


def test_checking_a_slot_writes_nothing(redis_server, client):
    budget = open_budget(KEY, store=redis_server.url)
    slot = budget.book()
    (name,) = keys(client)
    line = client.get(name)
    assert remaining(budget, slot) <= 0
    assert client.get(name) == line


def test_the_store_applies_feedback(redis_server):
    store = RedisStore(redis_server.url, "digest")
    booking = store.book(TERMS)
    assert (booking.granted, booking.number, booking.wait, booking.crowd) == (True, 1, 0, 1)
    assert store.report(Feedback(booking, True, 20, 0, 50 * SECOND, -1))
    state = store.read()
    assert state.pause - state.seen == pytest.approx(50 * SECOND, abs=40 * SECOND)
    assert state.booked == 1
    assert state.other_clients > 0


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
    assert remaining(two, late) < a_while
    one.report(slots[1], refused=True, limit=20, remaining=None, retry_after=50)
    assert 10 < remaining(two, late) < a_while


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
    budget.report(slot, refused=False, limit=20, remaining=19, retry_after=2)
    assert [slot.booking.number, budget.book().booking.number] == [1, 2], "the store lost the first one"
    assert caplog.records == [], "no warning: the store was there again in time"


@pytest.mark.parametrize("loss", ["restart", "flush", "foreign value"])
def test_a_lost_state_begins_a_new_epoch(redis_server, client, loss):
    store = RedisStore(redis_server.url, "digest")
    before = [store.book(TERMS) for _ in range(25)]
    assert len({booking.epoch for booking in before}) == 1
    if loss == "restart":
        redis_server.stop()
        redis_server.start()
    elif loss == "flush":
        client.flushall()
    else:
        client.set(*keys(client), "nonsense")
    after = store.book(TERMS)
    assert after.number == 1
    assert after.epoch == store.read().epoch != before[0].epoch


def test_waiting_requests_go_on_after_redis_restarted_without_its_data(redis_server, client):
    """After thousands of bookings, with a refusal in the new state that moves its queue."""
    max_wait = 100
    refused, asleep, failed = threading.Event(), [], []

    def open_waiting():
        naps, opened = [], time.monotonic()

        def clock():  # stands still until the refusal, so that no slot comes before its thread has waited
            return time.monotonic() if refused.is_set() else opened

        def sleep(seconds):
            naps.append(seconds)
            assert sum(naps) <= max_wait
            if len(naps) == 1:  # it wakes up after the restart and the refusal, however slow this machine is
                asleep.append(seconds)
                assert refused.wait(LONGEST)
            else:
                time.sleep(seconds)

        store = RedisStore(redis_server.url, "digest")
        return Budget(store, max_wait=max_wait, clock=clock, sleep=sleep)

    def wait(budget, slot):
        try:
            budget.wait(slot)
        except BaseException as error:
            failed.append(error)

    store = RedisStore(redis_server.url, "digest")
    for _ in range(4_000):
        store.book(TERMS)
    (name,) = keys(client)
    # As if all of them had left, and their responses had shown no other client.
    client.set(name, dump(load(client.get(name))._replace(slots=(), other_clients=0)))
    budgets = [open_waiting() for _ in range(30)]
    waiting = [(budget, budget.book()) for budget in budgets]
    assert waiting[-1][1].booking.number == 4_030
    threads = [threading.Thread(target=wait, args=each) for each in waiting]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(asleep) == 10)
    redis_server.stop()
    redis_server.start()
    other = open_waiting()
    first, *_ = [other.book() for _ in range(25)]
    other.report(first, refused=True, limit=20, remaining=None, retry_after=1)
    refused.set()
    for thread in threads:
        thread.join()
    assert failed == []
    numbers = [slot.booking.number for _, slot in waiting if slot.booking.epoch == first.booking.epoch]
    assert sorted(numbers) == list(range(26, 36)), "the ten that waited"


def test_without_redis_the_task_goes_on_with_one_warning(redis_server, monkeypatch, caplog):
    monkeypatch.setattr(redis_module, "ATTEMPTS", 1)
    budget = open_budget(KEY, store=redis_server.url.replace("redis://", "redis://:hidden-word@"))
    redis_server.stop()
    try:
        with caplog.at_level(logging.WARNING):
            slots = [budget.book() for _ in range(3)]
            budget.wait(slots[-1])
            budget.report(slots[-1], refused=False, limit=20, remaining=19, retry_after=2)
    finally:
        redis_server.start()
    assert len(caplog.records) == 1
    assert "budget_store" in caplog.text
    assert KEY not in caplog.text
    assert "hidden-word" not in caplog.text


def test_a_redis_that_does_not_reply_is_waited_for_once(monkeypatch, caplog):
    """The machine hangs, or a firewall drops the packets: each attempt would hold the task as long again."""
    monkeypatch.setattr(redis_module, "TIMEOUT", 0.2)
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
def test_an_option_that_redis_does_not_have_is_an_error_of_the_connection(redis_server, option):
    with pytest.raises(LemlistConfigurationError, match="budget_store"):
        open_budget(KEY, store=f"{redis_server.url}?{option}")


def test_one_node_of_a_cluster_is_a_redis_like_any_other(tmp_path):
    # Otherwise the port of the cluster is 10,000 above the other one, which may not exist.
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
    assert isinstance(store._url.open().connection_pool.make_connection(), redis.SSLConnection)


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
    "line", ["nonsense", "", "9 1 2 3", "2 2 3", "2 0 0 20 " + "0 " * 13 + "5 3", "2" + " nan" * 16]
)
def test_a_foreign_value_is_replaced(redis_server, client, line):
    budget = open_budget(KEY, store=redis_server.url)
    budget.book()
    (name,) = keys(client)
    client.set(name, line)
    assert budget.state()["booked"] == 0
    assert [budget.book().booking.number for _ in range(2)] == [1, 2]
