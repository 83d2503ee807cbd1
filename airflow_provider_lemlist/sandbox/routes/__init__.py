# SPDX-License-Identifier: Apache-2.0
"""
The routes of the API.

Each handler takes a ``Call`` and returns a JSON value or a ``Response``, or raises an ``ApiError``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.model import World
from airflow_provider_lemlist.sandbox.undocumented import Undocumented


@dataclass
class Response:
    """An HTTP response."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Response:
        """Return a JSON response."""
        return cls(status, json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    @classmethod
    def text(cls, text: str, status: int = 200, content_type: str = "text/plain") -> Response:
        return cls(status, text.encode(), f"{content_type}; charset=utf-8")


@dataclass
class UploadedFile:
    """The file of a multipart body."""

    file_name: str
    content_type: str
    content: bytes


@dataclass
class Call:
    """One request, as a handler receives it."""

    world: World
    undocumented: Undocumented
    origin: str
    params: dict[str, str]
    query: dict[str, str]
    content_type: str
    body: bytes
    #: The part named ``file`` of a multipart body.
    file: UploadedFile | None = None
    #: Violations of a request that is not refused, as (rule, what).
    violations: list[tuple[str, str]] = field(default_factory=list)
    #: Whether the request must have no effect and be answered as if it had one: an injected fault.
    ignored: bool = False

    def json(self) -> dict[str, Any]:
        return checks.json_object(self.content_type, self.body)

    def update(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the body of an update, without its unknown fields if these are ignored.

        :param wanted: What each field accepts, as in ``checks.setting``.
        """
        body = self.json()
        if self.undocumented.unknown_fields == "ignored":
            body, unknown = checks.split_unknown(body, wanted)
            self.violations += [("body", f"unknown field {name} is ignored") for name in unknown]
        return body

    def page(self, maximum: int = 100) -> slice:
        """Return the page that ``offset`` and ``limit`` select."""
        limit = checks.number(self.query, "limit", 100, minimum=1)
        if limit > maximum:
            self.violations.append(("query", f"limit is {limit}, the maximum is {maximum}"))
        offset = checks.number(self.query, "offset", 0)
        return slice(offset, offset + min(limit, maximum))


Handler = Callable[[Call], Any]


class Route(NamedTuple):
    """One documented operation; ``query`` holds the names of its parameters, None allows any."""

    method: str
    template: str
    handler: Handler
    query: frozenset[str] | None
    ignored: frozenset[str] = frozenset()

    @property
    def segments(self) -> list[str]:
        return self.template.split("/")


ROUTES: list[Route] = []


def route(
    operation: str, query: Iterable[str] | None = (), ignored: Iterable[str] = ()
) -> Callable[[Handler], Handler]:
    """
    Register a handler.

    :param operation: Method and path as documented, including a slash at the end.
    :param query: Names of its query parameters; None for any.
    :param ignored: Names of its documented query parameters that the sandbox does not implement.
    """
    method, template = operation.split(" ")
    names = None if query is None else frozenset({*query, *ignored})

    def register(handler: Handler) -> Handler:
        ROUTES.append(Route(method, template, handler, names, frozenset(ignored)))
        return handler

    return register


class Match(NamedTuple):
    """The route that a path matches (None if the method is wrong) and the values of its parameters."""

    template: str
    route: Route | None
    params: dict[str, str]


class Table:
    """The routes by number of segments; a fixed segment has priority over a parameter."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_length: dict[int, list[Route]] = {}
        for each in sorted(routes, key=lambda each: each.template.count("{")):
            self._by_length.setdefault(len(each.segments), []).append(each)

    def find(self, method: str, raw_path: str) -> Match | None:
        """
        Find the operation of a request.

        :param raw_path: The path without ``/api``, not decoded because an encoded slash belongs to a value.
        """
        segments = [unquote(segment) for segment in raw_path.split("/")]
        other_method: Match | None = None
        for each in self._by_length.get(len(segments), ()):
            params: dict[str, str] = {}
            for wanted, given in zip(each.segments, segments, strict=True):
                if wanted.startswith("{") and given:
                    params[wanted[1:-1]] = given
                elif wanted != given:
                    break
            else:
                if each.method == method:
                    return Match(each.template, each, params)
                other_method = other_method or Match(each.template, None, params)
        return other_method


def table() -> Table:
    """Return the table of all routes."""
    # Importing the modules registers their handlers.
    from airflow_provider_lemlist.sandbox.routes import (  # noqa: F401
        activities,
        campaigns,
        exports,
        leads,
        lists,
        schedules,
        sequences,
        team,
        unsubscribes,
    )

    return Table(ROUTES)
