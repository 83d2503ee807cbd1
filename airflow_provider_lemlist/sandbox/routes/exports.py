# SPDX-License-Identifier: Apache-2.0
"""Exports: the leads of a campaign in one response, and its statistics as a job that is polled."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.model import LEAD_FIELDS, Export, Lead, World, iso
from airflow_provider_lemlist.sandbox.routes import Call, Response, route
from airflow_provider_lemlist.sandbox.routes.campaigns import StatsFilter, stats
from airflow_provider_lemlist.sandbox.routes.leads import leads_in


def csv_response(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return Response.text(text.getvalue(), content_type="text/csv")


@route("GET /campaigns/{campaignId}/export/leads", query=["state", "format"])
def export_leads(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    leads = leads_in(call, campaign)
    if call.query.get("format") not in (None, "csv", "json"):
        raise checks.mismatch("Expected csv or json in format")
    if call.query.get("format") == "json":
        every = call.undocumented.export_variables
        return [_row(lead, lead.values if every else LEAD_FIELDS) for lead in leads]
    variables = list(dict.fromkeys(name for lead in leads for name in lead.values))
    return csv_response(
        ["emailStatus", *variables, "lastState", "status", "_id"],
        (_row(lead, variables) for lead in leads),
    )


def _row(lead: Lead, names: Iterable[str]) -> dict[str, Any]:
    return {
        **({"emailStatus": lead.email_status} if lead.email_status else {}),
        **{name: lead.values[name] for name in names if name in lead.values},
        "lastState": lead.state,
        "status": lead.status,
        "_id": lead.id,
    }


# --- Statistics as a job ----------------------------------------------------------------------------------


@route("GET /campaigns/{campaignId}/export/start")
def start_export(call: Call) -> Any:
    """Start an export; each GET creates a new one."""
    world = call.world
    campaign = world.campaign(call.params["campaignId"])
    export = Export(world.new_id("axp"), campaign.id, world.clock(), call.undocumented.export_polls)
    world.exports[export.id] = export
    shown = _status(export, call)
    return {"_id": export.id, "campaignName": campaign.name, **shown, "progressType": "starting"}


@route("GET /campaigns/{campaignId}/export/{exportId}/status")
def get_export(call: Call) -> Any:
    export = _export(call)
    if export.polls_left > 0:
        export.polls_left -= 1
        return {"ok": True, "status": _status(export, call)}
    return {"ok": True, "status": _status(export, call, done=True)}


@route("PUT /campaigns/{campaignId}/export/{exportId}/email/{email}")
def mail_export(call: Call) -> Any:
    try:
        export = _export(call)
    except ApiError as error:
        # On this route the error is text, not JSON.
        raise error if isinstance(error.body, str) else ApiError(404, "Export not found") from None
    export.email = call.params["email"]
    status = _status(export, call, done=export.polls_left <= 0) | {"email": export.email}
    return {"ok": True, "status": status}


@route("GET /files/exports/{file}")
def get_file(call: Call) -> Any:
    name = call.params["file"].removeprefix("fil_").removesuffix(".csv")
    if name not in call.world.exports:
        raise ApiError(404, "File not found")
    export = call.world.exports[name]
    campaign = call.world.campaign(export.campaign_id)
    rows = stats(campaign, call.world, StatsFilter(0, call.world.clock()))["steps"]
    return csv_response(list(rows[0]) if rows else ["index", "sequenceId"], rows)


def _export(call: Call) -> Export:
    call.world.campaign(call.params["campaignId"])
    export = call.world.exports.get(call.params["exportId"])
    if export is None or export.campaign_id != call.params["campaignId"]:
        message = f"Export with id {call.params['exportId']} not found"
        raise ApiError(404, {"ok": False, "message": message})
    return export


def _status(export: Export, call: Call, *, done: bool = False) -> dict[str, Any]:
    world: World = call.world
    shown = {
        "id": export.id,
        "teamId": world.team_id,
        "campaignId": export.campaign_id,
        "status": "done" if done else "pending",
        "startedAt": iso(export.started_at),
        "progressIndex": 0,
        "progressTime": int(world.clock() * 1000),
        "progressLastStepDuration": 0,
        "progressType": "done" if done else "exporting",
        "progress": 0,
        "total": 0,
    }
    if done:
        url = f"{call.origin}/api/files/exports/fil_{export.id}.csv"
        shown |= {"endedAt": iso(world.clock()), "fileSize": 0, "url": url}
    return shown
