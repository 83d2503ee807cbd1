# SPDX-License-Identifier: Apache-2.0
"""As few threads as fill the budget, and memory that does not grow with the rows."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_lemlist.load.account import Account, duration
from airflow_provider_lemlist.load.loader import MOST_THREADS, Pace

RATE = 9.5


def world(latency: float, *, rate: float = RATE, requests: int = 1) -> object:
    """Return what so many threads achieve, by Little's law: rows a second."""
    return lambda threads: min(rate / requests, threads / latency / requests)


@pytest.mark.parametrize("latency", [0.01, 0.1, 0.25, 0.5, 1.0])
def test_the_threads_fill_the_budget_from_the_start(latency: float) -> None:
    pace = Pace(RATE, latency)
    assert world(latency)(pace.threads) == RATE  # type: ignore[operator]
    assert pace.threads <= RATE * latency + 3


def test_a_lemlist_that_gets_slower_gets_more_threads() -> None:
    pace = Pace(RATE, 0.1)
    seen = [world(1.5)(pace.threads)]  # type: ignore[operator]
    for _ in range(6):
        pace.adapt(seen[-1])
        seen.append(world(1.5)(pace.threads))  # type: ignore[operator]
    assert seen[-1] == RATE
    assert all(later >= sooner for sooner, later in pairwise(seen))


@pytest.mark.parametrize("rate", [3.0, 6.0])
def test_a_key_that_others_use_too_is_not_fought_over_with_more_threads(rate: float) -> None:
    pace = Pace(RATE, 0.25)
    few = pace.threads
    counts = [pace.adapt(world(0.25, rate=rate)(pace.threads)) for _ in range(20)]  # type: ignore[operator]
    assert counts[-1] == few
    assert sum(count > few for count in counts) <= 2  # one try


def test_there_is_a_limit_to_threads() -> None:
    pace = Pace(RATE, 100.0)
    assert pace.threads == MOST_THREADS
    assert pace.adapt(0.0) == MOST_THREADS


def test_the_line_of_progress_tells_done_outcomes_rate_and_remaining_time() -> None:
    now = [0.0]
    account = Account(1250, {"created": 250}, clock=lambda: now[0])
    for _ in range(100):
        account.count("created")
    account.count("invalid", sent=False)
    now[0] = 10.0
    assert account.progress() == (
        "351 of 1,250 rows · created 350, invalid 1 · 10.0 rows/s · about 1 min 30 s left"
    )
    assert account.report()["not_tried"] == 899
    assert "not tried        899" in account.table()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (36_060, "10 h 01 min")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


MEMORY = """
import sys
from contextlib import closing
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow_provider_lemlist.load import preflight, sources
from airflow_provider_lemlist.load.account import Account
from airflow_provider_lemlist.load.ledger import Ledger, read_previous
from airflow_provider_lemlist.load.loader import Loader, Pace
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.sending import Wishes
from airflow_provider_lemlist.load.worklist import Worklist

ROWS = 100_000
def csv_file(path):
    with open(path, "w") as file:
        file.write("email,firstName,companyName,plan,note\\n")
        for n in range(ROWS):
            file.write(f"person-{n}@example.com,First {n},Company {n},pro,{'a note ' * 20}\\n")

class Hook:  # a lemlist without a network: what is measured is what the load keeps
    def create_lead(self, campaign_id, lead, **flags):
        return {"_id": "lea_" + lead["email"][:17]}

def path(name):
    return ObjectStoragePath(f"file://{sys.argv[1]}/{name}")

def load(name, previous=None):
    with closing(Worklist()) as work, Ledger(path(name), "cam_1", "x") as ledger:
        if previous:
            assert read_previous(path(previous), "cam_1", work)
        ledger.read_back(work)
        found = preflight.look_through(sources.from_path(path("leads.csv")), ColumnMapping(), work)
        assert found.valid == ROWS
        account = Account(work.rows(), {})
        ledger.start = lambda keys: None  # the disk's flush of every row, which only takes time
        Loader(Hook(), work.tasks(), ledger, account, Wishes("cam_1", "update"), Pace(10, 0.25)).run()
        assert account.done == ROWS, account.report()
        return account.report()

csv_file(sys.argv[1] + "/leads.csv")

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before = memory("VmRSS")
load("one")
assert load("two", previous="one")["unchanged"] == ROWS
print("grown", memory("VmHWM") - before)
"""


def test_memory_does_not_grow_with_the_rows_nor_with_the_previous_ledger(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    grown = int(done.stdout.splitlines()[-1].removeprefix("grown "))
    assert grown < 20  # some 2 MiB are SQLite's cache
