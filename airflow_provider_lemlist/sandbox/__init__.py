# SPDX-License-Identifier: Apache-2.0
"""
A look-alike of the documented lemlist API on loopback, to develop and test DAGs without a prospect at risk.

``with Sandbox() as lemlist:`` in a test, ``python -m airflow_provider_lemlist.sandbox`` by hand. Needs the
extra ``sandbox``. It judges its clients independently: of this package it imports the table of step types,
nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_lemlist.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    """Import the sandbox when it is first asked for, and say in one line what is missing."""
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
