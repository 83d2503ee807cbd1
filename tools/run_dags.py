# SPDX-License-Identifier: Apache-2.0
"""
Run DAGs one after the other in this process, with the Airflow of its environment; used by ``tools.demo``.

    python -m tools.run_dags REPORT

The id of each DAG to run is a line of the standard input. The report is a file of JSON lines: one after the
database is created and one after each run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any


def main(report: str) -> int:
    """Write the result of each DAG to the report; return 1 if a run failed."""
    good = True
    with Path(report).open("a") as lines:
        for line in outcomes(line.strip() for line in sys.stdin):
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            good = good and line.get("state", "success") == "success"
    return 0 if good else 1


def outcomes(dag_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    started = time.monotonic()
    from airflow.utils import db

    db.initdb()
    bag = dag_bag()
    if bag.import_errors:
        raise SystemExit(str(bag.import_errors))
    yield {"seconds": time.monotonic() - started}
    for dag_id in dag_ids:
        started = time.monotonic()
        dag = bag.dags[dag_id]
        order = [task.task_id for task in dag.topological_sort()]
        run = dag.test()
        yield {
            "dag_id": dag_id,
            "state": str(run.state),
            "seconds": time.monotonic() - started,
            "tasks": [
                {
                    "task_id": ti.task_id,
                    "map_index": ti.map_index,
                    "state": str(ti.state),
                    "returned": ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index),
                    "plan": ti.xcom_pull(task_ids=ti.task_id, key="plan", map_indexes=ti.map_index),
                }
                for ti in sorted(
                    run.get_task_instances(), key=lambda ti: (order.index(ti.task_id), ti.map_index)
                )
            ],
        }


def dag_bag() -> Any:
    """Load the DAGs folder; the module of the class depends on Airflow's version."""
    try:
        module = import_module("airflow.dag_processing.dagbag")
    except ImportError:
        module = import_module("airflow.models.dagbag")
    return module.DagBag()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
