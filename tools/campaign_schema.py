# SPDX-License-Identifier: Apache-2.0
"""Write the JSON schema of a campaign definition: ``python -m tools.campaign_schema``."""

from __future__ import annotations

import json
from pathlib import Path

from airflow_provider_lemlist.campaigns.schema import schema

FILE = Path(__file__).parents[1] / "docs" / "campaign.schema.json"


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
