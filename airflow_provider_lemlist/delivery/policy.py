# SPDX-License-Identifier: Apache-2.0
"""What the user wants for a lead, step or campaign that exists: the choices of the operators' arguments."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The lead is in the campaign.
IfExists = Literal["return", "update", "skip", "fail"]
#: ``deduplicate`` found the person in another campaign.
IfElsewhere = Literal["skip", "fail"]
#: The lead was created from here, and has been deleted in lemlist since.
IfGone = Literal["skip", "create", "fail"]
#: An equal step is in the sequence.
IfStepExists = Literal["return", "add", "fail"]
#: A campaign that is not archived has the name.
IfCampaignExists = Literal["return", "fail", "create"]

#: A campaign has steps that its definition lacks.
OnExtra = Literal["fail", "keep", "delete"]
#: Something has to change while the campaign is running.
IfRunning = Literal["fail", "edit", "pause"]


class LeadPolicy(NamedTuple):
    """What the user wants for a lead that exists, or has been deleted."""

    if_exists: IfExists = "return"
    if_elsewhere: IfElsewhere = "skip"
    if_gone: IfGone = "skip"
