# SPDX-License-Identifier: Apache-2.0
"""A definition says the same in Python and in YAML, and Airflow can carry it."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG
from airflow.serialization.serialized_objects import BaseSerialization
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.campaigns import Campaign
from airflow_provider_lemlist.campaigns.checks import mistakes
from airflow_provider_lemlist.campaigns.definition import (
    SETTINGS,
    UNKNOWN,
    Setting,
    fill,
    parameters_in,
    plain_step,
    show_path,
    walk,
)
from airflow_provider_lemlist.campaigns.export import to_yaml
from airflow_provider_lemlist.campaigns.files import parse_yaml
from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.steps import CATALOGUE, Condition, Email, LinkedinVisit, Sms
from tests.unit.test_steps import TYPED, VALID, snake

EMAIL = Email(subject="{{firstName}}, a question", message="Hi", name="opening")
SPRING = Campaign(
    name="Spring webinar",
    campaign_timezone="Europe/Paris",
    stop_on_reply=True,
    auto_review=False,
    send_user_ids=["usr_1"],
    tracking={"trackOpens": False},
    steps=[
        LinkedinVisit(),
        EMAIL,
        Condition(
            condition_key="linkedinInviteAccepted",
            delay_type="within",
            delay=3,
            name="accepted",
            yes=[Sms(message="s", name="sms")],
            otherwise=[
                Condition(condition_key="hasScore", delay_type="waitUntil", otherwise=[Sms(message="t")])
            ],
        ),
    ],
)


class TestCampaign:
    def test_python_names_become_those_of_lemlist(self) -> None:
        assert dict(SPRING) == {
            "name": "Spring webinar",
            "timezone": "Europe/Paris",
            "stopOnEmailReplied": True,
            "autoReview": False,
            "sendUserIds": ["usr_1"],
            "tracking": {"trackOpens": False},
            "steps": SPRING["steps"],
        }

    def test_argument_that_is_none_is_left_out(self) -> None:
        assert Campaign(name="a", steps=[], stop_on_reply=None, labels=None) == {"name": "a", "steps": []}

    def test_steps_that_are_none_stay_and_are_refused(self) -> None:
        campaign = Campaign(name="a", steps=None)  # type: ignore[arg-type]  # the mistake under test
        assert [mistake.path for mistake in mistakes(campaign, {})] == [("steps",)]

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("send_user_id", "send_user_ids"),
            ("sendUserIds", "send_user_ids"),
            ("timezone", "campaign_timezone"),
            ("stop_on_email_replied", "stop_on_reply"),
            ("autoReview", "auto_review"),
        ],
    )
    def test_unknown_argument_is_a_type_error_with_a_hint(self, wrong: str, meant: str) -> None:
        with pytest.raises(TypeError, match=f"argument '{wrong}' \\(did you mean '{meant}'\\?\\)"):
            Campaign(name="a", steps=[], **{wrong: True})

    def test_unknown_argument_without_a_near_one_is_a_type_error_too(self) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'$"):
            Campaign(name="a", steps=[], colour="red")

    def test_copies_are_equal_and_of_their_own(self) -> None:
        for again in (copy.deepcopy(SPRING), pickle.loads(pickle.dumps(SPRING))):
            assert again == SPRING
            assert type(again) is Campaign
            assert again["steps"][2]["yes"] is not SPRING["steps"][2]["yes"]

    def test_json_of_it_is_the_definition(self) -> None:
        assert json.loads(json.dumps(SPRING)) == SPRING


# --- In Airflow -------------------------------------------------------------------------------------------


class TestAirflow:
    def test_airflow_serializes_it(self) -> None:
        assert BaseSerialization.deserialize(BaseSerialization.serialize(SPRING)) == SPRING

    def test_airflow_renders_it_and_leaves_the_dag_file_as_it_is(self) -> None:
        campaign = Campaign(name="Spring {{ ds }}", steps=SPRING["steps"])
        before = copy.deepcopy(campaign)
        with DAG("a_dag"):
            task = ApplyCampaignOperator(task_id="apply", campaign=campaign)
        task.render_template_fields({"ds": "2026-11-20"})  # type: ignore[typeddict-item]  # all it needs
        assert task.campaign == {**campaign, "name": "Spring 2026-11-20"}
        assert campaign == before

    def test_airflow_expands_over_it(self) -> None:
        other = Campaign(name="Autumn webinar", steps=[EMAIL])
        with DAG("a_dag"):
            mapped = ApplyCampaignOperator.partial(task_id="apply").expand(campaign=[SPRING, other])
        assert BaseSerialization.deserialize(BaseSerialization.serialize(mapped.expand_input.value)) == {
            "campaign": [SPRING, other]
        }
        task = mapped.unmap({"campaign": other})
        task.render_template_fields({})
        assert task.campaign == other


# --- Python and YAML --------------------------------------------------------------------------------------


def values(setting: Setting) -> st.SearchStrategy[Any]:
    if setting.fields:
        return st.fixed_dictionaries({}, optional={k: values(each) for k, each in setting.fields.items()})
    texts = st.sampled_from(setting.choices) if setting.choices else st.text(min_size=1, max_size=9)
    return {str: texts, bool: st.booleans(), list: st.lists(texts, max_size=2)}[setting.type]


def step_arguments(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    needed = {name: st.just(VALID[name]) for name in CATALOGUE[kind].required}
    optional = {name: st.just(VALID[name]) for name in CATALOGUE[kind].optional if name != "index"}
    return st.fixed_dictionaries(needed | {"type": st.just(kind)}, optional=optional)


def with_branches(below: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    branches = {"yes": st.lists(below, max_size=2), "otherwise": st.lists(below, max_size=2)}
    return st.tuples(step_arguments("conditional"), st.fixed_dictionaries({}, optional=branches)).map(
        lambda parts: parts[0] | parts[1]
    )


STEPS = st.recursive(st.sampled_from(sorted(CATALOGUE)).flatmap(step_arguments), with_branches, max_leaves=5)
DEFINITIONS = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=9), "steps": st.lists(STEPS, max_size=3)},
    optional={name: values(setting) for name, setting in SETTINGS.items() if name != "name"},
)
RENAMED = {"timezone": "campaign_timezone", "stopOnEmailReplied": "stop_on_reply"}


def typed(step: dict[str, Any]) -> steps.Step:
    """Return the typed step that says the same as a plain one."""
    arguments = {snake(name): value for name, value in step.items() if name != "type"}
    for branch in {"yes", "otherwise"} & arguments.keys():
        arguments[branch] = [typed(below) for below in arguments[branch]]
    return TYPED[step["type"]](**arguments)


@given(DEFINITIONS)
def test_yaml_and_python_say_the_same(definition: dict[str, Any]) -> None:
    arguments = {RENAMED.get(name) or snake(name): value for name, value in definition.items()}
    campaign = Campaign(**arguments | {"steps": [typed(step) for step in definition["steps"]]})
    assert campaign == definition == parse_yaml(to_yaml(campaign), "a.yaml").definition


# --- The tree ---------------------------------------------------------------------------------------------


def test_walk_yields_a_step_before_those_of_its_branches() -> None:
    assert [(show_path(path), step.get("type")) for path, step in walk(SPRING)] == [
        ("step 1", "linkedinVisit"),
        ("step 2", "email"),
        ("step 3", "conditional"),
        ("step 3, yes 1", "sms"),
        ("step 3, otherwise 1", "conditional"),
        ("step 3, otherwise 1, otherwise 1", "sms"),
    ]


def test_lemlist_gets_neither_name_nor_branches() -> None:
    condition = SPRING["steps"][2]
    assert plain_step(condition) == {
        "type": "conditional",
        "conditionKey": "linkedinInviteAccepted",
        "delayType": "within",
        "delay": 3,
    }


# --- Parameters -------------------------------------------------------------------------------------------


class TestParameters:
    DEFINITION: ClassVar[dict[str, Any]] = {
        "name": "[[ webinar ]] in [[place]]",
        "autoReview": "[[ review ]]",
        "tracking": {"trackOpens": "[[ opens ]]"},
        "sendUserIds": ["[[ sender ]]"],
        "scheduleIds": "[[ schedules ]]",
        "steps": [
            {"type": "sms", "delay": "[[ days ]]", "message": "{{firstName}}, [[ days ]] days"},
            {"type": "linkedinSend", "message": "[[ number ]]", "images": "[[ images ]]"},
        ],
    }

    def test_parameters_are_found_where_they_are_used_first(self) -> None:
        found = parameters_in(self.DEFINITION)
        assert {name: show_path(path) for name, path in found.items()} == {
            "webinar": "name",
            "place": "name",
            "review": "autoReview",
            "opens": "tracking, trackOpens",
            "sender": "sendUserIds 1",
            "schedules": "scheduleIds",
            "days": "step 1, delay",
            "number": "step 2, message",
            "images": "step 2, images",
        }

    @pytest.mark.parametrize("days", [3, "3"])
    @pytest.mark.parametrize("review", [True, "true"])
    def test_value_has_the_type_of_its_place(self, days: Any, review: Any) -> None:
        parameters = {
            "webinar": "Spring",
            "place": "Graz",
            "review": review,
            "opens": False,
            "sender": "usr_1",
        }
        parameters |= {
            "schedules": ["skd_1"],
            "days": days,
            "number": 5,
            "images": ["https://example.com/a.png"],
        }
        filled = fill(self.DEFINITION, parameters)
        assert filled == {
            "name": "Spring in Graz",
            "autoReview": True,
            "tracking": {"trackOpens": False},
            "sendUserIds": ["usr_1"],
            "scheduleIds": ["skd_1"],
            "steps": [
                {"type": "sms", "delay": 3, "message": "{{firstName}}, 3 days"},
                {"type": "linkedinSend", "message": "5", "images": ["https://example.com/a.png"]},
            ],
        }
        assert mistakes(self.DEFINITION, parameters) == []

    def test_text_with_an_unknown_parameter_is_unknown(self) -> None:
        filled = fill({"name": "[[ a ]] [[ b ]]", "timezone": "[[ b ]]"}, {"a": 1, "b": UNKNOWN})
        assert filled == {"name": UNKNOWN, "timezone": UNKNOWN}

    def test_parameter_without_a_value_stays(self) -> None:
        assert fill({"name": "[[ a ]] [[ b ]]"}, {"a": "x"}) == {"name": "x [[ b ]]"}

    def test_value_is_not_searched_for_parameters(self) -> None:
        assert fill({"name": "[[ a ]]"}, {"a": "[[ b ]]", "b": "x"}) == {"name": "[[ b ]]"}
