# SPDX-License-Identifier: Apache-2.0
"""
Measure the response times of the sandbox, empty and with a campaign of many leads, and of its page.

    python benchmarks/sandbox.py [--leads 10000] [--requests 500]

The sandbox runs in a separate process. The ratios compare it with a stub of ``http.server`` that always sends
the same response; the stub is measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

import requests


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = json.dumps({"_id": "tea_1", "name": "Stub"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def serve_stub(port: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    port.send(server.server_address[1])
    server.serve_forever()


def measure(call: Callable[[], object], times: int) -> list[float]:
    """Return the duration of each call, in milliseconds."""
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        durations.append((time.perf_counter() - start) * 1000)
    return durations


def row(what: str, durations: list[float], base: float | None = None) -> None:
    median, p99 = statistics.median(durations), sorted(durations)[int(len(durations) * 0.99)]
    ratio = f"{median / base:8.2f}" if base else " " * 8
    print(f"{what:<52}{median:9.2f}{p99:9.2f}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--leads", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()
    command = [sys.executable, "-m", "airflow_provider_lemlist.sandbox", "--port", "0", "--limit", "none"]
    ours, theirs = multiprocessing.Pipe()
    stub = multiprocessing.Process(target=serve_stub, args=(theirs,), daemon=True)
    stub.start()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox, requests.Session() as http:
        try:
            assert sandbox.stdout
            sandbox.stdout.readline()
            connection = json.loads(sandbox.stdout.readline().partition("=")[2].strip().strip("'"))
            http.auth = ("", connection["password"])
            run(
                http,
                connection["host"],
                f"http://127.0.0.1:{ours.recv()}/team",
                options.leads,
                options.requests,
            )
        finally:
            sandbox.terminate()
            stub.terminate()


def run(http: requests.Session, api: str, stub: str, leads: int, times: int) -> None:
    page = api.removesuffix("/api")
    print(f"{'milliseconds':<52}{'median':>9}{'p99':>9}{'ratio':>8}")
    stubbed = measure(lambda: http.get(stub), times)
    base = statistics.median(stubbed)
    row("stub with a constant response: GET /team", stubbed, base)
    row("sandbox, empty: GET /team", measure(lambda: http.get(f"{api}/team"), times), base)
    campaign = http.post(f"{api}/campaigns", json={"name": "Many"}).json()
    step = {"type": "email", "subject": "a", "message": "b"}
    http.post(f"{api}/sequences/{campaign['sequenceId']}/steps", json=step)
    numbers = iter(range(10**9))

    def create() -> None:
        number = next(numbers)
        lead = {"email": f"p{number}@example.com", "firstName": "P", "companyName": f"Company {number}"}
        response = http.post(f"{api}/campaigns/{campaign['_id']}/leads/", json=lead)
        assert response.status_code == 200, response.text
        if number % 4 == 0:
            activity = {"leadId": response.json()["_id"], "type": "emailsOpened"}
            http.post(f"{page}/_sandbox/activities", json=activity)

    row("sandbox: create a lead, the first", measure(create, times), base)
    measure(create, max(0, leads - 2 * times))
    row(f"sandbox: create a lead, the last of {leads:,}", measure(create, times), base)
    listing = {"version": "v2", "campaignId": campaign["_id"]}
    activities = measure(lambda: http.get(f"{api}/activities", params=listing), times // 5)
    row("sandbox: a page of 100 activities", activities, base)
    search = measure(lambda: http.get(f"{api}/leads/p7@example.com?version=v2"), times)
    row("sandbox: find a lead by email", search, base)
    export = f"{api}/campaigns/{campaign['_id']}/export/leads?state=all&format=json"
    row(f"sandbox: export {leads:,} leads", measure(lambda: http.get(export), 5), base)
    row(f"page: overview, {leads:,} leads", measure(lambda: http.get(page), 20))
    row(
        f"page: campaign, {leads:,} leads",
        measure(lambda: http.get(f"{page}/campaigns/{campaign['_id']}"), 20),
    )
    row(
        f"page: find among {leads:,} leads",
        measure(lambda: http.get(f"{page}/campaigns/{campaign['_id']}?find=p9"), 20),
    )
    row("state as JSON", measure(lambda: http.get(f"{page}/_sandbox/state"), 3))

    closed = threading.Event()

    def view() -> None:
        with requests.Session() as browser:
            while not closed.is_set():
                browser.get(f"{page}/campaigns/{campaign['_id']}?live")
                closed.wait(1)

    viewer = threading.Thread(target=view)
    viewer.start()
    row(
        "sandbox: GET /team while the page is open",
        measure(lambda: http.get(f"{api}/team"), times * 4),
        base,
    )
    closed.set()
    viewer.join()


if __name__ == "__main__":
    main()
