# SPDX-License-Identifier: Apache-2.0
"""Airflow renders what is Airflow's, lemlist what is lemlist's, and each only that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, literal
from jinja2 import UndefinedError

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.templating import AirflowText, is_open


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
    def test_square_brackets_are_airflows(self, native: bool, written: str, expected: str) -> None:
        assert rendered({"type": "phone", "message": AirflowText(written)}, native=native) == {
            "type": "phone",
            "message": expected,
        }

    def test_they_are_so_in_a_list_too(self, native: bool) -> None:
        images = [
            "https://cdn.example.com/{{ ds_nodash }}.png",
            AirflowText("https://x.example.com/[[ ds_nodash ]].png"),
        ]
        assert rendered({"type": "linkedinInvite", "images": images}, native=native)["images"] == [
            "https://cdn.example.com/20261120.png",
            "https://x.example.com/20261120.png",
        ]

    def test_a_name_that_airflow_does_not_know_fails(self, native: bool) -> None:
        with pytest.raises(UndefinedError):
            rendered({"type": "phone", "message": AirflowText("[[ firstName ]]")}, native=native)


@pytest.mark.parametrize("native", [False, True], ids=["as text", "native"])
def test_a_rendered_number_is_a_number_and_a_rendered_text_a_text(native: bool) -> None:
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


def test_a_literal_is_taken_as_it_is_wherever_it_stands() -> None:
    step = {"type": "api", "method": "GET", "url": literal("https://x.example.com/?n={{firstName}}")}
    assert rendered(step)["url"] == "https://x.example.com/?n={{firstName}}"


def test_the_step_in_the_dag_file_is_not_changed_by_rendering() -> None:
    step = {"type": "phone", "delay": "{{ 1 + 2 }}", "message": AirflowText("[[ ds_nodash ]]")}
    before = json.dumps(step)
    rendered(step)
    assert json.dumps(step) == before


def test_an_airflow_text_survives_what_airflow_does_to_a_dag() -> None:
    assert json.loads(json.dumps(AirflowText("[[ ds ]]"))) == {"airflow": "[[ ds ]]"}


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
def test_what_is_known_only_at_run_time_is_open(value: Any, rendered_there: bool, expected: bool) -> None:
    assert is_open(value, rendered=rendered_there) is expected


def test_an_xcom_is_open() -> None:
    with DAG("d", schedule=None):
        upstream = CreateLeadOperator(task_id="up", campaign_id="cam_1", lead={"firstName": "Ana"})
    assert is_open(upstream.output)
    assert is_open([upstream.output["lead"]], rendered=False)
