# SPDX-License-Identifier: Apache-2.0
"""Check that the installed package is the given wheel, and works with only its declared dependencies."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import metadata, version
from importlib.util import find_spec
from pathlib import Path

with tempfile.TemporaryDirectory() as home:
    os.environ.update(
        AIRFLOW_HOME=home, AIRFLOW_CONN_LEMLIST_DEFAULT='{"conn_type": "lemlist", "password": ""}'
    )

    import airflow_provider_lemlist

    assert "site-packages" in airflow_provider_lemlist.__file__, "the checkout was imported, not the wheel"
    assert version("airflow-provider-lemlist") == airflow_provider_lemlist.__version__
    assert not any(find_spec(extra) for extra in ("redis", "pyarrow", "pytest")), (
        "the environment is not empty"
    )

    # Another file of the same version may be on the index that pip uses by default.
    installed = Path(airflow_provider_lemlist.__file__).parents[1]
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for name in wheel.namelist():
            same = name.endswith("RECORD") or (installed / name).read_bytes() == wheel.read(name)
            assert same, f"pip installed another {name} than that of the wheel"

    for data in ("py.typed", "sandbox/templates", "sandbox/static"):
        assert (Path(airflow_provider_lemlist.__file__).parent / data).exists(), f"the wheel lacks {data}"

    description = metadata("airflow-provider-lemlist")["Description"]
    assert "](https://" in description
    assert not re.search(r"\]\((?!https://)", description), "the long description has a relative link"

    # These need an extra, or an Airflow with shared streams; everything else must import.
    needs_more = ["sandbox", "api.budget.redis", "pytest_plugin"]
    if not find_spec("airflow.triggers.shared_stream"):
        needs_more.append("triggers.receipts")
    left_out = tuple(f"airflow_provider_lemlist.{name}" for name in needs_more)
    for module in pkgutil.walk_packages(airflow_provider_lemlist.__path__, "airflow_provider_lemlist."):
        if not module.name.startswith(left_out):
            importlib.import_module(module.name)

    listed = subprocess.run(
        [sys.executable, "-m", "airflow", "providers", "get", "airflow-provider-lemlist"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "lemlist" in listed

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    ok, message = LemlistHook().test_connection()
    assert not ok
    assert "is empty" in message, message

print(f"The wheel of version {version('airflow-provider-lemlist')} works with its declared dependencies")
