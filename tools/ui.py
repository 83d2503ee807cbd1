# SPDX-License-Identifier: Apache-2.0
"""
``make ui``: Airflow with its web interface, and the sandbox beside it, to click through until Ctrl-C.

    python -m tools.ui

The connection ``lemlist_default`` is in place and points at the sandbox. Both listen on this machine only,
ask for no login, and leave nothing behind.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.sandbox import Sandbox
from tools.private_airflow import AIRFLOW_3, VERSION, PrivateAirflow

ROOT = Path(__file__).parents[1]
HEALTH = "/api/v2/monitor/health" if AIRFLOW_3 else "/health"
#: Seconds after which something must be wrong.
LONGEST = 180


def main() -> int:
    """Run both until Ctrl-C; return the exit code."""
    with (
        Sandbox() as lemlist,
        PrivateAirflow(
            ROOT / "dags_examples",
            AIRFLOW__CORE__TEST_CONNECTION="Enabled",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        ) as airflow,
    ):
        lemlist.simulate(opens=1, clicks=0, accepts=1, replies=0.5)
        print(f"Starting Airflow {VERSION} …", flush=True)
        # Airflow 2 lets in whoever has the role of the public; Airflow 3 makes everybody an admin.
        (airflow.home / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')
        airflow.run("db", "migrate")
        # In the database and not in the environment, so that the form shows it.
        airflow.run("connections", "add", DEFAULT_CONN_ID, "--conn-json", lemlist.airflow_connection())
        if AIRFLOW_3:
            please_the_test_button(airflow)
        airflow.start("standalone")
        if not answers(airflow):
            print(f"Airflow does not answer. The end of its log:\n\n{airflow.tail()}", file=sys.stderr)
            return 1
        print(
            f"  {airflow.url:<26} Airflow, without a login: trigger lemlist_outreach, look at the connection",
            f"  {lemlist.origin:<26} the sandbox: campaigns, leads, and what they do",
            "Ctrl-C stops both and removes everything.",
            sep="\n",
            flush=True,
        )
        while airflow.is_alive:
            time.sleep(0.5)
        print(f"Airflow has ended. The end of its log:\n\n{airflow.tail()}", file=sys.stderr)
        return 1


def please_the_test_button(airflow: PrivateAirflow) -> None:
    """Give the connection port 0: with none at all the button of 3.3.2 fails (apache/airflow#73298)."""
    with closing(sqlite3.connect(airflow.database)) as database, database:
        database.execute("UPDATE connection SET port = 0 WHERE conn_id = ?", (DEFAULT_CONN_ID,))


def answers(airflow: PrivateAirflow) -> bool:
    """Wait until Airflow's web interface answers; False when it does not."""
    deadline = time.monotonic() + LONGEST
    while airflow.is_alive and time.monotonic() < deadline:
        try:
            with urlopen(airflow.url + HEALTH, timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    # Whoever ends this with a plain kill wants it clean as well; and a shell may have us ignore Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print()
