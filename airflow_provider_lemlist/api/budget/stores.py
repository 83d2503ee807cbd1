# SPDX-License-Identifier: Apache-2.0
"""
What a store of the budget is, and the store in memory.

A store keeps the state of one key and changes it in one atomic step, on a clock that is the same for all that
share the store.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_lemlist.api.budget import arithmetic
from airflow_provider_lemlist.api.budget.arithmetic import Booking, Feedback, State, Terms

T = TypeVar("T")
#: What a store applies to its state at a moment of its clock; it returns the new state and a result.
Decide = Callable[[State, int], tuple[State, T]]


class StoreError(Exception):
    """The store does not work; the message says which and why, and names the remedy."""


def monotonic() -> int:
    """Return microseconds since the machine started: one clock for all its processes, which is never set."""
    return time.monotonic_ns() // 1000


def new_state() -> State:
    """Return a state without bookings, in an epoch of its own, that knows nothing of other clients."""
    return State(epoch=int.from_bytes(os.urandom(6), "big"), other_clients=arithmetic.PERHAPS)


def restore(line: object) -> State:
    """Read what the store keeps, or return a new state if that is not a state."""
    try:
        return arithmetic.load(line.decode() if isinstance(line, bytes) else line)  # type: ignore[arg-type]  # as below
    except (ValueError, AttributeError, TypeError):
        return new_state()


class Store(ABC):
    """Where all clients of one budget book."""

    #: What it is for, in words, and whether that is more than one machine.
    shared_by: str
    between_machines = False

    @property
    @abstractmethod
    def place(self) -> str:
        """What and where the store is, for people; holds no password."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: StoreError | None = None
        _forkable.add(self)

    def book(self, terms: Terms, note: Callable[[], object] = bool) -> Booking:
        """
        Book the next free slot, or return how long the wait would be.

        :param note: Called before the store reads its state, and before each decision.
        """

        def decide(state: State, now: int) -> tuple[State, Booking]:
            note()
            return arithmetic.book(state, now, terms)

        return self._run(decide, note)

    def report(self, feedback: Feedback) -> bool:
        """Apply the feedback of a response; return whether other clients must have caused a refusal."""
        return self._run(lambda state, now: arithmetic.report(state, now, feedback))

    def read(self) -> State:
        """Return the present state."""
        return self._run(lambda state, now: (state, arithmetic.advance(state, now)))

    def _run(self, decide: Decide[T], note: Callable[[], object] = bool) -> T:
        before = self._failure
        with self._lock:
            if self._failure is not before:
                # It failed for another thread while this one waited, and to fail can take seconds.
                raise StoreError(str(self._failure))
            note()
            try:
                return self._change(decide)
            except StoreError as error:
                self._failure = StoreError(str(error))
                raise

    @abstractmethod
    def _change(self, decide: Decide[T]) -> T:
        """
        Replace the state by what ``decide`` makes of it, atomically, and return its other result.

        ``decide`` may be called more than once. If it returns the state that it got, nothing is written.
        """

    def _forget_parent(self) -> None:  # noqa: B027  # most stores have nothing to forget
        """Drop in a forked child what only its parent may use."""


class MemoryStore(Store):
    """The budget of one process: for tests, and while the configured store does not work."""

    shared_by = "this process"

    def __init__(self, clock: Callable[[], int] = monotonic, state: State | None = None) -> None:
        super().__init__()
        self._clock = clock
        self._state = state or new_state()

    @property
    def place(self) -> str:
        """The process, which is all there is to say."""
        return "the memory of this process"

    def _change(self, decide: Decide[T]) -> T:
        self._state, result = decide(self._state, self._clock())
        return result


class UnlimitedStore(MemoryStore):
    """The budget of a sandbox without a limit: only the pause after a refusal makes requests wait."""

    def _change(self, decide: Decide[T]) -> T:
        result = super()._change(decide)
        # A slot that is not kept delays no other one.
        self._state = self._state._replace(limit=arithmetic.MAX_LIMIT, slots=())
        return result


_forkable: weakref.WeakSet[Store] = weakref.WeakSet()
_held: list[Store] = []


def _before_fork() -> None:
    # A fork in the middle of another thread's booking would leave the store's lock, and those within SQLite,
    # locked in the child for ever.
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
