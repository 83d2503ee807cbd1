# SPDX-License-Identifier: Apache-2.0
"""What lemlist says about a campaign before it sends, and what it lists about its leads. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from html import unescape
from typing import Any, NamedTuple

from airflow_provider_lemlist.api.judge import excerpt
from airflow_provider_lemlist.placeholders import blank_in
from airflow_provider_lemlist.validation import Finding

#: Tells whether the person of a lead, as the export of the campaign lists it, must not be contacted.
IsSuppressed = Callable[[Mapping[str, str]], bool]

#: The statuses of a campaign in which launching a lead is what one expects: it sends, or never has.
LAUNCHABLE = frozenset({"draft", "running"})
#: The status of a lead that waits to be launched, of one that lemlist contacts while the campaign runs, …
WAITING, CONTACTED = "review", "running"
#: … of those that may wait to be launched later, and of one that never is.
PAUSED, ENRICHING, UNSUBSCRIBED = "paused", "scanning", "unsubscribed"

_MAX_MESSAGE = 5_000
_SILENT = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"""</?([a-z][\w:-]*+)(?:[^<>"']|"[^"]*"|'[^']*')*+>""", re.IGNORECASE)
#: Elements that do not separate the words around them.
_INLINE = frozenset(
    ("a", "abbr", "b", "code", "em", "font", "i", "mark", "s", "small", "span", "strong", "u")
)


class Statutes(NamedTuple):
    """What lemlist says about the readiness of a campaign, as plain text."""

    blocking: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    information: tuple[str, ...] = ()


def read_statutes(rows: Iterable[Any]) -> Statutes:
    """Sort lemlist's statutes by level; what is not known to be harmless blocks."""
    found: dict[str, list[str]] = {name: [] for name in Statutes._fields}
    for row in rows:
        statute: Mapping[str, Any] = row if isinstance(row, Mapping) else {"message": row}
        level = statute.get("level")
        name = "information" if level == 1 else "warnings" if level == 2 else "blocking"
        message = statute.get("message") or statute.get("category")
        text = plain_text(message) if isinstance(message, str) else ""
        found[name].append(text or "lemlist does not say why")
    return Statutes(**{name: tuple(dict.fromkeys(texts)) for name, texts in found.items()})


def plain_text(html: str) -> str:
    """Return the text of some HTML as one line, shortened, and without email addresses."""
    return excerpt(unescape(_TAG.sub(_space, _SILENT.sub(" ", html[:_MAX_MESSAGE]))), ())


def statuses_of(campaign: Mapping[str, Any]) -> frozenset[str]:
    """Return the statuses of a campaign, which may have several at once."""
    status = campaign.get("status")
    texts = [status] if isinstance(status, str) else status if isinstance(status, list) else []
    if campaign.get("archived"):  # of the first version of the API
        texts = [*texts, "archived"]
    return frozenset(re.findall(r"\w+", " ".join(map(str, texts))))


def senders_of(campaign: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of the senders of a campaign."""
    senders = campaign.get("senders")
    rows = [row for row in senders if isinstance(row, Mapping)] if isinstance(senders, list) else []
    return tuple(str(row["id"]) for row in rows if row.get("id"))


class LeadState(NamedTuple):
    """What the checks have to know of one lead; nothing of it is personal."""

    lead_id: str
    status: str
    #: Variables that the texts need and for which the lead has no value.
    blank: tuple[str, ...] = ()
    is_suppressed: bool = False


def lead_state(row: Mapping[str, str], needed: Collection[str], is_suppressed: IsSuppressed) -> LeadState:
    """Return the state of a lead, given its line of the campaign's export with variables."""
    status = row.get("status", "")
    return LeadState(
        row["_id"],
        status,
        tuple(blank_in(row, needed)) if status in (WAITING, CONTACTED) else (),
        status == WAITING and is_suppressed(row),
    )


def count_statuses(leads: Iterable[LeadState]) -> dict[str, int]:
    """Count the leads of each status, the most frequent first."""
    return dict(Counter(lead.status or "unknown" for lead in leads).most_common())


def blank_variables(leads: Iterable[LeadState]) -> dict[str, Finding]:
    """Return the variables that are blank in some of these leads, and in which."""
    found: dict[str, Finding] = {}
    for lead in leads:
        for name in lead.blank:
            found.setdefault(name, Finding("lead")).add(lead.lead_id)
    return found


def _space(tag: re.Match[str]) -> str:
    return "" if tag[1].lower() in _INLINE else " "
