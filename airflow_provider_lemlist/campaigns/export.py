# SPDX-License-Identifier: Apache-2.0
"""
The definition of a campaign that exists, and its YAML. Pure.

The file changes nothing when it is applied to the campaign. Where lemlist does not list a field that a step
needs, the file has no value for it, and is refused until there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from textwrap import wrap
from typing import Any

from airflow_provider_lemlist.campaigns.definition import SETTINGS, show_path, walk
from airflow_provider_lemlist.campaigns.files import resolvers
from airflow_provider_lemlist.campaigns.present import Present, Row, branch_ids, listed_settings
from airflow_provider_lemlist.delivery.evidence import listed_fields
from airflow_provider_lemlist.steps import CATALOGUE

_NOTHING: tuple[Any, ...] = (None, "", [], {})
_WIDTH = 100


def definition_of(campaign: Row, sequences: Mapping[str, Row]) -> dict[str, Any]:
    """
    Return the definition of a campaign.

    A field that a step needs, and that lemlist does not list, is None.

    :param campaign: The campaign as lemlist returns it.
    :param sequences: Its sequences by id, as lemlist lists them.
    """
    present = Present(campaign, sequences)
    there = listed_settings(campaign)
    settings = {name: there[name] for name in SETTINGS if there.get(name) not in _NOTHING}
    return {**settings, "steps": _steps(present, present.main_id)}


def _steps(present: Present, sequence_id: str | None) -> list[dict[str, Any]]:
    return [_step(present, row) for row in present.rows(sequence_id)]


def _step(present: Present, row: Row) -> dict[str, Any]:
    name = row.get("type")
    there = listed_fields(row)
    step: dict[str, Any] = {"type": name}
    for field in _fields(name):
        if there.get(field) not in _NOTHING:
            step[field] = there[field]
        elif field in CATALOGUE[str(name)].required:
            step[field] = None
    for branch, sequence_id in branch_ids(row).items():
        if below := _steps(present, sequence_id):
            step[branch] = below
    return step


def _fields(name: Any) -> list[str]:
    """Return the fields that a definition may say of a type of step."""
    return [field for field in CATALOGUE[name].fields if field != "index"] if name in CATALOGUE else []


# --- YAML -------------------------------------------------------------------------------------------------


def to_yaml(definition: Mapping[str, Any]) -> str:
    """Return a definition as a YAML file, which begins with what it does not say."""
    import yaml

    comment = "".join(f"# {line}\n" for line in _comment(definition))
    return comment + yaml.dump(
        dict(definition), Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=float("inf")
    )


def _comment(definition: Mapping[str, Any]) -> Iterator[str]:
    yield "What this file does not say is left as lemlist has it. lemlist does not list, or has no value for:"
    # What schedules would say is in scheduleIds.
    rows = [("", [name for name in SETTINGS if name not in definition and name != "schedules"])]
    for path, step in walk(definition):
        absent = [field for field in _fields(step["type"]) if step.get(field) is None]
        rows.append((f" of {show_path(path)}", absent))
    for whose, names in rows:
        if names:
            yield from wrap(f"{', '.join(names)}{whose}", _WIDTH, initial_indent="- ", subsequent_indent="  ")
    if any(None in step.values() for _, step in walk(definition)):
        yield "Fill in what is null: the step needs it."


@cache
def _dumper() -> Any:
    """Return the dumper of definitions, which writes ``yes`` plainly and lines of a text as they are."""
    import yaml

    class Dumper(yaml.SafeDumper):
        yaml_implicit_resolvers = resolvers(yaml.SafeDumper)

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow)

    def represent_text(dumper: Any, text: str) -> Any:
        style = "|" if "\n" in text else None
        if any(character in text for character in "\x85\u2028\u2029"):
            style = '"'  # YAML takes these for line breaks, unless they are escaped
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    Dumper.add_multi_representer(dict, Dumper.represent_dict)  # typed steps are dicts
    return Dumper
