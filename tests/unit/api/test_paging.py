# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api.paging import STYLES, paginate
from airflow_provider_lemlist.exceptions import LemlistConfigurationError


def rows(count: int) -> list[dict[str, Any]]:
    return [{"_id": f"r{number}"} for number in range(count)]


def server(style: str, total: int, envelope: str) -> Any:
    """Answer as the route that uses this style does, and count the calls."""
    everything = rows(total)

    def fetch(cursor: dict[str, Any]) -> Any:
        fetch.calls += 1  # type: ignore[attr-defined]
        assert style != "page0" or set(cursor) == {"page"}  # the tasks take nothing else
        size = int(cursor.get("limit") or cursor.get("size") or 10)
        if "page" in cursor:
            number = int(cursor["page"])
            start = (number - (0 if style == "page0" else 1)) * size
        else:
            start = int(cursor.get("offset", cursor.get("skip", 0)))
            number = start // size + 1
        part = everything[start : start + size]
        pages = -(-total // size)
        following = number + 1 if start + size < total else None
        return {
            "array": part,
            "total": {"data": part, "total": total, "limit": size, "offset": start},
            "campaigns": {"campaigns": part, "pagination": {"nextPage": following}},
            "schedules": {"schedules": part, "pagination": {"nextPage": following}},
            "inbox": {"data": part, "pagination": {"nextPage": following}},
            "tasks": {"results": part, "page": str(number)},
            "people": {"results": part, "total": total, "page": number, "size": size},
            "watchlist": {"data": part, "meta": {"pagination": {"page": number, "totalPages": pages}}},
        }[envelope]

    fetch.calls = 0  # type: ignore[attr-defined]
    return fetch


WAYS = [
    ("offset", "array"),
    ("offset", "total"),
    ("offset", "campaigns"),
    ("page", "total"),
    ("page", "schedules"),
    ("page", "watchlist"),
    ("skip", "inbox"),
    ("page0", "tasks"),
    ("body", "people"),
]


@pytest.mark.parametrize(("style", "envelope"), WAYS)
@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 20, 25])
def test_every_row_comes_once_and_no_page_is_requested_in_vain(style: str, envelope: str, total: int) -> None:
    fetch = server(style, total, envelope)
    assert list(paginate(fetch, style, page_size=10)) == rows(total)
    full, rest = divmod(total, 10)
    states_end = envelope not in ("array", "tasks")
    most = max(1, full + bool(rest)) if states_end else full + 1 + (envelope == "tasks" and bool(rest))
    assert fetch.calls <= most


def test_a_route_that_ignores_its_cursor_does_not_loop() -> None:
    calls: list[Any] = []

    def fetch(cursor: dict[str, Any]) -> Any:
        calls.append(cursor)
        return rows(10)

    assert list(paginate(fetch, "offset", page_size=10)) == rows(10)
    assert len(calls) == 2


@given(st.integers(0, 60), st.integers(0, 8), st.integers(1, 12))
def test_rows_added_while_the_list_is_read_hide_none_of_the_others(total: int, new: int, size: int) -> None:
    everything = rows(total)
    # A whole page's worth at each step cannot be distinguished from a route that ignores its cursor.
    arriving = new - (new == size)

    def fetch(cursor: dict[str, Any]) -> Any:
        start = cursor["offset"]
        part = everything[start : start + size]
        everything[:0] = [
            {"_id": f"new{start}-{number}"} for number in range(arriving if start < 200 else 0)
        ]  # newest first
        if start > 5000:
            raise AssertionError("does not end")
        return part

    found = [row["_id"] for row in paginate(fetch, "offset", page_size=size)]
    assert set(row["_id"] for row in rows(total)) <= set(found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("style", ["offset", "skip", "page"])
@pytest.mark.parametrize("envelope", ["array", "total"])
def test_a_page_size_beyond_the_maximum_of_the_route_loses_no_row(style: str, envelope: str) -> None:
    everything = rows(250)

    def fetch(cursor: dict[str, Any]) -> Any:
        first = (cursor["page"] - 1) * 100 if style == "page" else cursor[style]
        part = everything[first : first + 100]
        return part if envelope == "array" else {"data": part, "total": 250}

    assert list(paginate(fetch, style, page_size=500)) == everything


ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "results", "total", "pagination", "nextPage", "meta", "page", "_id"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(ANSWERS | st.fixed_dictionaries({"data": ANSWERS, "meta": ANSWERS}), max_size=4),
    st.sampled_from(list(STYLES)),
)
def test_no_page_is_ever_an_error(pages: list[Any], style: str) -> None:
    responses = iter(pages)
    list(paginate(lambda cursor: next(responses, []), style))


def test_rows_without_an_id_are_all_kept() -> None:
    assert list(paginate(lambda cursor: [{"userId": 1}, {"userId": 1}], "whole")) == [{"userId": 1}] * 2


def test_an_unknown_style_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(LemlistConfigurationError, match="offset"):
        list(paginate(lambda cursor: [], "cursor"))
