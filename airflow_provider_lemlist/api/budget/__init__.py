# SPDX-License-Identifier: Apache-2.0
"""
The rate budget: every request of every process takes a slot before it leaves.

    slot = budget.book()        # first come, first served; the wait is known now
    budget.wait(slot)           # sleep until it is there
    ...                         # send, receive
    budget.heard(slot, ...)     # what the answer says about the limit

``arithmetic`` decides, a store (``sqlite``, ``redis``, ``stores``) keeps what was decided for everybody who
uses the key, and ``Budget`` waits. The key itself is never kept: a hash of it names the state.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_lemlist.api.budget.arithmetic import (
    SECOND,
    WHOLE,
    Answer,
    Booking,
    State,
    Terms,
    margin,
    place,
    room,
    waiting,
    without_credit,
)
from airflow_provider_lemlist.api.budget.stores import MemoryStore, Store, StoreError, monotonic

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["NOT_SHARED", "Budget", "Slot", "open_budget"]

#: Why requests may be refused although every process books its slots.
NOT_SHARED = (
    "The rate budget of the lemlist API key is shared by the processes of this machine only, while tasks "
    "of this Airflow run on several: set budget_store of the connection to Redis, or budget_share to the "
    "part of the limit that each machine may use."
)

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A wait of so many seconds is worth a line in the log.
LONG_WAIT = 5.0
#: Seconds that stand for any longer ``max_wait``, infinity too.
FOR_EVER = 1e9
#: So many seconds after a failure the store is tried again.
TRY_AGAIN = 30.0


class Slot:
    """
    The moment at which one request may leave.

    :ivar wait: Seconds from the booking to the slot.
    :ivar ahead: Requests that waited and go before this one.
    """

    __slots__ = ("ahead", "booking", "doubt", "due", "left", "store", "told", "wait")

    def __init__(self, booking: Booking, store: Store, now: float, doubt: float) -> None:
        self.wait = booking.wait / SECOND
        self.ahead = booking.ahead
        # On the clock of this process; that of the store may differ by minutes.
        self.due = now + self.wait
        self.left = self.due
        # The store decided up to so long before we heard of it, and that much later than its slot we leave.
        self.doubt = doubt
        self.booking = booking
        self.store = store
        self.told = False


class Budget:
    """
    The rate budget of one key, for any number of threads.

    :param store: Where all users of the key book.
    :param spare: Takes the store's place while that does not work.
    :param share: The part of the limit that is ours.
    :param max_wait: Longest wait for a slot, in seconds.
    :param clock: Replaces ``time.monotonic``.
    :param sleep: Replaces ``time.sleep``.
    """

    def __init__(
        self,
        store: Store,
        *,
        spare: Callable[[], Store] = MemoryStore,
        share: float = 1.0,
        max_wait: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._make_spare = spare
        self._spare: Store | None = None
        self._try_again = 0.0
        self._warned = False
        self._terms = Terms(max(1, round(share * WHOLE)), round(min(max_wait, FOR_EVER) * SECOND))
        self._fastest = math.inf
        self._clock = clock
        self._sleep = sleep

    def book(self) -> Slot:
        """
        Take the next free slot.

        :raises LemlistRateLimitError: The wait would exceed ``max_wait``; nothing was booked.
        """
        before = self._clock()
        store, booking = self._ask(lambda store: store.book(self._terms))
        now = self._clock()
        self._fastest = min(self._fastest, now - before)
        slot = Slot(booking, store, now, doubt=now - before - self._fastest)
        if not booking.granted:
            from airflow_provider_lemlist.exceptions import LemlistRateLimitError

            raise LemlistRateLimitError(
                f"The lemlist budget is taken for {slot.wait:.1f} s, {slot.ahead} requests ahead, and "
                f"max_wait is {self._terms.max_wait / SECOND:g} s. Run fewer tasks at a time, or raise "
                f"max_wait in the connection",
                wait=slot.wait,
            )
        return slot

    def remaining(self, slot: Slot) -> float:
        """Give the seconds until the slot, after any pause since it was booked; 0 or less: go now."""
        self._find(slot)
        return slot.due - self._clock()

    def wait(self, slot: Slot, *, early: float = 0.0) -> None:
        """
        Sleep until the slot.

        :param early: Return so many seconds before it.
        """
        while (left := self._left(slot, early)) > 0:
            self._sleep(left)
            self._find(slot)
        slot.left = self._clock()

    def report(
        self,
        slot: Slot,
        *,
        refused: bool,
        limit: int | None,
        remaining: int | None,
        retry_after: float | None,
    ) -> None:
        """
        Learn from the answer to the request that left at the slot.

        :param refused: The limit refused it (429).
        :param limit: Requests per window, as the server says.
        :param remaining: Requests left, as the server says.
        :param retry_after: Seconds to wait, as the server says.
        """
        answer = Answer(
            slot.booking,
            refused,
            limit=-1 if limit is None else limit,
            remaining=-1 if remaining is None else remaining,
            retry_after=-1 if retry_after is None else max(0, round(retry_after * SECOND)),
            round_trip=max(-1, round((self._clock() - slot.due) * SECOND)),
            late=max(0, round((slot.left - slot.due + slot.doubt) * SECOND)),
            share=self._terms.share,
        )
        self._ask(lambda store: store.hear(answer) if store is slot.store else None)

    async def async_book(self) -> Slot:
        """Take the next free slot without blocking the loop."""
        return await _in_thread(self.book)

    async def async_wait(self, slot: Slot, *, early: float = 0.0) -> None:
        """Sleep until the slot without blocking the loop."""
        import asyncio

        while (left := self._left(slot, early)) > 0:
            await asyncio.sleep(left)
            await _in_thread(self._find, slot)
        slot.left = self._clock()

    async def async_heard(self, slot: Slot, **said: Any) -> None:
        """Learn from an answer without blocking the loop; see ``heard``."""
        await _in_thread(lambda: self.report(slot, **said))

    def state(self) -> dict[str, float]:
        """
        Tell how things are, for people: times in seconds, use in requests per window.

        ``shared`` is False while the store does not work, and the numbers are those of this process alone.
        """
        store, state = self._ask(lambda store: store.look())
        return {**describe(state, self._terms.share), "shared": store is self._store}

    def _left(self, slot: Slot, early: float) -> float:
        left = slot.due - self._clock()
        if left >= LONG_WAIT and not slot.told:
            slot.told = True
            log.info("waiting %.1f s for the lemlist budget, %d requests ahead", left, slot.ahead)
        return left - early

    def _find(self, slot: Slot) -> None:
        """See where the slot lies now: a refusal of others may have moved it."""
        store, state = self._ask(lambda store: store.look())
        if store is not slot.store:
            return
        at = place(state, slot.booking)
        slot.due += (at - slot.booking.at) / SECOND
        slot.booking = slot.booking._replace(at=at, moves=state.moves)

    def _ask(self, question: Callable[[Store], T]) -> tuple[Store, T]:
        """Ask the store, or the spare one while the store does not work."""
        if self._spare is None or self._clock() >= self._try_again:
            try:
                answer = question(self._store)
            except StoreError as error:
                self._fail(error)
            else:
                self._spare = None
                return self._store, answer
        spare = self._spare or self._make_spare()
        return spare, question(spare)

    def _fail(self, error: StoreError) -> None:
        self._spare = self._spare or self._make_spare()
        self._try_again = self._clock() + TRY_AGAIN
        if not self._warned:
            self._warned = True
            _warn(error)


def open_budget(
    api_key: str,
    *,
    store: str = "",
    share: float = 1.0,
    max_wait: float = 300.0,
    directory: str | None = None,
) -> Budget:
    """
    Open the budget of a key.

    :param api_key: The key; a hash of it names the budget.
    :param store: Empty for a file of this machine, a ``redis://`` or ``rediss://`` URL, or ``memory://``.
    :param share: The part of the limit that is ours, above 0 and at most 1.
    :param max_wait: Longest wait for a slot, in seconds.
    :param directory: Where the file lies; None for the user's own in the temporary directory.
    :raises LemlistConfigurationError: The store or the share is none.
    """
    digest = hashlib.blake2b(api_key.encode(), digest_size=16, person=b"lemlist-budget").hexdigest()
    if not 0 < share <= 1:
        raise _misconfigured(f"budget_share is {share:g}; give a part of the limit, above 0 and at most 1")
    if not max_wait >= 0:
        raise _misconfigured(f"max_wait is {max_wait:g}; give seconds, 0 or more")
    return Budget(
        _open_store(store, digest, directory),
        spare=lambda: _spare(digest),
        share=share,
        max_wait=max_wait,
    )


def describe(state: State, share: int = WHOLE) -> dict[str, float]:
    """Put a state into words that people know: times in seconds, use in requests per window."""
    capacity, period = room(state, share)
    return {
        "limit": state.limit,
        "capacity": capacity,
        "period": period / SECOND,
        "margin": margin(state) / SECOND,
        "waiting": waiting(state),
        "longest_wait": max(0, max(state.slots, default=0) - state.seen) / SECOND,
        "pause": max(0, state.pause - state.seen) / SECOND,
        "others": state.others / WHOLE,
        "booked": state.booked,
    }


_memory: dict[str, MemoryStore] = {}


def _in_memory(name: str, state: State | None = None) -> MemoryStore:
    """Give the one store in memory that all connections of this process with the same key use."""
    # Two threads that come at once get the same one; a lock here could be left locked by a fork.
    return _memory.setdefault(name, MemoryStore(state=state))


def _spare(digest: str) -> MemoryStore:
    return _in_memory(f"{digest} spare", without_credit(monotonic()))


def _open_store(store: str, digest: str, directory: str | None) -> Store:
    if store.startswith(("redis://", "rediss://")):
        return _redis_store(store, digest)
    if store.startswith("memory://"):
        return _in_memory(digest)
    if store:
        raise _misconfigured(
            "budget_store is neither empty, nor a redis:// or rediss:// URL, nor the id of a Redis connection"
        )
    from airflow_provider_lemlist.api.budget.sqlite import SQLiteStore

    return SQLiteStore(digest, directory)


def _redis_store(url: str, digest: str) -> Store:
    try:
        from redis import RedisError

        from airflow_provider_lemlist.api.budget.redis import RedisStore
    except ImportError:
        raise _misconfigured(
            "budget_store names Redis, and its client is not installed: "
            "pip install 'airflow-provider-lemlist[redis]'"
        ) from None
    try:
        return RedisStore(url, digest)
    except (ValueError, TypeError, RedisError):
        # The text of the error could quote a part of the URL, and that may be the password.
        raise _misconfigured("budget_store is a Redis URL that cannot be read") from None


def _warn(error: StoreError) -> None:
    log.warning(
        "The lemlist rate budget cannot be shared: %s. Until then this process has a budget of its own, and "
        "requests may be refused where others use the key.",
        error,
    )


def _misconfigured(message: str) -> Exception:
    from airflow_provider_lemlist.exceptions import LemlistConfigurationError

    return LemlistConfigurationError(message)


def _in_thread(function: Callable[..., T], *arguments: Any) -> Awaitable[T]:
    # A store may wait for others, for a disk or a network.
    import asyncio

    return asyncio.to_thread(function, *arguments)
