# SPDX-License-Identifier: Apache-2.0
"""Evidence and policy together always decide for one lead and one step, never for a second one."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, get_args

import pytest

from airflow_provider_lemlist.delivery.evidence import LeadEvidence, StepEvidence
from airflow_provider_lemlist.delivery.outcome import Action, choose_step, next_action
from airflow_provider_lemlist.delivery.policy import IfElsewhere, IfExists, IfGone, LeadPolicy
from airflow_provider_lemlist.exceptions import LemlistDuplicateError, LemlistUncertainError

POLICIES = [
    LeadPolicy(*choices)
    for choices in itertools.product(get_args(IfExists), get_args(IfElsewhere), get_args(IfGone))
]
FOUND = {"_id": "lea_1"}


@pytest.mark.parametrize("policy", POLICIES)
class TestNextAction:
    @pytest.mark.parametrize("has_email", [True, False])
    def test_first_attempt_follows_policy(self, policy: LeadPolicy, has_email: bool) -> None:
        first = LeadEvidence(has_email)
        assert next_action(first, policy) is Action.CREATE
        refused = replace(first, refused="campaign", looked_up=True, found=FOUND)
        assert (
            next_action(refused, policy)
            is {"return": Action.KEEP, "update": Action.UPDATE, "skip": Action.KEEP, "fail": Action.FAIL}[
                policy.if_exists
            ]
        )
        elsewhere = replace(first, refused="elsewhere")
        skipped = policy.if_elsewhere == "skip"
        assert next_action(elsewhere, policy) is (Action.SKIP_ELSEWHERE if skipped else Action.FAIL)

    def test_after_interrupted_attempt_lead_in_campaign_is_ours(self, policy: LeadPolicy) -> None:
        keep = Action.UPDATE if policy.if_exists == "update" else Action.KEEP
        interrupted = LeadEvidence(has_email=True, in_doubt=True)
        assert next_action(interrupted, policy) is Action.LOOK_UP
        looked_up = replace(interrupted, looked_up=True)
        assert next_action(looked_up, policy) is Action.CREATE  # lemlist refuses a second one
        assert next_action(replace(looked_up, found=FOUND), policy) is keep
        assert next_action(replace(interrupted, refused="campaign"), policy) is Action.LOOK_UP
        assert next_action(replace(looked_up, refused="campaign"), policy) is keep
        assert next_action(replace(interrupted, refused="elsewhere"), policy) is Action.LOOK_UP
        assert next_action(replace(looked_up, refused="elsewhere", found=FOUND), policy) is keep

    def test_lead_that_cannot_be_looked_up_is_not_created_while_in_doubt(self, policy: LeadPolicy) -> None:
        assert next_action(LeadEvidence(has_email=False, in_doubt=True), policy) is Action.STOP

    def test_lead_created_earlier_is_looked_up_and_put_back_only_on_request(self, policy: LeadPolicy) -> None:
        known = LeadEvidence(has_email=True, lead_id="lea_1")
        assert next_action(known, policy) is Action.LOOK_UP
        found = replace(known, looked_up=True, found=FOUND)
        assert next_action(found, policy) in (Action.KEEP, Action.UPDATE)
        gone = {"skip": Action.SKIP_GONE, "create": Action.CREATE, "fail": Action.FAIL_GONE}
        assert next_action(replace(known, looked_up=True), policy) is gone[policy.if_gone]

    def test_every_evidence_leads_to_an_end(self, policy: LeadPolicy) -> None:
        for has_email, in_doubt, refused, lead_id, changes, listed in itertools.product(
            (True, False),
            (True, False),
            (None, "campaign", "elsewhere"),
            (None, "lea_1"),
            (None, {}),
            (True, False),
        ):
            evidence = LeadEvidence(has_email, in_doubt, lead_id, changes, refused)  # type: ignore[arg-type]
            creations = 0
            for _ in range(6):
                action = next_action(evidence, policy)
                if action is Action.LOOK_UP:
                    assert not evidence.looked_up
                    assert evidence.lead_id or has_email
                    evidence = replace(evidence, looked_up=True, found=FOUND if listed else None)
                elif action is Action.CREATE:
                    creations += 1
                    evidence = replace(
                        evidence, lead_id=None, changes=None, looked_up=False, found=None, refused="campaign"
                    )
                else:
                    break
            assert action not in (Action.LOOK_UP, Action.CREATE)
            assert creations <= 1


EMAIL: dict[str, Any] = {"type": "email", "subject": "s", "message": "Hi", "delay": 1}
MANUAL = {"type": "manual", "title": "Send the contract"}


def rows(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"_id": f"stp_{number}", "delay": 1, **step} for number, step in enumerate(steps, 1)]


def chosen(step: dict[str, Any], evidence: StepEvidence, if_exists: Any = "return") -> str | None:
    row = choose_step(step, evidence, if_exists).row
    return row and row["_id"]


class TestChooseStep:
    def test_equal_step_is_returned_added_again_or_refused_as_the_policy_says(self) -> None:
        evidence = StepEvidence(rows(EMAIL))
        assert chosen(EMAIL, evidence) == "stp_1"
        assert chosen(EMAIL, evidence, "add") is None
        with pytest.raises(LemlistDuplicateError, match=r"stp_1.*Nothing was sent"):
            chosen(EMAIL, evidence, "fail")
        assert chosen(EMAIL, StepEvidence(rows({**EMAIL, "message": "Bye"})), "fail") is None

    def test_step_of_an_earlier_run_is_returned_even_if_its_content_is_not_listed(self) -> None:
        listed = rows({"type": "manual"}, {"type": "manual"})
        assert chosen(MANUAL, StepEvidence(listed, earlier="stp_2")) == "stp_2"
        assert chosen(EMAIL, StepEvidence(rows({**EMAIL, "message": "tidied"}), earlier="stp_1")) == "stp_1"
        assert chosen(EMAIL, StepEvidence(listed, earlier="stp_2")) is None  # of another type

    def test_step_whose_content_is_not_listed_is_not_matched_silently(self) -> None:
        choice = choose_step(MANUAL, StepEvidence(rows({"type": "manual"})), "return")
        assert choice == (None, ("stp_1",))

    def test_two_tasks_that_want_equal_steps_get_two(self) -> None:
        both = rows(EMAIL, EMAIL)
        assert chosen(EMAIL, StepEvidence(both[:1], claimed={"stp_1"})) is None
        assert chosen(EMAIL, StepEvidence(both[:1], ahead=1)) is None
        assert chosen(EMAIL, StepEvidence(both, ahead=1)) == "stp_2"
        assert chosen(EMAIL, StepEvidence(both, claimed={"stp_2"})) == "stp_1"

    def test_lost_response_is_settled_by_the_one_new_step_of_the_type(self) -> None:
        listed = rows(EMAIL, {**EMAIL, "message": "tidied by lemlist"}, {"type": "sms"})
        assert chosen(EMAIL, StepEvidence(listed, in_doubt=True, known=["stp_1"])) == "stp_2"
        assert chosen(EMAIL, StepEvidence(listed, in_doubt=True, known=["stp_1", "stp_2"])) is None
        with pytest.raises(LemlistUncertainError, match="stp_1, stp_2"):
            chosen(EMAIL, StepEvidence(rows(EMAIL, EMAIL), in_doubt=True, known=[]))

    def test_older_step_is_never_taken_for_a_lost_one_when_the_steps_before_are_unknown(self) -> None:
        older = StepEvidence(rows({"type": "manual"}), in_doubt=True)
        with pytest.raises(LemlistUncertainError):
            chosen(MANUAL, older)  # titles are not listed
        with pytest.raises(LemlistUncertainError):
            chosen(EMAIL, StepEvidence(rows(EMAIL), in_doubt=True), "add")
        assert chosen(EMAIL, older) is None
        assert chosen(MANUAL, replace(older, claimed={"stp_1"})) is None
        assert chosen(EMAIL, StepEvidence(rows(EMAIL), in_doubt=True)) == "stp_1"
        with pytest.raises(LemlistUncertainError):
            chosen(EMAIL, StepEvidence(rows(EMAIL, EMAIL), in_doubt=True))
