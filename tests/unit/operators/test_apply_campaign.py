# SPDX-License-Identifier: Apache-2.0
"""The task that applies a definition: what it checks, renders, sends, remembers and returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_lemlist.api.wire import Wire
from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.links import FoundCampaignLink
from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator, StartCampaignOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import Condition, Email, LinkedinVoiceNote, Manual
from airflow_provider_lemlist.templating import AirflowText

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))

import bucket

ADD = "POST /sequences/{sequenceId}/steps"
SPRING = Campaign(
    name="Spring {{ ds }}",
    stop_on_reply=True,
    steps=[
        Email(subject="{{firstName}}, a question", message="<p>Hi</p>", name="opening"),
        Condition(
            condition_key="linkedinInviteAccepted",
            delay_type="within",
            delay="{{ params.delay }}",
            name="accepted",
            yes=[LinkedinVoiceNote(name="voice")],
            otherwise=[
                Manual(title=AirflowText("Call {{firstName}} on [[ ds ]]")),
                Email(subject="For {{company}}", message="<p>x</p>"),
            ],
        ),
    ],
)
YAML = """
name: Webinar [[ city ]]
steps:
  - type: email
    name: opening
    subject: "{{firstName}}, a question"
    message: {file: opening.html}
  - type: manual
    title: Call [[ city ]]
"""


def apply(campaign: Any = SPRING, **options: Any) -> ApplyCampaignOperator:
    return ApplyCampaignOperator(**{"task_id": "apply", "campaign": campaign, **options})


def upstream(value: Any, worker: Any) -> Any:
    worker.xcoms["upstream"] = {"return_value": value}
    return StartCampaignOperator(task_id="upstream", campaign_id="cam_1").output


def writes(lemlist: Sandbox) -> list[str]:
    return [f"{each['method']} {each['route']}" for each in lemlist.requests() if each["method"] != "GET"]


def sent(lemlist: Sandbox, route: str = ADD) -> list[dict[str, Any]]:
    return [json.loads(request["request"]["body"]) for request in lemlist.requests(route)]


class TestResult:
    def test_ids_of_named_steps_and_branches_and_the_plan_are_pushed(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        task = apply(outlets=[Asset("lemlist://campaigns/all")])
        campaign_id = any_worker.run(task)
        (campaign,) = lemlist.state()["campaigns"]
        main = campaign["sequences"][campaign["sequenceId"]]["steps"]
        pushed = any_worker.xcoms["apply"]
        assert campaign_id == campaign["_id"] == task.campaign_id == pushed["campaign_id"]
        (yes, otherwise) = (branch["sequenceId"] for branch in main[1]["conditions"])
        (voice,) = campaign["sequences"][yes]["steps"]
        ids = {"opening": main[0]["_id"], "accepted": main[1]["_id"], "voice": voice["_id"]}
        assert pushed["steps"] == ids
        assert {name: pushed[name] for name in ids} == ids
        assert pushed["sequences"] == {"accepted": {"yes": yes, "otherwise": otherwise}}
        assert pushed["plan"][0] == '+ campaign "Spring 2026-11-20"'
        assert any_worker.asset_extras["lemlist://campaigns/all"] == {
            "campaign_id": campaign_id,
            "changes": 6,
        }

    def test_second_run_sends_nothing_and_returns_the_same(self, lemlist: Sandbox, any_worker: Any) -> None:
        first = any_worker.run(apply()), any_worker.xcoms["apply"]["steps"]
        any_worker.next_run()
        before = len(lemlist.requests())
        assert (any_worker.run(apply()), any_worker.xcoms["apply"]["steps"]) == first
        assert len(lemlist.requests()) == before + 2
        assert any_worker.xcoms["apply"]["plan"] == []

    def test_dry_run_shows_the_plan_and_sends_nothing(self, lemlist: Sandbox, any_worker: Any) -> None:
        assert any_worker.run(apply(dry_run=True)) is None
        assert any_worker.xcoms["apply"]["plan"][0].startswith("+ campaign")
        assert any_worker.xcoms["apply"]["steps"] == {}
        assert writes(lemlist) == []
        campaign_id = any_worker.run(apply())
        before = writes(lemlist)
        wanted = {**SPRING, "steps": SPRING["steps"][:1]}  # even what needs a permission is only told
        assert any_worker.run(apply(wanted, dry_run=True)) == campaign_id
        assert [*any_worker.xcoms["apply"]["steps"]] == ["opening"]
        assert writes(lemlist) == before

    def test_only_an_apply_that_may_change_it_has_the_campaign_as_output_and_link(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        for dry_run, outputs in ((False, 1), (True, 0)):
            task = apply(dry_run=dry_run)
            campaign_id = worker.run(task)
            assert len(task.get_openlineage_facets_on_complete(None).outputs) == outputs
            assert FoundCampaignLink().get_link(task, ti_key=None).endswith(campaign_id)  # type: ignore[arg-type]
        assert [type(link) for link in ApplyCampaignOperator.operator_extra_links] == [FoundCampaignLink]


class TestRendering:
    def test_airflow_renders_names_and_numbers_and_lemlist_the_texts(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        any_worker.run(apply())
        assert sent(lemlist, "POST /campaigns")[0]["name"] == "Spring 2026-11-20 (incomplete)"
        assert lemlist.state()["campaigns"][0]["name"] == "Spring 2026-11-20"
        assert [
            {name: step[name] for name in ("subject", "title", "delay") if name in step}
            for step in sent(lemlist)
        ] == [
            {"subject": "{{firstName}}, a question"},
            {"delay": 3},
            {},
            {"title": "Call {{firstName}} on 2026-11-20"},
            {"subject": "For {{company}}"},
        ]

    def test_data_from_upstream_is_not_rendered(self, lemlist: Sandbox, any_worker: Any) -> None:
        data = {"name": "{{ 7 * 6 }} as data", "steps": [{**Manual(title="{{firstName}}"), "delay": 1}]}
        with DAG("d", schedule=None):
            task = apply(upstream(data, any_worker))
        any_worker.run(task)
        assert sent(lemlist, "POST /campaigns") == [{"name": "{{ 7 * 6 }} as data"}]
        assert [step["title"] for step in sent(lemlist)] == ["{{firstName}}"]

    def test_steps_and_values_from_upstream_are_used(self, lemlist: Sandbox, any_worker: Any) -> None:
        with DAG("d", schedule=None):
            steps = upstream([Manual(title="{{firstName}}"), Manual(title="[[ city ]]")], any_worker)
            any_worker.xcoms["a_city"] = {"return_value": "Paris"}
            city = StartCampaignOperator(task_id="a_city", campaign_id="cam_1").output
            task = apply(Campaign(name="In [[ city ]]", steps=steps), parameters={"city": city})
        any_worker.run(task)
        assert [step["title"] for step in sent(lemlist)] == ["{{firstName}}", "Paris"]
        assert sent(lemlist, "POST /campaigns") == [{"name": "In Paris"}]


class TestEmptyValues:
    @pytest.mark.parametrize("empty", [None, "", " ", "None", float("nan")], ids=repr)
    @pytest.mark.parametrize("name", ["campaign", "parameters", "campaign_id"])
    def test_empty_argument_from_upstream_is_refused_when_the_task_runs(
        self, lemlist: Sandbox, any_worker: Any, name: str, empty: Any
    ) -> None:
        with DAG("d", schedule=None):
            task = apply(**{name: upstream(empty, any_worker)})
        with pytest.raises(LemlistValidationError, match=f"The {name} of task 'apply' is empty"):
            any_worker.run(task)
        assert not lemlist.requests()

    @pytest.mark.parametrize("empty", [None, "", "null"], ids=repr)
    def test_empty_parameter_is_refused_by_its_name(
        self, lemlist: Sandbox, any_worker: Any, empty: Any
    ) -> None:
        campaign = Campaign(name="In [[ city ]]", steps=[])
        with DAG("d", schedule=None):
            task = apply(campaign, parameters=upstream({"city": empty}, any_worker))
        with pytest.raises(LemlistValidationError, match="parameter 'city' of task 'apply' is empty"):
            any_worker.run(task)
        assert not lemlist.requests()

    @pytest.mark.parametrize("where", ["steps", "yes", "subject", "name"])
    def test_nothing_from_upstream_within_the_definition_is_refused(
        self, lemlist: Sandbox, any_worker: Any, where: str
    ) -> None:
        with DAG("d", schedule=None):
            none = upstream(None, any_worker)
            branch = Condition(
                condition_key="hasScore", delay_type="waitUntil", yes=none if where == "yes" else []
            )
            email = Email(subject=none if where == "subject" else "s", message="m")
            task = apply(
                Campaign(
                    name=none if where == "name" else "Spring",
                    steps=none if where == "steps" else [email, branch],
                )
            )
        with pytest.raises(LemlistValidationError, match=f"{where}.*has no value"):
            any_worker.run(task)
        assert not lemlist.requests()


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "webinar.yaml").write_text(YAML)
        (tmp_path / "opening.html").write_text("<p>Hi {{firstName}}</p>\n")
        return tmp_path

    @pytest.fixture
    def dag(self, folder: Path) -> Iterator[DAG]:
        with DAG("d", schedule=None) as dag:
            dag.fileloc = str(folder / "dag.py")
            yield dag

    @pytest.mark.parametrize("form", ["relative", "absolute", "PathLike", "templated", "file URL"])
    def test_path_of_a_file_may_have_any_form(
        self, lemlist: Sandbox, any_worker: Any, dag: DAG, folder: Path, form: str
    ) -> None:
        paths = {
            "relative": "webinar.yaml",
            "absolute": str(folder / "webinar.yaml"),
            "PathLike": folder / "webinar.yaml",
            "templated": "{{ 'webinar' }}.yaml",
            "file URL": f"file://{folder}/webinar.yaml",
        }
        any_worker.run(apply(paths[form], parameters={"city": "{{ 'Paris' }}"}))
        assert sent(lemlist, "POST /campaigns") == [{"name": "Webinar Paris"}]
        opening, call = sent(lemlist)
        assert (opening["subject"], opening["message"]) == (
            "{{firstName}}, a question",
            "<p>Hi {{firstName}}</p>",
        )
        assert call["title"] == "Call Paris"

    def test_mistake_is_an_import_error_with_file_line_and_field(self, dag: DAG, folder: Path) -> None:
        (folder / "webinar.yaml").write_text(YAML.replace("title:", "titel:"))
        mapped = ApplyCampaignOperator.partial(task_id="mapped", campaign="webinar.yaml")
        mistake = r"webinar\.yaml, line 9: step 2, titel: .*title"
        with pytest.raises(LemlistValidationError, match=mistake):
            apply("webinar.yaml", parameters={"city": "Paris"})
        with pytest.raises(LemlistValidationError, match=mistake):
            mapped.expand(parameters=[{"city": "Paris"}])

    def test_missing_file_and_parameter_are_import_errors(self, dag: DAG) -> None:
        with pytest.raises(LemlistValidationError, match=r"autumn\.yaml' cannot be read"):
            apply("autumn.yaml")
        with pytest.raises(LemlistValidationError, match=r"no value for \[\[ city \]\]"):
            apply("webinar.yaml", task_id="without_parameters")

    def test_file_in_an_object_storage_is_read_when_the_task_runs(
        self, lemlist: Sandbox, any_worker: Any, tmp_path: Path
    ) -> None:
        bucket.use(tmp_path)
        with DAG("d", schedule=None):
            task = apply("bucket://campaigns/spring.yaml", parameters={"city": "Paris"})
        with pytest.raises(LemlistValidationError, match="cannot be read"):
            any_worker.run(task)
        (tmp_path / "campaigns").mkdir()
        (tmp_path / "campaigns" / "spring.yaml").write_text(YAML)
        (tmp_path / "campaigns" / "opening.html").write_text("<p>From the bucket</p>")
        any_worker.run(task)
        assert sent(lemlist)[0]["message"] == "<p>From the bucket</p>"


class TestMapped:
    def tasks(self, *cities: str) -> Any:
        with DAG("d", schedule=None):
            return ApplyCampaignOperator.partial(
                task_id="apply",
                campaign=Campaign(name="In [[ city ]]", steps=[Manual(title="[[ city ]]", name="call")]),
            ).expand(parameters=[{"city": city} for city in cities])

    def test_each_index_has_its_campaign_and_its_memory(self, lemlist: Sandbox, any_worker: Any) -> None:
        mapped = self.tasks("Paris", "Rome")
        first = [any_worker.run_mapped(mapped, index) for index in range(2)]
        assert sorted(step["title"] for step in sent(lemlist)) == ["Paris", "Rome"]
        any_worker.next_run()
        before = writes(lemlist)
        assert [any_worker.run_mapped(mapped, index) for index in range(2)] == first
        assert writes(lemlist) == before
        assert [any_worker.xcoms[f"apply {index}"]["plan"] for index in range(2)] == [[], []]

    def test_campaign_that_has_moved_to_another_index_does_not_get_its_memory(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        first = [any_worker.run_mapped(self.tasks("Paris", "Rome"), index) for index in range(2)]
        any_worker.next_run()
        before = writes(lemlist)
        mapped = self.tasks("Rome", "Paris")
        assert [any_worker.run_mapped(mapped, index) for index in range(2)] == first[::-1]
        assert writes(lemlist) == before
        assert any_worker.xcoms["apply 0"]["plan"] == ["? cannot see: title of step 1"]


class TestMemory:
    def test_xcom_for_the_next_run_holds_digests_and_no_texts(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        any_worker.run(apply())
        applied = json.dumps(any_worker.xcoms["apply"]["applied"])
        # Short words may occur in the random ids.
        for text in ("question", "{{", "firstName", "linkedinInviteAccepted"):
            assert text not in applied

    def test_change_of_an_unlisted_field_is_sent_in_the_next_run(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        for title, number in (("One", 1), ("One", 0), ("Two", 1), ("Two", 0)):
            before = len(writes(lemlist))
            any_worker.run(apply(Campaign(name="Spring", steps=[Manual(title=title, name="call")])))
            assert len(writes(lemlist)) - before == number + (before == 0)
            any_worker.next_run()

    def test_dry_run_in_between_forgets_nothing(self, lemlist: Sandbox, any_worker: Any) -> None:
        campaign = Campaign(name="Spring", steps=[Manual(title="One")])
        for dry_run in (False, True, False):
            any_worker.run(apply(campaign, dry_run=dry_run))
            any_worker.next_run()
        any_worker.run(apply(campaign))
        assert any_worker.xcoms["apply"]["plan"] == []

    def test_step_of_a_failed_run_is_changed_by_the_next_one(self, lemlist: Sandbox, any_worker: Any) -> None:
        one, two = Email(subject="One", message="1"), Email(subject="Two", message="2")
        any_worker.run(apply(Campaign(name="Spring", steps=[one])))
        any_worker.next_run()
        lemlist.fault(ADD, "status", skip=1, times=5)
        with pytest.raises(LemlistServerError):
            any_worker.run(apply(Campaign(name="Spring", steps=[one, two, Manual(title="Call")])))
        any_worker.next_run()
        lemlist.clear_faults()
        two = Email(subject="Mended", message="2")
        any_worker.run(apply(Campaign(name="Spring", steps=[one, two, Manual(title="Call")])))
        (campaign,) = lemlist.state()["campaigns"]
        steps = campaign["sequences"][campaign["sequenceId"]]["steps"]
        assert [step.get("subject") for step in steps] == ["One", "Mended", None]


class TestAttempts:
    def test_retry_after_a_kill_at_any_request_ends_as_one_that_was_not_killed(
        self, lemlist: Sandbox, any_worker: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, world = Wire.send, lemlist.service.world
        left = 0

        def send(*args: Any) -> Any:
            nonlocal left
            exchange = real(*args)
            left -= 1
            if left == 0:
                raise SystemExit(1)  # as when a worker is terminated
            return exchange

        monkeypatch.setattr(Wire, "send", send)
        for at in range(1, 30):
            world.campaigns.clear()
            world.sequences.clear()
            any_worker.next_run()
            any_worker.earlier_xcoms.clear()
            left = at
            try:
                any_worker.run(apply())
                break
            except SystemExit:
                left = 0
            any_worker.run(apply(), attempt=2)
            (campaign,) = lemlist.state()["campaigns"]
            assert campaign["name"] == "Spring 2026-11-20"
            kinds = [[step["type"] for step in each["steps"]] for each in campaign["sequences"].values()]
            assert kinds == [["email", "conditional"], ["linkedinVoiceNote"], ["manual", "email"]]
            assert {*any_worker.xcoms["apply"]["steps"]} == {"opening", "accepted", "voice"}
        assert at > 10

    def test_paused_campaign_is_started_by_the_next_attempt_where_airflow_has_a_store(
        self, lemlist: Sandbox, any_worker: Any
    ) -> None:
        campaign_id = any_worker.run(apply())
        world = lemlist.service.world
        world.campaigns[campaign_id].status = "running"
        any_worker.next_run()
        wanted = {**SPRING, "steps": [*SPRING["steps"], Manual(title="More")]}
        lemlist.fault(ADD, "status", times=5)
        with pytest.raises(LemlistServerError):
            any_worker.run(apply(wanted, if_running="pause"))
        assert world.campaigns[campaign_id].status == "paused"
        any_worker.run(apply(wanted, if_running="pause"), attempt=2)
        assert world.campaigns[campaign_id].status == ("running" if any_worker.has_store else "paused")

    def test_cleared_task_sends_nothing_again(self, lemlist: Sandbox, any_worker: Any) -> None:
        any_worker.run(apply())
        before = writes(lemlist)
        any_worker.run(apply(), cleared=1)
        assert writes(lemlist) == before

    def test_kill_logs_what_was_in_flight(
        self, lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch, kill: Callable[..., None]
    ) -> None:
        task = apply()
        warnings: list[str] = []
        log = SimpleNamespace(warning=lambda text, *values: warnings.append(text % values))
        monkeypatch.setattr(type(task), "log", log)
        task.on_kill()  # before anything began
        assert warnings == []
        kill(task, "add_step")
        with pytest.raises(SystemExit):
            worker.run(task)
        task.on_kill()
        (campaign,) = lemlist.state()["campaigns"]
        assert f"apply a change to campaign {campaign['_id']}" in warnings[0]
        worker.run(again := apply(), attempt=2)
        again.on_kill()  # after everything has ended
        assert len(warnings) == 1


class TestArguments:
    @pytest.mark.parametrize("name", ["on_extra", "if_running"])
    def test_choice_that_does_not_exist_is_an_import_error(self, name: str) -> None:
        with pytest.raises(LemlistConfigurationError, match=f"{name}.*must be one of fail"):
            apply(**{name: "force"})

    def test_campaign_id_that_does_not_exist_is_an_error(self, lemlist: Sandbox, worker: Any) -> None:
        with pytest.raises(LemlistNotFoundError):
            worker.run(apply(campaign_id="cam_gone"))
        assert writes(lemlist) == []

    def test_mistake_in_a_definition_from_upstream_is_an_error_before_sending(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        with DAG("d", schedule=None):
            task = apply(upstream({"name": "Spring", "steps": [{"type": "emial"}]}, worker))
        with pytest.raises(
            LemlistValidationError, match=r"The campaign of task 'apply'.*step 1, type.*emial"
        ):
            worker.run(task)
        assert not lemlist.requests()

    def test_definition_survives_the_serialization_of_the_dag(self) -> None:
        try:
            from airflow.serialization.serialized_objects import DagSerialization as Serialization
        except ImportError:
            from airflow.serialization.serialized_objects import SerializedDAG as Serialization
        with DAG("d", schedule=None) as dag:
            apply()
            ApplyCampaignOperator.partial(task_id="mapped", campaign=SPRING).expand(campaign_id=["cam_1"])
        serialized = json.loads(json.dumps(Serialization.to_dict(dag)))
        assert Serialization.from_dict(serialized).task_dict["apply"].campaign == SPRING
