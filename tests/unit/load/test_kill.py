# SPDX-License-Identifier: Apache-2.0
"""
Kill a load at random moments while lemlist fails on every tenth call in every way it can. A third of the
people have no address, by which alone lemlist recognises a duplicate. In the end every one of them is in the
campaign exactly once, and the ledger says so line by line: also if no retry finds the ledger of the attempt
before it.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loading  # beside this file
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.sandbox import Sandbox
from tests.forkserver import forkserver

Place = Callable[[str], ObjectStoragePath]

PEOPLE = 600
KILLS = 20
#: The most requests after which an attempt is killed.
MAX_REQUESTS = 30
pytestmark = pytest.mark.slow

FAULTS: list[dict[str, Any]] = [
    {"kind": "rate_limited", "seconds": 0.02},
    {"kind": "status", "status": 503, "when": "before"},
    {"kind": "status", "status": 500, "when": "after"},
    {"kind": "status", "status": 504, "when": "after"},
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "slow", "seconds": 0.1},
    {"kind": "hang"},
    {"kind": "cut_body"},
    {"kind": "html", "when": "before"},
    {"kind": "html", "when": "after"},
    {"kind": "empty", "when": "before"},
    {"kind": "empty", "when": "after"},
    {"kind": "missing_id"},
    {"kind": "cdn"},
    {"kind": "redirect"},
    # Only true duplicates: the lead exists when lemlist says so.
    {"kind": "duplicate", "status": 400, "when": "after"},
    {"kind": "duplicate", "status": 409, "when": "after"},
    {"kind": "duplicate", "status": 500, "when": "after"},
]


@pytest.fixture(scope="module")
def processes() -> Any:
    return forkserver("loading")


def person(n: int) -> str:
    """Return a row: of six people, one has only a LinkedIn profile, one only a phone number and a name."""
    if n % 6 == 0:
        return f",https://www.linkedin.com/in/p{n},,P{n}"
    return f",,+33 6 {n:08},P{n}" if n % 6 == 3 else f"p{n}@example.com,,,P{n}"


#: Row numbers of the rows that are not sent, and their outcomes.
NOT_SENT = {101: "duplicate", 102: "invalid", 103: "duplicate", 104: "duplicate"}


@pytest.fixture
def source(tmp_path: Path) -> list[str]:
    """Write the source, and return who is in each row."""
    rows = [person(n) for n in range(1, PEOPLE + 1)]
    rows[100:100] = [
        "P7@example.com,,,again",
        "no-address,,,x",
        ",http://fr.linkedin.com/in/P6/fr,,again",
        ",,0033 6 0000 0009,p9",
    ]
    (tmp_path / "leads.csv").write_text("\n".join(["email,linkedinUrl,phone,firstName", *rows]))
    return [row.rpartition(",")[2] for row in rows]


def lines_of(ledger: ObjectStoragePath) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in (ledger / "runs" / "monday").iterdir()
        if file.name.endswith(".ndjson")
        for line in file.read_bytes().decode().splitlines()
    ]


Loaded = tuple[dict[str, str], list[dict[str, Any]]]


@pytest.fixture
def load_killed_often(processes: Any, tmp_path: Path, source: list[str]) -> Callable[..., Loaded]:
    """Load the source in many attempts of which most are killed; return the leads and the ledger's lines."""

    def load(ledger_of: Callable[[int], ObjectStoragePath]) -> Loaded:
        chance = random.Random(7)
        with Sandbox(limit="none", requests=600, latency=0.02, seed=7) as lemlist:
            connection = json.loads(lemlist.airflow_connection()) | {"extra": {"timeout": 1}}
            campaign = lemlist.campaign()["_id"]
            for fault in FAULTS:
                lemlist.fault("*", probability=0.1 / len(FAULTS), **fault)

            def begin(attempt: int) -> Any:
                paths = f"file://{tmp_path}/leads.csv", str(ledger_of(attempt)), str(tmp_path / "bucket")
                arguments = (attempt, json.dumps(connection), campaign, *paths)
                process = processes.Process(target=loading.attempt, args=arguments)
                process.start()
                return process

            killed = 0
            for attempt in range(1, KILLS + 1):
                # The moment is a number of requests, not a time, so that a busy machine reaches it, too.
                moment = len(lemlist.requests()) + chance.randrange(MAX_REQUESTS)
                process = begin(attempt)
                while process.is_alive() and len(lemlist.requests()) <= moment:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.03))
                process.kill()
                process.join()
                killed += process.exitcode == -9  # unless a fault ended it first
            assert killed
            assert lemlist.state()["leads"]

            for attempt in range(KILLS + 1, 2 * KILLS):  # one may fail, but its outcomes must be right
                process = begin(attempt)
                process.join()
                lines = lines_of(ledger_of(attempt))
                outcomes = {line["outcome"] for line in lines}
                if process.exitcode == 0 and not outcomes & {"failed", "uncertain"}:
                    break
            leads = lemlist.state()["leads"]
            # lemlist never had to refuse a duplicate.
            assert not [
                request["number"]
                for request in lemlist.requests("POST /campaigns/*/leads/")
                if request["fault"] is None and "already" in request["response"]["body"]
            ]
        assert Counter(lead["variables"]["firstName"] for lead in leads) == Counter(
            f"P{n}" for n in range(1, PEOPLE + 1)
        )
        return {lead["variables"]["firstName"]: lead["_id"] for lead in leads}, lines

    return load


def assert_agrees(lines: list[dict[str, Any]], source: list[str], ids: dict[str, str]) -> None:
    """Make sure that there is one line for each row, which says what became of it."""
    assert Counter(line["row"] for line in lines) == Counter(range(1, len(source) + 1))
    for line in lines:
        outcome = (line["outcome"], line["lead_id"])
        if line["row"] in NOT_SENT:
            assert outcome == (NOT_SENT[line["row"]], None)
        else:
            assert line["outcome"] in ("created", "exists")
            assert line["lead_id"] in (ids[source[line["row"] - 1]], None)
    # Without an id are those whose creation was answered with the refusal of a duplicate.
    assert sum(line["lead_id"] is None for line in lines) < PEOPLE / 20


def test_after_twenty_kills_and_every_fault_each_lead_exists_once_and_ledger_agrees(
    place: Place, source: list[str], load_killed_often: Callable[..., Loaded]
) -> None:
    ids, lines = load_killed_often(lambda attempt: place("ledger"))
    assert_agrees(lines, source, ids)
    # Whatever a killed attempt has created is known to be ours.
    assert sum(line["outcome"] == "exists" for line in lines) < PEOPLE / 20


@pytest.mark.parametrize("place", ["disk"], indirect=True)
def test_after_twenty_kills_each_followed_by_a_machine_without_the_ledger_each_lead_exists_once(
    place: Place, source: list[str], load_killed_often: Callable[..., Loaded]
) -> None:
    ids, lines = load_killed_often(lambda attempt: place(f"machine-{attempt}"))
    assert_agrees(lines, source, ids)
