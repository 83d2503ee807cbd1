# SPDX-License-Identifier: Apache-2.0
"""
What can be read back from lemlist: one table of datasets, with the route, the key and the columns of each.

Adding a dataset is adding a row to ``DATASETS``. A column says under which name lemlist sends its value; what
no column names is kept as JSON text in the dataset's last data column (``extra``, or ``variables`` of leads),
so a field that lemlist adds tomorrow is not lost.

Pure, and cheap to import: operators check their arguments against it when a DAG is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.validation import hint

#: The type of a column. ``json`` is text that holds JSON; a ``timestamp`` is in UTC with milliseconds.
Kind = Literal["text", "integer", "boolean", "timestamp", "json"]
#: What to do with columns that hold personal data.
PersonalData = Literal["keep", "drop"]


class Reading(Enum):
    """How the rows of a dataset are requested."""

    BY_TIME = "pages of a closed window, the newest first"
    BY_OFFSET = "pages by offset"
    WHOLE = "one request"
    BY_CAMPAIGN = "one request for each campaign"
    BY_BATCH = "one request for each hundred campaigns"


class Column(NamedTuple):
    """
    One column.

    :param sources: Where lemlist sends the value, in the order of preference; ``lead.state`` is the field
        ``state`` of the object ``lead``. Empty for what is known from the request.
    :param is_personal: Whether it may identify a person; ``personal_data="drop"`` leaves it out.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    is_personal: bool = False


class Dataset(NamedTuple):
    """
    One dataset.

    :param operation: Method and path, as documented.
    :param page_size: Records of a page, where there are pages: the most that the route returns.
    :param query: What is always requested.
    :param key: Columns that identify a row.
    :param columns: All columns, in the order of files and tables.
    :param rest: The column that holds everything that no other column names.
    :param moment: The column whose moments the window bounds; empty for a snapshot and for statistics.
    """

    name: str
    operation: str
    reading: Reading
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    rest: str = "extra"
    moment: str = ""
    page_size: int = 0
    query: Mapping[str, str] = {}

    @property
    def has_window(self) -> bool:
        """Whether it is read for a window; a snapshot is what lemlist shows at the moment of reading."""
        return any(column.name in (self.moment, "window_start") for column in self.columns)

    @property
    def is_by_campaign(self) -> bool:
        """Whether it can be read for some campaigns only."""
        return any(column.name == "campaign_id" for column in self.columns)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def _columns(names: str, kind: Kind = "text", *, personal: bool = False) -> tuple[Column, ...]:
    """Return columns from lines such as ``created_at`` or ``id=_id|metaData.leadId``."""
    found = []
    for each in names.split():
        name, _, sources = each.partition("=")
        camel = re.sub(r"_(\w)", lambda letter: letter[1].upper(), name)
        found.append(Column(name, kind, tuple((sources or camel).split("|")), personal))
    return tuple(found)


def _known(name: str, kind: Kind = "text") -> Column:
    """Return a column whose value the request determines."""
    return Column(name, kind, ())


_EXTRA = Column("extra", "json", (), is_personal=True)
_READ_AT = _known("read_at", "timestamp")
_OF_CAMPAIGN = (_known("campaign_id"), _known("campaign_name"))

DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "activities",
            "GET /activities",
            Reading.BY_TIME,
            page_size=100,
            query={"version": "v2"},
            key=("id",),
            moment="created_at",
            columns=(
                *_columns("id=_id type=type|metaData.type"),
                *_columns("created_at", "timestamp"),
                *_columns("is_first bot stopped", "boolean"),
                *_columns("team_id=teamId|metaData.teamId campaign_id=campaignId|metaData.campaignId"),
                *_columns("campaign_name=campaignName|name lead_id=leadId|metaData.leadId|lead._id"),
                *_columns("contact_id company_id opportunity_id"),
                *_columns("lead_email lead_first_name lead_last_name lead_phone lead_picture", personal=True),
                *_columns("lead_company_name lead_state=lead.state lead_source=lead.source"),
                *_columns("lead_is_paused=lead.isPaused", "boolean"),
                *_columns("lead_variables=lead.variables lead_enrichment=lead.enrichment", "json",
                          personal=True),
                *_columns("sequence_id step_id"),
                *_columns("sequence_step total_sequence_step", "integer"),
                *_columns("sequence_tested step_tested email_id email_template_id email_template_name"),
                *_columns("message_id"),
                *_columns("related_sent_at", "timestamp"),
                *_columns("created_by=createdBy|metaData.createdBy"),
                *_columns("send_user_id send_user_mailbox_id user_id"),
                *_columns("send_user_name send_user_email user_name", personal=True),
                *_columns("error_message note", personal=True),
                *_columns("recording transcription", "json", personal=True),
                _EXTRA,
            ),
        ),
        Dataset(
            "leads",
            "GET /campaigns/{campaignId}/export/leads",
            Reading.BY_CAMPAIGN,
            query={"state": "all", "format": "csv"},  # as JSON it lacks the custom variables
            key=("id",),
            rest="variables",
            columns=(
                *_columns("id=_id"),
                *_OF_CAMPAIGN,
                *_columns("status last_state email_status"),
                *_columns("email first_name last_name phone picture linkedin_url icebreaker", personal=True),
                *_columns("job_title company_name company_domain timezone"),
                Column("variables", "json", (), is_personal=True),
                _READ_AT,
            ),
        ),
        Dataset(
            "campaigns",
            "GET /campaigns",
            Reading.BY_OFFSET,
            page_size=100,
            query={"version": "v2", "sortBy": "createdAt", "sortOrder": "asc"},
            key=("id",),
            columns=(
                *_columns("id=_id name status emoji timezone"),
                *_columns("labels", "json"),
                *_columns("created_at", "timestamp"),
                *_columns("created_by"),
                *_columns("archived is_ended has_error", "boolean"),
                *_columns("errors", "json"),
                _EXTRA,
                _READ_AT,
            ),
        ),
        Dataset(
            "campaign_stats",
            "POST /v2/campaigns/stats/batch",
            Reading.BY_BATCH,
            key=("window_start", "window_end", "campaign_id", "sequence_id", "step_index"),
            columns=(
                *(_known(name, "timestamp") for name in ("window_start", "window_end")),
                *_columns("campaign_id"),
                _known("campaign_name"),
                # A row without a sequence and a step is the campaign as a whole.
                *_columns("sequence_id"),
                *_columns("step_index=index sequence_step", "integer"),
                *_columns("task_type ab_test condition_label"),
                *_columns(
                    """
                    nb_leads nb_leads_launched nb_leads_reached nb_leads_opened nb_leads_interacted
                    nb_leads_answered nb_leads_interested nb_leads_not_interested nb_leads_unsubscribed
                    nb_leads_interrupted messages_sent messages_not_sent messages_bounced
                    invited sent delivered not_delivered bounced opened clicked replied unsubscribed
                    invitation_accepted meeting_booked
                    """,
                    "integer",
                ),
                _EXTRA,
            ),
        ),
        Dataset(
            "sequences",
            "GET /campaigns/{campaignId}/sequences",
            Reading.BY_CAMPAIGN,
            key=("id",),
            columns=(
                *_columns("id=_id"),
                *_OF_CAMPAIGN,
                *_columns("sequence_id"),
                _known("sequence_level", "integer"),
                _known("parent_sequence_id"),
                *_columns("type"),
                *_columns("step_index=index sequence_step delay", "integer"),
                *_columns("title subject message alt_message"),
                *_columns("email_template_id email_template_b_id ab_test"),
                *_columns("conditions", "json"),
                _EXTRA,
                _READ_AT,
            ),
        ),
        Dataset(
            "unsubscribes",
            "GET /v2/unsubscribes/exports/variables",
            Reading.WHOLE,
            key=("id",),
            columns=(
                *_columns("id=_id"),
                *_columns("value", personal=True),
                *_columns("source"),
                *_columns("created_at", "timestamp"),
                _EXTRA,
                _READ_AT,
            ),
        ),
        Dataset(
            "contacts",
            "GET /contacts",
            Reading.BY_OFFSET,
            page_size=500,
            key=("id",),
            columns=(
                *_columns("id=_id team_id"),
                *_columns("full_name email linkedin_url linkedin_url_sales_nav", personal=True),
                *_columns("fields", "json", personal=True),
                *_columns("campaigns", "json"),
                *_columns("owner_id company_id source"),
                *_columns("created_at", "timestamp"),
                *_columns("created_by"),
                *_columns("unsubscribed", "boolean"),
                *_columns("field_rejections", "json", personal=True),
                _EXTRA,
                _READ_AT,
            ),
        ),
        Dataset(
            "companies",
            "GET /companies",
            Reading.BY_OFFSET,
            page_size=500,
            query={"sortBy": "createdAt", "sortOrder": "asc"},
            key=("id",),
            columns=(
                *_columns("id=_id name=name|fields.name domain industry=fields.industry"),
                # Teams add fields of their own, which may hold anything.
                *_columns("fields", "json", personal=True),
                *_columns("crm_sync field_rejections", "json"),
                *_columns("owner_id created_by"),
                *_columns("created_at", "timestamp"),
                _EXTRA,
                _READ_AT,
            ),
        ),
        Dataset(
            "team_members",
            "GET /team",
            Reading.WHOLE,
            key=("id",),
            columns=(
                *_columns("id=userId"),
                *_columns("name email", personal=True),
                *_columns("role"),
                _known("team_id"),
                _known("team_name"),
                _EXTRA,
                _READ_AT,
            ),
        ),
    )
}  # fmt: skip


def dataset_named(name: str) -> Dataset:
    """
    Return a dataset.

    :raises LemlistConfigurationError: There is none of that name.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise LemlistConfigurationError(
            f"dataset must be one of {', '.join(DATASETS)}, not {name!r}{hint(str(name), tuple(DATASETS))}."
        )
    return DATASETS[name]


def selected_columns(
    dataset: Dataset, names: Collection[str] | None = None, personal_data: PersonalData = "keep"
) -> tuple[Column, ...]:
    """
    Return the columns of a read, in the order of the dataset.

    :param names: The columns to keep; None for all.
    :raises LemlistConfigurationError: A name is unknown, or nothing is left.
    """
    known = tuple(column.name for column in dataset.columns)
    if isinstance(names, str) or not (names is None or isinstance(names, Collection)):
        raise LemlistConfigurationError(f"columns must be a list of names, not {names!r}.")
    for name in names or ():
        if name not in known:
            raise LemlistConfigurationError(
                f"Dataset {dataset.name} has no column {name!r}{hint(str(name), known)}."
            )
    kept = tuple(
        column
        for column in dataset.columns
        if (names is None or column.name in names) and not (column.is_personal and personal_data == "drop")
    )
    if not kept:
        raise LemlistConfigurationError(
            f"columns and personal_data={personal_data!r} leave no column of dataset {dataset.name}."
        )
    return kept


def fingerprint(columns: Sequence[Column]) -> str:
    """Return a short text that changes when a column is added, removed, renamed, moved or retyped."""
    schema = [(column.name, column.kind) for column in columns]
    return sha256(json.dumps(schema).encode()).hexdigest()[:16]


# --- From what lemlist sends to a row ---------------------------------------------------------------------

#: The value of a column: text (also JSON), a whole number, a flag, a moment in UTC, or None.
Value = str | int | bool | datetime | None
#: The values of a row, in the order of its columns.
Row = tuple[Value, ...]


class RowMaker:
    """
    Make rows from the objects that lemlist sends. Thread-safe.

    :param columns: The columns to fill.
    """

    def __init__(self, dataset: Dataset, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._rest = dataset.rest
        # What a column that is not selected names belongs to that column all the same, not to the rest.
        sourced = [column for column in dataset.columns if column.sources]
        self._sourced = [
            (column, [source.split(".") for source in column.sources], column in columns)
            for column in sourced
        ]

    def __call__(self, record: Mapping[str, Any], known: Mapping[str, Value]) -> Row:
        """
        Return the row of a record.

        :param record: The object, as lemlist sends it.
        :param known: The values of the columns that the request determines.
        """
        values: dict[str, Value] = dict(known)
        rest = {name: dict(value) if isinstance(value, dict) else value for name, value in record.items()}
        for column, sources, is_selected in self._sourced:
            for source in sources:
                sent = _at(record, source)
                if sent in (None, "", {}):  # no value: nothing to keep
                    _remove(rest, source)
                    continue
                value = converted(sent, column.kind)
                if column.name not in values or values[column.name] is None:
                    values[column.name] = value
                if value is not None and (value == values[column.name] or not is_selected):
                    _remove(rest, source)
        if any(column.name == self._rest for column in self._columns):
            values[self._rest] = converted(
                {name: value for name, value in rest.items() if value != {}}, "json"
            )
        return tuple(values.get(column.name) for column in self._columns)


def _at(record: Mapping[str, Any], source: list[str]) -> Any:
    value: Any = record
    for name in source:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _remove(rest: dict[str, Any], source: list[str]) -> None:
    """Remove what a column holds. Sources have at most two names."""
    holder = rest.get(source[0]) if len(source) > 1 else rest
    if isinstance(holder, dict):
        holder.pop(source[-1], None)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def converted(value: Any, kind: Kind) -> Value:
    """Return a value in the type of its column, or None if it does not fit; an empty text is no value."""
    if value is None or value == "":
        return None
    if kind == "json":
        return None if value == {} else _json(value)
    if kind == "timestamp":
        return _moment(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if kind == "integer":
        return _integer(value)
    return _encodable(value) if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return _encodable(json.dumps(value, ensure_ascii=False, sort_keys=True))


def _encodable(text: str) -> str:
    """Replace half an emoji, as cut texts end with: no file and no table takes it."""
    return text.encode(errors="replace").decode()


def _integer(value: Any) -> int | None:
    """Return a whole number of at most 64 bits: what files and tables can hold."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value % 1:
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def _moment(value: Any) -> datetime | None:
    """Return a moment of ISO text or epoch milliseconds, cut to milliseconds as lemlist writes it."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
        return whole_milliseconds(moment)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return from_milliseconds(int(value))
        except (OverflowError, ValueError):
            return None
    return None


def whole_milliseconds(moment: datetime) -> datetime:
    """Return a moment cut to milliseconds, as lemlist writes its moments."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def milliseconds(moment: datetime) -> int:
    """Return a moment as whole milliseconds since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(at: int) -> datetime:
    """Return the moment of whole milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=at)


def packed(row: Row) -> str:
    """Return a row as JSON text, from which ``unpacked`` restores it."""
    return json.dumps([milliseconds(value) if isinstance(value, datetime) else value for value in row])


def unpacked(text: str, columns: Sequence[Column]) -> Row:
    """Return the row that ``packed`` has written."""
    values: Iterator[Any] = iter(json.loads(text))
    return tuple(
        from_milliseconds(value) if column.kind == "timestamp" and value is not None else value
        for column, value in zip(columns, values, strict=True)
    )
