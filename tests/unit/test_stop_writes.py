# SPDX-License-Identifier: Apache-2.0
"""``stop_writes`` of the connection: nothing is changed in lemlist from the moment it is noticed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist import exceptions, sources
from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.api.switch import READ_AGAIN_AFTER, WriteSwitch
from airflow_provider_lemlist.api.transport import Transport
from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.concurrency import MAX_THREADS
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistWritesStoppedError
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.run import Load
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.conftest import Act, OpenBudget, Stage
from tests.unit.test_safety import METHODS, OPERATORS, Team, arguments_of, run
from tests.unit.worker import Worker
from tests.waiting import wait_for

VARIABLE = "AIRFLOW_CONN_LEMLIST_DEFAULT"


def set_switch(lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    connection = json.loads(lemlist.airflow_connection())
    connection["extra"] = {**(connection.get("extra") or {}), "stop_writes": value}
    monkeypatch.setenv(VARIABLE, json.dumps(connection))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Return what lets the time of the transports jump ahead."""
    jumped, now = [0.0], CLOCK.now
    monkeypatch.setattr(CLOCK, "now", lambda: now() + sum(jumped))
    return jumped.append


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ops.OPERATIONS, ids=str)
def test_exactly_the_operations_that_change_something_are_refused(
    stage: Stage, settings: Any, budget: OpenBudget, operation: ops.Operation
) -> None:
    switch = WriteSwitch(True, lambda: True)
    transport = Transport(settings, budget, user_agent="test", switch=switch)  # type: ignore[arg-type]
    stage.script = [Act(400, b"no")]
    path = dict.fromkeys(
        ("campaignId", "leadId", "email", "leadIdOrEmail", "sequenceId", "stepId", "scheduleId", "value"), "x"
    )
    with pytest.raises(exceptions.LemlistError) as caught:
        transport.call(operation, path=path)
    refused = isinstance(caught.value, LemlistWritesStoppedError)
    assert (refused, len(stage.requests)) == ((True, 0) if operation.writes else (False, 1))
    # POST does not tell: only these two read.
    reads = operation.method == "GET" or operation == ops.GET_CAMPAIGNS_STATS
    assert operation.writes is not reads
    transport.close()


@pytest.fixture
def stopped_team(quick_lemlist: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    team = Team(quick_lemlist, tmp_path, Worker(has_store=True))
    set_switch(quick_lemlist, monkeypatch, True)
    return team


def changes(team: Team) -> list[str]:
    """Return what was sent and is not a read."""
    requests = team.lemlist.requests()[team._before :]
    sent = [f"{request['method']} {request['path']}" for request in requests]
    return [each for each in sent if not each.startswith("GET ") and each != "POST /v2/campaigns/stats/batch"]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_of_the_hook_changes_anything(stopped_team: Team, method: str) -> None:
    with suppress(exceptions.LemlistError):
        result = getattr(LemlistHook(), method)(
            *(["Running"] if method == "find_campaign" else []), **arguments_of(method, stopped_team)
        )
        if isinstance(result, Iterator):
            list(result)
    assert changes(stopped_team) == []


@pytest.mark.parametrize("name", OPERATORS)
def test_no_operator_changes_anything(
    stopped_team: Team, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    before = stopped_team.lemlist.state()["leads"]
    run(name, stopped_team)
    assert changes(stopped_team) == []
    assert stopped_team.lemlist.state()["leads"] == before


def test_a_connection_with_the_field_passes_the_test_and_reads(
    quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_switch(quick_lemlist, monkeypatch, "true")
    assert LemlistHook().test_connection()[0]
    assert LemlistHook().get_team()["_id"]


def test_the_error_is_not_retried_and_says_what_to_do(
    quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_switch(quick_lemlist, monkeypatch, True)
    with pytest.raises(LemlistWritesStoppedError) as caught:
        LemlistHook().pause_lead("lea_1")
    assert not caught.value.retryable
    assert not caught.value.in_doubt
    assert "Unset it, then clear the task." in str(caught.value)
    assert "connection 'lemlist_default'" in str(caught.value)


# --- While a task runs --------------------------------------------------------------------------------------


def test_a_hook_in_use_notices_the_field_and_that_it_was_unset(
    quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    lead_id = quick_lemlist.lead(campaign_id, "ana@norte.example")["_id"]
    hook = LemlistHook()
    hook.pause_lead(lead_id)
    for value in (True, False):
        set_switch(quick_lemlist, monkeypatch, value)
        clock(READ_AGAIN_AFTER)
        with pytest.raises(LemlistWritesStoppedError) if value else nullcontext():
            hook.pause_lead(lead_id)
    assert len(quick_lemlist.requests("POST /leads/pause/{leadId}")) == 2


def test_a_request_that_waits_for_its_slot_notices_the_field(
    stage: Stage, settings: Any, budget: OpenBudget, clock: Callable[[float], None]
) -> None:
    now_set: list[bool] = []

    class LongWait(OpenBudget):
        def book(self) -> Any:
            slot = super().book()
            slot.wait = 300.0
            return slot

        def wait(self, slot: object, *, early: float = 0.0, stopped: Any = None) -> None:
            assert not stopped()
            if early:
                now_set.append(True)
                clock(READ_AGAIN_AFTER)
            stopped()

    switch = WriteSwitch(False, lambda: bool(now_set))
    transport = Transport(settings, LongWait(), user_agent="test", switch=switch)  # type: ignore[arg-type]
    with pytest.raises(LemlistWritesStoppedError):
        transport.call(ops.PAUSE_LEAD, path={"leadId": "lea_1"})
    assert stage.requests == []
    transport.close()


def test_a_request_in_doubt_that_is_not_sent_again_stays_in_doubt(
    stage: Stage, settings: Any, budget: OpenBudget, pauses: list[float], clock: Callable[[float], None]
) -> None:
    def set_now(request: object) -> None:
        clock(READ_AGAIN_AFTER)

    switch = WriteSwitch(False, lambda: True)
    transport = Transport(settings, budget, user_agent="test", switch=switch)  # type: ignore[arg-type]
    stage.script = [Act(fault="close", effect=set_now), Act(200, [])]
    looked: list[Any] = []

    def find() -> None:
        looked.append(transport.call(ops.LIST_ACTIVITIES))

    with pytest.raises(LemlistWritesStoppedError) as caught:
        transport.call(
            ops.CREATE_LEAD,
            path={"campaignId": "cam_1"},
            body={"email": "ana@norte.example"},
            reconcile=ops.Reconcile(find),
        )
    assert caught.value.in_doubt
    assert looked == [[]]  # reconciling reads, also while writes are stopped
    assert [request.method for request in stage.requests] == ["POST", "GET"]
    transport.close()


def test_one_thread_reads_the_connection_and_the_others_do_not_wait(clock: Callable[[float], None]) -> None:
    reading, go_on, reads = threading.Event(), threading.Event(), []

    def read() -> bool:
        reads.append(threading.current_thread())
        reading.set()
        go_on.wait(10)
        return True

    switch = WriteSwitch(False, read)
    clock(READ_AGAIN_AFTER)
    caught: list[BaseException] = []

    def check() -> None:
        try:
            switch.check()
        except LemlistWritesStoppedError as error:
            caught.append(error)

    first = threading.Thread(target=check)
    first.start()
    assert reading.wait(10)
    switch.check()  # what is known applies meanwhile
    go_on.set()
    first.join()
    assert len(caught) == len(reads) == 1
    with pytest.raises(LemlistWritesStoppedError):
        switch.check()


def test_an_outage_of_the_secrets_keeps_the_last_value_with_one_warning(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bool:
        raise ConnectionError("no vault")

    for value in (False, True):
        caplog.clear()
        switch = WriteSwitch(value, fail)
        for _ in range(3):
            clock(READ_AGAIN_AFTER)
            with pytest.raises(LemlistWritesStoppedError) if value else nullcontext():
                switch.check()
        assert caplog.text.count("could not be read again (ConnectionError)") == 1


def test_a_value_that_is_neither_true_nor_false_stops_every_write(
    quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    hook = LemlistHook()
    hook.get_conn()
    set_switch(quick_lemlist, monkeypatch, "yess")
    clock(READ_AGAIN_AFTER)
    for _ in range(2):
        with pytest.raises(LemlistConfigurationError, match="must be true or false, not 'yess'"):
            hook.create_lead(campaign_id, {"email": "ana@norte.example"})
    assert quick_lemlist.state()["leads"] == []


# --- A load -------------------------------------------------------------------------------------------------

ROWS = 400


def load(campaign_id: str, ledger: Path, number: int) -> Load:
    people = [{"email": f"p{n}@norte.example", "firstName": f"P{n}"} for n in range(ROWS)]
    options = LoadOptions(
        campaign_id,
        rows=lambda: sources.from_list(people),
        mapping=ColumnMapping(),
        ledger_path=ObjectStoragePath(f"file://{ledger}"),
        run=Run("monday", "2026-11-16", "people.load", f"attempt {number}"),
    )
    return Load(LemlistHook(), options)


def test_a_load_stops_within_what_is_in_flight_and_a_later_run_continues(
    quick_lemlist: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    creates = f"POST /campaigns/{campaign_id}/leads/"

    def created() -> int:
        return len(quick_lemlist.requests(creates))

    first, caught, sent = load(campaign_id, tmp_path, 1), [], []

    def stop_in_the_middle() -> None:
        wait_for(lambda: created() >= 50)
        set_switch(quick_lemlist, monkeypatch, True)
        sent.append(created())
        clock(READ_AGAIN_AFTER)

    person = threading.Thread(target=stop_in_the_middle)
    person.start()
    try:
        first.run()
    except LemlistWritesStoppedError as error:
        caught.append(error)
    person.join()
    assert caught
    # Every thread had one request on its way, and may have begun one more while the connection was read.
    assert first.report is not None
    assert 50 <= created() <= sent[0] + 2 * MAX_THREADS
    assert created() < ROWS / 2
    assert first.report.outcomes["created"] == created()
    set_switch(quick_lemlist, monkeypatch, "")
    second = load(campaign_id, tmp_path, 2)
    report = second.run()
    assert (report.outcomes["created"], report.settled_before) == (ROWS, first.report.outcomes["created"])
    emails = [lead["variables"]["email"] for lead in quick_lemlist.state()["leads"]]
    assert len(emails) == len({*emails}) == ROWS
    assert created() == ROWS


def test_the_documented_interval_is_that_of_the_code() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for page in ("privacy.md", "connection.md"):
        assert f"{READ_AGAIN_AFTER:.0f} seconds" in (docs / page).read_text()
