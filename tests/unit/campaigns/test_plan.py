# SPDX-License-Identifier: Apache-2.0
"""A plan leads to the definition with as few changes as possible, and says what it destroys or cannot see."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from operator import getitem
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_lemlist.campaigns.definition import SETTINGS, Path, plain_step, walk
from airflow_provider_lemlist.campaigns.plan import (
    AddStep,
    AttachSchedule,
    CreateCampaign,
    DeleteStep,
    Plan,
    UpdateSettings,
    UpdateStep,
    obstacles,
    plan_changes,
    provisional_name,
)
from airflow_provider_lemlist.campaigns.present import Applied, Present, digests
from airflow_provider_lemlist.sandbox.tidy_html import tidy_html
from tests.unit.campaigns.model import Model

Steps = list[dict[str, Any]]
VISIT: dict[str, Any] = {"type": "linkedinVisit"}


def email(subject: str = "A question", message: str = "Hi", **other: Any) -> dict[str, Any]:
    return {"type": "email", "subject": subject, "message": message, **other}


def manual(title: str) -> dict[str, Any]:
    return {"type": "manual", "title": title}


def condition(key: str = "emailsOpened", **branches: Any) -> dict[str, Any]:
    return {"type": "conditional", "conditionKey": key, "delayType": "waitUntil", **branches}


def campaign(steps: Steps) -> dict[str, Any]:
    return {"name": "Spring", "steps": steps}


def planned(steps: Steps, model: Model, applied: Applied = Applied(), **options: Any) -> Plan:  # noqa: B008
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
    """Return the sequences that are one change away: a step updated, added, or deleted with nothing beneath."""
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
    choose = random.Random(7)  # noqa: S311
    everything = sorted(distances(()))
    for start in choose.sample(everything, 6):
        shortest = distances(start)
        model = Model(steps_of(start))
        for end in choose.sample(everything, 250):
            assert step_changes(planned(steps_of(end), model)) == shortest[end], (start, end)
