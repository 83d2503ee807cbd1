# SPDX-License-Identifier: Apache-2.0
"""The fixtures that pytest offers to everyone who has the package, each used by a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = "airflow_provider_lemlist.pytest_plugin"
#: An environment that was installed before the package had the entry point names the plugin itself.
PLUGIN = [] if MODULE in {each.value for each in entry_points(group="pytest11")} else ["-p", MODULE]
#: The test files of the page, by name.
FILES = dict(
    re.findall(r"```python\n# (test_\w+\.py)\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.S)
)


def run(folder: Path, file: str, *arguments: str) -> str:
    """Run pytest in a folder that has this test file only, and return its output."""
    (folder / "test_it.py").write_text(file)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", "-pno:warnings", *PLUGIN, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(folder / "airflow")},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_loading_the_plugin_imports_only_pytest() -> None:
    code = (
        f"import sys, pytest; before = set(sys.modules); import {MODULE}; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(done.stdout.split()) == {"airflow_provider_lemlist", MODULE}


FIXTURE = """
import json, os, pytest
from airflow_provider_lemlist.hooks.lemlist import LemlistHook

seen = set()

@pytest.mark.parametrize("number", range(2))
def test_each_test_has_a_sandbox_a_key_and_a_budget_directory_of_its_own(lemlist, number):
    assert LemlistHook().settings.api_key == lemlist.api_key
    assert LemlistHook().settings.base_url == lemlist.url
    directory = os.environ["AIRFLOW__LEMLIST__BUDGET_DIR"]
    assert not {lemlist.url, lemlist.api_key, directory} & seen
    seen.update({lemlist.url, lemlist.api_key, directory})

def test_requests_do_not_wait(lemlist):
    campaign_id = lemlist.campaign()["_id"]
    for number in range(60):
        LemlistHook().create_lead(campaign_id, {"email": f"{number}@example.com"})
    assert LemlistHook().budget.book().wait == 0
    assert len(lemlist.state()["leads"]) == 60

def test_nothing_stays_behind():
    assert not {"AIRFLOW_CONN_LEMLIST_DEFAULT", "AIRFLOW__LEMLIST__BUDGET_DIR"} & os.environ.keys()

@pytest.mark.lemlist(limit="fixed", conn_id="lemlist_sales", requests=7)
class TestOptions:
    def test_the_marker_of_a_class_applies(self, lemlist):
        assert lemlist.state()["limit"]["requests"] == 7
        assert lemlist.state()["limit"]["kind"] == "fixed"
        assert LemlistHook("lemlist_sales").settings.base_url == lemlist.url
        assert "AIRFLOW_CONN_LEMLIST_DEFAULT" not in os.environ

    @pytest.mark.lemlist(limit="anchored")
    def test_the_marker_of_a_test_wins(self, lemlist):
        assert lemlist.state()["limit"]["requests"] == 7
        assert lemlist.state()["limit"]["kind"] == "anchored"
"""


def test_fixture_is_a_sandbox_behind_the_connection_as_the_markers_say(tmp_path: Path) -> None:
    output = run(tmp_path, FIXTURE, "--strict-markers")
    assert re.search(r"^6 passed in", output, re.M), output


def test_a_marker_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.lemlist('sliding')\ndef test_it(lemlist): ...\n"
    output = run(tmp_path, test)
    assert "takes named options only, not ('sliding',)" in output
    assert "pytest_plugin.py" not in output


def test_a_missing_extra_is_an_error_of_the_tests_that_need_it_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['uvicorn'] = None\n")
    output = run(tmp_path, "def test_with(lemlist): ...\n\n\ndef test_without(): ...\n")
    assert re.search(r"^1 passed, 1 error in", output, re.M), output
    assert "The lemlist sandbox needs uvicorn: pip install 'airflow-provider-lemlist[sandbox]'" in output
    assert "pytest_plugin.py" not in output


FLEET = """
import os, tempfile, time
from pathlib import Path
from airflow_provider_lemlist.hooks.lemlist import LemlistHook

def work(number):
    # Both workers get an item, because the first one waits for the other.
    home = Path(os.environ["HOME"])
    (home / "works").touch()
    while len([*home.parents[1].glob("*/home/works")]) < 2:
        time.sleep(0.01)
    hook = LemlistHook()
    hook.get_team()
    directories = {os.environ[each] for each in ("HOME", "TMPDIR", "AIRFLOW_HOME")}
    return os.getpid(), directories | {tempfile.gettempdir()}, hook.budget.state()["booked"]

def run_one(email):
    from datetime import datetime
    from airflow.providers.common.compat.sdk import DAG
    from airflow_provider_lemlist.operators.lead import CreateLeadOperator
    from airflow_provider_lemlist.testing import run_dag
    campaign_id = LemlistHook().find_campaign("One")["_id"]
    with DAG("one_lead", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        CreateLeadOperator(task_id="lead", campaign_id=campaign_id, lead={"email": email})
    return str(run_dag(dag).state), (Path(os.environ["AIRFLOW_HOME"]) / "airflow.db").exists()

def fail(number):
    raise ZeroDivisionError(f"item {number}")

def test_workers_have_their_own_directories_and_one_budget(lemlist_fleet):
    done = lemlist_fleet.run(work, range(12), workers=2)
    directories = {process: paths for process, paths, _ in done}
    assert len(directories) == 2
    one, other = directories.values()
    assert len(one) == len(other) == 3
    assert not one & other
    assert os.environ["HOME"] not in one | other
    assert max(booked for *_, booked in done) == 12
    assert lemlist_fleet.refusals == 0

def test_workers_that_do_not_share_have_a_budget_each(lemlist_fleet):
    done = lemlist_fleet.run(work, range(12), workers=2, shared=False)
    assert sum({process: booked for process, _, booked in done}.values()) == 12
    assert len({process for process, *_ in done}) == 2

def test_a_worker_runs_dags_with_a_database_of_its_own(lemlist_fleet):
    lemlist_fleet.sandbox.campaign("One")
    emails = ["ann@example.com", "ben@example.com", "ann@example.com"]
    assert lemlist_fleet.run(run_one, emails, workers=1) == [("success", True)] * 3
    leads = lemlist_fleet.sandbox.state()["leads"]
    assert [lead["variables"]["email"] for lead in leads] == emails[:2]

def test_an_error_in_a_worker_is_one_of_the_test(lemlist_fleet):
    import pytest
    with pytest.raises(ZeroDivisionError, match="item 0"):
        lemlist_fleet.run(fail, range(2), workers=1)

def test_refusals_and_people_who_are_leads_twice_are_seen(lemlist_fleet):
    sandbox = lemlist_fleet.sandbox
    assert sandbox.state()["limit"] == {"kind": "sliding", "requests": 20, "seconds": 2.0, "keys": {}}
    one, other = sandbox.campaign("One")["_id"], sandbox.campaign("Other")["_id"]
    sandbox.lead(one, "ann@example.com", linkedinUrl="https://www.linkedin.com/in/ann")
    sandbox.lead(other, "Ann@example.com", phone="+3312345678")
    sandbox.lead(other, "ben@example.com")
    assert lemlist_fleet.contacted_twice == ["ann@example.com"]
    import requests
    for _ in range(21):
        requests.get(f"{sandbox.url}/team", auth=("", sandbox.api_key), timeout=60)
    assert lemlist_fleet.refusals == 1
"""


def test_a_home_of_airflow_that_is_set_too_late_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    test = (
        "import airflow, os\n"
        "def test_it(lemlist_run, tmp_path, monkeypatch):\n"
        "    monkeypatch.setenv('AIRFLOW_HOME', str(tmp_path))\n"
        "    lemlist_run(None)\n"
    )
    output = run(tmp_path, test)
    assert re.search(r"^E +RuntimeError: AIRFLOW_HOME is .* Set AIRFLOW_HOME in conftest.py", output, re.M), (
        output
    )
    assert not [*tmp_path.rglob("airflow.db")]


@pytest.mark.airflow
@pytest.mark.slow
def test_fleet_runs_functions_in_workers_that_share_a_budget_or_not(tmp_path: Path) -> None:
    output = run(tmp_path, FLEET)
    assert re.search(r"^5 passed in", output, re.M), output


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_file_of_the_docs_passes_when_it_is_pasted_into_an_empty_folder(name: str, tmp_path: Path) -> None:
    output = run(tmp_path, FILES[name])
    assert re.search(r"^\d+ passed in", output, re.M), output


def test_the_docs_have_these_test_files() -> None:
    assert list(FILES) == ["test_outreach.py", "test_fleet.py"]
