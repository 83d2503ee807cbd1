# SPDX-License-Identifier: Apache-2.0
"""
``make ui``: run Airflow with its web interface and the sandbox until Ctrl-C.

    python -m tools.ui

The connection ``lemlist_default`` points at the sandbox. Both listen on this machine only, require no login,
and are removed at the end. Prospects are added all the time, so that there are new replies.
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
from tools.demo import add_campaign, add_prospects
from tools.private_airflow import AIRFLOW_3, VERSION, PrivateAirflow

ROOT = Path(__file__).parents[1]
HEALTH = "/api/v2/monitor/health" if AIRFLOW_3 else "/health"
#: Timeout of Airflow's start, in seconds.
TIMEOUT = 180
#: Seconds between two prospects who are added while Airflow runs.
NEXT_PROSPECT = 40
REPLIES = (
    f"A prospect is added every {NEXT_PROSPECT} s. Most of them reply, and a reply starts the DAG "
    "lemlist_on_reply."
)


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
        add_prospects(lemlist)
        lemlist.simulate(opens=1, clicks=0, accepts=1, replies=0.5)
        print(f"Starting Airflow {VERSION} …", flush=True)
        # Airflow 2 gives this role to users without login; Airflow 3 makes every user an admin.
        (airflow.home / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\n')
        airflow.run("db", "migrate")
        # The form shows only connections of the database, not of the environment.
        airflow.run("connections", "add", DEFAULT_CONN_ID, "--conn-json", lemlist.airflow_connection())
        if AIRFLOW_3:
            set_port_for_test_button(airflow)
        airflow.start("standalone")
        if not wait_until_healthy(airflow):
            print(f"Airflow did not start. The end of its log:\n\n{airflow.tail()}", file=sys.stderr)
            return 1
        print(
            f"  {airflow.url:<26} Airflow, without login: trigger a DAG, open the connection",
            f"  {lemlist.origin:<26} the sandbox: campaigns, leads, activities",
            *([REPLIES] if AIRFLOW_3 else []),
            "Ctrl-C stops both and removes everything.",
            sep="\n",
            flush=True,
        )
        campaign_id, added, started = add_campaign(lemlist, "Sign-ups"), 0, time.monotonic()
        while airflow.is_alive:
            if time.monotonic() - started >= added * NEXT_PROSPECT:
                added += 1
                lemlist.lead(campaign_id, f"sign-up-{added}@example.com", firstName=f"No. {added}")
            time.sleep(0.5)
        print(f"Airflow has ended. The end of its log:\n\n{airflow.tail()}", file=sys.stderr)
        return 1


def set_port_for_test_button(airflow: PrivateAirflow) -> None:
    """Set the port to 0: the test button of 3.3.2 fails without a port (apache/airflow#73298)."""
    with closing(sqlite3.connect(airflow.database)) as database, database:
        database.execute("UPDATE connection SET port = 0 WHERE conn_id = ?", (DEFAULT_CONN_ID,))


def wait_until_healthy(airflow: PrivateAirflow) -> bool:
    """Wait until Airflow's web interface responds; return False after the timeout."""
    deadline = time.monotonic() + TIMEOUT
    while airflow.is_alive and time.monotonic() < deadline:
        try:
            with urlopen(airflow.url + HEALTH, timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    # SIGTERM also cleans up. SIGINT is set because a shell may have disabled it for background processes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print()
