# SPDX-License-Identifier: Apache-2.0
"""What a ledger says, for people who look into it; nothing is locked, written or sent."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.ledger.ledger import (
    ANY_OUTCOME,
    Ledger,
    Part,
    Run,
    damage_named,
    list_parts,
    marks_in,
    outcomes_in,
    read_description,
)
from airflow_provider_lemlist.ledger.people import People
from airflow_provider_lemlist.storage import shown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


def summarize(path: ObjectStoragePath) -> dict[str, Any]:
    """
    Return what a ledger says: its runs, the newest first, and who is in doubt.

    :raises LemlistConfigurationError: There is no ledger, or it cannot be read.
    """
    if (description := read_description(path)) is None:
        raise LemlistConfigurationError(f"There is no ledger at {shown(path)}.")
    campaign_id, secret = description
    # For no run, so that the attempts of all runs are read alike.
    ledger = Ledger(path, campaign_id, Run("", "", "", ""), read_only=True)
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        people = People(database, secret)
        ledger.read(people)
        with damage_named(path):
            return {"campaign_id": campaign_id, **_summary(ledger.runs, people, list_parts(path))}


def _summary(runs: Mapping[str, Mapping[str, Any]], people: People, parts: Iterable[Part]) -> dict[str, Any]:
    parts = sorted((part for part in parts if part.run in runs), key=lambda part: runs[part.run]["order"])
    newest = sorted(runs.values(), key=lambda run: (run["order"], run["at"]), reverse=True)
    return {
        "people": people.loaded(),
        "runs": [_run(run, [part for part in parts if part.run == run["run"]]) for run in newest],
        "in_doubt": _in_doubt(people, parts),
    }


def _run(run: Mapping[str, Any], parts: Iterable[Part]) -> dict[str, Any]:
    finished = run["at"] if run["counts"] else None
    counts = run["counts"] or _count(parts)
    return {name: run[name] for name in ("run", "order", "source")} | {
        "finished": finished,
        "counts": {name: counts[name] for name in ANY_OUTCOME if counts.get(name)},
    }


def _count(parts: Iterable[Part]) -> Counter[str]:
    """Count the rows of a run that has not finished by the last outcome of each."""
    last: dict[bytes | int, str] = {}
    for part in sorted(parts, key=lambda part: part.attempt):
        for keys, line in outcomes_in(part) if part.kind != "marks" else ():
            # A row may have another number in the next attempt; a duplicate has the keys of another row.
            last[keys[0] if keys and line["outcome"] != "duplicate" else line["row"]] = line["outcome"]
    return Counter(last.values())


def _in_doubt(people: People, parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Return everyone in doubt, with the newest run that was about them; marks have no row number."""
    nothing: dict[str, Any] = {"run": None, "row": None, "outcome": None}
    found = {person.id: {**nothing, "lead_id": person.lead_id} for person in people.in_doubt()}
    for part in parts:
        about: Iterable[tuple[list[bytes], int | None, str]] = ()
        if part.kind == "marks":
            about = ((keys, None, "in flight") for keys, in_flight in marks_in(part) if in_flight)
        elif part.kind == "open":
            about = ((keys, line["row"], line["outcome"]) for keys, line in outcomes_in(part))
        for keys, row, outcome in about:
            if outcome in ("in flight", "uncertain", "failed"):
                for person in people.find(keys):
                    if person.id in found:
                        found[person.id] |= {"run": part.run, "row": row, "outcome": outcome}
    return list(found.values())
