# SPDX-License-Identifier: Apache-2.0
"""A definition with everything that can go wrong, and one attempt to apply it in a process of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.campaigns import Campaign, apply
from airflow_provider_lemlist.campaigns.apply import Application, ApplyOptions, Outcome
from airflow_provider_lemlist.campaigns.memory import Memory, TaskMemory
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.steps import (
    Api,
    Condition,
    Email,
    LinkedinVisit,
    LinkedinVoiceNote,
    Manual,
    Phone,
    Sms,
)

# The slow first use of Airflow happens before a process is forked, so that the kill hits the apply.
os.environ["AIRFLOW_CONN_WARM"] = json.dumps({"conn_type": "lemlist", "password": "none"})
LemlistHook("warm").settings
LemlistHook("warm").get_conn()

NAME = "Spring webinar"
#: Seconds after which a request of a killed attempt has taken effect; the slowest one takes 0.1 s.
SETTLE_TIME = 0.6


SCHEDULES = [
    {"name": "Mornings", "timezone": "Europe/Paris", "start": "09:00", "end": "11:00", "weekdays": [1, 2]}
]


def spring(schedules: list[dict[str, Any]] | None = None) -> Campaign:
    """Return a campaign of 12 steps, of which lemlist lists some only by their type."""
    opened = Condition(
        condition_key="emailsOpened",
        delay_type="waitUntil",
        name="opened",
        yes=[Manual(title="Call today")],
        otherwise=[Manual(title="Call next week"), Api(method="POST", url="https://crm.example.com/quiet")],
    )
    accepted = Condition(
        condition_key="linkedinInviteAccepted",
        delay_type="within",
        delay=3,
        name="accepted",
        yes=[LinkedinVoiceNote(name="voice"), opened],
        otherwise=[Email(subject="Another way", message="<p>Hi {{firstName}}</p>"), Sms(message="Hello")],
    )
    return Campaign(
        name=NAME,
        campaign_timezone="Europe/London",
        stop_on_reply=True,
        auto_review=False,
        disable_track_open=True,
        schedules=schedules,
        steps=[
            LinkedinVisit(),
            Email(subject="{{firstName}}, a question", message="<p>The webinar</p>", name="opening", delay=1),
            accepted,
            Manual(title="Review", name="review"),
            Email(subject="Goodbye", message="<p>The last one</p>"),
        ],
    )


def changed(definition: Mapping[str, Any], *, unlisted: bool) -> dict[str, Any]:
    """
    Update a step and a schedule, insert two steps, move one, and delete a condition with its branches.

    :param unlisted: Whether a setting and a text change that lemlist does not list, too.
    """
    visit, opening, accepted, review, goodbye = definition["steps"]
    voice, _ = accepted["yes"]
    new = Condition(
        condition_key="hasPhoneNumber",
        delay_type="within",
        delay=0,
        name="reachable",
        yes=[Phone(message="Call"), Sms(message="See you")],
        otherwise=[Email(subject="By mail", message="<p>Then so</p>")],
    )
    steps = [
        {**opening, "subject": "{{firstName}}, another question"},
        Phone(message="Did it arrive?"),
        {**accepted, "yes": [voice], "otherwise": [*accepted["otherwise"], new]},
        {**review, "title": "Review again" if unlisted else review["title"]},
        goodbye,
        visit,
    ]
    schedules = [{**each, "end": "12:00"} for each in definition["schedules"]]
    return {**definition, "stopOnEmailReplied": not unlisted, "schedules": schedules, "steps": steps}


def remembering(store: Any) -> TaskMemory:
    """Return the memory of a task whose earlier attempts have written to a store."""
    ti = SimpleNamespace(task_id="apply", map_index=-1, xcom_pull=lambda **_: None)
    context: Any = {"ti": ti, "task_state_store": store}
    return TaskMemory(context)


def apply_once(
    definition: Mapping[str, Any], memory: Memory | None = None, *, after_kill: bool = False, **options: Any
) -> Outcome:
    """Make one attempt with a hook of its own, as a task does."""
    hook = LemlistHook()
    try:
        options = {"on_extra": "delete", **options}
        return Application(hook, definition, ApplyOptions(**options), memory or Memory()).apply(
            after_kill=after_kill
        )
    finally:
        hook.close()


class FileStore:
    """A store that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _all(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return found

    def get(self, key: str) -> Any:
        return self._all().get(key)

    def set(self, key: str, value: Any) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({**self._all(), key: value}))
        new.replace(self._path)


def attempt(connection: str, definition: str, folder: str, store: str, log: str, after_kill: bool) -> None:
    """
    Make one attempt in this process. The pause after a kill is slept, all others are cut short.

    :param definition: JSON.
    :param folder: The folder of the lock.
    :param store: The file of the task's store; empty on an Airflow without one.
    :param log: The file of the log's lines.
    """
    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = connection
    os.environ["AIRFLOW__LEMLIST__BUDGET_DIR"] = folder
    apply.SETTLE_TIME = SETTLE_TIME

    def brief(seconds: float) -> None:
        time.sleep(seconds if seconds == SETTLE_TIME else min(seconds, 0.01))

    def write(text: str, *values: Any) -> None:
        with Path(log).open("a") as file:
            file.write(f"{text % values}\n")

    CLOCK.sleep = brief
    for level in ("info", "warning"):
        setattr(apply.log, level, write)
    memory = remembering(FileStore(Path(store))) if store else Memory()
    apply_once(json.loads(definition), memory, after_kill=after_kill)
