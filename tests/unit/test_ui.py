# SPDX-License-Identifier: Apache-2.0
"""What Airflow shows of the package: help that leads to the docs, an icon, readable colours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from airflow_provider_lemlist.get_provider_info import CONN_FIELDS, DOCS_URL, FIELDS_URL, get_provider_info
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.operators.base import LemlistOperator
from tests.unit.test_safety import OPERATORS

DOCS = Path(__file__).parents[2] / "docs"
(CONNECTION,) = get_provider_info()["connection-types"]


def test_help_of_every_field_links_to_the_page_that_explains_it() -> None:
    page, _, section = FIELDS_URL.removeprefix(DOCS_URL).partition("/#")
    text = (DOCS / f"{page}.md").read_text()
    assert f"## {section.title()}" in text
    for name, field in CONNECTION["conn-fields"].items():
        assert f"`{name}`" in text
        # Airflow before 3.2 shows the same text as it is.
        assert not re.search(r"[*<>`\[\]]", CONN_FIELDS[name]["description"])
        assert (
            field["schema"]["description_md"]
            == f"{CONN_FIELDS[name]['description']} [Documentation]({FIELDS_URL})"
        )


def test_form_of_airflow_shows_the_help_as_markdown() -> None:
    services: Any = pytest.importorskip(
        "airflow.api_fastapi.core_api.services.ui.connections",
        reason="Airflow 2 builds the form from the hook",
    )
    (ours,) = (
        each for each in services.HookMetaService.hook_meta_data() if each.connection_type == "lemlist"
    )
    assert set(ours.extra_fields) == set(CONN_FIELDS)
    for field in ours.extra_fields.values():
        assert field["description"] is None  # with one, the form shows it instead, as plain text
        assert FIELDS_URL in field["schema"]["description_md"]


def test_form_of_old_airflow_shows_the_address_of_the_docs() -> None:
    pytest.importorskip("flask_appbuilder", reason="the form of Airflow 2 is built with Flask-AppBuilder")
    from flask import Flask
    from flask_babel import Babel

    app = Flask(__name__)
    Babel(app)
    with app.app_context():
        for name, widget in LemlistHook.get_connection_form_widgets().items():
            assert widget.kwargs["description"] == f"{CONN_FIELDS[name]['description']} {FIELDS_URL}"


def test_icon_is_a_drawing_in_the_docs() -> None:
    (integration,) = get_provider_info()["integrations"]
    assert integration["logo"].startswith(DOCS_URL)
    icon = DOCS / integration["logo"].removeprefix(DOCS_URL)
    assert ElementTree.parse(icon).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search("<(?:image|script)|href=", icon.read_text())


@pytest.mark.parametrize("name", OPERATORS)
def test_colours_of_an_operator_are_readable(name: str) -> None:
    operator = OPERATORS[name]
    # Airflow writes its name in ui_fgcolor, and in the picture of `airflow dags show` in black.
    for text in (operator.ui_fgcolor, "#000000"):
        assert contrast(text, operator.ui_color) >= 7, f"{text} on {operator.ui_color}"


def test_only_what_makes_lemlist_contact_people_is_orange() -> None:
    colours = {name: operator.ui_color for name, operator in OPERATORS.items()}
    orange = colours["LaunchLeadsOperator"]
    assert {name for name, colour in colours.items() if colour == orange} == {
        "LaunchLeadsOperator",
        "StartCampaignOperator",
    }
    assert len(set(colours.values())) == 4
    assert colours["CreateLeadOperator"] == LemlistOperator.ui_color


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
