# SPDX-License-Identifier: Apache-2.0
"""
What earlier runs and attempts left behind, so that fields which lemlist does not list can be compared.

    Memory      this process only: the commands
    TaskMemory  an Airflow task: its XCom of earlier runs, and Airflow's store of earlier attempts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.campaigns.present import Applied, digests

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The XCom key of what a run has applied.
APPLIED = "applied"


class Memory:
    """
    What was applied, and what is not finished; forgotten at the end of the process.

    :ivar applied: What was sent last.
    :ivar creating: Digests of what the request in flight creates, whose id is not known yet.
    :ivar paused: The campaign that was paused, to be started again; empty if there is none.
    """

    #: Whether the next attempt remembers it.
    outlives_attempts = False

    def __init__(self) -> None:
        self.applied = Applied()
        self.creating: Mapping[str, str] = {}
        self.paused = ""

    def save(self) -> None:
        """Keep what is remembered for the next attempt."""

    def of(self, campaign_id: str | None) -> Applied:
        """Return what was sent to a campaign; nothing if it was sent to another one."""
        return self.applied if self.applied.campaign_id == campaign_id else Applied()

    def claim(self, campaign_id: str, name: str, step_ids: Iterable[str]) -> None:
        """Remember the steps that stay in a campaign, so that a retry does not take them for extra ones."""
        before = self.of(campaign_id)
        steps = {step_id: before.steps.get(step_id, {}) for step_id in step_ids}
        self.applied = Applied(campaign_id, name, before.settings, steps)

    def about_to_create(self, values: Mapping[str, Any]) -> None:
        """Remember what is created with the next request, until its id is known."""
        self.creating = digests(values)
        self.save()

    def sent_settings(self, campaign_id: str, name: str, values: Mapping[str, Any]) -> None:
        """Remember settings that lemlist has taken."""
        before = self.of(campaign_id)
        self.applied = Applied(campaign_id, name, {**before.settings, **digests(values)}, before.steps)
        self.creating = {}

    def sent_step(self, step_id: str, values: Mapping[str, Any]) -> None:
        """Remember the fields of a step that lemlist has taken."""
        fields = {**self.applied.steps.get(step_id, {}), **digests(values)}
        self.applied = self.applied._replace(steps={**self.applied.steps, step_id: fields})
        self.creating = {}

    def was_creating(self, values: Mapping[str, Any]) -> bool:
        """Return whether an attempt was killed while it created something with these values."""
        found = {name: values.get(name) for name in self.creating}
        return bool(found) and digests(found) == self.creating


class TaskMemory(Memory):
    """
    What a task remembers.

    Airflow 3.3 has a store that outlives the attempts of a task in one run; XComs outlive the run. A text is
    stored as a digest only.

    :param context: The context of the task.
    """

    #: The key in the store.
    KEY = "lemlist_apply"

    def __init__(self, context: Context) -> None:
        super().__init__()
        # None before Airflow 3.3.
        self._store: Any = context.get("task_state_store")
        self.outlives_attempts = self._store is not None
        found: Any = (self._store.get(self.KEY) if self._store is not None else None) or {}
        self.applied = _read(found.get("applied")) or _read(_pull(context["ti"])) or Applied()
        self.creating = found.get("creating") or {}
        self.paused = found.get("paused") or ""

    def save(self) -> None:
        if self._store is not None:
            applied, creating = self.applied._asdict(), dict(self.creating)
            self._store.set(self.KEY, {"applied": applied, "creating": creating, "paused": self.paused})


def _pull(ti: Any) -> Any:
    """Return what the last run before this one has applied."""
    index = getattr(ti, "map_index", -1)
    return ti.xcom_pull(task_ids=ti.task_id, key=APPLIED, include_prior_dates=True, map_indexes=index)


def _read(found: Any) -> Applied | None:
    if not isinstance(found, Mapping) or {*found} != {*Applied._fields}:
        return None
    return Applied(**found)
