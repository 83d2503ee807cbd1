# SPDX-License-Identifier: Apache-2.0
"""The commands, as ``airflow lemlist`` and as ``python -m airflow_provider_lemlist``."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
import yaml
from airflow.providers.common.compat.sdk import BaseHook, ObjectStoragePath

from airflow_provider_lemlist import __main__ as module
from airflow_provider_lemlist import cli, sources
from airflow_provider_lemlist.api.budget import open_budget
from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.ledger.ledger import Run
from airflow_provider_lemlist.ledger.lock import lock_at
from airflow_provider_lemlist.load.mapping import ColumnMapping
from airflow_provider_lemlist.load.options import LoadOptions
from airflow_provider_lemlist.load.run import Load
from airflow_provider_lemlist.sandbox import Sandbox
from tests.commands import takes_commands
from tools.servers import RedisServer

sys.path.insert(0, str(Path(__file__).parent / "load"))

import bucket

KEY = "s3cr3t-key-of-the-command"


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A connection named ``mine``; its key has used 3 slots."""
    folder = str(tmp_path / "budget")
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", folder)
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({"conn_type": "lemlist", "password": KEY}))
    budget = open_budget(KEY, directory=folder)
    for _ in range(3):
        budget.book()
    return "mine"


@pytest.fixture(params=[pytest.param("airflow", marks=takes_commands), "module"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in both ways, and undo what it changes for the rest of its process."""
    monkeypatch.setattr(BaseHook, "get_connection", BaseHook.get_connection)
    monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers])

    def through_airflow(*arguments: str) -> None:
        from airflow.cli.cli_parser import get_parser

        args = get_parser().parse_args(["lemlist", *arguments])
        args.func(args)

    def through_module(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["airflow_provider_lemlist", *arguments])
        module.main()

    return through_airflow if request.param == "airflow" else through_module


# --- budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [pytest.param("airflow lemlist", marks=takes_commands), "airflow_provider_lemlist"]
)
def test_the_command_shows_the_budget_of_a_connection(connection: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "budget", "--conn-id", connection, "-o", "json"],
        capture_output=True,
        text=True,
        env=os.environ | {"AIRFLOW__CORE__UNIT_TEST_MODE": "False"},  # which writes to stdout
        check=True,
    )
    (state,) = json.loads(done.stdout)
    assert state.keys() == cli.MEANINGS.keys()
    assert (state["booked"], state["limit"], state["pause"]) == ("3", "20", "0.0")
    assert Path(state["store"].removeprefix("the file ")).is_file()
    assert state["shared_by"] == "one user on this machine"
    assert KEY not in done.stdout + done.stderr


def test_the_table_says_what_each_number_means(
    run: Callable[..., None], connection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("budget", "--conn-id", connection)
    shown = capsys.readouterr().out
    for name, meaning in cli.MEANINGS.items():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert meaning in line


def test_a_connection_that_does_not_exist_is_named(
    run: Callable[..., None], connection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="'missing' does not exist"):
        run("budget", "--conn-id", "missing")
    assert not capsys.readouterr().out


def test_a_store_that_does_not_work_is_not_shown_as_an_idle_budget(
    run: Callable[..., None],
    connection: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as ended:
        run("budget", "--conn-id", connection)
    assert ended.value.code == 1
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("booked")]


def test_every_number_of_the_budget_is_shown() -> None:
    state = open_budget(KEY, store="memory://").state()
    assert state.pop("shared") is True
    assert ["store", "shared_by", *state] == list(cli.MEANINGS)


@pytest.mark.redis
def test_the_budget_in_redis_is_shown_without_its_password(
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = RedisServer(tmp_path, "--requirepass", "hidden-word", "--save", "")
    monkeypatch.setenv("AIRFLOW_CONN_FLEET", server.url.replace("redis://", "redis://:hidden-word@"))
    mine = {"conn_type": "lemlist", "password": KEY, "extra": {"budget_store": "fleet"}}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(mine))
    server.start()
    try:
        run("budget", "--conn-id", "mine", "-o", "json")
    finally:
        server.stop()
    shown = capsys.readouterr()
    (state,) = json.loads(shown.out)
    assert state["store"] == f"Redis at 127.0.0.1:{server.port}"
    assert state["shared_by"] == "all machines that use it"
    assert "hidden-word" not in shown.out + shown.err


# --- check --------------------------------------------------------------------------------------------------


@pytest.fixture
def lemlist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox, and a connection to it named ``mine``."""
    monkeypatch.setenv("AIRFLOW__LEMLIST__BUDGET_DIR", str(tmp_path / "budget"))
    with Sandbox() as sandbox:
        connect(monkeypatch, sandbox)
        yield sandbox


def connect(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, **fields: Any) -> None:
    mine = {"conn_type": "lemlist", "password": sandbox.api_key, "host": sandbox.url} | fields
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(mine))


def check(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, str]]]:
    """Return the exit status and the rows of ``check``."""
    status: Any = 0
    try:
        run("check", "--conn-id", "mine", "-o", "json")
    except SystemExit as ended:
        status = ended.code
    return status, json.loads(capsys.readouterr().out)


def test_check_finds_nothing_to_mend_where_all_works(
    run: Callable[..., None], lemlist: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    status, rows = check(run, capsys)
    assert status == 0
    looked_at = list(dict.fromkeys(row["looked_at"] for row in rows))
    assert looked_at[:6] == ["connection", "budget store", "API key", "limits", "clock", "versions"]
    assert {row["looked_at"] for row in rows if row["status"] != "ok"} == {"connection"}  # it is a sandbox
    assert [request["method"] for request in lemlist.requests()] == ["GET"]


@pytest.mark.parametrize(
    ("fields", "looked_at", "says"),
    [
        ({"password": "wrong"}, "API key", "does not accept the API key"),
        ({"password": ""}, "connection", "is empty"),
        ({"host": "http://127.0.0.1:9/api"}, "API key", "could not be reached"),
        ({"extra": {"budget_store": "redis://127.0.0.1:9/0"}}, "budget store", "Redis at 127.0.0.1:9"),
        ({"extra": {"budget_store": "missing"}}, "connection", "which does not exist"),
    ],
)
def test_check_tells_what_must_be_mended_and_how(
    run: Callable[..., None],
    lemlist: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
    looked_at: str,
    says: str,
) -> None:
    pytest.importorskip("redis")
    connect(monkeypatch, lemlist, **fields)
    status, rows = check(run, capsys)
    assert status == 1
    (failed,) = [row for row in rows if row["status"] == "fail"]
    assert failed["looked_at"] == looked_at
    assert says in failed["found"]
    assert failed["to_do"]
    assert "versions" in [row["looked_at"] for row in rows], "the rest is looked at nevertheless"


def test_check_passes_on_what_reading_the_connection_warns_of(
    run: Callable[..., None],
    lemlist: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(monkeypatch, lemlist, extra={"budget_stor": "x"})
    status, rows = check(run, capsys)
    assert status == 0
    assert "budget_store" in next(row["found"] for row in rows if "'budget_stor'" in row["found"])


# --- ledger -------------------------------------------------------------------------------------------------

CREATE = "POST /campaigns/*/leads/"
STAFF = [{"email": f"p{n}@example.com"} for n in range(3)]
PROFILES = [{"linkedinUrl": f"https://www.linkedin.com/in/p{n}"} for n in range(2)]
NEW = [{"email": f"q{n}@example.com"} for n in range(30)]
NIGHTS = [f"2026-01-0{n}.people.load" for n in range(1, 6)]


class Told(NamedTuple):
    """A ledger after three nights, of which the last was killed, and its campaign."""

    ledger: Path
    campaign_id: str
    lemlist: Sandbox


def load(campaign_id: str, ledger: Path, rows: list[dict[str, str]], night: int) -> None:
    options = LoadOptions(
        campaign_id,
        rows=lambda: sources.from_list(rows),
        mapping=ColumnMapping(),
        ledger_path=ObjectStoragePath(f"file://{ledger}"),
        run=Run(NIGHTS[night - 1], NIGHTS[night - 1][:10], "people.load", "a test"),
    )
    Load(LemlistHook(), options).run()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    ledger = tmp_path_factory.mktemp("ledgers") / "ledger"
    with (
        pytest.MonkeyPatch.context() as patch,
        Sandbox(limit="none", requests=200) as lemlist,
    ):
        patch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        patch.setattr(CLOCK, "sleep", lambda seconds: None)
        campaign_id = lemlist.campaign()["_id"]
        load(campaign_id, ledger, STAFF, 1)
        lemlist.fault(CREATE, "reset", when="before", times=2)
        load(campaign_id, ledger, STAFF + PROFILES, 2)
        lemlist.fault(CREATE, "slow", seconds=5.0, skip=5, times=100)
        process = multiprocessing.get_context("spawn").Process(
            target=load, args=(campaign_id, ledger, STAFF + NEW, 3)
        )
        process.start()
        deadline = time.monotonic() + 60
        while Counter(outcomes(ledger, NIGHTS[2])) != {"exists": 3, "created": 5}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.join()
        lemlist.clear_faults()
        yield Told(ledger, campaign_id, lemlist)


def outcomes(ledger: Path, run: str) -> list[str]:
    lines = [line for file in ledger.glob(f"runs/{run}/settled-*") for line in file.read_text().splitlines()]
    return [json.loads(line)["outcome"] for line in lines]


@pytest.fixture
def copy(told: Told, tmp_path: Path) -> Path:
    """A copy of the ledger that a test may change."""
    return Path(shutil.copytree(told.ledger, tmp_path / "copy"))


@pytest.fixture
def shown(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return what the command shows as JSON."""

    def show(ledger: Path | str, *arguments: str) -> Any:
        capsys.readouterr()  # Airflow 2 logs to stdout
        run("ledger", str(ledger), "-o", "json", *arguments)
        return json.loads(capsys.readouterr().out)

    return show


def test_the_ledger_command_shows_every_run_newest_first_also_one_that_was_killed(
    shown: Callable[..., Any], told: Told
) -> None:
    summary = shown(told.ledger)
    assert [(run["run"], run["counts"]) for run in summary["runs"]] == [
        (NIGHTS[2], {"created": 5, "exists": 3}),
        (NIGHTS[1], {"exists": 3, "uncertain": 2}),
        (NIGHTS[0], {"created": 3}),
    ]
    assert [bool(run["finished"]) for run in summary["runs"]] == [False, True, True]
    assert {run["source"] for run in summary["runs"]} == {"people.load"}
    assert (summary["campaign_id"], summary["people"]) == (told.campaign_id, 8)


def test_the_ledger_command_shows_who_is_in_doubt_with_the_rows_that_are_known(
    shown: Callable[..., Any], told: Told
) -> None:
    in_doubt = shown(told.ledger)["in_doubt"]
    uncertain = [person for person in in_doubt if person["outcome"] == "uncertain"]
    assert [(person["run"], person["row"]) for person in uncertain] == [(NIGHTS[1], 4), (NIGHTS[1], 5)]
    rest = Counter((one["run"], one["row"], one["outcome"]) for one in in_doubt if one not in uncertain)
    assert rest == {(NIGHTS[2], None, "in flight"): 15}  # of the first 20, which are marked together


def test_the_lead_of_a_person_in_doubt_is_named_if_it_is_known(shown: Callable[..., Any], copy: Path) -> None:
    head, *lines = (copy / "people.ndjson").read_text().splitlines()
    people = [json.loads(line) for line in lines]
    for person in people:
        if person["in_doubt"]:
            person["lead_id"] = f"lea_deleted_{person['keys'][0]}"
    (copy / "people.ndjson").write_text("\n".join([head, *map(json.dumps, people)]))
    uncertain = [each for each in shown(copy)["in_doubt"] if each["row"] in (4, 5)]
    assert len({each["lead_id"] for each in uncertain if each["lead_id"].startswith("lea_deleted")}) == 2


def test_rows_of_several_attempts_are_counted_once(shown: Callable[..., Any], copy: Path) -> None:
    (part,) = copy.glob(f"runs/{NIGHTS[2]}/settled-0001-*")
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    again = [line | {"row": line["row"] + 100, "outcome": "updated"} for line in lines[:2]]
    later = part.with_name("settled-0002-0001-abcd.ndjson")
    later.write_text("\n".join(map(json.dumps, again)))
    assert sum(shown(copy)["runs"][0]["counts"].values()) == 8
    assert shown(copy)["runs"][0]["counts"]["updated"] == 2


def test_a_finished_run_that_is_interrupted_when_cleared_has_not_finished(
    shown: Callable[..., Any], copy: Path
) -> None:
    (part,) = copy.glob(f"runs/{NIGHTS[0]}/settled-0001-*")
    first = part.read_text().splitlines()[0]
    part.with_name("settled-0002-0001-abcd.ndjson").write_text(first.replace("created", "updated"))
    run = shown(copy)["runs"][-1]
    assert (run["finished"], run["counts"]) == (None, {"created": 2, "updated": 1})


def test_people_whom_a_later_run_settles_are_no_longer_in_doubt(
    shown: Callable[..., Any], told: Told, copy: Path
) -> None:
    everyone = STAFF + PROFILES + NEW
    for night in (4, 5):
        load(told.campaign_id, copy, everyone, night)
    summary = shown(copy)
    assert summary["in_doubt"] == []
    assert summary["runs"][0]["counts"] == {"exists": len(everyone)}
    assert summary["people"] == len(everyone)


def test_the_tables_show_what_the_json_says(
    run: Callable[..., None], told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    run("ledger", str(told.ledger))
    lines = [line.split() for line in capsys.readouterr().out.replace("|", " ").splitlines()]
    assert f"Campaign {told.campaign_id}: 8 people were loaded from here.".split() in lines
    assert ["run", "finished", "created", "exists", "uncertain"] in lines
    assert [NIGHTS[2], "no", "5", "3", "0"] in lines
    assert [NIGHTS[1], "uncertain", "2", "4,", "5"] in lines
    assert [NIGHTS[2], "in", "flight", "15"] in lines


def test_yaml_says_the_same_as_json(
    run: Callable[..., None], shown: Callable[..., Any], told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    run("ledger", str(told.ledger), "-o", "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == shown(told.ledger)


def test_looking_at_a_ledger_in_use_changes_nothing_and_sends_nothing(
    shown: Callable[..., Any], told: Told, copy: Path
) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in copy.rglob("*")}

    lock = lock_at(ObjectStoragePath(f"file://{copy}/lock"), "a load")
    lock.acquire()
    try:
        before, requests = state(), len(told.lemlist.requests())
        assert shown(copy)["people"] == 8
        assert (state(), len(told.lemlist.requests())) == (before, requests)
    finally:
        lock.release()


def test_output_names_no_person(
    run: Callable[..., None], told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in ("table", "json"):
        run("ledger", str(told.ledger), "-o", output)
    shown = capsys.readouterr()
    assert not [word for word in ("@", "linkedin", "keys", "secret") if word in shown.out + shown.err]


def test_a_connection_of_the_database_opens_the_object_storage(
    shown: Callable[..., Any], told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow import settings
    from airflow.models.connection import Connection

    try:
        from airflow.sdk.io.fs import _register_filesystems
    except ImportError:  # Airflow 2
        from airflow.io import _register_filesystems  # type: ignore[no-redef]

    def get_fs(conn_id: str | None, options: dict[str, str]) -> bucket.Bucket:
        bucket.Bucket.root = BaseHook.get_connection(str(conn_id)).host
        return bucket.Bucket()

    bucket.use(tmp_path / "none")
    monkeypatch.setitem(_register_filesystems(), "bucket", get_fs)  # type: ignore[arg-type]
    owner = f"owner_{uuid4().hex}"  # Airflow keeps the storage of a connection open
    table: Any = Connection.__table__
    tables = [*(key.column.table for key in table.foreign_keys), table]
    table.metadata.create_all(settings.engine, tables)
    try:
        with settings.Session() as session:
            session.add(Connection(owner, "generic", host=str(told.ledger.parents[1])))
            session.commit()
        assert shown(f"bucket://{told.ledger.parent.name}/ledger", "--storage-conn-id", owner)["people"] == 8
        assert shown(f"bucket://{owner}@{told.ledger.parent.name}/ledger")["people"] == 8
    finally:
        settings.Session.remove()
        table.metadata.drop_all(settings.engine, tables)


def _other_format(ledger: Path) -> None:
    (ledger / "ledger.json").write_text('{"format": 2, "campaign_id": "cam_1"}')


def _cut_off(ledger: Path) -> None:
    (ledger / "people.ndjson").write_text((ledger / "people.ndjson").read_text()[:-20])


def _binary(ledger: Path) -> None:
    next(ledger.glob("runs/*/open-*")).write_bytes(b"\xff\xfe\x00")


def _bad_key(ledger: Path) -> None:
    next(ledger.glob(f"runs/{NIGHTS[2]}/marks-*")).write_text("+ not-a-key")


def _without_run(ledger: Path) -> None:
    (ledger / "runs" / NIGHTS[2] / "run.json").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (shutil.rmtree, "There is no ledger at "),
        (_other_format, "was written by another version"),
        (_cut_off, "is damaged"),
        (_binary, "is damaged"),
        (_bad_key, "is damaged"),
        (_without_run, "is damaged"),
    ],
)
def test_a_ledger_that_cannot_be_read_gives_one_line_and_status_1(
    run: Callable[..., None],
    copy: Path,
    harm: Callable[[Path], None],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(copy)
    with pytest.raises(SystemExit) as ended:
        run("ledger", str(copy))
    assert isinstance(ended.value.code, str)  # Python prints it, and exits with status 1
    assert reason in ended.value.code
    assert str(copy) in ended.value.code
    assert "\n" not in ended.value.code
    assert not capsys.readouterr().out


def test_a_path_that_is_a_file_and_a_storage_that_is_unknown_give_one_line(
    run: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="Not a directory"):
        run("ledger", str(tmp_path / "file"))
    with pytest.raises(SystemExit, match="storage that this worker cannot open"):
        run("ledger", "nowhere://bucket/key")


# --- Both ---------------------------------------------------------------------------------------------------


def test_loading_the_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import airflow_provider_lemlist.cli\n"
        "print(sorted(set(sys.modules) - before - {'__future__', 'typing'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = (
        "airflow.",
        "requests",
        "sqlite3",
        "airflow_provider_lemlist.hooks",
        "airflow_provider_lemlist.api",
    )
    assert not [name for name in eval(done.stdout) if name.startswith(heavy)]
