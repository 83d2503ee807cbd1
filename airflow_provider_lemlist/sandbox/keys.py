# SPDX-License-Identifier: Apache-2.0
"""The API keys that the sandbox knows, and how a request shows one: Basic, empty login, key as password."""

from __future__ import annotations

import base64
import binascii
import hashlib

from airflow_provider_lemlist.sandbox.refusal import Refusal

#: What a key may be, and how lemlist answers when it is not in order.
STATES: dict[str, tuple[int, str] | None] = {
    "active": None,
    "blocked": (403, "User linked to this API key is blocked"),
    "no user": (404, "No user found for this API key"),
    "bad team": (400, "Bad team"),
    "plan too low": (402, "route is available starting emailPro plan"),
}

#: Keys that are always there, so that a connection test can be seen failing in each way.
BAD_KEYS = {
    "blocked-key": "blocked",
    "no-user-key": "no user",
    "bad-team-key": "bad team",
    "low-plan-key": "plan too low",
}


def fingerprint(key: str) -> str:
    """Return what stands for a key in the log: it can be compared, not read."""
    return hashlib.sha256(key.encode()).hexdigest()[:12] if key else "none"


def presented(authorization: str | None) -> str | None:
    """Return the key of an ``Authorization`` header; None when no header or an empty key was sent."""
    if not authorization:
        return None
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise wrong_key()
    try:
        login, colon, key = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise wrong_key() from None
    if login or not colon:
        raise wrong_key()
    return key or None


def wrong_key() -> Refusal:
    """Return the refusal of a key that nobody has, or that is not shown as the documents say."""
    return Refusal(401, "The authentication you supplied is incorrect")


class KeyRing:
    """Which keys exist and in what state their users are."""

    def __init__(self, key: str) -> None:
        self.states = {**BAD_KEYS, key: "active"}

    def accept(self, key: str, state: str = "active") -> None:
        """Add a key, or change the state of one."""
        if state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, not {state!r}")
        self.states[key] = state

    def check(self, key: str | None) -> None:
        """Raise the refusal that a request with this key gets."""
        if key is None:
            raise Refusal(400, "No API key provided")
        if key not in self.states:
            raise wrong_key()
        if trouble := STATES[self.states[key]]:
            raise Refusal(*trouble)
