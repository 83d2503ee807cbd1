# SPDX-License-Identifier: Apache-2.0
"""
A plan as a text that reads like a diff. Pure.

    campaign Spring webinar (cam_H3vPz9KdR7uWq2LtA)
    ~ autoReview: true -> false
    ~ step 3 email: subject "A question" -> "A question, {{firstName}}"
    - step 5 linkedinVisit
    + email "Shall we talk?" after step 2

Steps that stay or are new have the position that the definition gives them; the others the one in lemlist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from os.path import commonprefix
from typing import Any

from airflow_provider_lemlist.campaigns.definition import Path, show_path
from airflow_provider_lemlist.campaigns.plan import (
    AddStep,
    AttachSchedule,
    Change,
    CreateCampaign,
    CreateSchedule,
    DeleteStep,
    Plan,
    UpdateSchedule,
    UpdateSettings,
    UpdateStep,
)
from airflow_provider_lemlist.campaigns.present import Row
from airflow_provider_lemlist.delivery.evidence import listed_fields

#: The longest part of a text that is shown.
LONGEST = 60
#: What would move the cursor of a terminal, or cannot be encoded.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COLOURS = {"+": "32", "~": "33", "-": "31", "?": "2", "!": "1;31"}


def plan_lines(plan: Plan) -> list[str]:
    """Return the changes of a plan, what it cannot see, and what it leaves, a line each."""
    lines = [line for change in plan.changes for line in change_lines(change)]
    lines += [f"! {note}" for note in plan.notes]
    lines += [f"  keeps {_row(row)}, which the definition lacks" for row in plan.kept]
    lines += [f"? cannot see: {_seen(path, names)}" for path, names in plan.unseen.items()]
    return lines


def change_lines(change: Change) -> Iterator[str]:
    """Yield the lines of one change."""
    if isinstance(change, CreateCampaign):
        yield f"+ campaign {short(change.settings.get('name'))}"
        yield from (f"+ {name}: {short(value)}" for name, value in change.settings.items() if name != "name")
    elif isinstance(change, UpdateSettings):
        for name, (before, value) in change.changed.items():
            yield f"~ {name}: {_change(before, value)}"
    elif isinstance(change, CreateSchedule):
        yield f"+ schedule {short(change.values)}"
    elif isinstance(change, UpdateSchedule):
        for name, (before, value) in change.changed.items():
            where = f"schedule {short(change.row['name'])}, for every campaign that uses it"
            yield f"~ {where}: {name} {_change(before, value)}"
    elif isinstance(change, AttachSchedule):
        yield f"+ schedule {change.schedule_id}"
    elif isinstance(change, UpdateStep):
        for name, (before, value) in change.changed.items():
            yield f"~ {show_path(change.path)} {change.row['type']}: {name} {_change(before, value)}"
    elif isinstance(change, DeleteStep):
        within = "" if len(change.sequence) == 1 else f" in {_sequence(change.sequence)}"
        yield f"- {_row(change.row)}{within}"
        yield from (f"-   beneath it: {_row(row)}" for row in change.beneath)
    else:
        yield f"+ {_new(change)}"


def coloured(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines with colours for a terminal."""
    for line in lines:
        colour = _COLOURS.get(line[:1])
        yield f"\033[{colour}m{line}\033[0m" if colour else line


def short(value: Any) -> str:
    """Return a value as it is shown: texts in quotes, on one line, shortened."""
    if isinstance(value, str):
        return _excerpt(_one_line(value), 0)
    return _one_line(json.dumps(value, ensure_ascii=False, default=str))


def _one_line(text: str) -> str:
    return _CONTROL.sub("\ufffd", " ".join(text.split()))


def _excerpt(text: str, start: int) -> str:
    shown = text if not start else f"…{text[start + 1 :]}"
    return f'"{shown}"' if len(shown) <= LONGEST else f'"{shown[: LONGEST - 1]}…"'


def _change(before: Any, value: Any) -> str:
    """Return both values; of long texts the part in which they begin to differ."""
    if not isinstance(before, str) or not isinstance(value, str):
        return f"{'(not listed)' if before is None else short(before)} -> {short(value)}"
    texts = [_one_line(before), _one_line(value)]
    if texts[0] == texts[1]:
        return f"{short(value)} (only spaces differ)"
    same = len(commonprefix(texts))
    start = max(0, same - LONGEST // 3) if max(map(len, texts)) > LONGEST else 0
    return " -> ".join(_excerpt(text, start) for text in texts)


def _new(change: AddStep) -> str:
    position = int(change.path[-1])
    after = f"after {show_path((*change.sequence, position - 1))}"
    where = after if position else f"first in {_sequence(change.sequence)}"
    moved = " (moved)" if change.moved else ""
    return f"{kind_of(change.step)} {where}{moved}"


def _sequence(path: Path) -> str:
    return "the sequence" if len(path) == 1 else f"branch {path[-1]} of {show_path(path[:-1])}"


def _row(row: Row) -> str:
    position = row.get("index")
    return f"step {position} {kind_of(row)}" if position is not None else kind_of(row)


def kind_of(step: Mapping[str, Any]) -> str:
    """Return the type of a step with the beginning of its text."""
    there = listed_fields(step)
    texts = (there.get(name) for name in ("subject", "title", "conditionKey", "message", "url"))
    text = next(filter(None, texts), None)
    return f"{step.get('type')} {short(text)}" if text else str(step.get("type"))


def _seen(path: Path, names: Iterable[str]) -> str:
    return f"{', '.join(names)} of {show_path(path)}" if path else ", ".join(names)
