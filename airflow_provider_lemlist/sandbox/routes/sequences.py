# SPDX-License-Identifier: Apache-2.0
"""Sequences and their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError, bad_team
from airflow_provider_lemlist.sandbox.model import CONDITION_LABELS, Branch, Sequence, Step, World
from airflow_provider_lemlist.sandbox.routes import Call, route
from airflow_provider_lemlist.sandbox.tidy_html import tidy_html
from airflow_provider_lemlist.sandbox.undocumented import Undocumented


def sequence_of(call: Call) -> Sequence:
    """Return the sequence of the path; no 404 is documented for one that does not exist."""
    try:
        return call.world.sequences[call.params["sequenceId"]]
    except KeyError:
        raise bad_team() from None


def stored_step(
    body: Mapping[str, Any], world: World, options: Undocumented, *, of_type: str | None = None
) -> dict[str, Any]:
    """Return the body of a step as lemlist stores it, after ``checks.step``."""
    active = [each.id for each in world.campaigns.values() if each.status != "archived"]
    stored = checks.step(body, active, of_type=of_type)
    if options.tidy_html and stored["type"] == "email" and "message" in stored:
        stored["message"] = tidy_html(stored["message"])
    return stored


@route("GET /campaigns/{campaignId}/sequences")
def list_sequences(call: Call) -> Any:
    campaign = call.world.campaign(call.params["campaignId"])
    return {each.id: sequence_json(each, call.world) for each in call.world.sequences_of(campaign)}


@route("POST /sequences/{sequenceId}/steps")
def add_step(call: Call) -> Any:
    sequence = sequence_of(call)
    body = stored_step(call.json(), call.world, call.undocumented)
    return step_response(call.world.add_step(sequence, body))


@route("PATCH /sequences/{sequenceId}/steps/{stepId}")
def update_step(call: Call) -> Any:
    sequence = sequence_of(call)
    try:
        step = sequence.step(call.params["stepId"])
    except ApiError:
        raise bad_team() from None
    running = call.world.campaign(sequence.campaign_id).status == "running"
    if running and call.undocumented.edit_running == "refused":
        raise ApiError(400, "You cannot edit this step because the campaign is running")
    body = call.update(dict.fromkeys(checks.step_fields(step.type, update=True)))
    body = stored_step(body, call.world, call.undocumented, of_type=step.type)
    del body["type"]
    step.delay = body.pop("delay", step.delay)
    step.values |= body
    if "message" in body and step.template_id is None:
        step.template_id = call.world.new_id("etp")
    for branch in step.branches:
        if branch.key is not None:
            branch.key = step.values["conditionKey"]
            branch.label = CONDITION_LABELS.get(branch.key, branch.key)
            branch.delay, branch.delay_type = step.delay, step.values["delayType"]
    return step_response(step)


@route("DELETE /sequences/{sequenceId}/steps/{stepId}")
def delete_step(call: Call) -> Any:
    sequence = call.world.sequences.get(call.params["sequenceId"])
    if sequence is None:
        raise ApiError(404, "Sequence not found")
    step = sequence.step(call.params["stepId"])
    if call.world.campaign(sequence.campaign_id).status == "running":
        raise ApiError(400, "You cannot delete this step because the campaign is running")
    call.world.remove_step(sequence, step)
    return {"ok": True}


# --- Shapes -----------------------------------------------------------------------------------------------


def step_response(step: Step) -> dict[str, Any]:
    """Return a step as add and update do: a condition with its branches, another step with its message."""
    if step.branches:
        return {"_id": step.id, "type": step.type, "conditions": conditions(step)}
    shown = {"_id": step.id, "type": step.type, "delay": step.delay}
    if step.template_id:
        shown |= {"emailTemplateId": step.template_id, "message": step.values.get("message", "")}
    return shown


def sequence_json(sequence: Sequence, world: World) -> dict[str, Any]:
    """Return a sequence as the list of a campaign's sequences does."""
    shown: dict[str, Any] = {
        "_id": sequence.id,
        "level": sequence.level,
        "steps": [listed_step(step, position) for position, step in enumerate(sequence.steps)],
    }
    if sequence.parent_id:
        parents = [step.id for step in world.sequences[sequence.parent_id].steps]
        shown |= {
            "parentId": sequence.parent_id,
            "conditionalStepIndex": parents.index(sequence.condition_id or ""),
        }
    return shown


def listed_step(step: Step, position: int) -> dict[str, Any]:
    """Return a step of a listed sequence, with only the documented fields."""
    shown = {
        **step_response(step),
        "delay": step.delay,
        "index": position + 1,
        "sequenceStep": position,
        "sequenceId": step.sequence_id,
    }
    if step.type == "email":
        shown["subject"] = step.values["subject"]
    return shown


def conditions(step: Step) -> list[dict[str, Any]]:
    return [_condition(branch) for branch in step.branches]


def _condition(branch: Branch) -> dict[str, Any]:
    if branch.key is None:
        return {"sequenceId": branch.sequence_id, "fallback": True}
    return {
        "sequenceId": branch.sequence_id,
        "label": branch.label,
        "key": branch.key,
        "delay": branch.delay,
        "delayType": branch.delay_type,
    }
