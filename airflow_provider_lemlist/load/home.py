# SPDX-License-Identifier: Apache-2.0
"""Where a ledger lies when nobody says: in one place for all attempts of a task."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from typing import Any


def default_ledger(ti: Any) -> str:
    """Return where the ledger of a task instance lies by default: in one place for all its attempts."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    names = [ti.dag_id, ti.run_id, ti.task_id]
    if ti.map_index is not None and ti.map_index >= 0:
        names.append(str(ti.map_index))
    return os.path.join(os.path.expanduser(home), "lemlist-ledgers", *map(_file_name, names))


def _file_name(name: str) -> str:
    """Return a name that every file system takes, still a different one for a different name."""
    plain = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)[:80].lstrip(".")
    return plain if plain == name else f"{plain}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
