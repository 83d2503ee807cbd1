# SPDX-License-Identifier: Apache-2.0
"""What a load does about a person: a table of promises."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_lemlist.delivery.identity import Kind
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.ledger.people import Person
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.plan import Plan, Situation, plan_departure, plan_row

NOW = datetime(2026, 11, 17, tzinfo=UTC)
YESTERDAY, TODAY, TOMORROW = "2026-11-16", "2026-11-17", "2026-11-18"
LEAD = {"email": "ana@example.com", "firstName": "Ana", "plan": "pro"}
EMAIL, CONTENT = [bytes([Kind.EMAIL])], [bytes([Kind.CONTENT])]

PRESENT = {"lead_id": "lea_1", "status": "inProgress", "lead": json.dumps(LEAD)}
#: Loaded from here; lemlist no longer lists the lead.
ABSENT = {"lead_id": "lea_1", "run": YESTERDAY}
OTHER_PLAN = {**PRESENT, "lead": json.dumps({**LEAD, "plan": "trial"})}
ELSEWHERE = {"elsewhere": (NOW - timedelta(days=3)).isoformat()}
WITHOUT_ASKING = {"recheck_elsewhere": timedelta(days=7), "flags": {"deduplicate": True}}


def person(**known: Any) -> Person:
    return Person(**{**dict.fromkeys(Person._fields), "id": 1, "run": "", "sent": "{}", **known})


def options(**given: Any) -> LoadOptions:
    run = Run("run", TODAY, "people.load", "a test")
    return LoadOptions("cam_1", None, None, None, run, **given)  # type: ignore[arg-type]


def planned(
    *people: dict[str, Any], keys: Any = EMAIL, newest: str = "", other_address: bool = False, **given: Any
) -> Plan:
    situation = Situation(NOW, newest, lambda lead: {})
    known = [person(**each) for each in people]
    return plan_row(LEAD, keys, known, options(**given), situation, other_address=other_address)


OUTCOMES: list[tuple[str, list[dict[str, Any]], dict[str, Any], str]] = [
    ("in the campaign", [PRESENT], {}, "exists"),
    ("in the campaign with the same values", [PRESENT], {"if_exists": "update"}, "unchanged"),
    ("in the campaign with other values", [OTHER_PLAN], {}, "exists"),
    ("created by an attempt that died", [{**PRESENT, "in_doubt": 1}], {}, "created"),
    ("loaded by a newer run", [{**PRESENT, "run": TOMORROW}], {"if_exists": "update"}, "newer"),
    ("loaded by a newer run, then deleted", [{**ABSENT, "run": TOMORROW}], {"if_gone": "create"}, "newer"),
    ("perhaps someone whom a newer run has loaded", [PRESENT, {"run": TOMORROW}], {}, "newer"),
    ("unknown, in an older run", [], {"newest": TOMORROW, "if_missing": "pause"}, "newer"),
    ("unsubscribed", [{**PRESENT, "left": "unsubscribed"}], {"if_exists": "update"}, "gone"),
    ("unsubscribed, then deleted", [{**ABSENT, "left": "unsubscribed"}], {"if_gone": "create"}, "gone"),
    ("deleted in lemlist", [ABSENT], {}, "gone"),
    ("deleted by a load, back in the source", [{**ABSENT, "left": "deleted"}],
     {"resume_returned": False}, "gone"),
    ("in another campaign", [ELSEWHERE], WITHOUT_ASKING, "elsewhere"),
    ("in doubt and named by nothing", [{"in_doubt": 1}], {"keys": CONTENT}, "uncertain"),
    ("at another address", [PRESENT], {"other_address": True}, "address_changed"),
    ("at another address, to fail", [PRESENT],
     {"other_address": True, "if_address_changed": "fail"}, "failed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("people", "given", "outcome"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES]
)
def test_person_takes_no_request(people: list[Any], given: dict[str, Any], outcome: str) -> None:
    plan = planned(*people, **given)
    assert (plan.outcome, plan.action) == (outcome, "")
    assert plan.lead_id == (people[0].get("lead_id") if people else None)


ACTIONS: list[tuple[str, list[dict[str, Any]], dict[str, Any], Plan]] = [
    ("unknown", [], {}, Plan(action="create")),
    ("unknown, in an older run", [], {"newest": TOMORROW}, Plan(action="create")),
    ("unknown, in the newest run", [], {"newest": TODAY, "if_missing": "pause"}, Plan(action="create")),
    ("in doubt, not in the campaign", [{"in_doubt": 1}], {}, Plan(action="create", in_doubt=True)),
    ("in the campaign with other values", [OTHER_PLAN], {"if_exists": "update"},
     Plan(action="update", lead_id="lea_1", changes={"plan": "pro"})),
    ("loaded by this run before", [{**ABSENT, "run": TODAY}], {"if_gone": "create"},
     Plan(action="create", lead_id="lea_1")),
    ("deleted in lemlist, to be created again", [ABSENT], {"if_gone": "create"},
     Plan(action="create", lead_id="lea_1")),
    ("deleted in lemlist, named by nothing and in doubt", [{**ABSENT, "in_doubt": 1}],
     {"if_gone": "create", "keys": CONTENT}, Plan(action="create", lead_id="lea_1", in_doubt=True)),
    # The lead is looked up once more before the row fails.
    ("deleted in lemlist, to fail", [ABSENT], {"if_gone": "fail"}, Plan(action="create", lead_id="lea_1")),
    ("deleted by a load, back in the source", [{**ABSENT, "left": "deleted"}], {}, Plan(action="create")),
    ("paused by a load, back in the source", [{**PRESENT, "status": "paused", "left": "paused"}], {},
     Plan(action="resume", lead_id="lea_1")),
    ("paused by a load, back with other values",
     [{**OTHER_PLAN, "status": "paused", "left": "paused"}], {"if_exists": "update"},
     Plan(action="resume", lead_id="lea_1", changes={"plan": "pro"})),
    ("in another campaign some time ago", [ELSEWHERE],
     {**WITHOUT_ASKING, "recheck_elsewhere": timedelta(days=2)}, Plan(action="create")),
    ("in another campaign, which no longer matters", [ELSEWHERE], {}, Plan(action="create")),
    ("at another address, to be created", [PRESENT],
     {"other_address": True, "if_address_changed": "create"},
     Plan(action="create", message="the address has changed")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("people", "given", "plan"), [row[1:] for row in ACTIONS], ids=[row[0] for row in ACTIONS]
)
def test_person_takes_a_request(people: list[Any], given: dict[str, Any], plan: Plan) -> None:
    found = planned(*people, **given)
    assert found._replace(in_doubt=bool(found.in_doubt)) == plan._replace(in_doubt=bool(plan.in_doubt))


@pytest.mark.parametrize(
    ("person", "given"),
    [
        ({"status": "paused"}, {}),  # by hand
        ({"status": "inProgress", "left": "paused"}, {}),  # resumed by hand
        ({"status": "paused", "left": "paused"}, {"resume_returned": False}),
    ],
)
def test_person_whom_no_load_has_paused_is_not_resumed(person: dict[str, Any], given: dict[str, Any]) -> None:
    assert planned({**PRESENT, **person}, **given).outcome == "exists"


def test_value_that_the_export_hides_is_compared_with_what_was_sent_last() -> None:
    def changes(sent: dict[str, str]) -> Any:
        known = person(**{**PRESENT, "lead": json.dumps({"email": LEAD["email"]}), "sent": json.dumps(sent)})
        situation = Situation(NOW, "", lambda lead: {"plan": f"hash of {lead['plan']}"})
        return plan_row(LEAD, EMAIL, [known], options(if_exists="update"), situation).changes

    assert changes({"plan": "hash of pro"}) == {"firstName": "Ana"}
    assert changes({"plan": "hash of trial"}) == {"firstName": "Ana", "plan": "pro"}
    assert changes({}) == {"firstName": "Ana", "plan": "pro"}


# --- People who left the source -----------------------------------------------------------------------------


@pytest.mark.parametrize("if_missing", ["pause", "unsubscribe", "delete"])
def test_person_who_left_the_source_is_handled_once(if_missing: str) -> None:
    known = {**PRESENT, "run": YESTERDAY}
    assert plan_departure(person(**known), options(if_missing=if_missing)) == Plan(
        action=if_missing, lead_id="lea_1"
    )
    for left in ("paused", "unsubscribed", "deleted"):
        assert plan_departure(person(**known, left=left), options(if_missing=if_missing)) is None


def test_lead_that_a_user_has_paused_is_not_paused_and_so_not_resumed_later() -> None:
    given = person(**{**PRESENT, "run": YESTERDAY, "status": "paused"})
    assert plan_departure(given, options(if_missing="pause")) is None
    assert plan_departure(given, options(if_missing="delete")) is not None


def test_person_whom_a_newer_run_has_loaded_is_left_alone() -> None:
    given = person(**{**PRESENT, "run": TOMORROW})
    assert plan_departure(given, options(if_missing="delete")) is None


def test_nothing_is_done_to_anyone_unless_the_user_says_so() -> None:
    assert plan_departure(person(**PRESENT), options()) is None
