# SPDX-License-Identifier: Apache-2.0
"""The activities of the leads, newest first."""

from __future__ import annotations

from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.activity_types import ACTIVITY_TYPES
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.model import Activity, World, iso
from airflow_provider_lemlist.sandbox.routes import Call, route

QUERY = (
    "version", "type", "campaignId", "leadId", "isFirst", "minDate", "maxDate", "startDate", "endDate",
    "limit", "offset",
)  # fmt: skip


@route("GET /activities", query=QUERY)
def list_activities(call: Call) -> Any:
    query = call.query
    if query.get("version") != "v2":
        call.violations.append(("query", "version=v2 is missing: the response is of v1"))
    if query.get("type") not in (None, *ACTIVITY_TYPES):
        raise ApiError(400, "Bad params: unknown type", violation="unknown type")
    least = checks.moment(query, "minDate", "startDate")
    most = checks.moment(query, "maxDate", "endDate")
    if least is not None and most is not None and most <= least:
        raise checks.bad_request("Bad params: maxDate must be greater than minDate")
    found = call.world.find_activities(
        least,
        most,
        type=query.get("type"),
        campaign_id=query.get("campaignId"),
        is_first=checks.flag(query, "isFirst") if "isFirst" in query else None,
        lead_id=query.get("leadId"),
    )
    part, most_rows = call.page(), call.undocumented.activity_page_limit
    part = slice(part.start, min(part.stop, part.start + most_rows))
    return [activity_json(each, call.world, v2=query.get("version") == "v2") for each in found.newest(part)]


def activity_json(each: Activity, world: World, *, v2: bool = True) -> dict[str, Any]:
    lead, step = each.lead, each.step
    campaign = world.campaigns[lead.campaign_id]
    shown: dict[str, Any] = {
        "_id": each.id,
        "type": each.type,
        "createdAt": iso(each.created_at),
        "isFirst": each.is_first,
        "stopped": False,
        "bot": False,
        "teamId": world.team_id,
        "campaignId": campaign.id,
        "campaignName": campaign.name,
        "name": campaign.name,
        "leadId": lead.id,
        "contactId": lead.contact_id,
        "leadEmail": each.email,
        "leadFirstName": each.first_name,
        "leadLastName": each.last_name,
        "leadCompanyName": each.company_name,
        "createdBy": campaign.created_by,
        **({"sendUserId": campaign.sender_id} if campaign.sender_id else {}),
        "metaData": {
            "teamId": world.team_id,
            "campaignId": campaign.id,
            "leadId": lead.id,
            "type": each.type,
        },
        **each.details,
    }
    if step:
        steps = world.sequences[step.sequence_id].steps if step.sequence_id in world.sequences else []
        shown |= {
            "sequenceId": step.sequence_id,
            "stepId": step.id,
            "sequenceStep": steps.index(step) if step in steps else 0,
        }
        if step.template_id:
            shown["emailTemplateId"] = step.template_id
    if not v2:
        return {**lead.values, **shown}
    shown["lead"] = {
        "_id": lead.id,
        "isPaused": lead.is_paused,
        "state": lead.state,
        "source": "api",
        "variables": dict(lead.values),
        "enrichment": {"emailStatus": lead.email_status} if lead.email_status else {},
    }
    return shown
