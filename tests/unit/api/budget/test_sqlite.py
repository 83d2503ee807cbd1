# SPDX-License-Identifier: Apache-2.0
"""The file that all processes of one machine share."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_lemlist.api.budget import Budget, open_budget, sqlite
from airflow_provider_lemlist.api.budget.arithmetic import SECOND, WINDOW, Terms
from airflow_provider_lemlist.api.budget.sqlite import SQLiteStore
from airflow_provider_lemlist.api.budget.stores import StoreError
from tests.waiting import LONGEST

KEY = "7d1f0a5c-secret-key"
TERMS = Terms(max_wait=10**12)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "budget")


@pytest.fixture
def store(folder, clock):
    return SQLiteStore("digest", folder, clock.read)


def file_of(folder):
    (found,) = Path(folder).glob("*.sqlite3")
    return found


def book_in_child(folder, count, sender):
    budget = open_budget(KEY, directory=folder, max_wait=1e6)
    sender.send([budget.book().booking.number for _ in range(count)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_never_get_the_same_slot(folder, method):
    context = multiprocessing.get_context(method)
    budget = open_budget(KEY, directory=folder, max_wait=1e6)
    first = budget.book()  # opened before the fork
    pipes, children = [], []
    for _ in range(4):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=book_in_child, args=(folder, 50, sender))
        child.start()
        pipes.append(receiver)
        children.append(child)
    numbers = [first.booking.number, *itertools.chain.from_iterable(pipe.recv() for pipe in pipes)]
    for child in children:
        child.join(LONGEST)
    numbers.append(budget.book().booking.number)
    assert sorted(numbers) == list(range(1, 203))


def test_a_budget_opened_before_a_fork_works_on_both_sides(folder):
    budget = open_budget(KEY, directory=folder, max_wait=1e6)
    budget.book()
    # The fork happens while other threads hold the lock of the store again and again.
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            budget.book()

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                try:
                    budget.book()
                    # SQLite forbids even to close what a parent opened.
                    os._exit(budget._store._connection in sqlite._inherited)
                except BaseException:
                    os._exit(1)
            deadline = time.monotonic() + LONGEST
            done = 0
            while not done and time.monotonic() < deadline:
                done, status = os.waitpid(child, os.WNOHANG)
                time.sleep(0.005)
            if not done:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            assert done
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert budget.book().booking.number > 5


def test_kill_minus_9_costs_only_the_slots_of_the_killed(folder):
    """Kill processes while they book: the file stays whole, and each slot belongs to one process."""
    code = (
        "import sys; from airflow_provider_lemlist.api.budget import open_budget\n"
        "budget = open_budget(sys.argv[1], directory=sys.argv[2], max_wait=1e9)\n"
        "while True: print(budget.book().booking.number, flush=True)"
    )
    numbers = []
    for _ in range(3):
        children = [
            subprocess.Popen([sys.executable, "-c", code, KEY, folder], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        # The last of many lines is read, and the next bookings have begun.
        for child in children:
            numbers += [int(child.stdout.readline()) for _ in range(20)]
        for child in children:
            child.kill()
        for child in children:
            numbers += [int(line) for line in child.communicate()[0].split("\n") if line]
    budget = open_budget(KEY, directory=folder, max_wait=1e9)
    last = budget.book().booking.number
    assert len(numbers) == len(set(numbers))
    # Each of the six that were killed may have booked one that it did not print any more.
    assert 0 <= last - 1 - len(numbers) <= 6


def test_two_bookers_of_one_file_in_every_order_of_their_statements(tmp_path, clock, monkeypatch):
    """
    Two real connections, statement by statement, in every order that the locks allow.

    Each booking is one transaction of four statements; whatever the interleaving, the two get different
    slots, in the order in which they were granted, and nothing is lost.
    """
    turn = Turns()
    monkeypatch.setattr(sqlite, "TIMEOUT", 0)
    orders = 0
    for schedule in itertools.product((0, 1), repeat=8):
        folder = tmp_path / "".join(map(str, schedule))
        stores = [SQLiteStore("digest", str(folder), clock.read) for _ in range(2)]
        for store in stores:
            store._open()
        for _ in range(19):
            stores[0].book(TERMS)
        got = turn.run(schedule, stores)
        assert sorted(booking.number for booking in got) == [20, 21]
        assert sorted(booking.wait > WINDOW for booking in got) == [False, True]
        assert stores[0].read().booked == 21
        orders += 1
        for store in stores:
            store._close()
    assert orders == 256


class Turns:
    """Runs two threads in turns: one statement for each number of the schedule, then as they can."""

    def run(self, schedule, stores):
        self.turn = threading.Condition()
        self.left = list(schedule)
        self.alive = {0, 1}
        got: list = [None, None]

        def work(who):
            stores[who]._connection = Stepped(stores[who]._connection, self, who)
            try:
                got[who] = stores[who].book(TERMS)
            finally:
                with self.turn:
                    self.alive.discard(who)
                    self.turn.notify_all()
                stores[who]._connection = stores[who]._connection.real

        threads = [threading.Thread(target=work, args=(who,)) for who in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONGEST)
            assert not thread.is_alive()
        return got

    def take(self, who):
        with self.turn:
            self.turn.wait_for(lambda: self._mine(who), LONGEST)
            if self.left:
                self.left.pop(0)
            self.turn.notify_all()

    def _mine(self, who):
        while self.left and self.left[0] not in self.alive:
            self.left.pop(0)
        return not self.left or self.left[0] == who


class Stepped:
    """A connection that waits for its turn before every statement."""

    def __init__(self, real, turns, who):
        self.real, self._turns, self._who = real, turns, who

    @property
    def in_transaction(self):
        return self.real.in_transaction

    def execute(self, statement, *values):
        while True:
            self._turns.take(self._who)
            try:
                return self.real.execute(statement, *values)
            except sqlite3.OperationalError as error:
                # The other one is in its transaction: this turn is lost.
                if "locked" not in str(error):
                    raise

    def close(self):
        self.real.close()


def test_the_file_and_its_directory_are_private(folder):
    open_budget(KEY, directory=folder).book()
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(file_of(folder)).st_mode & 0o777 == 0o600


def test_the_key_is_nowhere_in_the_directory(folder):
    open_budget(KEY, directory=folder).book()
    assert KEY not in file_of(folder).name
    assert KEY.encode() not in file_of(folder).read_bytes()


def test_the_default_directory_belongs_to_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite.tempfile, "gettempdir", lambda: str(tmp_path))
    open_budget(KEY).book()
    (made,) = tmp_path.iterdir()
    assert str(os.geteuid()) in made.name
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_directory_open_to_others_stays_as_it_is_and_gets_a_private_one(tmp_path):
    tmp_path.chmod(0o755)
    open_budget(KEY, directory=str(tmp_path)).book()
    (made,) = tmp_path.iterdir()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert made.stat().st_mode & 0o777 == 0o700


def refuses(folder, caplog):
    """Return whether the budget refuses the directory, warns once, and works within the process."""
    with caplog.at_level(logging.WARNING):
        budget = open_budget(f"{KEY} {folder}", directory=str(folder))
        slots = [budget.book().booking.at for _ in range(21)]
    assert len(caplog.records) == 1
    assert "budget_dir" in caplog.text
    assert KEY not in caplog.text
    # Without credit: other processes may have used it.
    return slots[5] - slots[0] > 0.4 * SECOND and slots[-1] - slots[0] > WINDOW


def test_a_symlink_is_refused(tmp_path, caplog):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert refuses(tmp_path / "link", caplog)
    assert not list((tmp_path / "real").iterdir())


def test_a_directory_of_another_user_is_refused(tmp_path, caplog, monkeypatch):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(sqlite.os, "geteuid", lambda: owner + 1)
    assert refuses(folder, caplog)
    assert not list(folder.iterdir())


def test_a_file_instead_of_the_directory_is_refused(tmp_path, caplog):
    (tmp_path / "file").write_text("not a directory")
    assert refuses(tmp_path / "file", caplog)


@pytest.mark.parametrize(
    "damage", ["garbage", "empty", "cut", "other table", "other row", "newer row", "blob"]
)
def test_a_damaged_file_is_replaced(folder, damage, caplog):
    budget = open_budget(KEY, directory=folder)
    budget.book()
    file = file_of(folder)
    if damage == "garbage":
        file.write_bytes(b"garbage" * 2_000)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:5_000])
    else:
        with sqlite3.connect(file) as connection:
            if damage == "other table":
                connection.execute("DROP TABLE budget")
                connection.execute("CREATE TABLE budget (something INTEGER)")
            else:
                state = {"other row": "nonsense", "newer row": "9 1 2 3", "blob": b"\x00"}[damage]
                connection.execute("UPDATE budget SET state = ?", (state,))
        connection.close()
    after = open_budget(KEY, directory=folder)
    slots = [(budget if turn % 2 else after).book().booking.at for turn in range(21)]
    assert slots[-1] - slots[0] > WINDOW, "both use the same new file"
    assert caplog.records == []


def test_budgets_that_find_the_file_broken_replace_it_once(folder):
    budgets = [open_budget(KEY, directory=folder, max_wait=1e6) for _ in range(8)]
    budgets[0].book()
    for _ in range(5):
        file_of(folder).write_bytes(b"garbage" * 2_000)
        numbers: list[int] = []
        barrier = threading.Barrier(len(budgets))

        def work(budget, numbers=numbers, barrier=barrier):
            barrier.wait()
            numbers.extend(budget.book().booking.number for _ in range(5))

        threads = [threading.Thread(target=work, args=(budget,)) for budget in budgets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == list(range(1, 41))


def test_a_removed_file_is_noticed_by_a_process_that_had_it_open(folder):
    early = open_budget(KEY, directory=folder)
    early.book()
    file_of(folder).unlink()
    late = open_budget(KEY, directory=folder)
    numbers = [budget.book().booking.number for budget in (late, early, late, early)]
    assert numbers == [1, 2, 3, 4]


def test_a_removed_directory_is_created_again_by_a_process_that_had_a_file_in_it(folder):
    early = open_budget(KEY, directory=folder)
    early.book()
    shutil.rmtree(folder)
    assert early.book().booking.number == 1
    late = open_budget(KEY, directory=folder)
    assert [budget.book().booking.number for budget in (late, early, late)] == [2, 3, 4]
    assert os.stat(folder).st_mode & 0o777 == 0o700


def test_a_directory_of_another_user_that_replaces_ours_is_refused_in_mid_run(tmp_path, caplog):
    """Another user could create it first, after a cleaner of the temporary directory."""
    folder, real = tmp_path / "ours", tmp_path / "theirs"
    budget = open_budget(KEY, directory=str(folder))
    budget.book()
    shutil.rmtree(folder)
    real.mkdir(mode=0o700)
    folder.symlink_to(real)
    budget.book()
    assert not list(real.iterdir())
    assert "is not a directory of user" in caplog.text


def test_a_directory_that_was_refused_is_tried_again(folder, caplog, clock):
    Path(folder).write_text("not a directory")
    store = SQLiteStore("digest", folder)
    budget = Budget(store, clock=clock.seconds, sleep=clock.sleep)
    assert budget.book().store is not store
    Path(folder).unlink()
    clock.pass_by(31)
    assert budget.book().store is store


def test_after_a_reboot_the_file_counts_as_empty(store, clock, monkeypatch):
    for _ in range(60):
        store.book(TERMS)
    monkeypatch.setattr(sqlite, "_boot", lambda: "another boot")
    clock.micros = 3 * SECOND
    assert store.book(TERMS).wait == 0


def test_without_a_boot_id_a_clock_that_restarts_is_harmless(store, clock, monkeypatch):
    monkeypatch.setattr(sqlite, "_boot", lambda: "")
    for _ in range(60):
        store.book(TERMS)
    clock.micros = 3 * SECOND
    assert store.book(TERMS).wait < 8 * SECOND


@pytest.mark.parametrize("loss", ["removed", "rebooted", "broken"])
def test_a_lost_state_begins_a_new_epoch(store, loss, monkeypatch):
    """What was booked before the loss must not be taken for a slot of the new state."""
    before = [store.book(TERMS) for _ in range(25)]
    assert len({booking.epoch for booking in before}) == 1
    if loss == "removed":
        store.path.unlink()
    elif loss == "rebooted":
        monkeypatch.setattr(sqlite, "_boot", lambda: "another boot")
    else:
        with sqlite3.connect(store.path) as connection:
            connection.execute("UPDATE budget SET state = 'nonsense'")
        connection.close()
    after = store.book(TERMS)
    assert after.number == 1
    assert after.epoch == store.read().epoch != before[0].epoch


def test_the_file_stays_small_after_100_000_bookings(folder, clock):
    store = SQLiteStore("digest", folder, clock.read)
    for _ in range(100_000):
        store.book(TERMS)
    assert sum(file.stat().st_size for file in Path(folder).iterdir()) <= 64 * 1024


def test_a_file_that_is_locked_for_too_long_is_given_up(store, monkeypatch):
    monkeypatch.setattr(sqlite, "TIMEOUT", 0.05)
    store.book(TERMS)
    store._close()
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.book(TERMS)
    holder.execute("ROLLBACK")
    holder.close()
    assert store.book(TERMS).number == 2
