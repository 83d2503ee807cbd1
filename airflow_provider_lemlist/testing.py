# SPDX-License-Identifier: Apache-2.0
"""
For tests of DAGs: ``run_dag`` runs one in this process, and a ``Fleet`` runs functions in worker processes.

``pytest_plugin`` offers both as fixtures. Airflow is imported inside the functions, because it reads its home
at its first import, and each worker has a home of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox import Sandbox

Item = TypeVar("Item")
Result = TypeVar("Result")

#: The fields of a lead by which a person is recognised.
IDENTITIES = ("email", "linkedinUrl", "phone")


def run_dag(dag: Any, **conf: Any) -> Any:
    """
    Run a DAG with Airflow's ``dag.test()`` and return the run.

    The database is the one that Airflow is configured with; if it has no tables, they are created.

    :param conf: The configuration of the run, which overrides the params of the DAG.
    :raises RuntimeError: ``AIRFLOW_HOME`` was set too late, so this would be the database of another home.
    """
    from airflow import settings
    from airflow.configuration import AIRFLOW_HOME, get_airflow_home
    from airflow.utils import db
    from sqlalchemy import inspect

    from airflow_provider_lemlist.version_compat import register_dag

    if get_airflow_home() != AIRFLOW_HOME:
        raise RuntimeError(
            f"AIRFLOW_HOME is {get_airflow_home()}, but Airflow was imported before and uses {AIRFLOW_HOME}. "
            "Nothing was run. Set AIRFLOW_HOME in conftest.py, before any import of Airflow"
        )
    if not inspect(settings.engine).has_table("dag_run"):
        db.initdb()
    register_dag(dag)
    return dag.test(run_conf=conf or None)


class Fleet:
    """
    Several workers that use one key of the sandbox.

    :ivar sandbox: The sandbox behind the connection.
    """

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self._folder = folder
        self._runs = 0

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int = 4,
        shared: bool = True,
    ) -> list[Result]:
        """
        Call a function with each item, in worker processes, and return the results in the order of the items.

        Each worker takes the next item when it is done with one, and has its own ``HOME``, ``TMPDIR`` and
        ``AIRFLOW_HOME``, as if it were on a machine of its own. The first error of a worker is raised here.

        :param function: A function of a module, because the workers import it.
        :param items: What can be pickled.
        :param shared: Whether the workers share the rate budget, as with a Redis as ``budget_store``;
            otherwise each has its own.
        """
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        with ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_move_in, initargs=(folder, shared)
        ) as pool:
            return list(pool.map(function, items))

    @property
    def refusals(self) -> int:
        """How many requests the rate limit refused."""
        return sum(key["refused"] for key in self.sandbox.state()["limit"]["keys"].values())

    @property
    def contacted_twice(self) -> list[str]:
        """The people who are more than one lead, in one campaign or in several."""
        people = Counter(
            value.casefold()
            for lead in self.sandbox.state()["leads"]
            for name in IDENTITIES
            if (value := lead["variables"].get(name))
        )
        return sorted(value for value, leads in people.items() if leads > 1)


def _move_in(folder: Path, shared: bool) -> None:
    """Give this process directories of its own, before it imports Airflow."""
    home = folder / f"worker-{os.getpid()}"
    for name in ("HOME", "TMPDIR", "AIRFLOW_HOME"):
        directory = home / name.lower()
        directory.mkdir(parents=True)
        os.environ[name] = str(directory)
    os.environ["AIRFLOW__LEMLIST__BUDGET_DIR"] = str((folder if shared else home) / "budget")
