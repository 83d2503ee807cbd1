# SPDX-License-Identifier: Apache-2.0
"""Airflow parses DAG files continuously: importing an operator or a trigger must load no heavy module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from airflow_provider_lemlist.version_compat import has_asset_watchers

HEAVY = {
    "aiohttp",
    "fsspec",
    "httpx",
    "pandas",
    "pendulum",
    "pyarrow",
    "redis",
    "requests",
    "sqlite3",
    "starlette",
    "urllib3",
    "uvicorn",
    "zoneinfo",
}
OURS = tuple(f"airflow_provider_lemlist.{name}" for name in ("api", "hooks", "sandbox"))
CODE = """
import json, sys
from airflow.providers.common.compat.sdk import (
    XCOM_RETURN_KEY, AirflowSkipException, Asset, BaseOperator, BaseOperatorLink, BaseSensorOperator,
    XCom, conf,
)
base = set(sys.modules)
import {operators}
added = set(sys.modules) - base
import airflow.triggers.base
if {has_asset_watchers}:
    from airflow.sdk import AssetWatcher
base = set(sys.modules)
import airflow_provider_lemlist.triggers.events
print(json.dumps(sorted(added | set(sys.modules) - base)))
"""


def test_modules_of_dag_files_import_no_heavy_module() -> None:
    """The event trigger is compared with a DAG file that has an asset watcher."""
    package = Path(__file__).parents[2] / "airflow_provider_lemlist"
    modules = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for kind in ("operators", "sensors", "transfers")
        for path in sorted((package / kind).rglob("*.py"))
    ]
    names = ("operators.campaign", "operators.lead", "sensors.activity", "transfers.sql")
    assert {f"airflow_provider_lemlist.{name}" for name in names} <= {*modules}
    code = CODE.format(operators=", ".join(modules), has_asset_watchers=has_asset_watchers())
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = json.loads(result.stdout.splitlines()[-1])
    assert "airflow_provider_lemlist.triggers.events" in added
    assert not {name.split(".")[0] for name in added} & HEAVY
    assert not [name for name in added if name.startswith(("airflow.", *OURS))]
