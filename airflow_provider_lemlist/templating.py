# SPDX-License-Identifier: Apache-2.0
"""
Who fills in what: ``{{firstName}}`` in a message is lemlist's, ``{{ ds }}`` in an id is Airflow's.

Operators that inherit :class:`KeepsPlaceholders` leave the texts that lemlist renders as they are and let
Airflow render the rest. :class:`AirflowText` is the one way to put a value of Airflow into such a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_lemlist.validation import Problem

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

#: In an AirflowText these are Airflow's, so that {{ … }} can stay lemlist's.
DELIMITERS: dict[str, Any] = {
    "variable_start_string": "[[",
    "variable_end_string": "]]",
    "block_start_string": "[%",
    "block_end_string": "%]",
    "comment_start_string": "[#",
    "comment_end_string": "#]",
    "keep_trailing_newline": True,
}


class AirflowText(dict[str, str]):
    """
    A text for lemlist with values of Airflow in it, written in square brackets.

    ``AirflowText("Hi {{firstName}}, see you on [[ ds ]]")`` reaches lemlist as
    ``Hi {{firstName}}, see you on 2026-11-20``. It may stand for any text of a step or a lead that is written
    in the DAG file. In data from an upstream task it is refused, since such data must not run templates; a
    task that makes the text has Python for it.

    A dict, because a DAG is serialized; and because what is not rendered must not pass for a text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(airflow=text)


#: Names that only Airflow knows: lemlist would send the placeholder as it is.
_AIRFLOW_ONLY = re.compile(
    r"(?:\{\{-?|\{%-?\s*\w+\s|\{\{[^}]*[(~+,])\s*"
    r"((?:ds|ts)(?:_nodash)?\b(?!\s*[.\[(])|(?:ti|task_instance|dag_run|params|macros|var|conn)\b(?=\s*[.\[])"
    r"|data_interval_\w+|logical_date\b)"
)


def airflow_name(text: str) -> str | None:
    """Return the name in a placeholder of a text that only Airflow can fill in, such as ``ds``; or None."""
    found = _AIRFLOW_ONLY.search(text) if "{" in text else None
    return found[1] if found else None


def misplaced_templates(values: Mapping[str, Any], is_lemlists: Callable[[str], bool]) -> list[Problem]:
    """
    Return the texts in which lemlist would be given a template of Airflow's.

    :param values: The fields of a step or a lead, as they are written in the DAG file.
    :param is_lemlists: Returns whether lemlist renders the field of a name.
    """
    return [
        Problem(
            str(field),
            f"holds a template of Airflow's ({name!r}), which lemlist would send as it is. Write "
            "AirflowText('… [[ … ]] …') from airflow_provider_lemlist.templating",
        )
        for field, value in values.items()
        if type(value) is str and is_lemlists(str(field)) and (name := airflow_name(value))
    ]


def is_open(value: Any, *, rendered: bool = True) -> bool:
    """
    Say whether a value, or one inside it, is known only when the task runs.

    :param value: A value as it is written in the DAG file.
    :param rendered: Whether Airflow renders texts there.
    """
    if isinstance(value, str):
        return rendered and any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, AirflowText):
        return True
    if isinstance(value, Mapping):
        return any(is_open(item, rendered=rendered) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_open(item, rendered=rendered) for item in value)
    # An XComArg, a mapped argument or a literal(…): all that Airflow resolves, on every version.
    return callable(getattr(value, "iter_references", None))


class KeepsPlaceholders(BaseOperator):
    """
    An operator with template fields that hold texts which lemlist renders, in a mapping or a list of such.

    Everything in it that Airflow resolves (an ``XComArg``, a ``literal``) is resolved wherever it stands.
    """

    #: The template fields.
    placeholders_in: ClassVar[tuple[str, ...]]

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Say whether Airflow renders the texts under this name of the mapping."""
        raise NotImplementedError

    @staticmethod
    def read_rendered(name: str, value: Any) -> Any:
        """Return what a rendered text under this name means: a template gives text where a number belongs."""
        return value

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render as Airflow does, but for lemlist's own texts in the mappings."""
        ours = isinstance(content, (Mapping, list, tuple)) and any(
            content is getattr(self, name, None) for name in self.placeholders_in
        )
        # What an upstream task returned is data: Airflow lists it as seen, and nobody renders it.
        if not ours or (seen_oids is not None and id(content) in seen_oids):
            return super().render_template(content, context, jinja_env, seen_oids)
        env = jinja_env or self.get_template_env()
        if isinstance(content, Mapping):
            return self._render_entries(content, context, env, seen_oids)
        return [
            self._render_entries(row, context, env, seen_oids)
            if isinstance(row, Mapping)
            else super(KeepsPlaceholders, self).render_template(row, context, env, seen_oids)
            for row in content
        ]

    def _render_entries(
        self,
        entries: Mapping[str, Any],
        context: Context,
        env: jinja2.Environment,
        seen_oids: set[int] | None,
    ) -> dict[str, Any]:
        return {
            name: self._render_entry(name, value, context, env, seen_oids) for name, value in entries.items()
        }

    def _render_entry(
        self, name: str, value: Any, context: Context, env: jinja2.Environment, seen_oids: set[int] | None
    ) -> Any:
        if isinstance(value, AirflowText):
            # With native rendering "[[ ds_nodash ]]" alone would become a number. No Python literal begins
            # with these words, so a text stays one.
            begin = "a text: "
            rendered = super().render_template(
                begin + value["airflow"], context, env.overlay(**DELIMITERS), seen_oids
            )
            return rendered.removeprefix(begin)
        if isinstance(value, (list, tuple)):
            return [self._render_entry(name, item, context, env, seen_oids) for item in value]
        if isinstance(value, str) and not self.airflow_renders(name):
            return value
        rendered = super().render_template(value, context, env, seen_oids)
        return self.read_rendered(name, rendered) if is_open(value) and isinstance(value, str) else rendered
