# SPDX-License-Identifier: Apache-2.0
"""A row is recognised in another attempt, order or run, and a person is planned once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.delivery.identity import person_key, profile_key
from airflow_provider_lemlist.load.worklist import Worklist, changed_fields, content_hash

LEAD = st.dictionaries(st.text(min_size=1), st.text())


@pytest.fixture
def worklist() -> Iterator[Worklist]:
    with closing(Worklist()) as worklist:
        yield worklist


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"email": "Ana@Example.com", "plan": "a"}, {"email": "ana@example.com", "plan": "b"}),
        (
            {"linkedinUrl": "https://www.linkedin.com/in/Ana/?src=x", "plan": "a"},
            {"linkedinUrl": "http://linkedin.com/in/ana"},
        ),
        (
            {"linkedinUrl": "https://fr.linkedin.com/in/andr%C3%A9/en"},
            {"linkedinUrl": "https://m.linkedin.com/in/Andr\u00e9"},
        ),
        ({"firstName": "Ana", "plan": "a"}, {"plan": "a", "firstName": "Ana", "note": ""}),
    ],
)
def test_same_person_written_differently_has_same_key(one: dict[str, str], other: dict[str, str]) -> None:
    assert person_key(one) == person_key(other)


def test_different_people_have_different_keys() -> None:
    leads = [
        {"email": "ana@example.com"},
        {"email": "ana+x@example.com"},
        {"linkedinUrl": "https://linkedin.com/in/ana"},
        {"linkedinUrl": "https://linkedin.com/in/ben"},
        {"linkedinUrl": "https://linkedin.com/company/ana"},
        {"linkedinUrl": "https://notlinkedin.com/in/ana"},
        {"firstName": "Ana"},
        {"firstName": "Ana", "plan": "x"},
        {"lastName": "Ana"},
    ]
    assert len({person_key(lead) for lead in leads}) == len(leads)


def test_key_does_not_contain_the_address() -> None:
    assert b"ana" not in person_key({"email": "ana@example.com"})


def test_person_is_planned_once_and_each_further_row_has_its_own_key(worklist: Worklist) -> None:
    first, known = worklist.add(1, {"email": "ana@example.com"})
    assert known is None
    second, known = worklist.add(2, {"email": "ANA@example.com", "plan": "x"})
    assert known == 1
    third, known = worklist.add(3, {"email": "ana@example.com"})
    assert known == 1
    assert len({first, second, third}) == 3
    assert [row.number for row in worklist.planned()] == [1]


PROFILE = {"linkedinUrl": "https://www.linkedin.com/in/ana"}
WITH_ADDRESS = {"email": "ana@example.com", **PROFILE}


@pytest.mark.parametrize("leads", [[PROFILE, WITH_ADDRESS], [WITH_ADDRESS, PROFILE]])
def test_row_with_address_wins_over_row_with_same_profile(
    worklist: Worklist, leads: list[dict[str, str]]
) -> None:
    for number, lead in enumerate(leads, 1):
        worklist.add(number, lead)
    (refused,) = worklist.reject_same_profiles()
    assert leads[refused - 1] == PROFILE
    ((number, key, outcome, message),) = worklist.rejected()
    assert (number, outcome, message[-5:]) == (refused, "duplicate", f"row {3 - refused}")
    assert key not in (person_key(PROFILE), person_key(WITH_ADDRESS))
    assert [row.lead for row in worklist.planned()] == [WITH_ADDRESS]


def test_people_with_different_addresses_are_all_planned_whatever_their_profile(worklist: Worklist) -> None:
    worklist.add(1, WITH_ADDRESS)
    worklist.add(2, {"email": "ben@example.com", **PROFILE})
    worklist.add(3, {"linkedinUrl": "https://www.linkedin.com/company/acme"})
    worklist.add(4, {"email": "cy@example.com", "linkedinUrl": "https://www.linkedin.com/company/acme"})
    assert not list(worklist.reject_same_profiles())
    worklist.add_settled(
        [(person_key(WITH_ADDRESS), "created"), (profile_key(WITH_ADDRESS) or b"", "created")]
    )
    assert [row.number for row in worklist.planned()] == [2, 3, 4]


@pytest.mark.parametrize(("sooner", "later"), [(PROFILE, WITH_ADDRESS), (WITH_ADDRESS, PROFILE)])
def test_person_who_gains_or_loses_address_is_matched_by_profile(
    worklist: Worklist, sooner: dict[str, str], later: dict[str, str]
) -> None:
    keys = [key for key in (person_key(sooner), profile_key(sooner)) if key]
    worklist.add(1, later)
    worklist.add_previous((key, "lea_1", "content") for key in keys)
    assert [row.previous for row in worklist.planned()] == [("lea_1", "content")]
    worklist.add_settled((key, "created") for key in keys)
    assert not list(worklist.planned())
    assert worklist.settled_outcomes() == {"created": 1}


def test_settled_rows_are_not_planned(worklist: Worklist) -> None:
    keys = [worklist.add(number, {"email": f"p{number}@example.com"})[0] for number in (1, 2, 3)]
    worklist.add_settled([(keys[1], "created"), (b"of another source", "created")])
    assert [row.number for row in worklist.planned()] == [1, 3]
    assert worklist.settled_outcomes() == {"created": 1}


def test_row_is_in_doubt_until_released(worklist: Worklist) -> None:
    keys = [worklist.add(number, {"email": f"p{number}@example.com"})[0] for number in (1, 2, 3)]
    begun, released = (1, True), (0, False)
    for key, marks in zip(keys, [[begun, released], [begun, released, begun], []], strict=True):
        worklist.add_in_flight((key, *mark) for mark in marks)
    worklist.add_in_flight([(b"of another source", 1, True)])
    assert [(row.attempts, row.in_doubt) for row in worklist.planned()] == [
        (1, False),
        (2, True),
        (0, False),
    ]
    assert len(worklist.doubts_outside_source()) == 1
    worklist.add_settled([(b"of another source", "created")])
    assert len(worklist.doubts_outside_source()) == 0


@given(LEAD, LEAD)
def test_changed_fields_are_the_fields_whose_values_differ(old: dict[str, str], new: dict[str, str]) -> None:
    assert changed_fields(new, content_hash(new)) == {}
    assert changed_fields(new, content_hash(old)) == {
        name: value for name, value in new.items() if name not in old or old[name] != value
    }


def test_worklist_file_has_no_name() -> None:
    with closing(Worklist()) as worklist:
        for number in range(50_000):  # enough to leave the cache
            worklist.add(number, {"email": f"person-{number}@example.com", "note": "x" * 100})
        assert [name for name in open_files() if "etilqs" in name and name.endswith("(deleted)")]


def open_files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{number}")
