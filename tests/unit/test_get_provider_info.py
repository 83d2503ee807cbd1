# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import resources
from importlib.metadata import distribution, entry_points
from typing import Any

import jsonschema
import pytest
from packaging.utils import canonicalize_name

from airflow_provider_lemlist import __version__
from airflow_provider_lemlist.get_provider_info import CONN_FIELDS, UI_FIELD_BEHAVIOUR, get_provider_info
from airflow_provider_lemlist.hooks.lemlist import LemlistHook

INFO = get_provider_info()


def test_the_info_fits_airflows_own_schema() -> None:
    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_airflow_finds_the_package_under_its_own_name() -> None:
    (entry,) = entry_points(group="apache_airflow_provider", name="provider_info").select(
        value="airflow_provider_lemlist.get_provider_info:get_provider_info"
    )
    assert entry.dist is not None
    assert INFO["package-name"] == canonicalize_name(entry.dist.name)
    assert distribution(INFO["package-name"]).version == __version__


def _class_paths(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [path for inner in value.values() for path in _class_paths(inner)]
    if isinstance(value, list):
        return [path for inner in value for path in _class_paths(inner)]
    return [value] if isinstance(value, str) and value.startswith("airflow_provider_lemlist.") else []


@pytest.mark.parametrize("path", _class_paths(INFO))
def test_every_path_in_the_info_exists(path: str) -> None:
    try:
        importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_link_of_every_operator_is_in_the_info() -> None:
    # Airflow 2 shows no other links.
    modules = [path for each in INFO["operators"] for path in each["python-modules"]]
    links = {
        f"{type(link).__module__}.{type(link).__name__}"
        for module in modules
        for operator in vars(importlib.import_module(module)).values()
        for link in getattr(operator, "operator_extra_links", ())
    }
    assert links == set(INFO["extra-links"])


def test_reading_the_info_imports_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from airflow_provider_lemlist.get_provider_info import get_provider_info; get_provider_info()\n"
        "print(sorted(set(sys.modules) - before - {'__future__', 'typing'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = [name for name in eval(done.stdout) if "airflow" in name]
    assert ours == ["airflow_provider_lemlist", "airflow_provider_lemlist.get_provider_info"]


def test_the_form_of_old_airflow_is_the_form_of_the_info() -> None:
    behaviour = LemlistHook.get_ui_field_behaviour()
    assert {name.replace("_", "-"): value for name, value in behaviour.items()} == UI_FIELD_BEHAVIOUR
    pytest.importorskip("flask_appbuilder", reason="the form of Airflow 2 is built with Flask-AppBuilder")
    from flask import Flask
    from flask_babel import Babel

    app = Flask(__name__)
    Babel(app)
    with app.app_context():
        widgets = LemlistHook.get_connection_form_widgets()
        assert {name: str(widget.args[0]) for name, widget in widgets.items()} == {
            name: field["label"] for name, field in CONN_FIELDS.items()
        }


def test_airflow_lists_the_provider_and_its_connection_type() -> None:
    from airflow.providers_manager import ProvidersManager

    assert "airflow-provider-lemlist" in ProvidersManager().providers
    # Asked as a user would: the way to it in Python differs between the versions.
    command = [sys.executable, "-m", "airflow", "providers", "hooks", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout[done.stdout.index("[{") :])
    ours = next(row for row in rows if row["connection_type"] == "lemlist")
    assert ours["class"] == "airflow_provider_lemlist.hooks.lemlist.LemlistHook"
    assert ours["conn_id_attribute_name"] == "lemlist_conn_id"


def test_the_config_section_has_its_default() -> None:
    from airflow.providers.common.compat.sdk import conf

    assert conf.get("lemlist", "budget_dir", fallback="none") != "none"
