# SPDX-License-Identifier: Apache-2.0
"""A lead becomes text that lemlist accepts, or its problems are listed without the person's values."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.leads import LEAD_FIELDS, check, clean

ADDRESS = "ana@example.com"


def reasons(values: dict[Any, Any], **options: Any) -> dict[str, str]:
    return {problem.field: problem.reason for problem in clean(values, **options)[1]}


def test_lemlist_fields_and_custom_variables_are_unchanged() -> None:
    lead = {
        "email": ADDRESS,
        "firstName": "Ana",
        "lastName": "Ruiz",
        "companyName": "Norte SL",
        "jobTitle": "Head of Ops",
        "linkedinUrl": "https://www.linkedin.com/in/ana",
        "picture": "https://cdn.example.com/ana.png",
        "phone": "+33 1 23 45 67 89",
        "companyDomain": "norte.example",
        "icebreaker": "{{firstName}}, I read <b>your</b> post",
        "timezone": "Europe/Madrid",
        "contactOwner": "usr_1",
        "plan": "trial",
        "Company size": "50-100",
    }
    assert set(LEAD_FIELDS) <= set(lead)
    assert clean(lead) == (lead, [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (-2.5, "-2.5"),
        (3.0, "3"),
        (33123456789.0, "33123456789"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E+999999"), "1E+999999"),
        (1e300, "1e+300"),
        (True, "true"),
        (False, "false"),
        (date(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1, 9, 30, tzinfo=UTC), "2026-03-01T09:30:00+00:00"),
        (time(9, 30), "09:30:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (SimpleNamespace(item=lambda: 7, shape=()), "7"),  # a NumPy scalar
        ("  kept  ", "  kept  "),
    ],
    ids=str,
)
def test_value_becomes_the_text_that_a_person_would_write(value: Any, text: str) -> None:
    assert clean({"x": value}) == ({"x": text}, [])


class NAType:
    """Like pandas.NA: it has no boolean value and no equality."""

    def __bool__(self) -> bool:
        raise TypeError

    def __eq__(self, other: object) -> NAType:  # type: ignore[override]  # like pandas
        return self

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "value", [None, "", "  \t", math.nan, Decimal("NaN"), Decimal("sNaN"), NAType()], ids=repr
)
def test_empty_value_is_left_out_unless_requested(value: Any) -> None:
    assert clean({"email": ADDRESS, "x": value}) == ({"email": ADDRESS}, [])
    assert clean({"email": ADDRESS, "x": value}, drop_empty=False) == ({"email": ADDRESS, "x": ""}, [])


@pytest.mark.parametrize(
    "value", [{"a": 1}, [1], (1,), {1}, b"x", object(), math.inf, Decimal("-Infinity")], ids=repr
)
def test_value_without_a_text_form_is_refused_by_name(value: Any) -> None:
    assert "x" in reasons({"email": ADDRESS, "x": value})


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS,
        "o'brien+news/a=b@example.co.uk",
        "é.ü@münchen.example",
        "a@xn--mnchen-3ya.example",
        "a_b-c.d@sub.example.museum",
        " padded@example.com\n",
        "1@2.example",
    ],
)
def test_valid_email_is_accepted(address: str) -> None:
    assert clean({"email": address}) == ({"email": address.strip()}, [])


@pytest.mark.parametrize(
    "address",
    [
        "zoe",
        "zoe@",
        "@example.org",
        "zoe@example",
        "zoe@@example.com",
        "zoe@example..com",
        "zoe@.com",
        "zoe@example.com.",
        "zoe ruiz@example.com",
        "zoe@exa mple.com",
        "Ana <zoe@example.com>",
        "mailto:zoe@example.com",
        "zoe@example.com, bo@example.com",
        "zoe@example.com;bo@example.com",
        "zoe@10.0.0.1",
        "x" * 65 + "@example.com",
        "x@" + "y" * 250 + ".com",
        "{{ params.email }}",
    ],
)
def test_invalid_email_is_refused_and_not_repeated_in_the_error(address: str) -> None:
    reason = reasons({"email": address})["email"]
    assert address not in reason
    with pytest.raises(LemlistValidationError) as error:
        check({"email": address})
    assert address not in str(error.value)


@pytest.mark.parametrize("zone", ["Europe/Paris", "America/New_York", "UTC", " Asia/Tokyo "])
def test_iana_time_zone_is_accepted(zone: str) -> None:
    assert clean({"timezone": zone}) == ({"timezone": zone.strip()}, [])


@pytest.mark.parametrize("zone", ["Paris", "europe/paris", "Europe/Pari", "UTC+2", "../etc/passwd", "+02:00"])
def test_other_time_zone_is_refused(zone: str) -> None:
    assert "IANA" in reasons({"timezone": zone})["timezone"]


@pytest.mark.parametrize("name", ["linkedinUrl", "picture"])
@pytest.mark.parametrize(
    "url",
    ["example.com/in/ana", "notlinkedin.com/in/ana", "ftp://a.example.com", "https://", "https://a b.c", "x"],
)
def test_invalid_url_is_refused(name: str, url: str) -> None:
    assert name in reasons({name: url})


@pytest.mark.parametrize(
    "url", ["linkedin.com/in/ana", "www.linkedin.com/in/ana", "LinkedIn.com/in/ana", "fr.linkedin.com/in/ana"]
)
def test_linkedin_url_without_scheme_is_sent_with_one(url: str) -> None:
    assert clean({"linkedinUrl": f" {url} "}) == ({"linkedinUrl": f"https://{url}"}, [])
    assert "picture" in reasons({"picture": url})
    assert "linkedinUrl" in reasons({"linkedinUrl": f"{url} or ben"})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("first_name", "firstName"),
        ("FirstName", "firstName"),
        ("first name", "firstName"),
        ("firstname", "firstName"),
        ("frstName", "firstName"),
        ("emial", "email"),
        ("E-Mail", "email"),
        ("linkedInUrl", "linkedinUrl"),
        ("time_zone", "timezone"),
        ("compnyDomian", "companyDomain"),
    ],
)
def test_misspelled_lemlist_field_is_refused_unless_it_is_declared(written: str, meant: str) -> None:
    assert repr(meant) in reasons({"email": ADDRESS, written: "x"})[written]
    assert reasons({"email": ADDRESS, written: "x"}, variables=[written]) == {}


@pytest.mark.parametrize("name", ["plan", "city", "company", "phone2", "Company size", "título", "title"])
def test_other_name_is_a_custom_variable(name: str) -> None:
    assert clean({"email": ADDRESS, name: "x"}) == ({"email": ADDRESS, name: "x"}, [])


@pytest.mark.parametrize("name", ["deduplicate", "findEmail", "find_phone"])
def test_request_option_inside_a_lead_is_refused(name: str) -> None:
    assert "option" in reasons({"email": ADDRESS, name: "true"})[name]


@pytest.mark.parametrize("name", ["", " ", 3, None])
def test_name_that_is_not_text_or_is_empty_is_refused(name: Any) -> None:
    assert str(name) in reasons({"email": ADDRESS, name: "x"})


@pytest.mark.parametrize("lead", [{}, {"email": None}, {"firstName": "", "x": math.nan}])
def test_lead_without_values_is_refused(lead: dict[str, Any]) -> None:
    assert reasons(lead) == {"lead": "has no values"}


def test_error_lists_all_problems_and_names_the_task() -> None:
    with pytest.raises(LemlistValidationError) as error:
        check({"email": "x", "timezone": "y", "first_name": "z"}, "The lead of task 'add'")
    for name in ("'add'", "email", "timezone", "first_name"):
        assert name in str(error.value)


@given(
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(LEAD_FIELDS),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.decimals()
        | st.text()
        | st.dates()
        | st.lists(st.integers(), max_size=2),
        max_size=6,
    ),
    st.booleans(),
)
def test_result_of_any_input_contains_only_text(values: dict[str, Any], drop_empty: bool) -> None:
    lead, found = clean(values, drop_empty=drop_empty)
    assert all(isinstance(text, str) for text in lead.values())
    assert {problem.field for problem in found} - {"lead"} <= set(values)
    assert drop_empty is False or all(text.strip() for text in lead.values())
