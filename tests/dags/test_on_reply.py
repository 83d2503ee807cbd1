# SPDX-License-Identifier: Apache-2.0
"""The example ``lemlist_on_reply`` in real Airflow, with events as the triggerer makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from tests.dags.conftest import EXAMPLES, dag_bag, states
from tests.postgres import connect
from tools.private_airflow import AIRFLOW_3
from tools.servers import postgres

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 has no asset watchers"),
]

ON_REPLY = "lemlist_on_reply"


def reply(number: int) -> dict[str, Any]:
    return {
        "_id": f"act_{number}",
        "type": "emailsReplied",
        "createdAt": f"2026-03-01T12:00:0{number}.000Z",
        "campaignId": "cam_1",
        "leadId": f"lea_{number}",
    }


def told(*numbers: int) -> dict[str, Any]:
    return {"status": "success", "activities": [reply(number) for number in numbers]}


ERROR = {"status": "error", "error": "LemlistAuthError", "message": "Refused.", "http_status": 401}


@pytest.fixture
def dag() -> Any:
    bag = dag_bag(EXAMPLES / f"{ON_REPLY}.py")
    assert bag.import_errors == {}
    return bag.dags[ON_REPLY]


@pytest.fixture
def notified(dag: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the notifier is called with; it still writes its log."""
    texts: list[str] = []
    notifier = dag.task_dict["notify"].python_callable.__globals__["LogNotifier"]
    notify = notifier.notify
    monkeypatch.setattr(
        notifier, "notify", lambda self, context: (notify(self, context), texts.append(self.text))
    )
    return texts


POSTGRES = [pytest.param(driver, marks=pytest.mark.postgres) for driver in ("psycopg2", "psycopg")]


@pytest.fixture(params=["sqlite", *POSTGRES])
def warehouse(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Set the connection to an empty database."""
    if request.param == "sqlite":
        conn = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(conn))
        yield
        return
    with postgres() as directory:
        connect(directory, request.param, monkeypatch)
        yield


def stored() -> list[tuple[str, bool]]:
    """Return the id of each reply in the table, and whether the notifier was called for it."""
    sql = "SELECT id, notified_at IS NOT NULL FROM lemlist_replies ORDER BY id"
    return [(id, bool(done)) for id, done in BaseHook.get_connection("warehouse").get_hook().get_records(sql)]


@pytest.fixture
def triggered(
    dag: Any, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, list[str]]]:
    """Return a function that runs the DAG with events of these payloads, and returns the states of tasks."""
    from airflow.assets.manager import asset_manager
    from airflow.models import dagrun
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    create = dagrun.get_or_create_dagrun

    def triggered(*payloads: dict[str, Any]) -> dict[str, list[str]]:
        # dag.test() has no argument for the events that trigger a run.
        def create_with_events(*, session: Any, **arguments: Any) -> Any:
            created = create(session=session, **arguments)
            asset = session.scalar(select(AssetModel).where(AssetModel.name == "lemlist_replies"))
            for payload in payloads:
                event = asset_manager.register_asset_change(
                    asset=asset, extra={"from_trigger": True, "payload": payload}, session=session
                )
                created.consumed_asset_events.append(event)
            session.commit()
            return created

        monkeypatch.setattr(dagrun, "get_or_create_dagrun", create_with_events)
        return states(run(dag))

    return triggered


def test_each_reply_is_stored_and_notified_once_however_often_it_is_told(triggered, notified, warehouse):
    assert triggered(told(1, 2), told(2, 3)) == {"store": ["success"], "notify": ["success"]}
    assert stored() == [("act_1", True), ("act_2", True), ("act_3", True)]
    assert notified == [f"Lead lea_{number}: emailsReplied in campaign cam_1" for number in (1, 2, 3)]

    assert triggered(told(3, 4)) == {"store": ["success"], "notify": ["success"]}
    assert stored()[3:] == [("act_4", True)]
    assert notified[3:] == ["Lead lea_4: emailsReplied in campaign cam_1"]


@pytest.mark.parametrize("warehouse", ["sqlite"], indirect=True)
def test_a_reply_whose_notification_failed_is_notified_by_the_next_run(
    dag, triggered, notified, warehouse, monkeypatch
):
    notifier = dag.task_dict["notify"].python_callable.__globals__["LogNotifier"]
    works = notifier.notify

    def fails_for_2(self: Any, context: Any) -> None:
        if "lea_2" in self.text:
            raise OSError("the chat cannot be reached")
        works(self, context)

    monkeypatch.setattr(dag.task_dict["notify"], "retries", 0)
    with monkeypatch.context() as outage:
        outage.setattr(notifier, "notify", fails_for_2)
        assert triggered(told(1, 2)) == {"store": ["success"], "notify": ["failed"]}
    assert stored() == [("act_1", True), ("act_2", False)]

    assert triggered(told(3)) == {"store": ["success"], "notify": ["success"]}
    assert stored() == [("act_1", True), ("act_2", True), ("act_3", True)]
    assert [text.partition(":")[0] for text in notified] == ["Lead lea_1", "Lead lea_2", "Lead lea_3"]


@pytest.mark.parametrize("payloads", [[], [ERROR]], ids=["by hand", "an error"])
@pytest.mark.parametrize("warehouse", ["sqlite"], indirect=True)
def test_a_run_without_replies_is_skipped(triggered, notified, warehouse, payloads):
    assert triggered(*payloads) == {"store": ["skipped"], "notify": ["skipped"]}
    assert notified == []
