# SPDX-License-Identifier: Apache-2.0
"""
Run the DAG of each page in ``docs/operators``, and make its picture: the task in Airflow, with its log.

    python -m tools.pictures [PAGE …]

It needs chromium, and writes into ``docs/images/operators``. Airflow and the sandbox listen on this machine
only, and are removed at the end.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

from airflow_provider_lemlist.sandbox import Sandbox
from tools.private_airflow import PrivateAirflow
from tools.ui import wait_until_healthy

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "dags_examples"
PICTURES = ROOT / "docs" / "images" / "operators"
PAGES = {page.stem: page for page in sorted(ROOT.glob("docs/operators/*.md"))}
#: Has a picture of its asset.
WITHOUT = "activity-event-trigger"
#: Seconds for a run.
TIMEOUT = 120


def main(pages: list[str]) -> int:
    """Run the DAGs of the pages, all by default, and write their pictures; return the exit code."""
    pages = pages or [page for page in PAGES if page != WITHOUT]
    with TemporaryDirectory() as folder, Sandbox() as lemlist:
        write_dags(Path(folder))
        with PrivateAirflow(
            Path(folder),
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW_CONN_LEMLIST_DEFAULT=lemlist.airflow_connection(),
        ) as airflow:
            confs = prepare(lemlist, airflow, Path(folder))
            airflow.run("db", "migrate")
            airflow.start("standalone")
            if not wait_until_healthy(airflow):
                print(airflow.tail(), file=sys.stderr)
                return 1
            PICTURES.mkdir(parents=True, exist_ok=True)
            for page in pages:
                dag_id = page.replace("-", "_")
                task_id, run_id = run(airflow, dag_id, confs.get(dag_id, {}))
                address = f"{airflow.url}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"
                photograph(address, PICTURES / f"{page}.png")
                print(page, flush=True)
    return 0


def write_dags(folder: Path) -> None:
    """Write the first example of each page as a DAG file, and beside them the files that they read."""
    for name, page in PAGES.items():
        code = re.search(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
        if not code:
            raise ValueError(f"{page.name} has no example")
        (folder / f"{name.replace('-', '_')}.py").write_text(code[1], encoding="utf-8")
    shutil.copy(EXAMPLES / "signups.csv", folder)
    shutil.copytree(EXAMPLES / "voice_notes", folder / "voice_notes")


def prepare(lemlist: Sandbox, airflow: PrivateAirflow, folder: Path) -> dict[str, dict[str, str]]:
    """Fill the sandbox and the warehouse; return the params of each DAG."""

    def campaign(name: str, status: str = "running", leads: int = 5) -> tuple[str, list[str], str]:
        made = lemlist.campaign(name, status=status)
        lemlist.step(made["sequenceId"], "email", subject="A question", message="<p>Shall we talk?</p>")
        step = lemlist.step(made["sequenceId"], "linkedinVoiceNote")
        people = [lemlist.lead(made["_id"], f"{name[:3].lower()}-{n}@example.com") for n in range(leads)]
        return made["_id"], [lead["_id"] for lead in people], step["_id"]

    watched, people, _ = campaign("Autumn webinar", leads=60)
    for lead_id in people:
        lemlist.activity(lead_id=lead_id, type="emailsSent")
    voices, people, step_id = campaign("Voice notes", leads=3)
    notes = folder / "notes"
    notes.mkdir()
    for lead_id in people:
        shutil.copy(EXAMPLES / "voice_notes" / "ada.m4a", notes / f"{lead_id}.m4a")
    lemlist.fill_activities(150, time.time() - 20 * 3600, time.time())
    with closing(sqlite3.connect(airflow.warehouse)) as database, database:
        database.execute("CREATE TABLE opt_outs (email TEXT)")
        database.execute("CREATE TABLE do_not_contact (domain TEXT)")
        database.execute("INSERT INTO opt_outs VALUES ('ada@example.com'), ('grace@example.com')")
        database.execute("INSERT INTO do_not_contact VALUES ('competitor.example')")
    empty = {name: campaign(name, "draft", 0)[0] for name in ("Leads", "Steps", "Notes", "Sign-ups")}
    return {
        name: {"campaign_id": campaign_id}
        for name, campaign_id in {
            "start_campaign": campaign("Product tour", "draft")[0],
            "pause_campaign": campaign("Winter webinar")[0],
            "launch_leads": campaign("Summer webinar", "draft")[0],
            "campaign_guard": watched,
            "campaign_stats_sensor": watched,
            "create_lead": empty["Leads"],
            "add_step": empty["Steps"],
            "upload_voice_audio": empty["Notes"],
            "load_leads": empty["Sign-ups"],
            "activity_sensor": watched,
        }.items()
    } | {"upload_voice_audios": {"campaign_id": voices, "step_id": step_id, "folder": str(notes)}}


def run(airflow: PrivateAirflow, dag_id: str, conf: dict[str, str]) -> tuple[str, str]:
    """Run a DAG, and return its last task and the id of the run."""
    deadline = time.monotonic() + TIMEOUT
    while not airflow.query("SELECT 1 FROM serialized_dag WHERE dag_id = ?", dag_id):
        wait(deadline, dag_id)
    run_id = "picture"
    now = datetime.now(UTC).isoformat()
    body = {"dag_run_id": run_id, "logical_date": now, "conf": conf}
    call(airflow, f"/api/v2/dags/{dag_id}/dagRuns", body)
    while not (last := finished_task(airflow, dag_id, run_id)):
        wait(deadline, dag_id)
    return last, run_id


def finished_task(airflow: PrivateAirflow, dag_id: str, run_id: str) -> str | None:
    """Return the task that ended last when the run has ended; of a sensor, the one that waits."""
    rows = airflow.query(
        "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ? ORDER BY end_date",
        dag_id,
        run_id,
    )
    if any(row["state"] in ("failed", "up_for_retry") for row in rows):
        raise RuntimeError(f"{dag_id} has failed")
    over = {"success", "deferred"}
    return str(rows[-1]["task_id"]) if rows and all(row["state"] in over for row in rows) else None


def wait(deadline: float, dag_id: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(dag_id)
    time.sleep(0.5)


def call(airflow: PrivateAirflow, path: str, body: Any = None) -> Any:
    """Send a request to Airflow's API, and return what it answers."""
    with urlopen(f"{airflow.url}/auth/token", timeout=30) as response:
        token = json.load(response)["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(airflow.url + path, data, headers), timeout=30) as response:
        return json.load(response)


def photograph(address: str, picture: Path) -> None:
    """Write what a browser shows of an address."""
    subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--window-size=1120,560", "--virtual-time-budget=20000", f"--screenshot={picture}", address),
        ],
        check=True,
        capture_output=True,
        timeout=90,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
