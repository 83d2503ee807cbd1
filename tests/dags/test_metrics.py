# SPDX-License-Identifier: Apache-2.0
"""A task that Airflow runs sends its metrics where Airflow sends its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.dags.conftest import LONGEST

pytestmark = pytest.mark.airflow


def test_tasks_of_an_example_send_their_metrics_to_statsd(lemlist):
    pytest.importorskip("statsd")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.bind(("127.0.0.1", 0))
        options = {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1])}
        environment = {f"AIRFLOW__METRICS__STATSD_{name}": value for name, value in options.items()}
        subprocess.run(
            [sys.executable, "-m", "airflow", "dags", "test", "lemlist_load_leads"],
            env=os.environ | environment,
            check=True,
            timeout=LONGEST,
        )
        server.setblocking(False)
        received = []
        while True:
            try:
                received += server.recv(65_536).decode().splitlines()
            except BlockingIOError:
                break
    assert received.count("airflow.lemlist.requests:1|c") == len(lemlist.requests())
    assert "airflow.lemlist.rows.created:5|c" in received
    assert "airflow.lemlist.rows.duplicate:1|c" in received
    assert any(each.startswith("airflow.ti.finish") for each in received)
