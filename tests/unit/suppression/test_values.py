# SPDX-License-Identifier: Apache-2.0
"""An entry excludes everyone whom it names, in every spelling, and no one else."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.delivery.identity import Kind, identities
from airflow_provider_lemlist.suppression.values import Form, Value, read_value, spellings_of, values_of

labels = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=8).map(
    lambda text: f"x{text.strip('-')}"
)
domains = st.lists(labels, min_size=1, max_size=3).map(lambda parts: ".".join([*parts, "example"]))
names = st.text(string.ascii_letters + string.digits + "+._-", min_size=1, max_size=12)
handles = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
digits = st.text(string.digits, min_size=6, max_size=12).map(lambda text: f"3{text}")
cases = st.booleans()
spaces = st.tuples(st.integers(0, 2), st.integers(0, 2))


def matches(entry: str, lead: dict[str, str]) -> bool:
    value = read_value(entry)
    assert value is not None, entry
    return value in values_of(lead)


def spelled(text: str, upper: bool, around: tuple[int, int]) -> str:
    return " " * around[0] + (text.upper() if upper else text) + " " * around[1]


@given(names, domains, cases, spaces, cases)
def test_address_matches_in_every_case(
    name: str, domain: str, upper: bool, around: tuple[int, int], lead_upper: bool
) -> None:
    address = f"{name}@{domain}"
    assert matches(spelled(address, upper, around), {"email": spelled(address, lead_upper, around[::-1])})


@given(names, st.text(string.ascii_lowercase, min_size=1, max_size=5), domains)
def test_plus_and_what_follows_is_a_part_of_the_address(name: str, tag: str, domain: str) -> None:
    plain, tagged = f"{name}@{domain}", f"{name}+{tag}@{domain}"
    assert not matches(plain, {"email": tagged})
    assert not matches(tagged, {"email": plain})


@given(names, domains, st.lists(labels, max_size=2), cases, st.integers(0, 6), spaces)
def test_domain_matches_its_subdomains_in_every_spelling(
    name: str, domain: str, below: list[str], upper: bool, how: int, around: tuple[int, int]
) -> None:
    spellings = ("@{}", "{}", "*.{}", "*@{}", "https://{}", "http://www.{}/", "@{}.")
    entry = spelled(spellings[how].format(domain), upper, around)
    host = ".".join([*below, domain])
    assert matches(entry, {"email": f"{name}@{host.upper()}"})
    assert matches(entry, {"companyDomain": host})
    assert matches(entry, {"email": f"{name}@elsewhere.test", "companyDomain": f"https://www.{host}/"})


@given(names, domains, labels)
def test_domain_does_not_match_another_one(name: str, domain: str, prefix: str) -> None:
    # What ends in the same letters, and the domain above.
    assert not matches(f"@{domain}", {"email": f"{name}@{prefix}{domain}"})
    assert not matches(f"@{prefix}.{domain}", {"email": f"{name}@{domain}"})
    assert not matches(f"@{domain}", {"email": f"{domain}@elsewhere.test"})


@given(
    handles, st.sampled_from(["https://www.linkedin.com", "http://linkedin.com", "fr.linkedin.com"]), cases
)
def test_profile_matches_in_every_spelling(handle: str, host: str, upper: bool) -> None:
    other = f"https://www.linkedin.com/in/{handle.upper() if upper else handle}/?trk=x"
    assert matches(f"{host}/in/{handle}", {"linkedinUrl": other})
    assert not matches(f"{host}/in/{handle}x", {"linkedinUrl": other})


@given(digits, st.sampled_from([" ", "-", ".", ""]), st.sampled_from(["+", "00", ""]))
def test_phone_matches_by_its_digits(number: str, separator: str, prefix: str) -> None:
    written = prefix + separator.join([number[:2], number[2:4], number[4:]])
    assert matches(written, {"phone": f"+{number}"})
    assert matches(f"+{number}", {"phone": written, "firstName": "Ana"})
    assert not matches(f"+{number}1", {"phone": written})


@pytest.mark.parametrize(
    "lead",
    [
        {"email": "Ana+x@Norte.Example"},
        {"linkedinUrl": "https://linkedin.com/in/Ana/"},
        {"phone": "+33 612345"},
    ],
    ids=lambda lead: next(iter(lead)),
)
def test_entries_are_compared_as_identities_are(lead: dict[str, str]) -> None:
    [(kind, text)] = identities(lead).items()
    mine = values_of(lead)[0].text
    assert text.startswith(f"{mine} ") if kind is Kind.PHONE else text == mine


@pytest.mark.parametrize(
    "entry",
    ["", " ", "@", "n/a", "Ana Ruiz", "a@b@c.example", "ana@", "@com", "ana@localhost", "12345", "17",
     "id 17", "null", "*", "https://", "- - -"],
)  # fmt: skip
def test_what_names_no_one_is_no_entry(entry: str) -> None:
    assert read_value(entry) is None


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("ana@xn--mnchen-3ya.example", Value(Form.ADDRESS, "ana@münchen.example")),
        ("@xn--mnchen-3ya.example", Value(Form.DOMAIN, "münchen.example")),
        ("münchen.example", Value(Form.DOMAIN, "münchen.example")),
        ("@xn--\udcff.example", None),
        ("https://example.com/team/ana", Value(Form.PROFILE, "example.com/team/ana")),
        ("www.linkedin.com/company/norte", Value(Form.PROFILE, "linkedin.com/company/norte")),
        ("https://norte.example:8080/", Value(Form.DOMAIN, "norte.example")),
        ("www.norte.example", Value(Form.DOMAIN, "norte.example")),
        ("@xn--zzz9.norte.example", Value(Form.DOMAIN, "xn--zzz9.norte.example")),
        ("(030) 12-34 56", Value(Form.PHONE, "030123456")),
        ("030/123456", Value(Form.PHONE, "030123456")),
        ("110 112", Value(Form.PHONE, "110112")),
        ("+33 6 12 34 56 ext. 7", Value(Form.PHONE, "3361234567")),
    ],
)
def test_each_form_is_told_from_the_others(entry: str, value: Value | None) -> None:
    assert read_value(entry) == value


def test_what_is_blank_or_unreadable_in_a_lead_concerns_no_entry() -> None:
    assert values_of({}) == []
    assert values_of({"email": "", "phone": "-", "linkedinUrl": " ", "companyDomain": "Norte SL"}) == []


@given(st.text(max_size=40))
def test_any_text_can_be_read_and_reads_the_same_again(text: str) -> None:
    value = read_value(text)
    if value is not None and value.form in (Form.ADDRESS, Form.DOMAIN):
        assert read_value(value.text) == value


@given(names, domains, handles, digits)
def test_every_spelling_that_is_looked_up_means_the_person(
    name: str, domain: str, handle: str, number: str
) -> None:
    lead = {
        "email": f"{name}@{domain}",
        "companyDomain": f"xn--mnchen-3ya.{domain}",
        "linkedinUrl": f"http://linkedin.com/in/{handle}?x=1",
        "phone": f"00{number}",
    }
    spellings = spellings_of(lead)
    assert {read_value(text) for _, text in spellings} == {*values_of(lead)}
    assert all(form == read_value(text).form for form, text in spellings)  # type: ignore[union-attr]
    assert len({*spellings}) == len(spellings)


def test_each_value_is_looked_up_as_it_is_written_and_as_it_is_usually_written() -> None:
    lead = {
        "email": " Ana@XN--mnchen-3ya.Example",
        "linkedinUrl": "http://fr.linkedin.com/in/Ana?trk=x",
        "phone": "0033 6 12 34 56 78",
    }
    assert spellings_of(lead) == [
        (Form.ADDRESS, "ana@münchen.example"),
        (Form.ADDRESS, "ana@xn--mnchen-3ya.example"),
        (Form.ADDRESS, "Ana@XN--mnchen-3ya.Example"),
        (Form.DOMAIN, "@münchen.example"),
        (Form.DOMAIN, "@xn--mnchen-3ya.example"),
        (Form.PROFILE, "http://fr.linkedin.com/in/Ana?trk=x"),
        (Form.PROFILE, "https://www.linkedin.com/in/ana"),
        (Form.PHONE, "0033 6 12 34 56 78"),
        (Form.PHONE, "+33612345678"),
    ]
    page = "https://linkedin.com/company/norte"
    assert spellings_of({"linkedinUrl": page}) == [(Form.PROFILE, page)]


def test_person_with_an_address_takes_two_look_ups() -> None:
    assert spellings_of({"email": "ana@norte.example", "companyDomain": "norte.example"}) == [
        (Form.ADDRESS, "ana@norte.example"),
        (Form.DOMAIN, "@norte.example"),
    ]
