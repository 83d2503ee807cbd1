# SPDX-License-Identifier: Apache-2.0
"""
A reply starts this DAG: each reply is written to a table once, and a notifier tells of it.

It covers all campaigns of the team. Airflow's triggerer asks lemlist for new replies every 30 seconds. A
reply may come twice, after a kill of the triggerer for example: its id is the key of the table, and the
notifier is called for rows without ``notified_at`` only. A run without replies, such as one that is triggered
by hand, skips its tasks.

Set the connection ``warehouse`` to a PostgreSQL or SQLite database. Needs Airflow 3.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowSkipException,
    Asset,
    BaseHook,
    BaseNotifier,
    task,
)

from airflow_provider_lemlist.triggers.events import ActivityEventTrigger, activities_in

try:
    from airflow.sdk import AssetWatcher
except ImportError:  # Airflow 2, where no activity can start a DAG: this file has none there
    AssetWatcher = None

# [START events_sql]
CREATE = """
    CREATE TABLE IF NOT EXISTS lemlist_replies (
        id VARCHAR(64) PRIMARY KEY,
        type VARCHAR(64),
        campaign_id VARCHAR(64),
        lead_id VARCHAR(64),
        replied_at TIMESTAMPTZ,
        notified_at TIMESTAMPTZ
    )
"""
INSERT = """
    INSERT INTO lemlist_replies (id, type, campaign_id, lead_id, replied_at)
    VALUES ({0}, {0}, {0}, {0}, {0})
    ON CONFLICT (id) DO NOTHING
"""
TO_NOTIFY = """
    SELECT id, type, campaign_id, lead_id FROM lemlist_replies WHERE notified_at IS NULL ORDER BY replied_at
"""
NOTIFIED = "UPDATE lemlist_replies SET notified_at = CURRENT_TIMESTAMP WHERE id = {0}"
# [END events_sql]


class LogNotifier(BaseNotifier):
    """Writes to the task's log. Others take its place: SlackNotifier(text=text, channel="#replies")."""

    template_fields = ("text",)

    def __init__(self, *, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.text = text

    def notify(self, context: Any) -> None:
        self.log.info(self.text)


# [START events_tasks]
@task
def store(triggering_asset_events: Any = None) -> int:
    """Write the replies that triggered this run; one that the table has already changes nothing."""
    replies = activities_in(triggering_asset_events)
    if not replies:
        raise AirflowSkipException("No replies triggered this run.")
    fields = ("_id", "type", "campaignId", "leadId", "createdAt")
    database = BaseHook.get_connection("warehouse").get_hook()
    with closing(database.get_conn()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(CREATE)
        rows = [[reply.get(field) for field in fields] for reply in replies]
        cursor.executemany(INSERT.format(database.placeholder), rows)
        connection.commit()
    return len(rows)


@task(max_active_tis_per_dag=1)  # two at a time would notify of the same rows
def notify(**context: Any) -> int:
    """Call the notifier for each reply that it was not called for, also those of a run that failed."""
    database = BaseHook.get_connection("warehouse").get_hook()
    with closing(database.get_conn()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(TO_NOTIFY)
        replies = cursor.fetchall()
        for id, activity_type, campaign_id, lead_id in replies:
            # Without the name of the person: LemlistHook().get_lead(lead_id) returns it.
            text = f"Lead {lead_id}: {activity_type} in campaign {campaign_id}"
            LogNotifier(text=text)(context)
            # A kill before this line repeats one notification, and loses none.
            cursor.execute(NOTIFIED.format(database.placeholder), [id])
            connection.commit()
    return len(replies)


# [END events_tasks]


if AssetWatcher:
    replies = Asset(
        "lemlist_replies",
        watchers=[
            AssetWatcher(
                name="replies",
                trigger=ActivityEventTrigger(
                    activity_type=["emailsReplied", "linkedinReplied"], poll_interval=30
                ),
            )
        ],
    )

    with DAG(
        dag_id="lemlist_on_reply",
        schedule=[replies],
        start_date=datetime(2026, 1, 1),
        catchup=False,
        default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
        tags=["lemlist", "example"],
        doc_md=__doc__,
    ):
        store() >> notify()
