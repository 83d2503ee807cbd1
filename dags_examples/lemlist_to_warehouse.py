# SPDX-License-Identifier: Apache-2.0
"""
Bring home what happened in lemlist, every night: as Parquet files in a lake and as tables in a database.

Each run writes the activities of its 24 hours, and how leads and steps are now. The activities of the two
days before are written again, because lemlist lists some late. Then a query on the tables prints the replies
to each step. A repeated run replaces what it wrote. A run that is triggered by hand covers the 24 hours
before it.

Set the variable ``lemlist_lake`` to a directory, such as ``s3://bucket/lemlist``, and the connection
``warehouse`` to a SQL database.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator
from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator

REPLIES = """
    SELECT activities.campaign_name AS campaign, steps.sequence_level AS level, steps.step_index AS step,
           steps.type, count(*) AS replies, count(DISTINCT activities.lead_id) AS people
    FROM lemlist_activities AS activities
    LEFT JOIN lemlist_sequences AS steps ON steps.id = activities.step_id
    WHERE activities.type IN ('emailsReplied', 'linkedinReplied')
    GROUP BY activities.campaign_name, steps.sequence_level, steps.step_index, steps.type
    ORDER BY activities.campaign_name, steps.sequence_level, steps.step_index
"""


def print_table(cursor: Any) -> str:
    """Print the rows of a query below the names of its columns, and return the text."""
    rows = [[name for name, *_ in cursor.description], *([str(value) for value in row] for row in cursor)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    print(table)
    return table


with DAG(
    dag_id="lemlist_to_warehouse",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC", interval=timedelta(days=1)),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=["lemlist", "example"],
    doc_md=__doc__,
):
    lake = "{{ var.value.lemlist_lake }}"
    replies = SQLExecuteQueryOperator(
        task_id="replies", conn_id="warehouse", sql=REPLIES, handler=print_table
    )

    LemlistToObjectStorageOperator(
        task_id="activities_to_lake",
        dataset="activities",
        path=lake + "/activities/day={day}",  # each day of the window is a directory
        reread=timedelta(days=2),
    )

    activities = LemlistToSqlOperator(
        task_id="activities_to_table",
        dataset="activities",
        table="lemlist_activities",
        sql_conn_id="warehouse",
        reread=timedelta(days=2),
    )
    activities >> replies

    for dataset in ("leads", "sequences"):
        LemlistToObjectStorageOperator(
            task_id=f"{dataset}_to_lake",
            dataset=dataset,
            path=lake + "/" + dataset + "/night={{ data_interval_end | ds }}",
        )
        table = LemlistToSqlOperator(
            task_id=f"{dataset}_to_table",
            dataset=dataset,
            table=f"lemlist_{dataset}",
            sql_conn_id="warehouse",
        )
        table >> replies
