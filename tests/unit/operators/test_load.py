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
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, BaseOperator, literal

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.concurrency import MAX_THREADS
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
from airflow_provider_lemlist.load.run import SETTLE_TIME
from airflow_provider_lemlist.operators.load import LoadLeadsOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.templating import AirflowText
from tests.waiting import wait_for

# An error that Python would only print, as in a generator that is closed too late.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

CREATE = "POST /campaigns/{campaignId}/leads/"
UPDATE = "PATCH /campaigns/{campaignId}/leads/{leadId}"
LOOK_UP = "GET /leads/{email}"
EXPORT = "GET /campaigns/{campaignId}/export/leads"
#: Requests of a load that changes nothing: the unsubscribes, the campaign, its sequences, its leads.
LOOK = 4
#: People without an address.
PROFILES = [{"linkedinUrl": f"https://www.linkedin.com/in/{name}", "plan": "a"} for name in ("ana", "ben")]
ANA = PROFILES[0]


@pytest.fixture
def lemlist(quick_lemlist: Sandbox) -> Sandbox:
    return quick_lemlist


@pytest.fixture
def campaign(lemlist: Sandbox) -> str:
    return str(lemlist.campaign()["_id"])


class Runner:
    """Run attempts of a task, in any night and on any ledger."""

    def __init__(self, campaign_id: str, ledger: Path) -> None:
        self.campaign_id = campaign_id
        self.ledger = ledger
        self.pushed: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        #: The folder in which the last run has written its rows.
        self.folder = ""

    def task(self, **arguments: Any) -> LoadLeadsOperator:
        given = {"task_id": "load", "campaign_id": self.campaign_id, "ledger_path": str(self.ledger)}
        return LoadLeadsOperator(**{**given, **arguments})

    def context(self, task: Any, night: int = 20, attempt: int = 1, map_index: int = -1) -> Any:
        """Return the context of an attempt; ``night`` is the day of November for which the run was due."""
        self.pushed = {}
        due = datetime(2026, 11, night, tzinfo=UTC)
        ti = SimpleNamespace(
            dag_id="daily", run_id=f"night-{night}", task_id=task.task_id, map_index=map_index, task=task,
            try_number=attempt,
            xcom_push=lambda key, value: self.pushed.update({key: json.loads(json.dumps(value))}),
        )  # fmt: skip
        events = SimpleNamespace(extra=self.extra)
        return {
            "ti": ti,
            "dag_run": SimpleNamespace(logical_date=due, run_after=due, conf={}),
            "run_id": ti.run_id,
            "ds": f"{due:%Y-%m-%d}",
            "outlet_events": {outlet: events for outlet in task.outlets or ()},
            "params": {},
        }

    def __call__(
        self, task: LoadLeadsOperator | None = None, *, night: int = 20, attempt: int = 1, **arguments: Any
    ) -> dict[str, Any]:
        task = task or self.task(**arguments)
        context = self.context(task, night, attempt)
        self.folder = f"night-{night}.daily.{task.task_id}"
        task.render_template_fields(context)
        return task.execute(context)

    def lines(self) -> list[dict[str, Any]]:
        """Read the outcomes of the last run."""
        files = (self.ledger / "runs" / self.folder).glob("*.ndjson")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def rows(self) -> dict[int, dict[str, Any]]:
        """Read the outcomes of the last run by row number, and make sure that no row has two."""
        rows = sorted((line for line in self.lines() if line["row"]), key=itemgetter("row"))
        assert max(Counter(map(itemgetter("row"), rows)).values(), default=1) == 1
        return {line["row"]: line for line in rows}

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.rows().values()]

    def departures(self) -> list[str]:
        """Read what the last run did to people who left the source."""
        return [line["outcome"] for line in self.lines() if line["row"] is None]

    def known(self) -> list[dict[str, Any]]:
        """Read everyone who was loaded."""
        first, *lines = (self.ledger / "people.ndjson").read_text().splitlines()
        assert "runs" in json.loads(first)
        return [json.loads(line) for line in lines]


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
        "address_changed": 0, "suppressed": 0, "newer": 0, "waiting": 0, "paused": 0, "unsubscribed": 0,
        "deleted": 0, "left": 0,
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
    assert again == first | {"settled_before": 5}
    assert not lemlist.requests(LOOK_UP)


def test_each_attempt_adds_its_own_outcomes_to_the_metrics(
    lemlist: Sandbox, run: Runner, emitted: Any
) -> None:
    run(leads=[*people(30), *people(1)], dry_run=True)
    assert not any(".rows." in name for name in emitted.counters)
    lemlist.fault(CREATE, "status", skip=2, status=402, text="Upgrade your plan")
    with pytest.raises(LemlistPlanError):
        run(leads=people(30))
    created = emitted.counters["lemlist.rows.created"]
    assert 2 <= created == len(lemlist.state()["leads"]) < 30
    run(leads=people(30), attempt=2)
    rows = {name: count for name, count in emitted.counters.items() if name.startswith("lemlist.rows")}
    assert sum(rows.values()) == 30
    assert rows["lemlist.rows.created"] >= created


# --- Suppression --------------------------------------------------------------------------------------


def unsubscribe(lemlist: Sandbox, *values: str) -> None:
    for value in values:
        lemlist.service.world.unsubscribe(value)


@pytest.fixture
def excluded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``excluded("a@x.example")`` returns the arguments for a table with these values."""
    file = tmp_path / "blocked.db"
    monkeypatch.setenv("AIRFLOW_CONN_BLOCKED", json.dumps({"conn_type": "sqlite", "host": str(file)}))

    def fill(*values: str) -> dict[str, Any]:
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE blocked(entry)")
            database.executemany("INSERT INTO blocked VALUES (?)", [(value,) for value in values])
        return {"exclude_sql": "SELECT entry FROM blocked", "exclude_sql_conn_id": "blocked"}

    return fill


def test_people_on_lemlists_list_are_never_sent(lemlist: Sandbox, run: Runner) -> None:
    unsubscribe(lemlist, "P1@example.com", "@norte.example", "linkedin.com/in/ana", "+33 6 12 34 56 78")
    lemlist.lead(run.campaign_id, "p3@norte.example", firstName="Old")
    leads = [
        {"email": "p1@EXAMPLE.com"},
        {"email": "p1+news@example.com"},
        {"email": "p3@norte.example", "firstName": "New"},
        {"email": "p4@mail.norte.example"},
        {"email": "p5@example.com", "linkedinUrl": "https://www.linkedin.com/in/Ana/"},
        {"email": "p6@example.com", "phone": "0033612345678"},
        {"email": "p7@example.com"},
    ]
    report = run(leads=leads, if_exists="update")
    expected = ["suppressed", "created", *["suppressed"] * 4, "created"]
    assert run.outcomes() == expected
    assert (report["suppressed"], report["created"]) == (5, 2)
    assert run.rows()[4]["message"] == "its domain is in lemlist's list"
    assert not lemlist.requests(UPDATE)
    assert len(lemlist.requests("GET /v2/unsubscribes/*")) == 1
    # A second attempt and another night find the same, without a request for any row.
    before = len(lemlist.requests())
    assert run(leads=leads, attempt=2)["suppressed"] == 5
    run(leads=leads, night=21)
    assert run.outcomes() == [each.replace("created", "exists") for each in expected]
    assert len(lemlist.requests()) - before == 2 * LOOK


def test_switch_sends_people_on_lemlists_list(lemlist: Sandbox, run: Runner) -> None:
    unsubscribe(lemlist, "p1@example.com")
    run(leads=people(2), exclude_unsubscribed=False)
    assert run.outcomes() == ["created", "created"]
    assert not lemlist.requests("GET /v2/unsubscribes/*")


def test_lists_of_the_user_exclude_by_value_and_domain(run: Runner, excluded: Any, tmp_path: Path) -> None:
    (tmp_path / "partners.csv").write_text("name;domain;email\nNorte;norte.example;\nEva;;p2@example.com\n")
    arguments = excluded("p1@example.com") | {"exclude_path": str(tmp_path / "partners.csv")}
    run(leads=[*people(3), {"email": "ben@sub.norte.example"}], exclude_unsubscribed=False, **arguments)
    assert [(row["outcome"], row["message"]) for row in run.rows().values()] == [
        ("suppressed", "its address is in exclude_sql"),
        ("suppressed", "its address is in exclude_path"),
        ("created", ""),
        ("suppressed", "its domain is in exclude_path"),
    ]


def test_exclusions_are_read_from_the_database_of_the_rows(run: Runner, excluded: Any) -> None:
    query = excluded("p1@example.com", "p2@example.com")["exclude_sql"]
    source = "SELECT entry AS email FROM blocked"
    blocked = "{{ 'SELECT entry FROM blocked' }} WHERE entry LIKE 'p1%'"
    run(sql=source, sql_conn_id="blocked", exclude_sql=blocked)
    assert run.outcomes() == ["suppressed", "created"]
    run(night=21, sql=source, sql_conn_id="blocked", exclude_sql=query)
    assert run.outcomes() == ["suppressed", "suppressed"]


def test_exclusions_are_read_from_a_database_of_their_own(
    run: Runner, excluded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    excluded("p1@example.com")
    conn = {"conn_type": "sqlite", "host": str(tmp_path / "w.db")}
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps(conn))
    with sqlite3.connect(tmp_path / "w.db") as database:
        database.execute("CREATE TABLE people AS SELECT 'p1@example.com' AS email")
    given = record_database_hooks(monkeypatch)
    source = {"sql": "SELECT * FROM people", "sql_conn_id": "w", "sql_hook_params": {"log_sql": False}}
    run(**source, exclude_sql="SELECT * FROM blocked", exclude_sql_conn_id="blocked")
    assert run.outcomes() == ["suppressed"]
    # The arguments of the hook are those of one database.
    assert {each["sqlite_conn_id"]: each.get("log_sql") for each in given} == {"w": False, "blocked": None}
    given.clear()
    run(night=21, **source, exclude_sql="SELECT * FROM people")
    assert run.outcomes() == ["suppressed"]
    assert [each["log_sql"] for each in given] == [False, False]


def record_database_hooks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list to which the arguments of every database hook are added."""
    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    given: list[Any] = []
    real: Any = SqliteHook.__init__

    def record(hook: SqliteHook, *arguments: Any, **more: Any) -> None:
        given.append(more)
        real(hook, *arguments, **more)

    monkeypatch.setattr(SqliteHook, "__init__", record)
    return given


NO_ENTRIES = "exclude_sql cannot be used: it has no values"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"exclude_sql": "SELECT entry FROM blocked WHERE entry = 'x'"}, NO_ENTRIES),
        ({"exclude_sql": "SELECT 1 AS a, 2 AS b"}, "its columns are 'a', 'b'"),
        ({"exclude_sql": "SELECT 17 AS id"}, "no value of 'id' is an address"),
        ({"exclude_path": "{tmp}/none.csv"}, "exclude_path: path .*none.csv does not exist"),
        ({"exclude_path": "{tmp}/empty.csv"}, "exclude_path: path .*empty.csv has no header line"),
        ({"exclude_path": "{tmp}/header.csv"}, "exclude_path cannot be used: it has no values"),
        ({"exclude_path": "{{ none }}"}, "The exclude_path of task 'load' is empty"),
        ({"exclude_sql": "{{ '' }}"}, "The exclude_sql of task 'load' is empty"),
        ({"exclude_sql_conn_id": "{{ '' }}"}, "The exclude_sql_conn_id of task 'load' is empty"),
        ({"exclude_sql": ["SELECT 1"]}, "The exclude_sql of task 'load' must be a query, not list"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(next(iter(value.values()))),
)
def test_exclusions_that_cannot_be_used_stop_the_load_before_any_request(
    lemlist: Sandbox, run: Runner, excluded: Any, tmp_path: Path, argument: dict[str, Any], says: str
) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("email\n")
    path = argument.get("exclude_path", "").replace("{tmp}", str(tmp_path))
    given = argument | ({"exclude_path": path} if path else {})
    more = {} if path else excluded("p1@example.com")
    with pytest.raises(LemlistValidationError, match=f"{says}.*Nothing was sent"):
        run(leads=people(2), **more | given)
    assert lemlist.requests() == []


def test_exclusions_from_what_is_no_database_name_the_argument(lemlist: Sandbox, run: Runner) -> None:
    with pytest.raises(LemlistConfigurationError, match="^exclude_sql: sql_conn_id 'lemlist_default' is"):
        run(leads=people(1), exclude_sql="SELECT 1", exclude_sql_conn_id="lemlist_default")
    assert lemlist.requests() == []


def test_empty_exclusions_are_accepted_on_request(run: Runner, excluded: Any) -> None:
    run(leads=people(1), **excluded(), allow_empty_exclusions=True)
    assert run.outcomes() == ["created"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"exclude_sql": "SELECT 1"}, "The exclude_sql of task 'load' needs exclude_sql_conn_id"),
        ({"exclude_sql_conn_id": "blocked"}, "The exclude_sql_conn_id of task 'load' needs exclude_sql"),
        ({"exclude_unsubscribed": "false"}, "The exclude_unsubscribed of task 'load' must be True or False"),
        ({"allow_empty_exclusions": None}, "allow_empty_exclusions of task 'load' must be True or False"),
    ],
)
def test_wrong_exclusions_are_found_when_the_dag_is_parsed(
    run: Runner, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(LemlistConfigurationError, match=says):
        run.task(leads=people(1), **arguments)


@pytest.mark.parametrize("value", ["p1@example.com", "+33612345678"])
@pytest.mark.parametrize("reverse", [False, True])
def test_person_who_is_twice_in_the_source_is_suppressed_by_either_row(
    lemlist: Sandbox, run: Runner, reverse: bool, value: str
) -> None:
    unsubscribe(lemlist, value)
    leads = [
        {"email": "p1@example.com", "linkedinUrl": PROFILES[0]["linkedinUrl"]},
        {"linkedinUrl": PROFILES[0]["linkedinUrl"], "phone": "+33612345678"},
    ]
    run(leads=leads[::-1] if reverse else leads)
    assert sorted(run.outcomes()) == ["duplicate", "suppressed"]
    assert not lemlist.requests(CREATE)


def test_person_of_a_key_is_suppressed_by_the_address_that_lemlist_has(
    lemlist: Sandbox, run: Runner, excluded: Any
) -> None:
    run(leads=[{"id": "17", "email": "old@example.com"}], key="id")
    leads = [{"id": "17", "email": "new@example.com"}]
    arguments = {"key": "id", "if_address_changed": "create", **excluded("old@example.com")}
    run(night=21, leads=leads, **arguments)
    assert run.outcomes() == ["suppressed"]
    assert len(lemlist.requests(CREATE)) == 1


@pytest.mark.parametrize("value", ["old@example.com", "+33612345678"])
def test_person_with_two_leads_is_suppressed_by_either(
    lemlist: Sandbox, run: Runner, excluded: Any, value: str
) -> None:
    run(leads=[{"id": "17", "email": "old@example.com"}], key="id")
    lemlist.lead(run.campaign_id, "new@example.com", firstName="Old", phone="+33612345678")
    leads = [{"id": "17", "email": "new@example.com", "firstName": "New"}]
    run(night=21, leads=leads, key="id", if_exists="update", **excluded(value))
    assert run.outcomes() == ["suppressed"]
    assert not lemlist.requests(UPDATE)


def test_outcome_of_an_earlier_attempt_stays_when_the_person_unsubscribes(
    lemlist: Sandbox, run: Runner
) -> None:
    run(leads=people(2))
    unsubscribe(lemlist, "p1@example.com")
    report = run(leads=people(2), attempt=2)
    assert (report["created"], report["suppressed"]) == (2, 0)
    run(night=21, leads=people(2))
    assert run.outcomes() == ["suppressed", "exists"]


def test_person_who_is_subscribed_again_is_created(lemlist: Sandbox, run: Runner) -> None:
    unsubscribe(lemlist, "p1@example.com")
    run(leads=people(1))
    lemlist.service.world.unsubscribes.clear()
    run(leads=people(1), attempt=2)
    assert run.outcomes() == ["created"]


def test_suppressed_person_is_not_missing_from_the_source(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "delete", "max_missing": 1}
    run(leads=people(2), **options)
    unsubscribe(lemlist, "p1@example.com")
    run(night=21, leads=people(2), **options)
    assert (run.outcomes(), run.departures()) == (["suppressed", "exists"], [])
    assert emails(lemlist) == {"p1@example.com": 1, "p2@example.com": 1}


def test_suppressed_person_who_returns_is_not_resumed(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "pause", "max_missing": 1}
    run(leads=people(2), **options)
    run(night=21, leads=people(1), **options)
    unsubscribe(lemlist, "@example.com")
    run(night=22, leads=people(2), **options)
    assert run.outcomes() == ["suppressed", "suppressed"]
    assert status(lemlist, "p2@example.com") == "paused"


def test_suppressed_people_do_not_count_as_new(lemlist: Sandbox, run: Runner) -> None:
    unsubscribe(lemlist, "p1@example.com")
    run(leads=people(3), max_new=1)
    assert run.outcomes() == ["suppressed", "created", "waiting"]


def test_list_that_lemlist_does_not_return_stops_the_load(lemlist: Sandbox, run: Runner) -> None:
    lemlist.fault("GET /v2/unsubscribes/exports/variables", "status", status=500, times=9)
    with pytest.raises(LemlistServerError):
        run(leads=people(1))
    assert not lemlist.requests(CREATE)


def test_dry_run_shows_who_is_suppressed_without_naming_them(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    unsubscribe(lemlist, "p2@example.com", "p3@example.com")
    with caplog.at_level(logging.INFO, "airflow_provider_lemlist"):
        leads = [*people(2), {"email": "p3@example.com", "plan": "pro"}]
        assert run(leads=leads, dry_run=True)["suppressed"] == 2
    assert "lemlist has 2 unsubscribed values." in caplog.text
    assert "Suppressed, because its address is in lemlist's list: 2 rows (2, 3)." in caplog.text
    assert "plan" not in caplog.text  # nothing is sent of them
    assert "example.com" not in caplog.text


# --- Who is in the campaign ---------------------------------------------------------------------------


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


def test_default_ledger_is_one_per_campaign_and_knows_people_without_address(
    lemlist: Sandbox, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    for night in (1, 2):
        report = run(night=night, leads=PROFILES, ledger_path=None)
    assert report["ledger_path"].startswith(str(tmp_path / "lemlist-ledgers"))
    run.ledger = Path(report["ledger_path"])
    assert run.ledger.name == run.campaign_id
    assert run.outcomes() == ["exists", "exists"]
    assert len(lemlist.state()["leads"]) == 2


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
    assert len(lemlist.requests()) - before == LOOK + 2
    assert run.outcomes() == ["created"] * 6


def test_task_with_only_invalid_rows_is_not_retried(lemlist: Sandbox, run: Runner) -> None:
    with pytest.raises(LemlistValidationError, match="1 invalid of 3 rows") as raised:
        run(leads=[*people(2), {"email": "x"}])
    assert isinstance(raised.value, AirflowFailException)
    assert emails(lemlist).total() == 2


def test_max_failed_allows_some_rows_to_fail(lemlist: Sandbox, run: Runner) -> None:
    assert run(leads=[*people(2), {"email": "x"}, "y"], max_failed=2)["invalid"] == 2


# --- Killed --------------------------------------------------------------------------------------------


def kill(
    run: Runner,
    monkeypatch: pytest.MonkeyPatch,
    task: LoadLeadsOperator,
    *,
    effect: bool,
    method: str = "create_lead",
    after: int = 0,
    night: int = 20,
) -> None:
    """
    Simulate the death of the process while a row is in flight: nothing more is written to the ledger.

    :param effect: Whether lemlist carries the request out.
    :param after: How many requests are carried out before it, with their outcomes in the ledger or not.
    """
    from airflow_provider_lemlist.ledger.ledger import Ledger

    real = getattr(task.hook, method)
    turns = iter(range(1000))
    dead = threading.Event()

    def die(*arguments: Any, **flags: Any) -> Any:
        if dead.is_set():
            raise RuntimeError("dead")
        if next(turns) < after:
            return real(*arguments, **flags)
        dead.set()
        if effect:
            real(*arguments, **flags)
        patched.setattr(Ledger, "write", lambda *_, **__: None)
        patched.setattr(Ledger, "release", lambda *_: None)
        raise RuntimeError("dead")

    with monkeypatch.context() as patched:
        patched.setattr(task.hook, method, die)
        with pytest.raises(RuntimeError, match="dead"):
            run(task, night=night)


@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before it"])
@pytest.mark.parametrize("lead", [{"email": "ana@example.com"}, ANA], ids=["address", "profile"])
def test_row_in_flight_at_kill_is_found_in_campaign_and_not_created_twice(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, effect: bool, lead: dict[str, str]
) -> None:
    kill(run, monkeypatch, run.task(leads=[lead]), effect=effect)
    assert len(lemlist.state()["leads"]) == effect
    run(leads=[lead], attempt=2)
    (there,) = lemlist.state()["leads"]
    row = run.rows()[1]
    assert (row["outcome"], row["lead_id"]) == ("created", there["_id"])
    assert len(lemlist.requests(CREATE)) == 1
    assert not lemlist.requests(LOOK_UP)


@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before it"])
def test_row_in_flight_at_kill_without_email_may_have_email_in_next_attempt(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, effect: bool
) -> None:
    kill(run, monkeypatch, run.task(leads=[ANA]), effect=effect)
    for attempt in (2, 3):
        run(leads=[ANA | {"email": "ana@example.com"}], attempt=attempt)
    assert len(lemlist.state()["leads"]) == 1
    assert run.outcomes() == ["created"]


def test_row_that_nothing_identifies_stays_uncertain_after_kill(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The export does not show the variable, so the lead cannot be told from others.
    leads: dict[str, Any] = {"leads": [{"firstName": "Ana", "plan": "a"}], "allow_unidentified": True}
    kill(run, monkeypatch, run.task(**leads), effect=True)
    for attempt in (2, 3):
        with pytest.raises(LemlistError, match="1 uncertain of 1 rows"):
            run(**leads, attempt=attempt)
    assert len(lemlist.state()["leads"]) == 1
    assert "nothing in it tells whether" in run.rows()[1]["message"]


def test_retry_on_machine_without_ledger_creates_no_one_twice(
    lemlist: Sandbox, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads = [{"linkedinUrl": f"https://www.linkedin.com/in/p{n}"} for n in range(30)]
    kill(run, monkeypatch, run.task(leads=leads), effect=True, after=12)
    created = len(lemlist.state()["leads"])
    assert 0 < created < 30
    run.ledger = tmp_path / "another machine"
    report = run(leads=leads, attempt=2)
    assert (report["exists"], report["created"]) == (created, 30 - created)
    assert Counter(lead["variables"]["linkedinUrl"] for lead in lemlist.state()["leads"]) == {
        lead["linkedinUrl"]: 1 for lead in leads
    }


def test_retry_waits_for_requests_of_attempt_before(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        # What the killed attempt has sent takes effect now.
        lemlist.lead(run.campaign_id, "", **ANA)

    monkeypatch.setattr(CLOCK, "sleep", sleep)
    run(leads=[ANA], attempt=2)
    assert slept == [SETTLE_TIME]
    assert run.outcomes() == ["exists"]
    assert len(lemlist.state()["leads"]) == 1


def test_lost_response_for_row_without_email_is_settled_by_same_attempt(
    lemlist: Sandbox, run: Runner
) -> None:
    lemlist.fault(CREATE, "reset", skip=1)
    leads = [{"linkedinUrl": f"https://www.linkedin.com/in/p{n}"} for n in range(3)]
    run(leads=leads)
    assert run.outcomes() == ["created"] * 3
    assert Counter(row["message"] for row in run.rows().values()) == {
        "": 2,
        "found after its response was lost": 1,
    }
    ids = {lead["variables"]["linkedinUrl"]: lead["_id"] for lead in lemlist.state()["leads"]}
    assert [row["lead_id"] for row in run.rows().values()] == [ids[lead["linkedinUrl"]] for lead in leads]


@pytest.mark.parametrize("by_hand", [False, True], ids=["left alone", "added by hand"])
@pytest.mark.parametrize("later", [{"attempt": 2}, {"night": 21}], ids=["retry", "next night"])
def test_lost_request_for_row_without_email_is_settled_later(
    lemlist: Sandbox, run: Runner, by_hand: bool, later: dict[str, Any]
) -> None:
    lemlist.fault(CREATE, "reset", when="before")
    with pytest.raises(LemlistError, match="1 uncertain of 1 rows"):
        run(leads=[ANA])
    if by_hand:
        lemlist.lead(run.campaign_id, "ana@example.com", linkedinUrl="linkedin.com/in/Ana/")
    run(leads=[ANA], **later)
    assert run.outcomes() == ["created"]
    (lead,) = lemlist.state()["leads"]
    assert lead["_id"] == run.rows()[1]["lead_id"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_outage_during_create_and_look_up_is_reconciled_by_next_attempt(
    lemlist: Sandbox, run: Runner, when: str
) -> None:
    lemlist.fault(CREATE, "status", status=503, when=when)
    lemlist.fault(LOOK_UP, "status", status=503, times=1000)
    with pytest.raises(LemlistError, match="1 failed of 1 rows") as raised:
        run(leads=people(1))
    assert raised.value.retryable
    created = len(lemlist.requests(CREATE))
    lemlist.clear_faults()
    run(leads=people(1), attempt=2)
    assert run.outcomes() == ["created"]
    assert emails(lemlist) == {"p1@example.com": 1}
    assert len(lemlist.requests(CREATE)) - created == (when == "before")


def test_duplicate_created_by_earlier_attempt_counts_as_created(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(run, monkeypatch, run.task(leads=people(1)), effect=True)
    lemlist.fault(EXPORT, "status", status=200, text="[]")  # it is not listed yet
    run(leads=people(1), attempt=2)
    row = run.rows()[1]
    assert (row["outcome"], row["lead_id"]) == ("created", lemlist.state()["leads"][0]["_id"])


def test_update_that_was_interrupted_is_sent_by_next_attempt(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lemlist.lead(run.campaign_id, "p1@example.com", plan="free")
    update: dict[str, Any] = {"leads": people(1, plan="pro"), "if_exists": "update"}
    kill(run, monkeypatch, run.task(**update), effect=False, method="update_lead")
    run(**update, attempt=2)
    assert run.outcomes() == ["updated"]
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "pro"


def test_change_while_row_was_in_doubt_is_sent(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(run, monkeypatch, run.task(leads=people(1, plan="free")), effect=True, night=1)
    assert run(night=2, leads=people(1, plan="pro"))["created"] == 1
    assert run(night=3, leads=people(1, plan="pro"), if_exists="update")["updated"] == 1
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "pro"


# --- Stopped --------------------------------------------------------------------------------------------

STOPS: dict[str, Any] = {
    "credits": ({"kind": "status", "status": 402, "text": "Not enough credits"}, LemlistPlanError),
    "key": ({"kind": "status", "status": 401, "text": ""}, LemlistAuthError),
    "campaign": ({"kind": "status", "status": 404, "text": "Campaign not found"}, LemlistNotFoundError),
}


@pytest.mark.parametrize("what", STOPS)
def test_error_that_concerns_every_row_aborts_load(lemlist: Sandbox, run: Runner, what: str) -> None:
    details, error = STOPS[what]
    lemlist.fault(CREATE, skip=10, times=1000, **details)
    with pytest.raises(error):
        run(leads=people(100))
    report = run.pushed["report"]
    assert report["created"] == 10
    assert report["not_tried"] == 90
    assert len(run.rows()) == 10
    assert len(lemlist.requests(CREATE)) < 60
    lemlist.clear_faults()
    assert run(leads=people(100))["created"] == 100
    assert set(emails(lemlist).values()) == {1}
    assert run.outcomes() == ["created"] * 100


def test_outage_of_lemlist_aborts_load_instead_of_failing_every_row(lemlist: Sandbox, run: Runner) -> None:
    lemlist.fault(CREATE, "status", status=503, times=100_000)
    with pytest.raises(LemlistServerError) as raised:
        run(leads=people(100))
    assert raised.value.retryable
    assert 20 <= run.pushed["report"]["failed"] < 60
    lemlist.clear_faults()
    run(leads=people(100))
    assert run.outcomes() == ["created"] * 100


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
    with Sandbox(latency=0.2) as slow, pytest.MonkeyPatch.context() as patch:
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

    with Sandbox(latency=0.2) as slow, pytest.MonkeyPatch.context() as patch:
        import signal

        def on_alarm(*_: Any) -> None:
            raise TimedOut

        def interrupt() -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

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
    from airflow_provider_lemlist.ledger.ledger import Ledger, Run
    from airflow_provider_lemlist.storage import storage_path

    first = Run("c.a.b", "2026", "a.b", "task a.b of run c, attempt 1")
    with (
        Ledger(storage_path(run.ledger, None, ""), run.campaign_id, first),
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


def test_campaign_with_auto_review_is_named_as_sending_at_once(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    service, campaign_id = lemlist.service, run.campaign_id
    caplog.set_level(logging.INFO)
    run(leads=people(1), dry_run=True)
    assert f"Campaign {campaign_id}: 'Spring webinar', draft, autoReview not known." in caplog.text
    service.undocumented = replace(service.undocumented, auto_review_listed=True)
    warning = (
        f"Campaign {campaign_id}: autoReview is on, so lemlist contacts each lead as soon as it is created."
    )
    run(leads=people(1), dry_run=True)
    assert warning not in caplog.text
    service.world.campaigns[campaign_id].auto_review = True
    run(leads=people(1), dry_run=True)
    assert warning in caplog.text


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
    assert "created                 3" in caplog.text
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


# --- Night after night ------------------------------------------------------------------------------------


def test_next_night_sends_only_changes(lemlist: Sandbox, run: Runner) -> None:
    leads = people(4, plan="free", seats="1")
    run(night=1, leads=leads, if_exists="update")
    leads[1] |= {"plan": "pro"}
    before = len(lemlist.requests())
    report = run(night=2, leads=[*leads, {"email": "new@example.com"}], if_exists="update")
    assert (report["unchanged"], report["updated"], report["created"]) == (3, 1, 1)
    assert len(lemlist.requests()) - before == LOOK + 1 + 1
    (patch,) = lemlist.requests(UPDATE)
    assert json.loads(patch["request"]["body"]) == {"plan": "pro"}
    report = run(night=3, leads=[*leads, {"email": "new@example.com"}], if_exists="update")
    assert (report["unchanged"], report["rows"]) == (5, 5)


def test_number_of_requests_does_not_grow_with_unchanged_people(lemlist: Sandbox, run: Runner) -> None:
    for n in range(1, 301):
        lemlist.lead(run.campaign_id, f"p{n}@example.com", firstName=f"P{n}")
    for night, if_exists, outcome in ((1, "skip", "exists"), (2, "update", "unchanged")):
        before = len(lemlist.requests())
        assert run(night=night, leads=people(300), if_exists=if_exists)[outcome] == 300
        assert len(lemlist.requests()) - before == LOOK <= 5


def test_rows_without_request_are_not_in_estimate_nor_dry_run(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    run(night=1, leads=people(4))
    caplog.set_level(logging.INFO)
    report = run(night=2, leads=people(5), if_exists="update", dry_run=True)
    assert (report["unchanged"], report["not_tried"]) == (4, 1)
    assert "4 leads in it." in caplog.text
    assert "1 row to send, at least" in caplog.text


def test_if_exists_skip_sends_no_request_for_people_in_campaign(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=[*people(1), ANA])
    before = len(lemlist.requests())
    run(night=2, leads=[*people(1, plan="pro"), ANA | {"plan": "pro"}])
    assert run.outcomes() == ["exists", "exists"]
    assert len(lemlist.requests()) - before == LOOK


def test_update_sends_fields_that_differ_in_lemlist(lemlist: Sandbox, run: Runner) -> None:
    lemlist.lead(run.campaign_id, "p1@example.com", firstName="P1", companyName="Free")
    lemlist.lead(run.campaign_id, "p2@example.com", firstName="P2", companyName="Pro")
    run(leads=people(3, companyName="Pro"), if_exists="update")
    assert run.outcomes() == ["updated", "unchanged", "created"]
    (patch,) = lemlist.requests(UPDATE)
    assert json.loads(patch["request"]["body"]) == {"companyName": "Pro"}


def test_update_that_lemlist_ignored_is_named_and_sent_again_the_next_night(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    for n in (1, 2):
        lemlist.lead(run.campaign_id, f"p{n}@example.com", firstName="Old")
    update: dict[str, Any] = {"leads": people(2, companyName="New"), "if_exists": "update"}
    lemlist.fault(UPDATE, "ignored", times=2)
    assert run(night=1, **update)["updated"] == 2
    assert {row["message"] for row in run.rows().values()} == {"lemlist did not take companyName, firstName"}
    for name in ("companyName", "firstName"):
        assert caplog.text.count(f"lemlist did not take the new value of '{name}' for 2 leads.") == 1
    assert run(night=2, **update)["updated"] == 2
    assert {row["message"] for row in run.rows().values()} == {""}
    assert run(night=3, **update)["unchanged"] == 2


def test_person_who_was_added_after_the_look_is_updated(lemlist: Sandbox, run: Runner) -> None:
    lemlist.lead(run.campaign_id, "p1@example.com", plan="a")
    update: dict[str, Any] = {"leads": people(1, plan="b"), "if_exists": "update"}
    lemlist.fault(EXPORT, "status", status=200, text="[]")
    run(**update)
    assert run.outcomes() == ["updated"]
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "b"


def test_variable_that_export_does_not_show_is_compared_with_what_was_sent(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    for night, plan, outcome in ((1, "a", "created"), (2, "a", "unchanged"), (3, "b", "updated")):
        caplog.clear()
        assert run(night=night, leads=people(2, plan=plan), if_exists="update")[outcome] == 2
        assert caplog.text.count("The export of the campaign does not show 'plan'") == 1
    assert len(lemlist.requests(UPDATE)) == 2
    assert all(person["sent"].keys() == {"plan"} for person in run.known())


def test_variable_that_export_shows_is_compared_with_lemlist_and_not_kept(
    run: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Sandbox(limit="none", requests=200, export_variables=True) as lemlist:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        run.campaign_id = lemlist.campaign()["_id"]
        lead = lemlist.lead(run.campaign_id, "p1@example.com", firstName="P1", plan="a")
        update: dict[str, Any] = {"leads": people(1, plan="b"), "if_exists": "update"}
        run(night=1, **update)
        LemlistHook().update_lead(run.campaign_id, lead["_id"], {"plan": "changed by hand"})
        assert run(night=2, **update)["updated"] == 1
        assert run(night=3, **update)["unchanged"] == 1
        assert lemlist.state()["leads"][0]["variables"]["plan"] == "b"
    assert "does not show" not in caplog.text
    assert [person["sent"] for person in run.known()] == [{}]
    assert not [line for line in run.lines() if line.get("sent")]


def test_person_who_gains_and_loses_address_stays_one_lead(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=[ANA])
    run(night=2, leads=[ANA | {"email": "ana@example.com", "plan": "b"}], if_exists="update")
    run(night=3, leads=[ANA | {"plan": "c"}], if_exists="update")
    assert run.outcomes() == ["updated"]
    (lead,) = lemlist.state()["leads"]
    assert lead["variables"] == ANA | {"plan": "c"}


def test_person_with_and_without_address_is_sent_once_in_any_order(lemlist: Sandbox, run: Runner) -> None:
    leads = [ANA, ANA | {"email": "ana@example.com"}, PROFILES[1]]
    for order in (leads, leads[::-1], leads[:1]):
        run(leads=order)
    assert len(lemlist.requests(CREATE)) == 2


def test_failed_update_is_sent_again_the_next_night(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=people(2, plan="a"))
    lemlist.fault(UPDATE, "status", status=400, text="no")
    with pytest.raises(LemlistError):
        run(night=2, leads=people(2, plan="b"), if_exists="update")
    assert Counter(run.outcomes()) == {"failed": 1, "updated": 1}
    assert run(night=3, leads=people(2, plan="b"), if_exists="update")["updated"] == 1
    assert {lead["variables"]["plan"] for lead in lemlist.state()["leads"]} == {"b"}


def test_change_not_sent_by_skip_is_sent_by_later_update(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=people(1, plan="free"))
    run(night=2, leads=people(1, plan="pro"))
    assert run(night=3, leads=people(1, plan="pro"), if_exists="update")["updated"] == 1
    assert lemlist.state()["leads"][0]["variables"]["plan"] == "pro"


# --- Nights in any order ----------------------------------------------------------------------------------


def test_older_night_neither_overwrites_newer_one_nor_creates_anyone_twice(
    lemlist: Sandbox, run: Runner
) -> None:
    run(night=1, leads=[ANA | {"plan": "trial"}], if_exists="update")
    run(night=3, leads=[ANA | {"plan": "pro"}], if_exists="update")
    before = len(lemlist.requests())
    run(night=2, leads=[ANA | {"plan": "trial"}, PROFILES[1]], if_exists="update")
    assert run.outcomes() == ["newer", "created"]
    assert len(lemlist.requests()) - before == LOOK + 1
    run(night=1, leads=[ANA | {"plan": "trial"}], if_exists="update")  # cleared
    assert run(night=4, leads=[ANA | {"plan": "pro"}], if_exists="update")["unchanged"] == 1
    assert sorted(lead["variables"]["plan"] for lead in lemlist.state()["leads"]) == ["a", "pro"]


def test_older_night_does_not_create_people_whom_newer_one_no_longer_has(
    lemlist: Sandbox, run: Runner
) -> None:
    run(night=3, leads=people(1), if_missing="pause")
    run(night=2, leads=people(2), if_missing="pause")
    assert run.outcomes() == ["newer", "newer"]
    assert emails(lemlist) == {"p1@example.com": 1}


@pytest.mark.parametrize("if_missing", ["pause", "unsubscribe", "delete"])
def test_older_night_does_nothing_to_people_who_are_missing(
    lemlist: Sandbox, run: Runner, if_missing: str
) -> None:
    options: dict[str, Any] = {"if_missing": if_missing, "max_missing": 1}
    run(night=3, leads=people(2), **options)
    before = len(lemlist.requests())
    report = run(night=2, leads=people(1), **options)
    assert (report["newer"], report["left"]) == (1, 0)
    assert len(lemlist.requests()) - before == LOOK
    run(night=2, leads=[], **options)  # even an empty source says nothing


# --- Deleted or unsubscribed in lemlist -------------------------------------------------------------------


def test_deleted_or_unsubscribed_lead_is_not_created_again(lemlist: Sandbox, run: Runner) -> None:
    hook = LemlistHook()
    run(night=1, leads=[*people(3), *PROFILES])
    hook.delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    hook.unsubscribe_lead(run.campaign_id, "p2@example.com")
    hook.delete_lead(run.campaign_id, run.rows()[4]["lead_id"])
    for night, plan in ((2, "b"), (3, "c")):
        leads = [*people(3, plan=plan), *(lead | {"plan": plan} for lead in PROFILES)]
        before = len(lemlist.requests())
        run(night=night, leads=leads, if_exists="update")
        assert len(lemlist.requests()) - before == LOOK + 2
        assert run.outcomes() == ["gone", "gone", "updated", "gone", "updated"]
    assert len(lemlist.state()["leads"]) == 3


def test_deleted_lead_is_not_created_again_after_night_without_the_person(
    lemlist: Sandbox, run: Runner
) -> None:
    run(night=1, leads=people(2))
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    run(night=2, leads=people(2)[1:])
    run(night=3, leads=people(2))
    assert run.outcomes() == ["gone", "exists"]


@pytest.mark.parametrize("lead", [{"email": "ana@example.com"}, ANA], ids=["address", "profile"])
def test_if_gone_create_creates_deleted_lead_again_once(
    lemlist: Sandbox, run: Runner, lead: dict[str, str]
) -> None:
    run(night=1, leads=[lead])
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    run(night=2, leads=[lead])
    assert run.outcomes() == ["gone"]
    for night, outcome in ((3, "created"), (4, "exists")):
        run(night=night, leads=[lead], if_gone="create")
        assert run.outcomes() == [outcome]
    assert run.rows()[1]["lead_id"] == lemlist.state()["leads"][0]["_id"]


def test_if_gone_fail_counts_deleted_lead_as_failed(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=people(2))
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    with pytest.raises(LemlistError, match="1 failed of 2 rows"):
        run(night=2, leads=people(2), if_gone="fail")
    assert run.outcomes() == ["failed", "exists"]
    assert emails(lemlist) == {"p2@example.com": 1}
    run(night=3, leads=people(2))
    assert run.outcomes() == ["gone", "exists"]


@pytest.mark.parametrize("if_gone", ["skip", "create", "fail"])
@pytest.mark.parametrize("ledger", ["ledger", "another"])
def test_unsubscribed_person_is_never_put_back(
    lemlist: Sandbox, run: Runner, if_gone: str, ledger: str
) -> None:
    run(night=1, leads=people(1))
    LemlistHook().unsubscribe_lead(run.campaign_id, "p1@example.com")
    before = len(lemlist.requests())
    run.ledger = run.ledger.with_name(ledger)
    run(night=2, leads=people(1, plan="b"), if_gone=if_gone, if_exists="update")
    assert run.outcomes() == ["gone"]
    assert len(lemlist.requests()) - before == LOOK


@pytest.mark.parametrize("seen", [True, False], ids=["in the source", "missing"])
def test_person_who_unsubscribed_before_lead_was_deleted_is_not_put_back(
    lemlist: Sandbox, run: Runner, seen: bool
) -> None:
    run(night=1, leads=people(2))
    LemlistHook().unsubscribe_lead(run.campaign_id, "p1@example.com")
    lead_id = run.rows()[1]["lead_id"]
    run(night=2, leads=people(2) if seen else people(2)[1:])
    LemlistHook().delete_lead(run.campaign_id, lead_id)
    for night in (3, 4):
        run(night=night, leads=people(2), if_gone="create")
        assert run.outcomes() == ["gone", "exists"]


@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before it"])
def test_deleted_lead_without_email_is_not_created_again_twice_after_a_kill(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, effect: bool
) -> None:
    run(night=1, leads=[ANA])
    LemlistHook().delete_lead(run.campaign_id, run.rows()[1]["lead_id"])
    kill(run, monkeypatch, run.task(leads=[ANA], if_gone="create"), effect=effect, night=2)
    run(night=2, leads=[ANA], if_gone="create", attempt=2)
    assert run.outcomes() == ["exists" if effect else "created"]
    assert len(lemlist.state()["leads"]) == 1


# --- People who left the source ---------------------------------------------------------------------------

#: What the campaign shows of a lead whose person left the source.
DEPARTED = {"keep": "review", "pause": "paused", "unsubscribe": "unsubscribed", "delete": None}


def status(lemlist: Sandbox, email: str) -> str | None:
    found = [lead["status"] for lead in lemlist.state()["leads"] if lead["variables"].get("email") == email]
    return found[0] if found else None


@pytest.mark.parametrize("if_missing", DEPARTED)
def test_people_who_left_are_counted_and_handled_once(lemlist: Sandbox, run: Runner, if_missing: str) -> None:
    options: dict[str, Any] = {"if_missing": if_missing, "max_missing": 0.5}
    run(night=1, leads=people(2), **options)
    report = run(night=2, leads=people(1), **options)
    done = [name for name in ("paused", "unsubscribed", "deleted") if name.startswith(if_missing)]
    assert report["left"] == 1
    assert run.departures() == done
    assert [report[name] for name in done] == [1] * len(done)
    assert (report["rows"], report["exists"], report["not_tried"]) == (1, 1, 0)
    assert status(lemlist, "p2@example.com") == DEPARTED[if_missing]
    before = len(lemlist.requests())
    report = run(night=3, leads=people(1), **options)
    assert len(lemlist.requests()) - before == LOOK
    assert (report["left"], run.departures()) == (if_missing != "delete", [])
    assert status(lemlist, "p1@example.com") == "review"


def test_cleared_run_handles_people_who_left_once(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "pause", "max_missing": 1}
    run(night=1, leads=people(2), **options)
    run(night=2, leads=people(1), **options)
    before = len(lemlist.requests())
    run(night=2, leads=people(1), attempt=2, **options)
    assert len(lemlist.requests()) - before == LOOK


def test_people_without_address_are_unsubscribed_and_stay_so(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "unsubscribe", "max_missing": 1, "if_exists": "update"}
    run(night=1, leads=PROFILES, **options)
    run(night=2, leads=PROFILES[1:], **options)
    assert [each["value"] for each in lemlist.state()["unsubscribes"]] == [ANA["linkedinUrl"]]
    for night, plan in ((3, "b"), (4, "c")):
        run(night=night, leads=[ANA | {"plan": plan}, PROFILES[1]], **options)
        assert run.outcomes() == ["suppressed", "unchanged"]


@pytest.mark.parametrize(
    ("if_missing", "resume_returned", "outcome", "after"),
    [
        ("pause", True, "exists", "review"),
        ("pause", False, "exists", "paused"),
        ("delete", True, "created", "review"),
        ("delete", False, "gone", None),
        ("unsubscribe", True, "gone", "unsubscribed"),
    ],
)
def test_person_who_returns(
    lemlist: Sandbox, run: Runner, if_missing: str, resume_returned: bool, outcome: str, after: str | None
) -> None:
    options: dict[str, Any] = {"if_missing": if_missing, "resume_returned": resume_returned, "max_missing": 1}
    run(night=1, leads=people(2), **options)
    run(night=2, leads=people(1), **options)
    run(night=3, leads=people(2), **options)
    assert run.outcomes() == ["exists", outcome]
    assert status(lemlist, "p2@example.com") == after
    before = len(lemlist.requests())
    run(night=4, leads=people(2), **options)
    assert len(lemlist.requests()) - before == LOOK


def test_person_who_returns_with_new_values_is_resumed_and_updated(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "pause", "max_missing": 1, "if_exists": "update"}
    run(night=1, leads=people(2), **options)
    run(night=2, leads=people(1), **options)
    run(night=3, leads=people(2, companyName="New"), **options)
    assert run.outcomes() == ["updated", "updated"]
    assert status(lemlist, "p2@example.com") == "review"
    assert {lead["variables"]["companyName"] for lead in lemlist.state()["leads"]} == {"New"}


def test_lead_that_was_paused_by_hand_is_not_resumed(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=people(1), if_missing="pause")
    LemlistHook().pause_lead(run.rows()[1]["lead_id"], campaign_id=run.campaign_id)
    run(night=2, leads=people(1), if_missing="pause")
    assert run.outcomes() == ["exists"]
    assert status(lemlist, "p1@example.com") == "paused"


@pytest.mark.parametrize("if_missing", ["pause", "unsubscribe", "delete"])
@pytest.mark.parametrize(
    ("leads", "why"),
    [
        (
            [*people(1), {"email": "new@example.com"}],
            "3 of 4 people are no longer in it, and max_missing is 0.5",
        ),
        ([], "it is empty"),
    ],
    ids=["too many", "empty"],
)
def test_source_that_seems_incomplete_changes_no_one_who_is_missing_and_fails_task(
    lemlist: Sandbox, run: Runner, if_missing: str, leads: list[dict[str, Any]], why: str
) -> None:
    run(night=1, leads=people(4))
    with pytest.raises(LemlistValidationError, match=f"seems to be incomplete: {why}"):
        run(night=2, leads=leads, if_missing=if_missing, max_missing=0.5)
    assert run.departures() == []
    assert emails(lemlist).total() == 4 + bool(leads)  # the rows are loaded all the same
    assert {lead["status"] for lead in lemlist.state()["leads"]} == {"review"}
    assert run.pushed["report"]["left"] == 4 - bool(leads)


def test_person_whose_row_is_invalid_has_not_left(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "delete", "max_missing": 1, "max_failed": 2, "key": "id"}
    leads = [row | {"id": str(n)} for n, row in enumerate(people(4))]
    run(night=1, leads=leads, **options)
    invalid = [leads[0] | {"timezone": "Mars"}, leads[1] | {"email": "no address"}, leads[2]]
    report = run(night=2, leads=invalid, **options)
    assert (report["invalid"], report["left"], report["deleted"]) == (2, 1, 1)
    assert emails(lemlist) == {f"p{n}@example.com": 1 for n in (1, 2, 3)}
    assert run(night=3, leads=leads[:3], **options)["exists"] == 3


def test_invalid_row_that_names_no_one_suspends_what_is_done_to_missing_people(
    lemlist: Sandbox, run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"if_missing": "delete", "max_missing": 1, "max_failed": 1}
    run(night=1, leads=people(2), **options)
    report = run(night=2, leads=[*people(1), {"email": "no address"}], **options)
    assert (report["left"], report["deleted"], run.departures()) == (1, 0, [])
    assert "1 row is invalid and names no one" in caplog.text
    assert run(night=3, leads=people(1), **options)["deleted"] == 1


def test_two_sources_of_one_campaign_do_not_miss_each_others_people(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "delete", "max_missing": 1}
    for night in (1, 2):
        for task_id, leads in (("crm", people(2)), ("events", PROFILES)):
            report = run(night=night, task_id=task_id, leads=leads, **options)
            assert (report["left"], run.departures()) == (0, [])
    assert len(lemlist.state()["leads"]) == 4
    assert run(night=3, task_id="crm", leads=people(1), **options)["deleted"] == 1


def test_person_in_two_sources_leaves_with_the_last_of_them(lemlist: Sandbox, run: Runner) -> None:
    options: dict[str, Any] = {"if_missing": "delete", "max_missing": 1}
    run(night=1, task_id="crm", leads=people(2), **options)
    run(night=2, task_id="events", leads=people(2), **options)
    report = run(night=3, task_id="events", leads=people(1), **options)
    assert (report["left"], report["deleted"]) == (1, 0)
    assert run(night=4, task_id="crm", leads=people(1), **options)["deleted"] == 1
    assert emails(lemlist) == Counter(["p1@example.com"])


def test_people_in_campaign_who_were_not_loaded_are_left_alone(lemlist: Sandbox, run: Runner) -> None:
    lemlist.lead(run.campaign_id, "by-hand@example.com")
    for night in (1, 2):
        assert run(night=night, leads=people(1), if_missing="delete", max_missing=1)["left"] == 0
    assert emails(lemlist)["by-hand@example.com"] == 1


@pytest.mark.parametrize("map_index", [0, 1])
def test_mapped_task_cannot_say_who_is_missing(lemlist: Sandbox, run: Runner, map_index: int) -> None:
    task = run.task(leads=people(1), if_missing="pause", _airflow_from_mapped=True)
    context = run.context(task, map_index=map_index)
    task.render_template_fields(context)
    with pytest.raises(LemlistValidationError, match="if_missing of task 'load' needs the whole source"):
        task.execute(context)
    assert not lemlist.requests()


# --- Who is meant -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("if_address_changed", "outcome", "later"),
    [
        ("skip", "address_changed", "address_changed"),
        ("create", "created", "exists"),
        ("fail", "failed", "failed"),
    ],
)
def test_person_of_key_whose_address_changed(
    lemlist: Sandbox, run: Runner, if_address_changed: str, outcome: str, later: str
) -> None:
    options: dict[str, Any] = {"key": "customer_id", "column_map": {"customer_id": None}, "max_failed": 1}
    run(night=1, leads=[{"customer_id": "7", "email": "ana@old.example"}], **options)
    for night, expected in ((2, outcome), (3, later)):
        before = len(lemlist.requests())
        row = {"customer_id": "7", "email": "ana@new.example"}
        run(night=night, leads=[row], if_address_changed=if_address_changed, **options)
        assert run.outcomes() == [expected]
        assert len(lemlist.requests()) - before == LOOK + (expected == "created")
    there = {"ana@old.example": 1, "ana@new.example": 1}
    assert emails(lemlist) == (there if outcome == "created" else {"ana@old.example": 1})
    assert not any("customer_id" in lead["variables"] for lead in lemlist.state()["leads"])


def test_key_identifies_row_without_address_profile_and_phone(lemlist: Sandbox, run: Runner) -> None:
    leads = [{"customer_id": "7", "firstName": "Ana"}, {"customer_id": "8", "firstName": "Ana"}]
    for night, outcome in ((1, "created"), (2, "exists")):
        assert run(night=night, leads=leads, key="customer_id")[outcome] == 2
    assert len(lemlist.state()["leads"]) == 2


def test_required_value_that_is_blank_makes_row_invalid(lemlist: Sandbox, run: Runner) -> None:
    run(leads=[*people(1), ANA, {"email": " ", **PROFILES[1]}], require=["email"], max_failed=2)
    assert run.outcomes() == ["created", "invalid", "invalid"]
    assert run.rows()[2]["message"] == "email: is required and blank"


def test_row_that_could_not_be_found_again_is_invalid_unless_allowed(lemlist: Sandbox, run: Runner) -> None:
    leads = [{"firstName": "Ana"}]
    with pytest.raises(LemlistValidationError, match="1 invalid of 1 rows"):
        run(night=1, leads=leads)
    assert "could not be found again" in run.rows()[1]["message"]
    run(night=2, leads=leads, allow_unidentified=True)
    assert run.outcomes() == ["created"]


# --- How many, how often ----------------------------------------------------------------------------------


def test_max_new_lets_the_rest_wait_for_the_next_run(lemlist: Sandbox, run: Runner) -> None:
    run(night=1, leads=people(5), max_new=2)
    assert run.outcomes() == ["created", "created", "waiting", "waiting", "waiting"]
    assert run(night=1, leads=people(5), max_new=2)["waiting"] == 3  # cleared
    assert emails(lemlist).total() == 2
    run(night=2, leads=people(5), max_new=2)
    assert run.outcomes() == ["exists", "exists", "created", "created", "waiting"]
    assert run(night=3, leads=people(5), max_new=0)["waiting"] == 1
    assert run(night=4, leads=people(5))["created"] == 1


@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before it"])
def test_max_new_counts_people_of_all_attempts(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch, effect: bool
) -> None:
    kill(run, monkeypatch, run.task(leads=people(6), max_new=3), effect=effect, after=1)
    assert run(leads=people(6), max_new=3, attempt=2)["waiting"] == 3
    assert emails(lemlist).total() == 3


def test_person_in_another_campaign_is_asked_for_again_after_a_while(lemlist: Sandbox, run: Runner) -> None:
    other = lemlist.campaign("Other")["_id"]
    lead_id = lemlist.lead(other, "p1@example.com")["_id"]
    asked = 0
    nights: list[tuple[int, dict[str, Any], bool]] = [
        (1, {}, True),
        (2, {}, False),
        (3, {"recheck_elsewhere": timedelta(0)}, True),
    ]
    for night, more, asks in nights:
        run(night=night, leads=people(1), deduplicate=True, **more)
        assert run.outcomes() == ["elsewhere"]
        asked += asks
        assert len(lemlist.requests(CREATE)) == asked
    LemlistHook().delete_lead(other, lead_id)
    file = run.ledger / "people.ndjson"
    (person,) = run.known()
    aged = (datetime.fromisoformat(person["elsewhere"]) - timedelta(days=8)).isoformat()
    file.write_text(file.read_text().replace(person["elsewhere"], aged))
    run(night=5, leads=people(1), deduplicate=True)
    assert run.outcomes() == ["created"]


def test_person_in_another_campaign_fails_although_lemlist_was_asked_before(
    lemlist: Sandbox, run: Runner
) -> None:
    lemlist.lead(lemlist.campaign("Other")["_id"], "p1@example.com")
    run(night=1, leads=people(1), deduplicate=True)
    with pytest.raises(LemlistError, match="1 failed of 1 rows"):
        run(night=2, leads=people(1), deduplicate=True, if_elsewhere="fail")


# --- What others can read ---------------------------------------------------------------------------------

SECRET = {
    "email": "secret.person@example.com",
    "firstName": "Secretia",
    "lastName": "Geheim",
    "phone": "+49 170 5550123",
    "linkedinUrl": "https://www.linkedin.com/in/secret-person",
    "icebreaker": "confidential",
}
REVEALING = ("secret.person", "secretia", "geheim", "5550123", "secret-person", "confidential")


def test_ledger_and_log_contain_no_personal_data(
    lemlist: Sandbox,
    run: Runner,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    options: dict[str, Any] = {
        "if_exists": "update",
        "if_missing": "delete",
        "max_missing": 1,
        "max_failed": 9,
        "key": "email",
    }
    only_phone = {name: SECRET[name] for name in ("firstName", "lastName", "phone")}
    lemlist.fault(CREATE, "status", status=400, text="Something about secret.person@example.com", skip=1)
    run(night=1, leads=[SECRET, only_phone, SECRET | {"timezone": "Secretia"}], **options)
    run(night=2, leads=[SECRET | {"icebreaker": "confidential2"}, only_phone], **options)
    run(night=3, leads=[{"email": "b@example.com"}], **options)
    files = [file for file in run.ledger.rglob("*") if file.is_file()]
    assert len(files) > 5
    printed = "".join(capfd.readouterr())  # where the logger of an operator writes in Airflow 3
    for text in (caplog.text, printed, *(f"{file} {file.read_text()}" for file in files)):
        assert not [word for word in REVEALING if word in text.lower()]


def test_same_person_has_other_keys_in_another_ledger(run: Runner) -> None:
    keys: list[str] = []
    for name in ("one", "two"):
        run.ledger = run.ledger.with_name(name)
        run(leads=[SECRET])
        keys += run.rows()[1]["keys"]
    assert len(set(keys)) == len(keys) == 2 * 3


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


def test_arguments_of_database_hook_reach_it(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = record_database_hooks(monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_W", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "w.db")}))
    run(sql="SELECT 'ana@example.com' AS email", sql_conn_id="w", sql_hook_params={"log_sql": False})
    assert given[0]["log_sql"] is False
    assert run.outcomes() == ["created"]


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
        up: Any = BaseOperator(task_id="up")
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
        ({"leads": [], "if_missing": "remove"}, "must be one of keep, pause, unsubscribe, delete"),
        ({"leads": [], "if_address_changed": "update"}, "must be one of skip, create, fail"),
        ({"leads": [], "max_new": -1}, "The max_new of task 'load' must be a whole number from 0"),
        ({"leads": [], "max_new": True}, "a whole number from 0"),
        ({"leads": [], "max_missing": 10}, "a part from 0 to 1"),
        ({"leads": [], "max_missing": "0.1"}, "a part from 0 to 1"),
        ({"leads": [], "max_missing": float("nan")}, "a part from 0 to 1"),
        ({"leads": [], "recheck_elsewhere": 7}, "must be a timedelta"),
        ({"leads": [], "key": ["customer_id"]}, "must be the name of a column"),
        ({"leads": [], "key": ""}, "must be the name of a column"),
        ({"leads": [], "require": "email"}, "The require of task 'load' must be a list of names"),
        ({"leads": [], "sql_hook_params": {"a": 1}}, "need sql"),
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
    ],
)
def test_given_but_empty_argument_sends_no_request(
    lemlist: Sandbox, run: Runner, name: str, others: dict[str, Any], empty: Any
) -> None:
    with pytest.raises(LemlistValidationError, match=f"The {name} of task 'load' is empty"):
        run(**{**others, name: empty})
    assert not lemlist.requests()


def test_none_in_the_dag_file_means_not_given(run: Runner) -> None:
    assert run(leads=people(1), storage_conn_id=None, path=None, sql=None, max_new=None)["created"] == 1


def test_none_for_a_map_index_is_not_the_default(lemlist: Sandbox, run: Runner) -> None:
    task = run.task(leads=[], ledger_path=None, _airflow_from_mapped=True)
    with pytest.raises(LemlistValidationError, match="The ledger_path of task 'load' is empty"):
        run(task)


def test_dry_run_method_of_base_operator_still_works(run: Runner) -> None:
    run.task(leads=[], dry_run=True).dry_run()


def test_every_template_field_is_an_attribute(run: Runner) -> None:
    task = run.task(leads=[])
    assert all(hasattr(task, name) for name in task.template_fields)


# --- The rendered template --------------------------------------------------------------------------------


def shown(task: Any) -> Any:
    """Return what Airflow shows of the rendered rows."""
    from airflow.serialization.helpers import serialize_template_field

    return serialize_template_field(task.leads, "leads")


def test_rendered_template_is_a_number_of_rows(lemlist: Sandbox, run: Runner) -> None:
    task = run.task(leads=people(3))
    run(task)
    assert shown(task) == "3 rows"


def test_rendered_template_of_upstream_result_is_a_number_of_rows(lemlist: Sandbox, run: Runner) -> None:
    with DAG("d", schedule=None):
        task = run.task(leads=BaseOperator(task_id="up").output)
    context = run.context(task)
    context["ti"].xcom_pull = lambda **_: people(3)
    context["ti"].get_relevant_upstream_map_indexes = lambda *_, **__: None  # called by Airflow 2
    context["expanded_ti_count"] = None
    task.render_template_fields(context)
    assert shown(task) == "3 rows"
    assert task.execute(context)["created"] == 3


def test_rendered_template_of_mapped_task_is_a_number_of_rows(
    lemlist: Sandbox, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DAG("d", schedule=None) as dag:
        mapped: Any = LoadLeadsOperator.partial(
            task_id="load", campaign_id=run.campaign_id, ledger_path=str(run.ledger)
        ).expand(leads=[people(2), people(3)])
    context = run.context(mapped, map_index=1)
    context["dag"] = dag
    context["ti"]._upstream_map_indexes = {}
    mapped.render_template_fields(context)
    task = context["ti"].task
    assert shown(task) == "3 rows"
    assert task.execute(context)["created"] == 3
