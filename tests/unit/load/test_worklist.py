# SPDX-License-Identifier: Apache-2.0
"""Every row has one plan: a person who is in the source twice is sent once, and only so many are new."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_lemlist.delivery.identity import Kind, identities, is_same
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.plan import Situation
from airflow_provider_lemlist.load.worklist import Worklist

SECRET = b"s" * 32
SITUATION = Situation(datetime(2026, 11, 17, tzinfo=UTC), "", lambda lead: {})
SOURCE = "people.load"
PROFILE = {"linkedinUrl": "https://www.linkedin.com/in/ana"}
PHONE = {"phone": "+33 1", "firstName": "Ana"}
Row = tuple[Mapping[str, str], str | None]

#: Few values, so that they are often equal; with a key of the source.
ROWS = st.tuples(
    st.fixed_dictionaries(
        {},
        optional={
            "email": st.sampled_from(["a@example.com", "A@example.com", "b@example.com"]),
            "linkedinUrl": st.sampled_from(["linkedin.com/in/a", "linkedin.com/in/b"]),
            "phone": st.sampled_from(["+331", "2"]),
        },
    ).filter(bool),
    st.sampled_from([None, None, "1", "2"]),
)


@pytest.fixture
def worklist() -> Iterator[Worklist]:
    with closing(Worklist(SECRET)) as worklist:
        yield worklist


def options(**given: Any) -> LoadOptions:
    run = Run("tuesday", "2026-11-17", SOURCE, "a test")
    return LoadOptions("cam_1", None, None, None, run, **given)  # type: ignore[arg-type]


def plan(worklist: Worklist, **given: Any) -> dict[int, str]:
    """Plan the rows; return the outcome or action of each."""
    worklist.plan(options(**given), SITUATION)
    planned = {entry.row: entry.outcome for entry in worklist.settled()}
    return {**planned, **{job.row: job.plan.action for job in worklist.jobs()}}  # type: ignore[dict-item]


def loaded(worklist: Worklist, *names: str, order: str = "2026-11-16") -> None:
    """Let an earlier run have loaded people, who are in the campaign."""
    leads = [{"_id": f"lea_{name}", "status": "inProgress", "email": email(name)["email"]} for name in names]
    for lead in leads:
        line = {"outcome": "created", "lead_id": lead["_id"], "at": ""}
        run = {"order": order, "source": SOURCE}
        worklist.people.record(worklist.people.keys_of(email(lead["email"][0])), line, run)
    worklist.people.add_leads(leads)


def email(name: str) -> dict[str, str]:
    return {"email": f"{name}@example.com"}


def strength(row: Row) -> Kind:
    return min(identities(row[0]))


def remaining(rows: list[Row]) -> set[int]:
    """Return the places of the rows that are no duplicates."""
    with closing(Worklist(SECRET)) as worklist:
        duplicates = [
            each for number, row in enumerate(rows, 1) for each in worklist.add(number, row[0], row[1])
        ]
        assert len({*duplicates}) == len(duplicates)
        planned = plan(worklist)
        assert {number for number, what in planned.items() if what == "duplicate"} == {*duplicates}
        return {number - 1 for number, what in planned.items() if what == "create"}


def same(one: Row, other: Row) -> bool:
    return is_same(identities(*one), identities(*other))


# --- Duplicates ---------------------------------------------------------------------------------------------


@given(st.lists(ROWS, max_size=7))
def test_no_two_rows_of_one_person_are_sent_and_no_person_is_lost(rows: list[Row]) -> None:
    left = remaining(rows)
    for place in left:
        assert not any(same(rows[place], rows[other]) for other in left - {place})
    for place in range(len(rows)):
        reached = {place}  # who is the same person as someone who is the same person …
        while more := {
            other
            for other in range(len(rows))
            if other not in reached and any(same(rows[other], rows[each]) for each in reached)
        }:
            reached |= more
        assert reached & left


@given(st.lists(ROWS, max_size=7))
def test_row_that_says_most_about_a_person_stays_in_any_order_and_of_equals_the_first(
    rows: list[Row],
) -> None:
    groups = [frozenset(n for n, other in enumerate(rows) if same(row, other)) for row in rows]
    # Unless a row connects two that are not the same person.
    assume(all(groups[other] == group for group in groups for other in group))
    assert remaining(rows) == {min(group, key=lambda n: (strength(rows[n]), n)) for group in groups}


def test_row_with_address_stays_whatever_the_order() -> None:
    full: Row = ({**email("ana"), **PROFILE, **PHONE}, None)
    rows: list[Row] = [(PROFILE, None), (PHONE, None), full]
    for order in permutations(rows):
        assert [order[place] for place in remaining([*order])] == [full]


def test_duplicate_names_the_row_that_stays(worklist: Worklist) -> None:
    assert worklist.add(1, PROFILE) == []
    assert worklist.add(2, {**email("ana"), **PROFILE}) == [1]
    assert worklist.add(3, {"email": "ANA@example.com"}) == [3]
    plan(worklist)
    assert [(entry.row, entry.outcome, entry.message) for entry in worklist.settled()] == [
        (1, "duplicate", "the same person as row 2"),
        (3, "duplicate", "the same person as row 2"),
    ]


def test_people_with_different_addresses_are_all_sent_whatever_their_profile(worklist: Worklist) -> None:
    company = {"linkedinUrl": "https://www.linkedin.com/company/acme"}
    leads = [{**email("ana"), **PROFILE}, {**email("ben"), **PROFILE}, company, {**email("cy"), **company}]
    for number, lead in enumerate(leads, 1):
        assert worklist.add(number, lead) == []
    assert [(job.row, job.lead) for job in worklist.jobs()] == []
    plan(worklist)
    assert [(job.row, job.lead) for job in worklist.jobs()] == [*enumerate(leads, 1)]


def test_rows_of_one_key_are_one_person_whatever_the_address(worklist: Worklist) -> None:
    assert worklist.add(1, email("ana"), "7") == []
    assert worklist.add(2, email("ana.new"), "7") == [2]
    assert worklist.add(3, email("ana"), "8") == [3]


# --- What earlier attempts of the run have settled ----------------------------------------------------------


def test_outcome_of_an_earlier_attempt_is_kept_unless_the_row_takes_a_request(worklist: Worklist) -> None:
    loaded(worklist, "a", "b", order="2026-11-17")
    for number, name in enumerate("abc", 1):
        worklist.add(number, {**email(name), "firstName": name})
        worklist.people.add_settled(1, [(worklist.people.keys_of(email(name)), "created")])
    replaced = worklist.plan(options(if_exists="skip"), SITUATION)
    assert {*replaced} == {*worklist.people.keys_of(email("c"))}
    assert [job.row for job in worklist.jobs()] == [3]
    assert worklist.kept() == {"created": 2}
    assert not list(worklist.settled())


def test_duplicate_has_no_outcome_of_an_earlier_attempt(worklist: Worklist) -> None:
    loaded(worklist, "a", order="2026-11-17")
    worklist.add(1, email("a"))
    worklist.add(2, email("a"))
    worklist.people.add_settled(1, [(worklist.people.keys_of(email("a")), "created")])
    assert plan(worklist) == {2: "duplicate"}
    assert worklist.kept() == {"created": 1}


# --- New people ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", range(6))
def test_no_more_new_people_than_allowed_are_created_in_the_order_of_the_source(
    worklist: Worklist, most: int
) -> None:
    loaded(worklist, "b")
    for number, name in enumerate("abcde", 1):
        worklist.add(number, email(name))
    worklist.add(6, email("a"))
    new = {number: "create" if place < most else "waiting" for place, number in enumerate((1, 3, 4, 5))}
    assert plan(worklist, max_new=most) == new | {2: "exists", 6: "duplicate"}
    assert worklist.requests() == min(most, 4)


def test_new_people_of_all_attempts_of_a_run_count(worklist: Worklist) -> None:
    loaded(worklist, "a", "b", order="2026-11-17")
    for number, name in enumerate("abcde", 1):
        worklist.add(number, email(name))
    worklist.people.add_settled(1, [(worklist.people.keys_of(email("a")), "created")])
    run = {"order": "2026-11-17", "source": SOURCE}
    worklist.people.mark(worklist.people.keys_of(email("b")), run, in_flight=True)
    assert plan(worklist, max_new=3) == {2: "created", 3: "create", 4: "waiting", 5: "waiting"}


def test_updates_do_not_count_as_new_people(worklist: Worklist) -> None:
    loaded(worklist, "a")
    worklist.add(1, {**email("a"), "firstName": "Ana"})
    assert plan(worklist, max_new=0, if_exists="update") == {1: "update"}


# --- People who left the source -----------------------------------------------------------------------------


def test_people_who_are_in_no_row_have_left_the_source(worklist: Worklist) -> None:
    loaded(worklist, "a", "b", "c", "d")
    worklist.add(1, email("a"))
    worklist.add(2, email("a"))
    worklist.add_invalid(3, email("b"), None, "firstName: no")
    plan(worklist, if_missing="pause")
    assert worklist.plan_departures(options(if_missing="pause")) == 2
    assert [(job.row, job.plan.action, job.plan.lead_id) for job in worklist.jobs()] == [
        (None, "pause", "lea_c"),
        (None, "pause", "lea_d"),
    ]
    assert [job.lead for job in worklist.jobs()] == [email("c"), email("d")]
    assert worklist.departures() == worklist.requests() == 2
    worklist.cancel_departures()
    assert not list(worklist.jobs())


def test_people_who_left_are_counted_though_nothing_is_done_to_them(worklist: Worklist) -> None:
    loaded(worklist, "a", "b")
    worklist.add(1, email("a"))
    plan(worklist)
    assert worklist.plan_departures(options()) == 1
    assert worklist.departures() == 0


def test_rows_are_sent_before_people_who_left(worklist: Worklist) -> None:
    loaded(worklist, "a")
    worklist.add(1, email("b"))
    worklist.add(2, email("c"))
    plan(worklist)
    worklist.plan_departures(options(if_missing="delete"))
    assert [job.row for job in worklist.jobs()] == [1, 2, None]


def test_invalid_rows_that_name_no_one_are_counted(worklist: Worklist) -> None:
    worklist.add_invalid(1, {}, None, "email: no")
    worklist.add_invalid(2, {"firstName": "Ana"}, None, "email: no")
    worklist.add_invalid(3, {"firstName": "Ana"}, "7", "email: no")
    worklist.add_invalid(4, PROFILE, None, "email: no")
    assert worklist.nameless == 2
    assert plan(worklist) == dict.fromkeys(range(1, 5), "invalid")


def test_row_of_a_source_is_sent_as_it_was_checked(worklist: Worklist) -> None:
    lead = {"email": "ana@example.com", "firstName": "Zoë", "note": 'a "quote",\n a line', "plan": ""}
    worklist.add(1, lead)
    plan(worklist)
    (job,) = worklist.jobs()
    assert json.dumps(job.lead) == json.dumps(lead)
    assert [key[0] for key in job.keys] == [Kind.EMAIL]
