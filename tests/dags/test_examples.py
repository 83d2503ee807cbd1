# SPDX-License-Identifier: Apache-2.0
"""The example DAGs in real Airflow, checked by the state of the sandbox."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import EXAMPLES, dag_bag, states, xcom
from tools.brought_home import differences, lake_lines
from tools.demo import AS_CODE, DEFINITION, WAREHOUSE, add_prospects, changes_campaign, edit

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    bag = dag_bag(EXAMPLES)
    assert bag.import_errors == {}
    found: dict[str, Any] = bag.dags
    return found


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    [row] = rows
    return row


def test_outreach_builds_a_campaign_and_receives_the_reply(lemlist: Sandbox, examples, run):
    lemlist.simulate(opens=1, clicks=0, accepts=1, replies=0.5, speed=10, seed=0)
    dag_run = run(examples["lemlist_outreach"])
    assert set(states(dag_run)) == {
        "create_campaign", "lead", "opening", "invite", "condition", "voice_note", "second_email",
        "upload", "start_campaign", "reply", "mark_interested",
    }  # fmt: skip
    assert {state for each in states(dag_run).values() for state in each} == {"success"}
    state = lemlist.state()
    campaign = only(state["campaigns"])
    assert (campaign["_id"], campaign["status"]) == (xcom(dag_run, "create_campaign"), "running")

    # The steps of the DAG.
    opening, invite, condition = campaign["sequences"][campaign["sequenceId"]]["steps"]
    assert [opening["_id"], invite["_id"], condition["_id"]] == [
        xcom(dag_run, task_id) for task_id in ("opening", "invite", "condition")
    ]
    assert opening["subject"] == "{{firstName}}, a question about {{companyName}}"
    assert opening["message"] == "<p>Hi {{firstName}},</p><p>who looks after your {{favouriteEngine}}?</p>"
    assert (invite["type"], invite["delay"]) == ("linkedinInvite", 2)
    assert (condition["conditionKey"], condition["delayType"], condition["delay"]) == (
        "linkedinInviteAccepted",
        "within",
        3,
    )
    accepted, fallback = condition["conditions"]
    assert accepted["sequenceId"] == xcom(dag_run, "condition", "linkedinInviteAccepted")
    assert fallback["sequenceId"] == xcom(dag_run, "condition", "fallback")
    voice_note = only(campaign["sequences"][accepted["sequenceId"]]["steps"])
    second_email = only(campaign["sequences"][fallback["sequenceId"]]["steps"])
    assert (voice_note["type"], voice_note["_id"]) == ("linkedinVoiceNote", xcom(dag_run, "voice_note"))
    assert second_email["message"] == "<p>Our webinar is on 12 March. May I save you a seat?</p>"

    # The lead, the voice note, and the reply.
    lead = only(state["leads"])
    assert lead["_id"] == xcom(dag_run, "lead")
    assert lead["variables"]["favouriteEngine"] == "Difference Engine No. 2"
    assert lead["state"] == "manualInterested"
    audio = only(state["audio"])
    assert (audio["leadId"], audio["stepId"]) == (lead["_id"], voice_note["_id"])
    assert audio["size"] == (EXAMPLES / "voice_notes" / "ada.m4a").stat().st_size
    assert audio["url"] == xcom(dag_run, "upload")
    reply = only(xcom(dag_run, "reply"))
    assert (reply["type"], reply["leadId"]) == ("linkedinReplied", lead["_id"])

    assert [key["refused"] for key in state["limit"]["keys"].values()] == [0]


def test_each_xcom_is_under_its_documented_key(lemlist: Sandbox, examples, run):
    lemlist.simulate(opens=1, clicks=0, accepts=1, replies=1, speed=10)
    dag_run = run(examples["lemlist_outreach"])
    campaign_id = xcom(dag_run, "create_campaign")
    lead, step = xcom(dag_run, "lead", "lead"), xcom(dag_run, "condition", "step")
    assert (lead["_id"], lead["email"]) == (xcom(dag_run, "lead"), "ada@example.com")
    assert step["_id"] == xcom(dag_run, "condition")
    assert {branch.get("key", "fallback") for branch in step["conditions"]} == {
        "linkedinInviteAccepted",
        "fallback",
    }
    assert xcom(dag_run, "opening", "campaign_id") == campaign_id
    assert xcom(dag_run, "upload", "upload")["status"]["url"] == xcom(dag_run, "upload")
    # Not a part of the text: a random id may contain a short name.
    told = {value for row in xcom(dag_run, "reply") for value in row.values()}
    assert not told & {lead["email"], lead["firstName"]}


def test_mapped_leads_are_created_once_and_leads_of_another_campaign_skipped(lemlist: Sandbox, examples, run):
    elsewhere = lemlist.campaign("Autumn webinar")
    lemlist.lead(elsewhere["_id"], "grace@example.com")
    dag_run = run(examples["lemlist_mapped_leads"])
    assert str(dag_run.state) == "success"
    assert states(dag_run)["lead"] == ["skipped", "success", "success", "success", "success"]
    campaign_id = xcom(dag_run, "create_campaign")
    leads = [lead for lead in lemlist.state()["leads"] if lead["campaignId"] == campaign_id]
    assert sorted(lead["variables"]["email"] for lead in leads) == [
        f"{name}@example.com" for name in ("dorothy", "hedy", "katherine", "radia")
    ]
    katherine = only([lead for lead in leads if lead["variables"]["email"].startswith("katherine")])
    assert (katherine["variables"]["seats"], katherine["variables"]["companyName"]) == (
        "12",
        "Trajectories Ltd",
    )
    assert xcom(dag_run, "count") == 4


def test_every_voice_note_is_uploaded_for_its_own_lead(lemlist: Sandbox, examples, run):
    dag_run = run(examples["lemlist_voice_notes"])
    assert str(dag_run.state) == "success"
    state = lemlist.state()
    name_of = {lead["_id"]: lead["variables"]["firstName"].lower() for lead in state["leads"]}
    notes: dict[str, Path] = {path.stem: path for path in (EXAMPLES / "voice_notes").glob("*.m4a")}
    assert sorted(name_of.values()) == sorted(notes)
    assert {name_of[audio["leadId"]]: (audio["fileName"], audio["size"]) for audio in state["audio"]} == {
        name: (name, path.stat().st_size) for name, path in notes.items()
    }
    assert {audio["stepId"] for audio in state["audio"]} == {xcom(dag_run, "step")}


def test_a_skipped_lead_does_not_move_its_note_to_another(lemlist: Sandbox, examples, run, monkeypatch):
    # The example with deduplication: leads of other campaigns are skipped.
    dag = examples["lemlist_voice_notes"]
    monkeypatch.setitem(dag.task_dict["lead"].partial_kwargs, "deduplicate", True)
    lemlist.lead(lemlist.campaign("Autumn webinar")["_id"], "ada@example.com")
    dag_run = run(dag)
    assert str(dag_run.state) == "success"
    assert states(dag_run)["lead"] == ["skipped", "success", "success"]
    state = lemlist.state()
    name_of = {lead["_id"]: lead["variables"].get("firstName", "").lower() for lead in state["leads"]}
    assert {(name_of[audio["leadId"]], audio["fileName"]) for audio in state["audio"]} == {
        ("grace", "grace"),
        ("katherine", "katherine"),
    }


def test_a_definition_builds_its_campaign_once_and_an_edit_sends_only_what_differs(
    lemlist: Sandbox, run, tmp_path: Path
):
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    dag = dag_bag(tmp_path / f"{AS_CODE}.py").dags[AS_CODE]
    writes, plans = [], []
    for edited in (False, False, True):
        if edited:
            edit(tmp_path / DEFINITION)
        dag_run = run(dag)
        assert str(dag_run.state) == "success"
        writes.append(sum(map(changes_campaign, lemlist.requests())))
        plans.append(xcom(dag_run, "campaign", "plan"))
    assert [len(plans[0]), *plans[1:]] == [
        9,
        [],
        [
            '~ step 1 email: subject "{{firstName}}, a question" -> "{{firstName}}, an invitation"',
            "+ linkedinVisit after step 1",
        ],
    ]
    assert writes == [7, 7, 9]
    state = lemlist.state()
    campaign = only(state["campaigns"])
    assert (campaign["name"], campaign["_id"]) == ("Spring webinar", xcom(dag_run, "campaign"))
    opening, visit, invite, condition = campaign["sequences"][campaign["sequenceId"]]["steps"]
    assert opening["message"].endswith("of 30 minutes on 12 March.</p>")
    assert (visit["type"], invite["type"]) == ("linkedinVisit", "linkedinInvite")
    accepted = condition["conditions"][0]["sequenceId"]
    voice = only(campaign["sequences"][accepted]["steps"])
    assert {audio["stepId"] for audio in state["audio"]} == {voice["_id"]}
    assert only(state["leads"])["_id"] == xcom(dag_run, "lead")


def test_files_and_tables_have_every_row_of_lemlist_once_also_after_a_second_run(
    lemlist: Sandbox, examples, run, monkeypatch, tmp_path: Path
):
    lake, warehouse = tmp_path / "lake", tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_VAR_LEMLIST_LAKE", str(lake))
    connection = {"conn_type": "sqlite", "host": str(warehouse)}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    add_prospects(lemlist)
    lemlist.fill_activities(150, time.time() - 20 * 3600, time.time())
    for _ in range(2):
        dag_run = run(examples[WAREHOUSE])
        assert str(dag_run.state) == "success"
        assert xcom(dag_run, "activities_to_table")["rows"] == 150
        assert differences(lake, warehouse, lemlist.state()) == []
    assert {line.partition("=")[0] for line in lake_lines(lake)} == {
        "activities/day", "leads/night", "sequences/night",
    }  # fmt: skip

    names, *table = [line.split() for line in xcom(dag_run, "replies").splitlines()]
    assert names == ["campaign", "level", "step", "type", "replies", "people"]
    replies = [each for each in lemlist.state()["activities"] if each["type"].endswith("Replied")]
    assert sum(int(row[-2]) for row in table) == len(replies)
    assert {(*row[:2], row[-4], row[-3]) for row in table} == {
        (*name.split(), step, type)
        for name in ("Autumn webinar", "Product tour")
        for step, type in (("1", "email"), ("3", "linkedinSend"))
    }


def test_the_dag_of_the_readme_waits_for_a_reply(lemlist: Sandbox, examples, run, monkeypatch):
    dag = examples["lemlist_first_lead"]
    monkeypatch.setattr(dag.task_dict["reply"], "poke_interval", 0.5)
    lemlist.simulate(opens=1, clicks=0, replies=1, speed=10)
    campaign = lemlist.campaign(status="running")
    dag_run = run(dag, campaign_id=campaign["_id"])
    assert states(dag_run) == {"step": ["success"], "lead": ["success"], "reply": ["success"]}
    state = lemlist.state()
    step = only(only(state["campaigns"])["sequences"][campaign["sequenceId"]]["steps"])
    assert (step["_id"], step["subject"]) == (xcom(dag_run, "step"), "{{firstName}}, a question")
    assert only(state["leads"])["_id"] == xcom(dag_run, "lead")
    assert only(xcom(dag_run, "reply"))["type"] == "emailsReplied"
