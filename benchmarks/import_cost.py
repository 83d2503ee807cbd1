# SPDX-License-Identifier: Apache-2.0
"""
Measure the import time of the hook, excluding that of Airflow's base classes.

    python benchmarks/import_cost.py

Each figure is the median of several fresh processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

PROBE = """
import time
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook, conf
start = time.perf_counter()
{statement}
print((time.perf_counter() - start) * 1000)
"""
STATEMENTS = {
    "hooks.lemlist": "import airflow_provider_lemlist.hooks.lemlist",
    "hooks.lemlist and the modules of a first request": (
        "import airflow_provider_lemlist.hooks.lemlist, airflow_provider_lemlist.api.transport"
    ),
    "requests, for comparison": "import requests",
}


def cost(statement: str, runs: int) -> list[float]:
    code = PROBE.format(statement=statement)
    command = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(runs)
    ]
    return [float(output.splitlines()[-1]) for output in outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    print(f"{'import':50}{'median ms':>10}{'min':>8}{'max':>8}")
    for name, statement in STATEMENTS.items():
        series = cost(statement, runs)
        print(f"{name:50}{statistics.median(series):10.1f}{min(series):8.1f}{max(series):8.1f}")


if __name__ == "__main__":
    main()
