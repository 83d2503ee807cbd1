# SPDX-License-Identifier: Apache-2.0
"""What a part of ``make fleet`` does, and what must be true of lemlist afterwards. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

#: lemlist's limit: so many requests in so many seconds.
LIMIT, WINDOW = 20, 2.0
#: The part of the limit that must be used while the load has rows to send.
LEAST_RATE = 0.95
#: Where the sandbox creates a lead.
CREATE_LEAD = "/campaigns/{campaignId}/leads/"


@dataclass(frozen=True)
class Part:
    """
    One DAG run: its people, its campaigns, and where its files are.

    :ivar history: Number of activities between the two moments, which are read back.
    """

    name: str
    load_campaign: str
    load_emails: Sequence[str]
    rows_path: str
    ledger_path: str
    lead_campaign: str
    lead_emails: Sequence[str]
    reply_campaign: str
    reply_leads: Sequence[str]
    history: int
    history_since: str
    history_until: str
    lake_path: str


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
    """
    path = CREATE_LEAD.replace("{campaignId}", part.load_campaign)
    rows = [each["monotonic"] for each in requests if each["path"].endswith(path)]
    start, end = min(rows) + WINDOW, max(rows)
    arrived = sum(start <= each["monotonic"] < end for each in requests)
    refused = sum(each["status"] == 429 for each in requests)
    return Traffic(len(requests), refused, end - start, arrived / (end - start) * WINDOW / LIMIT)


class Results(NamedTuple):
    """What Airflow says about the run of a part: the state of each task instance, and what they returned."""

    state: str
    states: Mapping[str, Counter[str]]
    load: Mapping[str, Any]
    read_back: Mapping[str, Any]
    replies: Mapping[int, Sequence[Mapping[str, Any]]]


def broken(part: Part, results: Results, lemlist: Mapping[str, Any], contacts: Counter[Any]) -> Iterator[str]:
    """
    Return the promises that were not kept in a part.

    :param lemlist: The state of the sandbox.
    :param contacts: How many emails each address got, by campaign and address.
    """
    if results.state != "success":
        yield f"the run is {results.state}, with {dict(results.states)}"
    for what, campaign, emails in (
        ("lead task", part.lead_campaign, part.lead_emails),
        ("row", part.load_campaign, part.load_emails),
    ):
        leads = Counter(
            each["variables"]["email"] for each in lemlist["leads"] if each["campaignId"] == campaign
        )
        twice, lost = sum(count > 1 for count in leads.values()), len(set(emails) - leads.keys())
        if twice:
            yield f"{twice} people of a {what} were created more than once"
        if lost:
            yield f"{lost} people of a {what} were not created"
        sent = Counter({email: contacts[campaign, email] for email in emails})
        if any(count != 1 for count in sent.values()):
            yield f"emails that a person of a {what} got: {dict(Counter(sent.values()))}, not 1 each"
    if results.load.get("created") != len(part.load_emails) or results.load.get("not_tried"):
        yield f"the load reports {dict(results.load)}"
    if results.read_back.get("rows") != part.history:
        yield f"{results.read_back.get('rows')} activities were read back, not {part.history}"
    wrong = [
        index
        for index, lead in enumerate(part.reply_leads)
        if [each["leadId"] for each in results.replies.get(index, ())] != [lead]
    ]
    if wrong:
        yield f"{len(wrong)} sensors did not return the reply of their lead"
    violations = [each for each in lemlist["violations"] if each["rule"] != "rate"]
    if violations:
        yield f"lemlist's documents forbid {len(violations)} requests, such as {violations[0]}"
