# SPDX-License-Identifier: Apache-2.0
"""Write the tables of all datasets into ``docs/bring-home.md``: ``python -m tools.dataset_tables``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from airflow_provider_lemlist.datasets import DATASETS, Column, Dataset, Reading

FILE = Path(__file__).parents[1] / "docs" / "bring-home.md"
BEGIN, END = "<!-- begin: python -m tools.dataset_tables -->\n", "<!-- end -->\n"

#: What fills the columns that lemlist does not send with a row.
_KNOWN = {
    "read_at": "the moment of reading",
    "window_start": "`since`",
    "window_end": "`until`",
    "campaign_id": "the campaign that was read",
    "campaign_name": "the name of that campaign",
    "sequence_level": "`level` of the sequence; 0 is the main one",
    "parent_sequence_id": "`parentId` of the sequence",
    "team_id": "`_id` of the team",
    "team_name": "`name` of the team",
}
_REQUESTS = {
    Reading.BY_TIME: "100 rows for each request",
    Reading.BY_OFFSET: "pages",
    Reading.WHOLE: "one request",
    Reading.BY_CAMPAIGN: "one request for each campaign",
    Reading.BY_BATCH: "one request for each 100 campaigns",
}


def text() -> str:
    """Return the page with the tables as they are now."""
    before, _, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{''.join(map(_section, DATASETS.values()))}\n{END}{after}"


def _section(dataset: Dataset) -> str:
    key = ", ".join(f"`{name}`" for name in dataset.key)
    lines = [
        "",
        f"### {dataset.name}",
        "",
        f"`{dataset.operation}`, {_REQUESTS[dataset.reading]}. Key: {key}.",
        "",
        "| Column | Type | Personal | What lemlist sends |",
        "| --- | --- | --- | --- |",
        *_rows(dataset),
    ]
    return "\n".join(lines) + "\n"


def _rows(dataset: Dataset) -> Iterator[str]:
    for column in dataset.columns:
        is_personal = "yes" if column.is_personal else ""
        yield f"| `{column.name}` | {column.kind} | {is_personal} | {_source(dataset, column)} |"


def _source(dataset: Dataset, column: Column) -> str:
    if column.name == dataset.rest:
        return "everything that has no column"
    return ", else ".join(f"`{source}`" for source in column.sources) or _KNOWN[column.name]


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
