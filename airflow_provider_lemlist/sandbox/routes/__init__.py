# SPDX-License-Identifier: Apache-2.0
"""
The routes of the API: each handler reads a :class:`Call`, asks the model, and returns what is answered.

A handler returns a JSON value, or a :class:`Reply` for anything else, or raises a ``Refusal``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.manners import Manners
from airflow_provider_lemlist.sandbox.model import World


@dataclass
class Reply:
    """An answer on its way out."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Reply:
        """Make an answer of JSON."""
        return cls(status, json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    @classmethod
    def text(cls, text: str, status: int = 200, content_type: str = "text/plain") -> Reply:
        return cls(status, text.encode(), f"{content_type}; charset=utf-8")


@dataclass
class Part:
    """The file of a multipart body."""

    file_name: str
    content_type: str
    content: bytes


@dataclass
class Call:
    """One request, as a handler sees it."""

    world: World
    manners: Manners
    origin: str
    params: dict[str, str]
    query: dict[str, str]
    content_type: str
    body: bytes
    #: The part named ``file`` of a multipart body.
    file: Part | None = None
    #: What is wrong with the request though it is answered: notes for the violations, as (rule, what).
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return checks.json_object(self.content_type, self.body)

    def page(self, most: int = 100) -> slice:
        """Read ``offset`` and ``limit``."""
        limit = checks.number(self.query, "limit", 100, least=1)
        if limit > most:
            self.remarks.append(("query", f"limit is {limit}, the most is {most}"))
        offset = checks.number(self.query, "offset", 0)
        return slice(offset, offset + min(limit, most))


Handler = Callable[[Call], Any]


class Route(NamedTuple):
    """One documented operation; ``query`` names every parameter that it knows, None is any."""

    method: str
    template: str
    handler: Handler
    query: frozenset[str] | None

    @property
    def segments(self) -> list[str]:
        return self.template.split("/")


ROUTES: list[Route] = []


def route(operation: str, query: Iterable[str] | None = ()) -> Callable[[Handler], Handler]:
    """
    Enter a handler in the table.

    :param operation: Method and path as documented, slash at the end included.
    :param query: Names of its query parameters; None for any.
    """
    method, template = operation.split(" ")

    def enter(handler: Handler) -> Handler:
        ROUTES.append(Route(method, template, handler, None if query is None else frozenset(query)))
        return handler

    return enter


class Match(NamedTuple):
    """What a path means: its route, unless the method is wrong, and the values in its place."""

    template: str
    route: Route | None
    params: dict[str, str]


class Table:
    """The routes by number of segments; a fixed segment goes before one that takes any value."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_length: dict[int, list[Route]] = {}
        for each in sorted(routes, key=lambda each: each.template.count("{")):
            self._by_length.setdefault(len(each.segments), []).append(each)

    def find(self, method: str, raw_path: str) -> Match | None:
        """
        Find the operation of a request.

        :param raw_path: The path without ``/api`` and not decoded: an encoded slash belongs to a value.
        """
        asked = [unquote(segment) for segment in raw_path.split("/")]
        other_method: Match | None = None
        for each in self._by_length.get(len(asked), ()):
            params: dict[str, str] = {}
            for wanted, given in zip(each.segments, asked, strict=True):
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
    # Importing the modules is what enters their handlers.
    from airflow_provider_lemlist.sandbox.routes import (  # noqa: F401
        activities,
        campaigns,
        exports,
        leads,
        lists,
        sequences,
        team,
        unsubscribes,
    )

    return Table(ROUTES)
