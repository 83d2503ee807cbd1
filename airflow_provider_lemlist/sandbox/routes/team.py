# SPDX-License-Identifier: Apache-2.0
"""The team, its users and its credits."""

from __future__ import annotations

from typing import Any

from airflow_provider_lemlist.sandbox.errors import ApiError
from airflow_provider_lemlist.sandbox.model import STATUSES, iso
from airflow_provider_lemlist.sandbox.routes import Call, route


@route("GET /team", query=["version"])
def get_team(call: Call) -> Any:
    world = call.world
    team = {
        "_id": world.team_id,
        "name": world.team_name,
        "userIds": [user.id for user in world.users],
        "createdBy": world.users[0].id,
        "createdAt": iso(world.created_at),
        "hooks": [],
        "beta": [],
        "invitedUsers": [],
        "agency": False,
    }
    if call.query.get("version") == "v2":
        team["users"] = [
            {
                "userId": user.id,
                "name": user.name,
                "email": user.email,
                "role": "owner" if n == 0 else "member",
            }
            for n, user in enumerate(world.users)
        ]
    return team


@route("GET /team/credits")
def get_credits(call: Call) -> Any:
    remaining = {"total": 100, "freemium": 0, "subscription": 100, "gifted": 0, "paid": 0}
    return {"credits": 100, "details": {"remaining": remaining}}


@route("GET /team/senders", query=["state"])
def get_senders(call: Call) -> Any:
    wanted = call.query.get("state")
    if wanted not in (None, *STATUSES):
        raise ApiError(400, "Bad params (invalid state parameter)", violation="unknown state")
    found = [each for each in call.world.campaigns.values() if wanted in (None, each.status)]
    return [
        {
            "userId": user.id,
            "campaigns": [
                {
                    "_id": each.id,
                    "name": each.name,
                    "status": each.status,
                    "sendingChannels": ["email", "linkedinSend"],
                }
                for each in found
                if user.id in each.sender_ids
            ],
        }
        for user in call.world.users
    ]


@route("GET /users/{userId}")
def get_user(call: Call) -> Any:
    user = call.world.user(call.params["userId"])
    mailbox = {
        "_id": user.mailbox_id,
        "email": user.email,
        "provider": "custom",
        "status": user.mailbox_status,
        "lemlist": {"emailLimit": 100},
        "lemwarm": {"active": False},
    }
    return {"_id": user.id, "email": user.email, "role": "member", "mailboxes": [mailbox]}
