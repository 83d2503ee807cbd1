# SPDX-License-Identifier: Apache-2.0
"""One attempt of a load in a separate process, for tests that kill it."""

from __future__ import annotations

import json
import os
import time

import bucket  # beside this file
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist import sources
from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger import lock
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.load import run
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.run import Load

# The slow first use of Airflow happens before a process is forked, so that the kill hits the load.
os.environ["AIRFLOW_CONN_WARM"] = json.dumps({"conn_type": "lemlist", "password": "none"})
LemlistHook("warm").settings
LemlistHook("warm").get_conn()
ObjectStoragePath("file:///").fs


#: Seconds after which a request of a killed attempt has taken effect; the slowest one takes 0.1 s.
SETTLE_TIME = 0.3


def attempt(number: int, connection: str, campaign_id: str, path: str, ledger: str, bucket_root: str) -> None:
    """Load a file. The pause before the campaign is looked at again is slept, all others are cut short."""
    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = connection

    def brief(seconds: float) -> None:
        time.sleep(seconds if seconds == SETTLE_TIME else min(seconds, 0.01))

    CLOCK.sleep = brief
    run.SETTLE_TIME = SETTLE_TIME
    lock.StoredLock.heartbeat = 0.05
    lock.StoredLock.settle_time = 0.01
    bucket.use(bucket_root)
    source = ObjectStoragePath(path)
    options = LoadOptions(
        campaign_id,
        rows=lambda: sources.from_path(source),
        mapping=ColumnMapping(),
        ledger_path=ObjectStoragePath(ledger),
        run=Run("monday", "2026-11-16", "people.load", f"attempt {number}"),
        is_retry=number > 1,
    )
    Load(LemlistHook(), options).run()
