# SPDX-License-Identifier: Apache-2.0
"""The options of one load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_provider_lemlist.delivery.policy import IfElsewhere, IfGone

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.load.mapping import ColumnMapping
    from airflow_provider_lemlist.load.sources import Row

#: The choices of a load among those of a single lead: a row cannot return a lead.
IfExists = Literal["skip", "update"]
IfVariableMissing = Literal["fail", "warn"]


class LoadOptions(NamedTuple):
    """What to load, and how; the arguments of ``LoadLeadsOperator``, checked."""

    campaign_id: str
    #: Opens the source.
    rows: Callable[[], Iterator[Row]]
    mapping: ColumnMapping
    ledger_path: ObjectStoragePath
    previous_ledger: ObjectStoragePath | None = None
    if_exists: IfExists = "skip"
    if_elsewhere: IfElsewhere = "skip"
    if_gone: IfGone = "skip"
    if_variable_missing: IfVariableMissing = "fail"
    #: The enrichments and the check for duplicates, as the hook takes them.
    flags: Mapping[str, bool | None] = {}
    #: Name of this load in the error of another one that finds the ledger in use.
    owner: str = "a load"
    dry_run: bool = False
    time_limit: timedelta | None = None
