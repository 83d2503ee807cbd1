# SPDX-License-Identifier: Apache-2.0
"""A campaign with too many bounces or unsubscribes is paused, and what follows does not run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, XCom

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistGuardError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.campaign import CampaignGuardOperator, StartCampaignOperator
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.conftest import API_KEY, Act, Stage
from tests.unit.operators.test_lineage import lineage_of
from tests.unit.statistics import BATCH, asked
from tests.unit.statistics import add_campaign as campaign

LOOK = "GET /campaigns/{campaignId}"
PAUSE = "POST /campaigns/{campaignId}/pause"


def guard(campaign_id: Any, **options: Any) -> CampaignGuardOperator:
    return CampaignGuardOperator(**{"task_id": "guard", "campaign_id": campaign_id, **options})


def statuses(lemlist: Sandbox) -> dict[str, str]:
    return {each["_id"]: each["status"] for each in lemlist.state()["campaigns"]}


def routes(lemlist: Sandbox) -> list[str]:
    return [f"{each['method']} {each['route']}" for each in lemlist.requests()]


def upstream(value: Any, worker: Any) -> Any:
    worker.xcoms["upstream"] = {"return_value": value}
    return StartCampaignOperator(task_id="upstream", campaign_id="cam_1").output


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[str, str]]]:
    """``lines(task)`` returns the list to which the level and text of what the task logs is added."""

    def of(task: Any) -> list[tuple[str, str]]:
        told: list[tuple[str, str]] = []
        for level in ("info", "warning"):
            monkeypatch.setattr(
                task.log, level, lambda text, *values, level=level: told.append((level, text % values))
            )
        return told

    return of


class TestLimits:
    def test_campaign_within_the_limits_goes_on_and_is_reported(
        self, lemlist: Sandbox, any_worker: Any, lines: Any
    ) -> None:
        campaign_id = campaign(lemlist, emailsBounced=3)
        task = guard(campaign_id)
        told = lines(task)
        report = any_worker.run(task)
        assert routes(lemlist) == [BATCH]
        assert statuses(lemlist) == {campaign_id: "running"}
        pushed = any_worker.xcoms["guard"]
        assert pushed["report"] == pushed["return_value"] == report
        assert (pushed["paused"], pushed["campaign_id"]) == ([], campaign_id)
        of_campaign = report[campaign_id]
        assert (of_campaign["judged"], of_campaign["beyond"], of_campaign["paused"]) == (True, [], False)
        assert of_campaign["figures"]["sent"] == 100
        assert of_campaign["figures"]["bounced"] == 3
        assert of_campaign["rates"]["bounce_rate"] == 0.03
        assert ("info", f"Campaign {campaign_id}: within the limits, bounce_rate 3.00% (3 of 100)") in [
            (level, text.split(", unsubscribe_rate")[0]) for level, text in told
        ]

    @pytest.mark.parametrize(
        ("activity", "count", "metric", "limit"),
        [("emailsBounced", 4, "bounce_rate", 0.03), ("emailsUnsubscribed", 3, "unsubscribe_rate", 0.02)],
    )
    def test_campaign_beyond_a_limit_is_paused_and_fails_the_task_with_its_figures(
        self,
        lemlist: Sandbox,
        any_worker: Any,
        lines: Any,
        activity: str,
        count: int,
        metric: str,
        limit: float,
    ) -> None:
        campaign_id = campaign(lemlist, **{activity: count})
        task = guard(campaign_id)
        told = lines(task)
        figures = f"{campaign_id}: {metric} {count}.00% ({count} of 100) is above {limit:.2%}, paused"
        with pytest.raises(LemlistGuardError) as caught:
            any_worker.run(task)
        assert figures in str(caught.value)
        assert isinstance(caught.value, AirflowFailException)
        assert ("warning", f"Campaign {figures}") in told
        assert statuses(lemlist) == {campaign_id: "paused"}
        assert routes(lemlist) == [BATCH, LOOK, PAUSE]
        pushed = any_worker.xcoms["guard"]
        assert pushed["paused"] == [campaign_id]
        assert pushed["report"][campaign_id]["beyond"] == [
            {"metric": metric, "value": count / 100, "limit": limit}
        ]
        assert pushed["report"][campaign_id]["paused"]

    def test_too_few_emails_are_not_judged(self, lemlist: Sandbox, worker: Any, lines: Any) -> None:
        campaign_id = campaign(lemlist, sent=49, emailsBounced=49)
        task = guard(campaign_id)
        told = lines(task)
        report = worker.run(task)
        assert not report[campaign_id]["judged"]
        assert ("info", f"Campaign {campaign_id}: not judged, because too few emails were sent (49)") in told
        with pytest.raises(LemlistGuardError):
            worker.run(guard(campaign_id, min_sent=49))

    def test_messages_on_linkedin_do_not_dilute_the_rates(self, lemlist: Sandbox, worker: Any) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4, linkedinSent=100)
        with pytest.raises(LemlistGuardError, match="4 of 100"):
            worker.run(guard(campaign_id))

    def test_only_the_window_counts(self, lemlist: Sandbox, worker: Any) -> None:
        campaign_id = campaign(lemlist, emailsBounced=100, days_ago=8)
        assert not worker.run(guard(campaign_id))[campaign_id]["judged"]
        with pytest.raises(LemlistGuardError):
            worker.run(guard(campaign_id, window=timedelta(days=9)))

    def test_none_switches_a_limit_off(self, lemlist: Sandbox, worker: Any) -> None:
        campaign_id = campaign(lemlist, emailsBounced=50, emailsUnsubscribed=1)
        worker.run(guard(campaign_id, max_bounce_rate=None, max_unsubscribe_rate=0.5))
        with pytest.raises(LemlistGuardError, match="bounce_rate"):
            worker.run(guard(campaign_id, max_unsubscribe_rate=None))

    def test_one_request_reads_a_hundred_campaigns_and_two_more_pause_one(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        ids = [campaign(lemlist, sent=1) for _ in range(247)]
        ids[50:50] = beyond = [campaign(lemlist, emailsBounced=9) for _ in range(3)]
        with pytest.raises(LemlistGuardError, match="3 of 250 campaigns"):
            worker.run(guard(ids))
        assert routes(lemlist) == [BATCH] * 3 + [LOOK, PAUSE] * 3
        assert [len(each["campaignIds"]) for each in asked(lemlist)] == [100, 100, 50]
        assert all(each["channels"] == ["email"] for each in asked(lemlist))
        assert worker.xcoms["guard"]["paused"] == beyond
        assert [*worker.xcoms["guard"]["report"]] == ids

    def test_long_error_refers_to_the_log(self, lemlist: Sandbox, worker: Any) -> None:
        ids = [campaign(lemlist, sent=1, emailsBounced=1) for _ in range(12)]
        with pytest.raises(LemlistGuardError) as caught:
            worker.run(guard(ids, min_sent=1))
        assert sum(each in str(caught.value) for each in ids) == 10
        assert "and 2 more, see the log" in str(caught.value)


class TestActions:
    def test_fail_does_not_change_the_campaign(self, lemlist: Sandbox, any_worker: Any) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4)
        with pytest.raises(LemlistGuardError, match=campaign_id):
            any_worker.run(guard(campaign_id, action="fail"))
        assert routes(lemlist) == [BATCH]
        assert any_worker.xcoms["guard"]["report"][campaign_id]["beyond"]

    def test_warn_only_logs(self, lemlist: Sandbox, worker: Any, lines: Any) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4)
        task = guard(campaign_id, action="warn", outlets=[Asset("lemlist://campaigns/all")])
        told = lines(task)
        assert worker.run(task)[campaign_id]["beyond"]
        assert routes(lemlist) == [BATCH]
        assert [text for level, text in told if level == "warning" and "4.00% (4 of 100)" in text]
        assert worker.asset_extras["lemlist://campaigns/all"] == {"campaigns": 1, "beyond": [campaign_id]}

    @pytest.mark.parametrize("status", ["draft", "paused", "ended", "archived"])
    def test_campaign_that_does_not_run_fails_the_task_all_the_same(
        self, lemlist: Sandbox, worker: Any, status: str
    ) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4, status=status)
        with pytest.raises(LemlistGuardError, match=rf"above 3.00%, was not running \({status}\)"):
            worker.run(guard(campaign_id))
        assert routes(lemlist) == [BATCH, LOOK]
        pushed = worker.xcoms["guard"]
        assert (pushed["paused"], pushed["report"][campaign_id]["status"]) == ([], status)

    def test_campaign_with_errors_may_still_send_and_is_paused(self, lemlist: Sandbox, worker: Any) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4, status="errors")
        with pytest.raises(LemlistGuardError, match="paused"):
            worker.run(guard(campaign_id))
        assert routes(lemlist) == [BATCH, LOOK, PAUSE]


class TestRepeated:
    def test_second_run_and_cleared_task_fail_without_pausing_again(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        ids = [campaign(lemlist, emailsBounced=4), campaign(lemlist)]
        for again in ({}, {"cleared": 1}):
            with pytest.raises(LemlistGuardError):
                any_worker.run(guard(ids), **again)
        any_worker.next_run()
        with pytest.raises(LemlistGuardError, match=r"was not running \(paused\)"):
            any_worker.run(guard(ids))
        assert len(lemlist.requests(PAUSE)) == 1
        assert statuses(lemlist) == dict(zip(ids, ("paused", "running"), strict=True))

    def test_retry_after_a_kill_pauses_what_is_left(
        self, lemlist: Sandbox, any_worker: Any, kill: Any
    ) -> None:
        ids = [campaign(lemlist, emailsBounced=4) for _ in range(3)]
        task = guard(ids)
        kill(task, "pause_campaign")
        with pytest.raises(SystemExit):
            any_worker.run(task)
        assert [*statuses(lemlist).values()] == ["paused", "running", "running"]
        with pytest.raises(LemlistGuardError, match="3 of 3 campaigns"):
            any_worker.run(guard(ids), attempt=2)
        assert {*statuses(lemlist).values()} == {"paused"}
        assert any_worker.xcoms["guard"]["paused"] == ids[1:]

    def test_kill_names_the_pause_that_is_in_flight(
        self, lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch, lines: Any
    ) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4)
        task = guard(campaign_id)
        told = lines(task)
        real = task.hook.pause_campaign

        def pause(campaign_id: str) -> Any:
            task.on_kill()
            return real(campaign_id)

        monkeypatch.setattr(task.hook, "pause_campaign", pause)
        with pytest.raises(LemlistGuardError):
            worker.run(task)
        assert [text for level, text in told if f"a request to pause campaign {campaign_id}" in text]
        told.clear()
        task.on_kill()
        assert not told


class TestFailures:
    def test_campaign_that_could_not_be_paused_does_not_keep_the_others_running(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        ids = [campaign(lemlist, emailsBounced=4) for _ in range(3)]
        lemlist.fault(f"POST /campaigns/{ids[0]}/pause", "status", status=503, times=50)
        with pytest.raises(LemlistError, match=f"{ids[0]}: .* may still send because pausing it") as caught:
            any_worker.run(guard(ids))
        assert caught.value.retryable, "the next attempt must pause it"
        assert statuses(lemlist) == dict(zip(ids, ("running", "paused", "paused"), strict=True))
        pushed = any_worker.xcoms["guard"]
        assert pushed["paused"] == ids[1:]
        assert pushed["report"][ids[0]]["error"]
        lemlist.clear_faults()
        with pytest.raises(LemlistGuardError):
            any_worker.run(guard(ids), attempt=2)
        assert {*statuses(lemlist).values()} == {"paused"}

    def test_pause_that_lemlist_refuses_is_not_retried(self, lemlist: Sandbox, worker: Any) -> None:
        ids = [campaign(lemlist, emailsBounced=4) for _ in range(2)]
        lemlist.fault(f"POST /campaigns/{ids[0]}/pause", "status", status=403, times=1)
        with pytest.raises(LemlistGuardError, match=f"{ids[0]}: .* may still send"):
            worker.run(guard(ids))
        assert statuses(lemlist)[ids[1]] == "paused"

    def test_campaign_whose_status_cannot_be_read_is_told_as_running(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        campaign_id = campaign(lemlist, emailsBounced=4)
        lemlist.fault(f"GET /campaigns/{campaign_id}", "status", status=503, times=50)
        with pytest.raises(LemlistError, match="may still send") as caught:
            worker.run(guard(campaign_id))
        assert caught.value.retryable

    @pytest.mark.parametrize("action", ["pause", "fail", "warn"])
    def test_unknown_campaign_fails_the_task_after_the_others_were_handled(
        self, lemlist: Sandbox, any_worker: Any, action: Any
    ) -> None:
        bad, good = campaign(lemlist, emailsBounced=4), campaign(lemlist)
        expected = LemlistNotFoundError if action == "warn" else LemlistGuardError
        with pytest.raises(expected, match="1 of 3 campaigns not judged: .*cam_gone: not judged") as caught:
            any_worker.run(guard(["cam_gone", bad, good], action=action))
        assert not caught.value.retryable
        assert statuses(lemlist)[bad] == ("paused" if action == "pause" else "running")
        report = any_worker.xcoms["guard"]["report"]
        assert [report[each]["judged"] for each in ("cam_gone", bad, good)] == [False, True, True]
        assert "No campaign has this id" in report["cam_gone"]["error"]

    def test_only_unknown_campaigns_are_the_error_of_lemlist(self, lemlist: Sandbox, worker: Any) -> None:
        with pytest.raises(LemlistNotFoundError, match="No campaign has this id"):
            worker.run(guard("cam_gone"))
        with pytest.raises(LemlistNotFoundError, match="cam_gone: .*; cam_lost: "):
            worker.run(guard(["cam_gone", "cam_lost"]))

    def test_campaign_of_another_team_does_not_hide_the_figures_of_the_others(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        bad, good = campaign(lemlist, emailsBounced=4), campaign(lemlist)
        lemlist.fault(BATCH, "status", status=400, text="Bad team", times=1)
        lemlist.fault(f"GET /v2/campaigns/{good}/stats", "status", status=400, text="Bad team", times=1)
        with pytest.raises(LemlistGuardError, match=f"1 of 2 campaigns not judged.*{good}: not judged"):
            worker.run(guard([bad, good]))
        assert statuses(lemlist)[bad] == "paused"

    def test_outage_is_retried_and_what_was_read_is_acted_upon(self, lemlist: Sandbox, worker: Any) -> None:
        ids = [campaign(lemlist, emailsBounced=4), *(campaign(lemlist, sent=0) for _ in range(100))]
        lemlist.fault(BATCH, "status", status=503, skip=1, times=50)
        with pytest.raises(LemlistError, match="1 of 101 campaigns beyond a limit, 1 .*not judged") as caught:
            worker.run(guard(ids))
        assert caught.value.retryable
        assert statuses(lemlist)[ids[0]] == "paused"

    def test_failure_of_all_campaigns_is_the_error_of_the_request(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        ids = [campaign(lemlist, sent=0) for _ in range(2)]
        lemlist.fault(BATCH, "status", status=503, times=50)
        with pytest.raises(LemlistServerError) as caught:
            worker.run(guard(ids))
        assert caught.value.status == 503
        lemlist.clear_faults()
        lemlist.accept_key(lemlist.api_key, "blocked")
        with pytest.raises(LemlistAuthError):
            worker.run(guard(ids))


ROW = {"messagesSent": 100, "messagesBounced": 0, "nbLeadsReached": 100, "nbLeadsUnsubscribed": 0}


@pytest.fixture
def scripted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    connection = {
        "conn_type": "lemlist", "host": stage.url, "password": API_KEY, "extra": {"budget_store": "memory://"},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", json.dumps(connection))
    return stage


def figures(*rows: dict[str, Any]) -> Act:
    return Act(body={"results": [{"campaignId": f"cam_{n}", **row} for n, row in enumerate(rows)]})


class TestIncompleteFigures:
    @pytest.mark.parametrize("counter", ROW)
    @pytest.mark.parametrize("value", ["missing", None, "0", -1, True, 1.5])
    def test_counter_that_is_missing_or_no_count_is_never_zero(
        self, scripted: Stage, worker: Any, counter: str, value: Any
    ) -> None:
        row = {**ROW, counter: value}
        if value == "missing":
            del row[counter]
        scripted.script = [figures(row)]
        with pytest.raises(LemlistUnexpectedReplyError, match=f"campaign cam_0 lack {counter}"):
            worker.run(guard("cam_0"))
        assert not worker.xcoms["guard"]["report"]["cam_0"]["judged"]

    def test_counter_that_no_limit_needs_may_be_missing(self, scripted: Stage, worker: Any) -> None:
        scripted.script = [figures({"messagesSent": 100, "messagesBounced": 2})]
        report = worker.run(guard("cam_0", max_unsubscribe_rate=None))
        assert report["cam_0"]["rates"]["unsubscribe_rate"] is None
        assert report["cam_0"]["figures"]["clicked"] is None

    def test_campaign_without_figures_does_not_keep_others_running(
        self, scripted: Stage, worker: Any
    ) -> None:
        scripted.script = [
            figures({"messagesSent": 100}, {**ROW, "messagesBounced": 9}),
            Act(body={"_id": "cam_1", "status": "running"}),
            Act(body={"_id": "cam_1", "state": "paused"}),
        ]
        with pytest.raises(LemlistError, match="cam_1: .*paused; cam_0: not judged: .*lack") as caught:
            worker.run(guard(["cam_0", "cam_1"]))
        assert caught.value.retryable
        assert worker.xcoms["guard"]["paused"] == ["cam_1"]

    def test_campaign_beyond_one_limit_is_paused_though_the_other_is_not_known(
        self, scripted: Stage, worker: Any
    ) -> None:
        scripted.script = [
            figures({"messagesSent": 100, "messagesBounced": 9}),
            Act(body={"_id": "cam_0", "status": "running"}),
            Act(body={"_id": "cam_0", "state": "paused"}),
        ]
        with pytest.raises(LemlistGuardError, match="cam_0: bounce_rate 9.00%.*paused"):
            worker.run(guard("cam_0"))

    def test_campaign_that_the_batch_lacks_is_requested_by_itself(self, scripted: Stage, worker: Any) -> None:
        scripted.script = [
            Act(body={"results": [], "errors": [{"campaignId": "cam_0", "error": "x"}]}),
            Act(body=ROW),
        ]
        assert worker.run(guard("cam_0"))["cam_0"]["judged"]
        assert [each.path for each in scripted.requests] == [
            "/v2/campaigns/stats/batch",
            "/v2/campaigns/cam_0/stats",
        ]

    def test_unsubscribes_of_nobody_reached_are_beyond_the_limit(self, scripted: Stage, worker: Any) -> None:
        scripted.script = [figures({**ROW, "nbLeadsReached": 0, "nbLeadsUnsubscribed": 1})]
        with pytest.raises(LemlistGuardError, match=r"unsubscribe_rate \(1 of 0\) is above 2.00%"):
            worker.run(guard("cam_0", action="fail"))


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            ({"max_bounce_rate": 3}, "The max_bounce_rate of task 'guard' must be .* Write 0.03 for 3 %"),
            ({"max_bounce_rate": -0.01}, "must be a part from 0 to 1, not -0.01"),
            ({"max_bounce_rate": float("nan")}, "must be a part from 0 to 1"),
            ({"max_unsubscribe_rate": "0.02"}, "The max_unsubscribe_rate .*not '0.02'"),
            ({"max_unsubscribe_rate": True}, "must be a part from 0 to 1"),
            ({"max_bounce_rate": None, "max_unsubscribe_rate": None}, "'guard': both are None"),
            ({"window": timedelta()}, "The window of task 'guard' must be a positive timedelta"),
            ({"window": 7}, "must be a positive timedelta, not 7"),
            ({"min_sent": -1}, "The min_sent of task 'guard' must be a whole number from 0"),
            ({"min_sent": None}, "must be a whole number from 0"),
            ({"action": "stop"}, "action of task 'guard' must be one of pause, fail, warn"),
            ({"campaign_id": []}, "The campaign_id of task 'guard' must be an id or a list of them"),
            ({"campaign_id": ["cam_1", " "]}, "The campaign_id of task 'guard' is empty"),
            ({"campaign_id": {"_id": "cam_1"}}, "must be an id or a list of them"),
            ({"campaign_id": None}, "is empty, but must be an id or a list of them"),
        ],
    )
    def test_wrong_value_is_an_import_error(self, wrong: dict[str, Any], match: str) -> None:
        for make in (
            lambda: guard(**{"campaign_id": "cam_1", **wrong}),
            lambda: CampaignGuardOperator.partial(
                task_id="guard", **{name: value for name, value in wrong.items() if name != "campaign_id"}
            ).expand(campaign_id=[wrong.get("campaign_id", "cam_1")]),
        ):
            with pytest.raises((LemlistConfigurationError, LemlistValidationError), match=match):
                make()

    @pytest.mark.parametrize("empty", [None, "", " ", "None", float("nan"), [], ["cam_1", None]], ids=repr)
    def test_empty_value_from_upstream_is_an_error_before_the_first_request(
        self, lemlist: Sandbox, worker: Any, empty: Any
    ) -> None:
        with DAG("d", schedule=None):
            task = guard(upstream(empty, worker))
        with pytest.raises(
            LemlistValidationError, match="The campaign_id of task 'guard' .*Nothing was sent"
        ):
            worker.run(task)
        assert not lemlist.requests()

    def test_template_and_list_from_upstream_and_repeated_ids_are_read(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        first, second = campaign(lemlist, sent=0), campaign(lemlist, sent=0)
        with DAG("d", schedule=None):
            listed = guard(upstream([first, f" {second} ", first], worker))
            templated = guard("{{ ti.xcom_pull(task_ids='upstream')[0] }}", task_id="templated")
        assert [*worker.run(listed)] == [first, second]
        worker.xcoms["upstream"] = {"return_value": [first]}
        assert [*worker.run(templated)] == [first]
        assert templated.campaign_id == first

    def test_mapped_task_guards_one_campaign_each(self, lemlist: Sandbox, any_worker: Any) -> None:
        bad, good = campaign(lemlist, emailsBounced=4), campaign(lemlist)
        with DAG("d", schedule=None):
            mapped = CampaignGuardOperator.partial(task_id="guard").expand(campaign_id=[good, [bad]])
        assert [*any_worker.run_mapped(mapped, 0)] == [good]
        with pytest.raises(LemlistGuardError):
            any_worker.run_mapped(mapped, 1)
        assert statuses(lemlist) == {bad: "paused", good: "running"}


def test_one_campaign_is_linked_and_several_are_not(
    lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key: Any = SimpleNamespace(dag_id="d", task_id="guard", run_id="r", map_index=-1)
    pushed: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "get_value", lambda *, key, ti_key: pushed.get(key))
    ids = [campaign(lemlist, sent=0) for _ in range(2)]
    for given, linked in ((ids, ""), (ids[:1], f"{lemlist.origin}/campaigns/{ids[0]}")):
        task = guard(given)
        worker.run(task)
        pushed = worker.xcoms["guard"]
        assert CampaignLink().get_link(task, ti_key=key) == linked
        # The webserver of Airflow 2 knows only what is written and what was pushed.
        assert CampaignLink().get_link(guard(given), ti_key=key) == linked


def test_lineage_has_the_paused_campaigns_only(lemlist: Sandbox, worker: Any) -> None:
    bad, good = campaign(lemlist, emailsBounced=4), campaign(lemlist)
    task = guard([bad, good])
    with pytest.raises(LemlistGuardError):
        worker.run(task)
    here = f"lemlist://{lemlist.origin.removeprefix('http://')}"
    assert lineage_of(task) == ([], [(here, f"campaigns/{bad}")])


def test_neither_log_nor_xcom_nor_error_names_a_person(
    lemlist: Sandbox, worker: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    campaign_id = campaign(lemlist, emailsBounced=4)
    with pytest.raises(LemlistGuardError) as caught:
        worker.run(guard(campaign_id))
    told = caplog.text + capsys.readouterr().out + str(caught.value) + json.dumps(worker.xcoms)
    assert campaign_id in told
    assert "example.com" not in told
    assert lemlist.api_key not in told
