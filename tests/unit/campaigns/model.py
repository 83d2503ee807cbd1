# SPDX-License-Identifier: Apache-2.0
"""A plain model of the sequences of a campaign in lemlist, to which plans are applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from airflow_provider_lemlist.campaigns.definition import BRANCHES, Path, is_condition, plain_step
from airflow_provider_lemlist.campaigns.plan import AddStep, Change, DeleteStep, Plan, UpdateStep
from airflow_provider_lemlist.campaigns.present import Applied, Present, digests

CAMPAIGN = {"_id": "cam_1", "name": "Spring"}
#: What lemlist lists of a step; nothing else of it is seen.
LISTED = ("delay", "subject", "message")
MAIN: Path = ("steps",)


class Model:
    """The sequences: lists of steps, each the fields that were sent, with ``_id`` and its ``branches``."""

    def __init__(self, steps: Iterable[Mapping[str, Any]] = ()) -> None:
        self.numbers = count(1)
        self.sequences: dict[str, list[dict[str, Any]]] = {"seq_main": []}
        self.levels = {"seq_main": 0}
        self._build("seq_main", steps)

    def _build(self, sequence_id: str, steps: Iterable[Mapping[str, Any]]) -> None:
        for step in steps:
            added = self.add(sequence_id, plain_step(step), None)
            for branch, below in added["branches"].items():
                self._build(below, step.get(branch) or ())

    # --- What lemlist does ------------------------------------------------------------------------------

    def add(self, sequence_id: str, plain: Mapping[str, Any], index: int | None) -> dict[str, Any]:
        step = {"delay": 1, **plain, "_id": f"stp_{next(self.numbers)}", "branches": {}}
        for branch in BRANCHES if is_condition(plain) else ():
            step["branches"][branch] = f"seq_{step['_id']}_{branch}"
            self.sequences[step["branches"][branch]] = []
            self.levels[step["branches"][branch]] = self.levels[sequence_id] + 1
        steps = self.sequences[sequence_id]
        assert index is None or 0 <= index < len(steps)  # beyond the end it would be appended
        steps.insert(len(steps) if index is None else index, step)
        return step

    def delete(self, sequence_id: str, step_id: str) -> None:
        step = self.step(sequence_id, step_id)
        self.sequences[sequence_id].remove(step)
        for below in step["branches"].values():
            for each in list(self.sequences[below]):
                self.delete(below, each["_id"])
            del self.sequences[below]

    def step(self, sequence_id: str, step_id: str) -> dict[str, Any]:
        return next(step for step in self.sequences[sequence_id] if step["_id"] == step_id)

    # --- What lemlist lists -----------------------------------------------------------------------------

    def present(self, **campaign: Any) -> Present:
        return Present(
            {**CAMPAIGN, **campaign},
            {
                sequence_id: {
                    "_id": sequence_id,
                    "level": self.levels[sequence_id],
                    "steps": [listed(step, position, sequence_id) for position, step in enumerate(steps)],
                }
                for sequence_id, steps in self.sequences.items()
            },
        )

    # --- What a run does --------------------------------------------------------------------------------

    def carry_out(self, plan: Plan, stop_after: int | None = None) -> None:
        """Carry out the changes of a plan, or the first of them."""
        sequence_ids = dict(plan.sequence_ids)
        for change in plan.changes[:stop_after]:
            self._carry_out(change, sequence_ids)

    def _carry_out(self, change: Change, sequence_ids: dict[Path, str]) -> None:
        if isinstance(change, UpdateStep):
            step = self.step(change.sequence_id, change.row["_id"])
            step |= {name: value for name, (_, value) in change.changed.items()}
        elif isinstance(change, DeleteStep):
            self.delete(change.sequence_id, change.row["_id"])
        elif isinstance(change, AddStep):
            added = self.add(sequence_ids[change.sequence], change.step, change.index)
            for branch, below in added["branches"].items():
                sequence_ids[*change.path, branch] = below
        else:
            raise AssertionError(change)

    # --- What a test asks -------------------------------------------------------------------------------

    def tree(self, without: Iterable[str] = (), sequence_id: str = "seq_main") -> list[dict[str, Any]]:
        """Return the steps as a definition writes them, without those of these ids."""
        without = set(without)
        return [
            {name: value for name, value in step.items() if name not in ("_id", "branches")}
            | {branch: self.tree(without, below) for branch, below in step["branches"].items()}
            for step in self.sequences[sequence_id]
            if step["_id"] not in without
        ]

    def all_steps(self) -> Iterator[dict[str, Any]]:
        for steps in self.sequences.values():
            yield from steps

    def applied(self, step_ids: Iterable[str] | None = None) -> Applied:
        """Return what a run remembers that has sent these steps, or all."""
        chosen = None if step_ids is None else set(step_ids)
        return Applied(
            "cam_1",
            "Spring",
            steps={
                step["_id"]: digests(
                    {name: value for name, value in step.items() if name not in ("_id", "branches", "type")}
                )
                for step in self.all_steps()
                if chosen is None or step["_id"] in chosen
            },
        )


def listed(step: Mapping[str, Any], position: int, sequence_id: str) -> dict[str, Any]:
    """Return a step as the list of a campaign's sequences does."""
    shown: dict[str, Any] = {
        "_id": step["_id"],
        "type": step["type"],
        "index": position + 1,
        "sequenceStep": position,
        "sequenceId": sequence_id,
        **{name: step[name] for name in LISTED if name in step},
    }
    if step["branches"]:
        shown["conditions"] = [
            {
                "sequenceId": step["branches"]["yes"],
                "label": "a label",
                "key": step["conditionKey"],
                "delay": step["delay"],
                "delayType": step["delayType"],
            },
            {"sequenceId": step["branches"]["otherwise"], "fallback": True},
        ]
    return shown
