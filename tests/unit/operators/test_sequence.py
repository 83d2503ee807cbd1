# SPDX-License-Identifier: Apache-2.0
"""A step is added exactly once in every failure, and a wrong one is an error when the DAG is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, XComArg

from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistMediaRefusedError,
    LemlistNotFoundError,
    LemlistRateLimitError,
    LemlistUncertainError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import CATALOGUE, Api, Conditional, Email, LinkedinInvite, Manual, Sms
from airflow_provider_lemlist.templating import AirflowText

ADD = "POST /sequences/{sequenceId}/steps"
HELLO = Email(subject="{{firstName}}, a question", message="<p>Hi {{firstName}}</p>", delay=1)


def add(step: Any = HELLO, **options: Any) -> AddStepOperator:
    return AddStepOperator(**{"task_id": "add_step", "step": step, **options})


@pytest.fixture
def campaign(lemlist: Sandbox) -> dict[str, Any]:
    return lemlist.campaign()


def steps_of(lemlist: Sandbox, sequence_id: str) -> list[dict[str, Any]]:
    (steps,) = [
        each["sequences"][sequence_id]["steps"]
        for each in lemlist.state()["campaigns"]
        if sequence_id in each["sequences"]
    ]
    return list(steps)


def sent(lemlist: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(request["request"]["body"]) for request in lemlist.requests(ADD)]


class TestAddStep:
    def test_campaign_alone_means_its_main_sequence(
        self, lemlist: Sandbox, campaign: dict[str, Any], any_worker: Any
    ) -> None:
        step_id = any_worker.run(add(campaign_id=campaign["_id"]))
        (step,) = steps_of(lemlist, campaign["sequenceId"])
        assert step["_id"] == step_id
        pushed = any_worker.xcoms["add_step"]
        assert pushed["return_value"] == pushed["step"]["_id"] == step_id
        assert pushed["campaign_id"] == campaign["_id"]
        assert len(lemlist.requests()) == 2  # one to list the steps, one to add the step
        assert not lemlist.violations()

    def test_sequence_alone_needs_one_request_if_equal_steps_are_added(
        self, lemlist: Sandbox, campaign: dict[str, Any], any_worker: Any
    ) -> None:
        any_worker.run(add(sequence_id=campaign["sequenceId"], if_exists="add"))
        assert len(lemlist.requests()) == 1
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1

    def test_condition_pushes_its_branches_and_steps_can_be_added_to_them(
        self, lemlist: Sandbox, campaign: dict[str, Any], worker: Any
    ) -> None:
        condition = Conditional(condition_key="linkedinInviteAccepted", delay_type="within", delay=2)
        worker.run(add(condition, campaign_id=campaign["_id"], task_id="accepted"))
        pushed = worker.xcoms["accepted"]
        branches = {"linkedinInviteAccepted", "fallback"}
        assert set(pushed) == {"return_value", "step", "campaign_id", "report", *branches}
        for key in ("linkedinInviteAccepted", "fallback"):
            worker.run(
                add(Sms(message=key), campaign_id=campaign["_id"], sequence_id=pushed[key], task_id=key)
            )
            (step,) = steps_of(lemlist, pushed[key])
            assert step["message"] == key

    def test_sequence_of_another_campaign_is_an_error(
        self, lemlist: Sandbox, campaign: dict[str, Any], worker: Any
    ) -> None:
        other = lemlist.campaign("Other")
        with pytest.raises(LemlistNotFoundError):
            worker.run(add(campaign_id=campaign["_id"], sequence_id=other["sequenceId"]))
        assert not lemlist.requests(ADD)

    def test_asset_event_contains_the_step_id(
        self, lemlist: Sandbox, campaign: dict[str, Any], worker: Any
    ) -> None:
        task = add(sequence_id=campaign["sequenceId"], outlets=[Asset("lemlist://steps/all")])
        step_id = worker.run(task)
        assert worker.asset_extras["lemlist://steps/all"]["step_id"] == step_id

    def test_media_error_has_the_code_of_lemlist(
        self, lemlist: Sandbox, campaign: dict[str, Any], worker: Any
    ) -> None:
        lemlist.fault(ADD, "status", status=413, text="LINKEDIN_MEDIA_TOO_LARGE")
        step = LinkedinInvite(images=["https://cdn.example.com/a.png"])
        with pytest.raises(LemlistMediaRefusedError) as raised:
            worker.run(add(step, sequence_id=campaign["sequenceId"]))
        assert raised.value.code == "LINKEDIN_MEDIA_TOO_LARGE"

    @pytest.mark.parametrize("kind", CATALOGUE)
    def test_every_type_is_accepted(
        self, lemlist: Sandbox, campaign: dict[str, Any], worker: Any, kind: str
    ) -> None:
        values: dict[str, Any] = {
            "subject": "s",
            "message": "m",
            "title": "t",
            "method": "GET",
            "url": "https://hooks.example.com",
            "conditionKey": "emailsOpened",
            "delayType": "waitUntil",
            "campaignId": lemlist.campaign("Next")["_id"],
        }
        step = {"type": kind, **{name: values[name] for name in CATALOGUE[kind].required}}
        worker.run(add(step, sequence_id=campaign["sequenceId"]))
        assert sent(lemlist) == [step]
        assert not lemlist.violations()


class TestRendering:
    def test_texts_for_lemlist_are_unchanged_and_the_rest_is_rendered(
        self, lemlist: Sandbox, campaign: dict[str, Any], worker: Any
    ) -> None:
        step = {**HELLO, "delay": "{{ params.delay }}"}
        worker.run(add(step, sequence_id=campaign["sequenceId"]))
        assert sent(lemlist) == [{**HELLO, "delay": 3}]

    def test_flag_and_list_are_rendered(self, lemlist: Sandbox, campaign: Any, worker: Any) -> None:
        endorse = {
            "type": "linkedinEndorse",
            "endorseAnyFallback": "{{ params.yes }}",
            "skillName": "{{ ds }}",
        }
        worker.run(add(endorse, sequence_id=campaign["sequenceId"]))
        invite = LinkedinInvite(images=["https://cdn.example.com/{{ ds }}.png"])
        worker.run(add(invite, task_id="invite", sequence_id=campaign["sequenceId"]))
        assert sent(lemlist) == [
            {"type": "linkedinEndorse", "endorseAnyFallback": True, "skillName": "2026-11-20"},
            {"type": "linkedinInvite", "images": ["https://cdn.example.com/2026-11-20.png"]},
        ]

    def test_airflow_text_can_contain_both(self, lemlist: Sandbox, campaign: Any, worker: Any) -> None:
        step = Email(subject=AirflowText("{{firstName}}, [[ ds ]]"), message="m")
        worker.run(add(step, sequence_id=campaign["sequenceId"]))
        worker.run(
            add(
                Api(method="GET", url=AirflowText("https://x.example.com/[[ ds ]]?n={{firstName}}")),
                task_id="api",
                sequence_id=campaign["sequenceId"],
            )
        )
        assert sent(lemlist)[0]["subject"] == "{{firstName}}, 2026-11-20"
        assert sent(lemlist)[1]["url"] == "https://x.example.com/2026-11-20?n={{firstName}}"

    def test_wrong_rendered_value_is_an_error_before_sending(
        self, lemlist: Sandbox, campaign: Any, worker: Any
    ) -> None:
        for delay in ("{{ ds }}", "{{ params.delay * 1000 }}"):
            with pytest.raises(LemlistValidationError, match="delay"):
                worker.run(add({**HELLO, "delay": delay}, sequence_id=campaign["sequenceId"]))
        assert not lemlist.requests()

    def test_airflow_text_from_upstream_is_neither_rendered_nor_sent(
        self, lemlist: Sandbox, campaign: Any, worker: Any
    ) -> None:
        with DAG("d", schedule=None):
            upstream = add(task_id="upstream", sequence_id="seq_1")
            task = add(upstream.output, sequence_id=campaign["sequenceId"])
        step = Sms(message=AirflowText("[[ ds ]]"))
        worker.xcoms["upstream"] = {"return_value": json.loads(json.dumps(step))}
        with pytest.raises(LemlistValidationError, match="message"):
            worker.run(task)
        assert not lemlist.requests()

    def test_step_from_upstream_is_not_rendered_and_adds_a_dependency(
        self, lemlist: Sandbox, campaign: Any, worker: Any
    ) -> None:
        with DAG("d", schedule=None):
            upstream = add(task_id="upstream", sequence_id="seq_1")
            task = add(upstream.output, sequence_id=campaign["sequenceId"])
            inside = add(Sms(message=upstream.output), task_id="inside", sequence_id=campaign["sequenceId"])
        assert task.upstream_task_ids == inside.upstream_task_ids == {"upstream"}
        worker.xcoms["upstream"] = {"return_value": dict(HELLO)}
        worker.run(task)
        worker.xcoms["upstream"] = {"return_value": "Hi {{firstName}}"}
        worker.run(inside)
        assert sent(lemlist) == [HELLO, {"type": "sms", "message": "Hi {{firstName}}"}]


class TestIfExists:
    def test_second_run_of_a_dag_does_not_add_its_steps_again(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any
    ) -> None:
        first = any_worker.run(add(campaign_id=campaign["_id"]))
        for _ in range(2):
            any_worker.next_run()
            assert any_worker.run(add(campaign_id=campaign["_id"])) == first
        assert any_worker.xcoms["add_step"]["step"]["_id"] == first
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1

    @pytest.mark.parametrize("step", [Manual(title="Send the contract"), HELLO], ids=["manual", "email"])
    def test_second_run_finds_its_step_if_lemlist_lists_few_fields_or_it_was_edited(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, step: Any
    ) -> None:
        lemlist.step(campaign["sequenceId"], **Manual(title="Call the boss"))
        first = any_worker.run(add(step, campaign_id=campaign["_id"]))
        any_worker.next_run()
        edited = {**step, "delay": 5} if step is HELLO else step
        assert any_worker.run(add(edited, campaign_id=campaign["_id"])) == first
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 2

    def test_equal_step_is_added_again_on_request(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any
    ) -> None:
        first = any_worker.run(add(campaign_id=campaign["_id"], if_exists="add"))
        any_worker.next_run()
        assert any_worker.run(add(campaign_id=campaign["_id"], if_exists="add")) != first
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 2

    def test_equal_step_fails_the_task_on_request(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any
    ) -> None:
        lemlist.step(campaign["sequenceId"], **HELLO)
        with pytest.raises(LemlistDuplicateError, match="Nothing was sent"):
            any_worker.run(add(campaign_id=campaign["_id"], if_exists="fail"))
        assert not lemlist.requests(ADD)

    @pytest.mark.parametrize("chained", [True, False])
    def test_two_equal_steps_of_one_dag_stay_two_in_every_run(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, chained: bool
    ) -> None:
        def tasks() -> tuple[AddStepOperator, AddStepOperator]:
            with DAG("d", schedule=None):
                first, second = (add(task_id=name, campaign_id=campaign["_id"]) for name in ("a", "b"))
                if chained:
                    first >> second
                return first, second

        first, second = tasks()
        ids = {"a": any_worker.run(first), "b": None}
        if not chained:
            any_worker.xcoms.clear()  # the second lists the steps before Airflow stores the XCom of the first
        ids["b"] = any_worker.run(second)
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 2
        any_worker.xcoms = {name: {"return_value": step_id} for name, step_id in ids.items()}
        any_worker.next_run()
        again = {task.task_id: any_worker.run(task) for task in reversed(tasks())}
        assert again == ids
        any_worker.next_run()
        any_worker.earlier_xcoms.clear()  # XComs are deleted after some time
        assert set(map(any_worker.run, tasks())) == {*ids.values()}
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 2

    @pytest.mark.parametrize("side_by_side", [False, True])
    def test_equal_steps_of_a_mapped_task_are_added_once_each_in_all_runs(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, side_by_side: bool
    ) -> None:
        def run() -> list[str]:
            ids, pushed = [], {}
            with DAG("d", schedule=None):
                mapped = AddStepOperator.partial(task_id="add_step", campaign_id=campaign["_id"]).expand(
                    step=[dict(HELLO), dict(HELLO), {**HELLO, "subject": "Another"}]
                )
            for index in range(3):
                ids.append(any_worker.run_mapped(mapped, index))
                pushed |= any_worker.xcoms
                if side_by_side:  # the next one starts before Airflow stores what this one returned
                    any_worker.xcoms.clear()
            any_worker.xcoms |= pushed
            return ids

        first = run()
        assert len(set(first)) == 3
        any_worker.next_run()
        assert run() == first
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 3


class TestExactlyOnce:
    def run_and_kill(self, worker: Any, kill: Callable[..., None], task: Any, **how: Any) -> None:
        kill(task, "add_step", **how)
        with pytest.raises(SystemExit):
            worker.run(task)

    @pytest.mark.parametrize("by", ["campaign_id", "sequence_id"])
    def test_retry_after_a_kill_after_the_effect_leaves_one_step(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, kill: Any, by: str
    ) -> None:
        place = {by: campaign["_id" if by == "campaign_id" else "sequenceId"]}
        self.run_and_kill(any_worker, kill, add(**place))
        step_id = any_worker.run(add(**place), attempt=2)
        (step,) = steps_of(lemlist, campaign["sequenceId"])
        assert step["_id"] == step_id == any_worker.xcoms["add_step"]["step"]["_id"]

    @pytest.mark.parametrize("by", ["campaign_id", "sequence_id"])
    def test_retry_after_a_kill_before_the_effect_adds_the_step(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, kill: Any, by: str
    ) -> None:
        place = {by: campaign["_id" if by == "campaign_id" else "sequenceId"]}
        self.run_and_kill(any_worker, kill, add(**place), before=True)
        any_worker.run(add(**place), attempt=2)
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1

    @pytest.mark.parametrize("before", [True, False], ids=["before the effect", "after the effect"])
    def test_with_history_an_older_equal_step_is_not_returned(
        self, lemlist: Sandbox, campaign: Any, worker: Any, kill: Any, before: bool
    ) -> None:
        old = lemlist.step(campaign["sequenceId"], **HELLO)
        self.run_and_kill(worker, kill, add(campaign_id=campaign["_id"], if_exists="add"), before=before)
        step_id = worker.run(add(campaign_id=campaign["_id"], if_exists="add"), attempt=2)
        listed = [step["_id"] for step in steps_of(lemlist, campaign["sequenceId"])]
        assert listed == [old["_id"], step_id]

    def test_recognised_step_is_recognised_by_later_attempts(
        self, lemlist: Sandbox, campaign: Any, worker: Any, kill: Any
    ) -> None:
        lemlist.step(campaign["sequenceId"], **HELLO)
        self.run_and_kill(worker, kill, add(campaign_id=campaign["_id"], if_exists="add"))
        step_id = worker.run(add(campaign_id=campaign["_id"], if_exists="add"), attempt=2)
        lemlist.step(campaign["sequenceId"], **HELLO)  # a third one, added by hand
        assert worker.run(add(campaign_id=campaign["_id"], if_exists="add"), attempt=3) == step_id
        assert worker.run(add(campaign_id=campaign["_id"], if_exists="add"), cleared=1) == step_id
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 3

    def test_without_history_the_one_equal_step_is_returned(
        self, lemlist: Sandbox, campaign: Any, old_worker: Any, kill: Any
    ) -> None:
        old = lemlist.step(campaign["sequenceId"], **HELLO)
        self.run_and_kill(old_worker, kill, add(campaign_id=campaign["_id"], if_exists="add"), before=True)
        assert old_worker.run(add(campaign_id=campaign["_id"]), attempt=2) == old["_id"]

    def test_without_history_two_equal_steps_are_uncertain(
        self, lemlist: Sandbox, campaign: Any, old_worker: Any, kill: Any
    ) -> None:
        lemlist.step(campaign["sequenceId"], **HELLO)
        self.run_and_kill(old_worker, kill, add(campaign_id=campaign["_id"], if_exists="add"))
        for if_exists in ("return", "add"):
            with pytest.raises(LemlistUncertainError):
                old_worker.run(add(campaign_id=campaign["_id"], if_exists=if_exists), attempt=2)
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 2

    def test_without_history_an_older_step_with_another_title_is_not_returned(
        self, lemlist: Sandbox, campaign: Any, old_worker: Any, kill: Any
    ) -> None:
        place = {"sequence_id": campaign["sequenceId"]}
        lemlist.step(campaign["sequenceId"], **Manual(title="Call the boss"))
        self.run_and_kill(old_worker, kill, add(Manual(title="Send the contract"), **place), before=True)
        with pytest.raises(LemlistUncertainError, match="manual"):
            old_worker.run(add(Manual(title="Send the contract"), **place), attempt=2)
        # The user has checked the sequence and cleared the task.
        old_worker.run(add(Manual(title="Send the contract"), **place), cleared=1)
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 2

    @pytest.mark.parametrize("by", ["campaign_id", "sequence_id"])
    def test_html_changed_by_lemlist_does_not_cause_a_second_step(
        self, campaign: Any, lemlist: Sandbox, any_worker: Any, by: str
    ) -> None:
        place = {by: campaign["_id" if by == "campaign_id" else "sequenceId"]}
        lemlist.fault(ADD, "reset", times=1, when="after")
        find_sequence, get_sequences = LemlistHook.find_sequence, LemlistHook.get_sequences

        def tidied(sequence: dict[str, Any]) -> dict[str, Any]:
            rows = [{**row, "message": "<p>Hello {{firstName}}</p>"} for row in sequence["steps"]]
            return {**sequence, "steps": rows}

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LemlistHook, "find_sequence", lambda *a, **k: tidied(find_sequence(*a, **k)))
            patch.setattr(
                LemlistHook,
                "get_sequences",
                lambda *a: {key: tidied(value) for key, value in get_sequences(*a).items()},
            )
            first = any_worker.run(add(**place))
            any_worker.next_run()
            assert any_worker.run(add(**place)) == first
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1

    def test_equal_step_of_another_task_is_not_returned(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, kill: Any
    ) -> None:
        def tasks() -> tuple[AddStepOperator, AddStepOperator]:
            with DAG("d", schedule=None):
                place = {"sequence_id": campaign["sequenceId"]}
                return add(task_id="first", **place), add(task_id="second", **place)

        first, second = tasks()
        any_worker.run(first)
        self.run_and_kill(any_worker, kill, second, before=True)
        any_worker.run(tasks()[1], attempt=2)
        listed = [step["_id"] for step in steps_of(lemlist, campaign["sequenceId"])]
        assert listed == [any_worker.xcoms[name]["return_value"] for name in ("first", "second")]

    @pytest.mark.parametrize("kind", ["reset", "cut_body", "html", "empty", "missing_id"])
    def test_lost_response_leaves_one_step(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, kind: str
    ) -> None:
        lemlist.step(campaign["sequenceId"], **HELLO)  # an equal one was there
        lemlist.fault(ADD, kind, times=1, when="after")
        step_id = any_worker.run(add(campaign_id=campaign["_id"], if_exists="add"))
        listed = [step["_id"] for step in steps_of(lemlist, campaign["sequenceId"])]
        assert len(listed) == 2
        assert listed[1] == step_id

    def test_kill_between_response_and_success_leaves_one_step(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any
    ) -> None:
        first = any_worker.run(add(campaign_id=campaign["_id"]))
        assert any_worker.run(add(campaign_id=campaign["_id"]), attempt=2) == first

    def test_cleared_task_finds_its_step_and_adds_it_again_only_if_it_was_deleted(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any
    ) -> None:
        task = add(campaign_id=campaign["_id"])
        first = any_worker.run(task)
        assert any_worker.run(add(campaign_id=campaign["_id"]), cleared=1) == first
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1
        task.hook.delete_step(campaign["sequenceId"], first)
        second = any_worker.run(add(campaign_id=campaign["_id"]), cleared=2)
        assert [step["_id"] for step in steps_of(lemlist, campaign["sequenceId"])] == [second]

    def test_changed_step_of_a_cleared_task_is_kept_and_the_report_names_the_fields(
        self, lemlist: Sandbox, campaign: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = worker.run(add(campaign_id=campaign["_id"]))
        assert worker.xcoms["add_step"]["report"] == {"outcome": "created", "message": "", "differing": []}
        changed = add({**HELLO, "message": "new", "subject": "New"}, campaign_id=campaign["_id"])
        warnings: list[str] = []
        monkeypatch.setattr(changed.log, "warning", lambda text, *values: warnings.append(text % values))
        assert worker.run(changed, cleared=1) == first
        told = "lemlist has other values than the task in subject, message."
        assert [text for text in warnings if f"{first}: {told}" in text]
        report = worker.xcoms["add_step"]["report"]
        assert (report["outcome"], report["differing"]) == ("exists", ["message", "subject"])
        assert told in report["message"]
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1

    def test_retryable_failure_keeps_the_history(
        self, lemlist: Sandbox, campaign: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task = add(campaign_id=campaign["_id"])

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise LemlistRateLimitError("the wait was too long")

        monkeypatch.setattr(task.hook, "add_step", refuse)
        with pytest.raises(LemlistRateLimitError):
            worker.run(task)
        worker.run(add(campaign_id=campaign["_id"]), attempt=2)
        assert len(steps_of(lemlist, campaign["sequenceId"])) == 1

    def test_retry_after_a_kill_pushes_the_branches_of_the_condition(
        self, lemlist: Sandbox, campaign: Any, any_worker: Any, kill: Any
    ) -> None:
        condition = Conditional(condition_key="emailsOpened", delay_type="within", delay=2)
        self.run_and_kill(any_worker, kill, add(condition, campaign_id=campaign["_id"]))
        any_worker.run(add(condition, campaign_id=campaign["_id"]), attempt=2)
        assert {"emailsOpened", "fallback"} <= set(any_worker.xcoms["add_step"])


class TestArguments:
    """Values written in the DAG file are checked when it is parsed, and the error names the task."""

    @pytest.mark.parametrize(
        "step",
        [
            {"type": "emial"},
            {"type": "email", "subject": "x" * 401, "message": "m"},
            Email(subject="s", message="m", delay=1501),
            Sms(message=""),
            {"type": "sms", "message": "m", "subject": "s"},
            None,
            ["email"],
            {},
        ],
        ids=repr,
    )
    def test_wrong_step_is_an_import_error(self, step: Any) -> None:
        with pytest.raises(LemlistValidationError, match="The step of task 'add_step'"):
            add(step, sequence_id="seq_1")

    @pytest.mark.parametrize("name", ["sequence_id", "campaign_id"])
    @pytest.mark.parametrize("empty", [None, "", "None"], ids=repr)
    def test_empty_id_from_upstream_is_refused_when_the_task_runs(
        self, lemlist: Sandbox, campaign: Any, worker: Any, name: str, empty: Any
    ) -> None:
        with DAG("d", schedule=None):
            upstream = add(task_id="upstream", sequence_id="seq_1")
            other = {"campaign_id": campaign["_id"], "sequence_id": campaign["sequenceId"]}
            task = add(**{**other, name: upstream.output})
        worker.xcoms["upstream"] = {"return_value": empty}
        with pytest.raises(LemlistValidationError, match=f"The {name} of task 'add_step' is empty"):
            worker.run(task)
        assert not lemlist.requests()

    def test_empty_branch_of_a_mapped_task_does_not_mean_the_main_sequence(
        self, lemlist: Sandbox, campaign: Any, worker: Any
    ) -> None:
        with DAG("d", schedule=None):
            mapped = AddStepOperator.partial(
                task_id="add_step", campaign_id=campaign["_id"], step=HELLO
            ).expand(sequence_id=XComArg(add(task_id="upstream", sequence_id="seq_1")))
        with pytest.raises(LemlistValidationError, match="The sequence_id of task 'add_step' is empty"):
            worker.run_mapped(mapped, 0, sequence_id=None)
        assert not lemlist.requests()

    @pytest.mark.parametrize("field", ["subject", "message"])
    def test_airflow_template_in_a_text_for_lemlist_is_an_import_error(self, field: str) -> None:
        step = {**HELLO, field: "News of {{ ds }}"}
        with pytest.raises(LemlistValidationError, match=f"{field}: .*'ds'.*AirflowText"):
            add(step, campaign_id="cam_1")
        with pytest.raises(LemlistValidationError, match="AirflowText"):
            AddStepOperator.partial(task_id="a", campaign_id="cam_1").expand(step=[HELLO, step])
        add({**HELLO, field: AirflowText("News of [[ ds ]]"), "delay": "{{ params.delay }}"}, campaign_id="c")

    def test_sequence_id_or_campaign_id_is_required(self) -> None:
        with pytest.raises(LemlistConfigurationError, match="'add_step' needs sequence_id, or campaign_id"):
            add()
        with pytest.raises(LemlistValidationError, match="sequence_id"):
            add(sequence_id=" ")

    def test_values_known_at_parse_time_are_checked_and_the_others_are_not(self) -> None:
        with DAG("d", schedule=None):
            upstream = add(task_id="upstream", sequence_id="seq_1")
            add(
                {"type": "{{ params.kind }}", "anything": "goes"},
                task_id="a",
                sequence_id=upstream.output["fallback"],
            )
            add(
                Conditional(
                    condition_key="{{ params.key }}", delay_type="within", delay="{{ params.delay }}"
                ),
                task_id="b",
                campaign_id="{{ params.campaign }}",
            )
            add(
                LinkedinInvite(message=AirflowText("[[ ds ]]"), images=[upstream.output]),
                task_id="c",
                campaign_id="cam_1",
            )
            add("{{ ti.xcom_pull('x') }}", task_id="d", campaign_id="cam_1")
            with pytest.raises(LemlistValidationError, match="subject"):
                add(
                    Email(subject="x" * 401, message=upstream.output, delay="{{ ds }}"),
                    task_id="e",
                    campaign_id="cam_1",
                )


def test_kill_logs_what_was_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    task = add(sequence_id="seq_1")
    warnings: list[str] = []
    monkeypatch.setattr(
        type(task), "log", SimpleNamespace(warning=lambda text, *values: warnings.append(text % values))
    )
    task.on_kill()  # before anything began
    assert warnings == []
    task._in_flight = "add a step"
    task.on_kill()
    assert "add a step" in warnings[0]
