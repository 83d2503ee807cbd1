# SPDX-License-Identifier: Apache-2.0
"""One type of activity that an event trigger watches: when it looks, what is new, where its cursor is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_lemlist.activities import ALL, WaitCondition
from airflow_provider_lemlist.datasets import whole_milliseconds
from airflow_provider_lemlist.run_window import parse_moment
from airflow_provider_lemlist.triggers.cursors import Cursor, joined
from airflow_provider_lemlist.triggers.feed import FeedKey
from airflow_provider_lemlist.triggers.shared import error_event, is_lasting, join_feed, message_of, utc_now

if TYPE_CHECKING:
    from airflow_provider_lemlist.activities import Activity
    from airflow_provider_lemlist.triggers.cursors import CursorStore
    from airflow_provider_lemlist.triggers.events import ActivityEventTrigger
    from airflow_provider_lemlist.triggers.feed import Feed

log = logging.getLogger(__name__)

#: Most seconds between two looks while they fail. After an error that does not pass by itself, always.
LONGEST_PAUSE = 300.0

#: How far a cursor moves without being saved while nothing is new.
UNSAVED = timedelta(hours=1)

#: The watches of this triggerer that fail, by connection and message: a hundred of them log an error once.
_FAILING: dict[tuple[str, str], set[Watch]] = {}


class Watch:
    """
    One type of activity that a trigger watches.

    :param trigger: The trigger, whose arguments apply.
    :param activity_type: The type.
    :param store: Where the cursor is kept.
    """

    def __init__(self, trigger: ActivityEventTrigger, activity_type: str, store: CursorStore) -> None:
        self._trigger = trigger
        self._type = activity_type
        self._store = store
        scope = (trigger.lemlist_conn_id, trigger.campaign_id or "*", trigger.lead_id or "*", activity_type)
        # With the type, so that a type which is added later does not change the cursors of the others.
        self._cursor_key = ":".join(("lemlist", *scope))
        # Determined now: the moment must not move while the first looks fail. In whole milliseconds like a
        # cursor, which would otherwise begin before what the feed has read, and cost another read of all.
        self._start = whole_milliseconds(utc_now() if trigger.start == "now" else parse_moment(trigger.start))
        self._overlap = timedelta(seconds=trigger.overlap)
        self._cursor: Cursor | None = None
        self._saved: Cursor | None = None
        #: Everything before this moment was read: at the last look, or before the cursor was saved.
        self._complete_until = self._start
        self._feed: Feed
        self._clock = asyncio.get_running_loop().time
        self._read_at = self._clock() - trigger.poll_interval
        self._failures = 0
        #: The moment of the next look, by the loop's clock.
        self.due = self._clock()
        #: What the last look found.
        self.found: list[Activity] = []
        #: Why the last look failed.
        self.error: Exception | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Take part in the feed of this type."""
        trigger = self._trigger
        key = FeedKey(trigger.lemlist_conn_id, trigger.campaign_id, self._type, None)
        with join_feed(key, trigger, self._condition(Cursor(self._start))) as self._feed:
            try:
                yield
            finally:
                self._leave_failing()

    async def look(self) -> None:
        """Read what lemlist lists, and find what is new; after an error, look again later."""
        self.found = []
        try:
            if self._cursor is None:
                self._cursor = await self._load()
            await self._read(self._cursor)
        except Exception as error:
            self._failed(error)
        else:
            self._succeeded()

    async def note(self, told: Sequence[Activity]) -> None:
        """Note in the cursor that these were told, which are the oldest of those found and not noted yet."""
        if told and self._cursor:
            complete_until = min(told[-1].at, self._complete_until)
            self._cursor = self._cursor.after(told, complete_until, self._overlap)
            await self._save(self._cursor)

    async def end_look(self) -> None:
        """Move the cursor on, because everything that the look found was told."""
        if self._cursor is None:
            return
        self._cursor = self._cursor.after((), self._complete_until, self._overlap)
        if self._saved is None or self._cursor.since - self._saved.since > UNSAVED:
            await self._save(self._cursor)

    # --- The feed ---------------------------------------------------------------------------------------

    def _condition(self, cursor: Cursor) -> WaitCondition:
        trigger = self._trigger
        return WaitCondition(
            (self._type,),
            cursor.since,
            min_count=ALL,
            lead_id=trigger.lead_id,
            bots=trigger.bots,
            overlap=self._overlap,
        )

    async def _read(self, cursor: Cursor) -> None:
        condition = self._feed.waiting[self._trigger] = self._condition(cursor)
        self._read_at = await self._feed.wait_for_read(condition, after=self._read_at)
        if self._feed.error:
            raise self._feed.error
        reading = self._feed.reading
        self._complete_until = reading.until
        self.found = [
            each for each in reading.matching(condition) if condition.counts(each) and cursor.is_new(each)
        ]

    # --- Errors -----------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        """Look again later: after a growing pause, or a long one if the error does not pass by itself."""
        if self.error is None or message_of(error) != message_of(self.error):
            self._leave_failing()
        self.error, self._failures = error, self._failures + 1
        interval = self._trigger.poll_interval
        doubled = interval * 2 ** min(self._failures, 16)  # more is longer than the longest
        pause = LONGEST_PAUSE if is_lasting(error) else min(doubled, LONGEST_PAUSE)
        pause = max(interval, pause)
        self.due = self._clock() + pause
        others = _FAILING.setdefault(self._failure, set())
        if not others:
            level = logging.ERROR if is_lasting(error) else logging.WARNING
            conn_id, what = self._trigger.lemlist_conn_id, error_event(error)["message"]
            log.log(level, "Connection %s: reading failed, next read in %.0f s: %s", conn_id, pause, what)
        others.add(self)

    def _succeeded(self) -> None:
        if self.error is not None and not self._leave_failing():
            log.info("Connection %s: activities are read again", self._trigger.lemlist_conn_id)
        self.error, self._failures = None, 0
        self.due = self._read_at + self._trigger.poll_interval

    @property
    def _failure(self) -> tuple[str, str]:
        return (self._trigger.lemlist_conn_id, message_of(self.error))

    def _leave_failing(self) -> bool:
        """Return whether others still fail in this way."""
        others = _FAILING.get(self._failure, set())
        others.discard(self)
        if not others:
            _FAILING.pop(self._failure, None)
        return bool(others)

    # --- The cursor -------------------------------------------------------------------------------------

    async def _load(self) -> Cursor:
        fresh = Cursor(self._start)
        kept = await self._store.load(self._cursor_key)
        cursor = joined([fresh if each is None else Cursor.of_json(each) for each in kept])
        if None in kept:
            # Or "now" would be later after a restart. Airflow also finds none while an asset is not active;
            # then this fails, and the cursor is loaded again.
            await self._store.save(self._cursor_key, cursor.as_json())
        self._saved, self._complete_until = cursor, cursor.since
        return cursor

    async def _save(self, cursor: Cursor) -> None:
        try:
            await self._store.save(self._cursor_key, cursor.as_json())
        except Exception as error:
            self._saved = None  # with the next look
            log.warning(
                "Cursor %s: not saved, which is tried again with the next look: %s", self._cursor_key, error
            )
        else:
            self._saved = cursor
