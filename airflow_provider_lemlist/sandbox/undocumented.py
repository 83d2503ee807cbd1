# SPDX-License-Identifier: Apache-2.0
"""Options for undocumented behaviour of lemlist; the likelier behaviour is the default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Undocumented:
    """
    Choices where the documents are ambiguous.

    :param campaign_list: ``array``, as the description says, or ``object`` with ``campaigns`` and
        ``pagination``, as integrators receive it.
    :param elsewhere_status: Status of ``Lead already in other campaign``: 409 or 500, both observed; or 400.
    :param state_required: Whether lists and exports of leads are empty without a ``state``.
    :param restart: Whether a request to start a running campaign or to pause a paused one is ``ignored`` or
        ``refused``.
    :param edit_running: Whether the update of a step of a running campaign is ``refused``, as documented for
        the variants of an A/B test and for deletions, or ``allowed``.
    :param unknown_fields: Whether an update of a campaign, schedule or step with an undocumented field is
        ``refused``, or the field is ``ignored``.
    :param auto_review_listed: Whether ``GET /campaigns/{campaignId}`` has the ``autoReview`` of the campaign.
    :param strict_user_agent: Whether the CDN refuses the default User-Agent of Python's HTTP libraries.
    :param export_polls: Number of times that an export of statistics is ``pending`` before it is done.
    :param export_variables: Whether the JSON export of leads has their custom variables too.
    :param activity_page_limit: The most activities of one page, whatever ``limit`` asks for.
    :param tidy_html: Whether lemlist tidies the HTML of an email's message before it stores it.
    """

    campaign_list: str = "array"
    elsewhere_status: int = 409
    state_required: bool = True
    restart: str = "ignored"
    edit_running: str = "refused"
    unknown_fields: str = "refused"
    auto_review_listed: bool = False
    strict_user_agent: bool = False
    export_polls: int = 2
    export_variables: bool = False
    activity_page_limit: int = 100
    tidy_html: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        if not 1 <= self.activity_page_limit <= 100:
            raise ValueError(f"activity_page_limit must be 1 to 100, not {self.activity_page_limit!r}")


CHOICES = {
    "campaign_list": ("array", "object"),
    "elsewhere_status": (409, 500, 400),
    "restart": ("ignored", "refused"),
    "edit_running": ("refused", "allowed"),
    "unknown_fields": ("refused", "ignored"),
}
