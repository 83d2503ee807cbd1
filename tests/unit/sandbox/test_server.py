# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox, __main__
from tests.unit.sandbox.conftest import Client
from tests.waiting import LONGEST, wait_for


def is_open(port: int) -> bool:
    with socket.socket() as end:
        return end.connect_ex(("127.0.0.1", port)) == 0


def test_it_accepts_requests_when_it_is_entered(http: Client) -> None:
    assert http.get("/team").json()["_id"].startswith("tea_")


def test_it_stops_when_left_even_during_a_request() -> None:
    with Sandbox() as lemlist:
        port = int(lemlist.origin.rpartition(":")[2])
        lemlist.fault("*", "hang")
        outcome: list[Exception] = []

        def get() -> None:
            try:
                requests.get(f"{lemlist.url}/team", timeout=LONGEST)
            except requests.RequestException as error:
                outcome.append(error)

        client = threading.Thread(target=get)
        client.start()
        wait_for(lemlist.requests)
        assert is_open(port)
    client.join(LONGEST)
    assert isinstance(outcome[0], requests.ConnectionError)
    assert not is_open(port)
    assert not [thread for thread in threading.enumerate() if thread.name == "lemlist-sandbox"]


def test_several_sandboxes_share_nothing() -> None:
    with Sandbox() as one, Sandbox() as other:
        one.campaign()
        one.fault("GET /team", "status", status=503)
        assert (len(one.state()["campaigns"]), len(other.state()["campaigns"])) == (1, 0)
        responses = [
            requests.get(f"{each.url}/team", auth=("", each.api_key), timeout=LONGEST)
            for each in (one, other)
        ]
        assert [each.status_code for each in responses] == [503, 200]


def test_a_port_in_use_raises_in_the_caller() -> None:
    with Sandbox() as lemlist:
        port = int(lemlist.origin.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), Sandbox(port=port):
            pass


def test_a_failed_start_raises_in_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Config.load", lambda self: 1 / 0)
    with pytest.raises(RuntimeError, match="could not start") as raised, Sandbox():
        pass
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_campaign_with_an_unknown_status_is_refused(lemlist: Sandbox) -> None:
    with pytest.raises(ValueError, match="running, draft"):
        lemlist.campaign(status="runing")


def test_the_connection_is_valid_for_airflow() -> None:
    with Sandbox() as lemlist:
        connection = json.loads(lemlist.airflow_connection())
    assert connection == {"conn_type": "lemlist", "host": lemlist.url, "password": lemlist.api_key}


def test_a_sandbox_without_a_limit_lifts_the_budget_of_clients_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Sandbox(limit="none") as lemlist:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        budget = LemlistHook().budget
        assert {budget.book().wait for _ in range(1000)} == {0.0}
    with Sandbox(limit="none", host="127.0.0.2") as lemlist:  # no client takes this for its own machine
        assert "extra" not in json.loads(lemlist.airflow_connection())


def test_the_same_seed_gives_the_same_ids() -> None:
    with Sandbox(seed=7) as one, Sandbox(seed=7) as same, Sandbox(seed=8) as other:
        ids = [each.campaign()["_id"] for each in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]


def test_sandboxes_without_a_seed_have_different_ids() -> None:
    with Sandbox() as one, Sandbox() as other:
        assert one.campaign()["_id"] != other.campaign()["_id"]
        assert one.state()["team"]["_id"] != other.state()["team"]["_id"]


def test_latency_is_split_before_and_after_handling() -> None:
    with Sandbox(latency=0.2) as lemlist:
        sent = time.monotonic()
        requests.get(f"{lemlist.url}/team", auth=("", lemlist.api_key), timeout=LONGEST)
        received = time.monotonic()
        # The log uses the same clock.
        handled = lemlist.requests()[0]["monotonic"]
        assert min(handled - sent, received - handled) >= 0.099


@pytest.mark.parametrize("wrong", [{"limit": "leaky"}, {"campaign_list": "tuple"}, {"colour": "red"}])
def test_an_unknown_option_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Sandbox(**wrong)


# --- In a separate process --------------------------------------------------------------------------------

MISSING = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "uvicorn":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST, check=False
    )


def test_without_the_extra_the_error_names_it_in_one_line() -> None:
    done = python(MISSING + "from airflow_provider_lemlist.sandbox import Sandbox")
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: The lemlist sandbox needs uvicorn: pip install 'airflow-provider-lemlist[sandbox]'"
    )


def test_without_the_extra_the_command_prints_one_line() -> None:
    done = python(MISSING + "from airflow_provider_lemlist.sandbox.__main__ import main; sys.exit(main())")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_it_imports_only_the_table_of_steps_and_nothing_of_airflow() -> None:
    code = (
        "import sys; from airflow_provider_lemlist.sandbox import Sandbox\n"
        "with Sandbox() as lemlist: lemlist.state()\n"
        "print(*[name for name in sys.modules if name.startswith(('airflow.', 'airflow_provider_lemlist.'))])"
    )
    loaded = {name for name in python(code).stdout.split() if ".sandbox" not in name}
    assert loaded <= {"airflow_provider_lemlist.steps", "airflow_provider_lemlist.validation"}


def test_the_command_prints_a_valid_connection_and_stops_on_interrupt() -> None:
    command = [sys.executable, "-m", "airflow_provider_lemlist.sandbox", "--port", "0", "--simulate"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            while "AIRFLOW_CONN_LEMLIST_DEFAULT=" not in (line := process.stdout.readline()):
                assert process.poll() is None
            connection = json.loads(line.partition("=")[2].strip().strip("'"))
            response = requests.get(
                f"{connection['host']}/team", auth=("", connection["password"]), timeout=LONGEST
            )
            assert response.status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST) == 0


def command(*options: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "airflow_provider_lemlist.sandbox", *options]
    return subprocess.run(line, capture_output=True, text=True, timeout=LONGEST, check=False)


def test_the_command_reports_a_port_in_use_in_one_line() -> None:
    with Sandbox() as lemlist:
        port = lemlist.origin.rpartition(":")[2]
        done = command("--port", port)
    assert done.returncode == 1
    expected = f"Cannot listen on 127.0.0.1:{port}: Address already in use. --port 0 uses a free port.\n"
    assert done.stderr == expected


@pytest.mark.parametrize(
    "options",
    [["--port", "99999"], ["--host", "name.invalid"], ["--port", "0", "--simulate", "--speed", "0"]],
)
def test_the_command_reports_an_error_in_one_line(options: list[str]) -> None:
    done = command(*options)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


def test_the_command_prints_a_connection_that_a_shell_can_parse() -> None:
    line = __main__.export(Sandbox(api_key="it's $HOME"))
    shell = ["sh", "-c", f'{line}; printf %s "$AIRFLOW_CONN_LEMLIST_DEFAULT"']
    printed = subprocess.run(shell, capture_output=True, text=True, timeout=LONGEST, check=True).stdout
    assert json.loads(printed)["password"] == "it's $HOME"
