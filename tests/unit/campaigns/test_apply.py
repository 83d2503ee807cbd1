# SPDX-License-Identifier: Apache-2.0
"""
Apply a definition over HTTP, kill it at every request, and apply it again: the end is always the same.

The campaign equals the definition, there is one of its name, no step is there twice, no branch is lost, and
what did not change has not been touched.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import applying
from applying import NAME, SCHEDULES, apply_once, changed, remembering, spring

from airflow_provider_lemlist.api.wire import CLOCK, Wire
from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.campaigns import apply as apply_module
from airflow_provider_lemlist.campaigns.apply import Outcome
from airflow_provider_lemlist.campaigns.memory import Memory
from airflow_provider_lemlist.campaigns.plan import UpdateSettings
from airflow_provider_lemlist.exceptions import (
    LemlistError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import Api, Email, LinkedinInvite, LinkedinVisit, Manual, Sms
from tests.contract.documents import departures
from tests.forkserver import forkserver

ADD = "POST /sequences/{sequenceId}/steps"
UPDATE = "PATCH /sequences/{sequenceId}/steps/{stepId}"
CREATE = "POST /campaigns"
SETTINGS = "PATCH /campaigns/{campaignId}"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, budget: Any, tmp_path: Path) -> Iterator[Callable[..., Sandbox]]:
    """Return a function that starts one sandbox after another, each behind the default connection."""
    running: list[Sandbox] = []

    def stop() -> None:
        for each in running:
            each.__exit__(None, None, None)
            assert each.violations() == []
        running.clear()

    def start(**options: Any) -> Sandbox:
        stop()
        running.append(Sandbox(**{"limit": "none", "seed": 7, **options}).__enter__())
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", running[0].airflow_connection())
        return running[0]

    # The budget and the waits between retries have their own tests.
    monkeypatch.setattr(LemlistHook, "budget", budget)
    monkeypatch.setattr(CLOCK, "sleep", lambda seconds: None)
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", str(tmp_path / "budget"))
    yield start
    stop()


@pytest.fixture
def lemlist(sandbox: Callable[..., Sandbox]) -> Sandbox:
    return sandbox()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines of the log."""
    lines: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(apply_module.log, level, lambda text, *values: lines.append(text % values))
    return lines


# --- What lemlist has -------------------------------------------------------------------------------------


def campaigns(lemlist: Sandbox) -> list[Any]:
    return list(lemlist.service.world.campaigns.values())


def assert_equals(lemlist: Sandbox, definition: Mapping[str, Any]) -> None:
    """Compare all that lemlist has, listed or not, with a definition; without the planner."""
    world = lemlist.service.world
    (campaign,) = campaigns(lemlist)
    assert campaign.name == definition["name"]
    assert campaign.timezone == definition.get("timezone", campaign.timezone)
    assert campaign.auto_review == definition.get("autoReview", False)
    for wanted in definition.get("schedules", ()):
        (schedule,) = [each for each in world.schedules.values() if each.values["name"] == wanted["name"]]
        assert {name: schedule.values[name] for name in wanted} == wanted
        assert schedule.id in campaign.schedule_ids
    for name in ("stopOnEmailReplied", "disableTrackOpen"):
        assert campaign.settings.get(name) == definition.get(name)

    def compare(sequence_id: str, steps: list[Mapping[str, Any]]) -> None:
        there = world.sequences[sequence_id].steps
        assert [step.type for step in there] == [step["type"] for step in steps]
        for step, wanted in zip(there, steps, strict=True):
            values = {**step.values, "type": step.type, "delay": step.delay}
            plain = {name: value for name, value in wanted.items() if name not in ("name", *BRANCHES)}
            assert {name: values.get(name) for name in plain} == plain
            for branch, below in zip(step.branches, BRANCHES, strict=False):
                compare(branch.sequence_id, wanted.get(below) or [])

    compare(campaign.sequence_id, definition["steps"])
    # No branch is left over.
    assert len(world.sequences) == 1 + 2 * sum(step["type"] == "conditional" for step in flat(definition))


BRANCHES = ("yes", "otherwise")


def flat(definition: Mapping[str, Any], within: str = "steps") -> Iterator[Mapping[str, Any]]:
    for step in definition.get(within) or ():
        yield step
        for branch in BRANCHES:
            yield from flat(step, branch)


def step_ids(lemlist: Sandbox) -> list[str]:
    return [step.id for sequence in lemlist.service.world.sequences.values() for step in sequence.steps]


def main(lemlist: Sandbox) -> list[Any]:
    """Return the steps of the main sequence of the first campaign."""
    return list(lemlist.service.world.sequences[campaigns(lemlist)[0].sequence_id].steps)


def writes(lemlist: Sandbox, since: int = 0) -> list[str]:
    return [
        f"{each['method']} {each['route']}" for each in lemlist.requests()[since:] if each["method"] != "GET"
    ]


# --- Killing ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """
    Ends an attempt at one request: before it is sent, or after its effect but before its response.

    :param at: The number of the request, from 1; 0 for none.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.when, self.count = 0, "", 0
        real, killer = Wire.send, self

        def send(*args: Any) -> Any:
            killer.count += 1
            if killer.count == killer.at and killer.when == "before":
                raise Killed
            exchange = real(*args)
            if killer.count == killer.at:
                raise Killed
            return exchange

        monkeypatch.setattr(Wire, "send", send)

    def arm(self, at: int, when: str) -> None:
        self.at, self.when, self.count = at, when, 0


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    return Killer(monkeypatch)


class Store(dict[str, Any]):
    """The store of Airflow 3.3, whose values go through JSON."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))


def memory_of(store: Store | None) -> Memory:
    return Memory() if store is None else remembering(store)


def assert_no_changes(lemlist: Sandbox, definition: Mapping[str, Any], store: Store | None) -> Outcome:
    before = len(lemlist.requests())
    outcome = apply_once(definition, memory_of(store))
    assert outcome.plan.changes == ()
    assert writes(lemlist, before) == []
    return outcome


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("has_store", [True, False], ids=["with memory", "without memory"])
class TestKill:
    def test_kill_at_any_request_while_building_leaves_one_whole_campaign(
        self, sandbox: Any, killer: Killer, when: str, has_store: bool
    ) -> None:
        for at in range(1, 100):
            lemlist = sandbox()
            store = Store() if has_store else None
            definition = spring(SCHEDULES)
            killer.arm(at, when)
            try:
                apply_once(definition, memory_of(store))
                break
            except Killed:
                killer.arm(0, "")
            apply_once(definition, memory_of(store), after_kill=True)
            assert_equals(lemlist, definition)
            outcome = assert_no_changes(lemlist, definition, store)
            if has_store:
                assert outcome.plan.unseen == {}
            assert {*outcome.steps} == {"opening", "accepted", "voice", "opened", "review"}
            assert {name: [*found] for name, found in outcome.sequences.items()} == {
                "accepted": [*BRANCHES],
                "opened": [*BRANCHES],
            }
        assert at > 18  # every one of its requests

    def test_kill_at_any_request_while_changing_touches_only_what_differs(
        self, sandbox: Any, killer: Killer, when: str, has_store: bool
    ) -> None:
        for at in range(1, 100):
            lemlist = sandbox()
            store = Store() if has_store else None
            definition = spring(SCHEDULES)
            killer.arm(0, "")
            apply_once(definition, memory_of(store))
            before = step_ids(lemlist)
            wanted = changed(definition, unlisted=has_store)
            killer.arm(at, when)
            try:
                apply_once(wanted, memory_of(store))
                break
            except Killed:
                killer.arm(0, "")
            apply_once(wanted, memory_of(store), after_kill=True)
            assert_equals(lemlist, wanted)
            # Of 12 steps the visit has moved, and the condition is gone with the three beneath it.
            assert len({*before} & {*step_ids(lemlist)}) == 7
            assert_no_changes(lemlist, wanted, store)
        assert at > 12


class TestHandMade:
    """A campaign that a person has built, before it is applied for the first time."""

    def test_kill_at_any_request_does_not_take_its_steps_for_extra_ones(
        self, sandbox: Any, killer: Killer
    ) -> None:
        definition = Campaign(
            name=NAME, steps=[Email(subject=f"Subject {n}", message=f"Message {n}") for n in range(3)]
        )
        for at in range(1, 20):
            lemlist, store = sandbox(), Store()
            sequence_id = lemlist.campaign(NAME)["sequenceId"]
            for n in range(3):
                lemlist.step(sequence_id, "email", subject=f"By hand {n}", message="Written by hand")
            before = step_ids(lemlist)
            killer.arm(at, "after")
            try:
                apply_once(definition, remembering(store), on_extra="fail")
                break
            except Killed:
                killer.arm(0, "")
            apply_once(definition, remembering(store), on_extra="fail", after_kill=True)
            assert_equals(lemlist, definition)
            assert step_ids(lemlist) == before
        assert at > 5


FAULTS: list[dict[str, Any]] = [
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "hang", "when": "before"},
    {"kind": "hang", "when": "after"},
    {"kind": "status", "status": 500, "when": "before"},
    {"kind": "status", "status": 500, "when": "after"},
    {"kind": "rate_limited", "seconds": 0.01},
    {"kind": "empty", "when": "before"},
    {"kind": "empty", "when": "after"},
    {"kind": "missing_id"},
    {"kind": "cut_body"},
]


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that hangs times out soon."""
    real = Wire.send

    def send(wire: Wire, request: Any, timeout: float, *more: Any) -> Any:
        return real(wire, request, min(timeout, 0.2), *more)

    monkeypatch.setattr(Wire, "send", send)


@pytest.mark.usefixtures("short_timeouts")
class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault['kind']} {fault.get('when', '')}")
    @pytest.mark.parametrize("route", [CREATE, SETTINGS, ADD])
    def test_lost_response_has_no_second_effect(
        self, lemlist: Sandbox, route: str, fault: dict[str, Any]
    ) -> None:
        store = Store()
        definition = spring(SCHEDULES)
        lemlist.fault(route, times=2, skip=1 if route == ADD else 0, **fault)
        for wanted in (definition, changed(definition, unlisted=True)):
            for attempt in range(4):
                try:
                    apply_once(wanted, memory_of(store), after_kill=attempt > 0)
                    break
                except LemlistError as error:
                    if not error.retryable:  # Airflow would make no other attempt
                        raise
            # Only a request that may still arrive is left to the next attempt.
            assert attempt == 0 or (fault["kind"], fault["when"]) == ("hang", "before")
            assert_equals(lemlist, wanted)
            assert_no_changes(lemlist, wanted, store)
        assert [each for each in lemlist.requests(route) if each["fault"]]

    def test_lost_response_of_each_of_several_equal_steps_adds_no_other(self, lemlist: Sandbox) -> None:
        lemlist.fault(ADD, "reset", times=3, when="after")
        definition = Campaign(name=NAME, steps=[LinkedinVisit(), LinkedinVisit(), LinkedinVisit()])
        apply_once(definition)
        assert_equals(lemlist, definition)
        assert len(lemlist.requests(ADD)) == 3

    @pytest.mark.parametrize("has_store", [True, False], ids=["with memory", "without memory"])
    @pytest.mark.parametrize("seed", range(3))
    def test_any_number_of_kills_and_faults_has_the_same_end(
        self, sandbox: Any, killer: Killer, seed: int, has_store: bool
    ) -> None:
        chance = random.Random(seed)
        lemlist = sandbox(seed=seed)
        store = Store() if has_store else None
        definition = spring(SCHEDULES)
        for fault in FAULTS:
            lemlist.fault("*", probability=0.1 / len(FAULTS), **fault)
        for wanted in (definition, changed(definition, unlisted=has_store)):
            for attempt in range(50):
                killer.arm(chance.randrange(1, 16) if attempt < 6 else 0, chance.choice(["before", "after"]))
                try:
                    apply_once(wanted, memory_of(store), after_kill=attempt > 0)
                    break
                except Killed:
                    pass
                except LemlistError as error:
                    if not error.retryable:
                        raise
            assert_equals(lemlist, wanted)
        lemlist.clear_faults()
        killer.arm(0, "")
        assert_no_changes(lemlist, wanted, store)


@pytest.mark.parametrize(
    ("step", "seconds"),
    [(LinkedinVisit(), 5.0), (LinkedinInvite(images=["https://cdn.example.com/a.png"]), 50.0)],
    ids=["step", "step with media"],
)
def test_requests_of_a_killed_attempt_get_the_time_to_take_effect(
    lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, step: Any, seconds: float
) -> None:
    slept: list[tuple[float, int]] = []
    monkeypatch.setattr(CLOCK, "sleep", lambda seconds: slept.append((seconds, len(lemlist.requests()))))
    apply_once(Campaign(name=NAME, steps=[step]), after_kill=True)
    assert slept == [(seconds, 0)]
    apply_once(Campaign(name=NAME, steps=[step]))
    assert len(slept) == 1


# --- How much is sent -------------------------------------------------------------------------------------


class TestRequests:
    @pytest.mark.parametrize("by", ["memory", "name", "id"])
    def test_nothing_is_done_with_two_requests_when_nothing_differs(self, lemlist: Sandbox, by: str) -> None:
        store = Store()
        definition = spring()
        campaign_id = apply_once(definition, remembering(store)).campaign_id
        lemlist.campaign("Another")
        before = len(lemlist.requests())
        outcome = apply_once(
            definition,
            remembering(store if by == "memory" else Store()),
            campaign_id=campaign_id if by == "id" else None,
        )
        assert outcome.plan.changes == ()
        assert len(lemlist.requests()) == before + 2
        assert writes(lemlist, before) == []

    @pytest.mark.parametrize("tidy_html", [False, True])
    @pytest.mark.parametrize("has_store", [True, False], ids=["with memory", "without memory"])
    def test_changed_text_and_inserted_step_are_two_writes(
        self, sandbox: Any, has_store: bool, tidy_html: bool
    ) -> None:
        lemlist = sandbox(tidy_html=tidy_html)
        store = Store() if has_store else None
        definition = spring(SCHEDULES)
        for _ in range(2):
            apply_once(definition, memory_of(store))
        before = len(lemlist.requests())
        visit, opening, *rest = definition["steps"]
        opening = {**opening, "message": "<p>The <b>new</b> webinar<br></p>"}
        wanted = {**definition, "steps": [visit, opening, Sms(message="Did it arrive?"), *rest]}
        apply_once(wanted, memory_of(store), on_extra="fail")
        assert writes(lemlist, before) == [UPDATE, ADD]
        assert_no_changes(lemlist, wanted, store)


# --- What lemlist does not list ---------------------------------------------------------------------------

UNLISTED = [
    pytest.param(Manual(title="A"), Manual(title="B"), id="title"),
    pytest.param(
        LinkedinInvite(message="m", images=["https://cdn.example.com/a.png"]),
        LinkedinInvite(message="m", images=["https://cdn.example.com/b.png"]),
        id="images",
    ),
    pytest.param(
        Api(method="GET", url="https://a.example.com/"),
        Api(method="GET", url="https://b.example.com/"),
        id="url",
    ),
]


@pytest.mark.parametrize(("first", "second"), UNLISTED)
class TestUnlisted:
    def test_field_is_sent_once_and_again_when_it_changes(
        self, lemlist: Sandbox, first: Any, second: Any
    ) -> None:
        store = Store()
        for step, sent in ((first, [CREATE, ADD]), (first, []), (second, [UPDATE]), (second, [])):
            before = len(lemlist.requests())
            apply_once(Campaign(name=NAME, steps=[step]), remembering(store))
            assert writes(lemlist, before) == sent
        (there,) = main(lemlist)
        assert {**there.values, "type": there.type} == second

    def test_without_memory_it_is_told_and_sent_only_on_request(
        self, lemlist: Sandbox, log: list[str], first: Any, second: Any
    ) -> None:
        apply_once(Campaign(name=NAME, steps=[first]))
        wanted = Campaign(name=NAME, steps=[second])
        before = len(lemlist.requests())
        apply_once(wanted)
        assert writes(lemlist, before) == []
        assert "cannot see" in log[-1]
        for sent in ([UPDATE], [UPDATE]):  # without memory, again each time
            before = len(lemlist.requests())
            apply_once(wanted, refresh_unseen=True)
            assert writes(lemlist, before) == sent
        (there,) = main(lemlist)
        assert {**there.values, "type": there.type} == second


def test_senders_that_were_changed_in_lemlist_are_noticed_without_memory(lemlist: Sandbox) -> None:
    ann, bob = (user.id for user in lemlist.service.world.users)
    definition = {**spring(), "sendUserIds": [bob]}
    outcome = apply_once(definition)
    assert campaigns(lemlist)[0].sender_ids == [bob]
    LemlistHook().update_campaign(str(outcome.campaign_id), {"sendUserIds": [ann]})
    again = apply_once(definition)
    assert [type(change) for change in again.plan.changes] == [UpdateSettings]
    assert campaigns(lemlist)[0].sender_ids == [bob]


def test_memory_of_another_campaign_does_not_count(lemlist: Sandbox, log: list[str]) -> None:
    store = Store()
    definition = Campaign(name=NAME, steps=[Manual(title="A")], stop_on_reply=True)
    first = apply_once(definition, remembering(store)).campaign_id
    sequence_id = lemlist.campaign("Autumn")["sequenceId"]
    lemlist.step(sequence_id, "manual", title="By hand")
    second = apply_once({**definition, "name": "Autumn"}, remembering(store)).campaign_id
    assert second != first
    assert "cannot see: title of step 1" in log[-1]
    assert "cannot see: stopOnEmailReplied" in log[-1]


def test_step_that_was_added_by_hand_is_not_overwritten(lemlist: Sandbox) -> None:
    store = Store()
    definition = Campaign(name=NAME, steps=[LinkedinVisit(), Email(subject="One", message="One")])
    apply_once(definition, remembering(store))
    lemlist.step(campaigns(lemlist)[0].sequence_id, "email", subject="By hand", message="By hand")
    wanted = {**definition, "steps": [*definition["steps"], Email(subject="Two", message="Two")]}
    apply_once(wanted, remembering(store), on_extra="keep")
    subjects = [step.values.get("subject") for step in main(lemlist)]
    assert sorted(filter(None, subjects)) == ["By hand", "One", "Two"]


# --- All or nothing ---------------------------------------------------------------------------------------


def refused(definition: Mapping[str, Any], lemlist: Sandbox, log: list[str], **options: Any) -> str:
    """Apply a definition that is refused before anything is sent; return the plan and the error."""
    before = len(lemlist.requests())
    with pytest.raises(LemlistValidationError, match="\\. Nothing was sent\\.$") as caught:
        apply_once(definition, **options)
    assert writes(lemlist, before) == []
    return f"{log[-1]}\n{caught.value}"


class TestAllOrNothing:
    def test_extra_step_without_permission(self, lemlist: Sandbox, log: list[str]) -> None:
        definition = spring(SCHEDULES)
        apply_once(definition)
        *steps, _ = definition["steps"]
        wanted = {**definition, "steps": [steps[0], {**steps[1], "subject": "New"}, *steps[2:]]}
        assert '- step 5 email "Goodbye"' in refused(wanted, lemlist, log, on_extra="fail")

    def test_deleted_condition_names_every_step_beneath_it(self, lemlist: Sandbox, log: list[str]) -> None:
        definition = spring(SCHEDULES)
        apply_once(definition)
        visit, opening, _, *rest = definition["steps"]
        said = refused({**definition, "steps": [visit, opening, *rest]}, lemlist, log, on_extra="fail")
        assert 'conditional "linkedinInviteAccepted"' in said
        assert 'conditional "emailsOpened"' in said
        for step in ("linkedinVoiceNote", "manual", "api", 'email "Another way"', 'sms "Hello"'):
            assert re.search(rf"beneath it: step \d {step}", said)
        assert said.count("beneath it") == 7

    @pytest.mark.parametrize("on_extra", ["fail", "keep"])
    def test_moved_step_without_permission(self, lemlist: Sandbox, log: list[str], on_extra: str) -> None:
        definition = spring(SCHEDULES)
        apply_once(definition)
        visit, *rest = definition["steps"]
        assert "(moved)" in refused({**definition, "steps": [*rest, visit]}, lemlist, log, on_extra=on_extra)

    @pytest.mark.parametrize("if_running", ["fail", "edit"])
    def test_deletion_in_a_running_campaign(self, lemlist: Sandbox, log: list[str], if_running: str) -> None:
        definition = spring(SCHEDULES)
        apply_once(definition)
        campaigns(lemlist)[0].status = "running"
        said = refused(changed(definition, unlisted=False), lemlist, log, if_running=if_running)
        assert "if_running to" in said

    def test_running_campaign_without_permission(self, lemlist: Sandbox, log: list[str]) -> None:
        definition = spring(SCHEDULES)
        apply_once(definition)
        campaigns(lemlist)[0].status = "running"
        assert_no_changes(lemlist, definition, None)  # it may run as long as nothing differs
        wanted = {**definition, "steps": [*definition["steps"], Sms(message="More")]}
        assert "The campaign is running" in refused(wanted, lemlist, log)

    def test_kept_steps_stay_where_they_are(self, lemlist: Sandbox, log: list[str]) -> None:
        definition = spring(SCHEDULES)
        apply_once(definition)
        lemlist.step(campaigns(lemlist)[0].sequence_id, "linkedinFollow")
        before = step_ids(lemlist)
        wanted = {**definition, "steps": [*definition["steps"], Sms(message="More")]}
        apply_once(wanted, on_extra="keep")
        assert {*before} < {*step_ids(lemlist)}
        assert apply_once(wanted, on_extra="keep").plan.changes == ()


# --- Running campaigns ------------------------------------------------------------------------------------


class TestRunning:
    def edited(self, lemlist: Sandbox) -> dict[str, Any]:
        """Apply and start a campaign; return a definition that changes a text and adds a step."""
        definition = spring(SCHEDULES)
        apply_once(definition)
        campaigns(lemlist)[0].status = "running"
        visit, opening, *rest = definition["steps"]
        steps = [visit, {**opening, "subject": "New"}, *rest, Sms(message="More")]
        return {**definition, "steps": steps}

    def test_edit_changes_the_running_campaign(self, sandbox: Any, log: list[str]) -> None:
        lemlist = sandbox(edit_running="allowed")
        wanted = self.edited(lemlist)
        before = len(lemlist.requests())
        apply_once(wanted, if_running="edit")
        assert [line for line in log if "lemlist may refuse to change its steps" in line]
        assert writes(lemlist, before) == [UPDATE, ADD]
        assert campaigns(lemlist)[0].status == "running"
        assert_equals(lemlist, wanted)

    def test_edit_that_lemlist_refuses_changes_nothing(self, lemlist: Sandbox) -> None:
        wanted = self.edited(lemlist) | {"disableTrackOpen": False}
        store = Store()
        before, settings = len(lemlist.requests()), dict(campaigns(lemlist)[0].settings)
        with pytest.raises(LemlistValidationError, match="Set if_running to 'pause'"):
            apply_once(wanted, remembering(store), if_running="edit", refresh_unseen=True)
        assert writes(lemlist, before) == [UPDATE]
        assert campaigns(lemlist)[0].settings == settings
        apply_once(wanted, remembering(store), if_running="pause", refresh_unseen=True)
        assert_equals(lemlist, wanted)

    @pytest.mark.parametrize("restart", ["ignored", "refused"])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_pause_starts_the_campaign_again_after_a_kill_at_any_request(
        self, sandbox: Any, killer: Killer, when: str, restart: str
    ) -> None:
        for at in range(1, 40):
            lemlist, store = sandbox(restart=restart), Store()
            killer.arm(0, "")
            wanted = self.edited(lemlist)
            killer.arm(at, when)
            statuses = []
            try:
                apply_once(wanted, remembering(store), if_running="pause")
                break
            except Killed:
                statuses.append(campaigns(lemlist)[0].status)
                killer.arm(0, "")
            apply_once(wanted, remembering(store), if_running="pause", after_kill=True)
            assert campaigns(lemlist)[0].status == "running"
            assert_equals(lemlist, wanted)
            assert not remembering(store).paused
        assert campaigns(lemlist)[0].status == "running"
        assert at > 8

    def test_failure_leaves_it_paused_and_the_log_says_who_starts_it(
        self, lemlist: Sandbox, log: list[str]
    ) -> None:
        wanted = self.edited(lemlist)
        store = Store()
        lemlist.fault(ADD, "status", times=5)
        with pytest.raises(LemlistServerError):
            apply_once(wanted, remembering(store), if_running="pause")
        assert campaigns(lemlist)[0].status == "paused"
        assert log[-1].endswith("The next attempt of this task starts it when the definition is applied.")
        apply_once(wanted, remembering(store), if_running="pause", after_kill=True)
        assert campaigns(lemlist)[0].status == "running"

    def test_without_a_store_a_failure_is_told_with_what_to_do(
        self, lemlist: Sandbox, log: list[str]
    ) -> None:
        wanted = self.edited(lemlist)
        lemlist.fault(ADD, "status", times=5)
        with pytest.raises(LemlistServerError):
            apply_once(wanted, if_running="pause")
        assert [line for line in log if "if the task is killed before that, start the campaign" in line]
        assert log[-1].endswith("When the definition is applied, start the campaign in lemlist.")
        apply_once(wanted, if_running="pause", after_kill=True)
        assert campaigns(lemlist)[0].status == "paused"

    def test_campaign_that_was_paused_by_hand_stays_paused(self, lemlist: Sandbox) -> None:
        wanted = self.edited(lemlist)
        campaigns(lemlist)[0].status = "paused"
        apply_once(wanted, if_running="pause")
        assert campaigns(lemlist)[0].status == "paused"


# --- Which campaign ---------------------------------------------------------------------------------------

ONE_STEP = Campaign(name=NAME, steps=[LinkedinVisit()])


class TestWhichCampaign:
    def test_several_campaigns_of_the_name_are_named(self, lemlist: Sandbox) -> None:
        first, second = lemlist.campaign(NAME)["_id"], lemlist.campaign(NAME)["_id"]
        with pytest.raises(LemlistValidationError, match=f"{first}, {second}. Rename or archive"):
            apply_once(ONE_STEP)
        assert writes(lemlist) == []
        apply_once(ONE_STEP, campaign_id=second)
        assert len(step_ids(lemlist)) == 1

    def test_archived_campaign_of_the_name_does_not_count(self, lemlist: Sandbox) -> None:
        archived = lemlist.campaign(NAME, status="archived")["_id"]
        assert apply_once(ONE_STEP).campaign_id != archived

    def test_archived_campaign_that_was_applied_or_named_is_an_error(self, lemlist: Sandbox) -> None:
        store = Store()
        campaign_id = apply_once(ONE_STEP, remembering(store)).campaign_id
        campaigns(lemlist)[0].status = "archived"
        before = len(lemlist.requests())
        for memory, options in ((remembering(store), {}), (Memory(), {"campaign_id": campaign_id})):
            with pytest.raises(LemlistValidationError, match=f"{campaign_id}' is archived"):
                apply_once(ONE_STEP, memory, **options)
        assert writes(lemlist, before) == []

    def test_deleted_campaign_is_created_again_unless_it_was_named(self, lemlist: Sandbox) -> None:
        store = Store()
        campaign_id = apply_once(spring(), remembering(store)).campaign_id
        world = lemlist.service.world
        world.campaigns.clear()
        world.sequences.clear()
        with pytest.raises(LemlistNotFoundError):
            apply_once(spring(), campaign_id=campaign_id)
        assert apply_once(spring(), remembering(store)).campaign_id != campaign_id
        assert_equals(lemlist, spring())
        assert_no_changes(lemlist, spring(), store)

    def test_campaign_that_lists_no_sequences_gets_its_steps(
        self, lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lemlist.campaign(NAME)
        text = "Campaign has no sequence"
        lemlist.fault("GET /campaigns/{campaignId}/sequences", "status", status=400, text=text, times=1)
        apply_once(ONE_STEP)
        assert_equals(lemlist, ONE_STEP)

    def test_campaign_renamed_in_lemlist_gets_its_name_back(self, lemlist: Sandbox) -> None:
        store = Store()
        apply_once(ONE_STEP, remembering(store))
        campaigns(lemlist)[0].name = "Renamed"
        apply_once(ONE_STEP, remembering(store))
        assert_equals(lemlist, ONE_STEP)


# --- Side by side -----------------------------------------------------------------------------------------


class TestSideBySide:
    def test_second_thread_waits_and_then_finds_nothing_to_do(self, sandbox: Any, log: list[str]) -> None:
        lemlist = sandbox(latency=0.01)
        outcomes: list[Outcome] = []
        definition = spring(SCHEDULES)
        threads = [threading.Thread(target=lambda: outcomes.append(apply_once(definition))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [bool(outcome.plan.changes) for outcome in outcomes] == [True, False]
        assert len([line for line in log if "Waiting until it ends" in line]) == 1
        assert_equals(lemlist, definition)

    @pytest.mark.parametrize("settings", [{}, {"stop_on_reply": True}], ids=["one request", "two requests"])
    def test_second_campaign_that_another_machine_creates_is_told_with_both_ids(
        self, lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
    ) -> None:
        """The other machine creates its campaign, whole, after this one has looked."""
        definition = Campaign(name=NAME, steps=[LinkedinVisit()], **settings)
        real = LemlistHook.create_campaign

        def create(*args: Any, **kwargs: Any) -> Any:
            lemlist.campaign(NAME)
            return real(*args, **kwargs)

        monkeypatch.setattr(LemlistHook, "create_campaign", create)
        with pytest.raises(LemlistValidationError) as caught:
            apply_once(definition)
        ids = [campaign.id for campaign in campaigns(lemlist)]
        assert len(ids) == 2
        assert all(each in str(caught.value) for each in ids)
        assert step_ids(lemlist) == []

    @pytest.mark.parametrize("on_extra", ["fail", "keep", "delete"])
    def test_step_that_another_machine_adds_at_the_same_time_is_told(
        self, lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch, on_extra: str
    ) -> None:
        sequence_id = lemlist.campaign(NAME)["sequenceId"]
        real = LemlistHook.add_step

        def add(*args: Any, **kwargs: Any) -> Any:
            lemlist.step(sequence_id, "linkedinVisit")
            return real(*args, **kwargs)

        monkeypatch.setattr(LemlistHook, "add_step", add)
        with pytest.raises(LemlistError, match="changed at the same time"):
            apply_once(ONE_STEP, on_extra=on_extra)


# --- In processes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> Any:
    return forkserver("applying")


@pytest.fixture
def begin(processes: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that starts an attempt in a process of its own."""

    def begin(lemlist: Sandbox, definition: Any, *, after_kill: bool = False, has_store: bool = True) -> Any:
        (tmp_path / "log").touch()
        process = processes.Process(
            target=applying.attempt,
            args=(
                lemlist.airflow_connection(),
                json.dumps(definition),
                str(tmp_path / "budget"),
                str(tmp_path / "store") if has_store else "",
                str(tmp_path / "log"),
                after_kill,
            ),
        )
        process.start()
        return process

    return begin


def test_second_process_waits_and_then_finds_nothing_to_do(
    sandbox: Any, begin: Callable[..., Any], tmp_path: Path
) -> None:
    lemlist = sandbox(latency=0.01)
    definition = spring(SCHEDULES)
    both = [begin(lemlist, definition, has_store=False) for _ in range(2)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    lines = (tmp_path / "log").read_text()
    assert lines.count("Waiting until it ends") == 1
    assert lines.count(": no changes.") == 1
    assert_equals(lemlist, definition)


@pytest.mark.slow
@pytest.mark.parametrize("has_store", [True, False], ids=["with memory", "without memory"])
def test_processes_that_are_killed_at_random_moments_leave_one_whole_campaign(
    sandbox: Any, begin: Callable[..., Any], has_store: bool, tmp_path: Path
) -> None:
    chance = random.Random(7)
    lemlist = sandbox(latency=0.02)
    killed = 0
    for _ in range(2):
        lemlist.service.world.campaigns.clear()
        lemlist.service.world.sequences.clear()
        lemlist.service.world.schedules.clear()
        (tmp_path / "store").unlink(missing_ok=True)
        definition = spring(SCHEDULES)
        for wanted in (definition, changed(definition, unlisted=has_store)):
            for attempt in range(20):
                # The moment is a number of requests, not a time, so that a busy machine reaches it, too.
                moment = len(lemlist.requests()) + (chance.randrange(1, 12) if attempt < 6 else 1000)
                process = begin(lemlist, wanted, after_kill=attempt > 0, has_store=has_store)
                while process.is_alive() and len(lemlist.requests()) <= moment:
                    time.sleep(0.005)
                time.sleep(chance.uniform(0, 0.03))
                process.kill()
                process.join()
                killed += process.exitcode == -9
                if process.exitcode == 0:
                    break
                assert process.exitcode == -9, (tmp_path / "log").read_text()
            assert_equals(lemlist, wanted)
    assert killed > 10
    assert departures(lemlist.requests()) == []
