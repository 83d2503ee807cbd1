# SPDX-License-Identifier: Apache-2.0
"""What the transfers have in common, for files and for a table."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, Asset

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.datasets import DATASETS, fingerprint, selected_columns
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistStoppedError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.transfers import base
from tests.unit.transfers.conftest import DAY, HOUR, MONDAY, PERSONAL, Files, Lemlist, Target, ids
from tests.unit.worker import Worker
from tests.waiting import wait_for

MS = timedelta(milliseconds=1)
ACTIVITIES = "GET /activities"
Run = Callable[..., Any]


# --- Windows ----------------------------------------------------------------------------------------------


def test_window_of_the_run_is_read_half_open(lemlist: Lemlist, target: Target, run: Run) -> None:
    lemlist.happen(MONDAY - MS)
    first, last = lemlist.happen(MONDAY), lemlist.happen(MONDAY + DAY - MS)
    lemlist.happen(MONDAY + DAY)
    report = run(target.task(dataset="activities"))
    assert ids(target) == [first, last]
    assert (report["since"], report["until"]) == ("2026-03-02T00:00:00+00:00", "2026-03-03T00:00:00+00:00")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"since": "{{ ds }}T08:00", "until": "2026-11-20T12:00:00+02:00"}, (8, 10)),
        ({"since": datetime(2026, 11, 20, 8, tzinfo=UTC)}, (8, 12)),
        ({"until": "2026-11-20 10:00"}, (6, 10)),
    ],
)
def test_given_bounds_replace_those_of_the_run(
    lemlist: Lemlist, target: Target, run: Run, given: dict[str, Any], expected: tuple[int, int]
) -> None:
    day = datetime(2026, 11, 20, tzinfo=UTC)
    happened = {hour: lemlist.happen(day + hour * HOUR) for hour in range(5, 13)}
    run(target.task(dataset="activities", **given), day + 6 * HOUR, day + 12 * HOUR)
    assert ids(target) == [happened[hour] for hour in range(*expected)]


def test_run_without_a_window_fails_before_any_request(lemlist: Lemlist, target: Target, run: Run) -> None:
    task = target.task(dataset="activities")
    with pytest.raises(LemlistConfigurationError, match="no data interval and no run before it.*Set since"):
        run(task, None)
    with pytest.raises(LemlistConfigurationError, match="no data interval"):
        run(target.task(dataset="activities", until="2026-03-02"), None)
    assert lemlist.requests == []
    lemlist.happen(MONDAY - HOUR)
    assert run(target.task(dataset="activities", since="2026-03-01"), None)["rows"] == 1


@pytest.mark.parametrize("since", ["2026-03-03", "2026-03-04", "2026-03-02T23:59:59.999900+00:00"])
def test_empty_window_fails_before_any_request(
    lemlist: Lemlist, target: Target, run: Run, since: str
) -> None:
    task = target.task(dataset="activities", since=since, until="2026-03-02T23:59:59.999999+00:00")
    with pytest.raises(LemlistConfigurationError, match=r"since .* must be before until"):
        run(task)
    assert lemlist.requests == []


def test_window_of_the_future_fails_and_one_that_ends_in_seconds_is_waited_for(
    lemlist: Lemlist, target: Target, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(CLOCK, "sleep", slept.append)
    now = datetime.now(UTC)
    with pytest.raises(LemlistConfigurationError, match="until .* is in the future"):
        run(target.task(dataset="activities"), now - HOUR, now + 2 * base.CLOCK_SKEW)
    assert (lemlist.requests, slept) == ([], [])
    run(target.task(dataset="activities"), now - HOUR, now + base.CLOCK_SKEW / 2)
    assert 15 < slept[0] <= 30


def test_window_that_is_read_again_replaces_exactly_itself(
    lemlist: Lemlist, target: Target, run: Run
) -> None:
    happened = [lemlist.happen(MONDAY + hour * HOUR) for hour in range(4)]
    task = target.task(dataset="activities")
    run(task)
    once = target.content()
    run(task)
    assert target.content() == once
    lemlist.sandbox.remove_activity(happened[1])
    lemlist.sandbox.remove_activity(happened[3])
    late = lemlist.happen(MONDAY + 5 * HOUR)
    run(task)
    assert ids(target) == [happened[0], happened[2], late]
    for each in (happened[0], happened[2], late):
        lemlist.sandbox.remove_activity(each)
    assert run(task)["rows"] == 0
    assert target.rows() == []


def test_read_that_fails_leaves_the_target_as_it_was(lemlist: Lemlist, target: Target, run: Run) -> None:
    task = target.task(dataset="activities")
    lemlist.sandbox.fault(ACTIVITIES, "status", status=400, text="broken", probability=1)
    with pytest.raises(LemlistError):
        run(task)
    assert target.content() == {}
    lemlist.sandbox.clear_faults()
    lemlist.happen(MONDAY)
    run(task)
    before = target.content()
    lemlist.happen(MONDAY + HOUR)
    lemlist.sandbox.fault(ACTIVITIES, "status", status=400, text="broken", skip=1, probability=1)
    with pytest.raises(LemlistError):
        run(task)
    assert target.content() == before


def test_task_that_is_killed_sends_no_further_request_and_leaves_the_target(
    lemlist: Lemlist, target: Target, run: Run
) -> None:
    lemlist.sandbox.fill_activities(800, MONDAY.timestamp(), (MONDAY + DAY).timestamp())
    lemlist.sandbox.service.latency = 0.05
    task = target.task(dataset="activities")
    task.on_kill()  # before anything was opened

    def kill() -> None:
        wait_for(lambda: len(lemlist.requests) >= 2)
        task.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(LemlistStoppedError):
        run(task)
    killer.join()
    assert len(lemlist.requests) < 9
    assert target.content() == {}


# --- What is read -----------------------------------------------------------------------------------------


def test_several_campaigns_and_types_are_read_and_no_others(
    lemlist: Lemlist, target: Target, run: Run
) -> None:
    third = lemlist.sandbox.campaign("third")["_id"]
    lemlist.leads[third] = lemlist.sandbox.lead(third, "x@hopper.example")["_id"]
    types = ("emailsSent", "emailsOpened", "emailsClicked")
    happened = {
        (campaign, type): lemlist.happen(MONDAY + HOUR, type, campaign)
        for campaign in (lemlist.first, lemlist.second, third)
        for type in types
    }
    wanted = [(campaign, type) for campaign in (lemlist.first, third) for type in types[1:]]
    report = run(
        target.task(
            dataset="activities", campaign_id=[lemlist.first, third, third], activity_type=list(types[1:])
        )
    )
    assert sorted(ids(target)) == sorted(happened[each] for each in wanted)
    assert report["rows"] == 4


def test_campaign_that_does_not_exist_fails(lemlist: Lemlist, target: Target, run: Run) -> None:
    with pytest.raises(LemlistValidationError, match="no campaign 'cam_none'"):
        run(target.task(dataset="leads", campaign_id=[lemlist.first, "cam_none"]))
    assert target.content() == {}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_is_brought_home(lemlist: Lemlist, target: Target, run: Run, dataset: str) -> None:
    lemlist.happen(MONDAY)
    report = run(target.task(dataset=dataset))
    assert report["rows"] == len(target.rows())
    assert report["dataset"] == dataset
    if dataset not in ("contacts", "companies", "unsubscribes"):
        assert report["rows"]
    assert (report["since"] is None) == (dataset not in ("activities", "campaign_stats"))


def test_missing_statistics_fail_unless_allowed(
    lemlist: Lemlist, target: Target, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LemlistHook.get_campaigns_stats

    def without_the_second(self: Any, campaign_ids: list[str], *window: Any) -> Any:
        return real(self, [each for each in campaign_ids if each != lemlist.second], *window)

    monkeypatch.setattr(LemlistHook, "get_campaigns_stats", without_the_second)
    with pytest.raises(LemlistError, match=f"1 of 2 campaigns .{lemlist.second}.*allow_missing is 0"):
        run(target.task(dataset="campaign_stats"))
    assert target.content() == {}
    run(target.task(dataset="campaign_stats", allow_missing=1))
    assert {row["campaign_id"] for row in target.rows()} == {lemlist.first}


# --- No rows ----------------------------------------------------------------------------------------------


def test_without_rows_an_empty_set_is_written(lemlist: Lemlist, target: Target, run: Run) -> None:
    assert run(target.task(dataset="activities"))["rows"] == 0
    assert target.content()
    assert target.rows() == []


@pytest.mark.parametrize("had_rows", [True, False])
@pytest.mark.parametrize(("if_empty", "error"), [("skip", AirflowSkipException), ("fail", LemlistError)])
def test_without_rows_the_target_stays_as_it_was_if_told(
    lemlist: Lemlist, target: Target, run: Run, if_empty: str, error: Any, had_rows: bool
) -> None:
    task = target.task(dataset="activities", if_empty=if_empty)
    if had_rows:
        activity = lemlist.happen(MONDAY)
        run(task)
        lemlist.sandbox.remove_activity(activity)
    before = target.content()
    with pytest.raises(error, match="no activities to write"):
        run(task)
    assert target.content() == before


def test_report_says_that_the_task_is_skipped_because_there_are_no_rows(
    lemlist: Lemlist, target: Target, run: Run, worker: Worker
) -> None:
    task = target.task(dataset="activities", if_empty="skip")
    with pytest.raises(AirflowSkipException):
        run(task)
    message = "lemlist has no activities to write."
    assert worker.xcoms == {
        task.task_id: {"report": {"outcome": "empty", "message": message, "differing": []}}
    }


# --- What others learn ------------------------------------------------------------------------------------


def test_report_is_returned_and_in_the_events_of_the_outlets(
    lemlist: Lemlist, target: Target, run: Run, worker: Any
) -> None:
    lemlist.happen(MONDAY)
    asset = Asset("s3://lake/activities")
    columns = ["id", "created_at"]
    report = run(target.task(dataset="activities", columns=columns, outlets=[asset]))
    place = (
        {"files": [f"{target.directory}/part-00000.ndjson.gz"]}
        if isinstance(target, Files)
        else {"table": "activities"}
    )
    assert report == {
        "dataset": "activities",
        "rows": 1,
        **place,
        "since": "2026-03-02T00:00:00+00:00",
        "until": "2026-03-03T00:00:00+00:00",
        "schema": fingerprint(selected_columns(DATASETS["activities"], columns)),
    }
    assert worker.asset_extras[asset.uri] == report
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("dataset", ["activities", "leads"])
def test_personal_data_is_nowhere_if_dropped_and_never_in_log_or_xcom(
    lemlist: Lemlist, target: Target, run: Run, worker: Any, log: Any, dataset: str
) -> None:
    lemlist.happen(MONDAY, "emailsReplied")
    run(target.task(dataset=dataset))
    assert any(text in repr(target.rows()) for text in PERSONAL)
    target.clear()
    run(target.task(dataset=dataset, personal_data="drop"))
    rows = target.rows()
    assert rows[0].keys() == {column.name for column in DATASETS[dataset].columns if not column.is_personal}
    written = repr(rows) + repr({name: each for name, each in target.content().items() if "part" not in name})
    told = log.text + repr(worker.xcoms) + repr(worker.asset_extras)
    assert "rows" in log.text
    for text in PERSONAL:
        assert text not in written
        assert text not in told
