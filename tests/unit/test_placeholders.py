# SPDX-License-Identifier: Apache-2.0
"""The variables of texts as they are written in lemlist's editor."""

from __future__ import annotations

import pytest

from airflow_provider_lemlist.placeholders import blank_in, texts_of, variables_of

BARE = {
    "{{firstName}}": {"firstName"},
    "{{ firstName }}": {"firstName"},
    "{{-icebreaker-}}": {"icebreaker"},
    "{{Company name}}": {"Company name"},
    "{{ville_préférée}}": {"ville_préférée"},
    "{{&nbsp;plan&nbsp;}}": {"plan"},
    "<p>{{<b>plan</b>}}</p>": {"plan"},
    "{{ firstName | capitalize }}": {"firstName"},
    "{{ firstName | append: lastName }}": {"firstName", "lastName"},
    '{{ firstName | append: "lastName" }}': {"firstName"},
    "{{ company.size }}": {"company"},
    "{{ tags[0] }}": {"tags"},
    "{{a}}{{b}}": {"a", "b"},
    "{% assign hi = firstName %}{{hi}}": {"firstName"},
    "{% capture hi %}Hi {{firstName}}{% endcapture %}{{hi}}": {"firstName"},
    "{% if plan %}yes{% endif %}{{plan}}": {"plan"},
    "{% if a %}{{b}}{% endif %}": {"b"},
}
OPTIONAL = {
    '{{ firstName | default: "there" }}': {"firstName"},
    "{{ firstName | capitalize | default: 'there' }}": {"firstName"},
    "{{ firstName | default: company }}": {"firstName", "company"},
    "{% if icebreaker %}{{icebreaker}}{% endif %}": {"icebreaker"},
    '{% if plan == "pro" and seats > 10 %}x{% endif %}': {"plan", "seats"},
    "{% if plan contains 'a' %}x{% elsif tier %}{{tier}}{% else %}z{% endif %}": {"plan", "tier"},
    "{% unless plan == blank %}{{plan}}{% endunless %}": {"plan"},
    "{% case plan %}{% when 'a' %}1{% when 'b', 'c' %}2{% endcase %}": {"plan"},
    "{% for tag in tags %}{{tag}}{{forloop.index}}{% endfor %}": {"tags"},
    '{% assign hi = firstName | default: "x" %}{{hi}}': {"firstName"},
}
NONE = [
    "",
    "no variable",
    "{{signature}}",
    "{{senderName}}",
    "{{sender.name}}",
    "{{senderFirstName | capitalize}}",
    "{{ 'now' | date: '%A' }}",
    '{{ "now" | date: "%d" | plus: 2 }}',
    "{{ now | date: '%A' }}",
    "{{ 3 | plus: 4 }}",
    "{{ true }}",
    "{{ }}",
    "{{",
    "{% comment %}{{hidden}}{% endcomment %}",
    "{%- raw -%}{{shown}}{%- endraw -%}",
    "{{unsubscribeLink}}",
    "{% endif %}",
    "{%%}",
]


@pytest.mark.parametrize("text", BARE)
def test_variable_without_default_is_needed(text: str) -> None:
    assert variables_of([text]).needed == BARE[text]


@pytest.mark.parametrize("text", OPTIONAL)
def test_variable_with_default_or_in_condition_is_optional(text: str) -> None:
    found = variables_of([text])
    assert (found.needed, found.optional) == (set(), OPTIONAL[text])


@pytest.mark.parametrize("text", NONE)
def test_built_in_variables_and_other_text_are_ignored(text: str) -> None:
    found = variables_of([text])
    assert (found.needed, found.optional) == (set(), set())


def test_custom_variable_with_prefix_of_a_built_in_one_is_needed() -> None:
    assert variables_of(["{{timezone}} {{dates}} {{teamSize}}"]).needed == {"timezone", "dates", "teamSize"}


def test_variable_needed_in_one_text_is_needed() -> None:
    found = variables_of(['{{a | default: "x"}}', "{{a}}"])
    assert (found.needed, found.optional) == ({"a"}, set())


def test_texts_of_every_step_of_every_branch_are_read() -> None:
    sequences = {
        "seq_1": {"steps": [{"type": "email", "subject": "{{a}}", "message": "<p>{{b}}</p>", "delay": 1}]},
        "seq_2": {"level": 1, "steps": [{"type": "linkedinSend", "altMessage": "{{c}}"}]},
        "seq_3": {},
    }
    assert variables_of(texts_of(sequences)).needed == {"a", "b", "c"}


def test_variable_without_a_value_is_blank() -> None:
    lead = {"firstName": "Ana", "plan": "", "city": " \t", "Company name": "Norte"}
    wanted = ["plan", "firstName", "hook", "city", "Company name"]
    assert blank_in(lead, wanted) == ["plan", "hook", "city"]
