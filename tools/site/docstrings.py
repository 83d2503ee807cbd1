# SPDX-License-Identifier: Apache-2.0
"""
Prepare the docstrings for the API reference: mkdocstrings loads this as an extension of griffe.

A public name in double backticks becomes a link to its place in the reference, which the build resolves. A
class also gets the arguments that its ``**kwargs`` passes on to a base class of this package, and a typed
step those that its annotations declare.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import griffe

from airflow_provider_lemlist.steps import DEFINITION_FIELDS, FIELDS, Step
from tools.site.reference import path_of

#: The typed steps, and what each of their fields means, by its name in Python.
STEPS = {cls.__name__ for cls in Step.__subclasses__()}
ABOUT = {re.sub("(?=[A-Z])", "_", name).lower(): field.about for name, field in FIELDS.items()}
ABOUT |= DEFINITION_FIELDS

_CODE_BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1 +.*\n|\n)+)", re.M)
_CODE = re.compile(r"(?<!`)``([^`]+)``(?!`)")


class Prepared(griffe.Extension):
    """Called when the whole package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for each in _members(pkg):
            if each.docstring:
                each.docstring.value = markdown(each.docstring.value)
            if isinstance(each, griffe.Class) and each.name in STEPS:
                add_fields(each)
            elif isinstance(each, griffe.Class):
                add_passed_on(each)


def markdown(docstring: str) -> str:
    """Return a docstring with fences for its code blocks and links for public names."""
    fenced = _CODE_BLOCK.sub(lambda block: _fence(block[2], block[3]), docstring + "\n")
    return _CODE.sub(lambda code: _reference(code[1]), fenced).rstrip("\n")


def add_passed_on(cls: griffe.Class) -> None:
    """Add to ``__init__`` the arguments of the base classes, if it passes ``**kwargs`` on."""
    init = cls.members.get("__init__")
    if not isinstance(init, griffe.Function) or not _kwargs(init):
        return
    for base in cls.resolved_bases:
        if isinstance(base, griffe.Class) and "__init__" in base.all_members:
            add_passed_on(base)
            known = {each.name for each in init.parameters}
            more = [
                each
                for each in base.all_members["__init__"].parameters
                if each.kind is griffe.ParameterKind.keyword_only and each.name not in known
            ]
            *own, kwargs = init.parameters
            init.parameters = griffe.Parameters(*own, *more, kwargs)


def add_fields(step: griffe.Class) -> None:
    """Add an ``__init__`` to a typed step, with its fields, and what each of them means."""
    fields = [
        field
        for cls in (step, *step.resolved_bases)
        for field in cls.members.values()
        if isinstance(field, griffe.Attribute) and field.name in ABOUT
    ]
    parameters = [
        griffe.Parameter(
            field.name,
            annotation=field.annotation,
            kind=griffe.ParameterKind.keyword_only,
            default=field.value,
        )
        for field in fields
    ]
    step.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))
    if step.docstring:
        lines = [f":param {field.name}: {ABOUT[field.name]}" for field in fields]
        step.docstring.value += "\n\n" + "\n".join(lines)


def _members(scope: griffe.Object) -> Iterator[griffe.Object]:
    for each in scope.members.values():
        if not each.is_alias:
            yield each
            yield from _members(each)


def _kwargs(function: griffe.Function) -> bool:
    return any(each.kind is griffe.ParameterKind.var_keyword for each in function.parameters)


def _fence(language: str, code: str) -> str:
    return f"```{language}\n{textwrap.dedent(code).strip()}\n```\n\n"


def _reference(code: str) -> str:
    path = path_of(code)
    return f"[`{code}`][{path}]" if path else f"`{code}`"
