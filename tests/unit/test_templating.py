# SPDX-License-Identifier: Apache-2.0
"""Airflow renders its own templates, and leaves the placeholders of lemlist unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, literal
from jinja2 import UndefinedError

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.templating import AirflowText, airflow_name, is_open, misplaced_templates


def rendered(step: Any, *, native: bool = False, **context: Any) -> Any:
    with DAG("d", schedule=None, render_template_as_native_obj=native) as dag:
        task = AddStepOperator(task_id="t", sequence_id="seq_1", step=step)
    task.render_template_fields({"dag": dag, "ds_nodash": "20261120", **context}, dag.get_template_env())
    return task.step


@pytest.mark.parametrize("native", [False, True], ids=["as text", "native"])
class TestAirflowText:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("[[ ds_nodash ]]", "20261120"),
            ("Hi {{firstName}}, [[ ds_nodash ]]!", "Hi {{firstName}}, 20261120!"),
            ("[% if ds_nodash %]yes[% endif %] {% if plan %}lemlist's{% endif %}",
             "yes {% if plan %}lemlist's{% endif %}"),
            ("[# not seen #]{# seen #}", "{# seen #}"),
            ("two lines\n[[ ds_nodash ]]\n", "two lines\n20261120\n"),
            ("'quoted'", "'quoted'"),
            ("[1, 2]", "[1, 2]"),
            ("", ""),
        ],
        ids=repr,
    )  # fmt: skip
    def test_airflow_renders_square_brackets(self, native: bool, written: str, expected: str) -> None:
        assert rendered({"type": "phone", "message": AirflowText(written)}, native=native) == {
            "type": "phone",
            "message": expected,
        }

    def test_airflow_renders_square_brackets_in_a_list(self, native: bool) -> None:
        images = [
            "https://cdn.example.com/{{ ds_nodash }}.png",
            AirflowText("https://x.example.com/[[ ds_nodash ]].png"),
        ]
        assert rendered({"type": "linkedinInvite", "images": images}, native=native)["images"] == [
            "https://cdn.example.com/20261120.png",
            "https://x.example.com/20261120.png",
        ]

    def test_name_unknown_to_airflow_is_an_error(self, native: bool) -> None:
        with pytest.raises(UndefinedError):
            rendered({"type": "phone", "message": AirflowText("[[ firstName ]]")}, native=native)


@pytest.mark.parametrize("native", [False, True], ids=["as text", "native"])
def test_rendered_number_and_flag_get_their_type(native: bool) -> None:
    step = {
        "type": "linkedinEndorse",
        "delay": "{{ 1 + 2 }}",
        "endorseAnyFallback": "{{ 1 == 1 }}",
        "index": 4,
    }
    assert rendered(step, native=native) == {
        "type": "linkedinEndorse",
        "delay": 3,
        "endorseAnyFallback": True,
        "index": 4,
    }


def test_literal_is_not_rendered() -> None:
    step = {"type": "api", "method": "GET", "url": literal("https://x.example.com/?n={{firstName}}")}
    assert rendered(step)["url"] == "https://x.example.com/?n={{firstName}}"


def test_rendering_does_not_change_the_step_in_the_dag_file() -> None:
    step = {"type": "phone", "delay": "{{ 1 + 2 }}", "message": AirflowText("[[ ds_nodash ]]")}
    before = json.dumps(step)
    rendered(step)
    assert json.dumps(step) == before


def test_airflow_text_survives_serialization() -> None:
    assert json.loads(json.dumps(AirflowText("[[ ds ]]"))) == {"airflow": "[[ ds ]]"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{{ ds }}", "ds"),
        ("{{- ds }}", "ds"),
        ("{{ ts_nodash | upper }}", "ts_nodash"),
        ("{% if params.x %}yes{% endif %}", "params"),
        ("{% if not ds %}yes{% endif %}", "ds"),
        ("{% for each in params.list %}", "params"),
        ("{% set day = ds %}", "ds"),
        ("{%- if ds %}yes{% endif %}", "ds"),
        ("{{ macros.ds_add(ds, 1) }}", "macros"),
        ("{{ firstName ~ ds }}", "ds"),
        ("{{ firstName | default(ds) }}", "ds"),
        ("Hi {{firstName}}, {{ ti.xcom_pull('x') }}", "ti"),
        ("{{ task_instance.try_number }}", "task_instance"),
        ("{{ dag_run.conf['x'] }}", "dag_run"),
        ("{{ var['value'] }}", "var"),
        ("{{ conn.crm.host }}", "conn"),
        ("{{ data_interval_end }}", "data_interval_end"),
        ("{{ logical_date.year }}", "logical_date"),
    ],
)
def test_name_that_only_airflow_knows_is_found(text: str, name: str) -> None:
    assert airflow_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "{{firstName}}",
        "{{Company ds}}",
        "{{ firstName | default: 'ds' }}",
        "{{ads}}",
        "{{ ds.x }}",
        "{{ params }}",
        "{{conn}}",
        "{{ logical_dates }}",
        "{% if plan %}ds{% endif %}",
        "{{firstName}} (ds)",
        "{# ds #}",
        "ds, params.x",
        "",
    ],
)
def test_placeholder_of_lemlist_has_no_airflow_name(text: str) -> None:
    assert airflow_name(text) is None


def test_only_texts_that_lemlist_renders_can_contain_a_misplaced_template() -> None:
    step = {
        "subject": "News of {{ ds }}",
        "message": AirflowText("{{firstName}} [[ ds ]]"),
        "title": "{{firstName}}",
        "url": "https://x.example.com/{{ ds }}",
        "delay": 3,
    }
    (problem,) = misplaced_templates(step, lambda name: name != "url")
    assert problem.field == "subject"
    assert "'ds'" in problem.reason
    assert "AirflowText(" in problem.reason


@pytest.mark.parametrize(
    ("value", "rendered_there", "expected"),
    [
        ("text", True, False),
        ("{{ ds }}", True, True),
        ("{% if x %}{% endif %}", True, True),
        ("{{firstName}}", False, False),
        (AirflowText("x"), False, True),
        (["{{ ds }}"], True, True),
        (["{{ ds }}"], False, False),
        ({"a": ["{{ ds }}"]}, True, True),
        (literal("x"), False, True),
        ([literal("x")], False, True),
        (3, True, False),
        (None, True, False),
    ],
    ids=repr,
)
def test_value_known_only_at_run_time_is_open(value: Any, rendered_there: bool, expected: bool) -> None:
    assert is_open(value, rendered=rendered_there) is expected


def test_xcom_is_open() -> None:
    with DAG("d", schedule=None):
        upstream = CreateLeadOperator(task_id="up", campaign_id="cam_1", lead={"email": "ana@example.com"})
    assert is_open(upstream.output)
    assert is_open([upstream.output["lead"]], rendered=False)
