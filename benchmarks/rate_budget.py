# SPDX-License-Identifier: Apache-2.0
"""
Measure the rate budget on loopback: real processes, a real server, 250 +- 100 ms there and back.

    python benchmarks/rate_budget.py main          400 requests, every server, this budget and the libraries
    python benchmarks/rate_budget.py sustained     2,000 requests: the fixed and the learned margin
    python benchmarks/rate_budget.py cold          16 processes at once, with a slow handshake
    python benchmarks/rate_budget.py other-client  another client of the key takes 30 % of the limit
    python benchmarks/rate_budget.py share         four workers without a shared store, a quarter each
    python benchmarks/rate_budget.py unshared      2, 4 and 16 workers that share nothing and do not know it
    python benchmarks/rate_budget.py kill          a quarter of the processes is killed in mid-run
    python benchmarks/rate_budget.py cost          time and space of a booking

Each prints a table. ``--quick`` sends fewer requests, ``--parallel`` runs so many rows side by side (one for
every two cores). ``--ways``, ``--shapes`` and ``--servers`` select rows. Rows with Redis need redis-server.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from limit_servers import KINDS, LIMIT, WINDOW, Network, limit_server
from rate_budget_ways import WAYS, missing

from airflow_provider_lemlist.api.budget import arithmetic, open_budget

#: Nothing of a thread is lost in a fork here: every row runs in a process of its own, with one thread.
fork = multiprocessing.get_context("fork")
HANDSHAKE = 0.5
#: Ways in which each process has a store of its own.
UNSHARED = ("ours-quarter", "ours-unshared")


@dataclass(frozen=True)
class Row:
    """One run: which way, with how many processes, threads and requests, against which server."""

    way: str
    shape: str = "4x4"
    server: str = "sliding"
    requests: int = 400
    spread: float = 0.05
    seed: int = 1
    handshake: float = 0.0
    other_client: float = 0.0
    kill_after: float = 0.0
    fixed_margin: bool = False

    @property
    def processes(self) -> int:
        return int(self.shape.split("x")[0])

    @property
    def threads(self) -> int:
        return int(self.shape.split("x")[1])


@dataclass
class Measured:
    """What the server saw of one run."""

    share: float
    refusals: int
    median_wait: float
    longest_wait: float
    fairness: str
    done: int
    cpu: float
    other_client: str = ""


def measure(row: Row, redis_url: str) -> Measured:
    folder = Path(tempfile.mkdtemp(prefix="rate-budget-"))
    network = Network(spread=row.spread)
    try:
        with limit_server(row.server, network, row.seed) as server:
            # One byte for each request: a thread that reads it sends it, and a killed process leaves no lock.
            tickets, fill = os.pipe()
            os.write(fill, b"." * row.requests)
            os.close(fill)
            start = fork.Event()
            workers = [
                fork.Process(
                    target=work, args=(row, server.url, folder, str(number), tickets, start, redis_url)
                )
                for number in range(row.processes)
            ]
            other = fork.Process(target=be_another_client, args=(row, server.url, start))
            for worker in workers:
                worker.start()
            if row.other_client:
                other.start()
            time.sleep(1.0)
            start.set()
            if row.kill_after:
                time.sleep(row.kill_after)
                for worker in workers[: max(1, row.processes // 4)]:
                    os.kill(worker.pid, signal.SIGKILL)
            for worker in workers:
                worker.join()
            if row.other_client:
                other.terminate()
                other.join()
            os.close(tickets)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)  # the server still runs and does not count
            cpu = used.ru_utime + used.ru_stime
            arrivals = server.arrivals()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ours = [arrival for arrival in arrivals if arrival.client != "other"]
    theirs = [arrival for arrival in arrivals if arrival.client == "other"]
    accepted = [arrival for arrival in ours if arrival.accepted]
    lasted = accepted[-1].at - ours[0].at + 2 * network.middle
    waits = [arrival.wait for arrival in accepted]
    parts = sorted(Counter(arrival.client for arrival in accepted).values())
    fair = len(accepted) / row.processes
    refused = sum(not arrival.accepted for arrival in theirs)
    return Measured(
        share=len(accepted) / lasted / (LIMIT / WINDOW),
        refusals=len(ours) - len(accepted),
        median_wait=statistics.median(waits),
        longest_wait=max(waits),
        fairness=f"{parts[0] / fair - 1:+.0%} {parts[-1] / fair - 1:+.0%}" if row.processes > 1 else "",
        done=len(accepted),
        cpu=cpu / len(ours),
        other_client=f"{refused} of {len(theirs)} ({refused / max(1, len(theirs)):.1%})" if theirs else "",
    )


def work(row: Row, url: str, folder: Path, who: str, tickets: int, start: object, redis_url: str) -> None:
    if row.handshake:
        slow_down_handshakes(row.handshake)
    if row.fixed_margin:
        arithmetic.LEAST_MARGIN = arithmetic.MARGIN
    start.wait()
    way = WAYS[row.way](url, folder, who, redis_url)

    def send() -> None:
        while os.read(tickets, 1):
            way.send()

    threads = [threading.Thread(target=send, daemon=True) for _ in range(row.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def slow_down_handshakes(seconds: float) -> None:
    from urllib3.connection import HTTPConnection

    connect = HTTPConnection.connect

    def slow_connect(self: HTTPConnection) -> None:
        connect(self)
        time.sleep(random.uniform(0.5, 1.5) * seconds)

    HTTPConnection.connect = slow_connect


def be_another_client(row: Row, url: str, start: object) -> None:
    """Send at an even rate whatever the responses; a refused request is not repeated."""
    import http.client

    host = url.split("/")[2]
    pool = ThreadPoolExecutor(16)

    def send() -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("GET", "/api/team?client=other")
        connection.getresponse().read()
        connection.close()

    rng = random.Random(row.seed)
    start.wait()
    while True:
        pool.submit(send)
        time.sleep(rng.uniform(0.5, 1.5) / row.other_client)


@contextmanager
def redis_server(delay: float = 0.0) -> Iterator[str]:
    if not shutil.which("redis-server"):
        yield ""
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    time.sleep(0.5)
    try:
        with delayed(f"redis://127.0.0.1:{port}/0", delay) as url:
            yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def delayed(redis_url: str, milliseconds: float) -> Iterator[str]:
    """Put a proxy before Redis that adds a round trip of so many milliseconds."""
    if not milliseconds:
        yield redis_url
        return
    port = int(redis_url.split(":")[2].split("/")[0])
    ours, theirs = fork.Pipe()
    proxy = fork.Process(target=lambda: asyncio.run(_proxy(port, milliseconds / 2000, theirs)), daemon=True)
    proxy.start()
    try:
        yield f"redis://127.0.0.1:{ours.recv()}/0"
    finally:
        proxy.terminate()
        proxy.join()


async def _proxy(port: int, one_way: float, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            loop.call_later(one_way, writer.write, data)
        loop.call_later(one_way, writer.close)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, back), forward(there, writer), return_exceptions=True)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def scenario_main(quick: bool) -> list[Row]:
    ways = [way for way in WAYS if way not in UNSHARED]
    shapes = ["1x8", "4x4"] if quick else ["1x8", "4x4", "16x1"]
    servers = ["sliding"] if quick else KINDS
    return [
        Row(way, shape, server, requests=120 if quick else 400)
        for shape in shapes
        for server in servers
        for way in ways
    ]


def scenario_sustained(quick: bool) -> list[Row]:
    rows = [
        Row(way, spread=spread, requests=400 if quick else 2_000, fixed_margin=fixed)
        for spread in (0.05, 0.005)
        for way, fixed in (
            ("ours-sqlite", True),
            ("ours-sqlite", False),
            ("ours-redis", False),
            ("pyrate-redis", False),
        )
    ]
    return [row for row in rows if not (row.way == "pyrate-redis" and row.spread < 0.05)]


def scenario_cold(quick: bool) -> list[Row]:
    return [Row(way, "16x1", requests=160, handshake=HANDSHAKE) for way in WAYS if way not in UNSHARED]


def scenario_other_client(quick: bool) -> list[Row]:
    servers = ["sliding"] if quick else KINDS
    ways = ["ours-sqlite", "ours-redis", "retry-loop", "pyrate-redis"]
    return [
        Row(way, server=server, requests=120 if quick else 400, other_client=3.0)
        for server in servers
        for way in ways
    ]


def scenario_share(quick: bool) -> list[Row]:
    servers = ["sliding"] if quick else KINDS
    return [Row("ours-quarter", server=server, requests=120 if quick else 400) for server in servers]


def scenario_unshared(quick: bool) -> list[Row]:
    return [
        Row(way, shape, server, requests=600 if quick else 1_200)
        for server in (["sliding"] if quick else ["sliding", "anchored"])
        for shape in ("2x4", "4x4", "16x4")
        for way in ("ours-unshared", "retry-loop")
    ]


def scenario_kill(quick: bool) -> list[Row]:
    return [
        Row(way, shape, requests=160 if quick else 400, kill_after=6.0)
        for way in ("ours-sqlite", "ours-redis")
        for shape in ("4x4", "16x1")
    ]


SCENARIOS = {
    "main": scenario_main,
    "sustained": scenario_sustained,
    "cold": scenario_cold,
    "other-client": scenario_other_client,
    "share": scenario_share,
    "unshared": scenario_unshared,
    "kill": scenario_kill,
}
HEAD = (
    f"{'way':22}{'shape':>6} {'server':9}{'requests':>9}{'of limit':>9}{'ratio':>7}{'refused':>9}"
    f"{'wait p50':>9}{'max s':>7}{'CPU ms':>8}  {'shares':12}other client refused"
)


def show(row: Row, measured: Measured, baseline: float | None) -> str:
    name = f"{row.way}{', fixed' if row.fixed_margin else ''}"
    ratio = f"{measured.share / baseline:.2f}" if baseline else ""
    return (
        f"{name:22}{row.shape:>6} {row.server:9}{measured.done:9}{measured.share:9.1%}{ratio:>7}"
        f"{measured.refusals:9}{measured.median_wait:9.2f}{measured.longest_wait:7.2f}"
        f"{measured.cpu * 1000:8.1f}  {measured.fairness:12}{measured.other_client}"
    )


def run_rows(rows: list[Row], parallel: int, redis_url: str) -> None:
    """Run the rows, each in a process of its own, and print them with their ratio to the retry loop."""
    running: list[tuple[Row, object, object]] = []
    waiting = list(rows)
    measured: dict[Row, Measured] = {}
    while waiting or running:
        while waiting and len(running) < parallel:
            row = waiting.pop(0)
            receiver, sender = fork.Pipe(duplex=False)
            process = fork.Process(target=lambda row=row, sender=sender: sender.send(measure(row, redis_url)))
            process.start()
            sender.close()
            running.append((row, process, receiver))
        time.sleep(0.2)
        for entry in [entry for entry in running if entry[2].poll() or not entry[1].is_alive()]:
            row, process, receiver = entry
            running.remove(entry)
            try:
                measured[row] = receiver.recv()
            except EOFError:
                print(f"{row.way} {row.shape} {row.server}: failed", file=sys.stderr)
            process.join()
    print(HEAD)
    for row in rows:
        if row in measured:
            baseline = measured.get(replace(row, way="retry-loop"))
            print(show(row, measured[row], baseline.share if baseline else None))


def show_cost() -> None:
    """Time and space of a booking, one process, then eight that book at once."""
    folder = Path(tempfile.mkdtemp(prefix="rate-budget-"))
    budget = open_budget("cost", directory=str(folder / "budget"), max_wait=1e9)
    budget.book()

    def cost(action: object, count: int) -> str:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            action()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return f"{cpu / count * 1e6:8.0f}{wall / count * 1e6:10.0f}"

    print(f"{'one process':32}{'CPU us':>8}{'wall us':>10}")
    print(f"{'book, 100,000 times':32}{cost(budget.book, 100_000)}")
    slot = budget.book()
    print(f"{'check where the slot is':32}{cost(lambda: budget._find(slot), 20_000)}")
    feedback = {"refused": False, "limit": 20, "remaining": 5, "retry_after": 2.0}
    print(f"{'report a response':32}{cost(lambda: budget.report(slot, **feedback), 20_000)}")
    size = sum(file.stat().st_size for file in (folder / "budget").iterdir())
    print(f"all files after 100,000 bookings: {size / 1024:.0f} KiB")

    def hammer(sender: object) -> None:
        mine = open_budget("cost", directory=str(folder / "budget"), max_wait=1e9)
        took = []
        for _ in range(500):
            before = time.perf_counter()
            mine.book()
            took.append(time.perf_counter() - before)
        sender.send(took)

    before = time.perf_counter()
    pipes = []
    for _ in range(8):
        receiver, sender = fork.Pipe(duplex=False)
        fork.Process(target=hammer, args=(sender,)).start()
        pipes.append(receiver)
    took = sorted(seconds for pipe in pipes for seconds in pipe.recv())
    rate = len(took) / (time.perf_counter() - before)
    print(
        f"eight processes at once: {rate:.0f} bookings/s, median {statistics.median(took) * 1e3:.2f} ms, "
        f"p99 {took[len(took) * 99 // 100] * 1e3:.1f} ms, longest {took[-1] * 1e3:.0f} ms"
    )
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=[*SCENARIOS, "cost"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redis-delay", type=float, default=0, help="milliseconds of round trip to Redis")
    for name in ("ways", "shapes", "servers"):
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args()
    if options.scenario == "cost":
        show_cost()
        return
    with redis_server(options.redis_delay) as redis_url:
        rows = [replace(row, seed=options.seed) for row in SCENARIOS[options.scenario](options.quick)]
        for wanted, part in ((options.ways, "way"), (options.shapes, "shape"), (options.servers, "server")):
            if wanted:
                rows = [row for row in rows if getattr(row, part) in wanted.split(",")]
        for way in sorted({row.way for row in rows}):
            lacks = "redis-server on the PATH" if "redis" in way and not redis_url else missing(way)
            if lacks:
                print(f"left out: {way} needs {lacks}")
                rows = [row for row in rows if row.way != way]
        run_rows(rows, options.parallel, redis_url)


if __name__ == "__main__":
    main()
