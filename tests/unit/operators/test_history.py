# SPDX-License-Identifier: Apache-2.0
"""An attempt knows whether an earlier one may have created something."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_lemlist.exceptions import (
    LemlistDuplicateError,
    LemlistServerError,
    LemlistUncertainError,
    LemlistValidationError,
)
from airflow_provider_lemlist.operators.history import TaskHistory, attempt, is_last_attempt


def context(try_number: int, max_tries: int, retries: int | None, store: Any = None) -> Any:
    task = SimpleNamespace(retries=retries)
    ti = SimpleNamespace(task=task, try_number=try_number, max_tries=max_tries)
    return {"ti": ti} if store is None else {"ti": ti, "task_state_store": store}


@pytest.mark.parametrize(
    ("try_number", "max_tries", "retries", "expected"),
    [
        (1, 2, 2, 1),
        (2, 2, 2, 2),
        (3, 2, 2, 3),
        (4, 5, 2, 1),  # cleared after three tries
        (5, 5, 2, 2),
        (2, 3, 2, 1),  # cleared after its first try succeeded
        (1, 0, 0, 1),
        (2, 1, None, 1),  # cleared, without retries
        (1, 5, 2, 1),  # never below one
    ],
)
def test_clearing_starts_a_new_round_of_attempts(
    try_number: int, max_tries: int, retries: int | None, expected: int
) -> None:
    assert attempt(context(try_number, max_tries, retries)) == expected


def fail(history: TaskHistory, error: Exception | None = None, **known: bool) -> None:
    """Let an attempt fail; without an error, with one that says that nothing was created."""
    error = error or LemlistValidationError("refused")
    known = {"in_doubt": False, "created": False, "may_look_up": False, **known}
    with pytest.raises(type(error)), history.attempting("it", check="Check.", **known):
        raise error


@pytest.mark.parametrize(
    ("error", "known", "kept"),
    [
        (LemlistValidationError("refused"), {}, False),
        (LemlistServerError("down", in_doubt=True), {}, True),
        (LemlistServerError("down"), {"in_doubt": True}, True),
        (LemlistServerError("down"), {}, False),
        (LemlistUncertainError("who knows"), {"may_look_up": True}, True),
        (LemlistUncertainError("who knows"), {}, False),
        (LemlistDuplicateError("there"), {"in_doubt": True, "may_look_up": True}, False),
        (AirflowSkipException("there"), {"in_doubt": True, "may_look_up": True}, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_history_is_kept_while_the_next_attempt_can_find_out(
    worker: Any, error: Exception, known: dict[str, bool], kept: bool
) -> None:
    history = TaskHistory(context(1, 2, 2, worker.stores["task"]))
    history.begin(known=[])
    fail(history, error, **known)
    assert (TaskHistory(context(2, 2, 2, worker.stores["task"])).read() is not None) is kept


def test_unknown_outcome_of_the_last_attempt_is_uncertain(worker: Any) -> None:
    for try_number, expected in ((2, LemlistServerError), (3, LemlistUncertainError)):
        history = TaskHistory(context(try_number, 2, 2, worker.stores["task"]))
        history.begin(known=[])
        attempting = history.attempting(
            "the step", in_doubt=False, created=False, may_look_up=False, check="Check the sequence."
        )
        with pytest.raises(expected), attempting:
            raise LemlistServerError("down", in_doubt=True)
        assert history.read() is not None  # clearing the task finds out


def test_last_attempt_is_the_one_that_airflow_does_not_retry() -> None:
    assert not is_last_attempt(context(1, 2, 2))
    assert is_last_attempt(context(3, 2, 2))
    assert not is_last_attempt(context(4, 5, 2))  # cleared
    assert is_last_attempt(context(1, 0, 0))


def test_before_airflow_3_3_every_further_attempt_is_in_doubt() -> None:
    assert TaskHistory(context(1, 2, 2)).read() is None
    assert TaskHistory(context(2, 2, 2)).read() == {}
    cleared = TaskHistory(context(4, 5, 2))
    assert cleared.read() is None
    assert cleared.is_lost
    assert not TaskHistory(context(1, 2, 2)).is_lost
    history = TaskHistory(context(1, 2, 2))
    history.begin(x=1)
    history.finish("stp_1")
    fail(history)


def test_history_names_what_was_in_flight(worker: Any) -> None:
    store = worker.stores["task"]
    TaskHistory(context(1, 2, 2, store)).begin(known=["stp_1"])
    assert TaskHistory(context(2, 2, 2, store)).read() == {"known": ["stp_1"]}
    cleared = TaskHistory(context(4, 5, 2, store))  # after a kill
    assert cleared.read() == {"known": ["stp_1"]}
    assert not cleared.is_lost


def test_attempt_after_certain_failure_is_not_in_doubt(worker: Any) -> None:
    history = TaskHistory(context(1, 2, 2, worker.stores["task"]))
    history.begin(known=[])
    fail(history)
    assert TaskHistory(context(2, 2, 2, worker.stores["task"])).read() is None


def test_created_id_is_known_to_retries_and_after_clearing(worker: Any) -> None:
    history = TaskHistory(context(1, 2, 2, worker.stores["task"]))
    history.begin(known=[])
    history.finish("stp_1")
    fail(history, created=True)
    for try_number, max_tries in ((2, 2), (4, 5)):
        later = TaskHistory(context(try_number, max_tries, 2, worker.stores["task"]))
        assert later.read() == {"known": [], "done": "stp_1"}
