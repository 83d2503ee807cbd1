# SPDX-License-Identifier: Apache-2.0
"""A step whose response was lost is found by its id, and an equal step by what lemlist lists of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.delivery.evidence import (
    added_step,
    auto_review,
    differing_fields,
    equal_steps,
    is_equal,
)
from airflow_provider_lemlist.exceptions import LemlistUncertainError
from airflow_provider_lemlist.steps import CATALOGUE

SENT: dict[str, Any] = {"type": "email", "subject": "{{firstName}}", "message": "Hi <b>you</b>", "delay": 2}


def listed(step_id: str, **other: Any) -> dict[str, Any]:
    return {"_id": step_id, "index": 1, "emailTemplateId": "etp_1", **SENT, **other}


class TestAddedStep:
    def test_new_step_is_ours_whatever_lemlist_made_of_its_text(self) -> None:
        rows = [listed("stp_1"), listed("stp_2", message="tidied", subject="other")]
        assert added_step(SENT, rows, known=["stp_1"]) is rows[1]

    def test_steps_of_before_and_of_other_types_are_not_ours(self) -> None:
        rows = [listed("stp_1"), {"_id": "stp_2", "type": "sms", "message": "Hi"}]
        assert added_step(SENT, rows, known=["stp_1"]) is None
        assert added_step(SENT, rows[1:], known=None) is None

    @pytest.mark.parametrize("known", [[], None], ids=["two new ones", "steps before unknown"])
    def test_several_candidates_are_left_to_a_person(self, known: list[str] | None) -> None:
        with pytest.raises(LemlistUncertainError, match="stp_1, stp_2"):
            added_step(SENT, [listed("stp_1"), listed("stp_2")], known=known)

    def test_of_several_new_steps_the_only_one_with_our_content_is_ours(self) -> None:
        rows = [listed("stp_1", message="of a task beside"), listed("stp_2")]
        assert added_step(SENT, rows, known=[]) is rows[1]
        with pytest.raises(LemlistUncertainError):
            added_step(SENT, [rows[0], listed("stp_2", message="tidied")], known=[])
        with pytest.raises(LemlistUncertainError):
            added_step(steps.Manual(title="x"), [{"_id": "a", "type": "manual"}] * 2, known=[])

    def test_one_candidate_among_unknown_steps_is_left_to_a_person(self) -> None:
        with pytest.raises(LemlistUncertainError, match="stp_1"):
            added_step(SENT, [listed("stp_1")], known=None)

    @given(
        st.sampled_from(sorted(CATALOGUE)),
        st.lists(st.integers(min_value=0, max_value=9), unique=True),
        st.integers(min_value=0, max_value=9),
    )
    def test_one_more_step_than_before_is_always_ours(self, kind: str, known: list[int], ours: int) -> None:
        before = [f"stp_{number}" for number in known if number != ours]
        rows = [{"_id": step_id, "type": kind} for step_id in [*before, f"stp_{ours}"]]
        assert added_step({"type": kind}, rows, known=before) is rows[-1]


class TestIsEqual:
    def test_tidied_markup_does_not_matter(self) -> None:
        assert is_equal(SENT, listed("stp_1", message="<p>Hi\n <strong>you</strong></p>"))

    @pytest.mark.parametrize(
        "other",
        [{"subject": "other"}, {"message": "Hi me"}, {"delay": 3}, {"type": "manual"}],
        ids=["subject", "message", "delay", "type"],
    )
    def test_step_that_differs_is_not_equal(self, other: dict[str, Any]) -> None:
        assert is_equal(SENT, listed("stp_1", **other)) is False

    def test_texts_that_differ_only_in_a_link_differ(self) -> None:
        sent = {"type": "email", "subject": "s", "message": "<a href='https://a.example.com'>x</a>"}
        row = {"_id": "stp_1", **sent, "message": '<a href="https://b.example.com">x</a>'}
        assert is_equal(sent, row) is False
        assert is_equal(sent, {**row, "message": '<p><a href="https://a.example.com">x</a></p>'})

    def test_field_that_is_not_listed_does_not_matter_beside_an_equal_text(self) -> None:
        row = listed("stp_1")
        del row["message"], row["delay"]
        assert is_equal(SENT, row)

    @pytest.mark.parametrize(
        "step",
        [
            steps.Manual(title="Send the contract"),
            steps.Api(method="POST", url="https://hooks.example.com"),
            steps.SendToAnotherCampaign(campaign_id="cam_2"),
            steps.LinkedinEndorse(skill_name="Haskell"),
        ],
        ids=lambda step: step["type"],
    )
    def test_step_whose_distinguishing_fields_are_not_listed_is_unclear(self, step: dict[str, Any]) -> None:
        row = {"_id": "stp_1", "type": step["type"], "delay": 1}
        assert is_equal(step, row) is None
        assert equal_steps(step, [row]) == ([], [row])

    def test_condition_is_compared_by_its_branch(self) -> None:
        sent = steps.Conditional(condition_key="emailsOpened", delay_type="within", delay=4)
        branch = {"sequenceId": "seq_1", "key": "emailsOpened", "delayType": "within", "delay": 4}
        row = {"_id": "stp_1", "type": "conditional", "conditions": [branch, {"fallback": True}]}
        assert is_equal(sent, row)
        assert is_equal({**sent, "conditionKey": "emailsClicked"}, row) is False
        assert is_equal({**sent, "delay": 5}, row) is False

    def test_media_and_position_do_not_matter(self) -> None:
        sent = steps.LinkedinSend(message="x", images=["https://cdn.example.com/a.png"], index=0)
        row = {"_id": "stp_1", **sent, "index": 7, "images": ["https://files.example.com/copy.png"]}
        assert is_equal(sent, row)


def test_fields_that_lemlist_lacks_or_has_otherwise_differ() -> None:
    lead = {"email": "a@example.com", "firstName": "Ana", "plan": "pro", "note": ""}
    found = {"_id": "lea_1", "email": "other@example.com", "firstName": "Ana", "plan": "trial"}
    assert differing_fields(lead, found) == {"plan": "pro"}


def test_another_spelling_of_a_profile_does_not_differ() -> None:
    found = {"linkedinUrl": "https://www.linkedin.com/in/ana/"}
    assert differing_fields({"linkedinUrl": "https://linkedin.com/in/Ana"}, found) == {}
    other = {"linkedinUrl": "https://linkedin.com/in/anna"}
    assert differing_fields(other, found) == other
    assert differing_fields({"linkedinUrl": ""}, found) == {"linkedinUrl": ""}


@pytest.mark.parametrize("said", [{}, {"autoReview": None}, {"autoReview": "true"}, {"autoReview": 1}])
def test_auto_review_is_unknown_unless_lemlist_says_it(said: dict[str, Any]) -> None:
    assert auto_review(said) is None
    assert auto_review({"autoReview": True}) is True
    assert auto_review({"autoReview": False}) is False
