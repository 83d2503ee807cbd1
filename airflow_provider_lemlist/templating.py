# SPDX-License-Identifier: Apache-2.0
"""
Decide who renders which text: lemlist ``{{firstName}}`` in a message, Airflow ``{{ ds }}`` in an id.

Operators that inherit ``KeepsPlaceholders`` do not change the texts that lemlist renders and let Airflow
render the rest. ``AirflowText`` is the one way to put a value of Airflow into such a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_lemlist.validation import Problem

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

#: What Airflow renders in an AirflowText; {{ … }} is left for lemlist.
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
    A text for lemlist that contains Airflow templates in square brackets.

    ``AirflowText("Hi {{firstName}}, see you on [[ ds ]]")`` reaches lemlist as
    ``Hi {{firstName}}, see you on 2026-11-20``. Use it for any text of a step or a lead that is written in
    the DAG file. In data from an upstream task it is an error, because such data must not run templates; that
    task can build the text in Python.

    It is a dict, because Airflow serializes the DAG, and because an unrendered one must not be sent as text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(airflow=text)


#: Names that only Airflow knows; lemlist would send such a placeholder unchanged.
_AIRFLOW_ONLY = (
    r"(?:\{\{-?|\{%-?[^%]*?[\s(]|\{\{[^}]*[(~+,])\s*"
    r"((?:ds|ts)(?:_nodash)?\b(?!\s*[.\[(])|(?:ti|task_instance|dag_run|params|macros|var|conn)\b(?=\s*[.\[])"
    r"|data_interval_\w+|logical_date\b)"
)


def airflow_name(text: str) -> str | None:
    """Return the first name in a placeholder that only Airflow knows, such as ``ds``, or None."""
    found = re.search(_AIRFLOW_ONLY, text) if "{" in text else None
    return found[1] if found else None


def misplaced_templates(values: Mapping[str, Any], lemlist_renders: Callable[[str], bool]) -> list[Problem]:
    """
    Return a problem for each text that lemlist renders but that contains an Airflow template.

    :param values: The fields of a step or a lead, as they are written in the DAG file.
    :param lemlist_renders: Returns whether lemlist renders the field with this name.
    """
    return [
        Problem(
            str(field),
            f"contains an Airflow template ({name!r}), which lemlist would send as it is. Use "
            "AirflowText('… [[ … ]] …') from airflow_provider_lemlist.templating",
        )
        for field, value in values.items()
        if type(value) is str and lemlist_renders(str(field)) and (name := airflow_name(value))
    ]


def is_open(value: Any, *, rendered: bool = True) -> bool:
    """
    Return whether a value, or one inside it, is known only when the task runs.

    :param value: A value as it is written in the DAG file.
    :param rendered: Whether Airflow renders this text.
    """
    if isinstance(value, str):
        return rendered and any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, AirflowText):
        return True
    if isinstance(value, Mapping):
        return any(is_open(item, rendered=rendered) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_open(item, rendered=rendered) for item in value)
    # An XComArg, a mapped argument or a literal(…): all values that Airflow resolves, in every version.
    return callable(getattr(value, "iter_references", None))


class KeepsPlaceholders(BaseOperator):
    """
    An operator whose template fields are mappings, or lists of mappings, with texts that lemlist renders.

    Everything that Airflow resolves (an ``XComArg``, a ``literal``) is resolved anywhere inside them.
    """

    #: The names of these template fields.
    placeholders_in: ClassVar[tuple[str, ...]]

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Return whether Airflow renders the texts under this key of the mapping."""
        raise NotImplementedError

    @staticmethod
    def read_rendered(name: str, value: Any) -> Any:
        """Convert a rendered text under this key: a template yields text where a number is needed."""
        return value

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render as Airflow does, except the texts that lemlist renders."""
        has_placeholders = isinstance(content, (Mapping, list, tuple)) and any(
            content is getattr(self, name, None) for name in self.placeholders_in
        )
        # What an upstream task returned is data: Airflow marks it as seen and does not render it.
        if not has_placeholders or (seen_oids is not None and id(content) in seen_oids):
            return super().render_template(content, context, jinja_env, seen_oids)
        env = jinja_env or self.get_template_env()
        render = partial(super().render_template, context=context, seen_oids=seen_oids)

        def entry(name: str, value: Any) -> Any:
            if isinstance(value, AirflowText):
                # Native rendering would turn "[[ ds_nodash ]]" alone into a number. No Python literal begins
                # with this prefix, so the result is a text.
                prefix = "a text: "
                text = render(prefix + value["airflow"], jinja_env=env.overlay(**DELIMITERS))
                return text.removeprefix(prefix)
            if isinstance(value, Mapping):
                return {key: entry(key, item) for key, item in value.items()}
            if isinstance(value, (list, tuple)):
                return [entry(name, item) for item in value]
            if not isinstance(value, str):
                return render(value, jinja_env=env)
            if not self.airflow_renders(name):
                return value
            rendered = render(value, jinja_env=env)
            return self.read_rendered(name, rendered) if is_open(value) else rendered

        def entries(row: Any) -> Any:
            if not isinstance(row, Mapping):
                return render(row, jinja_env=env)
            return {name: entry(name, value) for name, value in row.items()}

        return entries(content) if isinstance(content, Mapping) else [entries(row) for row in content]
