# SPDX-License-Identifier: Apache-2.0
"""
The web page at ``/``, which shows the data and the requests of the sandbox.

It is plain HTML that is fetched again every second. Everything that was sent to the API is shown as text: the
templates escape it, and the content security policy allows only the page's own script.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.statutes import as_text, statutes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

    from airflow_provider_lemlist.sandbox.model import (
        Activity,
        Audio,
        Campaign,
        Lead,
        Schedule,
        Sequence,
        Step,
        World,
    )
    from airflow_provider_lemlist.sandbox.request_log import Exchange
    from airflow_provider_lemlist.sandbox.service import Service

HERE = Path(__file__).parent
LEADS_PER_PAGE = 100
FEED, LOG = 40, 60
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: Seconds that the chart covers.
SPAN = 60

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def routes(service: Service) -> list[BaseRoute]:
    """Return the routes of the page; they run in threads so that a long page does not delay the API."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clock"] = clock

    def show(template: str, **values: Any) -> Response:
        return HTMLResponse(environment.get_template(template).render(values), headers=HEADERS)

    def overview(request: Request) -> Response:
        return show(_part(request, "overview.html"), **overview_view(service, str(request.base_url)))

    def campaign(request: Request) -> Response:
        query = request.query_params
        page = int(query["page"][:9]) if query.get("page", "").isdecimal() else 1
        try:
            view = campaign_view(service, request.path_params["id"], query.get("find", ""), page)
        except ApiError as error:
            return PlainTextResponse(str(error.body), error.status)
        return show(_part(request, "campaign.html"), **view)

    return [
        Route("/", overview),
        Route("/campaigns/{id}", campaign),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]


def _part(request: Request, template: str) -> str:
    """Return the template to render: without its frame if the page refreshes itself."""
    return f"live_{template}" if "live" in request.query_params else template


def clock(moment: float) -> str:
    """Format the time of day in the time zone of this machine."""
    return datetime.fromtimestamp(moment).strftime("%H:%M:%S")


# --- Views: the values of the templates -------------------------------------------------------------------


def overview_view(service: Service, base_url: str) -> dict[str, Any]:
    world, request_log = service.world, service.request_log
    with world.lock:
        return {
            "api": f"{base_url}api",
            "team": world.team_name,
            "limit": service.limit,
            "simulated": service.prospects.behaviour is not None,
            "numbers": [
                ("Campaigns", len(world.campaigns), ""),
                ("Leads", len(world.leads), ""),
                ("Activities", len(world.activities), ""),
                ("Unsubscribed", len(world.unsubscribes), ""),
                ("Requests", request_log.counts["requests"], ""),
                ("Refused (429)", request_log.counts["status 429"], "bad"),
                ("Violations", violation_count(request_log.counts), "bad"),
            ],
            "campaigns": [campaign_row(each, world) for each in reversed(world.campaigns.values())],
            "feed": feed(reversed(world.activities), world),
            "chart": chart(
                reversed(request_log.exchanges), service.limit.limit / service.limit.length, time.time()
            ),
            "log": [log_row(each) for each in islice(reversed(request_log.exchanges), LOG)],
            "violations": list(islice(reversed(request_log.violations), 10)),
            "faults": [fault.as_json() for fault in service.script if not fault.exhausted],
        }


def campaign_view(service: Service, campaign_id: str, find: str, page: int) -> dict[str, Any]:
    world = service.world
    with world.lock:
        campaign = world.campaign(campaign_id)
        found = [lead for lead in reversed(campaign.leads.values()) if _fits(lead, find.lower())]
        pages = max(1, -(-len(found) // LEADS_PER_PAGE))
        page = min(max(page, 1), pages)
        first = (page - 1) * LEADS_PER_PAGE
        audio: dict[str, list[Audio]] = {}
        for each in world.audio.values():
            audio.setdefault(each.lead_id, []).append(each)
        happened = world.find_activities(campaign_id=campaign.id).activities
        counts = Counter((each.step.id, each.type) for each in happened if each.step)
        return {
            "campaign": campaign,
            "row": campaign_row(campaign, world),
            "settings": settings(campaign, world),
            "statutes": [
                {"category": each.category, "tone": STATUTE_TONES[each.level], "text": as_text(each)}
                for each in statutes(campaign, world)
            ],
            "tree": tree(world.sequences[campaign.sequence_id], world, counts),
            "leads": [
                lead_row(lead, audio.get(lead.id, ())) for lead in found[first : first + LEADS_PER_PAGE]
            ],
            "found": len(found),
            "find": find,
            "page": page,
            "pages": pages,
            "feed": feed(reversed(happened), world),
        }


def _fits(lead: Lead, text: str) -> bool:
    return not text or any(text in value.lower() for value in (*lead.values.values(), lead.id, lead.state))


def violation_count(counts: Counter[str]) -> int:
    return sum(number for name, number in counts.items() if name.startswith("violations "))


def campaign_row(campaign: Campaign, world: World) -> dict[str, Any]:
    sequences = world.sequences_of(campaign)
    return {
        "id": campaign.id,
        "name": campaign.name,
        "status": campaign.status,
        "auto_review": campaign.auto_review,
        "leads": len(campaign.leads),
        "steps": sum(len(each.steps) for each in sequences),
        "branches": len(sequences) - 1,
    }


def settings(campaign: Campaign, world: World) -> list[tuple[str, str]]:
    """Return who sends, when, and the settings of the updates that the page does not show elsewhere."""
    return [
        ("senders", ", ".join(user.email for user in world.senders_of(campaign)) or "none"),
        *(("schedule", hours(world.schedules[each])) for each in campaign.schedule_ids),
        *(
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in campaign.settings.items()
            if name not in ("name", "autoReview", "sendUserIds")
        ),
    ]


def hours(schedule: Schedule) -> str:
    """Return the name, the days and the hours of a schedule in one line."""
    values = schedule.values
    days = " ".join(DAYS[day - 1] for day in values["weekdays"])
    return f"{values['name']}, {days}, {values['start']} to {values['end']} {values['timezone']}"


def lead_row(lead: Lead, audio: Iterable[Audio]) -> dict[str, Any]:
    known = ("email", "firstName", "lastName")
    return {
        "id": lead.id,
        "name": full_name(lead.values.get("firstName"), lead.values.get("lastName")),
        "email": lead.email,
        "state": lead.state,
        "tone": tone(lead.state),
        "status": lead.status,
        "variables": {name: value for name, value in lead.values.items() if name not in known},
        "enrichments": lead.enrichments,
        "audio": audio,
    }


def feed(activities: Iterable[Activity], world: World) -> list[dict[str, Any]]:
    return [
        {
            "at": each.created_at,
            "type": each.type,
            "tone": tone(each.type),
            "who": full_name(each.first_name, each.last_name) or each.email or each.lead.id,
            "campaign": world.campaigns[each.lead.campaign_id].name,
            "campaign_id": each.lead.campaign_id,
        }
        for each in islice(activities, FEED)
    ]


def full_name(*names: str | None) -> str:
    return " ".join(filter(None, (name and name.strip() for name in names)))


def tone(type: str) -> str:
    """Return the colour class of an activity."""
    for ending, colour in TONES.items():
        if type.endswith(ending):
            return colour
    return "plain"


#: The colour class of a statute, by its level.
STATUTE_TONES = {3: "bad", 2: "warm", 1: "sent"}
TONES = {
    "Replied": "reply",
    "Accepted": "reply",
    "NotInterested": "bad",
    "Interested": "reply",
    "interested": "reply",
    "Clicked": "warm",
    "Opened": "warm",
    "Bounced": "bad",
    "Failed": "bad",
    "Unsubscribed": "bad",
    "Sent": "sent",
    "Done": "sent",
}


def log_row(exchange: Exchange) -> dict[str, Any]:
    status = exchange.status
    return {
        "number": exchange.number,
        "at": exchange.time,
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query,
        "status": status,
        "tone": "bad" if status is None or status >= 500 else "warm" if status >= 400 else "good",
        "fault": exchange.fault,
        "milliseconds": exchange.milliseconds,
        "agent": exchange.request_headers.get("user-agent", ""),
        "key": exchange.key,
        "connection": exchange.connection,
    }


# --- The sequence as a tree -------------------------------------------------------------------------------

#: Label and colour class of the tile of a step.
TILES = {
    "email": ("@", "email"),
    "manual": ("to do", "task"),
    "phone": ("call", "task"),
    "api": ("{ }", "api"),
    "conditional": ("if", "condition"),
    "sendToAnotherCampaign": ("→", "api"),
    "whatsappMessage": ("wa", "chat"),
    "sms": ("sms", "chat"),
}


def tree(sequence: Sequence, world: World, counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the steps of a sequence, each condition with the trees of its branches."""
    return [
        {
            "id": step.id,
            "type": step.type,
            "tile": TILES.get(step.type, ("in", "linkedin")),
            "wait": step_wait(step),
            "text": step_text(step),
            "media": len(step.values.get("images", ())) + len(step.values.get("videos", ())),
            "counts": [(type, number) for (id_, type), number in counts.items() if id_ == step.id],
            "branches": [
                {
                    "label": branch.label if branch.key else "Otherwise",
                    "otherwise": branch.key is None,
                    "steps": tree(world.sequences[branch.sequence_id], world, counts),
                    "id": branch.sequence_id,
                }
                for branch in step.branches
            ],
        }
        for step in sequence.steps
    ]


def step_wait(step: Step) -> str:
    """Return a text that describes the delay of a step."""
    days = f"{step.delay} day{'s' if step.delay != 1 else ''}"
    if step.values.get("delayType") == "waitUntil":
        return "waits until it is true"
    if step.values.get("delayType") == "within":
        return f"within {days}"
    return f"after {days}" if step.delay else "immediately"


def step_text(step: Step) -> str:
    """Return the text of a step in one line, without markup."""
    values = step.values
    text = values.get("subject") or values.get("title") or values.get("message") or ""
    if not text and step.type == "api":
        text = f"{values['method']} {values['url']}"
    if step.type == "conditional":
        text = values["conditionKey"]
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()
    return plain if len(plain) <= 140 else plain[:139] + "…"


# --- The chart of requests per second ---------------------------------------------------------------------


class Bar(NamedTuple):
    """The requests of one second, ``ago`` seconds before now."""

    ago: int
    admitted: int
    refused: int


class Chart(NamedTuple):
    """Requests per second and the average rate that the limit allows; ``top`` is the end of the scale."""

    bars: list[Bar]
    allowed: float
    top: float


def chart(newest_first: Iterable[Exchange], allowed: float, now: float) -> Chart:
    """Return the number of requests in each second of the last minute."""
    admitted, refused = [0] * SPAN, [0] * SPAN
    for exchange in newest_first:
        ago = int(now) - int(exchange.time)
        if ago >= SPAN:
            break
        if ago >= 0:
            (refused if exchange.status == 429 else admitted)[ago] += 1
    bars = [Bar(ago, admitted[ago], refused[ago]) for ago in reversed(range(SPAN))]
    return Chart(bars, allowed, max(allowed * 2, *(bar.admitted + bar.refused for bar in bars)))
