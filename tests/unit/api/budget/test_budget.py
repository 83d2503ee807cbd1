# SPDX-License-Identifier: Apache-2.0
"""What the budget promises, on a clock that the test sets unless it says otherwise."""

from __future__ import annotations

import heapq
import itertools
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist.api import budget as budget_module
from airflow_provider_lemlist.api.budget import Budget, open_budget
from airflow_provider_lemlist.api.budget.arithmetic import LEAST_MARGIN, LIMIT, SECOND, WINDOW, State
from airflow_provider_lemlist.api.budget.stores import MemoryStore, StoreError, UnlimitedStore, new_state
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistRateLimitError,
    LemlistStoppedError,
)
from tests.unit.api.budget.conftest import Time, remaining
from tests.waiting import LONGEST

KEY = "7d1f0a5c-secret-key"
NO_HEADERS = {"limit": None, "remaining": None, "retry_after": None}


@pytest.fixture
def store(clock):
    return MemoryStore(clock.read, State())


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
    assert remaining(budget, slot) <= 0


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
    assert remaining(budget, slot) == pytest.approx(1.0, abs=1e-5)
    budget.wait(slot)
    assert remaining(budget, slot) == pytest.approx(0.0, abs=1e-5)


def test_a_waiting_request_stays_asleep_when_another_is_refused_meanwhile(open_one, clock):
    budget, other = open_one(), open_one()
    slots = take(budget, 21)
    asleep, wait = clock.sleep, slots[-1].wait
    refused = []

    def sleep(seconds):
        asleep(seconds)
        if not refused and sum(clock.slept) >= wait - 1e-5:
            refused.append(clock.seconds())
            other.report(slots[0], refused=True, limit=20, remaining=0, retry_after=5)

    sleeper = open_one(sleep=sleep)
    before = clock.seconds()
    sleeper.wait(slots[-1])
    # The slot was due at the very moment of the refusal; the pause holds for it too.
    assert refused == pytest.approx([before + wait], abs=1e-5)
    assert clock.seconds() - before == pytest.approx(wait + 5.0, abs=0.2)
    assert clock.seconds() - before >= 7.1


def test_a_wait_that_is_stopped_ends_within_a_fifth_of_a_second(open_one, clock):
    budget = open_one()
    slot = take(budget, 200)[-1]
    stop = clock.seconds() + 7.3
    with pytest.raises(LemlistStoppedError):
        budget.wait(slot, stopped=lambda: clock.seconds() >= stop)
    assert 0 <= clock.seconds() - stop <= 0.2


@pytest.mark.parametrize("early", [0.0, 1.0])
def test_a_slot_that_is_due_is_not_used_after_a_stop(open_one, clock, early):
    budget = open_one()
    slot = budget.book()
    with pytest.raises(LemlistStoppedError):
        budget.wait(slot, early=early, stopped=lambda: True)
    assert clock.slept == []


def test_a_long_wait_reads_the_store_once(open_one, clock, store, monkeypatch):
    budget, reads = open_one(), []
    slot = take(budget, 200)[-1]
    read = store.read
    monkeypatch.setattr(store, "read", lambda: reads.append(clock.seconds()) or read())
    budget.wait(slot)
    assert sum(clock.slept) == pytest.approx(slot.wait, abs=1e-5)
    assert reads == [clock.seconds()]


@pytest.mark.parametrize("overslept", [0.01, 5.0])
def test_a_request_that_wakes_up_after_its_slot_still_follows_a_refusal(open_one, clock, overslept):
    """A busy machine: one of the short sleeps before the last one ends after the slot."""
    budget, other = open_one(), open_one()
    slots = take(budget, 21)
    asleep, wait, before = clock.sleep, slots[-1].wait, clock.seconds()
    refused = []

    def sleep(seconds):
        asleep(seconds)
        if not refused:
            refused.append(clock.seconds())
            other.report(slots[0], refused=True, limit=20, remaining=0, retry_after=9)
            clock.pass_by(before + wait + overslept - clock.seconds())

    open_one(sleep=sleep).wait(slots[-1])
    assert clock.seconds() >= refused[0] + 9


def test_remaining_grows_when_a_refusal_moves_the_slot(open_one):
    budget = open_one()
    slots = take(budget, 21)
    before = remaining(budget, slots[-1])
    budget.report(slots[0], refused=True, limit=20, remaining=0, retry_after=4.5)
    assert before < 2.15
    assert remaining(budget, slots[-1]) == pytest.approx(4.5, abs=1e-5)


def test_the_limit_of_the_headers_is_followed(open_one):
    budget = open_one()
    slot = budget.book()
    budget.report(slot, refused=False, limit=5, remaining=4, retry_after=2)
    waits = [slot.wait for slot in take(budget, 5)]
    assert waits[3] == 0
    assert waits[4] > 2


def test_a_request_that_woke_up_late_is_allowed_for(open_one, clock):
    def oversleep(seconds):
        clock.sleep(seconds + 0.08)

    budget = open_one(sleep=oversleep)
    slots = take(budget, 21)
    budget.wait(slots[20])
    gone = clock.seconds()
    budget.report(slots[20], refused=False, limit=20, remaining=19, retry_after=2)
    later = take(budget, 20)
    assert clock.seconds() + later[-1].wait >= gone + 2.13


def test_a_store_that_replied_late_is_allowed_for(open_one, clock):
    class StallingStore(MemoryStore):
        stalls = 0.0

        def book(self, *arguments):
            booking = super().book(*arguments)
            clock.pass_by(self.stalls)
            return booking

    store = StallingStore(clock.read, State())
    budget = open_one(store=store)
    take(budget, 19)
    store.stalls = 0.08
    slot = budget.book()
    store.stalls = 0.0
    budget.wait(slot)
    left = clock.seconds()
    budget.report(slot, refused=False, limit=20, remaining=0, retry_after=2)
    later = take(budget, 20)
    assert clock.seconds() + later[-1].wait >= left + 2.13


def test_a_store_that_decided_again_did_not_decide_late(open_one, clock):
    """An attempt that another process overtook, or a wait for another thread, makes no request late."""

    class OvertakenStore(MemoryStore):
        overtaken = 0

        def _change(self, decide):
            for _ in range(self.overtaken):
                clock.pass_by(0.08)
                decide(self._state, clock.read())
            return super()._change(decide)

    store = OvertakenStore(clock.read, State())
    budget = open_one(store=store)
    take(budget, 19)
    store.overtaken = 5
    slot = budget.book()
    assert slot.delay == pytest.approx(0)
    store.overtaken = 0
    before = store.read().slots
    budget.wait(slot)
    budget.report(slot, refused=False, limit=20, remaining=0, retry_after=2)
    assert store.read().slots == before


def test_use_by_other_clients_is_seen_and_forgotten(open_one, clock):
    budget = open_one()
    slot = budget.book()
    budget.report(slot, refused=False, limit=20, remaining=9, retry_after=2)
    # 10 are used by others and one more is left to them; of the rest, half.
    assert budget.state()["other_clients"] == 15.5
    assert budget.state()["capacity"] == 4
    clock.pass_by(300)
    assert budget.state()["capacity"] == 20
    assert budget.state()["other_clients"] == 0


def test_headers_that_say_nothing_change_nothing(open_one):
    budget = open_one()
    slot = budget.book()
    before = budget.state()
    budget.report(slot, refused=False, **NO_HEADERS)
    assert {**budget.state(), "booked": 1} == before


def test_a_share_takes_a_part_of_the_limit(open_one):
    budget = open_one(share=0.25)
    waits = [slot.wait for slot in take(budget, 6)]
    assert waits[4] == 0
    assert waits[5] >= 2.13


class LosingStore(MemoryStore):
    """A store that can lose its state, as Redis does when it restarts without its data."""

    @property
    def epoch(self):
        return self._state.epoch

    def lose(self):
        self._state = new_state()


def test_a_slot_of_a_lost_state_is_booked_again_and_not_moved_by_its_old_number(clock, open_one, caplog):
    store = LosingStore(clock.read, State())
    budget, other = open_one(store=store), open_one(store=store)
    for _ in range(20):
        take(budget, 200)
        clock.pass_by(30)
    late = take(budget, 25)[-1]
    assert late.booking.number == 4_025

    store.lose()
    first = take(other, 25)[0]
    other.report(first, refused=True, limit=20, remaining=None, retry_after=1)
    before = clock.seconds()
    budget.wait(late)
    assert late.booking.number == 26
    assert clock.seconds() - before < 5
    assert late.wait == pytest.approx(clock.seconds() - before, abs=1e-3)


def test_a_wait_is_never_longer_than_max_wait_when_a_refusal_moves_the_slot(open_one, clock):
    budget = open_one(max_wait=10.0)
    first, *_, last = take(budget, 90)
    budget.report(first, refused=True, limit=20, remaining=0, retry_after=8)
    before = clock.seconds()
    with pytest.raises(LemlistRateLimitError, match=r"max_wait is 10 s\. Nothing was sent\.") as caught:
        budget.wait(last)
    assert clock.seconds() - before <= 10
    assert caught.value.wait > 10


def test_a_clock_of_the_store_that_jumps_ahead_does_not_end_a_wait(open_one, clock):
    server = Time()
    store = MemoryStore(server.read, State())
    budget = open_one(store=store, sleep=lambda seconds: (clock.sleep(seconds), server.pass_by(seconds)))
    first, *_, last = take(budget, 25)
    server.pass_by(3_600)
    budget.report(first, refused=True, limit=20, remaining=0, retry_after=2)
    budget.wait(last)
    assert sum(clock.slept) < 10


class Fleet:
    """Many waiting requests of one budget in simulated time; they do what ``Budget.wait`` does."""

    def __init__(self, max_wait):
        self.clock = Time()
        self.store = LosingStore(self.clock.read, State())
        self.budget = Budget(self.store, max_wait=max_wait, clock=self.clock.seconds, jitter=lambda: 0.5)
        self.asleep = []  # (when it wakes up, order, its slot, what it has slept)
        self.order = itertools.count()
        self.left = []
        self.slept = [0.0]

    def book(self, count):
        for _ in range(count):
            try:
                slot = self.budget.book()
            except LemlistRateLimitError:
                return
            self.sleep_or_leave(slot, slot.due - self.clock.seconds(), 0.0)

    def sleep_or_leave(self, slot, remaining, slept):
        if remaining > 1e-6:  # the clock counts microseconds
            slept += remaining
            self.slept.append(slept)
            heapq.heappush(self.asleep, (self.clock.seconds() + remaining, next(self.order), slot, slept))
        else:
            # What leaves after a loss was booked after it.
            assert slot.booking.epoch == self.store.epoch
            self.left.append(slot)

    def run_until(self, moment):
        while self.asleep and self.asleep[0][0] <= moment:
            wakes, _, slot, slept = heapq.heappop(self.asleep)
            self.clock.pass_by(wakes - self.clock.seconds())
            try:
                seconds = remaining(self.budget, slot)
            except LemlistRateLimitError:
                continue
            self.sleep_or_leave(slot, seconds, slept)
        self.clock.pass_by(max(0.0, moment - self.clock.seconds()))

    def refuse_last(self, retry_after):
        if self.left:
            slot = self.left[-1]
            self.budget.report(slot, refused=True, limit=20, remaining=0, retry_after=retry_after)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([2, 15, 60]),
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 2.0, 7.0]),
            st.one_of(
                st.tuples(st.just("book"), st.sampled_from([1, 25, 400])),
                st.tuples(st.just("refuse_last"), st.sampled_from([0, 1, 5, 90])),
                st.just(("lose",)),
            ),
        ),
        max_size=30,
    ),
)
def test_whatever_is_lost_and_refused_no_request_waits_longer_than_max_wait(max_wait, steps):
    fleet = Fleet(max_wait)
    fleet.book(300)
    for passed, (step, *number) in steps:
        fleet.run_until(fleet.clock.seconds() + passed)
        getattr(fleet.store if step == "lose" else fleet, step)(*number)
    fleet.run_until(fleet.clock.seconds() + 10 * max_wait)
    assert not fleet.asleep
    assert max(fleet.slept) <= max_wait + 1e-5
    for epoch in {slot.booking.epoch for slot in fleet.left}:
        moments = sorted(slot.booking.at for slot in fleet.left if slot.booking.epoch == epoch)
        assert all(
            later - earlier >= WINDOW + LEAST_MARGIN
            for earlier, later in zip(moments, moments[LIMIT:], strict=False)
        )


@pytest.fixture
def not_warned_yet():
    budget_module._warn_not_shared.cache_clear()
    yield
    budget_module._warn_not_shared.cache_clear()


def test_an_unexplained_refusal_warns_once_that_the_key_may_be_used_elsewhere(
    open_one, clock, caplog, not_warned_yet
):
    for _ in range(3):
        budget = open_one()
        budget.report(budget.book(), refused=True, limit=20, remaining=0, retry_after=1)
        clock.pass_by(100)
    (message,) = caplog.messages
    assert "429" in message
    assert budget_module.NOT_SHARED in message
    assert "budget_store" in budget_module.NOT_SHARED
    assert "budget_share" in budget_module.NOT_SHARED


def test_the_first_refusal_warns_even_if_the_headers_showed_other_clients_before(
    open_one, caplog, not_warned_yet
):
    budget = open_one()
    slot = budget.book()
    budget.report(slot, refused=False, limit=20, remaining=9, retry_after=2)
    assert caplog.messages == []
    budget.report(slot, refused=True, limit=20, remaining=0, retry_after=2)
    (message,) = caplog.messages
    assert budget_module.NOT_SHARED in message


def test_budgets_that_do_not_share_return_at_different_times_from_repeated_refusals(clock):
    """Refused at the same moment again and again, each with a file of its own."""
    returns = []
    for jitter in (0.1, 0.8):
        budget = Budget(
            MemoryStore(clock.read, State()), clock=clock.seconds, jitter=lambda jitter=jitter: jitter
        )
        slot = budget.book()
        waits = []
        for _ in range(2):
            budget.report(slot, refused=True, limit=20, remaining=None, retry_after=2)
            slot = budget.book()
            waits.append(slot.wait)
            clock.pass_by(slot.wait)
        returns.append(waits)
        clock.pass_by(-sum(waits))
    (first, repeated), (other_first, other_repeated) = returns
    assert first == other_first == 2
    assert repeated == pytest.approx(2.05)
    assert other_repeated == pytest.approx(2.4)


class BrokenStore(MemoryStore):
    broken = True
    calls = 0

    def _change(self, decide):
        self.calls += 1
        if self.broken:
            raise StoreError("the store is on fire. Put it out")
        return super()._change(decide)


def test_a_failing_store_is_replaced_by_a_budget_of_the_process_with_one_warning(open_one, clock, caplog):
    store = BrokenStore(clock.read, State())
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read, State()))
    slots = take(budget, 21)
    for slot in slots:
        budget.wait(slot)
        budget.report(slot, refused=False, limit=20, remaining=19, retry_after=2)
    assert slots[-1].wait >= 2.13
    assert store.calls == 1
    clock.pass_by(31)
    take(budget, 5)
    assert store.calls == 2
    assert len(caplog.records) == 1
    assert "the store is on fire. Put it out" in caplog.text


def test_slots_without_the_shared_store_are_counted(open_one, clock, emitted):
    store = BrokenStore(clock.read)
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read))
    take(budget, 3)
    store.broken = False
    clock.pass_by(31)
    take(budget, 5)
    assert emitted.counters == {"lemlist.fallback": 3}


def test_threads_that_wait_for_a_failing_store_do_not_wait_for_the_same_failure_in_turn():
    """As with a Redis that does not reply: each thread would wait for it as long as the first one did."""

    arrived = threading.Semaphore(0)

    class SeenLock:
        """A lock that counts the threads that come to it."""

        def __init__(self):
            self.lock = threading.Lock()

        def __enter__(self):
            arrived.release()
            self.lock.acquire()

        def __exit__(self, *_):
            self.lock.release()

    class HangingStore(MemoryStore):
        calls = 0

        def _change(self, decide):
            self.calls += 1
            for _ in threads if self.calls == 1 else ():
                assert arrived.acquire(timeout=LONGEST)
            raise StoreError("does not reply")

    def work():
        with pytest.raises(StoreError):
            store.read()
        failed.append(True)

    store, failed = HangingStore(), []
    store._lock = SeenLock()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(failed), store.calls) == (8, 1)


def test_the_store_is_used_again_once_it_works(open_one, clock):
    store = BrokenStore(clock.read, State())
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read, State()))
    early = budget.book()
    store.broken = False
    assert store.read().booked == 0
    clock.pass_by(31)
    budget.book()
    assert store.read().booked == 1
    budget.report(early, refused=True, limit=20, remaining=0, retry_after=60)
    assert budget.book().wait == 0


def test_a_slot_of_one_store_is_not_moved_by_another(open_one, clock):
    store = BrokenStore(clock.read, State())
    store.broken = False
    budget = open_one(store=store, spare=lambda: MemoryStore(clock.read, State()))
    early = take(budget, 21)[-1]
    before = remaining(budget, early)
    store.broken = True
    here = take(budget, 1)[0]
    budget.report(here, refused=True, limit=20, remaining=0, retry_after=50)
    assert remaining(budget, early) == before


def test_the_spare_budget_starts_without_credit(monkeypatch):
    budget = open_budget("spare-key", store="memory://", max_wait=100)
    monkeypatch.setattr(budget, "_store", BrokenStore())
    slots = [slot.booking.at for slot in take(budget, 10)]
    assert slots[-1] - slots[0] > 0.8 * SECOND


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(LemlistConfigurationError, match="budget_share"):
        open_budget(KEY, store="memory://", share=share)


def test_max_wait_may_be_infinite():
    budget = open_budget("endless-key", store="memory://", max_wait=float("inf"))
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
    other_key = open_budget("another-key", store="memory://")
    first = take(one, 20)[0]
    assert two.book().booking.at - first.booking.at > WINDOW
    assert other_key.book().wait == 0


def test_without_a_limit_only_the_pause_after_a_refusal_makes_requests_wait(open_one, clock):
    budget = open_one(store=UnlimitedStore(clock.read))
    slots = take(budget, 1000)
    assert {slot.wait for slot in slots} == {0.0}
    budget.report(slots[0], refused=True, limit=20, remaining=0, retry_after=3.0)
    assert {slot.wait for slot in take(budget, 100)} == {3.0}
    clock.pass_by(3.0)
    assert {slot.wait for slot in take(budget, 100)} == {0.0}


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


def test_importing_the_budget_is_light():
    heavy = ("sqlite3", "redis", "asyncio", "requests", "airflow", "pendulum")
    code = (
        "import sys, airflow_provider_lemlist.api.budget;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
