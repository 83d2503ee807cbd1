# SPDX-License-Identifier: Apache-2.0
"""The options of one load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from airflow_provider_lemlist.delivery.policy import IfElsewhere, IfGone
from airflow_provider_lemlist.suppression.options import Exclusions

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.ledger.ledger import Run
    from airflow_provider_lemlist.load.mapping import ColumnMapping
    from airflow_provider_lemlist.sources import Row

#: The choices of a load among those of a single lead: a row cannot return a lead.
IfExists = Literal["skip", "update"]
IfVariableMissing = Literal["fail", "warn"]
#: The person of a ``key`` has another address than before.
IfAddressChanged = Literal["skip", "create", "fail"]
#: A person who was loaded from here is no longer in the source.
IfMissing = Literal["keep", "pause", "unsubscribe", "delete"]


class LoadOptions(NamedTuple):
    """What to load, and how; the arguments of ``LoadLeadsOperator``, checked."""

    campaign_id: str
    #: Opens the source.
    rows: Callable[[], Iterator[Row]]
    mapping: ColumnMapping
    ledger_path: ObjectStoragePath
    run: Run
    exclusions: Exclusions = Exclusions()
    if_exists: IfExists = "skip"
    if_elsewhere: IfElsewhere = "skip"
    if_gone: IfGone = "skip"
    if_address_changed: IfAddressChanged = "skip"
    if_missing: IfMissing = "keep"
    if_variable_missing: IfVariableMissing = "fail"
    resume_returned: bool = True
    max_missing: float = 0.1
    max_new: int | None = None
    recheck_elsewhere: timedelta = timedelta(days=7)
    #: The enrichments and the check for duplicates, as the hook takes them.
    flags: Mapping[str, bool | None] = {}
    #: Whether an earlier attempt may have died a moment ago, with requests under way.
    is_retry: bool = False
    dry_run: bool = False
    time_limit: timedelta | None = None
