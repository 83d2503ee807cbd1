# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.activities import ALL, LOOKBACK, OVERLAP, Activity, WaitCondition
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.triggers import cursors
from airflow_provider_lemlist.triggers.cursors import (
    MAX_TOLD,
    AssetStates,
    Cursor,
    NoStore,
    StateFile,
    joined,
)
from airflow_provider_lemlist.triggers.feed import FULL_READ_INTERVAL, Reading, plan_read

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))

import bucket

REPLY = "emailsReplied"
START = datetime(2026, 3, 2, 8, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
#: Most time between two looks in the tests.
GAP = 20 * MINUTE


def activity(number: int, at: datetime) -> Activity:
    return Activity(f"act_{number}", REPLY, at, "lea_1", None, False, {})


def minutes(number: float) -> datetime:
    """Return a moment after the start, as precise as those of lemlist."""
    moment = START + number * MINUTE
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def through_json(cursor: Cursor) -> Cursor:
    return Cursor.of_json(json.loads(json.dumps(cursor.as_json())))


# --- Looks of a trigger, of which some are interrupted ----------------------------------------------------


@dataclass
class Listed:
    """An activity, and the minutes in which lemlist lists it."""

    activity: Activity
    since: datetime
    until: datetime


@dataclass
class Looks:
    """What a trigger does between lemlist and its cursor store, without either."""

    lemlist: list[Listed]
    batch: int
    now: datetime = START
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.saved = Cursor(START).as_json()
        self.start()

    def start(self) -> None:
        self.cursor = Cursor.of_json(json.loads(json.dumps(self.saved)))
        self.reading = Reading({None: []})

    def look(self, *, killed_at: int | None = None) -> None:
        """Tell what is new; a kill is before the part of this number is noted in the cursor."""
        condition = WaitCondition((REPLY,), self.cursor.since, min_count=ALL)
        plan, start = plan_read(self.reading, frozenset([condition]), self.now)
        known = {each.id: each for each in self.reading.activities[None]}
        for each in self.lemlist:
            if each.since <= self.now < each.until and start <= each.activity.at <= self.now:
                known[each.activity.id] = each.activity
        newest_first = sorted(known.values(), key=lambda activity: activity.at, reverse=True)
        self.reading = plan._replace(activities={None: newest_first})
        found = [each for each in self.reading.matching(condition) if self.cursor.is_new(each)][::-1]
        for number, first in enumerate(range(0, len(found), self.batch)):
            part = found[first : first + self.batch]
            self.told += [each.id for each in part]
            if number == killed_at:
                return self.start()
            self.note(part, min(part[-1].at, self.now))
        self.note([], self.now)

    def note(self, part: list[Activity], complete_until: datetime) -> None:
        self.cursor = self.cursor.after(part, complete_until, OVERLAP)
        self.saved = self.cursor.as_json()


@st.composite
def listings(draw: st.DrawFn, latest: timedelta) -> list[Listed]:
    """Draw what lemlist lists, each activity at most so late, and some until they vanish."""
    late = latest // MINUTE
    found = []
    # Few distinct moments: many activities happen at the same one.
    for number in range(draw(st.integers(0, 12))):
        at = minutes(draw(st.integers(0, 40)) * 10)
        since = at + draw(st.sampled_from([0, 0, late // 2, late - 1, late])) * MINUTE
        lasts = draw(st.sampled_from([LOOKBACK * 9] * 4 + [GAP * 2]))
        found.append(Listed(activity(number, at), since, since + lasts))
    return found


pauses = st.lists(
    st.tuples(
        st.integers(1, GAP // MINUTE),
        # Killed before the cursor names the part of this number, or not.
        st.sampled_from([None, None, None, None, 0, 1]),
    ),
    max_size=60,
)


def looked(lemlist: list[Listed], batch: int, steps: list[tuple[int, int | None]]) -> list[str]:
    """Return what is told by these looks, and then by others until all is listed and was looked for."""
    looks = Looks(lemlist, batch)
    for pause, killed_at in steps:
        looks.now += pause * MINUTE
        looks.look(killed_at=killed_at)
    end = max([looks.now, *(each.since for each in lemlist)]) + FULL_READ_INTERVAL + 2 * GAP
    while looks.now < end:
        looks.now += GAP
        looks.look()
    return looks.told


def lasting(lemlist: list[Listed]) -> set[str]:
    """Return what does not vanish, perhaps before a look."""
    return {each.activity.id for each in lemlist if each.until - each.since > LOOKBACK}


class TestPromises:
    @pytest.mark.parametrize("most", [2, MAX_TOLD])
    @given(listings(OVERLAP), st.integers(1, 5), pauses)
    def test_what_is_listed_within_the_overlap_is_told_whatever_is_killed(self, most, lemlist, batch, steps):
        """Also when there are more activities than a cursor names."""
        with mock.patch.object(cursors, "MAX_TOLD", most):
            told = looked(lemlist, batch, steps)
        assert lasting(lemlist) <= {*told}

    @given(listings(LOOKBACK - FULL_READ_INTERVAL - GAP), st.integers(1, 5), pauses)
    def test_what_is_listed_within_a_day_is_told_whatever_is_killed(self, lemlist, batch, steps):
        assert lasting(lemlist) <= {*looked(lemlist, batch, steps)}

    @pytest.mark.parametrize("most", [2, MAX_TOLD])
    @given(listings(LOOKBACK), st.integers(1, 5), pauses)
    def test_without_a_kill_nothing_is_told_twice(self, most, lemlist, batch, steps):
        with mock.patch.object(cursors, "MAX_TOLD", most):
            told = looked(lemlist, batch, [(pause, None) for pause, _ in steps])
        assert len(told) == len({*told})

    @given(listings(LOOKBACK), st.integers(1, 5), pauses)
    def test_one_kill_repeats_no_more_than_an_event(self, lemlist, batch, steps):
        """Namely the one which Airflow had, and the cursor did not."""
        steps = [(pause, 0 if number == len(steps) // 2 else None) for number, (pause, _) in enumerate(steps)]
        told = looked(lemlist, batch, steps)
        assert len(told) - len({*told}) <= batch


class TestCursor:
    moments = st.integers(0, 3 * 24 * 60).map(minutes)
    told = st.dictionaries(st.integers(0, 30), moments, max_size=20)

    @given(told, told, moments, st.integers(0, 30), moments)
    def test_moving_on_hides_nothing_that_was_not_told(self, before, also, until, number, at):
        """Neither does it when others of the same moment were told."""
        cursor = Cursor(START).after([activity(*each) for each in before.items()], minutes(0), OVERLAP)
        other = activity(number + 100, at)
        assert cursor.is_new(other) == (other.at >= cursor.since)
        with mock.patch.object(cursors, "MAX_TOLD", 3):
            moved = cursor.after([activity(*each) for each in also.items()], until, OVERLAP)
        if cursor.is_new(other) and other.at >= until - OVERLAP:
            assert moved.is_new(other)

    @given(told, moments)
    def test_what_was_told_is_never_new_again(self, told, until):
        activities = [activity(*each) for each in told.items()]
        with mock.patch.object(cursors, "MAX_TOLD", 3):
            cursor = Cursor(START).after(activities, until, OVERLAP)
        assert not any(map(cursor.is_new, activities))
        assert not any(map(cursor.after((), until + LOOKBACK, OVERLAP).is_new, activities))

    def test_it_does_not_move_back(self):
        cursor = Cursor(START).after((), minutes(3 * 24 * 60), OVERLAP)
        assert cursor.after((), minutes(0), OVERLAP) == cursor

    @given(told, moments, st.integers(0, 40), moments)
    def test_it_comes_back_from_json_as_it_was(self, told, until, number, at):
        cursor = Cursor(START).after([activity(*each) for each in told.items()], until, OVERLAP)
        again = through_json(cursor)
        assert again == cursor
        assert again.is_new(activity(number, at)) == cursor.is_new(activity(number, at))

    def test_a_moment_finer_than_milliseconds_comes_back_as_told(self):
        fine = activity(1, START + MINUTE)
        cursor = through_json(Cursor(START).after([fine], fine.at + LOOKBACK, OVERLAP))
        assert not cursor.is_new(fine)

    def test_an_activity_without_a_moment_is_told_once(self):
        timeless = Activity.of({"_id": "act_1", "type": REPLY})
        cursor = Cursor(START).after([timeless], minutes(1), OVERLAP)
        assert not through_json(cursor).is_new(timeless)
        assert not through_json(cursor.after((), minutes(9 * 24 * 60), OVERLAP)).is_new(timeless)

    def test_it_reaches_back_for_a_day(self):
        cursor = Cursor(START).after((), minutes(3 * 24 * 60), OVERLAP)
        assert cursor.since == minutes(2 * 24 * 60)

    def test_a_longer_overlap_makes_it_reach_back_further(self):
        cursor = Cursor(START).after((), minutes(3 * 24 * 60), 2 * LOOKBACK)
        assert cursor.since == minutes(1 * 24 * 60)


class TestSize:
    now = minutes(3 * 24 * 60)

    def cursor(self, ago: list[timedelta]) -> Cursor:
        """Return the cursor when these were told, with ids as long as those of lemlist."""
        told = [
            activity(number, self.now - each)._replace(id=f"act_{number:017}")
            for number, each in enumerate(ago)
        ]
        return Cursor(START).after(told, self.now, OVERLAP)

    def test_it_stays_below_the_64_kilobytes_of_airflow(self):
        cursor = self.cursor([LOOKBACK * number / 20_000 for number in range(20_000)])
        assert len(cursor.told) == MAX_TOLD
        assert len(json.dumps(cursor.as_json())) < 64 * 1024

    def test_many_activities_of_one_moment_do_not_make_it_longer(self):
        cursor = self.cursor([2 * OVERLAP] * MAX_TOLD + [3 * OVERLAP])
        assert len(cursor.told) == MAX_TOLD
        assert not self.cursor([2 * OVERLAP] * (MAX_TOLD + 1)).told

    def test_those_of_the_overlap_are_all_named(self):
        assert len(self.cursor([OVERLAP] * 2 * MAX_TOLD).told) == 2 * MAX_TOLD

    def test_activities_without_a_moment_are_all_named(self):
        timeless = [Activity.of({"_id": f"act_{number}", "type": REPLY}) for number in range(2 * MAX_TOLD)]
        assert len(Cursor(START).after(timeless, self.now, OVERLAP).told) == 2 * MAX_TOLD

    def test_few_activities_let_it_reach_back_for_a_day(self):
        assert self.cursor([LOOKBACK / 2] * MAX_TOLD).since == self.now - LOOKBACK


class TestJoined:
    cursors = st.lists(
        st.builds(
            lambda told, until: Cursor(START).after(
                [activity(*each) for each in told.items()], until, OVERLAP
            ),
            TestCursor.told,
            TestCursor.moments,
        ),
        min_size=1,
        max_size=3,
    )

    @given(cursors, st.integers(0, 40), TestCursor.moments)
    def test_an_activity_is_new_if_it_is_new_for_one_of_them(self, each, number, at):
        # An id has one moment, as told.
        at = next((cursor.told[f"act_{number}"] for cursor in each if f"act_{number}" in cursor.told), at)
        one = activity(number, at)
        assert joined(each).is_new(one) == any(cursor.is_new(one) for cursor in each)

    @given(cursors)
    def test_it_names_no_more_than_the_longest(self, each):
        assert len(joined(each).told) <= max(len(cursor.told) for cursor in each)

    def test_one_is_itself(self):
        cursor = Cursor(START).after([activity(1, minutes(5))], minutes(9), OVERLAP)
        assert joined([cursor]) == cursor


# --- Where they are kept ----------------------------------------------------------------------------------


class TestStateFile:
    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "address", ["{}/new/replies.json", "file://{}/new/replies.json", "bucket://b{}/replies.json"]
    )
    async def test_what_was_saved_is_loaded_by_another_triggerer(self, tmp_path, address):
        bucket.use(tmp_path / "bucket")
        path = address.format(tmp_path)
        assert await StateFile(path).load("a") == [None]
        await StateFile(path).save("a", {"since": "2026"})
        await StateFile(path).save("b", {"since": "2027"})
        assert await StateFile(path).load("a") == [{"since": "2026"}]
        assert await StateFile(path).load("b") == [{"since": "2027"}]

    @pytest.mark.asyncio
    async def test_triggers_that_save_at_the_same_time_lose_no_cursor(self, tmp_path):
        path = str(tmp_path / "replies.json")
        keys = [f"lemlist:{number}" for number in range(40)]
        for value in ({"round": 1}, {"round": 2}):
            await asyncio.gather(*(StateFile(path).save(key, value) for key in keys))
            assert [await StateFile(path).load(key) for key in keys] == [[value]] * len(keys)

    @pytest.mark.asyncio
    @pytest.mark.parametrize("content", [b"", b'{"a": ', b"[1]", b"\xff\xfe"])
    async def test_a_file_of_something_else_is_refused_and_left_as_it_is(self, tmp_path, content):
        file = tmp_path / "replies.json"
        file.write_bytes(content)
        for action in (StateFile(str(file)).load("a"), StateFile(str(file)).save("a", {})):
            with pytest.raises(LemlistConfigurationError, match="replies.json is not a file of cursors"):
                await action
        assert file.read_bytes() == content

    @pytest.mark.asyncio
    async def test_a_kill_while_it_is_written_leaves_the_file_before(self, tmp_path, monkeypatch):
        path = str(tmp_path / "replies.json")
        await StateFile(path).save("a", {"round": 1})
        monkeypatch.setattr("airflow_provider_lemlist.storage.os.fsync", lambda file: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await StateFile(path).save("a", {"round": 2})
        assert await StateFile(path).load("a") == [{"round": 1}]

    @pytest.mark.asyncio
    async def test_a_storage_that_cannot_be_opened_is_named(self):
        with pytest.raises(LemlistConfigurationError, match="state_path is in a storage"):
            await StateFile("nosuch://bucket/replies.json").load("a")


class State:
    """The state store of one asset."""

    def __init__(self, **content: object) -> None:
        self.content = content

    async def aget(self, key: str) -> object:
        return self.content.get(key)

    async def aset(self, key: str, value: object) -> None:
        self.content[key] = value


class TestOtherStores:
    @pytest.mark.asyncio
    async def test_each_asset_keeps_the_cursor(self):
        states = [State(a=1), State()]
        store = AssetStates(states)
        assert await store.load("a") == [1, None]
        await store.save("a", 2)
        assert await store.load("a") == [2, 2]

    @pytest.mark.asyncio
    async def test_without_a_store_nothing_is_kept(self):
        await NoStore().save("a", 1)
        assert await NoStore().load("a") == [None]
