# SPDX-License-Identifier: Apache-2.0
"""A lead is created exactly once in every failure, and a voice note is checked before it is sent."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, Asset, ObjectStoragePath

from airflow_provider_lemlist.delivery.policy import IfElsewhere, IfExists
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)
from airflow_provider_lemlist.operators.lead import (
    CreateLeadOperator,
    UploadVoiceAudioOperator,
)
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.templating import AirflowText

ADDRESS = "o'brien+news@example.com"
CREATE = "POST /campaigns/{campaignId}/leads/"


def create(campaign_id: str, lead: Any = None, **options: Any) -> CreateLeadOperator:
    lead = {"email": ADDRESS, "firstName": "Ana"} if lead is None else lead
    return CreateLeadOperator(
        **{"task_id": "create_lead", "campaign_id": campaign_id, "lead": lead, **options}
    )


@pytest.fixture
def campaign_id(lemlist: Sandbox) -> str:
    return str(lemlist.campaign()["_id"])


class TestCreateLead:
    def test_lead_is_created_and_its_id_returned(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any
    ) -> None:
        lead_id = any_worker.run(create(campaign_id, {"email": ADDRESS, "plan": 3, "x": None}))
        (lead,) = lemlist.state()["leads"]
        assert lead["_id"] == lead_id
        (request,) = lemlist.requests(CREATE)
        assert json.loads(request["request"]["body"]) == {"email": ADDRESS, "plan": "3"}
        pushed = any_worker.xcoms["create_lead"]
        assert pushed["return_value"] == pushed["lead"]["_id"] == lead_id
        assert pushed["lead"]["campaignId"] == campaign_id
        assert not lemlist.violations()

    def test_outcome_is_emitted(self, lemlist: Sandbox, campaign_id: str, worker: Any, emitted: Any) -> None:
        worker.run(create(campaign_id))
        with pytest.raises(AirflowSkipException):
            worker.run(create(campaign_id, if_exists="skip", task_id="other"))
        rows = {name: count for name, count in emitted.counters.items() if ".rows." in name}
        assert rows == {"lemlist.rows.created": 1, "lemlist.rows.exists": 1}

    @pytest.mark.parametrize(
        ("value", "form"),
        [
            ("o'brien+news@office.example.com", "address"),
            ("@example.com", "domain"),
            ("@office.example.com", "domain"),
            ("https://www.linkedin.com/in/ana", "LinkedIn profile"),
            ("+33612345678", "phone number"),
        ],
    )
    def test_person_who_has_unsubscribed_is_skipped(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, value: str, form: str
    ) -> None:
        lead = {
            "email": "O'Brien+news@office.example.com",
            "linkedinUrl": "linkedin.com/in/ana",
            "phone": "0033 6 12 34 56 78",
        }
        lemlist.service.world.unsubscribe(value)
        for attempt in (1, 2):
            with pytest.raises(AirflowSkipException, match=f"has the {form} of the person as unsubscribed"):
                any_worker.run(create(campaign_id, lead), attempt=attempt)
        assert not lemlist.requests("POST *")
        assert any_worker.run(create(campaign_id, lead, exclude_unsubscribed=False))

    def test_address_and_domain_are_looked_up_before_the_lead_is_created(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        worker.run(create(campaign_id, {"email": "ana@norte.example"}))
        assert [each["path"] for each in lemlist.requests()] == [
            "/v2/unsubscribes/variables/ana%40norte.example",
            "/v2/unsubscribes/variables/%40norte.example",
            f"/campaigns/{campaign_id}/leads/",
        ]
        worker.run(create(campaign_id, {"email": "ben@norte.example"}, exclude_unsubscribed=False))
        assert len(lemlist.requests("GET /v2/unsubscribes/*")) == 2

    def test_person_who_unsubscribes_between_attempts_is_skipped(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        worker.run(create(campaign_id, if_exists="update"))
        lemlist.service.world.unsubscribe(ADDRESS)
        with pytest.raises(AirflowSkipException, match="as unsubscribed"):
            worker.run(
                create(campaign_id, {"email": ADDRESS, "firstName": "New"}, if_exists="update"), cleared=1
            )
        assert not lemlist.requests("PATCH *")

    def test_look_up_that_fails_creates_no_lead(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        route = "GET /v2/unsubscribes/variables/{value}"
        lemlist.fault(route, "status", status=404, text="No such page", times=9)
        with pytest.raises(LemlistNotFoundError):
            worker.run(create(campaign_id))
        assert not lemlist.requests(CREATE)

    def test_log_says_that_an_auto_reviewed_lead_is_contacted_at_once(
        self, lemlist: Sandbox, campaign_id: str, worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        for task_id in ("first", "second"):
            task = create(campaign_id, task_id=task_id)
            monkeypatch.setattr(task.log, "info", lambda text, *values: told.append(text % values))
            lead_id = worker.run(task)
        why = f"Lead {lead_id}: contacted at once if autoReview of the campaign is on."
        assert told.count(why) == 1  # the second task has not created it

    def test_flags_are_sent_only_if_they_are_true(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        worker.run(create(campaign_id, deduplicate=True, find_phone="{{ params.yes }}", verify_email=False))
        (request,) = lemlist.requests(CREATE)
        assert request["query"] == "deduplicate=true&findPhone=true"

    def test_ids_are_rendered_and_texts_of_the_lead_are_not(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        lead = {"email": ADDRESS, "icebreaker": "{{firstName}}!", "when": AirflowText("{{day}} [[ ds ]]")}
        task = create("{{ params.campaign }}", lead)
        with pytest.raises(LemlistNotFoundError):
            worker.run(task)
        (request,) = lemlist.requests(CREATE)
        assert request["path"] == "/campaigns/cam_of_params/leads/"
        assert json.loads(request["request"]["body"]) == {
            "email": ADDRESS,
            "icebreaker": "{{firstName}}!",
            "when": "{{day}} 2026-11-20",
        }

    @pytest.mark.parametrize(
        ("if_exists", "outcome"),
        [
            ("return", None),
            ("update", None),
            ("skip", AirflowSkipException),
            ("fail", LemlistDuplicateError),
        ],
    )
    def test_if_exists_returns_updates_skips_or_fails(
        self,
        lemlist: Sandbox,
        campaign_id: str,
        any_worker: Any,
        if_exists: IfExists,
        outcome: type[Exception] | None,
    ) -> None:
        existing = lemlist.lead(campaign_id, ADDRESS)
        task = create(campaign_id, if_exists=if_exists)
        if outcome is None:
            assert any_worker.run(task) == existing["_id"]
            assert any_worker.xcoms["create_lead"]["lead"]["contactId"] == existing["contactId"]
        else:
            with pytest.raises(outcome) as raised:
                any_worker.run(task)
            assert ADDRESS not in str(raised.value)
        assert len(lemlist.state()["leads"]) == 1

    @pytest.mark.parametrize(
        ("if_elsewhere", "outcome"), [("skip", AirflowSkipException), ("fail", LemlistDuplicateError)]
    )
    def test_if_elsewhere_skips_or_fails(
        self,
        lemlist: Sandbox,
        campaign_id: str,
        worker: Any,
        if_elsewhere: IfElsewhere,
        outcome: type[Exception],
    ) -> None:
        lemlist.lead(lemlist.campaign("Other")["_id"], ADDRESS)
        with pytest.raises(outcome):
            worker.run(create(campaign_id, deduplicate=True, if_elsewhere=if_elsewhere))
        assert len(lemlist.state()["leads"]) == 1

    @pytest.mark.parametrize("outcome", ["suppressed", "elsewhere", "exists", "gone"])
    def test_report_says_why_the_task_is_skipped(
        self, lemlist: Sandbox, campaign_id: str, worker: Any, outcome: str
    ) -> None:
        task = create(campaign_id, deduplicate=True, if_exists="skip")
        if outcome == "suppressed":
            lemlist.service.world.unsubscribe(ADDRESS)
        elif outcome == "gone":
            task.hook.delete_lead(campaign_id, worker.run(create(campaign_id)))
        else:
            lemlist.lead(campaign_id if outcome == "exists" else lemlist.campaign("Other")["_id"], ADDRESS)
        with pytest.raises(AirflowSkipException) as raised:
            worker.run(task, cleared=1)
        pushed = worker.xcoms["create_lead"]
        assert pushed == {"report": {"outcome": outcome, "message": str(raised.value), "differing": []}}
        assert ADDRESS not in json.dumps(pushed)

    def test_report_of_a_cleared_task_names_the_fields_that_it_did_not_change(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any
    ) -> None:
        lead = {"email": ADDRESS, "firstName": "Ana", "jobTitle": "CTO", "plan": "gold"}
        any_worker.run(create(campaign_id, lead))
        assert any_worker.xcoms["create_lead"]["report"]["outcome"] == "created"
        changed = lead | {"firstName": "Anna", "plan": "silver"}
        any_worker.run(create(campaign_id, changed), cleared=1)
        report = any_worker.xcoms["create_lead"]["report"]
        assert (report["outcome"], report["differing"]) == ("exists", ["firstName", "plan"])
        assert "Set if_exists to 'update'" in report["message"]
        assert not {"Ana", "Anna", "gold", "silver"} & set(json.dumps(report).replace('"', " ").split())
        any_worker.run(create(campaign_id, changed, if_exists="update"), cleared=2)
        report = any_worker.xcoms["create_lead"]["report"]
        assert report == {"outcome": "updated", "message": "", "differing": []}

    @pytest.mark.parametrize("status", [400, 409, 500])
    def test_duplicate_is_recognised_with_any_status(
        self, lemlist: Sandbox, campaign_id: str, worker: Any, status: int
    ) -> None:
        lemlist.fault(CREATE, "duplicate", status=status, where="elsewhere")
        with pytest.raises(AirflowSkipException):
            worker.run(create(campaign_id, deduplicate=True))

    def test_duplicate_that_is_not_listed_yet_is_retried_by_airflow(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        lemlist.fault(CREATE, "duplicate", where="campaign")
        with pytest.raises(LemlistUnexpectedReplyError) as raised:
            worker.run(create(campaign_id))
        assert raised.value.retryable

    def test_asset_event_contains_the_ids(self, lemlist: Sandbox, campaign_id: str, worker: Any) -> None:
        task = create(campaign_id, outlets=[Asset("lemlist://leads/all")])
        lead_id = worker.run(task)
        assert worker.asset_extras == {
            "lemlist://leads/all": {"lead_id": lead_id, "campaign_id": campaign_id}
        }

    def test_lead_is_not_pushed_if_do_xcom_push_is_false(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        worker.run(create(campaign_id, do_xcom_push=False))
        assert not {"lead", "report"} & set(worker.xcoms["create_lead"])


class TestExactlyOnce:
    def test_retry_after_a_kill_after_the_effect_leaves_one_lead(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, kill: Callable[..., None]
    ) -> None:
        task = create(campaign_id, if_exists="fail")
        kill(task, "create_lead")
        with pytest.raises(SystemExit):
            any_worker.run(task)
        # if_exists concerns leads that existed before; the first attempt created this one.
        lead_id = any_worker.run(create(campaign_id, if_exists="fail"), attempt=2)
        (lead,) = lemlist.state()["leads"]
        assert lead["_id"] == lead_id

    def test_retry_after_a_kill_before_the_effect_creates_the_lead(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, kill: Callable[..., None]
    ) -> None:
        task = create(campaign_id)
        kill(task, "create_lead", before=True)
        with pytest.raises(SystemExit):
            any_worker.run(task)
        any_worker.run(create(campaign_id), attempt=2)
        assert len(lemlist.state()["leads"]) == 1

    @pytest.mark.parametrize("kind", ["reset", "cut_body", "html", "empty", "missing_id"])
    def test_lost_response_leaves_one_lead(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, kind: str
    ) -> None:
        lemlist.fault(CREATE, kind, times=1, when="after")
        lead_id = any_worker.run(create(campaign_id, if_exists="fail"))
        (lead,) = lemlist.state()["leads"]
        assert lead["_id"] == lead_id

    def test_lead_without_email_is_uncertain_after_a_kill(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, kill: Callable[..., None]
    ) -> None:
        without_email = {"linkedinUrl": "https://www.linkedin.com/in/ana"}
        task = create(campaign_id, without_email)
        kill(task, "create_lead")
        with pytest.raises(SystemExit):
            any_worker.run(task)
        with pytest.raises(LemlistUncertainError, match=campaign_id):
            any_worker.run(create(campaign_id, without_email), attempt=2)
        assert len(lemlist.state()["leads"]) == 1
        # The user has checked the campaign and cleared the task.
        any_worker.run(create(campaign_id, without_email), cleared=1)
        assert len(lemlist.state()["leads"]) == 2

    def test_history_returns_the_created_lead_without_email_to_a_retry(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        without_email = {"linkedinUrl": "https://www.linkedin.com/in/ana"}
        first = worker.run(create(campaign_id, without_email))
        again = worker.run(create(campaign_id, without_email), attempt=2)
        assert again == first
        assert len(lemlist.state()["leads"]) == 1

    def test_if_exists_applies_after_an_attempt_that_created_nothing(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        lemlist.fault(CREATE, "status", status=503, times=20, when="before")
        with pytest.raises(LemlistServerError):
            worker.run(create(campaign_id, if_exists="skip"))
        lemlist.clear_faults()
        lemlist.lead(campaign_id, ADDRESS)
        with pytest.raises(AirflowSkipException):
            worker.run(create(campaign_id, if_exists="skip"), attempt=2)

    def test_lead_in_doubt_stays_in_doubt_after_another_failure(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, kill: Callable[..., None]
    ) -> None:
        task = create(campaign_id, if_exists="fail")
        kill(task, "create_lead")
        with pytest.raises(SystemExit):
            any_worker.run(task)
        lemlist.fault(CREATE, "status", status=503, times=20, when="before")
        lemlist.fault("GET /leads/*", "status", status=404, times=20)
        with pytest.raises(LemlistServerError):
            any_worker.run(create(campaign_id, if_exists="fail"), attempt=2)
        lemlist.clear_faults()
        lead_id = any_worker.run(create(campaign_id, if_exists="fail"), attempt=3)
        assert [lead["_id"] for lead in lemlist.state()["leads"]] == [lead_id]

    def test_if_exists_applies_to_a_cleared_task_without_history(
        self, lemlist: Sandbox, campaign_id: str, old_worker: Any
    ) -> None:
        old_worker.run(create(campaign_id, if_exists="skip"))
        with pytest.raises(AirflowSkipException):
            old_worker.run(create(campaign_id, if_exists="skip"), cleared=1)

    @pytest.mark.parametrize("lead", [{"email": ADDRESS}, {"linkedinUrl": "https://www.linkedin.com/in/ana"}])
    def test_cleared_task_finds_its_lead_and_recreates_a_deleted_one_only_on_request(
        self, lemlist: Sandbox, campaign_id: str, worker: Any, lead: dict[str, str]
    ) -> None:
        task = create(campaign_id, lead, if_exists="skip")
        first = worker.run(task)
        assert worker.run(create(campaign_id, lead, if_exists="skip"), cleared=1) == first
        task.hook.delete_lead(campaign_id, first)
        for cleared in (2, 3):  # also after clearing it again
            with pytest.raises(AirflowSkipException, match=f"{first}: deleted"):
                worker.run(create(campaign_id, lead, if_exists="skip"), cleared=cleared)
        with pytest.raises(LemlistNotFoundError, match=first):
            worker.run(create(campaign_id, lead, if_gone="fail"), cleared=4)
        assert lemlist.state()["leads"] == []
        second = worker.run(create(campaign_id, lead, if_gone="create"), cleared=5)
        assert [lead["_id"] for lead in lemlist.state()["leads"]] == [second]
        assert worker.run(create(campaign_id, lead, if_gone="create"), cleared=6) == second

    def test_cleared_task_whose_values_changed_warns_and_updates_on_request(
        self, lemlist: Sandbox, campaign_id: str, worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = worker.run(create(campaign_id, {"email": ADDRESS, "firstName": "Ana", "plan": "trial"}))
        changed = {"email": ADDRESS, "firstName": "Ana", "plan": "pro"}
        task = create(campaign_id, changed)
        warnings: list[str] = []
        monkeypatch.setattr(task.log, "warning", lambda text, *values: warnings.append(text % values))
        assert worker.run(task, cleared=1) == first
        (warning,) = warnings
        assert "plan" in warning
        assert "pro" not in warning  # no values in the log
        assert not lemlist.requests("PATCH /campaigns/{campaignId}/leads/{leadId}")
        assert worker.run(create(campaign_id, changed, if_exists="update"), cleared=2) == first
        (request,) = lemlist.requests("PATCH /campaigns/{campaignId}/leads/{leadId}")
        assert json.loads(request["request"]["body"]) == {"plan": "pro"}

    def test_short_outage_of_create_and_look_up_is_retried_and_leaves_one_lead(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any
    ) -> None:
        lemlist.fault(CREATE, "status", status=503, times=1, when="after")
        lemlist.fault("GET /leads/*", "status", status=503, times=20)
        with pytest.raises(LemlistServerError) as raised:
            any_worker.run(create(campaign_id, if_exists="fail"))
        assert raised.value.retryable
        lemlist.clear_faults()
        lead_id = any_worker.run(create(campaign_id, if_exists="fail"), attempt=2)
        assert [lead["_id"] for lead in lemlist.state()["leads"]] == [lead_id]

    def test_outage_on_the_last_attempt_is_uncertain_and_clearing_reconciles(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        lemlist.fault(CREATE, "status", status=503, times=1, when="after")
        lemlist.fault("GET /leads/*", "status", status=503, times=20)
        with pytest.raises(LemlistUncertainError, match=campaign_id):
            worker.run(create(campaign_id, if_exists="fail"), retries=0)
        lemlist.clear_faults()
        lead_id = worker.run(create(campaign_id, if_exists="fail"), retries=0, cleared=1)
        assert [lead["_id"] for lead in lemlist.state()["leads"]] == [lead_id]

    def test_task_cleared_with_another_person_creates_that_lead_too(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        # As if the rows that a task is mapped over were read again.
        ids = [
            worker.run(create(campaign_id, {"email": f"{name}@example.com"}), cleared=cleared)
            for cleared, name in enumerate(("ana", "bob"))
        ]
        leads = {lead["variables"]["email"]: lead["_id"] for lead in lemlist.state()["leads"]}
        assert leads == {"ana@example.com": ids[0], "bob@example.com": ids[1]}

    def test_task_cleared_with_another_campaign_creates_the_lead_there_too(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        other = lemlist.campaign()["_id"]
        worker.run(create(campaign_id))
        worker.run(create(other), cleared=1)
        assert {lead["campaignId"] for lead in lemlist.state()["leads"]} == {campaign_id, other}

    def test_another_lead_without_email_is_uncertain_after_clearing(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        ana, bob = ({"linkedinUrl": f"https://www.linkedin.com/in/{name}"} for name in ("ana", "bob"))
        worker.run(create(campaign_id, ana))
        with pytest.raises(LemlistUncertainError, match=campaign_id):
            worker.run(create(campaign_id, bob), cleared=1)
        assert len(lemlist.state()["leads"]) == 1
        # The user has checked the campaign and cleared the task.
        worker.run(create(campaign_id, bob), cleared=2)
        assert len(lemlist.state()["leads"]) == 2

    def test_history_contains_no_email(self, campaign_id: str, worker: Any) -> None:
        worker.run(create(campaign_id))
        assert worker.stores["create_lead"]
        assert "brien" not in str(worker.stores)

    def test_retry_finds_its_lead_although_lemlist_reports_a_duplicate_elsewhere(
        self, lemlist: Sandbox, campaign_id: str, any_worker: Any, kill: Callable[..., None]
    ) -> None:
        task = create(campaign_id, deduplicate=True, if_elsewhere="fail")
        kill(task, "create_lead")
        with pytest.raises(SystemExit):
            any_worker.run(task)
        lemlist.fault(CREATE, "duplicate", where="elsewhere")
        lead_id = any_worker.run(create(campaign_id, deduplicate=True, if_elsewhere="fail"), attempt=2)
        assert [lead["_id"] for lead in lemlist.state()["leads"]] == [lead_id]


class TestArguments:
    """Values written in the DAG file are checked when it is parsed, and the error names the task."""

    @pytest.mark.parametrize(
        "lead",
        [{"email": "x"}, {"first_name": "Ana"}, {"email": ADDRESS, "tags": ["a"]}, {}, [1], None, 7],
        ids=repr,
    )
    def test_wrong_lead_is_an_import_error(self, lead: Any) -> None:
        with pytest.raises(LemlistValidationError, match="create_lead"):
            CreateLeadOperator(task_id="create_lead", campaign_id="cam_1", lead=lead)

    @pytest.mark.parametrize(
        "options",
        [
            {"if_exists": "ignore"},
            {"if_elsewhere": "return"},
            {"if_gone": "update"},
            {"variables": "plan"},
            {"exclude_unsubscribed": "no"},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_wrong_choice_is_an_import_error(self, options: dict[str, Any]) -> None:
        with pytest.raises(LemlistConfigurationError, match="create_lead"):
            create("cam_1", **options)

    @pytest.mark.parametrize("value", ["", "  ", None, 5, "cam 1"])
    def test_wrong_id_is_an_import_error(self, value: Any) -> None:
        with pytest.raises(LemlistValidationError, match="campaign_id of task 'create_lead'"):
            create(value)

    @pytest.mark.parametrize("value", ["yes", 1, 0, [True]])
    def test_wrong_flag_is_an_import_error(self, value: Any) -> None:
        with pytest.raises(LemlistValidationError, match="find_email"):
            create("cam_1", find_email=value)

    @pytest.mark.parametrize("lead", [{"firstName": "Ada"}, {"email": None, "firstName": "Ada"}], ids=repr)
    def test_lead_without_identity_is_refused_unless_allowed(self, lead: dict[str, Any]) -> None:
        with pytest.raises(LemlistValidationError, match=r"no email.*allow_without_email=True"):
            create("cam_1", lead)
        create("cam_1", lead, allow_without_email=True)
        create("cam_1", {**lead, "phone": "+44 20 7946 0000"})
        create("cam_1", {**lead, "linkedinUrl": "https://www.linkedin.com/in/ada"})

    def test_empty_email_from_upstream_is_refused_when_the_task_runs(
        self, lemlist: Sandbox, campaign_id: str, worker: Any
    ) -> None:
        with DAG("d", schedule=None):
            upstream = create("cam_1", task_id="upstream")
            task = create(campaign_id, {"email": upstream.output, "firstName": "Ada"})
        worker.xcoms["upstream"] = {"return_value": None}
        with pytest.raises(LemlistValidationError, match="no email"):
            worker.run(task)
        assert not lemlist.requests()

    @pytest.mark.parametrize("empty", [None, "", " ", "None"], ids=repr)
    def test_empty_campaign_from_upstream_is_refused_when_the_task_runs(
        self, lemlist: Sandbox, worker: Any, empty: Any
    ) -> None:
        with DAG("d", schedule=None):
            upstream = create("cam_1", task_id="upstream")
            task = create(upstream.output)
        worker.xcoms["upstream"] = {"return_value": empty}
        with pytest.raises(LemlistValidationError, match="The campaign_id of task 'create_lead' is empty"):
            worker.run(task)
        assert not lemlist.requests()

    def test_spaces_around_an_id_are_removed(self, lemlist: Sandbox, campaign_id: str, worker: Any) -> None:
        worker.run(create(f" {campaign_id}\n"))
        assert len(lemlist.state()["leads"]) == 1

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("News of {{ ds }}", "ds"),
            ("{{params.name}}", "params"),
            ("{{ dag_run.conf['x'] }}", "dag_run"),
            ("{{ data_interval_start | ds }}", "data_interval_start"),
            ("{% if var.value.x %}x{% endif %}", "var"),
            ("{{ ti.xcom_pull('x') }}", "ti"),
        ],
    )
    def test_airflow_template_in_a_value_is_an_import_error_that_names_airflow_text(
        self, text: str, name: str
    ) -> None:
        with pytest.raises(LemlistValidationError, match=rf"icebreaker: .*'{name}'.*AirflowText"):
            create("cam_1", {"email": ADDRESS, "icebreaker": text})

    @pytest.mark.parametrize("text", ["{{firstName}}", "{{ params }}", "{{ads}}", "{{Company ds}}", "ds }}"])
    def test_lemlist_placeholders_are_accepted(self, text: str) -> None:
        create("cam_1", {"email": ADDRESS, "icebreaker": text})

    def test_values_known_at_parse_time_are_checked_and_the_others_are_not(self) -> None:
        with DAG("d", schedule=None):
            upstream = create("cam_1")
            written: list[tuple[Any, Any, dict[str, Any]]] = [
                ("{{ params.campaign }}", {"email": upstream.output, "x": AirflowText("[[ ds ]]")}, {}),
                (upstream.output, upstream.output, {}),
                ("cam_1", "{{ ti.xcom_pull('rows') }}", {"find_email": "{{ params.yes }}"}),
            ]
            for number, (campaign, lead, options) in enumerate(written):
                CreateLeadOperator(task_id=f"task_{number}", campaign_id=campaign, lead=lead, **options)
            with pytest.raises(LemlistValidationError, match="timezone"):
                CreateLeadOperator(
                    task_id="wrong",
                    campaign_id="cam_1",
                    lead={"email": upstream.output, "timezone": "Mars/Base"},
                )

    def test_upstream_value_adds_a_dependency(self) -> None:
        with DAG("d", schedule=None):
            upstream = create("cam_1")
            task = CreateLeadOperator(
                task_id="down", campaign_id="cam_1", lead={"email": ADDRESS, "note": upstream.output}
            )
        assert task.upstream_task_ids == {"create_lead"}

    def test_wrong_value_from_upstream_is_an_error_before_sending(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        for lead in ("text", {"email": "x"}, {"email": ADDRESS, "note": dict(AirflowText("[[ ds ]]"))}):
            task = create("cam_1")
            task.lead = lead  # as after rendering
            with pytest.raises(LemlistValidationError, match="create_lead"):
                task.execute({"ti": None})
        assert not lemlist.requests()

    def test_every_template_field_is_an_attribute(self) -> None:
        for cls in (CreateLeadOperator, UploadVoiceAudioOperator):
            task = create("cam_1") if cls is CreateLeadOperator else upload("lea_1", "stp_1", "x.m4a")
            assert all(hasattr(task, name) for name in cls.template_fields)


def upload(lead_id: Any, step_id: Any, audio: Any, **options: Any) -> UploadVoiceAudioOperator:
    return UploadVoiceAudioOperator(
        task_id="upload", lead_id=lead_id, step_id=step_id, audio=audio, **options
    )


class TestUploadVoiceAudio:
    @pytest.fixture
    def note(self, tmp_path: Path) -> Path:
        path = tmp_path / "note ana.m4a"
        path.write_bytes(b"\0\0\0\x20ftypM4A " + os.urandom(300_000))
        return path

    @pytest.fixture
    def ids(self, lemlist: Sandbox) -> tuple[str, str]:
        campaign = lemlist.campaign()
        step = lemlist.step(campaign["sequenceId"], "linkedinVoiceNote")
        return lemlist.lead(campaign["_id"], ADDRESS)["_id"], step["_id"]

    @pytest.mark.parametrize("form", ["path", "text", "file url", "object storage path"])
    def test_file_is_uploaded_completely_from_every_form_of_path(
        self, lemlist: Sandbox, worker: Any, ids: tuple[str, str], note: Path, form: str
    ) -> None:
        audio = {
            "path": note,
            "text": str(note),
            "file url": f"file://{note}",
            "object storage path": ObjectStoragePath(f"file://{note}"),
        }[form]
        url = worker.run(upload(*ids, audio))
        (stored,) = lemlist.state()["audio"]
        assert stored["size"] == note.stat().st_size
        assert worker.xcoms["upload"]["upload"]["status"]["url"] == url
        assert worker.xcoms["upload"]["return_value"] == url

    def test_ids_and_path_are_rendered(self, lemlist: Sandbox, worker: Any, note: Path) -> None:
        task = upload(
            "lea_{{ ds }}", "stp_1", f"{note.parent}/{{{{ 'note ana' }}}}.m4a", file_name="{{ ds }}"
        )
        with pytest.raises(LemlistError):
            worker.run(task)
        (request,) = lemlist.requests("POST /leads/audio")
        assert request["query"] == "leadId=lea_2026-11-20&stepId=stp_1"

    def test_lost_response_and_a_retry_leave_one_audio(
        self, lemlist: Sandbox, any_worker: Any, ids: tuple[str, str], note: Path
    ) -> None:
        lemlist.fault("POST /leads/audio", "reset", when="after", times=1)
        any_worker.run(upload(*ids, note))
        any_worker.run(upload(*ids, note), attempt=2)
        assert {audio["leadId"] for audio in lemlist.state()["audio"]} == {ids[0]}

    @pytest.mark.parametrize(
        "case", ["missing", "empty", "directory", "directory.m4a", "no audio", "no name"]
    )
    def test_unusable_file_is_an_error_before_sending(
        self, lemlist: Sandbox, worker: Any, tmp_path: Path, case: str
    ) -> None:
        path = tmp_path / {"missing": "x.m4a", "empty": "e.m4a", "no audio": "e.pdf", "no name": "e"}.get(
            case, case
        )
        if case.startswith("directory"):
            path.mkdir()
        elif case != "missing":
            path.write_bytes(b"" if case == "empty" else b"x")
        with pytest.raises(LemlistValidationError, match="'upload'"):
            worker.run(upload("lea_1", "stp_1", str(path)))
        assert not lemlist.requests()

    def test_unreadable_file_is_an_error_before_sending(
        self, lemlist: Sandbox, worker: Any, note: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:  # chmod has no effect for root
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(ObjectStoragePath, "open", refuse)
        with pytest.raises(LemlistValidationError, match="may not be read"):
            worker.run(upload("lea_1", "stp_1", note))
        assert not lemlist.requests()

    def test_storage_that_cannot_be_opened_names_the_provider_to_install(self, worker: Any) -> None:
        with pytest.raises(LemlistConfigurationError, match="Install the provider"):
            worker.run(upload("lea_1", "stp_1", "nosuchstore://bucket/x.m4a"))

    def test_content_type_of_the_storage_is_used_without_an_extension(
        self, lemlist: Sandbox, worker: Any, ids: tuple[str, str], note: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = ObjectStoragePath(f"file://{note.rename(note.with_suffix(''))}")
        info = path.fs.info
        monkeypatch.setattr(
            path.fs, "info", lambda name, **kwargs: {**info(name, **kwargs), "ContentType": "audio/mpeg"}
        )
        worker.run(upload(*ids, path))
        (request,) = lemlist.requests("POST /leads/audio")
        assert b"Content-Type: audio/mpeg" in base64.b64decode(request["request"]["body"])

    @pytest.mark.parametrize("options", [{"lead_id": ""}, {"step_id": None}, {"audio": " "}], ids=repr)
    def test_wrong_argument_is_an_import_error(self, options: dict[str, Any]) -> None:
        with pytest.raises(LemlistValidationError, match="'upload'"):
            upload(**{"lead_id": "lea_1", "step_id": "stp_1", "audio": "x.m4a", **options})
