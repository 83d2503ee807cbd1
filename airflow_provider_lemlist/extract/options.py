# SPDX-License-Identifier: Apache-2.0
"""What to read: the arguments of ``LemlistHook.read`` and of the transfers, checked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_lemlist.activities import checked_types
from airflow_provider_lemlist.arguments import checked_ids
from airflow_provider_lemlist.datasets import Column, Dataset, PersonalData, dataset_named, selected_columns
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.extract.windows import Window, closed_window
from airflow_provider_lemlist.run_window import parse_moment


@dataclass(frozen=True)
class ReadOptions:
    """
    What to read.

    :param columns: The columns of the rows.
    :param window: None for a snapshot.
    :param campaign_ids: Empty for all.
    :param activity_types: Empty for all.
    :param allow_missing: For how many campaigns lemlist may return no statistics.
    """

    dataset: Dataset
    columns: Sequence[Column]
    window: Window | None = None
    campaign_ids: Sequence[str] = ()
    activity_types: Sequence[str] = ()
    allow_missing: int = 0

    @classmethod
    def of(
        cls,
        dataset: str,
        *,
        since: Any,
        until: Any,
        now: datetime,
        campaign_id: Any = None,
        activity_type: Any = None,
        columns: Collection[str] | None = None,
        personal_data: PersonalData = "keep",
        allow_missing: int = 0,
    ) -> ReadOptions:
        """
        Check the arguments of a read, whose values are known.

        :raises LemlistConfigurationError: One is wrong, missing, or has no meaning for the dataset.
        """
        chosen = dataset_named(dataset)
        given = {"since": since, "until": until, "campaign_id": campaign_id, "activity_type": activity_type}
        check_applicable(chosen, {**given, "allow_missing": allow_missing or None})
        window = None
        if chosen.has_window:
            if since is None or until is None:
                raise LemlistConfigurationError(
                    f"Dataset {dataset} is read for a window: set since and until."
                )
            window = closed_window(parse_moment(since), parse_moment(until, "until"), now)
        return cls(
            chosen,
            selected_columns(chosen, columns, personal_data),
            window,
            campaign_ids=checked_ids(campaign_id, "campaign_id"),
            activity_types=() if activity_type is None else checked_types(activity_type),
            allow_missing=allow_missing,
        )


def check_applicable(dataset: Dataset, arguments: Mapping[str, Any]) -> None:
    """Check that no argument was given that has no meaning for a dataset."""
    applicable = {
        "since": dataset.has_window,
        "until": dataset.has_window,
        "reread": bool(dataset.moment),
        "campaign_id": dataset.is_by_campaign,
        "activity_type": bool(dataset.moment),
        "allow_missing": dataset.name == "campaign_stats",
    }
    for name, value in arguments.items():
        if value is not None and not applicable[name]:
            raise LemlistConfigurationError(f"{name} does not apply to dataset {dataset.name}; leave it out.")
