# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lemlist.activities import OVERLAP, RESULT_LIMIT
from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistRateLimitError,
    LemlistServerError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.triggers import feed, shared
from airflow_provider_lemlist.triggers.activity import ActivityTrigger
from tests.unit.activity_listing import ago
from tests.unit.triggers.watching import cancel, until
from tests.waiting import LONGEST, wait_for

if TYPE_CHECKING:
    from tests.unit.activity_listing import Listing

HOUR_AGO = ago(hours=1).isoformat()
REPLY = "emailsReplied"
NEVER = 3600.0


def trigger(**changes: Any) -> ActivityTrigger:
    kwargs: dict[str, Any] = {
        "activity_type": [REPLY],
        "since": HOUR_AGO,
        "campaign_id": "cam_1",
        "poke_interval": 0.05,
    }
    return ActivityTrigger(**kwargs | changes)


async def event_of(a_trigger: ActivityTrigger) -> dict[str, Any]:
    [event] = [event.payload async for event in a_trigger.run()]
    return event


def found(event: dict[str, Any]) -> list[str]:
    assert event["status"] == "success", event
    return [activity["_id"] for activity in event["activities"]]


class TestSerialization:
    def test_it_comes_back_as_it_was(self):
        a_trigger = trigger(
            lead_id="lea_1",
            min_count=3,
            is_first=False,
            bots="count",
            max_consecutive_failures=None,
            lemlist_conn_id="other",
        )
        class_path, kwargs = a_trigger.serialize()
        assert class_path == f"{ActivityTrigger.__module__}.{ActivityTrigger.__qualname__}"
        again = ActivityTrigger(**json.loads(json.dumps(kwargs)))
        assert again.serialize() == (class_path, kwargs)
        assert kwargs == {
            "activity_type": [REPLY],
            "since": HOUR_AGO,
            "campaign_id": "cam_1",
            "lead_id": "lea_1",
            "min_count": 3,
            "is_first": False,
            "bots": "count",
            "poke_interval": 0.05,
            "max_consecutive_failures": None,
            "lemlist_conn_id": "other",
        }

    def test_a_trigger_stored_before_bots_existed_still_loads(self):
        class_path, kwargs = trigger().serialize()
        del kwargs["bots"]
        assert ActivityTrigger(**kwargs).bots == "ignore"

    def test_airflow_stores_it(self):
        """The way of a deferral through the database, by the serializer of the Airflow that runs."""
        from airflow.serialization.serialized_objects import BaseSerialization

        kwargs = trigger().serialize()[1]
        assert BaseSerialization.deserialize(BaseSerialization.serialize(kwargs)) == kwargs


class TestOneTrigger:
    @pytest.mark.asyncio
    async def test_an_existing_activity_fires_at_once(self, lemlist: Listing):
        reply = lemlist.add()
        assert found(await event_of(trigger(poke_interval=NEVER))) == [reply]

    @pytest.mark.asyncio
    async def test_it_waits_until_there_are_enough(self, lemlist: Listing):
        waiting = asyncio.create_task(event_of(trigger(min_count=2)))
        await until(lambda: len(lemlist.queries) >= 2)
        first = lemlist.add()
        await asyncio.sleep(0.2)
        assert not waiting.done()
        second = lemlist.add()
        assert found(await waiting) == [first, second]

    @pytest.mark.asyncio
    async def test_it_counts_several_types_together(self, lemlist: Listing):
        ids = [lemlist.add(), lemlist.add("linkedinReplied")]
        lemlist.add("emailsSent")
        event = await event_of(trigger(activity_type=[REPLY, "linkedinReplied"], min_count=2))
        assert found(event) == ids

    @pytest.mark.asyncio
    async def test_the_request_has_the_version_and_both_bounds(self, lemlist: Listing):
        lemlist.add(isFirst=False)
        await event_of(trigger(lead_id="lea_1", is_first=False))
        [query] = lemlist.queries
        assert query.pop("maxDate") > query.pop("minDate")
        assert query == {
            "version": "v2",
            "type": REPLY,
            "campaignId": "cam_1",
            "leadId": "lea_1",
            "isFirst": "false",
            "offset": "0",
            "limit": "100",
        }

    @pytest.mark.asyncio
    async def test_the_event_is_plain_and_has_no_personal_data(self, lemlist: Listing):
        lemlist.add()
        text = json.dumps(await event_of(trigger()))
        assert "ana" not in text.lower()
        assert "lea_1" in text

    @pytest.mark.asyncio
    async def test_no_more_pages_of_a_long_listing_are_read_than_the_result_needs(self, lemlist: Listing):
        for minute in range(20 * RESULT_LIMIT):
            lemlist.add(at=ago(seconds=minute / 10))
        assert len(found(await event_of(trigger()))) == RESULT_LIMIT
        assert len(lemlist.queries) == RESULT_LIMIT / 100

    @pytest.mark.asyncio
    async def test_after_the_first_read_only_the_news_are_read(self, lemlist: Listing):
        waiting = asyncio.create_task(event_of(trigger(since=ago(days=30).isoformat())))
        await until(lambda: len(lemlist.queries) >= 2)
        lemlist.add()
        await waiting
        first, second = lemlist.queries[:2]
        assert first["minDate"] < ago(days=29).isoformat()
        reached_back = datetime.fromisoformat(first["maxDate"]) - datetime.fromisoformat(second["minDate"])
        assert reached_back == OVERLAP

    @pytest.mark.asyncio
    async def test_activities_of_earlier_reads_still_count(self, lemlist: Listing):
        old = lemlist.add(at=ago(days=2))
        waiting = asyncio.create_task(event_of(trigger(since=ago(days=3).isoformat(), min_count=2)))
        await until(lambda: len(lemlist.queries) >= 2)
        new = lemlist.add()
        assert found(await waiting) == [old, new]

    @pytest.mark.asyncio
    async def test_an_activity_listed_hours_late_is_found_by_the_next_full_read(
        self, lemlist: Listing, monkeypatch
    ):
        clock = [datetime.now(UTC)]
        monkeypatch.setattr(feed, "utc_now", lambda: clock[0])
        arguments = {"since": ago(hours=6).isoformat(), "poke_interval": 0.02}
        waiting = [
            asyncio.create_task(event_of(trigger(lead_id=f"lea_{n}", **arguments))) for n in range(1000)
        ]
        await until(lambda: len(lemlist.queries) >= 2)
        late = lemlist.add(lead_id="lea_7", at=ago(hours=3))
        read = len(lemlist.queries)
        await until(lambda: len(lemlist.queries) >= read + 3)
        assert not waiting[7].done()
        clock[0] += timedelta(minutes=30)
        async with asyncio.timeout(LONGEST):
            assert found(await waiting[7]) == [late]
        full = [query for query in lemlist.queries if query["minDate"] < ago(hours=5).isoformat()]
        assert len(full) == 2, "a thousand sensors share the first read and the full one"
        await cancel(waiting)

    @pytest.mark.asyncio
    async def test_opens_by_bots_do_not_fire_unless_they_count(self, lemlist: Listing):
        opened = "emailsOpened"
        by_bot = lemlist.add(opened, bot=True)
        ignoring = asyncio.create_task(event_of(trigger(activity_type=opened)))
        assert found(await event_of(trigger(activity_type=opened, bots="count"))) == [by_bot]
        await until(lambda: len(lemlist.queries) >= 3)
        assert not ignoring.done()
        by_person = lemlist.add(opened, bot=False)
        assert found(await ignoring) == [by_person]

    @pytest.mark.asyncio
    async def test_opens_by_bots_do_not_shorten_the_read_of_a_sensor_that_ignores_them(
        self, lemlist: Listing, monkeypatch
    ):
        monkeypatch.setattr("airflow_provider_lemlist.activities.RESULT_LIMIT", 2)
        by_person = lemlist.add("emailsOpened", at=ago(minutes=50), bot=False)
        for minute in range(150):
            lemlist.add("emailsOpened", at=ago(seconds=minute), bot=True)
        lemlist.answering.clear()
        both = [
            asyncio.create_task(
                event_of(trigger(activity_type="emailsOpened", bots=bots, poke_interval=NEVER))
            )
            for bots in ("ignore", "count")
        ]
        await until(lambda: lemlist.queries)
        lemlist.answering.set()
        async with asyncio.timeout(LONGEST):
            assert found(await both[0]) == [by_person]
        assert len(found(await both[1])) == 2
        assert len(lemlist.reads) == 1

    @pytest.mark.asyncio
    async def test_a_restarted_trigger_finds_the_same(self, lemlist: Listing):
        reply = lemlist.add()
        class_path, kwargs = trigger().serialize()
        events = [await event_of(ActivityTrigger(**kwargs)) for _ in range(2)]
        assert events[0] == events[1]
        assert found(events[0]) == [reply]

    @pytest.mark.asyncio
    async def test_a_slow_response_does_not_block_the_event_loop(self, lemlist: Listing):
        reply = lemlist.add()
        lemlist.answering.clear()
        waiting = asyncio.create_task(event_of(trigger()))
        await until(lambda: lemlist.queries)
        # A blocked loop would not get here before the response, or before the request timed out.
        assert not waiting.done()
        lemlist.answering.set()
        assert found(await waiting) == [reply]
        assert len(lemlist.queries) == 1

    def test_every_event_loop_has_its_own_feeds(self, lemlist: Listing):
        lemlist.add()
        for _ in range(3):
            assert len(found(asyncio.run(event_of(trigger())))) == 1
        assert len(lemlist.queries) == 3

    def test_simultaneous_event_loops_do_not_share_feeds(self, lemlist: Listing):
        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(asyncio.run, event_of(trigger(poke_interval=0.2))) for _ in range(2)]
            wait_for(lambda: len(lemlist.queries) >= 2)
            reply = lemlist.add()
            assert [found(each.result(timeout=LONGEST)) for each in waiting] == [[reply], [reply]]


class TestTogether:
    @pytest.mark.asyncio
    async def test_a_thousand_leads_cost_the_requests_of_one(self, lemlist: Listing):
        leads = [f"lea_{number}" for number in range(1000)]
        started = time.monotonic()
        waiting = [asyncio.create_task(event_of(trigger(lead_id=lead, poke_interval=0.5))) for lead in leads]
        await until(lambda: len(lemlist.queries) >= 3)
        assert len(lemlist.queries) <= (time.monotonic() - started) / 0.5 + 1
        assert "leadId" not in lemlist.queries[-1]
        ids = [lemlist.add(lead_id=lead) for lead in leads]
        events = await asyncio.gather(*waiting)
        assert [found(event) for event in events] == [[activity_id] for activity_id in ids]
        assert len(lemlist.reads) <= (time.monotonic() - started) / 0.5 + 1

    @pytest.mark.asyncio
    async def test_a_thousand_leads_in_the_sandbox_stay_within_its_limit(self, monkeypatch):
        with Sandbox() as sandbox:
            monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", sandbox.airflow_connection())
            campaign = sandbox.campaign()["_id"]
            leads = [sandbox.lead(campaign, f"p{number}@example.com")["_id"] for number in range(1000)]
            started = time.monotonic()
            waiting = [
                asyncio.create_task(event_of(trigger(campaign_id=campaign, lead_id=lead, poke_interval=1)))
                for lead in leads
            ]
            await until(lambda: len(sandbox.requests("GET /activities")) >= 2)
            for lead in leads[:80]:
                sandbox.activity(lead_id=lead, type=REPLY)
            events = await asyncio.gather(*waiting[:80])
            assert [event["activities"][0]["leadId"] for event in events] == leads[:80]
            assert len(sandbox.requests()) <= (time.monotonic() - started) / 1 + 1
            assert not sandbox.violations()
            await cancel(waiting)

    @pytest.mark.asyncio
    async def test_a_thousand_that_start_together_share_one_read(self, lemlist: Listing):
        lemlist.answering.clear()
        for number in range(90):
            lemlist.add(lead_id=f"lea_{number}")
        waiting = [
            asyncio.create_task(event_of(trigger(lead_id=f"lea_{number % 90}", poke_interval=NEVER)))
            for number in range(1000)
        ]
        await until(lambda: lemlist.queries)
        lemlist.answering.set()
        events = await asyncio.gather(*waiting)
        assert all(len(found(event)) == 1 for event in events)
        assert len(lemlist.queries) == 1

    @pytest.mark.asyncio
    async def test_a_later_trigger_uses_a_recent_read(self, lemlist: Listing):
        waiting = [asyncio.create_task(event_of(trigger(poke_interval=NEVER, lead_id="lea_other")))]
        waiting += [asyncio.create_task(event_of(trigger(poke_interval=NEVER, min_count=9)))]
        lemlist.add(at=ago(minutes=5))
        await until(lambda: lemlist.queries)
        await asyncio.sleep(0.2)
        newer = trigger(since=ago(minutes=10).isoformat(), poke_interval=NEVER)
        assert len(found(await event_of(newer))) == 1
        assert len(lemlist.queries) == 1
        await cancel(waiting)

    @pytest.mark.asyncio
    async def test_an_earlier_since_gets_a_full_read(self, lemlist: Listing):
        old = lemlist.add(at=ago(days=2))
        waiting = [asyncio.create_task(event_of(trigger(poke_interval=NEVER)))]
        await until(lambda: lemlist.queries)
        await asyncio.sleep(0.2)
        further = trigger(since=ago(days=3).isoformat(), poke_interval=NEVER)
        assert found(await event_of(further)) == [old]
        assert not waiting[0].done(), "an activity before its since must not count"
        await cancel(waiting)

    @pytest.mark.asyncio
    async def test_a_second_lead_widens_the_request_to_the_campaign(self, lemlist: Listing):
        waiting = [asyncio.create_task(event_of(trigger(poke_interval=NEVER, lead_id="lea_1")))]
        await until(lambda: lemlist.queries)
        await asyncio.sleep(0.2)
        reply = lemlist.add(lead_id="lea_2", at=ago(minutes=30))
        assert found(await event_of(trigger(poke_interval=NEVER, lead_id="lea_2"))) == [reply]
        assert [query.get("leadId") for query in lemlist.queries] == ["lea_1", None]
        await cancel(waiting)

    @pytest.mark.asyncio
    async def test_a_trigger_that_a_shortened_read_does_not_satisfy_gets_a_full_one(self, lemlist: Listing):
        for number in range(RESULT_LIMIT + 50):
            lemlist.add(at=ago(seconds=number))
        lemlist.answering.clear()
        first = asyncio.create_task(event_of(trigger(poke_interval=NEVER)))
        await until(lambda: lemlist.queries)
        second = asyncio.create_task(event_of(trigger(poke_interval=NEVER, min_count=RESULT_LIMIT + 50)))
        await asyncio.sleep(0)  # it joins during the first one's read
        lemlist.answering.set()
        async with asyncio.timeout(LONGEST):
            assert len(found(await second)) == RESULT_LIMIT + 50
        assert len(found(await first)) == RESULT_LIMIT

    @pytest.mark.asyncio
    async def test_a_busy_lead_does_not_shorten_the_read_of_a_quiet_one(self, lemlist: Listing, monkeypatch):
        monkeypatch.setattr("airflow_provider_lemlist.activities.RESULT_LIMIT", 5)
        busy = [f"lea_{number}" for number in range(20)]
        quiet = lemlist.add(lead_id="lea_quiet", at=ago(minutes=30))
        for lead in busy * 6:
            lemlist.add(lead_id=lead, at=ago(minutes=1))
        events = await asyncio.gather(
            *(event_of(trigger(lead_id=lead, poke_interval=0.5)) for lead in [*busy, "lea_quiet"])
        )
        assert found(events[-1]) == [quiet]
        assert len(lemlist.reads) == 1

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "other",
        [{"campaign_id": "cam_2"}, {"is_first": True}, {"lemlist_conn_id": "lemlist_other"}],
        ids=["campaign", "is_first", "connection"],
    )
    async def test_different_campaigns_filters_and_connections_have_separate_feeds(
        self, lemlist: Listing, monkeypatch, other
    ):
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_OTHER", lemlist.connection)
        waiting = [
            asyncio.create_task(event_of(trigger(poke_interval=NEVER, **each))) for each in ({}, other)
        ]
        await until(lambda: len(lemlist.queries) == 2)
        await cancel(waiting)

    @pytest.mark.asyncio
    async def test_the_shortest_interval_decides_and_longer_ones_add_no_reads(self, lemlist: Listing):
        waiting = [
            asyncio.create_task(event_of(trigger(poke_interval=interval))) for interval in (0.2, NEVER, NEVER)
        ]
        started = time.monotonic()
        await until(lambda: len(lemlist.queries) >= 4)
        assert len(lemlist.queries) <= (time.monotonic() - started) / 0.2 + 1
        await cancel(waiting)


class TestFaults:
    @pytest.fixture
    def faults(self, monkeypatch) -> list[Exception]:
        """Errors of the next reads, in order; the hook's own retries are over by then."""
        coming: list[Exception] = []
        real = LemlistHook.list_activities

        def list_activities(self: LemlistHook, **kwargs: Any) -> Any:
            if coming:
                raise coming.pop(0)
            return real(self, **kwargs)

        monkeypatch.setattr(LemlistHook, "list_activities", list_activities)
        return coming

    @pytest.mark.asyncio
    async def test_a_retryable_error_is_survived(self, lemlist: Listing, faults):
        reply = lemlist.add()
        faults += [LemlistServerError("down", status=503), LemlistRateLimitError("busy")]
        assert found(await event_of(trigger(max_consecutive_failures=2))) == [reply]
        assert not faults

    @pytest.mark.asyncio
    async def test_a_lasting_error_fails(self, lemlist: Listing, faults):
        lemlist.add()
        faults += [LemlistServerError("still down", status=503)] * 5
        assert await event_of(trigger(max_consecutive_failures=2)) == {
            "status": "error",
            "error": "LemlistServerError",
            "message": "still down",
            "http_status": 503,
        }
        assert len(faults) == 2

    @pytest.mark.asyncio
    async def test_only_consecutive_failures_are_counted(self, lemlist: Listing, faults):
        waiting = asyncio.create_task(event_of(trigger(max_consecutive_failures=1)))
        for _ in range(3):
            faults.append(LemlistServerError("down"))
            await until(lambda: not faults)
            answered = len(lemlist.queries)
            await until(lambda answered=answered: len(lemlist.queries) > answered)
        lemlist.add()
        assert len(found(await waiting)) == 1

    @pytest.mark.asyncio
    async def test_without_a_limit_any_number_of_failures_is_survived(self, lemlist: Listing, faults):
        reply = lemlist.add()
        faults += [LemlistServerError("down")] * 15
        assert found(await event_of(trigger(max_consecutive_failures=None, poke_interval=0))) == [reply]

    @pytest.mark.asyncio
    async def test_an_error_that_a_retry_cannot_cure_fails_at_once(self, lemlist: Listing, faults):
        faults += [LemlistAuthError("wrong key", status=401)] * 2
        event = await event_of(trigger())
        assert (event["error"], event["http_status"], len(faults)) == ("LemlistAuthError", 401, 1)

    @pytest.mark.asyncio
    async def test_an_unexpected_exception_ends_the_wait_and_is_named(self, lemlist: Listing, faults):
        faults += [ZeroDivisionError("oh")] * 2
        event = await event_of(trigger())
        assert (event["error"], len(faults)) == ("LemlistError", 1)
        assert "ZeroDivisionError: oh" in event["message"]

    @pytest.mark.asyncio
    async def test_a_missing_connection_is_named(self):
        event = await event_of(trigger(lemlist_conn_id="no_such"))
        assert event["error"] == "LemlistConfigurationError"
        assert "'no_such'" in event["message"]

    @pytest.mark.asyncio
    async def test_a_refused_type_does_not_fail_other_triggers(self, lemlist: Listing):
        lemlist.unknown.add("emailReplied")
        reply = lemlist.add()
        wrong, right = await asyncio.gather(
            event_of(trigger(activity_type="emailReplied")), event_of(trigger())
        )
        assert wrong["error"] == "LemlistValidationError"
        assert found(right) == [reply]

    @pytest.mark.asyncio
    async def test_a_refused_lead_does_not_fail_other_triggers(self, lemlist: Listing):
        lemlist.unknown.add("lea_wrong")
        lemlist.answering.clear()
        reply = lemlist.add(lead_id="lea_1")
        wrong = asyncio.create_task(event_of(trigger(lead_id="lea_wrong", poke_interval=NEVER)))
        await until(lambda: lemlist.queries)
        right = asyncio.create_task(event_of(trigger(lead_id="lea_1", poke_interval=NEVER)))
        await asyncio.sleep(0)  # it joins during the other one's read
        lemlist.answering.set()
        assert (await wrong)["error"] == "LemlistValidationError"
        assert found(await right) == [reply]

    @pytest.mark.asyncio
    async def test_a_thousand_triggers_survive_an_error_with_one_request(self, lemlist: Listing, faults):
        faults += [LemlistServerError("down")] * 1000
        waiting = [
            asyncio.create_task(event_of(trigger(lead_id=f"lea_{number}", poke_interval=NEVER)))
            for number in range(1000)
        ]
        await until(lambda: len(faults) < 1000)
        await asyncio.sleep(0.3)
        assert len(faults) == 999
        await cancel(waiting)

    @pytest.mark.asyncio
    async def test_a_trigger_that_starts_during_an_outage_sends_no_request_of_its_own(
        self, lemlist: Listing, faults
    ):
        faults += [LemlistServerError("down")] * 1000
        waiting = [asyncio.create_task(event_of(trigger(poke_interval=NEVER)))]
        await until(lambda: len(faults) < 1000)
        await asyncio.sleep(0.1)
        waiting += [
            asyncio.create_task(event_of(trigger(lead_id=f"lea_{number}", poke_interval=NEVER)))
            for number in range(10)
        ]
        await asyncio.sleep(0.2)
        assert len(faults) == 999
        await cancel(waiting)


class TestCleanup:
    @pytest.mark.asyncio
    async def test_cancelling_a_trigger_does_not_cancel_the_shared_read(self, lemlist: Listing):
        reply = lemlist.add()
        lemlist.answering.clear()
        first, second = (asyncio.create_task(event_of(trigger(poke_interval=NEVER))) for _ in range(2))
        await until(lambda: lemlist.queries)
        await cancel([first])
        lemlist.answering.set()
        assert found(await second) == [reply]
        assert len(lemlist.queries) == 1

    @pytest.mark.asyncio
    async def test_a_feed_is_removed_with_its_last_trigger(self, lemlist: Listing):
        lemlist.add()
        waiting = [asyncio.create_task(event_of(trigger(min_count=2, lead_id=f"lea_{n}"))) for n in range(50)]
        await event_of(trigger())
        assert shared._LOOPS
        await cancel(waiting)
        assert not shared._LOOPS

    @pytest.mark.asyncio
    async def test_a_read_without_waiting_triggers_ends_by_itself(self, lemlist: Listing):
        lemlist.answering.clear()
        waiting = asyncio.create_task(event_of(trigger()))
        await until(lambda: lemlist.queries)
        await cancel([waiting])
        del waiting  # its exception holds the frames
        lemlist.answering.set()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

        def feeds() -> list[Any]:
            gc.collect()
            return [each for each in gc.get_objects() if type(each) is feed.Feed]

        await until(lambda: not feeds())  # the thread of the request may hold it a moment longer

    @pytest.mark.asyncio
    async def test_activities_that_no_trigger_needs_are_dropped(self, lemlist: Listing):
        for number in range(100):
            lemlist.add(at=ago(days=2, seconds=number))
        waiting = [asyncio.create_task(event_of(trigger()))]
        long_ago = asyncio.create_task(event_of(trigger(since=ago(days=3).isoformat(), min_count=101)))
        await until(lambda: len(lemlist.queries) >= 2)
        await cancel([long_ago])
        [loop_feeds] = shared._LOOPS.values()
        [the_feed] = loop_feeds.values()
        await until(lambda: not the_feed.reading.activities[None])
        await cancel(waiting)
