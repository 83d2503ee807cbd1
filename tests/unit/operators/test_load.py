# SPDX-License-Identifier: Apache-2.0
"""LoadLeadsOperator on the sandbox: every row once, an outcome for every row, mistakes before the first."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, BaseOperator, literal

from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistPlanError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.load.pool import MAX_THREADS
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.templating import AirflowText
from tests.waiting import wait_for

CREATE = "POST /campaigns/{campaignId}/leads/"
UPDATE = "PATCH /campaigns/{campaignId}/leads/{leadId}"
LOOK_UP = "GET /leads/{email}"


@pytest.fixture
def lemlist(quick_lemlist: Sandbox) -> Sandbox:
    return quick_lemlist


@pytest.fixture
def campaign(lemlist: Sandbox) -> str:
    return str(lemlist.campaign()["_id"])


class Runner:
    """Run attempts of one task on one ledger."""

    def __init__(self, campaign_id: str, ledger: Path) -> None:
        self.campaign_id = campaign_id
        self.ledger = ledger
        self.pushed: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}

    def task(self, **arguments: Any) -> LoadLeadsOperator:
        given = {"campaign_id": self.campaign_id, "ledger_path": str(self.ledger), **arguments}
        return LoadLeadsOperator(task_id="load", **given)

    def __call__(self, task: LoadLeadsOperator | None = None, **arguments: Any) -> dict[str, Any]:
        task = task or self.task(**arguments)
        self.pushed = {}
        ti = SimpleNamespace(
            dag_id="daily", run_id="manual__1", task_id="load", map_index=-1, try_number=1, task=task,
            xcom_push=lambda key, value: self.pushed.update({key: json.loads(json.dumps(value))}),
        )  # fmt: skip
        events = SimpleNamespace(extra=self.extra)
        context: Any = {
            "ti": ti,
            "ds": "2026-11-20",
            "outlet_events": {outlet: events for outlet in task.outlets or ()},
            "params": {},
        }
        task.render_template_fields(context)
        return task.execute(context)

    def rows(self, ledger: Path | None = None) -> dict[int, dict[str, Any]]:
        """Read the outcomes by row number, and make sure that no row has two."""
        lines = [
            json.loads(line)
            for file in (ledger or self.ledger).glob("*.ndjson")
            for line in file.read_text().splitlines()
        ]
        assert max(Counter(line["row"] for line in lines).values(), default=1) == 1
        return {line["row"]: line for line in sorted(lines, key=lambda line: line["row"])}

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.rows().values()]


@pytest.fixture
def run(campaign: str, tmp_path: Path) -> Runner:
    return Runner(campaign, tmp_path / "ledger")


def people(number: int, **more: Any) -> list[dict[str, Any]]:
    return [{"email": f"p{n}@example.com", "firstName": f"P{n}", **more} for n in range(1, number + 1)]


def emails(lemlist: Sandbox) -> Counter[str]:
    return Counter(lead["variables"].get("email", "") for lead in lemlist.state()["leads"])


# --- Every row has an outcome -------------------------------------------------------------------------


def test_every_row_is_in_campaign_once_and_in_ledger_once(lemlist: Sandbox, run: Runner) -> None:
    report = run(leads=[*people(30), {"email": "P3@example.com"}, {"email": "no address"}], max_failed=1)
    assert emails(lemlist) == Counter(f"p{n}@example.com" for n in range(1, 31))
    assert report == {
        "rows": 32, "created": 30, "duplicate": 1, "invalid": 1, "not_tried": 0, "settled_before": 0,
        "updated": 0, "exists": 0, "unchanged": 0, "elsewhere": 0, "gone": 0, "failed": 0, "uncertain": 0,
        "campaign_id": run.campaign_id, "ledger_path": str(run.ledger),
    }  # fmt: skip
    assert run.pushed["report"] == report
    rows = run.rows()
    ids = {lead["variables"]["email"]: lead["_id"] for lead in lemlist.state()["leads"]}
    assert all(rows[n]["lead_id"] == ids[f"p{n}@example.com"] for n in range(1, 31))
    assert (rows[31]["outcome"], rows[31]["message"]) == ("duplicate", "the same person as row 3")
    assert (rows[32]["outcome"], rows[32]["message"][:6]) == ("invalid", "email:")


def test_cleared_task_sends_no_request_for_settled_rows(lemlist: Sandbox, run: Runner) -> None:
    leads = [*people(5), {"email": "no address"}, {"email": "p1@example.com"}]
    first = run(leads=leads, max_failed=1)
    before = len(lemlist.requests(CREATE))
    again = run(leads=list(reversed(leads)), max_failed=1)  # as a query without ORDER BY returns them
    assert len(lemlist.requests(CREATE)) == before == 5
    assert again == first | {"settled_before": 6}
    assert not lemlist.requests(LOOK_UP)


def test_people_in_this_and_in_other_campaigns_have_different_outcomes(lemlist: Sandbox, run: Runner) -> None:
    other = lemlist.campaign("Other")["_id"]
    lemlist.lead(run.campaign_id, "p1@example.com")
    lemlist.lead(other, "p2@example.com")
    run(leads=people(3), deduplicate=True)
    assert run.outcomes() == ["exists", "elsewhere", "created"]


def test_if_elsewhere_fail_counts_people_in_other_campaigns_as_failed(lemlist: Sandbox, run: Runner) -> None:
    lemlist.lead(lemlist.campaign("Other")["_id"], "p2@example.com")
    with pytest.raises(LemlistError, match="1 failed of 3 rows"):
        run(leads=people(3), deduplicate=True, if_elsewhere="fail")


def test_outlet_asset_gets_event_with_report(lemlist: Sandbox, run: Runner) -> None:
    report = run(leads=people(2), outlets=[Asset("lemlist://campaign")])
    assert run.extra == report


def test_empty_source_is_no_error(lemlist: Sandbox, run: Runner) -> None:
    lemlist.step(lemlist.state()["campaigns"][0]["sequenceId"], "manual", title="{{firstName}}")
    assert run(leads=[])["rows"] == 0


def test_default_ledger_path_is_one_per_run(
    lemlist: Sandbox, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    report = run(leads=people(1), ledger_path=None)
    assert report["ledger_path"] == str(tmp_path / "lemlist-ledgers" / "daily" / "manual__1" / "load")
    assert run.rows(Path(report["ledger_path"]))[1]["outcome"] == "created"


def test_failed_rows_fail_task_after_the_others_and_are_sent_again_by_retry(
    lemlist: Sandbox, run: Runner
) -> None:
    lemlist.fault(CREATE, "status", status=400, text="Something about this lead", skip=1, times=2)
    with pytest.raises(LemlistError, match="2 failed of 6 rows, and max_failed is 0") as raised:
        run(leads=people(6))
    assert not isinstance(raised.value, AirflowFailException)  # so Airflow retries
    assert run.pushed["report"]["created"] == 4
    assert Counter(run.outcomes()) == {"created": 4, "failed": 2}
    before = len(lemlist.requests())
    assert run(leads=people(6))["created"] == 6
    assert len(lemlist.requests()) - before == 2 + 2  # campaign and sequences, two rows, no look-up
    assert run.outcomes() == ["created"] * 6
    assert Counter(row["attempts"] for row in run.rows().values()) == {1: 4, 2: 2}


def test_task_with_only_invalid_rows_is_not_retried(lemlist: Sandbox, run: Runner) -> None:
    with pytest.raises(LemlistValidationError, match="1 invalid of 3 rows") as raised:
        run(leads=[*people(2), {"email": "x"}])
    assert isinstance(raised.value, AirflowFailException)
    assert emails(lemlist).total() == 2


def test_max_failed_allows_some_rows_to_fail(lemlist: Sandbox, run: Runner) -> None:
    assert run(leads=[*people(2), {"email": "x"}, "y"], max_failed=2)["invalid"] == 2


# --- Killed --------------------------------------------------------------------------------------------


def kill(run: Runner, monkeypatch: pytest.MonkeyPatch, task: LoadLeadsOperator, *, effect: bool) -> None:
    """Simulate the death of the process while a row is in flight: nothing more is written to the ledger."""
    from airflow_provider_lemlist.load.ledger import Ledger

    real = task.hook.create_lead

    def die(*arguments: Any, **flags: Any) -> Any:
        if effect:
            real(*arguments, **flags)
        monkeypatch.setattr(Ledger, "write", lambda *_, **__: None)
        monkeypatch.setattr(Ledger, "release", lambda *_: None)
        raise RuntimeError("dead")

    monkeypatch.setattr(task.hook, "create_lead", die)
    with monkeypatch.context() as patched:
        monkeypatch = patched
        with pytest.raises(RuntimeError, match="dead"):
            run(task)


@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before it"])
def test_row_in_flight_at_kill_is_looked_up_and_not_created_twice(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, effect: bool
) -> None:
    kill(run, monkeypatch, run.task(leads=people(1)), effect=effect)
    assert emails(lemlist).total() == effect
    run(leads=people(1))
    assert emails(lemlist) == {"p1@example.com": 1}
    row = run.rows()[1]
    assert (row["outcome"], row["attempts"]) == ("created", 2)
    assert row["lead_id"] == lemlist.state()["leads"][0]["_id"]
    assert len(lemlist.requests(LOOK_UP)) == 1
    assert len(lemlist.requests(CREATE)) == 1


@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before it"])
def test_row_without_email_in_flight_at_kill_is_uncertain(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, effect: bool
) -> None:
    leads = [{"linkedinUrl": "https://www.linkedin.com/in/ana"}]
    kill(run, monkeypatch, run.task(leads=leads), effect=effect)
    before = len(lemlist.requests(CREATE))
    for _ in range(2):
        with pytest.raises(LemlistError, match="1 uncertain of 1 rows"):
            run(leads=leads)
    assert len(lemlist.requests(CREATE)) == before
    assert "cannot be looked up" in run.rows()[1]["message"]


def test_row_in_flight_at_kill_without_email_is_not_sent_with_email_later(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = {"linkedinUrl": "https://www.linkedin.com/in/ana"}
    kill(run, monkeypatch, run.task(leads=[lead]), effect=True)
    for _ in range(2):
        with pytest.raises(LemlistError, match="1 uncertain of 1 rows"):
            run(leads=[lead | {"email": "ana@example.com"}])
    assert len(lemlist.state()["leads"]) == 1
    assert "cannot be looked up" in run.rows()[1]["message"]


def test_lost_response_for_row_without_email_is_uncertain_and_not_sent_again(
    lemlist: Sandbox, run: Runner
) -> None:
    leads = [{"linkedinUrl": f"https://www.linkedin.com/in/p{n}"} for n in range(3)]
    lemlist.fault(CREATE, "reset", skip=1)
    with pytest.raises(LemlistError, match="1 uncertain"):
        run(leads=leads)
    with pytest.raises(LemlistError, match="1 uncertain"):
        run(leads=leads)
    assert len(lemlist.state()["leads"]) == 3
    assert Counter(run.outcomes()) == {"created": 2, "uncertain": 1}


@pytest.mark.parametrize("when", ["before", "after"])
def test_outage_during_create_and_look_up_is_reconciled_by_next_attempt(
    lemlist: Sandbox, run: Runner, when: str
) -> None:
    lemlist.fault(CREATE, "status", status=503, when=when)
    lemlist.fault(LOOK_UP, "status", status=503, times=1000)
    with pytest.raises(LemlistError, match="1 failed of 1 rows") as raised:
        run(leads=people(1))
    assert raised.value.retryable
    created, looked_up = len(lemlist.requests(CREATE)), len(lemlist.requests(LOOK_UP))
    lemlist.clear_faults()
    run(leads=people(1))
    assert run.outcomes() == ["created"]
    assert emails(lemlist) == {"p1@example.com": 1}
    assert len(lemlist.requests(CREATE)) - created == (when == "before")
    assert len(lemlist.requests(LOOK_UP)) - looked_up == 1


def test_duplicate_created_by_earlier_attempt_counts_as_created(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(run, monkeypatch, run.task(leads=people(1)), effect=True)
    lemlist.fault(LOOK_UP, "status", status=404, text="Lead not found")  # it is not listed yet
    run(leads=people(1))
    row = run.rows()[1]
    assert (row["outcome"], row["lead_id"]) == ("created", lemlist.state()["leads"][0]["_id"])


def test_update_that_was_interrupted_is_sent_by_next_attempt(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lemlist.lead(run.campaign_id, "p1@example.com", plan="free")
    kill(run, monkeypatch, run.task(leads=people(1, plan="pro"), if_exists="update"), effect=False)
    run(leads=people(1, plan="pro"), if_exists="update")
    assert run.outcomes() == ["updated"]
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "pro"


# --- Stopped --------------------------------------------------------------------------------------------

STOPS = {
    "credits": ({"kind": "status", "status": 402, "text": "Not enough credits"}, LemlistPlanError),
    "key": ({"kind": "status", "status": 401, "text": ""}, LemlistAuthError),
    "campaign": ({"kind": "status", "status": 404, "text": "Campaign not found"}, LemlistNotFoundError),
}


@pytest.mark.parametrize("what", STOPS)
def test_error_that_concerns_every_row_aborts_load(lemlist: Sandbox, run: Runner, what: str) -> None:
    details, error = STOPS[what]
    lemlist.fault(CREATE, skip=10, times=1000, **details)
    with pytest.raises(error):
        run(leads=people(200))
    report = run.pushed["report"]
    assert report["created"] == 10
    assert report["not_tried"] == 190
    assert len(run.rows()) == 10
    assert len(lemlist.requests(CREATE)) < 60
    lemlist.clear_faults()
    assert run(leads=people(200))["created"] == 200
    assert set(emails(lemlist).values()) == {1}
    assert run.outcomes() == ["created"] * 200


def test_outage_of_lemlist_aborts_load_instead_of_failing_every_row(lemlist: Sandbox, run: Runner) -> None:
    lemlist.fault(CREATE, "status", status=503, times=100_000)
    with pytest.raises(LemlistServerError) as raised:
        run(leads=people(200))
    assert raised.value.retryable
    assert 20 <= run.pushed["report"]["failed"] < 60
    lemlist.clear_faults()
    run(leads=people(200))
    assert run.outcomes() == ["created"] * 200


@contextmanager
def once_some_are_there(lemlist: Sandbox, act: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread as soon as the first rows of a load are in lemlist."""

    def wait_and_act() -> None:
        wait_for(lambda: len(lemlist.state()["leads"]) >= 3)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()


def test_stopped_task_sends_no_further_row_and_keeps_ledger(run: Runner) -> None:
    with Sandbox(api_key=uuid4().hex, latency=0.2) as slow, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", slow.airflow_connection())
        run.campaign_id = slow.campaign()["_id"]
        task = run.task(leads=people(300))
        begun: list[int] = []

        def stop() -> None:
            task.on_kill()
            begun.append(len(slow.requests(CREATE)))

        with (
            once_some_are_there(slow, stop),
            pytest.raises(LemlistError, match="The load was stopped") as raised,
        ):
            run(task)
        assert raised.value.retryable
        assert len(slow.requests(CREATE)) <= begun[0] + MAX_THREADS  # each had a row in flight
        created = [row for row in run.rows().values() if row["outcome"] == "created"]
        assert 1 <= len(created) == len(slow.state()["leads"]) < 300


def test_interruption_by_airflow_leaves_ledger_complete(run: Runner) -> None:
    """Like ``execution_timeout``, which raises in the thread that executes the task."""

    class TimedOut(BaseException):
        pass

    with Sandbox(api_key=uuid4().hex, latency=0.2) as slow, pytest.MonkeyPatch.context() as patch:
        import signal

        def on_alarm(*_: Any) -> None:
            raise TimedOut

        def interrupt() -> None:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

        patch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", slow.airflow_connection())
        run.campaign_id = slow.campaign()["_id"]
        old = signal.signal(signal.SIGALRM, on_alarm)
        try:
            with once_some_are_there(slow, interrupt), pytest.raises(TimedOut):
                run(leads=people(300))
        finally:
            signal.signal(signal.SIGALRM, old)
        created = [row for row in run.rows().values() if row["outcome"] == "created"]
        assert 1 <= len(created) == len(slow.state()["leads"]) < 300
        assert run.pushed["report"]["not_tried"] == 300 - len(created)


def test_task_stopped_while_reading_source_sends_nothing(lemlist: Sandbox, run: Runner) -> None:
    task = run.task(leads=people(3))

    def rows() -> Iterator[dict[str, Any]]:
        yield people(1)[0]
        task.on_kill()
        yield people(2)[1]

    task.leads = rows()
    with pytest.raises(LemlistError, match="before anything was sent"):
        run(task)
    assert not lemlist.requests(CREATE)


def test_second_task_on_same_ledger_fails_with_name_of_first(lemlist: Sandbox, run: Runner) -> None:
    from airflow_provider_lemlist.load.ledger import Ledger
    from airflow_provider_lemlist.storage import storage_path

    with (
        Ledger(storage_path(run.ledger, None, ""), run.campaign_id, "task a.b of run c, attempt 1"),
        pytest.raises(LemlistError, match="in use by task a.b of run c, attempt 1"),
    ):
        run(leads=people(2))
    assert not lemlist.requests()


# --- Before the first row -------------------------------------------------------------------------------


def test_missing_campaign_is_found_before_source_is_read(lemlist: Sandbox, run: Runner) -> None:
    with pytest.raises(LemlistNotFoundError):
        run(campaign_id="cam_missing", leads=(pytest.fail("was read") for _ in "x"))


def test_source_without_any_lemlist_field_aborts_load(lemlist: Sandbox, run: Runner) -> None:
    with pytest.raises(LemlistValidationError, match=r"No column maps to .*'E-Mail-Adresse', 'Vorname'"):
        run(leads=[{"E-Mail-Adresse": "ana@example.com", "Vorname": "Ana"}])
    assert not lemlist.requests(CREATE)


def test_truncated_character_makes_one_invalid_row(lemlist: Sandbox, run: Runner) -> None:
    assert run(leads=[*people(1), {"email": "x@example.com", "jobTitle": "Chef \ud83d"}], max_failed=1)[
        "created"
    ]
    assert run.outcomes() == ["created", "invalid"]


@pytest.fixture
def texts(lemlist: Sandbox, run: Runner) -> None:
    sequence = lemlist.state()["campaigns"][0]["sequenceId"]
    message = "<p>{{icebreaker}} {{plan | default: 'x'}} {% if city %}{{city}}{% endif %} {{signature}}</p>"
    lemlist.step(sequence, "email", subject="Hi {{ firstName | capitalize }}", message=message)


@pytest.mark.usefixtures("texts")
def test_variable_without_column_aborts_load_before_first_row(lemlist: Sandbox, run: Runner) -> None:
    with pytest.raises(
        LemlistValidationError, match=r"no column provides: 'icebreaker' \(did you mean 'ice_breakr'\?\)"
    ):
        run(leads=[{"email": "a@example.com", "firstName": "A", "ice_breakr": "x"}], variables=["ice_breakr"])
    assert not lemlist.requests(CREATE)


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize(
    "more",
    [{"defaults": {"icebreaker": "Hello"}}, {"if_variable_missing": "warn"}, {"linkedin_enrichment": True}],
)
def test_missing_variable_may_have_default_or_be_accepted_or_enriched(
    lemlist: Sandbox, run: Runner, more: Any
) -> None:
    assert run(leads=people(1), **more)["created"] == 1


@pytest.mark.usefixtures("texts")
def test_variable_blank_in_some_rows_is_logged(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    run(leads=[*people(2, icebreaker="x"), {"email": "b@example.com", "firstName": "", "icebreaker": "y"}])
    assert "uses 'firstName', which is blank in row 3" in caplog.text.replace("campaign use", "campaign uses")


def test_findings_name_rows_and_no_person(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bad = [{"email": f"secret{n}", "firstName": "Secret"} for n in range(7)]
    leads = [*people(3), *bad, {"email": "p1@example.com", "timezone": "Secret"}, {"email": "p1@example.com"}]
    run(leads=leads, max_failed=100, execution_timeout=timedelta(milliseconds=1))
    assert "12 rows: 3 valid, 8 invalid, 1 twice in the source." in caplog.text
    assert "7 rows (4, 5, 6, 7, 8, …): email: must be one email address" in caplog.text
    assert "row 11: timezone: must be an IANA time zone" in caplog.text
    assert "The same person as another row: row 12." in caplog.text
    assert "3 rows to send, at least" in caplog.text
    assert "longer than the execution_timeout" in caplog.text
    assert "created            3" in caplog.text
    assert not [word for word in ("secret", "Secret", "p1@", lemlist.api_key) if word in caplog.text]


def test_dry_run_sends_nothing(lemlist: Sandbox, run: Runner) -> None:
    report = run(leads=[*people(3), {"email": "x"}], dry_run=True, max_failed=1)
    assert (report["rows"], report["invalid"], report["not_tried"], report["ledger_path"]) == (4, 1, 3, None)
    assert not lemlist.requests(CREATE)
    assert not run.ledger.exists()
    with pytest.raises(LemlistValidationError, match="Nothing was sent"):
        run(leads=[{"email": "x"}], dry_run=True)
    run(leads=people(2))
    assert run(leads=people(3), dry_run=True)["not_tried"] == 1


# --- The previous run -------------------------------------------------------------------------------------


@pytest.fixture
def day(run: Runner, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run one day after another, each with its own ledger and that of the day before."""
    days = iter(range(1000))

    def day(leads: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        number = next(days)
        run.ledger = tmp_path / f"day-{number}"
        return run(leads=leads, previous_ledger=str(tmp_path / f"day-{number - 1}"), **more)

    return day


def test_daily_run_sends_only_changes(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    leads = people(4, plan="free", seats="1")
    day(leads, if_exists="update")
    leads[1] |= {"plan": "pro"}
    before = len(lemlist.requests())
    report = day([*leads, {"email": "new@example.com"}], if_exists="update")
    assert (report["unchanged"], report["updated"], report["created"]) == (3, 1, 1)
    assert len(lemlist.requests()) - before == 2 + 1 + 1
    (patch,) = lemlist.requests(UPDATE)
    assert json.loads(patch["request"]["body"]) == {"plan": "pro"}
    report = day([*leads, {"email": "new@example.com"}], if_exists="update")
    assert (report["unchanged"], report["rows"]) == (5, 5)


def test_skipped_day_breaks_no_chain_of_ledgers(lemlist: Sandbox, run: Runner, tmp_path: Path) -> None:
    for date in ("20", "21", "24"):
        run.ledger = tmp_path / "days" / f"2026-11-{date}"
        run(leads=PROFILES, previous_ledger=str(tmp_path / "days"))
    assert run.outcomes() == ["exists", "exists"]
    assert len(lemlist.state()["leads"]) == 2
    description = json.loads((run.ledger / "ledger.json").read_bytes())
    assert description["previous"].endswith("2026-11-21")


def test_rows_without_request_are_not_in_estimate_nor_dry_run(
    lemlist: Sandbox, day: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    day(people(4))
    caplog.set_level(logging.INFO)
    report = day(people(5), if_exists="update", dry_run=True)
    assert (report["unchanged"], report["not_tried"]) == (4, 1)
    assert "The previous ledger settles 4 rows without a request." in caplog.text
    assert "1 row to send, at least" in caplog.text


def test_if_exists_skip_sends_no_request_for_people_of_previous_run(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    day(people(3))
    day(people(4, plan="pro"))
    assert len(lemlist.requests(CREATE)) == 4
    assert run.outcomes() == ["exists"] * 3 + ["created"]
    day([{"linkedinUrl": "https://linkedin.com/in/ana"}])
    day([{"linkedinUrl": "https://linkedin.com/in/ana"}])
    assert len(lemlist.state()["leads"]) == 5


def test_update_without_previous_ledger_sends_fields_that_differ_in_lemlist(
    lemlist: Sandbox, run: Runner
) -> None:
    lemlist.lead(run.campaign_id, "p1@example.com", firstName="P1", plan="free")
    lemlist.lead(run.campaign_id, "p2@example.com", firstName="P2", plan="pro")
    run(leads=people(3, plan="pro"), if_exists="update")
    assert run.outcomes() == ["updated", "unchanged", "created"]
    (patch,) = lemlist.requests(UPDATE)
    assert json.loads(patch["request"]["body"]) == {"plan": "pro"}


def test_deleted_or_unsubscribed_lead_is_not_created_again(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    hook = LemlistHook()
    day(people(3))
    hook.delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    hook.unsubscribe_lead(run.campaign_id, "p2@example.com")
    for plan in ("a", "b"):
        day(people(3, plan=plan), if_exists="update")
        assert run.outcomes() == ["gone", "gone", "updated"]
    assert emails(lemlist)["p1@example.com"] == 0


@pytest.mark.parametrize(
    ("if_gone", "outcomes"), [("skip", ["gone", "gone"]), ("create", ["created", "gone"])]
)
def test_deleted_lead_is_created_again_only_if_gone_says_so(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]], if_gone: str, outcomes: list[str]
) -> None:
    hook = LemlistHook()
    day(people(2, plan="a"))
    hook.delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    hook.unsubscribe_lead(run.campaign_id, "p2@example.com")  # an unsubscribed person is never put back
    day(people(2, plan="b"), if_exists="update")
    assert run.outcomes() == ["gone", "gone"]
    day(people(2, plan="b"), if_exists="update", if_gone=if_gone)
    assert run.outcomes() == outcomes
    assert emails(lemlist)["p1@example.com"] == (if_gone == "create")
    if if_gone == "create":
        assert day(people(1, plan="b"), if_exists="update")["unchanged"] == 1


def test_if_gone_fail_counts_deleted_lead_as_failed(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    day(people(2, plan="a"))
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    with pytest.raises(LemlistError, match="1 failed of 2 rows"):
        day(people(2, plan="b"), if_exists="update", if_gone="fail")
    assert run.outcomes() == ["failed", "updated"]
    assert emails(lemlist)["p1@example.com"] == 0
    day(people(2, plan="b"), if_exists="update")
    assert run.outcomes() == ["gone", "unchanged"]


def test_deleted_lead_without_email_is_not_created_again_twice_after_a_kill(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, day: Callable[..., dict[str, Any]]
) -> None:
    day(PROFILES[:1])
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    more = {
        "leads": [PROFILES[0] | {"plan": "b"}],
        "previous_ledger": str(run.ledger),
        "if_exists": "update",
        "if_gone": "create",
    }
    run.ledger = run.ledger.with_name("day-1")
    kill(run, monkeypatch, run.task(**more), effect=True)
    with pytest.raises(LemlistError, match="1 uncertain of 1 rows"):
        run(**more)
    assert len(lemlist.state()["leads"]) == 1


PROFILES = [{"linkedinUrl": f"https://www.linkedin.com/in/{name}", "plan": "a"} for name in ("ana", "ben")]


@pytest.mark.parametrize(
    "source",
    [PROFILES[1:], [PROFILES[0] | {"timezone": "Mars"}, PROFILES[1]], []],
    ids=["missing", "invalid", "empty"],
)
def test_person_missing_or_invalid_on_one_day_is_known_on_the_next(
    lemlist: Sandbox, day: Callable[..., dict[str, Any]], source: list[dict[str, Any]]
) -> None:
    day(PROFILES)
    for _ in range(2):
        day(source, max_failed=1)
    assert day(PROFILES)["exists"] == 2
    assert len(lemlist.state()["leads"]) == 2


def test_deleted_lead_is_not_created_again_after_a_day_without_the_person(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    day(people(2))
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    day(people(2)[1:], if_exists="update")
    day(people(2, plan="b"), if_exists="update")
    assert run.outcomes() == ["gone", "updated"]


def test_person_who_gains_and_loses_address_stays_one_lead(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    day(PROFILES[:1])
    day([PROFILES[0] | {"email": "ana@example.com", "plan": "b"}], if_exists="update")
    day([PROFILES[0] | {"plan": "c"}], if_exists="update")
    assert run.outcomes() == ["updated"]
    (lead,) = lemlist.state()["leads"]
    assert lead["variables"] == PROFILES[0] | {"plan": "c"}


def test_person_with_and_without_address_is_sent_once_in_any_order(lemlist: Sandbox, run: Runner) -> None:
    leads = [PROFILES[0], PROFILES[0] | {"email": "ana@example.com"}, PROFILES[1]]
    for order in (leads, leads[::-1], leads[:1]):
        run(leads=order)
    assert len(lemlist.requests(CREATE)) == 2
    assert Counter(run.outcomes()) == {"created": 2, "duplicate": 1}


def test_failed_update_is_sent_again_the_next_day(
    lemlist: Sandbox, run: Runner, day: Callable[..., dict[str, Any]]
) -> None:
    day(people(2, plan="a"))
    lemlist.fault(UPDATE, "status", status=400, text="no")
    with pytest.raises(LemlistError):
        day(people(2, plan="b"), if_exists="update")
    assert Counter(run.outcomes()) == {"failed": 1, "updated": 1}
    assert day(people(2, plan="b"), if_exists="update")["updated"] == 1
    assert {lead["variables"]["plan"] for lead in lemlist.state()["leads"]} == {"b"}


def test_change_not_sent_by_skip_is_sent_by_later_update(
    lemlist: Sandbox, day: Callable[..., dict[str, Any]]
) -> None:
    day(people(1, plan="free"))
    day(people(1, plan="pro"))
    assert day(people(1, plan="pro"), if_exists="update")["updated"] == 1
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "pro"


def test_change_while_row_was_in_doubt_is_sent_by_later_update(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, day: Callable[..., dict[str, Any]]
) -> None:
    run.ledger = run.ledger.with_name("day-0")
    kill(run, monkeypatch, run.task(leads=people(1, plan="free")), effect=True)
    assert day(people(1, plan="pro"))["created"] == 1
    assert day(people(1, plan="pro"), if_exists="update")["updated"] == 1
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "pro"


# --- Sources, templates, arguments ----------------------------------------------------------------------


def test_query_is_loaded(
    lemlist: Sandbox, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sqlite3.connect(tmp_path / "w.db")
    database.execute("CREATE TABLE people AS SELECT 'ana@example.com' AS MAIL, '2026-11-20' AS DAY")
    database.commit()
    conn = {"conn_type": "sqlite", "host": str(tmp_path / "w.db")}
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps(conn))
    sql = "SELECT * FROM people WHERE day = '{{ ds }}'"
    run(sql=sql, sql_conn_id="w", column_map={"MAIL": "email", "DAY": "since"})
    assert lemlist.state()["leads"][0]["variables"] == {"email": "ana@example.com", "since": "2026-11-20"}


def test_file_is_loaded(lemlist: Sandbox, run: Runner, tmp_path: Path) -> None:
    (tmp_path / "leads-2026-11-20.csv").write_text("email;firstName\nana@example.com;\n")
    run(path=f"{tmp_path}/leads-{{{{ ds }}}}.csv", defaults={"firstName": "{{x}}"})
    assert lemlist.state()["leads"][0]["variables"] == {"email": "ana@example.com", "firstName": "{{x}}"}


def test_airflow_renders_only_airflow_text_in_values(lemlist: Sandbox, run: Runner) -> None:
    leads = [
        {"email": "a@example.com", "icebreaker": "{{firstName}} {% raw", "since": AirflowText("[[ ds ]]")},
        {"email": "b@example.com", "icebreaker": literal("{{ ds }}")},
    ]
    run(leads=leads)
    # Rows are sent concurrently, in no particular order.
    assert sorted((lead["variables"] for lead in lemlist.state()["leads"]), key=itemgetter("email")) == [
        {"email": "a@example.com", "icebreaker": "{{firstName}} {% raw", "since": "2026-11-20"},
        {"email": "b@example.com", "icebreaker": "{{ ds }}"},
    ]


def test_upstream_result_in_leads_makes_a_dependency(run: Runner) -> None:
    with DAG("d", schedule=None):
        up = BaseOperator(task_id="up")
        whole = run.task(leads=up.output)
        inside = LoadLeadsOperator(
            task_id="inside",
            campaign_id="cam_1",
            leads=[{"email": "a@example.com", "icebreaker": up.output["line"]}, up.output["row"]],
        )
    assert whole.upstream_task_ids == inside.upstream_task_ids == {"up"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of leads, sql and path; none is given"),
        ({"leads": [], "path": "x.csv"}, "leads and path are given"),
        ({"sql": "SELECT 1"}, "belong together"),
        ({"leads": [], "sql_conn_id": "x"}, "belong together"),
        ({"leads": [], "sql_parameters": [1]}, "need sql"),
        ({"leads": "a@example.com"}, "must be a list of dicts, not str"),
        ({"leads": {"email": "a@example.com"}}, "must be a list of dicts, not dict"),
        ({"leads": [], "if_exists": "return"}, "must be one of skip, update, not 'return'"),
        ({"leads": [], "if_variable_missing": "x"}, "must be one of fail, warn"),
        ({"leads": [], "max_failed": -1}, "a whole number from 0"),
        ({"leads": [], "max_failed": 0.1}, "a whole number from 0"),
        ({"leads": [], "variables": "plan"}, "must be a list of names"),
        ({"leads": [], "column_map": ["a"]}, "must be a dict"),
        ({"leads": [], "column_map": {"fn": "firstname"}}, "is close to 'firstName'"),
        ({"leads": [], "defaults": {"timezone": "Paris"}}, "IANA"),
        ({"leads": [], "if_gone": "put back"}, "must be one of skip, create, fail"),
        (
            {"leads": [{"icebreaker": "See you {{ ds }}"}]},
            r"leads\[0\] of task 'load'.*icebreaker: .*AirflowText",
        ),
        ({"leads": [], "defaults": {"icebreaker": "{{ params.x }}"}}, "defaults of task 'load'.*AirflowText"),
        ({"leads": [], "campaign_id": ""}, "must be an id"),
        ({"leads": [], "find_email": "perhaps"}, "must be true or false"),
    ],
)
def test_invalid_arguments_are_found_when_dag_is_parsed(run: Runner, arguments: Any, message: str) -> None:
    with pytest.raises((LemlistConfigurationError, LemlistValidationError), match=message):
        run.task(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"leads": literal("text")}, "must be a list of dicts, not str"),
        ({"leads": literal(None)}, "must be one source"),
        ({"leads": literal(7)}, "must be a list of dicts, not int"),
        ({"path": "{{ '' }}"}, "is empty"),
        ({"path": "ftp9://x/y.csv"}, "cannot open"),
        ({"sql": "{{ '' }}", "sql_conn_id": "x"}, "The sql of task 'load' is empty"),
        (
            {"leads": [], "ledger_path": "/x/{{ ds }}", "previous_ledger": "/x/2026-11-20"},
            "is the ledger itself",
        ),
    ],
)
def test_invalid_rendered_arguments_send_no_request(
    lemlist: Sandbox, run: Runner, arguments: Any, message: str
) -> None:
    with pytest.raises((LemlistConfigurationError, LemlistValidationError), match=message):
        run(**arguments)
    assert not lemlist.requests()


SQL = {"sql": "SELECT 1 AS email", "sql_conn_id": "x"}


@pytest.mark.parametrize("empty", ["{{ None }}", "{{ '' }}", "{{ params.missing }}", literal(None), " "])
@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("path", {}),
        ("sql", {"sql_conn_id": "x"}),
        ("sql_conn_id", SQL),
        ("storage_conn_id", {"leads": []}),
        ("ledger_path", {"leads": []}),
        ("previous_ledger", {"leads": []}),
    ],
)
def test_given_but_empty_argument_sends_no_request(
    lemlist: Sandbox, run: Runner, name: str, others: dict[str, Any], empty: Any
) -> None:
    with pytest.raises(LemlistValidationError, match=f"The {name} of task 'load' is empty"):
        run(**{**others, name: empty})
    assert not lemlist.requests()


def test_none_in_the_dag_file_means_not_given(run: Runner) -> None:
    assert (
        run(leads=people(1), storage_conn_id=None, previous_ledger=None, path=None, sql=None)["created"] == 1
    )


def test_none_for_a_map_index_is_not_the_default(lemlist: Sandbox, run: Runner) -> None:
    task = run.task(leads=[], ledger_path=None, _airflow_from_mapped=True)
    with pytest.raises(LemlistValidationError, match="The ledger_path of task 'load' is empty"):
        run(task)


def test_dry_run_method_of_base_operator_still_works(run: Runner) -> None:
    run.task(leads=[], dry_run=True).dry_run()


def test_every_template_field_is_an_attribute(run: Runner) -> None:
    task = run.task(leads=[])
    assert all(hasattr(task, name) for name in task.template_fields)
