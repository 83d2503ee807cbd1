# SPDX-License-Identifier: Apache-2.0
"""Values of the user's are unsubscribed in lemlist, each once, and no one is re-subscribed by accident."""

from __future__ import annotations

import gzip
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.operators.unsubscribe import SyncUnsubscribesOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.transfers import object_storage

ADD = "POST /v2/unsubscribes/variables"
REMOVE = "DELETE /v2/unsubscribes/variables/{value}"
EXPORT = "GET /v2/unsubscribes/exports/variables"


@pytest.fixture
def lemlist(quick_lemlist: Sandbox) -> Sandbox:
    return quick_lemlist


def sync(**arguments: Any) -> SyncUnsubscribesOperator:
    return SyncUnsubscribesOperator(**{"task_id": "sync", **arguments})


def listed(lemlist: Sandbox) -> list[str]:
    return [each["value"] for each in lemlist.state()["unsubscribes"]]


def unsubscribe(lemlist: Sandbox, *values: str, source: str = "api") -> None:
    for value in values:
        lemlist.service.world.unsubscribe(value, source)


def test_only_what_lemlist_lacks_is_sent_and_read_back(lemlist: Sandbox, any_worker: Any) -> None:
    unsubscribe(lemlist, "Ana@Norte.example", "linkedin.com/in/eva")
    values = [
        "ana@norte.example",
        "Ben@Norte.example ",
        "ben@norte.example",
        "*@sur.example",
        {
            "email": "",
            "linkedinUrl": "https://www.linkedin.com/in/Eva/",
            "phone": "+33 6 12 34 56 78",
            "id": 4,
        },
    ]
    task = sync(values=values, outlets=[Asset("lemlist://unsubscribes/all")])
    report = any_worker.run(task)
    assert report == {
        "values": 5,
        "listed": 2,
        "unsubscribed": 3,
        "resubscribed": 0,
        "protected": 0,
        "protected_ids": [],
    }
    [request] = lemlist.requests(ADD)
    assert json.loads(request["request"]["body"]) == {
        "values": ["ben@norte.example", "@sur.example", "+33 6 12 34 56 78"]
    }
    assert len(lemlist.requests(EXPORT)) == 2
    assert any_worker.asset_extras["lemlist://unsubscribes/all"]["unsubscribed"] == 3
    # Twice, and cleared: one request, which reads.
    assert any_worker.run(sync(values=values))["unsubscribed"] == 0
    assert (len(lemlist.requests(ADD)), len(lemlist.requests())) == (1, 4)


def test_ten_thousand_are_sent_with_each_request(lemlist: Sandbox, worker: Any) -> None:
    report = worker.run(sync(values=[f"p{n}@norte.example" for n in range(20_001)]))
    sizes = [len(json.loads(each["request"]["body"])["values"]) for each in lemlist.requests(ADD)[2:]]
    assert (report["unsubscribed"], len(lemlist.requests(ADD)), sizes) == (20_001, 3, [1])
    assert len(listed(lemlist)) == 20_001


def test_values_are_read_from_a_query_or_a_file(
    lemlist: Sandbox, worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "crm.db"
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE optouts AS SELECT 'ana@norte.example' AS address, 1 AS n")
    worker.run(sync(sql="SELECT address FROM optouts WHERE n = ?", sql_conn_id="crm", sql_parameters=[1]))
    (tmp_path / "domains.csv").write_text("domain\nsur.example\n")
    worker.run(sync(path=str(tmp_path / "{{ 'domains' }}.csv")))
    assert listed(lemlist) == ["ana@norte.example", "@sur.example"]


def test_values_from_upstream_are_not_shown_by_airflow(lemlist: Sandbox, worker: Any) -> None:
    worker.xcoms["upstream"] = {"return_value": ["ana@norte.example"]}
    with DAG("sync"):
        task = sync(values=sync(task_id="upstream", values=[]).output)
    worker.run(task)
    assert listed(lemlist) == ["ana@norte.example"]
    assert str(task.values) == "1 rows"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "values cannot be used: it has no values. If that is right, set allow_empty=True"),
        (["n/a"], "no value of 'value' is an address"),
        ([{"id": 1, "name": "Ana"}], "its columns are 'id', 'name'"),
        ("ana@norte.example", "The values of task 'sync' must be a list of values, not str"),
        ([17], "row 1 must be a dict, not int"),
    ],
)
def test_values_that_cannot_be_used_send_nothing(
    lemlist: Sandbox, worker: Any, values: Any, says: str
) -> None:
    with pytest.raises(LemlistValidationError, match=f"{says}.*Nothing was sent"):
        worker.run(sync(values=values))
    assert lemlist.requests() == []


@pytest.mark.parametrize("argument", ["sql", "path", "sql_conn_id"])
def test_given_but_empty_is_an_error(lemlist: Sandbox, worker: Any, argument: str) -> None:
    given = {"path": "x.csv"} if argument == "path" else {"sql": "SELECT 1", "sql_conn_id": "crm"}
    with pytest.raises(LemlistValidationError, match=f"The {argument} of task 'sync' is empty"):
        worker.run(sync(**given | {argument: "{{ none }}"}))
    assert lemlist.requests() == []


def test_empty_list_is_accepted_on_request(lemlist: Sandbox, worker: Any) -> None:
    assert worker.run(sync(values=[], allow_empty=True))["values"] == 0
    assert not lemlist.requests(ADD)


def test_what_is_no_value_fails_the_task_after_the_others_were_sent(lemlist: Sandbox, worker: Any) -> None:
    with pytest.raises(LemlistValidationError, match="values: 1 rows have a value .*lemlist has the others"):
        worker.run(sync(values=["ana@norte.example", "Ana Ruiz"]))
    assert listed(lemlist) == ["ana@norte.example"]
    with pytest.raises(LemlistValidationError, match="values: 1 rows have a value .*Nothing was sent"):
        worker.run(sync(values=["ben@norte.example", "Ana Ruiz"], dry_run=True))
    assert listed(lemlist) == ["ana@norte.example"]


class TestResubscribe:
    MANY: list[str] = [f"p{n}@norte.example" for n in range(20)]

    def test_nothing_is_re_subscribed_unless_it_is_written(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, "ana@norte.example")
        assert worker.run(sync(values=["ben@norte.example"]))["resubscribed"] == 0
        assert listed(lemlist) == ["ana@norte.example", "ben@norte.example"]
        assert not lemlist.requests("DELETE *")

    def test_what_the_source_lacks_is_re_subscribed_and_protected_ones_are_named(
        self, lemlist: Sandbox, worker: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        gone = ("Gone@Sur.example", "gone@sur.example")
        unsubscribe(lemlist, *self.MANY, *gone, "odd value")
        unsubscribe(lemlist, "left@sur.example", source="LEAD")
        unsubscribe(lemlist, "angry@sur.example", source="abuse")
        ids = {each["value"]: each["id"] for each in lemlist.state()["unsubscribes"]}
        with caplog.at_level(logging.INFO, "airflow_provider_lemlist"):
            report = worker.run(
                sync(values=[*self.MANY, "new@norte.example"], resubscribe_missing=True, max_missing=0.2)
            )
        kept = sorted((ids["left@sur.example"], ids["angry@sur.example"]))
        assert report == {
            "values": 21,
            "listed": 25,
            "unsubscribed": 1,
            "resubscribed": 2,
            "protected": 2,
            "protected_ids": kept,
        }
        assert {*listed(lemlist)} == {*ids, "new@norte.example"} - {*gone}
        assert len(lemlist.requests("DELETE *")) == 2
        assert f"{ids['left@sur.example']} (LEAD)" in caplog.text
        assert "@" not in caplog.text

    def test_report_names_no_more_than_a_hundred_protected_ones(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *(f"p{n}@sur.example" for n in range(101)), source="lead")
        report = worker.run(sync(values=["a@norte.example"], resubscribe_missing=True, max_missing=1.0))
        assert (report["protected"], len(report["protected_ids"])) == (101, 100)

    def test_value_that_lemlist_refuses_is_protected(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY)
        text = "Variable is protected and cannot be re-subscribed"
        lemlist.fault(REMOVE, "status", status=409, text=text)
        report = worker.run(sync(values=self.MANY[2:], resubscribe_missing=True))
        assert (report["resubscribed"], report["protected"]) == (1, 1)

    def test_too_many_are_not_re_subscribed_and_the_missing_ones_are_sent(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        unsubscribe(lemlist, *self.MANY)
        with pytest.raises(
            LemlistValidationError, match="it lacks 18 of the 20 values in lemlist.*max_missing"
        ):
            worker.run(sync(values=[*self.MANY[:2], "new@norte.example"], resubscribe_missing=True))
        assert len(listed(lemlist)) == 21
        assert not lemlist.requests("DELETE *")

    def test_value_that_cannot_be_read_re_subscribes_no_one(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY)
        values = [*self.MANY[1:], "p0 at norte.example"]
        with pytest.raises(LemlistValidationError, match="Nothing was re-subscribed"):
            worker.run(sync(values=values, resubscribe_missing=True))
        assert not lemlist.requests("DELETE *")

    def test_domain_of_the_source_covers_what_is_below_it(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY, "eva@mail.norte.example", "@mail.norte.example", "ben@sur.example")
        unsubscribe(lemlist, "linkedin.com/in/eva")
        values = ["@norte.example"]
        report = worker.run(sync(values=values, resubscribe_missing=True))
        assert (report["unsubscribed"], report["resubscribed"]) == (1, 2)
        below = {*self.MANY, "eva@mail.norte.example", "@mail.norte.example"}
        assert {*listed(lemlist)} == below | {"@norte.example"}

    def test_empty_source_re_subscribes_no_one(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY)
        with pytest.raises(LemlistValidationError, match="seems to be incomplete"):
            worker.run(sync(values=[], allow_empty=True, resubscribe_missing=True))
        assert not lemlist.requests("DELETE *")

    def test_value_that_lemlist_still_has_afterwards_fails_the_task(
        self, lemlist: Sandbox, worker: Any
    ) -> None:
        unsubscribe(lemlist, *self.MANY)
        lemlist.fault(REMOVE, "status", status=200, text='"Variable subscribed"')
        with pytest.raises(LemlistError, match="still has 1 that were re-subscribed"):
            worker.run(sync(values=self.MANY[1:], resubscribe_missing=True))
        assert len(listed(lemlist)) == 20

    def test_value_that_was_re_subscribed_meanwhile_is_no_error(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY)
        # Another client has removed it, so lemlist refuses.
        text = "Variable not found in unsubscribe list"
        lemlist.fault(REMOVE, "status", status=400, text=text, when="after")
        worker.run(sync(values=self.MANY[1:], resubscribe_missing=True))
        assert len(lemlist.requests(REMOVE)) == 1
        assert listed(lemlist) == self.MANY[1:]

    def test_error_of_a_re_subscription_fails_the_task(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY)
        lemlist.fault(REMOVE, "status", status=400, text="No value")
        with pytest.raises(LemlistError, match="No value"):
            worker.run(sync(values=self.MANY[1:], resubscribe_missing=True))

    def test_max_missing_is_the_largest_part(self, lemlist: Sandbox, worker: Any) -> None:
        unsubscribe(lemlist, *self.MANY)
        with pytest.raises(LemlistValidationError, match="it lacks 3 of the 20"):
            worker.run(sync(values=self.MANY[3:], resubscribe_missing=True))
        assert worker.run(sync(values=self.MANY[2:], resubscribe_missing=True))["resubscribed"] == 2


def test_dry_run_sends_nothing(lemlist: Sandbox, worker: Any) -> None:
    unsubscribe(lemlist, *TestResubscribe.MANY)
    values = ["new@norte.example", *TestResubscribe.MANY[1:]]
    report = worker.run(sync(values=values, resubscribe_missing=True, dry_run=True))
    assert (report["unsubscribed"], report["resubscribed"]) == (1, 1)
    assert [each["method"] for each in lemlist.requests()] == ["GET"]


def test_values_that_lemlist_lacks_afterwards_fail_the_task(
    lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lemlist.service.world.unsubscribe
    with monkeypatch.context() as patch:
        patch.setattr(
            lemlist.service.world, "unsubscribe", lambda value: None if "p7" in value else real(value)
        )
        with pytest.raises(LemlistError, match=r"it lacks 1 of them \(rows 8, …\)") as raised:
            worker.run(sync(values=[f"p{n}@norte.example" for n in range(9)]))
    assert raised.value.retryable
    assert worker.run(sync(values=["p7@norte.example"]), attempt=2)["unsubscribed"] == 1


def test_values_that_lemlist_lists_a_moment_later_are_no_error(
    lemlist: Sandbox, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    real = lemlist.service.world.unsubscribe
    monkeypatch.setattr(lemlist.service.world, "unsubscribe", taken.append)
    monkeypatch.setattr(CLOCK, "sleep", lambda seconds: seconds and [*map(real, taken)])
    assert worker.run(sync(values=["ana@norte.example"]))["unsubscribed"] == 1
    assert len(lemlist.requests(EXPORT)) == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_request_that_lemlist_loses_is_sent_again(lemlist: Sandbox, worker: Any, when: str) -> None:
    lemlist.fault(ADD, "reset" if when == "after" else "status", when=when)
    worker.run(sync(values=["ana@norte.example"]))
    assert listed(lemlist) == ["ana@norte.example"]


def test_stopped_task_sends_nothing_further(lemlist: Sandbox, worker: Any) -> None:
    task = sync(values=[])

    def values() -> Iterator[str]:
        yield "ana@norte.example"
        task.on_kill()
        yield "ben@norte.example"

    task.values = values()
    with pytest.raises(LemlistError):
        worker.run(task)
    assert lemlist.requests() == []


def test_failed_task_continues_with_what_is_missing(lemlist: Sandbox, worker: Any) -> None:
    values = [f"p{n}@norte.example" for n in range(10_050)]
    task = sync(values=values)
    lemlist.fault(ADD, "status", status=500, skip=1, times=9)
    with pytest.raises(LemlistServerError):
        worker.run(task)
    assert len(listed(lemlist)) == 10_000
    lemlist.clear_faults()
    assert worker.run(sync(values=values), attempt=2)["unsubscribed"] == 50
    assert len(listed(lemlist)) == 10_050


class TestTarget:
    def test_warehouse_gets_what_lemlist_has(
        self, lemlist: Sandbox, any_worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "crm.db"
        monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps({"conn_type": "sqlite", "host": str(file)}))
        unsubscribe(lemlist, "ana@norte.example", source="lead")
        arguments: dict[str, Any] = {"values": ["ben@norte.example"], "direction": "both"}
        for _ in range(2):
            report = any_worker.run(sync(**arguments, target_table="unsubscribed", target_conn_id="crm"))
            assert report["target"]["rows"] == 2
        with sqlite3.connect(file) as database:
            rows = database.execute("SELECT value, source FROM unsubscribed ORDER BY value").fetchall()
        assert rows == [("ana@norte.example", "lead"), ("ben@norte.example", "api")]

    def test_lake_gets_what_lemlist_has(self, lemlist: Sandbox, worker: Any, tmp_path: Path) -> None:
        target = tmp_path / "lake"
        arguments: dict[str, Any] = {"target_path": str(target), "file_format": "ndjson"}
        report = worker.run(sync(values=["ben@norte.example"], direction="both", **arguments))
        assert report["target"]["rows"] == 1
        assert json.loads((target / "_manifest.json").read_text())["dataset"] == "unsubscribes"
        [file] = target.glob("*.ndjson.gz")
        assert json.loads(gzip.decompress(file.read_bytes()))["value"] == "ben@norte.example"

    def test_target_is_in_the_database_of_the_source_or_in_one_of_its_own(
        self, lemlist: Sandbox, worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("crm", "dwh"):
            conn = {"conn_type": "sqlite", "host": str(tmp_path / name)}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(conn))
        source = {"sql": "SELECT 'ana@norte.example'", "sql_conn_id": "crm", "direction": "both"}
        worker.run(sync(**source, target_table="near"))
        worker.run(sync(**source, target_table="far", target_conn_id="dwh"))
        for name, table in (("crm", "near"), ("dwh", "far")):
            with sqlite3.connect(tmp_path / name) as database:
                assert database.execute(f"SELECT value FROM {table}").fetchall() == [("ana@norte.example",)]

    def test_target_is_read_and_written_with_the_connections_of_the_task(
        self, lemlist: Sandbox, worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", lemlist.airflow_connection())
        monkeypatch.delenv("AIRFLOW_CONN_LEMLIST_DEFAULT")
        used: list[Any] = []
        real = object_storage.storage_path
        monkeypatch.setattr(
            object_storage,
            "storage_path",
            lambda path, conn, what: used.append(conn) or real(path, None, what),
        )
        arguments: dict[str, Any] = {"target_path": str(tmp_path / "lake"), "storage_conn_id": "lake"}
        values = ["ben@norte.example"]
        report = worker.run(sync(values=values, direction="both", lemlist_conn_id="other", **arguments))
        assert (report["target"]["rows"], used) == (1, ["lake"])

    def test_nothing_is_written_by_a_dry_run(self, lemlist: Sandbox, worker: Any, tmp_path: Path) -> None:
        target = tmp_path / "lake"
        worker.run(sync(values=["b@x.example"], direction="both", target_path=str(target), dry_run=True))
        assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "needs exactly one of values, sql and path; none is given"),
        ({"values": [], "path": "x.csv"}, "values and path are given"),
        ({"sql": "SELECT 1"}, "sql of task 'sync' and its sql_conn_id belong together"),
        ({"values": [], "direction": "from_lemlist"}, "must be one of to_lemlist, both"),
        ({"values": [], "direction": "both"}, "takes one of target_table and target_path"),
        ({"values": [], "target_path": "x"}, "takes none of target_table and target_path"),
        ({"values": [], "direction": "both", "target_table": "t"}, "needs target_conn_id"),
        ({"values": [], "target_conn_id": "t"}, "target_conn_id of task 'sync' needs target_table"),
        ({"values": [], "resubscribe_missing": "no"}, "must be True or False"),
        ({"values": [], "max_missing": 10}, "must be a part from 0 to 1"),
        ({"values": [], "direction": "both", "target_path": "x", "file_format": "xml"}, "file_format"),
    ],
)
def test_wrong_arguments_are_found_when_the_dag_is_parsed(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(LemlistConfigurationError, match=says):
        sync(**arguments)
