# SPDX-License-Identifier: Apache-2.0
"""The DAG of the README."""

from __future__ import annotations

import pytest

from tests.dags.conftest import EXAMPLES, dag_bag, states, xcom

pytestmark = pytest.mark.airflow


def test_the_dag_of_the_readme_adds_a_step_and_a_lead_and_receives_the_reply(lemlist, run, monkeypatch):
    campaign = lemlist.campaign("Mine", status="running", auto_review=True)
    dag = dag_bag(EXAMPLES).dags["lemlist_first_lead"]
    monkeypatch.setattr(dag.task_dict["reply"], "poke_interval", 0.2)
    lemlist.simulate(opens=1, replies=1, speed=20)
    dag_run = run(dag, campaign_id=campaign["_id"])
    assert states(dag_run) == {"step": ["success"], "lead": ["success"], "reply": ["success"]}
    state = lemlist.state()
    (lead,) = state["leads"]
    (step,) = state["campaigns"][0]["sequences"][campaign["sequenceId"]]["steps"]
    assert (xcom(dag_run, "lead"), xcom(dag_run, "step")) == (lead["_id"], step["_id"])
    assert step["subject"] == "{{firstName}}, a question"
    assert xcom(dag_run, "reply")[0]["type"].endswith("Replied")


def test_second_run_of_the_dag_of_the_readme_adds_nothing(lemlist, run, monkeypatch):
    campaign = lemlist.campaign("Mine", status="running", auto_review=True)
    lemlist.simulate(opens=1, replies=1, speed=20)
    returned = []
    for _ in range(2):
        dag = dag_bag(EXAMPLES).dags["lemlist_first_lead"]
        monkeypatch.setattr(dag.task_dict["reply"], "poke_interval", 0.2)
        dag_run = run(dag, campaign_id=campaign["_id"])
        returned.append((xcom(dag_run, "step"), xcom(dag_run, "lead")))
    assert returned[0] == returned[1]
    assert len(lemlist.requests("POST /sequences/{sequenceId}/steps")) == 1
    assert len(lemlist.state()["leads"]) == 1
