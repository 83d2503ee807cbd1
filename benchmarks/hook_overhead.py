# SPDX-License-Identifier: Apache-2.0
"""
What a call through the hook costs beside a bare ``requests`` call to the same server.

    python benchmarks/hook_overhead.py

A loopback server responds at once and closes nothing. Both sides send ``GET /team`` in turn, so that a drift
of the machine's speed affects both; the figure to quote is the ratio of the medians. The last two ways send a
write, without and with an audit trail on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESPONSE = json.dumps({"_id": "tea_1", "name": "Blue", "userIds": ["usr_1"] * 20}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connections = 0

    def setup(self) -> None:
        super().setup()
        type(self).connections += 1

    def do_GET(self) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(RESPONSE))),
            ("Retry-After", "2"),
            ("X-RateLimit-Limit", "20"),
            ("X-RateLimit-Remaining", "19"),
            ("X-RateLimit-Reset", "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(RESPONSE)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


def serve() -> str:
    """Serve from a process of its own, whose work is not measured."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/api"


def take_turns(ways: dict[str, Callable[[], object]], calls: int, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(calls):
                way()
            times[name].append((time.perf_counter() - start) / calls * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--calls", type=int, default=100, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        print(serve(), flush=True)
        sys.stdin.read()
        return

    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout
    url = server.stdout.readline().strip()
    connection = {"conn_type": "lemlist", "password": "k3y-of-a-benchmark", "host": url}
    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = json.dumps(connection)

    import requests

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    class Open:
        """A budget without a limit: the hook's own cost is measured, not the waiting."""

        def __init__(self) -> None:
            self.slot = type("Slot", (), {"wait": 0.0, "ahead": 0})()

        def book(self) -> object:
            return self.slot

        def wait(self, slot: object, **options: object) -> None:
            pass

        def report(self, slot: object, **feedback: object) -> None:
            pass

    session = requests.Session()
    session.auth = ("", "k3y-of-a-benchmark")
    hook, audited = LemlistHook(), LemlistHook()
    trail = tempfile.TemporaryDirectory()
    os.environ["AIRFLOW__LEMLIST__AUDIT_PATH"] = trail.name
    LemlistHook.budget = Open()  # type: ignore[assignment, method-assign]

    audited.get_conn()
    del os.environ["AIRFLOW__LEMLIST__AUDIT_PATH"]

    times = take_turns(
        {
            "requests.get": lambda: requests.get(f"{url}/team", auth=("", "key"), timeout=30).json(),
            "requests.Session().get": lambda: session.get(f"{url}/team", timeout=30).json(),
            "hook.get_team": hook.get_team,
            "hook.pause_lead": lambda: hook.pause_lead("lea_1"),
            "the same, audited": lambda: audited.pause_lead("lea_1"),
        },
        arguments.calls,
        arguments.rounds,
    )
    server.kill()
    trail.cleanup()
    bare = statistics.median(times["requests.Session().get"])
    print(f"{'':26}{'median ms':>10}{'min':>8}{'max':>8}{'ratio to a session':>20}")
    for name, series in times.items():
        middle = statistics.median(series)
        print(f"{name:26}{middle:10.3f}{min(series):8.3f}{max(series):8.3f}{middle / bare:20.2f}")


if __name__ == "__main__":
    main()
