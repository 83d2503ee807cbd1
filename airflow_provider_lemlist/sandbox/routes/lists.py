# SPDX-License-Identifier: Apache-2.0
"""
Read-only lists, one for each of lemlist's ways of paging, to test the paging of a client.

Contacts are those of the leads; companies, tasks, conversations and signal agents are constant sample data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_lemlist.sandbox import checks
from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.model import Contact, World, iso
from airflow_provider_lemlist.sandbox.routes import Call, route

COMPANIES, TASKS, CONVERSATIONS, AGENTS = 230, 53, 25, 130
TASKS_PER_PAGE = 20
INDUSTRIES = ("Software", "Logistics", "Retail")


def sample_items(prefix: str, count: int, **fields: Any) -> list[dict[str, Any]]:
    """Return numbered items, the same ones on every call."""
    return [
        {"_id": f"{prefix}_{number:017}", "name": f"{prefix} {number}", **fields}
        for number in range(1, count + 1)
    ]


def page_of(call: Call, items: Sequence[Any], *, size: int, maximum: int) -> tuple[Sequence[Any], int, int]:
    """Return the items of the 1-based ``page`` with ``limit`` items, then page and limit."""
    limit = checks.number(call.query, "limit", size, minimum=1, maximum=maximum)
    page = checks.number(call.query, "page", 1, minimum=1)
    return items[(page - 1) * limit : page * limit], page, limit


# --- offset and limit, with a total -----------------------------------------------------------------------


@route(
    "GET /contacts",
    query=["idsOrEmails", "email", "limit", "offset"],
    ignored=[
        "search", "listId", "notInAnyCampaign", "companyId", "companyDomain", "companyLinkedinUrl",
        "companySalesnavUrl", "fieldRejectionReason",
    ],
)  # fmt: skip
def list_contacts(call: Call) -> Any:
    contacts = list(call.world.contacts.values())
    if "idsOrEmails" in call.query:
        wanted = set(call.query["idsOrEmails"].lower().split(","))
        return [
            contact_json(each, call.world)
            for each in contacts
            if wanted & {each.id.lower(), each.email.lower()}
        ]
    if email := call.query.get("email"):
        contacts = [each for each in contacts if each.email.lower() == email.lower()]
    page = _page(call, contacts)
    return {**page, "data": [contact_json(each, call.world) for each in page["data"]]}


@route(
    "GET /companies",
    query=["limit", "offset"],
    ignored=[
        "idsOrDomains", "search", "fields", "sortBy", "sortOrder", "crmSyncStatus", "fieldRejectionReason",
    ],
)  # fmt: skip
def list_companies(call: Call) -> Any:
    page = _page(call, range(1, COMPANIES + 1))
    return {**page, "data": [company_json(each, call.world) for each in page["data"]]}


def _page(call: Call, items: Sequence[Any]) -> dict[str, Any]:
    part = call.page(maximum=500)
    limit = part.stop - part.start
    return {"data": items[part], "total": len(items), "limit": limit, "offset": part.start}


def company_json(number: int, world: World) -> dict[str, Any]:
    """Return a sample company, the same one on every call."""
    user = world.users[0].id
    return {
        "_id": f"cpn_{number:017}",
        "domain": f"company-{number}.example",
        "fields": {"name": f"Company {number}", "industry": INDUSTRIES[number % len(INDUSTRIES)]},
        "ownerId": user,
        "createdBy": user,
        "createdAt": iso(world.created_at - 3600 * number),
        "fieldRejections": [],
    }


def contact_json(contact: Contact, world: World) -> dict[str, Any]:
    leads = world.leads_of(contact.email) if contact.email else []
    values = leads[-1].values if leads else {}
    names = " ".join(filter(None, (values.get("firstName"), values.get("lastName"))))
    return {
        "_id": contact.id,
        "teamId": world.team_id,
        "fullName": names,
        "email": contact.email,
        "fields": {name: values[name] for name in ("firstName", "lastName", "jobTitle") if name in values},
        "campaigns": [
            {
                "campaignId": lead.campaign_id,
                "campaignState": world.campaigns[lead.campaign_id].status,
                "leadState": lead.status,
                "leadId": lead.id,
            }
            for lead in leads
        ],
        "ownerId": world.users[0].id,
        "createdAt": iso(contact.created_at),
        "createdBy": world.users[0].id,
        "unsubscribed": contact.do_not_contact,
        "fieldRejections": [],
    }


# --- page from 1; the response contains the next page -----------------------------------------------------


@route("GET /inbox", query=["userId", "page", "limit"])
def list_inbox(call: Call) -> Any:
    if call.query.get("userId") not in {user.id for user in call.world.users}:
        raise ApiError(400, "User not in team" if "userId" in call.query else "User ID is required")
    items = sample_items("ibx", CONVERSATIONS, channels=["email"])
    found, page, limit = page_of(call, items, size=10, maximum=100)
    pages = -(-len(items) // limit)
    position = {
        "totalItems": len(items),
        "currentPage": page,
        "nextPage": page + 1 if page < pages else None,
        "previousPage": page - 1 if page > 1 else None,
        "perPage": limit,
        "totalPages": pages,
    }
    return {"data": found, "pagination": position}


# --- page from 0 until an empty page ----------------------------------------------------------------------


@route("GET /tasks", query=["page"], ignored=["filters"])
def list_tasks(call: Call) -> Any:
    page = checks.number(call.query, "page", 0)
    tasks = sample_items("opp", TASKS, type="manual", priority=1)
    return {"results": tasks[page * TASKS_PER_PAGE : (page + 1) * TASKS_PER_PAGE], "page": str(page)}


# --- page from 1; the response contains the number of pages -----------------------------------------------


@route("GET /watchlist", query=["page", "limit"], ignored=["type", "status"])
def list_agents(call: Call) -> Any:
    items = sample_items("wli", AGENTS, type="jobChange")
    found, page, limit = page_of(call, items, size=20, maximum=100)
    position = {
        "page": page,
        "limit": limit,
        "totalRecords": len(items),
        "totalPages": -(-len(items) // limit),
    }
    return {"data": found, "meta": {"pagination": position}}


# --- without pages ----------------------------------------------------------------------------------------


@route("GET /hooks")
def list_hooks(call: Call) -> Any:
    return []
