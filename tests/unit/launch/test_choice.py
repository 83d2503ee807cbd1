# SPDX-License-Identifier: Apache-2.0
"""A run launches its leads, and never more of them than allowed, whatever happens between its attempts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError, LemlistUncertainError
from airflow_provider_lemlist.launch.checks import LeadState
from airflow_provider_lemlist.launch.choice import Choice, ChoiceFile, choose

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))

import bucket

STATUSES = ("review", "paused", "scanning", "running", "done", "interested", "unsubscribed")


def lead(number: int, status: str = "review", *blank: str, suppressed: bool = False) -> LeadState:
    return LeadState(f"lea_{number}", status, blank, suppressed)


def waiting(number: int) -> list[LeadState]:
    return [lead(each) for each in range(number)]


def ids(*numbers: int) -> list[str]:
    return [f"lea_{number}" for number in numbers]


class TestFirstAttempt:
    def test_leads_that_wait_are_taken_in_order_up_to_the_most(self) -> None:
        leads = [lead(0, "running"), lead(1), lead(2, "paused"), lead(3), lead(4), lead(5, "scanning")]
        choice = choose(leads, 2)
        assert choice.to_launch == choice.of_run == ids(1, 3)
        assert choice.outcomes == {"paused": 1, "waiting": 1}

    def test_suppressed_leads_are_left_out_and_the_next_ones_taken(self) -> None:
        choice = choose([lead(0), lead(1, suppressed=True), lead(2), lead(3)], 2)
        assert choice.to_launch == ids(0, 2)
        assert choice.outcomes == {"suppressed": 1, "waiting": 1}

    def test_leads_that_lack_a_variable_are_named_or_left_out(self) -> None:
        leads = [lead(0), lead(1, "review", "plan"), lead(2), lead(3, "review", "plan", "hook")]
        kept = choose(leads, 2)
        assert (kept.to_launch, kept.outcomes) == (ids(0, 1), {"waiting": 2})
        assert {name: str(finding) for name, finding in kept.blank.items()} == {"plan": "lead lea_1"}
        skipped = choose(leads, 3, skip_blank=True)
        assert (skipped.to_launch, skipped.outcomes) == (ids(0, 2), {"variable_missing": 2})
        assert {name: finding.number for name, finding in skipped.blank.items()} == {"plan": 2, "hook": 1}

    def test_each_given_lead_has_an_outcome(self) -> None:
        leads = [
            lead(0), lead(1, "running"), lead(2, "done"), lead(3, "interested"), lead(4, "paused"),
            lead(5, "scanning"), lead(6, "unsubscribed"), lead(7, suppressed=True), lead(8, "review", "plan"),
            lead(9),
        ]  # fmt: skip
        choice = choose(leads, 20, lead_ids=ids(8, 7, 6, 5, 4, 3, 2, 1, 0, 99), skip_blank=True)
        assert choice.to_launch == ids(0)
        assert choice.unknown == ["lea_99"]
        assert choice.outcomes == {
            "already_launched": 3, "paused": 1, "not_ready": 1, "suppressed": 2, "variable_missing": 1,
        }  # fmt: skip


class TestLaterAttempts:
    def test_what_was_chosen_is_launched_and_nothing_else(self) -> None:
        leads = [lead(0), lead(1, "running"), lead(2), lead(3, "done"), lead(4, "paused")]
        choice = choose(leads, 6, earlier=ids(1, 2, 3, 4, 5))
        assert choice.to_launch == ids(2)
        assert choice.of_run == ids(1, 2, 3, 4, 5)
        assert choice.launched_before == ids(1, 3)
        assert choice.outcomes == {"paused": 1, "gone": 1}
        assert not choice.unknown

    def test_smaller_max_counts_what_was_launched_before(self) -> None:
        leads = [lead(0, "running"), lead(1, "running"), lead(2), lead(3)]
        assert choose(leads, 3, earlier=ids(0, 1, 2, 3)).to_launch == ids(2)
        assert choose(leads, 1, earlier=ids(0, 1, 2, 3)).to_launch == []

    def test_other_leads_may_be_given_only_up_to_the_most(self) -> None:
        leads = [lead(0, "running"), lead(1), lead(2), lead(3)]
        more = choose(leads, 3, lead_ids=ids(0, 2), earlier=ids(0, 1))
        assert (more.to_launch, more.of_run, more.is_too_many) == (ids(2), ids(0, 1, 2), False)
        assert choose(leads, 3, lead_ids=ids(2, 3), earlier=ids(0, 1)).is_too_many
        fewer = choose(leads, 3, lead_ids=ids(0), earlier=ids(0, 1))
        assert (fewer.to_launch, fewer.launched_before, fewer.is_too_many) == ([], ids(0), False)

    @given(data=st.data(), max_leads=st.integers(1, 8), skip_blank=st.booleans())
    def test_no_sequence_of_attempts_launches_more_than_the_most_or_anyone_suppressed(
        self, data: Any, max_leads: int, skip_blank: bool
    ) -> None:
        """Between attempts anything happens in lemlist, and some launches are not seen yet."""
        world: dict[str, LeadState] = {
            each.lead_id: each
            for each in (
                lead(
                    number,
                    data.draw(st.sampled_from(STATUSES)),
                    *data.draw(st.sampled_from([(), ("plan",)])),
                    suppressed=data.draw(st.booleans()),
                )
                for number in range(12)
            )
        }
        launched: set[str] = set()
        earlier: list[str] | None = None
        for _ in range(data.draw(st.integers(1, 4))):
            wanted = data.draw(
                st.none()
                | st.lists(st.sampled_from(sorted(world)), min_size=1, max_size=max_leads, unique=True)
            )
            choice = choose(
                list(world.values()), max_leads, lead_ids=wanted, earlier=earlier, skip_blank=skip_blank
            )
            if choice.is_too_many:
                continue
            assert not choice.unknown
            assert {world[each].status for each in choice.to_launch} <= {"review"}
            assert not any(world[each].is_suppressed for each in choice.to_launch)
            assert not (skip_blank and any(world[each].blank for each in choice.to_launch))
            assert wanted is None or {*choice.to_launch} <= {*wanted}
            assert {*choice.to_launch} | {*(earlier or ())} == {*choice.of_run}
            if choice.to_launch:
                earlier = [*choice.of_run]
            done = data.draw(st.integers(0, len(choice.to_launch)))
            launched |= {*choice.to_launch[:done]}
            for each in data.draw(st.lists(st.sampled_from(sorted(world)))):
                world[each] = world[each]._replace(status=data.draw(st.sampled_from(STATUSES)))
            assert len(launched) <= max_leads

    @given(
        st.lists(st.tuples(st.sampled_from(STATUSES), st.booleans(), st.booleans()), max_size=12),
        st.integers(1, 8),
        st.booleans(),
    )
    def test_every_lead_that_is_considered_is_counted_once(
        self, leads: list[tuple[str, bool, bool]], max_leads: int, skip_blank: bool
    ) -> None:
        states = [
            lead(number, status, *(("plan",) if blank else ()), suppressed=suppressed)
            for number, (status, blank, suppressed) in enumerate(leads)
        ]

        def counted(choice: Choice) -> int:
            return len(choice.to_launch) + len(choice.launched_before) + sum(choice.outcomes.values())

        everyone = [each.lead_id for each in states]
        found = choose(states, max_leads, skip_blank=skip_blank)
        assert counted(found) == sum(status in ("review", "paused") for status, _, _ in leads)
        assert counted(choose(states, max_leads, lead_ids=everyone, skip_blank=skip_blank)) == len(leads)


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStoragePath:
    if request.param == "disk":
        return ObjectStoragePath(f"file://{tmp_path}/ledger")
    bucket.use(tmp_path / "bucket")
    return ObjectStoragePath("bucket://b/ledger")


class TestFile:
    @pytest.fixture
    def file(self, folder: ObjectStoragePath) -> Callable[..., ChoiceFile]:
        return lambda campaign_id="cam_1", run="run_1.daily.launch": ChoiceFile(folder, run, campaign_id)

    def test_first_attempt_leaves_a_mark_before_it_has_chosen(self, file: Callable[..., ChoiceFile]) -> None:
        assert file().begin(must_exist=False) is None
        assert json.loads(file().path.read_text()) == {"campaign_id": "cam_1", "lead_ids": None}
        assert file().begin(must_exist=True) is None

    def test_later_attempt_finds_the_choice_and_another_run_does_not(
        self, file: Callable[..., ChoiceFile]
    ) -> None:
        file().begin(must_exist=False)
        file().choose(["lea_1", "lea_2"], earlier=None)
        assert file().begin(must_exist=True) == ["lea_1", "lea_2"]
        assert file(run="run_2.daily.launch").begin(must_exist=False) is None

    def test_retry_without_a_file_is_uncertain_and_stays_so(self, file: Callable[..., ChoiceFile]) -> None:
        for _ in range(2):
            with pytest.raises(
                LemlistUncertainError, match="ledger_path.*or pass lead_ids, or trigger a new"
            ):
                file().begin(must_exist=True)

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"campaign_id": "cam_1"}', '{"campaign_id": "c', "5"]
    )
    def test_damaged_file_is_uncertain(self, file: Callable[..., ChoiceFile], content: str) -> None:
        file().begin(must_exist=False)
        file().path.write_text(content)
        with pytest.raises(LemlistUncertainError, match="damaged"):
            file().begin(must_exist=False)

    def test_choice_of_another_campaign_is_refused(self, file: Callable[..., ChoiceFile]) -> None:
        file().begin(must_exist=False)
        file().choose(["lea_1"], earlier=None)
        with pytest.raises(LemlistConfigurationError, match="chosen leads of campaign 'cam_1'"):
            file("cam_2").begin(must_exist=False)

    def test_attempt_that_airflow_gave_up_too_early_does_not_choose_again(
        self, file: Callable[..., ChoiceFile]
    ) -> None:
        slow = file().begin(must_exist=False)
        quick = file().begin(must_exist=True)
        file().choose(["lea_1"], earlier=quick)
        with pytest.raises(
            LemlistError, match="Another attempt of this run has chosen leads at the same time"
        ):
            file().choose(["lea_2"], earlier=slow)
        assert file().begin(must_exist=True) == ["lea_1"]
        file().choose(["lea_1", "lea_2"], earlier=["lea_1"])
