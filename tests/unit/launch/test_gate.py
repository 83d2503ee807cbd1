# SPDX-License-Identifier: Apache-2.0
"""What was looked at is told in a few lines, and as JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_lemlist.launch.checks import Statutes
from airflow_provider_lemlist.launch.gate import Readiness

FRIDAY = datetime(2026, 11, 20, 9, 0, 1, tzinfo=ZoneInfo("Europe/Paris"))
READY = Readiness(
    campaign_id="cam_1",
    name="Spring",
    status="draft",
    senders=("usr_1", "usr_2"),
    auto_review=False,
    statutes=Statutes(),
    leads={"review": 1200, "running": 3},
    hours="Monday to Friday, 09:00 to 18:00 (Europe/Paris)",
    opening=FRIDAY,
    is_open=True,
)


def lines(readiness: Readiness, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.INFO)
    caplog.clear()
    readiness.log()
    return [record.getMessage().removeprefix("Campaign cam_1: ") for record in caplog.records]


@pytest.mark.parametrize(("is_open", "when"), [(True, "open now"), (False, "next 2026-11-20 09:00")])
def test_log_of_a_ready_campaign_has_three_lines(
    caplog: pytest.LogCaptureFixture, is_open: bool, when: str
) -> None:
    assert lines(replace(READY, is_open=is_open), caplog) == [
        "'Spring', draft, 2 senders usr_1, usr_2, autoReview off.",
        "1,203 leads: 1,200 review, 3 running.",
        f"hours of sending: Monday to Friday, 09:00 to 18:00 (Europe/Paris); {when}.",
    ]


def test_what_lemlist_does_not_say_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    silent = replace(
        READY, senders=(), leads={}, hours="unknown", opening=None, is_open=False, auto_review=None
    )
    assert lines(silent, caplog) == [
        "'Spring', draft, 0 senders, autoReview not known.",
        "0 leads.",
        "hours of sending: unknown.",
    ]
    assert silent.to_json()["next_opening"] is None


def test_next_opening_has_the_offset_of_its_zone() -> None:
    shown = json.loads(json.dumps(READY.to_json()))
    assert shown["next_opening"] == "2026-11-20T09:00+01:00"
    utc = replace(READY, opening=FRIDAY.astimezone(UTC)).to_json()
    assert utc["next_opening"] == "2026-11-20T08:00+00:00"
