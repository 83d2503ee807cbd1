# SPDX-License-Identifier: Apache-2.0
"""Mistakes are recognised as what was meant, and told all at once."""

from __future__ import annotations

import pytest

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.validation import Problem, hint, nearest, validation_error

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
        ("eamli", None),  # two slips are too many in a short word
        ("first_name", "firstName"),
        ("First Name", "firstName"),
        ("fristNme", "firstName"),
        ("companyDoman", "companyDomain"),
        ("compnyDomian", "companyDomain"),
        ("email2", None),
        ("firstName1", None),
        ("smx", None),  # in a word of three letters every slip is another word
        ("plan", None),
        ("", None),
        ("é" * 5, None),
    ],
)
def test_a_slip_of_the_keys_is_recognised_and_a_name_of_its_own_is_not(
    written: str, meant: str | None
) -> None:
    assert nearest(written, NAMES) == meant


def test_a_right_name_gets_no_hint() -> None:
    assert hint("email", NAMES) == ""
    assert hint("Email", NAMES) == " (did you mean 'email'?)"


def test_a_refusal_tells_every_problem_and_that_nothing_was_sent() -> None:
    error = validation_error("The step of task 'x'", [Problem("delay", "no"), Problem("url", "not that")])
    assert isinstance(error, LemlistValidationError)
    assert str(error) == "The step of task 'x' is wrong, nothing was sent. delay: no; url: not that."
