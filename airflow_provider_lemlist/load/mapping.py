# SPDX-License-Identifier: Apache-2.0
"""
From the columns of a source to lemlist's fields and custom variables.

A column goes under its own name unless ``column_map`` renames it or, with None, leaves it out. Whether the
values can be sent is for ``leads.clean`` to say, the same check as for a single lead.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.leads import LEAD_FIELDS, Problem, clean, is_blank
from airflow_provider_lemlist.validation import hint

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Sets of columns whose mapping is remembered; rows of one source rarely have more than one.
_PLANS = 1000


class ColumnMapping:
    """
    Turn rows into leads.

    :param column_map: Column to field or variable; None leaves the column out.
    :param variables: The custom variables that may be sent; other columns are left out. None for all.
    :param defaults: Values for fields and variables that a row leaves blank.
    :param drop_empty: Leave blank values out; otherwise they are sent as empty texts.
    """

    def __init__(
        self,
        *,
        column_map: Mapping[str, str | None] | None = None,
        variables: Collection[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_empty: bool = True,
    ) -> None:
        self._column_map = dict(column_map or {})
        self._allowed = None if variables is None else frozenset(variables)
        # Whoever maps a column to a name means that name.
        self._meant = frozenset((*(variables or ()), *filter(None, self._column_map.values())))
        self._defaults = dict(defaults or {})
        self._drop_empty = drop_empty
        self._plans: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        #: Columns of the rows so far.
        self.columns: set[str] = set()
        #: Fields and variables that the rows so far brought, blank or not.
        self.offered: set[str] = set(self._defaults)
        #: Columns that are not in ``variables`` and were left out.
        self.left_out: set[str] = set()

        targets = Counter(filter(None, self._column_map.values()))
        if twice := [name for name, times in targets.items() if times > 1]:
            raise LemlistValidationError(
                f"column_map gives {', '.join(map(repr, twice))} from more than one column; nothing was sent."
            )
        _, names = clean(dict.fromkeys((*targets, "firstName"), "x"), variables=self._allowed or ())
        _, values = clean({"firstName": "x", **self._defaults}, variables=self._meant)
        if found := [*(problem for problem in names if problem.field not in LEAD_FIELDS), *values]:
            raise LemlistValidationError(
                "column_map or defaults cannot work, nothing was sent. " + "; ".join(map(str, found)) + "."
            )

    def lead(self, row: Mapping[str, Any]) -> tuple[dict[str, str], list[Problem]]:
        """Return the lead of a row as it can be sent, and everything that is wrong with it."""
        names = tuple(row)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan(names)
        values = {target: row[column] for column, target in plan}
        for name, value in self._defaults.items():
            if is_blank(values.get(name)):
                values[name] = value
        return clean(values, variables=self._meant, drop_empty=self._drop_empty)

    def check_columns(self) -> None:
        """Refuse a ``column_map`` that speaks of columns which no row had."""
        missing = [column for column in self._column_map if column not in self.columns]
        if missing and self.columns:
            known = tuple(sorted(map(str, self.columns)))
            names = ", ".join(f"{column!r}{hint(column, known)}" for column in missing)
            raise LemlistValidationError(
                f"column_map names columns that the source does not have: {names}; nothing was sent. "
                f"It has {', '.join(known[:50])}."
            )

    def _plan(self, names: tuple[str, ...]) -> list[tuple[str, str]]:
        plan: list[tuple[str, str]] = []
        taken: dict[str, str] = {}
        for column in names:
            target = self._column_map.get(column, column)
            if target is None:
                continue
            if column not in self._column_map and not self._is_wanted(column):
                self.left_out.add(column)
                continue
            if target in taken:
                raise LemlistValidationError(
                    f"The columns {taken[target]!r} and {column!r} both give {target!r}; nothing was sent. "
                    "Leave one of them out with column_map={…: None}."
                )
            taken[target] = column
            plan.append((column, target))
        if len(self._plans) < _PLANS:
            self._plans[names] = plan
        self.columns.update(names)
        self.offered.update(taken)
        return plan

    def _is_wanted(self, column: str) -> bool:
        if self._allowed is None or column in LEAD_FIELDS or column in self._allowed:
            return True
        # A name close to a field of lemlist is a slip, not a column to pass over: let the check tell it.
        _, problems = clean({column: "x"})
        return bool(problems)
