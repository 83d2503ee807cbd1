# SPDX-License-Identifier: Apache-2.0
"""What is told after a triggerer was killed: everything, and twice only what Airflow may not have stored."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.triggers import events, watch
from tests.unit.activity_listing import ago
from tests.unit.triggers.watching import (
    LINKEDIN,
    NEVER,
    REPLY,
    KeptInFile,
    Watcher,
    needs_watchers,
    trigger,
    until,
)

if TYPE_CHECKING:
    from airflow_provider_lemlist.triggers.events import ActivityEventTrigger
    from tests.unit.activity_listing import Listing
    from tests.unit.triggers.conftest import Clock

pytestmark = [needs_watchers, pytest.mark.usefixtures("settled")]


@dataclass
class StateStores:
    """Airflow 3.3's side of the state stores of assets: what a triggerer asks, and the API server answers."""

    kept: dict[tuple[str, str], Any] = field(default_factory=dict)
    #: Assets that no DAG uses: Airflow finds no state of them, and refuses one.
    inactive: set[str] = field(default_factory=set)
    is_down: bool = False

    async def asend(self, message: Any) -> Any:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import AssetStateStoreResult, ErrorResponse, OKResponse

        place = (message.name, message.key)
        if self.is_down:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        if message.type == "GetAssetStateStoreByName":
            if message.name in self.inactive or place not in self.kept:
                return ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND)
            return AssetStateStoreResult(value=json.loads(self.kept[place]))
        assert message.type == "SetAssetStateStoreByName"
        if message.name in self.inactive:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.ASSET_NOT_FOUND))
        self.kept[place] = json.dumps(message.value)
        return OKResponse(ok=True)

    def watched_by(self, event_trigger: ActivityEventTrigger, *assets: str) -> ActivityEventTrigger:
        """Do as the triggerer does before it runs a trigger."""
        from airflow.sdk import Asset
        from airflow.sdk.execution_time.context import AssetStateStoreAccessors

        event_trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name) for name in assets])
        return event_trigger


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch) -> StateStores:
    context = pytest.importorskip("airflow.sdk.execution_time.context")
    if not hasattr(context, "AssetStateStoreAccessors"):
        pytest.skip("Airflow has state stores of assets since 3.3")
    from airflow.sdk.execution_time import task_runner

    stores = StateStores()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", stores, raising=False)
    return stores


class Kept(Protocol):
    """Where cursors are kept."""

    def trigger(self, **changes: Any) -> ActivityEventTrigger: ...

    def text(self) -> str: ...


class KeptByAirflow:
    def __init__(self, stores: StateStores) -> None:
        self.stores = stores

    def trigger(self, **changes: Any) -> ActivityEventTrigger:
        return self.stores.watched_by(trigger(**changes), "replies")

    def text(self) -> str:
        return "".join(self.stores.kept.values())


@pytest.fixture(params=["file", "asset"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "file":
        return KeptInFile(tmp_path / "state" / "replies.json")
    return KeptByAirflow(request.getfixturevalue("assets"))


async def told_once(event_trigger: ActivityEventTrigger, *ids: str) -> None:
    """Return when these are told, and Airflow has stored the event, which the cursor does not know yet."""
    async with aclosing(event_trigger.tell()) as all_told:
        told = await anext(all_told)
        assert [activity["_id"] for activity in told.payload["activities"]] == [*ids]


class TestKills:
    @pytest.mark.asyncio
    async def test_a_restart_goes_on_where_the_triggerer_was(self, lemlist: Listing, kept: Kept):
        first = lemlist.add()
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(first)
            await until(lambda: first in kept.text())
        meanwhile = lemlist.add()
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(meanwhile)
            await watcher.tells(meanwhile, lemlist.add())

    @pytest.mark.asyncio
    async def test_an_event_that_airflow_has_not_stored_is_told_again(self, lemlist: Listing, kept: Kept):
        reply = lemlist.add()
        await told_once(kept.trigger(), reply)
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(reply)

    @pytest.mark.asyncio
    async def test_an_event_that_airflow_has_just_stored_is_told_again(
        self, lemlist: Listing, kept: Kept, monkeypatch
    ):
        """Airflow also drops an event of a paused DAG, and then ends the trigger within a second or two."""
        reply = lemlist.add()
        with monkeypatch.context() as patch:
            patch.setattr(events, "SETTLE", NEVER)
            async with Watcher(kept.trigger()) as watcher:
                await watcher.tells(reply)
        assert reply not in kept.text()
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(reply)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "apart", [timedelta(hours=15), timedelta(0)], ids=["days apart", "of one moment"]
    )
    async def test_a_kill_between_two_parts_of_a_look_loses_none(self, lemlist: Listing, kept: Kept, apart):
        start = ago(days=4)
        ids = [lemlist.add(at=start + timedelta(minutes=5) + number * apart) for number in range(5)]
        async with aclosing(kept.trigger(batch=2, start=start).tell()) as all_told:
            (await anext(all_told)).is_stored.set()
            await anext(all_told)
        async with Watcher(kept.trigger(batch=9, start=start)) as watcher:
            await watcher.tells(*ids[2:])

    @pytest.mark.asyncio
    async def test_now_is_the_first_start_and_not_the_last_one(
        self, lemlist: Listing, kept: Kept, clock: Clock
    ):
        async with Watcher(kept.trigger(start="now")):
            await until(kept.text)
        clock.now += timedelta(minutes=5)
        meanwhile = lemlist.add(at=clock.now)
        clock.now += timedelta(minutes=5)
        async with Watcher(kept.trigger(start="now")) as watcher:
            await watcher.tells(meanwhile)

    @pytest.mark.asyncio
    async def test_what_was_listed_late_while_the_triggerer_was_down_is_told(
        self, lemlist: Listing, kept: Kept, clock: Clock
    ):
        start = ago(days=3)
        async with Watcher(kept.trigger(start=start)) as watcher:
            await watcher.tells(lemlist.add(at=clock.now))
            await until(lambda: "act_0" in kept.text())
        late = lemlist.add(at=clock.now - timedelta(hours=23))
        clock.now += timedelta(hours=50)
        meanwhile = lemlist.add(at=clock.now - timedelta(hours=10))
        async with Watcher(kept.trigger(start=start)) as watcher:
            await watcher.tells(late, meanwhile)

    @pytest.mark.asyncio
    async def test_what_happened_while_the_triggerer_was_down_is_told_even_if_the_first_looks_fail(
        self, lemlist: Listing, kept: Kept, clock: Clock, monkeypatch
    ):
        monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.02)
        async with Watcher(kept.trigger(start="now")):
            await until(kept.text)
        meanwhile = lemlist.add(at=clock.now + timedelta(hours=1))
        clock.now += timedelta(hours=50)
        lemlist.unknown.add(REPLY)
        async with Watcher(kept.trigger(start="now")) as watcher:
            failed = len(lemlist.reads)
            await until(lambda: len(lemlist.reads) > failed + 3)
            lemlist.unknown.clear()
            await watcher.tells(meanwhile)

    @pytest.mark.asyncio
    async def test_a_quiet_cursor_is_saved_once_an_hour_so_that_a_restart_does_not_read_weeks(
        self, lemlist: Listing, kept: Kept, clock: Clock
    ):
        def is_saved() -> bool:
            day_before = clock.now - timedelta(days=1)
            return f'"since": "{day_before.isoformat()[:19]}' in kept.text()

        async with Watcher(kept.trigger(start=ago(days=30))):
            await until(is_saved)
            saved = kept.text()
            for _ in range(3):
                clock.now += timedelta(minutes=19)
                read = len(lemlist.reads)
                await until(lambda read=read: len(lemlist.reads) >= read + 5)
            assert kept.text() == saved
            clock.now += timedelta(minutes=5)
            await until(is_saved)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "other",
        [
            {"activity_type": LINKEDIN},
            {"campaign_id": "cam_2"},
            {"campaign_id": None},
            {"lead_id": "lea_1"},
            {"lemlist_conn_id": "other"},
        ],
        ids=str,
    )
    async def test_what_another_trigger_was_told_is_still_new(
        self, lemlist: Listing, kept: Kept, clock: Clock, monkeypatch, other
    ):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", lemlist.connection)
        start, at = ago(days=3), ago(days=2)
        ids = [lemlist.add(at=at), lemlist.add(at=at, campaignId="cam_2"), lemlist.add(LINKEDIN, at=at)]
        async with Watcher(kept.trigger(start=start, **other)) as watcher:
            await until(lambda: watcher.events)
            await until(lambda: (clock.now - timedelta(days=1)).isoformat()[:19] in kept.text())
        async with Watcher(kept.trigger(start=start)) as watcher:
            await watcher.tells(ids[0])

    @pytest.mark.asyncio
    async def test_a_type_that_is_added_begins_at_the_start_and_leaves_the_others(
        self, lemlist: Listing, kept: Kept, clock: Clock
    ):
        start = ago(days=3)
        linkedin, reply = lemlist.add(LINKEDIN, at=ago(days=2)), lemlist.add(REPLY, at=clock.now)
        async with Watcher(kept.trigger(activity_type=REPLY, start=start)) as watcher:
            await watcher.tells(reply)
            await until(lambda: (clock.now - timedelta(days=1)).isoformat()[:19] in kept.text())
        async with Watcher(kept.trigger(activity_type=[LINKEDIN, REPLY], start=start)) as watcher:
            await watcher.tells(linkedin)
            await watcher.tells(linkedin, lemlist.add(REPLY, at=clock.now))

    @pytest.mark.asyncio
    async def test_a_cursor_names_activities_of_its_type_only(self, lemlist: Listing, tmp_path):
        kept = KeptInFile(tmp_path / "replies.json")
        ids = {lemlist.add(LINKEDIN), lemlist.add(REPLY)}
        async with Watcher(kept.trigger(activity_type=[LINKEDIN, REPLY])):
            await until(lambda: all(each in kept.text() for each in ids))
        cursors = json.loads(kept.text())
        assert [[*cursors[key]["told"]] for key in sorted(cursors)] == [["act_1"], ["act_0"]]


class TestStores:
    @pytest.mark.asyncio
    async def test_assets_with_equal_watchers_miss_nothing_that_one_of_them_was_not_told(
        self, lemlist: Listing, assets: StateStores
    ):
        ids = [lemlist.add()]
        async with Watcher(assets.watched_by(trigger(), "replies")) as watcher:
            await watcher.tells(*ids)
            await until(lambda: ids[0] in str(assets.kept))
        ids.append(lemlist.add())
        async with Watcher(assets.watched_by(trigger(), "replies", "tasks")) as watcher:
            await watcher.tells(*ids)
            await until(lambda: str(assets.kept).count(ids[1]) == 2)
        async with Watcher(assets.watched_by(trigger(), "replies", "tasks")) as watcher:
            await watcher.tells(lemlist.add())

    @pytest.mark.asyncio
    async def test_a_state_path_takes_precedence_over_the_asset(
        self, lemlist: Listing, assets: StateStores, tmp_path
    ):
        kept = KeptInFile(tmp_path / "replies.json")
        async with Watcher(assets.watched_by(kept.trigger(), "replies")) as watcher:
            await watcher.tells(lemlist.add())
            await until(lambda: "act_0" in kept.text())
        assert not assets.kept

    @pytest.mark.asyncio
    async def test_a_store_that_fails_for_a_while_delays_and_loses_nothing(
        self, lemlist: Listing, assets: StateStores
    ):
        kept = KeptByAirflow(assets)
        reply = lemlist.add()
        assets.is_down = True
        async with Watcher(kept.trigger()) as watcher:
            await until(lambda: watch._FAILING)
            assert not watcher.events
            assets.is_down = False
            await watcher.tells(reply)
            await until(lambda: reply in kept.text())
            assets.is_down = True
            others = [lemlist.add()]
            await watcher.tells(reply, *others)
            others.append(lemlist.add())
            await watcher.tells(reply, *others)
            assert not any(other in kept.text() for other in others)
            assets.is_down = False
            await until(lambda: all(other in kept.text() for other in others))

    @pytest.mark.asyncio
    async def test_a_save_that_failed_is_tried_again_although_lemlist_fails(
        self, lemlist: Listing, assets: StateStores, monkeypatch
    ):
        monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.02)
        kept = KeptByAirflow(assets)
        async with Watcher(kept.trigger()) as watcher:
            await until(kept.text)
            assets.is_down = True
            reply = lemlist.add()
            await watcher.tells(reply)
            lemlist.unknown.add("cam_1")
            await until(lambda: watch._FAILING)
            assets.is_down = False
            await until(lambda: reply in kept.text())

    @pytest.mark.asyncio
    async def test_now_is_the_first_start_although_the_store_fails_then(
        self, lemlist: Listing, assets: StateStores, clock: Clock
    ):
        assets.is_down = True
        async with Watcher(KeptByAirflow(assets).trigger(start="now")) as watcher:
            await until(lambda: watch._FAILING)
            clock.now += timedelta(minutes=5)
            reply = lemlist.add(at=clock.now)
            clock.now += timedelta(minutes=5)
            assets.is_down = False
            await watcher.tells(reply)

    @pytest.mark.asyncio
    async def test_a_save_that_fails_repeats_after_a_kill_what_it_lacks(
        self, lemlist: Listing, assets: StateStores, caplog
    ):
        kept = KeptByAirflow(assets)
        async with Watcher(kept.trigger()) as watcher:
            await until(kept.text)
            assets.is_down = True
            reply = lemlist.add()
            await watcher.tells(reply)
            await until(lambda: "not saved" in caplog.text)
        assets.is_down = False
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(reply)

    @pytest.mark.asyncio
    async def test_an_asset_that_is_not_active_yet_is_waited_for(self, lemlist: Listing, assets: StateStores):
        kept = KeptByAirflow(assets)
        first = lemlist.add()
        async with Watcher(kept.trigger()) as watcher:
            await watcher.tells(first)
            await until(lambda: first in kept.text())
        assets.inactive.add("replies")
        second = lemlist.add()
        async with Watcher(kept.trigger()) as watcher:
            await until(lambda: watch._FAILING)
            assert not watcher.events
            assets.inactive.clear()
            await watcher.tells(second)

    @pytest.mark.asyncio
    async def test_without_a_store_a_restart_begins_again_at_the_start(self, lemlist: Listing):
        reply = lemlist.add()
        for _ in range(2):
            async with Watcher(trigger()) as watcher:
                await watcher.tells(reply)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("name,email\n", "replies.json is not a file of cursors"),
            ('{"lemlist:lemlist_default:cam_1:*:emailsReplied": 5}', "The stored cursor is not valid: 5"),
        ],
    )
    async def test_a_file_of_something_else_is_a_clear_error_until_it_is_removed(
        self, lemlist: Listing, tmp_path, monkeypatch, caplog, text, problem
    ):
        monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.02)
        file = tmp_path / "replies.json"
        file.write_text(text)
        reply = lemlist.add()
        async with Watcher(trigger(state_path=str(file), tell_errors=True)) as watcher:
            await until(lambda: watcher.errors)
            [error] = watcher.errors
            assert error["error"] == LemlistConfigurationError.__name__
            assert problem in error["message"]
            assert caplog.text.count(problem) == 1
            file.unlink()
            await watcher.tells(reply)
            await until(lambda: file.exists() and reply in file.read_text())
