# SPDX-License-Identifier: Apache-2.0
"""A plan reads like a diff: each field on a line of its own, which is short and harmless."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.campaigns.describe import LONGEST, coloured, plan_lines, short
from airflow_provider_lemlist.campaigns.plan import Plan, UpdateSettings, plan_changes
from airflow_provider_lemlist.campaigns.present import Applied, Present
from tests.unit.campaigns.model import Model

VISIT = {"type": "linkedinVisit"}
CONDITION = {"type": "conditional", "conditionKey": "linkedinInviteAccepted", "delayType": "waitUntil"}


def email(subject: str) -> dict[str, Any]:
    return {"type": "email", "subject": subject, "message": "<p>Hi</p>"}


def lines(there: list[dict[str, Any]], steps: list[dict[str, Any]], **options: Any) -> list[str]:
    definition = {"name": "Spring", "steps": steps}
    options = {"on_extra": "delete", **options}
    return plan_lines(plan_changes(definition, Model(there).present(), Applied(), **options))


def change(before: Any, value: Any) -> str:
    (line,) = plan_lines(Plan((UpdateSettings({"name": (before, value)}),)))
    return line.removeprefix("~ name: ")


class TestPlan:
    def test_no_changes_are_no_lines(self) -> None:
        assert lines([VISIT], [VISIT]) == []

    def test_each_changed_field_has_a_line(self) -> None:
        new = email("A question, {{firstName}}") | {"delay": 3}
        assert lines([VISIT, email("A question")], [VISIT, new]) == [
            '~ step 2 email: subject "A question" -> "A question, {{firstName}}"',
            "~ step 2 email: delay 1 -> 3",
        ]

    def test_new_step_stands_after_the_one_before_it(self) -> None:
        new = [
            {**CONDITION, "yes": [VISIT, {"type": "sms", "message": "Hi"}]},
            {"type": "manual", "title": "Call"},
        ]
        assert lines([VISIT], [email("First"), VISIT, *new]) == [
            '+ email "First" first in the sequence',
            '+ conditional "linkedinInviteAccepted" after step 2',
            "+ linkedinVisit first in branch yes of step 3",
            '+ sms "Hi" after step 3, yes 1',
            '+ manual "Call" after step 3',
        ]

    def test_deleted_condition_names_every_step_beneath_it(self) -> None:
        inner = {**CONDITION, "conditionKey": "emailsOpened", "otherwise": [email("Deep")]}
        there = [VISIT, {**CONDITION, "yes": [VISIT, inner], "otherwise": [email("Last")]}]
        assert lines(there, [VISIT]) == [
            '- step 2 conditional "linkedinInviteAccepted"',
            "-   beneath it: step 1 linkedinVisit",
            '-   beneath it: step 2 conditional "emailsOpened"',
            '-   beneath it: step 1 email "Deep"',
            '-   beneath it: step 1 email "Last"',
        ]

    def test_step_that_is_deleted_in_a_branch_says_in_which(self) -> None:
        assert lines([VISIT, {**CONDITION, "otherwise": [VISIT]}], [VISIT, CONDITION]) == [
            "- step 1 linkedinVisit in branch otherwise of step 2"
        ]

    def test_moved_step_is_marked(self) -> None:
        assert lines([VISIT, email("One"), email("Two")], [email("One"), email("Two"), VISIT]) == [
            "- step 1 linkedinVisit",
            "+ linkedinVisit after step 2 (moved)",
        ]

    def test_kept_and_unseen_are_told_after_the_changes(self) -> None:
        there = [{"type": "manual", "title": "Call"}, email("By hand")]
        assert lines(there, [{"type": "manual", "title": "Call"}, VISIT], on_extra="keep") == [
            "+ linkedinVisit after step 1",
            '  keeps step 2 email "By hand", which the definition lacks',
            "? cannot see: title of step 1",
        ]

    def test_settings_schedules_and_notes(self) -> None:
        definition = {
            "name": "Spring",
            "steps": [],
            "autoReview": False,
            "scheduleIds": ["skd_1"],
            "labels": ["A"],
        }
        assert plan_lines(plan_changes(definition, Present(), Applied())) == [
            '+ campaign "Spring"',
            "+ autoReview: false",
            "+ schedule skd_1",
            "! labels is [], and should be ['A']: lemlist's API cannot change it",
        ]
        there = Present({"_id": "cam_1", "name": "Winter", "autoReview": True, "scheduleIds": ["skd_1"]})
        assert plan_lines(
            plan_changes(definition | {"tracking": {"trackOpens": False}}, there, Applied())
        ) == [
            '~ name: "Winter" -> "Spring"',
            "~ autoReview: true -> false",
            "? cannot see: labels, tracking",
        ]

    def test_what_lemlist_does_not_list_is_said(self) -> None:
        there = [{"type": "manual", "title": "Call"}]
        assert lines(there, there, refresh_unseen=True) == [
            '~ step 1 manual: title (not listed) -> "Call"',
        ]


class TestTexts:
    def test_long_text_is_shortened_and_short_one_is_not(self) -> None:
        assert short("x" * LONGEST) == f'"{"x" * LONGEST}"'
        assert short("x" * (LONGEST + 1)) == f'"{"x" * (LONGEST - 1)}…"'

    def test_of_long_texts_the_place_is_shown_where_they_begin_to_differ(self) -> None:
        start = "word " * 40
        shown = change(f"{start}old {start}", f"{start}new {start}")
        before, after = shown.split(" -> ")
        assert "word old word" in before
        assert "word new word" in after
        assert len(before) == len(after) == LONGEST + 2
        assert before.startswith('"…')

    def test_difference_of_nothing_but_spaces_is_said(self) -> None:
        assert change("Hi\n\nyou", "Hi you") == '"Hi you" (only spaces differ)'

    @given(st.text(max_size=150), st.text(max_size=150) | st.none())
    @pytest.mark.parametrize("prefix", ["", "same " * 30])
    def test_any_text_is_one_short_line_that_can_be_printed(
        self, prefix: str, value: str, before: Any
    ) -> None:
        line = change(before if before is None else prefix + before, prefix + value)
        assert len(line.splitlines()) == 1
        assert len(line) <= 2 * (LONGEST + 2) + len("(only spaces differ) -> ")
        assert "\033" not in line
        line.encode()

    def test_text_in_a_list_breaks_no_line(self) -> None:
        assert len(short(["a\nb\u2028c\x85d"]).splitlines()) == 1


def test_colours_tell_what_is_added_changed_deleted_and_unseen() -> None:
    assert list(coloured(["+ a", "~ b", "- c", "? d", "! e", "  keeps f"])) == [
        "\033[32m+ a\033[0m",
        "\033[33m~ b\033[0m",
        "\033[31m- c\033[0m",
        "\033[2m? d\033[0m",
        "\033[1;31m! e\033[0m",
        "  keeps f",
    ]
