# SPDX-License-Identifier: Apache-2.0
"""A list is read whole and understood, or it is an error before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.sources import MalformedRow, from_path
from airflow_provider_lemlist.storage import storage_path
from airflow_provider_lemlist.suppression.lists import Entries, Suppressions
from airflow_provider_lemlist.suppression.options import Exclusions
from airflow_provider_lemlist.suppression.values import Form, Value

ANA = Value(Form.ADDRESS, "ana@norte.example")


def entries(*rows: Any, allow_empty: bool = False) -> Entries:
    return Entries(lambda: iter(rows), "exclude_sql", allow_empty=allow_empty)


def read(*rows: Any, **options: Any) -> list[Value]:
    return [each.value for each in entries(*rows, **options)]


@pytest.mark.parametrize("column", ["value", "Email", "Email address", "whatever", 0])
def test_single_column_holds_the_entries_whatever_its_name(column: Any) -> None:
    assert read({column: "Ana@norte.example"}) == [ANA]


def test_known_columns_of_several_are_read_and_the_others_are_not() -> None:
    row = {
        "id": 4933123456,
        "Email": "ana@norte.example",
        "linkedin_url": "linkedin.com/in/ana",
        "Phone Number": 33612345678,
        "domain": None,
        "manager": "boss@norte.example",
    }
    assert read(row) == [
        ANA,
        Value(Form.PROFILE, "/in/ana"),
        Value(Form.PHONE, "33612345678"),
    ]


def test_rows_with_different_columns_are_each_read_by_their_own() -> None:
    assert read({"id": 1, "email": "ana@norte.example"}, {"id": 2, "domain": "sur.example"}) == [
        ANA,
        Value(Form.DOMAIN, "sur.example"),
    ]


def test_phone_number_that_a_table_holds_as_a_number_is_one() -> None:
    found = entries({"phone": 33612345678.0}, {"phone": float("nan")}, {"phone": None})
    assert [each.value for each in found] == [Value(Form.PHONE, "33612345678")]
    assert found.unknown == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": 1, "name": "Ana"}], "its columns are 'id', 'name', and none is known"),
        ([{"id": 1}, {"id": 17}], "no value of 'id' is an address"),
        ([], "it has no values"),
        ([{"email": " "}, {"email": None}], "it has no values"),
        ([{"email": "ana@norte.example"}, MalformedRow("has a misplaced quote")], "row 2 has a misplaced"),
        ([{"a": 1, "email": "ana@norte.example"}, {"a": 1, "b": 2}], "its columns are 'a', 'b'"),
    ],
    ids=["no column", "no entry", "no row", "blank", "malformed", "another row without a column"],
)
def test_list_that_cannot_be_used_is_an_error(rows: list[Any], says: str) -> None:
    with pytest.raises(
        LemlistValidationError, match=f"^exclude_sql cannot be used: {says}.*Nothing was sent"
    ):
        read(*rows)


def test_empty_list_is_accepted_on_request_and_a_wrong_one_is_not() -> None:
    assert read(allow_empty=True) == []
    with pytest.raises(LemlistValidationError, match="no value of 'id'"):
        read({"id": 1}, allow_empty=True)


def test_what_is_no_entry_is_told_by_its_row_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    texts = ("ana@norte.example", "Ana Ruiz", "", *["call her"] * 5)
    lists = {"exclude_sql": lambda: iter([{"email": text} for text in texts])}
    with closing(Suppressions()) as suppressions, caplog.at_level(logging.INFO):
        suppressions.read(None, Exclusions(unsubscribed=False, lists=lists))  # type: ignore[arg-type]
    assert "exclude_sql: 1 values." in caplog.text
    assert (
        "6 rows have a value that is no address, domain, LinkedIn URL or phone number (2, 4, 5, 6, 7, …)"
        in caplog.text
    )
    assert "Ana" not in caplog.text


def test_file_without_a_header_line_names_the_argument(tmp_path: Any) -> None:
    path = tmp_path / "blocked.csv"
    path.write_text("ana@norte.example\nben@norte.example\n")
    found = Entries(lambda: from_path(storage_path(str(path), None, "x")), "exclude_path")
    with pytest.raises(LemlistValidationError, match=r"^exclude_path: path …/blocked.csv begins with a row"):
        list(found)


class Lemlist:
    """The part of a hook that lists unsubscribed values."""

    def __init__(self, *values: str) -> None:
        self.values = values

    def iter_unsubscribes(self) -> Iterator[dict[str, str]]:
        return ({"_id": "uns_1", "value": value, "source": "api"} for value in self.values)


def test_reason_names_the_list_and_the_strongest_form() -> None:
    lists = {"exclude_sql": lambda: iter([{"value": "@norte.example"}, {"value": "ana@norte.example"}])}
    with closing(Suppressions()) as suppressions:
        suppressions.read(Lemlist("ana@norte.example", "Sur.example", "?"), Exclusions(lists=lists))  # type: ignore[arg-type]
        assert suppressions.find({"email": "ANA@norte.example"}) == "its address is in exclude_sql"
        assert suppressions.find({"email": "ben@a.norte.example"}) == "its domain is in exclude_sql"
        assert suppressions.find({"email": "eva@sur.example"}) == "its domain is in lemlist's list"
        assert suppressions.find({"email": "ana@este.example"}) == ""
        assert suppressions.find({"firstName": "Ana"}) == ""


def steps_to_find(lead: dict[str, str], entries: int) -> int:
    """Return how many instructions SQLite executes to find a lead in a list."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with closing(Suppressions()) as suppressions:
        suppressions.add((Value(Form.ADDRESS, f"p{n}@norte.example") for n in range(entries)), "exclude_sql")
        suppressions._database.set_progress_handler(count, 1)
        assert suppressions.find(lead) == ""
    return steps


def test_row_takes_no_more_work_with_a_longer_list() -> None:
    lead = {"email": "ana@sur.example", "linkedinUrl": "https://linkedin.com/in/ana", "phone": "+33612345678"}
    assert 0 < steps_to_find(lead, 10_000) == steps_to_find(lead, 10)


def test_long_list_is_used_to_its_end() -> None:
    with closing(Suppressions()) as suppressions:
        values = (Value(Form.ADDRESS, f"p{n}@norte.example") for n in range(20_001))
        assert suppressions.add(values, "exclude_sql") == 20_001
        assert suppressions.find({"email": "p20000@norte.example"}) == "its address is in exclude_sql"


def test_list_of_lemlist_is_not_read_if_it_is_not_wanted() -> None:
    with closing(Suppressions()) as suppressions:
        suppressions.read(None, Exclusions(unsubscribed=False))  # type: ignore[arg-type]
        assert suppressions.find({"email": "ana@norte.example"}) == ""
