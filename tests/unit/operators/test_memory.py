# SPDX-License-Identifier: Apache-2.0
"""An attempt knows whether one before it may have had its effect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lemlist.operators.memory import Memory, attempt


def context(try_number: int, max_tries: int, retries: int | None, notes: Any = None) -> Any:
    task = SimpleNamespace(retries=retries)
    ti = SimpleNamespace(task=task, try_number=try_number, max_tries=max_tries)
    return {"ti": ti} if notes is None else {"ti": ti, "task_state_store": notes}


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
def test_clearing_begins_a_new_round_of_attempts(
    try_number: int, max_tries: int, retries: int | None, expected: int
) -> None:
    assert attempt(context(try_number, max_tries, retries)) == expected


def test_without_notes_every_further_attempt_is_in_doubt() -> None:
    assert Memory(context(1, 2, 2)).recall() is None
    assert Memory(context(2, 2, 2)).recall() == {}
    assert Memory(context(4, 5, 2)).recall() is None
    assert Memory(context(4, 5, 2)).recall(cleared=True) == {}
    memory = Memory(context(1, 2, 2))
    memory.note(x=1)
    memory.done("stp_1")
    memory.strike_out()


def test_notes_tell_what_was_under_way(worker: Any) -> None:
    notes = worker.notes["task"]
    Memory(context(1, 2, 2, notes)).note(known=["stp_1"])
    assert Memory(context(2, 2, 2, notes)).recall() == {"known": ["stp_1"]}
    assert Memory(context(4, 5, 2, notes)).recall() == {"known": ["stp_1"]}  # cleared after a kill


def test_a_further_attempt_after_a_sure_failure_is_not_in_doubt(worker: Any) -> None:
    memory = Memory(context(1, 2, 2, worker.notes["task"]))
    memory.note(known=[])
    memory.strike_out()
    assert Memory(context(2, 2, 2, worker.notes["task"])).recall() is None


def test_what_is_done_is_known_to_retries_and_after_clearing(worker: Any) -> None:
    memory = Memory(context(1, 2, 2, worker.notes["task"]))
    memory.note(known=[])
    memory.done("stp_1")
    assert Memory(context(2, 2, 2, worker.notes["task"])).recall() == {"known": [], "done": "stp_1"}
    assert Memory(context(4, 5, 2, worker.notes["task"])).recall() == {"known": [], "done": "stp_1"}
