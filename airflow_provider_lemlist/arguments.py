# SPDX-License-Identifier: Apache-2.0
"""
Checks of arguments, shared by the operators and the sensor. Pure.

One rule above all: a value that was given and is empty when the task runs is an error. An upstream task that
returned nothing would otherwise turn "this lead" into "any lead", or "this branch" into "the main sequence".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import timedelta
from enum import Enum
from typing import Any, Final, get_args

from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistValidationError,
)
from airflow_provider_lemlist.templating import is_open


class _Default(Enum):
    NOT_GIVEN = "not given"


#: The default of an optional argument: tells ``lead_id=None`` of a mapped task from no ``lead_id`` at all.
NOT_GIVEN: Final[Any] = _Default.NOT_GIVEN

#: How an empty value reads once a template has turned it into text: Python's None, JSON's null, pandas' NaN.
_EMPTY_TEXTS = frozenset({"", "none", "null", "nan"})


def or_none(value: Any) -> Any:
    """Return the value of an argument, or None if it was not given."""
    return None if value is NOT_GIVEN else value


def is_from_mapped(operator: Any) -> bool:
    """Return whether Airflow made this operator from a mapped one, with the values of one map index."""
    # Airflow has no public name for it; its own decorators read this one, in 2.11 as in 3.x.
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def given_names(arguments: Mapping[str, Any], *, mapped: bool) -> tuple[str, ...]:
    """
    Return the names of the arguments that were given, whose values must not be empty when the task runs.

    :param arguments: The arguments as the constructor received them, by name.
    :param mapped: Whether they belong to one map index. Their values are then known already, and None comes
        from upstream; elsewhere None is written in the DAG file and means the same as leaving it out.
    """
    return tuple(
        name for name, value in arguments.items() if value is not NOT_GIVEN and (mapped or value is not None)
    )


def given_but_empty(value: Any) -> bool:
    """Return whether a given value is empty: None, NaN, blank, or the text that a template makes of these."""
    if isinstance(value, str):
        return value.strip().casefold() in _EMPTY_TEXTS
    return value is None or (isinstance(value, float) and value != value)


def refuse_empty(
    value: Any, what: str, expected: str = "", *, error: type[LemlistError] = LemlistValidationError
) -> None:
    """Raise the error of a value that was given and is empty; ``expected`` says what it must be."""
    if given_but_empty(value):
        raise error(f"{what} is empty{expected}; check its template or upstream task. Nothing was sent.")


def listed(value: Any) -> list[Any]:
    """Return what was given as one text or several; nothing for what is neither."""
    if isinstance(value, str):
        return [value]
    # What a mapped task upstream returned is a lazy sequence.
    return list(value) if isinstance(value, (Sequence, Set)) and not isinstance(value, bytes) else []


def checked_id(value: Any, what: str, *, error: type[LemlistError] = LemlistValidationError) -> str:
    """
    Return an id without surrounding spaces.

    :param value: The value when the task runs.
    :param what: The argument for the error: ``The lead_id of task 'wait'``.
    :param error: The class to raise.
    :raises LemlistError: The value is empty, is not text, or has spaces inside.
    """
    refuse_empty(value, what, ", but must be an id", error=error)
    if not isinstance(value, str):
        raise error(f"{what} must be an id, not {type(value).__name__}. Nothing was sent.")
    if len(value.split()) > 1:
        raise error(f"{what} must be an id, not {value!r}. Nothing was sent.")
    return value.strip()


def checked_ids(
    value: Any, what: str, *, error: type[LemlistError] = LemlistConfigurationError
) -> tuple[str, ...]:
    """
    Return the ids given as one id or several, each once; none for None.

    :param what: The argument for the error.
    """
    if value is None:
        return ()
    values = listed(value)
    if not values:
        raise error(f"{what} must be an id or a list of them, not {value!r}. Nothing was sent.")
    return tuple(dict.fromkeys(checked_id(each, what, error=error) for each in values))


def checked_number(value: Any, what: str, *, least: int) -> int:
    """Return a whole number, which a template may have turned into text."""
    refuse_empty(value, what, f", but must be a whole number from {least}")
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise LemlistValidationError(
            f"{what} must be a whole number from {least}, not {value!r}. Nothing was sent."
        )
    return value


def checked_choice(value: Any, what: str, choices: Sequence[Any]) -> Any:
    """Return a value that must be one of a few."""
    if value not in choices:
        raise LemlistConfigurationError(
            f"{what} must be one of {', '.join(map(str, choices))}, not {value!r}."
        )
    return value


# --- As they are written in the DAG file ------------------------------------------------------------------


def the(name: str, arguments: Mapping[str, Any]) -> str:
    """Return how errors call an argument: ``The lead_id of task 'wait'``."""
    return f"The {name} of task {arguments['task_id']!r}"


def check_id(
    name: str,
    arguments: Mapping[str, Any],
    *,
    optional: bool = False,
    error: type[LemlistError] = LemlistValidationError,
) -> None:
    """Check an id when the DAG is parsed, if it is known by then."""
    value = arguments[name]
    if not (is_open(value) or (optional and or_none(value) is None)):
        checked_id(value, the(name, arguments), error=error)


def check_choice(name: str, arguments: Mapping[str, Any], choices: Any) -> None:
    """Check an argument that takes one of the words of a ``Literal``."""
    checked_choice(arguments[name], the(name, arguments), get_args(choices))


def check_flag(name: str, arguments: Mapping[str, Any]) -> None:
    """Check a flag when the DAG is parsed, if it is known by then."""
    if not is_open(arguments[name]):
        checked_flag(arguments[name], the(name, arguments))


def checked_flag(value: Any, what: str) -> bool | None:
    """Return a flag, or None where it is empty."""
    if isinstance(value, str):
        value = {"true": True, "false": False, "none": False, "": False}.get(value.strip().lower(), value)
    if value is None or isinstance(value, bool):
        return value
    raise LemlistValidationError(f"{what} must be true or false, not {value!r}. Nothing was sent.")


def check_switch(name: str, arguments: Mapping[str, Any]) -> None:
    """Check a flag that is not templated: a text such as ``"false"`` would count as true."""
    if not isinstance(arguments[name], bool) and not is_open(arguments[name]):
        raise LemlistConfigurationError(f"{the(name, arguments)} must be True or False.")


def check_count(name: str, arguments: Mapping[str, Any]) -> None:
    """Check an argument that takes a number of rows."""
    number = arguments[name]
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise LemlistConfigurationError(f"{the(name, arguments)} must be a whole number from 0.")


def check_part(name: str, arguments: Mapping[str, Any]) -> None:
    """Check an argument that takes a part of a whole."""
    part, what = arguments[name], the(name, arguments)
    if not _is_number(part) or not 0 <= part <= 1:
        percent = f" Write {part / 100:g} for {part:g} %." if _is_number(part) and 1 < part <= 100 else ""
        raise LemlistConfigurationError(f"{what} must be a part from 0 to 1, not {part!r}.{percent}")


def check_number(name: str, arguments: Mapping[str, Any]) -> None:
    """Check an argument that takes a number from 0."""
    number, what = arguments[name], the(name, arguments)
    if not _is_number(number) or not 0 <= number < float("inf"):
        raise LemlistConfigurationError(f"{what} must be a number from 0, not {number!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_duration(name: str, arguments: Mapping[str, Any]) -> None:
    """Check an argument that takes a timedelta."""
    value, what = arguments[name], the(name, arguments)
    if not (isinstance(value, timedelta) and value > timedelta()):
        raise LemlistConfigurationError(f"{what} must be a positive timedelta, not {value!r}.")


def check_names(name: str, arguments: Mapping[str, Any]) -> None:
    """Check an argument that takes a list of names: a text is a collection too, of letters."""
    if isinstance(arguments[name], str):
        raise LemlistConfigurationError(f"{the(name, arguments)} must be a list of names, not a text.")
