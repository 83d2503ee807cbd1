# SPDX-License-Identifier: Apache-2.0
"""``[lemlist] hide_personal_data``: what operators show to Airflow holds ids, counts and reasons."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_lemlist import exceptions
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.operators.campaign import ApplyCampaignOperator
from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.operators.unsubscribe import SyncUnsubscribesOperator
from airflow_provider_lemlist.privacy import ids_in, masked, without_addresses
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.test_safety import OPERATORS, Team, minimal
from tests.unit.worker import Worker

LEAD = {"email": "ana@norte.example", "firstName": "Anastasia", "icebreaker": "Seen at Fosdem"}
SECRETS = ("norte.example", "Anastasia", "Fosdem")


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LEMLIST__HIDE_PERSONAL_DATA", "True")


def shown_by(task: Any) -> str:
    """Return what Airflow stores of the rendered fields of a task."""
    return json.dumps([getattr(task, name) for name in task.template_fields], default=str)


def logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the log: Airflow 3 writes that of operators to the terminal only."""
    return caplog.text + "".join(capsys.readouterr())


def run(worker: Worker, task: Any) -> str:
    """Run a task, and return everything that Airflow stores of it."""
    worker.run(task)
    return shown_by(task) + json.dumps(worker.xcoms) + json.dumps(worker.asset_extras)


# --- What hides ---------------------------------------------------------------------------------------------


def test_masking_keeps_keys_and_nothing_else() -> None:
    value = {"email": "a@b.c", "n": 5, "tags": ["x", {"y": 1.5}], "none": None, "empty": ""}
    shown = {"email": "***", "n": "***", "tags": ["***", {"y": "***"}], "none": None, "empty": ""}
    assert masked(value) == shown
    assert masked("text") == masked(object()) == "***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT * FROM t WHERE email = 'ana@norte.example'", "SELECT * FROM t WHERE email = '***'"),
        ("Ana <ana.b+c@norte.example>, eva@sur.example", "Ana <***>, ***"),
        ("no address @ all, 5 rows", "no address @ all, 5 rows"),
        (["ana@norte.example", 3, None], ["***", 3, None]),
        ({"a": {"b": "mailto:ana@norte.example"}}, {"a": {"b": "mailto:***"}}),
    ],
)
def test_addresses_are_removed_from_texts(text: Any, shown: Any) -> None:
    assert without_addresses(text) == shown


def test_a_response_shows_its_ids_only() -> None:
    lead = {**LEAD, "_id": "lea_1", "campaignId": "cam_1", "status": {"email": "ana@norte.example"}}
    assert ids_in(lead) == {"_id": "lea_1", "campaignId": "cam_1"}


# --- The operators ------------------------------------------------------------------------------------------


def test_a_lead_is_created_with_its_values_and_shown_without(hidden: None, quick_lemlist: Sandbox) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    worker = Worker(has_store=True)
    task = CreateLeadOperator(
        task_id="create", campaign_id=campaign_id, lead=LEAD, outlets=[Asset("lemlist://leads")]
    )
    stored = run(worker, task)
    [lead] = quick_lemlist.state()["leads"]
    assert {name: lead["variables"][name] for name in LEAD} == LEAD
    assert [secret for secret in SECRETS if secret in stored] == []
    assert task.lead == dict.fromkeys(LEAD, "***")
    assert worker.xcoms["create"]["return_value"] == worker.xcoms["create"]["lead"]["_id"] == lead["_id"]


def test_without_the_option_the_response_is_pushed(quick_lemlist: Sandbox) -> None:
    worker = Worker(has_store=True)
    task = CreateLeadOperator(task_id="create", campaign_id=quick_lemlist.campaign()["_id"], lead=LEAD)
    stored = run(worker, task)
    assert [secret for secret in SECRETS if secret not in stored] == []


def test_a_mapped_lead_is_hidden_too(hidden: None, quick_lemlist: Sandbox) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1)):
        mapped_task = CreateLeadOperator.partial(task_id="create", campaign_id=campaign_id).expand(
            lead=[LEAD, {**LEAD, "email": "eva@norte.example"}]
        )
    worker = Worker(has_store=True)
    for index in range(2):
        worker.run_mapped(mapped_task, index)
    assert len(quick_lemlist.state()["leads"]) == 2
    assert [secret for secret in SECRETS if secret in json.dumps(worker.xcoms)] == []


def test_parameters_and_addresses_of_a_query_are_hidden(
    hidden: None, quick_lemlist: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "people.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE people (email, firstName)")
        connection.execute("INSERT INTO people VALUES ('ana@norte.example', 'Anastasia')")
        connection.execute("INSERT INTO people VALUES ('eva@norte.example', 'Anastasia')")
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(database)}))
    task = LoadLeadsOperator(
        task_id="load",
        campaign_id=quick_lemlist.campaign()["_id"],
        sql="SELECT * FROM people WHERE email = ? OR email = 'eva@norte.example'",
        sql_parameters=["ana@norte.example"],
        sql_conn_id="crm",
        defaults={"companyName": "Fosdem"},
        ledger_path=str(tmp_path / "ledger"),
    )
    stored = run(Worker(has_store=True), task)
    leads = [lead["variables"] for lead in quick_lemlist.state()["leads"]]
    assert {lead["email"] for lead in leads} == {"ana@norte.example", "eva@norte.example"}
    assert {lead["companyName"] for lead in leads} == {"Fosdem"}
    assert [secret for secret in SECRETS if secret in stored] == []
    assert task.sql == "SELECT * FROM people WHERE email = ? OR email = '***'"


def test_texts_of_a_step_are_hidden(hidden: None, quick_lemlist: Sandbox) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    step = {"type": "email", "subject": "Fosdem", "message": "Hi Anastasia", "delay": 1}
    worker = Worker(has_store=True)
    stored = run(worker, AddStepOperator(task_id="add", campaign_id=campaign_id, step=step))
    assert [secret for secret in SECRETS if secret in stored] == []
    assert worker.xcoms["add"]["step"]["type"] == "email"
    [sequence] = LemlistHook().get_sequences(campaign_id).values()
    assert sequence["steps"][0]["message"] == "Hi Anastasia"


def test_parameters_of_a_definition_are_hidden(hidden: None, quick_lemlist: Sandbox) -> None:
    definition = {
        "name": "Spring",
        "steps": [{"type": "email", "subject": "Hello", "message": "Ask [[ who ]] {{firstName}}"}],
    }
    worker = Worker(has_store=True)
    task = ApplyCampaignOperator(
        task_id="apply", campaign=definition, parameters={"who": "ana@norte.example"}
    )
    stored = run(worker, task)
    assert "norte.example" not in stored
    sequences = LemlistHook().get_sequences(worker.xcoms["apply"]["return_value"])
    assert "Ask ana@norte.example" in json.dumps(sequences)


def test_lineage_shows_no_parameter_of_a_definition(hidden: None, quick_lemlist: Sandbox) -> None:
    lineage = pytest.importorskip("airflow.providers.openlineage.utils.utils")
    steps = [{"type": "email", "subject": "Hello", "message": "Ask [[ who ]]"}]
    task = ApplyCampaignOperator(
        task_id="apply", campaign={"name": "Spring", "steps": steps}, parameters={"who": "Anastasia"}
    )
    Worker(has_store=True).run(task)
    told = json.dumps(dict(lineage.TaskInfo(task)), default=str)
    assert "'who'" in told or '"who"' in told  # OpenLineage sends whatever is called parameters
    assert "Anastasia" not in told


@pytest.mark.parametrize("name", OPERATORS)
def test_no_operator_shows_an_address(
    hidden: None, quick_lemlist: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], name: str,
) -> None:  # fmt: skip
    warehouse = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    team = Team(quick_lemlist, tmp_path, Worker(has_store=True))
    task = OPERATORS[name](task_id="t", outlets=[Asset("lemlist://x")], **minimal(name, team))
    with caplog.at_level("INFO"):
        try:
            stored = run(team.worker, task)
        except exceptions.LemlistError as error:
            stored = shown_by(task) + json.dumps(team.worker.xcoms) + str(error)
    assert team.lemlist.requests()
    for text in (stored, logged(caplog, capsys)):
        assert "@norte" not in text
        assert "@sur" not in text


def test_data_of_another_task_is_told_to_be_readable(
    hidden: None,
    quick_lemlist: Sandbox,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from airflow.providers.common.compat.sdk import task

    with DAG("upstream", schedule=None, start_date=datetime(2026, 1, 1)):

        @task
        def people() -> Any:
            return [LEAD]

        load = LoadLeadsOperator(task_id="load", campaign_id="cam_1", leads=people())
        sync = SyncUnsubscribesOperator(task_id="sync", values=["@norte.example"])
    worker = Worker(has_store=True)
    for each, warns in ((load, True), (sync, False)):
        caplog.clear()
        capsys.readouterr()
        with suppress(Exception):  # neither the campaign nor the upstream task's XCom exists
            worker.run(each)
        assert ("The leads of task 'load' comes from another task" in logged(caplog, capsys)) is warns


# --- Forgetting a person ------------------------------------------------------------------------------------


def test_the_documented_command_erases_a_person_from_ledger_and_audit_trail(
    quick_lemlist: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LEMLIST__AUDIT_PATH", str(tmp_path / "audit"))
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
    [command] = re.findall(r"^ *(grep -rl.*)$", page, re.M)
    campaign_id = quick_lemlist.campaign()["_id"]
    people = [{"email": f"p{n}@norte.example"} for n in range(30)]

    def load() -> dict[str, Any]:
        worker.next_run()
        task = LoadLeadsOperator(
            task_id="load", campaign_id=campaign_id, leads=people, ledger_path=str(tmp_path / "ledger")
        )
        return worker.run(task)

    worker = Worker(has_store=True)
    assert load()["created"] == 30
    load()
    [lead] = [
        each for each in quick_lemlist.state()["leads"] if each["variables"]["email"] == people[3]["email"]
    ]
    LemlistHook().delete_lead(campaign_id, lead["_id"])
    assert command.count("lea_…") == 2
    places = {"/data/ledger": tmp_path / "ledger", "/data/audit": tmp_path / "audit"}
    for name, place in places.items():
        command = command.replace(name, str(place))
    subprocess.run(["bash", "-c", command.replace("lea_…", lead["_id"])], check=True)
    files = [file for place in places.values() for file in place.rglob("*") if file.is_file()]
    assert len(files) > 4
    assert not [file for file in files if lead["_id"] in file.read_text()]
    people.remove({"email": "p3@norte.example"})
    report = load()
    assert (report["exists"], report["created"]) == (29, 0)
