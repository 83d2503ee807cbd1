# SPDX-License-Identifier: Apache-2.0
"""A running Airflow for tests that cut its tasks off: one DAG, whose tasks tell which processes they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airflow_provider_lemlist.sandbox import Sandbox
from tools.private_airflow import ENGINE, PrivateAirflow

#: Seconds after which a part of the scene hangs. Far more than it takes on a busy machine.
LONGEST = 600


@contextmanager
def running(
    dag_id: str, lemlist: Sandbox, *, tasks: int, variables: Mapping[str, str]
) -> Iterator[PrivateAirflow]:
    """
    Let an Airflow run the DAG in the folder of its name, once.

    :param tasks: How many tasks run at a time.
    :param variables: What the DAG asks Airflow's variables for.
    """
    with PrivateAirflow(
        Path(__file__).parent / dag_id,
        AIRFLOW_CONN_LEMLIST_DEFAULT=lemlist.airflow_connection(),
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__PARALLELISM=str(tasks),
        **{f"AIRFLOW_VAR_{name.upper()}": value for name, value in variables.items()},
    ) as airflow:
        airflow.run("db", "migrate")
        airflow.start(*ENGINE)
        yield airflow


def cut_off(airflow: PrivateAirflow, task_id: str, number: int) -> None:
    """Send a signal to the process of a task's attempt, which a busy Airflow may have had to start twice."""
    os.kill(int((airflow.home / f"{task_id}.pid").read_text()), number)


def has_ended(airflow: PrivateAirflow) -> bool:
    """Say whether the run of the DAG is over."""
    rows = airflow.query("SELECT state FROM dag_run")
    return [row["state"] for row in rows] in (["success"], ["failed"])


def wait_until(condition: Callable[[], bool], what: str, airflow: PrivateAirflow) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert airflow.is_alive, f"Airflow has ended:\n{airflow.tail(100)}"
        assert time.monotonic() < deadline, f"{what} did not happen in {LONGEST} s:\n{airflow.tail(100)}"
        time.sleep(0.1)
