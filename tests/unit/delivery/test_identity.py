# SPDX-License-Identifier: Apache-2.0
"""A person is recognised however the row is written, and two people are never taken for one."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.delivery.identity import (
    Kind,
    identifies,
    identities,
    is_same,
    person_key,
    profile_of,
)

ANA = {"email": "ana@example.com", "linkedinUrl": "https://linkedin.com/in/ana", "phone": "+33 1 23"}

#: Few values, so that they are often equal.
IDENTITIES = st.builds(
    identities,
    st.fixed_dictionaries(
        {},
        optional={
            "email": st.sampled_from(["a@example.com", "A@example.com", "b@example.com", " "]),
            "linkedinUrl": st.sampled_from(
                ["linkedin.com/in/a", "linkedin.com/in/b", "linkedin.com/company/c"]
            ),
            "phone": st.sampled_from(["+331", "00331", "2"]),
            "firstName": st.sampled_from(["Ana", "ana", "Ben"]),
        },
    ),
    st.sampled_from([None, "", "1", "2"]),
)


# --- Identities -----------------------------------------------------------------------------------------


def test_lead_has_every_identity_that_it_offers_strongest_first() -> None:
    found = identities({**ANA, "firstName": " Ana ", "plan": "pro"}, " CRM-7 ")
    assert list(found.items()) == [
        (Kind.KEY, "CRM-7"),
        (Kind.EMAIL, "ana@example.com"),
        (Kind.PROFILE, "/in/ana"),
        (Kind.PHONE, '33123 ["ana", ""]'),
    ]
    assert sorted(Kind) == [Kind.KEY, Kind.EMAIL, Kind.PROFILE, Kind.PHONE, Kind.CONTENT]


def test_content_identifies_only_a_lead_without_another_identity() -> None:
    assert identities({"plan": "pro", "firstName": "Ana", "note": " "}) == {
        Kind.CONTENT: '[["firstName", "Ana"], ["plan", "pro"]]'
    }
    assert [*identities({"firstName": "Ana"}, key="7")] == [Kind.KEY]


def test_lead_without_values_has_no_identity() -> None:
    assert identities({"email": " ", "linkedinUrl": "", "phone": "", "note": " "}, key="  ") == {}


def test_addresses_differ_in_more_than_case() -> None:
    assert identities({"email": " Ana@Example.COM "}) == {Kind.EMAIL: "ana@example.com"}
    assert not is_same(identities({"email": "info@groß.de"}), identities({"email": "info@gross.de"}))


def test_page_that_is_not_a_persons_counts_only_without_an_address() -> None:
    page = {"linkedinUrl": "https://www.linkedin.com/company/Example/"}
    assert identities(page) == {Kind.PROFILE: "linkedin.com/company/example"}
    assert [*identities({**page, "email": "ana@example.com"})] == [Kind.EMAIL]


@pytest.mark.parametrize(
    ("url", "profile"),
    [
        ("https://www.linkedin.com/in/Ana/?src=x#about", "/in/ana"),
        ("HTTP://LINKEDIN.COM/IN/ANA", "/in/ana"),
        ("linkedin.com/in/ana", "/in/ana"),
        ("www.linkedin.com/in/ana/", "/in/ana"),
        ("//linkedin.com:443/in/ana", "/in/ana"),
        (" https://fr.linkedin.com/in/andr%C3%A9/en ", "/in/andré"),
        ("m.linkedin.com/in/André", "/in/andré"),
        ("https://www.linkedin.com/sales/lead/ACwAAbC,NAME_SEARCH,t0k", "/sales/ACwAAbC"),
        ("https://www.linkedin.com/sales/people/ACwAAbC%2CNAME_SEARCH%2Cother?x=1", "/sales/ACwAAbC"),
        ("linkedin.com/sales/lead/ACwAAbC", "/sales/ACwAAbC"),
    ],
)
def test_spellings_of_a_profile_are_equal(url: str, profile: str) -> None:
    assert profile_of(url) == profile


def test_different_pages_have_different_profiles() -> None:
    urls = [
        "https://linkedin.com/in/ana",
        "https://linkedin.com/in/anna",
        "https://linkedin.com/in/%E8",
        "https://linkedin.com/in/%E9",
        "https://linkedin.com/sales/lead/ACwAAbC,NAME_SEARCH,t0k",
        "https://linkedin.com/sales/lead/ACwAABC,NAME_SEARCH,t0k",
        "https://linkedin.com/company/ana",
        "https://linkedin.com/profile/view?id=1",
        "https://linkedin.com/profile/view?id=2",
        "https://notlinkedin.com/in/ana",
        "https://example.com/linkedin.com/in/ana",
        "https://linkedin.com.example.com/in/ana",
        "/in/ben",
        "@/in/ana",
        "https://[/in/ana",
    ]
    assert len({profile_of(url) for url in urls}) == len(urls)
    assert [url for url in urls if profile_of(url).startswith("/")] == urls[:6]


@given(st.text())
def test_any_text_has_a_profile(text: str) -> None:
    assert profile_of(text) == profile_of(f" {text} ")


# --- The same person ------------------------------------------------------------------------------------


@given(IDENTITIES, IDENTITIES)
def test_same_person_is_symmetric_and_reflexive(one: dict[Kind, str], other: dict[Kind, str]) -> None:
    assert is_same(one, other) == is_same(other, one)
    assert is_same(one, one) == bool(one)


def test_equal_key_means_the_same_person() -> None:
    assert is_same(identities({"email": "ana@old.com"}, "7"), identities({"email": "ana@new.com"}, "7"))


def test_different_keys_do_not_make_two_people() -> None:
    assert is_same(identities(ANA, "7"), identities(ANA, "8"))
    assert not is_same(identities({"firstName": "Ana"}, "7"), identities({"firstName": "Ana"}, "8"))


def test_strongest_identity_that_both_have_decides() -> None:
    profile = {"linkedinUrl": ANA["linkedinUrl"]}
    assert is_same(identities(ANA), identities(profile))
    assert not is_same(identities(ANA), identities({**profile, "email": "ben@example.com"}))
    assert is_same(identities(ANA), identities({"phone": ANA["phone"]}))
    assert not is_same(identities(ANA), identities({"linkedinUrl": "linkedin.com/in/x", "phone": "+33 1 23"}))


def test_people_who_share_a_phone_number_are_told_apart_by_name() -> None:
    ana, ben = ({"phone": "+33 1 23", "firstName": name} for name in ("Ana", "Ben"))
    assert not is_same(identities(ana), identities(ben))
    assert is_same(identities(ana), identities({"phone": "0033123", "firstName": "ANA"}))


def test_people_without_a_common_identity_are_different() -> None:
    leads = [
        {"email": "ana@example.com"},
        {"phone": "1"},
        {"firstName": "Ana"},
        {"linkedinUrl": "x.com/a"},
        {},
    ]
    assert not any(is_same(identities(one), identities(other)) for one, other in combinations(leads, 2))


# --- One lead -------------------------------------------------------------------------------------------


def test_key_of_a_person_is_that_of_the_strongest_identity() -> None:
    assert person_key(ANA) == person_key({"email": "ANA@example.com", "plan": "pro"})
    assert person_key({"linkedinUrl": "linkedin.com/in/Ana/"}) == person_key(
        {**ANA, "email": "", "firstName": "Ana"}
    )
    leads: list[dict[str, str]] = [ANA, {"phone": "33123"}, {"firstName": "Ana"}, {"lastName": "Ana"}, {}]
    assert len({person_key(lead) for lead in leads}) == len(leads)


def test_key_of_a_person_does_not_contain_the_address() -> None:
    assert b"ana" not in person_key({"email": "ana@example.com"})


def test_lead_can_be_found_again_by_address_profile_or_phone_number() -> None:
    assert all(identifies({name: value}) for name, value in ANA.items())
    assert not identifies({"firstName": "Ana", "email": "", "phone": "unknown"})
