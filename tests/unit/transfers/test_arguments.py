# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments are found when the DAG is parsed, also those of mapped tasks and of ``default_args``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator
from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator
from tests.unit.transfers.conftest import MONDAY, Files, Lemlist, Target

DAYS = timedelta(days=3)
FILES: dict[str, Any] = {"dataset": "activities", "path": "/lake/day={day}"}
TABLE: dict[str, Any] = {"dataset": "activities", "table": "activities", "sql_conn_id": "warehouse"}

WRONG_FOR_BOTH: list[tuple[dict[str, Any], str]] = [
    ({"dataset": "activites"}, "one of activities, leads, .*not 'activites'.*'activities'"),
    ({"dataset": ["leads"]}, "dataset must be one of"),
    ({"dataset": None}, "dataset must be one of"),
    ({"columns": ["id", "created_att"]}, "activities has no column 'created_att'.*'created_at'"),
    ({"columns": "id"}, "columns must be a list of names, not 'id'"),
    ({"columns": 5}, "columns must be a list of names, not 5"),
    ({"columns": []}, "leave no column"),
    ({"columns": ["lead_email"], "personal_data": "drop"}, "leave no column|columns must contain"),
    ({"personal_data": "hide"}, "personal_data of task 'bring' must be one of keep, drop, not 'hide'"),
    ({"if_empty": "ignore"}, "if_empty of task 'bring' must be one of write, skip, fail, not 'ignore'"),
    ({"allow_missing": "2"}, "allow_missing of task 'bring' must be a whole number"),
    ({"allow_missing": -1}, "allow_missing of task 'bring' must be a whole number"),
    ({"allow_missing": 1}, "allow_missing does not apply to dataset activities"),
    ({"reread": timedelta()}, "reread must be a positive timedelta"),
    ({"reread": -DAYS}, "reread must be a positive timedelta"),
    ({"reread": 3}, "reread must be a positive timedelta, not 3"),
    ({"since": "yesterday"}, "since must be a datetime or ISO 8601 text .*not 'yesterday'"),
    ({"until": 5}, "until must be a datetime"),
    ({"campaign_id": []}, "campaign_id must be an id or a list of them"),
    ({"campaign_id": ["cam_1", None]}, "campaign_id is empty"),
    ({"campaign_id": "cam 1"}, "campaign_id must be an id, not 'cam 1'"),
    ({"campaign_id": {"_id": "cam_1"}}, "campaign_id must be an id or a list of them"),
    ({"activity_type": ""}, "activity_type contains ''"),
    ({"activity_type": [5]}, "activity_type contains 5"),
]
NO_WINDOW: list[tuple[dict[str, Any], str]] = [
    ({"since": MONDAY}, "since does not apply to dataset contacts"),
    ({"until": "{{ ds }}"}, "until does not apply"),
    ({"reread": DAYS}, "reread does not apply"),
    ({"campaign_id": "cam_1"}, "campaign_id does not apply"),
    ({"activity_type": "emailsSent"}, "activity_type does not apply"),
]
STATS: list[tuple[dict[str, Any], str]] = [
    ({"activity_type": "emailsSent"}, "activity_type does not apply to dataset campaign_stats"),
    ({"reread": DAYS}, "reread does not apply to dataset campaign_stats"),
]
WRONG_FOR_FILES: list[tuple[dict[str, Any], str]] = [
    ({"file_format": "json"}, "file_format of task 'bring' must be one of parquet, ndjson, csv, not 'json'"),
    ({"path": "/lake", "reread": DAYS}, "write {day} into path"),
    ({"path": "/lake/{day}", "dataset": "leads"}, "leads has no days; write {{ ds }} instead of {day}"),
    ({"path": None}, "path of task 'bring' is empty"),
    ({"path": " "}, "path of task 'bring' is empty"),
]
WRONG_FOR_TABLE: list[tuple[dict[str, Any], str]] = [
    ({"table": ""}, "table of task 'bring' is empty"),
    ({"sql_conn_id": None}, "sql_conn_id of task 'bring' is empty"),
    ({"columns": ["id", "type"]}, "columns must contain created_at, by which"),
    ({"columns": ["created_at"], "campaign_id": "{{ ds }}"}, "columns must contain campaign_id,"),
    ({"columns": ["created_at"], "activity_type": ["emailsSent"]}, "columns must contain type,"),
    ({"dataset": "campaign_stats", "columns": ["sent"]}, "columns must contain window_start, window_end"),
]
Case = tuple[Any, dict[str, Any], str]
SNAPSHOT_PATH = {"path": "/lake/{{ ds }}"}
CASES: list[Case] = [
    *((LemlistToObjectStorageOperator, {**FILES, **given}, message) for given, message in WRONG_FOR_BOTH),
    *((LemlistToSqlOperator, {**TABLE, **given}, message) for given, message in WRONG_FOR_BOTH),
    *(
        (LemlistToObjectStorageOperator, {"dataset": dataset, **SNAPSHOT_PATH, **given}, message)
        for dataset, wrong in (("contacts", NO_WINDOW), ("campaign_stats", STATS))
        for given, message in wrong
    ),
    *((LemlistToObjectStorageOperator, {**FILES, **given}, message) for given, message in WRONG_FOR_FILES),
    *((LemlistToSqlOperator, {**TABLE, **given}, message) for given, message in WRONG_FOR_TABLE),
]


@pytest.mark.parametrize(("operator", "arguments", "message"), CASES)
def test_wrong_argument_is_found_when_dag_is_parsed(
    operator: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(LemlistConfigurationError, match=message):
        operator(task_id="bring", **arguments)


@pytest.mark.parametrize(("operator", "arguments", "message"), CASES)
def test_wrong_argument_of_a_mapped_task_or_default_args_is_found_too(
    operator: Any, arguments: dict[str, Any], message: str
) -> None:
    with DAG("d", schedule=None), pytest.raises(LemlistConfigurationError, match=message):
        operator.partial(task_id="bring", **arguments).expand(lemlist_conn_id=["lemlist_default"])
    required = {name: arguments.pop(name, None) for name in ("path", "table", "sql_conn_id", "dataset")}
    given = {name: value for name, value in required.items() if value is not None}
    if len(given) < len(required) - 1 - (operator is LemlistToObjectStorageOperator):
        return  # one that is required is missing
    with (
        DAG("e", schedule=None, default_args=dict(arguments)),
        pytest.raises(LemlistConfigurationError, match=message),
    ):
        operator(task_id="bring", **given)


RIGHT: list[tuple[Any, dict[str, Any]]] = [
    (LemlistToObjectStorageOperator, {**FILES, "reread": DAYS}),
    (LemlistToObjectStorageOperator, {**FILES, "path": "{{ var.value.lake }}", "reread": DAYS}),
    (LemlistToObjectStorageOperator, {**FILES, "dataset": "campaign_stats", "allow_missing": 2}),
    (LemlistToObjectStorageOperator, {**FILES, "since": "{{ ds }}", "until": MONDAY}),
    (LemlistToSqlOperator, {**TABLE, "reread": DAYS, "columns": ("id", "created_at")}),
    (LemlistToSqlOperator, {**TABLE, "columns": {"id", "created_at"}, "personal_data": "drop"}),
    (LemlistToSqlOperator, {**TABLE, "dataset": "contacts", "columns": ["id"]}),
    (LemlistToSqlOperator, {**TABLE, "activity_type": ["emailsSent", "{{ params.type }}"]}),
    (LemlistToSqlOperator, {**TABLE, "campaign_id": None, "activity_type": None, "since": None}),
]


@pytest.mark.parametrize(("operator", "arguments"), RIGHT)
def test_right_arguments_are_accepted(operator: Any, arguments: dict[str, Any]) -> None:
    with DAG("d", schedule=None):
        operator(task_id="one", **arguments)
        operator.partial(task_id="many", **arguments).expand(lemlist_conn_id=["a", "b"])


def test_mistake_in_one_of_many_is_found_when_dag_is_parsed() -> None:
    with DAG("d", schedule=None), pytest.raises(LemlistConfigurationError, match="not 'ledas'.*'leads'"):
        LemlistToObjectStorageOperator.partial(task_id="many").expand_kwargs(
            [{"dataset": name, "path": f"/lake/{name}"} for name in ("campaigns", "ledas")]
        )


def test_template_fields_are_those_that_docs_call_templated() -> None:
    for operator, place in (
        (LemlistToObjectStorageOperator, {"path", "storage_conn_id"}),
        (LemlistToSqlOperator, {"table", "sql_conn_id"}),
    ):
        read = {"since", "until", "campaign_id", "activity_type", "lemlist_conn_id"}
        assert {*operator.template_fields} == read | place


# --- Values that are known when the task runs -------------------------------------------------------------

EMPTY = [None, "", " ", "None"]


@pytest.mark.parametrize("value", [*EMPTY, []])
@pytest.mark.parametrize("name", ["since", "until", "campaign_id", "activity_type"])
def test_empty_value_from_upstream_fails_before_any_request(
    lemlist: Lemlist, target: Target, run: Callable[..., Any], worker: Any, name: str, value: Any
) -> None:
    with DAG("d", schedule=None):

        @task
        def upstream() -> Any:
            return value

        bring = target.task(dataset="activities", **{name: upstream()})
    worker.xcoms["upstream"] = {"return_value": value}
    with pytest.raises(LemlistConfigurationError, match=name):
        run(bring)
    assert lemlist.requests == []
    assert target.content() == {}


@pytest.mark.parametrize("value", EMPTY)
@pytest.mark.parametrize("name", ["path", "storage_conn_id", "table", "sql_conn_id"])
def test_empty_place_from_upstream_fails_before_any_request(
    lemlist: Lemlist, run: Callable[..., Any], worker: Any, files: Files, name: str, value: Any
) -> None:
    place = {"path": str(files.directory)} if name in ("path", "storage_conn_id") else TABLE
    operator: Any = LemlistToSqlOperator if place is TABLE else LemlistToObjectStorageOperator
    with DAG("d", schedule=None):

        @task
        def upstream() -> Any:
            return value

        bring = operator(**{"task_id": "bring", "dataset": "activities", **place, name: upstream()})
    worker.xcoms["upstream"] = {"return_value": value}
    with pytest.raises(LemlistConfigurationError, match=f"{name} of task 'bring' is empty"):
        run(bring)
    assert lemlist.requests == []
    assert files.content() == {}


@pytest.mark.parametrize("value", [*EMPTY, []])
def test_empty_value_of_one_map_index_fails_before_any_request(
    lemlist: Lemlist, files: Files, worker: Any, value: Any
) -> None:
    with DAG("d", schedule=None):
        many = LemlistToObjectStorageOperator.partial(
            task_id="bring", dataset="leads", path=str(files.directory)
        ).expand(campaign_id=["cam_1"])
    with pytest.raises(LemlistConfigurationError, match="campaign_id"):
        worker.run_mapped(many, 0, campaign_id=value)
    assert lemlist.requests == []


class Lazy(Sequence[str]):
    """What Airflow passes for the output of a mapped task: a sequence, but no list."""

    def __init__(self, values: list[str]) -> None:
        self._values = values

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)


@pytest.mark.parametrize("kind", [list, tuple, Lazy])
def test_lists_from_upstream_are_read(
    lemlist: Lemlist, target: Target, run: Callable[..., Any], worker: Any, kind: Any
) -> None:
    with DAG("d", schedule=None):

        @task
        def campaigns() -> Any: ...

        @task
        def types() -> Any: ...

        bring = target.task(dataset="activities", campaign_id=campaigns(), activity_type=types())
    worker.xcoms["campaigns"] = {"return_value": kind([lemlist.first])}
    worker.xcoms["types"] = {"return_value": kind(["emailsOpened", "emailsClicked"])}
    wanted = [lemlist.happen(MONDAY, type) for type in ("emailsOpened", "emailsClicked")]
    lemlist.happen(MONDAY, "emailsSent")
    lemlist.happen(MONDAY, "emailsOpened", lemlist.second)
    run(bring)
    assert sorted(row["id"] for row in target.rows()) == sorted(wanted)


def test_path_that_is_rendered_is_checked_before_any_request(
    lemlist: Lemlist, files: Files, run: Callable[..., Any]
) -> None:
    without = files.task(dataset="activities", path=f"{files.directory}/{{{{ ds }}}}", reread=DAYS)
    with pytest.raises(LemlistConfigurationError, match="write {day} into path"):
        run(without)
    without_days = files.task(dataset="leads", path=f"{files.directory}/{{{{ '{{day}}' }}}}")
    with pytest.raises(LemlistConfigurationError, match="leads has no days"):
        run(without_days)
    assert lemlist.requests == []
    assert files.content() == {}
