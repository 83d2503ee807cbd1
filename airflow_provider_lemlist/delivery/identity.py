# SPDX-License-Identifier: Apache-2.0
"""
Who is meant: the texts by which the same person is recognised in another attempt, source or run.

Pure. lemlist itself finds a lead by address only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import IntEnum
from hashlib import blake2b
from urllib.parse import unquote, urlsplit

#: The fields by which a lead can be found again.
IDENTIFIERS = ("email", "linkedinUrl", "phone")

_SCHEME = re.compile(r"(?:[a-z]+:/)?/*", re.IGNORECASE)
_PERSON = re.compile(r"/in/([^/]+)", re.IGNORECASE)
_PLAIN_PERSON = re.compile(r"https://(?:www\.)?linkedin\.com/in/([\w-]+)/?", re.ASCII)
#: A person in Sales Navigator. What follows the id after a comma is a token of the session.
_SALES_PERSON = re.compile(r"/sales/(?:lead|people)/([^/,]+)", re.IGNORECASE)


class Kind(IntEnum):
    """What a person is recognised by, strongest first."""

    KEY = 0
    EMAIL = 1
    PROFILE = 2
    PHONE = 3
    CONTENT = 4


def identities(lead: Mapping[str, str], key: str | None = None) -> dict[Kind, str]:
    """
    Return the texts by which a person is recognised, strongest first; empty if the lead has no values.

    :param key: What the source itself calls the person, such as the id in a CRM.
    """
    found: dict[Kind, str] = {}
    if key and (key := key.strip()):
        found[Kind.KEY] = key
    if address := address_of(lead.get("email", "")):
        found[Kind.EMAIL] = address
    profile = profile_of(lead.get("linkedinUrl", ""))
    # A page that is not a person's, such as a company's, may be that of several people with an address.
    if profile and (profile.startswith("/") or not address):
        found[Kind.PROFILE] = profile
    if phone := phone_of(lead.get("phone", "")):
        # With the name, because several people may share the number of a switchboard.
        names = [lead.get(field, "").strip().lower() for field in ("firstName", "lastName")]
        found[Kind.PHONE] = f"{phone} {json.dumps(names)}"
    if not found and (content := sorted((name, value) for name, value in lead.items() if value.strip())):
        found[Kind.CONTENT] = json.dumps(content)
    return found


def is_same(a: Mapping[Kind, str], b: Mapping[Kind, str]) -> bool:
    """
    Return whether two sets of identities are those of one person.

    An equal key means the same person, whatever else has changed. Otherwise the strongest of the other kinds
    that both have decides: two people with two addresses may have been given one profile by mistake, and a
    person whose row has lost its address is still recognised by profile. Keys that differ decide nothing,
    because a source may list a person twice under two ids.
    """
    if Kind.KEY in a and a[Kind.KEY] == b.get(Kind.KEY):
        return True
    decisive = min((a.keys() & b.keys()) - {Kind.KEY}, default=None)
    return decisive is not None and a[decisive] == b[decisive]


def identifies(lead: Mapping[str, str]) -> bool:
    """Return whether a lead can be found again: by address, LinkedIn profile or phone number."""
    return bool(lead.get("email") or lead.get("linkedinUrl") or phone_of(lead.get("phone", "")))


def person_key(lead: Mapping[str, str]) -> bytes:
    """Return a hash of the strongest identity, which does not show who was contacted."""
    kind, text = min(identities(lead).items(), default=(Kind.CONTENT, ""))
    return blake2b(f"{kind.name} {text}".encode(), digest_size=16, person=b"lemlist row key").digest()


def address_of(email: str) -> str:
    """Return what all spellings of an email address have in common; a ``+`` and what follows it stays."""
    # Not casefold: info@groß.de and info@gross.de are two addresses.
    return email.strip().lower()


def profile_of(url: str) -> str:
    """
    Return what all spellings of a LinkedIn URL have in common.

    For a person, this is ``/in/name`` or ``/sales/id``; for every other page, it does not begin with a slash.
    """
    if plain := _PLAIN_PERSON.fullmatch(url):  # most are; what follows takes ten times as long
        return f"/in/{plain[1].lower()}"
    bare = _SCHEME.sub("", url.strip(), count=1)
    try:
        parts = urlsplit(f"https://{bare}")
    except ValueError:
        return bare
    host = (parts.hostname or "").removeprefix("www.")
    # Bytes that are not UTF-8 stay different from one another.
    path = unquote(parts.path, errors="backslashreplace").rstrip("/")
    if host == "linkedin.com" or host.endswith(".linkedin.com"):
        if person := _PERSON.match(path):
            return f"/in/{person[1].lower()}"
        if person := _SALES_PERSON.match(path):
            return f"/sales/{person[1]}"
    # The query may be all that differs between two people, as in /profile/view?id=….
    return f"{host}{path.lower()}?{parts.query}".lstrip("/").removesuffix("?")


def phone_of(number: str) -> str:
    """Return the digits of a phone number, without the sign or zeros of an international prefix."""
    return re.sub(r"\D", "", number).removeprefix("00")
