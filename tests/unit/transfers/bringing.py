# SPDX-License-Identifier: Apache-2.0
"""One attempt of a transfer in a separate process, for tests that kill it."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet  # noqa: F401  (imported before the processes are forked)
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.databases import database_hook
from airflow_provider_lemlist.extract import files, reader, tables  # noqa: F401  (as above)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator
from airflow_provider_lemlist.transfers.sql import LemlistToSqlOperator

# The slow first use of Airflow happens before a process is forked, so that the kill hits the transfer.
os.environ["AIRFLOW_CONN_WARM"] = json.dumps({"conn_type": "lemlist", "password": "none"})
LemlistHook("warm").settings
LemlistHook("warm").get_conn()
os.environ["AIRFLOW_CONN_WARM_SQL"] = json.dumps({"conn_type": "sqlite", "host": "/dev/null"})
database_hook("warm_sql").dialect_name
ObjectStoragePath("file:///").fs


def attempt(
    connection: str, warehouse: str, path: str, temporary: str, since: datetime, until: datetime
) -> None:
    """
    Bring the activities of a window home.

    :param warehouse: The connection of a database, or an empty text for files.
    :param path: The directory, or the table.
    :param temporary: Directory for temporary files.
    """
    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = connection
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = warehouse
    tempfile.tempdir = temporary
    files.PART_ROWS, files.GROUP_ROWS = 400, 100
    tables.BATCH = 100
    dataset: Any = {"task_id": "bring", "dataset": "activities"}
    task = (
        LemlistToSqlOperator(**dataset, table=path, sql_conn_id="warehouse")
        if warehouse
        else LemlistToObjectStorageOperator(**dataset, path=path)
    )
    run = SimpleNamespace(data_interval_start=since, data_interval_end=until)
    task.execute({"dag_run": run})  # type: ignore[typeddict-item]
