# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistUnexpectedReplyError,
)
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sensors.campaign import CampaignStatsSensor
from airflow_provider_lemlist.triggers.campaign import CampaignStatsTrigger
from tests.unit.conftest import API_KEY, Act, Stage
from tests.unit.statistics import BATCH, add_activity, add_campaign, asked, moment

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
WEEK_AGO = datetime.now(UTC) - timedelta(days=7)


def sensor(campaign_id: Any = "cam_1", **changes: Any) -> CampaignStatsSensor:
    kwargs: dict[str, Any] = {
        "task_id": "wait",
        "campaign_id": campaign_id,
        "metric": "replied",
        "since": WEEK_AGO,
        "poke_interval": 0.05,
        "timeout": 5,
    }
    if not {"above", "below"} & changes.keys():
        kwargs["above"] = 0
    return CampaignStatsSensor(**kwargs | changes)


def context(**run: Any) -> Any:
    times = {
        "data_interval_start": NOON,
        "data_interval_end": NOON + timedelta(days=1),
        "logical_date": NOON,
        "run_after": NOON + timedelta(days=1),
    }
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(pushed=pushed, xcom_push=lambda key, value: pushed.update({key: value}))
    return {"dag_run": SimpleNamespace(**times | run), "ti": ti}


def reason_of_skip(run: Callable[[Any], Any]) -> str:
    """Run a sensor that Airflow skips; return why, as the XCom says it."""
    its_context = context()
    with pytest.raises(AirflowSkipException):
        run(its_context)
    report = its_context["ti"].pushed["report"]
    assert report["outcome"] == "skipped"
    return str(report["message"])


def deferred(a_sensor: CampaignStatsSensor) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        a_sensor.execute(context())
    return caught.value


class TestArguments:
    def test_template_fields_are_arguments_and_untouched(self):
        given = {name: f"{{{{ {name} }}}}" for name in CampaignStatsSensor.template_fields}
        a_sensor = sensor(**given)
        assert {name: getattr(a_sensor, name) for name in given} == given

    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            ({"metric": "bounces"}, "metric of task 'wait' must be one of sent, "),
            ({"metric": "bounce_rat"}, "did you mean 'bounce_rate'"),
            ({"above": None}, "Set one of above and below of task 'wait'"),
            ({"above": 1, "below": 2}, "Set one of above and below of task 'wait'"),
            ({"above": -1}, "above of task 'wait' must be a number from 0"),
            ({"above": "5"}, "above of task 'wait' must be a number"),
            ({"below": 0}, "below of task 'wait' must be above 0"),
            (
                {"metric": "open_rate", "above": 40},
                "above of task 'wait' must be a part .* Write 0.4 for 40 %",
            ),
            ({"min_sent": -1}, "min_sent of task 'wait' must be a whole number"),
            ({"since": "yesterday"}, "since must be a datetime"),
            ({"since": ""}, "since of task 'wait' is empty"),
            ({"window": timedelta(days=1)}, "Set since or window of task 'wait', not both"),
            ({"window": timedelta(), "since": None}, "window of task 'wait' must be a positive timedelta"),
            ({"channels": "email"}, "channels of task 'wait' must be a list of email, linkedin, others"),
            ({"campaign_id": ""}, "campaign_id of task 'wait' is empty"),
            ({"campaign_id": None}, "campaign_id of task 'wait' is empty"),
            ({"campaign_id": ["cam_1"]}, "campaign_id of task 'wait' must be an id, not list"),
        ],
    )
    def test_wrong_literal_is_found_when_the_dag_is_parsed(self, wrong: dict[str, Any], match: str):
        with pytest.raises(LemlistConfigurationError, match=match):
            sensor(**wrong)

    def test_wrong_literal_of_a_mapped_sensor_is_an_import_error(self):
        with pytest.raises(LemlistConfigurationError, match="above of task 'wait'"):
            CampaignStatsSensor.partial(task_id="wait", metric="bounce_rate").expand_kwargs(
                [{"campaign_id": "cam_1", "above": 0.1}, {"campaign_id": "cam_2", "above": 10}]
            )

    @pytest.mark.parametrize("deferrable", [True, False])
    @pytest.mark.parametrize("name", ["campaign_id", "since"])
    @pytest.mark.parametrize("empty", [None, "", "None", " "])
    def test_argument_rendered_empty_fails_before_a_request_whatever_soft_fail_says(
        self, quick_lemlist: Sandbox, deferrable: bool, name: str, empty: Any
    ):
        a_sensor = sensor(deferrable=deferrable, soft_fail=True, **{name: "{{ given }}"})
        setattr(a_sensor, name, empty)  # what Airflow does when it renders
        with pytest.raises(LemlistConfigurationError, match=f"{name} of task 'wait' is empty"):
            a_sensor.execute(context())
        assert not quick_lemlist.requests()

    @pytest.mark.parametrize("name", ["campaign_id", "since"])
    def test_empty_argument_of_one_map_index_fails(self, quick_lemlist: Sandbox, name: str):
        with DAG("mapped", schedule=None, start_date=NOON):
            upstream = sensor(task_id="upstream").output
            given = {"campaign_id": "cam_1", "metric": "replied", "above": 0, "timeout": 0}
            given.pop(name, None)
            mapped = CampaignStatsSensor.partial(task_id="wait", **given).expand(**{name: upstream})
        with pytest.raises(LemlistConfigurationError, match=f"{name} of task 'wait' is empty"):
            mapped.unmap({name: None}).execute(context())
        assert not quick_lemlist.requests()

    def test_it_links_to_the_campaign_and_changes_none(self, quick_lemlist: Sandbox):
        [link] = CampaignStatsSensor.operator_extra_links
        assert link.get_link(sensor(), ti_key=None) == f"{quick_lemlist.origin}/campaigns/cam_1"
        assert sensor()._changed_campaigns() == []

    def test_interval_is_five_minutes_unless_set(self):
        arguments: dict[str, Any] = {"campaign_id": "cam_1", "metric": "replied", "above": 0}
        assert CampaignStatsSensor(task_id="wait", **arguments).poke_interval == 300
        with DAG("d", schedule=None, default_args={"poke_interval": 20}):
            assert CampaignStatsSensor(task_id="wait", **arguments).poke_interval == 20


class TestPeriod:
    def test_default_is_the_window_of_the_run(self):
        trigger = deferred(sensor(since=None, deferrable=True)).trigger
        assert (trigger.since, trigger.window) == (NOON.isoformat(), None)

    def test_rendered_text_is_a_moment(self):
        trigger = deferred(sensor(since="2026-03-02 13:00:00+01:00", deferrable=True)).trigger
        assert trigger.since == NOON.isoformat()

    @pytest.mark.parametrize("period", ["since", "window"])
    def test_only_the_period_counts(self, quick_lemlist: Sandbox, period: str):
        campaign_id = add_campaign(quick_lemlist, sent=3, days_ago=2)
        now = datetime.now(UTC)
        for days, counted in ((1, 0), (3, 3)):
            span = timedelta(days=days)
            given = {"since": now - span} if period == "since" else {"since": None, "window": span}
            found = sensor(campaign_id, metric="sent", below=5, **given).execute(context())
            assert found["value"] == counted
            since, until = moment(found["since"]), moment(found["until"])
            assert since == now - span if period == "since" else until - since == span

    def test_window_moves_with_each_read(self, quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch):
        campaign_id = add_campaign(quick_lemlist, sent=0)
        monkeypatch.setattr(
            "time.sleep", lambda seconds: add_activity(quick_lemlist, campaign_id, "emailsReplied")
        )
        sensor(campaign_id, since=None, window=timedelta(days=1), above=1).execute(context())
        starts = [each["startDate"] for each in asked(quick_lemlist)]
        assert len(starts) == 3
        assert starts == sorted({*starts})


class TestPoke:
    def test_it_waits_until_the_limit_is_passed_and_returns_the_figures(
        self, quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
    ):
        campaign_id = add_campaign(quick_lemlist, sent=4)
        monkeypatch.setattr(
            "time.sleep", lambda seconds: add_activity(quick_lemlist, campaign_id, "emailsReplied")
        )
        found = sensor(campaign_id, above=2).execute(context())
        assert len(quick_lemlist.requests()) == 4
        assert (found["campaign_id"], found["metric"], found["value"]) == (campaign_id, "replied", 3)
        assert found["figures"]["sent"] == 4
        assert found["rates"]["reply_rate"] == 0.75
        assert json.loads(json.dumps(found)) == found

    def test_a_rate_is_not_judged_by_few_messages(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=49, emailsBounced=1)
        rate = {"metric": "bounce_rate", "above": 0.01}
        assert sensor(campaign_id, **rate).poke(context()) is False
        assert sensor(campaign_id, **rate, min_sent=49).poke(context())
        add_activity(quick_lemlist, campaign_id, "emailsSent")
        assert sensor(campaign_id, **rate).poke(context())

    @pytest.mark.parametrize(
        ("metric", "given", "sent"),
        [
            ("bounce_rate", None, ["email"]),
            ("unsubscribed", None, ["email"]),
            ("open_rate", None, ["email"]),
            ("replied", None, None),
            ("sent", None, None),
            ("replied", ["linkedin"], ["linkedin"]),
            ("bounce_rate", ["email", "linkedin", "others"], ["email", "linkedin", "others"]),
        ],
    )
    def test_bounces_unsubscribes_and_opens_are_those_of_emails_unless_asked_otherwise(
        self, quick_lemlist: Sandbox, metric: str, given: Any, sent: Any
    ):
        campaign_id = add_campaign(quick_lemlist, sent=0)
        sensor(campaign_id, metric=metric, above=0, channels=given).poke(context())
        (body,) = asked(quick_lemlist)
        assert body.get("channels") == sent
        trigger = deferred(sensor(metric=metric, above=0, channels=given, deferrable=True)).trigger
        assert trigger.channels == sent

    def test_linkedin_messages_do_not_dilute_the_bounces(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=60, emailsBounced=6, linkedinSent=60)
        found = sensor(campaign_id, metric="bounce_rate", above=0.09).execute(context())
        assert found["value"] == 0.1

    def test_unknown_campaign_is_not_retried_and_soft_fail_skips(self, quick_lemlist: Sandbox):
        with pytest.raises(LemlistNotFoundError) as caught:
            sensor("cam_gone").execute(context())
        assert isinstance(caught.value, AirflowFailException)
        assert "campaigns/cam_gone" in reason_of_skip(sensor("cam_gone", soft_fail=True).execute)

    def test_outage_fails_the_task_and_silent_fail_goes_on(
        self, quick_lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
    ):
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        quick_lemlist.fault(BATCH, "status", status=503, times=50)
        with pytest.raises(LemlistServerError):
            sensor(campaign_id).execute(context())
        with pytest.raises(AirflowSkipException):
            sensor(campaign_id, never_fail=True).execute(context())
        monkeypatch.setattr("time.sleep", lambda seconds: quick_lemlist.clear_faults())
        assert sensor(campaign_id, silent_fail=True).execute(context())["value"] == 1

    def test_counter_that_is_missing_is_an_error_and_never_zero(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ):
        connection = {"conn_type": "lemlist", "host": stage.url, "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", json.dumps(connection))
        stage.script = [Act(body={"results": [{"campaignId": "cam_1", "messagesSent": 100}]})]
        with pytest.raises(LemlistUnexpectedReplyError, match="cam_1 lack replied"):
            sensor(below=5).execute(context())

    def test_soft_fail_skips_on_timeout(self, quick_lemlist: Sandbox):
        campaign_id = add_campaign(quick_lemlist, sent=0)
        with pytest.raises(AirflowSkipException):
            sensor(campaign_id, timeout=0, soft_fail=True).execute(context())

    def test_no_person_is_logged(
        self,
        quick_lemlist: Sandbox,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ):
        caplog.set_level(logging.INFO)
        campaign_id = add_campaign(quick_lemlist, sent=1, emailsReplied=1)
        sensor(campaign_id).execute(context())
        told = caplog.text + capsys.readouterr().out
        assert f"Campaign {campaign_id}: replied is 1" in told
        assert "example.com" not in told


class TestDefer:
    def test_the_trigger_gets_every_argument_without_a_request(self, quick_lemlist: Sandbox):
        deferral = deferred(
            sensor(
                " cam_1 ",
                metric="bounce_rate",
                below=0.02,
                since=None,
                window=timedelta(days=2),
                min_sent=20,
                channels=["others", "email"],
                poke_interval=30,
                timeout=timedelta(hours=2),
                lemlist_conn_id="other",
                deferrable=True,
            )
        )
        assert isinstance(deferral.trigger, CampaignStatsTrigger)
        assert deferral.trigger.serialize()[1] == {
            "campaign_id": "cam_1",
            "metric": "bounce_rate",
            "above": None,
            "below": 0.02,
            "min_sent": 20,
            "since": None,
            "window": 172800.0,
            "channels": ["email", "others"],
            "poke_interval": 30,
            "max_consecutive_failures": 10,
            "lemlist_conn_id": "other",
        }
        assert deferral.method_name == "execute_complete"
        assert deferral.timeout == timedelta(hours=2)
        assert not quick_lemlist.requests()

    def test_default_of_min_sent_is_for_rates(self):
        assert deferred(sensor(metric="reply_rate", above=0.1, deferrable=True)).trigger.min_sent == 50
        assert deferred(sensor(metric="replied", deferrable=True)).trigger.min_sent == 0

    def test_silent_fail_allows_any_number_of_failures(self):
        trigger = deferred(sensor(silent_fail=True, deferrable=True)).trigger
        assert trigger.max_consecutive_failures is None

    def test_it_is_off_unless_the_configuration_says_otherwise(self):
        assert sensor().deferrable is False


class TestResume:
    """``resume_execution`` on a fresh sensor, as a worker calls it."""

    ERROR = {"status": "error", "error": "LemlistAuthError", "message": "wrong key", "http_status": 401}
    OUTAGE = {"status": "error", "error": "LemlistServerError", "message": "down", "http_status": 503}

    @staticmethod
    def resume(event: Any, **changes: Any) -> Any:
        return sensor(deferrable=True, **changes).resume_execution(
            "execute_complete", {"event": event}, context()
        )

    def test_the_figures_are_returned(self):
        found = {"campaign_id": "cam_1", "metric": "replied", "value": 3}
        assert self.resume({"status": "success", "stats": found}) == found

    @pytest.mark.parametrize("event", [None, {}, {"status": "surprise"}, {"stats": {}}])
    def test_an_event_without_a_result_never_succeeds(self, event: Any):
        with pytest.raises(LemlistError, match="instead of a result"):
            self.resume(event)

    def test_an_error_is_raised_as_the_class_it_was(self):
        with pytest.raises(LemlistAuthError, match="wrong key") as caught:
            self.resume(self.ERROR)
        assert caught.value.status == 401

    @pytest.mark.parametrize("event", [ERROR, OUTAGE], ids=["final", "retryable"])
    def test_never_fail_skips_on_any_error_as_when_poking(self, event: Any):
        with pytest.raises(AirflowSkipException):
            self.resume(event, never_fail=True)

    def test_soft_fail_skips_on_final_errors_and_lets_airflow_retry_the_others(self):
        with pytest.raises(AirflowSkipException):
            self.resume(self.ERROR, soft_fail=True)
        with pytest.raises(LemlistServerError):
            self.resume(self.OUTAGE, soft_fail=True)


def test_poke_and_trigger_return_the_same(quick_lemlist: Sandbox):
    campaign_id = add_campaign(
        quick_lemlist, sent=60, emailsBounced=6, emailsReplied=5, linkedinSent=20, linkedinReplied=2
    )
    for changes in (
        {},
        {"metric": "bounce_rate", "above": 0.05},
        {"metric": "reply_rate", "below": 0.5},
        {"metric": "replied", "channels": ["linkedin"]},
        {"metric": "sent", "since": None, "window": timedelta(days=2)},
    ):
        trigger = deferred(sensor(campaign_id, deferrable=True, **changes)).trigger

        async def fire(trigger: CampaignStatsTrigger = trigger) -> Any:
            return [event.payload async for event in trigger.run()]

        [event] = asyncio.run(fire())
        poked = sensor(campaign_id, **changes).execute(context())
        moving = ("since", "until")
        assert {**event["stats"], **dict.fromkeys(moving)} == {**poked, **dict.fromkeys(moving)}, changes
