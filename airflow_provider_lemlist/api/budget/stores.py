# SPDX-License-Identifier: Apache-2.0
"""
What a store of the budget is, and the store in memory.

A store keeps the state of one key and changes it in one atomic step, on a clock of its own that all who share
the store see alike. The SQLite file and Redis have a module each, imported when one is opened.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

from airflow_provider_lemlist.api.budget.arithmetic import Answer, Booking, State, Terms, book, hear, settle

T = TypeVar("T")


class StoreError(Exception):
    """The store does not work; the message says which and why, and names the remedy."""


class Store(Protocol):
    """Where all users of one key book."""

    def book(self, terms: Terms) -> Booking:
        """Give the next free slot, or tell how long the wait would be."""

    def hear(self, answer: Answer) -> None:
        """Learn from an answer."""

    def look(self) -> State:
        """Give the present state."""


def monotonic() -> int:
    """Give microseconds since the machine started: one clock for all its processes, which is never set."""
    return time.monotonic_ns() // 1000


class LocalStore(ABC):
    """A store that calls the arithmetic itself, while it keeps everybody else out."""

    def __init__(self, clock: Callable[[], int] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        _forkable.add(self)

    def book(self, terms: Terms) -> Booking:
        return self._change(lambda state, now: book(state, now, terms))

    def hear(self, answer: Answer) -> None:
        self._change(lambda state, now: (hear(state, now, answer), None))

    def look(self) -> State:
        return self._change(lambda state, now: (state, settle(state, now)))

    @abstractmethod
    def _change(self, decide: Callable[[State, int], tuple[State, T]]) -> T:
        """Replace the state by what ``decide`` makes of it, alone, and return what else it gave."""

    def _forget_parent(self) -> None:  # noqa: B027  # most stores have nothing to forget
        """Drop in a forked child what only its parent may use."""


class MemoryStore(LocalStore):
    """The budget of one process: for tests, and when the store that was asked for does not work."""

    def __init__(self, clock: Callable[[], int] = monotonic, state: State | None = None) -> None:
        super().__init__(clock)
        self._state = state or State()

    def _change(self, decide: Callable[[State, int], tuple[State, T]]) -> T:
        with self._lock:
            self._state, result = decide(self._state, self._clock())
            return result


_forkable: weakref.WeakSet[LocalStore] = weakref.WeakSet()
_held: list[LocalStore] = []


def _before_fork() -> None:
    # A fork in the middle of another thread's booking would leave its locks, and those within SQLite, locked
    # in the child for ever.
    for store in list(_forkable):
        store._lock.acquire()
        _held.append(store)


def _after_fork(in_child: bool) -> None:
    while _held:
        store = _held.pop()
        if in_child:
            store._forget_parent()
        store._lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
