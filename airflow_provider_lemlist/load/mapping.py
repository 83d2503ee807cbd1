# SPDX-License-Identifier: Apache-2.0
"""
Map the columns of a source to lemlist's fields and custom variables.

A column keeps its name unless ``column_map`` renames it or, with None, leaves it out. ``leads.clean`` checks
the values, as for a single lead.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.delivery.identity import IDENTIFIERS, identifies
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.leads import LEAD_FIELDS, Problem, clean, is_blank
from airflow_provider_lemlist.validation import hint, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

#: The most column sets whose mapping is cached; the rows of a source rarely have more than one.
_MAX_PLANS = 1000


class ColumnMapping:
    """
    Convert rows to leads; the arguments are those of ``LoadLeadsOperator``.

    :param require: Fields, variables and columns that must not be blank in any row.
    :param key: The column by which the source itself identifies a person; it need not be sent.
    :param allow_unidentified: Accept a row without an email, LinkedIn URL, phone number or key.
    """

    def __init__(
        self,
        *,
        column_map: Mapping[str, str | None] | None = None,
        variables: Collection[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        drop_empty: bool = True,
        require: Collection[str] = (),
        key: str | None = None,
        allow_unidentified: bool = False,
    ) -> None:
        self._column_map = dict(column_map or {})
        self._allowed = None if variables is None else frozenset(variables)
        # A name that is the target of a mapping is not a typo.
        self._intended = frozenset((*(variables or ()), *filter(None, self._column_map.values())))
        self._defaults = dict(defaults or {})
        self._drop_empty = drop_empty
        self._require = tuple(require)
        self._key = key
        self._allow_unidentified = allow_unidentified
        self._plans: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        #: Columns seen so far.
        self.columns: set[str] = set()
        #: Fields and variables that the rows seen so far provide, blank or not.
        self.offered: set[str] = set(self._defaults)
        #: Columns that were left out because they are not in ``variables``.
        self.left_out: set[str] = set()

        targets = Counter(filter(None, self._column_map.values()))
        if twice := [name for name, times in targets.items() if times > 1]:
            raise LemlistValidationError(
                f"column_map maps more than one column to {', '.join(map(repr, twice))}; nothing was sent."
            )
        _, names = clean(dict.fromkeys((*targets, "firstName"), "x"), variables=self._allowed or ())
        _, values = clean({"firstName": "x", **self._defaults}, variables=self._intended)
        if found := [*(problem for problem in names if problem.field not in LEAD_FIELDS), *values]:
            raise LemlistValidationError(
                "column_map or defaults are invalid; nothing was sent. " + "; ".join(map(str, found)) + "."
            )

    def lead(self, row: Mapping[str, Any]) -> tuple[dict[str, str], str | None, list[Problem]]:
        """Return the lead of a row as texts, the text of its key, and every problem with the row."""
        names = tuple(row)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan(names)
        values = {target: row[column] for column, target in plan}
        for name, value in self._defaults.items():
            if is_blank(values.get(name)):
                values[name] = value
        lead, problems = clean(values, variables=self._intended, drop_empty=self._drop_empty)
        key, found = self._key_of(row)
        # A key that is also sent has its problem already.
        problems += [problem for problem in found if problem not in problems]
        for name in self._require:
            if is_blank(values[name] if name in values else row.get(name)):
                problems.append(Problem(name, "is required and blank"))
        if not (key or identifies(lead) or self._allow_unidentified or self._explains(problems)):
            reason = "has no email, linkedinUrl, phone or key, so it could not be found again"
            problems.append(Problem("lead", reason))
        return lead, key, problems

    def check_columns(self) -> None:
        """Raise if ``column_map``, ``require`` or ``key`` names something that no row has."""
        for argument, names, known in (
            ("column_map", self._column_map, self.columns),
            ("require", self._require, self.columns | self.offered),
            ("key", (self._key,) if self._key else (), self.columns),
        ):
            missing = [name for name in names if name not in known]
            if missing and self.columns:
                listed = tuple(sorted(map(str, known)))
                raise LemlistValidationError(
                    f"{argument} names columns that the source does not have: "
                    f"{', '.join(f'{name!r}{hint(name, listed)}' for name in missing)}; nothing was sent. "
                    f"It has {', '.join(listed[:50])}."
                )

    def _key_of(self, row: Mapping[str, Any]) -> tuple[str | None, list[Problem]]:
        if self._key is None or is_blank(value := row.get(self._key)):
            return None, []
        texts, problems = clean({self._key: value}, variables=(self._key,))
        return (None if problems else texts[self._key].strip()), problems

    def _explains(self, problems: Iterable[Problem]) -> bool:
        """Return whether one of the problems is why a row identifies no person."""
        return any(
            problem.field in ("lead", self._key) or nearest(problem.field, IDENTIFIERS)
            for problem in problems
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
                    f"The columns {taken[target]!r} and {column!r} both map to {target!r}; nothing was sent. "
                    "Leave one of them out with column_map={…: None}."
                )
            taken[target] = column
            plan.append((column, target))
        if len(self._plans) < _MAX_PLANS:
            self._plans[names] = plan
        self.columns.update(names)
        self.offered.update(taken)
        return plan

    def _is_wanted(self, column: str) -> bool:
        if self._allowed is None or column in LEAD_FIELDS or column in self._allowed:
            return True
        # A name close to a field of lemlist is a likely typo: keep it, so that the check reports it.
        _, problems = clean({column: "x"})
        return bool(problems)
