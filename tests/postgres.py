# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server in a temporary directory, and the connection of Airflow to it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server without a port; yield the directory of its socket. The user is ``tester``."""
    bin_ = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            as_user = {"user": pwd.getpwnam("postgres").pw_name}
        except KeyError:
            as_user = {"user": "nobody"}
    # Not pytest's directory, which other users cannot enter; and the path of a socket must be short.
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if as_user:
        shutil.chown(home, as_user["user"])
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def call(*command: str) -> None:
        done = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, check=False, **as_user
        )
        assert done.returncode == 0, done.stderr

    data = str(home / "data")
    try:
        call(str(bin_ / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")
        settings = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
        call(str(bin_ / "pg_ctl"), "-D", data, "-w", "-l", str(home / "log"), "-o", settings, "start")
        try:
            yield str(home)
        finally:
            call(str(bin_ / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def connect(directory: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the id of a connection that uses a driver; skip the test if this Airflow does not."""
    pytest.importorskip(driver)
    hooks = pytest.importorskip("airflow.providers.postgres.hooks.postgres")
    conn = {"conn_type": "postgres", "host": directory, "login": "tester", "schema": "postgres"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
    if driver == "psycopg" and not getattr(hooks, "USE_PSYCOPG3", False):
        pytest.skip("this Airflow does not use psycopg 3")
    if driver == "psycopg2":
        monkeypatch.setattr(hooks, "USE_PSYCOPG3", False, raising=False)
    return "warehouse"
