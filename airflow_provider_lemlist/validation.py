# SPDX-License-Identifier: Apache-2.0
"""
How mistakes in a step or a lead are reported: the field, what is wrong and what to do, all mistakes at once.

The rules themselves are in ``steps.py`` and ``leads.py``. Plain Python.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_lemlist.exceptions import LemlistValidationError


class Problem(NamedTuple):
    """One mistake: the field, and what is wrong with it and how to fix it, without a person's values."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field or repr('')}: {self.reason}"


def validation_error(what: str, problems: Iterable[Problem | str]) -> LemlistValidationError:
    """Return the error that lists all problems of ``what``, such as ``The step of task 'invite'``."""
    # steps.py and leads.py also work without Airflow, which exceptions.py imports.
    from airflow_provider_lemlist.exceptions import LemlistValidationError

    return LemlistValidationError(f"{what} is wrong: {'; '.join(map(str, problems))}. Nothing was sent.")


@lru_cache(maxsize=4096)
def nearest(name: str, names: tuple[str, ...]) -> str | None:
    """
    Return the one of ``names`` that ``name`` is probably a misspelling of, or None.

    Case and word separators (``first_name``) do not count; one typo is allowed, two in a long name.
    A name with a digit, such as ``phone2``, is not a misspelling.
    """
    plain = _plain(name)
    for known in names:
        if plain == _plain(known):
            return known
    if any(character.isdigit() for character in plain):
        return None
    distance, known = min((_count_typos(plain, _plain(known)), known) for known in names)
    return known if distance <= (2 if len(known) >= 9 else 1 if len(known) >= 4 else 0) else None


def hint(name: str, names: tuple[str, ...]) -> str:
    """Return ``" (did you mean 'x'?)"`` if one of ``names`` is close, else an empty text."""
    meant = nearest(name, names)
    return f" (did you mean {meant!r}?)" if meant and meant != name else ""


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _count_typos(left: str, right: str) -> int:
    """Count the wrong, missing, extra or swapped letters between two words; 3 can mean more."""
    if abs(len(left) - len(right)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, above, row = row, row if i == 1 else before, [i]
        for j, b in enumerate(right, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                row[j] = min(row[j], above[j - 2] + 1)
    return row[-1]
