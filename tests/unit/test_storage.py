# SPDX-License-Identifier: Apache-2.0
"""How paths are shown."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist.storage import shown_to_workers, storage_path


def test_a_path_on_disk_is_not_told_to_be_of_one_machine(tmp_path: Path) -> None:
    """It may be a volume that all workers mount; an object storage needs no such note."""
    assert shown_to_workers(storage_path(tmp_path, None, "ledger_path")) == (
        f"{tmp_path} (on disk; every worker must see this path)"
    )
    assert "worker" not in shown_to_workers(ObjectStoragePath("memory://bucket/ledger"))
