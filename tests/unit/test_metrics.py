# SPDX-License-Identifier: Apache-2.0
"""What is emitted reaches a StatsD server and an OpenTelemetry collector, and never breaks a request."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_lemlist import metrics
from airflow_provider_lemlist.exceptions import Reason
from airflow_provider_lemlist.ledger.ledger import ANY_OUTCOME
from airflow_provider_lemlist.metrics import METRICS, Counter, Metric, Timing
from airflow_provider_lemlist.sandbox import Sandbox
from tests.statsd import StatsDServer

ROOT = Path(__file__).parents[2]

#: A load of three rows, of which the response to one is lost, then a call that fails.
PROCESS = """
import sys
from pathlib import Path
from contextlib import suppress
from tests.unit.operators.test_load import Runner
from airflow_provider_lemlist.exceptions import LemlistNotFoundError
from airflow_provider_lemlist.hooks.lemlist import LemlistHook

campaign, ledger = sys.argv[1:]
leads = [{"email": f"p{n}@example.com"} for n in (1, 2, 3)] + [{"email": "p1@example.com"}]
Runner(campaign, Path(ledger))(leads=leads)
with suppress(LemlistNotFoundError):
    LemlistHook().get_campaign("cam_none")

from opentelemetry import metrics
if hasattr(provider := metrics.get_meter_provider(), "force_flush"):
    provider.force_flush()  # Airflow 2 does not, when a process ends
"""

COUNTED = {
    "lemlist.rows.created": 3,
    "lemlist.rows.duplicate": 1,
    "lemlist.refusals": 1,
    "lemlist.reconciled.found": 1,
    "lemlist.errors.campaign_not_found": 1,
}


@pytest.fixture
def emit(quick_lemlist: Sandbox, tmp_path: Path) -> Callable[..., int]:
    """``emit(STATSD_ON="True")`` runs the process with this Airflow configuration; returns the requests."""

    def run(**options: str) -> int:
        campaign = quick_lemlist.campaign()["_id"]
        create = "POST /campaigns/{campaignId}/leads/"
        quick_lemlist.fault(create, "rate_limited", seconds=0.1)
        quick_lemlist.fault(create, "reset", skip=1)
        before = len(quick_lemlist.requests())
        environment = {f"AIRFLOW__METRICS__{name}": value for name, value in options.items()}
        subprocess.run(
            [sys.executable, "-c", PROCESS, campaign, str(tmp_path / "ledger")],
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            check=True,
            timeout=120,
        )
        return len(quick_lemlist.requests()) - before

    return run


def needs(package: str) -> pytest.MarkDecorator:
    name = package.partition(".")[0]
    return pytest.mark.skipif(find_spec(name) is None, reason=f"the package {name} is not installed")


@needs("statsd")
def test_a_statsd_server_receives_what_a_load_emits(emit: Callable[..., int]) -> None:
    with StatsDServer() as server:
        requests = emit(STATSD_ON="True", STATSD_HOST="127.0.0.1", STATSD_PORT=str(server.port))
    counters: dict[str, int] = {}
    timings: dict[str, list[float]] = {}
    for line in server.lines:
        if match := re.fullmatch(r"airflow\.(lemlist\.[\w.]+):([\d.]+)\|(c|ms)", line):
            name, value, kind = match[1], float(match[2]), match[3]
            if kind == "c":
                counters[name] = counters.get(name, 0) + int(value)
            else:
                timings.setdefault(name, []).append(value)
    assert COUNTED.items() <= counters.items()
    assert counters["lemlist.requests"] == requests
    # The response of one request was lost. In milliseconds: the process took less than two minutes.
    assert len(timings["lemlist.latency"]) == len(timings["lemlist.waits"]) == requests - 1
    assert 1 < sum(timings["lemlist.latency"]) < 120_000
    assert timings["lemlist.ledger_writes"]


class Collector:
    """An OpenTelemetry collector on loopback: the last value of each metric that it was sent."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        self.values: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.add(ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def add(self, request: Any) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        if kind == "exponential_histogram":
                            self.values[metric.name], self.counts[metric.name] = point.sum, point.count
                        else:
                            self.values[metric.name] = point.as_int or point.as_double

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@needs("opentelemetry.exporter.otlp.proto.http")
def test_an_opentelemetry_collector_receives_what_a_load_emits(emit: Callable[..., int]) -> None:
    collector = Collector()
    try:
        requests = emit(OTEL_ON="True", OTEL_HOST="127.0.0.1", OTEL_PORT=str(collector.port))
    finally:
        collector.close()
    values = {name.removeprefix("airflow."): value for name, value in collector.values.items()}
    assert COUNTED.items() <= values.items()
    assert values["lemlist.requests"] == requests
    assert values["lemlist.latency"] > 0
    if collector.counts:  # Airflow 2 has no histograms: it sends the last duration
        assert collector.counts["airflow.lemlist.latency"] == requests - 1


@pytest.mark.parametrize("error", [OSError("no route"), TypeError("tags"), RuntimeError("after shutdown")])
def test_a_backend_that_fails_is_told_once_and_breaks_nothing(
    quick_lemlist: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def fail() -> Any:
        raise error

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

    monkeypatch.setattr(metrics, "_stats", fail)
    hook = LemlistHook()
    for _ in range(3):
        assert hook.get_team()["_id"]
    assert [message for message in caplog.messages if str(error) in message] == [
        f"Metrics are not emitted: {type(error).__name__}: {error}"
    ]


def test_a_duration_that_no_timedelta_holds_breaks_nothing() -> None:
    for seconds in (math.inf, math.nan):
        metrics.WAITS.record(seconds)


def test_nothing_is_emitted_for_nothing(emitted: Any) -> None:
    metrics.WAITING.add(0)
    assert emitted.counters == {}
    assert "lemlist.waiting_milliseconds" not in emitted.counters


# --- The docs -----------------------------------------------------------------------------------------------

DOCS = ROOT / "docs"
PAGE = (DOCS / "observability.md").read_text()
DASHBOARD = json.loads((DOCS / "dashboards" / "lemlist.json").read_text())
MAPPINGS = yaml.safe_load((DOCS / "dashboards" / "statsd_mapping.yml").read_text())["mappings"]
ALERTS = re.findall(r"^\| [^|]+ \| `([^`]*airflow_lemlist_[^`]*)`", PAGE, re.M)
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES += [query.replace("\\|", "|") for query in ALERTS]


def test_table_of_the_docs_is_that_of_the_code() -> None:
    rows = [
        f"| `{metric.full_name(f'<{metric.variant}>' if metric.variant else '')}` "
        f"| {type(metric).__name__.lower()} | {metric.meaning} |"
        for metric in METRICS.values()
    ]
    assert re.findall(r"^\| `lemlist\.[^|]* \| [^|]* \| .* \|$", PAGE, re.M) == rows


def test_every_metric_is_emitted_somewhere() -> None:
    code = "".join(
        path.read_text()
        for path in (ROOT / "airflow_provider_lemlist").rglob("*.py")
        if path.stem != "metrics"
    )
    names = {name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert names == set(re.findall(r"\bmetrics\.([A-Z_]+)\.(?:add|record)\(", code))
    assert len(names) == len(METRICS)


def exported(metric: Metric) -> str:
    """Return the name that the mapping gives a metric in Prometheus."""
    return f"airflow_lemlist_{metric.name}_{'seconds' if isinstance(metric, Timing) else 'total'}"


def test_mapping_names_every_metric_once_and_makes_its_variant_a_label() -> None:
    assert {mapping["match"]: mapping["name"] for mapping in MAPPINGS} == {
        f"airflow.{metric.full_name('*' if metric.variant else '')}": exported(metric)
        for metric in METRICS.values()
    }
    labels = {mapping["name"]: mapping.get("labels", {}) for mapping in MAPPINGS}
    histograms = {mapping["name"] for mapping in MAPPINGS if mapping.get("observer_type") == "histogram"}
    for metric in METRICS.values():
        assert labels[exported(metric)] == ({metric.variant: "$1"} if metric.variant else {})
        assert (exported(metric) in histograms) == isinstance(metric, Timing)


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_dashboard_and_alerts_names_metrics_and_labels_of_the_mapping(query: str) -> None:
    of_timings = {f"{exported(each)}_bucket" for each in METRICS.values() if isinstance(each, Timing)}
    of_counters = {exported(each): each.variant for each in METRICS.values() if isinstance(each, Counter)}
    named = re.findall(r"\bairflow_lemlist_\w+", query)
    assert named
    assert {*named} <= {*of_timings, *of_counters}
    for label in re.findall(r"\bby \((\w+)\)|{(\w+)=", query):
        assert "".join(label) in {"le", *(of_counters.get(name) for name in named)}
    assert query.count("(") == query.count(")")


def test_dashboard_shows_every_metric_and_its_panels_do_not_overlap() -> None:
    shown = " ".join(QUERIES)
    assert [each.name for each in METRICS.values() if exported(each) not in shown] == []
    places = [
        (x, y)
        for each in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(each["x"], each["x"] + each["w"])
        for y in range(each["y"], each["y"] + each["h"])
    ]
    assert len(places) == len({*places})
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_reasons_and_outcomes_in_queries_exist() -> None:
    reasons = "|".join(re.findall(r'reason=~"([^"]*)"', " ".join(QUERIES))).split("|")
    assert {*reasons} <= {reason.name.lower() for reason in Reason}
    assert {*re.findall(r'outcome="(\w+)"', PAGE)} <= {*ANY_OUTCOME}
