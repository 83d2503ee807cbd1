# SPDX-License-Identifier: Apache-2.0
"""What a ledger keeps of runs that are over, and of runs that never ended."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lemlist.ledger import ledger as module
from airflow_provider_lemlist.ledger import lock
from airflow_provider_lemlist.ledger.ledger import Ledger, LedgerEntry, Run
from airflow_provider_lemlist.load.worklist import Worklist
from airflow_provider_lemlist.storage import is_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import ObjectStoragePath
    from conftest import Place


@pytest.fixture(autouse=True)
def _no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.StoredLock, "settle_time", 0.0)
    monkeypatch.setattr(lock.StoredLock, "heartbeat", 0.05)
    monkeypatch.setattr(lock.StoredLock, "max_missed", 100)  # on a busy machine a heartbeat may be late


ANA = {"email": "ana@example.com"}


@contextmanager
def attempt(path: ObjectStoragePath, day: int) -> Iterator[tuple[Ledger, Worklist, list[bytes]]]:
    run = Run(f"day-{day:02}", f"2026-11-{day:02}", "people.load", "a test")
    with Ledger(path, "cam_1", run) as ledger, closing(Worklist(ledger.secret)) as worklist:
        ledger.read(worklist.people)
        yield ledger, worklist, worklist.people.keys_of(ANA)


def test_run_that_was_never_finished_leaves_no_one_in_doubt_for_ever(place: Place) -> None:
    with attempt(place("ledger"), 1) as (ledger, _, ana):
        ledger.mark_in_flight([ana])  # and the process dies
    with attempt(place("ledger"), 2) as (ledger, worklist, ana):
        assert worklist.people.find(ana)[0].in_doubt
        ledger.write(LedgerEntry(1, ana, "created", "lea_1"))
        ledger.finish(worklist.people, {"created": 1})
    with attempt(place("ledger"), 3) as (_, worklist, ana):
        assert not worklist.people.find(ana)[0].in_doubt


def test_attempt_after_the_end_of_another_run_still_knows_who_is_in_doubt(place: Place) -> None:
    with attempt(place("ledger"), 1) as (ledger, _, ana):
        ledger.mark_in_flight([ana])
    with attempt(place("ledger"), 2) as (ledger, worklist, ana):
        ledger.finish(worklist.people, {})  # its source does not have the person
    with attempt(place("ledger"), 1) as (_, worklist, ana):
        assert worklist.people.find(ana)[0].in_doubt


def test_files_of_a_ledger_do_not_grow_with_the_number_of_runs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_ROWS", 3)
    files = []
    for day in range(1, 8):
        with attempt(place("ledger"), day) as (ledger, worklist, ana):
            if day % 2:  # some runs have no rows
                ledger.write(LedgerEntry(1, ana, "exists", "lea_1"))
            ledger.finish(worklist.people, {})
        path = place("ledger")
        files.append(len(path.fs.find(str(path.path), withdirs=is_local(path))))
    assert files[3] == files[5]
    assert files[4] == files[6]
