# SPDX-License-Identifier: Apache-2.0
"""The commands for campaigns as code: what they print where, and their exit statuses."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lemlist import __main__ as module
from airflow_provider_lemlist import cli
from airflow_provider_lemlist.delivery.policy import IfRunning, OnExtra
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from tests.commands import takes_commands

SPRING = """\
name: Spring [[ city ]]
stopOnEmailReplied: true
steps:
  - type: email
    subject: "{{firstName}}, a question"
    message: {file: texts/opening.html}
  - type: conditional
    conditionKey: linkedinInviteAccepted
    delayType: within
    delay: "[[ days ]]"
    yes:
      - type: linkedinVisit
"""
PARAMETERS = ("--param", "city=Lyon", "--param", "days=3")


class Done(NamedTuple):
    """What a command has printed, and its exit status."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, and undo at the end what it changes for the rest of it."""
    monkeypatch.setattr(BaseHook, "get_connection", BaseHook.get_connection)
    monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers])

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["airflow_provider_lemlist", *arguments])
        status, last = 0, ""
        try:
            module.main()
        except SystemExit as ended:
            # Python prints a text, and exits with status 1.
            status, last = (ended.code, "") if isinstance(ended.code, int) else (1, f"{ended.code}\n")
        printed = capsys.readouterr()
        return Done(status, printed.out, printed.err + last)

    return run


@pytest.fixture
def spring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a valid definition, relative to the current directory, which is not that of the file."""
    (tmp_path / "campaigns" / "texts").mkdir(parents=True)
    (tmp_path / "campaigns" / "texts" / "opening.html").write_text("Hello.\n")
    (tmp_path / "campaigns" / "spring.yaml").write_text(SPRING)
    monkeypatch.chdir(tmp_path)
    return "campaigns/spring.yaml"


def writes(lemlist: Sandbox) -> list[str]:
    return [request["method"] for request in lemlist.requests() if request["method"] != "GET"]


# --- validate -----------------------------------------------------------------------------------------------


def test_validate_needs_no_connection(command: Command, spring: str) -> None:
    assert command("validate", spring, *PARAMETERS) == (0, f"{spring}: valid\n", "")


def test_validate_prints_each_mistake_on_a_line_of_stderr(command: Command, spring: str) -> None:
    text = SPRING.replace("subject", "subjekt").replace("opening.html", "closing.html")
    Path(spring).write_text(text.replace("stopOnEmailReplied: true", "stopOnEmailReplied: often"))
    done = command("validate", spring, "--param", "city=Lyon")
    assert (done.status, done.out) == (1, "")
    assert {": ".join(line.split(": ")[:2]) for line in done.err.splitlines()} == {
        f"{spring}, line 2: stopOnEmailReplied",
        f"{spring}, line 4: step 1, subject",
        f"{spring}, line 5: step 1, subjekt",
        f"{spring}, line 6: step 1, message",
        f"{spring}, line 10: step 2, delay",
    }


# --- plan and apply -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "through", [pytest.param("airflow lemlist", marks=takes_commands), "airflow_provider_lemlist"]
)
def test_stdout_is_only_the_plan_on_a_machine_without_airflow_database(
    quick_lemlist: Sandbox, spring: str, tmp_path: Path, through: str
) -> None:
    home = tmp_path / "home"
    connection = json.loads(quick_lemlist.airflow_connection()) | {"port": 443}  # which is warned of
    done = subprocess.run(
        [sys.executable, "-m", *through.split(), "plan", spring, *PARAMETERS],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW_CONN_LEMLIST_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",  # which writes to stdout
        },
    )
    assert done.stdout.splitlines() == [
        "Campaign 'Spring Lyon' (new): 4 changes.",
        '+ campaign "Spring Lyon"',
        "+ stopOnEmailReplied: true",
        '+ email "{{firstName}}, a question" first in the sequence',
        '+ conditional "linkedinInviteAccepted" after step 1',
        "+ linkedinVisit first in branch yes of step 2",
    ]
    assert done.returncode == cli.DIFFERS == 2, done.stderr
    assert "Port of connection 'lemlist_default' is not used" in done.stderr
    assert "+ campaign" not in done.stderr
    assert not (home / "airflow.db").exists()
    assert writes(quick_lemlist) == []


def test_apply_prints_the_plan_and_the_result_and_then_nothing_differs(
    quick_lemlist: Sandbox, command: Command, spring: str
) -> None:
    assert command("plan", spring, *PARAMETERS).status == 2
    assert writes(quick_lemlist) == []
    done = command("apply", spring, *PARAMETERS)
    assert done.status == 0
    assert done.out.startswith("Campaign 'Spring Lyon' (new): 4 changes.\n+ campaign")
    assert done.out.count("+ campaign") == 1
    assert done.out.endswith(": all changes are made.\n")
    sent = len(writes(quick_lemlist))
    assert sent == 5
    for name in ("plan", "apply"):
        again = command(name, spring, *PARAMETERS)
        assert (again.status, again.out.splitlines()[0][-13:]) == (0, ": no changes.")
    assert len(writes(quick_lemlist)) == sent


def test_a_deletion_is_forbidden_in_the_plan_and_carried_out_with_permission(
    quick_lemlist: Sandbox, command: Command, spring: str
) -> None:
    command("apply", spring, *PARAMETERS)
    file = Path(spring)
    file.write_text(file.read_text().partition("  - type: conditional")[0])
    before = len(writes(quick_lemlist))
    planned = command("plan", spring, "--param", "city=Lyon")
    assert planned.status == 2
    assert "\n- step 2 conditional" in planned.out
    assert planned.out.splitlines()[-1].startswith("! 2 steps of the campaign are not in the definition")
    refused = command("apply", spring, "--param", "city=Lyon")
    assert refused.status == 1
    assert refused.err.count("\n") == 1
    assert "on_extra to 'delete'" in refused.err
    assert "- step" not in refused.err
    assert len(writes(quick_lemlist)) == before
    assert command("apply", spring, "--param", "city=Lyon", "--on-extra", "delete").status == 0
    assert writes(quick_lemlist)[before:] == ["DELETE"]


def test_a_running_campaign_is_changed_only_with_permission(
    quick_lemlist: Sandbox, command: Command, spring: str
) -> None:
    campaign_id = quick_lemlist.campaign("Spring", status="running")["_id"]
    found = ("--campaign-id", campaign_id)
    assert "! The campaign is running." in command("plan", spring, *PARAMETERS, *found).out
    assert command("apply", spring, *PARAMETERS, *found).status == 1
    assert writes(quick_lemlist) == []
    done = command("apply", spring, *PARAMETERS, *found, "--if-running", "pause")
    assert (done.status, done.out.splitlines()[-1]) == (
        0,
        f"Campaign 'Spring Lyon' ({campaign_id}): started again.",
    )
    assert LemlistHook().get_campaign(campaign_id)["name"] == "Spring Lyon"


def test_the_plan_has_colours_on_a_terminal_only_and_not_with_no_color(
    quick_lemlist: Sandbox, command: Command, spring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033" not in command("plan", spring, *PARAMETERS).out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\033[32m+ campaign" in command("plan", spring, *PARAMETERS).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in command("plan", spring, *PARAMETERS).out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("none.yaml",), "none.yaml' cannot be read: No such file or directory"),
        (("campaigns",), "campaigns' cannot be read: Is a directory"),
        (("tilted.yaml",), "tilted.yaml, line 2: not valid YAML"),
        (("{spring}", *PARAMETERS, "--conn-id", "missing"), "'missing' does not exist"),
        (("{spring}", *PARAMETERS, "--campaign-id", "cam_none"), "No campaign has this id"),
        (("{spring}", *PARAMETERS, "--campaign-id", ""), "--campaign-id has no value"),
        (("{spring}", *PARAMETERS, "--param", "city="), "--param city has no value"),
        (("{spring}", "--on-extra", "ask"), "invalid choice: 'ask'"),
    ],
)
def test_an_error_has_status_1_and_one_line(
    quick_lemlist: Sandbox,
    command: Command,
    spring: str,
    arguments: tuple[str, ...],
    reason: str,
) -> None:
    Path("tilted.yaml").write_text("name: Spring\nsteps: ]")
    done = command("plan", *(each.format(spring=spring) for each in arguments))
    assert (done.status, done.out) == (1, "")
    assert reason in done.err.splitlines()[-1]
    assert writes(quick_lemlist) == []


@pytest.mark.parametrize(("option", "choices"), [("--on-extra", OnExtra), ("--if-running", IfRunning)])
def test_the_choices_are_those_of_the_operator(option: str, choices: object) -> None:
    (group,) = cli.get_cli_commands()
    args = [arg for command in group.subcommands for arg in command.args if arg.flags == (option,)]
    assert [arg.kwargs["choices"] for arg in args] == [get_args(choices)] * 2  # plan and apply


# --- export -------------------------------------------------------------------------------------------------


def test_an_exported_campaign_is_found_by_id_and_by_name_and_its_plan_is_empty(
    quick_lemlist: Sandbox, command: Command, spring: str
) -> None:
    command("apply", spring, *PARAMETERS)
    by_name = command("export", "Spring Lyon")
    (campaign,) = LemlistHook().list_campaigns()
    assert by_name == command("export", campaign["_id"])
    Path("exported.yaml").write_text(by_name.out)
    assert command("plan", "exported.yaml").status == 0


def test_a_campaign_that_cannot_be_exported_is_named(quick_lemlist: Sandbox, command: Command) -> None:
    quick_lemlist.campaign("Old", status="archived")
    done = command("export", "Old")
    assert (done.status, done.out) == (1, "")
    assert "no campaign 'Old'" in done.err.splitlines()[-1]
