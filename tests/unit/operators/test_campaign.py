# SPDX-License-Identifier: Apache-2.0
"""A campaign is created exactly once in every failure; starting and pausing may be repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistGuardError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistValidationError,
)
from airflow_provider_lemlist.operators.campaign import (
    CreateCampaignOperator,
    PauseCampaignOperator,
    StartCampaignOperator,
)
from airflow_provider_lemlist.sandbox import Sandbox

CREATE = "POST /campaigns"
LIST = "GET /campaigns"
CHOICES = ("return", "fail", "create")
NAME = "Spring webinar"


def create(**options: Any) -> CreateCampaignOperator:
    return CreateCampaignOperator(**{"task_id": "create", "name": NAME, **options})


def ids(lemlist: Sandbox) -> list[str]:
    return [campaign["_id"] for campaign in lemlist.state()["campaigns"]]


def run_and_kill(worker: Any, kill: Any, task: Any, **how: Any) -> None:
    kill(task, "create_campaign", **how)
    with pytest.raises(SystemExit):
        worker.run(task)


def upstream(value: Any, worker: Any) -> Any:
    worker.xcoms["upstream"] = {"return_value": value}
    return StartCampaignOperator(task_id="upstream", campaign_id="cam_1").output


class TestCreate:
    def test_campaign_is_created_with_its_settings(self, lemlist: Sandbox, any_worker: Any) -> None:
        task = create(
            campaign_timezone="Europe/London",
            auto_review="{{ params.yes }}",
            auto_review_conditions=["deliverable", "risky"],
            outlets=[Asset("lemlist://campaigns/all")],
        )
        campaign_id = any_worker.run(task)
        (request,) = lemlist.requests(CREATE)
        assert json.loads(request["request"]["body"]) == {
            "name": NAME,
            "timezone": "Europe/London",
            "autoReview": True,
            "autoReviewConditions": ["deliverable", "risky"],
        }
        assert [campaign_id] == ids(lemlist)
        sequence_id = lemlist.state()["campaigns"][0]["sequenceId"]
        pushed = any_worker.xcoms["create"]
        assert pushed["campaign"]["_id"] == pushed["campaign_id"] == pushed["return_value"] == campaign_id
        assert pushed["campaign"]["sequenceId"] == pushed["sequence_id"] == sequence_id
        assert any_worker.asset_extras["lemlist://campaigns/all"] == {
            "campaign_id": campaign_id,
            "sequence_id": sequence_id,
        }
        assert len(lemlist.requests()) == 2  # one to list the campaigns, one to create it
        assert task.campaign_id == campaign_id  # for the link

    def test_only_what_is_given_is_sent_and_false_is_given(self, lemlist: Sandbox, worker: Any) -> None:
        worker.run(create(name="  Signups {{ ds }} "))
        worker.run(create(task_id="second", name="Second", auto_review=False, campaign_timezone=None))
        assert [json.loads(each["request"]["body"]) for each in lemlist.requests(CREATE)] == [
            {"name": "Signups 2026-11-20"},
            {"name": "Second", "autoReview": False},
        ]

    @pytest.mark.parametrize("is_on", [True, False])
    def test_campaign_with_auto_review_is_named_as_sending_at_once(
        self, lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch, is_on: bool
    ) -> None:
        task = create(auto_review=is_on)
        warnings: list[str] = []
        monkeypatch.setattr(task.log, "warning", lambda text, *values: warnings.append(text % values))
        campaign_id = worker.run(task)
        why = "autoReview is on, so lemlist contacts each lead as soon as it is created."
        assert warnings == ([f"Campaign {campaign_id}: {why}"] if is_on else [])


class TestIfExists:
    def test_second_run_of_a_dag_returns_its_campaign_with_the_sequence(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        first = any_worker.run(create())
        sequence_id = any_worker.xcoms["create"]["sequence_id"]
        any_worker.next_run()
        assert any_worker.run(create()) == first
        assert any_worker.xcoms["create"]["sequence_id"] == sequence_id
        assert ids(lemlist) == [first]

    def test_archived_campaign_and_other_names_do_not_count(self, lemlist: Sandbox, any_worker: Any) -> None:
        lemlist.campaign(NAME, status="archived")
        lemlist.campaign(f"{NAME} 2")
        any_worker.run(create(if_exists="fail"))
        assert len(ids(lemlist)) == 3

    def test_several_campaigns_of_the_name_are_an_error_that_names_them(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        first, second = lemlist.campaign(NAME)["_id"], lemlist.campaign(NAME)["_id"]
        with pytest.raises(LemlistValidationError, match=f"{first}, {second}. Rename or archive"):
            any_worker.run(create())
        assert not lemlist.requests(CREATE)

    def test_existing_campaign_fails_the_task_on_request(self, lemlist: Sandbox, any_worker: Any) -> None:
        existing = lemlist.campaign(NAME)["_id"]
        with pytest.raises(LemlistDuplicateError, match=f"{existing}. Nothing was sent"):
            any_worker.run(create(if_exists="fail"))
        assert not lemlist.requests(CREATE)

    def test_another_campaign_is_created_on_request(self, lemlist: Sandbox, any_worker: Any) -> None:
        existing = lemlist.campaign(NAME)["_id"]
        assert any_worker.run(create(if_exists="create")) != existing
        assert len(ids(lemlist)) == 2

    def test_existing_campaign_with_other_settings_is_kept_and_the_report_names_them(
        self, lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        existing = lemlist.campaign(NAME, timezone="Europe/Paris")["_id"]
        task = create(campaign_timezone="Europe/London")
        warnings: list[str] = []
        monkeypatch.setattr(task.log, "warning", lambda text, *values: warnings.append(text % values))
        assert worker.run(task) == existing
        assert [text for text in warnings if existing in text and "campaign_timezone" in text]
        report = worker.xcoms["create"]["report"]
        assert (report["outcome"], report["differing"]) == ("exists", ["campaign_timezone"])
        assert "Europe" not in json.dumps(report)


class TestExactlyOnce:
    @pytest.mark.parametrize("if_exists", CHOICES)
    @pytest.mark.parametrize("kind", ["reset", "cut_body", "empty", "missing_id"])
    def test_lost_response_leaves_one_new_campaign(
        self, lemlist: Sandbox, any_worker: Any, kind: str, if_exists: Any
    ) -> None:
        before = [lemlist.campaign(NAME)["_id"]] if if_exists == "create" else []
        lemlist.fault(CREATE, kind, times=1, when="after")
        campaign_id = any_worker.run(create(if_exists=if_exists))
        assert ids(lemlist) == [*before, campaign_id]
        assert "sequence_id" in any_worker.xcoms["create"]

    def test_request_that_did_not_arrive_is_sent_again(self, lemlist: Sandbox, any_worker: Any) -> None:
        lemlist.fault(CREATE, "reset", times=1, when="before")
        assert [any_worker.run(create())] == ids(lemlist)
        assert len(lemlist.requests(CREATE)) == 2

    @pytest.mark.parametrize("if_exists", CHOICES)
    def test_with_history_a_retry_after_a_kill_finds_its_campaign(
        self, lemlist: Sandbox, worker: Any, kill: Any, if_exists: Any
    ) -> None:
        before = [lemlist.campaign(NAME)["_id"]] if if_exists == "create" else []
        run_and_kill(worker, kill, create(if_exists=if_exists))
        campaign_id = worker.run(create(if_exists=if_exists), attempt=2)
        assert ids(lemlist) == [*before, campaign_id]

    @pytest.mark.parametrize("if_exists", CHOICES)
    def test_retry_after_a_kill_before_the_effect_creates_the_campaign(
        self, lemlist: Sandbox, any_worker: Any, kill: Any, if_exists: Any
    ) -> None:
        run_and_kill(any_worker, kill, create(if_exists=if_exists), before=True)
        assert [any_worker.run(create(if_exists=if_exists), attempt=2)] == ids(lemlist)

    def test_without_history_a_retry_after_a_kill_finds_its_campaign(
        self, lemlist: Sandbox, old_worker: Any, kill: Any
    ) -> None:
        run_and_kill(old_worker, kill, create())
        assert [old_worker.run(create(), attempt=2)] == ids(lemlist)

    @pytest.mark.parametrize("if_exists", ["create", "fail"])
    def test_without_history_a_campaign_that_may_be_older_is_uncertain_until_the_task_is_cleared(
        self, lemlist: Sandbox, old_worker: Any, kill: Any, if_exists: Any
    ) -> None:
        run_and_kill(old_worker, kill, create(if_exists=if_exists))
        (campaign_id,) = ids(lemlist)
        with pytest.raises(LemlistUncertainError, match=f"{campaign_id} may be it or older"):
            old_worker.run(create(if_exists=if_exists), attempt=2)
        assert old_worker.run(create(if_exists=if_exists), cleared=1) == campaign_id
        assert ids(lemlist) == [campaign_id]

    def test_several_new_campaigns_are_uncertain_until_one_is_left(
        self, lemlist: Sandbox, worker: Any, kill: Any
    ) -> None:
        run_and_kill(worker, kill, create(if_exists="create"))
        (ours,) = ids(lemlist)
        other = lemlist.campaign(NAME)["_id"]
        with pytest.raises(LemlistUncertainError, match=f"{ours}, {other}"):
            worker.run(create(if_exists="create"), attempt=2)
        create().hook.update_campaign(other, {"name": "Autumn"})
        assert worker.run(create(if_exists="create"), cleared=1) == ours
        assert ids(lemlist) == [ours, other]

    @pytest.mark.parametrize("if_exists", CHOICES)
    def test_kill_between_response_and_success_and_a_cleared_task_leave_one_campaign(
        self, lemlist: Sandbox, worker: Any, if_exists: Any
    ) -> None:
        first = worker.run(create(if_exists=if_exists))
        assert worker.run(create(if_exists=if_exists), attempt=2) == first
        create().hook.update_campaign(first, {"name": "Renamed in lemlist"})
        assert worker.run(create(if_exists=if_exists), cleared=1) == first
        assert ids(lemlist) == [first]

    @pytest.mark.parametrize("if_exists", CHOICES)
    def test_without_history_a_cleared_task_finds_its_campaign_by_name(
        self, lemlist: Sandbox, old_worker: Any, if_exists: Any
    ) -> None:
        first = old_worker.run(create(if_exists=if_exists))
        assert old_worker.run(create(if_exists=if_exists), cleared=1) == first
        assert ids(lemlist) == [first]

    @pytest.mark.parametrize("gone", ["archived", "deleted"])
    def test_cleared_task_whose_campaign_is_gone_creates_another_one(
        self, lemlist: Sandbox, worker: Any, gone: str
    ) -> None:
        first = worker.run(create())
        campaigns = lemlist.service.world.campaigns
        if gone == "archived":
            campaigns[first].status = "archived"
        else:
            del campaigns[first]
        assert worker.run(create(), cleared=1) != first

    def test_task_cleared_for_another_name_creates_another_campaign(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        first = worker.run(create())
        second = worker.run(create(name="Autumn"), cleared=1)
        assert ids(lemlist) == [first, second]

    def test_outage_during_the_check_is_retried_and_the_campaign_found(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        lemlist.fault(CREATE, "reset", times=1, when="after")
        lemlist.fault(LIST, "status", status=503, skip=1, times=20)
        with pytest.raises(LemlistServerError) as caught:
            any_worker.run(create())
        assert caught.value.in_doubt
        lemlist.clear_faults()
        assert [any_worker.run(create(), attempt=2)] == ids(lemlist)

    def test_mapped_task_creates_one_campaign_for_each_name(self, lemlist: Sandbox, any_worker: Any) -> None:
        def run() -> list[str]:
            with DAG("d", schedule=None):
                mapped = CreateCampaignOperator.partial(task_id="create").expand(name=["Spring", "Autumn"])
            return [any_worker.run_mapped(mapped, index) for index in range(2)]

        first = run()
        assert ids(lemlist) == first
        any_worker.next_run()
        assert run() == first
        assert ids(lemlist) == first


class TestArguments:
    @pytest.mark.parametrize("empty", [None, "", " ", "None", float("nan")], ids=repr)
    @pytest.mark.parametrize("name", ["name", "campaign_timezone", "auto_review", "auto_review_conditions"])
    def test_empty_value_from_upstream_is_refused_when_the_task_runs(
        self, lemlist: Sandbox, worker: Any, name: str, empty: Any
    ) -> None:
        with DAG("d", schedule=None):
            task = create(**{name: upstream(empty, worker)})
        with pytest.raises(LemlistValidationError, match=f"The {name} of task 'create' is empty"):
            worker.run(task)
        assert not lemlist.requests()

    def test_empty_setting_of_a_mapped_task_does_not_mean_the_default(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        with DAG("d", schedule=None):
            mapped = CreateCampaignOperator.partial(task_id="create", name=NAME).expand(
                campaign_timezone=upstream(["Europe/Paris", None], worker)
            )
        with pytest.raises(LemlistValidationError, match="The campaign_timezone of task 'create' is empty"):
            worker.run_mapped(mapped, 1, campaign_timezone=None)
        assert not lemlist.requests()

    @pytest.mark.parametrize(
        ("name", "value", "match"),
        [
            ("name", " ", "is empty"),
            ("name", 5, "must be text"),
            ("campaign_timezone", "Paris", "must be an IANA time zone"),
            ("auto_review", "perhaps", "must be true or false"),
            ("auto_review_conditions", "deliverable", "must be a list of deliverable"),
            ("auto_review_conditions", ["delivered"], "must be a list of deliverable"),
            ("auto_review_conditions", [], "must be a list of deliverable"),
        ],
    )
    def test_wrong_value_is_an_import_error_and_from_upstream_an_error_before_sending(
        self, lemlist: Sandbox, worker: Any, name: str, value: Any, match: str
    ) -> None:
        match = f"The {name} of task 'create' {match}"
        with pytest.raises(LemlistValidationError, match=match):
            create(**{name: value})
        with pytest.raises(LemlistValidationError, match=match):
            CreateCampaignOperator.partial(
                task_id="create", **({} if name == "name" else {"name": NAME})
            ).expand(**{name: [value]})
        with DAG("d", schedule=None):
            task = create(**{name: upstream(value, worker)})
        with pytest.raises(LemlistValidationError, match=match):
            worker.run(task)
        assert not lemlist.requests()

    def test_choice_that_does_not_exist_is_an_import_error(self) -> None:
        with pytest.raises(LemlistConfigurationError, match="if_exists.*return, fail, create"):
            create(if_exists="add")


SWITCHES = [
    pytest.param(StartCampaignOperator, "running", id="start"),
    pytest.param(PauseCampaignOperator, "paused", id="pause"),
]


def ready_campaign(lemlist: Sandbox, **options: Any) -> str:
    """Create a campaign that lemlist has nothing against, and return its id."""
    campaign = lemlist.campaign(**options)
    lemlist.step(campaign["sequenceId"], "email", subject="Hi {{firstName}}", message="<p>{{hook}}</p>")
    return str(campaign["_id"])


class TestStartAndPause:
    @pytest.mark.parametrize(("operator", "state"), SWITCHES)
    @pytest.mark.parametrize("restart", ["ignored", "refused"])
    def test_campaign_that_is_there_already_is_a_success_that_the_log_names(
        self, worker: Any, monkeypatch: pytest.MonkeyPatch, operator: Any, state: str, restart: str
    ) -> None:
        with Sandbox(limit="none", restart=restart) as lemlist:
            monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
            opposite = "paused" if state == "running" else "running"
            campaign_id = ready_campaign(lemlist, status=opposite)
            lines: list[str] = []
            for _ in range(2):
                task = operator(task_id="switch", campaign_id=campaign_id)
                monkeypatch.setattr(task.log, "info", lambda text, *values: lines.append(text % values))
                assert worker.run(task) == worker.xcoms["switch"]["campaign_id"] == campaign_id
                assert lemlist.state()["campaigns"][0]["status"] == state
            assert [line for line in lines if line.endswith(f" {state}.")] == [
                f"Campaign {campaign_id}: {state}.",
                f"Campaign {campaign_id}: already {state}.",
            ]

    @pytest.mark.parametrize(("operator", "state"), SWITCHES)
    def test_lost_response_is_repeated(
        self, lemlist: Sandbox, worker: Any, operator: Any, state: str
    ) -> None:
        campaign_id = ready_campaign(lemlist, status="paused" if state == "running" else "running")
        lemlist.fault("POST /campaigns/*", "reset", times=1, when="after")
        worker.run(operator(task_id="switch", campaign_id=campaign_id))
        assert lemlist.state()["campaigns"][0]["status"] == state

    @pytest.mark.parametrize(("operator", "state"), SWITCHES)
    def test_empty_or_unknown_campaign_is_an_error(
        self, lemlist: Sandbox, worker: Any, operator: Any, state: str
    ) -> None:
        with pytest.raises(LemlistValidationError, match="The campaign_id of task 'switch' is empty"):
            operator(task_id="switch", campaign_id="")
        with DAG("d", schedule=None):
            task = operator(task_id="switch", campaign_id=upstream("None", worker))
        with pytest.raises(LemlistValidationError, match="The campaign_id of task 'switch' is empty"):
            worker.run(task)
        assert not lemlist.requests()
        with pytest.raises(LemlistNotFoundError):
            worker.run(operator(task_id="switch", campaign_id="cam_gone"))


class TestChecksBeforeStart:
    """What is looked at before a campaign is started."""

    @pytest.fixture
    def campaign(self, lemlist: Sandbox) -> str:
        """A paused campaign; of its leads two would be contacted, one of which lacks a variable."""
        campaign_id = ready_campaign(lemlist, status="paused")
        for name in ("ana", "ben", "cleo", "dan"):
            lead = lemlist.lead(
                campaign_id, f"{name}@example.com", firstName=name, hook="" if name == "ben" else "x"
            )
            stage = {"cleo": "done", "dan": "review"}.get(name, "running")
            lemlist.service.world.leads[lead["_id"]].stage = stage
        return campaign_id

    def start(self, campaign_id: str, **options: Any) -> StartCampaignOperator:
        return StartCampaignOperator(task_id="start", campaign_id=campaign_id, **options)

    def status(self, lemlist: Sandbox) -> str:
        return str(lemlist.state()["campaigns"][0]["status"])

    def test_log_and_report_say_who_sends_when_and_to_how_many(
        self,
        lemlist: Sandbox,
        worker: Any,
        campaign: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("INFO")
        lemlist.statute(campaign, "The <b>domain</b> isn&#39;t verified.", level=2)
        task = self.start(campaign, if_variable_missing="warn")
        lines: list[str] = []
        monkeypatch.setattr(task.log, "info", lambda text, *values: lines.append(text % values))
        assert worker.run(task) == campaign
        assert lines == [
            f"Campaign {campaign}: starting it contacts 2 leads.",
            f"Campaign {campaign}: running.",
        ]
        assert self.status(lemlist) == "running"
        sender = lemlist.service.world.users[0].id
        for line in (
            f"Campaign {campaign}: 'Spring webinar', paused, 1 sender {sender}, autoReview not known.",
            f"Campaign {campaign}: 4 leads: 2 running, 1 done, 1 review.",
            f"Campaign {campaign}: hours of sending: Monday to Friday, 09:00 to 18:00 (Europe/Paris); ",
            f"Campaign {campaign}: lemlist warns: The domain isn't verified.",
            "The texts of the campaign use 'hook', which is blank in lead lea_",
        ):
            assert line in caplog.text
        report = worker.xcoms["start"]["report"]
        assert (report["to_contact"], report["missing_variables"]) == (2, {"hook": 1})
        assert (report["warnings"], report["senders"]) == (["The domain isn't verified."], [sender])
        assert "@" not in json.dumps(report) + caplog.text

    def test_statute_of_level_3_stops_before_the_start(
        self, lemlist: Sandbox, worker: Any, campaign: str
    ) -> None:
        lemlist.statute(campaign, "Your <b>signature</b> is missing.")
        with pytest.raises(LemlistGuardError, match=r"says: Your signature is missing\. .* Nothing was sent"):
            worker.run(self.start(campaign, if_variable_missing="warn"))
        assert self.status(lemlist) == "paused"
        assert worker.xcoms["start"]["report"]["blocking"] == ["Your signature is missing."]
        assert worker.xcoms["start"]["campaign_id"] == campaign  # for the link

    def test_lead_that_lacks_a_variable_stops_only_if_it_would_be_contacted(
        self, lemlist: Sandbox, worker: Any, campaign: str
    ) -> None:
        with pytest.raises(
            LemlistGuardError, match="'hook' in lead lea_.* set if_variable_missing to 'warn'"
        ):
            worker.run(self.start(campaign))
        assert self.status(lemlist) == "paused"
        for lead in lemlist.service.world.leads.values():
            if not lead.values["hook"]:
                lead.stage = "review"
        worker.run(self.start(campaign))
        assert self.status(lemlist) == "running"

    def test_requests_are_six_and_one_if_the_campaign_runs_already(
        self, lemlist: Sandbox, worker: Any, campaign: str
    ) -> None:
        worker.run(self.start(campaign, if_variable_missing="warn"))
        assert len(lemlist.requests()) == 6
        lemlist.statute(campaign, "Too late.")
        worker.run(self.start(campaign))
        assert len(lemlist.requests()) == 7
        assert "report" not in worker.xcoms["start"]

    def test_dry_run_looks_and_does_not_start(self, lemlist: Sandbox, worker: Any, campaign: str) -> None:
        task = self.start(campaign, if_variable_missing="warn", dry_run=True)
        assert worker.run(task) == campaign
        assert worker.xcoms["start"]["report"]["to_contact"] == 2
        assert self.status(lemlist) == "paused"
        with pytest.raises(LemlistGuardError):
            worker.run(self.start(campaign, dry_run=True))

    def test_pausing_is_never_checked(self, lemlist: Sandbox, worker: Any) -> None:
        campaign_id = lemlist.campaign(status="running", senders=[])["_id"]
        worker.run(PauseCampaignOperator(task_id="pause", campaign_id=campaign_id))
        assert self.status(lemlist) == "paused"
        assert len(lemlist.requests()) == 2

    def test_new_campaign_is_started_when_it_has_a_step_and_a_sender(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        campaign = lemlist.campaign()
        with pytest.raises(LemlistGuardError, match="does not have any steps"):
            worker.run(self.start(campaign["_id"]))
        lemlist.step(campaign["sequenceId"], "linkedinVisit")
        worker.run(self.start(campaign["_id"]))
        assert self.status(lemlist) == "running"

    @pytest.mark.parametrize(
        "wrong", [{"if_variable_missing": "skip"}, {"dry_run": "no"}], ids=["choice", "switch"]
    )
    def test_wrong_choice_is_an_import_error_also_of_a_mapped_task(self, wrong: dict[str, Any]) -> None:
        (name,) = wrong
        with pytest.raises(LemlistConfigurationError, match=f"The {name} of task 'start' must be"):
            self.start("cam_1", **wrong)
        with pytest.raises(LemlistConfigurationError, match=f"The {name} of task 'start' must be"):
            StartCampaignOperator.partial(task_id="start", **wrong).expand(campaign_id=["cam_1"])
