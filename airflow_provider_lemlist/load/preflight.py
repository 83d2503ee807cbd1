# SPDX-License-Identifier: Apache-2.0
"""
Everything that is found out before the first lead is sent.

Does the campaign exist, what is wrong with which rows, who is in the source twice, does every variable that
the campaign's texts use get a value, and how long will it take. Rows are named by number, never by content.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.leads import LEAD_FIELDS
from airflow_provider_lemlist.load.account import duration
from airflow_provider_lemlist.load.placeholders import Variables, texts_of, variables_of
from airflow_provider_lemlist.load.sources import Broken, Row
from airflow_provider_lemlist.validation import hint

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.load.choices import IfMissing
    from airflow_provider_lemlist.load.mapping import ColumnMapping
    from airflow_provider_lemlist.load.worklist import Worklist

log = logging.getLogger(__name__)

#: How many rows a finding names.
_EXAMPLES = 5
#: How many kinds of problems are told apart; a source where each row has another is no table.
_KINDS = 200


@dataclass
class Finding:
    """Something that some rows have in common."""

    rows: int = 0
    examples: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        self.rows += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(number)

    def __str__(self) -> str:
        if self.rows == 1:
            return f"row {self.examples[0]}"
        numbers = ", ".join(map(str, self.examples))
        return f"{_rows(self.rows)} ({numbers}{', …' if self.rows > len(self.examples) else ''})"


@dataclass
class Findings:
    """What the look through all rows found."""

    rows: int = 0
    valid: int = 0
    invalid: int = 0
    problems: dict[str, Finding] = field(default_factory=dict)
    duplicates: Finding = field(default_factory=Finding)
    #: Variables of the campaign that some valid rows leave blank.
    blank: dict[str, Finding] = field(default_factory=dict)
    #: Names of everything that the valid rows send.
    sent: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Campaign:
    """What matters of the campaign."""

    name: str
    status: str
    variables: Variables
    #: Seconds that lemlist took to answer.
    latency: float


def look_at_campaign(hook: LemlistHook, campaign_id: str) -> Campaign:
    """
    Read the campaign and its texts.

    :raises LemlistNotFoundError: It does not exist for this key.
    """
    # The connection is opened by the first request, so the second tells how long an answer takes.
    campaign = hook.get_campaign(campaign_id)
    asked = time.monotonic()
    sequences = hook.get_sequences(campaign_id)
    return Campaign(
        name=str(campaign.get("name") or campaign_id),
        status=str(campaign.get("status") or "unknown"),
        variables=variables_of(texts_of(sequences)),
        latency=time.monotonic() - asked,
    )


def look_through(
    rows: Iterable[Row], mapping: ColumnMapping, worklist: Worklist, variables: Collection[str] = ()
) -> Findings:
    """
    Map and check every row, and put it on the worklist.

    :param variables: The variables of which is counted how many rows leave them blank.
    """
    found = Findings()
    for number, row in enumerate(rows, 1):
        found.rows = number
        if isinstance(row, Broken):
            reasons = [row.reason]
        else:
            lead, problems = mapping.lead(row)
            reasons = [str(problem) for problem in problems]
        if reasons:
            found.invalid += 1
            for reason in reasons:
                kind = (
                    reason if reason in found.problems or len(found.problems) < _KINDS else "other problems"
                )
                found.problems.setdefault(kind, Finding()).add(number)
            worklist.refuse(number, None, "invalid", "; ".join(reasons))
            continue
        key, first = worklist.add(number, lead)
        if first is not None:
            found.duplicates.add(number)
            worklist.refuse(number, key, "duplicate", f"the same person as row {first}")
            continue
        found.valid += 1
        found.sent.update(lead.keys())
        for name in variables:
            if not lead.get(name):
                found.blank.setdefault(name, Finding()).add(number)
    for number in worklist.refuse_namesakes():
        found.valid -= 1
        found.duplicates.add(number)
    mapping.check_columns()
    if found.valid and not any(found.sent[name] for name in LEAD_FIELDS):
        raise LemlistValidationError(
            "No column gives a field of lemlist, such as email or linkedinUrl; nothing was sent. Name the "
            f"columns in column_map; the source has {_names(sorted(mapping.columns, key=str))}."
        )
    return found


def check_variables(
    variables: Variables, offered: Collection[str], *, enriched: bool, if_missing: IfMissing
) -> None:
    """
    Make sure that the texts of the campaign get a value for every variable that stands bare in them.

    :param offered: Fields and variables that the source brings.
    :param enriched: Whether lemlist looks up fields of its own.
    :param if_missing: Whether a variable that no column gives is an error.
    :raises LemlistValidationError: Some are missing.
    """
    missing = sorted(variables.needed - set(offered))
    unsure = sorted(variables.optional - set(offered))
    if unsure:
        log.info(
            "No column gives %s; the texts have a default, or ask for it in a condition.", _names(unsure)
        )
    if enriched:
        hoped = [name for name in missing if name in LEAD_FIELDS]
        missing = [name for name in missing if name not in LEAD_FIELDS]
        if hoped:
            log.warning(
                "No column gives %s, which the texts use: left to lemlist's enrichment.", _names(hoped)
            )
    if not missing:
        return
    known = tuple(sorted(offered)) or ("",)
    told = ", ".join(f"{name!r}{hint(name, known)}" for name in missing)
    message = f"The texts of the campaign use variables that no column gives: {told}."
    if if_missing == "warn":
        log.warning("%s They stay empty unless lemlist knows them otherwise.", message)
        return
    raise LemlistValidationError(
        f"{message} Nothing was sent. Add the column, name it in column_map, give it a value in defaults, or "
        'set if_variable_missing="warn".'
    )


def tell(found: Findings, mapping: ColumnMapping) -> None:
    """Log what the look through the rows found."""
    log.info(
        "%s: %s valid, %s invalid, %s twice in the source.",
        _rows(found.rows),
        f"{found.valid:,}",
        f"{found.invalid:,}",
        f"{found.duplicates.rows:,}",
    )
    for reason, finding in sorted(found.problems.items(), key=lambda item: -item[1].rows):
        log.warning("Invalid: %s: %s.", finding, reason)
    if found.duplicates.rows:
        log.warning("The same person as another row: %s. Only one is sent.", found.duplicates)
    if custom := sorted(name for name in found.sent if name not in LEAD_FIELDS):
        log.info("Sent as custom variables: %s.", _names(custom))
    if mapping.left_out:
        log.info("Columns left out, because they are not in variables: %s.", _names(sorted(mapping.left_out)))
    for name, finding in sorted(found.blank.items()):
        log.warning("The texts of the campaign use %r, which is blank in %s.", name, finding)
    if nameless := found.valid - found.sent["email"]:
        log.warning(
            "%s without an email: lemlist sees no duplicate among such leads. The ledger alone keeps them "
            "from being sent twice; a row that is cut off on its way is left to you as uncertain.",
            _rows(nameless),
        )


def tell_duration(rows: int, rate: float, limit: timedelta | None) -> None:
    """Log how long it will take at the present limit, with a warning where the task has less time."""
    seconds = rows / rate
    log.info("%s to send, at least %s at the present limit.", _rows(rows), duration(seconds))
    if limit is not None and seconds > limit.total_seconds():
        log.warning(
            "That is longer than the execution_timeout of the task, %s. What is sent by then is kept in the "
            "ledger, and the next attempt goes on from there.",
            duration(limit.total_seconds()),
        )


def present_rate(hook: LemlistHook) -> float:
    """Return how many requests the budget of the key lets go each second."""
    state = hook.budget.state()
    return max(state["capacity"] / state["period"], 0.1)


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def _names(names: Collection[str]) -> str:
    shown = [repr(name) for name in names][:20]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")
