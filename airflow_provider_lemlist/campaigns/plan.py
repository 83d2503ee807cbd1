# SPDX-License-Identifier: Apache-2.0
"""
The plan: the changes that lead from what lemlist has to a definition, as few as possible. Pure.

Steps have no stable name in lemlist, so each sequence is aligned with the definition by type and content. A
step that is equal is not touched; one of the same type is updated in place and keeps its statistics; a moved
one can only be deleted and added again. Of several shortest plans, the one that keeps most words of the texts
is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from airflow_provider_lemlist.campaigns.definition import BRANCHES, SETTINGS, Path, is_condition, plain_step
from airflow_provider_lemlist.campaigns.present import (
    Applied,
    Present,
    Row,
    branch_ids,
    compare,
    compare_step,
    listed_settings,
)
from airflow_provider_lemlist.delivery.evidence import listed_fields, words

#: What becomes of steps that lemlist has and the definition lacks.
OnExtra = Literal["fail", "keep", "delete"]
#: What to do if the campaign is running and something has to change.
IfRunning = Literal["fail", "edit", "pause"]


# --- The changes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CreateCampaign:
    """
    Create the campaign.

    Not all settings are taken by the request that creates it. Where a second one is needed, the campaign has
    a provisional name until then, so that a run that was killed in between is noticed.
    """

    settings: Mapping[str, Any]

    @property
    def first(self) -> dict[str, Any]:
        """The settings of the request that creates the campaign."""
        found = {name: value for name, value in self.settings.items() if "create" in SETTINGS[name].sent_with}
        return found | ({"name": provisional_name(found["name"])} if self.second else {})

    @property
    def second(self) -> dict[str, Any]:
        """The settings of the request after it; empty if the first one takes all."""
        left = {name for name in self.settings if "create" not in SETTINGS[name].sent_with}
        return {
            name: self.settings[name] for name in self.settings if name in left or (left and name == "name")
        }


def provisional_name(name: str) -> str:
    """Return the name of a campaign that has not got all its settings yet."""
    return f"{name} (incomplete)"


@dataclass(frozen=True)
class UpdateSettings:
    """Change settings of the campaign: what lemlist has, None if unknown, and what it gets."""

    changed: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class AttachSchedule:
    """Attach a schedule to the campaign."""

    schedule_id: str


@dataclass(frozen=True)
class UpdateStep:
    """Change fields of a step in place."""

    path: Path
    sequence_id: str
    row: Row
    changed: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class DeleteStep:
    """Delete a step that the definition lacks, and with a condition every step beneath it."""

    sequence: Path
    sequence_id: str
    row: Row
    beneath: tuple[Row, ...] = ()


@dataclass(frozen=True)
class AddStep:
    """
    Add a step.

    :param path: Its place in the definition.
    :param step: What lemlist gets.
    :param index: Its position among the steps that are there by then, from 0; None at the end.
    :param moved: The step that is deleted for it, if only its place has changed.
    """

    path: Path
    step: Mapping[str, Any]
    index: int | None = None
    moved: Row | None = None

    @property
    def sequence(self) -> Path:
        """The place of its sequence in the definition."""
        return self.path[:-1]


Change = CreateCampaign | UpdateSettings | AttachSchedule | UpdateStep | DeleteStep | AddStep


@dataclass(frozen=True)
class Plan:
    """
    What would be done, and what is known about the rest.

    :param changes: In the order in which they are carried out.
    :param sequence_ids: The sequences that exist, by their place in the definition.
    :param step_ids: The steps that exist, by their place in the definition.
    :param unseen: Fields of which it is not known whether they differ, by place; settings under ``()``.
    :param kept: Steps that lemlist has and the definition lacks, which stay.
    :param notes: What differs and cannot be changed by lemlist's API.
    """

    changes: tuple[Change, ...] = ()
    sequence_ids: Mapping[Path, str] = field(default_factory=dict)
    step_ids: Mapping[Path, str] = field(default_factory=dict)
    unseen: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    kept: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def plan_changes(
    definition: Mapping[str, Any],
    present: Present,
    applied: Applied,
    *,
    on_extra: OnExtra = "fail",
    refresh_unseen: bool = False,
) -> Plan:
    """
    Return the changes that lead from what lemlist has to the definition.

    :param definition: A definition without mistakes and without parameters.
    :param applied: What was sent last from here.
    :param on_extra: With ``keep``, steps that the definition lacks are not deleted.
    :param refresh_unseen: Whether fields that lemlist does not list are sent again.
    """
    return _Planner(present, applied, on_extra == "keep", refresh_unseen).plan(definition)


def obstacles(plan: Plan, present: Present, on_extra: OnExtra, if_running: IfRunning) -> list[str]:
    """Return what forbids to apply a plan: what it would destroy without permission, or lemlist refuses."""
    found: list[str] = []
    deleted = [change for change in plan.changes if isinstance(change, DeleteStep)]
    moved = [change for change in plan.changes if isinstance(change, AddStep) and change.moved]
    if deleted and on_extra == "fail":
        count = sum(1 + len(change.beneath) for change in deleted)
        found.append(
            f"{count} steps of the campaign are not in the definition, or have another place there. Set "
            "on_extra to 'delete' to delete them, or to 'keep'"
        )
    if moved and on_extra == "keep":
        found.append(
            "A step has another place in the definition; lemlist cannot move it. Set on_extra to 'delete' to "
            "delete it and add it again"
        )
    if plan.changes and present.is_running:
        if if_running == "fail":
            found.append("The campaign is running. Set if_running to 'edit' or 'pause' to change it")
        elif deleted and if_running == "edit":
            found.append(
                "The campaign is running, and lemlist deletes no step of a running campaign. Set if_running "
                "to 'pause'"
            )
    return found


# --- Alignment --------------------------------------------------------------------------------------------


class _Cost(NamedTuple):
    """What an alignment costs: the steps that change, then how much of their texts is lost."""

    changes: int = 0
    loss: int = 0

    def plus(self, *others: _Cost) -> _Cost:
        return _Cost(
            self.changes + sum(other.changes for other in others), self.loss + sum(o.loss for o in others)
        )


#: The loss of a step whose texts have no word in common with those that it gets, and of one that is new.
_ALL_LOST = 1000
_NEW = 500

#: Steps of the definition with their listed ones; None where there is no such step.
_Pairs = tuple[tuple[int | None, int | None], ...]


class _Planner:
    def __init__(self, present: Present, applied: Applied, keep: bool, refresh_unseen: bool) -> None:
        self.present = present
        self.applied = applied
        self.keep = keep
        self.refresh_unseen = refresh_unseen
        self.updated: list[UpdateStep] = []
        self.deleted: list[DeleteStep] = []
        self.added: list[AddStep] = []
        self.kept: list[Row] = []
        self.sequence_ids: dict[Path, str] = {}
        self.step_ids: dict[Path, str] = {}
        self.unseen: dict[Path, tuple[str, ...]] = {}
        self.notes: list[str] = []
        self._aligned: dict[tuple[Path, str | None], tuple[_Cost, _Pairs]] = {}

    def plan(self, definition: Mapping[str, Any]) -> Plan:
        settings = self._settings(definition)
        self._sequence(definition, ("steps",), self.present.main_id)
        return Plan(
            # Steps first: if lemlist refuses to edit a running campaign, nothing else has changed.
            (*self.updated, *settings, *self.deleted, *self._mark_moved()),
            self.sequence_ids,
            self.step_ids,
            self.unseen,
            tuple(self.kept),
            tuple(self.notes),
        )

    # --- Settings ---------------------------------------------------------------------------------------

    def _settings(self, definition: Mapping[str, Any]) -> list[Change]:
        there = self.present.campaign
        wanted = {name: definition[name] for name in definition if name in SETTINGS}
        sendable = {name: value for name, value in wanted.items() if "update" in SETTINGS[name].sent_with}
        if there is None:
            new = {name: value for name, value in wanted.items() if "create" in SETTINGS[name].sent_with}
            return [CreateCampaign(new | sendable), *self._schedules(wanted.get("scheduleIds", ()), ())]
        if there.get("name") == provisional_name(wanted["name"]):
            # A run was killed before the campaign had its settings, whatever is remembered of them.
            return [UpdateSettings({name: (None, value) for name, value in sendable.items()})]
        difference = compare(wanted, listed_settings(there), self.applied.settings)
        changed = dict(difference.changed)
        if self.refresh_unseen:
            changed |= {name: (None, wanted[name]) for name in difference.unseen}
        elif difference.unseen:
            self.unseen[()] = difference.unseen
        before, schedules = changed.pop("scheduleIds", ((), ()))
        self.notes += [
            f"{name} is {before!r}, not {value!r}: its API cannot change it"
            for name, (before, value) in changed.items()
            if name not in sendable and before is not None
        ]
        updates = {name: values for name, values in changed.items() if name in sendable}
        return [*([UpdateSettings(updates)] if updates else []), *self._schedules(schedules, before or ())]

    def _schedules(self, wanted: Sequence[str], there: Sequence[str]) -> list[Change]:
        self.notes += [
            f"the schedule {each} is attached, too: lemlist's API cannot detach it"
            for each in there
            if each not in wanted
        ]
        return [AttachSchedule(each) for each in wanted if each not in there]

    # --- Sequences --------------------------------------------------------------------------------------

    def _sequence(self, parent: Mapping[str, Any], path: Path, sequence_id: str | None) -> None:
        """Collect the changes of a sequence and of those beneath it."""
        if sequence_id:
            self.sequence_ids[path] = sequence_id
        wanted, rows = _steps(parent, path), self.present.rows(sequence_id)
        _, pairs = self._align(parent, path, sequence_id)
        final: list[bool] = []  # the sequence as it will be: whether each of its steps is there already
        places: list[tuple[int, int]] = []
        for i, j in pairs:
            if i is None and j is not None:
                self._extra(path, str(sequence_id), rows[j])
                if self.keep:
                    final.append(True)
            elif i is not None and j is not None:
                self._match(wanted[i], (*path, i), str(sequence_id), rows[j])
                final.append(True)
            elif i is not None:
                places.append((i, len(final)))
                final.append(False)
        for i, place in places:
            index = place if any(final[place:]) else None
            self._add(wanted[i], (*path, i), index)

    def _match(self, step: Row, path: Path, sequence_id: str, row: Row) -> None:
        self.step_ids[path] = str(row["_id"])
        plain = plain_step(step)
        difference = compare_step(plain, row, self.applied)
        changed = dict(difference.changed)
        if self.refresh_unseen:
            changed |= {name: (None, plain[name]) for name in difference.unseen}
        elif difference.unseen:
            self.unseen[path] = difference.unseen
        if changed:
            self.updated.append(UpdateStep(path, sequence_id, row, changed))
        if is_condition(step):
            ids = branch_ids(row)
            for branch in BRANCHES:
                self._sequence(step, (*path, branch), ids.get(branch))

    def _extra(self, path: Path, sequence_id: str, row: Row) -> None:
        if self.keep:
            self.kept += [row, *self.present.beneath(row)]
        else:
            self.deleted.append(DeleteStep(path, sequence_id, row, tuple(self.present.beneath(row))))

    def _add(self, step: Row, path: Path, index: int | None) -> None:
        self.added.append(AddStep(path, plain_step(step), index))
        for branch in BRANCHES if is_condition(step) else ():
            for position, below in enumerate(_steps(step, (*path, branch))):
                self._add(below, (*path, branch, position), None)

    def _mark_moved(self) -> Iterator[AddStep]:
        """Yield the added steps, each with the equal one that is deleted, or would be, at another place."""
        gone = list(self.kept) if self.keep else []
        for change in self.deleted:
            gone += [change.row, *change.beneath]
        for added in self.added:
            moved = next((row for row in gone if self._is_equal(added.step, row)), None)
            if moved is not None:
                gone.remove(moved)
            yield AddStep(added.path, added.step, added.index, moved)

    def _is_equal(self, plain: Row, row: Row) -> bool:
        if plain["type"] != row.get("type"):
            return False
        return not compare_step(plain, row, self.applied).changed

    # --- Alignment --------------------------------------------------------------------------------------

    def _align(self, parent: Mapping[str, Any], path: Path, sequence_id: str | None) -> tuple[_Cost, _Pairs]:
        """Return the cheapest alignment of a list of steps with a sequence."""
        known = self._aligned.get((path, sequence_id))
        if known is not None:
            return known
        wanted, rows = _steps(parent, path), self.present.rows(sequence_id)
        matches = [
            [self._cost_to_match(step, (*path, i), row) for row in rows] for i, step in enumerate(wanted)
        ]
        adds = [_Cost(_size(step), _NEW * _size(step)) for step in wanted]
        extras = [_Cost(0 if self.keep else 1 + len(self.present.beneath(row))) for row in rows]

        # best[i][j]: the steps from i on with the rows from j on.
        best: list[list[tuple[_Cost, _Pairs]]] = [
            [(_Cost(), ()) for _ in range(len(rows) + 1)] for _ in range(len(wanted) + 1)
        ]
        for i in range(len(wanted), -1, -1):
            for j in range(len(rows), -1, -1):
                options: list[tuple[_Cost, _Pairs]] = []
                if i < len(wanted) and j < len(rows) and (match := matches[i][j]) is not None:
                    cost, pairs = best[i + 1][j + 1]
                    options.append((cost.plus(match), ((i, j), *pairs)))
                if i < len(wanted):
                    cost, pairs = best[i + 1][j]
                    options.append((cost.plus(adds[i]), ((i, None), *pairs)))
                if j < len(rows):
                    cost, pairs = best[i][j + 1]
                    options.append((cost.plus(extras[j]), ((None, j), *pairs)))
                if options:
                    best[i][j] = min(options, key=lambda option: option[0])
        self._aligned[path, sequence_id] = best[0][0]
        return best[0][0]

    def _cost_to_match(self, step: Row, path: Path, row: Row) -> _Cost | None:
        """Return the cost of turning a listed step into one of the definition; None if it cannot be."""
        plain = plain_step(step)
        if plain["type"] != row.get("type"):
            return None
        changed = compare_step(plain, row, self.applied).changed
        if changed and self.applied.steps and str(row["_id"]) not in self.applied.steps:
            return None  # added in lemlist by hand: nothing of this definition may overwrite it
        own = _Cost(1, _loss(plain, row)) if changed else _Cost()
        if not is_condition(step):
            return own
        ids = branch_ids(row)
        below = (self._align(step, (*path, branch), ids.get(branch))[0] for branch in BRANCHES)
        return own.plus(*below)


def _steps(parent: Mapping[str, Any], path: Path) -> Sequence[Row]:
    return parent.get(str(path[-1])) or ()


def _size(step: Row) -> int:
    """Return the number of steps that a step consists of: itself and those in its branches."""
    return 1 + sum(_size(below) for branch in BRANCHES for below in step.get(branch) or ())


def _loss(plain: Row, row: Row) -> int:
    """Return how much of the texts of a listed step is lost when it becomes another one."""
    old, new = _words_of(listed_fields(row), plain), _words_of(plain, plain)
    everything = old | new
    return 0 if not everything else round(_ALL_LOST * (1 - len(old & new) / len(everything)))


def _words_of(values: Row, plain: Row) -> set[str]:
    texts = (values[name] for name in plain if name != "type" and isinstance(values.get(name), str))
    return {word for text in texts for word in _split(text)}


@cache
def _split(text: str) -> frozenset[str]:
    return frozenset(words(text).split())
