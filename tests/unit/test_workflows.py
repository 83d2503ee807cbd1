# SPDX-License-Identifier: Apache-2.0
"""The workflows of the repository run only code that was reviewed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_each_action_is_pinned_by_its_commit_and_names_the_release(workflow: Path) -> None:
    used = re.findall(r"uses:(.*)", workflow.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r" [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_each_job_has_a_time_limit_and_only_the_permissions_that_it_names(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert job["timeout-minutes"] <= 30, name


def test_each_command_of_the_workflows_is_a_target_of_the_makefile() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for workflow in WORKFLOWS:
        for command in re.findall(r"run: make (.*)", workflow.read_text(encoding="utf-8")):
            words = re.sub(r"\w+=(\$\{\{.*?\}\}|\S+)", "", command).split()
            assert words, command
            assert set(words) <= set(targets), f"{workflow.name}: make {command}"
