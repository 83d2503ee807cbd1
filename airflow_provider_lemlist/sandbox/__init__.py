# SPDX-License-Identifier: Apache-2.0
"""
A local simulation of the documented lemlist API, to develop and test DAGs without contacting prospects.

Use ``with Sandbox() as lemlist:`` in a test and ``python -m airflow_provider_lemlist.sandbox`` by hand. It
needs the extra ``sandbox``. It checks its clients independently: from this package it imports only the table
of step types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    """Import ``Sandbox`` on first use; raise ImportError that names the extra if a dependency is missing."""
    if name != "Sandbox":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from airflow_provider_lemlist.sandbox.server import Sandbox
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("airflow_provider_lemlist"):
            raise
        raise ImportError(
            f"The lemlist sandbox needs {error.name}: pip install 'airflow-provider-lemlist[sandbox]'"
        ) from None
    return Sandbox
