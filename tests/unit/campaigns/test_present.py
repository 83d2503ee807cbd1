# SPDX-License-Identifier: Apache-2.0
"""What lemlist lists is read as it is documented, and compared by what is known."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.campaigns.present import (
    Applied,
    Difference,
    Present,
    branch_ids,
    compare,
    compare_step,
    digest,
    digests,
)
from tests.unit.campaigns.model import Model

VISIT = {"type": "linkedinVisit"}
CONDITION = {"type": "conditional", "conditionKey": "hasScore", "delayType": "within", "delay": 3}


class TestPresent:
    def test_the_main_sequence_is_that_of_level_0_wherever_it_stands(self) -> None:
        present = Model([{**CONDITION, "yes": [VISIT]}]).present()
        assert Present(sequences=dict(reversed(present.sequences.items()))).main_id == "seq_main"

    def test_of_a_new_campaign_without_a_list_its_own_id_is_taken(self) -> None:
        assert Present({"_id": "cam_1", "sequenceId": "seq_1"}).main_id == "seq_1"
        assert Present().main_id is None

    def test_the_steps_beneath_a_condition_are_those_of_both_branches_and_deeper(self) -> None:
        inner = {**CONDITION, "otherwise": [{"type": "sms", "message": "Deep"}]}
        present = Model([{**CONDITION, "yes": [VISIT, inner], "otherwise": [VISIT]}]).present()
        (row,) = present.rows("seq_main")
        assert [each["type"] for each in present.beneath(row)] == [
            "linkedinVisit",
            "conditional",
            "sms",
            "linkedinVisit",
        ]
        assert branch_ids(row).keys() == {"yes", "otherwise"}

    def test_a_sequence_that_is_not_listed_is_empty(self) -> None:
        assert Present().rows(None) == Present().rows("seq_9") == []

    @pytest.mark.parametrize(("status", "running"), [("running", True), ("paused", False), (None, False)])
    def test_only_a_running_campaign_is_running(self, status: Any, running: bool) -> None:
        assert Present({"status": status}).is_running is running
        assert Present().is_running is False


class TestCompare:
    @pytest.mark.parametrize(
        ("wanted", "there", "applied", "expected"),
        [
            ("a", "a", {}, Difference()),
            ("a", "b", {}, Difference({"x": ("b", "a")})),
            ("a", "b", digests({"x": "a"}), Difference({"x": ("b", "a")})),  # changed in lemlist
            ("<b>a</b>", "<p>a</p>", {}, Difference(unseen=("x",))),
            ("<b>a</b>", "<p>a</p>", digests({"x": "<b>a</b>"}), Difference()),
            ("<b>a</b>", "<p>a</p>", digests({"x": "a"}), Difference({"x": ("<p>a</p>", "<b>a</b>")})),
            ('<a href="https://b.c">a</a>', '<a href="https://b.d">a</a>', {}, None),
            ("a", None, {}, Difference(unseen=("x",))),
            ("a", None, digests({"x": "a"}), Difference()),
            ("a", None, digests({"x": "b"}), Difference({"x": (None, "a")})),
            ("", "", {}, Difference()),
            (False, True, {}, Difference({"x": (True, False)})),
            (0, 1, {}, Difference({"x": (1, 0)})),
            (["a", "b"], ["b", "a"], {}, Difference()),
            ({"y": True}, {"y": True, "z": 1}, {}, Difference()),
            ({"y": True, "z": 1}, {"y": True}, {}, Difference(unseen=("x",))),
        ],
    )
    def test_field(
        self, wanted: Any, there: Any, applied: dict[str, str], expected: Difference | None
    ) -> None:
        expected = expected or Difference({"x": (there, wanted)})
        assert compare({"x": wanted}, {"x": there}, applied) == expected

    def test_the_fields_of_a_condition_are_found_on_its_branch(self) -> None:
        (row,) = Model([CONDITION]).present().rows("seq_main")
        assert compare_step(CONDITION, row, Applied()) == Difference()
        assert compare_step({**CONDITION, "delay": 4}, row, Applied()) == Difference({"delay": (3, 4)})

    def test_the_media_of_a_step_are_never_compared_with_the_copies_that_lemlist_hosts(self) -> None:
        step = {"type": "linkedinSend", "message": "Hi", "images": ["https://a.example/1.png"]}
        row = {"_id": "stp_1", **step, "images": ["https://lemlist.example/9.png"]}
        assert compare_step(step, row, Applied()) == Difference(unseen=("images",))
        assert compare_step(step, row, Applied(steps={"stp_1": digests(step)})) == Difference()


def test_digest_is_short_and_the_same_whatever_the_order_of_an_object() -> None:
    assert digest({"a": 1, "b": "é\ud800"}) == digest({"b": "é\ud800", "a": 1}) != digest({"a": 1})
    assert len(digest("x" * 10_000)) == 24
    assert digest("1") != digest(1) != digest(True)
