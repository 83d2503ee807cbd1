# SPDX-License-Identifier: Apache-2.0
"""The DAG at the top of each page of docs/operators is parsed and run as it stands, against the sandbox."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import dag_bag, states, xcom
from tools.pictures import PAGES, write_dags
from tools.private_airflow import AIRFLOW_3

pytestmark = pytest.mark.airflow

#: Needs the assets of Airflow 3.
OF_AIRFLOW_3 = "activity-event-trigger"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_dags(folder)
    if not AIRFLOW_3:
        (folder / f"{OF_AIRFLOW_3.replace('-', '_')}.py").unlink()
    return folder


@pytest.fixture(scope="module")
def dags(folder: Path) -> dict[str, Any]:
    bag = dag_bag(folder)
    assert bag.import_errors == {}
    found: dict[str, Any] = bag.dags
    return found


@pytest.fixture
def warehouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the database of the connection ``warehouse``."""
    file = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    return file


def ready_campaign(lemlist: Sandbox, status: str = "draft") -> tuple[str, dict[str, Any]]:
    """Return the id of a campaign with an email step, and a lead in it."""
    campaign = lemlist.campaign("Spring webinar", status=status)
    lemlist.step(campaign["sequenceId"], "email", subject="A question", message="<p>Shall we talk?</p>")
    return campaign["_id"], lemlist.lead(campaign["_id"], "ada@example.com", firstName="Ada")


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    [row] = rows
    return row


def succeeded(dag_run: Any) -> Any:
    assert {state for each in states(dag_run).values() for state in each} == {"success"}
    return dag_run


def test_every_page_begins_with_a_dag_of_its_operator(dags) -> None:
    expected = set(PAGES) if AIRFLOW_3 else set(PAGES) - {OF_AIRFLOW_3}
    assert {dag_id.replace("_", "-") for dag_id in dags} == expected
    for name in expected:
        page = PAGES[name].read_text()
        title = page.partition("\n")[0].removeprefix("# ")
        assert re.search(rf"^ +(\w+ = )?{title}\(|= {title}\(", page, re.M), name


def test_campaign_is_applied(lemlist: Sandbox, dags, run):
    dag_run = succeeded(run(dags["apply_campaign"]))
    campaign = only(lemlist.state()["campaigns"])
    assert (campaign["name"], campaign["_id"]) == ("Spring webinar", xcom(dag_run, "campaign"))
    assert [step["type"] for step in campaign["sequences"][campaign["sequenceId"]]["steps"]] == [
        "email",
        "linkedinInvite",
    ]


def test_campaign_is_created(lemlist: Sandbox, dags, run):
    dag_run = succeeded(run(dags["create_campaign"]))
    campaign = only(lemlist.state()["campaigns"])
    assert campaign["_id"] == xcom(dag_run, "campaign")
    assert campaign["name"].startswith("Outreach ")


def test_campaign_is_started_and_paused(lemlist: Sandbox, dags, run):
    campaign_id, _ = ready_campaign(lemlist)
    for dag_id, status in (("start_campaign", "running"), ("pause_campaign", "paused")):
        succeeded(run(dags[dag_id], campaign_id=campaign_id))
        assert only(lemlist.state()["campaigns"])["status"] == status


def test_lead_is_launched(lemlist: Sandbox, dags, run):
    campaign_id, lead = ready_campaign(lemlist)
    dag_run = succeeded(run(dags["launch_leads"], campaign_id=campaign_id))
    assert xcom(dag_run, "launch", "lead_ids") == [lead["_id"]]


def test_guard_and_sensor_read_the_figures(lemlist: Sandbox, dags, run):
    campaign_id, lead = ready_campaign(lemlist, "running")
    succeeded(run(dags["campaign_guard"], campaign_id=campaign_id))
    for _ in range(20):
        lemlist.activity(lead_id=lead["_id"], type="emailsSent")
    dag_run = succeeded(run(dags["campaign_stats_sensor"], campaign_id=campaign_id))
    assert xcom(dag_run, "first_sent")["value"] == 20


def test_lead_and_steps_are_created(lemlist: Sandbox, dags, run):
    campaign = lemlist.campaign()
    lead = succeeded(run(dags["create_lead"], campaign_id=campaign["_id"]))
    steps = succeeded(run(dags["add_step"], campaign_id=campaign["_id"]))
    state = lemlist.state()
    assert only(state["leads"])["_id"] == xcom(lead, "lead")
    listed = only(state["campaigns"])["sequences"][campaign["sequenceId"]]["steps"]
    assert [step["_id"] for step in listed] == [xcom(steps, "opening"), xcom(steps, "invite")]


def test_voice_notes_are_uploaded(lemlist: Sandbox, dags, run, folder: Path, tmp_path: Path):
    campaign = lemlist.campaign()
    one = succeeded(run(dags["upload_voice_audio"], campaign_id=campaign["_id"]))
    assert only(lemlist.state()["audio"])["leadId"] == xcom(one, "lead")

    step_id = xcom(one, "step")
    leads = [lemlist.lead(campaign["_id"], f"{name}@example.com")["_id"] for name in ("grace", "hedy")]
    for lead_id in leads:
        shutil.copy(folder / "voice_notes" / "ada.m4a", tmp_path / f"{lead_id}.m4a")
    many = run(
        dags["upload_voice_audios"], campaign_id=campaign["_id"], step_id=step_id, folder=str(tmp_path)
    )
    assert xcom(succeeded(many), "upload")["uploaded"] == 2
    assert {audio["leadId"] for audio in lemlist.state()["audio"]} == {xcom(one, "lead"), *leads}


def test_leads_are_loaded(lemlist: Sandbox, dags, run):
    campaign_id = lemlist.campaign()["_id"]
    report = xcom(succeeded(run(dags["load_leads"], campaign_id=campaign_id)), "load")
    assert report["created"] == len(lemlist.state()["leads"]) > 0


def test_unsubscribes_are_synced(lemlist: Sandbox, dags, run, warehouse: Path):
    with closing(sqlite3.connect(warehouse)) as database, database:
        database.execute("CREATE TABLE opt_outs (email TEXT)")
        database.execute("CREATE TABLE do_not_contact (domain TEXT)")
        database.execute("INSERT INTO opt_outs VALUES ('ada@example.com')")
        database.execute("INSERT INTO do_not_contact VALUES ('competitor.example')")
    assert xcom(succeeded(run(dags["sync_unsubscribes"])), "opt_outs")["unsubscribed"] == 2


def test_sensor_returns_the_reply(lemlist: Sandbox, dags, run, monkeypatch):
    dag = dags["activity_sensor"]
    monkeypatch.setattr(dag.task_dict["reply"], "poke_interval", 0.5)
    lemlist.simulate(opens=1, clicks=0, replies=1, speed=10)
    campaign_id, lead = ready_campaign(lemlist, "running")
    reply = only(xcom(succeeded(run(dag, campaign_id=campaign_id)), "reply"))
    assert (reply["type"], reply["leadId"]) == ("emailsReplied", lead["_id"])


def test_activities_are_written_into_files_and_a_table(
    lemlist: Sandbox, dags, run, monkeypatch, tmp_path: Path, warehouse: Path
):
    monkeypatch.setenv("AIRFLOW_VAR_LEMLIST_LAKE", str(tmp_path / "lake"))
    ready_campaign(lemlist, "running")
    lemlist.fill_activities(50, time.time() - 20 * 3600, time.time())
    files = succeeded(run(dags["lemlist_to_object_storage"]))
    assert xcom(files, "activities")["rows"] == 50
    assert list((tmp_path / "lake").glob("activities/day=*/*.parquet"))
    succeeded(run(dags["lemlist_to_sql"]))
    with closing(sqlite3.connect(warehouse)) as database:
        assert database.execute("SELECT count(*) FROM lemlist_activities").fetchone() == (50,)


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no asset watchers")
def test_asset_is_watched_and_a_run_by_hand_finds_no_replies(lemlist: Sandbox, dags, run):
    dag = dags["activity_event_trigger"]
    assert xcom(succeeded(run(dag)), "leads_who_replied") == []
