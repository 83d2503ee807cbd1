# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from airflow_provider_lemlist.sandbox.__main__ import parser
from airflow_provider_lemlist.sandbox.faults import KINDS
from airflow_provider_lemlist.sandbox.keys import BAD_KEYS
from airflow_provider_lemlist.sandbox.limits import WINDOWS
from airflow_provider_lemlist.sandbox.media import SCRIPTED
from airflow_provider_lemlist.sandbox.prospects import SimulationOptions
from airflow_provider_lemlist.sandbox.traffic import Churn
from airflow_provider_lemlist.sandbox.undocumented import Undocumented

GUIDE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()
NAMES = [
    *KINDS,
    *BAD_KEYS,
    *WINDOWS,
    *SCRIPTED,
    *(field.name for field in (*fields(Undocumented), *fields(SimulationOptions), *fields(Churn))),
    *(option for action in parser()._actions for option in action.option_strings if option[:2] == "--"),
]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"--help"}))
def test_every_option_is_documented(name: str) -> None:
    assert f"`{name}`" in GUIDE
