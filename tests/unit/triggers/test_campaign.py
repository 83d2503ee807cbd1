# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistRateLimitError,
    LemlistServerError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.triggers import shared
from airflow_provider_lemlist.triggers.campaign import CampaignStatsTrigger
from tests.unit.activity_listing import ago
from tests.unit.conftest import API_KEY, Act, Stage
from tests.unit.statistics import BATCH, add_activity, add_campaign, asked
from tests.unit.triggers.watching import cancel, until
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox

WEEK_AGO = ago(days=7).isoformat()
NEVER = 3600.0


def trigger(campaign_id: str = "cam_1", **changes: Any) -> CampaignStatsTrigger:
    kwargs: dict[str, Any] = {
        "campaign_id": campaign_id,
        "metric": "replied",
        "above": 0,
        "since": WEEK_AGO,
        "poke_interval": 0.05,
    }
    return CampaignStatsTrigger(**kwargs | changes)


async def event_of(a_trigger: CampaignStatsTrigger) -> dict[str, Any]:
    async with asyncio.timeout(LONGEST):
        [event] = [event.payload async for event in a_trigger.run()]
    return event


def value(event: dict[str, Any]) -> Any:
    assert event["status"] == "success", event
    return event["stats"]["value"]


def waiting_for(*triggers: CampaignStatsTrigger) -> list[asyncio.Task[dict[str, Any]]]:
    return [asyncio.create_task(event_of(each)) for each in triggers]


class TestSerialization:
    def test_it_comes_back_as_it_was(self):
        a_trigger = trigger(
            metric="bounce_rate",
            above=None,
            below=0.02,
            min_sent=20,
            since=None,
            window=172800.0,
            channels=["email"],
            max_consecutive_failures=None,
            lemlist_conn_id="other",
        )
        class_path, kwargs = a_trigger.serialize()
        assert class_path == "airflow_provider_lemlist.triggers.campaign.CampaignStatsTrigger"
        again = CampaignStatsTrigger(**json.loads(json.dumps(kwargs)))
        assert again.serialize() == (class_path, kwargs)
        assert again._keys("cam_1") == a_trigger._keys("cam_1")

    def test_airflow_stores_it(self):
        """The way of a deferral through the database, by the serializer of the Airflow that runs."""
        from airflow.serialization.serialized_objects import BaseSerialization

        kwargs = trigger(channels=["email"]).serialize()[1]
        assert BaseSerialization.deserialize(BaseSerialization.serialize(kwargs)) == kwargs


class TestOneTrigger:
    @pytest.mark.asyncio
    async def test_figures_beyond_the_limit_fire_at_once(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=3, emailsReplied=2)
        event = await event_of(trigger(campaign_id, poke_interval=NEVER))
        assert value(event) == 2
        assert event["stats"]["campaign_id"] == campaign_id
        assert event["stats"]["figures"]["sent"] == 3
        assert json.loads(json.dumps(event)) == event
        assert "example.com" not in json.dumps(event)

    @pytest.mark.asyncio
    async def test_it_waits_until_the_limit_is_passed(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=0)
        [task] = waiting_for(trigger(campaign_id, above=1))
        add_activity(quick_lemlist, campaign_id, "emailsReplied")
        read = len(asked(quick_lemlist))
        await until(lambda: len(asked(quick_lemlist)) >= read + 2)
        assert not task.done()
        add_activity(quick_lemlist, campaign_id, "emailsReplied")
        assert value(await task) == 2

    @pytest.mark.asyncio
    async def test_a_rate_of_few_messages_is_waited_for(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=4, emailsBounced=1)
        rate = {"metric": "bounce_rate", "above": 0.01, "min_sent": 5}
        [task] = waiting_for(trigger(campaign_id, **rate))
        await until(lambda: len(asked(quick_lemlist)) >= 2)
        assert not task.done()
        add_activity(quick_lemlist, campaign_id, "emailsSent")
        assert value(await task) == 0.2

    @pytest.mark.asyncio
    async def test_the_request_has_the_period_and_the_channels(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=0)
        await event_of(trigger(campaign_id, above=None, below=1, channels=["email"]))
        (body,) = asked(quick_lemlist)
        assert body["endDate"] > body["startDate"]
        assert body["startDate"][:19] == WEEK_AGO[:19]
        assert (body["campaignIds"], body["channels"]) == ([campaign_id], ["email"])

    @pytest.mark.asyncio
    async def test_a_window_moves_with_each_read_and_a_moment_does_not(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=0)
        for period, moves in ({"since": None, "window": 86400.0}, True), ({}, False):
            before = len(asked(quick_lemlist))
            tasks = waiting_for(trigger(campaign_id, **period))
            await until(lambda before=before: len(asked(quick_lemlist)) >= before + 3)
            await cancel(tasks)
            starts = [each["startDate"] for each in asked(quick_lemlist)[before:]]
            assert len({*starts}) == (len(starts) if moves else 1)

    @pytest.mark.asyncio
    async def test_a_restarted_trigger_finds_the_same(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=3, emailsReplied=2)
        kwargs = trigger(campaign_id).serialize()[1]
        assert [value(await event_of(CampaignStatsTrigger(**kwargs))) for _ in range(2)] == [2, 2]

    @pytest.mark.asyncio
    async def test_a_slow_response_does_not_block_the_event_loop(
        self, quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
    ):
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        started, answering = threading.Event(), threading.Event()
        real = LemlistHook.get_campaigns_stats

        def slow(*args: Any, **kwargs: Any) -> Any:
            started.set()
            assert answering.wait(LONGEST)
            return real(*args, **kwargs)

        monkeypatch.setattr(LemlistHook, "get_campaigns_stats", slow)
        [task] = waiting_for(trigger(campaign_id))
        await until(started.is_set)
        # A blocked loop would not get here.
        assert not task.done()
        answering.set()
        assert value(await task) == 1


class TestTogether:
    @pytest.mark.asyncio
    async def test_a_hundred_campaigns_share_one_request_and_a_hundred_and_fifty_two(
        self, quick_lemlist: Sandbox
    ):
        ids = [add_campaign(quick_lemlist, sent=0) for _ in range(150)]
        for count, sizes in ((100, [100]), (150, [50, 100])):
            before = len(asked(quick_lemlist))
            tasks = waiting_for(*(trigger(each, poke_interval=NEVER) for each in ids[:count]))
            await until(lambda before=before, sizes=sizes: len(asked(quick_lemlist)) == before + len(sizes))
            requests = asked(quick_lemlist)[before:]
            assert sorted(len(each["campaignIds"]) for each in requests) == sizes
            assert {id for each in requests for id in each["campaignIds"]} == {*ids[:count]}
            await cancel(tasks)

    @pytest.mark.asyncio
    async def test_each_fires_by_its_own_campaign_and_limit(self, quick_lemlist: Sandbox):
        replies = [add_campaign(quick_lemlist, sent=3, emailsReplied=count) for count in range(3)]
        [none, one, two, many] = waiting_for(
            *(trigger(each) for each in replies), trigger(replies[2], above=2)
        )
        assert (value(await one), value(await two)) == (1, 2)
        read = len(asked(quick_lemlist))
        await until(lambda: len(asked(quick_lemlist)) >= read + 2)
        assert not none.done()
        assert not many.done()
        assert {*asked(quick_lemlist)[-1]["campaignIds"]} == {replies[0], replies[2]}
        await cancel([none, many])

    @pytest.mark.asyncio
    async def test_a_trigger_that_joins_reads_its_campaign_and_uses_a_recent_read_of_it(
        self, quick_lemlist: Sandbox
    ):
        first, second = (add_campaign(quick_lemlist, sent=1, emailsReplied=1) for _ in range(2))
        tasks = waiting_for(trigger(first, above=5, poke_interval=NEVER))
        await until(lambda: len(asked(quick_lemlist)) == 1)
        assert value(await event_of(trigger(second, poke_interval=NEVER))) == 1
        assert len(asked(quick_lemlist)) == 2
        assert value(await event_of(trigger(first, poke_interval=NEVER))) == 1
        assert len(asked(quick_lemlist)) == 2
        await cancel(tasks)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "other",
        [
            {"since": ago(days=6).isoformat()},
            {"since": None, "window": 86400.0},
            {"channels": ["email"]},
            {"lemlist_conn_id": "lemlist_other"},
        ],
        ids=["since", "window", "channels", "connection"],
    )
    async def test_different_periods_channels_and_connections_are_read_apart(
        self, quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
    ):
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_OTHER", quick_lemlist.airflow_connection())
        campaign_id = add_campaign(quick_lemlist, sent=0)
        tasks = waiting_for(
            *(trigger(campaign_id, poke_interval=NEVER, **each) for each in ({}, other, other))
        )
        await until(lambda: len(asked(quick_lemlist)) == 2)
        await asyncio.sleep(0.2)
        assert len(asked(quick_lemlist)) == 2
        await cancel(tasks)


class TestFaults:
    @pytest.fixture
    def faults(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        """Errors of the next reads, in order; the hook's own retries are over by then."""
        coming: list[Exception] = []
        real = LemlistHook.get_campaigns_stats

        def stats(*args: Any, **kwargs: Any) -> Any:
            if coming:
                raise coming.pop(0)
            return real(*args, **kwargs)

        monkeypatch.setattr(LemlistHook, "get_campaigns_stats", stats)
        return coming

    @pytest.mark.asyncio
    async def test_a_retryable_error_is_survived(self, quick_lemlist: Sandbox, faults: list[Exception]):
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        faults += [LemlistServerError("down", status=503), LemlistRateLimitError("busy")]
        assert value(await event_of(trigger(campaign_id, max_consecutive_failures=2))) == 1
        assert not faults

    @pytest.mark.asyncio
    async def test_a_lasting_error_fails(self, quick_lemlist: Sandbox, faults: list[Exception]):
        faults += [LemlistServerError("still down", status=503)] * 5
        assert await event_of(trigger(max_consecutive_failures=2)) == {
            "status": "error",
            "error": "LemlistServerError",
            "message": "still down",
            "http_status": 503,
        }
        assert len(faults) == 2

    @pytest.mark.asyncio
    async def test_an_error_that_a_retry_cannot_cure_fails_at_once(
        self, quick_lemlist: Sandbox, faults: list[Exception]
    ):
        faults += [LemlistAuthError("wrong key", status=401)] * 2
        event = await event_of(trigger())
        assert (event["error"], event["http_status"], len(faults)) == ("LemlistAuthError", 401, 1)

    @pytest.mark.asyncio
    async def test_an_unexpected_exception_ends_the_wait_and_is_named(
        self, quick_lemlist: Sandbox, faults: list[Exception]
    ):
        faults += [ZeroDivisionError("oh")] * 2
        event = await event_of(trigger())
        assert event["error"] == "LemlistError"
        assert "ZeroDivisionError: oh" in event["message"]

    @pytest.mark.asyncio
    async def test_a_missing_connection_is_named(self):
        event = await event_of(trigger(lemlist_conn_id="no_such"))
        assert event["error"] == "LemlistConfigurationError"
        assert "'no_such'" in event["message"]

    @pytest.mark.asyncio
    async def test_an_unknown_campaign_fails_its_own_trigger_only(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        wrong, right = await asyncio.gather(*waiting_for(trigger("cam_gone"), trigger(campaign_id)))
        assert wrong["error"] == "LemlistNotFoundError"
        assert value(right) == 1

    @pytest.mark.asyncio
    async def test_a_campaign_of_another_team_fails_its_own_trigger_only(self, quick_lemlist: Sandbox):
        theirs, ours = (add_campaign(quick_lemlist, sent=1, emailsReplied=1) for _ in range(2))
        quick_lemlist.fault(BATCH, "status", status=400, text="Bad team", times=1)
        quick_lemlist.fault(
            f"GET /v2/campaigns/{theirs}/stats", "status", status=400, text="Bad team", times=1
        )
        wrong, right = await asyncio.gather(*waiting_for(trigger(theirs), trigger(ours)))
        assert wrong["error"] == "LemlistValidationError"
        assert value(right) == 1

    @pytest.mark.asyncio
    async def test_a_missing_counter_is_never_zero_and_may_come(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ):
        connection = {
            "conn_type": "lemlist", "host": stage.url, "password": API_KEY, "extra": {"budget_store": "memory://"},
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", json.dumps(connection))
        without = Act(body={"results": [{"campaignId": "cam_1", "messagesSent": 9}]})
        stage.script = [without, Act(body={"results": [{"campaignId": "cam_1", "replied": 3}]})]
        assert value(await event_of(trigger(above=None, below=5))) == 3
        stage.script = [without] * 3
        event = await event_of(trigger(above=None, below=5, max_consecutive_failures=2))
        assert event["error"] == "LemlistUnexpectedReplyError"
        assert "cam_1 lack replied" in event["message"]

    @pytest.mark.asyncio
    async def test_without_a_limit_any_number_of_failures_is_survived(
        self, quick_lemlist: Sandbox, faults: list[Exception]
    ):
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        faults += [LemlistServerError("down")] * 15
        a_trigger = trigger(campaign_id, max_consecutive_failures=None, poke_interval=0)
        assert value(await event_of(a_trigger)) == 1


class TestCleanup:
    @pytest.mark.asyncio
    async def test_cancelling_a_trigger_leaves_the_others(self, quick_lemlist: Sandbox):
        ids = [add_campaign(quick_lemlist, sent=0) for _ in range(2)]
        first, second = waiting_for(*(trigger(each) for each in ids))
        await until(lambda: asked(quick_lemlist))
        await cancel([first])
        add_activity(quick_lemlist, ids[1], "emailsReplied")
        assert value(await second) == 1
        assert not shared._LOOPS

    def test_every_event_loop_reads_for_itself(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        for _ in range(3):
            assert value(asyncio.run(event_of(trigger(campaign_id, poke_interval=NEVER)))) == 1
        assert len(asked(quick_lemlist)) == 3


def test_period_of_seconds_is_that_of_the_sensor():
    [key] = trigger(since=None, window=timedelta(days=2).total_seconds())._keys("cam_1")
    assert (key.period.since, key.period.window) == (None, timedelta(days=2))
