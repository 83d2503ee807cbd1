# SPDX-License-Identifier: Apache-2.0
"""Tables: exactly the rows of the window, the campaigns and the types that are read are replaced."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.utils.state import TaskInstanceState

from airflow_provider_lemlist.databases import database_hook
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator
from tests.unit.transfers.conftest import DAY, HOUR, MONDAY, InTable, Lemlist, ids

Run = Callable[..., Any]
TUESDAY = MONDAY + DAY


def test_windows_side_by_side_leave_each_other_alone(lemlist: Lemlist, table: InTable, run: Run) -> None:
    task = table.task(dataset="activities")
    monday, tuesday = lemlist.happen(TUESDAY - timedelta(milliseconds=1)), lemlist.happen(TUESDAY)
    run(task, TUESDAY)
    run(task, MONDAY)
    assert sorted(ids(table)) == sorted([monday, tuesday])
    lemlist.sandbox.remove_activity(tuesday)
    run(task, MONDAY)
    assert sorted(ids(table)) == sorted([monday, tuesday])
    run(task, TUESDAY)
    assert ids(table) == [monday]


@pytest.mark.parametrize("filters", ["campaign_id", "activity_type", "both"])
def test_rows_of_other_campaigns_and_types_stay(
    lemlist: Lemlist, table: InTable, run: Run, filters: str
) -> None:
    happened = {
        (campaign, type): lemlist.happen(MONDAY, type, campaign)
        for campaign in (lemlist.first, lemlist.second)
        for type in ("emailsSent", "emailsOpened")
    }
    run(table.task(dataset="activities"))
    for each in happened.values():
        lemlist.sandbox.remove_activity(each)
    narrow = {
        "campaign_id": {"campaign_id": lemlist.first},
        "activity_type": {"activity_type": ["emailsSent"]},
        "both": {"campaign_id": [lemlist.first], "activity_type": "emailsSent"},
    }[filters]
    run(table.task(dataset="activities", **narrow))
    replaced = [
        each
        for each in happened
        if (filters == "activity_type" or each[0] == lemlist.first)
        and (filters == "campaign_id" or each[1] == "emailsSent")
    ]
    assert sorted(ids(table)) == sorted(id for each, id in happened.items() if each not in replaced)


def test_snapshot_replaces_all_rows_or_those_of_its_campaigns(
    lemlist: Lemlist, table: InTable, run: Run
) -> None:
    def in_table() -> set[tuple[str, str]]:
        return {(row["campaign_id"], row["job_title"]) for row in table.rows()}

    run(table.task(dataset="leads"))
    world = lemlist.sandbox.service.world
    for lead in world.leads.values():
        lead.values["jobTitle"] = "engineer"
    run(table.task(dataset="leads", campaign_id=lemlist.first))
    assert in_table() == {(lemlist.first, "engineer"), (lemlist.second, None)}
    run(table.task(dataset="leads"))
    assert in_table() == {(lemlist.first, "engineer"), (lemlist.second, "engineer")}
    assert len(table.rows()) == 2


def test_statistics_of_a_window_replace_those_of_the_same_window(
    lemlist: Lemlist, table: InTable, run: Run
) -> None:
    task = table.task(dataset="campaign_stats")
    for since, until in ((MONDAY, TUESDAY), (TUESDAY, TUESDAY + DAY), (MONDAY, TUESDAY + DAY)):
        for _ in range(2):
            run(task, since, until)
    rows = [
        (row["window_start"][:10], row["window_end"][:10], row["campaign_id"], row["step_index"])
        for row in table.rows()
    ]
    assert len(rows) == len(set(rows)) == 3 * 3  # two campaigns and a step
    assert {row[:2] for row in rows} == {
        ("2026-03-02", "2026-03-03"),
        ("2026-03-03", "2026-03-04"),
        ("2026-03-02", "2026-03-04"),
    }


def test_days_before_the_window_are_replaced_too(lemlist: Lemlist, table: InTable, run: Run) -> None:
    before = [lemlist.happen(MONDAY - number * DAY) for number in range(5)]
    run(table.task(dataset="activities"), MONDAY - 6 * DAY, TUESDAY)
    for each in before:
        lemlist.sandbox.remove_activity(each)
    late = lemlist.happen(MONDAY - HOUR)
    report = run(table.task(dataset="activities", reread=timedelta(days=2)))
    assert set(ids(table)) == {late, before[3], before[4]}
    assert report["since"] == "2026-02-28T00:00:00+00:00"


def test_column_that_is_new_is_added_only_if_told(lemlist: Lemlist, table: InTable, run: Run) -> None:
    monday, tuesday = lemlist.happen(MONDAY), lemlist.happen(TUESDAY)
    run(table.task(dataset="activities", columns=["id", "created_at"]))
    more = ["id", "created_at", "type"]
    sent = len(lemlist.requests)
    with pytest.raises(LemlistConfigurationError, match="lacks the columns type;.*alter_table=True"):
        run(table.task(dataset="activities", columns=more), TUESDAY)
    assert len(lemlist.requests) == sent
    run(table.task(dataset="activities", columns=more, alter_table=True), TUESDAY)
    assert [(row["id"], row["type"]) for row in table.rows()] == [(monday, None), (tuesday, "emailsSent")]


def test_missing_table_that_may_not_be_created_fails_before_any_request(
    lemlist: Lemlist, table: InTable, run: Run
) -> None:
    with pytest.raises(LemlistConfigurationError, match="activities does not exist.*create_table=True"):
        run(table.task(dataset="activities", create_table=False))
    assert lemlist.requests == []


@pytest.mark.parametrize("if_empty", ["skip", "fail"])
def test_table_is_not_altered_for_a_set_that_is_not_written(
    lemlist: Lemlist, table: InTable, run: Run, if_empty: str
) -> None:
    lemlist.happen(MONDAY)
    run(table.task(dataset="activities", columns=["id", "created_at"]))
    task = table.task(dataset="activities", alter_table=True, if_empty=if_empty)
    with pytest.raises(Exception, match="no activities"):
        run(task, TUESDAY)
    assert [*table.rows()[0]] == ["id", "created_at"]


def outputs(task: Any, state: TaskInstanceState = TaskInstanceState.SUCCESS) -> list[Any]:
    dag_run: Any = SimpleNamespace(run_id="manual__1")
    return [*ExtractorManager().extract_metadata(dag_run, task, state, SimpleNamespace()).outputs]


@pytest.mark.postgres
def test_rows_and_lineage_of_postgresql(lemlist: Lemlist, warehouse: str, run: Run) -> None:
    hook = database_hook(warehouse)
    hook.run("DROP SCHEMA IF EXISTS lemlist CASCADE; CREATE SCHEMA lemlist")
    given: Any = {"dataset": "activities", "table": "lemlist.events", "sql_conn_id": warehouse}
    task = LemlistToSqlOperator(task_id="bring", **given, columns=["id", "created_at", "bot"])
    monday, tuesday = lemlist.happen(MONDAY), lemlist.happen(TUESDAY)
    for day in (MONDAY, TUESDAY, MONDAY):
        run(task, day)
    query = "SELECT id, created_at FROM lemlist.events ORDER BY created_at"
    assert hook.get_records(query) == [(monday, MONDAY), (tuesday, TUESDAY)]
    (output,) = outputs(task)
    assert output.namespace.startswith("postgres://")
    assert output.name == "postgres.lemlist.events"
    fields = [(each.name, each.type) for each in output.facets["schema"].fields]
    assert fields == [("id", "text"), ("created_at", "timestamp"), ("bot", "boolean")]

    nothing = LemlistToSqlOperator(task_id="bring", **given, columns=["id", "created_at"], if_empty="fail")
    with pytest.raises(LemlistError):
        run(nothing, MONDAY - DAY)
    assert outputs(nothing, TaskInstanceState.FAILED) == []
