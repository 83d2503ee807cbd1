# SPDX-License-Identifier: Apache-2.0
"""The options of one launch of leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.ledger.ledger import Run

#: A lead lacks a value for a variable that the texts of the campaign need.
IfVariableMissing = Literal["fail", "skip", "warn"]
#: The campaign neither sends nor is a draft, so the leads would be contacted when it is resumed.
IfPaused = Literal["fail", "launch"]


class LaunchOptions(NamedTuple):
    """
    Which leads to launch, and how; the arguments of ``LaunchLeadsOperator``, checked.

    :param lead_ids: The leads; None for those that wait for review.
    :param exclude_unsubscribed: Whether to leave out the people on lemlist's list of unsubscribed values.
    :param is_retry: Whether an earlier attempt may have launched leads.
    """

    campaign_id: str
    max_leads: int
    ledger_path: ObjectStoragePath
    run: Run
    lead_ids: Sequence[str] | None = None
    if_variable_missing: IfVariableMissing = "fail"
    if_paused: IfPaused = "fail"
    exclude_unsubscribed: bool = True
    is_retry: bool = False
    dry_run: bool = False
