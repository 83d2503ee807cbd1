# SPDX-License-Identifier: Apache-2.0
"""
How a mistake in a step or a lead is told: what, where, and how to mend it, all mistakes at once.

Plain Python: the rules themselves are in ``steps.py`` and ``leads.py``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_lemlist.exceptions import LemlistValidationError


class Problem(NamedTuple):
    """
    One thing that is wrong.

    :param field: The name of the field.
    :param reason: What is wrong with it and how to mend it, without the value of a person in it.
    """

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field or repr('')}: {self.reason}"


def validation_error(what: str, problems: Iterable[Problem]) -> LemlistValidationError:
    """
    Make the error that tells all problems of one thing.

    :param what: The thing, with the place where it is written: ``The step of task 'invite'``.
    """
    # steps.py and leads.py serve programs without Airflow too, and the errors are Airflow's.
    from airflow_provider_lemlist.exceptions import LemlistValidationError

    return LemlistValidationError(f"{what} is wrong, nothing was sent. {'; '.join(map(str, problems))}.")


@lru_cache(maxsize=4096)
def nearest(name: str, names: tuple[str, ...]) -> str | None:
    """
    Return the one of ``names`` that was probably meant by ``name``.

    Another case or other word separators (``first_name``), or one slip of the keys; two in a long name.
    A name with a digit of its own, such as ``phone2``, is meant as it is.
    """
    plain = _plain(name)
    for known in names:
        if plain == _plain(known):
            return known
    if any(character.isdigit() for character in plain):
        return None
    distance, known = min((_slips(plain, _plain(known)), known) for known in names)
    return known if distance <= (2 if len(known) >= 9 else 1 if len(known) >= 4 else 0) else None


def hint(name: str, names: tuple[str, ...]) -> str:
    """Return ``" (did you mean 'x'?)"`` where one of ``names`` is near, else an empty text."""
    meant = nearest(name, names)
    return f" (did you mean {meant!r}?)" if meant and meant != name else ""


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _slips(left: str, right: str) -> int:
    """Count the slips (wrong, missing, extra or swapped letters) between two words."""
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
