# SPDX-License-Identifier: Apache-2.0
"""As few threads as use the whole budget, and memory that does not grow with the rows."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.concurrency import MAX_THREADS, Concurrency
from airflow_provider_lemlist.delivery.identity import Kind
from airflow_provider_lemlist.exceptions import LemlistPlanError
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger.ledger import Ledger, LedgerEntry, Run
from airflow_provider_lemlist.load import pool as pool_module
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.plan import Plan, Situation
from airflow_provider_lemlist.load.pool import SenderPool
from airflow_provider_lemlist.load.report import LoadReport, duration
from airflow_provider_lemlist.load.sending import LeadSender, Sent
from airflow_provider_lemlist.load.worklist import Job, Worklist
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.conftest import Emitted
from tests.waiting import LONGEST, wait_for

Place = Callable[[str], ObjectStoragePath]
RATE = 9.5
CREATE = "POST /campaigns/{campaignId}/leads/"


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
    assert "not tried             899" in report.table()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (36_060, "10 h 01 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- Stopping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_aborted", [False, True])
def test_when_a_load_stops_only_rows_whose_request_has_left_are_in_flight(
    place: Place, monkeypatch: pytest.MonkeyPatch, is_aborted: bool
) -> None:
    people = [{"linkedinUrl": f"https://linkedin.com/in/p{n}"} for n in range(200)]
    # Ten requests a second, after a burst: almost all threads wait for a slot.
    with Sandbox() as lemlist:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        campaign = str(lemlist.campaign()["_id"])
        if is_aborted:
            lemlist.fault(CREATE, "status", skip=2, status=402, text="Upgrade your plan")
        hook = LemlistHook()
        for _ in range(20):
            hook.get_campaign(campaign)
        run = Run("monday", "2026-11-16", "people.load", "a test")
        with (
            Ledger(place("ledger"), campaign, run) as ledger,
            closing(Worklist(ledger.secret)) as worklist,
        ):
            ledger.read(worklist.people)
            for number, lead in enumerate(people, 1):
                worklist.add(number, lead)
            options = LoadOptions(campaign, lambda: iter(()), ColumnMapping(), place("ledger"), run)
            worklist.plan(options, Situation(datetime.now(UTC), "", worklist.people.sent))
            pool = SenderPool(
                worklist.jobs(),
                LeadSender(hook, options, worklist.people.sent),
                ledger,
                LoadReport(len(people), {}),
                Concurrency(RATE, 100.0),
                interrupt=hook.get_conn().stop,
            )
            stopped: list[float] = []

            def stop_requested() -> bool:
                if not is_aborted and len(lemlist.requests(CREATE)) >= 3 and not stopped:
                    stopped.append(time.monotonic())
                return bool(stopped)

            if is_aborted:
                with pytest.raises(LemlistPlanError):
                    pool.run(stop_requested)
            else:
                pool.run(stop_requested)
                assert time.monotonic() - stopped[0] < pool_module.GRACE_PERIOD / 2
        # On a busy machine the rate limit may refuse one, which is then sent again.
        sent = sum(request["status"] != 429 for request in lemlist.requests(CREATE))
        assert sent < len(people) / 2
        assert not pool.uncertain
        with Ledger(place("ledger"), campaign, run) as ledger, closing(Worklist(ledger.secret)) as after:
            ledger.read(after.people)
            assert not after.people.are_in_doubt()
            assert len(list(after.people.known())) == len(lemlist.state()["leads"]) == sent - is_aborted


def test_row_whose_request_outlasts_the_grace_period_is_in_doubt_and_no_other(
    place: Place, lemlist: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "GRACE_PERIOD", 0.2)
    run = Run("monday", "2026-11-16", "people.load", "a test")
    jobs = [Job(n, [bytes([Kind.EMAIL, n])], {"email": f"p{n}@example.com"}, Plan(action="create"))
            for n in range(50)]  # fmt: skip
    has_left, may_answer = threading.Event(), threading.Event()

    def send(job: Job) -> Sent:
        if job.row == 3:
            has_left.set()
            may_answer.wait(LONGEST)
        return Sent(LedgerEntry(job.row, job.keys, "created", f"lea_{job.row}"))

    with Ledger(place("ledger"), "cam_1", run) as ledger, closing(Worklist(ledger.secret)) as worklist:
        ledger.read(worklist.people)
        pool = SenderPool(
            iter(jobs), send, ledger, LoadReport(50, {}), Concurrency(1.0, 0.0), interrupt=lambda: None
        )
        pool.run(has_left.is_set)
    may_answer.set()
    for thread in pool._threads:
        thread.join()
    with Ledger(place("ledger"), "cam_1", run) as ledger, closing(Worklist(ledger.secret)) as after:
        ledger.read(after.people)
        known = {job.row: after.people.find(job.keys) for job in jobs}
    assert [row for row, found in known.items() if found and found[0].in_doubt] == [3]


def test_outcomes_are_emitted_while_a_load_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch, emitted: Emitted
) -> None:
    monkeypatch.setattr(pool_module, "PROGRESS_INTERVAL", 0.0)
    run = Run("monday", "2026-11-16", "people.load", "a test")
    jobs = [Job(n, [bytes([Kind.EMAIL, n])], {}, Plan(action="create")) for n in range(2)]

    def send(job: Job) -> Sent:
        if job.row == 1:
            wait_for(lambda: emitted.counters["lemlist.rows.created"] == 1)
        return Sent(LedgerEntry(job.row, job.keys, "created", f"lea_{job.row}"))

    with Ledger(place("ledger"), "cam_1", run) as ledger, closing(Worklist(ledger.secret)) as worklist:
        ledger.read(worklist.people)
        report = LoadReport(2, {})
        SenderPool(iter(jobs), send, ledger, report, Concurrency(1.0, 0.0), interrupt=lambda: None).run()
    assert report.outcomes == {"created": 2}


MEMORY = """
import sys
from contextlib import closing
from datetime import UTC, datetime
from airflow.providers.common.compat.sdk import ObjectStoragePath
from airflow_provider_lemlist import sources
from airflow_provider_lemlist.load import preflight
from airflow_provider_lemlist.ledger.ledger import Ledger
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.plan import Situation
from airflow_provider_lemlist.concurrency import Concurrency
from airflow_provider_lemlist.load.pool import SenderPool
from airflow_provider_lemlist.load.report import LoadReport
from airflow_provider_lemlist.load.sending import LeadSender
from airflow_provider_lemlist.load.worklist import Worklist

ROWS = 40_000
def person(n):
    return {"email": f"person-{n}@example.com", "firstName": f"First {n}", "companyName": f"Company {n}",
            "plan": "pro", "note": "a note " * 20}

def csv_file(path):
    with open(path, "w") as file:
        file.write(",".join(person(0)) + "\\n")
        for n in range(ROWS):
            file.write(",".join(person(n).values()) + "\\n")

class Hook:  # no network: only the memory of the load is measured
    def create_lead(self, campaign_id, lead, **flags):
        return {"_id": "lea_" + lead["email"][:15]}

    def iter_leads(self, campaign_id):
        for n in range(ROWS):
            yield {"_id": f"lea_person-{n}"[:19], "status": "inProgress", **person(n)}

def path(name):
    return ObjectStoragePath(f"file://{sys.argv[1]}/{name}")

def load(day, is_listed):
    run = Run(f"day-{day}", f"2026-11-{day}", "people.load", "a test")
    with Ledger(path("ledger"), "cam_1", run) as ledger, closing(Worklist(ledger.secret)) as work:
        ledger.read(work.people)
        hook = Hook()
        if is_listed:
            assert work.people.add_leads(hook.iter_leads("cam_1")) == ROWS
        found = preflight.check_rows(sources.from_path(path("leads.csv")), ColumnMapping(), work)
        assert found.valid == ROWS
        options = LoadOptions("cam_1", None, ColumnMapping(), path("ledger"), run, if_exists="update")
        replaced = work.plan(options, Situation(datetime.now(UTC), "", work.people.sent))
        work.plan_departures(options)
        report = LoadReport(work.rows(), work.kept())
        for entry in work.settled():
            report.count(entry.outcome, sent=False)
            ledger.write(entry, urgent=False)
        ledger.mark_in_flight = lambda keys: None  # skips the sync per batch, which only takes time
        sender = LeadSender(hook, options, work.people.sent)
        SenderPool(work.jobs(), sender, ledger, report, Concurrency(10, 0.25), interrupt=print).run()
        ledger.finish(work.people, report.counts(), replaced)
        return report.counts()

csv_file(sys.argv[1] + "/leads.csv")

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) // 1024

open("/proc/self/clear_refs", "w").write("5")  # resets the peak
before = memory("VmRSS")
assert load(16, is_listed=False)["created"] == ROWS
assert load(17, is_listed=True)["unchanged"] == ROWS
print("grown", memory("VmHWM") - before)
"""


@pytest.mark.slow
def test_memory_grows_neither_with_rows_nor_with_campaign_nor_with_ledger(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    grown = int(done.stdout.splitlines()[-1].removeprefix("grown "))
    assert grown < 20  # about 2 MiB for each of SQLite's caches
