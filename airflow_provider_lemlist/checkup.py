# SPDX-License-Identifier: Apache-2.0
"""
What works and what must be mended before a connection is used: the rows of ``airflow lemlist check``.

``look`` collects facts: it reads the connection, the store and the installed packages, and requests the team
of the key once. The functions before it are pure, and turn facts into findings.
"""

from __future__ import annotations

import logging
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow_provider_lemlist.connection import secrets_in
from airflow_provider_lemlist.exceptions import LemlistError

if TYPE_CHECKING:
    from airflow_provider_lemlist.connection import Settings
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

PACKAGE = "airflow-provider-lemlist"
#: Seconds by which two clocks may differ. lemlist tells whole seconds.
TOLERATED = 2.0
#: File systems that machines share. A lock of SQLite on one of them does not hold everywhere.
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "ceph", "gluster", "lustre", "afs", "fuse.")
MOUNTS = "/proc/mounts"


class Finding(NamedTuple):
    """One row: what was looked at, how it is, and what to do about it."""

    looked_at: str
    status: Literal["ok", "warn", "fail"]
    found: str
    to_do: str = ""


class StoreFacts(NamedTuple):
    """What is known of the budget store."""

    place: str
    shared_by: str
    between_machines: bool
    #: Why it does not work; empty if it does.
    problem: str = ""
    #: The file system of the file.
    file_system: str = ""


class Package(NamedTuple):
    """A package that this one requires, or that one of its extras requires."""

    name: str
    #: Empty if it is not installed.
    installed: str
    required: str
    suffices: bool
    #: Empty if it is always required.
    extra: str = ""


def connection_findings(settings: Settings, warnings: Iterable[str]) -> Iterator[Finding]:
    """Tell which address the connection has, whether it stops writes, and what reading it has warned of."""
    if settings.base_url_problem:
        yield Finding(
            "connection", "fail", settings.base_url_problem, "Add /api, or leave the Base URL empty."
        )
    elif settings.other_host:
        found = f"Requests go to {settings.other_host}, not to lemlist."
        yield Finding("connection", "warn", found, "Leave the Base URL empty, unless that is a sandbox.")
    else:
        yield Finding("connection", "ok", f"{settings.conn_id}: requests go to {settings.base_url}")
    if settings.stop_writes:
        found = "stop_writes is on: each request that changes something is refused."
        yield Finding("connection", "warn", found, "Switch it off when writes may go on.")
    for warning in warnings:
        yield Finding("connection", "warn", warning)


def key_finding(answer: Mapping[str, Any] | LemlistError) -> Finding:
    """Tell whose key it is, or why lemlist did not say."""
    if isinstance(answer, LemlistError):
        return Finding("API key", "fail", *_problem_and_remedy(answer.message))
    return Finding("API key", "ok", f"the key of team {answer.get('name') or answer['_id']!r}")


def store_findings(settings: Settings, store: StoreFacts, *, runs_remotely: bool) -> Iterator[Finding]:
    """Tell where the rate budget is kept, whether that works, and whether all who need it share it."""
    if store.problem:
        yield Finding("budget store", "fail", *_problem_and_remedy(store.problem))
    elif runs_remotely and not store.between_machines and settings.budget_share == 1:
        yield Finding(
            "budget store",
            "warn",
            f"{store.place}: workers on other machines do not share it, and Airflow has a remote executor.",
            "Set budget_store to the id of an Airflow Redis connection, or budget_share to 1 / machines.",
        )
    else:
        share = f": {settings.budget_share:g} of the limit" if settings.budget_share < 1 else ""
        yield Finding("budget store", "ok", f"{store.place}, for {store.shared_by}{share}")
    if secrets_in(settings.budget_store):
        yield Finding(
            "budget store",
            "warn",
            "budget_store is a URL with a password: whoever can read the connection's extra can read it.",
            "Save the Redis as an Airflow connection, and set budget_store to its id.",
        )
    if store.file_system.startswith(NETWORK_FILE_SYSTEMS):
        yield Finding(
            "budget store",
            "warn",
            f"The file is on a network file system ({store.file_system}), where its locks may not hold.",
            "Set budget_dir in section [lemlist] to a directory on a local disk; share a Redis instead.",
        )


def limit_findings(state: Mapping[str, float]) -> Iterator[Finding]:
    """Tell the limit of the key, and what else uses it; see ``Budget.state``."""
    limit = f"{state['limit']:g} requests per window, {state['waiting']:g} waiting"
    if state["pause"]:
        yield Finding("limits", "warn", f"{limit}; all pause for {state['pause']:.0f} s after a refusal.")
    elif state["other_clients"]:
        yield Finding(
            "limits",
            "warn",
            f"{limit}; other clients of the key seem to use {state['other_clients']:.1f} of them.",
            "Create a key for each application, or let all workers share one budget_store.",
        )
    else:
        yield Finding("limits", "ok", limit)


def clock_findings(ahead: Mapping[str, float]) -> Iterator[Finding]:
    """
    Compare this machine's clock with others.

    :param ahead: The seconds by which each of them is ahead.
    """
    for name, seconds in ahead.items():
        side = "ahead of" if seconds > 0 else "behind"
        if abs(seconds) <= TOLERATED:
            yield Finding("clock", "ok", f"that of {name} differs by less than {TOLERATED:g} s")
        else:
            yield Finding(
                "clock",
                "warn",
                f"that of {name} is {abs(seconds):.1f} s {side} this machine's. Windows, sensors and events "
                "that look until now miss or await that much; the rate budget does not depend on it.",
                "Synchronise both clocks, with NTP.",
            )


def package_findings(packages: Iterable[Package]) -> Iterator[Finding]:
    """Tell the versions of what is required, and which extras are installed."""
    by_extra: dict[str, list[Package]] = {}
    for package in packages:
        by_extra.setdefault(package.extra, []).append(package)
    for extra, members in by_extra.items():
        looked_at = f"extra {extra}" if extra else "versions"
        wrong = [each for each in members if each.installed and not each.suffices]
        missing = [each.name for each in members if not each.installed]
        if wrong or (missing and not extra):
            found = ", ".join(
                [*(f"{each.name} {each.installed}, not {each.required}" for each in wrong), *missing]
            )
            wanted = f"{PACKAGE}[{extra}]" if extra else PACKAGE
            yield Finding(looked_at, "fail", f"wrong or missing: {found}", f"pip install '{wanted}'")
        elif missing:
            yield Finding(looked_at, "ok", f"not installed: {', '.join(missing)}")
        else:
            yield Finding(looked_at, "ok", ", ".join(f"{each.name} {each.installed}" for each in members))


def _problem_and_remedy(message: str) -> tuple[str, str]:
    """Split a message of this package, whose end says what to do."""
    split = re.fullmatch(r"(.+)[.;] (.+)", message.rstrip("."))
    if split is None:
        return message, ""
    problem, remedy = split.groups()
    return f"{problem}.", f"{remedy[0].upper()}{remedy[1:]}."


# --- Looking ----------------------------------------------------------------------------------------------


def look(hook: LemlistHook) -> list[Finding]:
    """Look at everything that a connection needs; requests the team of the key, and changes nothing."""
    findings: list[Finding] = []
    try:
        with _caught_warnings() as warnings:
            settings = hook.settings
        findings += connection_findings(settings, warnings)
        findings += _look_at_lemlist(hook, settings)
    except LemlistError as error:  # of the connection; lemlist's are findings
        findings.append(Finding("connection", "fail", *_problem_and_remedy(error.message)))
    return [*findings, *package_findings(_packages())]


def _look_at_lemlist(hook: LemlistHook, settings: Settings) -> Iterator[Finding]:
    from airflow_provider_lemlist.version_compat import runs_remotely

    store, ahead = _look_at_store(hook)
    yield from store_findings(settings, store, runs_remotely=runs_remotely())
    answer, ahead_of_lemlist = _request_team(hook)
    yield key_finding(answer)
    if not store.problem:
        yield from limit_findings(hook.budget.state())
    yield from clock_findings(ahead_of_lemlist | ahead)


def _look_at_store(hook: LemlistHook) -> tuple[StoreFacts, dict[str, float]]:
    from airflow_provider_lemlist.api.budget.sqlite import SQLiteStore
    from airflow_provider_lemlist.api.budget.stores import StoreError

    store = hook.budget.store
    asked = time.time()
    try:
        read = store.read()
    except StoreError as error:
        return StoreFacts(store.place, store.shared_by, store.between_machines, str(error)), {}
    facts = StoreFacts(store.place, store.shared_by, store.between_machines)
    if isinstance(store, SQLiteStore):
        facts = facts._replace(file_system=_file_system(str(store.path)))
    # The clock of a store in a process or a machine counts from the start of the machine.
    ahead = {"Redis": read.seen / 1e6 - (asked + time.time()) / 2} if store.between_machines else {}
    return facts, ahead


def _request_team(hook: LemlistHook) -> tuple[Mapping[str, Any] | LemlistError, dict[str, float]]:
    """Return the team or the error, and by how much the clock of lemlist is ahead, if it told the time."""
    from airflow_provider_lemlist.api import operations as ops
    from airflow_provider_lemlist.api.judge import Failure
    from airflow_provider_lemlist.api.limits import read_date

    try:
        verdict, response = hook.get_conn().probe(ops.GET_TEAM)
    except LemlistError as error:
        return error, {}
    arrived = time.time()
    told = read_date(response.headers.get("date", "")) if response else None
    # A date names a second that has begun.
    ahead = {"lemlist": told.timestamp() + 0.5 - arrived} if told else {}
    return verdict.error if isinstance(verdict, Failure) else verdict.value, ahead


@contextmanager
def _caught_warnings() -> Iterator[list[str]]:
    """Collect what reading a connection warns of, instead of logging it."""
    from airflow_provider_lemlist.connection import log

    caught: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: caught.append(record.getMessage())  # type: ignore[method-assign]
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield caught
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


def _file_system(path: str) -> str:
    """Return the type of the file system of a path; empty if the system does not tell."""
    try:
        with open(MOUNTS) as mounts:
            points = [line.split(" ")[1:3] for line in mounts]
    except OSError:
        return ""
    holding = [(point, kind) for point, kind in points if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    return max(holding, key=lambda each: len(each[0]), default=("", ""))[1]


def _packages() -> Iterator[Package]:
    """Read what the metadata of this package requires, and what is installed of it."""
    from packaging.requirements import Requirement

    yield Package(PACKAGE, metadata.version(PACKAGE), "", suffices=True)
    yield Package("Python", platform.python_version(), "", suffices=True)
    extras = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    requirements = [Requirement(line) for line in metadata.requires(PACKAGE) or []]
    for extra in ("", *extras):
        for each in requirements:
            of_extra = each.marker is not None and each.marker.evaluate({"extra": extra})
            if of_extra if extra else each.marker is None:
                yield _package(each.name, str(each.specifier), extra)


def _package(name: str, required: str, extra: str) -> Package:
    from packaging.specifiers import SpecifierSet

    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Package(name, "", required, suffices=False, extra=extra)
    suffices = SpecifierSet(required).contains(installed, prereleases=True)
    return Package(name, installed, required, suffices, extra)
