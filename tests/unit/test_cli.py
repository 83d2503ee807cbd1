# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_lemlist import cli
from airflow_provider_lemlist.api.budget import open_budget
from airflow_provider_lemlist.version_compat import airflow_version

pytestmark = pytest.mark.skipif(
    tuple(map(int, airflow_version().split(".")[:2])) < (3, 2), reason="Airflow takes commands since 3.2"
)

KEY = "s3cr3t-key-of-the-command"


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A connection named ``mine``; its key has used 3 slots."""
    folder = str(tmp_path / "budget")
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", folder)
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "lemlist", "password": KEY}))
    budget = open_budget(KEY, directory=folder)
    for _ in range(3):
        budget.book()
    return "mine"


def run(*arguments: str) -> None:
    from airflow.cli.cli_parser import get_parser

    args = get_parser().parse_args(["lemlist", "budget", *arguments])
    args.func(args)


def test_the_airflow_command_shows_the_budget_of_a_connection(connection: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "lemlist", "budget", "--conn-id", connection, "-o", "json"],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
        check=True,
    )
    (state,) = json.loads(done.stdout.splitlines()[-1])
    assert state.keys() == cli.MEANINGS.keys()
    assert (state["booked"], state["limit"], state["pause"]) == ("3", "20", "0.0")
    assert KEY not in done.stdout + done.stderr


def test_the_table_says_what_each_number_means(connection: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("--conn-id", connection)
    shown = capsys.readouterr().out
    for name, meaning in cli.MEANINGS.items():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert meaning in line


def test_a_connection_that_does_not_exist_is_named(
    connection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="'missing' does not exist"):
        run("--conn-id", "missing")
    assert not capsys.readouterr().out


def test_a_store_that_does_not_work_is_not_shown_as_an_idle_budget(
    connection: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as ended:
        run("--conn-id", connection)
    assert ended.value.code == 1
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("booked")]


def test_every_number_of_the_budget_is_shown() -> None:
    state = open_budget(KEY, store="memory://").state()
    assert state.pop("shared") is True
    assert list(state) == list(cli.MEANINGS)


def test_loading_the_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import airflow_provider_lemlist.cli\n"
        "print(sorted(set(sys.modules) - before - {'__future__', 'typing'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = (
        "airflow.",
        "requests",
        "sqlite3",
        "airflow_provider_lemlist.hooks",
        "airflow_provider_lemlist.api",
    )
    assert not [name for name in eval(done.stdout) if name.startswith(heavy)]
