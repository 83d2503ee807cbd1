# SPDX-License-Identifier: Apache-2.0
"""Campaigns as code, as the docs show them, in real Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_lemlist.campaigns.files import read_document
from tests.dags.conftest import EXAMPLES, dag_bag, states, xcom

pytestmark = pytest.mark.airflow

DAGS = Path(__file__).with_name("campaigns")


def test_definition_in_python_is_the_one_in_yaml():
    dag = dag_bag(DAGS).dags["spring_webinar"]
    in_yaml = read_document("campaigns/spring_webinar.yaml", str(EXAMPLES)).definition
    assert dag.task_dict["campaign"].campaign == in_yaml


def test_several_campaigns_of_one_file_each_keep_their_own_steps(lemlist, run):
    dag = dag_bag(DAGS).dags["webinars"]
    for _ in range(2):
        dag_run = run(dag)
        assert {state for each in states(dag_run).values() for state in each} == {"success"}
    state = lemlist.state()
    delays = {}
    for campaign in state["campaigns"]:
        email, voice = campaign["sequences"][campaign["sequenceId"]]["steps"]
        delays[campaign["name"]] = email["delay"]
        assert {audio["stepId"] for audio in state["audio"] if audio["campaignId"] == campaign["_id"]} == {
            voice["_id"]
        }
    assert delays == {"Webinar in Lyon": 2, "Webinar in Oslo": 3}
    assert [xcom(dag_run, "webinar.campaign", "plan", index) for index in (0, 1)] == [[], []]
