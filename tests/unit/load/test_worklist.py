# SPDX-License-Identifier: Apache-2.0
"""A row is the same row in another attempt, in another order, on another day; a person is taken once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.load.worklist import Worklist, changes, content_hash, profile_key, row_key

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
def test_two_ways_of_writing_one_person_are_one_key(one: dict[str, str], other: dict[str, str]) -> None:
    assert row_key(one) == row_key(other)


def test_other_people_have_other_keys() -> None:
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
    assert len({row_key(lead) for lead in leads}) == len(leads)


def test_a_key_shows_nobody() -> None:
    assert b"ana" not in row_key({"email": "ana@example.com"})


def test_a_person_is_taken_once_and_each_further_row_has_a_key_of_its_own(worklist: Worklist) -> None:
    first, known = worklist.add(1, {"email": "ana@example.com"})
    assert known is None
    second, known = worklist.add(2, {"email": "ANA@example.com", "plan": "x"})
    assert known == 1
    third, known = worklist.add(3, {"email": "ana@example.com"})
    assert known == 1
    assert len({first, second, third}) == 3
    assert [task.number for task in worklist.tasks()] == [1]


PROFILE = {"linkedinUrl": "https://www.linkedin.com/in/ana"}
WITH_ADDRESS = {"email": "ana@example.com", **PROFILE}


@pytest.mark.parametrize("leads", [[PROFILE, WITH_ADDRESS], [WITH_ADDRESS, PROFILE]])
def test_of_one_profile_the_row_with_an_address_is_taken(
    worklist: Worklist, leads: list[dict[str, str]]
) -> None:
    for number, lead in enumerate(leads, 1):
        worklist.add(number, lead)
    (refused,) = worklist.refuse_namesakes()
    assert leads[refused - 1] == PROFILE
    ((number, key, outcome, message),) = worklist.refused()
    assert (number, outcome, message[-5:]) == (refused, "duplicate", f"row {3 - refused}")
    assert key not in (row_key(PROFILE), row_key(WITH_ADDRESS))
    assert [task.lead for task in worklist.tasks()] == [WITH_ADDRESS]


def test_people_with_addresses_of_their_own_are_all_taken_whatever_their_profile(worklist: Worklist) -> None:
    worklist.add(1, WITH_ADDRESS)
    worklist.add(2, {"email": "ben@example.com", **PROFILE})
    worklist.add(3, {"linkedinUrl": "https://www.linkedin.com/company/acme"})
    worklist.add(4, {"email": "cy@example.com", "linkedinUrl": "https://www.linkedin.com/company/acme"})
    assert not list(worklist.refuse_namesakes())
    worklist.note_settled([(row_key(WITH_ADDRESS), "created"), (profile_key(WITH_ADDRESS) or b"", "created")])
    assert [task.number for task in worklist.tasks()] == [2, 3, 4]


@pytest.mark.parametrize(("sooner", "later"), [(PROFILE, WITH_ADDRESS), (WITH_ADDRESS, PROFILE)])
def test_who_gains_or_loses_an_address_is_known_by_the_profile(
    worklist: Worklist, sooner: dict[str, str], later: dict[str, str]
) -> None:
    keys = [key for key in (row_key(sooner), profile_key(sooner)) if key]
    worklist.add(1, later)
    worklist.note_previous((key, "lea_1", "content") for key in keys)
    assert [task.before for task in worklist.tasks()] == [("lea_1", "content")]
    worklist.note_settled((key, "created") for key in keys)
    assert not list(worklist.tasks())
    assert worklist.settled_outcomes() == {"created": 1}


def test_settled_rows_are_no_tasks(worklist: Worklist) -> None:
    keys = [worklist.add(number, {"email": f"p{number}@example.com"})[0] for number in (1, 2, 3)]
    worklist.note_settled([(keys[1], "created"), (b"of another source", "created")])
    assert [task.number for task in worklist.tasks()] == [1, 3]
    assert worklist.settled_outcomes() == {"created": 1}


def test_a_row_is_in_doubt_until_its_last_start_was_taken_back(worklist: Worklist) -> None:
    keys = [worklist.add(number, {"email": f"p{number}@example.com"})[0] for number in (1, 2, 3)]
    begun, cleared = (1, True), (0, False)
    for key, marks in zip(keys, [[begun, cleared], [begun, cleared, begun], []], strict=True):
        worklist.note_started((key, *mark) for mark in marks)
    worklist.note_started([(b"of another source", 1, True)])
    assert [(task.attempts, task.in_doubt) for task in worklist.tasks()] == [
        (1, False),
        (2, True),
        (0, False),
    ]
    assert worklist.doubts_elsewhere() == 1
    worklist.note_settled([(b"of another source", "created")])
    assert worklist.doubts_elsewhere() == 0


@given(LEAD, LEAD)
def test_the_changes_are_the_fields_whose_values_differ(old: dict[str, str], new: dict[str, str]) -> None:
    assert changes(new, content_hash(new)) == {}
    assert changes(new, content_hash(old)) == {
        name: value for name, value in new.items() if name not in old or old[name] != value
    }


def test_the_file_of_the_worklist_has_no_name() -> None:
    with closing(Worklist()) as worklist:
        for number in range(50_000):  # enough to leave the cache
            worklist.add(number, {"email": f"person-{number}@example.com", "note": "x" * 100})
        assert [name for name in open_files() if "etilqs" in name and name.endswith("(deleted)")]


def open_files() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{number}")
