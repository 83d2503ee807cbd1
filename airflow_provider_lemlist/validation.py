# SPDX-License-Identifier: Apache-2.0
"""
How mistakes in steps and leads are reported: the field, what is wrong and what to do, and who is concerned.

All mistakes are reported at once. The rules themselves are in ``steps.py`` and ``leads.py``. Plain Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_lemlist.exceptions import LemlistValidationError

#: The most rows or leads that a finding names.
_MAX_EXAMPLES = 5


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


@dataclass
class Finding:
    """
    The rows or leads that a finding concerns: their number, and the first few of them.

    :param what: What they are, for the log.
    """

    what: str = "row"
    number: int = 0
    examples: list[int | str] = field(default_factory=list)

    def add(self, example: int | str) -> None:
        self.number += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(example)

    def __str__(self) -> str:
        if self.number == 1:
            return f"{self.what} {self.examples[0]}"
        named = ", ".join(map(str, self.examples)) + (", …" if self.number > len(self.examples) else "")
        return f"{plural(self.number, self.what)} ({named})"


def plural(number: int, one: str, *verbs: str) -> str:
    """Return a number with its noun, and with its verb if both forms of one are given."""
    noun = one if number == 1 else f"{one}s"
    verb = verbs and f" {verbs[number != 1]}"
    return f"{number:,} {noun}{verb or ''}"


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
