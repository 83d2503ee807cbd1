# SPDX-License-Identifier: Apache-2.0
"""What ``airflow lemlist check`` makes of the facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist import checkup
from airflow_provider_lemlist.checkup import Finding, Package, StoreFacts
from airflow_provider_lemlist.connection import Settings
from airflow_provider_lemlist.exceptions import LemlistAuthError

FILE = StoreFacts("the file /tmp/x", "one user on this machine", between_machines=False)
REDIS = StoreFacts("Redis at r:6379", "all machines that use it", between_machines=True)
STATE = {"limit": 20, "waiting": 0, "pause": 0.0, "other_clients": 0.0}


def settings(**fields: Any) -> Settings:
    usual = {"budget_store": "", "budget_share": 1.0, "base_url": "https://api.lemlist.com/api"}
    return Settings(conn_id="mine", api_key="k", timeout=30, max_wait=300, **(usual | fields))


def statuses(findings: Any) -> list[str]:
    return [finding.status for finding in findings]


@pytest.mark.parametrize(
    ("base_url", "status"),
    [
        ("https://api.lemlist.com/api", "ok"),
        ("http://127.0.0.1:8765/api", "warn"),
        ("https://api.lemlist.com", "fail"),
    ],
)
def test_requests_that_do_not_reach_lemlist_are_found(base_url: str, status: str) -> None:
    assert statuses(checkup.connection_findings(settings(base_url=base_url), [])) == [status]


def test_a_stop_of_all_writes_is_found() -> None:
    _, found = checkup.connection_findings(settings(stop_writes=True), [])
    assert (found.status, "stop_writes" in found.found) == ("warn", True)


def test_each_warning_about_the_connection_is_a_row() -> None:
    found = [*checkup.connection_findings(settings(), ["Port is not used.", "Login is not used."])]
    assert [each.found for each in found if each.status == "warn"] == [
        "Port is not used.",
        "Login is not used.",
    ]


def test_a_refused_key_is_told_apart_from_its_remedy() -> None:
    error = LemlistAuthError("lemlist does not accept the API key. Put a current key into the connection.")
    assert checkup.key_finding(error) == Finding(
        "API key", "fail", "lemlist does not accept the API key.", "Put a current key into the connection."
    )


@pytest.mark.parametrize(
    ("store", "share", "remote", "status"),
    [
        (FILE, 1.0, False, "ok"),
        (FILE, 1.0, True, "warn"),
        (FILE, 0.25, True, "ok"),
        (REDIS, 1.0, True, "ok"),
        (REDIS._replace(problem="Redis at r:6379 does not work. Repair it"), 1.0, True, "fail"),
    ],
)
def test_a_store_that_does_not_work_or_is_not_shared_by_all_is_found(
    store: StoreFacts, share: float, remote: bool, status: str
) -> None:
    (found,) = checkup.store_findings(settings(budget_share=share), store, runs_remotely=remote)
    assert found.status == status
    assert bool(found.to_do) is (status != "ok")
    assert store.place in found.found


def test_a_password_in_the_url_is_found_and_not_shown() -> None:
    url = "redis://:hidden-word@r:6379/0"
    _, found = checkup.store_findings(settings(budget_store=url), REDIS, runs_remotely=True)
    assert found.status == "warn"
    assert "hidden-word" not in str(found)
    assert statuses(
        checkup.store_findings(settings(budget_store="redis://r:6379/0"), REDIS, runs_remotely=True)
    ) == ["ok"]


@pytest.mark.parametrize(
    ("file_system", "status"), [("nfs4", "warn"), ("fuse.s3fs", "warn"), ("ext4", "ok"), ("overlay", "ok")]
)
def test_a_file_that_machines_share_is_found(file_system: str, status: str) -> None:
    facts = FILE._replace(file_system=file_system)
    assert statuses(checkup.store_findings(settings(), facts, runs_remotely=False))[-1] == status


def test_the_file_system_is_that_of_the_deepest_mount(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nserver:/x /data/shared nfs4 rw 0 0\nb /data tmpfs rw 0 0\n")
    monkeypatch.setattr(checkup, "MOUNTS", str(mounts))
    assert [checkup._file_system(path) for path in ("/data/shared/a/b", "/data/sharedness", "/etc")] == [
        "nfs4",
        "tmpfs",
        "ext4",
    ]
    monkeypatch.setattr(checkup, "MOUNTS", str(tmp_path / "missing"))
    assert checkup._file_system("/data") == ""


@pytest.mark.parametrize(
    ("state", "status"), [({}, "ok"), ({"pause": 3.0}, "warn"), ({"other_clients": 4.0}, "warn")]
)
def test_what_takes_from_the_limit_is_found(state: dict[str, float], status: str) -> None:
    assert statuses(checkup.limit_findings(STATE | state)) == [status]


@pytest.mark.parametrize(
    ("ahead", "status", "says"),
    [(1.9, "ok", "less than 2 s"), (2.1, "warn", "2.1 s ahead of"), (-300.0, "warn", "300.0 s behind")],
)
def test_a_clock_that_differs_is_found(ahead: float, status: str, says: str) -> None:
    (found,) = checkup.clock_findings({"lemlist": ahead})
    assert found.status == status
    assert says in found.found


@pytest.mark.parametrize(
    ("package", "status"),
    [
        (Package("requests", "2.32.3", ">=2.32", suffices=True), "ok"),
        (Package("requests", "2.1", ">=2.32", suffices=False), "fail"),
        (Package("requests", "", ">=2.32", suffices=False), "fail"),
        (Package("redis", "", ">=5.0", suffices=False, extra="redis"), "ok"),
        (Package("redis", "4.0", ">=5.0", suffices=False, extra="redis"), "fail"),
    ],
)
def test_a_package_that_is_too_old_is_found_and_an_extra_may_be_missing(
    package: Package, status: str
) -> None:
    (found,) = checkup.package_findings([package])
    assert found.status == status
    if status == "fail":
        assert "pip install 'airflow-provider-lemlist" in found.to_do


def test_the_packages_are_those_that_the_metadata_names() -> None:
    by_extra = {(package.extra, package.name) for package in checkup._packages()}
    assert {("", "apache-airflow"), ("", "requests"), ("redis", "redis"), ("parquet", "pyarrow")} <= by_extra
