# SPDX-License-Identifier: Apache-2.0
"""
Measure how fast, how completely and with how much memory a day of activities is read into Parquet files.

    python benchmarks/bring_home.py                        # 60,000 of 100,000 activities, about 15 minutes
    python benchmarks/bring_home.py --ways ours --times 3
    python benchmarks/bring_home.py --changes              # activities arrive and vanish during the read
    python benchmarks/bring_home.py --burst 20             # up to 20 in one second, as after an import
    python benchmarks/bring_home.py --rows 6000            # a tenth of everything

One way after the other, each in its own process, against a sandbox in another one with lemlist's limit (20
requests in any 2 seconds), pages of 100 rows and a latency of 250 ms. uv installs dlt and Airbyte's CDK in a
temporary environment. Airbyte's connector has no window, so it reads all that the account holds.

"Lost" and "twice" compare the files with the activities that the sandbox held in that day from start to end.
"Memory" is the peak above what the process had after its imports, among them pyarrow.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

LATENCY = 0.25
PAGE = 100
LIMIT = 10 * PAGE  # rows a second
SINCE = datetime(2026, 3, 2, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=1)
WINDOW = {"minDate": SINCE.isoformat(), "maxDate": UNTIL.isoformat()}

HEAD = (
    f"{'way':<24}{'seconds':>9}{'of ours':>9}{'rows/s':>8}{'of limit':>10}{'requests':>10}{'429s':>6}"
    f"{'lost':>7}{'twice':>7}{'memory MiB':>12}"
)


# --- The sandbox, in its own process ----------------------------------------------------------------------


def serve(pipe: Connection, rows: int, burst: int, changes: bool) -> None:
    """Fill a sandbox, send its address, and on request what it saw and what it held from start to end."""
    from airflow_provider_lemlist.sandbox import Sandbox

    since, until, day = SINCE.timestamp(), UNTIL.timestamp(), 86_400
    with Sandbox(latency=LATENCY, seed=1) as lemlist:
        lemlist.fill_activities(rows, since, until, burst=burst)
        lemlist.fill_activities(rows // 3, since - day, since, burst=burst)
        lemlist.fill_activities(rows // 3, until, until + day, burst=burst)
        started = time.time()
        if changes:
            lemlist.churn(since, until)
        pipe.send({"url": lemlist.url, "key": lemlist.api_key})
        pipe.recv()
        lemlist.stop_churn()
        (meter,) = lemlist.state()["limit"]["keys"].values()
        held = [
            each.activity["_id"]
            for each in lemlist.activity_history()
            if each.listed_at <= started
            and each.vanished_at is None
            and SINCE <= datetime.fromisoformat(each.activity["createdAt"]) < UNTIL
        ]
        pipe.send({"held": held, **meter})
        pipe.recv()


@contextmanager
def sandbox(*what: Any) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs, *what), daemon=True)
    process.start()
    yield ours
    ours.send("end")
    process.join()


# --- The ways, each in its own process --------------------------------------------------------------------


def operator(url: str, key: str, folder: Path) -> None:
    from types import SimpleNamespace

    from airflow_provider_lemlist.transfers.object_storage import LemlistToObjectStorageOperator

    os.environ["AIRFLOW_CONN_LEMLIST_DEFAULT"] = json.dumps(
        {"conn_type": "lemlist", "host": url, "password": key}
    )
    task = LemlistToObjectStorageOperator(
        task_id="day", dataset="activities", path=folder, since=SINCE, until=UNTIL
    )
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="day", map_index=-1, try_number=1)
    task.execute({"ti": ti})  # type: ignore[arg-type]  # the part of a context that the operator needs


def plain_loop(url: str, key: str, folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    import requests

    rows: list[dict[str, Any]] = []
    with requests.Session() as session:
        session.auth = ("", key)
        while True:
            params = {"version": "v2", **WINDOW, "limit": str(PAGE), "offset": str(len(rows))}
            response = session.get(f"{url}/activities", params=params, timeout=30)
            if response.status_code == 429:
                time.sleep(float(response.headers["Retry-After"]))
                continue
            response.raise_for_status()
            page = response.json()
            rows += page
            if len(page) < PAGE:
                break
    flat = [{name: json.dumps(v) if isinstance(v, dict) else v for name, v in row.items()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), folder / "activities.parquet")


def dlt_rest_api(url: str, key: str, folder: Path, windows: int = 1) -> None:
    """Read with dlt's source for REST APIs and its own retries, one window or several at the same time."""
    import dlt
    from dlt.sources.rest_api import rest_api_source

    def resource(number: int) -> dict[str, Any]:
        since = SINCE + number * (UNTIL - SINCE) / windows
        until = since + (UNTIL - SINCE) / windows - timedelta(milliseconds=1)
        params = {"version": "v2", "minDate": since.isoformat(), "maxDate": until.isoformat()}
        return {
            "name": f"activities_{number}",
            "table_name": "activities",
            "primary_key": "_id",
            "write_disposition": "append",
            "endpoint": {"path": "activities", "params": params},
        }

    client = {
        "base_url": url,
        "auth": {"type": "http_basic", "username": "", "password": key},
        "paginator": {"type": "offset", "limit": PAGE, "total_path": None},
    }
    resources = [resource(number) for number in range(windows)]
    source = rest_api_source({"client": client, "resources": resources}, parallelized=True)
    lake = dlt.destinations.filesystem(folder.as_uri())
    pipeline = dlt.pipeline(
        "lemlist", destination=lake, dataset_name="lake", pipelines_dir=f"{folder.parent}/dlt"
    )
    pipeline.run(source, loader_file_format="parquet")


def airbyte_cdk(url: str, key: str, folder: Path) -> None:
    """Read as Airbyte's connector for lemlist is declared; write as its destinations do, a column of JSON."""
    import logging

    import pyarrow
    import pyarrow.parquet
    from airbyte_cdk.models import (
        AirbyteStream,
        ConfiguredAirbyteCatalog,
        ConfiguredAirbyteStream,
        DestinationSyncMode,
        SyncMode,
    )
    from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

    def option(name: str) -> dict[str, str]:
        return {"type": "RequestOption", "inject_into": "request_parameter", "field_name": name}

    activities = {
        "type": "DeclarativeStream",
        "name": "activities",
        "primary_key": ["_id"],
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {
                "type": "HttpRequester",
                "url_base": f"{url}/",
                "path": "activities",
                "authenticator": {"type": "BasicHttpAuthenticator", "username": "", "password": key},
                "request_parameters": {"version": "v2"},
            },
            "paginator": {
                "type": "DefaultPaginator",
                "page_token_option": option("offset"),
                "page_size_option": option("limit"),
                "pagination_strategy": {"type": "OffsetIncrement", "page_size": PAGE},
            },
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": []},
            },
        },
        "schema_loader": {
            "type": "InlineSchemaLoader",
            "schema": {"type": "object", "additionalProperties": True, "properties": {}},
        },
    }
    check = {"type": "CheckStream", "stream_names": ["activities"]}
    manifest = {"version": "4.3.0", "type": "DeclarativeSource", "check": check, "streams": [activities]}
    stream = AirbyteStream("activities", json_schema={}, supported_sync_modes=[SyncMode.full_refresh])
    catalog = ConfiguredAirbyteCatalog(
        [ConfiguredAirbyteStream(stream, SyncMode.full_refresh, DestinationSyncMode.overwrite)]
    )
    source = ConcurrentDeclarativeSource(catalog, {}, [], source_config=manifest)
    messages = source.read(logging.getLogger("airbyte"), {}, catalog, [])
    records = (message.record.data for message in messages if message.record)
    for number in range(10**9):
        batch = list(islice(records, 10_000))
        if not batch:
            return
        columns = {
            "_id": [each["_id"] for each in batch],
            "_airbyte_data": [json.dumps(each) for each in batch],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{number}.parquet")


DLT, DLT_MODULES = ("dlt[parquet]==1.31.0",), ("dlt.sources.rest_api", "dlt.destinations")


class Way(NamedTuple):
    title: str
    run: Callable[[str, str, Path], None]
    imports: Sequence[str]  # not measured
    packages: Sequence[str] = ()  # what is installed; none: the environment of this process


WAYS = {
    "ours": Way(
        "this provider",
        operator,
        ("airflow_provider_lemlist.transfers.object_storage", "airflow_provider_lemlist.extract.reader"),
    ),
    "loop": Way("a plain loop", plain_loop, ("requests", "pyarrow.parquet")),
    "dlt": Way("dlt", dlt_rest_api, DLT_MODULES, DLT),
    "dlt-4": Way("dlt, 4 windows at once", partial(dlt_rest_api, windows=4), DLT_MODULES, DLT),
    "airbyte": Way(
        "Airbyte's CDK",
        airbyte_cdk,
        ("airbyte_cdk.sources.declarative.concurrent_declarative_source",),
        ("airbyte-cdk==7.39.1", "pyarrow"),
    ),
}


def child(name: str, url: str, key: str, folder: str) -> None:
    """Run one way, and print what it took and how often each id is in its files."""
    way = WAYS[name]
    import pyarrow.parquet

    for module in way.imports:
        import_module(module)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, began = memory("VmRSS"), time.monotonic()
    way.run(url, key, Path(folder))
    figures = {"seconds": time.monotonic() - began, "memory": memory("VmHWM") - before}
    ids: Counter[str] = Counter()
    for file in Path(folder).rglob("*.parquet"):
        names = pyarrow.parquet.read_schema(file).names
        for column in {"id", "_id"} & set(names):
            ids.update(pyarrow.parquet.read_table(file, columns=[column])[column].to_pylist())
    print(json.dumps({**figures, "ids": ids}))


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def in_process(name: str, python: Path, url: str, key: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
            "AIRFLOW__LEMLIST__BUDGET_DIR": f"{home}/budget",
            "DLT_DATA_DIR": home,
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }
        folder = Path(home, "activities")
        folder.mkdir()
        command = [python, __file__, "--child", name, url, key, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def installed(way: Way, folder: Path) -> Path:
    """Return the Python of an environment with what a way needs."""
    if not way.packages:
        return Path(sys.executable)
    uv = Path(sys.executable).with_name("uv")
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *way.packages], check=True)
    return python


# --- The table --------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60_000, help="activities of the day")
    parser.add_argument("--burst", type=int, default=1, help="up to so many of them in one second")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--changes", action="store_true", help="5 a second arrive, one vanishes")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return

    print(HEAD)
    ours = float("nan")
    with tempfile.TemporaryDirectory() as folder:
        pythons = {name: installed(WAYS[name], Path(folder, name)) for name in given.ways.split(",")}
        for name, python in pythons.items():
            for _ in range(given.times):
                with sandbox(given.rows, given.burst, given.changes) as pipe:
                    took = in_process(name, python, **pipe.recv())
                    pipe.send("account")
                    truth = pipe.recv()
                ours = took["seconds"] if name == "ours" else ours
                print_row(WAYS[name].title, took, truth, ours)


def print_row(title: str, took: dict[str, Any], truth: dict[str, Any], ours: float) -> None:
    counts = [took["ids"].get(each, 0) for each in truth["held"]]
    lost, twice = counts.count(0), sum(count > 1 for count in counts)
    rate = len(counts) / took["seconds"]
    speed = f"{took['seconds']:>9.1f}{took['seconds'] / ours:>8.1f}x{rate:>8.0f}{rate / LIMIT:>10.1%}"
    requests = f"{truth['admitted'] + truth['refused']:>10}{truth['refused']:>6}"
    print(f"{title:<24}{speed}{requests}{lost:>7}{twice:>7}{took['memory']:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
