# SPDX-License-Identifier: Apache-2.0
"""
Injected faults: what goes wrong, on which requests and how often. Seeded, so that a run can be repeated.

A fault applies ``before`` the effect (nothing has happened) or ``after`` it (the request took effect and its
response is lost; a client that sends it again creates a duplicate).
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

#: The kinds: the default of ``when``, then the details that the kind uses.
KINDS: dict[str, tuple[str, ...]] = {
    "rate_limited": ("before", "text", "seconds"),
    "status": ("before", "status", "text"),
    "reset": ("after",),
    "slow": ("after", "seconds"),
    "hang": ("after",),
    "cut_body": ("after",),
    "html": ("before", "status", "text"),
    "empty": ("after", "status"),
    "missing_id": ("after",),
    "duplicate": ("before", "status", "where"),
    "cdn": ("before",),
    "redirect": ("before", "status", "location"),
    "ignored": ("before",),
    "truncated": ("after", "rows"),
    "wrapped": ("before",),
    "unbounded": ("before",),
}
DETAILS = ("status", "text", "seconds", "where", "location", "rows")
#: The kinds that change a request or its response, for which the other ``when`` has no meaning.
FIXED = ("missing_id", "ignored", "truncated", "wrapped", "unbounded")
#: The parameters of a listing that a kind hides from the handler.
HIDDEN: dict[str | None, frozenset[str]] = {
    "wrapped": frozenset({"offset", "page"}),
    "unbounded": frozenset({"minDate", "maxDate", "startDate", "endDate"}),
}
#: The only route whose handler can ignore a change.
_UPDATE_LEAD = re.compile(r"PATCH /campaigns/[^/]+/leads/[^/]+", re.IGNORECASE)


@dataclass
class Fault:
    """
    One injected fault. A detail that its kind does not use is refused.

    :param route: Method and path, as documented (``POST /campaigns/{campaignId}/leads/``) or with wildcards
        (``* /leads/*``), the path without ``/api``; ``*`` is every request.
    :param kind: One of ``KINDS``.
    :param times: Number of requests that it applies to; None with a ``probability`` is unlimited.
    :param probability: Probability that it applies to a request.
    :param skip: Number of matching requests that pass first.
    :param when: ``before`` or ``after`` the effect.
    :param status: Status of the response, for ``status``, ``html``, ``empty``, ``duplicate``, ``redirect``.
    :param text: Body of the response, for ``status``, ``html`` and ``rate_limited``.
    :param seconds: Delay of ``slow``, and ``Retry-After`` of ``rate_limited``.
    :param where: Which duplicate: ``campaign`` or ``elsewhere``.
    :param location: Target of ``redirect``.
    :param rows: Number of rows that ``truncated`` keeps; None keeps the first half.
    """

    route: str
    kind: str
    times: int | None = None
    probability: float | None = None
    skip: int = 0
    when: str = ""
    status: int | None = None
    text: str = ""
    seconds: float | None = None
    where: str = ""
    location: str = ""
    rows: int | None = None
    #: Number of requests that it was applied to.
    applied: int = 0

    def __post_init__(self) -> None:
        for name in ("route", "kind", "when", "text", "where", "location"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        for name in ("times", "skip", "status", "probability", "seconds", "rows"):
            number = getattr(self, name)
            wanted = (int, float) if name in ("probability", "seconds") else int
            if number is not None and (
                isinstance(number, bool) or not isinstance(number, wanted) or number < 0
            ):
                raise ValueError(f"{name} must be a number of 0 or more, not {number!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        default_when, *used = KINDS[self.kind]
        if unused := [name for name in DETAILS if getattr(self, name) not in (None, "") and name not in used]:
            raise ValueError(f"a fault of kind {self.kind} does not use {', '.join(unused)}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be 200 to 599, not {self.status!r}")
        if not (self.location.isascii() and self.location.isprintable()):
            raise ValueError(f"location must be a URL, not {self.location!r}")
        method, _, path = self.route.rpartition(" ")
        if not path.startswith(("/", "*")) or path.startswith("/api/") or " " in method:
            raise ValueError(f"route must be like 'GET /team', '/leads/*' or '*', not {self.route!r}")
        self.when = self.when or default_when
        if self.when not in ("before", "after"):
            raise ValueError(f"when must be 'before' or 'after', not {self.when!r}")
        if self.kind in FIXED and self.when != default_when:
            changed = "request" if default_when == "before" else "response"
            raise ValueError(
                f"a fault of kind {self.kind} changes the {changed}: when must be {default_when!r}"
            )
        if self.kind == "ignored" and not _UPDATE_LEAD.fullmatch(self.route):
            raise ValueError(
                f"a fault of kind ignored needs 'PATCH /campaigns/*/leads/*', not {self.route!r}"
            )
        if self.where not in ("", "campaign", "elsewhere"):
            raise ValueError(f"where must be 'campaign' or 'elsewhere', not {self.where!r}")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be 0 to 1, not {self.probability!r}")
        if self.times is None and self.probability is None:
            self.times = 1

    @classmethod
    def from_json(cls, body: Any) -> Fault:
        """Return the fault that the body of ``POST /_sandbox/faults`` describes."""
        names = {field.name for field in fields(cls)} - {"applied"}
        if not isinstance(body, Mapping) or not {"route", "kind"} <= body.keys() <= names:
            raise ValueError(f"a fault is an object with route, kind and any of {', '.join(sorted(names))}")
        return cls(**body)

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @property
    def exhausted(self) -> bool:
        """Whether it applies to no further request."""
        return self.times is not None and self.applied >= self.times

    @property
    def from_gateway(self) -> bool:
        """Whether its response comes from a gateway in front of the API, without the API's headers."""
        return self.kind == "cdn" or (self.kind == "html" and self.status not in (None, 200))


def matches(route: str, method: str, template: str | None, path: str) -> bool:
    """
    Return whether the route of a fault matches a request.

    :param route: As in ``Fault``.
    :param template: The documented path that the request matches, if any.
    :param path: The path of the request.
    """
    wanted, _, pattern = route.rpartition(" ")
    if wanted.upper() not in ("", "*", method):
        return False
    return pattern == "*" or _plain(pattern) == _plain(template or "") or fnmatchcase(path, pattern)


def _plain(template: str) -> str:
    """Return a documented path without the names in its braces, which may differ from ours."""
    return re.sub(r"\{\w*\}", "{}", template)


def refuse_unknown_route(route: str, operations: Collection[str]) -> None:
    """
    Raise ValueError if no request to one of the operations can match a route.

    :param route: As in ``Fault``.
    :param operations: The method and the documented path of each.
    """
    wanted, _, pattern = route.rpartition(" ")
    nearest = []
    for operation in operations:
        method, _, template = operation.partition(" ")
        if _can_match(pattern, template):
            if wanted.upper() in ("", "*", method):
                return
            nearest.append(operation)
    by_text = {_plain(each): each for each in operations}
    nearest += [by_text[each] for each in get_close_matches(_plain(route), by_text, n=3, cutoff=0)]
    raise ValueError(
        f"route {route!r} matches no route of the sandbox; the nearest are: "
        + ", ".join(list(dict.fromkeys(nearest))[:3])
    )


def _can_match(pattern: str, template: str) -> bool:
    """Return whether a path or pattern, as in ``Fault``, matches some path of a documented template."""
    if "{" in pattern:
        return _plain(pattern) == _plain(template)
    pattern = re.sub(r"\[[^]]+\]", "?", pattern)
    # A parameter is one character that is no slash, and any number of further ones.
    one, more = "\0", "\1"
    path = re.sub(r"\{\w*\}", one + more, template)
    # A segment of letters is a word of a documented path; a value has other characters, or is a wildcard.
    words = {at for word in re.finditer("(?<=/)[A-Za-z]+(?=/|$)", pattern) for at in range(*word.span())}

    @cache
    def meet(i: int, j: int) -> bool:
        """Return whether the rest of the pattern matches some text of the rest of the path."""
        if i == len(pattern):
            return path[j:] in ("", more)
        if path[j : j + 1] == more and meet(i, j + 1):
            return True
        if pattern[i] == "*":
            return meet(i + 1, j) or (j < len(path) and meet(i, j + 1))
        if j == len(path):
            return False
        is_value = path[j] in (one, more) and pattern[i] != "/" and i not in words
        fits = is_value or pattern[i] in ("?", path[j])
        return fits and meet(i + 1, j if path[j] == more else j + 1)

    return meet(0, 0)


class Script:
    """The faults in the order in which they were added; the first match applies."""

    def __init__(self, seed: int) -> None:
        self.faults: list[Fault] = []
        self.random = random.Random(f"faults {seed}")

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)

    def add(self, fault: Fault) -> None:
        self.faults.append(fault)

    def clear(self) -> None:
        self.faults.clear()

    def select(self, method: str, template: str | None, path: str) -> Fault | None:
        """Return the fault that applies to this request, and count it."""
        for fault in self.faults:
            if fault.exhausted or not matches(fault.route, method, template, path):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.probability is None or self.random.random() < fault.probability:
                fault.applied += 1
                return fault
        return None
