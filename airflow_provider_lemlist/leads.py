# SPDX-License-Identifier: Apache-2.0
"""
Check a lead before it is sent, and convert its values to text. Every operator that creates leads uses this.

lemlist stores a key that it does not know as a custom variable: with ``firstname``, the first name would be
missing from every message, without an error. Therefore a key that is close to a field of lemlist is an error
unless it is declared as a variable. Plain Python; problems never contain a person's values.
"""

from __future__ import annotations

import re
from datetime import date, time
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from airflow_provider_lemlist.validation import Problem, nearest, validation_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["LEAD_FIELDS", "Problem", "check", "clean", "is_blank"]

#: The fields that lemlist knows; every other key becomes a custom variable.
LEAD_FIELDS = (
    "email",
    "firstName",
    "lastName",
    "companyName",
    "jobTitle",
    "linkedinUrl",
    "picture",
    "phone",
    "companyDomain",
    "icebreaker",
    "timezone",
    "contactOwner",
)
#: Options of the request that creates a lead; as keys of a lead they are a mistake.
CALL_OPTIONS = ("deduplicate", "linkedinEnrichment", "findEmail", "verifyEmail", "findPhone")

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_INFINITE = (float("inf"), float("-inf"))
_MAX_EMAIL_LENGTH = 254
#: An address of LinkedIn as people copy it, without https://.
_BARE_LINKEDIN = re.compile(r"(?:[\w-]+\.)*linkedin\.com/", re.IGNORECASE)
_PLAIN_URL = re.compile(r"https?://(?:[\w-]+\.)+[\w-]+(?:/[\w/.-]*)?", re.ASCII)
_EMAIL = re.compile(r"""[^\s@<>()\[\],;:"\\]{1,64}@(?:[\w-]+\.)+(?=[\w-]*[^\W\d_])[\w-]+""")


def clean(
    values: Mapping[str, Any], *, variables: Collection[str] = (), drop_empty: bool = True
) -> tuple[dict[str, str], list[Problem]]:
    """
    Return the lead with its values as text, and all problems that were found.

    Numbers, booleans, dates and UUIDs become text; None, NaN and blank texts are empty values. A LinkedIn
    URL without a scheme gets one.

    :param values: The fields of one lead and its custom variables.
    :param variables: Names of custom variables, which may be close to a field of lemlist.
    :param drop_empty: Leave empty values out; otherwise they become empty texts.
    """
    lead: dict[str, str] = {}
    found: list[Problem] = []
    for name, value in values.items():
        if name not in LEAD_FIELDS and name not in variables and (reason := _wrong_name(name)):
            found.append(Problem(str(name), reason))
            continue
        text = value if type(value) is str else _as_text(value)
        if text is None:
            found.append(Problem(name, f"must be text, a number or a date, not {type(value).__name__}"))
        elif not text.isascii() and _HALF_CHARACTER.search(text):
            found.append(Problem(name, "is not valid Unicode; it may have been cut off inside an emoji"))
        elif not text or text.isspace():
            if not drop_empty:
                lead[name] = ""
        elif name not in _CHECKS:
            lead[name] = text
        else:
            text = text.strip()
            if name == "linkedinUrl" and _BARE_LINKEDIN.match(text):
                text = f"https://{text}"
            if reason := _CHECKS[name](text):
                found.append(Problem(name, reason))
            else:
                lead[name] = text
    if not found and not any(lead.values()):
        found.append(Problem("lead", "has no values"))
    return lead, found


def check(
    values: Mapping[str, Any],
    what: str = "The lead",
    *,
    variables: Collection[str] = (),
    drop_empty: bool = True,
    ignore: Iterable[str] = (),
) -> dict[str, str]:
    """
    Return the lead with its values as text.

    :param what: The subject of the error message.
    :param ignore: Fields whose problems are ignored, because their values are not known yet.
    :raises LemlistValidationError: The lead has problems; the error lists all of them.
    """
    lead, found = clean(values, variables=variables, drop_empty=drop_empty)
    if found := [problem for problem in found if problem.field not in {*ignore}]:
        raise validation_error(what, found)
    return lead


def is_blank(value: Any) -> bool:
    """Return whether ``clean`` treats a value as empty."""
    text = _as_text(value)
    return text is not None and (not text or text.isspace())


@cache
def _wrong_name(name: Any) -> str | None:
    """Return what is wrong with the name of a custom variable. Cached: a load checks it for every cell."""
    if not isinstance(name, str) or not name.strip():
        return "a name must be text and not empty"
    if meant := nearest(name, LEAD_FIELDS):
        return f"is close to {meant!r}, did you mean that? If it is a variable, list it in 'variables'"
    if nearest(name, CALL_OPTIONS):
        return "is an option of the request, not a field; if it is a variable, list it in 'variables'"
    return None


def _as_text(value: Any) -> str | None:
    """Return a value as text, empty if there is no value, or None if its type has no text form."""
    if value is None or type(value).__name__ == "NAType":  # pandas.NA cannot be compared
        return ""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()  # a NumPy scalar
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, UUID)):
        return str(value)
    if isinstance(value, float):
        # pandas turns an integer column with missing values into floats: 33.0 was 33 in the source.
        value = int(value) if value.is_integer() and abs(value) < 1e15 else value
        return "" if value != value else None if value in _INFINITE else str(value)
    if isinstance(value, Decimal):
        plain = "f" if abs(value.adjusted()) < 50 else ""
        return "" if value.is_nan() else format(value, plain) if value.is_finite() else None
    if isinstance(value, (date, time)):
        return "" if value != value else value.isoformat()  # pandas.NaT is a date that differs from itself
    return None


def _wrong_email(text: str) -> str | None:
    if len(text) <= _MAX_EMAIL_LENGTH and _EMAIL.fullmatch(text):
        return None
    if "{{" in text or "{%" in text:
        return "must be an email address; Airflow does not render '{{ … }}' here, use AirflowText or .output"
    return "must be one email address, such as ana@example.com"


def _wrong_url(text: str) -> str | None:
    if _PLAIN_URL.fullmatch(text):  # most are; what follows takes ten times as long
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and "." in (parts.hostname or "") and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if usable and text.split() == [text]:  # no white space
        return None
    return "must be a URL that starts with https:// or http://"


def wrong_time_zone(text: str) -> str | None:
    """Return what is wrong with the name of a time zone, or None."""
    # pendulum ships the zones; zoneinfo reads those of the machine, and a slim image has none.
    # Imported on first use, so that parsing a DAG does not import it.
    import pendulum

    return None if text in pendulum.timezones() else "must be an IANA time zone, such as Europe/Paris"


_CHECKS = {
    "email": _wrong_email,
    "linkedinUrl": _wrong_url,
    "picture": _wrong_url,
    "timezone": wrong_time_zone,
}
