# SPDX-License-Identifier: Apache-2.0
"""UploadVoiceAudiosOperator on the sandbox: every file once, for its lead, also after a kill."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    Asset,
    BaseOperator,
    ObjectStoragePath,
)

from airflow_provider_lemlist.concurrency import MAX_THREADS
from airflow_provider_lemlist.exceptions import (
    LemlistAuthError,
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistServerError,
    LemlistValidationError,
)
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger.summary import summarize
from airflow_provider_lemlist.operators.lead import UploadVoiceAudiosOperator
from airflow_provider_lemlist.sandbox import Sandbox
from tests.waiting import WINDOW, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))

import bucket

UPLOAD = "POST /leads/audio"
NUMBER = 60


class Campaign:
    """A campaign with leads, and a file of its own size for each of them."""

    def __init__(self, lemlist: Sandbox, folder: Path, number: int = NUMBER) -> None:
        campaign = lemlist.campaign()
        self.lemlist = lemlist
        self.id: str = campaign["_id"]
        self.sequence_id: str = campaign["sequenceId"]
        self.step_id: str = lemlist.step(self.sequence_id, "linkedinVoiceNote")["_id"]
        self.leads = [lemlist.lead(self.id, f"p{n}@example.com")["_id"] for n in range(number)]
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.sizes: dict[str, int] = {}
        for n, lead in enumerate(self.leads):
            self.record(lead, 1000 + n)

    def record(self, lead: str, size: int) -> None:
        (self.folder / f"{lead}.m4a").write_bytes(os.urandom(size))
        self.sizes[lead] = size

    def paths(self) -> dict[str, str]:
        return {lead: str(self.folder / f"{lead}.m4a") for lead in self.leads}

    def heard(self) -> dict[str, int]:
        """Return the size of the file that lemlist has for each lead."""
        state = self.lemlist.state()
        assert {each["stepId"] for each in state["audio"]} <= {self.step_id}
        return {each["leadId"]: each["size"] for each in state["audio"]}

    def uploads(self) -> int:
        return len(self.lemlist.requests(UPLOAD))


@pytest.fixture
def lemlist(quick_lemlist: Sandbox) -> Sandbox:
    return quick_lemlist


@pytest.fixture
def campaign(lemlist: Sandbox, tmp_path: Path) -> Campaign:
    return Campaign(lemlist, tmp_path / "notes")


class Runner:
    """Run attempts of one task of some DAG runs, by name, on one ledger."""

    def __init__(self, campaign: Campaign, ledger: str) -> None:
        self.campaign = campaign
        self.ledger = ledger
        self.pushed: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}

    def task(self, audio: Any, **arguments: Any) -> UploadVoiceAudiosOperator:
        given = {
            "campaign_id": self.campaign.id,
            "step_id": self.campaign.step_id,
            "ledger_path": self.ledger,
            **arguments,
        }
        return UploadVoiceAudiosOperator(task_id="say", audio=audio, **given)

    def __call__(self, audio: Any, day: int = 1, **arguments: Any) -> dict[str, Any]:
        task = audio if isinstance(audio, BaseOperator) else self.task(audio, **arguments)
        self.pushed = {}
        ti = SimpleNamespace(
            dag_id="daily", run_id=f"day {day}", task_id="say", map_index=-1, try_number=1, task=task,
            xcom_push=lambda key, value: self.pushed.update({key: json.loads(json.dumps(value))}),
        )  # fmt: skip
        context: Any = {
            "ti": ti,
            "ds": "2026-11-20",
            "dag_run": SimpleNamespace(data_interval_end=f"2026-11-{day:02}T00:00:00+00:00"),
            "outlet_events": {outlet: SimpleNamespace(extra=self.extra) for outlet in task.outlets or ()},
            "params": {},
        }
        task.render_template_fields(context)
        return task.execute(context)

    def lines(self) -> dict[int, dict[str, Any]]:
        """Read the lines of the ledger by row, and make sure that no row of a run has two."""
        files = Path(self.ledger).glob("runs/*/*.ndjson")
        texts = [(file.parent.name, line) for file in files for line in file.read_text().splitlines()]
        rows = [(run, json.loads(line)) for run, line in texts]
        assert max(Counter((run, line["row"]) for run, line in rows).values(), default=1) == 1
        return {line["row"]: line for _, line in rows}


@pytest.fixture
def run(campaign: Campaign, tmp_path: Path) -> Runner:
    return Runner(campaign, str(tmp_path / "ledger"))


def write_table(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def a_mapping(campaign: Campaign) -> Any:
    return campaign.paths()


def a_mapping_to_objects(campaign: Campaign) -> Any:
    return {lead: ObjectStoragePath(f"file://{path}") for lead, path in campaign.paths().items()}


def a_directory(campaign: Campaign) -> Any:
    (campaign.folder / ".DS_Store").write_text("x")
    return campaign.folder


def a_list(campaign: Campaign) -> Any:
    return [{"lead_id": f" {lead} ", "audio": path} for lead, path in campaign.paths().items()]


def a_table(name: str) -> Callable[[Campaign], Any]:
    def make(campaign: Campaign) -> Any:
        rows = [{"lead_id": lead, "name": "x", "audio": f"notes/{lead}.m4a"} for lead in campaign.leads]
        return str(write_table(campaign.folder.parent / name, rows))

    return make


FORMS = [
    a_mapping, a_mapping_to_objects, a_directory, a_list,
    a_table("notes.csv"), a_table("notes.ndjson"), a_table("notes.parquet"),
]  # fmt: skip


# --- Every form ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", FORMS, ids=["mapping", "objects", "directory", "list", "csv", "ndjson", "parquet"]
)
def test_every_lead_gets_its_own_file(
    campaign: Campaign, run: Runner, form: Callable[[Campaign], Any]
) -> None:
    report = run(form(campaign))
    assert campaign.heard() == campaign.sizes
    assert report == {
        "rows": NUMBER, "uploaded": NUMBER, "unchanged": 0, "newer": 0, "invalid": 0, "failed": 0,
        "not_tried": 0, "campaign_id": campaign.id, "ledger_path": run.ledger,
    }  # fmt: skip
    assert run.pushed["report"] == report
    assert campaign.lemlist.violations() == []
    lines = run.lines()
    assert sorted(lines) == list(range(1, NUMBER + 1))
    assert {line["lead_id"] for line in lines.values()} == {*campaign.leads}
    assert {line["outcome"] for line in lines.values()} == {"uploaded"}


def test_columns_may_have_other_names_and_paths_are_rendered(campaign: Campaign, run: Runner) -> None:
    (campaign.folder / "2026-11-20").mkdir()
    for lead in campaign.leads[:3]:
        (campaign.folder / f"{lead}.m4a").rename(campaign.folder / "2026-11-20" / f"{lead}.m4a")
    rows = [
        {"lemlist": lead, "note": f"{campaign.folder}/{{{{ ds }}}}/{lead}.m4a"} for lead in campaign.leads[:3]
    ]
    assert run(rows, lead_column="lemlist", audio_column="note")["uploaded"] == 3
    assert run({campaign.leads[0]: rows[0]["note"]}, day=2)["unchanged"] == 1


@pytest.mark.parametrize("form", ["directory", "table"])
def test_files_and_ledger_may_be_in_an_object_store(
    campaign: Campaign, run: Runner, tmp_path: Path, form: str
) -> None:
    bucket.use(tmp_path / "bucket")
    campaign.folder.rename(tmp_path / "bucket" / "notes")
    campaign.folder = tmp_path / "bucket" / "notes"
    rows = [{"lead_id": lead, "audio": f"notes/{lead}.m4a"} for lead in campaign.leads]
    write_table(tmp_path / "bucket" / "notes.csv", rows)
    source = {"directory": "bucket://notes", "table": "bucket://notes.csv"}[form]
    ledger = "bucket://ledgers/say"
    report = run(source, ledger_path=ledger)
    assert (report["uploaded"], report["ledger_path"]) == (NUMBER, ledger)
    assert campaign.heard() == campaign.sizes
    campaign.record(campaign.leads[3], 77)
    assert run(source, ledger_path=ledger, day=2)["uploaded"] == 1
    assert campaign.heard() == campaign.sizes


def test_upstream_result_makes_a_dependency() -> None:
    with DAG("d"):
        first = BaseOperator(task_id="first")
        task = UploadVoiceAudiosOperator(
            task_id="say", campaign_id="cam_1", step_id="stp_1", audio=first.output
        )
    assert task.upstream_task_ids == {"first"}


def test_rows_are_neither_shown_nor_stored_in_rendered_templates(campaign: Campaign, run: Runner) -> None:
    for audio in (campaign.paths(), a_list(campaign)):
        task = run.task(audio)
        run(task)
        assert str(task.audio) == f"{NUMBER} rows"
    task = run.task(campaign.folder)
    run(task)
    assert task.audio == campaign.folder


def test_default_ledger_is_one_per_step(
    campaign: Campaign, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    report = run(campaign.folder, ledger_path=None)
    host = campaign.lemlist.origin.removeprefix("http://").replace(":", "_")
    ledger = Path(report["ledger_path"])
    assert ledger.name == f"voice-{campaign.step_id}"
    assert ledger.parent.name == campaign.id
    assert ledger.parents[1].name.startswith(host.split("_")[0])
    assert ledger.parents[2] == tmp_path / "lemlist-ledgers"


def test_outlet_asset_gets_event_with_report(campaign: Campaign, run: Runner) -> None:
    assert run(campaign.folder, outlets=[Asset("lemlist://campaign")]) == run.extra


def test_command_shows_what_the_ledger_says(campaign: Campaign, run: Runner) -> None:
    run(campaign.folder)
    (shown,) = summarize(ObjectStoragePath(f"file://{run.ledger}"))["runs"]
    assert shown["counts"] == {"uploaded": NUMBER}


# --- Not twice ----------------------------------------------------------------------------------------


def test_cleared_task_sends_no_request(campaign: Campaign, run: Runner) -> None:
    run(campaign.folder)
    before = len(campaign.lemlist.requests())
    report = run(campaign.folder)
    assert (report["unchanged"], report["uploaded"]) == (NUMBER, 0)
    assert run(campaign.paths(), day=2)["unchanged"] == NUMBER
    assert len(campaign.lemlist.requests()) == before
    assert {line["outcome"] for line in run.lines().values()} == {"unchanged"}


@pytest.mark.parametrize("change", ["size", "time", "name", "behind a link"])
def test_changed_file_is_uploaded_again(campaign: Campaign, run: Runner, tmp_path: Path, change: str) -> None:
    paths = campaign.paths()
    lead = campaign.leads[7]
    if change == "behind a link":
        os.symlink(paths[lead], tmp_path / "link.m4a")
        paths[lead] = str(tmp_path / "link.m4a")
    run(paths)
    file = Path(campaign.paths()[lead])
    if change == "size":
        campaign.record(lead, 99)
    elif change == "name":
        paths[lead] = str(file.rename(file.with_name("new.m4a")))
    else:
        file.write_bytes(os.urandom(campaign.sizes[lead]))
        os.utime(file, (1_700_000_000, 1_700_000_000))
    report = run(paths)
    assert (report["uploaded"], report["unchanged"]) == (1, NUMBER - 1)
    assert campaign.uploads() == NUMBER + 1
    assert campaign.heard() == campaign.sizes
    assert Counter(line["outcome"] for line in run.lines().values()) == {
        "uploaded": 1,
        "unchanged": NUMBER - 1,
    }


def test_file_that_was_replaced_and_put_back_is_uploaded_again(campaign: Campaign, run: Runner) -> None:
    lead, file = campaign.leads[0], campaign.folder / "a.m4a"
    for content in (b"a", b"bb", b"a"):
        file.write_bytes(content)
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert run({lead: file})["uploaded"] == 1
        assert campaign.heard() == {lead: len(content)}


def test_older_run_does_not_replace_the_file_of_a_newer_one(campaign: Campaign, run: Runner) -> None:
    first, second = campaign.leads[:2]
    run({first: campaign.paths()[first], second: campaign.paths()[second]}, day=1)
    old = campaign.folder / "old.m4a"
    old.write_bytes(b"old")
    run({first: campaign.paths()[second]}, day=3)
    report = run({first: old, second: old}, day=2)
    assert (report["newer"], report["uploaded"]) == (1, 1)
    assert campaign.heard() == {first: campaign.sizes[second], second: 3}
    # A row that took no request says nothing about the file at lemlist.
    assert run({first: campaign.paths()[second]}, day=3)["unchanged"] == 1


def test_ledger_of_another_step_or_of_leads_is_refused(campaign: Campaign, run: Runner) -> None:
    run(campaign.folder)
    campaign.step_id = campaign.lemlist.step(campaign.sequence_id, "linkedinVoiceNote")["_id"]
    with pytest.raises(LemlistConfigurationError, match=f"belongs to .*, not to .*{campaign.step_id}"):
        run(campaign.folder)
    assert campaign.uploads() == NUMBER


ATTEMPT = """
import json, os, sys
sys.path[:0] = [{tests!r}, {load!r}]
import bucket
from airflow_provider_lemlist.ledger import lock
from test_voice_audios import Runner
from types import SimpleNamespace
bucket.use({root!r})
lock.StoredLock.heartbeat, lock.StoredLock.settle_time = 0.05, 0.01
campaign = SimpleNamespace(id={campaign!r}, step_id={step!r})
print(json.dumps(Runner(campaign, {ledger!r})({source!r})))
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_killed_task_continues_without_uploading_files_again(tmp_path: Path, place: str) -> None:
    with Sandbox(limit="none", requests=200, latency=0.1) as lemlist:
        campaign = Campaign(lemlist, tmp_path / "notes")
        code = ATTEMPT.format(
            tests=str(Path(__file__).parent),
            load=str(Path(bucket.__file__).parent),
            root=str(tmp_path / "bucket"),
            campaign=campaign.id,
            step=campaign.step_id,
            source=str(campaign.folder),
            ledger=str(tmp_path / "ledger") if place == "disk" else "bucket://ledger/say",
        )
        environment = {**os.environ, "AIRFLOW_CONN_LEMLIST_DEFAULT": lemlist.airflow_connection()}

        def begin() -> subprocess.Popen[str]:
            command = [sys.executable, "-c", code]
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

        process = begin()
        wait_for(lambda: len(campaign.heard()) >= 35)
        process.kill()
        process.wait()
        before = len(campaign.heard())
        assert before < NUMBER
        again = begin()
        report = json.loads(again.communicate(timeout=100)[0].splitlines()[-1])
        assert campaign.heard() == campaign.sizes
        # The lines of the last outcomes may not be written at the kill, and the threads had files in flight.
        assert before - 20 - 10 <= report["unchanged"] <= before
        assert report["uploaded"] == NUMBER - report["unchanged"]
        assert campaign.uploads() <= NUMBER + 20 + 10


def test_file_in_flight_at_kill_is_uploaded_again_even_if_the_old_one_is_back(
    campaign: Campaign, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead, file = campaign.leads[0], campaign.folder / "a.m4a"
    old = file.with_name("old")
    file.write_bytes(b"a")
    run({lead: file})
    file.rename(old)
    file.write_bytes(b"bb")
    task = run.task({lead: file})
    upload = type(task.hook).upload_audio

    def die(*args: Any, **kwargs: Any) -> Any:
        upload(*args, **kwargs)
        raise KeyError("the process dies here")

    with monkeypatch.context() as patch:
        patch.setattr(type(task.hook), "upload_audio", die)
        with pytest.raises(KeyError):
            run(task)
    assert campaign.heard() == {lead: 2}
    old.rename(file)
    assert run({lead: file})["uploaded"] == 1
    assert campaign.heard() == {lead: 1}


# --- Failures -----------------------------------------------------------------------------------------

FAULTS: list[dict[str, Any]] = [
    {"kind": "rate_limited", "seconds": 0.02},
    {"kind": "status", "status": 503, "when": "before"},
    {"kind": "status", "status": 500, "when": "after"},
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "cut_body"},
    {"kind": "html", "when": "after"},
    {"kind": "empty", "when": "before"},
]


def test_with_faults_on_every_tenth_call_every_lead_gets_its_file(campaign: Campaign, run: Runner) -> None:
    for fault in FAULTS:
        campaign.lemlist.fault("*", probability=0.1 / len(FAULTS), **fault)
    errors: list[LemlistError] = []
    report: dict[str, Any] = {}
    while not report and len(errors) < 10:  # an attempt may fail, but the next one continues
        try:
            report = run(campaign.folder)
        except LemlistError as error:
            errors.append(error)
    assert report["not_tried"] == 0
    assert all(error.retryable for error in errors)
    assert campaign.heard() == campaign.sizes


@pytest.mark.slow
def test_every_request_is_booked_in_the_rate_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(window=WINDOW) as lemlist:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        campaign = Campaign(lemlist, tmp_path / "notes")
        Runner(campaign, str(tmp_path / "ledger"))(campaign.folder)
        assert campaign.heard() == campaign.sizes
        assert LemlistHook().budget.state()["booked"] >= len(lemlist.requests())
        assert lemlist.violations() == []


@pytest.mark.parametrize("text", ["Bad team", "Lead not found", "Not found"])
def test_unknown_lead_is_the_failure_of_its_row_only(campaign: Campaign, run: Runner, text: str) -> None:
    source = campaign.paths()
    if text == "Bad team":
        source = {"lea_unknown": source[campaign.leads[0]], **source}
    else:  # undocumented, and plausible
        campaign.lemlist.fault(UPLOAD, "status", status=404, text=text, times=1)
    with pytest.raises(LemlistError, match=f"1 failed of {len(source)} rows, and max_failed is 0") as raised:
        run(source)
    assert raised.value.retryable
    assert run.pushed["report"]["uploaded"] == len(source) - 1
    (line,) = (line for line in run.lines().values() if line["outcome"] == "failed")
    assert line["message"]
    assert run(source, max_failed=1)["unchanged"] == len(source) - 1


def test_upload_that_lemlist_refused_leaves_the_file_that_it_has(campaign: Campaign, run: Runner) -> None:
    first, second = campaign.leads[:2]
    paths = campaign.paths()
    run({first: paths[first]})
    campaign.lemlist.fault(UPLOAD, "status", status=400, text="Invalid audio file", times=1)
    assert run({first: paths[second]}, max_failed=1)["failed"] == 1
    assert run({first: paths[first]})["unchanged"] == 1


STOPS: dict[str, tuple[dict[str, Any], type[LemlistError]]] = {
    "key revoked": ({"status": 401, "text": "Invalid API key"}, LemlistAuthError),
    "outage": ({"status": 503, "times": 100_000}, LemlistServerError),
}


@pytest.mark.parametrize("what", STOPS)
def test_error_that_concerns_every_row_aborts(campaign: Campaign, run: Runner, what: str) -> None:
    fault, error = STOPS[what]
    campaign.lemlist.fault(UPLOAD, "status", skip=5, **{"times": 100, **fault})
    with pytest.raises(error):
        run(campaign.folder)
    assert run.pushed["report"]["not_tried"] > 0
    campaign.lemlist.clear_faults()
    assert run(campaign.folder)["unchanged"] == 5
    assert campaign.heard() == campaign.sizes


def test_wrong_step_or_campaign_is_found_before_the_first_upload(campaign: Campaign, run: Runner) -> None:
    visit = campaign.lemlist.step(campaign.sequence_id, "linkedinVisit")["_id"]
    for step in (visit, "stp_unknown"):
        with pytest.raises(LemlistValidationError, match=f"{step}.* is not a voice note.*{campaign.step_id}"):
            run(campaign.folder, step_id=step, ledger_path=f"{run.ledger}-{step}")
    with pytest.raises(LemlistNotFoundError):
        run(campaign.folder, campaign_id="cam_unknown", ledger_path=f"{run.ledger}-unknown")
    assert not campaign.uploads()


def test_stopped_task_uploads_no_further_file_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(latency=0.2) as slow:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", slow.airflow_connection())
        campaign = Campaign(slow, tmp_path / "notes")
        run = Runner(campaign, str(tmp_path / "ledger"))
        task = run.task(campaign.folder)
        begun: list[int] = []

        def stop() -> None:
            wait_for(lambda: len(campaign.heard()) >= 3)
            task.on_kill()
            begun.append(campaign.uploads())

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(LemlistError, match="The task was stopped") as raised:
            run(task)
        thread.join()
        assert raised.value.retryable
        assert campaign.uploads() <= begun[0] + MAX_THREADS
        done = len(campaign.heard())
        assert 3 <= done < NUMBER
        assert run.pushed["report"]["uploaded"] == done
        assert run(campaign.folder)["unchanged"] == done
        assert campaign.uploads() == NUMBER
        assert campaign.heard() == campaign.sizes


def test_task_stopped_while_files_are_checked_uploads_nothing(campaign: Campaign, run: Runner) -> None:
    task = run.task([])

    def rows() -> Iterator[Any]:
        yield {"lead_id": campaign.leads[0], "audio": campaign.paths()[campaign.leads[0]]}
        task.on_kill()
        yield {"lead_id": campaign.leads[1], "audio": campaign.paths()[campaign.leads[1]]}

    task.audio = rows()
    with pytest.raises(LemlistError, match="before anything was sent"):
        run(task)
    assert not campaign.lemlist.requests()


def test_file_that_disappears_is_a_failed_row(
    campaign: Campaign, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = run.task(campaign.folder)
    sequences = task.hook.get_sequences

    def remove(campaign_id: str) -> Any:
        (campaign.folder / f"{campaign.leads[4]}.m4a").unlink()
        return sequences(campaign_id)

    monkeypatch.setattr(task.hook, "get_sequences", remove)
    with pytest.raises(LemlistError, match=f"1 failed of {NUMBER} rows"):
        run(task)


# --- Before the first request -------------------------------------------------------------------------


def test_invalid_rows_are_named_and_the_others_are_uploaded(
    campaign: Campaign, run: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = campaign.paths()
    good, twice, *rest = campaign.leads
    for name, content in {"empty.m4a": b"", "ada.pdf": b"x", "noname": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.m4a").mkdir()
    wrong = {
        rest[0]: (tmp_path / "missing.m4a", "the audio does not exist"),
        rest[1]: (tmp_path / "empty.m4a", "the audio is empty"),
        rest[2]: (tmp_path / "folder.m4a", "the audio is a directory"),
        rest[3]: (tmp_path / "ada.pdf", "the audio must have the extension of an audio file"),
        rest[4]: (tmp_path / "noname", "the audio must have the extension of an audio file"),
        rest[5]: (None, "audio is empty"),
        rest[6]: (float("nan"), "audio is empty"),
        "": (paths[good], "lead_id is empty"),
        "None": (paths[good], "lead_id is empty"),
        "Ada Lovelace": (paths[good], "lead_id must be an id"),
        "ada@example.com": (paths[good], "lead_id must be an id"),
    }
    rows: list[Any] = [{"lead_id": lead, "audio": path} for lead, (path, _) in wrong.items()]
    rows += [{"lead_id": twice, "audio": paths[twice]}, {"lead_id": f"{twice} ", "audio": paths[good]}]
    rows += [{"lead_id": 7, "audio": paths[good]}, {"audio": paths[good]}, "text"]
    messages = [why for _, why in wrong.values()]
    messages += ["another row is for the same lead"] * 2
    messages += ["lead_id must be an id", "lead_id is empty", "must be a dict, not str"]
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(
            LemlistValidationError, match=rf"{len(rows)} invalid of {len(rows) + 1} rows"
        ) as raised,
    ):
        run([*rows, {"lead_id": good, "audio": paths[good]}])
    assert isinstance(raised.value, AirflowFailException)  # so Airflow does not retry
    assert campaign.heard() == {good: campaign.sizes[good]}
    lines = run.lines()
    for number, message in enumerate(messages, 1):
        assert lines[number]["outcome"] == "invalid"
        assert lines[number]["message"].startswith(message)
    assert re.search(r"uploaded +1\n +invalid +16\n", caplog.text)
    assert f"Invalid: row {rest[0]}: the audio does not exist." in caplog.text
    for personal in ("Lovelace", "ada@", "example.com"):
        assert personal not in caplog.text + str(raised.value) + json.dumps(lines)


def test_wrong_column_name_sends_nothing(campaign: Campaign, run: Runner) -> None:
    with pytest.raises(LemlistValidationError, match=f"{NUMBER} invalid"):
        run(a_list(campaign), audio_column="path")
    assert not campaign.lemlist.requests()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.csv", "does not exist"),
        ("missing", "unknown extension"),
        ("nosuchstore://bucket/notes.csv", "Install the provider"),
        ("{{ None }}", "is empty"),
        ("{{ params.missing }}", "is empty"),
        ({"lea_1": "nosuchstore://bucket/a.m4a"}, "Install the provider"),
        ({"lea_1": 7}, "must be a path, not int"),
    ],
)
def test_unusable_source_sends_no_request(campaign: Campaign, run: Runner, source: Any, message: str) -> None:
    with pytest.raises(LemlistError, match=message):
        run(source)
    assert not campaign.lemlist.requests()


def test_given_but_empty_argument_sends_no_request(campaign: Campaign, run: Runner) -> None:
    for name in ("campaign_id", "step_id", "ledger_path", "storage_conn_id"):
        with pytest.raises(LemlistValidationError, match=f"The {name} of task 'say' is empty"):
            run(campaign.folder, **{name: "{{ None }}"})
    assert not campaign.lemlist.requests()


def test_empty_source_is_no_error(campaign: Campaign, run: Runner) -> None:
    assert [run(source)["rows"] for source in ({}, [])] == [0, 0]
    assert not campaign.lemlist.requests()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"campaign_id": ""}, "campaign_id"),
        ({"step_id": "stp 1"}, "step_id"),
        ({"audio": ""}, "The audio .* is empty"),
        ({"audio": None}, "The audio .* is empty"),
        ({"audio": 7}, "not int"),
        ({"audio": {"": "a.m4a"}}, "A lead id in the audio .* is empty"),
        ({"audio": {"lea 1": "a.m4a"}}, "A lead id in the audio .* must be an id"),
        ({"audio": {"lea 1": "{{ ds }}.m4a"}}, "A lead id in the audio .* must be an id"),
        ({"lead_column": ""}, "lead_column"),
        ({"audio_column": None}, "audio_column"),
        ({"max_failed": -1}, "max_failed"),
        ({"max_failed": True}, "max_failed"),
    ],
    ids=str,
)
def test_invalid_arguments_are_found_when_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    given = {"campaign_id": "cam_1", "step_id": "stp_1", "audio": "notes", **arguments}
    with pytest.raises(LemlistError, match=message):
        UploadVoiceAudiosOperator(task_id="say", **given)
    mapped = {"audio": [given.pop("audio")]}
    partial = UploadVoiceAudiosOperator.partial(task_id="say", **given)
    with pytest.raises(LemlistError, match=message):
        partial.expand(**mapped)


def test_every_template_field_is_an_attribute() -> None:
    task = UploadVoiceAudiosOperator(task_id="say", campaign_id="cam_1", step_id="stp_1", audio="notes")
    assert all(hasattr(task, name) for name in task.template_fields)
