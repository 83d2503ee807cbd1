# SPDX-License-Identifier: Apache-2.0
"""An object that lemlist sends becomes a row in which every value is in its column or in the rest."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.datasets import (
    DATASETS,
    Column,
    Dataset,
    Row,
    RowMaker,
    Value,
    dataset_named,
    fingerprint,
    packed,
    selected_columns,
    unpacked,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError

ACTIVITIES = DATASETS["activities"]
ALL = pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))


def row_of(
    dataset: Dataset, record: dict[str, Any], columns: Sequence[Column] | None = None
) -> dict[str, Value]:
    columns = dataset.columns if columns is None else columns
    row = RowMaker(dataset, columns)(record, {})
    return dict(zip([column.name for column in columns], row, strict=True))


def rest_of(dataset: Dataset, row: dict[str, Value]) -> dict[str, Any]:
    rest = row[dataset.rest]
    return json.loads(rest) if isinstance(rest, str) else {}


# --- Choosing ---------------------------------------------------------------------------------------------


def test_unknown_dataset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(LemlistConfigurationError, match=r"not 'activites' \(did you mean 'activities'\?\)"):
        dataset_named("activites")


def test_unknown_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(LemlistConfigurationError, match=r"no column 'stepid' \(did you mean 'step_id'\?\)"):
        selected_columns(ACTIVITIES, ["id", "stepid"])


def test_one_name_instead_of_a_list_is_refused() -> None:
    with pytest.raises(LemlistConfigurationError, match="a list of names, not 'id'"):
        selected_columns(ACTIVITIES, "id")


@pytest.mark.parametrize("names", [[], ["lead_email", "note"]])
def test_no_column_left_is_refused(names: list[str]) -> None:
    with pytest.raises(LemlistConfigurationError, match="leave no column of dataset activities"):
        selected_columns(ACTIVITIES, names, "drop")


def test_columns_keep_the_order_of_the_dataset() -> None:
    assert [each.name for each in selected_columns(ACTIVITIES, ["type", "extra", "id"])] == [
        "id",
        "type",
        "extra",
    ]


def test_fingerprint_changes_with_every_change_of_the_schema() -> None:
    a, b = Column("a", "text", ("a",)), Column("b", "integer", ("b",))
    schemas = [[a, b], [b, a], [a], [a, b._replace(name="c")], [a, b._replace(kind="text")], [a, b, b]]
    assert len({fingerprint(schema) for schema in schemas}) == len(schemas)


def test_fingerprint_stays_when_lemlist_renames_a_field() -> None:
    column = Column("a", "text", ("a",))
    assert fingerprint([column]) == fingerprint([column._replace(sources=("b",), is_personal=True)])


# --- Rows -------------------------------------------------------------------------------------------------


def test_activity_becomes_a_typed_row() -> None:
    row = row_of(
        ACTIVITIES,
        {
            "_id": "act_1",
            "type": "emailsOpened",
            "createdAt": "2026-03-02T21:20:59.696+01:00",
            "isFirst": False,
            "name": "Spring",
            "sequenceStep": 0,
            "metaData": {"campaignId": "cam_1", "type": "emailsOpened"},
            "lead": {"_id": "lea_1", "isPaused": True, "variables": {"plan": "trial"}},
        },
    )
    assert {name: value for name, value in row.items() if value is not None} == {
        "id": "act_1",
        "type": "emailsOpened",
        "created_at": datetime(2026, 3, 2, 20, 20, 59, 696000, UTC),
        "is_first": False,
        "campaign_id": "cam_1",
        "campaign_name": "Spring",
        "lead_id": "lea_1",
        "lead_is_paused": True,
        "lead_variables": '{"plan": "trial"}',
        "sequence_step": 0,
    }


def test_second_source_that_differs_from_the_first_is_kept_in_the_rest() -> None:
    row = row_of(ACTIVITIES, {"teamId": "tea_1", "metaData": {"teamId": "tea_2"}})
    assert row["team_id"] == "tea_1"
    assert rest_of(ACTIVITIES, row) == {"metaData": {"teamId": "tea_2"}}


@pytest.mark.parametrize(
    ("field", "column", "value"),
    [
        ("createdAt", "created_at", "yesterday"),
        ("createdAt", "created_at", "0001-01-01T00:00:00+10:00"),
        ("createdAt", "created_at", 10**30),
        ("createdAt", "created_at", True),
        ("sequenceStep", "sequence_step", "first"),
        ("sequenceStep", "sequence_step", True),
        ("sequenceStep", "sequence_step", 1.5),
        ("sequenceStep", "sequence_step", 2**63),
        ("sequenceStep", "sequence_step", 1e300),
        ("isFirst", "is_first", 1),
        ("isFirst", "is_first", "perhaps"),
    ],
)
def test_value_of_the_wrong_type_goes_to_the_rest(field: str, column: str, value: Any) -> None:
    row = row_of(ACTIVITIES, {field: value})
    assert row[column] is None
    assert rest_of(ACTIVITIES, row) == {field: value}


def test_object_where_text_is_expected_is_json_text() -> None:
    assert row_of(ACTIVITIES, {"sequenceTested": True, "note": {"b": 1, "a": "é"}}) == {
        **row_of(ACTIVITIES, {}),
        "sequence_tested": "true",
        "note": '{"a": "é", "b": 1}',
    }


def test_text_where_an_object_is_expected_goes_to_the_rest() -> None:
    row = row_of(ACTIVITIES, {"lead": "lea_1", "metaData": None})
    assert rest_of(ACTIVITIES, row) == {"lead": "lea_1", "metaData": None}


def test_empty_values_are_no_values_and_not_in_the_rest() -> None:
    row = row_of(ACTIVITIES, {"leadPhone": "", "lead": {"variables": {}}, "note": None, "unheard": ""})
    assert {name for name, value in row.items() if value is not None} == {"extra"}
    assert rest_of(ACTIVITIES, row) == {"unheard": ""}


def test_half_an_emoji_does_not_spoil_the_file() -> None:
    row = row_of(ACTIVITIES, {"note": "cut \ud83d", "unheard": "cut \ud83d"})
    assert row["note"] == "cut ?"
    assert row["extra"] == '{"unheard": "cut ?"}'


def test_what_the_request_determines_wins_over_what_lemlist_sends() -> None:
    sequences = DATASETS["sequences"]
    columns = selected_columns(sequences, ["sequence_id", "extra"])
    make = RowMaker(sequences, columns)
    assert make({"sequenceId": "seq_1"}, {"sequence_id": "seq_1"}) == ("seq_1", None)
    assert make({"sequenceId": "seq_2"}, {"sequence_id": "seq_1"}) == ("seq_1", '{"sequenceId": "seq_2"}')


def test_value_of_a_column_that_is_left_out_is_not_in_the_rest() -> None:
    columns = selected_columns(ACTIVITIES, ["id", "extra"])
    sent = {"_id": "act_1", "leadEmail": "ana@example.com", "unheard": 1}
    twice = {"teamId": "tea_1", "metaData": {"teamId": "tea_2"}}
    assert row_of(ACTIVITIES, {**sent, **twice}, columns) == {"id": "act_1", "extra": '{"unheard": 1}'}


# --- Nothing is lost, nothing leaks -----------------------------------------------------------------------

# Each value is unique, so it can be found again: texts by their number, numbers by their size.
_UNHEARD = ("unheard", "heardOf", "custom name")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif value not in (None, ""):
        yield str(value)


@st.composite
def records(draw: st.DrawFn, dataset: Dataset) -> dict[str, Any]:
    """Return an object with fields that are known, unknown, nested, missing, or of the wrong type."""
    count = iter(range(1_000, 100_000))
    scalars = st.sampled_from(("text", "number", "empty", "null")).map(
        lambda kind: {"text": f"text{next(count)}", "number": next(count), "empty": "", "null": None}[kind]
    )
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_UNHEARD), inner),
        max_leaves=3,
    )
    sources = [source for column in dataset.columns for source in column.sources]
    record: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from([*sources, *_UNHEARD]), unique=True, max_size=8)):
        holder, _, field = name.rpartition(".")
        if not holder:
            record[field] = draw(values)
        elif isinstance(record.setdefault(holder, {}), dict):
            record[holder][field] = draw(values)
    return record


DATASET_AND_RECORD = st.sampled_from(list(DATASETS.values())).flatmap(
    lambda dataset: st.tuples(st.just(dataset), records(dataset))
)


@given(DATASET_AND_RECORD)
def test_every_value_is_in_one_column_or_in_the_rest(sent: tuple[Dataset, dict[str, Any]]) -> None:
    dataset, record = sent
    as_sent = deepcopy(record)
    row = row_of(dataset, record)
    assert record == as_sent
    kept: list[Any] = []
    for column in dataset.columns:
        value = row[column.name]
        if isinstance(value, datetime):
            value = round(value.timestamp() * 1000)
        elif isinstance(value, str) and value[0] in '{["' + "0123456789":
            value = json.loads(value)
        kept += _leaves(value)
    # A field within an object that has a column of its own, such as fields.name, is in both.
    assert Counter(kept).keys() == Counter(_leaves(record)).keys()


@given(DATASET_AND_RECORD)
def test_without_personal_data_a_row_holds_only_what_is_not_personal(
    sent: tuple[Dataset, dict[str, Any]],
) -> None:
    dataset, record = sent
    columns = selected_columns(dataset, None, "drop")
    assert not any(column.is_personal or column.name == dataset.rest for column in columns)
    row = row_of(dataset, record, columns)
    harmless = {source for column in columns for source in column.sources}
    personal = {
        leaf
        for name, value in record.items()
        for path, leaves in (
            ((f"{name}.{field}", each) for field, each in value.items())
            if isinstance(value, dict) and name not in harmless
            else [(name, value)]
        )
        if path not in harmless
        for leaf in _leaves(leaves)
    }
    assert not [leaf for leaf in personal if any(leaf in str(value) for value in row.values())]


@given(
    st.tuples(
        st.none() | st.text(),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.booleans(),
        st.none() | st.integers(-(10**13), 10**14),
    )
)
def test_row_survives_being_written_as_text(values: tuple[Any, ...]) -> None:
    *others, milliseconds = values
    moment = (
        None
        if milliseconds is None
        else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    )
    row: Row = (*others, moment)
    kinds = ("text", "integer", "boolean", "timestamp")
    columns = [Column(kind, kind, ()) for kind in kinds]
    assert unpacked(packed(row), columns) == row
    assert "\n" not in packed(row)


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_moment_is_in_utc_and_whole_milliseconds(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    found = row_of(ACTIVITIES, {"createdAt": moment.isoformat()})["created_at"]
    assert isinstance(found, datetime)
    assert found.tzinfo is UTC
    assert timedelta() <= moment - found < timedelta(milliseconds=1)
    assert found.microsecond % 1000 == 0


@ALL
def test_names_need_no_quotes_in_a_query(dataset: Dataset) -> None:
    names = [column.name for column in dataset.columns]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{1,30}", name) for name in names)
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE TABLE of_dataset ({', '.join(names)})")
