# SPDX-License-Identifier: Apache-2.0
"""
Kill a load at random moments while lemlist fails on every tenth call in every way it can. In the end every
valid row is in the campaign exactly once, and the ledger says so line by line.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import loading  # beside this file
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.sandbox import Sandbox

Place = Callable[[str], ObjectStoragePath]

PEOPLE = 600
KILLS = 20
#: The most requests after which an attempt is killed.
MAX_REQUESTS = 30
FAULTS: list[dict[str, Any]] = [
    {"kind": "rate_limited", "seconds": 0.02},
    {"kind": "status", "status": 503, "when": "before"},
    {"kind": "status", "status": 500, "when": "after"},
    {"kind": "status", "status": 504, "when": "after"},
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "slow", "seconds": 0.3},
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
    """Processes that start with everything imported, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["loading"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        first = context.Process(target=int)  # starts the server that forks the others
        first.start()
        first.join()
    return context


def lines_of(ledger: ObjectStoragePath) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in ledger.iterdir()
        if file.name.endswith(".ndjson")
        for line in file.read_bytes().decode().splitlines()
    ]


def test_after_twenty_kills_and_every_fault_each_lead_exists_once_and_ledger_agrees(
    place: Place, tmp_path: Path, processes: Any
) -> None:
    chance = random.Random(7)
    rows = [f"p{n}@example.com,P{n}" for n in range(1, PEOPLE + 1)]
    rows[100:100] = ["P7@example.com,again", "no-address,x", "p8@example.com,again"]
    (tmp_path / "leads.csv").write_text("\n".join(["email,firstName", *rows]))
    ledger = place("ledger")

    with Sandbox(api_key=uuid4().hex, limit="none", requests=200, latency=0.02, seed=7) as lemlist:
        connection = json.loads(lemlist.airflow_connection()) | {"extra": {"timeout": 1}}
        campaign = lemlist.campaign()["_id"]
        for fault in FAULTS:
            lemlist.fault("*", probability=0.1 / len(FAULTS), **fault)

        def begin() -> Any:
            arguments = (campaign, f"file://{tmp_path}/leads.csv", str(ledger), str(tmp_path / "bucket"))
            process = processes.Process(target=loading.attempt, args=(json.dumps(connection), *arguments))
            process.start()
            return process

        killed = 0
        for _ in range(KILLS):
            # The moment is a number of requests, not a time, so that a busy machine reaches it, too.
            moment = len(lemlist.requests()) + chance.randrange(MAX_REQUESTS)
            process = begin()
            while process.is_alive() and len(lemlist.requests()) <= moment:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.03))
            process.kill()
            process.join()
            killed += process.exitcode == -9  # unless a fault ended it first
        assert killed
        assert lemlist.state()["leads"]

        attempts = 0
        while attempts < 20:  # an attempt may fail, but its outcomes must be right
            attempts += 1
            process = begin()
            process.join()
            lines = lines_of(ledger)
            if process.exitcode == 0 and not {line["outcome"] for line in lines} & {"failed", "uncertain"}:
                break
        leads = lemlist.state()["leads"]
        refused_as_duplicates = [
            request["number"]
            for request in lemlist.requests("POST /campaigns/*/leads/")
            if request["fault"] is None and "already" in request["response"]["body"]
        ]

    assert Counter(lead["variables"]["email"] for lead in leads) == Counter(
        f"p{n}@example.com" for n in range(1, PEOPLE + 1)
    )
    assert Counter(line["row"] for line in lines) == Counter(range(1, len(rows) + 1))
    ids = {lead["variables"]["email"]: lead["_id"] for lead in leads}
    for line in lines:
        address = rows[line["row"] - 1].partition(",")[0]
        outcome = (line["outcome"], line["lead_id"])
        if line["row"] in (101, 103):
            assert outcome == ("duplicate", None)
        elif line["row"] == 102:
            assert outcome == ("invalid", None)
        else:
            assert outcome in (("created", ids[address]), ("exists", None))
    # lemlist never had to refuse a duplicate.
    assert not refused_as_duplicates
