# SPDX-License-Identifier: Apache-2.0
"""The schedules of the team, and those of a campaign."""

from __future__ import annotations

from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.model import Schedule, World, iso
from airflow_provider_lemlist.sandbox.routes import Call, route
from airflow_provider_lemlist.sandbox.routes.campaigns import pagination


@route("GET /schedules", query=["page", "offset", "limit"], ignored=["sortBy", "sortOrder"])
def list_schedules(call: Call) -> Any:
    found = list(call.world.schedules.values())
    limit = checks.number(call.query, "limit", 20, minimum=1, maximum=100)
    start = checks.number(call.query, "offset", 0)
    if "page" in call.query:
        start = (checks.number(call.query, "page", 1, minimum=1) - 1) * limit
    part = slice(start, start + limit)
    shown = [schedule_json(each, call.world) for each in found[part]]
    return {"schedules": shown, "pagination": pagination(len(found), part)}


@route("POST /schedules")
def create_schedule(call: Call) -> Any:
    return schedule_json(call.world.add_schedule(_values(call)), call.world)


@route("GET /schedules/{scheduleId}")
def get_schedule(call: Call) -> Any:
    return schedule_json(_schedule(call), call.world)


@route("PATCH /schedules/{scheduleId}")
def update_schedule(call: Call) -> Any:
    schedule = _schedule(call, missing={"error": "Schedule not found"})
    schedule.values |= _values(call, update=True)
    return schedule_json(schedule, call.world)


@route("DELETE /schedules/{scheduleId}")
def delete_schedule(call: Call) -> Any:
    schedule = _schedule(call)
    call.world.remove_schedule(schedule)
    return {"_id": schedule.id}


@route("GET /campaigns/{campaignId}/schedules/")
def list_campaign_schedules(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    return [schedule_json(call.world.schedules[each], call.world) for each in campaign.schedule_ids]


@route("POST /campaigns/{campaignId}/schedules/{scheduleId}")
def attach_schedule(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    schedule = _schedule(call)
    if schedule.id not in campaign.schedule_ids:
        campaign.schedule_ids.append(schedule.id)
    return {"scheduleId": schedule.id, "campaignId": campaign.id}


def _schedule(call: Call, missing: Any = "Schedule not found") -> Schedule:
    """Return the schedule of the path; ``missing`` is the body of the 404."""
    try:
        return call.world.schedules[call.params["scheduleId"]]
    except KeyError:
        raise ApiError(404, missing) from None


def _values(call: Call, *, update: bool = False) -> dict[str, Any]:
    """Return the fields of the body; lemlist has one error for all that are invalid."""
    try:
        return checks.schedule(call.update(checks.SCHEDULE_TYPES) if update else call.json())
    except ApiError as error:
        body = {"error": "BadRequest", "message": "Bad team or invalid schedule fields"}
        raise ApiError(400, body, violation=error.violation) from None


def schedule_json(schedule: Schedule, world: World) -> dict[str, Any]:
    return {
        "_id": schedule.id,
        **schedule.values,
        "teamId": world.team_id,
        "createdBy": schedule.created_by,
        "createdAt": iso(schedule.created_at),
    }
