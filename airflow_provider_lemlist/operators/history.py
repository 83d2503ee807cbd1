# SPDX-License-Identifier: Apache-2.0
"""
What a task knows of its earlier attempts, so that nothing is created twice.

A worker can die between the effect in lemlist and the response. Airflow 3.3 has a store that outlives the
attempts of a task; there an attempt writes what it is about to create, and what it has created. Before 3.3
the number of the attempt is all that is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_lemlist.exceptions import LemlistDuplicateError, LemlistError, LemlistUncertainError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def attempt(context: Context) -> int:
    """Return the number of this automatic attempt, from 1; clearing the task starts again at 1."""
    ti: Any = context["ti"]
    # max_tries grows with every clear: it is the last try of the present round, counted from 0.
    return max(1, int(ti.try_number - (ti.max_tries - (ti.task.retries or 0))))


def is_last_attempt(context: Context) -> bool:
    """Return whether Airflow will not retry the task after this attempt."""
    ti: Any = context["ti"]
    return int(ti.try_number) > int(ti.max_tries)


class TaskHistory:
    """
    The history of one task: what it was about to create, and what it has created.

    :param context: The context of the task.
    """

    KEY = "lemlist_in_doubt"

    def __init__(self, context: Context) -> None:
        # None before Airflow 3.3.
        self._store: Any = context.get("task_state_store")
        self._attempt = attempt(context)
        self._try = int(context["ti"].try_number)
        self._is_last = is_last_attempt(context)
        self._facts: dict[str, Any] = {}

    @property
    def is_lost(self) -> bool:
        """Whether the task was cleared on an Airflow that keeps no history."""
        return self._store is None and self._attempt == 1 < self._try

    def read(self) -> Mapping[str, Any] | None:
        """
        Return what an earlier attempt wrote before it created something; None if none can have created it.

        Empty where an earlier attempt may have, but Airflow keeps no history. History outlives the clearing
        of a task: what it names exists until it is deleted in lemlist.
        """
        if self._store is None:
            return {} if self._attempt > 1 else None
        found = self._store.get(self.KEY)
        if not isinstance(found, Mapping):
            return None
        self._facts = dict(found)
        return found

    def begin(self, **facts: Any) -> None:
        """Write what is about to be created."""
        self._facts = facts
        if self._store is not None:
            self._store.set(self.KEY, facts)

    def finish(self, created_id: str, **facts: Any) -> None:
        """Write the id of what was created, for an attempt that dies before Airflow stores its success."""
        self.begin(**self._facts | facts | {"done": created_id})

    @contextmanager
    def attempting(
        self, what: str, *, in_doubt: bool, created: bool, may_look_up: bool, check: str
    ) -> Iterator[None]:
        """
        Keep the history of a failed attempt while the next one can find out the outcome; else forget it.

        :param what: What is created, for the error: ``the lead``.
        :param in_doubt: Whether an earlier attempt may have created it.
        :param created: Whether an earlier attempt has created it; that stays known.
        :param may_look_up: Whether it can be looked up after the task was cleared.
        :param check: What to check when Airflow will not retry the task.
        :raises LemlistUncertainError: The last attempt failed with the outcome unknown.
        """
        try:
            yield
        except (AirflowSkipException, LemlistError) as error:
            settled = isinstance(error, (AirflowSkipException, LemlistDuplicateError))
            in_doubt = not settled and (in_doubt or getattr(error, "in_doubt", False))
            retryable = getattr(error, "retryable", False)
            keep = in_doubt and (retryable or may_look_up)
            if self._store is not None and not keep and not (created and "done" in self._facts):
                self._store.delete(self.KEY)
            if in_doubt and retryable and self._is_last:
                raise LemlistUncertainError(
                    f"It is not known whether lemlist created {what}: {error} {check}",
                    reason=getattr(error, "reason", None),
                ) from error
            raise
