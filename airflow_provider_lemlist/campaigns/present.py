# SPDX-License-Identifier: Apache-2.0
"""
What lemlist has, compared with a definition field by field. Pure.

lemlist lists only a part of a step and of a campaign. A field that it does not list is unseen, and so is
markup that lemlist may have tidied; ``Applied``, what was sent last from here, tells whether such a field has
changed in the definition since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from airflow_provider_lemlist.campaigns.definition import BRANCHES
from airflow_provider_lemlist.delivery.evidence import listed_fields, words
from airflow_provider_lemlist.steps import branches

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Present:
    """
    What lemlist has.

    :param campaign: The campaign as lemlist returns or lists it; None if it does not exist.
    :param sequences: Its sequences by id, as lemlist lists them.
    :param schedules: The schedules of the team, if the definition names one.
    """

    campaign: Row | None = None
    sequences: Mapping[str, Row] = field(default_factory=dict)
    schedules: Sequence[Row] = ()

    @property
    def main_id(self) -> str | None:
        """The id of the main sequence."""
        main = (str(each) for each, sequence in self.sequences.items() if not sequence.get("level"))
        return next(main, None) or (self.campaign or {}).get("sequenceId")

    @property
    def is_running(self) -> bool:
        # A campaign may have several statuses at once.
        return "running" in ((self.campaign or {}).get("status") or "")

    def rows(self, sequence_id: str | None) -> list[Row]:
        """Return the steps of a sequence, in their order."""
        sequence = self.sequences.get(sequence_id or "") or {}
        return [row for row in sequence.get("steps") or () if row.get("_id")]

    def beneath(self, row: Row) -> list[Row]:
        """Return every step in the branches of a condition."""
        found: list[Row] = []
        for sequence_id in branches(row).values():
            for below in self.rows(sequence_id):
                found += [below, *self.beneath(below)]
        return found


def branch_ids(row: Row) -> dict[str, str]:
    """Return the sequence of each branch of a condition, as definitions call the branches."""
    found = branches(row)
    fallback = found.pop("fallback", None)
    ids = {"yes": next(iter(found.values()), None), "otherwise": fallback}
    return {branch: sequence_id for branch in BRANCHES if (sequence_id := ids[branch])}


def listed_settings(campaign: Row) -> dict[str, Any]:
    """Return the settings that lemlist lists of a campaign, by the names that change them."""
    senders = campaign.get("senders")
    ids = [str(sender.get("id")) for sender in senders or ()]
    known = senders is not None and all(each.startswith("usr_") for each in ids)
    return {**campaign, "sendUserIds": ids if known else None}


class Applied(NamedTuple):
    """
    What was sent last from here: digests of the values, so that no text is stored twice.

    :param campaign_id: The campaign to which it was sent; empty if nothing is known.
    :param name: The name of the campaign by then.
    :param settings: Digests of its settings.
    :param steps: Digests of the fields of each step that was left in the campaign, by its id.
    """

    campaign_id: str = ""
    name: str = ""
    settings: Mapping[str, str] = {}
    steps: Mapping[str, Mapping[str, str]] = {}


def digests(values: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of each value."""
    return {name: digest(value) for name, value in values.items()}


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class Difference(NamedTuple):
    """
    How a step or the settings of a definition differ from what lemlist has.

    :param changed: What lemlist has and what the definition says, by field. What lemlist has is None where it
        is not listed.
    :param unseen: Fields of which it is not known whether they differ.
    """

    changed: Mapping[str, tuple[Any, Any]] = {}
    unseen: tuple[str, ...] = ()


def compare(wanted: Row, there: Row, applied: Mapping[str, str]) -> Difference:
    """
    Compare the values of a definition with those that lemlist lists.

    :param applied: Digests of the values that were sent last; empty if nothing is known.
    """
    changed: dict[str, tuple[Any, Any]] = {}
    unseen: list[str] = []
    for name, value in wanted.items():
        listed = there.get(name)
        is_same = _is_same(value, listed)
        if is_same is None and name in applied:
            is_same = applied[name] == digest(value)
        if is_same is None:
            unseen.append(name)
        elif not is_same:
            changed[name] = (listed, value)
    return Difference(changed, tuple(unseen))


def compare_step(wanted: Row, row: Row, applied: Applied) -> Difference:
    """Compare a step of a definition, without its name and branches, with a listed one of the same type."""
    known = applied.steps.get(str(row.get("_id")), {})
    there = {**listed_fields(row), **dict.fromkeys(("images", "videos"))}  # lemlist hosts its own copies
    return compare({name: value for name, value in wanted.items() if name != "type"}, there, known)


def _is_same(wanted: Any, listed: Any) -> bool | None:
    """
    Return whether a value equals what lemlist lists.

    :return: None if it is not known: not listed, or only the markup differs, which lemlist may tidy.
    """
    if isinstance(wanted, Mapping) and isinstance(listed, Mapping):
        same = [_is_same(value, listed.get(name)) for name, value in wanted.items()]
        return False if False in same else None if None in same else True
    if listed is None:
        return None
    if isinstance(wanted, (list, tuple)) and isinstance(listed, (list, tuple)):
        # Ids, choices, days and links: their order says nothing.
        return set(map(str, wanted)) == set(map(str, listed))
    if wanted == listed:
        return True
    if isinstance(wanted, str) and isinstance(listed, str) and text_words(wanted) == text_words(listed):
        return None
    return False


@lru_cache(maxsize=4096)  # each text is compared with every text of a sequence
def text_words(text: str) -> str:
    """Return the words and links of a text."""
    return str(words(text))
