# SPDX-License-Identifier: Apache-2.0
"""
Default deny: nothing starts, launches, unsubscribes, deletes or re-subscribes unless it is written.

Every method of the hook and every operator runs with its defaults against the sandbox, in a team in which
each of these effects is possible; what it sends is compared with the lists in docs/safety.md. So a new method
or operator cannot be forgotten, and each line of the lists is shown to be true.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lemlist import exceptions
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import Email
from tests.unit.worker import Worker

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_lemlist"

#: What a request does that must be written: method, pattern of the path.
EFFECTS: tuple[tuple[str, str, str], ...] = (
    ("starts", "POST", r"/campaigns/[^/]+/start"),
    ("launches", "POST", r"/leads/review/.*"),
    ("resumes", "POST", r"/leads/start/.*"),
    ("re-subscribes", "DELETE", r"/v2/unsubscribes/.*"),
    ("unsubscribes", "POST", r"/v2/unsubscribes/.*"),
    ("unsubscribes", "DELETE", r"/campaigns/[^/]+/leads/[^/]*(?:%40|@)[^/]*"),
    ("deletes", "DELETE", r".*"),
    ("sends", "POST", r"/inbox/.*"),
)


def effect_of(request: Mapping[str, Any]) -> str:
    """Return what a request does of the above; empty for anything else."""
    body = request["request"]["body"] or "{}"
    if re.fullmatch(r"/campaigns(?:/cam_\w+)?", request["path"]) and request["method"] in ("POST", "PATCH"):
        return "launches each lead" if json.loads(body).get("autoReview") else ""
    found = (
        effect
        for effect, method, pattern in EFFECTS
        if method == request["method"] and re.fullmatch(pattern, request["path"])
    )
    return next(found, "")


class Team:
    """A team in which every effect is possible, and what was sent since."""

    def __init__(self, lemlist: Sandbox, tmp_path: Path, worker: Worker) -> None:
        self.lemlist = lemlist
        self.tmp_path = tmp_path
        self.worker = worker
        lemlist.service.world.unsubscribe("gone@norte.example")
        campaign = lemlist.campaign("Running", status="running")
        self.campaign_id, self.sequence_id = str(campaign["_id"]), str(campaign["sequenceId"])
        step = lemlist.step(self.sequence_id, "email", subject="Hello", message="Hi {{firstName}}")
        self.voice_step_id = str(lemlist.step(self.sequence_id, "linkedinVoiceNote")["_id"])
        self.step_id = str(step["_id"])
        self.lead_id = str(lemlist.lead(self.campaign_id, "ana@norte.example", firstName="Ana")["_id"])
        for type, number in (("emailsSent", 60), ("emailsBounced", 60)):
            for _ in range(number):
                lemlist.activity(lead_id=self.lead_id, type=type)
        draft = lemlist.campaign("Draft")
        self.draft_id = str(draft["_id"])
        lemlist.step(draft["sequenceId"], "email", subject="Hello", message="Hi {{firstName}}")
        lemlist.lead(self.draft_id, "ben@norte.example", firstName="Ben")
        self._before = len(lemlist.requests())

    def effects(self) -> set[str]:
        """Return the effects of what was sent."""
        return {effect_of(request) for request in self.lemlist.requests()[self._before :]} - {""}

    def statuses(self) -> dict[str, str]:
        """Return the campaigns and leads that lemlist contacts, whatever was sent."""
        state = self.lemlist.state()
        return {each["_id"]: each["status"] for each in (*state["campaigns"], *state["leads"])}


@pytest.fixture
def team(quick_lemlist: Sandbox, tmp_path: Path) -> Team:
    return Team(quick_lemlist, tmp_path, Worker(has_store=True))


def documented(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading of docs/safety.md."""
    page = (ROOT / "docs" / "safety.md").read_text()
    section = page.partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line
    ]
    return rows[2:]


# --- The hook ---------------------------------------------------------------------------------------------

#: Methods that do not send to lemlist's API, or send what their arguments say.
NOT_CALLED = {"get_conn", "close", "get_ui_field_behaviour", "get_connection_form_widgets", "load_settings",
              "request", "paginate"}  # fmt: skip
START = datetime(2026, 3, 1, tzinfo=UTC)
AUDIO = b"\x00\x00\x00\x20ftypM4A " + bytes(100)


def arguments_of(method: str, team: Team) -> dict[str, Any]:
    """Return values for the required parameters of a method of the hook, by their names."""
    values: dict[str, Any] = {
        "campaign_id": team.campaign_id, "lead_id": team.lead_id, "sequence_id": team.sequence_id,
        "step_id": team.step_id, "schedule_id": team.lemlist.state()["schedules"][0]["_id"],
        "lead": {"email": "eva@norte.example"}, "lead_email": "ana@norte.example",
        "fields": {"firstName": "Ana"}, "variables": {"plan": "trial"}, "names": ["firstName"],
        "audio": io.BytesIO(AUDIO), "file_name": "note.m4a", "content_type": "audio/mp4",
        "name": "Another", "settings": {"stopOnEmailReplied": True}, "start": START, "end": datetime.now(UTC),
        "campaign_ids": [team.campaign_id], "step": Email(subject="More", message="More"),
        "dataset": "unsubscribes", "value": "gone@norte.example", "values": ["x@norte.example"],
    }  # fmt: skip
    values |= {
        "mark_lead_interested": {"lead": team.lead_id},
        "mark_lead_not_interested": {"lead": team.lead_id},
        "upload_audio": {"step_id": team.voice_step_id},
        "update_step": {"step": {"type": "email", "subject": "New"}},
        "create_schedule": {"fields": {"name": "Mornings"}},
        "update_schedule": {"fields": {"name": "Mornings"}},
    }.get(method, {})
    parameters = inspect.signature(getattr(LemlistHook, method)).parameters
    return {
        name: values[name]
        for name, each in parameters.items()
        if name != "self" and each.default is each.empty and each.kind is not each.VAR_POSITIONAL
    }


METHODS = sorted(
    name
    for name, value in vars(LemlistHook).items()
    if name[0] != "_" and callable(value) and name not in NOT_CALLED
)


@pytest.mark.parametrize("method", METHODS)
def test_method_of_the_hook_does_only_what_is_listed(team: Team, method: str) -> None:
    hook = LemlistHook()
    given = arguments_of(method, team)
    with suppress(exceptions.LemlistError):
        result = getattr(hook, method)(*(["Running"] if method == "find_campaign" else []), **given)
        if isinstance(result, Iterator):
            list(result)
    assert team.lemlist.requests()
    rows = [(re.findall(r"`(\w+)", names), effect) for names, effect in documented("Methods of the hook")]
    listed = {name: effect for names, effect in rows for name in names}
    wanted = "" if method in ("create_campaign", "update_campaign") else listed.get(method, "")
    assert {wanted.split(" ")[0].removesuffix("s")} - {""} == {
        each.removesuffix("s") for each in team.effects()
    }


@pytest.mark.parametrize("is_new", [True, False])
def test_auto_review_of_the_hook_is_listed(team: Team, is_new: bool) -> None:
    if is_new:
        LemlistHook().create_campaign("New", auto_review=True)
    else:
        LemlistHook().update_campaign(team.campaign_id, {"autoReview": True})
    assert team.effects() == {"launches each lead"}
    [row] = [row for row in documented("Methods of the hook") if "auto" in row[0]]
    assert row == [
        '`create_campaign(auto_review=True)`, `update_campaign(…, {"autoReview": True})`',
        "launch each lead that is created later",
    ]


# --- The operators ----------------------------------------------------------------------------------------


def operators() -> Iterator[type[BaseOperator]]:
    """Yield every operator, sensor and transfer of the package."""
    found: dict[str, type[BaseOperator]] = {}
    for room in ("operators", "sensors", "transfers"):
        for file in sorted((PACKAGE / room).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for each in vars(importlib.import_module(name)).values():
                public = (
                    inspect.isclass(each) and issubclass(each, LemlistOperator) and each.__name__[0] != "_"
                )
                if public and each.__name__.endswith(("Operator", "Sensor")):
                    found[each.__name__] = each
    bases = {
        "LemlistOperator", "RowsOperator", "LedgerOperator", "SourceOperator", "LemlistTransfer",
        "LemlistSensor",
    }  # fmt: skip
    yield from (each for name, each in sorted(found.items()) if name[0] != "_" and name not in bases)


OPERATORS = {each.__name__: each for each in operators()}
STEPS = [{"type": "email", "subject": "Hello", "message": "Hi {{firstName}}"}]
PEOPLE = [
    {"email": "ana@norte.example", "firstName": "Ana"},
    {"email": "eva@sur.example", "firstName": "Eva"},
]


def minimal(name: str, team: Team) -> dict[str, Any]:
    """Return the arguments that an operator needs, and no other that changes what it does."""
    audio = team.tmp_path / "note.m4a"
    audio.write_bytes(AUDIO)
    ledger = str(team.tmp_path / name)
    arguments: dict[str, dict[str, Any]] = {
        "ApplyCampaignOperator": {"campaign": {"name": "Running", "steps": STEPS}},
        "CreateCampaignOperator": {"name": "New"},
        "StartCampaignOperator": {"campaign_id": team.draft_id},
        "PauseCampaignOperator": {"campaign_id": team.campaign_id},
        "LaunchLeadsOperator": {"campaign_id": team.draft_id, "max_leads": 1, "ledger_path": ledger},
        "CampaignGuardOperator": {"campaign_id": [team.campaign_id, team.draft_id]},
        "CampaignStatsSensor": {
            "campaign_id": team.campaign_id,
            "metric": "sent",
            "above": 1,
            "since": START,
        },
        "CreateLeadOperator": {"campaign_id": team.campaign_id, "lead": PEOPLE[1]},
        "LoadLeadsOperator": {"campaign_id": team.campaign_id, "leads": PEOPLE, "ledger_path": ledger},
        "AddStepOperator": {"campaign_id": team.draft_id, "step": STEPS[0]},
        "UploadVoiceAudioOperator": {"lead_id": team.lead_id, "step_id": team.voice_step_id, "audio": audio},
        "UploadVoiceAudiosOperator": {
            "campaign_id": team.campaign_id,
            "step_id": team.voice_step_id,
            "audio": {team.lead_id: audio},
            "ledger_path": ledger,
        },
        "SyncUnsubscribesOperator": {"values": ["ana@norte.example"]},
        "ActivitySensor": {"activity_type": "emailsSent", "since": START},
        "LemlistToObjectStorageOperator": {"dataset": "unsubscribes", "path": ledger, "file_format": "csv"},
        "LemlistToSqlOperator": {"dataset": "unsubscribes", "table": "t", "sql_conn_id": "warehouse"},
    }
    return arguments[name]  # an operator that is missing here has no defaults that were looked at


def run(name: str, team: Team, **more: Any) -> None:
    """Run an operator; what it refuses to do, it does not do."""
    task = OPERATORS[name](**{"task_id": name.lower(), **minimal(name, team), **more})
    with suppress(exceptions.LemlistError):
        team.worker.run(task)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_does_by_default_only_what_is_listed(
    team: Team, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = {"conn_type": "sqlite", "host": str(team.tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    before = team.statuses()
    run(name, team)
    team.worker.next_run()
    run(name, team)
    assert team.lemlist.requests()
    rows = documented("Operators")
    [wanted] = [row[2] for row in rows if row[0] == f"`{name}`" and "itself" in row[1]] or [""]
    assert team.effects() == {wanted} - {""}
    if not wanted:
        # Nor has anything else started to be contacted.
        now = team.statuses()
        assert {each for each in before if now.get(each) == "running" != before[each]} == set()
        assert before.keys() <= now.keys()


def _auto_review(team: Team) -> None:
    run("CreateCampaignOperator", team, auto_review=True)


def _apply(name: str, *more: dict[str, Any], **options: Any) -> Callable[[Team], None]:
    settings = options.pop("settings", {})
    steps = [*STEPS, {"type": "linkedinVoiceNote"}, *more]
    campaign = {"name": name, "steps": steps, **settings}
    return lambda team: run("ApplyCampaignOperator", team, campaign=campaign, **options)


def _load(if_missing: str) -> Callable[[Team], None]:
    def act(team: Team) -> None:
        for people in (PEOPLE, PEOPLE[1:], PEOPLE):
            run("LoadLeadsOperator", team, leads=people, if_missing=if_missing, max_missing=1)
            team.worker.next_run()

    return act


def _sync(**options: Any) -> Callable[[Team], None]:
    return lambda team: run("SyncUnsubscribesOperator", team, max_missing=1, **options)


def _plain(name: str) -> Callable[[Team], None]:
    return lambda team: run(name, team)


#: How each line of the list is shown: operator and argument.
SHOWN: dict[tuple[str, str], Callable[[Team], None]] = {
    ("StartCampaignOperator", "the operator itself"): _plain("StartCampaignOperator"),
    ("LaunchLeadsOperator", "the operator itself, with `max_leads`"): _plain("LaunchLeadsOperator"),
    ("ApplyCampaignOperator", '`if_running="pause"`'): _apply(
        "Running", {"type": "manual", "title": "Call"}, if_running="pause"
    ),
    ("ApplyCampaignOperator", "`autoReview: true` in the definition"): _apply(
        "New", settings={"autoReview": True}
    ),
    ("ApplyCampaignOperator", '`on_extra="delete"`'): lambda team: run(
        "ApplyCampaignOperator", team, on_extra="delete", if_running="pause"
    ),
    ("CreateCampaignOperator", "`auto_review=True`"): _auto_review,
    ("LoadLeadsOperator", '`if_missing="pause"`'): _load("pause"),
    ("LoadLeadsOperator", '`if_missing="unsubscribe"`'): _load("unsubscribe"),
    ("LoadLeadsOperator", '`if_missing="delete"`'): _load("delete"),
    ("SyncUnsubscribesOperator", "the operator itself"): _sync(),
    ("SyncUnsubscribesOperator", "`resubscribe_missing=True`"): _sync(resubscribe_missing=True),
}


def test_every_line_of_the_list_is_shown() -> None:
    assert {(row[0].strip("`"), row[1]) for row in documented("Operators")} == {*SHOWN}


@pytest.mark.parametrize("line", SHOWN, ids=" ".join)
def test_line_of_the_list_is_true(team: Team, line: tuple[str, str]) -> None:
    SHOWN[line](team)
    [effect] = [row[2] for row in documented("Operators") if (row[0].strip("`"), row[1]) == line]
    assert any(effect.startswith(each) for each in team.effects()), (effect, team.effects())


def test_max_leads_has_no_default() -> None:
    launch = OPERATORS["LaunchLeadsOperator"]
    assert inspect.signature(launch.__init__).parameters["max_leads"].default is inspect.Parameter.empty


def test_default_window_of_this_test_covers_what_happened(team: Team) -> None:
    # The guard pauses by default: it must have had a reason to, or its default was not looked at.
    run("CampaignGuardOperator", team, window=timedelta(days=1))
    assert team.lemlist.requests("POST /campaigns/{campaignId}/pause")
