# SPDX-License-Identifier: Apache-2.0
"""
Find the variables that a text of lemlist uses, such as ``{{icebreaker}}``, in lemlist's dialect of Liquid.

Pure. The texts come from lemlist's editor, so an expression may contain HTML and entities, a name may contain
spaces (``{{Company name}}``), and malformed Liquid raises no error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any

# Provided by lemlist itself, from the sender, the calendar or the campaign.
_BUILT_IN = re.compile(
    r"(?:sender|signature|unsubscribe)(?:[A-Z_\-\s].*)?"
    r"|.*(?:Signature|[Uu]nsubscribe[ _-]?[Ll]ink)"
    r"|now|today|tomorrow|date|day|weekday|month|year|time"
)
_WORDS = frozenset(("true", "false", "nil", "null", "blank", "empty", "and", "or", "not", "contains"))
_PARTS = re.compile(r"\{%-?(?P<tag>.*?)-?%\}|\{\{-?(?P<output>.*?)-?\}\}", re.DOTALL)
_SILENT = re.compile(r"\{%-?\s*(comment|raw)\s*-?%\}.*?\{%-?\s*end\1\s*-?%\}", re.DOTALL)
_MARKUP = re.compile(r"<[^<>]*>")
_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")
_OPERATOR = re.compile(r"[=!<>]=|<>|[<>,]|\b(?:and|or|contains)\b")
_NAME = re.compile(r"[^\W\d][\w\- ]*")


@dataclass
class Variables:
    """
    The variables of some texts.

    ``needed`` have no default, so the text has a gap if a lead has no value; ``optional`` have a default, or
    are tested by a condition.
    """

    needed: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)


def variables_of(texts: Iterable[str]) -> Variables:
    """Return the variables that these texts use."""
    found = Variables()
    for text in texts:
        _read(text, found)
    found.optional -= found.needed
    return found


def texts_of(sequences: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Yield every text of every step, of the main sequence and of the branches."""
    for sequence in sequences.values():
        for step in sequence.get("steps") or ():
            yield from (value for value in step.values() if isinstance(value, str) and "{" in value)


def blank_in(lead: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return those of these variables for which a lead has no value."""
    return [name for name in names if not lead.get(name, "").strip()]


def _read(text: str, found: Variables) -> None:
    assigned: set[str] = set()  # by assign, capture or for, in the text itself
    guarded: list[set[str]] = []

    def add(expression: str) -> None:
        names, has_default = _expression(expression)
        tested = names if has_default else names & set().union(*guarded)
        found.optional |= tested - assigned
        found.needed |= names - tested - assigned

    for part in _PARTS.finditer(_SILENT.sub("", text)):
        if (output := part["output"]) is not None:
            add(_plain(output))
            continue
        word, _, rest = _plain(part["tag"]).partition(" ")
        if word in ("if", "unless", "case", "elsif", "when"):
            condition = _condition(rest) - assigned
            found.optional |= condition
            if word in ("if", "unless", "case"):
                guarded.append(set())
            if guarded:
                guarded[-1] |= condition
        elif word in ("endif", "endunless", "endcase"):
            if guarded:
                guarded.pop()
        elif word in ("assign", "capture"):
            name, _, value = rest.partition("=")
            assigned.add(name.strip())
            add(value)
        elif word == "for":
            name, _, items = rest.partition(" in ")
            assigned |= {name.strip(), "forloop"}
            found.optional |= _names(items.split(" ")[0]) - assigned


def _plain(inside: str) -> str:
    return " ".join(unescape(_MARKUP.sub(" ", inside)).split())


def _expression(text: str) -> tuple[set[str], bool]:
    """Return the names in a value and its filters, and whether one of the filters is a default."""
    value, *filters = (part.strip() for part in _QUOTED.sub("''", text).split("|"))
    names = _names(value)
    has_default = False
    for filter_ in filters:
        name, _, arguments = filter_.partition(":")
        has_default = has_default or name.strip() == "default"
        for argument in arguments.split(","):
            names |= _names(argument.rpartition(":")[2])
    return names, has_default


def _condition(text: str) -> set[str]:
    return set().union(*map(_names, _OPERATOR.split(_QUOTED.sub("''", text))))


def _names(operand: str) -> set[str]:
    match = _NAME.match(operand.strip())
    name = match[0].strip() if match else ""
    return set() if not name or name in _WORDS or _BUILT_IN.fullmatch(name) else {name}
