# SPDX-License-Identifier: Apache-2.0
"""What every test needs before anything imports Airflow: a home of its own; and which servers there are."""

from __future__ import annotations

import atexit
import glob
import os
import shutil
import tempfile
from pathlib import Path

# Airflow reads these once, at its first import; a fixture would come too late.
_HOME = tempfile.mkdtemp(prefix="lemlist-test-")
_OWNER = os.getpid()


@atexit.register
def _leave_nothing() -> None:
    if os.getpid() == _OWNER:  # not in a process that a test has forked
        shutil.rmtree(_HOME, ignore_errors=True)


os.environ.update(
    {
        "AIRFLOW_HOME": _HOME,
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1] / "dags_examples"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        # Each test run has its own rate budget.
        "AIRFLOW__LEMLIST__BUDGET_DIR": f"{_HOME}/budget",
        # A transport that this machine may be set up with hears nothing of the tests.
        "OPENLINEAGE_DISABLED": "true",
    }
)
for _name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
    del os.environ[_name]

import pytest  # noqa: E402  (after the environment, like every import of a test)
from hypothesis import HealthCheck, settings  # noqa: E402  (likewise)

#: The servers that a marked test needs, as Debian's packages name them, and whether they are here.
SERVERS = {
    "redis": ("redis-server", bool(shutil.which("redis-server"))),
    "postgres": ("postgresql", bool(glob.glob("/usr/lib/postgresql/*/bin/initdb"))),
    "chromium": ("chromium", bool(shutil.which("chromium"))),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a server that this machine lacks; in CI, where it may lack none, fail instead."""
    for marker, (package, there) in SERVERS.items():
        if item.get_closest_marker(marker) and not there:
            missing = f"needs {package}, which is not on this machine"
            if os.environ.get("LEMLIST_TESTS_NEED_SERVERS"):
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)


# The same examples in every run, so that a red run can be repeated; `explore` looks further.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
