# SPDX-License-Identifier: Apache-2.0
"""
Faults by script: what goes wrong, on which requests, how often. Seeded, so that a run can be repeated.

A fault says when it strikes. ``before``: the request is lost and nothing has happened. ``after``: it took
effect and the answer is lost, which is the case that makes people send things twice.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

#: The kinds, and when each strikes unless the script says otherwise.
KINDS: dict[str, str] = {
    "rate_limited": "before",
    "status": "before",
    "reset": "after",
    "slow": "after",
    "hang": "after",
    "cut_body": "after",
    "html": "before",
    "empty": "after",
    "missing_id": "after",
    "duplicate": "before",
    "cdn": "before",
    "redirect": "before",
}


@dataclass
class Fault:
    """
    One line of the script.

    :param route: Method and path, as documented (``POST /campaigns/{campaignId}/leads/``) or with wildcards
        (``* /leads/*``), the path without ``/api``; ``*`` is every request.
    :param kind: One of :data:`KINDS`.
    :param times: Requests that it strikes; None with a ``probability`` is no end.
    :param probability: Chance of striking each request.
    :param skip: Requests of the route that it lets pass first.
    :param when: ``before`` or ``after`` the effect.
    :param status: Status of the answer, for ``status``, ``duplicate`` and ``redirect``.
    :param text: Body of the answer, for ``status`` and ``rate_limited``.
    :param seconds: Delay of ``slow``, and ``Retry-After`` of ``rate_limited``.
    :param where: Which duplicate: ``campaign`` or ``elsewhere``.
    :param location: Where ``redirect`` points.
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
    where: str = "campaign"
    location: str = ""
    #: Requests that it struck so far.
    struck: int = 0

    def __post_init__(self) -> None:
        for name in ("route", "kind", "when", "text", "where", "location"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, not {getattr(self, name)!r}")
        for name in ("times", "skip", "status", "probability", "seconds"):
            number = getattr(self, name)
            wanted = (int, float) if name in ("probability", "seconds") else int
            if number is not None and (
                isinstance(number, bool) or not isinstance(number, wanted) or number < 0
            ):
                raise ValueError(f"{name} must be a number of 0 or more, not {number!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be 200 to 599, not {self.status!r}")
        if not (self.location.isascii() and self.location.isprintable()):
            raise ValueError(f"location must be an address, not {self.location!r}")
        method, _, path = self.route.rpartition(" ")
        if not path.startswith(("/", "*")) or path.startswith("/api/") or " " in method:
            raise ValueError(f"route must be like 'GET /team', '/leads/*' or '*', not {self.route!r}")
        self.when = self.when or KINDS[self.kind]
        if self.when not in ("before", "after"):
            raise ValueError(f"when must be 'before' or 'after', not {self.when!r}")
        if self.where not in ("campaign", "elsewhere"):
            raise ValueError(f"where must be 'campaign' or 'elsewhere', not {self.where!r}")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be 0 to 1, not {self.probability!r}")
        if self.times is None and self.probability is None:
            self.times = 1

    @classmethod
    def from_json(cls, line: Any) -> Fault:
        """Read a fault from the body of ``POST /_sandbox/faults``."""
        names = {field.name for field in fields(cls)} - {"struck"}
        if not isinstance(line, Mapping) or not {"route", "kind"} <= line.keys() <= names:
            raise ValueError(f"a fault is an object with route, kind and any of {', '.join(sorted(names))}")
        return cls(**line)

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @property
    def spent(self) -> bool:
        """Whether it strikes no more."""
        return self.times is not None and self.struck >= self.times


def matches(route: str, method: str, template: str | None, path: str) -> bool:
    """
    Say whether a script's route means this request.

    :param route: As in :class:`Fault`.
    :param template: The documented path that the request fits, if any.
    :param path: The path that was asked for.
    """
    wanted, _, pattern = route.rpartition(" ")
    if wanted.upper() not in ("", "*", method):
        return False
    # The name in the braces is the writer's own affair.
    plain = re.sub(r"\{\w*\}", "{}", pattern)
    return pattern == "*" or plain == re.sub(r"\{\w*\}", "{}", template or "") or fnmatchcase(path, pattern)


class Script:
    """The faults in the order in which they were written; the first that strikes a request has it."""

    def __init__(self, seed: int) -> None:
        self.faults: list[Fault] = []
        self.random = random.Random(f"faults {seed}")

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.faults)

    def add(self, fault: Fault) -> None:
        self.faults.append(fault)

    def clear(self) -> None:
        self.faults.clear()

    def strike(self, method: str, template: str | None, path: str) -> Fault | None:
        """Return the fault that strikes this request, and count it."""
        for fault in self.faults:
            if fault.spent or not matches(fault.route, method, template, path):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.probability is None or self.random.random() < fault.probability:
                fault.struck += 1
                return fault
        return None
