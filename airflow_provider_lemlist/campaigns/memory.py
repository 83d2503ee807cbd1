# SPDX-License-Identifier: Apache-2.0
"""
What earlier runs and attempts left behind, so that fields which lemlist does not list can be compared.

    Memory      this process only: the commands
    TaskMemory  an Airflow task: its XCom of earlier runs, and Airflow's store of earlier attempts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.campaigns.present import Applied

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The XCom key of what a run has applied, and the key in the store.
APPLIED = "applied"
PAUSED = "lemlist_paused"


class Memory:
    """
    What was applied, and whether the campaign was paused for it; forgotten at the end of the process.

    :ivar applied: What was sent last.
    :ivar paused: The campaign that was paused, to be started again; empty if there is none.
    """

    #: Whether the next attempt remembers it.
    outlives_attempts = False

    def __init__(self) -> None:
        self.applied = Applied()
        self.paused = ""

    def save(self) -> None:
        """Keep what is remembered for the next attempt."""


class TaskMemory(Memory):
    """
    What a task remembers.

    Airflow 3.3 has a store that outlives the attempts of a task in one run; XComs outlive the run. A text is
    stored as a digest only.

    :param context: The context of the task.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        # None before Airflow 3.3.
        self._store: Any = context.get("task_state_store")
        found = self._store.get(APPLIED) if self._store is not None else None
        self.applied = _read(found) or _read(_pull(context["ti"])) or Applied()
        self.paused = str(self._store.get(PAUSED) or "") if self._store is not None else ""
        self.outlives_attempts = self._store is not None

    def save(self) -> None:
        if self._store is not None:
            self._store.set(APPLIED, self.applied._asdict())
            self._store.set(PAUSED, self.paused)


def _pull(ti: Any) -> Any:
    """Return what the last run before this one has applied."""
    index = getattr(ti, "map_index", -1)
    return ti.xcom_pull(task_ids=ti.task_id, key=APPLIED, include_prior_dates=True, map_indexes=index)


def _read(found: Any) -> Applied | None:
    if not isinstance(found, Mapping) or {*found} != {*Applied._fields}:
        return None
    return Applied(**found)
