# SPDX-License-Identifier: Apache-2.0
"""
Measure a nightly load of which everyone is in the campaign already: time, memory of the process, requests.

    python benchmarks/load_unchanged.py
    git worktree add ../former be02407  # the last version whose memory was the ledger of the run before
    python benchmarks/load_unchanged.py --rows 200000 --also former=../former --times 3

The whole operator runs, in a process of its own, with a CSV file as the source. lemlist is a server on this
machine that has the campaign's sequence, and the export of a lead for each row in a file. A night before,
which is not measured, has written the ledger. ``--also`` measures the package in other directories in turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

FIELDS = ("email", "firstName", "lastName", "companyName", "linkedinUrl", "plan")
HEAD = f"{'version':10}{'if_exists':>10}{'seconds':>9}{'CPU s':>8}{'memory MiB':>12}{'requests':>10}"


def person(number: int) -> tuple[str, ...]:
    profile = f"https://www.linkedin.com/in/person-{number}/"
    return (f"person-{number}@example.com", f"First {number}", f"Last {number}", "Company", profile, "pro")


# --- lemlist: the routes that a load uses -------------------------------------------------------------------


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    export: ClassVar[Path]
    requests = 0

    def do_GET(self) -> None:
        Server.requests += 1
        if "/export/leads" in self.path:
            with self.export.open("rb") as file:
                self._begin(self.export.stat().st_size)
                shutil.copyfileobj(file, self.wfile)
            return
        if "/unsubscribes/" in self.path:
            table = b"_id,value,source,createdAt\r\n"
            self._begin(len(table), "text/csv")
            self.wfile.write(table)
            return
        steps = [{"_id": "stp_1", "type": "email", "message": "Hello {{firstName}}"}]
        sequences = {"seq_1": {"_id": "seq_1", "level": 1, "steps": steps}}
        campaign = {"_id": "cam_1", "name": "Nightly", "status": "running"}
        body = json.dumps(sequences if "/sequences" in self.path else campaign).encode()
        self._begin(len(body))
        self.wfile.write(body)

    def _begin(self, size: int, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def write_leads(folder: Path, rows: int) -> None:
    """Write the source, and the campaign's export of it."""
    with (folder / "leads.csv").open("w") as source, (folder / "export.json").open("w") as export:
        writer = csv.writer(source)
        writer.writerow(FIELDS)
        for number in range(rows):
            writer.writerow(person(number))
            states = {"emailStatus": "deliverable", "lastState": "emailsSent", "status": "inProgress"}
            lead = {"_id": f"lea_{number:08}", **dict(zip(FIELDS, person(number), strict=True)), **states}
            export.write(("," if number else "[") + json.dumps(lead, ensure_ascii=False))
        export.write("]")


# --- One night, in its own process ----------------------------------------------------------------------


def night(folder: Path, number: int, if_exists: str) -> dict[str, Any]:
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.ledger import ledger
    from airflow_provider_lemlist.load import run  # noqa: F401  (so that its import is not measured)
    from airflow_provider_lemlist.operators.load import LoadLeadsOperator

    arguments: dict[str, Any] = {"path": str(folder / "leads.csv"), "if_exists": if_exists}
    if hasattr(ledger, "read_previous"):  # the former version
        arguments["ledger_path"] = f"{folder}/former-{number}"
        if number > 1:
            arguments["previous_ledger"] = f"{folder}/former-1"
        else:  # 200,000 requests, which would take hours
            ids = count()
            LemlistHook.create_lead = lambda *_, **__: {"_id": f"lea_{next(ids):08}"}  # type: ignore[method-assign]
            ledger.Ledger.mark_in_flight = lambda *_: None  # type: ignore[method-assign]
    else:
        arguments["ledger_path"] = f"{folder}/ledger"
    task = LoadLeadsOperator(task_id="load", campaign_id="cam_1", **arguments)
    ti = SimpleNamespace(
        dag_id="d", run_id=f"night-{number}", task_id="load", map_index=-1, try_number=1,
        xcom_push=lambda **_: None,
    )  # fmt: skip
    due = datetime(2026, 1, number, tzinfo=UTC)
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(run_after=due, logical_date=None)}
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, began, cpu = memory("VmRSS"), time.monotonic(), time.process_time()
    counts = task.execute(context)
    return {
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "memory": memory("VmHWM") - before,
        "counts": {name: value for name, value in counts.items() if value},
    }


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def in_process(package: Path, server: str, folder: Path, number: int, if_exists: str) -> dict[str, Any]:
    """Run one night with the package in a directory."""
    connection = {"conn_type": "lemlist", "host": server, "password": "key"}
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__LEMLIST__BUDGET_DIR": f"{folder}/budget",
        "AIRFLOW_CONN_LEMLIST_DEFAULT": json.dumps(connection),
    }
    command = [sys.executable, __file__, "--child", str(folder), str(number), if_exists]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{package}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- The table ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=DIRECTORY")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        folder, number, if_exists = given.child
        print(json.dumps(night(Path(folder), int(number), if_exists)))
        return

    versions = {"this": Path(__file__).parents[1]}
    versions |= {name: Path(path) for name, _, path in (word.partition("=") for word in given.also)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    with tempfile.TemporaryDirectory() as name:
        write_leads(Path(name), given.rows)
        Server.export = Path(name, "export.json")
        for version, package in versions.items():
            folder = Path(name, version)
            folder.mkdir()
            (folder / "leads.csv").symlink_to(Path(name, "leads.csv"))
            in_process(package, url, folder, 1, "update")
        print(HEAD)
        numbers = count(2)
        for _ in range(given.times):
            for if_exists in ("skip", "update"):
                for version, package in versions.items():
                    Server.requests = 0
                    took = in_process(package, url, Path(name, version), next(numbers), if_exists)
                    figures = f"{took['seconds']:>9.1f}{took['cpu']:>8.1f}{took['memory']:>12.1f}"
                    print(f"{version:10}{if_exists:>10}{figures}{Server.requests:>10}", flush=True)
                    outcome = "exists" if if_exists == "skip" else "unchanged"
                    if took["counts"][outcome] != given.rows:
                        raise SystemExit(took["counts"])


if __name__ == "__main__":
    main()
