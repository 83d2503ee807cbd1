# SPDX-License-Identifier: Apache-2.0
"""
Kill a launch at random moments, while lemlist fails on every tenth call and new leads arrive. In the end as
many leads as allowed are launched, the first ones of the campaign; and at no moment any other.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.forkserver import forkserver

sys.path.insert(0, str(Path(__file__).parent))

import launching

LEADS = 200
MAX_LEADS = 120
KILLS = 8
pytestmark = pytest.mark.slow

FAULTS = [
    {"kind": "rate_limited", "seconds": 0.02},
    {"kind": "status", "status": 503, "when": "before"},
    {"kind": "status", "status": 500, "when": "after"},
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "cut_body"},
    {"kind": "html", "when": "after"},
    {"kind": "empty", "when": "before"},
]


def test_after_kills_and_faults_no_more_leads_are_launched_than_allowed(tmp_path: Path) -> None:
    processes = forkserver("launching")
    chance = random.Random(7)
    with Sandbox(limit="none", requests=600, latency=0.02, seed=7) as lemlist:
        connection = json.loads(lemlist.airflow_connection()) | {"extra": {"timeout": 1}}
        campaign = lemlist.campaign()
        lemlist.step(campaign["sequenceId"], "linkedinVisit")

        def arrive(number: int) -> list[str]:
            return [lemlist.lead(campaign["_id"], f"{uuid4().hex}@example.com")["_id"] for _ in range(number)]

        def launched() -> set[str]:
            leads = lemlist.service.world.leads.values()
            return {lead.id for lead in leads if lead.launched_at is not None}

        first = arrive(LEADS)
        for fault in FAULTS:
            lemlist.fault("*", probability=0.1 / len(FAULTS), **fault)  # type: ignore[arg-type]
        killed = 0
        for attempt in range(1, 10 * KILLS):
            arguments = (attempt, json.dumps(connection), campaign["_id"], f"file://{tmp_path}", MAX_LEADS)
            process = processes.Process(target=launching.attempt, args=arguments)
            # The moment is a number of requests, not a time, so that a busy machine reaches it, too.
            moment = len(lemlist.requests()) + chance.randrange(1, 30)
            process.start()
            while process.is_alive() and not (killed < KILLS and len(lemlist.requests()) > moment):
                time.sleep(0.005)
            process.kill()
            process.join()
            killed += process.exitcode == -9  # unless it had ended by itself
            assert launched() <= {*first[:MAX_LEADS]}
            if process.exitcode == 0:
                break
            arrive(5)
        assert process.exitcode == 0
        assert killed == KILLS
        assert launched() == {*first[:MAX_LEADS]}
