# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_duration,
    check_number,
    check_part,
    checked_id,
    checked_ids,
    given_but_empty,
    given_names,
    is_from_mapped,
    or_none,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistValidationError

WHAT = "The lead_id of task 'wait'"
EMPTY = [None, "", " ", "None", " none\n", "null", "NaN", float("nan")]


@pytest.mark.parametrize("value", EMPTY)
def test_empty_values_in_every_spelling_are_empty(value):
    assert given_but_empty(value)
    with pytest.raises(LemlistValidationError, match=f"{WHAT} is empty.*Nothing was sent"):
        checked_id(value, WHAT)


@pytest.mark.parametrize("value", ["lea_1", "Nonesuch", 0, 0.0, False, [], {}])
def test_other_values_are_not_empty(value):
    assert not given_but_empty(value)


@pytest.mark.parametrize("value", ["lea_1", " lea_1", "lea_1\n", "\tlea_1 "])
def test_ids_lose_surrounding_spaces(value):
    assert checked_id(value, WHAT) == "lea_1"


@pytest.mark.parametrize("value", [5, 1.5, True, ["lea_1"], {"_id": "lea_1"}, b"lea_1"])
def test_an_id_must_be_text(value):
    with pytest.raises(LemlistValidationError, match=f"{WHAT} must be an id, not {type(value).__name__}"):
        checked_id(value, WHAT)


@pytest.mark.parametrize("value", ["lea 1", "lea_1\nlea_2", "lea_1\u00a0lea_2"])
def test_an_id_has_no_spaces_inside(value):
    with pytest.raises(LemlistValidationError, match="must be an id, not 'lea"):
        checked_id(value, WHAT)


def test_the_caller_chooses_the_error_class():
    with pytest.raises(LemlistConfigurationError):
        checked_id(None, WHAT, error=LemlistConfigurationError)


def test_none_counts_as_given_on_a_mapped_task_only():
    arguments = {"campaign_id": "cam_1", "lead_id": None, "since": NOT_GIVEN}
    assert given_names(arguments, mapped=False) == ("campaign_id",)
    assert given_names(arguments, mapped=True) == ("campaign_id", "lead_id")


def test_an_argument_that_was_not_given_is_none():
    assert or_none(NOT_GIVEN) is None
    assert or_none("") == ""


def test_the_default_survives_copies():
    assert copy.deepcopy(NOT_GIVEN) is NOT_GIVEN
    assert pickle.loads(pickle.dumps(NOT_GIVEN)) is NOT_GIVEN


class _Operator(BaseOperator):
    mapped: Any = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mapped = is_from_mapped(self)


@pytest.mark.parametrize("mapped", [False, True])
def test_the_constructor_knows_whether_airflow_made_it_from_a_mapped_operator(mapped):
    made = _Operator(task_id="task", **({"_airflow_from_mapped": True} if mapped else {}))
    assert made.mapped is mapped


@pytest.mark.parametrize("value", [3, -0.1, 1.01, "0.5", None, True, float("nan"), float("inf")])
def test_a_part_is_from_zero_to_one(value):
    with pytest.raises(LemlistConfigurationError, match="The limit of task 't' must be a part from 0 to 1"):
        check_part("limit", {"limit": value, "task_id": "t"})


def test_a_percentage_is_told_as_a_part():
    with pytest.raises(LemlistConfigurationError, match=r"not 3\. Write 0\.03 for 3 %\."):
        check_part("limit", {"limit": 3, "task_id": "t"})


@pytest.mark.parametrize("value", [-1, "5", None, False, float("nan"), float("inf")])
def test_a_limit_is_a_number_from_zero(value):
    with pytest.raises(LemlistConfigurationError, match="The limit of task 't' must be a number from 0"):
        check_number("limit", {"limit": value, "task_id": "t"})


@pytest.mark.parametrize("value", [timedelta(), -timedelta(1), 7, None, "7 days"])
def test_a_duration_is_a_positive_timedelta(value):
    with pytest.raises(LemlistConfigurationError, match="of task 't' must be a positive timedelta"):
        check_duration("window", {"window": value, "task_id": "t"})


@pytest.mark.parametrize("value", ["lea_1", ["lea_1"], (" lea_1 ", "lea_1"), {"lea_1"}])
def test_one_id_and_several_are_read_alike(value):
    assert checked_ids(value, WHAT) == ("lea_1",)


@pytest.mark.parametrize("value", [[], {}, 5, ["lea_1", ""], [["lea_1"]]])
def test_a_list_of_ids_has_only_ids(value):
    with pytest.raises(LemlistConfigurationError, match=f"{WHAT} .*Nothing was sent"):
        checked_ids(value, WHAT)
