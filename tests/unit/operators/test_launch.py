# SPDX-License-Identifier: Apache-2.0
"""LaunchLeadsOperator on the sandbox: what it checks first, whom it launches, and never more than allowed."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowFailException, Asset

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistGuardError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistUncertainError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.operators.campaign import LaunchLeadsOperator
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.worker import Worker
from tests.waiting import wait_for

REVIEW = "POST /leads/review/{leadId}"
#: Requests before the first launch: the campaign, its statutes, sequences, schedules and leads.
GATE = 5
#: The outcomes, all of which are in the report.
OUTCOMES = (
    "launched", "already_launched", "waiting", "not_ready", "paused", "suppressed", "variable_missing",
    "gone", "failed", "not_tried", "launched_before",
)  # fmt: skip


class Campaign:
    """A campaign with a step, and the tasks that launch its leads."""

    def __init__(self, lemlist: Sandbox, ledger: Path, **options: Any) -> None:
        campaign = lemlist.campaign(**options)
        self.lemlist = lemlist
        self.id: str = campaign["_id"]
        self.sequence_id: str = campaign["sequenceId"]
        self.ledger = ledger
        self.leads: list[str] = []
        lemlist.step(self.sequence_id, "email", subject="Hi {{firstName}}", message="<p>{{hook}}</p>")

    def fill(self, number: int, **values: str) -> list[str]:
        """Add leads that lack nothing, and return their ids."""
        new = [
            self.lemlist.lead(
                self.id, f"p{n}@example.com", **{"firstName": "P", "hook": "your talk", **values}
            )
            for n in range(len(self.leads), len(self.leads) + number)
        ]
        self.leads += [lead["_id"] for lead in new]
        return [lead["_id"] for lead in new]

    def task(self, **arguments: Any) -> LaunchLeadsOperator:
        given = {"task_id": "launch", "campaign_id": self.id, "max_leads": 3, "ledger_path": str(self.ledger)}
        return LaunchLeadsOperator(**{**given, **arguments})

    def launched(self) -> list[str]:
        """Return the leads that lemlist has launched, in the order of the campaign."""
        leads = self.lemlist.service.world.leads
        return [lead_id for lead_id in self.leads if leads[lead_id].launched_at is not None]

    def change(self, lead_id: str, **values: Any) -> None:
        for name, value in values.items():
            setattr(self.lemlist.service.world.leads[lead_id], name, value)

    def choices(self) -> dict[str, Any]:
        """Return what is kept of each run."""
        return {path.stem: json.loads(path.read_text()) for path in (self.ledger / "launches").glob("*")}


@pytest.fixture
def campaign(lemlist: Sandbox, tmp_path: Path) -> Campaign:
    return Campaign(lemlist, tmp_path / "ledger")


def counts(report: dict[str, Any]) -> dict[str, int]:
    """Return the outcomes that occurred."""
    return {name: report[name] for name in OUTCOMES if report[name]}


def upstream(value: Any, worker: Worker) -> Any:
    worker.xcoms["upstream"] = {"return_value": value}
    return LaunchLeadsOperator(task_id="upstream", campaign_id="cam_1", max_leads=1).output


def stops_after(task: Any, number: int) -> Callable[..., Any]:
    """Return a ``launch_lead`` during which Airflow stops the task, after so many launches."""
    real, lock = task.hook.launch_lead, threading.Lock()
    left = [number]

    def launch(lead_id: str) -> Any:
        with lock:
            if not left[0]:
                task.on_kill()
            left[0] -= 1
            return real(lead_id)

    return launch


class TestWhom:
    def test_first_leads_that_wait_are_launched_up_to_the_most(
        self, campaign: Campaign, any_worker: Worker
    ) -> None:
        campaign.fill(5)
        report = any_worker.run(campaign.task(max_leads=3, outlets=[Asset("lemlist://campaigns/all")]))
        assert campaign.launched() == campaign.leads[:3] == report["lead_ids"]
        assert counts(report) == {"launched": 3, "waiting": 2}
        assert any_worker.xcoms["launch"]["report"] == report
        assert any_worker.xcoms["launch"]["lead_ids"] == report["lead_ids"]
        assert (report["campaign_id"], report["ledger_path"]) == (campaign.id, str(campaign.ledger))
        assert any_worker.asset_extras["lemlist://campaigns/all"]["launched"] == 3

    def test_requests_are_six_and_one_for_each_lead(self, campaign: Campaign, worker: Worker) -> None:
        campaign.fill(4)
        worker.run(campaign.task(max_leads=3))
        assert len(campaign.lemlist.requests()) == GATE + 1 + 3
        campaign.lemlist.service.world.leads.clear()
        before = len(campaign.lemlist.requests())
        worker.next_run()
        worker.run(campaign.task(max_leads=3, exclude_unsubscribed=False, dry_run=True))
        assert len(campaign.lemlist.requests()) == before + GATE

    def test_next_run_launches_the_next_leads(self, campaign: Campaign, any_worker: Worker) -> None:
        campaign.fill(5)
        any_worker.run(campaign.task())
        any_worker.next_run()
        report = any_worker.run(campaign.task())
        assert report["lead_ids"] == campaign.leads[3:]
        assert counts(report) == {"launched": 2}
        any_worker.next_run()
        assert counts(any_worker.run(campaign.task())) == {}

    def test_given_leads_each_have_an_outcome(self, campaign: Campaign, any_worker: Worker) -> None:
        waiting, running, paused, scanning, gone = campaign.fill(5)
        campaign.change(running, stage="running")
        campaign.change(paused, is_paused=True)
        campaign.change(scanning, stage="scanning")
        given = [scanning, paused, running, waiting, waiting]
        report = any_worker.run(campaign.task(max_leads=4, lead_ids=given))
        assert campaign.launched() == report["lead_ids"] == [waiting]
        assert counts(report) == {"launched": 1, "already_launched": 1, "paused": 1, "not_ready": 1}

    def test_unknown_leads_are_an_error_that_names_them_before_anything_is_launched(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        (lead,) = campaign.fill(1)
        elsewhere = campaign.lemlist.lead(campaign.lemlist.campaign()["_id"], "b@example.com")["_id"]
        with pytest.raises(
            LemlistValidationError, match=f"2 leads .* not have: {elsewhere}, lea_none. Nothing"
        ):
            worker.run(campaign.task(lead_ids=[elsewhere, lead, "lea_none"]))
        assert campaign.launched() == []
        assert worker.xcoms["launch"]["report"]["readiness"]["leads"] == {"review": 1}

    def test_more_leads_than_the_most_are_an_error_before_a_request(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        leads = campaign.fill(4)
        with pytest.raises(
            LemlistValidationError, match="lead_ids of task 'launch' has 4 leads, and max_leads is 3"
        ):
            worker.run(campaign.task(lead_ids=leads))
        assert not campaign.lemlist.requests()
        assert campaign.choices() == {}

    def test_paused_leads_are_not_launched(self, campaign: Campaign, worker: Worker) -> None:
        first, second = campaign.fill(2)
        campaign.change(first, is_paused=True)
        assert counts(worker.run(campaign.task())) == {"launched": 1, "paused": 1}
        assert campaign.launched() == [second]

    @pytest.mark.parametrize(
        "entry", ["P1@example.com", "@sub.example.org", "https://linkedin.com/in/ana", "+33 6 12 34 56 78"]
    )
    def test_unsubscribed_people_are_left_out_and_the_next_ones_taken(
        self, campaign: Campaign, any_worker: Worker, entry: str
    ) -> None:
        campaign.fill(1)
        campaign.fill(
            1,
            companyDomain="deep.sub.example.org",
            linkedinUrl="https://www.linkedin.com/in/Ana/",
            phone="0033612345678",
        )
        campaign.fill(1)
        LemlistHook().unsubscribe(entry)
        report = any_worker.run(campaign.task(max_leads=2))
        assert campaign.launched() == [campaign.leads[0], campaign.leads[2]] == report["lead_ids"]
        assert counts(report) == {"launched": 2, "suppressed": 1}

    def test_unsubscribed_people_are_launched_only_if_that_is_written(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        (lead,) = campaign.fill(1)
        LemlistHook().unsubscribe("p0@example.com")
        assert counts(worker.run(campaign.task(lead_ids=lead))) == {"suppressed": 1}
        worker.next_run()
        assert counts(worker.run(campaign.task(exclude_unsubscribed=False))) == {"launched": 1}


class TestGate:
    def test_log_shows_what_a_person_has_to_know_before_anything_is_launched(
        self, campaign: Campaign, worker: Worker, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        campaign.fill(3)
        campaign.change(campaign.leads[2], stage="running")
        campaign.lemlist.statute(campaign.id, "A <b>domain</b> isn&#39;t verified.", level=2)
        worker.run(campaign.task(max_leads=1))
        sender = campaign.lemlist.service.world.users[0]
        for line in (
            f"Campaign {campaign.id}: 'Spring webinar', draft, 1 sender {sender.id}, autoReview not known.",
            f"Campaign {campaign.id}: 3 leads: 2 review, 1 running.",
            f"Campaign {campaign.id}: hours of sending: Monday to Friday, 09:00 to 18:00 (Europe/Paris); ",
            f"Campaign {campaign.id}: lemlist warns: A domain isn't verified.",
            f"Campaign {campaign.id}: 1 lead to launch, at most 1, at least 0 s.",
        ):
            assert line in caplog.text
        assert "example.com" not in caplog.text  # neither the leads nor the sender
        report = worker.xcoms["launch"]["report"]
        assert "@" not in json.dumps(report)
        found = report["readiness"]
        assert found.pop("next_opening").endswith(("T09:00+01:00", "+01:00", "+02:00"))
        assert found == {
            "campaign_id": campaign.id, "name": "Spring webinar", "status": "draft", "senders": [sender.id],
            "auto_review": None, "blocking": [], "warnings": ["A domain isn't verified."],
            "information": ["2 to review & launch."], "leads": {"review": 2, "running": 1},
            "hours": "Monday to Friday, 09:00 to 18:00 (Europe/Paris)", "to_contact": 1,
            "missing_variables": {},
        }  # fmt: skip

    @pytest.mark.parametrize("is_open", [True, False])
    def test_log_says_whether_the_campaign_may_send_now(
        self, campaign: Campaign, worker: Worker, caplog: pytest.LogCaptureFixture, is_open: bool
    ) -> None:
        caplog.set_level(logging.INFO)
        world = campaign.lemlist.service.world
        in_three_days = datetime.now(UTC).isoweekday() + 3
        hours = {
            "start": "00:00",
            "end": "23:59",
            "weekdays": [*range(1, 8)] if is_open else [(in_three_days - 1) % 7 + 1],
        }
        # The minute that is missing in the one is in the other.
        for zone in ("UTC", "Asia/Tokyo"):
            schedule = world.add_schedule({**hours, "timezone": zone})
            world.campaigns[campaign.id].schedule_ids.append(schedule.id)
        del world.campaigns[campaign.id].schedule_ids[0]
        report = worker.run(campaign.task())
        assert ("; open now." in caplog.text) == is_open
        opening = datetime.fromisoformat(report["readiness"]["next_opening"])
        assert (opening <= datetime.now(UTC)) == is_open

    @pytest.mark.parametrize("is_on", [True, False])
    def test_campaign_with_auto_review_is_named_as_sending_at_once(
        self, campaign: Campaign, worker: Worker, caplog: pytest.LogCaptureFixture, is_on: bool
    ) -> None:
        service = campaign.lemlist.service
        service.undocumented = replace(service.undocumented, auto_review_listed=True)
        service.world.campaigns[campaign.id].auto_review = is_on
        assert worker.run(campaign.task())["readiness"]["auto_review"] is is_on
        why = "autoReview is on, so lemlist contacts each lead as soon as it is created."
        assert (f"Campaign {campaign.id}: {why}" in caplog.text) == is_on

    def test_statutes_of_level_3_stop_with_their_texts(self, campaign: Campaign, worker: Worker) -> None:
        campaign.fill(1)
        campaign.lemlist.statute(campaign.id, "Your <a href='#'>signature</a> is missing.", level=3)
        campaign.lemlist.statute(campaign.id, "The <i>plan</i> is over &amp; out.", level=3)
        with pytest.raises(
            LemlistGuardError,
            match=r"says: Your signature is missing. · The plan is over & out. Mend .* Nothing was sent",
        ) as caught:
            worker.run(campaign.task())
        assert isinstance(caught.value, AirflowFailException)
        assert campaign.launched() == []
        report = worker.xcoms["launch"]["report"]
        assert len(report["readiness"]["blocking"]) == 2
        assert counts(report) == {"not_tried": 1}

    @pytest.mark.parametrize("what", ["steps", "senders"])
    def test_campaign_without_steps_or_senders_is_stopped(
        self, lemlist: Sandbox, worker: Worker, tmp_path: Path, what: str
    ) -> None:
        campaign = Campaign(lemlist, tmp_path, senders=[] if what == "senders" else None)
        if what == "steps":
            lemlist.service.world.sequences[campaign.sequence_id].steps.clear()
        campaign.fill(1)
        with pytest.raises(LemlistGuardError, match=what[:-1]):
            worker.run(campaign.task())
        assert not lemlist.requests(REVIEW)

    @pytest.mark.parametrize("status", ["paused", "ended", "errors", "archived"])
    def test_campaign_that_does_not_send_is_refused_unless_written(
        self, lemlist: Sandbox, worker: Worker, tmp_path: Path, status: str
    ) -> None:
        campaign = Campaign(lemlist, tmp_path, status=status)
        campaign.fill(1)
        with pytest.raises(LemlistGuardError, match=f"is {status}: .* set if_paused='launch'"):
            worker.run(campaign.task())
        assert not lemlist.requests(REVIEW)
        if status == "archived":
            with pytest.raises(LemlistGuardError, match="is archived"):
                worker.run(campaign.task(if_paused="launch"), attempt=2)
        else:
            assert counts(worker.run(campaign.task(if_paused="launch"), attempt=2)) == {"launched": 1}

    @pytest.mark.parametrize("status", [None, "scheduled", "running, paused", ["draft", "errors"]])
    def test_status_that_is_not_known_to_be_right_is_refused(
        self, campaign: Campaign, worker: Worker, monkeypatch: pytest.MonkeyPatch, status: Any
    ) -> None:
        campaign.fill(1)
        task = campaign.task()
        real = task.hook.get_campaign
        monkeypatch.setattr(task.hook, "get_campaign", lambda each: {**real(each), "status": status})
        with pytest.raises(LemlistGuardError, match="leads that are launched now are contacted when"):
            worker.run(task)
        assert campaign.launched() == []

    def test_chosen_leads_that_lack_a_variable_stop_the_task_and_are_named(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        campaign.fill(1)
        lacking = campaign.fill(6, hook=" ")
        campaign.fill(1, firstName="", hook="")  # not chosen
        with pytest.raises(LemlistGuardError) as caught:
            worker.run(campaign.task(max_leads=7))
        assert f"'hook' in 6 leads ({', '.join(lacking[:5])}, …). Give" in str(caught.value)
        assert "firstName" not in str(caught.value)
        assert campaign.launched() == []
        assert worker.xcoms["launch"]["report"]["readiness"]["missing_variables"] == {"hook": 6}
        assert list(campaign.choices().values()) == [{"campaign_id": campaign.id, "lead_ids": None}]

    def test_leads_that_lack_a_variable_are_skipped_and_the_next_ones_taken(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        campaign.fill(1, hook="")
        wanted = campaign.fill(2)
        report = worker.run(campaign.task(max_leads=2, if_variable_missing="skip"))
        assert campaign.launched() == wanted
        assert counts(report) == {"launched": 2, "variable_missing": 1}

    def test_leads_that_lack_a_variable_are_launched_with_a_warning_if_written(
        self, campaign: Campaign, worker: Worker, caplog: pytest.LogCaptureFixture
    ) -> None:
        (lead,) = campaign.fill(1, hook="")
        worker.run(campaign.task(if_variable_missing="warn"))
        assert campaign.launched() == [lead]
        assert f"The texts of the campaign use 'hook', which is blank in lead {lead}." in caplog.text

    def test_branches_count_and_texts_with_a_default_do_not(self, campaign: Campaign, worker: Worker) -> None:
        condition = campaign.lemlist.step(
            campaign.sequence_id, "conditional", conditionKey="emailsOpened", delay=1, delayType="within"
        )
        branch = condition["conditions"][0]["sequenceId"]
        campaign.lemlist.step(branch, "linkedinSend", message="{{city | default: 'you'}} {{fact}}")
        campaign.fill(1)
        with pytest.raises(LemlistGuardError, match="'fact'") as caught:
            worker.run(campaign.task())
        assert "city" not in str(caught.value)


class TestDryRun:
    def test_everything_is_done_but_the_launch(self, campaign: Campaign, any_worker: Worker) -> None:
        campaign.fill(4)
        LemlistHook().unsubscribe("p0@example.com")
        for _ in range(2):
            report = any_worker.run(campaign.task(max_leads=2, dry_run=True))
            assert report["would_launch"] == campaign.leads[1:3]
            assert counts(report) == {"suppressed": 1, "waiting": 1, "not_tried": 2}
            assert (report["lead_ids"], report["dry_run"], report["ledger_path"]) == ([], True, None)
        assert not campaign.lemlist.requests(REVIEW)
        assert not campaign.ledger.exists()

    def test_what_a_dry_run_shows_can_be_launched_after_an_approval(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        campaign.fill(3)
        with DAG("d", schedule=None):
            look = campaign.task(task_id="look", max_leads=2, dry_run=True)
            task = campaign.task(max_leads=2, lead_ids=look.output["would_launch"])
        worker.run(look)
        LemlistHook().delete_lead(campaign.id, campaign.leads.pop(2))
        assert worker.run(task)["lead_ids"] == campaign.launched() == campaign.leads

    def test_checks_fail_as_they_would(self, campaign: Campaign, worker: Worker) -> None:
        campaign.fill(1, hook="")
        with pytest.raises(LemlistGuardError):
            worker.run(campaign.task(dry_run=True))


class TestOnce:
    @pytest.mark.parametrize("given", [False, True], ids=["waiting", "given"])
    @pytest.mark.parametrize("how", ["retry", "clear"])
    def test_another_attempt_launches_no_other_lead_and_reports_the_same(
        self, campaign: Campaign, any_worker: Worker, how: str, given: bool
    ) -> None:
        campaign.fill(5)
        arguments = {"lead_ids": campaign.leads[1:3]} if given else {}
        first = any_worker.run(campaign.task(max_leads=2, **arguments))
        before = len(campaign.lemlist.requests(REVIEW))
        more = {"attempt": 2} if how == "retry" else {"cleared": 1}
        again = any_worker.run(campaign.task(max_leads=2, **arguments), **more)
        assert len(campaign.lemlist.requests(REVIEW)) == before == 2
        assert again["lead_ids"] == first["lead_ids"] == campaign.launched()
        assert counts(again) == {"launched": 2, "launched_before": 2}

    @pytest.mark.parametrize("before", [0, 1, 2])
    def test_attempt_that_was_stopped_is_continued_with_the_same_leads(
        self, campaign: Campaign, any_worker: Worker, monkeypatch: pytest.MonkeyPatch, before: int
    ) -> None:
        campaign.fill(6)
        task = campaign.task()
        monkeypatch.setattr(task.hook, "launch_lead", stops_after(task, before))
        with pytest.raises(LemlistError, match=rf"{before} of 3 leads were launched. The next attempt"):
            any_worker.run(task)
        report = any_worker.xcoms["launch"]["report"]
        assert (report["launched"], report["not_tried"]) == (before, 3 - before)
        assert report["lead_ids"] == campaign.launched()
        again = any_worker.run(campaign.task(), attempt=2)
        assert campaign.launched() == campaign.leads[:3] == again["lead_ids"]
        assert (again["launched"], again["launched_before"]) == (3, before)
        assert len(campaign.lemlist.requests(REVIEW)) == 3

    def test_retry_on_another_machine_is_uncertain_and_says_what_to_do(
        self, campaign: Campaign, any_worker: Worker, tmp_path: Path
    ) -> None:
        campaign.fill(5)
        any_worker.run(campaign.task())
        before = len(campaign.lemlist.requests())
        for more in ({"attempt": 2}, {"cleared": 1}):
            with pytest.raises(
                LemlistUncertainError, match="Set ledger_path to a place that all workers see"
            ) as caught:
                any_worker.run(campaign.task(ledger_path=str(tmp_path / "other")), **more)
            assert isinstance(caught.value, AirflowFailException)  # a retry would not help
        assert len(campaign.lemlist.requests()) == before
        given = campaign.task(ledger_path=str(tmp_path / "other"), lead_ids=campaign.leads[:2])
        assert counts(any_worker.run(given, attempt=3)) == {"already_launched": 2}

    def test_attempt_that_failed_at_a_check_is_repeated_with_a_new_choice(
        self, campaign: Campaign, any_worker: Worker
    ) -> None:
        campaign.fill(2, hook="")
        with pytest.raises(LemlistGuardError):
            any_worker.run(campaign.task(max_leads=1))
        for lead_id in campaign.leads:
            LemlistHook().update_lead(campaign.id, lead_id, {"hook": "your talk"})
        campaign.change(campaign.leads[0], is_paused=True)
        assert any_worker.run(campaign.task(max_leads=1), cleared=1)["lead_ids"] == campaign.leads[1:]

    def test_attempt_before_which_lemlist_failed_is_repeated(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        campaign.fill(1)
        campaign.lemlist.fault("GET /campaigns/{campaignId}/statutes", "status", status=503, times=20)
        with pytest.raises(LemlistError):
            worker.run(campaign.task())
        campaign.lemlist.clear_faults()
        assert counts(worker.run(campaign.task(), attempt=2)) == {"launched": 1}

    def test_run_that_found_no_lead_may_choose_when_it_is_cleared(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        assert counts(worker.run(campaign.task())) == {}
        campaign.fill(1)
        assert counts(worker.run(campaign.task(), cleared=1)) == {"launched": 1}

    def test_lead_that_lacks_a_variable_or_unsubscribes_after_the_choice_is_not_launched_or_replaced(
        self, campaign: Campaign, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaign.fill(5)
        task = campaign.task()
        monkeypatch.setattr(task.hook, "launch_lead", stops_after(task, 0))
        with pytest.raises(LemlistError):
            worker.run(task)
        LemlistHook().unsubscribe("p0@example.com")
        LemlistHook().update_lead(campaign.id, campaign.leads[1], {"hook": ""})
        report = worker.run(campaign.task(if_variable_missing="skip"), attempt=2)
        assert campaign.launched() == campaign.leads[2:3] == report["lead_ids"]
        assert counts(report) == {"launched": 1, "suppressed": 1, "variable_missing": 1}

    def test_given_leads_that_change_between_attempts_stay_within_the_most(
        self, campaign: Campaign, worker: Worker
    ) -> None:
        campaign.fill(5)
        worker.run(campaign.task(max_leads=2, lead_ids=campaign.leads[:2]))
        with pytest.raises(LemlistValidationError, match="this run would launch 4, and max_leads is 2"):
            worker.run(campaign.task(max_leads=2, lead_ids=campaign.leads[2:4]), cleared=1)
        assert campaign.launched() == campaign.leads[:2]
        report = worker.run(campaign.task(max_leads=4, lead_ids=campaign.leads[2:4]), cleared=2)
        assert report["lead_ids"] == campaign.leads[2:4]

    def test_cleared_task_for_another_campaign_is_refused(
        self, campaign: Campaign, lemlist: Sandbox, worker: Worker
    ) -> None:
        campaign.fill(1)
        worker.run(campaign.task())
        other = Campaign(lemlist, campaign.ledger)
        with pytest.raises(LemlistConfigurationError, match=f"has chosen leads of campaign '{campaign.id}'"):
            worker.run(other.task(), cleared=1)

    def test_mapped_tasks_each_have_their_own_most(
        self, lemlist: Sandbox, any_worker: Worker, tmp_path: Path
    ) -> None:
        campaigns = [Campaign(lemlist, tmp_path / "ledgers") for _ in range(2)]
        for each in campaigns:
            each.fill(2)
        with DAG("d", schedule=None):
            mapped = LaunchLeadsOperator.partial(
                task_id="launch", max_leads=1, ledger_path=str(tmp_path / "ledgers")
            ).expand(campaign_id=[each.id for each in campaigns])
        for index, each in enumerate(campaigns):
            assert any_worker.run_mapped(mapped, index)["lead_ids"] == each.leads[:1]
        assert len(campaigns[0].choices()) == 2

    def test_default_place_is_that_of_the_ledger(
        self, campaign: Campaign, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
        campaign.fill(1)
        report = worker.run(LaunchLeadsOperator(task_id="launch", campaign_id=campaign.id, max_leads=1))
        (file,) = (tmp_path / "lemlist-ledgers").rglob("*.json")
        assert file.parent.parent == Path(report["ledger_path"])
        assert file.parent.parent.name == campaign.id
        assert json.loads(file.read_text())["lead_ids"] == campaign.leads


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "status", "outcome"),
        [
            ("LEAD_PAUSED", 400, "paused"),
            ("LEAD_NOT_FOUND", 404, "gone"),
            ("LEAD_ALREADY_LAUNCHED", 400, "launched"),
        ],
    )
    def test_refusal_of_one_lead_is_an_outcome_and_the_others_are_launched(
        self,
        campaign: Campaign,
        worker: Worker,
        monkeypatch: pytest.MonkeyPatch,
        code: str,
        status: int,
        outcome: str,
    ) -> None:
        """What changes in lemlist between the export and the launch."""
        campaign.fill(3)
        task = campaign.task()
        real, second = task.hook.launch_lead, campaign.leads[1]

        def launch(lead_id: str) -> Any:
            if lead_id == second:
                if code == "LEAD_PAUSED":
                    campaign.change(lead_id, is_paused=True)
                elif code == "LEAD_NOT_FOUND":
                    LemlistHook().delete_lead(campaign.id, lead_id)
                else:
                    campaign.change(lead_id, stage="done")
            return real(lead_id)

        monkeypatch.setattr(task.hook, "launch_lead", launch)
        report = worker.run(task)
        refused = [each for each in campaign.lemlist.requests(REVIEW) if each["status"] >= 400]
        assert [each["status"] for each in refused] == [status]
        assert report["launched"] == (3 if outcome == "launched" else 2)
        assert report[outcome]
        assert (second in report["lead_ids"]) == (outcome == "launched")

    def test_invalid_ai_variable_fails_the_lead_and_then_the_task(
        self, lemlist: Sandbox, worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        campaign = Campaign(lemlist, tmp_path / "ledger", ai_variables=["hello"])
        first = campaign.fill(1)
        rest = campaign.fill(2, hello="Your talk")
        with pytest.raises(LemlistError, match="1 of 3 leads could not be launched, and max_failed is 0"):
            worker.run(campaign.task())
        assert campaign.launched() == rest == worker.xcoms["launch"]["report"]["lead_ids"]
        assert (
            f"Lead {first[0]}: failed (LemlistValidationError, status 400): An AI variable of" in caplog.text
        )
        worker.next_run()
        assert counts(worker.run(campaign.task(max_failed=1))) == {"failed": 1}

    @pytest.mark.parametrize(
        ("what", "error", "match"),
        [
            ("senders", LemlistValidationError, "The campaign has no sender"),
            ("steps", LemlistValidationError, "A step of the campaign has an error"),
            ("archived", LemlistNotFoundError, "No campaign has this id"),
            ("plan", LemlistPlanError, "The plan lacks this route"),
            ("key", LemlistAuthError, "The user of this API key is blocked"),
        ],
    )
    def test_refusal_that_concerns_every_lead_stops_at_once_and_says_how_many_were_launched(
        self,
        campaign: Campaign,
        worker: Worker,
        monkeypatch: pytest.MonkeyPatch,
        what: str,
        error: Any,
        match: str,
    ) -> None:
        campaign.fill(100)
        world = campaign.lemlist.service.world
        task = campaign.task(max_leads=100)
        real, launches, lock = task.hook.launch_lead, [0], threading.Lock()

        def launch(lead_id: str) -> Any:
            with lock:
                launches[0] += 1
                if launches[0] == 3:
                    if what == "senders":
                        world.campaigns[campaign.id].settings["sendUserIds"] = []
                    elif what == "steps":
                        world.sequences[campaign.sequence_id].steps.clear()
                    elif what == "archived":
                        world.campaigns[campaign.id].status = "archived"
                    else:
                        state = {"plan": "plan too low", "key": "blocked"}[what]
                        campaign.lemlist.accept_key(campaign.lemlist.api_key, state)
            return real(lead_id)

        monkeypatch.setattr(task.hook, "launch_lead", launch)
        with pytest.raises(error, match=match) as caught:
            worker.run(task)
        number = len(campaign.launched())
        assert f"{number} of 100 leads were launched" in str(caught.value)
        report = worker.xcoms["launch"]["report"]
        assert number == report["launched"] <= 12
        assert report["not_tried"] == 100 - number
        assert len(campaign.lemlist.requests(REVIEW)) <= 14

    def test_campaign_that_does_not_exist_is_an_error(self, campaign: Campaign, worker: Worker) -> None:
        with pytest.raises(LemlistNotFoundError):
            worker.run(campaign.task(campaign_id="cam_gone"))
        assert worker.xcoms["launch"]["report"]["readiness"] is None

    @pytest.mark.parametrize("kind", ["reset", "cut_body", "empty", "html"])
    def test_lost_responses_launch_every_lead_once(
        self, campaign: Campaign, worker: Worker, kind: str
    ) -> None:
        campaign.fill(3)
        campaign.lemlist.fault(REVIEW, kind, times=2, when="after")
        assert counts(worker.run(campaign.task())) == {"launched": 3}
        assert campaign.launched() == campaign.leads

    def test_stop_ends_the_launch_and_the_next_attempt_launches_the_rest(
        self, quick_lemlist: Sandbox, worker: Worker, tmp_path: Path
    ) -> None:
        campaign = Campaign(quick_lemlist, tmp_path / "ledger")
        campaign.fill(300)
        task = campaign.task(max_leads=300)

        def stop() -> None:
            wait_for(campaign.launched)
            task.on_kill()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(LemlistError, match="of 300 leads were launched. The next attempt"):
            worker.run(task)
        stopper.join()
        number = len(campaign.launched())
        assert 0 < number < 300
        assert worker.xcoms["launch"]["report"]["not_tried"] == 300 - number
        report = worker.run(campaign.task(max_leads=300), attempt=2)
        assert (report["launched"], report["launched_before"]) == (300, number)
        assert len(quick_lemlist.requests(REVIEW)) == 300


class TestArguments:
    @pytest.mark.parametrize("empty", [None, "", " ", "None", float("nan"), []], ids=repr)
    @pytest.mark.parametrize(
        "name", ["campaign_id", "max_leads", "lead_ids", "ledger_path", "storage_conn_id"]
    )
    def test_empty_value_from_upstream_is_refused_before_a_request(
        self, campaign: Campaign, worker: Worker, name: str, empty: Any
    ) -> None:
        campaign.fill(1)
        if empty == [] and name != "lead_ids":
            return
        with DAG("d", schedule=None):
            task = campaign.task(**{name: upstream(empty, worker)})
        with pytest.raises(LemlistValidationError, match=f"The {name} of task 'launch' is empty"):
            worker.run(task)
        with DAG("d", schedule=None):
            arguments = {"campaign_id": campaign.id, "max_leads": 1} | {name: None}
            del arguments[name]
            mapped = LaunchLeadsOperator.partial(task_id="launch", **arguments).expand(
                **{name: upstream([empty], worker)}
            )
        with pytest.raises(LemlistValidationError, match=f"The {name} of task 'launch'.* is empty"):
            worker.run_mapped(mapped, 0, **{name: empty})
        assert not campaign.lemlist.requests()
        assert campaign.choices() == {}

    @pytest.mark.parametrize(
        ("name", "value", "match"),
        [
            ("max_leads", 0, "must be a whole number from 1, not 0"),
            ("max_leads", -1, "must be a whole number from 1"),
            ("max_leads", True, "must be a whole number from 1"),
            ("max_leads", 2.5, "must be a whole number from 1"),
            ("max_leads", "all", "must be a whole number from 1, not 'all'"),
            ("lead_ids", ["lea_1", None], "the value at place 1 is empty"),
            ("lead_ids", ["lea_1", 5], "the value at place 1 is none"),
            ("lead_ids", ["ana@example.com"], "the value at place 0 is none"),
            ("lead_ids", "['lea_1', 'lea_2']", "is none. Pass an upstream task's list as .output"),
            ("lead_ids", {"lea_1": 1}, "must be a list of lead ids"),
            ("lead_ids", 5, "must be a list of lead ids"),
            ("campaign_id", "cam 1", "must be an id"),
        ],
        ids=str,
    )
    def test_wrong_value_is_an_import_error_and_from_upstream_an_error_before_sending(
        self, campaign: Campaign, worker: Worker, name: str, value: Any, match: str
    ) -> None:
        match = f"The {name} of task 'launch'.*{match}"
        with pytest.raises(LemlistValidationError, match=match) as caught:
            campaign.task(**{name: value})
        assert "@" not in str(caught.value)
        arguments = {"campaign_id": "cam_1", "max_leads": 1}
        arguments.pop(name, None)
        with pytest.raises(LemlistValidationError, match=match):
            LaunchLeadsOperator.partial(task_id="launch", **arguments).expand(**{name: [value]})
        with DAG("d", schedule=None):
            task = campaign.task(**{name: upstream(value, worker)})
        with pytest.raises(LemlistValidationError, match=match):
            worker.run(task)
        assert not campaign.lemlist.requests()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("if_variable_missing", "ignore"),
            ("if_paused", "wait"),
            ("exclude_unsubscribed", "false"),
            ("exclude_unsubscribed", None),
            ("dry_run", "yes"),
            ("max_failed", -1),
        ],
    )
    def test_choice_that_does_not_exist_is_an_import_error(self, name: str, value: Any) -> None:
        arguments = {"campaign_id": "cam_1", "max_leads": 1, name: value}
        with pytest.raises(LemlistConfigurationError, match=f"The {name} of task 'launch' must be"):
            LaunchLeadsOperator(task_id="launch", **arguments)
        with pytest.raises(LemlistConfigurationError, match=f"The {name} of task 'launch' must be"):
            LaunchLeadsOperator.partial(task_id="launch", max_leads=1, **{name: value}).expand(
                campaign_id=["cam_1"]
            )

    def test_number_of_leads_must_be_written(self) -> None:
        with pytest.raises((TypeError, AirflowException), match="max_leads"):
            LaunchLeadsOperator(task_id="launch", campaign_id="cam_1")  # type: ignore[call-arg]

    def test_templates_are_rendered(self, campaign: Campaign, worker: Worker) -> None:
        campaign.fill(5)
        task = campaign.task(max_leads="{{ params.delay }}", ledger_path=f"{campaign.ledger}/{{{{ ds }}}}")
        report = worker.run(task)
        assert counts(report) == {"launched": 3, "waiting": 2}
        assert report["ledger_path"].endswith("/2026-11-20")

    @pytest.mark.parametrize("kind", [list, tuple, set])
    def test_leads_may_be_any_collection_or_come_from_upstream(
        self, campaign: Campaign, worker: Worker, kind: Any
    ) -> None:
        campaign.fill(3)
        report = worker.run(campaign.task(lead_ids=kind(campaign.leads[1:])))
        assert report["lead_ids"] == campaign.launched() == campaign.leads[1:] or kind is set
        worker.next_run()
        with DAG("d", schedule=None):
            task = campaign.task(lead_ids=upstream([f" {campaign.leads[0]} "], worker))
        assert worker.run(task)["lead_ids"] == campaign.leads[:1]
