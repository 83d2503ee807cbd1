# SPDX-License-Identifier: Apache-2.0
"""
Who is meant: keys under which the same person is recognised in another attempt, order or run.

A person is identified by address; without one by LinkedIn profile, however its URL is written; without either
by phone number and name; without any of these, by everything that the row says. A key is a hash, so that
what keeps it does not show who was contacted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from urllib.parse import unquote, urlsplit

#: The fields by which a lead can be found again.
IDENTIFIERS = ("email", "linkedinUrl", "phone")

_PROFILE = re.compile(r"(?:.*\.)?linkedin\.com(/in/[^/]+)")


def identifies(lead: Mapping[str, str]) -> bool:
    """Return whether a lead can be found again: by address, LinkedIn profile or phone number."""
    return any(lead.get(name) for name in IDENTIFIERS)


def person_key(lead: Mapping[str, str], occurrence: int = 1) -> bytes:
    """
    Return the key of the person.

    :param occurrence: Which row of this person it is within one source, from 1.
    """
    if lead.get("email"):
        name = f"email {lead['email'].strip().casefold()}"
    elif lead.get("linkedinUrl"):
        name = f"linkedin {profile_of(lead['linkedinUrl'])}"
    elif phone := _phone(lead.get("phone", "")):
        # With the name, because several people may share the number of a switchboard.
        names = (lead.get(field, "").strip().casefold() for field in ("firstName", "lastName"))
        name = f"phone {phone} {json.dumps([*names])}"
    else:
        name = f"content {json.dumps(sorted((field, value) for field, value in lead.items() if value))}"
    return _key(f"{name} {occurrence}")


def profile_key(lead: Mapping[str, str]) -> bytes | None:
    """Return the second key of a person with an address: the LinkedIn profile."""
    profile = profile_of(lead.get("linkedinUrl", ""))
    return _key(f"profile {profile}") if lead.get("email") and profile.startswith("/in/") else None


def alternate_key(lead: Mapping[str, str]) -> bytes | None:
    """
    Return the key that the same person had in a row with one identifier less, or more.

    A row that has lost its address is matched by profile with those that have one. A row with an address is
    matched with those that had none; never with the others, because two people with two addresses may have
    been given one profile by mistake.
    """
    profile = profile_of(lead.get("linkedinUrl", ""))
    if not profile.startswith("/in/"):
        return None
    return _key(f"linkedin {profile} 1" if lead.get("email") else f"profile {profile}")


def profile_of(url: str) -> str:
    """Return what all spellings of a LinkedIn URL have in common; for a person, ``/in/name``."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").removeprefix("www.")
    address = f"{host}{unquote(parts.path).rstrip('/')}".casefold()
    person = _PROFILE.match(address)
    return person[1] if person else address


def _phone(number: str) -> str:
    """Return the digits of a phone number, without the sign or zeros of an international prefix."""
    return re.sub(r"\D", "", number).removeprefix("00")


def _key(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16, person=b"lemlist row key").digest()
