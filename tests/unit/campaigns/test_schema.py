# SPDX-License-Identifier: Apache-2.0
"""An editor that knows the schema refuses what the checks refuse, as far as it does not depend on values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from jsonschema import Draft7Validator

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.campaigns.checks import mistakes
from airflow_provider_lemlist.campaigns.definition import RESERVED_NAMES, SETTINGS, TEXTS, UNKNOWN, Setting
from airflow_provider_lemlist.campaigns.schema import schema
from airflow_provider_lemlist.steps import CATALOGUE, FIELDS
from tests.unit.campaigns.test_definition import DEFINITIONS
from tests.unit.test_steps import VALID
from tools import campaign_schema

VALIDATOR = Draft7Validator(schema())
PARAMETER = "[[ value ]]"


def accepts(definition: Any) -> bool:
    return VALIDATOR.is_valid(definition)


def campaign(*steps: Any, **settings: Any) -> dict[str, Any]:
    return {"name": "Spring webinar", "steps": list(steps), **settings}


def full(kind: str) -> dict[str, Any]:
    """Return a step with all fields of its type."""
    return {"type": kind, **{name: VALID[name] for name in CATALOGUE[kind].fields if name != "index"}}


def test_published_file_is_the_schema() -> None:
    assert campaign_schema.FILE.read_text(encoding="utf-8") == campaign_schema.text(), (
        "run python -m tools.campaign_schema"
    )


def test_schema_is_a_valid_one_and_describes_every_field() -> None:
    Draft7Validator.check_schema(schema())
    properties = [
        schema()["properties"],
        *(schema()["definitions"][kind]["properties"] for kind in CATALOGUE),
    ]
    assert all("description" in field for fields in properties for field in fields.values())


# --- What both accept -------------------------------------------------------------------------------------


@given(DEFINITIONS)
def test_definition_without_mistakes_is_accepted(definition: dict[str, Any]) -> None:
    assume(mistakes(definition, {}) == [])
    VALIDATOR.validate(definition)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_step_of_every_type_is_accepted(kind: str) -> None:
    VALIDATOR.validate(campaign(full(kind)))
    VALIDATOR.validate(campaign(full(kind) | {"name": "opening"}))


def test_parameter_is_accepted_for_every_value_of_a_step() -> None:
    for kind in CATALOGUE:
        for name in full(kind).keys() - {"type"}:
            definition = campaign(full(kind) | {name: PARAMETER})
            VALIDATOR.validate(definition)
            assert mistakes(definition, {"value": UNKNOWN}) == []


def test_parameter_is_accepted_for_every_setting() -> None:
    for setting in SETTINGS:
        if not SETTINGS[setting].fields:
            VALIDATOR.validate(campaign() | {setting: PARAMETER})
    VALIDATOR.validate(campaign(tracking={"trackOpens": PARAMETER}, sendUserIds=[PARAMETER]))


def test_texts_of_lemlist_may_stand_in_files() -> None:
    for kind in CATALOGUE:
        for name in full(kind).keys() & set(TEXTS):
            VALIDATOR.validate(campaign(full(kind) | {name: {"file": "a.html"}}))


# --- What both refuse -------------------------------------------------------------------------------------


def wrong_values(kind: type, choices: tuple[str, ...]) -> Iterator[Any]:
    """Yield values of the wrong type, and one that is no choice."""
    yield from (None, {"a": 1})
    if kind is not list:
        yield ["a"]
    if kind is not str:
        yield "a"
    if kind is not bool:
        yield True
    if kind is not int:
        yield 1
    if choices:
        yield "no choice"


def wrong_steps() -> Iterator[dict[str, Any]]:
    for kind in CATALOGUE:
        step = full(kind)
        yield step | {"colour": "red"}
        yield step | {"index": 1}
        yield step | {"name": RESERVED_NAMES[0]}
        yield step | {"name": "1st"}
        for name in CATALOGUE[kind].required:
            yield {each: value for each, value in step.items() if each != name}
        for name in step.keys() - {"type"}:
            for value in wrong_values(FIELDS[name].type, FIELDS[name].choices):
                yield step | {name: value}
        if kind != steps.Conditional.type:
            yield step | {"yes": []}
    yield {"subject": "s"}
    yield {"type": "emails"}
    yield {"type": 5}
    yield full("email") | {"delay": 1501}
    yield full("email") | {"delay": -1}
    yield full("email") | {"subject": " "}
    yield full("email") | {"subject": "s" * 401}
    yield full("api") | {"url": "ftp://example.com"}
    yield full("linkedinSend") | {"images": ["http://example.com/a.png"]}
    yield {each: value for each, value in full("conditional").items() if each != "delay"}
    yield full("conditional") | {"yes": full("email")}


def wrong_settings(settings: dict[str, Setting]) -> Iterator[dict[str, Any]]:
    yield {"colour": "red"}
    for name, setting in settings.items():
        for value in wrong_values(setting.type, setting.choices if setting.type is str else ()):
            yield {name: value}
        if setting.type is list:
            yield {name: [5]}
        if setting.type is list and setting.choices:
            yield {name: ["no choice"]}
        if setting.fields:
            yield from ({name: wrong} for wrong in wrong_settings(dict(setting.fields)))


def test_wrong_step_is_refused_at_the_top_and_in_a_branch() -> None:
    for step in wrong_steps():
        branch = full("conditional") | {"otherwise": [full("email"), step]}
        for definition in (campaign(step), campaign(branch)):
            assert mistakes(definition, {}), step
            assert not accepts(definition), step


def test_wrong_setting_is_refused() -> None:
    for settings in wrong_settings(SETTINGS):
        assert mistakes(campaign() | settings, {}), settings
        assert not accepts(campaign() | settings), settings


@pytest.mark.parametrize(
    "definition", [{}, {"name": "a"}, {"steps": []}, {"name": "a", "steps": {}}, [], None]
)
def test_definition_without_name_or_steps_is_refused(definition: Any) -> None:
    assert mistakes(definition, {})
    assert not accepts(definition)
