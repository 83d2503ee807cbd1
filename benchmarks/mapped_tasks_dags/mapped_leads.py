# SPDX-License-Identifier: Apache-2.0
"""The DAG of ``mapped_tasks.py``: the same leads twice, by the hook and by what people write without it."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

TASKS, LEADS = int(os.environ["TASKS"]), int(os.environ["LEADS"])


def people(number: int) -> list[dict[str, str]]:
    return [{"email": f"person{number}.{lead}@example.com", "firstName": "Ada"} for lead in range(LEADS)]


@task
def by_hook(number: int) -> None:
    from airflow.providers.common.compat.sdk import Variable

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    hook, campaign_id = LemlistHook("lemlist_hook"), Variable.get("campaign_hook")
    for person in people(number):
        hook.create_lead(campaign_id, person)


# [START by_hand]
@task
def by_requests(number: int) -> None:
    import time

    import requests
    from airflow.providers.common.compat.sdk import BaseHook, Variable

    conn, campaign_id = BaseHook.get_connection("lemlist_plain"), Variable.get("campaign_plain")
    with requests.Session() as session:
        session.auth = ("", conn.password or "")
        for person in people(number):
            while True:
                url = f"{conn.host}/campaigns/{campaign_id}/leads/"
                answer = session.post(url, json=person, timeout=30)
                if answer.status_code != 429:
                    break
                time.sleep(float(answer.headers["Retry-After"]))
            answer.raise_for_status()


# [END by_hand]


with DAG(
    "mapped_leads", schedule="@once", start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=TASKS
):
    by_hook.expand(number=list(range(TASKS))) >> by_requests.expand(number=list(range(TASKS)))
