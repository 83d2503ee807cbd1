# SPDX-License-Identifier: Apache-2.0
"""
Everything that is checked before the first lead is sent.

Whether the campaign exists, which rows are invalid and why, who is in the source twice, whether every
variable of the campaign gets a value, and how long the load will take. Rows are named by number only.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.delivery.evidence import AUTO_REVIEW, SENDS_AT_ONCE, auto_review
from airflow_provider_lemlist.delivery.identity import identifies
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.leads import LEAD_FIELDS
from airflow_provider_lemlist.load.report import duration
from airflow_provider_lemlist.placeholders import Variables, blank_in, texts_of, variables_of
from airflow_provider_lemlist.sources import MalformedRow, Row
from airflow_provider_lemlist.validation import Finding, hint, plural

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.ledger.people import People
    from airflow_provider_lemlist.load.mapping import ColumnMapping
    from airflow_provider_lemlist.load.options import LoadOptions
    from airflow_provider_lemlist.load.worklist import Worklist

log = logging.getLogger(__name__)

#: The most different problems that are counted separately.
_MAX_PROBLEMS = 200


@dataclass
class Findings:
    """The result of checking all rows."""

    rows: int = 0
    valid: int = 0
    problems: dict[str, Finding] = field(default_factory=lambda: defaultdict(Finding))
    duplicates: Finding = field(default_factory=Finding)
    #: Valid rows that must not be sent, by what they are suppressed.
    suppressed: dict[str, Finding] = field(default_factory=lambda: defaultdict(Finding))
    #: Variables of the campaign that are blank in some valid rows.
    blank: dict[str, Finding] = field(default_factory=lambda: defaultdict(Finding))
    #: Valid rows of which nothing tells whether the lead is in the campaign.
    unidentified: Finding = field(default_factory=Finding)
    #: How many valid rows have a value for each field and variable.
    sent: Counter[str] = field(default_factory=Counter)


def read_campaign(hook: LemlistHook, campaign_id: str) -> tuple[Variables, float]:
    """
    Return the variables in the campaign's texts, and the seconds that lemlist took to respond.

    :raises LemlistNotFoundError: It does not exist for this key.
    """
    sequences, latency = read_sequences(hook, campaign_id)
    return variables_of(texts_of(sequences)), latency


def read_sequences(hook: LemlistHook, campaign_id: str) -> tuple[dict[str, Any], float]:
    """
    Return the sequences of the campaign, and the seconds that lemlist took to respond.

    :raises LemlistNotFoundError: It does not exist for this key.
    """
    # The first request also opens the connection, so the latency is measured on the second.
    campaign = hook.get_campaign(campaign_id)
    began = time.monotonic()
    sequences = hook.get_sequences(campaign_id)
    latency = time.monotonic() - began
    known = campaign.get("name"), campaign.get("status") or "unknown", AUTO_REVIEW[auto_review(campaign)]
    log.info("Campaign %s: %r, %s, %s.", campaign_id, *known)
    if auto_review(campaign):
        log.warning("Campaign %s: %s", campaign_id, SENDS_AT_ONCE)
    return sequences, latency


def check_rows(
    rows: Iterable[Row],
    mapping: ColumnMapping,
    worklist: Worklist,
    variables: Collection[str] = (),
    suppressed_by: Callable[[Mapping[str, str]], str] = lambda lead: "",
) -> Findings:
    """Map and check every row, add it to the worklist, and count blank values of the variables."""
    found = Findings()
    for number, row in enumerate(rows, 1):
        found.rows = number
        lead: dict[str, str] = {}
        key: str | None = None
        if isinstance(row, MalformedRow):
            reasons = [row.reason]
        else:
            lead, key, problems = mapping.lead(row)
            reasons = [str(problem) for problem in problems]
        if reasons:
            for reason in reasons:
                known = reason in found.problems or len(found.problems) < _MAX_PROBLEMS
                found.problems[reason if known else "other problems"].add(number)
            worklist.add_invalid(number, lead, key, "; ".join(reasons))
            continue
        found.valid += 1
        reason = suppressed_by(lead)
        for duplicate in worklist.add(number, lead, key, reason):
            found.valid -= 1
            found.duplicates.add(duplicate)
        if reason:
            found.suppressed[reason].add(number)
            continue
        found.sent.update(lead.keys())
        if not identifies(lead):
            found.unidentified.add(number)
        for name in blank_in(lead, variables):
            found.blank[name].add(number)
    mapping.check_columns()
    if mapping.columns and mapping.offered.isdisjoint(LEAD_FIELDS):
        raise LemlistValidationError(
            "No column maps to a field of lemlist, such as email or linkedinUrl; nothing was sent. Map the "
            f"columns with column_map; the source has {_names(sorted(mapping.columns, key=str))}."
        )
    return found


def check_variables(variables: Variables, options: LoadOptions) -> None:
    """
    Make sure that every variable without a default in the campaign's texts gets a value.

    :raises LemlistValidationError: Variables are missing.
    """
    offered = options.mapping.offered
    missing = sorted(variables.needed - offered)
    optional = sorted(variables.optional - offered)
    # An enrichment may provide lemlist's own fields.
    enriched = any(value for name, value in options.flags.items() if name != "deduplicate")
    if optional:
        log.info("No column provides %s; the texts have a default or a condition for it.", _names(optional))
    if enriched and (enrichable := [name for name in missing if name in LEAD_FIELDS]):
        missing = [name for name in missing if name not in LEAD_FIELDS]
        log.warning("No column provides %s, used in the texts: left to enrichment.", _names(enrichable))
    if not missing:
        return
    known = tuple(sorted(offered)) or ("",)
    names = ", ".join(f"{name!r}{hint(name, known)}" for name in missing)
    message = f"The texts of the campaign use variables that no column provides: {names}."
    if options.if_variable_missing == "warn":
        log.warning("%s They are empty unless lemlist already has a value.", message)
        return
    raise LemlistValidationError(
        f"{message} Nothing was sent. Add the column, name it in column_map, set a value in defaults, or "
        'set if_variable_missing="warn".'
    )


def log_findings(found: Findings, options: LoadOptions, people: People) -> None:
    """Log the result of checking the rows."""
    twice = found.duplicates.number
    counts = f"{found.valid:,} valid, {found.rows - found.valid - twice:,} invalid, {twice:,} twice"
    log.info("%s: %s in the source.", plural(found.rows, "row"), counts)
    log_problems(found.problems)
    if twice:
        log.warning("The same person as another row: %s. Only one is sent.", found.duplicates)
    for reason, finding in sorted(found.suppressed.items()):
        log.info("Suppressed, because %s: %s.", reason, finding)
    if custom := sorted(name for name in found.sent if name not in LEAD_FIELDS):
        log.info("Sent as custom variables: %s.", _names(custom))
    if left_out := options.mapping.left_out:
        log.info("Columns left out because they are not in variables: %s.", _names(sorted(left_out)))
    for name, finding in sorted(found.blank.items()):
        log.warning("The texts of the campaign use %r, which is blank in %s.", name, finding)
    if (hidden := sorted(set(found.sent) - people.shown)) and options.if_exists == "update":
        log.warning(
            "The export of the campaign does not show %s: changes are found by what the ledger says was sent "
            "last.",
            _names(hidden),
        )
    if found.unidentified.number:
        log.warning(
            "Without email, LinkedIn profile and phone: %s. If a response is lost, it is not known "
            "whether the lead is in the campaign, and the row stays uncertain.",
            found.unidentified,
        )


def log_problems(problems: Mapping[str, Finding]) -> None:
    """Log why rows are invalid, the most frequent reason first."""
    for reason, finding in sorted(problems.items(), key=lambda item: -item[1].number):
        log.warning("Invalid: %s: %s.", finding, reason)


def check_departures(
    options: LoadOptions, rows: int, known: int, departing: int
) -> LemlistValidationError | None:
    """
    Return an error if so many people left the source that it is more likely broken.

    :param rows: Rows of the source.
    :param known: People in the campaign who were in the source before.
    :param departing: Those of them who are not in it now.
    """
    if options.if_missing == "keep" or not known or (rows and departing <= options.max_missing * known):
        return None
    why = (
        f"{departing:,} of {known:,} people are no longer in it, and max_missing is {options.max_missing:g}"
        if rows
        else "it is empty"
    )
    return LemlistValidationError(
        f"The source seems to be incomplete: {why}. Nothing was done to the missing people. Check the "
        "source, or raise max_missing for one run."
    )


def log_estimate(campaign_id: str, rows: int, rate: float, limit: timedelta | None) -> None:
    """Log how long the load will take at least, with a warning if the task has less time."""
    seconds = rows / rate
    log.info("Campaign %s: %s to send, at least %s.", campaign_id, plural(rows, "row"), duration(seconds))
    if limit is not None and seconds > limit.total_seconds():
        log.warning(
            "That is longer than the execution_timeout, %s. The next attempt continues from the ledger.",
            duration(limit.total_seconds()),
        )


def _names(names: Collection[str]) -> str:
    listed = [repr(name) for name in names][:20]
    return ", ".join(listed) + (", …" if len(names) > len(listed) else "")
