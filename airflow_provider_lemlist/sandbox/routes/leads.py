# SPDX-License-Identifier: Apache-2.0
"""Leads: create, read, update, mark, remove; their custom variables; the audio of their voice notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError, bad_team
from airflow_provider_lemlist.sandbox.lead_states import STATES, has_state
from airflow_provider_lemlist.sandbox.model import ENRICHMENTS, LEAD_FIELDS, Campaign, Lead, World, iso
from airflow_provider_lemlist.sandbox.routes import Call, route
from airflow_provider_lemlist.sandbox.statutes import blocking

AUDIO_EXTENSIONS = (".m4a", ".mp3", ".wav", ".ogg", ".oga", ".opus", ".aac", ".flac", ".webm", ".mp4")
#: The limit of images and videos; none is documented for audio.
MAX_AUDIO_BYTES = 20 * 1024 * 1024


# --- Create and read --------------------------------------------------------------------------------------


@route("POST /campaigns/{campaignId}/leads/", query=["deduplicate", *ENRICHMENTS])
def create_lead(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    values = checks.lead(call.json())
    deduplicate = checks.flag(call.query, "deduplicate")
    enrichments = [name for name in ENRICHMENTS if checks.flag(call.query, name)]
    for other in call.world.leads_of(values["email"]) if values.get("email") else ():
        if other.campaign_id == campaign.id:
            raise duplicate("campaign", 400)
        if deduplicate:
            raise duplicate("elsewhere", call.undocumented.elsewhere_status)
    owner = values.pop("contactOwner", None)
    lead = call.world.add_lead(campaign, values, owner=owner, enrichments=enrichments)
    return lead_response(lead, campaign)


DUPLICATES = {"campaign": "Lead already in the campaign", "elsewhere": "Lead already in other campaign"}


def duplicate(where: str, status: int) -> ApiError:
    return ApiError(status, DUPLICATES[where])


@route("GET /leads", query=["id", "email", "version"])
def get_lead(call: Call) -> Any:
    note_missing_version(call)
    if lead_id := call.query.get("id"):
        lead = call.world.lead(lead_id)
    elif not call.query.get("email"):
        raise bad_team("Expected id or email")
    else:
        leads = call.world.leads_of(call.query["email"])
        if not leads:
            raise ApiError(404, "Lead not found")
        lead = leads[-1]
    return lead_flat(lead, call.world)


@route("GET /leads/{email}", query=["version", "campaignId"])
def get_leads_by_email(call: Call) -> Any:
    note_missing_version(call)
    wanted = call.query.get("campaignId")
    leads = [lead for lead in call.world.leads_of(call.params["email"]) if wanted in (None, lead.campaign_id)]
    if not leads:
        raise ApiError(404, "Lead not found")
    if call.query.get("version") != "v2":
        return lead_flat(leads[-1], call.world)
    return [lead_entry(lead, call.world) for lead in leads]


def note_missing_version(call: Call) -> None:
    if call.query.get("version") != "v2":
        call.violations.append(("query", "version=v2 is missing: the response is of v1"))


@route("GET /campaigns/{campaignId}/leads/", query=["state", "limit"])
def list_leads(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    part = call.page(maximum=500)
    limit = part.stop - part.start
    newest_first = reversed(leads_in(call, campaign))
    return [
        {"_id": lead.id, "contactId": lead.contact_id, "state": lead.state}
        for lead, _ in zip(newest_first, range(limit), strict=False)
    ]


def leads_in(call: Call, campaign: Campaign) -> list[Lead]:
    """Return the leads of a campaign with the requested states; none if no state was requested."""
    states = call.query.get("state", "" if call.undocumented.state_required else "all")
    if not states:
        call.violations.append(("query", "state is missing: the response is empty without state=all"))
        return []
    wanted = states.split(",")
    call.violations += [("query", f"unknown state {state}") for state in wanted if state not in STATES]
    return [lead for lead in campaign.leads.values() if any(has_state(lead, state) for state in wanted)]


# --- Change and remove ------------------------------------------------------------------------------------


@route("PATCH /campaigns/{campaignId}/leads/{leadId}")
def update_lead(call: Call) -> Any:
    lead, campaign = lead_of_path(call, "leadId")
    body = call.json()
    if not body:
        raise bad_team("Expected at least one field")
    if lead.stage == "unsubscribed":
        raise ApiError(500, "Lead in graveyard")
    for name, value in body.items():
        checks.expect("string", value, name)
    if "email" in body:
        raise checks.mismatch("Unknown key 'email': the email address of a lead cannot be changed")
    if body.get("preferredContactMethod") not in (None, "email", "linkedIn"):
        raise checks.mismatch("Expected one of email, linkedIn in field preferredContactMethod")
    if body.get("timezone"):
        checks.timezone(body["timezone"])
    if not call.ignored:
        lead.owner = body.pop("contactOwner", lead.owner)
        lead.preferred_contact_method = body.pop("preferredContactMethod", lead.preferred_contact_method)
        lead.values |= body
        lead.updated_at = call.world.clock()
        campaign.variables.update(name for name in body if name not in LEAD_FIELDS)
    further = {
        "leadUrl": f"{call.origin}/campaigns/{campaign.id}?find={lead.id}",
        "preferredContactMethod": lead.preferred_contact_method,
        "emailStatus": lead.email_status,
    }
    return lead_response(lead, campaign) | {name: value for name, value in further.items() if value}


@route("DELETE /campaigns/{campaignId}/leads/{leadId}", query=["action"])
def delete_lead(call: Call) -> Any:
    lead, campaign = lead_of_path(call, "leadId")
    if call.query.get("action") == "remove":
        call.world.remove_lead(lead)
        return lead_flat(lead, call.world)
    # Without action=remove the lead is unsubscribed, which requires an email address.
    if "action" in call.query:
        call.violations.append(("query", "action is not remove: the lead is unsubscribed, not removed"))
    if call.params["leadId"] == lead.id:
        what = "the path contains a lead id and action=remove is missing"
        raise ApiError(404, "An email is required to unsub a lead", violation=what)
    if lead.stage == "unsubscribed":
        raise ApiError(404, "Lead not found")
    lead.stage = "unsubscribed"
    call.world.add_activity(lead, "emailsUnsubscribed")
    shown = lead_response(lead, campaign)
    return {name: shown[name] for name in ("email", "_id", "isPaused", "campaignId", "contactId")}


@route("DELETE /campaigns/{campaignId}/leads/", query=["action"])
def delete_unnamed_lead(call: Call) -> Any:
    raise ApiError(404, "An email is required to unsub a lead", violation="the path contains no lead")


def lead_of_path(call: Call, name: str) -> tuple[Lead, Campaign]:
    """Return the lead of the campaign whose id or email address is in the path."""
    campaign = call.world.campaign(call.params["campaignId"])
    id_or_email = call.params[name]
    for lead in [campaign.leads.get(id_or_email), *call.world.leads_of(id_or_email)]:
        if lead is not None and lead.campaign_id == campaign.id:
            return lead, campaign
    raise ApiError(404, "Lead not found")


# --- Pause, resume, launch, mark --------------------------------------------------------------------------


@route("POST /leads/pause/{leadId}", query=["campaignId"])
def pause_lead(call: Call) -> Any:
    leads = _in_wanted_campaign(call.world.siblings(call.world.lead(call.params["leadId"])), call)
    return [_paused(lead, True, call.world) for lead in leads]


@route("POST /leads/start/{leadId}", query=["campaignId"])
def resume_lead(call: Call) -> Any:
    leads = _in_wanted_campaign([call.world.lead(call.params["leadId"])], call)
    return [_paused(lead, False, call.world) for lead in leads]


def _in_wanted_campaign(leads: list[Lead], call: Call) -> list[Lead]:
    found = [lead for lead in leads if call.query.get("campaignId") in (None, lead.campaign_id)]
    if not found:
        raise ApiError(404, "Lead not found")
    return found


def _paused(lead: Lead, paused: bool, world: World) -> dict[str, Any]:
    if lead.is_paused != paused:
        lead.is_paused = paused
        world.add_activity(lead, "paused" if paused else "resumed")
    return lead_response(lead, world.campaign(lead.campaign_id))


@route("POST /leads/review/{leadId}")
def review_lead(call: Call) -> Any:
    lead = call.world.leads.get(call.params["leadId"])
    if lead is None:
        raise _review_error(404, "LEAD_NOT_FOUND", "Lead not found")
    campaign = call.world.campaign(lead.campaign_id)
    if campaign.status == "archived":
        raise _review_error(404, "CAMPAIGN_NOT_FOUND", "Campaign not found")
    if lead.is_paused:
        raise _review_error(400, "LEAD_PAUSED", "The lead is paused")
    if lead.stage != "review":
        raise _review_error(400, "LEAD_ALREADY_LAUNCHED", "The lead was already launched")
    if any(each.category == "steps" for each in blocking(campaign, call.world)):
        raise _review_error(400, "CAMPAIGN_STEP_ERRORS", "The steps of the campaign have errors")
    # A variable of the campaign that lemlist writes with AI is valid once the lead has a text for it.
    if not all(lead.values.get(name) for name in campaign.ai_variables):
        raise _review_error(400, "LEAD_AI_VARIABLE_INVALID", "An AI variable of the lead is invalid")
    if not campaign.sender_ids:
        raise _review_error(400, "LEAD_NO_SENDER_AVAILABLE", "No sender is available for the lead")
    lead.launch(call.world.clock())
    return {"ok": True}


def _review_error(status: int, code: str, message: str) -> ApiError:
    return ApiError(status, {"error": f"CAMPAIGN_LEAD_REVIEW_{code}", "message": message})


MARKS = {
    "interested": ("interested", "manualInterested"),
    "notinterested": ("notInterested", "manualNotInterested"),
}


def _mark(lead: Lead, mark: str, world: World) -> dict[str, Any]:
    lead.stage, activity = MARKS[mark]
    world.add_activity(lead, activity)
    return lead_response(lead, world.campaign(lead.campaign_id))


def _in_all_campaigns(mark: str) -> Callable[[Call], Any]:
    def handler(call: Call) -> Any:
        id_or_email = call.params["leadIdOrEmail"]
        known = call.world.leads.get(id_or_email)
        leads = call.world.siblings(known) if known else call.world.leads_of(id_or_email)
        if not leads:
            raise ApiError(404, "Lead not found")
        return [_mark(lead, mark, call.world) for lead in leads]

    return handler


def _in_campaign(mark: str) -> Callable[[Call], Any]:
    def handler(call: Call) -> Any:
        lead, _ = lead_of_path(call, "leadIdOrEmail")
        return _mark(lead, mark, call.world)

    return handler


for _name in MARKS:
    route(f"POST /leads/{_name}/{{leadIdOrEmail}}")(_in_all_campaigns(_name))
    route(f"POST /campaigns/{{campaignId}}/leads/{{leadIdOrEmail}}/{_name}")(_in_campaign(_name))


# --- Custom variables -------------------------------------------------------------------------------------


@route("POST /leads/{leadId}/variables", query=None)
def create_variables(call: Call) -> Any:
    lead, given = _variables(call)
    campaign = call.world.campaign(lead.campaign_id)
    for name in given:
        if name in LEAD_FIELDS or name in campaign.variables:
            raise ApiError(400, {"ok": False, "status": f"Variables {name} already exist"})
    lead.values |= given
    campaign.variables |= given.keys()
    return {"ok": True}


@route("PATCH /leads/{leadId}/variables", query=None)
def update_variables(call: Call) -> Any:
    lead, given = _existing_variables(call)
    lead.values |= given
    return {"ok": True}


@route("DELETE /leads/{leadId}/variables", query=None)
def erase_variables(call: Call) -> Any:
    lead, given = _existing_variables(call)
    for name in given:
        lead.values.pop(name, None)
    return {"ok": True}


def _variables(call: Call) -> tuple[Lead, dict[str, str]]:
    """Return the lead, and the variables of the query or, if it is empty, of the body (both documented)."""
    if "@" in call.params["leadId"]:
        raise ApiError(400, "Invalid leadId")
    lead = call.world.lead(call.params["leadId"])
    given = dict(call.query) or (call.json() if call.body else {})
    for name, value in given.items():
        checks.expect("string", value, name)
    if not given:
        raise ApiError(400, "Variable not found")
    lead.updated_at = call.world.clock()
    return lead, given


def _existing_variables(call: Call) -> tuple[Lead, dict[str, str]]:
    lead, given = _variables(call)
    known = call.world.campaign(lead.campaign_id).variables | set(LEAD_FIELDS)
    for name in given:
        if name not in known:
            raise ApiError(400, {"ok": False, "status": f"Variables {name} not found"})
    return lead, given


# --- Audio ------------------------------------------------------------------------------------------------


@route("POST /leads/audio", query=["leadId", "stepId"])
def upload_audio(call: Call) -> Any:
    """Store an audio file. Only two errors are documented, so the violation contains the reason."""
    lead = call.world.leads.get(call.query.get("leadId", ""))
    if lead is None:
        raise bad_team("leadId is missing or is no lead")
    step = call.world.step(call.query.get("stepId", ""))
    if step is None or call.world.sequences[step.sequence_id].campaign_id != lead.campaign_id:
        raise bad_team("stepId is missing or is no step of the lead's campaign")
    if step.type != "linkedinVoiceNote":
        raise bad_team("the step is no voice note")
    file = call.file
    if file is None or not file.content:
        raise ApiError(400, "Invalid audio file", violation="the part named file is missing or empty")
    if len(file.content) > MAX_AUDIO_BYTES:
        raise ApiError(400, "Invalid audio file", violation="the file is larger than 20 MB")
    name, dot, extension = file.file_name.rpartition(".")
    known_extension = f".{extension.lower()}" in AUDIO_EXTENSIONS
    if not (file.content_type.startswith("audio/") or known_extension):
        raise ApiError(400, "Invalid audio file", violation="neither content type nor file name is audio")
    audio = call.world.store_audio(
        lead,
        step,
        file_name=name if dot else file.file_name,
        content_type=file.content_type,
        content=file.content,
        url=f"{call.origin}/_sandbox/files/*{f'.{extension}' if known_extension else ''}",
    )
    status = {
        "url": audio.url,
        "teamId": call.world.team_id,
        "campaignId": audio.campaign_id,
        "leadId": audio.lead_id,
        "fileName": audio.file_name,
    }
    return {"ok": True, "status": status}


# --- Shapes -----------------------------------------------------------------------------------------------

#: The fields of a lead that the response to a create contains.
ECHOED = ("email", "firstName", "lastName", "companyName", "jobTitle", "companyDomain")


def lead_response(lead: Lead, campaign: Campaign) -> dict[str, Any]:
    """Return a lead as create, update, pause and the marks return it."""
    return {
        "_id": lead.id,
        "campaignId": campaign.id,
        "campaignName": campaign.name,
        **{name: lead.values[name] for name in ECHOED if name in lead.values},
        "isPaused": lead.is_paused,
        "contactId": lead.contact_id,
    }


def lead_flat(lead: Lead, world: World) -> dict[str, Any]:
    """Return a lead with its variables at the top level."""
    shown = {**lead.values, **lead_response(lead, world.campaign(lead.campaign_id))}
    return shown | ({"emailStatus": lead.email_status} if lead.email_status else {})


def lead_entry(lead: Lead, world: World) -> dict[str, Any]:
    """Return a lead as version v2 of the search by email address does."""
    campaign = world.campaign(lead.campaign_id)
    return {
        "_id": lead.id,
        "updatedAt": iso(lead.updated_at),
        "isPaused": lead.is_paused,
        "state": lead.state,
        "status": lead.status,
        "personalized": False,
        "source": "api",
        "variables": dict(lead.values),
        "contactId": lead.contact_id,
        "enrichment": {"emailStatus": lead.email_status} if lead.email_status else {},
        "campaign": {"id": campaign.id, "name": campaign.name, "status": campaign.status},
        "sendingUser": {},
    }
