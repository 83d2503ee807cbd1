# SPDX-License-Identifier: Apache-2.0
"""A CSV table is read whole, or is none."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.api.tables import MAX_CELL, read_rows
from airflow_provider_lemlist.api.transport import Transport
from airflow_provider_lemlist.exceptions import LemlistNetworkError, LemlistUnexpectedReplyError
from tests.unit.conftest import Act, Stage

CSV = {"Content-Type": "text/csv; charset=utf-8"}
PATH = {"campaignId": "cam_1"}

names = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, unique=True)


def rows(raw: bytes) -> list[dict[str, str]]:
    return list(read_rows(io.BytesIO(raw)))


@given(names, st.data(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_table_is_read_as_it_was_written(
    header: list[str], data: st.DataObject, line_end: str, has_bom: bool
) -> None:
    header = ["_id", *(name for name in header if name != "_id")]
    cells = st.text(st.characters(exclude_categories=["Cs"]))
    lines = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=4))
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=line_end)
    writer.writerows([header, *lines])
    raw = text.getvalue().encode("utf-8-sig" if has_bom else "utf-8")
    assert rows(raw) == [dict(zip(header, line, strict=True)) for line in lines]


def test_a_table_may_have_no_lines_empty_lines_and_long_cells() -> None:
    assert rows(b"_id,email\n") == rows(b"_id,email") == []
    assert rows(b"_id\n1\n\n2\n") == [{"_id": "1"}, {"_id": "2"}]
    assert rows(b"_id,a\n1," + b"x" * 500_000) == [{"_id": "1", "a": "x" * 500_000}]
    assert MAX_CELL > 131_072


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\n", b"email\n", b'[{"_id": "lea_1"}]', b"_id,email\n1", b"_id,email\n1,a,b\n",
        b'_id,email\n1,"a', b'_id,email\n1,"a"b\n', b"_id\n\xff\n",
    ],
)  # fmt: skip
def test_what_is_no_whole_table_is_an_error(raw: bytes) -> None:
    with pytest.raises((ValueError, csv.Error)):
        rows(raw)


def test_the_file_stays_open_and_can_be_read_again() -> None:
    file = io.BytesIO(b"_id\n1\n")
    assert list(read_rows(file)) == list(read_rows(file)) == [{"_id": "1"}]


# --- As a response ----------------------------------------------------------------------------------------


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        yield file


def export(transport: Transport, file: BinaryIO) -> list[dict[str, str]]:
    return list(transport.call(ops.EXPORT_LEADS_WITH_VARIABLES, path=PATH, into=file))


TABLE = b"\xef\xbb\xbf_id,email,lucky number\nlea_1,a@example.com,7\nlea_2,b@example.com,\n"


@pytest.mark.parametrize(
    "bad",
    [
        Act(200, TABLE, CSV, fault="cut"),
        Act(200, TABLE[:-20], CSV),
        Act(200, TABLE[:60] + b'"', CSV),
        Act(200, b"", CSV),
        Act(200, b"_id,email\n,a@example.com\n", CSV),
        Act(200, b"email\na@example.com\n", CSV),
        Act(200, b"<!DOCTYPE html><html></html>", {"Content-Type": "text/html"}),
        Act(200, b"\n <html>busy</html>", CSV),
        Act(200, {"error": "later"}),
        Act(200, [{"_id": "lea_1"}]),
        Act(502, b"<html></html>", {"Content-Type": "text/html"}),
    ],
    ids=["cut connection", "cut line", "cut quotes", "empty", "no id in a line", "no ids", "a page",
         "a page as CSV", "an object", "an array", "a gateway"],
)  # fmt: skip
def test_a_part_of_a_table_or_something_else_is_requested_again(
    bad: Act, stage: Stage, transport: Transport, file: BinaryIO
) -> None:
    stage.script = [bad, bad, Act(200, TABLE, CSV)]
    assert export(transport, file) == [
        {"_id": "lea_1", "email": "a@example.com", "lucky number": "7"},
        {"_id": "lea_2", "email": "b@example.com", "lucky number": ""},
    ]
    assert len(stage.requests) == 3


def test_a_table_that_stays_cut_is_an_error(stage: Stage, transport: Transport, file: BinaryIO) -> None:
    stage.routes = {"GET /campaigns/cam_1/export/leads": Act(200, TABLE[:-20], CSV)}
    with pytest.raises(LemlistUnexpectedReplyError, match="no CSV table, or a part of one"):
        export(transport, file)
    stage.routes = {"GET /campaigns/cam_1/export/leads": Act(200, TABLE, CSV, fault="cut")}
    with pytest.raises(LemlistNetworkError, match="in the middle of the response"):
        export(transport, file)


def test_a_table_of_no_leads_is_empty(stage: Stage, transport: Transport, file: BinaryIO) -> None:
    stage.script = [Act(200, b"_id,email\n", CSV)]
    assert export(transport, file) == []
