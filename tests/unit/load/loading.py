# SPDX-License-Identifier: Apache-2.0
"""One attempt of a load in a process of its own, for tests that kill it."""

from __future__ import annotations

import json
import os
import time

import bucket  # beside this file
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.load import lock, sources
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.run import Load, Order
from airflow_provider_lemlist.load.sending import Wishes

# What Airflow does at first use is done before a process is forked, so that a kill meets the load.
os.environ["AIRFLOW_CONN_WARM"] = json.dumps({"conn_type": "lemlist", "password": "none"})
LemlistHook("warm").settings
LemlistHook("warm").get_conn()
ObjectStoragePath("file:///").fs


def attempt(connection: str, campaign_id: str, path: str, ledger: str, bucket_root: str) -> None:
    """Load a file; what takes long only in the world outside is quick here."""
    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = connection

    def brief(seconds: float) -> None:
        time.sleep(min(seconds, 0.01))

    CLOCK.sleep = brief
    lock.StoredLock.__init__.__kwdefaults__.update(beat=0.05, race=0.01)
    bucket.use(bucket_root)
    source = ObjectStoragePath(path)
    order = Order(
        rows=lambda: sources.from_path(source),
        mapping=ColumnMapping(),
        wishes=Wishes(campaign_id),
        ledger_path=ObjectStoragePath(ledger),
    )
    Load(LemlistHook(), order).run()
