# SPDX-License-Identifier: Apache-2.0
"""What the budget promises to its users, on a clock turned by hand unless it says otherwise."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time

import pytest

from airflow_provider_lemlist.api.budget import Budget, open_budget
from airflow_provider_lemlist.api.budget.arithmetic import SECOND, WINDOW
from airflow_provider_lemlist.api.budget.stores import MemoryStore, StoreError
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistRateLimitError
from tests.waiting import LONGEST

KEY = "7d1f0a5c-secret-key"
UNHEARD = {"limit": None, "remaining": None, "retry_after": None}


@pytest.fixture
def store(clock):
    return MemoryStore(clock.read)


@pytest.fixture
def open_one(clock, store):
    def open_one(**options):
        options = {"clock": clock.seconds, "sleep": clock.sleep, **options}
        return Budget(options.pop("store", store), **options)

    return open_one


def take(budget, count):
    return [budget.book() for _ in range(count)]


def test_a_burst_leaves_at_once_and_the_next_waits(open_one, clock):
    budget = open_one()
    for slot in take(budget, 20):
        budget.wait(slot)
    assert clock.slept == []
    slot = budget.book()
    assert 2.13 <= slot.wait < 2.15
    budget.wait(slot)
    assert sum(clock.slept) == pytest.approx(slot.wait, abs=1e-5)
    assert budget.remaining(slot) <= 0


def test_a_wait_beyond_max_wait_is_refused_at_once_and_books_nothing(open_one, clock):
    budget = open_one(max_wait=1.0)
    take(budget, 20)
    with pytest.raises(LemlistRateLimitError, match=r"2\.1 s.*max_wait is 1 s") as caught:
        budget.book()
    assert 2.13 <= caught.value.wait < 2.15
    assert clock.slept == []
    assert budget.state()["booked"] == 20


def test_wait_can_return_early(open_one, clock):
    budget = open_one()
    slot = take(budget, 41)[-1]
    budget.wait(slot, early=1.0)
    assert budget.remaining(slot) == pytest.approx(1.0, abs=1e-5)
    budget.wait(slot)
    assert budget.remaining(slot) == pytest.approx(0.0, abs=1e-5)


def test_a_sleeper_stays_asleep_when_the_fleet_is_refused_meanwhile(open_one, clock):
    budget, other = open_one(), open_one()
    slots = take(budget, 21)
    asleep = clock.sleep

    def sleep(seconds):
        asleep(seconds)
        if len(clock.slept) == 1:
            other.heard(slots[0], refused=True, limit=20, remaining=0, retry_after=5)

    sleeper = open_one(sleep=sleep)
    before = clock.seconds()
    sleeper.wait(slots[-1])
    # The slot was due at the very moment of the refusal; the pause holds for it too.
    assert clock.slept == pytest.approx([slots[-1].wait, 5.0], abs=0.2)
    assert clock.seconds() - before >= 7.1


def test_remaining_grows_when_a_refusal_moves_the_slot(open_one):
    budget = open_one()
    slots = take(budget, 21)
    before = budget.remaining(slots[-1])
    budget.heard(slots[0], refused=True, limit=20, remaining=0, retry_after=4.5)
    assert before < 2.15
    assert budget.remaining(slots[-1]) == pytest.approx(4.5, abs=1e-5)


def test_a_wait_of_some_seconds_is_told_once(open_one, caplog):
    budget = open_one()
    slots = take(budget, 120)
    with caplog.at_level(logging.INFO, logger="airflow_provider_lemlist"):
        budget.wait(slots[21])
        assert caplog.messages == []
        budget.wait(slots[-1], early=6.0)
        budget.wait(slots[-1])
    (message,) = caplog.messages
    assert re.fullmatch(r"waiting 8\.[56] s for the lemlist budget, (99|100) requests ahead", message)


def test_the_limit_of_the_headers_is_followed(open_one):
    budget = open_one()
    slot = budget.book()
    budget.heard(slot, refused=False, limit=5, remaining=4, retry_after=2)
    waits = [slot.wait for slot in take(budget, 5)]
    assert waits[3] == 0
    assert waits[4] > 2


def test_a_sleeper_that_woke_late_is_allowed_for(open_one, clock):
    def oversleep(seconds):
        clock.sleep(seconds + 0.08)

    budget = open_one(sleep=oversleep)
    slots = take(budget, 21)
    budget.wait(slots[20])
    gone = clock.seconds()
    budget.heard(slots[20], refused=False, limit=20, remaining=19, retry_after=2)
    later = take(budget, 20)
    assert clock.seconds() + later[-1].wait >= gone + 2.13


def test_a_store_that_answered_late_is_allowed_for(open_one, clock):
    class StallingStore(MemoryStore):
        stalls = 0.0

        def book(self, terms):
            booking = super().book(terms)
            clock.pass_by(self.stalls)
            return booking

    store = StallingStore(clock.read)
    budget = open_one(store=store)
    take(budget, 19)
    store.stalls = 0.08
    slot = budget.book()
    store.stalls = 0.0
    budget.wait(slot)
    left = clock.seconds()
    budget.heard(slot, refused=False, limit=20, remaining=0, retry_after=2)
    later = take(budget, 20)
    assert clock.seconds() + later[-1].wait >= left + 2.13


def test_a_strangers_use_is_seen_and_forgotten(open_one, clock):
    budget = open_one()
    slot = budget.book()
    budget.heard(slot, refused=False, limit=20, remaining=9, retry_after=2)
    assert budget.state()["others"] == 11
    assert budget.state()["capacity"] == 9
    clock.pass_by(50)
    assert budget.state()["capacity"] == 20


def test_headers_that_say_nothing_change_nothing(open_one):
    budget = open_one()
    slot = budget.book()
    before = budget.state()
    budget.heard(slot, refused=False, **UNHEARD)
    assert {**budget.state(), "booked": 1} == before


def test_a_share_takes_a_part_of_the_limit(open_one):
    budget = open_one(share=0.25)
    waits = [slot.wait for slot in take(budget, 6)]
    assert waits[4] == 0
    assert waits[5] >= 2.13


class BrokenStore(MemoryStore):
    broken = True
    asked = 0

    def _change(self, decide):
        self.asked += 1
        if self.broken:
            raise StoreError("the store is on fire. Put it out")
        return super()._change(decide)


def test_a_failing_store_is_replaced_by_a_budget_of_the_process_with_one_warning(open_one, clock, caplog):
    store = BrokenStore(clock.read)
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read))
    slots = take(budget, 21)
    for slot in slots:
        budget.wait(slot)
        budget.heard(slot, refused=False, limit=20, remaining=19, retry_after=2)
    assert slots[-1].wait >= 2.13
    assert store.asked == 1
    clock.pass_by(31)
    take(budget, 5)
    assert store.asked == 2
    assert len(caplog.records) == 1
    assert "the store is on fire. Put it out" in caplog.text


def test_the_store_is_used_again_once_it_works(open_one, clock):
    store = BrokenStore(clock.read)
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read))
    early = budget.book()
    store.broken = False
    assert store.look().booked == 0
    clock.pass_by(31)
    budget.book()
    assert store.look().booked == 1
    budget.heard(early, refused=True, limit=20, remaining=0, retry_after=60)
    assert budget.book().wait == 0


def test_a_slot_of_one_store_is_not_moved_by_another(open_one, clock):
    store = BrokenStore(clock.read)
    store.broken = False
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read))
    early = take(budget, 21)[-1]
    before = budget.remaining(early)
    store.broken = True
    here = take(budget, 1)[0]
    budget.heard(here, refused=True, limit=20, remaining=0, retry_after=50)
    assert budget.remaining(early) == before


def test_the_spare_budget_starts_without_credit(monkeypatch):
    budget = open_budget("spare-key", store="memory://", max_wait=100)
    monkeypatch.setattr(budget, "_store", BrokenStore())
    slots = [slot.booking.at for slot in take(budget, 10)]
    assert slots[-1] - slots[0] > 0.8 * SECOND


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(LemlistConfigurationError, match="budget_share"):
        open_budget(KEY, store="memory://", share=share)


def test_whoever_wants_may_wait_for_ever():
    budget = open_budget("patient-key", store="memory://", max_wait=float("inf"))
    assert take(budget, 500)[-1].wait > 40


@pytest.mark.parametrize("max_wait", [-1, float("nan")])
def test_a_negative_wait_is_refused(max_wait):
    with pytest.raises(LemlistConfigurationError, match="max_wait"):
        open_budget(KEY, store="memory://", max_wait=max_wait)


@pytest.mark.parametrize("store", ["postgres://x", "redis:/x", "elsewhere", "http://:hidden@x/"])
def test_an_unknown_store_is_refused_without_quoting_it(store):
    with pytest.raises(LemlistConfigurationError, match="budget_store") as caught:
        open_budget(KEY, store=store)
    assert "hidden" not in str(caught.value)


def test_an_unreadable_redis_url_is_refused_without_its_password():
    with pytest.raises(LemlistConfigurationError, match="budget_store") as caught:
        open_budget(KEY, store="redis://:hidden@host:port/0")
    assert "hidden" not in str(caught.value)


def test_connections_with_the_same_key_share_and_others_do_not():
    one = open_budget("shared-key", store="memory://")
    two = open_budget("shared-key", store="memory://")
    stranger = open_budget("another-key", store="memory://")
    first = take(one, 20)[0]
    assert two.book().booking.at - first.booking.at > WINDOW
    assert stranger.book().wait == 0


def test_many_threads_get_as_many_slots(open_one):
    budget = open_one(max_wait=10_000)
    slots = []

    def work():
        slots.extend(take(budget, 50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slot.booking.number for slot in slots) == list(range(1, 401))


def test_the_loop_is_never_blocked():
    """A store that answers only while the loop turns, and waits on the real clock."""
    turned = []

    class SlowStore(MemoryStore):
        def _change(self, decide):
            turn = threading.Event()
            loop.call_soon_threadsafe(turn.set)
            turned.append(turn.wait(LONGEST))
            return super()._change(decide)

    def never(seconds):
        pytest.fail("blocks the loop")

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        budget = Budget(SlowStore(), sleep=never)
        slot = await budget.async_book()
        await budget.async_wait(slot)
        await budget.async_heard(slot, refused=True, limit=20, remaining=0, retry_after=0.3)
        slot = await budget.async_book()
        await budget.async_wait(slot)
        assert slot.due <= time.monotonic()

    loop = None
    asyncio.run(main())
    assert len(turned) >= 3
    assert all(turned)


def test_importing_the_budget_is_light():
    heavy = ("sqlite3", "redis", "asyncio", "requests", "airflow", "pendulum")
    code = (
        "import sys, airflow_provider_lemlist.api.budget;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
