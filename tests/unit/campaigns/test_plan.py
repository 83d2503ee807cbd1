# SPDX-License-Identifier: Apache-2.0
"""A plan leads to the definition with as few changes as possible, and says what it destroys or cannot see."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache, reduce
from operator import getitem
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist.campaigns.definition import SETTINGS, plain_step, walk
from airflow_provider_lemlist.campaigns.describe import plan_lines
from airflow_provider_lemlist.campaigns.plan import (
    AddStep,
    AttachSchedule,
    CreateCampaign,
    CreateSchedule,
    DeleteStep,
    Plan,
    UpdateSchedule,
    UpdateSettings,
    UpdateStep,
    obstacles,
    plan_changes,
    provisional_name,
)
from airflow_provider_lemlist.campaigns.present import Applied, Present, digests
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.sandbox.tidy_html import tidy_html
from tests.unit.campaigns.model import Model

Steps = list[dict[str, Any]]
NOTHING = Applied()
VISIT: dict[str, Any] = {"type": "linkedinVisit"}


def email(subject: str = "A question", message: str = "Hi", **other: Any) -> dict[str, Any]:
    return {"type": "email", "subject": subject, "message": message, **other}


def manual(title: str) -> dict[str, Any]:
    return {"type": "manual", "title": title}


def condition(key: str = "emailsOpened", **branches: Any) -> dict[str, Any]:
    return {"type": "conditional", "conditionKey": key, "delayType": "waitUntil", **branches}


def campaign(steps: Steps) -> dict[str, Any]:
    return {"name": "Spring", "steps": steps}


def planned(steps: Steps, model: Model, applied: Applied = NOTHING, **options: Any) -> Plan:
    return plan_changes(campaign(steps), model.present(), applied, **{"on_extra": "delete", **options})


def ids(model: Model, sequence_id: str = "seq_main") -> list[str]:
    return [step["_id"] for step in model.sequences[sequence_id]]


def step_changes(plan: Plan) -> int:
    """Return how many steps a plan changes: each one that it deletes counts, also beneath a condition."""
    return sum(1 + len(getattr(change, "beneath", ())) for change in plan.changes)


def assert_is(model: Model, steps: Steps, plan: Plan) -> None:
    """Check that the model is what the definition says, beside what the plan keeps or cannot see."""
    tree = {"steps": model.tree(without=[row["_id"] for row in plan.kept])}
    assert [path for path, _ in walk(tree)] == [path for path, _ in walk(campaign(steps))]
    for path, step in walk(campaign(steps)):
        found = reduce(getitem, path, tree)  # type: ignore[arg-type]
        seen = plain_step(step).keys() - set(plan.unseen.get(path, ()))
        assert {name: found[name] for name in seen} == {name: step[name] for name in seen}


def remembered(model: Model, plan: Plan) -> Applied:
    """Return what is known after a run: the steps that it has left, without what it could not see."""
    applied = model.applied()
    unseen = {plan.step_ids[path]: names for path, names in plan.unseen.items()}
    return applied._replace(
        steps={
            step_id: {name: each for name, each in known.items() if name not in unseen.get(step_id, ())}
            for step_id, known in applied.steps.items()
        }
    )


# --- Random campaigns -------------------------------------------------------------------------------------

DELAY: dict[str, st.SearchStrategy[Any]] = {"delay": st.sampled_from([1, 3])}
LEAVES = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("email"),
            "subject": st.sampled_from("AB"),
            "message": st.sampled_from(["Hi", "<b>Hi</b>", "Bye"]),
        },
        optional=DELAY,
    ),
    st.fixed_dictionaries({"type": st.just("linkedinVisit")}, optional=DELAY),
    st.fixed_dictionaries({"type": st.just("manual"), "title": st.sampled_from("AB")}),
)


def lists_of_steps(depth: int) -> st.SearchStrategy[Steps]:
    if not depth:
        return st.lists(LEAVES, max_size=2)
    below = lists_of_steps(depth - 1)
    condition = st.fixed_dictionaries(
        {
            "type": st.just("conditional"),
            "conditionKey": st.sampled_from(["emailsOpened", "hasScore"]),
            "delayType": st.just("waitUntil"),
        },
        optional={"yes": below, "otherwise": below},
    )
    return st.lists(LEAVES | condition, max_size=4)


STEPS = lists_of_steps(2)


@st.composite
def campaigns(draw: st.DrawFn) -> tuple[Model, Applied]:
    """Draw a campaign in lemlist, and what is remembered of it: nothing, some steps, or all."""
    model = Model(draw(STEPS))
    everything = sorted(step["_id"] for step in model.all_steps())
    ours = draw(st.sampled_from([[], everything]) | st.sets(st.sampled_from(everything or [""])))
    return model, model.applied(ours)


class TestRandomCampaigns:
    @given(STEPS, campaigns(), st.booleans())
    @settings(max_examples=250)
    def test_the_applied_plan_gives_the_definition_and_after_it_there_is_nothing_to_change(
        self, steps: Steps, there: tuple[Model, Applied], refresh: bool
    ) -> None:
        model, applied = there
        plan = planned(steps, model, applied, refresh_unseen=refresh)
        model.carry_out(plan)
        assert_is(model, steps, plan)
        assert applied.steps or not refresh or not plan.unseen
        after = planned(steps, model, remembered(model, plan))
        assert (after.changes, after.unseen) == ((), plan.unseen)
        assert planned(steps, model).changes == ()

    @given(STEPS, campaigns())
    @settings(max_examples=150)
    def test_a_step_that_stays_keeps_its_id_and_one_without_an_update_is_not_touched(
        self, steps: Steps, there: tuple[Model, Applied]
    ) -> None:
        model, applied = there
        before = {step["_id"]: dict(step) for step in model.all_steps()}
        plan = planned(steps, model, applied)
        updated = {change.row["_id"] for change in plan.changes if isinstance(change, UpdateStep)}
        model.carry_out(plan)
        after = {step["_id"]: step for step in model.all_steps()}
        stays = set(plan.step_ids.values())
        assert stays == before.keys() & after.keys()
        assert all(before[each] == after[each] for each in stays - updated)
        assert len(after) - len(stays) == sum(isinstance(change, AddStep) for change in plan.changes)

    @given(STEPS, campaigns())
    @settings(max_examples=150)
    def test_keep_deletes_nothing_and_puts_the_steps_of_the_definition_in_their_order(
        self, steps: Steps, there: tuple[Model, Applied]
    ) -> None:
        model, applied = there
        before = {step["_id"] for step in model.all_steps()}
        plan = planned(steps, model, applied, on_extra="keep")
        model.carry_out(plan)
        assert before <= {step["_id"] for step in model.all_steps()}
        assert not any(isinstance(change, DeleteStep) for change in plan.changes)
        assert_is(model, steps, plan)
        assert planned(steps, model, on_extra="keep").changes == ()

    @given(STEPS, campaigns(), st.integers(min_value=0, max_value=8))
    @settings(max_examples=150)
    def test_a_run_that_was_killed_after_any_change_and_runs_again_ends_at_the_definition(
        self, steps: Steps, there: tuple[Model, Applied], done: int
    ) -> None:
        model, applied = there
        plan = planned(steps, model, applied)
        model.carry_out(plan, stop_after=done)
        again = planned(steps, model, applied)  # the killed run could not remember anything
        # What it has added is not added again; what only it has updated may be sent once more.
        added = [change.path for change in plan.changes[done:] if isinstance(change, AddStep)]
        assert sum(isinstance(change, AddStep) for change in again.changes) == len(added)
        model.carry_out(again)
        assert_is(model, steps, again)


# --- Brute force ------------------------------------------------------------------------------------------

#: A sequence as nested tuples: of each step its label, and the steps of both branches.
Forest = tuple[tuple[str, Any, Any], ...]
LABELS: dict[str, dict[str, Any]] = {
    "a": email("a"),
    "b": email("b"),
    "v": VISIT,
    "x": condition("emailsOpened"),
    "y": condition("hasScore"),
}
SAME_TYPE = {"a": "b", "b": "a", "x": "y", "y": "x"}
MOST = 4


def size(forest: Forest) -> int:
    return sum(1 + size(yes) + size(otherwise) for _, yes, otherwise in forest)


@cache
def edits(forest: Forest) -> frozenset[Forest]:
    """Return the sequences that are one change away: one step updated, added, or deleted."""
    found = {(*forest[:i], (label, (), ()), *forest[i:]) for i in range(len(forest) + 1) for label in LABELS}
    for i, (label, yes, otherwise) in enumerate(forest):

        def with_step(*step: Any, i: int = i) -> Forest:
            return (*forest[:i], *step, *forest[i + 1 :])

        if not yes and not otherwise:
            found.add(with_step())
        if label in SAME_TYPE:
            found.add(with_step((SAME_TYPE[label], yes, otherwise)))
        if label in "xy":
            found |= {with_step((label, each, otherwise)) for each in edits(yes)}
            found |= {with_step((label, yes, each)) for each in edits(otherwise)}
    # The shortest way never needs more steps than its start or its end: it can delete first and add last.
    return frozenset(each for each in found if size(each) <= MOST)


def distances(start: Forest) -> dict[Forest, int]:
    found, border = {start: 0}, [start]
    while border:
        border = [*dict.fromkeys(each for near in border for each in edits(near) if each not in found)]
        distance = max(found.values()) + 1
        found |= dict.fromkeys(border, distance)
    return found


def steps_of(forest: Forest) -> Steps:
    return [
        LABELS[label] | ({"yes": steps_of(yes), "otherwise": steps_of(otherwise)} if label in "xy" else {})
        for label, yes, otherwise in forest
    ]


def test_no_shorter_plan_exists() -> None:
    """Of small campaigns, each single edit is tried; a deleted condition counts every step beneath it."""
    choose = random.Random(7)
    everything = sorted(distances(()))
    for start in choose.sample(everything, 6):
        shortest = distances(start)
        model = Model(steps_of(start))
        for end in choose.sample(everything, 250):
            assert step_changes(planned(steps_of(end), model)) == shortest[end], (start, end)


# --- Alignment --------------------------------------------------------------------------------------------


class TestAlignment:
    def test_an_inserted_and_a_changed_step_are_two_changes(self) -> None:
        model = Model([VISIT, email("One"), email("Two")])
        first, _, third = ids(model)
        plan = planned([VISIT, email("One"), manual("Call"), email("Two, {{firstName}}")], model)
        assert plan.changes == (
            UpdateStep(
                ("steps", 3),
                "seq_main",
                model.present().rows("seq_main")[2],
                {"subject": ("Two", "Two, {{firstName}}")},
            ),
            AddStep(("steps", 2), manual("Call"), index=2),
        )
        assert (plan.step_ids["steps", 0], plan.step_ids["steps", 3]) == (first, third)

    def test_a_step_without_an_equal_one_is_updated_where_most_of_its_words_stay(self) -> None:
        model = Model([email("Our webinar in spring"), email("A last reminder")])
        plan = planned([email("A very last reminder")], model)
        update, delete = plan.changes
        assert isinstance(update, UpdateStep)
        assert isinstance(delete, DeleteStep)
        assert [update.row["_id"], delete.row["_id"]] == ids(model)[::-1]

    def test_the_steps_of_both_branches_are_planned_and_a_branch_that_is_not_written_is_empty(self) -> None:
        model = Model([condition(yes=[VISIT], otherwise=[email("One")])])
        plan = planned([condition(yes=[VISIT, email("Two")])], model)
        delete, add = plan.changes
        assert isinstance(delete, DeleteStep)
        assert (delete.sequence, delete.row["subject"]) == (("steps", 0, "otherwise"), "One")
        assert isinstance(add, AddStep)
        assert (add.path, add.sequence) == (("steps", 0, "yes", 1), ("steps", 0, "yes"))
        assert plan.sequence_ids[add.sequence] == model.sequences["seq_main"][0]["branches"]["yes"]

    def test_another_condition_is_an_update_and_its_branches_stay(self) -> None:
        model = Model([condition("emailsOpened", yes=[VISIT])])
        (update,) = planned([condition("hasScore", yes=[VISIT])], model).changes
        assert isinstance(update, UpdateStep)
        assert update.changed == {"conditionKey": ("emailsOpened", "hasScore")}

    def test_delay_that_is_not_written_is_left_as_it_is(self) -> None:
        assert planned([VISIT], Model([VISIT | {"delay": 7}])).changes == ()

    def test_a_moved_step_is_deleted_and_added_again_and_marked(self) -> None:
        model = Model([email("One"), VISIT, email("Two")])
        delete, add = planned([email("One"), email("Two"), VISIT], model).changes
        assert isinstance(delete, DeleteStep)
        assert isinstance(add, AddStep)
        assert add.moved == delete.row

    def test_a_step_moved_into_a_branch_is_marked_and_a_new_one_is_not(self) -> None:
        model = Model([email("One"), condition()])
        _, *added = planned([condition(yes=[email("One"), email("One")])], model).changes
        assert [change.moved is None for change in added if isinstance(change, AddStep)] == [False, True]

    def test_a_step_moved_out_of_a_condition_that_is_deleted_is_marked(self) -> None:
        delete, add = planned([email("One")], Model([condition(yes=[email("One")])])).changes
        assert isinstance(delete, DeleteStep)
        assert isinstance(add, AddStep)
        assert (add.moved,) == delete.beneath

    def test_of_equal_texts_the_one_with_the_same_markup_stays(self) -> None:
        model = Model([email(message="Hi"), email(message="<b>Hi</b>")])
        (delete,) = planned([email(message="<b>Hi</b>")], model).changes
        assert isinstance(delete, DeleteStep)
        assert delete.row["message"] == "Hi"


class TestStepsAddedByHand:
    """Once it is known what was sent from here, a step that was not belongs to the person who added it."""

    @pytest.mark.parametrize("on_extra", ["delete", "keep"])
    @pytest.mark.parametrize("refresh", [False, True])
    def test_it_is_never_overwritten(self, on_extra: str, refresh: bool) -> None:
        model = Model([VISIT, email("Mine"), manual("Mine")])
        applied = model.applied([ids(model)[0]])
        for steps in (
            [VISIT, email("Yours"), manual("Yours")],
            [email("Yours"), manual("Yours")],
            [VISIT, email("Mine"), manual("Yours")],
        ):
            plan = planned(steps, model, applied, on_extra=on_extra, refresh_unseen=refresh)
            assert not any(isinstance(change, UpdateStep) for change in plan.changes)

    @pytest.mark.parametrize("refresh", [False, True])
    def test_an_equal_one_is_taken_as_it_is(self, refresh: bool) -> None:
        model = Model([VISIT, manual("Mine")])
        plan = planned([VISIT, manual("Yours")], model, model.applied(ids(model)[:1]), refresh_unseen=refresh)
        assert plan.changes == ()
        assert plan.unseen == {("steps", 1): ("title",)}

    def test_of_equal_steps_the_one_that_was_sent_from_here_stays(self) -> None:
        for step in (VISIT, manual("Call")):
            for ours in (0, 1):
                model = Model([step, step])
                (delete,) = planned([step], model, model.applied([ids(model)[ours]])).changes
                assert isinstance(delete, DeleteStep)
                assert delete.row["_id"] == ids(model)[1 - ours]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (email("One two", "Three"), email("All words", "are new")),
            (manual("Call"), manual("Write")),
        ],
    )
    def test_with_keep_a_step_that_was_sent_from_here_is_updated_and_does_not_stay_beside_a_new_one(
        self, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        model = Model([before])
        (update,) = planned([after], model, model.applied(), on_extra="keep").changes
        assert isinstance(update, UpdateStep)

    def test_with_keep_and_nothing_known_a_step_with_other_words_stays(self) -> None:
        model = Model([email("Mine, by hand", "Words of mine")])
        (add,) = (plan := planned([email("Yours", "Others")], model, on_extra="keep")).changes
        assert isinstance(add, AddStep)
        assert [row["_id"] for row in plan.kept] == ids(model)

    def test_with_keep_and_nothing_known_a_step_with_most_of_the_words_is_updated(self) -> None:
        model = Model([email("Our webinar in spring", "Hi")])
        (update,) = planned([email("Our webinar in summer", "Hi")], model, on_extra="keep").changes
        assert isinstance(update, UpdateStep)

    def test_what_was_sent_to_another_campaign_says_nothing(self) -> None:
        model = Model([email("One")])
        applied = Applied("cam_2", steps={"stp_9": {}}, settings=digests({"autoReview": True}))
        plan = plan_changes(
            campaign([email("Two")]) | {"autoReview": True}, model.present(), applied, on_extra="delete"
        )
        assert [type(change) for change in plan.changes] == [UpdateStep]
        assert plan.unseen == {(): ("autoReview",)}


# --- What forbids a plan ----------------------------------------------------------------------------------

NOT_THERE = "steps of the campaign are not in the definition"
RUNNING = "The campaign is running. Set if_running"
NO_DELETION = "lemlist deletes no step of a running campaign"
MOVED = "lemlist cannot move it"


@pytest.mark.parametrize(
    ("steps", "on_extra", "status", "if_running", "expected"),
    [
        ([VISIT, condition(yes=[email()])], "fail", "running", "fail", []),
        (
            [condition(yes=[email()])],
            "fail",
            "draft",
            "fail",
            ["1 step of the campaign is not in the definition"],
        ),
        ([VISIT], "fail", "draft", "fail", [f"2 {NOT_THERE}"]),
        ([VISIT], "delete", "draft", "fail", []),
        ([VISIT], "delete", "paused", "fail", []),
        ([VISIT], "delete", "running", "fail", [RUNNING]),
        ([VISIT], "delete", "running", "edit", [NO_DELETION]),
        ([VISIT], "delete", "running", "pause", []),
        ([VISIT], "fail", "running", "fail", [f"2 {NOT_THERE}", RUNNING]),
        ([VISIT], "keep", "running", "fail", []),
        ([VISIT, manual("Call")], "keep", "draft", "fail", []),
        ([VISIT, manual("Call")], "keep", "running", "edit", []),
        ([VISIT, manual("Call")], "keep", "running", "fail", [RUNNING]),
        ([condition(yes=[email()]), VISIT], "fail", "draft", "fail", ["or in another place"]),
        ([condition(yes=[email()]), VISIT], "keep", "draft", "fail", [MOVED]),
        ([condition(yes=[email()]), VISIT], "delete", "draft", "fail", []),
        ([VISIT, email()], "keep", "draft", "fail", [MOVED]),
        ([VISIT, condition(yes=[email("Other")])], "fail", "running", "edit", []),
    ],
)
def test_nothing_is_destroyed_and_no_running_campaign_changed_without_permission(
    steps: Steps, on_extra: Any, status: str, if_running: Any, expected: list[str]
) -> None:
    present = Model([VISIT, condition(yes=[email()])]).present(status=status)
    plan = plan_changes(campaign(steps), present, Applied(), on_extra=on_extra)
    found = obstacles(plan, present, on_extra, if_running)
    assert len(found) == len(expected)
    assert all(part in text for part, text in zip(expected, found, strict=True))


# --- What lemlist does not list ---------------------------------------------------------------------------

UNSEEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (manual("Call"), {"title": "Write"}),
    ({"type": "api", "method": "GET", "url": "https://a.example"}, {"url": "https://b.example"}),
    (
        {"type": "linkedinInvite", "message": "Hi", "images": ["https://a.example/1.png"]},
        {"images": ["https://a.example/2.png"]},
    ),
    ({"type": "linkedinEndorse", "endorseAnyFallback": False}, {"endorseAnyFallback": True}),
    (email(message="<p>Hi <b>you</b></p>"), {"message": "<p>Hi <i>you</i></p>"}),
]


@pytest.mark.parametrize(("step", "change"), UNSEEN, ids=[step["type"] for step, _ in UNSEEN])
class TestUnseenFields:
    def test_what_was_sent_last_tells_whether_a_field_has_changed(
        self, step: dict[str, Any], change: dict[str, Any]
    ) -> None:
        model = Model([step])
        same = planned([step], model, model.applied())
        assert (same.changes, same.unseen) == ((), {})
        ((name, value),) = change.items()
        (update,) = planned([step | change], model, model.applied()).changes
        assert isinstance(update, UpdateStep)
        assert [(each, after) for each, (_, after) in update.changed.items()] == [(name, value)]

    def test_without_it_the_field_is_told_and_sent_only_on_request(
        self, step: dict[str, Any], change: dict[str, Any]
    ) -> None:
        model = Model([step])
        plan = planned([step | change], model)
        assert plan.changes == ()
        assert change.keys() <= set(plan.unseen["steps", 0])
        refreshed = planned([step | change], model, refresh_unseen=True)
        assert refreshed.unseen == {}
        model.carry_out(refreshed)
        assert change.items() <= model.sequences["seq_main"][0].items()


@pytest.mark.parametrize(
    "message",
    ["Hi<br>you &amp; me", "<p class=big>Hi  <b>you", "Hi\n\nyou", '<a href="https://a.example">Hi</a>'],
)
def test_html_that_lemlist_tidies_makes_no_endless_difference(message: str) -> None:
    stored = Model([email(message=tidy_html(message))])
    assert stored.sequences["seq_main"][0]["message"] != message
    assert planned([email(message=message)], stored).changes == ()
    sent = stored.applied()._replace(steps={ids(stored)[0]: digests({"message": message})})
    plan = planned([email(message=message)], stored, sent, refresh_unseen=True)
    assert (plan.changes, plan.unseen) == ((), {})


# --- Settings ---------------------------------------------------------------------------------------------


def settings_plan(
    wanted: Mapping[str, Any],
    there: Mapping[str, Any] | None,
    applied: Applied = NOTHING,
    **options: Any,
) -> Plan:
    present = Present() if there is None else Present({"_id": "cam_1", "name": "Spring", **there})
    return plan_changes({"name": "Spring", "steps": [], **wanted}, present, applied, **options)


def known(**values: Any) -> Applied:
    return Applied("cam_1", "Spring", digests(values))


class TestNewCampaign:
    def test_one_request_is_enough_for_what_it_takes(self) -> None:
        (create,) = settings_plan({"timezone": "Europe/Paris", "autoReview": False}, None).changes
        assert isinstance(create, CreateCampaign)
        assert create.first == {"name": "Spring", "timezone": "Europe/Paris", "autoReview": False}
        assert create.second == {}

    def test_it_has_a_provisional_name_until_a_second_request_has_set_the_rest(self) -> None:
        (create,) = settings_plan({"autoReview": False, "stopOnEmailReplied": True}, None).changes
        assert isinstance(create, CreateCampaign)
        assert create.first == {"name": provisional_name("Spring"), "autoReview": False}
        assert create.second == {"name": "Spring", "stopOnEmailReplied": True}

    def test_it_gets_every_setting_that_lemlist_can_change(self) -> None:
        wanted: dict[str, Any] = {
            name: value for name, value in zip(SETTINGS, range(99), strict=False) if name != "name"
        }
        wanted |= {"scheduleIds": ["skd_1"], "schedules": [], "labels": ["EMEA"]}
        plan = settings_plan(wanted, None)
        create, attach = plan.changes
        assert isinstance(create, CreateCampaign)
        assert attach == AttachSchedule("skd_1")
        others = {"scheduleIds", "schedules", "labels"}
        assert {**create.first, **create.second}.keys() == SETTINGS.keys() - others
        assert plan.notes == ("labels is [], and should be ['EMEA']: lemlist's API cannot change it",)

    def test_its_steps_are_added_after_it_each_at_the_end(self) -> None:
        steps = [VISIT, condition(yes=[email()])]
        create, *added = plan_changes(campaign(steps), Present(), Applied()).changes
        assert isinstance(create, CreateCampaign)
        assert [(change.path, change.index) for change in added if isinstance(change, AddStep)] == [
            (("steps", 0), None),
            (("steps", 1), None),
            (("steps", 1, "yes", 0), None),
        ]

    def test_a_run_that_was_killed_before_it_had_its_settings_is_completed(self) -> None:
        wanted = {"autoReview": True, "timezone": "Europe/Paris", "tracking": {}, "scheduleIds": ["skd_1"]}
        there = {"name": provisional_name("Spring"), "timezone": "Europe/Paris", "scheduleIds": ["skd_0"]}
        plan = settings_plan(wanted, there, known(**wanted))
        assert plan.changes == (
            UpdateSettings(
                {
                    "name": (provisional_name("Spring"), "Spring"),
                    "autoReview": (None, True),
                    "tracking": (None, {}),
                }
            ),
            AttachSchedule("skd_1"),
        )


class TestSettings:
    def test_what_lemlist_lists_is_compared(self) -> None:
        wanted = {"autoReview": False, "autoReviewConditions": ["risky", "deliverable"]}
        assert (
            settings_plan(wanted, {**wanted, "autoReviewConditions": ["deliverable", "risky"]}).changes == ()
        )
        (update,) = settings_plan(wanted, {**wanted, "autoReview": True}).changes
        assert update == UpdateSettings({"autoReview": (True, False)})

    def test_of_the_rest_what_was_sent_last_is_compared(self) -> None:
        wanted = {"autoReview": True, "tracking": {"trackOpens": True}}
        assert settings_plan(wanted, {}, known(**wanted)) == Plan()
        (update,) = settings_plan(wanted, {}, known(**wanted | {"autoReview": False})).changes
        assert update == UpdateSettings({"autoReview": (None, True)})

    def test_what_cannot_be_compared_is_told_and_sent_on_request(self) -> None:
        wanted = {"autoReview": True, "labels": ["EMEA"]}
        assert settings_plan(wanted, {}) == Plan(unseen={(): ("autoReview", "labels")})
        assert settings_plan(wanted, {}, refresh_unseen=True) == Plan(
            (UpdateSettings({"autoReview": (None, True)}),), unseen={(): ("labels",)}
        )

    def test_a_part_of_an_object_that_is_not_listed_is_not_a_difference(self) -> None:
        wanted = {"tracking": {"trackOpens": True, "trackClicks": False}}
        assert settings_plan(wanted, {"tracking": {"trackOpens": True}}).unseen == {(): ("tracking",)}
        assert settings_plan(wanted, {"tracking": {"trackOpens": False}}).changes
        assert settings_plan(wanted, {"tracking": {**wanted["tracking"], "trackReplies": True}}) == Plan()

    @pytest.mark.parametrize("applied", [Applied(), known(timezone="UTC", labels=[])])
    def test_what_lemlist_cannot_change_becomes_a_note(self, applied: Applied) -> None:
        wanted = {"timezone": "Europe/Paris", "labels": ["EMEA"]}
        plan = settings_plan(wanted, {"timezone": "UTC", "labels": []}, applied)
        assert plan.changes == ()
        assert plan.notes == (
            "timezone is 'UTC', and should be 'Europe/Paris': lemlist's API cannot change it",
            "labels is [], and should be ['EMEA']: lemlist's API cannot change it",
        )

    def test_a_change_of_what_lemlist_neither_lists_nor_changes_becomes_a_note(self) -> None:
        plan = settings_plan({"labels": ["EMEA"]}, {}, known(labels=["old"]))
        assert plan.notes == ("labels is not listed, and should be ['EMEA']: lemlist's API cannot change it",)

    def test_only_the_missing_schedules_are_attached_and_the_others_noted(self) -> None:
        plan = settings_plan(
            {"scheduleIds": ["skd_1", "skd_2", "skd_2"]}, {"scheduleIds": ["skd_0", "skd_1"]}
        )
        assert plan.changes == (AttachSchedule("skd_2"),)
        assert plan.notes == ("the schedule skd_0 is attached, too: lemlist's API cannot detach it",)

    def test_schedules_are_found_by_name_created_changed_and_attached(self) -> None:
        mornings = {
            "name": "Mornings",
            "timezone": "UTC",
            "start": "08:00",
            "end": "11:00",
            "weekdays": [2, 3],
        }
        evenings = {**mornings, "name": "Evenings", "start": "18:00", "end": "20:00"}
        definition = {**campaign([]), "schedules": [mornings, evenings]}
        there = {"_id": "cam_1", "name": "Spring", "scheduleIds": ["skd_0"]}

        def schedules_plan(*rows: dict[str, Any], attached: str = "skd_0") -> Plan:
            present = Present({**there, "scheduleIds": [attached]}, {}, rows)
            return plan_changes(definition, present, Applied())

        late = {"_id": "skd_1", **mornings, "start": "09:00", "secondsToWait": 1200}
        gone = {"_id": "skd_2", **evenings, "deletedAt": "2026-11-01T00:00:00Z"}
        plan = schedules_plan(late, gone)
        assert plan.changes == (
            UpdateSchedule(late, {"start": ("09:00", "08:00")}),
            CreateSchedule(evenings),
            AttachSchedule("skd_1"),
        )
        assert plan.notes == ("the schedule skd_0 is attached, too: lemlist's API cannot detach it",)
        assert '~ schedule "Mornings", for every campaign that uses it: start' in "\n".join(plan_lines(plan))

        equal = {"_id": "skd_1", **mornings, "weekdays": [3, 2]}
        twin = {"_id": "skd_3", **mornings, "start": "05:00"}
        late_twin = {"_id": "skd_2", **evenings}
        assert schedules_plan(equal, twin, late_twin, attached="skd_1").changes == (AttachSchedule("skd_2"),)
        with pytest.raises(LemlistValidationError, match="'Mornings': skd_1, skd_3.*scheduleIds"):
            schedules_plan(equal, twin)

    def test_senders_are_compared_by_the_ids_of_the_users(self) -> None:
        there = {"senders": [{"id": "usr_2", "email": "b@example.com"}, {"id": "usr_1"}]}
        assert settings_plan({"sendUserIds": ["usr_1", "usr_2"]}, there) == Plan()
        (update,) = settings_plan({"sendUserIds": ["usr_1"]}, there).changes
        assert update == UpdateSettings({"sendUserIds": (["usr_2", "usr_1"], ["usr_1"])})

    @pytest.mark.parametrize("there", [{}, {"senders": [{"id": "snd_1"}]}, {"senders": [{"email": "a@b.c"}]}])
    def test_senders_without_the_ids_of_users_are_unseen(self, there: dict[str, Any]) -> None:
        assert settings_plan({"sendUserIds": ["usr_1"]}, there).unseen == {(): ("sendUserIds",)}

    def test_the_updates_of_steps_come_first_since_lemlist_may_refuse_them(self) -> None:
        model = Model([email("One"), VISIT])
        plan = plan_changes(
            campaign([email("Two"), manual("Call")]) | {"name": "Summer"},
            model.present(),
            Applied(),
            on_extra="delete",
        )
        assert [type(change) for change in plan.changes] == [UpdateStep, UpdateSettings, DeleteStep, AddStep]
