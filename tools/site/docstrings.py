# SPDX-License-Identifier: Apache-2.0
"""
Prepare the docstrings for the API reference: mkdocstrings loads this as an extension of griffe.

A public name in double backticks becomes a link to its place in the reference, which the build resolves. A
class also gets the arguments that its ``**kwargs`` passes on to a base class of this package.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import griffe

from tools.site.reference import path_of

_CODE_BLOCK = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1 +.*\n|\n)+)", re.M)
_CODE = re.compile(r"(?<!`)``([^`]+)``(?!`)")


class Prepared(griffe.Extension):
    """Called when the whole package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for each in _members(pkg):
            if each.docstring:
                each.docstring.value = markdown(each.docstring.value)
            if isinstance(each, griffe.Class):
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
