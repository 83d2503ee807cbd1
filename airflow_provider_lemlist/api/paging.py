# SPDX-License-Identifier: Apache-2.0
"""
Read lists that come in pages. lemlist has six kinds of cursor, and six ways to mark the end.

The caller chooses the cursor (``STYLES``); the end is read from the shape of each page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError


class Style(NamedTuple):
    """How the next page is requested."""

    cursor: str
    first: int
    #: The parameter that takes the number of rows; empty where the route has none.
    size: str = "limit"
    #: Whether the cursor counts rows (offset) or pages.
    counts_rows: bool = False


STYLES: dict[str, Style | None] = {
    "whole": None,
    "offset": Style("offset", first=0, counts_rows=True),
    "skip": Style("skip", first=0, counts_rows=True),
    "page": Style("page", first=1),
    "page0": Style("page", first=0, size=""),
    "body": Style("page", first=1, size="size"),
}

#: No route has a smaller maximum than this, so a shorter page is the last, whatever was requested.
FULL_PAGE = 100

#: Keys under which a page may hold its rows, in the order they are tried.
_ROWS = ("data", "results", "campaigns", "schedules", "alerts", "drafts")


def paginate(fetch: Callable[[dict[str, Any]], Any], style: str, *, page_size: int = 100) -> Iterator[Any]:
    """
    Yield the rows of all pages, each once; ``fetch`` requests a page, with the cursor as parameters.

    A row that arrives twice, because the list moved while it was read, is dropped by its ``_id``. The same
    page twice is the end: the route ignores its cursor.
    """
    if style not in STYLES:
        raise LemlistConfigurationError(
            f"paginate() has no style {style!r}; choose one of {', '.join(STYLES)}."
        )
    how = STYLES[style]
    if how is None:
        yield from rows_of(fetch({}))
        return
    seen, page_before, rows_so_far = set[str](), None, 0
    for number in count(how.first):
        cursor = {how.cursor: rows_so_far if how.counts_rows else number}
        page = fetch(cursor | ({how.size: page_size} if how.size else {}))
        rows = rows_of(page)
        for row in rows:
            row_id = row.get("_id") if isinstance(row, dict) else None
            if not isinstance(row_id, str):
                yield row
            elif row_id not in seen:
                seen.add(row_id)
                yield row
        rows_so_far += len(rows)
        if rows == page_before or _is_last(page, rows, rows_so_far, page_size):
            return
        page_before = rows


def rows_of(page: Any) -> list[Any]:
    """Return the rows of a page: the page itself, or the list in its envelope."""
    if isinstance(page, dict):
        page = next((page[key] for key in _ROWS if isinstance(page.get(key), list)), None)
    return page if isinstance(page, list) else []


def total_of(page: Any) -> int | None:
    """Return how many rows the whole list has, where its pages say it."""
    total = page.get("total") if isinstance(page, dict) else None
    return total if isinstance(total, int) else None


def _is_last(page: Any, rows: list[Any], rows_so_far: int, page_size: int) -> bool:
    if not rows:
        return True
    if isinstance(page, dict):
        if isinstance(pagination := page.get("pagination"), dict) and "nextPage" in pagination:
            return pagination["nextPage"] is None
        meta = page.get("meta")
        if isinstance(meta, dict) and isinstance(pagination := meta.get("pagination"), dict):
            here, pages = pagination.get("page"), pagination.get("totalPages")
            if isinstance(here, int) and isinstance(pages, int):
                return here >= pages
        if (total := total_of(page)) is not None:
            return rows_so_far >= total
        if "results" in page:
            return False  # only an empty page ends the list of tasks
    return len(rows) < min(page_size, FULL_PAGE)
