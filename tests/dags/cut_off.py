# SPDX-License-Identifier: Apache-2.0
"""Run Airflow for tests that interrupt its tasks: one DAG whose tasks write their process id to a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_lemlist.sandbox import Sandbox
from tools.private_airflow import ENGINE, PrivateAirflow

#: Timeout in seconds, much longer than needed on a busy machine.
LONGEST = 600


@contextmanager
def running(
    dags: str | Path, lemlist: Sandbox, *, tasks: int, variables: Mapping[str, str], **environment: str
) -> Iterator[PrivateAirflow]:
    """
    Run Airflow with the DAG of a folder.

    :param dags: The folder, within that of this file or anywhere else.
    :param tasks: Number of tasks that run at the same time.
    :param variables: Airflow variables of the DAG.
    :param environment: Further variables of the environment.
    """
    with PrivateAirflow(
        Path(__file__).parent / dags,
        AIRFLOW_CONN_LEMLIST_DEFAULT=lemlist.airflow_connection(),
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__PARALLELISM=str(tasks),
        **{f"AIRFLOW_VAR_{name.upper()}": value for name, value in variables.items()},
        **environment,
    ) as airflow:
        airflow.run("db", "migrate")
        airflow.start(*ENGINE)
        yield airflow


def cut_off(airflow: PrivateAirflow, task_id: str, number: int) -> None:
    """Send a signal to the process of the task's last attempt."""
    os.kill(int((airflow.home / f"{task_id}.pid").read_text()), number)


def has_ended(airflow: PrivateAirflow) -> bool:
    """Return whether the run of the DAG has ended."""
    rows = airflow.query("SELECT state FROM dag_run")
    return [row["state"] for row in rows] in (["success"], ["failed"])


def wait_until(condition: Callable[[], bool], what: str, airflow: PrivateAirflow) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert airflow.is_alive, f"Airflow has ended:\n{airflow.tail(100)}"
        assert time.monotonic() < deadline, f"{what} did not happen in {LONGEST} s:\n{airflow.tail(100)}"
        time.sleep(0.1)
