# SPDX-License-Identifier: Apache-2.0
"""Airflow as a fleet on one machine: CeleryExecutor, two workers and two triggerers, each with its home."""

from __future__ import annotations

import json
import os
import secrets
import time
from base64 import urlsafe_b64encode
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import requests

from tools.fleet.plan import Run
from tools.private_airflow import PrivateAirflow

ROOT = Path(__file__).parents[2]
#: What would be one machine each.
WORKERS, TRIGGERERS = ("worker-1", "worker-2"), ("triggerer-1", "triggerer-2")
#: Modules that a worker imports once, and not in the process of every task.
PRELOADED = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "airflow_provider_lemlist.hooks.lemlist",
    "airflow_provider_lemlist.operators.load",
    "airflow_provider_lemlist.sensors.activity",
    "airflow_provider_lemlist.transfers.object_storage",
    "airflow_provider_lemlist.triggers.activity",
)
#: Timeout of the start of Airflow, in seconds.
START_TIMEOUT = 180


class Fleet(PrivateAirflow):
    """
    The processes of the fleet.

    :param database: The directory of PostgreSQL's socket.
    :param broker: URL of the Redis of Celery, with database 0.
    :param plan: The file of the plan, for the DAGs.
    :param concurrency: Tasks that one worker runs at a time.
    """

    def __init__(self, *, database: str, broker: str, plan: Path, concurrency: int) -> None:
        self._database = database
        super().__init__(
            Path(__file__).parent / "dags",
            FLEET_PLAN=str(plan),
            PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"postgresql+psycopg2://tester@/postgres?host={database}",
            AIRFLOW__CORE__EXECUTOR="CeleryExecutor",
            AIRFLOW__CELERY__BROKER_URL=broker,
            AIRFLOW__CELERY__RESULT_BACKEND=broker.removesuffix("0") + "1",
            AIRFLOW__CELERY__WORKER_CONCURRENCY=str(concurrency),
            # No more than the workers take: a task that waits in the queue for long counts as lost.
            AIRFLOW__CORE__PARALLELISM=str(concurrency * len(WORKERS)),
            AIRFLOW__CELERY__EXTRA_CELERY_CONFIG=json.dumps({"include": PRELOADED}),
            AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER="False",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES="1",
            AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="600",
            # The processes have homes of their own, and would each generate these.
            AIRFLOW__CORE__FERNET_KEY=urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            AIRFLOW__API__SECRET_KEY=secrets.token_hex(),
            AIRFLOW__API_AUTH__JWT_SECRET=secrets.token_hex(),
            # What a killed process leaves behind is found in seconds. The defaults are minutes.
            AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="15",
            AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="3",
            AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT="20",
            AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL="3",
            AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC="2",
            AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD="10",
        )

    # --- Processes --------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start every process, and wait until a DAG can be triggered and all triggerers run."""
        self.start("api-server", "scheduler", "dag-processor")
        for name in (*WORKERS, *TRIGGERERS):
            self.start_machine(name)
        deadline = time.monotonic() + START_TIMEOUT
        while not (self._is_healthy() and self._is_ready()):
            if not self.is_alive or time.monotonic() > deadline:
                raise RuntimeError("Airflow did not start")
            time.sleep(0.5)

    def start_machine(self, name: str) -> None:
        """Start a worker or a triggerer with a home and a temporary directory that are its own."""
        home = self.home / name
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        # Their log servers would listen on all addresses.
        command = ("celery", "worker", "--celery-hostname", name) if name in WORKERS else ("triggerer",)
        self.launch(
            name,
            *command,
            "--skip-serve-logs",
            HOME=str(home),
            TMPDIR=str(home / "tmp"),
            AIRFLOW_HOME=str(home / "airflow"),
            AIRFLOW__LEMLIST__BUDGET_DIR="",
        )

    def _is_healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/api/v2/monitor/health", timeout=5).ok
        except requests.RequestException:
            return False

    def _is_ready(self) -> bool:
        dags = self.query("SELECT 1 AS one FROM serialized_dag")
        sql = "SELECT 1 AS one FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"
        return bool(dags) and len(self.query(sql)) >= len(TRIGGERERS)

    def stop(self) -> None:
        """Kill all processes: nothing that they could save is kept."""
        for name in list(self._processes):
            self.kill(name)

    def worker_of(self, run_id: str, task_id: str) -> str | None:
        """Return the name of the worker on which a task runs."""
        sql = "SELECT pid FROM task_instance WHERE run_id = %s AND task_id = %s AND state = 'running'"
        for row in self.query(sql, run_id, task_id):
            if row["pid"]:
                session = os.getsid(row["pid"])
                return next((name for name in WORKERS if self.session(name) == session), None)
        return None

    # --- Runs -------------------------------------------------------------------------------------------

    def trigger(self, dag_id: str) -> str:
        """Start a run of a DAG and return its id."""
        return str(self._post(f"dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"])

    def add_connection(self, conn_id: str, **fields: Any) -> None:
        """Store a connection in the metadata database."""
        self._post("connections", {"connection_id": conn_id, **fields})

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        token = requests.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        response = requests.post(
            f"{self.url}/api/v2/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        response.raise_for_status()
        return response.json()

    def states(self, run_id: str) -> dict[str, Counter[str]]:
        """Return how many instances of each task are in which state."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        sql = "SELECT task_id, state, count(*) AS count FROM task_instance WHERE run_id = %s GROUP BY 1, 2"
        for row in self.query(sql, run_id):
            found[row["task_id"]][row["state"] or "none"] += row["count"]
        return found

    def attempts(self, run_id: str) -> int:
        """Return how many attempts of tasks were made after the first ones."""
        again = "coalesce(sum(greatest(try_number - 1, 0)), 0)"
        [row] = self.query(f"SELECT {again} AS again FROM task_instance WHERE run_id = %s", run_id)
        return int(row["again"])

    def run_of(self, run_id: str) -> Run:
        """Return what a run has done."""
        [row] = self.query("SELECT state FROM dag_run WHERE run_id = %s", run_id)
        returned: dict[str, dict[int, Any]] = defaultdict(dict)
        sql = "SELECT task_id, map_index, value FROM xcom WHERE run_id = %s AND key = 'return_value'"
        for xcom in self.query(sql, run_id):
            returned[xcom["task_id"]][xcom["map_index"]] = xcom["value"]
        return Run(row["state"], self.states(run_id), returned)

    def failures(self, run_id: str) -> str:
        """Return the ends of the logs of some tasks that failed."""
        sql = "SELECT dag_id, task_id FROM task_instance WHERE run_id = %s AND state = 'failed' LIMIT 3"
        paths = [
            path
            for row in self.query(sql, run_id)
            for path in self.home.glob(
                f"worker-*/airflow/logs/dag_id={row['dag_id']}/*/task_id={row['task_id']}/**/*.log"
            )
        ]
        return "\n".join("\n".join(path.read_text().splitlines()[-8:]) for path in paths)

    def has_ended(self, run_id: str) -> bool:
        [row] = self.query("SELECT state FROM dag_run WHERE run_id = %s", run_id)
        return row["state"] in ("success", "failed")

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query on the metadata database."""
        import psycopg2
        from psycopg2.extras import RealDictCursor

        connect = psycopg2.connect(host=self._database, user="tester", dbname="postgres")
        with closing(connect) as database, database.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute(sql, values)
            return [dict(row) for row in cursor.fetchall()]
