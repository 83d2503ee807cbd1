# SPDX-License-Identifier: Apache-2.0
"""The audit trail: a record of every write that lemlist carried out or may have; without one, no write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_lemlist import audit as audit_module
from airflow_provider_lemlist import exceptions, sources
from airflow_provider_lemlist.audit import is_about, read_audit
from airflow_provider_lemlist.exceptions import LemlistAuditError
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.run import Load
from airflow_provider_lemlist.sandbox import Sandbox
from tests.unit.load.conftest import bucket
from tests.unit.test_safety import METHODS, Team, arguments_of
from tests.unit.worker import Worker

LEAD = {"email": "ana@norte.example", "firstName": "Ana"}


class Trail:
    """An audit trail of this test."""

    def __init__(self, path: str, puts: Callable[[], int]) -> None:
        self.path = path
        self.puts = puts

    def records(self) -> list[dict[str, Any]]:
        return list(read_audit(ObjectStoragePath(self.path)))

    def use(self, monkeypatch: pytest.MonkeyPatch) -> Trail:
        monkeypatch.setenv("AIRFLOW__LEMLIST__AUDIT_PATH", self.path)
        for name in [name for name in os.environ if name.startswith("AIRFLOW_CTX_")]:
            monkeypatch.delenv(name)  # a DAG that ran in this process leaves them behind
        return self


@pytest.fixture
def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trail:
    return Trail(f"file://{tmp_path}/audit", lambda: 0).use(monkeypatch)


@pytest.fixture
def stored_trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trail:
    bucket.use(tmp_path / "bucket")
    return Trail("bucket://b/audit", lambda: bucket.Bucket.puts).use(monkeypatch)


# --- What is recorded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_write_of_the_hook_is_recorded_and_no_read(
    quick_lemlist: Sandbox, tmp_path: Path, trail: Trail, method: str
) -> None:
    team = Team(quick_lemlist, tmp_path, Worker(has_store=True))
    before = len(quick_lemlist.requests())
    with suppress(exceptions.LemlistError):
        result = getattr(LemlistHook(), method)(
            *(["Running"] if method == "find_campaign" else []), **arguments_of(method, team)
        )
        if hasattr(result, "__next__"):
            list(result)
    sent = quick_lemlist.requests()[before:]
    assert sent
    # A write that lemlist refused has changed nothing.
    done = [each for each in sent if each["method"] != "GET" and each["status"] < 300]
    done = [each for each in done if each["path"] != "/v2/campaigns/stats/batch"]
    found = trail.records() if (tmp_path / "audit").exists() else []
    assert [record["operation"].split()[0] for record in found] == [each["method"] for each in done]
    assert {record["outcome"] for record in found} <= {"done"}


def test_a_record_says_who_what_when_and_from_where(quick_lemlist: Sandbox, trail: Trail) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    lead_id = LemlistHook().create_lead(campaign_id, LEAD)["_id"]
    [record] = trail.records()
    assert record.pop("time").endswith("Z")
    assert len(record.pop("key")) == 16
    assert record.pop("host").startswith("127.0.0.1:")
    assert record == {
        "outcome": "done",
        "operation": "POST /campaigns/{campaignId}/leads/",
        "campaign_id": campaign_id,
        "lead_id": lead_id,
        "connection": "lemlist_default",
        "person": {"email": "ana@norte.example"},
    }


def test_with_hidden_personal_data_a_record_has_ids_only(
    quick_lemlist: Sandbox, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LEMLIST__HIDE_PERSONAL_DATA", "True")
    campaign_id = quick_lemlist.campaign()["_id"]
    hook = LemlistHook()
    lead_id = hook.create_lead(campaign_id, LEAD)["_id"]
    hook.mark_lead_interested("ana@norte.example")
    hook.unsubscribe("ana@norte.example")
    hook.unsubscribe_many(["eva@norte.example"])
    records = trail.records()
    assert len(records) == 4
    assert records[0]["lead_id"] == lead_id
    assert "norte.example" not in json.dumps(records)


def test_the_trail_does_not_hold_the_key(quick_lemlist: Sandbox, trail: Trail, tmp_path: Path) -> None:
    LemlistHook().create_lead(quick_lemlist.campaign()["_id"], LEAD)
    key = json.loads(quick_lemlist.airflow_connection())["password"]
    files = [file for file in (tmp_path / "audit").rglob("*") if file.is_file()]
    assert files
    assert not any(key in file.read_text() or key in str(file) for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_write_in_doubt_is_recorded_as_uncertain(
    quick_lemlist: Sandbox, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    quick_lemlist.fault("POST /campaigns/{campaignId}/leads/", "reset", when="after")
    with pytest.raises(exceptions.LemlistUncertainError):
        LemlistHook().create_lead(campaign_id, {"firstName": "Ana"})
    [record] = trail.records()
    assert (record["outcome"], record["campaign_id"]) == ("uncertain", campaign_id)


def test_a_write_that_the_timeout_of_a_task_interrupts_is_recorded_as_uncertain(
    quick_lemlist: Sandbox, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_lemlist.api.transport import Transport

    hook, campaign_id = LemlistHook(), quick_lemlist.campaign()["_id"]

    class TaskTimeout(BaseException):
        pass

    def interrupted(*args: object) -> None:
        raise TaskTimeout

    monkeypatch.setattr(Transport, "_attempt", interrupted)
    with pytest.raises(TaskTimeout):
        hook.create_lead(campaign_id, LEAD)
    assert [record["outcome"] for record in trail.records()] == ["uncertain"]


def test_a_write_that_lemlist_refused_is_not_recorded(quick_lemlist: Sandbox, trail: Trail) -> None:
    with pytest.raises(exceptions.LemlistError):
        LemlistHook().create_lead("cam_unknown", LEAD)
    assert trail.records() == []


# --- Before and after a write -------------------------------------------------------------------------------


def test_nothing_is_sent_while_the_trail_cannot_be_written(
    quick_lemlist: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AIRFLOW__LEMLIST__AUDIT_PATH", str(tmp_path / "file" / "audit"))
    campaign_id = quick_lemlist.campaign()["_id"]
    hook = LemlistHook()
    before = len(quick_lemlist.requests())
    with pytest.raises(LemlistAuditError, match=r"cannot be written \(Not a directory\)") as caught:
        hook.create_lead(campaign_id, LEAD)
    assert caught.value.retryable
    assert len(quick_lemlist.requests()) == before
    assert hook.get_team()  # reads go on
    (tmp_path / "file").unlink()
    hook.create_lead(campaign_id, LEAD)


def test_a_record_that_cannot_be_written_is_logged_and_stops_the_next_write(
    quick_lemlist: Sandbox, trail: Trail, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    hook = LemlistHook()
    hook.create_lead(campaign_id, LEAD)
    write = audit_module._append_to

    def full(place: str, text: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit_module, "_append_to", full)
    lead_id = hook.create_lead(campaign_id, {"email": "eva@norte.example"})["_id"]
    assert lead_id in caplog.text
    assert "eva@norte.example" not in caplog.text
    with pytest.raises(LemlistAuditError, match="No space left on device"):
        hook.create_lead(campaign_id, {"email": "ida@norte.example"})
    assert len(quick_lemlist.state()["leads"]) == 2
    monkeypatch.setattr(audit_module, "_append_to", write)
    hook.create_lead(campaign_id, {"email": "ida@norte.example"})
    assert [record["person"]["email"][:3] for record in trail.records()] == ["ana", "eva", "ida"]


KILLED = """
import os, signal, sys
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
LemlistHook().create_lead(sys.argv[1], {"email": "ana@norte.example"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_record_outlives_the_kill_of_the_task(quick_lemlist: Sandbox, trail: Trail) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    done = subprocess.run([sys.executable, "-c", KILLED, campaign_id], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [record["person"]["email"] for record in trail.records()] == ["ana@norte.example"]


def test_a_forked_process_has_a_file_of_its_own(quick_lemlist: Sandbox, trail: Trail, tmp_path: Path) -> None:
    campaign_id, hook = quick_lemlist.campaign()["_id"], LemlistHook()
    hook.create_lead(campaign_id, LEAD)
    if (pid := os.fork()) == 0:
        try:
            hook.create_lead(campaign_id, {"email": "eva@norte.example"})
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert len(trail.records()) == 2
    assert len([*(tmp_path / "audit").rglob("*.ndjson")]) == 2


def test_a_line_that_a_kill_has_cut_does_not_hide_the_others(
    quick_lemlist: Sandbox, trail: Trail, tmp_path: Path
) -> None:
    LemlistHook().create_lead(quick_lemlist.campaign()["_id"], LEAD)
    [file] = (tmp_path / "audit").rglob("*.ndjson")
    file.write_text(file.read_text() + '{"time": "2026-11-2')
    assert len(trail.records()) == 1


# --- In an object store -------------------------------------------------------------------------------------


def test_each_write_is_in_the_store_before_the_task_goes_on(
    quick_lemlist: Sandbox, stored_trail: Trail
) -> None:
    campaign_id, hook = quick_lemlist.campaign()["_id"], LemlistHook()
    for number in range(3):
        hook.create_lead(campaign_id, {"email": f"p{number}@norte.example"})
        assert len(stored_trail.records()) == number + 1


@pytest.mark.parametrize("kind", ["trail", "stored_trail"])
def test_a_load_is_recorded_row_by_row(
    quick_lemlist: Sandbox, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    trail: Trail = request.getfixturevalue(kind)
    campaign_id = quick_lemlist.campaign()["_id"]
    people = [{"email": f"p{n}@norte.example"} for n in range(120)]
    puts = trail.puts()
    options = LoadOptions(
        campaign_id,
        rows=lambda: sources.from_list(people),
        mapping=ColumnMapping(),
        ledger_path=ObjectStoragePath(f"file://{tmp_path}/ledger"),
        run=Run("monday", "2026-11-16", "people.load", "attempt 1"),
    )
    Load(LemlistHook(), options).run()
    records = trail.records()
    assert sorted(record["person"]["email"] for record in records) == sorted(p["email"] for p in people), [
        record for record in records if record["outcome"] != "done"
    ]
    assert {record["lead_id"] for record in records} == {
        lead["_id"] for lead in quick_lemlist.state()["leads"]
    }
    if kind == "stored_trail":
        assert 2 <= trail.puts() - puts <= 4  # gathered, not an object for each row


def test_a_load_is_aborted_when_its_records_cannot_be_written(
    quick_lemlist: Sandbox, tmp_path: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = quick_lemlist.campaign()["_id"]
    write, left = audit_module._append_to, [30]

    def soon_full(place: str, text: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(place, text)

    monkeypatch.setattr(audit_module, "_append_to", soon_full)
    options = LoadOptions(
        campaign_id,
        rows=lambda: sources.from_list([{"email": f"p{n}@norte.example"} for n in range(300)]),
        mapping=ColumnMapping(),
        ledger_path=ObjectStoragePath(f"file://{tmp_path}/ledger"),
        run=Run("monday", "2026-11-16", "people.load", "attempt 1"),
    )
    load = Load(LemlistHook(), options)
    with pytest.raises(LemlistAuditError):
        load.run()
    assert load.report is not None
    created = len(quick_lemlist.state()["leads"])
    assert 29 <= created < 150
    assert load.report.outcomes["created"] == created
    assert load.report.outcomes["failed"] == 0


# --- Reading it ---------------------------------------------------------------------------------------------


def test_records_are_found_by_lead_campaign_and_time() -> None:
    record = {
        "time": "2026-11-22T14:00:00.000Z",
        "lead_id": "lea_1",
        "campaign_id": "cam_1",
        "person": {"email": "Ana@norte.example", "values": ["x@sur.example"]},
    }
    for lead in ("lea_1", "ana@NORTE.example", "x@sur.example", ""):
        assert is_about(record, lead=lead)
    assert not is_about(record, lead="lea_2")
    assert is_about(record, campaign="cam_1")
    assert not is_about(record, campaign="cam_2")
    assert is_about(record, since="2026-11-22T15:00:00+01:00")
    assert not is_about(record, since="2026-11-22T14:00:01")


def test_the_command_shows_the_records(
    quick_lemlist: Sandbox,
    trail: Trail,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_provider_lemlist.__main__ import main

    campaign_id, hook = quick_lemlist.campaign()["_id"], LemlistHook()
    lead_id = hook.create_lead(campaign_id, LEAD)["_id"]
    hook.create_lead(campaign_id, {"email": "eva@norte.example"})
    capsys.readouterr()

    def shown(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["airflow_provider_lemlist", "audit", *arguments])
        main()
        return capsys.readouterr().out

    [record] = json.loads(shown("--lead", "ana@norte.example", "--output", "json"))
    assert record["lead_id"] == lead_id
    table = shown(trail.path, "--campaign", campaign_id, "--output", "plain")
    assert len(table.strip().splitlines()) == 3  # with the names of the columns
