# SPDX-License-Identifier: Apache-2.0
"""
The rate budget: every request of every process books a slot before it leaves.

    slot = budget.book()        # first come, first served; the wait is known now
    budget.wait(slot)           # sleep until the slot
    ...                         # send, receive
    budget.report(slot, ...)    # what the response says about the limit

``arithmetic`` decides, a store (``sqlite``, ``redis``, ``stores``) keeps the state for all processes that use
the API key, and ``Budget`` waits. The key itself is never stored: a hash of it names the state.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import re
import time
from collections.abc import Callable
from functools import cache

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.api.budget.arithmetic import (
    JITTER,
    SECOND,
    WHOLE,
    Booking,
    Feedback,
    Terms,
    margin,
    place,
    room,
    waiting,
    without_credit,
)
from airflow_provider_lemlist.api.budget.stores import (
    MemoryStore,
    Store,
    StoreError,
    T,
    UnlimitedStore,
    monotonic,
    new_state,
)
from airflow_provider_lemlist.get_provider_info import UNLIMITED

__all__ = ["NOT_SHARED", "Budget", "Slot", "open_budget"]

log = logging.getLogger(__name__)

#: What to check when the key may be used outside the budget.
NOT_SHARED = (
    "Other processes may use this API key without sharing its rate budget: in the lemlist connection, set "
    "budget_store to a Redis that all workers share, or budget_share to this worker's part of the limit."
)

#: Longest sleep in seconds: after that, a wait checks whether it has been stopped.
SLICE = 0.2
#: Seconds that stand for any longer ``max_wait``, including infinity.
LONGEST_MAX_WAIT = 1e9
#: Seconds after which a store that failed is tried again.
RETRY_STORE_AFTER = 30.0


class Slot:
    """
    The moment at which one request may leave.

    :ivar wait: Seconds from the first booking to the slot.
    """

    def __init__(self, since: float) -> None:
        self.since = since

    def take(self, booking: Booking, store: Store, now: float, delay: float) -> None:
        """Use a booking: the first one, or a later one if the store lost that."""
        self.booking, self.store = booking, store
        self.wait = now - self.since + booking.wait / SECOND
        # On the clock of this process; that of the store may differ by minutes.
        self.due = self.left = self.since + self.wait
        # The store decided up to this long before its reply arrived, and that much later the request leaves.
        self.delay = delay


class Budget:
    """
    The rate budget of one API key, for any number of threads; see ``open_budget``.

    :param spare: Returns the store to use while ``store`` does not work.
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
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._make_spare = spare
        self._spare: Store | None = None
        self._retry_store_at = -math.inf
        self._terms = Terms(max(1, round(share * WHOLE)), round(min(max_wait, LONGEST_MAX_WAIT) * SECOND))
        self._fastest = math.inf
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    @property
    def store(self) -> Store:
        """The store that was configured, whether or not it works."""
        return self._store

    def book(self, lost: Slot | None = None) -> Slot:
        """
        Book the next free slot.

        :param lost: A void slot, to book again within what is left of ``max_wait``.
        :raises LemlistRateLimitError: The wait would exceed ``max_wait``; nothing was booked.
        """
        moments = [self._clock()]
        waited = moments[0] - lost.since if lost else 0.0
        terms = self._terms._replace(max_wait=max(0, self._terms.max_wait - round(waited * SECOND)))
        store, booking = self._call(lambda store: store.book(terms, lambda: moments.append(self._clock())))
        if store is not self._store:
            metrics.FALLBACK.add()
        now = self._clock()
        # The last moment is that of the decision, which rests on what was read since the one before.
        took = now - moments[-2]
        self._fastest = min(self._fastest, took)
        if not booking.granted:
            from airflow_provider_lemlist.exceptions import LemlistRateLimitError

            wait = waited + booking.wait / SECOND
            raise LemlistRateLimitError(
                f"The wait for a slot of the lemlist rate budget would be {wait:.1f} s, with {booking.ahead} "
                f"requests ahead, and max_wait is {self._terms.max_wait / SECOND:g} s. Nothing was sent. Run "
                "fewer tasks at a time, or raise max_wait in the connection",
                wait=wait,
            )
        slot = lost or Slot(now)
        slot.take(booking, store, now, delay=took - self._fastest)
        return slot

    def wait(self, slot: Slot, *, early: float = 0.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """
        Sleep until the slot.

        :param early: Return this many seconds before it.
        :param stopped: Returns whether to give up; called before and after each sleep.
        :raises LemlistStoppedError: ``stopped`` returned True; the slot is lost.
        :raises LemlistRateLimitError: The slot was moved or lost, and ``max_wait`` would be exceeded.
        """
        while not stopped() and (left := slot.due - self._clock()) > early:
            self._sleep(min(left - early, SLICE))
            # The store is asked once, at the end. On a busy machine any sleep may be the last one.
            if slot.due - self._clock() <= early:
                self._find(slot)
        if stopped():
            from airflow_provider_lemlist.exceptions import LemlistStoppedError

            raise LemlistStoppedError
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
        Report what the response to the request of the slot says about the limit.

        :param refused: The limit refused the request (429).
        :param limit: Requests per window, as the server says.
        :param remaining: Requests left, as the server says.
        :param retry_after: Seconds to wait, as the server says.
        """
        feedback = Feedback(
            slot.booking,
            refused,
            limit=-1 if limit is None else limit,
            remaining=-1 if remaining is None else remaining,
            retry_after=-1 if retry_after is None else max(0, round(retry_after * SECOND)),
            round_trip=round((self._clock() - slot.due) * SECOND),
            late=max(0, round((slot.left - slot.due + slot.delay) * SECOND)),
            share=self._terms.share,
            jitter=round(self._jitter() * JITTER),
        )
        store, not_shared = self._call(lambda store: store is slot.store and store.report(feedback))
        if not_shared and store is self._store:
            _warn_not_shared()

    def state(self) -> dict[str, float]:
        """
        Return the state for people: times in seconds, use in requests per window.

        ``shared`` is False while the store does not work, and the numbers are those of this process alone.
        """
        store, state = self._call(lambda store: store.read())
        capacity, period = room(state, self._terms.share)
        return {
            "limit": state.limit,
            "capacity": capacity,
            "period": period / SECOND,
            "margin": margin(state) / SECOND,
            "waiting": waiting(state),
            "longest_wait": max(0, max(state.slots, default=0) - state.seen) / SECOND,
            "pause": max(0, state.pause - state.seen) / SECOND,
            "other_clients": round(state.other_clients / WHOLE, 3),
            "booked": state.booked,
            "shared": store is self._store,
        }

    def _find(self, slot: Slot) -> None:
        """Follow the moves of a slot; book again if the store lost it or they exceed ``max_wait``."""
        store, state = self._call(lambda store: store.read())
        at = place(state, slot.booking)
        if store is not slot.store or at == slot.booking.at:
            return
        if at is not None:
            due = slot.due + (at - slot.booking.at) / SECOND
            if due - slot.since <= self._terms.max_wait / SECOND:
                slot.due, slot.booking = due, slot.booking._replace(at=at, moves=state.moves)
                return
        self.book(slot)

    def _call(self, function: Callable[[Store], T]) -> tuple[Store, T]:
        """Call the store, or the spare one while the store does not work."""
        if self._clock() >= self._retry_store_at:
            try:
                return self._store, function(self._store)
            except StoreError as error:
                self._retry_store_at = self._clock() + RETRY_STORE_AFTER
                if self._spare is None:
                    log.warning(
                        "Rate budget: not shared for now: %s. Until then this process has a budget of its "
                        "own, and lemlist may refuse requests if other processes use the key.",
                        error,
                    )
        self._spare = self._spare or self._make_spare()
        return self._spare, function(self._spare)


def open_budget(
    api_key: str,
    *,
    store: str = "",
    share: float = 1.0,
    max_wait: float = 300.0,
    directory: str | None = None,
) -> Budget:
    """
    Open the budget of an API key.

    :param api_key: The key; a hash of it names the budget.
    :param store: Empty for a file on this machine, a URL of Redis (see ``redis_url``), ``memory://``, or
        ``unlimited://`` for a sandbox without a limit, which ``read_settings`` refuses for any other host.
    :param share: The part of the limit that is ours, above 0 and at most 1.
    :param max_wait: Longest wait for a slot, in seconds.
    :param directory: The directory of the file; None for a private one in the temporary directory.
    :raises LemlistConfigurationError: An argument is not one of these.
    """
    digest = hashlib.blake2b(api_key.encode(), digest_size=16, person=b"lemlist-budget").hexdigest()
    try:
        if not 0 < share <= 1:
            raise ValueError(f"budget_share must be above 0 and at most 1, not {share:g}")
        if not max_wait >= 0:
            raise ValueError(f"max_wait must be 0 seconds or more, not {max_wait:g}")
        opened = _open_store(store, digest, directory)
    except ValueError as error:
        from airflow_provider_lemlist.exceptions import LemlistConfigurationError

        raise LemlistConfigurationError(str(error)) from None

    def spare() -> Store:
        return _memory.setdefault(
            f"{digest} spare", MemoryStore(state=without_credit(new_state(), monotonic()))
        )

    return Budget(opened, spare=spare, share=share, max_wait=max_wait)


#: The stores in memory, which all connections of this process with the same key use. They are added with
#: ``setdefault``: two threads then get the same one, and no lock can be left locked by a fork.
_memory: dict[str, MemoryStore] = {}

_REDIS_URL = re.compile(r"rediss?(\+cluster|\+sentinel)?://")


def _open_store(store: str, digest: str, directory: str | None) -> Store:
    if not store:
        from airflow_provider_lemlist.api.budget.sqlite import SQLiteStore

        return SQLiteStore(digest, directory)
    if store.startswith("memory://"):
        return _memory.setdefault(digest, MemoryStore())
    if store == UNLIMITED:
        return _memory.setdefault(f"{digest} unlimited", UnlimitedStore())
    if not _REDIS_URL.match(store):
        raise ValueError(
            "budget_store is neither empty, nor the id of a Redis connection, nor a URL that begins with "
            "redis://, redis+cluster:// or redis+sentinel:// (rediss for TLS)"
        )
    try:
        from redis import RedisError

        from airflow_provider_lemlist.api.budget.redis import RedisStore
        from airflow_provider_lemlist.api.budget.redis_url import RedisURLError
    except ImportError:
        raise ValueError(
            "budget_store names Redis, and the Python client of Redis is not installed: "
            "pip install 'airflow-provider-lemlist[redis]'"
        ) from None
    try:
        return RedisStore(store, digest)
    except RedisURLError as error:
        raise ValueError(f"budget_store {error}") from None
    except (ValueError, TypeError, RedisError):
        # The text of the error could quote a part of the URL, and that may be the password.
        raise ValueError("budget_store is a Redis URL that cannot be read") from None


@cache  # one line per process is enough
def _warn_not_shared() -> None:
    log.warning(
        "Rate budget: lemlist refused a request (429) although the budget had room for it. %s", NOT_SHARED
    )
