# SPDX-License-Identifier: Apache-2.0
"""
Measure the budget in Redis when many processes start at once and book without any pause.

    python benchmarks/redis_contention.py
    python benchmarks/redis_contention.py --also lua=/path/to/another/checkout --delays 0,1,5,20

Each process is cold: it has no connection when the start signal comes. ``book`` books only; ``request`` does
what a request does: book, check where the slot is, report the response. A key needs 10 requests per second.

``--delays`` puts a proxy between the processes and Redis that adds so many milliseconds of round trip.
``--also`` measures the package in other directories in the same run, so that two versions can be compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from rate_budget import delayed, redis_server
from redis import Redis

WORKER = """
import json, sys, time
import redis
from airflow_provider_lemlist.api.budget import open_budget

url, key, count, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
import airflow_provider_lemlist.api.budget.redis
budget = open_budget(key, store=url, max_wait=1e9)
report = getattr(budget, "report", None) or budget.heard  # its name in older versions
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
took, numbers, fallen = [], [], 0
for _ in range(count):
    before = time.monotonic()
    slot = budget.book()
    if kind == "request":
        budget.state()  # reads the state, as the check after waking up does
        report(slot, refused=False, limit=20, remaining=19, retry_after=2.0)
    took.append(time.monotonic() - before)
    numbers.append(slot.booking.number)
    fallen += slot.store is not budget._store
end = time.monotonic()
print(json.dumps({"took": took, "numbers": numbers, "fallen": fallen, "start": start, "end": end}))
"""
HEAD = (
    f"{'version':10}{'what':>9}{'delay ms':>9}{'all done s':>11}{'per s':>8}{'median ms':>10}{'p99 ms':>8}"
    f"{'max ms':>8}{'calls each':>11}{'first-last done':>17}{'lost':>6}"
)


def measure(
    name: str, folder: str, kind: str, delay: float, redis_url: str, processes: int, count: int
) -> str:
    with delayed(redis_url, delay) as url, Redis.from_url(redis_url) as client:
        client.flushall()
        client.config_resetstat()
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, url, f"contention-{name}", str(count), kind],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]
        for worker in workers:
            assert worker.stdout
            worker.stdout.readline()
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("\n")
            worker.stdin.flush()
        results = [json.loads(worker.communicate()[0]) for worker in workers]
        stats = client.info("commandstats")
    calls = sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in ("evalsha", "watch"))
    start = min(result["start"] for result in results)
    ends = sorted(result["end"] - start for result in results)
    took = sorted(seconds * 1000 for result in results for seconds in result["took"])
    numbers = sorted(number for result in results for number in result["numbers"])
    lost = numbers != list(range(1, processes * count + 1)) or any(result["fallen"] for result in results)
    return (
        f"{name:10}{kind:>9}{delay:9g}{ends[-1]:11.2f}{len(took) / ends[-1]:8.0f}"
        f"{statistics.median(took):10.1f}"
        f"{took[len(took) * 99 // 100]:8.1f}{took[-1]:8.1f}{calls / len(took):11.1f}"
        f"{ends[0]:9.2f} -{ends[-1]:5.2f}{'yes' if lost else 'none':>7}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--bookings", type=int, default=25, help="of each process")
    parser.add_argument("--delays", default="0,1,5", help="milliseconds of round trip, with commas")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=DIRECTORY")
    options = parser.parse_args()
    versions = [("this", str(Path(__file__).parents[1]))]
    versions += [(name, folder) for name, _, folder in (word.partition("=") for word in options.also)]
    print(HEAD)
    with redis_server() as redis_url:
        for kind in ("book", "request"):
            for delay in map(float, options.delays.split(",")):
                for name, folder in versions:
                    print(
                        measure(name, folder, kind, delay, redis_url, options.processes, options.bookings),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
