# SPDX-License-Identifier: Apache-2.0
"""
Measure the import time of the modules for DAG files, compared with ``HttpOperator``.

    python benchmarks/parse_cost.py [--runs 15]

The time of importing ``DAG`` and Airflow's base classes is excluded. Each import runs in fresh processes, in
turn and with compiled bytecode. ``HttpOperator`` needs its provider::

    pip install apache-airflow-providers-http
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

PROBE = """
import time
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseOperatorLink, BaseSensorOperator
start = time.perf_counter()
{statement}
print((time.perf_counter() - start) * 1000)
"""
OURS = (
    "airflow_provider_lemlist.operators.lead",
    "airflow_provider_lemlist.operators.sequence",
    "airflow_provider_lemlist.operators.load",
    "airflow_provider_lemlist.operators.campaign",
    "airflow_provider_lemlist.operators.unsubscribe",
    "airflow_provider_lemlist.sensors.activity",
    "airflow_provider_lemlist.sensors.campaign",
    "airflow_provider_lemlist.transfers.object_storage",
    "airflow_provider_lemlist.transfers.sql",
)
HTTP = "airflow.providers.http.operators.http"
ALL_OF_OURS = "all nine modules of this provider"
STATEMENTS = {
    **{module: f"import {module}" for module in OURS},
    ALL_OF_OURS: f"import {', '.join(OURS)}",
    HTTP: f"import {HTTP}",
}


def milliseconds(statement: str, environment: dict[str, str]) -> float | None:
    """Return the duration of a statement in a new process, or None if its package is not installed."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if "No module named 'airflow.providers.http'" in result.stderr:
        return None
    result.check_returncode()
    return float(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": cache, "AIRFLOW_HOME": cache}
        # The first run compiles the modules and finds out which are installed.
        installed = [name for name, code in STATEMENTS.items() if milliseconds(code, environment) is not None]
        series: dict[str, list[float]] = {name: [] for name in installed}
        for _ in range(runs):
            for name in installed:
                series[name].append(milliseconds(STATEMENTS[name], environment) or 0.0)
    print(f"{'import':48}{'median ms':>10}{'min':>8}{'max':>8}")
    for name, figures in series.items():
        print(f"{name:48}{statistics.median(figures):10.1f}{min(figures):8.1f}{max(figures):8.1f}")
    if HTTP in series:
        ratio = statistics.median(series[HTTP]) / statistics.median(series[ALL_OF_OURS])
        print(f"\nHttpOperator takes {ratio:.0f} times as long as all modules of this provider.")
    else:
        print("\nHttpOperator is not installed: pip install apache-airflow-providers-http")


if __name__ == "__main__":
    main()
