# SPDX-License-Identifier: Apache-2.0
"""
The audit trail under ``[lemlist] audit_path``: a record of every write that lemlist carried out, or may have.

    make sure that records can be written -> send -> record "done" or "uncertain" -> return

A record is one line of JSON. On a disk, the line is in the file before the task goes on. An object store
cannot append: there each record becomes a part of its own, except within ``Audit.in_parts``, where a load
gathers them for at most ``PART_SECONDS``.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_lemlist.exceptions import LemlistAuditError, LemlistError
from airflow_provider_lemlist.privacy import hides_personal_data
from airflow_provider_lemlist.run_window import parse_moment
from airflow_provider_lemlist.storage import is_local, read_lines, shown, storage_path
from airflow_provider_lemlist.version_compat import running_task

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.api.operations import Operation
    from airflow_provider_lemlist.connection import Settings

log = logging.getLogger(__name__)

#: While records are gathered: the most of them in a part, and the most seconds that one waits.
PART_RECORDS = 1000
PART_SECONDS = 10.0
SUFFIX = ".ndjson"
#: The outcome of the first record of each process, which shows that records can be written.
OPENED = "opened"

#: Names in paths and queries, and what a record calls the id.
_IDS = {
    "campaignId": "campaign_id",
    "leadId": "lead_id",
    "leadIdOrEmail": "lead_id",
    "sequenceId": "sequence_id",
    "stepId": "step_id",
    "scheduleId": "schedule_id",
}
#: The last word of a path, and what the ``_id`` of the response is the id of.
_CREATED = {"campaigns": "campaign_id", "leads": "lead_id", "steps": "step_id", "schedules": "schedule_id"}
#: Names in paths and bodies that hold a person.
_PERSON = ("email", "leadIdOrEmail", "linkedinUrl", "phone", "value", "values")
_RUN = ("dag_id", "run_id", "task_id", "map_index", "try_number")

T = TypeVar("T")

#: Held while a trail is opened.
_preparing = threading.Lock()


class Audit:
    """
    Record the writes of one connection. Thread-safe.

    :param address: The directory of the trail, on disk or in an object storage.
    """

    def __init__(self, address: str, settings: Settings) -> None:
        self._address = address
        digest = blake2b(settings.api_key.encode(), digest_size=8, person=b"lemlist-audit").hexdigest()
        #: Where a record comes from; ``key`` tells keys apart and does not show them.
        self._origin = {
            "connection": settings.conn_id,
            "key": digest,
            "host": settings.other_host or "lemlist",
        }
        self._hides = hides_personal_data()
        #: How many callers are within ``in_parts``.
        self._gathering = 0
        self._pid = 0
        self._reset()

    def around(
        self,
        operation: Operation,
        path: Mapping[str, object],
        query: Mapping[str, object],
        body: object,
        send: Callable[[], T],
    ) -> T:
        """
        Send a write, and record it.

        :raises LemlistAuditError: No record can be written; nothing was sent.
        """
        self._prepare()
        request = {**query, **path}
        try:
            response = send()
        except BaseException as error:
            # What is not ours, such as the timeout of the task, comes at any moment of the request.
            if not isinstance(error, LemlistError) or error.in_doubt:
                self._record("uncertain", operation, request, body, None)
            raise
        self._record("done", operation, request, body, response)
        return response

    @cached_property
    def _path(self) -> ObjectStoragePath:
        return storage_path(self._address, None, "[lemlist] audit_path")

    @contextmanager
    def in_parts(self) -> Iterator[None]:
        """Gather the records of many writes, for an object store; all are written at the end."""
        with self._lock:
            self._gathering += 1
        try:
            yield
        finally:
            with self._lock:
                self._gathering -= 1
            self._write_or_log()

    # --- Records ----------------------------------------------------------------------------------------

    def _record(
        self,
        outcome: str,
        operation: Operation,
        request: Mapping[str, object],
        body: object,
        response: object,
    ) -> None:
        record: dict[str, Any] = {"time": _now(), "outcome": outcome, "operation": str(operation)}
        record |= {**_ids(operation, request, response), **_run(), **self._origin}
        if not self._hides and (person := _person(request, body)):
            record["person"] = person
        line = json.dumps(record, ensure_ascii=False, default=str)
        with self._lock:
            self._pending.append(line)
            waits = (
                self._gathering
                and not is_local(self._path)
                and len(self._pending) < PART_RECORDS
                and time.monotonic() - self._written_at < PART_SECONDS
            )
        if not waits:
            self._write_or_log()

    # --- Files ------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._pending: list[str] = []
        self._parts = 0
        self._failed = False
        self._written_at = time.monotonic()
        self._name = f"{datetime.now(UTC):%Y-%m-%d/%H%M%S}-{secrets.token_hex(6)}"

    def _prepare(self) -> None:
        """Make sure that records can be written, and write those that could not be."""
        if self._pid == os.getpid() and not self._failed:
            return
        place = shown(self._path)
        try:
            with _preparing:
                if self._pid != os.getpid():
                    self._reset()  # a forked process must not continue the file of its parent
                    opened = {"time": _now(), "outcome": OPENED, **_run(), **self._origin}
                    self._pending.append(json.dumps(opened, default=str))
                    self._write()
                    self._pid = os.getpid()
            self._write()
        except Exception as error:
            raise LemlistAuditError(
                f"The audit trail at {place} cannot be written ({_brief(error)}), so the request "
                "was not sent. Mend the directory or the storage, or change [lemlist] audit_path."
            ) from error

    def _write_or_log(self) -> None:
        """Write the records; the write has happened, so an error must not hide that."""
        try:
            self._write()
        except Exception as error:
            with self._lock:
                lines = [*self._pending]
            log.error("Audit trail at %s: not written: %s", shown(self._path), _brief(error))
            for line in lines:
                without = {name: value for name, value in json.loads(line).items() if name != "person"}
                log.error("Audit record that is not written yet: %s", json.dumps(without))

    def _write(self) -> None:
        # One thread writes the records of all that wait meanwhile.
        with self._writing:
            with self._lock:
                lines, self._pending = self._pending, []
            try:
                self._append(lines)
            except BaseException:
                self._failed = True
                with self._lock:
                    self._pending = lines + self._pending
                raise
            self._failed = False

    def _append(self, lines: list[str]) -> None:
        """Append to the file of this process, or add a part of it where nothing can be appended."""
        if not lines:
            return
        text = "".join(f"{line}\n" for line in lines).encode()
        if is_local(self._path):
            place = os.path.join(str(self._path.path), f"{self._name}{SUFFIX}")
            _append_to(place, text)
        else:
            part = self._path / f"{self._name}-{self._parts:05}{SUFFIX}"
            with suppress(NotImplementedError):
                part.fs.makedirs(str(part.parent.path), exist_ok=True)
            with part.fs.open(str(part.path), "wb") as file:
                file.write(text)
        self._parts += 1
        self._written_at = time.monotonic()


def open_audit(address: str, settings: Settings) -> Audit | None:
    """
    Return the audit trail of a connection.

    :param address: ``[lemlist] audit_path``; empty if there is none.
    """
    return Audit(address, settings) if address.strip() else None


def read_audit(path: ObjectStoragePath) -> Iterator[dict[str, Any]]:
    """Yield the records of a trail, each file in its order; a line that a kill has cut is left out."""
    for day in sorted(path.iterdir(), key=str):
        for file in sorted(day.iterdir(), key=str) if day.is_dir() else ():
            for line in read_lines(file) if file.name.endswith(SUFFIX) else ():
                with suppress(ValueError):
                    if (record := json.loads(line))["outcome"] != OPENED:
                        yield record


def is_about(record: Mapping[str, Any], *, lead: str = "", campaign: str = "", since: str = "") -> bool:
    """
    Return whether a record is about a lead and a campaign, and not older than a moment; empty for any.

    :param lead: Id of the lead, or what names the person: an address, a LinkedIn profile, a phone number.
    :param since: ISO 8601 text; UTC without a time zone.
    """
    values = [record.get("lead_id"), *(record.get("person") or {}).values()]
    named = {
        str(each).lower() for value in values for each in (value if isinstance(value, list) else [value])
    }
    return (
        (not lead or lead.lower() in named)
        and (not campaign or record.get("campaign_id") == campaign)
        and (not since or parse_moment(record["time"]) >= parse_moment(since, "--since"))
    )


def _append_to(place: str, text: bytes) -> None:
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    # Opened anew for each record: no file stays open when a process forks, or when a hook is forgotten.
    file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        while text:
            text = text[os.write(file, text) :]
    finally:
        os.close(file)


def _ids(operation: Operation, request: Mapping[str, object], response: object) -> dict[str, str]:
    """Return the ids that a request names, and the one that the response adds."""
    found = {
        name: value
        for given, name in _IDS.items()
        if isinstance(value := request.get(given), str) and "@" not in value
    }
    words = [word for word in operation.path.split("/") if word and not word.startswith("{")]
    name = _CREATED.get(words[-1]) if words else None
    if name and isinstance(response, Mapping) and isinstance(response.get("_id"), str):
        found.setdefault(name, response["_id"])
    return found


def _person(request: Mapping[str, object], body: object) -> dict[str, object]:
    """Return by what a request names a person."""
    given = {**request, **(body if isinstance(body, Mapping) else {})}
    found = {name: given[name] for name in _PERSON if given.get(name)}
    by_id = found.pop("leadIdOrEmail", "")
    return {**found, "email": by_id} if "@" in str(by_id) else found


def _run() -> dict[str, Any]:
    """Return which attempt of which task this is; nothing outside a task."""
    ti = running_task()
    if ti is not None:
        return {name: getattr(ti, name, None) for name in _RUN}
    # A task that Airflow runs in a Python of its own, such as @task.virtualenv, knows only these.
    variables = {"dag_id": "DAG_ID", "run_id": "DAG_RUN_ID", "task_id": "TASK_ID", "try_number": "TRY_NUMBER"}
    found = {name: os.environ.get(f"AIRFLOW_CTX_{variable}") for name, variable in variables.items()}
    return {name: value for name, value in found.items() if value}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _brief(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or type(error).__name__
