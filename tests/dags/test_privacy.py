# SPDX-License-Identifier: Apache-2.0
"""``[lemlist] hide_personal_data`` in real Airflow: no person is in its database or log afterwards."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_lemlist.operators.lead import CreateLeadOperator
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.operators.sequence import AddStepOperator
from airflow_provider_lemlist.operators.unsubscribe import SyncUnsubscribesOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sensors.activity import ActivitySensor
from tests.dags.conftest import states

pytestmark = pytest.mark.airflow

#: Airflow stores the DAG file and what it says; the rest must come from running it.
HOLD_THE_DAG_FILE = {"serialized_dag", "dag_code"}


def rows_of_airflow() -> Iterator[tuple[str, str]]:
    """Yield the name of the table and the text of every row of Airflow's database."""
    from airflow import settings
    from sqlalchemy import inspect, text

    with settings.engine.connect() as connection:
        for table in inspect(settings.engine).get_table_names():
            for row in connection.execute(text(f'SELECT * FROM "{table}"')):
                yield table, str(row)


def test_no_person_is_in_the_database_or_the_log(
    lemlist: Sandbox,
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__LEMLIST__HIDE_PERSONAL_DATA", "True")
    database = tmp_path / "people.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE people (email, firstName)")
        connection.execute("INSERT INTO people VALUES ('eva@private.example', 'Evangeline')")
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(database)}))
    campaign = lemlist.campaign(status="running")
    campaign_id = campaign["_id"]
    lead = lemlist.lead(campaign_id, "old@private.example", firstName="Evangeline")
    lemlist.activity(lead_id=lead["_id"], type="emailsReplied")
    person = {"email": "ana@private.example", "firstName": "Evangeline", "icebreaker": "Met at Fosdem"}
    with DAG("hides", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        CreateLeadOperator(
            task_id="create", campaign_id=campaign_id, lead=person, outlets=[Asset("lemlist://leads")]
        )
        CreateLeadOperator.partial(
            task_id="mapped",
            campaign_id=campaign_id,
            map_index_template="{{ task.lead['email'] }} {{ task.lead.firstName }}",
        ).expand(lead=[{**person, "email": f"m{n}@private.example"} for n in range(2)])
        LoadLeadsOperator(
            task_id="load",
            campaign_id=campaign_id,
            sql="SELECT * FROM people WHERE email = ? AND email != 'x@private.example'",
            sql_parameters=["eva@private.example"],
            sql_conn_id="crm",
            defaults={"icebreaker": "Met at Fosdem"},
            ledger_path=str(tmp_path / "ledger"),
        )
        LoadLeadsOperator(
            task_id="listed",
            campaign_id=lemlist.campaign("Other")["_id"],
            leads=[person],
            ledger_path=str(tmp_path / "other"),
        )
        AddStepOperator(
            task_id="add",
            campaign_id=lemlist.campaign("Draft")["_id"],
            step={"type": "email", "subject": "Fosdem", "message": "Write to ana@private.example"},
        )
        SyncUnsubscribesOperator(task_id="sync", values=["gone@private.example"])
        ActivitySensor(
            task_id="wait",
            activity_type="emailsReplied",
            campaign_id=campaign_id,
            since=datetime.now(UTC) - timedelta(minutes=5),
            poke_interval=0.3,
        )
    with caplog.at_level("INFO"):
        dag_run = run(dag)
    assert {state for each in states(dag_run).values() for state in each} == {"success"}
    created = {row["variables"]["email"] for row in lemlist.state()["leads"]}
    assert created >= {f"{name}@private.example" for name in ("ana", "m0", "m1", "eva")}
    assert {row["variables"].get("icebreaker") for row in lemlist.state()["leads"]} == {None, "Met at Fosdem"}
    tables = set()
    for table, row in rows_of_airflow():
        tables.add(table)
        found = [text for text in ("private.example", "Evangeline", "Fosdem") if text in row]
        assert not found or table in HOLD_THE_DAG_FILE, (table, row)
    assert tables >= {"xcom", "rendered_task_instance_fields", "task_instance"}
    # The index of the mapped task was rendered from the masked field.
    indexes = [row for table, row in rows_of_airflow() if table == "task_instance" and "*** ***" in row]
    assert len(indexes) == 2
    log = "".join(capfd.readouterr()) + caplog.text
    assert campaign_id in log
    assert [line for line in log.splitlines() if "private.example" in line or "Evangeline" in line] == []
