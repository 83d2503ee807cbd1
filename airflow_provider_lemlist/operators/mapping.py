# SPDX-License-Identifier: Apache-2.0
"""Check the literal arguments of a mapped task when the DAG is parsed, like those of any other task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import MappedOperator

#: Checks the arguments of one map index.
Check = Callable[[Mapping[str, Any]], None]


class CheckedPartial:
    """
    What ``partial()`` returns: Airflow's own, with a check of what it is expanded over.

    Airflow creates the tasks of a mapped one when it runs. Without this check a mistake in the last of them
    would be found after the others have done their work.

    :param partial: What Airflow's ``partial()`` returned.
    :param check: Checks the arguments of one map index.
    """

    def __init__(self, partial: Any, check: Check) -> None:
        self._partial = partial
        self._check = check

    def expand(self, **mapped: Any) -> MappedOperator:
        """Map over lists or what upstream tasks return, as Airflow does."""
        # What is not a list is known at run time only, or as a dict maps over its items.
        values = (value if _is_list(value) else [value] for value in mapped.values())
        rows = (dict(zip(mapped, row, strict=True)) for row in product(*values))
        self._check_rows(() if any(isinstance(value, Mapping) for value in mapped.values()) else rows)
        operator: MappedOperator = self._partial.expand(**mapped)
        return operator

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        """Map over dicts of arguments, as Airflow does."""
        self._check_rows(row for row in (kwargs if _is_list(kwargs) else ()) if isinstance(row, Mapping))
        operator: MappedOperator = self._partial.expand_kwargs(kwargs, strict=strict)
        return operator

    def _check_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._check({**self._partial.kwargs, **row})

    def __repr__(self) -> str:
        return repr(self._partial)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))
