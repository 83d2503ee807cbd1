# SPDX-License-Identifier: Apache-2.0
"""
Read the four rate-limit headers of a response. Pure, and never an error: a header may hold anything.

lemlist sends ``Retry-After`` with every response, so its presence alone means nothing.
``X-RateLimit-Reset`` is a JavaScript date, which ``email.utils`` reads an hour wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

#: Longest wait accepted from a header; a day in it is a mistake or a block, not a rate limit.
LONGEST_WAIT = 60.0

_JAVASCRIPT_DATE = re.compile(
    r"(?:[A-Za-z]{3} )?([A-Za-z]{3} \d{1,2} \d{4} \d{1,2}:\d{2}:\d{2}) (?:GMT|UTC)([+-]\d{4})?"
)


class Limits(NamedTuple):
    """The headers of one response; None where they hold nothing usable."""

    limit: int | None
    remaining: int | None
    retry_after: float | None


def read_limits(headers: Mapping[str, str], now: datetime) -> Limits:
    """Read the headers, their names in lower case."""
    wait = read_wait(headers.get("retry-after", ""), now)
    if wait is None:
        wait = read_wait(headers.get("x-ratelimit-reset", ""), now)
    limit = _whole(headers.get("x-ratelimit-limit", ""), least=1)
    return Limits(limit, _whole(headers.get("x-ratelimit-remaining", ""), least=0), wait)


def read_wait(text: str, now: datetime) -> float | None:
    """Return seconds or a date as seconds from now, within 0 and ``LONGEST_WAIT``; None for neither."""
    try:
        seconds = float(text)
    except ValueError:
        moment = read_date(text)
        seconds = (moment - now).total_seconds() if moment else math.nan
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def read_date(text: str) -> datetime | None:
    """Read a JavaScript or an HTTP date; None for anything else."""
    match = _JAVASCRIPT_DATE.match(text.strip())
    try:
        if match:
            # The name of the zone in brackets may be in any language; the offset before it is enough.
            return datetime.strptime(f"{match[1]} {match[2] or '+0000'}", "%b %d %Y %H:%M:%S %z")
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _whole(text: str, *, least: int) -> int | None:
    whole = re.fullmatch(r"[0-9]{1,9}", text.strip())
    return int(whole[0]) if whole and int(whole[0]) >= least else None
