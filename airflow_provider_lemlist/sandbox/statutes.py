# SPDX-License-Identifier: Apache-2.0
"""
What lemlist says about a campaign before a launch: its statutes, and the errors that follow from them. Pure.

Which statutes lemlist has, their categories and their texts are not documented; these are plausible ones.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from airflow_provider_lemlist.sandbox.model import Campaign, Statute, World


def statutes(campaign: Campaign, world: World) -> list[Statute]:
    """Return the statutes of a campaign, those that block a launch first."""
    others = [*_not_blocking(campaign, world), *(each for each in campaign.statutes if each.level < 3)]
    return [*blocking(campaign, world), *sorted(others, key=lambda each: -each.level)]


def blocking(campaign: Campaign, world: World) -> list[Statute]:
    """Return the statutes of level 3."""
    page = f"/campaigns/{campaign.id}"
    found = []
    if not world.sequences[campaign.sequence_id].steps:
        message = f'Your campaign does not have any <a href="{page}/steps">steps</a>.'
        found.append(Statute(3, message, "steps"))
    if not campaign.sender_ids:
        message = f'Your campaign does not have <a href="{page}/senders">sender</a>.'
        found.append(Statute(3, message, "senders"))
    return [*found, *(each for each in campaign.statutes if each.level == 3)]


def errors(campaign: Campaign, world: World) -> list[str]:
    """Return the ``errors`` of a campaign: the statutes that block a launch, as plain text."""
    return [as_text(each) for each in blocking(campaign, world)]


def as_text(statute: Statute) -> str:
    """Return the message of a statute without markup."""
    return html.unescape(re.sub("<[^>]*>", "", statute.message))


def _not_blocking(campaign: Campaign, world: World) -> Iterator[Statute]:
    for user in world.senders_of(campaign):
        if user.mailbox_status != "CONNECTED":
            yield Statute(2, "The <b>mailbox</b> of a sender isn&#39;t connected.", "senders")
    if not campaign.leads:
        yield Statute(2, "Your campaign doesn&#39;t have any <b>leads</b>&nbsp;yet.", "leads")
    elif waiting := sum(lead.stage == "review" for lead in campaign.leads.values()):
        yield Statute(1, f"<b>{waiting}</b> to review &amp; launch.", "leads")
