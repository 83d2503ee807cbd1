# SPDX-License-Identifier: Apache-2.0
"""
What an entry of a suppression list means, and which entries concern a lead. Pure.

An entry is an email address, a domain with all its subdomains, a LinkedIn profile or a phone number. Two
spellings of one are equal by the rules of ``delivery.identity``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

from airflow_provider_lemlist.delivery.identity import address_of, phone_of, profile_of


class Form(IntEnum):
    """The forms of an entry, each with its name in logs."""

    ADDRESS = 0
    DOMAIN = 1
    PROFILE = 2
    PHONE = 3

    def __str__(self) -> str:
        return ("address", "domain", "LinkedIn profile", "phone number")[self]


class Value(NamedTuple):
    """An entry in the spelling by which it is compared."""

    form: Form
    text: str


_ADDRESS = re.compile(r"[^\s@]+@([^\s@]+)")
_HOST = re.compile(r"(?:[\w-]{1,63}\.)+(?=[\w-]*[^\W\d_])[\w-]{2,63}")
_URL = re.compile(r"(?:https?://)?(?:www\.)?([^/?#\s]+)(/?[^\s]*)", re.IGNORECASE)
#: What a phone number may be written with; letters only for an extension.
_PHONE = re.compile(r"\+?[\d\s().\-/\u2010-\u2015\u00a0]+(?:\s*(?:ext|x)\.?\s*\d+)?", re.IGNORECASE)
_SHORTEST_PHONE = 6


def read_value(entry: str) -> Value | None:
    """
    Return what an entry of a list means, or None if it is nothing of the kind.

    A domain may be written ``@example.org``, ``example.org``, ``*.example.org``, ``*@example.org`` or as the
    address of a web site.
    """
    text = entry.strip()
    if text[:1] in ("@", "*"):
        return _domain(text.lstrip("*@."))
    if "://" in text or ("/" in text and not _PHONE.fullmatch(text)):
        return _page(text)
    if address := _ADDRESS.fullmatch(text):
        return Value(Form.ADDRESS, _address(text)) if _HOST.fullmatch(_host(address[1])) else None
    if _PHONE.fullmatch(text):
        digits = phone_of(text)
        return Value(Form.PHONE, digits) if len(digits) >= _SHORTEST_PHONE else None
    return _domain(text)


def values_of(lead: Mapping[str, str]) -> list[Value]:
    """
    Return every entry that concerns a lead: its address, profile and phone number, and the domains above.

    The domain of its company counts too: an enrichment may find an address there.
    """
    found: list[Value] = []
    email = lead.get("email", "").strip()
    if email:
        found.append(Value(Form.ADDRESS, _address(email)))
    domains = (email.rpartition("@")[2] if "@" in email else "", lead.get("companyDomain", "").strip())
    for domain in filter(None, domains):
        entry = read_value(domain)
        if entry is not None and entry.form is Form.DOMAIN:
            found += [Value(Form.DOMAIN, each) for each in _with_parents(entry.text)]
    if url := lead.get("linkedinUrl", "").strip():
        found.append(Value(Form.PROFILE, profile_of(url)))
    if phone := phone_of(lead.get("phone", "")):
        found.append(Value(Form.PHONE, phone))
    return list(dict.fromkeys(found))


def spellings_of(lead: Mapping[str, str]) -> list[tuple[Form, str]]:
    """Return the entries that concern a lead as they may be written in lemlist, to look each of them up."""
    found: list[tuple[Form, str]] = []
    for form, text in values_of(lead):
        match form:
            case Form.ADDRESS:
                spellings = [text, _encoded(text), lead["email"].strip()]
            case Form.DOMAIN:
                spellings = [f"@{text}", f"@{_encoded(text)}"]
            case Form.PROFILE:
                person = [f"https://www.linkedin.com{text}"] if text.startswith("/in/") else []
                spellings = [lead["linkedinUrl"].strip(), *person]
            case Form.PHONE:
                spellings = [lead["phone"].strip(), f"+{text}"]
        found += [(form, each) for each in spellings]
    return list(dict.fromkeys(found))


def _address(email: str) -> str:
    name, at, host = address_of(email).rpartition("@")
    return f"{name}{at}{_host(host)}"


def _domain(text: str) -> Value | None:
    host = _host(text)
    return Value(Form.DOMAIN, host.removeprefix("www.")) if _HOST.fullmatch(host) else None


def _page(url: str) -> Value | None:
    """Return the profile at a URL, or the domain if it is that of a whole site."""
    match = _URL.fullmatch(url)
    if match is None or not _HOST.fullmatch(_host(match[1].partition(":")[0])):
        return None
    if match[2] in ("", "/"):
        return _domain(match[1].partition(":")[0])
    return Value(Form.PROFILE, profile_of(url))


def _host(text: str) -> str:
    """Return a host name in lower case, without the dot at its end, and with ``xn--`` labels decoded."""
    labels = text.strip().rstrip(".").lower().split(".")
    return ".".join(map(_decoded, labels))


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode").lower()
    except UnicodeError:
        return label


def _encoded(text: str) -> str:
    """Return an address or a domain with the labels of the host as a mail server writes them, in ASCII."""
    name, at, host = text.rpartition("@")
    labels = (
        each if each.isascii() else f"xn--{each.encode('punycode').decode()}" for each in host.split(".")
    )
    return f"{name}{at}{'.'.join(labels)}"


def _with_parents(domain: str) -> Iterator[str]:
    """Yield a domain and those above it, without the top level."""
    while "." in domain:
        yield domain
        domain = domain.partition(".")[2]
