# SPDX-License-Identifier: Apache-2.0
"""A task that Airflow runs sends its metrics where Airflow sends its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.dags.conftest import LONGEST
from tests.statsd import StatsDServer

pytestmark = pytest.mark.airflow


def test_tasks_of_an_example_send_their_metrics_to_statsd(lemlist):
    pytest.importorskip("statsd")
    with StatsDServer() as server:
        options = {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.port)}
        environment = {f"AIRFLOW__METRICS__STATSD_{name}": value for name, value in options.items()}
        subprocess.run(
            [sys.executable, "-m", "airflow", "dags", "test", "lemlist_load_leads"],
            env=os.environ | environment,
            check=True,
            timeout=LONGEST,
        )
    received = server.lines
    assert received.count("airflow.lemlist.requests:1|c") == len(lemlist.requests())
    assert "airflow.lemlist.rows.created:5|c" in received
    assert "airflow.lemlist.rows.duplicate:1|c" in received
    assert any(each.startswith("airflow.ti.finish") for each in received)
