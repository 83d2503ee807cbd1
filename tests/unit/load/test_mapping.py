# SPDX-License-Identifier: Apache-2.0
"""Columns become fields and variables, and a typo in a name does not silently become a variable."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.load.mapping import ColumnMapping


def test_columns_are_renamed_left_out_or_kept() -> None:
    mapping = ColumnMapping(column_map={"mail": "email", "id": None})
    lead, problems = mapping.lead({"mail": "ana@example.com", "id": 7, "plan": "pro", "seats": 3})
    assert problems == []
    assert lead == {"email": "ana@example.com", "plan": "pro", "seats": "3"}
    assert mapping.offered == {"email", "plan", "seats"}


def test_variables_is_an_allow_list() -> None:
    mapping = ColumnMapping(variables=["plan"])
    lead, problems = mapping.lead({"email": "ana@example.com", "plan": "pro", "salary": 9})
    assert (lead, problems) == ({"email": "ana@example.com", "plan": "pro"}, [])
    assert mapping.left_out == {"salary"}


def test_likely_typo_in_column_is_reported_even_if_other_columns_are_left_out() -> None:
    for variables in (None, ["plan"]):
        _, problems = ColumnMapping(variables=variables).lead(
            {"email": "ana@example.com", "firstname": "Ana"}
        )
        assert [problem.field for problem in problems] == ["firstname"]


def test_mapped_column_is_not_a_typo() -> None:
    mapping = ColumnMapping(column_map={"fn": "phone2"}, variables=["firstname"])
    lead, problems = mapping.lead({"email": "ana@example.com", "fn": "1", "firstname": "x"})
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
    lead, _ = mapping.lead({"email": "ana@example.com", "companyName": blank})
    assert lead == {"email": "ana@example.com", "companyName": "your company", "icebreaker": "Hello"}
    assert "icebreaker" in mapping.offered


def test_default_does_not_replace_a_value() -> None:
    mapping = ColumnMapping(defaults={"plan": "free", "seats": 1})
    assert mapping.lead({"email": "a@example.com", "plan": "pro", "seats": 0})[0]["seats"] == "0"


def test_rows_may_have_different_columns() -> None:
    mapping = ColumnMapping()
    mapping.lead({"email": "ana@example.com"})
    lead, _ = mapping.lead({"plan": "pro", "email": "ben@example.com"})
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
    _, problems = ColumnMapping().lead({"email": "secret(at)example.com", "linkedinUrl": "secret"})
    assert len(problems) == 2
    assert "secret" not in str(problems)
