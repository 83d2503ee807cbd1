# SPDX-License-Identifier: Apache-2.0
"""
What an attempt of a task knows of the attempts before it, so that nothing is done twice.

An attempt can die between the effect in lemlist and the answer: a worker is killed, a task times out. Airflow
3.3 keeps notes of a task across its attempts; there an attempt writes down what it is about to do, and how it
ended. Before 3.3 the number of the attempt is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def attempt(context: Context) -> int:
    """Return which automatic attempt this is, from 1; clearing the task begins anew."""
    ti: Any = context["ti"]
    retries = ti.task.retries or 0
    # max_tries grows with every clear: it is the last try of the present round, counted from 0.
    return max(1, int(ti.try_number - (ti.max_tries - retries)))


class Memory:
    """
    The note of one task about what it was about to do.

    :param context: The context of the task.
    """

    KEY = "lemlist_in_doubt"

    def __init__(self, context: Context) -> None:
        # None before Airflow 3.3.
        self._notes: Any = context.get("task_state_store")
        self._attempt = attempt(context)
        self._try = int(context["ti"].try_number)
        self._facts: dict[str, Any] = {}

    def recall(self, *, cleared: bool = False) -> Mapping[str, Any] | None:
        """
        Return the note of a run of this task that may have had its effect; None when there was none for sure.

        A note outlives the clearing of the task: what it tells of is there until somebody takes it away.

        :param cleared: Whether, where Airflow keeps no notes, a run before the task was cleared counts too.
        """
        if self._notes is None:
            return {} if (self._try if cleared else self._attempt) > 1 else None
        note = self._notes.get(self.KEY)
        if not isinstance(note, Mapping):
            return None
        self._facts = dict(note)
        return note

    def note(self, **facts: Any) -> None:
        """Write down, before it is done, what will be done."""
        self._facts = facts
        if self._notes is not None:
            self._notes.set(self.KEY, facts)

    def done(self, made: str) -> None:
        """Write down what was made, for an attempt that dies before Airflow hears of its success."""
        self.note(**self._facts | {"done": made})

    def strike_out(self) -> None:
        """Forget the note: it was not done for sure, or a person was told to look."""
        if self._notes is not None:
            self._notes.delete(self.KEY)
