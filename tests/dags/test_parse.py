# SPDX-License-Identifier: Apache-2.0
"""Parsing of DAG files: the examples have no errors, and an error names its task."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dags.conftest import EXAMPLES, HAS_APPROVAL, dag_bag
from tools.private_airflow import AIRFLOW_3

pytestmark = pytest.mark.airflow

HEAD = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_lemlist.operators.campaign import (
    CampaignGuardOperator, CreateCampaignOperator, LaunchLeadsOperator,
)
from airflow_provider_lemlist.operators.lead import (
    CreateLeadOperator, UploadVoiceAudioOperator, UploadVoiceAudiosOperator,
)
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.sensors.campaign import CampaignStatsSensor
from airflow_provider_lemlist.steps import Condition, Email
with DAG("wrong", schedule=None, start_date=datetime(2026, 1, 1)):
"""

#: Examples that change nothing in lemlist.
ONLY_READ = {"lemlist_on_reply", "lemlist_to_warehouse"}
#: Examples whose file has a DAG only on some versions of Airflow, and whether it has one on this version: one
#: needs asset watchers, the other ApprovalOperator.
HAS_DAG = {"lemlist_on_reply": AIRFLOW_3, "lemlist_launch_with_approval": HAS_APPROVAL}


def test_the_examples_have_no_import_errors():
    bag = dag_bag(EXAMPLES)
    assert bag.import_errors == {}
    assert {"lemlist_outreach", "lemlist_mapped_leads", "lemlist_voice_notes"} <= set(bag.dags)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_each_example_is_documented_and_runs_only_when_triggered_unless_it_only_reads(file: Path):
    bag = dag_bag(file)
    if not HAS_DAG.get(file.stem, True):
        assert (bag.dags, bag.import_errors) == ({}, {})
        return
    [dag] = bag.dags.values()
    assert dag.dag_id == file.stem
    docstring = ast.get_docstring(ast.parse(file.read_text()), clean=False)
    assert docstring
    assert dag.doc_md in (None, docstring)
    is_scheduled = type(dag.timetable).__name__ != "NullTimetable"
    assert is_scheduled == (file.stem in ONLY_READ)


def test_parsing_the_examples_uses_neither_network_nor_disk(tmp_path: Path):
    code = f"""
import sys
from datetime import datetime
from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, DAG, Param, task
# First, everything that Airflow itself does for any DAG.
with DAG("warm", schedule=None, start_date=datetime(2026, 1, 1), params={{"some": Param("", type="string")}}):
    BaseOperator(task_id="operator") >> BaseSensorOperator(task_id="sensor")
    task(multiple_outputs=False)(len)([])
before = set(sys.modules)
def watch(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        raise SystemExit(f"writes {{args[0]}}")
    if event in ("socket.connect", "sqlite3.connect", "subprocess.Popen"):
        raise SystemExit(f"{{event}} {{args[:2]}}")
sys.dont_write_bytecode = True
sys.addaudithook(watch)
sys.path.insert(0, {os.fspath(EXAMPLES)!r})
for name in {[file.stem for file in EXAMPLES.glob("*.py")]}:
    __import__(name)
heavy = {{"requests", "sqlite3", "redis", "pyarrow", "starlette", "airflow_provider_lemlist.hooks.lemlist"}}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    read = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=False, timeout=120
    )
    assert (read.returncode, read.stdout.splitlines()[-1:]) == (0, ["[]"]), read.stdout + read.stderr


def step(task_id: str, step: str) -> str:
    return f"AddStepOperator(task_id={task_id!r}, campaign_id='cam_1', step={step})"


def lead(task_id: str, lead: str) -> str:
    return f"CreateLeadOperator(task_id={task_id!r}, campaign_id='cam_1', lead={lead})"


def mapped(operator: str, partial: str, over: str) -> str:
    return f"{operator}.partial(task_id='many', {partial}).{over}"


FINE = "Email(subject='x', message='y')"


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (step("hello", "{'type': 'emial', 'subject': 'Hi'}"), ["'hello'", "'emial'", "'email'"]),
        (step("hello", "Email(subject='x' * 401, message='y')"), ["'hello'", "subject", "400"]),
        (
            step("fork", "Condition(condition_key='emailOpened', delay_type='within')"),
            ["'fork'", "conditionKey", "'emailsOpened'", "delay"],
        ),
        ("AddStepOperator(task_id='lost', step=Email(subject='x', message='y'))", ["'lost'", "campaign_id"]),
        (lead("put", "{'email': 'no address'}"), ["'put'", "email"]),
        (lead("put", "{'email': 'a@b.io', 'firstname': 'A'}"), ["'put'", "firstname", "'firstName'"]),
        (
            "UploadVoiceAudioOperator(task_id='say', lead_id='', step_id='stp_1', audio='a.m4a')",
            ["'say'", "lead_id"],
        ),
        (
            "UploadVoiceAudiosOperator(task_id='sing', campaign_id='c', step_id='s', audio={' ': 'a'})",
            ["'sing'", "lead id"],
        ),
        (
            "CreateCampaignOperator(task_id='new', name='x', campaign_timezone='Paris')",
            ["'new'", "campaign_timezone", "IANA"],
        ),
        (
            "CampaignGuardOperator(task_id='guard', campaign_id='cam_1', max_bounce_rate=3)",
            ["'guard'", "max_bounce_rate", "0.03"],
        ),
        (
            "CampaignStatsSensor(task_id='wait', campaign_id='cam_1', metric='repled', above=1)",
            ["'wait'", "metric", "'replied'"],
        ),
        (
            "LaunchLeadsOperator(task_id='go', campaign_id='cam_1', max_leads=0)",
            ["'go'", "max_leads", "from 1"],
        ),
        (
            mapped("AddStepOperator", "campaign_id='cam_1'", f"expand(step=[{FINE}, {{'type': 'emial'}}])"),
            ["'many'", "'emial'"],
        ),
        (
            mapped("AddStepOperator", "step={'type': 'emial'}", "expand(campaign_id=['cam_1'])"),
            ["'many'", "'emial'"],
        ),
        (
            mapped("LaunchLeadsOperator", "max_leads=5", "expand(campaign_id=['cam_1', ''])"),
            ["'many'", "campaign_id", "empty"],
        ),
        (
            mapped("CreateLeadOperator", "campaign_id='cam_1'", "expand_kwargs([{'lead': {'email': 'no'}}])"),
            ["'many'", "email"],
        ),
    ],
    ids=[
        "type",
        "long",
        "condition",
        "place",
        "address",
        "typo",
        "id",
        "ids",
        "zone",
        "percent",
        "metric",
        "launch",
        "mapped",
        "partial",
        "mapped launch",
        "kwargs",
    ],
)
def test_an_invalid_argument_is_an_import_error_that_names_the_task(
    tmp_path: Path, task: str, expected: list[str]
):
    (tmp_path / "wrong.py").write_text(f"{HEAD}    {task}\n")
    bag = dag_bag(tmp_path)
    assert not bag.dags
    [error] = bag.import_errors.values()
    last = error.strip().splitlines()[-1]
    assert [word for word in expected if word not in last] == [], last


def test_a_template_is_valid(tmp_path: Path):
    email = "{'type': 'email', 'subject': '{{firstName}}', 'message': 'x', 'delay': '{{ params.days }}'}"
    (tmp_path / "right.py").write_text(f"{HEAD}    {step('later', email)}\n")
    assert dag_bag(tmp_path).import_errors == {}


@pytest.mark.parametrize(
    "task",
    [
        mapped("AddStepOperator", "retries=1", f"expand(step=[{FINE}])"),
        mapped("OfAText", "retries=1", "expand(text=['x', 'y'])"),
        mapped(
            "CreateLeadOperator",
            "variables=['firstname']",
            "expand(lead=[{'email': 'a@b.io', 'firstname': 'A'}])",
        ),
        mapped("CreateLeadOperator", "retries=1", "expand(lead=BaseOperator(task_id='first').output)"),
    ],
    ids=["default_args", "subclass", "variables", "upstream"],
)
def test_arguments_that_a_mapped_task_gets_in_another_way_are_valid(tmp_path: Path, task: str):
    head = HEAD.replace("datetime(2026, 1, 1)", "datetime(2026, 1, 1), default_args={'campaign_id': 'cam_1'}")
    (tmp_path / "right.py").write_text(f"""{head}
    from airflow.providers.common.compat.sdk import BaseOperator
    class OfAText(AddStepOperator):
        def __init__(self, *, text, **more):
            super().__init__(step=Email(subject=text, message=text), **more)
    {task}
""")
    assert dag_bag(tmp_path).import_errors == {}
