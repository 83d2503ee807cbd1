# SPDX-License-Identifier: Apache-2.0
"""What ``make fleet`` measures and what it finds broken."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tools.fleet.plan import Part, Plan, Run, broken_by_part, broken_by_sensors, traffic

ROWS, LEADS = ["ana@example.com", "ben@example.com"], ["eva@example.com"]
PART = Part(
    name="calm",
    load_campaign="cam_load",
    load_emails=ROWS,
    rows_path="",
    ledger_path="",
    lead_campaign="cam_lead",
    lead_emails=LEADS,
    lake_path="",
)
PLAN = Plan(
    parts=[PART],
    reply_campaign="cam_reply",
    reply_leads=["lea_1", "lea_2"],
    history=3,
    history_since="",
    history_until="",
)
RUN = Run(
    "success",
    {"load": Counter(success=1)},
    {"load": {-1: {"created": 2, "not_tried": 0}}, "read_back": {-1: {"rows": 3}}},
)


def leads(load: list[str] = ROWS, mapped: list[str] = LEADS) -> dict[str, Any]:
    found = [{"campaignId": "cam_load", "variables": {"email": email}} for email in load]
    found += [{"campaignId": "cam_lead", "variables": {"email": email}} for email in mapped]
    return {"leads": found, "violations": []}


def contacts(**changed: int) -> Counter[tuple[str, str]]:
    sent = {("cam_load", email): 1 for email in ROWS} | {("cam_lead", email): 1 for email in LEADS}
    return Counter(sent | {("cam_load", f"{name}@example.com"): count for name, count in changed.items()})


def test_a_part_in_which_everything_happened_once_is_kept():
    assert list(broken_by_part(PLAN, PART, RUN, leads(), contacts())) == []


@pytest.mark.parametrize(
    ("run", "lemlist", "sent", "told"),
    [
        (RUN, leads(load=[*ROWS, ROWS[0]]), contacts(), "1 were created more than once and 0 were not"),
        (RUN, leads(load=ROWS[:1]), contacts(), "0 were created more than once and 1 were not"),
        (RUN, leads(mapped=[]), contacts(), "1 were not created"),
        (RUN, leads(), contacts(ana=2), "so many emails: {2: 1, 1: 1}"),
        (RUN, leads(), contacts(ana=0), "so many emails: {0: 1, 1: 1}"),
        (RUN._replace(state="failed"), leads(), contacts(), "the run is failed"),
        (
            RUN._replace(returned=RUN.returned | {"load": {-1: {"created": 1, "not_tried": 0}}}),
            leads(),
            contacts(),
            "the load reports",
        ),
        (
            RUN._replace(returned=RUN.returned | {"read_back": {-1: {"rows": 2}}}),
            leads(),
            contacts(),
            "2 activities were read back, not 3",
        ),
        (RUN, {**leads(), "violations": [{"rule": "route"}]}, contacts(), "forbid 1 requests"),
    ],
)
def test_each_broken_promise_is_told(run, lemlist, sent, told):
    [problem] = broken_by_part(PLAN, PART, run, lemlist, sent)
    assert told in problem


def test_a_sensor_with_the_reply_of_another_lead_is_told():
    replies = {0: [{"leadId": "lea_1"}], 1: [{"leadId": "lea_1"}]}
    run = Run("success", {}, {"reply": replies})
    assert list(broken_by_sensors(PLAN, run)) == ["1 of 2 sensors did not return the reply of their lead"]
    kept = Run("success", {}, {"reply": {**replies, 1: [{"leadId": "lea_2"}]}})
    assert list(broken_by_sensors(PLAN, kept)) == []


def request(at: float, path: str = "/api/campaigns/cam_load/leads/", status: int = 200) -> dict[str, Any]:
    return {"monotonic": at, "path": path, "status": status}


def test_the_rate_is_that_of_all_requests_while_the_load_sends_without_the_first_burst():
    burst = [request(100.0) for _ in range(20)]
    rows = [request(102.0 + 0.2 * number) for number in range(51)]  # 5 a second until 112.0
    others = [request(102.1 + 0.25 * number, "/api/activities") for number in range(40)]  # 4 a second
    later = [request(120.0, "/api/activities", status=429)]
    found = traffic(PART, [*burst, *rows, *others, *later])
    assert found.rate == pytest.approx(0.9)
    assert (found.requests, found.refused, found.seconds) == (112, 1, 10.0)
