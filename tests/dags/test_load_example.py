# SPDX-License-Identifier: Apache-2.0
"""The example that loads a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dags.conftest import EXAMPLES, dag_bag, states, xcom

pytestmark = pytest.mark.airflow


def test_every_person_of_the_table_is_loaded_once_and_every_row_is_in_the_ledger(lemlist, run):
    dag_run = run(dag_bag(EXAMPLES).dags["lemlist_load_leads"])
    assert states(dag_run) == {"create_campaign": ["success"], "load": ["success"], "summarize": ["success"]}
    leads = {lead["variables"]["firstName"]: lead["variables"] for lead in lemlist.state()["leads"]}
    assert sorted(leads) == ["Barbara", "Donald", "Edsger", "Frances", "Margaret"]
    assert leads["Edsger"] == {
        "email": "edsger@example.com",
        "firstName": "Edsger",
        "companyName": "Shortest Paths",
        "timezone": "Europe/Amsterdam",
        "plan": "team",
    }
    report = xcom(dag_run, "load")
    assert (report["rows"], report["created"], report["duplicate"]) == (6, 5, 1)
    ledger = Path(report["ledger_path"])
    lines = [
        json.loads(line) for part in ledger.glob("runs/*/*.ndjson") for line in part.read_text().splitlines()
    ]
    assert sorted(line["row"] for line in lines) == [1, 2, 3, 4, 5, 6]
    assert "@" not in json.dumps(lines)
    assert xcom(dag_run, "summarize") == "5 of 6 leads were created"
