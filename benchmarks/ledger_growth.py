# SPDX-License-Identifier: Apache-2.0
"""
Measure how a ledger grows: nights that load the same people, without a server and without the operator.

    python benchmarks/ledger_growth.py --people 10000 --nights 1000  # about half an hour

Every night is a ``Load`` with a hook whose campaign contains everyone: the ledger is read and written as in
a real one. The size on disk, and the seconds until it is open, are printed after 1, 10, 30, 100, … nights.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Hook:
    """A lemlist that lists the same leads every night, and answers at once."""

    def __init__(self, leads: list[dict[str, str]]) -> None:
        self._leads = leads
        self.budget = SimpleNamespace(state=lambda: {"capacity": 20, "period": 2.0})

    def get_campaign(self, campaign_id: str) -> dict[str, Any]:
        return {"_id": campaign_id}

    def get_sequences(self, campaign_id: str) -> dict[str, Any]:
        return {}

    def iter_leads(self, campaign_id: str) -> Iterator[dict[str, Any]]:
        for number, lead in enumerate(self._leads):
            yield {"_id": f"lea_{number:08}", **lead, "status": "inProgress"}

    def get_conn(self) -> Any:
        return SimpleNamespace(stop=lambda: None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=1_000)
    parser.add_argument("--nights", type=int, default=100)
    given = parser.parse_args()
    leads = [
        {"email": f"person-{number}@example.com", "firstName": f"Person {number}"}
        for number in range(given.people)
    ]
    hook: Any = Hook(leads)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__UNIT_TEST_MODE": "True"}
        print(f"{'nights':>7}{'files':>7}{'MiB':>8}{'people.ndjson MiB':>19}{'open s':>8}{'night s':>9}")
        for night in range(1, given.nights + 1):
            began = time.monotonic()
            load(hook, leads, home, night)
            took = time.monotonic() - began
            if night in (1, 10, 30, 100, 300, 1000, given.nights):
                files = [path for path in Path(home, "ledger").rglob("*") if path.is_file()]
                size = sum(path.stat().st_size for path in files) / 2**20
                people = Path(home, "ledger", "people.ndjson").stat().st_size / 2**20
                figures = f"{size:>8.1f}{people:>19.1f}{seconds_to_open(home):>8.2f}{took:>9.2f}"
                print(f"{night:>7}{len(files):>7}{figures}", flush=True)


def load(hook: Any, leads: list[dict[str, str]], home: str, night: int) -> None:
    from airflow_provider_lemlist.load.mapping import ColumnMapping
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.load.run import Load

    path, run = place(home, night)
    Load(hook, LoadOptions("cam_1", lambda: iter(leads), ColumnMapping(), path, run)).run()


def seconds_to_open(home: str) -> float:
    """Return how long the next night waits for the ledger: the lock, and everyone in its database."""
    from airflow_provider_lemlist.load.ledger import Ledger
    from airflow_provider_lemlist.load.worklist import Worklist

    began = time.monotonic()
    path, run = place(home, 0)
    with Ledger(path, "cam_1", run, read_only=True) as ledger, closing(Worklist(ledger.secret)) as worklist:
        ledger.read(worklist)
        return time.monotonic() - began


def place(home: str, night: int) -> tuple[Any, Any]:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.load.options import Run

    due = (datetime(2026, 1, 1) + timedelta(days=night)).isoformat()
    name = f"scheduled__{due}.people.load"
    return ObjectStoragePath(f"file://{home}/ledger"), Run(name, due, "people.load", f"night {night}")


if __name__ == "__main__":
    main()
