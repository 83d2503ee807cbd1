# SPDX-License-Identifier: Apache-2.0
"""In real Airflow, placeholders arrive unchanged, and an interrupted worker does nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.waiting import WINDOW

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Run the DAG once and return the resulting state of lemlist."""
    home = tmp_path_factory.mktemp("airflow")
    with Sandbox(window=WINDOW) as lemlist:
        campaign = lemlist.campaign()
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "in_airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LEMLIST__BUDGET_DIR": str(home / "budget"),
            "AIRFLOW_CONN_LEMLIST_DEFAULT": lemlist.airflow_connection(),
        }
        environment.pop("AIRFLOW__CORE__UNIT_TEST_MODE", None)
        conf = json.dumps({"campaign": campaign["_id"], "sequence": campaign["sequenceId"]})

        def airflow(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
            return done.stdout + done.stderr

        airflow("db", "migrate")
        log = airflow("dags", "test", "lemlist_proof", "-c", conf)
        state = lemlist.state()
        yield {
            "log": log,
            "leads": {lead["variables"]["email"]: lead for lead in state["leads"]},
            "lead_count": len(state["leads"]),
            "steps": [
                json.loads(request["request"]["body"])
                for request in lemlist.requests("POST /sequences/{sequenceId}/steps")
            ],
            "sequences": state["campaigns"][0]["sequences"],
            "main": state["campaigns"][0]["sequences"][campaign["sequenceId"]]["steps"],
            "refusals": lemlist.violations(),
        }


FOUND = "already in sequence"
FORMS = {
    "as a dict": {"type": "email", "subject": "{{firstName}}, dict", "message": "m", "delay": 3},
    "typed": {
        "type": "email",
        "subject": "{{firstName}}, typed",
        "message": "Hi {{firstName}}, 3 days!\n",
        "delay": 3,
    },
    "expanded, typed": {"type": "email", "subject": "{{firstName}} e", "message": "3", "delay": 3},
    "expanded, as a dict": {"type": "sms", "message": "{{firstName}} e"},
    "from upstream": {
        "type": "email",
        "subject": "{{firstName}}, upstream",
        "message": "<p>{{icebreaker}}</p>",
    },
    "from upstream, expanded": {"type": "email", "subject": "{{firstName}} 1", "message": "m"},
    "from upstream, expanded, as a dict": {"type": "sms", "message": "{{firstName}} 2"},
    "from upstream, expanded as arguments": {"type": "sms", "message": "{{firstName}} kwargs"},
    "a value of upstream inside": {
        "type": "linkedinSend",
        "message": "from upstream {{firstName}}",
        "altMessage": "{{firstName}}",
        "images": ["https://cdn.example.com/3.png"],
    },
    "in a URL": {"type": "api", "method": "POST", "url": "https://x.example.com/3?n={{firstName}}"},
    "as a literal": {"type": "api", "method": "POST", "url": "https://x.example.com/?n={{firstName}}"},
}


@pytest.mark.parametrize("form", FORMS)
def test_lemlist_placeholder_arrives_unchanged(run: dict[str, Any], form: str) -> None:
    assert run["steps"].count(FORMS[form]) == 1


def test_values_of_a_lead_arrive_unchanged(run: dict[str, Any]) -> None:
    assert run["leads"]["ana+x@example.com"]["variables"] == {
        "email": "ana+x@example.com",
        "icebreaker": "{{firstName}}, hello",
        "note": "3 {{x}}",
        "upstream": "from upstream {{firstName}}",
        "score": "3",
    }
    for name in ("a", "b"):
        assert run["leads"][f"{name}@example.com"]["variables"]["icebreaker"] == "{{firstName}}!"


def test_branches_of_a_condition_are_available_as_output(run: dict[str, Any]) -> None:
    branches = [sequence["steps"] for sequence in run["sequences"].values() if sequence["level"] == 1]
    assert sorted(step["message"] for (step,) in branches) == ["fallback", "linkedinInviteAccepted"]


def test_interrupted_worker_leaves_each_step_and_lead_once(run: dict[str, Any]) -> None:
    messages = Counter(step["message"] for step in run["main"] if step["type"] == "phone")
    assert messages == {"interrupted 1": 1, "interrupted 2": 1, "equal": 2}
    found = {line.split(" (phone)")[0][-22:] for line in run["log"].splitlines() if FOUND in line}
    assert len(found) == 3
    assert "cut@example.com" in run["leads"]
    assert run["lead_count"] == 4


def test_lemlist_refused_nothing(run: dict[str, Any]) -> None:
    assert run["refusals"] == []
