# SPDX-License-Identifier: Apache-2.0
"""Where the documents contradict each other or themselves: one switch each, the likelier answer first."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Manners:
    """
    How this lemlist behaves where the documents leave a choice.

    :param campaign_list: ``array``, as the description says, or ``object`` with ``campaigns`` and
        ``pagination``, as integrators receive it.
    :param elsewhere_status: Status of ``Lead already in other campaign``: 409 or 500, both seen; or 400.
    :param state_required: Whether lists and exports of leads are empty without a ``state``.
    :param restart: Whether to start a running campaign or pause a paused one is ``ignored`` or ``refused``.
    :param strict_user_agent: Whether the CDN refuses the default User-Agent of Python's HTTP libraries.
    :param export_polls: How often an export of statistics answers ``pending`` before it is done.
    """

    campaign_list: str = "array"
    elsewhere_status: int = 409
    state_required: bool = True
    restart: str = "ignored"
    strict_user_agent: bool = False
    export_polls: int = 2

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")


CHOICES = {
    "campaign_list": ("array", "object"),
    "elsewhere_status": (409, 500, 400),
    "restart": ("ignored", "refused"),
}
NAMES = tuple(field.name for field in fields(Manners))
