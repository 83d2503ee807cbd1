# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lemlist.activities import RETURNED_FIELDS
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.get_provider_info import get_provider_info
from airflow_provider_lemlist.triggers import events, watch
from airflow_provider_lemlist.triggers.activity import ActivityTrigger
from airflow_provider_lemlist.triggers.events import ActivityEventTrigger, activities_in
from airflow_provider_lemlist.triggers.feed import FULL_READ_INTERVAL
from tests.unit.activity_listing import ago
from tests.unit.triggers.watching import (
    HOUR_AGO,
    LINKEDIN,
    NEVER,
    REPLY,
    Watcher,
    cancel,
    needs_watchers,
    trigger,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.activity_listing import Listing
    from tests.unit.triggers.conftest import Clock

pytestmark = pytest.mark.usefixtures("settled")

PARIS = timezone(timedelta(hours=1))


class TestArguments:
    def test_airflow_2_is_refused_and_told_what_to_use(self, monkeypatch):
        monkeypatch.setattr(events, "has_asset_watchers", lambda: False)
        with pytest.raises(LemlistConfigurationError, match="use ActivitySensor in a DAG"):
            ActivityEventTrigger(REPLY)

    def test_the_provider_names_it(self):
        modules = [module for each in get_provider_info()["triggers"] for module in each["python-modules"]]
        assert ActivityEventTrigger.__module__ in modules

    @needs_watchers
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("activity_type", []),
            ("activity_type", ""),
            ("activity_type", [REPLY, 3]),
            ("activity_type", None),
            ("campaign_id", "cam 1"),
            ("campaign_id", 7),
            ("campaign_id", ""),
            ("lead_id", "none"),
            ("lead_id", ["lea_1"]),
            ("poll_interval", 0),
            ("poll_interval", -1.5),
            ("poll_interval", "30"),
            ("poll_interval", True),
            ("poll_interval", float("nan")),
            ("poll_interval", float("inf")),
            ("start", "yesterday"),
            ("start", 20260302),
            ("start", None),
            ("batch", 0),
            ("batch", 2.5),
            ("batch", "10"),
            ("bots", "maybe"),
            ("bots", None),
            ("overlap", timedelta(0)),
            ("overlap", -60),
            ("overlap", "1 h"),
            ("overlap", float("inf")),
            ("overlap", timedelta.max),
            ("tell_errors", "yes"),
            ("tell_errors", None),
            ("state_path", ""),
            ("state_path", 5),
            ("lemlist_conn_id", ""),
            ("lemlist_conn_id", None),
        ],
    )
    def test_a_bad_value_is_one_error_that_names_argument_and_value(self, name, value):
        with pytest.raises(LemlistConfigurationError) as raised:
            trigger(**{name: value})
        assert name in str(raised.value)
        shown = value.total_seconds() if isinstance(value, timedelta) else value
        known = ("is empty", f"{shown!r}", type(value).__name__, "contains 3")
        assert any(each in str(raised.value) for each in known), raised.value

    @needs_watchers
    def test_it_comes_back_from_airflow_as_it_was(self):
        from airflow.serialization.encoders import encode_trigger
        from airflow.serialization.serialized_objects import BaseSerialization

        given = trigger(
            activity_type=[REPLY, LINKEDIN],
            lead_id="lea_1",
            start=datetime(2026, 3, 2, 8, 30, tzinfo=PARIS),
            batch=7,
            bots="count",
            overlap=timedelta(minutes=90),
            tell_errors=True,
            state_path="s3://bucket/replies.json",
            lemlist_conn_id="other",
        )
        class_path, kwargs = given.serialize()
        assert class_path == f"{ActivityEventTrigger.__module__}.{ActivityEventTrigger.__qualname__}"
        assert kwargs == json.loads(json.dumps(kwargs)) == {
            "activity_type": [REPLY, LINKEDIN],
            "campaign_id": "cam_1",
            "lead_id": "lea_1",
            "poll_interval": 0.02,
            "start": "2026-03-02T07:30:00+00:00",
            "batch": 7,
            "bots": "count",
            "overlap": 5400.0,
            "tell_errors": True,
            "state_path": "s3://bucket/replies.json",
            "lemlist_conn_id": "other",
        }  # fmt: skip
        stored = json.loads(json.dumps(encode_trigger(given)["kwargs"]))
        again = {
            name: BaseSerialization.deserialize(value) if isinstance(value, dict) else value
            for name, value in stored.items()
        }
        again["activity_type"] = BaseSerialization.deserialize(stored["activity_type"])
        assert ActivityEventTrigger(**again).serialize() == (class_path, kwargs)

    @needs_watchers
    def test_equal_watchers_are_one_trigger_of_airflow(self):
        def hashed(**changes: Any) -> int:
            return ActivityEventTrigger.hash(*trigger(**changes).serialize())

        moment = datetime(2026, 3, 2, 8, 30, tzinfo=PARIS)
        assert hashed() == hashed()
        assert hashed(activity_type=REPLY) == hashed(activity_type=[REPLY])
        assert hashed(start=moment) == hashed(start=moment.astimezone(UTC)) == hashed(start=str(moment))
        assert hashed(overlap=60) == hashed(overlap=timedelta(minutes=1))
        assert hashed(poll_interval=30) == hashed(poll_interval=30.0)
        assert hashed(lead_id="lea_1") != hashed(lead_id="lea_2")

    @needs_watchers
    def test_it_is_the_trigger_of_an_asset_watcher(self):
        from airflow.sdk import Asset, AssetWatcher

        given = trigger()
        asset = Asset("lemlist_replies", watchers=[AssetWatcher(name="replies", trigger=given)])
        assert asset.watchers[0].trigger is given


@needs_watchers
class TestTelling:
    @pytest.mark.asyncio
    async def test_the_oldest_are_told_first_and_no_more_than_a_batch_in_an_event(self, lemlist: Listing):
        ids = [lemlist.add(at=ago(minutes=minute)) for minute in (3, 1, 5, 4, 2)]
        async with Watcher(trigger(batch=2)) as watcher:
            await until(lambda: len(watcher.ids) >= 5)
        assert watcher.parts == [[ids[2], ids[3]], [ids[0], ids[4]], [ids[1]]]

    @pytest.mark.asyncio
    async def test_what_one_look_finds_is_one_event(self, lemlist: Listing):
        ids = [lemlist.add(at=ago(seconds=200 - number)) for number in range(150)]
        async with Watcher(trigger(batch=150)) as watcher:
            await watcher.tells(*ids)
        assert len(watcher.events) == 1

    @pytest.mark.asyncio
    async def test_the_delay_of_each_activity_is_emitted(self, lemlist: Listing, clock: Clock, emitted):
        moments = [ago(minutes=minute) for minute in (30, 3)]
        ids = [lemlist.add(at=moment) for moment in moments]
        async with Watcher(trigger()) as watcher:
            await watcher.tells(*ids)
        delays = emitted.timings["lemlist.event_delay"]
        assert [round(delay) for delay in delays] == pytest.approx(
            [(clock.now - moment).total_seconds() for moment in moments], abs=30
        )

    @pytest.mark.asyncio
    async def test_nothing_is_told_twice(self, lemlist: Listing):
        ids = [lemlist.add()]
        async with Watcher(trigger()) as watcher:
            await watcher.tells(*ids)
            for _ in range(3):
                read = len(lemlist.reads)
                await until(lambda read=read: len(lemlist.reads) >= read + 2)
                ids.append(lemlist.add())
                await watcher.tells(*ids)

    @pytest.mark.asyncio
    async def test_several_types_are_told_together_by_their_moments(self, lemlist: Listing):
        ids = [
            lemlist.add(LINKEDIN, at=ago(minutes=3)),
            lemlist.add(REPLY, at=ago(minutes=2)),
            lemlist.add(LINKEDIN, at=ago(minutes=1)),
        ]
        lemlist.add("emailsSent")
        async with Watcher(trigger(activity_type=[REPLY, LINKEDIN])) as watcher:
            await watcher.tells(*ids)
            assert len(watcher.events) == 1
            more = [lemlist.add(REPLY)]
            await watcher.tells(*ids, *more)
            more.append(lemlist.add(LINKEDIN))
            await watcher.tells(*ids, *more)

    @pytest.mark.asyncio
    async def test_a_batch_of_several_types_moves_the_cursor_of_each(self, lemlist: Listing):
        ids = [lemlist.add((REPLY, LINKEDIN)[number % 2], at=ago(minutes=9 - number)) for number in range(9)]
        async with Watcher(trigger(activity_type=[REPLY, LINKEDIN], batch=2)) as watcher:
            await watcher.tells(*ids)
            assert [len(part) for part in watcher.parts] == [2, 2, 2, 2, 1]
            await watcher.tells(*ids, lemlist.add())

    @pytest.mark.asyncio
    async def test_only_the_lead_and_the_campaign_that_are_watched_count(self, lemlist: Listing):
        lemlist.add(lead_id="lea_2")
        lemlist.add(campaignId="cam_2")
        watched = lemlist.add(lead_id="lea_1")
        async with (
            Watcher(trigger(lead_id="lea_1")) as one,
            Watcher(trigger(campaign_id=None)) as all_of_them,
        ):
            await one.tells(watched)
            await all_of_them.tells("act_0", "act_1", watched)
            await one.tells(watched, lemlist.add(lead_id="lea_1"))

    @pytest.mark.asyncio
    async def test_opens_by_bots_are_told_only_if_they_count(self, lemlist: Listing):
        by_bot = lemlist.add("emailsOpened", bot=True)
        by_person = lemlist.add("emailsOpened", bot=False)
        opened = {"activity_type": "emailsOpened"}
        async with Watcher(trigger(**opened)) as one, Watcher(trigger(**opened, bots="count")) as other:
            await one.tells(by_person)
            await other.tells(by_bot, by_person)

    @pytest.mark.asyncio
    @pytest.mark.parametrize("start", [ago(minutes=30), ago(minutes=30).isoformat()])
    async def test_what_happened_before_the_start_is_not_told(self, lemlist: Listing, start):
        lemlist.add(at=ago(minutes=31))
        later = lemlist.add(at=ago(minutes=29))
        async with Watcher(trigger(start=start)) as watcher:
            await watcher.tells(later)

    @pytest.mark.asyncio
    async def test_now_is_when_the_trigger_first_runs(self, lemlist: Listing, clock: Clock):
        watcher = Watcher(trigger(start="now"))
        lemlist.add(at=clock.now - timedelta(seconds=1))
        clock.now += timedelta(minutes=1)
        lemlist.add(at=clock.now - timedelta(seconds=1))
        later = lemlist.add(at=clock.now + timedelta(seconds=1))
        async with watcher:
            await until(lambda: lemlist.reads)
            clock.now += timedelta(minutes=1)
            await watcher.tells(later)

    @pytest.mark.asyncio
    async def test_what_is_listed_late_within_the_overlap_is_told_by_the_next_look(
        self, lemlist: Listing, clock: Clock
    ):
        first = lemlist.add(at=clock.now)
        async with Watcher(trigger(start=ago(hours=9), overlap=timedelta(minutes=30))) as watcher:
            await watcher.tells(first)
            lemlist.add(at=clock.now - timedelta(minutes=31))
            late = lemlist.add(at=clock.now - timedelta(minutes=29))
            await watcher.tells(first, late)

    @pytest.mark.asyncio
    async def test_the_longest_overlap_of_a_feed_is_read(self, lemlist: Listing, clock: Clock):
        long, short = trigger(start=ago(hours=9)), trigger(start=ago(hours=9), overlap=60)
        async with Watcher(long) as watcher, Watcher(short) as other:
            first = lemlist.add(at=clock.now)
            await watcher.tells(first)
            await other.tells(first)
            await watcher.tells(first, lemlist.add(at=clock.now - timedelta(minutes=59)))

    @pytest.mark.asyncio
    async def test_what_is_listed_hours_late_is_told_within_half_an_hour(
        self, lemlist: Listing, clock: Clock
    ):
        first = lemlist.add(at=clock.now)
        async with Watcher(trigger(start=ago(days=3))) as watcher:
            await watcher.tells(first)
            read = len(lemlist.reads)
            late = lemlist.add(at=clock.now - timedelta(hours=23))
            await until(lambda: len(lemlist.reads) >= read + 3)
            assert watcher.ids == [first]
            clock.now += FULL_READ_INTERVAL
            await watcher.tells(first, late)

    @pytest.mark.asyncio
    async def test_the_whole_window_is_read_once(self, lemlist: Listing):
        start = ago(hours=9).replace(microsecond=123456)
        async with Watcher(trigger(start=start)) as watcher:
            await watcher.tells(lemlist.add(at=ago(hours=5)))
            await watcher.tells("act_0", lemlist.add())
            await until(lambda: len(lemlist.reads) >= 5)
        assert len([query for query in lemlist.reads if query["minDate"] < ago(hours=8).isoformat()]) == 1

    @pytest.mark.asyncio
    async def test_an_event_has_no_personal_data(self, lemlist: Listing):
        lemlist.add(bot=False, relatedSentAt="2026-03-02T08:00:00.000Z")
        async with Watcher(trigger()) as watcher:
            await until(lambda: watcher.events)
        [event] = watcher.events
        assert event.keys() == {"status", "activities"}
        assert {*event["activities"][0]} <= {*RETURNED_FIELDS}
        assert event["activities"][0]["leadId"] == "lea_1"
        assert "ana" not in json.dumps(event).lower()

    @pytest.mark.asyncio
    async def test_a_type_unknown_here_is_warned_about_and_watched(self, lemlist: Listing, caplog, capsys):
        async with Watcher(trigger(activity_type="emailReplied")) as watcher:
            await watcher.tells(lemlist.add("emailReplied"))
        # Where the triggers of Airflow log depends on its version.
        assert "Activity type 'emailReplied' is unknown here" in caplog.text + capsys.readouterr().out

    @pytest.mark.asyncio
    @pytest.mark.parametrize("beside_a_sensor", [False, True])
    async def test_a_window_of_days_is_read_completely_while_it_changes(
        self, lemlist: Listing, monkeypatch, beside_a_sensor
    ):
        """Each page that is read shifts the following ones: activities vanish, and one arrives."""
        lasting = [lemlist.add(at=ago(minutes=10 * number)) for number in range(350)]
        vanishing = [lemlist.add(at=ago(minutes=10 * number + 1)) for number in range(100)]
        page = lemlist.page

        def page_and_change(query: dict[str, str]) -> list[dict[str, Any]]:
            rows = page(query)
            for _ in range(10):
                gone = vanishing.pop(0) if vanishing else None
                lemlist.rows[:] = [row for row in lemlist.rows if row["_id"] != gone]
            lemlist.add(at=ago(minutes=1), _id=f"new_{len(lemlist.queries)}")
            return rows

        monkeypatch.setattr(lemlist, "page", page_and_change)
        since = ago(days=3).isoformat()
        sensor = ActivityTrigger(REPLY, since=since, campaign_id="cam_1", min_count=9999, poke_interval=NEVER)
        waiting = [asyncio.create_task(anext(sensor.run()))] if beside_a_sensor else []
        async with Watcher(trigger(start=since, poll_interval=NEVER, batch=1000)) as watcher:
            await until(lambda: watcher.events)
        await cancel(waiting)
        assert {*lasting} <= {*watcher.ids}
        assert len(watcher.ids) == len({*watcher.ids})

    @pytest.mark.asyncio
    async def test_a_window_of_days_is_requested_for_what_is_watched_only(self, lemlist: Listing):
        async with Watcher(trigger(start=ago(days=3), lead_id="lea_1")) as watcher:
            await watcher.tells(lemlist.add())
        assert {(each["type"], each["campaignId"], each["leadId"]) for each in lemlist.queries} == {
            (REPLY, "cam_1", "lea_1")
        }


class TestActivitiesIn:
    def event(self, **extra: Any) -> Any:
        return SimpleNamespace(extra=extra)

    def test_each_is_returned_once_and_the_oldest_first(self):
        rows = [
            {"_id": f"act_{number}", "createdAt": f"2026-03-02T08:0{number}:00.000Z"} for number in range(4)
        ]
        told = {
            "replies": [
                self.event(payload={"status": "success", "activities": [rows[2], rows[3]]}),
                self.event(payload={"status": "error", "message": "lemlist does not accept the API key."}),
                self.event(payload={"status": "success", "activities": [rows[1], rows[2]]}),
            ],
            "others": [self.event(payload={"status": "success", "activities": [rows[0]]})],
        }
        assert activities_in(told) == rows

    def test_an_event_of_a_task_or_a_person_has_none(self):
        assert activities_in({"replies": [self.event(), self.event(rows=3), self.event(payload=None)]}) == []

    @pytest.mark.parametrize("payload", ["a text", ["a", "list"], 7, None, {"message": {}}], ids=str)
    def test_events_of_other_assets_hold_no_activities(self, payload: object):
        row = {"_id": "act_1", "createdAt": "2026-03-02T08:00:00.000Z"}
        ours = SimpleNamespace(extra={"from_trigger": True, "payload": {"activities": [row]}})
        other = SimpleNamespace(extra={"from_trigger": True, "payload": payload})
        assert activities_in({"replies": [ours], "orders": [other]}) == [row]


@needs_watchers
class TestTogether:
    @pytest.fixture
    def looks(self, monkeypatch) -> Callable[[], int]:
        """The looks of the trigger that looked most often, while all are counted."""
        counts: dict[Any, int] = {}
        look = watch.Watch.look

        async def counted(self: watch.Watch) -> None:
            counts[self] = counts.get(self, 0) + 1
            await look(self)

        monkeypatch.setattr(watch.Watch, "look", counted)
        return lambda: max(counts.values())

    @pytest.mark.asyncio
    async def test_all_types_are_looked_at_together_also_if_their_reads_end_apart(self, monkeypatch):
        all_types, looks = asyncio.Barrier(2), []

        async def look(self: watch.Watch) -> None:
            await all_types.wait()
            looks.append(self)
            apart = 0.001 if self is looks[0] else 0
            self.due = asyncio.get_running_loop().time() + 0.02 + apart

        monkeypatch.setattr(watch.Watch, "look", look)
        async with Watcher(trigger(activity_type=[REPLY, LINKEDIN])):
            await until(lambda: len(looks) >= 20)

    @pytest.mark.asyncio
    async def test_a_hundred_watchers_and_a_thousand_sensors_cost_the_requests_of_one(
        self, lemlist: Listing, looks
    ):
        sensors = [
            asyncio.create_task(
                anext(
                    ActivityTrigger(
                        [REPLY],
                        since=HOUR_AGO.isoformat(),
                        campaign_id="cam_1",
                        lead_id=f"lea_{number}",
                        poke_interval=0.1,
                    ).run()
                )
            )
            for number in range(1000)
        ]
        watchers = [
            Watcher(trigger(poll_interval=0.1, lead_id=f"lea_{number}" if number % 2 else None))
            for number in range(100)
        ]
        for watcher in watchers:
            await watcher.__aenter__()
        ids: list[str] = []
        for _ in range(3):
            ids.append(lemlist.add(lead_id="lea_none"))
            await until(lambda: all(watcher.ids == ids for watcher in watchers[::2]))
        assert not any(watcher.ids for watcher in watchers[1::2])
        assert not any(sensor.done() for sensor in sensors)
        assert len(lemlist.queries) <= looks() + 1
        for watcher in watchers:
            await watcher.__aexit__()
        await cancel(sensors)

    @pytest.mark.asyncio
    async def test_a_watcher_that_starts_later_uses_a_recent_read(self, lemlist: Listing):
        reply = lemlist.add()
        async with Watcher(trigger(poll_interval=NEVER)) as first:
            await first.tells(reply)
            async with Watcher(trigger(poll_interval=NEVER, start=ago(minutes=50))) as later:
                await later.tells(reply)
        assert len(lemlist.queries) == 1

    @pytest.mark.asyncio
    async def test_a_watcher_that_joins_a_sensor_reads_what_the_sensor_did_not_need(self, lemlist: Listing):
        ids = [lemlist.add(at=ago(seconds=900 - number)) for number in range(700)]
        sensor = ActivityTrigger(
            [REPLY], since=HOUR_AGO.isoformat(), campaign_id="cam_1", poke_interval=NEVER
        )
        assert len((await anext(sensor.run())).payload["activities"]) == 500
        async with Watcher(trigger(batch=1000, poll_interval=NEVER)) as watcher:
            await watcher.tells(*ids)
