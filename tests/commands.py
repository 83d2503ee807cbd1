# SPDX-License-Identifier: Apache-2.0
"""Which Airflow takes the commands of a provider."""

from __future__ import annotations

import pytest

from airflow_provider_lemlist.version_compat import airflow_version

takes_commands = pytest.mark.skipif(
    tuple(map(int, airflow_version().split(".")[:2])) < (3, 2), reason="Airflow takes commands since 3.2"
)
