# SPDX-License-Identifier: Apache-2.0
"""Rows that were in flight when an attempt died, and whose leads the campaign does not show."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.plan import Situation
from airflow_provider_lemlist.load.worklist import Worklist
from airflow_provider_lemlist.storage import storage_path

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("row", "key", "outcome"),
    [
        pytest.param({"email": "ana@example.com"}, None, None, id="address"),
        pytest.param({"linkedinUrl": "https://linkedin.com/in/ana"}, None, None, id="profile"),
        pytest.param({"phone": "+33 1", "firstName": "Ana"}, "7", None, id="phone-and-key"),
        pytest.param({"firstName": "Ana", "plan": "pro"}, None, "uncertain", id="nothing"),
        pytest.param({"firstName": "Ana"}, "7", "uncertain", id="key-only"),
    ],
)
def test_row_in_doubt_is_sent_again_only_if_the_campaign_would_show_its_lead(
    row: dict[str, str], key: str | None, outcome: str | None, tmp_path: Path
) -> None:
    run = Run("monday", "2026-11-16", "people.load", "a test")
    path = storage_path(tmp_path, None, "ledger_path")
    options = LoadOptions("cam_1", rows=lambda: iter(()), mapping=ColumnMapping(), ledger_path=path, run=run)
    with closing(Worklist(b"secret")) as worklist:
        keys = worklist.people.keys_of(row, key)
        worklist.people.mark(keys, run._asdict(), in_flight=True)
        worklist.people.add_leads([])
        worklist.add(1, row, key)
        worklist.plan(options, Situation(datetime.now(UTC), "", worklist.people.sent))

        assert [entry.outcome for entry in worklist.settled()] == ([outcome] if outcome else [])
        assert [job.plan.action for job in worklist.jobs()] == ([] if outcome else ["create"])
