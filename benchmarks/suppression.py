# SPDX-License-Identifier: Apache-2.0
"""
Measure what it costs to leave out the people of a suppression list, and who is missed without this package.

    python benchmarks/suppression.py            # 100,000 rows against 100,000 entries, about 5 minutes
    python benchmarks/suppression.py --rows 10000 --times 3

A CSV file has people with an address, a company's domain, a LinkedIn profile and a phone number. One row in
ten is on lemlist's list, in one of ten spellings (``KINDS``); the other entries are addresses, domains,
LinkedIn URLs and phone numbers of other people. The ways, one after the other, each in its own process:

``load``
    A dry run of the whole LoadLeadsOperator into an empty campaign without a list, with lemlist's list, and
    with the same entries as ``exclude_path``.
``by hand``
    A script that reads lemlist's list by pages of 100 into a set in lower case, and compares the address of
    each row; or also its domain, its profile and its phone number as they are written.
``look-ups``
    One request for the address of each row, or for each of its values, as CreateLeadOperator does for one
    person: computed.

lemlist is a sandbox in another process, without its limit. "At the limit" is the least time that the requests
take with lemlist's limit, 20 in any 2 seconds; nothing waits for it. "Seconds" of the scripts are those of
reading and comparing the rows, without the requests. "Memory" is the peak above what the process had after
its imports.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FIELDS = ("email", "firstName", "lastName", "companyName", "companyDomain", "linkedinUrl", "phone")
#: How the entry for a suppressed person differs from the row; each row in a hundred has one.
KINDS = (
    "address",
    "address in another case",
    "domain of the address",
    "domain without @",
    "domain above that of the address",
    "domain of the company",
    "LinkedIn URL",
    "LinkedIn URL, other spelling",
    "phone number",
    "phone number, other format",
)
HEAD = (
    f"{'way':30}{'requests':>10}{'at the limit, s':>17}{'seconds':>9}{'CPU s':>8}{'memory MiB':>12}"
    f"{'left out':>10}{'missed':>8}"
)
PAGE = 100


# --- The people and the list ------------------------------------------------------------------------------


def person(number: int) -> dict[str, str]:
    domain = f"company-{number}.example"
    host = {4: f"mail.{domain}", 5: f"private-{number}.example"}.get(number % 100, domain)
    values = (
        f"person-{number}@{host}",
        f"First {number}",
        f"Last {number}",
        f"Company {number}",
        domain,
        f"https://www.linkedin.com/in/person-{number}/",
        f"+336{number:08}",
    )
    return dict(zip(FIELDS, values, strict=True))


def kind_of(number: int) -> str | None:
    """Return how the entry for a row is written, or None if the row is not suppressed."""
    return KINDS[number % 100] if number % 100 < len(KINDS) else None


def entry_for(number: int) -> str:
    """Return the entry by which a row is suppressed."""
    row = person(number)
    digits = row["phone"][1:]
    spaced = " ".join(digits[start : start + 2] for start in range(2, len(digits), 2))
    return (
        row["email"],
        row["email"].title(),
        f"@{row['companyDomain']}",
        row["companyDomain"],
        f"@{row['companyDomain']}",
        f"@{row['companyDomain']}",
        row["linkedinUrl"],
        f"http://fr.linkedin.com/in/Person-{number}?trk=x",
        row["phone"],
        f"00{digits[:2]} {spaced}",
    )[number % 100]


def entries(rows: int, size: int) -> list[str]:
    """Return the list: who is suppressed, and as many others as are missing to its size."""
    named = [entry_for(number) for number in range(rows) if kind_of(number)]
    others = [
        (
            f"other-{number}@elsewhere-{number % 999}.test",
            f"@other-{number}.test",
            f"https://www.linkedin.com/in/other-{number}",
            f"+497{number:08}",
        )[max(0, number % 10 - 6)]
        for number in range(size - len(named))
    ]
    mixed = named + others
    random.Random(1).shuffle(mixed)
    return mixed


def write_files(folder: Path, rows: int, values: Sequence[str]) -> None:
    with (folder / "people.csv").open("w") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(map(person, range(rows)))
    with (folder / "exclude.csv").open("w") as file:
        csv.writer(file).writerows([["value"], *([each] for each in values)])


# --- lemlist, in its own process --------------------------------------------------------------------------


def serve(pipe: Connection, values: Sequence[str]) -> None:
    """Fill a sandbox, send its address, and on each message the number of requests until then."""
    from airflow_provider_lemlist.sandbox import Sandbox

    with Sandbox(limit="none", seed=1) as lemlist:
        with lemlist.service.world.lock:
            for value in values:
                lemlist.service.world.unsubscribe(value)
        campaign = lemlist.campaign("Spring webinar")
        pipe.send({"url": lemlist.url, "key": lemlist.api_key, "campaign": campaign["_id"]})
        while pipe.recv() != "end":
            pipe.send(sum(meter.admitted for meter in lemlist.service.limit.meters.values()))


@contextmanager
def sandbox(values: Sequence[str]) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs, values), daemon=True)
    process.start()
    yield ours
    ours.send("end")
    process.join()


# --- The ways, each in its own process --------------------------------------------------------------------


def load(which: str, folder: Path, lemlist: dict[str, str]) -> dict[str, Any]:
    from airflow_provider_lemlist.load import run  # noqa: F401  (so that its import is not measured)
    from airflow_provider_lemlist.operators.load import LoadLeadsOperator

    arguments: dict[str, Any] = {"exclude_path": str(folder / "exclude.csv")} if which == "file" else {}
    task = LoadLeadsOperator(
        task_id="load",
        campaign_id=lemlist["campaign"],
        path=str(folder / "people.csv"),
        exclude_unsubscribed=which == "lemlist",
        ledger_path=f"{folder}/ledger",
        dry_run=True,
        **arguments,
    )
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="load", map_index=-1, try_number=1, xcom_push=lambda **_: None
    )
    due = SimpleNamespace(run_after=datetime(2026, 1, 1, tzinfo=UTC), logical_date=None)
    context: Any = {"ti": ti, "dag_run": due}
    with measured() as figures:
        counts = task.execute(context)
    if counts["not_tried"] + counts["suppressed"] != counts["rows"]:
        raise SystemExit(counts)
    return {**figures, "left out": counts["suppressed"]}


def by_hand(which: str, folder: Path, lemlist: dict[str, str]) -> dict[str, Any]:
    import requests

    with measured() as all_figures, requests.Session() as session:
        session.auth = ("", lemlist["key"])
        unsubscribed: set[str] = set()
        offset = 0
        while True:
            params = {"offset": str(offset), "limit": str(PAGE)}
            url = f"{lemlist['url']}/v2/unsubscribes/variables"
            response = session.get(url, params=params, timeout=30)
            response.raise_for_status()
            page = response.json()
            unsubscribed.update(each["value"].lower() for each in page)
            offset += PAGE
            if len(page) < PAGE:
                break
        left_out: Counter[str | None] = Counter()
        with measured(reset=False) as figures, (folder / "people.csv").open() as file:
            for number, row in enumerate(csv.DictReader(file)):
                email = row["email"].lower()
                found = email in unsubscribed
                if which == "all":
                    found = (
                        found
                        or f"@{email.rpartition('@')[2]}" in unsubscribed
                        or row["linkedinUrl"].lower() in unsubscribed
                        or row["phone"] in unsubscribed
                    )
                if found:
                    left_out[kind_of(number)] += 1
    if None in left_out:
        raise SystemExit(f"{left_out[None]} rows are left out by mistake")
    return {
        **figures,
        "memory": all_figures["memory"],
        "left out": left_out.total(),
        "kinds": [kind for kind in KINDS if kind not in left_out],
    }


@contextmanager
def measured(*, reset: bool = True) -> Iterator[dict[str, float]]:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    figures: dict[str, float] = {}
    before, began, cpu = memory("VmRSS"), time.monotonic(), time.process_time()
    yield figures
    figures["seconds"] = time.monotonic() - began
    figures["cpu"] = time.process_time() - cpu
    figures["memory"] = memory("VmHWM") - before


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


WAYS: dict[str, tuple[str, str]] = {
    "load, no list": ("load", "none"),
    "load, lemlist's list": ("load", "lemlist"),
    "load, exclude_path": ("load", "file"),
    "by hand, address": ("by_hand", "address"),
    "by hand, all as written": ("by_hand", "all"),
}


def in_process(way: str, folder: Path, lemlist: dict[str, str]) -> dict[str, Any]:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__LEMLIST__BUDGET_DIR": f"{folder}/budget",
        "AIRFLOW_CONN_LEMLIST_DEFAULT": json.dumps(
            {"conn_type": "lemlist", "host": lemlist["url"], "password": lemlist["key"]}
        ),
    }
    command = [sys.executable, __file__, "--child", way, str(folder), json.dumps(lemlist)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- The table --------------------------------------------------------------------------------------------


def least_seconds(requests: int) -> int:
    """Return the least time from the first request to the last one with 20 in any 2 seconds."""
    return 2 * ((requests - 1) // 20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=None, help="size of the list; the number of rows")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        way, folder, lemlist = given.child
        kind, which = WAYS[way]
        run = load if kind == "load" else by_hand
        print(json.dumps(run(which, Path(folder), json.loads(lemlist))))
        return

    values = entries(given.rows, given.entries or given.rows)
    suppressed = sum(kind_of(number) is not None for number in range(given.rows))
    print(f"{given.rows:,} rows, {len(values):,} entries, {suppressed:,} rows suppressed\n\n{HEAD}")
    kinds: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name, sandbox(values) as pipe:
        folder = Path(name)
        write_files(folder, given.rows, values)
        lemlist = pipe.recv()
        before = 0
        for _ in range(given.times):
            for way in WAYS:
                took = in_process(way, folder, lemlist)
                pipe.send("requests")
                until_now = pipe.recv()
                print_row(way, until_now - before, suppressed, took)
                before = until_now
                kinds[way] = took.get("kinds", [])
                expected = 0 if way == "load, no list" else suppressed
                if way.startswith("load") and took["left out"] != expected:
                    raise SystemExit(f"{way}: {took['left out']} left out, not {expected}")
    print_row("look-ups, the address", given.rows)
    print_row("look-ups, every value", look_ups(given.rows))
    for way, missed in kinds.items():
        if missed:
            print(f"\n{way} misses: {', '.join(missed)}")


def print_row(way: str, requests: int, suppressed: int = 0, took: dict[str, Any] | None = None) -> None:
    line = f"{way:30}{requests:>10,}{least_seconds(requests):>17,}"
    if took is not None:
        line += f"{took['seconds']:>9.1f}{took['cpu']:>8.1f}{took['memory']:>12.1f}{took['left out']:>10,}"
        line += f"{suppressed - took['left out']:>8,}"
    print(line, flush=True)


def look_ups(rows: int) -> int:
    """Return how many look-ups CreateLeadOperator would make for all rows: one for each spelling."""
    from airflow_provider_lemlist.suppression.values import spellings_of

    return sum(len(spellings_of(person(number))) for number in range(rows))


if __name__ == "__main__":
    main()
