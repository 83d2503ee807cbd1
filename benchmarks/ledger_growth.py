# SPDX-License-Identifier: Apache-2.0
"""
Measure how a ledger grows with the nights that load the same people.

    python benchmarks/ledger_growth.py --people 10000 --nights 1000  # about 25 minutes

Every night reads the ledger, writes one outcome for each person and finishes, as a load does; campaign and
source are left out. The files, their size, and the seconds until the ledger is open for the next load
(everyone is in its database) are printed after 1, 10, 30, 100, … nights.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.ledger.ledger import Ledger, LedgerEntry, Run
from airflow_provider_lemlist.load.worklist import Worklist

SHOWN = (1, 10, 30, 100, 300, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=1_000)
    parser.add_argument("--nights", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__UNIT_TEST_MODE": "True"}
        folder = Path(home, "ledger")
        print(f"{'nights':>7}{'files':>7}{'MiB':>8}{'people.ndjson MiB':>19}{'open s':>8}{'CPU s':>7}")
        for number in range(1, given.nights + 1):
            night(folder, number, given.people)
            if number in (*SHOWN, given.nights):
                files = [path for path in folder.rglob("*") if path.is_file()]
                size = sum(path.stat().st_size for path in files) / 2**20
                people = (folder / "people.ndjson").stat().st_size / 2**20
                began, cpu = time.monotonic(), time.process_time()
                night(folder, number + 1, people=0, read_only=True)
                took = f"{time.monotonic() - began:>8.2f}{time.process_time() - cpu:>7.2f}"
                print(f"{number:>7}{len(files):>7}{size:>8.1f}{people:>19.1f}{took}", flush=True)


def night(folder: Path, number: int, people: int, *, read_only: bool = False) -> None:
    due = (datetime(2026, 1, 1) + timedelta(days=number)).isoformat()
    run = Run(f"scheduled__{due}.people.load", due, "people.load", f"night {number}")
    path = ObjectStoragePath(f"file://{folder}")
    with (
        Ledger(path, "cam_1", run, read_only=read_only) as ledger,
        closing(Worklist(ledger.secret)) as worklist,
    ):
        ledger.read(worklist.people)
        if read_only:
            return
        outcome = "created" if number == 1 else "exists"
        for row in range(people):
            lead = {"email": f"person-{row}@example.com"}
            keys = worklist.people.keys_of(lead)
            ledger.write(LedgerEntry(row, keys, outcome, f"lea_{row:08}"), urgent=False)
        ledger.finish(worklist.people, {"rows": people, outcome: people})


if __name__ == "__main__":
    main()
