# SPDX-License-Identifier: Apache-2.0
"""``{{firstName}}`` belongs to lemlist: it is sent unrendered, however a DAG writes it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import Email, LinkedinSend, Manual
from airflow_provider_lemlist.templating import AirflowText
from tests.dags.conftest import assert_within_the_documents, states
from tests.waiting import WINDOW

pytestmark = pytest.mark.airflow

HI = "Hi {{firstName}}, how is {{ companyName }}?"
PLAIN = {"subject": "{{firstName}}, a question", "message": HI}


def write_dag(campaigns: dict[str, str]) -> DAG:
    """Return a DAG with a task for each way; ``campaigns`` are the ids, one per way."""
    dag = DAG(
        "placeholders",
        schedule=None,
        start_date=datetime(2026, 1, 1),
        params={
            "days": Param(4, type="integer"),
            "day": Param("12 March", type="string"),
            "campaigns": campaigns,
        },
    )

    def place(way: str) -> dict[str, str]:
        return {"task_id": way, "campaign_id": f"{{{{ params.campaigns.{way} }}}}"}

    with dag:

        @task
        def step_from_upstream() -> dict[str, Any]:
            return {"type": "email", **PLAIN}

        @task
        def steps_from_upstream() -> list[dict[str, Any]]:
            return [{"type": "email", **PLAIN, "index": -1}, dict(Manual(title=HI))]

        @task
        def message_from_upstream() -> str:
            return HI

        @task
        def leads_from_upstream() -> list[dict[str, str]]:
            return [{"email": f"{name}@example.com", "icebreaker": HI} for name in ("ada", "grace")]

        AddStepOperator(**place("as_dict"), step={"type": "email", **PLAIN})
        AddStepOperator(**place("as_typed_step"), step=LinkedinSend(message=HI, alt_message=HI))
        AddStepOperator.partial(**place("expanded"), max_active_tis_per_dag=1).expand(
            step=[Email(**PLAIN), Manual(title=HI, message=HI)]
        )
        AddStepOperator(**place("from_upstream"), step=step_from_upstream())
        AddStepOperator.partial(**place("expanded_from_upstream"), max_active_tis_per_dag=1).expand(
            step=steps_from_upstream()
        )
        AddStepOperator(
            **place("with_a_text_from_upstream"),
            step=Email(subject=PLAIN["subject"], message=message_from_upstream()),
        )
        AddStepOperator(
            **place("with_airflow_values"),
            step=Email(
                subject="{{firstName}}",
                message=AirflowText("Hi {{firstName}}, see you on [[ params.day ]]"),
                delay="{{ params.days }}",
            ),
        )
        ada = {"email": "ada@example.com", "icebreaker": HI}
        CreateLeadOperator(**place("lead_as_dict"), lead=ada)
        CreateLeadOperator.partial(**place("lead_expanded")).expand(lead=[ada])
        CreateLeadOperator.partial(**place("lead_from_upstream")).expand(lead=leads_from_upstream())
        CreateLeadOperator(
            **place("lead_with_airflow_values"),
            lead={"email": AirflowText("[[ params.day | replace(' ', '.') ]]@example.com"), "icebreaker": HI},
        )
    return dag


WAYS = (
    "as_dict",
    "as_typed_step",
    "expanded",
    "from_upstream",
    "expanded_from_upstream",
    "with_a_text_from_upstream",
    "with_airflow_values",
    "lead_as_dict",
    "lead_expanded",
    "lead_from_upstream",
    "lead_with_airflow_values",
)


class Stored:
    """The contents of the sandbox after the run, by way."""

    def __init__(self, state: dict[str, Any], campaigns: dict[str, str]) -> None:
        self._campaigns = {each["_id"]: each for each in state["campaigns"]}
        self._leads = state["leads"]
        self._ids = campaigns

    def steps(self, way: str) -> list[dict[str, Any]]:
        campaign = self._campaigns[self._ids[way]]
        steps: list[dict[str, Any]] = campaign["sequences"][campaign["sequenceId"]]["steps"]
        return steps

    def leads(self, way: str) -> list[dict[str, str]]:
        return [lead["variables"] for lead in self._leads if lead["campaignId"] == self._ids[way]]


@pytest.fixture(scope="module")
def stored(run) -> Iterator[Stored]:
    with Sandbox(window=WINDOW) as lemlist, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        campaigns = {way: lemlist.campaign(way)["_id"] for way in WAYS}
        dag_run = run(write_dag(campaigns))
        assert {state for each in states(dag_run).values() for state in each} == {"success"}
        assert_within_the_documents(lemlist)
        yield Stored(lemlist.state(), campaigns)


@pytest.mark.parametrize("way", ["as_dict", "from_upstream", "with_a_text_from_upstream"])
def test_step_is_sent_unrendered(stored: Stored, way: str):
    [step] = stored.steps(way)
    assert {name: step[name] for name in PLAIN} == PLAIN


def test_typed_step_is_sent_unrendered(stored: Stored):
    [step] = stored.steps("as_typed_step")
    assert (step["type"], step["message"], step["altMessage"]) == ("linkedinSend", HI, HI)


@pytest.mark.parametrize("way", ["expanded", "expanded_from_upstream"])
def test_expanded_steps_are_sent_unrendered(stored: Stored, way: str):
    email, manual = sorted(stored.steps(way), key=lambda step: step["type"])
    assert {name: email[name] for name in PLAIN} == PLAIN
    assert manual["title"] == HI


def test_airflow_text_is_rendered_beside_placeholders(stored: Stored):
    [step] = stored.steps("with_airflow_values")
    assert step["subject"] == "{{firstName}}"
    assert step["message"] == "Hi {{firstName}}, see you on 12 March"
    assert step["delay"] == 4


@pytest.mark.parametrize(
    ("way", "emails"),
    [
        ("lead_as_dict", ["ada@example.com"]),
        ("lead_expanded", ["ada@example.com"]),
        ("lead_from_upstream", ["ada@example.com", "grace@example.com"]),
        ("lead_with_airflow_values", ["12.March@example.com"]),
    ],
)
def test_values_of_lead_are_sent_unrendered(stored: Stored, way: str, emails: list[str]):
    leads = stored.leads(way)
    assert sorted(lead["email"] for lead in leads) == emails
    assert {lead["icebreaker"] for lead in leads} == {HI}
