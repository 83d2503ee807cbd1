# SPDX-License-Identifier: Apache-2.0
"""The filter by ``state``: groups of states, stages in the campaign, or one exact state. Pure."""

from __future__ import annotations

from airflow_provider_lemlist.sandbox.activity_types import ACTIVITY_TYPES
from airflow_provider_lemlist.sandbox.model import Lead

#: Groups of states, by the type of the lead's last activity.
GROUPS: dict[str, tuple[str, ...]] = {
    "hooked": ("emailsOpened", "linkedinOpened", "whatsappMessageOpened"),
    "attracted": ("emailsClicked", "linkedinInviteAccepted"),
    "warmed": ("emailsReplied", "linkedinReplied", "whatsappReplied", "smsReplied"),
    "emailsBounced": ("emailsBounced", "emailsFailed", "linkedinSendFailed", "linkedinInviteFailed"),
    "emailsUnsubscribed": ("emailsUnsubscribed",),
}
#: Every documented value; the detailed values are types of activities.
STATES = (
    ACTIVITY_TYPES | set(GROUPS) | {"all", "imported", "scanned", "reviewed", "failed", "opportunitiesDone"}
)
CONTACTED = ("Sent", "Done", "Delivered")


def has_state(lead: Lead, wanted: str) -> bool:
    """Return whether a lead matches one value of ``state``."""
    match wanted:
        case "all":
            return True
        case "imported" | "scanned":
            return lead.state == "scanned"
        case "reviewed":
            return lead.stage != "review"
        case "paused":
            return lead.is_paused
        case "interested" | "notInterested":
            return lead.stage == wanted
        case "contacted":
            return lead.state.endswith(CONTACTED)
        case "failed":
            return lead.state in GROUPS["emailsBounced"]
        case _:
            return lead.state == wanted or lead.state in GROUPS.get(wanted, ())
