# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api import arrays
from airflow_provider_lemlist.api.arrays import CHUNK, NotAnObjectError, is_array, parse_objects, read_objects

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TRICKY = [{"a": '\\"}],[{', "é€😀": "\u2028\x7f", "n": [1.5e-7, -0.0, None, True]}, {}, {"b": {"c": [{}]}}]


def pieces(raw: bytes, size: int) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def is_refused(raw: bytes, size: int) -> bool:
    try:
        list(parse_objects(pieces(raw, size)))
    except ValueError:
        return True
    return False


@given(st.lists(st.dictionaries(st.text(), VALUES)), st.booleans(), st.sampled_from([None, 1]), st.data())
def test_an_array_is_read_as_json_reads_it_wherever_it_is_cut(
    rows: list[dict[str, Any]], ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    raw = json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    chunks = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert list(parse_objects(chunks)) == json.loads(raw)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_a_cut_inside_a_character_or_an_escape_changes_nothing(size: int, ascii_only: bool) -> None:
    raw = json.dumps(TRICKY, ensure_ascii=ascii_only).encode()
    assert list(parse_objects(pieces(raw, size))) == TRICKY


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf[{}]",
        b' \r\n\t[ {} ,\n{"a" : 1} ]\n ',
        b'[{"a": NaN}, {"a": -Infinity}]',
        b'[{"a": 1, "a": 2}]',
        b'[{"half a pair": "\xed\xa0\x80"}]',
    ],
    ids=str,
)
def test_what_json_accepts_is_accepted(raw: bytes, size: int) -> None:
    assert repr(list(parse_objects(pieces(raw, size)))) == repr(json.loads(raw))
    assert is_array(raw)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_whatever_is_cut_off_is_an_error(size: int) -> None:
    raw = json.dumps(TRICKY, ensure_ascii=False).encode()
    for end in range(len(raw)):
        assert is_refused(raw[:end], size)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"  ", b"{}", b"null", b"x", b"]", b"[,]", b"[{},]", b"[{} {}]", b"[{}]]", b"[{}],", b"[{}][{}]",
        b"[{}}", b'[{"a"}]', b"[{'a': 1}]", b'[{"a": 01}]', b'[{"a": "\n"}]', b"[{}\xff]", b"[{}]\xc3",
        b'[{"a": "\xff"}]', b"\x00[{}]", b"[{}\xc2\xa0]",
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_array_of_json_is_an_error(raw: bytes, size: int) -> None:
    assert is_refused(raw, size)


@pytest.mark.parametrize("item", [b"7", b"null", b'"{}"', b"[]", b"[{}]", b"true"])
def test_an_item_that_is_no_object_is_an_error(item: bytes) -> None:
    for raw in (b"[" + item + b"]", b"[{}, " + item + b"]"):
        with pytest.raises(NotAnObjectError):
            list(parse_objects([raw]))


def test_a_file_is_read_from_its_start_and_each_time_whole() -> None:
    file = io.BytesIO(json.dumps(TRICKY * 2000).encode())
    file.read(100)
    assert list(read_objects(file)) == list(read_objects(file)) == TRICKY * 2000


def test_no_more_is_read_than_the_next_object_needs() -> None:
    file = io.BytesIO(json.dumps(TRICKY * 20_000).encode())
    rows = read_objects(file)
    for _ in range(10):
        next(rows)
    assert file.tell() == CHUNK < len(file.getvalue())


def test_a_long_object_is_not_parsed_once_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, lengths = arrays._decode, []

    def counted(text: str, at: int) -> tuple[Any, int]:
        lengths.append(len(text))
        return decode(text, at)

    monkeypatch.setattr(arrays, "_decode", counted)
    raw = json.dumps([{"a": "x" * 100_000}]).encode()
    (row,) = parse_objects(pieces(raw, 10))
    assert len(row["a"]) == 100_000
    assert sum(lengths) < 4 * len(raw)


@pytest.mark.parametrize(
    ("raw", "array"), [(b"[", True), (b" \n[1", True), (b"", False), (b"{}", False), (b"<html>[", False)]
)
def test_an_array_is_known_by_its_beginning(raw: bytes, array: bool) -> None:
    assert is_array(raw) is array
