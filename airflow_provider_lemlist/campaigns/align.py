# SPDX-License-Identifier: Apache-2.0
"""
Which step in lemlist becomes which step of a definition, with as few changes as possible. Pure.

Steps have no stable name in lemlist, so each sequence is aligned with the definition by type and content:
a step that is equal is not touched, one of the same type is updated in place and keeps its statistics, and
what is left is added or deleted. Of several alignments with the fewest changes, the one that keeps most words
of the texts is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from airflow_provider_lemlist.campaigns.definition import BRANCHES, Path, is_condition, plain_step
from airflow_provider_lemlist.campaigns.present import (
    Applied,
    Difference,
    Present,
    Row,
    branch_ids,
    compare_step,
    text_words,
)
from airflow_provider_lemlist.delivery.evidence import listed_fields

# The cost of an alignment is one number: its changes, and as their fraction what is lost with them.
_CHANGE = 10**9
#: The loss of a step whose texts have no word in common with those that it gets, and of one that is new.
_ALL_LOST = 1000
_NEW = 500


class Wanted(NamedTuple):
    """
    A step of a definition.

    :param path: Its place in the definition.
    :param plain: What lemlist gets of it.
    :param branches: The steps of its branches, if it is a condition.
    """

    path: Path
    plain: dict[str, Any]
    branches: Mapping[str, Sequence[Wanted]]

    @property
    def size(self) -> int:
        """The number of steps that it consists of: itself and those in its branches."""
        return 1 + sum(below.size for branch in self.branches.values() for below in branch)


def wanted_steps(steps: Iterable[Row] | None, path: Path) -> list[Wanted]:
    """Return the steps that a definition has at a place."""
    return [_wanted(step, (*path, position)) for position, step in enumerate(steps or ())]


def _wanted(step: Row, path: Path) -> Wanted:
    names = BRANCHES if is_condition(step) else ()
    branches = {branch: wanted_steps(step.get(branch), (*path, branch)) for branch in names}
    return Wanted(path, plain_step(step), branches)


class Pair(NamedTuple):
    """A step of the definition, and the one in lemlist that becomes it; one of them may be missing."""

    step: Wanted | None
    row: Row | None


class Aligner:
    """
    Aligns the sequences of a campaign with those of a definition.

    :param keep: Whether steps that the definition lacks stay.
    :param refresh_unseen: Whether fields that lemlist does not list are sent again.
    """

    def __init__(self, present: Present, applied: Applied, keep: bool, refresh_unseen: bool) -> None:
        self.present = present
        self.applied = applied
        self.keep = keep
        self.refresh_unseen = refresh_unseen
        self._known: dict[tuple[Path, str], tuple[int, list[Pair]]] = {}

    def pairs(self, steps: Sequence[Wanted], path: Path, sequence_id: str) -> list[Pair]:
        """Return the cheapest alignment of the steps at a place with those of a sequence."""
        return self._align(steps, path, sequence_id)[1]

    def difference(self, step: Wanted, row: Row) -> Difference:
        """Return what an update of a listed step changes, and what is not known of it."""
        found = compare_step(step.plain, row, self.applied)
        if not self.refresh_unseen or self._is_foreign(row):
            return found
        there = listed_fields(row)
        return Difference(
            {**found.changed, **{each: (there.get(each), step.plain[each]) for each in found.unseen}}
        )

    def _is_foreign(self, row: Row) -> bool:
        """Return whether a step seems to have been added in lemlist by hand."""
        return bool(self.applied.steps) and str(row["_id"]) not in self.applied.steps

    def _align(self, steps: Sequence[Wanted], path: Path, sequence_id: str) -> tuple[int, list[Pair]]:
        if (path, sequence_id) not in self._known:
            self._known[path, sequence_id] = self._cheapest(steps, self.present.rows(sequence_id))
        return self._known[path, sequence_id]

    def _cheapest(self, steps: Sequence[Wanted], rows: Sequence[Row]) -> tuple[int, list[Pair]]:
        """Return the cost of the cheapest alignment, and the alignment, as an edit distance is computed."""
        matches = [[self._cost_to_match(step, row) for row in rows] for step in steps]
        adds = [(_CHANGE + _NEW) * step.size for step in steps]
        extras = [self._cost_of_extra(row) for row in rows]
        # least[i][j]: the cost of the steps from i on with the rows from j on.
        least = [[0] * (len(rows) + 1) for _ in range(len(steps) + 1)]

        def options(i: int, j: int) -> Iterator[tuple[int, int, int]]:
            """Yield what is possible next: the cost from there on, and the steps and rows that it takes."""
            if i < len(steps) and j < len(rows) and (match := matches[i][j]) is not None:
                yield match + least[i + 1][j + 1], 1, 1
            if i < len(steps):
                yield adds[i] + least[i + 1][j], 1, 0
            if j < len(rows):
                yield extras[j] + least[i][j + 1], 0, 1

        for i in range(len(steps), -1, -1):
            for j in range(len(rows), -1, -1):
                least[i][j] = min((cost for cost, _, _ in options(i, j)), default=0)
        pairs: list[Pair] = []
        i = j = 0
        while i < len(steps) or j < len(rows):
            _, step, row = min(options(i, j), key=itemgetter(0))
            pairs.append(Pair(steps[i] if step else None, rows[j] if row else None))
            i, j = i + step, j + row
        return least[0][0], pairs

    def _cost_to_match(self, step: Wanted, row: Row) -> int | None:
        """Return the cost of turning a listed step into one of the definition; None if it cannot be."""
        if step.plain["type"] != row.get("type"):
            return None
        changed, unseen = self.difference(step, row)
        is_foreign = self._is_foreign(row)
        if changed and is_foreign:
            return None  # nothing of this definition may overwrite it
        # Of several equal steps, take the one that is known to be ours, and of which most is known.
        cost = len(unseen) + is_foreign
        if changed:
            cost += _CHANGE + _loss(step.plain, row)
        ids = branch_ids(row) if step.branches else {}
        for branch, below in step.branches.items():
            cost += self._align(below, (*step.path, branch), ids.get(branch, ""))[0]
        return cost

    def _cost_of_extra(self, row: Row) -> int:
        if not self.keep:
            return _CHANGE * (1 + len(self.present.beneath(row)))
        # A step of ours that has a new text is updated; it does not stay beside a new one.
        return _ALL_LOST if str(row["_id"]) in self.applied.steps else 0


def _loss(plain: Row, row: Row) -> int:
    """Return how much of the listed texts of a step is lost when it becomes another one."""
    there = listed_fields(row)
    everything = shared = 0
    for name, text in plain.items():
        if isinstance(text, str) and isinstance(listed := there.get(name), str):
            new, old = _different_words(text), _different_words(listed)
            both = len(new & old)
            shared += both
            everything += len(new) + len(old) - both
    return round(_ALL_LOST * (1 - shared / everything)) if everything else 0


@lru_cache(maxsize=4096)  # each text is compared with every text of the sequence
def _different_words(text: str) -> frozenset[str]:
    return frozenset(text_words(text).split())
