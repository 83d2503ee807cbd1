# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from airflow_provider_lemlist.triggers.activity import ActivityTrigger
from tests.unit.activity_listing import ago

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.activity_listing import Listing

REPLY = "emailsReplied"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def sensor(**changes: Any) -> ActivitySensor:
    kwargs: dict[str, Any] = {
        "task_id": "wait",
        "activity_type": REPLY,
        "campaign_id": "cam_1",
        "since": ago(hours=1),
        "poke_interval": 0.05,
        "timeout": 5,
    }
    return ActivitySensor(**kwargs | changes)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What a task writes from info level on: by ``logging`` in Airflow 2, past it in Airflow 3."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + capsys.readouterr().out


def context(**run: Any) -> Any:
    times = {
        "data_interval_start": NOON,
        "data_interval_end": NOON + timedelta(days=1),
        "logical_date": NOON,
        "run_after": NOON + timedelta(days=1),
        "start_date": NOON + timedelta(days=2),
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


def deferred(a_sensor: ActivitySensor, **run: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        a_sensor.execute(context(**run))
    return caught.value


class TestArguments:
    def test_template_fields_are_arguments_and_untouched(self):
        given = {name: f"{{{{ {name} }}}}" for name in ActivitySensor.template_fields}
        a_sensor = sensor(**given)
        assert {name: getattr(a_sensor, name) for name in given} == given
        assert set(ActivitySensor.template_fields_renderers) <= set(given)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"activity_type": []},
            {"activity_type": None},
            {"since": "yesterday"},
            {"since": 5},
            {"since": ""},
            {"campaign_id": ""},
            {"lead_id": "lea 1"},
            {"bots": "yes"},
            {"bots": None},
        ],
    )
    def test_a_wrong_literal_is_found_when_the_dag_is_parsed(self, wrong):
        with pytest.raises(LemlistConfigurationError, match=next(iter(wrong))):
            sensor(**wrong)

    @pytest.mark.parametrize("name", ["campaign_id", "lead_id"])
    def test_a_whole_lead_is_not_an_id(self, lemlist: Listing, name):
        a_sensor = sensor(**{name: "{{ given }}"})
        setattr(a_sensor, name, {"_id": "lea_1"})
        with pytest.raises(LemlistConfigurationError, match=f"{name} of task 'wait' must be an id, not dict"):
            a_sensor.execute(context())
        assert not lemlist.queries

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_ids_lose_surrounding_spaces(self, lemlist: Listing, deferrable):
        a_sensor = sensor(lead_id=" lea_1\n", campaign_id=" cam_1 ", deferrable=deferrable)
        if deferrable:
            trigger = deferred(a_sensor).trigger
            assert (trigger.campaign_id, trigger.lead_id) == ("cam_1", "lea_1")
        else:
            lemlist.add()
            assert len(a_sensor.execute(context())) == 1

    def test_it_links_to_the_campaign(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", '{"conn_type": "lemlist", "password": "key"}')
        [link] = ActivitySensor.operator_extra_links
        url = link.get_link(sensor(), ti_key=None)
        assert url == "https://app.lemlist.com/campaigns/cam_1"

    @pytest.mark.parametrize("min_count", [0, -1, True, 1.5, "1", None])
    def test_a_wrong_count_is_found_when_the_dag_is_parsed(self, min_count):
        with pytest.raises(LemlistConfigurationError, match="min_count"):
            sensor(min_count=min_count)

    def test_a_wrong_is_first_is_found_when_the_dag_is_parsed(self):
        with pytest.raises(LemlistConfigurationError, match="is_first"):
            sensor(is_first="yes")

    @pytest.mark.parametrize("deferrable", [True, False])
    @pytest.mark.parametrize("name", ["campaign_id", "lead_id", "since"])
    @pytest.mark.parametrize("empty", [None, "", "None", " "])
    def test_an_argument_rendered_empty_does_not_widen_the_wait(
        self, lemlist: Listing, deferrable, name, empty
    ):
        a_sensor = sensor(deferrable=deferrable, soft_fail=True, **{name: "{{ given }}"})
        setattr(a_sensor, name, empty)  # what Airflow does when it renders
        with pytest.raises(LemlistConfigurationError, match=f"{name} of task 'wait' is empty"):
            a_sensor.execute(context())
        assert not lemlist.queries

    @pytest.mark.parametrize("name", ["campaign_id", "lead_id", "since"])
    @pytest.mark.parametrize("empty", [None, "", "None", " "])
    def test_an_empty_argument_of_one_map_index_does_not_widen_the_wait(self, lemlist: Listing, name, empty):
        with DAG("mapped", schedule=None, start_date=NOON):
            upstream = sensor(task_id="upstream").output
            mapped = ActivitySensor.partial(task_id="wait", activity_type=REPLY, timeout=0).expand(
                **{name: upstream}
            )
        with pytest.raises(LemlistConfigurationError, match=f"{name} of task 'wait' is empty"):
            mapped.unmap({name: empty}).execute(context())
        assert not lemlist.queries

    @pytest.mark.parametrize("name", ["campaign_id", "lead_id", "since"])
    def test_an_empty_literal_of_a_mapped_sensor_is_an_import_error(self, name):
        with (
            DAG("mapped", schedule=None, start_date=NOON),
            pytest.raises(LemlistConfigurationError, match=f"{name} of task 'wait' is empty"),
        ):
            ActivitySensor.partial(task_id="wait", activity_type=REPLY).expand(**{name: [" "]})

    def test_arguments_that_a_mapped_sensor_leaves_out_are_not_empty(self):
        with DAG("mapped", schedule=None, start_date=NOON):
            mapped = ActivitySensor.partial(task_id="wait", activity_type=REPLY, deferrable=True).expand(
                lead_id=["lea_1"]
            )
        trigger = deferred(mapped.unmap({"lead_id": "lea_1"})).trigger
        assert (trigger.campaign_id, trigger.lead_id) == (None, "lea_1")

    def test_none_in_the_dag_file_means_all(self):
        trigger = deferred(sensor(campaign_id=None, lead_id=None, since=None, deferrable=True)).trigger
        assert (trigger.campaign_id, trigger.lead_id, trigger.since) == (None, None, NOON.isoformat())

    @pytest.mark.parametrize(
        ("given", "hint"), [("emailReplied", "did you mean 'emailsReplied'?"), ("brandNew", "unknown here")]
    )
    def test_an_unknown_type_is_warned_about_and_requested(self, given, hint, logged):
        assert deferred(sensor(activity_type=given, deferrable=True)).trigger.activity_type == [given]
        assert hint in logged()

    def test_a_known_type_is_not_warned_about(self, logged):
        deferred(sensor(activity_type=[REPLY, "meetingBooked"], deferrable=True))
        assert "unknown" not in logged()


class TestSince:
    def test_the_default_is_the_start_of_a_data_interval_with_a_width(self):
        trigger = deferred(sensor(since=None, deferrable=True)).trigger
        assert trigger.since == "2026-03-02T12:00:00+00:00"

    def test_without_such_an_interval_the_default_is_when_the_previous_run_was_due(self):
        a_context = context(data_interval_end=NOON, run_after=NOON)
        previous = context(run_after=NOON - timedelta(days=1))["dag_run"]
        a_context["ti"] = SimpleNamespace(get_previous_dagrun=lambda: previous)
        with pytest.raises(TaskDeferred) as caught:
            sensor(since=None, deferrable=True).execute(a_context)
        assert caught.value.trigger.since == "2026-03-01T12:00:00+00:00"

    def test_airflow_is_asked_for_the_previous_run_once_however_often_the_sensor_pokes(
        self, lemlist: Listing, monkeypatch
    ):
        lookups = []
        a_context = context(data_interval_end=NOON, run_after=NOON)
        a_context["ti"] = SimpleNamespace(get_previous_dagrun=lambda: lookups.append(1))
        monkeypatch.setattr("time.sleep", lambda seconds: lemlist.add())
        sensor(since=None, min_count=3).execute(a_context)
        assert len(lemlist.queries) == 4
        assert lookups == [1]

    def test_rendered_text_is_a_moment(self):
        trigger = deferred(sensor(since="2026-03-02 13:00:00+01:00", deferrable=True)).trigger
        assert trigger.since == "2026-03-02T12:00:00+00:00"


class TestPoke:
    def test_it_returns_what_counted_oldest_first(self, lemlist: Listing):
        lemlist.add(at=ago(hours=2))
        ids = [lemlist.add(at=ago(minutes=2)), lemlist.add(at=ago(minutes=1))]
        found = sensor(min_count=2).execute(context())
        assert [activity["_id"] for activity in found] == ids
        assert "ana" not in json.dumps(found).lower()

    def test_it_waits_until_there_are_enough(self, lemlist: Listing, monkeypatch):
        def sleep(seconds: float) -> None:
            lemlist.add(lead_id="lea_2")

        monkeypatch.setattr("time.sleep", sleep)
        lemlist.add()
        assert len(sensor(min_count=3).execute(context())) == 3
        assert len(lemlist.queries) == 3

    def test_it_sends_one_request_for_each_type_with_every_filter(self, lemlist: Listing):
        lemlist.add("linkedinReplied", isFirst=False)
        found = sensor(activity_type=[REPLY, "linkedinReplied"], lead_id="lea_1", is_first=False).execute(
            context()
        )
        assert len(found) == 1
        sent = [{**query, "minDate": "", "maxDate": ""} for query in lemlist.queries]
        shared = {
            "version": "v2",
            "campaignId": "cam_1",
            "leadId": "lea_1",
            "isFirst": "false",
            "minDate": "",
            "maxDate": "",
            "offset": "0",
            "limit": "100",
        }
        assert sent == [shared | {"type": REPLY}, shared | {"type": "linkedinReplied"}]

    def test_no_more_pages_are_read_than_the_result_needs(self, lemlist: Listing):
        for minute in range(2000):
            lemlist.add(at=ago(seconds=minute))
        assert len(sensor().execute(context())) == 500
        assert len(lemlist.queries) == 5

    def test_an_activity_of_another_lead_does_not_count(self, lemlist: Listing):
        lemlist.add(lead_id="lea_2")
        assert sensor(lead_id="lea_1").poke(context()) is False

    def test_a_refusal_stops_retries(self, lemlist: Listing):
        lemlist.unknown.add("emailReplied")
        with pytest.raises(LemlistValidationError) as caught:
            sensor(activity_type="emailReplied").execute(context())
        assert isinstance(caught.value, AirflowFailException)

    def test_soft_fail_skips_on_a_refusal_as_airflow_does(self, lemlist: Listing):
        lemlist.unknown.add("emailReplied")
        a_sensor = sensor(activity_type="emailReplied", soft_fail=True)
        assert "lemlist refused the request as it is." in reason_of_skip(a_sensor.execute)

    def test_soft_fail_skips_on_timeout(self, lemlist: Listing):
        assert "timed out" in reason_of_skip(sensor(timeout=0, soft_fail=True).execute)

    def test_no_personal_data_is_logged(self, lemlist: Listing, logged):
        lemlist.add()
        sensor().execute(context())
        text = logged()
        assert "act_0" in text
        assert "ana" not in text.lower()


class TestDefer:
    def test_the_trigger_gets_every_argument_without_a_request(self, lemlist: Listing):
        deferral = deferred(
            sensor(
                activity_type=(REPLY, "linkedinReplied"),
                since=NOON,
                lead_id="lea_1",
                min_count=3,
                is_first=True,
                bots="count",
                poke_interval=30,
                timeout=timedelta(hours=2),
                lemlist_conn_id="other",
                deferrable=True,
            )
        )
        assert isinstance(deferral.trigger, ActivityTrigger)
        assert deferral.trigger.serialize()[1] == {
            "activity_type": [REPLY, "linkedinReplied"],
            "since": "2026-03-02T12:00:00+00:00",
            "campaign_id": "cam_1",
            "lead_id": "lea_1",
            "min_count": 3,
            "is_first": True,
            "bots": "count",
            "poke_interval": 30,
            "max_consecutive_failures": 10,
            "lemlist_conn_id": "other",
        }
        assert deferral.method_name == "execute_complete"
        assert deferral.timeout == timedelta(hours=2)
        assert not lemlist.queries

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
    def resume(event: Any, its_context: Any = None, **changes: Any) -> Any:
        return sensor(deferrable=True, **changes).resume_execution(
            "execute_complete", {"event": event}, its_context or context()
        )

    def test_the_activities_are_returned(self):
        found = [{"_id": "act_1", "type": REPLY}]
        assert self.resume({"status": "success", "activities": found}) == found

    @pytest.mark.parametrize("event", [None, {}, {"status": "surprise"}, {"activities": []}])
    def test_an_event_without_a_result_never_succeeds(self, event):
        with pytest.raises(LemlistError, match="instead of a result"):
            self.resume(event)

    def test_an_error_is_raised_as_the_class_it_was(self):
        with pytest.raises(LemlistAuthError, match="wrong key") as caught:
            self.resume(self.ERROR)
        assert caught.value.status == 401
        with pytest.raises(LemlistServerError, match="down"):
            self.resume(self.OUTAGE)

    def test_an_error_of_an_unknown_class_is_still_an_error(self):
        with pytest.raises(LemlistError, match="down"):
            self.resume(self.OUTAGE | {"error": "LemlistGoneError"})

    @pytest.mark.parametrize("event", [ERROR, OUTAGE], ids=["final", "retryable"])
    def test_never_fail_skips_on_any_error_as_when_poking(self, event):
        reason = reason_of_skip(lambda its: self.resume(event, its, never_fail=True))
        assert reason == event["message"]

    def test_soft_fail_skips_on_final_errors_and_lets_airflow_retry_the_others(self):
        assert "wrong key" in reason_of_skip(lambda its: self.resume(self.ERROR, its, soft_fail=True))
        with pytest.raises(LemlistServerError):
            self.resume(self.OUTAGE, soft_fail=True)

    def test_soft_fail_skips_on_timeout(self):
        a_sensor = sensor(deferrable=True, soft_fail=True)
        fail = {"error": "Trigger timeout"}
        assert reason_of_skip(lambda its: a_sensor.resume_execution("__fail__", fail, its))


def test_poke_and_trigger_return_the_same(lemlist: Listing):
    import asyncio

    for minute in range(5):
        lemlist.add(at=ago(minutes=minute), lead_id=f"lea_{minute % 2}", isFirst=minute < 3)
        lemlist.add("linkedinReplied", at=ago(minutes=minute), lead_id=f"lea_{minute % 2}")
        lemlist.add("emailsOpened", at=ago(minutes=minute), bot=minute % 2 == 0)
    for changes in (
        {},
        {"lead_id": "lea_0"},
        {"is_first": True},
        {"is_first": False, "lead_id": "lea_1"},
        {"activity_type": [REPLY, "linkedinReplied"], "min_count": 10},
        {"since": ago(minutes=2.5)},
        {"activity_type": "emailsOpened"},
        {"activity_type": "emailsOpened", "bots": "count", "min_count": 3},
    ):
        trigger = deferred(sensor(deferrable=True, **changes)).trigger

        async def fire(trigger: ActivityTrigger = trigger) -> Any:
            return [event.payload async for event in trigger.run()]

        [event] = asyncio.run(fire())
        assert sensor(**changes).execute(context()) == event["activities"], changes


def test_importing_the_sensor_loads_nothing_heavy():
    heavy = {
        "requests",
        "pendulum",
        "sqlite3",
        "redis",
        "pyarrow",
        "asgiref",
        "difflib",
        "asyncio",
        "starlette",
    }
    code = (
        "import sys\n"
        "from airflow.providers.common.compat.sdk import "
        "AirflowFailException, AirflowSkipException, BaseSensorOperator, PokeReturnValue, conf\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_lemlist.sensors.activity\n"
        "print('added', *sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = run.stdout.splitlines()[-1].split()[1:]
    assert not heavy & {name.split(".")[0] for name in added}
    assert all(name.startswith("airflow") for name in added), added


def test_the_hook_of_the_sensor_is_the_one_of_its_connection():
    hook = sensor(lemlist_conn_id="other").hook
    assert isinstance(hook, LemlistHook)
    assert hook.lemlist_conn_id == "other"
