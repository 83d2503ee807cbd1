# SPDX-License-Identifier: Apache-2.0
"""Misspelled names are recognised, and one error lists all problems."""

from __future__ import annotations

import pytest

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.validation import Finding, Problem, hint, nearest, validation_error

NAMES = ("email", "firstName", "companyDomain", "sms")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("email", "email"),
        ("Email", "email"),
        ("e-mail", "email"),
        ("emial", "email"),
        ("emai", "email"),
        ("emaail", "email"),
        ("eamli", None),  # two typos are too many in a short word
        ("first_name", "firstName"),
        ("First Name", "firstName"),
        ("fristNme", "firstName"),
        ("companyDoman", "companyDomain"),
        ("compnyDomian", "companyDomain"),
        ("email2", None),
        ("firstName1", None),
        ("smx", None),  # with three letters, every typo is another word
        ("plan", None),
        ("", None),
        ("é" * 5, None),
    ],
)
def test_typo_is_recognised_and_another_name_is_not(written: str, meant: str | None) -> None:
    assert nearest(written, NAMES) == meant


def test_correct_name_gets_no_hint() -> None:
    assert hint("email", NAMES) == ""
    assert hint("Email", NAMES) == " (did you mean 'email'?)"


def test_error_lists_every_problem_and_says_that_nothing_was_sent() -> None:
    error = validation_error("The step of task 'x'", [Problem("delay", "no"), Problem("url", "not that")])
    assert isinstance(error, LemlistValidationError)
    assert str(error) == "The step of task 'x' is wrong: delay: no; url: not that. Nothing was sent."


def test_finding_counts_all_and_names_the_first_five() -> None:
    rows, leads = Finding(), Finding("lead")
    for number in range(1, 8):
        leads.add(f"lea_{number}")
        if number <= 5:
            rows.add(number)
        if number == 1:
            assert (str(rows), str(leads)) == ("row 1", "lead lea_1")
    assert str(rows) == "5 rows (1, 2, 3, 4, 5)"
    assert str(leads) == "7 leads (lea_1, lea_2, lea_3, lea_4, lea_5, …)"
