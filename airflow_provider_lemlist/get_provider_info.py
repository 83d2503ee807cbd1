# SPDX-License-Identifier: Apache-2.0
"""
What Airflow reads about this package: every Airflow process and CLI call loads it, so it imports nothing.

The connection form is defined here once. Airflow 3.2 and later read it from here, earlier versions call the
hook's form methods, and ``connection.py`` checks the values of a connection against the same schemas.
"""

from __future__ import annotations

from typing import Any

CONN_TYPE = "lemlist"
HOOK_NAME = "lemlist"
DEFAULT_CONN_ID = "lemlist_default"
REAL_HOST = "https://api.lemlist.com/api"
#: Where the folder ``docs`` is published.
DOCS_URL = "https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/"
#: Where the docs explain the fields of a connection.
FIELDS_URL = f"{DOCS_URL}connection/#fields"
#: ``budget_store`` of the connection to a sandbox without a limit; refused for any other host.
UNLIMITED = "unlimited://"

#: Fields of the connection's extra, as JSON schemas. ``default`` is what an empty field means.
CONN_FIELDS: dict[str, dict[str, Any]] = {
    "timeout": {
        "label": "Timeout",
        "description": "Seconds without a response before a request counts as lost. Default: 30.",
        "schema": {"type": ["number", "null"], "default": 30, "minimum": 1, "maximum": 600},
    },
    "max_wait": {
        "label": "Longest wait",
        "description": "Seconds a request may wait for the shared rate budget before it fails. Default: 300.",
        "schema": {"type": ["number", "null"], "default": 300, "minimum": 0, "maximum": 86400},
    },
    "budget_store": {
        "label": "Budget store",
        "description": (
            "Where the workers share the rate budget of the key. Empty: a file, for all processes of one "
            "machine. Several machines: the id of an Airflow Redis connection. A URL, such as "
            "redis://host:6379/0, works too, but a password in it can be read here."
        ),
        "schema": {"type": ["string", "null"], "default": ""},
    },
    "budget_share": {
        "label": "Budget share",
        "description": (
            "The part of the key's budget that this machine may use, above 0 and at most 1, if several "
            "machines have no shared store: 0.25 for each of four. Default: 1."
        ),
        "schema": {"type": ["number", "null"], "default": 1, "minimum": 0.01, "maximum": 1},
    },
    "stop_writes": {
        "label": "Stop writes",
        "description": (
            "true: send no request that changes something in lemlist; reads go on. Running tasks notice it "
            "within 15 seconds. What lemlist sends by itself goes on. Default: false."
        ),
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "port", "schema"],
    "relabeling": {"password": "API key", "host": "Base URL"},
    "placeholders": {"password": "Settings > Integrations in lemlist", "host": f"Empty for {REAL_HOST}"},
}


def get_provider_info() -> dict[str, Any]:
    """Return the description of this package for Airflow."""
    return {
        "package-name": "airflow-provider-lemlist",
        "name": "lemlist",
        "description": "lemlist: leads, sequences, voice notes and replies, within one shared rate budget.",
        "connection-types": [
            {
                "connection-type": CONN_TYPE,
                "hook-name": HOOK_NAME,
                "hook-class-name": "airflow_provider_lemlist.hooks.lemlist.LemlistHook",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {name: _with_link(field) for name, field in CONN_FIELDS.items()},
            }
        ],
        "cli": ["airflow_provider_lemlist.cli.get_cli_commands"],
        "extra-links": [
            "airflow_provider_lemlist.links.CampaignLink",
            "airflow_provider_lemlist.links.FoundCampaignLink",
        ],
        "integrations": [
            {
                "integration-name": "lemlist",
                "external-doc-url": "https://developer.lemlist.com/",
                "logo": f"{DOCS_URL}images/icon.svg",
                "tags": ["service"],
            }
        ],
        "hooks": _of_lemlist("hooks.lemlist"),
        "operators": _of_lemlist(
            "operators.campaign",
            "operators.lead",
            "operators.load",
            "operators.sequence",
            "operators.unsubscribe",
        ),
        "sensors": _of_lemlist("sensors.activity", "sensors.campaign"),
        "transfers": [
            _from_lemlist("Common IO", "transfers.object_storage"),
            _from_lemlist("Common SQL", "transfers.sql"),
        ],
        "triggers": _of_lemlist("triggers.activity", "triggers.campaign", "triggers.events"),
        "config": {
            "lemlist": {
                "description": "Settings of the lemlist provider.",
                "options": {
                    "budget_dir": {
                        "description": (
                            "Private directory of this machine for the files in which processes share the "
                            "rate budget. Empty: one in the system's temporary directory, owned by the user."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/airflow/lemlist",
                        "default": "",
                    },
                    "audit_path": {
                        "description": (
                            "Directory, on disk or in an object storage, for a record of every request that "
                            "changed something in lemlist. Empty: none. While it cannot be written, such "
                            "requests are not sent."
                        ),
                        "version_added": "0.2.0",
                        "type": "string",
                        "example": "s3://aws_default@audit/lemlist",
                        "default": "",
                    },
                    "hide_personal_data": {
                        "description": (
                            "Whether to keep addresses, names and texts out of XComs and of the rendered "
                            "templates that Airflow shows and stores: only ids, counts and reasons remain."
                        ),
                        "version_added": "0.2.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                },
            }
        },
    }


def _with_link(field: dict[str, Any]) -> dict[str, Any]:
    """Return a field with a link to the docs in its help; the form shows Markdown if that is all it gets."""
    help_text = f"{field['description']} [Documentation]({FIELDS_URL})"
    return {"label": field["label"], "schema": {**field["schema"], "description_md": help_text}}


def _of_lemlist(*modules: str) -> list[dict[str, Any]]:
    paths = [f"airflow_provider_lemlist.{module}" for module in modules]
    return [{"integration-name": "lemlist", "python-modules": paths}]


def _from_lemlist(target: str, module: str) -> dict[str, str]:
    return {
        "source-integration-name": "lemlist",
        "target-integration-name": target,
        "python-module": f"airflow_provider_lemlist.{module}",
    }
