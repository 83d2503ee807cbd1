# SPDX-License-Identifier: Apache-2.0
"""
Read a dataset: which plan it takes, how its requests are sent, and what a request says about its rows.

    options -> the campaigns, where it goes by campaign -> a plan -> a crew that carries it out -> rows
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from itertools import product
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.api.paging import rows_of, total_of
from airflow_provider_lemlist.concurrency import request_rate
from airflow_provider_lemlist.datasets import (
    DATASETS,
    Column,
    Dataset,
    Reading,
    Row,
    RowMaker,
    packed,
    selected_columns,
    unpacked,
    whole_milliseconds,
)
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError
from airflow_provider_lemlist.extract.crew import Crew
from airflow_provider_lemlist.extract.plans import EachJob, Found, Listed, OffsetPage, OffsetPages, Record
from airflow_provider_lemlist.extract.slices import TimeSlices, WindowPage

if TYPE_CHECKING:
    from typing import BinaryIO

    from airflow_provider_lemlist.extract.options import ReadOptions
    from airflow_provider_lemlist.extract.plans import Plan
    from airflow_provider_lemlist.extract.windows import Window
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

log = logging.getLogger(__name__)

#: Campaigns for which lemlist returns statistics at once.
BATCH_OF_CAMPAIGNS = 100

#: What a request says about its records, by column.
Known = Mapping[str, Any]


def read(hook: LemlistHook, options: ReadOptions) -> Iterator[Row]:
    """
    Yield the rows of a dataset in a stable order, while others are still read.

    :raises LemlistError: The read is not complete; the rows that were yielded are a part of it.
    """
    reader = _Reader(hook, options)
    ways = {
        Reading.BY_TIME: reader.by_time,
        Reading.BY_OFFSET: reader.by_offset,
        Reading.WHOLE: reader.whole,
        Reading.BY_CAMPAIGN: reader.by_campaign,
        Reading.BY_BATCH: reader.by_batch,
    }
    with closing(ways[options.dataset.reading]()) as texts:
        for text in texts:
            yield unpacked(text, options.columns)


def activities(hook: LemlistHook, window: Window, query: Mapping[str, Any]) -> Iterator[Record]:
    """
    Yield the activities of a window as lemlist sends them, one page after another and about newest first.

    None is missed while activities arrive or vanish, for which lists by offset are not safe.
    """
    plan = TimeSlices(window.since, window.until, [query], DATASETS["activities"].page_size)
    while (page := plan.take()) is not None:
        found = plan.accept(page, _fetch_by_time(hook, page))
        plan.settle(page)
        yield from (each.record for each in found)


class _Reader:
    """The ways to read. Each yields the rows as text."""

    def __init__(self, hook: LemlistHook, options: ReadOptions) -> None:
        self._hook = hook
        self._options = options
        self._call = hook.get_conn().call
        self._rate = request_rate(hook.budget)
        self._read_at = whole_milliseconds(datetime.now(UTC))

    def by_time(self) -> Generator[str]:
        options, window = self._options, self._window
        filters = product(options.campaign_ids or (None,), options.activity_types or (None,))
        queries = [{"campaignId": campaign_id, "type": type} for campaign_id, type in filters]
        dataset = options.dataset
        plan = TimeSlices(window.since, window.until, queries, dataset.page_size)
        return self._carry_out(dataset, options.columns, plan, partial(_fetch_by_time, self._hook))

    def by_offset(self) -> Generator[str]:
        return self._list(self._options.dataset, self._options.columns)

    def whole(self) -> Generator[str]:
        fetch = {"unsubscribes": self._fetch_unsubscribes, "team_members": self._fetch_team}
        return self._each([None], lambda job: fetch[self._options.dataset.name]())

    def by_campaign(self) -> Generator[str]:
        fetch = {"leads": self._fetch_leads, "sequences": self._fetch_steps}
        return self._each(self._campaigns(), fetch[self._options.dataset.name])

    def by_batch(self) -> Generator[str]:
        campaigns, size = self._campaigns(), BATCH_OF_CAMPAIGNS
        batches = [campaigns[start : start + size] for start in range(0, len(campaigns), size)]
        missing: list[str] = []
        yield from self._each(batches, partial(self._fetch_stats, missing))
        if not missing:
            return
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        problem = f"lemlist returned no statistics for {len(missing)} of {len(campaigns)} campaigns ({shown})"
        if len(missing) > self._options.allow_missing:
            raise LemlistError(
                f"{problem}, and allow_missing is {self._options.allow_missing}. Nothing was written."
            )
        log.warning("%s.", problem)

    # --- Requests ---------------------------------------------------------------------------------------

    def _fetch_by_offset(self, dataset: Dataset, page: OffsetPage) -> Listed:
        method, path = dataset.operation.split()
        operation = ops.operation_for(method, path, ops.Shape.ROWS)
        response = self._call(operation, query={**dataset.query, "limit": page.limit, "offset": page.offset})
        return Listed(rows_of(response), total_of(response))

    def _fetch_unsubscribes(self) -> Iterator[tuple[Record, Known]]:
        file = TemporaryFile()  # noqa: SIM115  (closed when its rows were used)
        return _placed(self._call(ops.EXPORT_UNSUBSCRIBES, into=file), {}, file)

    def _fetch_team(self) -> Iterator[tuple[Record, Known]]:
        team = self._hook.get_team()
        return _placed(team.get("users") or (), {"team_id": team["_id"], "team_name": team.get("name")})

    def _fetch_leads(self, campaign: Known) -> Iterator[tuple[Record, Known]]:
        file = TemporaryFile()  # noqa: SIM115  (closed when its rows were used)
        path, query = {"campaignId": campaign["campaign_id"]}, self._options.dataset.query
        rows = self._call(ops.EXPORT_LEADS_WITH_VARIABLES, path=path, query=query, into=file)
        return _placed(rows, campaign, file)

    def _fetch_steps(self, campaign: Known) -> list[tuple[Record, Known]]:
        found: list[tuple[Record, Known]] = []
        for sequence_id, sequence in self._hook.get_sequences(campaign["campaign_id"]).items():
            known = {
                **campaign,
                "sequence_id": sequence_id,
                "sequence_level": sequence.get("level"),
                "parent_sequence_id": sequence.get("parentId"),
            }
            found += _placed(sequence.get("steps") or (), known)
        return found

    def _fetch_stats(self, missing: list[str], batch: Sequence[Known]) -> list[tuple[Record, Known]]:
        found: list[tuple[Record, Known]] = []
        window = self._window
        response = self._hook.get_campaigns_stats(
            [campaign["campaign_id"] for campaign in batch], window.since, window.until
        )
        results = {row.get("campaignId"): row for row in response.get("results") or ()}
        for campaign in batch:
            row = dict(results.get(campaign["campaign_id"]) or {})
            if not row:
                missing.append(campaign["campaign_id"])
                continue
            del row["campaignId"]
            steps = row.pop("steps", None) or ()
            known = {**campaign, "window_start": window.since, "window_end": window.until}
            found += _placed([row, *steps], known)
        return found

    # --- What they share --------------------------------------------------------------------------------

    @property
    def _window(self) -> Window:
        if self._options.window is None:
            raise LemlistValidationError(f"Dataset {self._options.dataset.name} needs since and until.")
        return self._options.window

    def _campaigns(self) -> list[Known]:
        """
        Return id and name of the campaigns to read, the oldest first.

        :raises LemlistValidationError: One of those that were asked for does not exist.
        """
        dataset = DATASETS["campaigns"]
        columns = selected_columns(dataset, ("id", "name"))
        listed = [unpacked(text, columns) for text in self._list(dataset, columns)]
        wanted = set(self._options.campaign_ids)
        if unknown := sorted(wanted - {str(id) for id, _ in listed}):
            raise LemlistValidationError(
                f"lemlist lists no campaign {', '.join(map(repr, unknown))}. Nothing was written."
            )
        return [
            {"campaign_id": id, "campaign_name": name} for id, name in listed if not wanted or id in wanted
        ]

    def _list(self, dataset: Dataset, columns: Sequence[Column]) -> Generator[str]:
        plan = OffsetPages(dataset.name, dataset.page_size)
        return self._carry_out(dataset, columns, plan, partial(self._fetch_by_offset, dataset))

    def _each(
        self, jobs: Sequence[Any], fetch: Callable[[Any], Iterable[tuple[Record, Known]]]
    ) -> Generator[str]:
        options = self._options
        return self._carry_out(options.dataset, options.columns, EachJob(jobs), lambda job: fetch(job[1]))

    def _carry_out(
        self, dataset: Dataset, columns: Sequence[Column], plan: Plan[Any], fetch: Callable[[Any], Any]
    ) -> Generator[str]:
        make_row = RowMaker(dataset, columns)

        def pack(found: Found) -> str:
            return packed(make_row(found.record, {"read_at": self._read_at, **found.known}))

        return Crew(plan, fetch, pack, self._rate, dataset.name).rows()


def _fetch_by_time(hook: LemlistHook, page: WindowPage) -> Any:
    query = {
        **DATASETS["activities"].query,
        **page.query,
        "minDate": page.since,
        "maxDate": page.until,
        "limit": page.limit,
        "offset": page.offset,
    }
    return hook.get_conn().call(ops.LIST_ACTIVITIES, query=query)


def _placed(
    records: Iterable[Record], known: Known, file: BinaryIO | None = None
) -> Iterator[tuple[Record, Known]]:
    """Yield records with what the request says about them; then close the file that they are read from."""
    for record in records:
        yield record, known
    if file is not None:
        file.close()
