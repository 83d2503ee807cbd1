# SPDX-License-Identifier: Apache-2.0
"""
Read lists that come in pages. lemlist has six kinds of cursor, and six ways to mark the end.

The caller chooses the cursor (``STYLES``); the end is read from the shape of each page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_lemlist.exceptions import LemlistConfigurationError


@dataclass(frozen=True, slots=True)
class Style:
    """How the next page is requested."""

    cursor: str
    first: int
    #: The parameter that takes the number of rows; empty where the route has none.
    size: str = "limit"
    #: Whether the cursor counts rows (offset) or pages.
    counts_rows: bool = False
    in_body: bool = False


STYLES: dict[str, Style | None] = {
    "whole": None,
    "offset": Style("offset", first=0, counts_rows=True),
    "skip": Style("skip", first=0, counts_rows=True),
    "page": Style("page", first=1),
    "page0": Style("page", first=0, size=""),
    "body": Style("page", first=1, size="size", in_body=True),
}

#: No route has a smaller maximum than this, so a shorter page is the last, whatever was requested.
FULL_PAGE = 100

#: Keys under which a page may hold its rows, in the order they are tried.
_ROWS = ("data", "results", "campaigns", "schedules", "alerts", "drafts")


def paginate(fetch: Callable[[dict[str, Any]], Any], style: str, *, page_size: int = 100) -> Iterator[Any]:
    """
    Yield the rows of all pages, each once.

    A row that arrives twice, because the list moved while it was read, is dropped by its ``_id``. The same
    page twice is the end: the route ignores its cursor.

    :param fetch: Called with the cursor as parameters; requests one page and returns the parsed response.
    :param style: A name of ``STYLES``.
    :param page_size: Rows to request at a time.
    """
    if style not in STYLES:
        raise LemlistConfigurationError(
            f"paginate() has no style {style!r}; choose one of {', '.join(STYLES)}."
        )
    how = STYLES[style]
    if how is None:
        yield from rows_of(fetch({}))
        return
    cursor, seen, page_before, rows_before = how.first, set[str](), None, 0
    while True:
        page = fetch({how.cursor: cursor} | ({how.size: page_size} if how.size else {}))
        rows = rows_of(page)
        yield from (row for row in rows if _is_fresh(row, seen))
        if rows == page_before or is_last(page, rows, rows_before=rows_before, page_size=page_size):
            return
        page_before = rows
        rows_before += len(rows)
        cursor += len(rows) if how.counts_rows else 1


def rows_of(page: Any) -> list[Any]:
    """Return the rows of a page: the page itself, or the list in its envelope."""
    if isinstance(page, list):
        return page
    if isinstance(page, Mapping):
        for key in _ROWS:
            if isinstance(page.get(key), list):
                return list(page[key])
    return []


def is_last(page: Any, rows: list[Any], *, rows_before: int, page_size: int) -> bool:
    """
    Return whether a page is the last one.

    :param page: The parsed response.
    :param rows: Its rows.
    :param rows_before: Number of rows of the pages before it.
    :param page_size: Rows that were requested.
    """
    if not rows:
        return True
    if isinstance(page, Mapping):
        if isinstance(pagination := page.get("pagination"), Mapping) and "nextPage" in pagination:
            return pagination["nextPage"] is None
        meta = page.get("meta")
        if isinstance(meta, Mapping) and isinstance(pagination := meta.get("pagination"), Mapping):
            here, pages = pagination.get("page"), pagination.get("totalPages")
            if isinstance(here, int) and isinstance(pages, int):
                return here >= pages
        if isinstance(total := page.get("total"), int):
            return rows_before + len(rows) >= total
        if "results" in page:
            return False  # only an empty page ends the list of tasks
    return len(rows) < min(page_size, FULL_PAGE)


def _is_fresh(row: Any, seen: set[str]) -> bool:
    row_id = row.get("_id") if isinstance(row, Mapping) else None
    if not isinstance(row_id, str):
        return True
    if row_id in seen:
        return False
    seen.add(row_id)
    return True
