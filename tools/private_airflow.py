# SPDX-License-Identifier: Apache-2.0
"""Run Airflow in a temporary home; the user's own Airflow is neither read nor changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

VERSION = version("apache-airflow")
AIRFLOW_3 = not VERSION.startswith("2.")
#: The commands that run scheduled DAGs without a web interface.
ENGINE = ("api-server", "scheduler", "dag-processor") if AIRFLOW_3 else ("scheduler",)
#: Seconds that a process gets to end after SIGTERM.
STOP_TIMEOUT = 20


class PrivateAirflow:
    """
    A temporary home, the environment of Airflow's processes, and the running processes.

    .. code-block:: python

        with PrivateAirflow(Path("dags_examples"), AIRFLOW_CONN_LEMLIST_DEFAULT="…") as airflow:
            airflow.run("db", "migrate")
            airflow.start("scheduler")

    :param dags: Folder of the DAGs.
    :param environment: Further variables, such as ``AIRFLOW__CORE__PARALLELISM``.
    """

    def __init__(self, dags: Path, **environment: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="lemlist-airflow-"))
        self.log = self.home / "airflow.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            # Airflow starts further processes by the name "airflow".
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags.resolve()),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__LEMLIST__BUDGET_DIR": str(self.home / "budget"),
            # What lemlist_to_warehouse.py writes to.
            "AIRFLOW_VAR_LEMLIST_LAKE": str(self.lake),
            "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(self.warehouse)}),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "OPENLINEAGE_DISABLED": "true",
            # These servers listen on all addresses; avoid ports that are in use.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            **(self._version_3() if AIRFLOW_3 else self._version_2()),
            **environment,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def _version_3(self) -> dict[str, str]:
        return {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            # Otherwise the workers use port 8080.
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        }

    def _version_2(self) -> dict[str, str]:
        return {
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(self.port),
            "AIRFLOW__WEBSERVER__WORKERS": "1",
            # Airflow refuses this executor with SQLite, which is safe for a few tasks.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        }

    @property
    def database(self) -> Path:
        """The file of the metadata database."""
        return self.home / "airflow.db"

    @property
    def lake(self) -> Path:
        """The directory of the variable ``lemlist_lake``."""
        return self.home / "lake"

    @property
    def warehouse(self) -> Path:
        """The SQLite database of the connection ``warehouse``."""
        return self.home / "warehouse.db"

    # --- Processes --------------------------------------------------------------------------------------

    def run(self, *arguments: str) -> None:
        """Run one command of Airflow; its output goes to the log."""
        with self.log.open("ab") as log:
            subprocess.run(
                (sys.executable, "-m", "airflow", *arguments),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )

    def start(self, *commands: str) -> None:
        """Start long-running commands, each in its own session; ``stop`` ends them."""
        for command in commands:
            self.launch(command, command)

    def launch(self, name: str, *arguments: str, **environment: str) -> None:
        """
        Start one long-running command in its own session; ``stop`` ends it.

        :param name: By which ``kill`` finds it.
        :param arguments: The command and its arguments.
        :param environment: Variables that only this command has.
        """
        with self.log.open("ab") as log:
            self._processes[name] = subprocess.Popen(
                (sys.executable, "-m", "airflow", *arguments),
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill a started command and all its descendants at once, as when their machine fails."""
        process = self._processes.pop(name)
        signal_session(process.pid, signal.SIGKILL)
        process.wait()

    def session(self, name: str) -> int:
        """Return the id of the session of a started command, which its descendants share."""
        return self._processes[name].pid

    @property
    def is_alive(self) -> bool:
        """Whether all started processes are running."""
        return all(process.poll() is None for process in self._processes.values())

    def stop(self) -> None:
        """End the started processes and their children."""
        for number, timeout in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 2)):
            for process in self._processes.values():
                # If the leader has ended, its children are still in the session.
                signal_session(process.pid, number)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline and any(
                signal_session(each.pid, 0) for each in self._processes.values()
            ):
                for process in self._processes.values():
                    process.poll()
                time.sleep(0.1)
        self._processes.clear()

    # --- Results ----------------------------------------------------------------------------------------

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query on the metadata database."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql, values)]

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def signal_session(leader: int, number: int) -> bool:
    """
    Send a signal (0 for none) to all processes of a session; return whether there is one.

    Not to the process group: in Airflow 3 the process of a task has a group of its own.
    """
    found = False
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            # A process may end at any moment.
            with suppress(FileNotFoundError, ProcessLookupError):
                # The fields after the name, which may contain spaces and brackets.
                state, _, _, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == leader and state != "Z":
                    os.kill(int(entry), number)
                    found = True
    return found
