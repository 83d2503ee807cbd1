# SPDX-License-Identifier: Apache-2.0
"""The API keys of the sandbox, and how a request sends one: Basic, empty login, key as password."""

from __future__ import annotations

import base64
import binascii
import hashlib

from airflow_provider_lemlist.sandbox.errors import ApiError

#: The states of a key, each with the status and text of lemlist's error.
STATES: dict[str, tuple[int, str] | None] = {
    "active": None,
    "blocked": (403, "User linked to this API key is blocked"),
    "no user": (404, "No user found for this API key"),
    "bad team": (400, "Bad team"),
    "plan too low": (402, "route is available starting emailPro plan"),
}

#: Keys that always exist, to make a connection test fail in each way.
BAD_KEYS = {
    "blocked-key": "blocked",
    "no-user-key": "no user",
    "bad-team-key": "bad team",
    "low-plan-key": "plan too low",
}


def fingerprint(key: str) -> str:
    """Return a hash that identifies a key in the request log without revealing it."""
    return hashlib.sha256(key.encode()).hexdigest()[:12] if key else "none"


def key_from_header(authorization: str | None) -> str | None:
    """Return the key in an ``Authorization`` header, or None if the header is missing or its key is empty."""
    if not authorization:
        return None
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise invalid_key()
    try:
        login, colon, key = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise invalid_key() from None
    if login or not colon:
        raise invalid_key()
    return key or None


def invalid_key() -> ApiError:
    """Return the error for an unknown key, or for a key that is not sent as documented."""
    return ApiError(401, "The authentication you supplied is incorrect")


class KeyRing:
    """The keys and the states of their users."""

    def __init__(self, key: str) -> None:
        self.states = {**BAD_KEYS, key: "active"}

    def accept(self, key: str, state: str = "active") -> None:
        """Add a key or change its state."""
        if state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, not {state!r}")
        self.states[key] = state

    def check(self, key: str | None) -> None:
        """Raise the error for a request with this key, if its state has one."""
        if key is None:
            raise ApiError(400, "No API key provided")
        if key not in self.states:
            raise invalid_key()
        if error := STATES[self.states[key]]:
            raise ApiError(*error)
