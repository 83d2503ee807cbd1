# SPDX-License-Identifier: Apache-2.0
"""What ``make fleet`` runs, and what must be true of lemlist and Airflow afterwards. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

#: lemlist's limit: so many requests in so many seconds.
LIMIT, WINDOW = 20, 2.0


@dataclass(frozen=True)
class Part:
    """One DAG run: its people, its campaigns, and where its files are."""

    name: str
    load_campaign: str
    load_emails: Sequence[str]
    rows_path: str
    ledger_path: str
    lead_campaign: str
    lead_emails: Sequence[str]
    lake_path: str


@dataclass(frozen=True)
class Plan:
    """
    Everything that is run.

    :ivar reply_leads: The leads for whose replies a sensor each waits while the parts run.
    :ivar history: Number of activities between two moments, which each part reads back.
    """

    parts: Sequence[Part]
    reply_campaign: str
    reply_leads: Sequence[str]
    history: int
    history_since: str
    history_until: str


# --- How fast --------------------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """
    The requests of a part.

    :ivar seconds: Length of the loaded period, in which a row of the load always waited for its slot.
    :ivar rate: The part of the limit that was used in that period.
    """

    requests: int
    refused: int
    seconds: float
    rate: float


def traffic(part: Part, requests: Sequence[Mapping[str, Any]]) -> Traffic:
    """
    Measure the requests of a part.

    The loaded period begins one window after the first row of the load, because the burst that an idle key
    allows would look like a higher rate, and ends with the last row.

    :param requests: The lines of the sandbox's request log.
    """
    path = f"/campaigns/{part.load_campaign}/leads/"
    rows = [each["monotonic"] for each in requests if each["path"].endswith(path)]
    start, end = min(rows, default=0.0) + WINDOW, max(rows, default=0.0)
    seconds = max(0.0, end - start)
    arrived = sum(start <= each["monotonic"] < end for each in requests)
    refused = sum(each["status"] == 429 for each in requests)
    return Traffic(len(requests), refused, seconds, arrived / seconds * WINDOW / LIMIT if seconds else 0.0)


# --- What was promised -----------------------------------------------------------------------------------


class Run(NamedTuple):
    """What Airflow says about a DAG run: the states of each task, and what each map index returned."""

    state: str
    states: Mapping[str, Counter[str]]
    returned: Mapping[str, Mapping[int, Any]]


def broken_by_part(
    plan: Plan, part: Part, run: Run, lemlist: Mapping[str, Any], contacts: Counter[tuple[str, str]]
) -> Iterator[str]:
    """
    Return what was not kept in a part.

    :param lemlist: The state of the sandbox.
    :param contacts: How many emails lemlist has sent, by campaign and address.
    """
    yield from _failed(run)
    people = ((part.lead_campaign, part.lead_emails), (part.load_campaign, part.load_emails))
    for campaign, emails in people:
        leads = Counter(
            each["variables"]["email"] for each in lemlist["leads"] if each["campaignId"] == campaign
        )
        if leads != Counter(emails):
            twice, lost = sum(count > 1 for count in leads.values()), len(set(emails) - leads.keys())
            yield f"of {len(emails)} people, {twice} were created more than once and {lost} were not created"
        sent = Counter(contacts[campaign, email] for email in emails)
        if sent.keys() != {1}:
            yield f"of {len(emails)} people, so many got so many emails: {dict(sent)}"
    report = run.returned["load"].get(-1, {})
    if report.get("created") != len(part.load_emails) or report.get("not_tried"):
        yield f"the load reports {report}"
    read = run.returned["read_back"].get(-1, {}).get("rows")
    if read != plan.history:
        yield f"{read} activities were read back, not {plan.history}"
    violations = [each for each in lemlist["violations"] if each["rule"] != "rate"]
    if violations:
        yield f"lemlist's documents forbid {len(violations)} requests, such as {violations[0]}"


def broken_by_sensors(plan: Plan, run: Run) -> Iterator[str]:
    """Return what was not kept for the sensors."""
    yield from _failed(run)
    replies = run.returned["reply"]
    wrong = sum(
        [each["leadId"] for each in replies.get(index, ())] != [lead]
        for index, lead in enumerate(plan.reply_leads)
    )
    if wrong:
        yield f"{wrong} of {len(plan.reply_leads)} sensors did not return the reply of their lead"


def _failed(run: Run) -> Iterator[str]:
    if run.state != "success":
        yield f"the run is {run.state}: { ({task: dict(states) for task, states in run.states.items()}) }"
