# SPDX-License-Identifier: Apache-2.0
"""
The JSON schema of a definition in YAML, by which editors complete and check it as it is written. Pure.

Draft 7, which editors know. It refuses what does not depend on other values: wrong types, unknown and missing
fields, values that are no choice. All else is found by ``checks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.campaigns.checks import STEP_NAME
from airflow_provider_lemlist.campaigns.definition import (
    BRANCHES,
    PARAMETER,
    RESERVED_NAMES,
    SETTINGS,
    TEXTS,
    Setting,
)

Schema = dict[str, Any]

_NAMES = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}
_NOT_EMPTY = {"type": "string", "pattern": r"\S"}
_STEPS = {"type": "array", "items": {"$ref": "#/definitions/step"}}


def schema() -> Schema:
    """Return the schema."""
    properties = {name: _setting(setting) for name, setting in SETTINGS.items()}
    properties["steps"] = _STEPS | {"description": "The steps of the campaign, in their order."}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A lemlist campaign",
        **_object(properties, ["name", "steps"]),
        "definitions": {
            "parameter": {
                "description": "A parameter, whose value may have any type.",
                "type": "string",
                "pattern": rf"^\s*{PARAMETER.pattern}\s*$",
            },
            "textInFile": {
                "description": "A text that stands in a file beside this one.",
                **_object({"file": {"type": "string"}}, ["file"]),
            },
            "step": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"enum": list(steps.CATALOGUE)}},
                "allOf": [
                    {
                        "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                        "then": {"$ref": f"#/definitions/{name}"},
                    }
                    for name in steps.CATALOGUE
                ],
            },
            **{name: _step(name, kind) for name, kind in steps.CATALOGUE.items()},
        },
    }


def _object(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {
        "type": "object",
        "required": required,
        "properties": dict(properties),
        "additionalProperties": False,
    }


def _or_parameter(value: Schema) -> Schema:
    return {"anyOf": [value, {"$ref": "#/definitions/parameter"}]}


# --- Settings ---------------------------------------------------------------------------------------------


def _setting(setting: Setting) -> Schema:
    return {"description": setting.about, **_value_of(setting)}


def _value_of(setting: Setting) -> Schema:
    if setting.fields:
        return _object(
            {name: _setting(field) for name, field in setting.fields.items()}, list(setting.required)
        )
    if setting.type is str:
        return _or_parameter({"enum": list(setting.choices)}) if setting.choices else _NOT_EMPTY
    more: Schema = {"minimum": setting.least, "maximum": setting.most}
    if setting.type is list:
        more["items"] = _value_of(setting.items or Setting(str, "", setting.choices))
    known = {name: value for name, value in more.items() if value is not None}
    return _or_parameter({"type": _NAMES[setting.type], **known})


# --- Steps ------------------------------------------------------------------------------------------------


_WITHIN_NEEDS_DELAY: Schema = {
    "if": {"properties": {"delayType": {"const": "within"}}, "required": ["delayType"]},
    "then": {"required": ["delay"]},
}


def _step(name: str, kind: steps.Kind) -> Schema:
    is_condition = name == steps.Conditional.type
    branches = BRANCHES if is_condition else ()
    properties: dict[str, Schema] = {
        "type": {"const": name, "description": kind.about},
        "name": {
            "description": steps.DEFINITION_FIELDS["name"],
            "type": "string",
            "pattern": f"^{STEP_NAME.pattern}$",
            "not": {"enum": list(RESERVED_NAMES)},
        },
        # Without index: the place of a step is its place in the list.
        **{each: _field(each, each in kind.required) for each in kind.fields if each != "index"},
        **{each: _STEPS | {"description": steps.DEFINITION_FIELDS[each]} for each in branches},
    }
    return _object(properties, ["type", *kind.required]) | (_WITHIN_NEEDS_DELAY if is_condition else {})


def _field(name: str, required: bool) -> Schema:
    field = steps.FIELDS[name]
    values = {"description": field.about}
    if field.type is list:
        url = {"type": "string", "pattern": _begins_with(field.schemes)}
        return values | _or_parameter({"type": "array", "items": url, "maxItems": steps.MOST_MEDIA})
    if field.type is not str:
        limits = {"minimum": field.least, "maximum": field.most}
        known = {each: limit for each, limit in limits.items() if limit is not None}
        return values | _or_parameter({"type": _NAMES[field.type], **known})
    if field.choices:
        return values | _or_parameter({"enum": list(field.choices)})
    text: Schema = {"type": "string"}
    if field.most is not None:
        text["maxLength"] = field.most
    if field.schemes:
        text["pattern"] = _begins_with(field.schemes)
    elif required:
        text |= _NOT_EMPTY
    in_a_file = {"$ref": "#/definitions/textInFile"}
    return values | ({"anyOf": [text, in_a_file]} if name in TEXTS else text)


def _begins_with(schemes: tuple[str, ...]) -> str:
    """Return the pattern of a URL, which may begin with a parameter, too."""
    return rf"^(({'|'.join(schemes)})://|\[\[)"
