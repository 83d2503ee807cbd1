# SPDX-License-Identifier: Apache-2.0
"""Unsubscribed values (email addresses, domains, LinkedIn URLs, phone numbers) and contacts."""

from __future__ import annotations

from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.model import Contact, Unsubscribe, iso
from airflow_provider_lemlist.sandbox.routes import Call, route
from airflow_provider_lemlist.sandbox.routes.exports import csv_response

MAX_VALUES = 10_000
PROTECTED = ("lead", "abuse")


@route("GET /v2/unsubscribes/variables", query=["offset", "limit"])
def list_values(call: Call) -> Any:
    return [_listed(each) for each in list(call.world.unsubscribes.values())[call.page()]]


@route("POST /v2/unsubscribes/variables")
def add_values(call: Call) -> Any:
    body = call.json()
    values = checks.expect("array", body.get("values"), "values")
    if unknown := sorted(body.keys() - {"values"}):
        raise checks.mismatch(f"Unknown key '{unknown[0]}'")
    if len(values) > MAX_VALUES:
        raise ApiError(400, "Maximum 10000 values allowed", violation="more than 10000 values")
    for value in values:
        checks.expect("string", value, "values")
    for value in values:
        call.world.unsubscribe(value)
    return "Variables unsubscribed"


@route("GET /v2/unsubscribes/variables/")
@route("POST /v2/unsubscribes/variables/")
def no_value(call: Call) -> Any:
    raise ApiError(400, "No value", violation="the path contains no value")


@route("GET /v2/unsubscribes/variables/{value}")
def get_value(call: Call) -> Any:
    found = call.world.unsubscribes.get(call.params["value"])
    if found is None:
        raise ApiError(404, "Variable not found")
    return _single(found)


@route("POST /v2/unsubscribes/variables/{value}")
def add_value(call: Call) -> Any:
    return _single(call.world.unsubscribe(call.params["value"]))


@route("DELETE /v2/unsubscribes/variables/{value}")
def remove_value(call: Call) -> Any:
    found = call.world.unsubscribes.get(call.params["value"])
    if found is None:
        raise ApiError(400, "Variable not found in unsubscribe list")
    if found.source.lower() in PROTECTED:
        raise ApiError(409, "Variable is protected and cannot be re-subscribed")
    del call.world.unsubscribes[found.value]
    return "Variable subscribed"


@route("GET /v2/unsubscribes/exports/variables")
def export_values(call: Call) -> Any:
    values = map(_listed, call.world.unsubscribes.values())
    return csv_response(["_id", "value", "source", "createdAt"], values)


@route("GET /v2/unsubscribes/contacts/{contactId}")
def get_contact(call: Call) -> Any:
    contact = _contact(call)
    return {"_id": contact.id, "doNotContact": contact.do_not_contact}


@route("POST /v2/unsubscribes/contacts/{contactId}")
def unsubscribe_contact(call: Call) -> Any:
    _contact(call).do_not_contact = True
    return "Contact subscription updated"


@route("DELETE /v2/unsubscribes/contacts/{contactId}")
def resubscribe_contact(call: Call) -> Any:
    _contact(call).do_not_contact = False
    return "Contact subscription updated"


@route("GET /v2/unsubscribes/exports/contacts")
def export_contacts(call: Call) -> Any:
    contacts = call.world.contacts.values()
    return csv_response(
        ["_id", "doNotContact"],
        ({"_id": each.id, "doNotContact": str(each.do_not_contact).lower()} for each in contacts),
    )


def _contact(call: Call) -> Contact:
    try:
        return call.world.contacts[call.params["contactId"]]
    except KeyError:
        raise ApiError(400, "Bad contact identifier") from None


def _listed(each: Unsubscribe) -> dict[str, Any]:
    return {"_id": each.id, "value": each.value, "source": each.source, "createdAt": iso(each.created_at)}


def _single(each: Unsubscribe) -> dict[str, Any]:
    return {"_id": each.id, "value": each.value, "variable": each.value, "source": each.source}
