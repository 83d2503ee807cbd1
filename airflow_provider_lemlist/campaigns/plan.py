# SPDX-License-Identifier: Apache-2.0
"""
The plan: the changes that lead from what lemlist has to a definition, as few as possible. Pure.

A step that has only moved is deleted and added again, because lemlist cannot move a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_lemlist.campaigns.align import Aligner, Wanted, wanted_steps
from airflow_provider_lemlist.campaigns.definition import SETTINGS, Path
from airflow_provider_lemlist.campaigns.present import (
    Applied,
    Present,
    Row,
    branch_ids,
    compare,
    compare_step,
    listed_settings,
)
from airflow_provider_lemlist.delivery.policy import IfRunning, OnExtra
from airflow_provider_lemlist.exceptions import LemlistValidationError

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
        found = {name: value for name, value in self.settings.items() if _is_taken(name, "create")}
        return {**found, "name": provisional_name(found["name"])} if self.second else found

    @property
    def second(self) -> dict[str, Any]:
        """The settings of the request after it; empty if the first one takes all."""
        left = {n: value for n, value in self.settings.items() if not _is_taken(n, "create")}
        return {"name": self.settings["name"], **left} if left else {}


def provisional_name(name: str) -> str:
    """Return the name of a campaign that has not got all its settings yet."""
    return f"{name} (incomplete)"


@dataclass(frozen=True)
class UpdateSettings:
    """Change settings of the campaign: what lemlist has, None if unknown, and what it gets."""

    changed: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class CreateSchedule:
    """Create a schedule of the team, and attach it to the campaign."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class UpdateSchedule:
    """Change fields of a schedule, for every campaign that uses it."""

    row: Row
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


Change = (
    CreateCampaign
    | UpdateSettings
    | CreateSchedule
    | UpdateSchedule
    | AttachSchedule
    | UpdateStep
    | DeleteStep
    | AddStep
)


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
    :param applied: What was sent last from here; ignored if it was sent to another campaign.
    :param on_extra: With ``keep``, steps that the definition lacks are not deleted.
    :param refresh_unseen: Whether fields that lemlist does not list are sent again.
    :raises LemlistValidationError: Several schedules have a name that the definition says.
    """
    if applied.campaign_id != (present.campaign or {}).get("_id"):
        applied = Applied()
    return _Planner(present, applied, on_extra == "keep", refresh_unseen).plan(definition)


def obstacles(plan: Plan, present: Present, on_extra: OnExtra, if_running: IfRunning) -> list[str]:
    """Return what forbids to apply a plan: what it would destroy without permission, or lemlist refuses."""
    found: list[str] = []
    deleted = [change for change in plan.changes if isinstance(change, DeleteStep)]
    moved = [change for change in plan.changes if isinstance(change, AddStep) and change.moved]
    if deleted and on_extra == "fail":
        count = sum(1 + len(change.beneath) for change in deleted)
        what = "1 step of the campaign is" if count == 1 else f"{count} steps of the campaign are"
        found.append(
            f"{what} not in the definition, or in another place. Set on_extra to 'delete' to delete what the "
            "definition lacks, or to 'keep' to leave it"
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


class _Planner:
    """Collects the changes of one plan."""

    def __init__(self, present: Present, applied: Applied, keep: bool, refresh_unseen: bool) -> None:
        self.present = present
        self.applied = applied
        self.keep = keep
        self.refresh_unseen = refresh_unseen
        self.aligner = Aligner(present, applied, keep, refresh_unseen)
        self.updated: list[UpdateStep] = []
        self.deleted: list[DeleteStep] = []
        self.added: list[AddStep] = []
        self.kept: list[Row] = []
        self.sequence_ids: dict[Path, str] = {}
        self.step_ids: dict[Path, str] = {}
        self.unseen: dict[Path, tuple[str, ...]] = {}
        self.notes: list[str] = []

    def plan(self, definition: Mapping[str, Any]) -> Plan:
        settings = self._settings({name: value for name, value in definition.items() if name in SETTINGS})
        self._sequence(wanted_steps(definition["steps"], ("steps",)), ("steps",), self.present.main_id or "")
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

    def _settings(self, wanted: Mapping[str, Any]) -> list[Change]:
        if self.present.campaign is None:
            return self._new_campaign(wanted)
        there = listed_settings(self.present.campaign)
        # The name tells that a run was killed before the campaign had its settings, whatever was sent before.
        is_incomplete = there.get("name") == provisional_name(wanted["name"])
        settings = {name: value for name, value in wanted.items() if not _is_taken(name, "attach")}
        difference = compare(settings, there, {} if is_incomplete else self.applied.settings)
        changed = dict(difference.changed)
        if is_incomplete or self.refresh_unseen:
            sent = [name for name in difference.unseen if _is_taken(name, "update")]
            changed |= {name: (there.get(name), wanted[name]) for name in sent}
        if unseen := tuple(name for name in difference.unseen if name not in changed):
            self.unseen[()] = unseen
        updates = {}
        for name, (before, value) in changed.items():
            if _is_taken(name, "update"):
                updates[name] = (before, value)
            else:
                self._note_fixed(name, before, value)
        schedules = self._schedules(wanted, there.get("scheduleIds") or ())
        return [*([UpdateSettings(updates)] if updates else []), *schedules]

    def _new_campaign(self, wanted: Mapping[str, Any]) -> list[Change]:
        settings = {}
        for name, value in wanted.items():
            if _is_taken(name, "create", "update"):
                settings[name] = value
            elif not _is_taken(name, "attach"):
                self._note_fixed(name, SETTINGS[name].type(), value)
        return [CreateCampaign(settings), *self._schedules(wanted, ())]

    def _note_fixed(self, name: str, before: Any, value: Any) -> None:
        there = "not listed" if before is None else repr(before)
        self.notes.append(f"{name} is {there}, and should be {value!r}: lemlist's API cannot change it")

    def _schedules(self, wanted: Mapping[str, Any], attached: Sequence[str]) -> list[Change]:
        changes: list[Change] = []
        used = [*wanted.get("scheduleIds", ())]
        for values in wanted.get("schedules", ()):
            row = self._schedule_named(values["name"], attached)
            if row is None:
                changes.append(CreateSchedule(values))
                continue
            if changed := compare(values, row, {}).changed:
                changes.append(UpdateSchedule(row, changed))
            used.append(str(row["_id"]))
        changes += [AttachSchedule(each) for each in dict.fromkeys(used) if each not in attached]
        if "schedules" in wanted or "scheduleIds" in wanted:
            self.notes += [
                f"the schedule {each} is attached, too: lemlist's API cannot detach it"
                for each in attached
                if each not in used
            ]
        return changes

    def _schedule_named(self, name: str, attached: Sequence[str]) -> Row | None:
        """Return the schedule of a name; of several, the one that is attached."""
        named = [
            row for row in self.present.schedules if row.get("name") == name and not row.get("deletedAt")
        ]
        found = [row for row in named if row["_id"] in attached] or named
        if len(found) > 1:
            ids = ", ".join(str(row["_id"]) for row in found)
            raise LemlistValidationError(
                f"{len(found)} schedules have the name {name!r}: {ids}. Rename all but one, or use "
                "scheduleIds. Nothing was sent."
            )
        return found[0] if found else None

    # --- Sequences --------------------------------------------------------------------------------------

    def _sequence(self, steps: Sequence[Wanted], path: Path, sequence_id: str) -> None:
        """Collect the changes of a sequence and of those beneath it."""
        if sequence_id:
            self.sequence_ids[path] = sequence_id
        pairs = self.aligner.pairs(steps, path, sequence_id)
        for step, row in pairs:
            if row is not None and step is None:
                self._extra(path, sequence_id, row)
            elif row is not None and step is not None:
                self._match(step, sequence_id, row)
        final = [pair for pair in pairs if pair.step or self.keep]  # the sequence as it will be
        last = max((index for index, pair in enumerate(final) if pair.row), default=-1)
        for index, (step, row) in enumerate(final):
            if step is not None and row is None:
                self._add(step, index if index < last else None)

    def _match(self, step: Wanted, sequence_id: str, row: Row) -> None:
        self.step_ids[step.path] = str(row["_id"])
        changed, unseen = self.aligner.difference(step, row)
        if changed:
            self.updated.append(UpdateStep(step.path, sequence_id, row, changed))
        if unseen:
            self.unseen[step.path] = unseen
        ids = branch_ids(row) if step.branches else {}
        for branch, below in step.branches.items():
            self._sequence(below, (*step.path, branch), ids.get(branch, ""))

    def _extra(self, path: Path, sequence_id: str, row: Row) -> None:
        beneath = self.present.beneath(row)
        if self.keep:
            self.kept += [row, *beneath]
        else:
            self.deleted.append(DeleteStep(path, sequence_id, row, tuple(beneath)))

    def _add(self, step: Wanted, index: int | None) -> None:
        self.added.append(AddStep(step.path, step.plain, index))
        for branch in step.branches.values():
            for below in branch:
                self._add(below, None)

    def _mark_moved(self) -> Iterator[AddStep]:
        """Yield the added steps, each with the equal one that is deleted, or would be, at another place."""
        gone = list(self.kept)
        for change in self.deleted:
            gone += [change.row, *change.beneath]
        for added in self.added:
            moved = next((row for row in gone if self._is_equal(added.step, row)), None)
            if moved is not None:
                gone.remove(moved)
            yield replace(added, moved=moved)

    def _is_equal(self, plain: Row, row: Row) -> bool:
        return plain["type"] == row.get("type") and not compare_step(plain, row, self.applied).changed


def _is_taken(name: str, *requests: str) -> bool:
    """Return whether one of these requests takes a setting."""
    return any(request in SETTINGS[name].sent_with for request in requests)
