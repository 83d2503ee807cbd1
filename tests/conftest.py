# SPDX-License-Identifier: Apache-2.0
"""Set up a temporary home before the first import of Airflow; skip tests whose server is missing."""

from __future__ import annotations

import atexit
import glob
import os
import shutil
import tempfile
from pathlib import Path

# Airflow reads these variables once, at its first import; a fixture would run too late.
_HOME = tempfile.mkdtemp(prefix="lemlist-test-")
_OWNER = os.getpid()


@atexit.register
def _remove_home() -> None:
    if os.getpid() == _OWNER:  # not in a process that a test has forked
        shutil.rmtree(_HOME, ignore_errors=True)


os.environ.update(
    {
        "AIRFLOW_HOME": _HOME,
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # In this mode each process would make a key of its own, and not read what another has encrypted.
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1] / "dags_examples"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        # Each test run has its own rate budget.
        "AIRFLOW__LEMLIST__BUDGET_DIR": f"{_HOME}/budget",
        # The tests must not send events to a transport that is configured on this machine.
        "OPENLINEAGE_DISABLED": "true",
    }
)
for _name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
    del os.environ[_name]

import pytest  # noqa: E402  (after the environment is set)
from hypothesis import HealthCheck, settings  # noqa: E402  (after the environment is set)

#: By marker: the Debian package of the server that a test needs, and whether it is installed.
SERVERS = {
    "redis": ("redis-server", bool(shutil.which("redis-server"))),
    "postgres": ("postgresql", bool(glob.glob("/usr/lib/postgresql/*/bin/initdb"))),
    "chromium": ("chromium", bool(shutil.which("chromium"))),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose server is not installed; fail it in CI."""
    for marker, (package, installed) in SERVERS.items():
        if item.get_closest_marker(marker) and not installed:
            missing = f"needs {package}, which is not installed"
            if os.environ.get("LEMLIST_TESTS_NEED_SERVERS"):
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)


# The same examples in every run, so that a failure can be repeated; `explore` tries more.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
