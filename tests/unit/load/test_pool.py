# SPDX-License-Identifier: Apache-2.0
"""As few threads as use the whole budget, and memory that does not grow with the rows."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_lemlist.load.pool import MAX_THREADS, Concurrency
from airflow_provider_lemlist.load.report import LoadReport, duration

RATE = 9.5


def world(latency: float, *, rate: float = RATE, requests: int = 1) -> object:
    """Return the rows per second for a number of threads, by Little's law."""
    return lambda threads: min(rate / requests, threads / latency / requests)


@pytest.mark.parametrize("latency", [0.01, 0.1, 0.25, 0.5, 1.0])
def test_initial_threads_use_whole_budget(latency: float) -> None:
    concurrency = Concurrency(RATE, latency)
    assert world(latency)(concurrency.threads) == RATE  # type: ignore[operator]
    assert concurrency.threads <= RATE * latency + 3


def test_slower_responses_get_more_threads() -> None:
    concurrency = Concurrency(RATE, 0.1)
    seen = [world(1.5)(concurrency.threads)]  # type: ignore[operator]
    for _ in range(6):
        concurrency.adapt(seen[-1])
        seen.append(world(1.5)(concurrency.threads))  # type: ignore[operator]
    assert seen[-1] == RATE
    assert all(later >= sooner for sooner, later in pairwise(seen))


@pytest.mark.parametrize("rate", [3.0, 6.0])
def test_other_clients_of_the_key_do_not_raise_number_of_threads(rate: float) -> None:
    concurrency = Concurrency(RATE, 0.25)
    few = concurrency.threads
    counts = [concurrency.adapt(world(0.25, rate=rate)(concurrency.threads)) for _ in range(20)]  # type: ignore[operator]
    assert counts[-1] == few
    assert sum(count > few for count in counts) <= 2  # a single trial


def test_number_of_threads_is_limited() -> None:
    concurrency = Concurrency(RATE, 100.0)
    assert concurrency.threads == MAX_THREADS
    assert concurrency.adapt(0.0) == MAX_THREADS


def test_progress_line_has_counts_rate_and_remaining_time() -> None:
    now = [0.0]
    report = LoadReport(1250, {"created": 250}, clock=lambda: now[0])
    for _ in range(100):
        report.count("created")
    report.count("invalid", sent=False)
    now[0] = 10.0
    assert report.progress() == (
        "351 of 1,250 rows · created 350, invalid 1 · 10.0 rows/s · about 1 min 30 s left"
    )
    assert report.counts()["not_tried"] == 899
    assert "not tried        899" in report.table()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (36_060, "10 h 01 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


MEMORY = """
import sys
from contextlib import closing
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow_provider_lemlist.load import preflight, sources
from airflow_provider_lemlist.load.report import LoadReport
from airflow_provider_lemlist.load.ledger import Ledger, read_history, read_previous
from airflow_provider_lemlist.load.pool import Concurrency, SenderPool
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.worklist import Worklist

ROWS = 100_000
def csv_file(path):
    with open(path, "w") as file:
        file.write("email,firstName,companyName,plan,note\\n")
        for n in range(ROWS):
            file.write(f"person-{n}@example.com,First {n},Company {n},pro,{'a note ' * 20}\\n")

class Hook:  # no network: only the memory of the load is measured
    def create_lead(self, campaign_id, lead, **flags):
        return {"_id": "lea_" + lead["email"][:17]}

def path(name):
    return ObjectStoragePath(f"file://{sys.argv[1]}/{name}")

def load(name, previous=None):
    with closing(Worklist()) as work, Ledger(path(name), "cam_1", "x") as ledger:
        if previous:
            assert read_previous(path(previous), "cam_1", work)
        read_history(path(name), "cam_1", work)
        found = preflight.check_rows(sources.from_path(path("leads.csv")), ColumnMapping(), work)
        assert found.valid == ROWS
        report = LoadReport(work.rows(), {})
        ledger.mark_in_flight = lambda keys: None  # skips the sync per row, which only takes time
        options = LoadOptions("cam_1", None, None, path(name), if_exists="update")
        SenderPool(Hook(), work.planned(), ledger, report, options, Concurrency(10, 0.25)).run()
        assert report.done == ROWS, report.counts()
        return report.counts()

csv_file(sys.argv[1] + "/leads.csv")

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

open("/proc/self/clear_refs", "w").write("5")  # resets the peak
before = memory("VmRSS")
load("one")
assert load("two", previous="one")["unchanged"] == ROWS
print("grown", memory("VmHWM") - before)
"""


def test_memory_grows_neither_with_rows_nor_with_previous_ledger(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    grown = int(done.stdout.splitlines()[-1].removeprefix("grown "))
    assert grown < 20  # about 2 MiB are SQLite's cache
