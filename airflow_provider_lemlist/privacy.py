# SPDX-License-Identifier: Apache-2.0
"""
What Airflow may show and store of people: the option ``[lemlist] hide_personal_data``.

With the option, rendered template fields and XComs hold ids, counts and reasons. A field that may hold more
is masked after Airflow has rendered it; the operator reads the real value through ``LemlistOperator._real``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import conf

#: Template fields that may hold personal data, each with the function that hides it.
Hiding = Mapping[str, Callable[[Any], Any]]

MASK = "***"
_ADDRESS = re.compile(r"[^\s'\"<>(),;:=/]+@[^\s'\"<>(),;:=/]+")
#: The fields of lemlist's responses that hold an id, a type or a state.
_KEPT = frozenset(
    {"_id", "campaignId", "contactId", "createdAt", "isPaused", "leadId", "ok", "sequenceId", "state"}
    | {"status", "stepId", "teamId", "type"}
)


def hides_personal_data() -> bool:
    """Return whether ``[lemlist] hide_personal_data`` is set."""
    return bool(conf.getboolean("lemlist", "hide_personal_data", fallback=False))


def masked(value: Any) -> Any:
    """Return the keys of a value, with ``***`` for what they hold; nothing stays nothing."""
    if value is None or value == "":
        return value
    if isinstance(value, Mapping):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return MASK


def without_addresses(value: Any) -> Any:
    """Return a value with ``***`` for every email address in its texts."""
    if isinstance(value, str):
        return _ADDRESS.sub(MASK, value)
    if isinstance(value, Mapping):
        return {key: without_addresses(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_addresses(item) for item in value]
    return value


def ids_in(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ids, the type and the state in a response of lemlist."""
    return {
        name: value for name, value in response.items() if name in _KEPT and not isinstance(value, Mapping)
    }
