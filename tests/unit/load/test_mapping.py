# SPDX-License-Identifier: Apache-2.0
"""Columns become fields and variables, and a typo in a name does not silently become a variable."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.leads import Problem
from airflow_provider_lemlist.load.mapping import ColumnMapping


def test_columns_are_renamed_left_out_or_kept() -> None:
    mapping = ColumnMapping(column_map={"mail": "email", "id": None})
    lead, _, problems = mapping.lead({"mail": "ana@example.com", "id": 7, "plan": "pro", "seats": 3})
    assert problems == []
    assert lead == {"email": "ana@example.com", "plan": "pro", "seats": "3"}
    assert mapping.offered == {"email", "plan", "seats"}


def test_variables_is_an_allow_list() -> None:
    mapping = ColumnMapping(variables=["plan"])
    lead, _, problems = mapping.lead({"email": "ana@example.com", "plan": "pro", "salary": 9})
    assert (lead, problems) == ({"email": "ana@example.com", "plan": "pro"}, [])
    assert mapping.left_out == {"salary"}


def test_likely_typo_in_column_is_reported_even_if_other_columns_are_left_out() -> None:
    for variables in (None, ["plan"]):
        *_, problems = ColumnMapping(variables=variables).lead(
            {"email": "ana@example.com", "firstname": "Ana"}
        )
        assert [problem.field for problem in problems] == ["firstname"]


def test_mapped_column_is_not_a_typo() -> None:
    mapping = ColumnMapping(column_map={"fn": "phone2"}, variables=["firstname"])
    lead, _, problems = mapping.lead({"email": "ana@example.com", "fn": "1", "firstname": "x"})
    assert (lead, problems) == ({"email": "ana@example.com", "phone2": "1", "firstname": "x"}, [])


class NAType:
    """Like the one of pandas, it has no truth value."""

    def __bool__(self) -> bool:
        raise TypeError

    def __ne__(self, other: object) -> NAType:  # type: ignore[override]  # as in pandas
        return self

    __hash__ = object.__hash__


@pytest.mark.parametrize("blank", [None, "", "  ", float("nan"), NAType()])
def test_default_fills_blank_and_missing_values(blank: Any) -> None:
    mapping = ColumnMapping(defaults={"companyName": "your company", "icebreaker": "Hello"})
    lead, *_ = mapping.lead({"email": "ana@example.com", "companyName": blank})
    assert lead == {"email": "ana@example.com", "companyName": "your company", "icebreaker": "Hello"}
    assert "icebreaker" in mapping.offered


def test_default_does_not_replace_a_value() -> None:
    mapping = ColumnMapping(defaults={"plan": "free", "seats": 1})
    assert mapping.lead({"email": "a@example.com", "plan": "pro", "seats": 0})[0]["seats"] == "0"


def test_rows_may_have_different_columns() -> None:
    mapping = ColumnMapping()
    mapping.lead({"email": "ana@example.com"})
    lead, *_ = mapping.lead({"plan": "pro", "email": "ben@example.com"})
    assert lead == {"plan": "pro", "email": "ben@example.com"}
    assert mapping.columns == {"email", "plan"}


def test_two_columns_for_one_field_are_rejected() -> None:
    with pytest.raises(LemlistValidationError, match="'mail' and 'email' both map to 'email'"):
        ColumnMapping(column_map={"mail": "email"}).lead({"mail": "a@example.com", "email": "b@example.com"})
    with pytest.raises(LemlistValidationError, match="more than one column to 'email'"):
        ColumnMapping(column_map={"mail": "email", "mail2": "email"})


def test_column_map_with_unknown_column_is_rejected_with_hint() -> None:
    mapping = ColumnMapping(column_map={"e_mail": "email"})
    mapping.lead({"email_": "a@example.com"})
    with pytest.raises(LemlistValidationError, match=r"'e_mail' \(did you mean 'email_'\?\)"):
        mapping.check_columns()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"require": ["plan", "pln"]}, r"^require names columns .* 'pln' \(did you mean 'plan'\?\); nothing"),
        ({"key": "idd_no"}, r"^key names columns .* 'idd_no' \(did you mean 'id_no'\?\); nothing"),
        ({"key": "crmId", "column_map": {"id_no": "crmId"}}, "^key names columns .* 'crmId'"),
    ],
)
def test_unknown_required_column_or_key_is_rejected_with_hint(options: Any, message: str) -> None:
    mapping = ColumnMapping(**options)
    mapping.check_columns()  # without rows, nothing is known
    mapping.lead({"email": "a@example.com", "plan": "pro", "id_no": 7})
    with pytest.raises(LemlistValidationError, match=message):
        mapping.check_columns()


def test_required_name_may_be_a_field_a_variable_or_a_column() -> None:
    mapping = ColumnMapping(
        column_map={"mail": "email", "id": None}, require=["mail", "email", "id", "plan"], key="id"
    )
    mapping.lead({"mail": "a@example.com", "id": 7, "plan": "pro"})
    mapping.check_columns()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"column_map": {"fn": "firstname"}}, "firstname: is close to 'firstName'"),
        ({"defaults": {"first_name": "there"}}, "first_name: is close to 'firstName'"),
        ({"defaults": {"timezone": "Paris"}}, "timezone: must be an IANA time zone"),
    ],
)
def test_invalid_mapping_is_rejected_by_constructor(arguments: Any, message: str) -> None:
    with pytest.raises(LemlistValidationError, match=message):
        ColumnMapping(**arguments)


def test_problems_do_not_repeat_values() -> None:
    *_, problems = ColumnMapping().lead({"email": "secret(at)example.com", "linkedinUrl": "secret"})
    assert len(problems) == 2
    assert "secret" not in str(problems)


# --- Required values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["companyName", "plan", "firm", "salary"])
def test_required_value_must_not_be_blank(name: str) -> None:
    """It may be named as in lemlist or as in the source, and need not be sent."""
    mapping = ColumnMapping(column_map={"firm": "companyName"}, variables=["plan"], require=[name])
    row = {"email": "ana@example.com", "firm": "Example", "plan": "pro", "salary": 0}
    assert mapping.lead(row)[2] == []
    column = "firm" if name == "companyName" else name
    required = [Problem(name, "is required and blank")]
    assert mapping.lead({**row, column: " "})[2] == required
    del row[column]
    lead, _, problems = mapping.lead(row)
    assert problems == required
    assert lead["email"] == "ana@example.com"


def test_default_provides_a_required_value() -> None:
    mapping = ColumnMapping(defaults={"plan": "free"}, require=["plan"])
    assert mapping.lead({"email": "ana@example.com", "plan": None})[2] == []
    mapping.check_columns()


def test_invalid_required_value_has_one_problem() -> None:
    mapping = ColumnMapping(require=["email", "plan"])
    problems = mapping.lead({"email": "ana", "plan": []})[2]
    assert [problem.field for problem in problems] == ["email", "plan"]


# --- The key of a row -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"column_map": {"id": None}}, {"variables": []}])
@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.0, "7"), (" x ", "x"), ("", None), (" ", None), (None, None), (0, "0")]
)
def test_key_is_the_text_of_its_column(options: Any, value: Any, text: str | None) -> None:
    mapping = ColumnMapping(key="id", **options)
    assert mapping.lead({"email": "ana@example.com", "id": value})[1:] == (text, [])


def test_row_has_no_key_without_its_column() -> None:
    assert ColumnMapping(key="id").lead({"email": "ana@example.com"})[1:] == (None, [])
    assert ColumnMapping().lead({"email": "ana@example.com", "id": 7})[1:] == (None, [])


def test_name_of_the_key_column_may_be_close_to_a_field() -> None:
    mapping = ColumnMapping(key="e_mail", column_map={"e_mail": "email"})
    assert mapping.lead({"e_mail": "ana@example.com"}) == (
        {"email": "ana@example.com"},
        "ana@example.com",
        [],
    )


@pytest.mark.parametrize("column_map", [{}, {"id": None}])
def test_key_that_is_no_text_is_one_problem(column_map: Any) -> None:
    mapping = ColumnMapping(key="id", column_map=column_map)
    lead, key, problems = mapping.lead({"firstName": "Ana", "id": [7]})
    assert (lead, key) == ({"firstName": "Ana"}, None)
    assert problems == [Problem("id", "must be text, a number or a date, not list")]


# --- Rows that identify no person -----------------------------------------------------------------------

UNIDENTIFIED = [Problem("lead", "has no email, linkedinUrl, phone or key, so it could not be found again")]


def test_row_must_identify_a_person() -> None:
    mapping = ColumnMapping(key="id", column_map={"id": None})
    for name, value in {
        "email": "ana@example.com",
        "linkedinUrl": "linkedin.com/in/ana",
        "phone": "1",
        "id": 7,
    }.items():
        assert mapping.lead({"firstName": "Ana", name: value})[2] == []
    for blank in (None, "", " "):
        assert mapping.lead({"firstName": "Ana", "email": blank, "id": blank})[2] == UNIDENTIFIED
    assert mapping.lead({"firstName": "Ana", "phone": "unknown"})[2] == UNIDENTIFIED


def test_row_that_identifies_no_person_may_be_allowed() -> None:
    assert ColumnMapping(allow_unidentified=True).lead({"firstName": "Ana"})[2] == []


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"email": "ana"}, ["email"]),
        ({"emial": "ana@example.com"}, ["emial"]),
        ({"linkedinUrl": "ana", "timezone": "Paris"}, ["linkedinUrl", "timezone"]),
        ({"timezone": "Paris"}, ["timezone", "lead"]),
        ({"firstName": ""}, ["lead"]),
    ],
)
def test_what_hides_the_identity_is_reported_once(row: dict[str, str], fields: list[str]) -> None:
    lead, _, problems = ColumnMapping().lead(row)
    assert (lead, [problem.field for problem in problems]) == ({}, fields)


def test_blank_required_identity_is_reported_once() -> None:
    problems = ColumnMapping(require=["email"]).lead({"firstName": "Ana", "email": ""})[2]
    assert problems == [Problem("email", "is required and blank")]


def test_valid_fields_of_an_invalid_row_are_returned() -> None:
    row = {"email": "ana@example.com", "linkedinUrl": "ana", "id": "7"}
    lead, key, problems = ColumnMapping(key="id").lead(row)
    assert (lead, key) == ({"email": "ana@example.com", "id": "7"}, "7")
    assert [problem.field for problem in problems] == ["linkedinUrl"]
