# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.sandbox.activity_types import ACTIVITY_TYPES
from airflow_provider_lemlist.sandbox.model import World
from airflow_provider_lemlist.sandbox.prospects import (
    STEP_ACTIVITIES,
    Prospects,
    SimulationOptions,
    plan_events,
)
from airflow_provider_lemlist.steps import CATALOGUE
from tests.unit.sandbox.conftest import Client
from tests.waiting import wait_for

EMAIL = {"type": "email", "subject": "a", "message": "b"}


def world_with(*steps: dict[str, Any], people: int = 1) -> World:
    world = World()
    campaign = world.add_campaign("x", status="running")
    for step in steps:
        world.add_step(world.sequences[campaign.sequence_id], step)
    for number in range(people):
        world.add_lead(campaign, {"email": f"p{number}@example.com"})
    return world


def types(world: World, **behaviour: Any) -> list[list[str]]:
    """Return the planned activities of each lead, in order."""
    sequence = next(iter(world.campaigns.values())).sequence_id
    return [
        [event.type for event in plan_events(lead, sequence, world.sequences, SimulationOptions(**behaviour))]
        for lead in world.leads.values()
    ]


# --- Planned events ---------------------------------------------------------------------------------------


def test_the_same_seed_plans_the_same_events() -> None:
    world = world_with(EMAIL, {"type": "linkedinInvite"}, EMAIL, people=30)
    assert types(world, seed=1) == types(world, seed=1) != types(world, seed=2)


def test_probabilities_are_observed() -> None:
    world = world_with(EMAIL, people=400)
    counts = Counter(type for each in types(world, opens=0.5, clicks=0.5, replies=0.5) for type in each)
    assert counts["emailsSent"] == 400
    assert 150 < counts["emailsOpened"] < 250
    assert 60 < counts["emailsReplied"] < 140


def test_a_reply_ends_the_sequence() -> None:
    assert types(world_with(EMAIL, EMAIL), opens=1, clicks=0, replies=1) == [
        ["emailsSent", "emailsOpened", "emailsReplied"]
    ]


def test_by_default_the_events_of_a_seed_stay_what_they_were() -> None:
    sent, opened, clicked, replied = "emailsSent", "emailsOpened", "emailsClicked", "emailsReplied"
    invited, accepted = "linkedinInviteDone", "linkedinInviteAccepted"
    assert types(world_with(EMAIL, {"type": "linkedinInvite"}, EMAIL, people=4), seed=1) == [
        [sent, opened, clicked, replied],
        [sent, opened, clicked, invited, sent, opened],
        [sent, invited, sent, opened],
        [sent, opened, invited, accepted, sent, opened, clicked, replied],
    ]


def test_a_bounce_or_an_unsubscribe_ends_the_sequence() -> None:
    world = world_with({"type": "sms", "message": "x"}, EMAIL, EMAIL)
    sms = ["smsSent", "smsDelivered"]
    assert types(world, opens=1, replies=0, bounces=1) == [[*sms, "emailsSent", "emailsBounced"]]
    ended = [*sms, "emailsSent", "emailsOpened", "emailsUnsubscribed"]
    assert types(world, opens=1, replies=0, unsubscribes=1) == [ended]
    assert types(world, opens=0, unsubscribes=1) == [["smsSent", "emailsSent", "emailsSent"]]


def test_bounces_and_unsubscribes_have_the_given_probabilities_and_change_no_other_prospect() -> None:
    world = world_with(EMAIL, people=400)
    usual = types(world)
    found = types(world, bounces=0.2, unsubscribes=0.2)
    lost = [each[-1] in ("emailsBounced", "emailsUnsubscribed") for each in found]
    counts = Counter(each[-1] for each in found)
    assert 50 < counts["emailsBounced"] < 110
    assert 20 < counts["emailsUnsubscribed"] < 80
    for before, after, gone in zip(usual, found, lost, strict=True):
        assert gone or before == after
    bounced = [before for before, after in zip(usual, found, strict=True) if "emailsBounced" in after]
    assert 0 < sum("emailsOpened" in each for each in bounced) < len(bounced), "whom it hits is independent"


@pytest.mark.parametrize("accepts", [0, 1])
def test_a_condition_selects_the_branch_by_activity(accepts: int) -> None:
    condition = {"type": "conditional", "conditionKey": "linkedinInviteAccepted", "delayType": "waitUntil"}
    world = world_with({"type": "linkedinInvite"}, condition)
    (step,) = [each for seq in list(world.sequences.values()) for each in seq.steps if each.branches]
    for branch, message in zip(step.branches, ({"type": "sms", "message": "x"}, EMAIL), strict=True):
        world.add_step(world.sequences[branch.sequence_id], message)
    expected = ["linkedinInviteDone", "linkedinInviteAccepted", "conditionChosen", "smsSent"]
    if not accepts:
        expected = ["linkedinInviteDone", "conditionChosen", "emailsSent"]
    assert types(world, accepts=accepts, opens=0) == [expected]


@pytest.mark.parametrize(
    "value",
    [
        "p0@example.com",
        "P0@Example.COM",
        "@example.com",
        "@EXAMPLE.com",
        "https://linkedin.com/in/p0",
        "contact",
    ],
)
def test_unsubscribed_leads_are_not_contacted(value: str) -> None:
    world = world_with(EMAIL)
    (lead,) = world.leads.values()
    lead.values["email"] = "p0@eXample.com"
    lead.values["linkedinUrl"] = "https://linkedin.com/in/p0"
    if value == "contact":
        world.contacts[lead.contact_id].do_not_contact = True
    else:
        world.unsubscribe(value)
    prospects = Prospects(world)
    prospects.start(SimulationOptions())
    prospects.tick(0)
    prospects.tick(1000)
    assert (world.activities, lead.status) == ([], "unsubscribed")


@pytest.mark.parametrize(
    "value", ["", "@", "@com", "@le.com", "p0", "HTTPS://LINKEDIN.COM/IN/P0", "@mail.example.com"]
)
def test_other_values_unsubscribe_no_lead(value: str) -> None:
    world = world_with(EMAIL)
    (lead,) = world.leads.values()
    lead.values["linkedinUrl"] = "https://linkedin.com/in/p0"
    nameless = world.add_lead(next(iter(world.campaigns.values())), {"phone": ""})
    world.unsubscribe(value)
    assert not any(world.is_unsubscribed(each) for each in (lead, nameless))


def test_a_lead_is_unsubscribed_until_its_last_value_is_resubscribed() -> None:
    world = world_with(EMAIL)
    (lead,) = world.leads.values()
    for value in ("p0@example.com", "P0@example.com", "@example.com"):
        world.unsubscribe(value)
    found = []
    for value in ("@example.com", "P0@example.com", "p0@example.com"):
        del world.unsubscribes[value]
        found.append(world.is_unsubscribed(lead))
    assert found == [True, True, False]


def test_a_condition_can_depend_on_a_field_of_the_lead() -> None:
    condition = {"type": "conditional", "conditionKey": "hasEmailAddress", "delayType": "waitUntil"}
    world = world_with(condition)
    (step,) = next(iter(world.sequences.values())).steps
    world.add_step(world.sequences[step.branches[0].sequence_id], {"type": "linkedinVisit"})
    assert types(world) == [["conditionChosen", "linkedinVisitDone"]]


def test_every_type_of_step_has_a_documented_activity() -> None:
    assert STEP_ACTIVITIES.keys() == CATALOGUE.keys()
    assert {type for each in STEP_ACTIVITIES.values() for type in each} <= ACTIVITY_TYPES


@pytest.mark.parametrize(
    "wrong", [{"opens": 1.1}, {"bounces": -0.1}, {"unsubscribes": 2}, {"speed": 0}, {"pace": -1}]
)
def test_invalid_simulation_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SimulationOptions(**wrong)


# --- The simulation over time -----------------------------------------------------------------------------


def test_no_activity_is_added_before_it_is_due_or_while_paused() -> None:
    world = world_with(EMAIL)
    (lead,) = world.leads.values()
    (campaign,) = world.campaigns.values()
    prospects = Prospects(world)
    prospects.start(SimulationOptions(opens=1, clicks=0, replies=0, pace=10))
    prospects.tick(1000)
    assert (lead.stage, world.activities) == ("running", [])
    prospects.tick(1010)
    assert [each.type for each in world.activities] == ["emailsSent"]
    campaign.status = "paused"
    prospects.tick(1030)
    assert len(world.activities) == 1
    campaign.status = "running"
    lead.is_paused = True
    prospects.tick(1031)
    lead.is_paused = False
    assert len(world.activities) == 1
    prospects.tick(1032)
    assert [each.type for each in world.activities] == ["emailsSent", "emailsOpened"]
    prospects.tick(1033)
    assert lead.stage == "done"


def test_without_review_only_launched_leads_are_contacted() -> None:
    world = world_with(EMAIL, people=2)
    launched, _ = world.leads.values()
    launched.launch(0)
    prospects = Prospects(world)
    prospects.start(SimulationOptions(review=False))
    prospects.tick(1000)
    prospects.tick(2000)
    assert {each.lead.id for each in world.activities} == {launched.id}


@pytest.mark.parametrize(
    ("loss", "stage", "source"), [("bounces", "done", "bounced"), ("unsubscribes", "unsubscribed", "lead")]
)
def test_an_address_that_bounced_or_unsubscribed_is_contacted_by_no_campaign(
    loss: str, stage: str, source: str
) -> None:
    world = world_with(EMAIL, EMAIL)
    second = world.add_campaign("second")
    world.add_step(world.sequences[second.sequence_id], EMAIL)
    lead, other = *world.leads.values(), world.add_lead(second, {"email": "p0@example.com"})
    prospects = Prospects(world)
    prospects.start(SimulationOptions(opens=1, **{loss: 1.0}))
    for moment in (0, 1000):
        prospects.tick(moment)
    assert lead.stage == stage
    assert {(each.value, each.source) for each in world.unsubscribes.values()} == {("p0@example.com", source)}
    happened = len(world.activities)
    second.status = "running"
    for moment in (2000, 3000):
        prospects.tick(moment)
    assert (other.stage, len(world.activities)) == ("unsubscribed", happened)


def test_an_email_to_a_lead_without_an_address_unsubscribes_no_value() -> None:
    world = world_with(EMAIL)
    (lead,) = world.leads.values()
    del lead.values["email"]
    prospects = Prospects(world)
    prospects.start(SimulationOptions(bounces=1))
    for moment in (0, 1000):
        prospects.tick(moment)
    assert (world.activities[-1].type, world.unsubscribes) == ("emailsBounced", {})


def test_leads_react_after_their_campaign_is_started(
    lemlist: Sandbox, http: Client, campaign: dict[str, Any]
) -> None:
    lemlist.step(campaign["sequenceId"], "email", subject="a", message="b")
    lead = lemlist.lead(campaign["_id"], "ana@example.com")
    lemlist.simulate(opens=1, clicks=1, replies=1, speed=20)
    time.sleep(0.1)
    assert lemlist.state()["activities"] == [], "a draft contacts no leads"
    http.post(f"/campaigns/{campaign['_id']}/start")

    def found() -> list[str]:
        listed = http.get(f"/activities?version=v2&leadId={lead['_id']}").json()
        return [each["type"] for each in listed]

    wait_for(lambda: len(found()) == 4)
    assert found() == [
        "emailsReplied",
        "emailsClicked",
        "emailsOpened",
        "emailsSent",
    ]


def test_the_simulation_is_started_and_stopped_over_http(lemlist: Sandbox, http: Client) -> None:
    control = f"{lemlist.origin}/_sandbox/simulate"
    assert http.post(control, json={"speed": 2}).json() == {"ok": True}
    assert lemlist.service.prospects.behaviour == SimulationOptions(speed=2)
    assert http.post(control, json={"speed": 0}).status_code == 400
    assert http.post(control, json={"mood": "good"}).status_code == 400
    http.delete(control)
    assert lemlist.service.prospects.behaviour is None


def test_an_activity_is_added_over_http(lemlist: Sandbox, http: Client, campaign: dict[str, Any]) -> None:
    lead = lemlist.lead(campaign["_id"], "ana@example.com")["_id"]
    control = f"{lemlist.origin}/_sandbox/activities"
    assert http.post(control, json={"leadId": lead, "type": "emailsReplied"}).json()["leadId"] == lead
    assert http.post(control, json={"leadId": "lea_0", "type": "emailsReplied"}).status_code == 404
    assert http.post(control, json={"type": "emailsReplied"}).status_code == 400
    assert [each["type"] for each in lemlist.state()["activities"]] == ["emailsReplied"]
