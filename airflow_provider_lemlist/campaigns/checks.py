# SPDX-License-Identifier: Apache-2.0
"""
The checks of a definition: all mistakes at once, each with its place. Plain Python.

What is known when the DAG is parsed is checked then; ``UNKNOWN`` stands for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.campaigns.definition import (
    BRANCHES,
    PARAMETER,
    RESERVED_NAMES,
    SETTINGS,
    UNKNOWN,
    Path,
    Setting,
    fill,
    is_condition,
    parameters_in,
    parts,
    plain_step,
    show_path,
    walk,
)
from airflow_provider_lemlist.templating import airflow_name
from airflow_provider_lemlist.validation import hint, validation_error

#: The name of a step, which is an XCom key.
STEP_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
#: What lemlist would send in double square brackets; a parameter that is spelled wrong, such as [[ day-1 ]].
_LIKE_PARAMETER = re.compile(r"\[\[[ \w.|-]+\]\]")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_TYPES: dict[type, Any] = {list: (list, tuple), dict: Mapping}
_KINDS = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a mapping"}


class Mistake(NamedTuple):
    """One mistake in a definition: where it is, and what is wrong and how to mend it."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{show_path(self.path)}: {self.reason}" if self.path else self.reason


class Document(NamedTuple):
    """
    A definition, and where its values stand.

    :param definition: The definition, with the texts of its files.
    :param file: The YAML file; empty for a definition in Python.
    :param lines: The line of each value, by its place.
    :param unread: The texts whose files cannot be read.
    """

    definition: Any
    file: str = ""
    lines: Mapping[Path, int] = {}
    unread: tuple[Mistake, ...] = ()

    def describe(self, mistake: Mistake) -> str:
        """Return a mistake with the file and the line."""
        return f"{self.file}, line {self.line(mistake)}: {mistake}" if self.file else str(mistake)

    def line(self, mistake: Mistake) -> int:
        """Return the line of a mistake: of a field that is missing, the line of what lacks it."""
        path = mistake.path
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def checked(document: Document, parameters: Mapping[str, Any], what: str) -> dict[str, Any]:
    """
    Return the definition with the values of its parameters.

    :param what: The subject of the error: ``The campaign of task 'apply'``.
    :raises LemlistValidationError: The definition has mistakes; the error lists all of them.
    """
    if found := all_mistakes(document, parameters):
        raise validation_error(what, found)
    return fill(document.definition, parameters)


def all_mistakes(document: Document, parameters: Mapping[str, Any]) -> list[str]:
    """Return all mistakes in a document, each with its place, in the order of their lines."""
    found = [*document.unread, *mistakes(document.definition, parameters)]
    return [document.describe(mistake) for mistake in sorted(found, key=document.line)]


def mistakes(definition: Any, parameters: Mapping[str, Any]) -> list[Mistake]:
    """
    Return all mistakes in a definition, without raising.

    :param definition: A definition, with ``UNKNOWN`` for what is not known yet.
    :param parameters: The values of its parameters, with ``UNKNOWN`` in the same way.
    """
    if definition is UNKNOWN:
        return []
    if not isinstance(definition, Mapping):
        kind = type(definition).__name__
        return [Mistake((), f"must be a Campaign, a mapping, or the path of a YAML file, not {kind}")]
    needed = parameters_in(definition)
    unknown = dict.fromkeys(needed, UNKNOWN)
    if parameters is UNKNOWN:
        parameters = unknown
    found = _wrong_parameters(needed, parameters)
    definition = fill(definition, {**unknown, **parameters})
    found += _without_value(definition, ())
    found += _wrong_templates(definition, ())
    for name in ("name", "steps"):
        if name not in definition:
            found.append(Mistake((), f"a campaign needs {name!r}"))
    for name, value in definition.items():
        if name == "steps":
            found += _wrong_list(value, ("steps",))
        elif name in SETTINGS:
            found += _wrong_setting(value, SETTINGS[name], (name,))
        else:
            near = hint(str(name), (*SETTINGS, "steps"))
            found.append(Mistake((str(name),), f"a campaign has no such setting{near}"))
    found += _repeated_schedules(definition.get("schedules"))
    names: dict[str, Path] = {}
    for path, step in walk(definition):
        found += _wrong_step(step, path)
        if isinstance(step, Mapping) and step.get("name") not in (None, UNKNOWN):
            found += _wrong_name(step["name"], path, names)
    return found


def _wrong_parameters(needed: Mapping[str, Path], given: Mapping[str, Any]) -> list[Mistake]:
    found = [
        Mistake(path, f"parameters has no value for [[ {name} ]]")
        for name, path in needed.items()
        if name not in given
    ]
    for name in sorted(given.keys() - needed.keys()):
        near = hint(name, tuple(needed)) if needed else ""
        found.append(Mistake((), f"no text uses the parameter {name!r}{near}"))
    return found


def _without_value(value: Any, path: Path) -> Iterator[Mistake]:
    """Yield a mistake for each None: an upstream task that returned nothing must not mean "no steps"."""
    if value is None:
        yield Mistake(path, "has no value; leave it out, or check its template or upstream task")
    for name, item in parts(value):
        yield from _without_value(item, (*path, name))


def _wrong_templates(value: Any, path: Path) -> Iterator[Mistake]:
    """Yield a mistake for each text that lemlist would send with a template that nothing has rendered."""
    if isinstance(value, str):
        if name := airflow_name(value):
            yield Mistake(
                path,
                f"contains an Airflow template ({name!r}), which lemlist would send as it is; use a "
                "parameter, [[ name ]], or AirflowText in Python",
            )
        for text in _LIKE_PARAMETER.findall(value):
            if not PARAMETER.fullmatch(text):
                reason = "is no parameter: a name has only letters, digits and underscores"
                yield Mistake(path, f"{text} {reason}")
    for part, item in parts(value):
        yield from _wrong_templates(item, (*path, part))


def _wrong_list(value: Any, path: Path) -> list[Mistake]:
    if value is None or value is UNKNOWN or isinstance(value, (list, tuple)):
        return []
    return [Mistake(path, f"must be a list of steps, not {type(value).__name__}")]


def _wrong_step(step: Any, path: Path) -> list[Mistake]:
    if step is None or step is UNKNOWN:
        return []
    if not isinstance(step, Mapping):
        return [Mistake(path, f"must be a typed step or a mapping with 'type', not {type(step).__name__}")]
    found = [mistake for branch in BRANCHES for mistake in _wrong_list(step.get(branch), (*path, branch))]
    if step.get("type") is UNKNOWN:
        return found
    plain = plain_step(step)
    if "index" in plain:
        found.append(Mistake((*path, "index"), "the place of a step is its place in the list"))
        del plain["index"]
    problems = steps.problems(plain)
    found += [
        Mistake((*path, field), reason)
        for field, reason in problems
        if field not in step or not _is_open(step[field])
    ]
    if not is_condition(step) and all(field != "type" for field, _ in problems):
        reason = f"only a step of type {steps.Conditional.type!r} has branches"
        found += [Mistake((*path, branch), reason) for branch in BRANCHES if branch in step]
    return found


def _is_open(value: Any) -> bool:
    """Return whether a value has a mistake already, or is not wholly known."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return any(item is None or item is UNKNOWN for item in items)


def _wrong_name(name: Any, path: Path, seen: dict[str, Path]) -> list[Mistake]:
    """Check the name of a step, and remember it in ``seen``."""
    if not isinstance(name, str) or not STEP_NAME.fullmatch(name):
        reason = f"must begin with a letter and hold only letters, digits and underscores, not {name!r}"
    elif name in RESERVED_NAMES:
        reason = f"{name!r} is an XCom key of the operator; choose another name"
    elif name in seen:
        reason = f"{name!r} is already the name of {show_path(seen[name])}"
    else:
        seen[name] = path
        return []
    return [Mistake((*path, "name"), reason)]


def _wrong_setting(value: Any, setting: Setting, path: Path) -> list[Mistake]:
    if value is None or value is UNKNOWN:
        return []
    # In Python, True is an int; lemlist accepts only numbers.
    fits = isinstance(value, _TYPES.get(setting.type, setting.type)) and (
        setting.type is bool or not isinstance(value, bool)
    )
    if not fits:
        shown = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
        return [Mistake(path, f"must be {_KINDS[setting.type]}, not {shown}")]
    if isinstance(value, Mapping):
        return _wrong_fields(value, setting, path)
    if isinstance(value, (list, tuple)):
        items = setting.items or Setting(str, "", setting.choices)
        return [
            mistake
            for position, item in enumerate(value)
            for mistake in _wrong_setting(item, items, (*path, position))
        ]
    reason = _wrong_text(value, setting) if isinstance(value, str) else _wrong_number(value, setting)
    return [Mistake(path, reason)] if reason else []


def _repeated_schedules(schedules: Any) -> Iterator[Mistake]:
    """Yield a mistake for each schedule whose name another one has already."""
    names: set[str] = set()
    for position, schedule in parts(schedules):
        name = schedule.get("name") if isinstance(schedule, Mapping) else None
        if isinstance(name, str) and name in names:
            yield Mistake(("schedules", position, "name"), f"{name!r} is there twice")
        names |= {name} if isinstance(name, str) else set()


def _wrong_fields(value: Mapping[Any, Any], setting: Setting, path: Path) -> list[Mistake]:
    fields, what = setting.fields or {}, next(part for part in reversed(path) if isinstance(part, str))
    found = [Mistake((*path, name), f"{what!r} needs it") for name in setting.required if name not in value]
    for name, item in value.items():
        if name in fields:
            found += _wrong_setting(item, fields[name], (*path, name))
        else:
            near = hint(str(name), tuple(fields))
            found.append(Mistake((*path, str(name)), f"{what} has no such field{near}"))
    return found


def _wrong_text(value: str, setting: Setting) -> str | None:
    if not value.strip():
        return "must be text and not empty"
    if setting.choices and value not in setting.choices:
        near = hint(value, setting.choices)
        return f"{value!r} is not one of {', '.join(setting.choices)}{near}"
    if setting.format == "time" and not _TIME.fullmatch(value):
        return f"must be a time such as 09:00, not {value!r}"
    if setting.format == "time zone":
        from airflow_provider_lemlist.leads import wrong_time_zone

        reason = wrong_time_zone(value)
        return f"{reason}, not {value!r}" if reason else None
    return None


def _wrong_number(value: int, setting: Setting) -> str | None:
    least, most = setting.least, setting.most
    if (least is None or value >= least) and (most is None or value <= most):
        return None
    return f"must be {least} {'or more' if most is None else f'to {most}'}, not {value}"
