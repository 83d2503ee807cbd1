# SPDX-License-Identifier: Apache-2.0
"""One attempt of a launch in a separate process, for a test that kills it."""

from __future__ import annotations

import json
import os

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.launch.options import LaunchOptions
from airflow_provider_lemlist.launch.run import Launch
from airflow_provider_lemlist.ledger.ledger import Run

# The slow first use of Airflow happens before a process is forked, so that the kill hits the launch.
os.environ["AIRFLOW_CONN_WARM"] = json.dumps({"conn_type": "lemlist", "password": "none"})
LemlistHook("warm").settings
LemlistHook("warm").get_conn()
ObjectStoragePath("file:///").fs


def attempt(number: int, connection: str, campaign_id: str, ledger: str, max_leads: int) -> None:
    """Launch leads, without a pause between two tries of a request."""
    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = connection
    CLOCK.sleep = lambda seconds: None
    options = LaunchOptions(
        campaign_id,
        max_leads,
        ledger_path=ObjectStoragePath(ledger),
        run=Run("monday", "2026-11-16", "outreach.launch", f"attempt {number}"),
        is_retry=number > 1,
    )
    report = Launch(LemlistHook(), options).run()
    if report.outcomes["failed"]:
        raise SystemExit(2)
