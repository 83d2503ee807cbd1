# SPDX-License-Identifier: Apache-2.0
"""The databases that tasks read from and write to, by their Airflow connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_lemlist.exceptions import LemlistConfigurationError


def database_hook(conn_id: str, hook_params: Mapping[str, Any] | None = None) -> Any:
    """
    Return the database hook of a connection.

    :param hook_params: Arguments of the hook, such as ``{"use_legacy_sql": False}`` for BigQuery.
    :raises LemlistConfigurationError: The connection does not support SQL.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    # Not BaseHook.get_hook(): that of Airflow 2.11 takes no hook_params.
    stored: Any = BaseHook.get_connection(conn_id)
    hook = stored.get_hook(hook_params=dict(hook_params or {}))
    if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
        raise LemlistConfigurationError(
            f"sql_conn_id {conn_id!r} is a connection of {type(hook).__name__}, which does not support SQL."
        )
    return hook
