# SPDX-License-Identifier: Apache-2.0
"""Whom the load knows: from lemlist's list, from the ledger, and both about one person."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.delivery.identity import Kind, identities, is_same
from airflow_provider_lemlist.ledger.people import Keyring, People

SECRET = b"s" * 32
MONDAY = {"order": "2026-11-16", "source": "people.load"}
TUESDAY = {"order": "2026-11-17", "source": "people.load"}
ANA = {"email": "ana@example.com", "linkedinUrl": "https://www.linkedin.com/in/ana", "firstName": "Ana"}

#: Few values, so that they are often equal.
LEADS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(["a@example.com", "B@example.com", "b@example.com"]),
        "linkedinUrl": st.sampled_from(["linkedin.com/in/a", "linkedin.com/in/b", "linkedin.com/company/c"]),
        "phone": st.sampled_from(["+331", "00331", "2"]),
        "firstName": st.sampled_from(["Ana", "Ben"]),
    },
)
KEYS = st.sampled_from([None, "1", "2"])


@pytest.fixture
def people() -> Iterator[People]:
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        yield People(database, SECRET)


def line(outcome: str, lead_id: str | None = None, **more: Any) -> dict[str, Any]:
    return {"outcome": outcome, "lead_id": lead_id, "at": "2026-11-16T08:00:00Z", **more}


def lead(number: int, status: str = "inProgress", **fields: Any) -> dict[str, Any]:
    return {"_id": f"lea_{number}", "status": status, **fields}


# --- Keys ---------------------------------------------------------------------------------------------------


@given(st.lists(LEADS, max_size=6), LEADS, KEYS)
def test_stored_people_are_found_who_are_the_same_and_no_others(
    stored: list[dict[str, str]], wanted: dict[str, str], key: str | None
) -> None:
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        people = People(database, SECRET)
        for number, each in enumerate(stored):
            people.keys.add(number, people.keys_of(each, key and str(number)))
        found = people.keys.find(people.keys_of(wanted, key))
        assert len({*found}) == len(found)
        assert {*found} == {
            number
            for number, each in enumerate(stored)
            if is_same(identities(wanted, key), identities(each, key and str(number)))
        }
        kinds = [
            min(
                kind
                for kind, text in identities(wanted, key).items()
                if identities(stored[number], key and str(number)).get(kind) == text
            )
            for number in found
        ]
        assert kinds == sorted(kinds)  # the strongest match first


def test_key_of_the_source_belongs_to_one_person_only_the_last() -> None:
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        keys = Keyring(database, "test_keys")
        key, one, other = bytes([Kind.KEY]), bytes([Kind.EMAIL, 1]), bytes([Kind.EMAIL, 2])
        keys.add(1, [key, one])
        keys.add(2, [key, other])
        assert keys.find([key]) == [2]
        assert (keys.of(1), keys.of(2)) == ([one], [key, other])
        keys.remove(2)
        assert keys.find([key, other]) == []


def test_keys_show_nothing_of_the_person_and_differ_by_ledger(people: People) -> None:
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        other = People(database, b"t" * 32)
        mine, theirs = people.keys_of(ANA, "7"), other.keys_of(ANA, "7")
    assert [key[0] for key in mine] == [Kind.KEY, Kind.EMAIL, Kind.PROFILE]
    assert not {*mine} & {*theirs}
    assert b"ana" not in b"".join(mine).lower()
    hidden = people.sent({"plan": "pro", "tier": "pro", **ANA})
    assert hidden.keys() == {"plan", "tier"}
    assert len({*hidden.values()}) == 2  # an equal value of another variable has another hash


# --- What lemlist lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "row"),
    [
        ({"email": "Ana@Example.com"}, {"email": "ana@example.com"}),
        ({"linkedinUrl": "https://fr.linkedin.com/in/Ana/fr?x=1"}, {"linkedinUrl": "linkedin.com/in/ana"}),
        ({"phone": "+33 1 23", "firstName": "Ana"}, {"phone": "0033123", "firstName": "ana"}),
        ({"firstName": "Ana", "lastName": None, "email": ""}, {"firstName": "Ana"}),
    ],
)
def test_listed_lead_is_found_however_it_is_written(
    people: People, listed: dict[str, Any], row: dict[str, str]
) -> None:
    assert people.add_leads([lead(1, **listed), lead(2, email="ben@example.com")]) == 2
    (found,) = people.find(people.keys_of(row))
    assert (found.lead_id, found.status) == ("lea_1", "inProgress")


def test_person_who_is_no_longer_listed_is_still_known(people: People) -> None:
    people.add_leads([lead(1, **ANA)])
    people.record(people.keys_of(ANA), line("created", "lea_1"), MONDAY)
    people.add_leads([])
    (found,) = people.find(people.keys_of(ANA))
    assert (found.lead_id, found.status, found.lead) == ("lea_1", None, None)


def test_people_with_one_profile_and_different_addresses_stay_apart(people: People) -> None:
    ben = {**ANA, "email": "ben@example.com"}
    people.add_leads([lead(1, **ANA), lead(2, **ben)])
    assert [person.lead_id for person in people.find(people.keys_of(ben))] == ["lea_2"]
    without = {"linkedinUrl": ANA["linkedinUrl"]}
    assert {person.lead_id for person in people.find(people.keys_of(without))} == {"lea_1", "lea_2"}


def test_who_is_in_the_campaign_comes_first(people: People) -> None:
    people.record(people.keys_of(ANA, "7"), line("created", "lea_1"), MONDAY)
    people.add_leads([lead(2, linkedinUrl=ANA["linkedinUrl"])])
    assert [person.lead_id for person in people.find(people.keys_of(ANA, "7"))] == ["lea_2", "lea_1"]


# --- What the ledger says -----------------------------------------------------------------------------------


def test_lead_in_doubt_that_lemlist_lists_is_that_person(people: People) -> None:
    people.mark(people.keys_of(ANA), MONDAY, in_flight=True)
    people.add_leads([lead(1, **ANA)])
    (found,) = people.find(people.keys_of(ANA))
    assert (found.lead_id, bool(found.in_doubt)) == ("lea_1", True)
    people.record(people.keys_of(ANA), line("created", "lea_1"), MONDAY)
    (found,) = people.find(people.keys_of(ANA))
    assert not found.in_doubt


def test_released_mark_ends_doubt_and_leaves_nothing_to_know(people: People) -> None:
    people.mark(people.keys_of(ANA), MONDAY, in_flight=True)
    people.mark(people.keys_of(ANA), MONDAY, in_flight=False)
    assert not list(people.known())


def test_what_is_known_is_the_same_after_it_was_written_and_read(people: People) -> None:
    people.record(people.keys_of(ANA, "7"), line("created", "lea_1", sent={"plan": "x"}), MONDAY)
    people.record(people.keys_of({"phone": "1"}), line("paused", "lea_2"), MONDAY)
    people.record(people.keys_of({"phone": "2"}), line("elsewhere"), TUESDAY)
    people.mark(people.keys_of({"phone": "3"}), TUESDAY, in_flight=True)
    written = list(people.known())
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        again = People(database, SECRET)
        for each in written:
            again.add_known(each)
        assert list(again.known()) == written
        (ana,) = again.find(again.keys_of(ANA, "7"))
        assert (ana.lead_id, ana.run) == ("lea_1", MONDAY["order"])
        assert again.newest_run(MONDAY["source"]) == TUESDAY["order"]


def test_lead_that_was_not_loaded_from_here_is_not_in_the_ledger(people: People) -> None:
    people.add_leads([lead(1, **ANA)])
    assert not list(people.known())


def test_hash_of_a_value_that_the_export_shows_is_not_kept(people: People) -> None:
    people.record(people.keys_of(ANA), line("created", "lea_1", sent={"plan": "x", "tier": "y"}), MONDAY)
    people.add_leads([lead(1, **ANA, plan="pro")])
    (known,) = people.known()
    assert known["sent"] == {"tier": "y"}


def test_person_keeps_the_address_of_the_lead_when_the_row_has_another(people: People) -> None:
    people.record(people.keys_of(ANA, "7"), line("created", "lea_1"), MONDAY)
    new = {"email": "ana@new.example"}
    people.record(people.keys_of(new, "7"), line("address_changed", "lea_1"), TUESDAY)
    (person,) = people.find(people.keys_of(new, "7"))
    assert people.has_other_address(person, people.keys_of(new, "7"))
    assert not people.has_other_address(person, people.keys_of(ANA))
    assert not people.has_other_address(person, people.keys_of({"phone": "1"}, "7"))


def test_address_that_the_source_gives_later_names_the_person_too(people: People) -> None:
    people.record(people.keys_of({"linkedinUrl": ANA["linkedinUrl"]}), line("created", "lea_1"), MONDAY)
    people.record(people.keys_of(ANA), line("exists", "lea_1"), TUESDAY)
    found = people.find(people.keys_of({"email": ANA["email"]}))
    assert [person.lead_id for person in found] == ["lea_1"]


def test_new_lead_of_a_changed_address_takes_the_key(people: People) -> None:
    people.record(people.keys_of(ANA, "7"), line("created", "lea_1"), MONDAY)
    new = {"email": "ana@new.example"}
    people.record(people.keys_of(new, "7"), line("created", "lea_2"), TUESDAY)
    assert [person.lead_id for person in people.find(people.keys_of(new, "7"))] == ["lea_2"]
    assert [person.lead_id for person in people.find(people.keys_of(ANA))] == ["lea_1"]


# --- People who left the source -----------------------------------------------------------------------------


def test_person_who_has_unsubscribed_stays_so_when_the_lead_is_deleted(people: People) -> None:
    people.record(people.keys_of(ANA), line("created", "lea_1"), MONDAY)
    people.add_leads([lead(1, "unsubscribed", **ANA)])
    people.record(people.keys_of(ANA), line("gone", "lea_1"), TUESDAY)
    people.add_leads([])
    (found,) = people.find(people.keys_of(ANA))
    assert (found.left, found.status) == ("unsubscribed", None)


def test_people_leave_each_source_that_has_loaded_them(people: People) -> None:
    crm, vips = MONDAY["source"], "vips.load"
    names = ("here", "missing", "gone", "paused", "both")
    keys = {name: people.keys_of({"email": f"{name}@example.com"}) for name in (*names, "other")}
    for number, name in enumerate(names):
        people.record(keys[name], line("created", f"lea_{number}"), MONDAY)
    people.record(keys["paused"], line("paused", "lea_3"), TUESDAY)
    people.record(keys["both"], line("exists", "lea_4"), {**MONDAY, "source": vips})
    people.record(keys["other"], line("created", "lea_9"), {**TUESDAY, "source": vips})
    present = {0: "here", 1: "missing", 3: "paused", 4: "both", 9: "other", 8: "by-hand"}
    people.add_leads(lead(number, email=f"{name}@example.com") for number, name in present.items())
    people.see(people.find(keys["here"]))
    people.keep_seen(crm, TUESDAY["order"])
    assert {person.lead_id for person in people.left(crm)} == {"lea_1", "lea_3", "lea_4"}
    assert people.loaded_from(crm) == 3  # not the paused one, who was handled
    orders = [people.newest_run(source) for source in (crm, vips, "never")]
    assert orders == [TUESDAY["order"], TUESDAY["order"], ""]
    # The newest run of the other source had only the last one.
    others = {name for name in keys if people.is_in_another_source(people.find(keys[name])[0], crm)}
    assert others == {"other"}
