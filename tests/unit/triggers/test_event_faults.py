# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from copy import copy
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistNotFoundError,
    LemlistRateLimitError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.triggers import shared, watch
from airflow_provider_lemlist.triggers.cursors import NoStore
from airflow_provider_lemlist.triggers.watch import LONGEST_PAUSE, Watch
from tests.unit.triggers.watching import LINKEDIN, REPLY, Watcher, needs_watchers, trigger, until

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox
    from tests.unit.activity_listing import Listing
    from tests.unit.triggers.conftest import Clock

pytestmark = [needs_watchers, pytest.mark.usefixtures("settled")]

DOWN = LemlistServerError("lemlist failed", status=503)
REVOKED = LemlistAuthError("lemlist does not accept the API key", status=401)


def failing() -> int:
    """Return how many watches fail, all in the same way."""
    ways = [*watch._FAILING.values()]
    assert len(ways) <= 1
    return sum(map(len, ways))


@pytest.fixture
def faults(monkeypatch) -> list[Exception]:
    """Errors of the next reads, in order; the hook's own retries are over by then."""
    coming: list[Exception] = []
    real = LemlistHook.list_activities

    def list_activities(self: LemlistHook, **kwargs: Any) -> Any:
        if coming:
            raise copy(coming.pop(0))  # the traceback of an exception that stays would keep the feed
        return real(self, **kwargs)

    monkeypatch.setattr(LemlistHook, "list_activities", list_activities)
    return coming


@pytest.fixture
def quick(monkeypatch) -> None:
    """Try again at once after an error."""
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def logged(caplog) -> Any:
    """Return the messages that watches have logged at a level."""
    caplog.set_level(logging.INFO)
    return lambda level: [
        record.getMessage()
        for record in caplog.records
        if record.name == watch.__name__ and record.levelno == level
    ]


class TestPauses:
    async def pauses(self, poll_interval: float, looks: int) -> list[float]:
        """Return the pauses after each of some looks."""
        one = Watch(trigger(poll_interval=poll_interval), REPLY, NoStore())
        one._clock = lambda: 0.0
        made = []
        with one.joined():
            for _ in range(looks):
                await one.look()
                made.append(one.due)
        return made

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("poll_interval", "pauses"),
        [
            (30, [60, 120, 240, 300, 300, 300]),
            (200, [300, 300, 300, 300, 300, 300]),
            (900, [900, 900, 900, 900, 900, 900]),
        ],
    )
    async def test_what_may_pass_is_met_with_growing_pauses(self, lemlist, faults, poll_interval, pauses):
        faults += [DOWN, LemlistRateLimitError("busy"), ZeroDivisionError("oh")] * 2
        assert await self.pauses(poll_interval, 6) == pauses

    @pytest.mark.asyncio
    async def test_they_do_not_grow_beyond_all_numbers(self, lemlist, faults):
        faults += [DOWN] * 1100
        assert (await self.pauses(30, 1100))[-1] == LONGEST_PAUSE

    @pytest.mark.asyncio
    async def test_what_does_not_pass_by_itself_is_tried_again_after_five_minutes(self, lemlist, faults):
        faults += [REVOKED] * 3
        assert await self.pauses(30, 3) == [300, 300, 300]
        assert LONGEST_PAUSE == 300

    @pytest.mark.asyncio
    async def test_they_begin_again_after_a_success(self, lemlist, faults):
        faults += [DOWN, DOWN]
        one = Watch(trigger(poll_interval=30), REPLY, NoStore())
        with one.joined():
            for _ in range(3):
                await one.look()
            assert one.error is None
            assert one.due == one._read_at + 30
            one._clock = lambda: 0.0
            faults.append(DOWN)
            await one.look()
            assert one.due == 60

    @pytest.mark.asyncio
    async def test_a_trigger_waits_for_as_long(self, lemlist: Listing, faults, monkeypatch):
        """The loop's clock leaps to each moment that the trigger waits for."""
        waited: list[float] = []
        sleep = asyncio.sleep
        clock = asyncio.get_running_loop().time
        ahead = 0.0

        async def leap(seconds: float) -> None:
            nonlocal ahead
            waited.append(seconds)
            ahead += max(seconds, 0)
            await sleep(0)

        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock() + ahead, raising=False)
        monkeypatch.setattr("airflow_provider_lemlist.triggers.events.asyncio.sleep", leap)
        faults += [DOWN] * 3
        lemlist.add()
        await anext(trigger(poll_interval=50).run())
        assert [round(each, -1) for each in waited] == [0, 100, 200, 300]


class TestFaults:
    @pytest.mark.asyncio
    async def test_what_happens_while_lemlist_fails_is_told_afterwards(
        self, lemlist: Listing, faults, logged, quick, clock: Clock
    ):
        faults += [DOWN] * 3
        async with Watcher(trigger(start="now")) as watcher:
            reply = lemlist.add(at=clock.now)
            await watcher.tells(reply)
            faults += [LemlistServerError("lemlist failed again", status=502)] * 3
            await watcher.tells(reply, lemlist.add(at=clock.now))
        assert len(logged(logging.WARNING)) == 2
        assert logged(logging.INFO) == ["Connection lemlist_default: activities are read again"] * 2

    @pytest.mark.asyncio
    async def test_a_server_that_fails_is_survived(self, quick_lemlist: Sandbox, quick):
        lead = quick_lemlist.lead(quick_lemlist.campaign()["_id"], "ana@example.com")["_id"]
        quick_lemlist.fault("GET /activities", "status", status=503, times=7)
        async with Watcher(trigger(campaign_id=None)) as watcher:
            reply = quick_lemlist.activity(lead_id=lead, type=REPLY)["_id"]
            await watcher.tells(reply)

    @pytest.mark.asyncio
    async def test_an_unexpected_error_ends_nothing(self, lemlist: Listing, faults, logged, quick):
        faults += [ZeroDivisionError("oh")] * 3
        async with Watcher(trigger(tell_errors=True)) as watcher:
            await watcher.tells(lemlist.add())
            assert not watcher.errors
        assert len(logged(logging.WARNING)) == 1

    @pytest.mark.asyncio
    async def test_a_type_that_lemlist_refuses_does_not_stop_the_others(self, lemlist: Listing, logged):
        lemlist.unknown.add("emailReplied")
        async with Watcher(trigger(activity_type=["emailReplied", REPLY])) as watcher:
            ids = [lemlist.add()]
            await watcher.tells(*ids)
            ids.append(lemlist.add())
            await watcher.tells(*ids)
        assert len(logged(logging.ERROR)) == 1
        assert [query["type"] for query in lemlist.queries].count("emailReplied") == 1

    @pytest.mark.asyncio
    async def test_a_connection_that_is_defined_later_needs_no_restart(
        self, lemlist: Listing, quick, monkeypatch
    ):
        async with Watcher(trigger(lemlist_conn_id="later", tell_errors=True)) as watcher:
            await until(lambda: watcher.errors)
            assert "'later'" in watcher.errors[0]["message"]
            monkeypatch.setenv("AIRFLOW_CONN_LATER", lemlist.connection)
            await watcher.tells(lemlist.add())

    @pytest.mark.asyncio
    async def test_an_error_is_told_to_the_watchers_that_wait_in_another_campaign_too(
        self, lemlist: Listing, faults, logged
    ):
        """They have feeds of their own, and one line of the log."""
        faults += [REVOKED] * 2
        async with Watcher(trigger()), Watcher(trigger(campaign_id="cam_2")):
            await until(lambda: not faults)
            await until(lambda: failing() == 2)
        assert len(logged(logging.ERROR)) == 1

    @pytest.mark.asyncio
    async def test_a_trigger_that_is_killed_leaves_nothing_behind(self, lemlist: Listing, faults):
        faults += [REVOKED] * 2
        async with Watcher(trigger(activity_type=[REPLY, LINKEDIN])):
            await until(lambda: failing() == 2)
        assert not watch._FAILING
        assert not shared._LOOPS


class TestRevokedKey:
    @pytest.fixture
    def lead(self, quick_lemlist: Sandbox) -> str:
        return quick_lemlist.lead(quick_lemlist.campaign()["_id"], "ana@example.com")["_id"]

    @pytest.mark.asyncio
    async def test_it_is_logged_once_for_all_watchers_and_heals_without_a_restart(
        self, quick_lemlist: Sandbox, lead, logged, quick
    ):
        quick_lemlist.accept_key(quick_lemlist.api_key, "blocked")
        both = {"campaign_id": None, "activity_type": [REPLY, LINKEDIN]}
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(Watcher(trigger(**both))) for _ in range(20)]
            await until(lambda: failing() == 40)
            tried = len(quick_lemlist.requests())
            await until(lambda: len(quick_lemlist.requests()) >= tried + 4)
            assert len(logged(logging.ERROR)) == 1
            assert "connection 'lemlist_default'" in logged(logging.ERROR)[0]
            assert quick_lemlist.api_key not in logged(logging.ERROR)[0]
            assert not logged(logging.INFO)
            quick_lemlist.accept_key(quick_lemlist.api_key)
            reply = quick_lemlist.activity(lead_id=lead, type=REPLY)["_id"]
            for watcher in watchers:
                await watcher.tells(reply)
                assert not watcher.errors
            await until(lambda: not watch._FAILING)
        assert logged(logging.INFO) == ["Connection lemlist_default: activities are read again"]
        assert len(logged(logging.ERROR)) == 1

    @pytest.mark.asyncio
    async def test_it_is_logged_again_if_it_is_revoked_again(self, lemlist: Listing, faults, logged, quick):
        async with Watcher(trigger()) as watcher:
            ids: list[str] = []
            for time in (1, 2):
                faults += [REVOKED] * 3
                await until(lambda time=time: len(logged(logging.ERROR)) == time)
                ids.append(lemlist.add())
                await watcher.tells(*ids)
        assert len(logged(logging.ERROR)) == 2

    @pytest.mark.asyncio
    async def test_no_request_is_sent_before_the_next_try(self, lemlist: Listing, faults):
        faults += [REVOKED] * 100
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(Watcher(trigger()))
            await until(lambda: failing() == 20)
            async with Watcher(trigger(campaign_id="cam_2")) as other:
                await until(lambda: failing() == 21)
                assert not other.events
            assert len(faults) == 98


class TestErrorEvents:
    @pytest.mark.asyncio
    async def test_each_error_that_does_not_pass_is_told_once(self, lemlist: Listing, faults, quick):
        faults += [DOWN, REVOKED, REVOKED, REVOKED, LemlistNotFoundError("No campaign cam_1", status=404)]
        faults += [LemlistNotFoundError("No campaign cam_1", status=404)] * 2
        async with Watcher(trigger(tell_errors=True)) as watcher:
            await watcher.tells(lemlist.add())
        assert watcher.errors == [
            {
                "status": "error",
                "error": "LemlistAuthError",
                "message": "lemlist does not accept the API key",
                "http_status": 401,
            },
            {
                "status": "error",
                "error": "LemlistNotFoundError",
                "message": "No campaign cam_1",
                "http_status": 404,
            },
        ]

    @pytest.mark.asyncio
    async def test_responses_with_other_ids_are_the_same_error(self, lemlist: Listing, faults, quick, logged):
        where = {"status": 401, "operation": "GET /activities", "conn_id": "lemlist_default"}
        faults += [LemlistAuthError("Revoked", **where, trace=f"cf-ray {number}") for number in range(6)]
        async with Watcher(trigger(tell_errors=True)) as watcher:
            await watcher.tells(lemlist.add())
        assert [error["message"].rpartition(", ")[2] for error in watcher.errors] == ["cf-ray 0)"]
        assert len(logged(logging.ERROR)) == 1

    @pytest.mark.asyncio
    async def test_several_types_that_fail_alike_tell_one(self, lemlist: Listing, faults, quick):
        faults += [REVOKED] * 6
        async with Watcher(
            trigger(activity_type=[REPLY, LINKEDIN, "emailsSent"], tell_errors=True)
        ) as watcher:
            await watcher.tells(lemlist.add())
        assert len(watcher.errors) == 1

    @pytest.mark.asyncio
    async def test_an_error_that_comes_back_is_told_again(self, lemlist: Listing, faults, quick):
        async with Watcher(trigger(tell_errors=True)) as watcher:
            ids: list[str] = []
            for time in (1, 2):
                faults += [REVOKED] * 2
                await until(lambda time=time: len(watcher.errors) == time)
                ids.append(lemlist.add())
                await watcher.tells(*ids)
        assert len(watcher.errors) == 2

    @pytest.mark.asyncio
    async def test_a_refused_type_is_told_although_the_others_go_on(self, lemlist: Listing):
        lemlist.unknown.add("emailReplied")
        types = ["emailReplied", REPLY]
        async with Watcher(trigger(activity_type=types, tell_errors=True)) as watcher:
            await watcher.tells(lemlist.add())
            await watcher.tells("act_0", lemlist.add())
        [error] = watcher.errors
        assert error["error"] == LemlistValidationError.__name__

    @pytest.mark.asyncio
    async def test_none_is_told_unless_asked_for(self, lemlist: Listing, faults, quick):
        faults += [REVOKED] * 3
        async with Watcher(trigger()) as watcher:
            await watcher.tells(lemlist.add())
        assert not watcher.errors
