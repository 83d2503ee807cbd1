# SPDX-License-Identifier: Apache-2.0
"""Real servers for this machine only, gone when they end: PostgreSQL, Redis, the sandbox in a process."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self, TypeVar

from tools.private_airflow import free_port

T = TypeVar("T")

#: Timeout of the start of a server, in seconds.
START_TIMEOUT = 30


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server without a port; yield the directory of its socket. The user is ``tester``."""
    bin_ = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            as_user = {"user": pwd.getpwnam("postgres").pw_name}
        except KeyError:
            as_user = {"user": "nobody"}
    # Not the directory of a test, which other users cannot enter; and the path of a socket must be short.
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if as_user:
        shutil.chown(home, as_user["user"])
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def call(*command: str) -> None:
        done = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, check=False, **as_user
        )
        assert done.returncode == 0, done.stderr

    data = str(home / "data")
    try:
        call(str(bin_ / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")
        settings = (
            f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off -c max_connections=200"
        )
        call(str(bin_ / "pg_ctl"), "-D", data, "-w", "-l", str(home / "log"), "-o", settings, "start")
        try:
            yield str(home)
        finally:
            call(str(bin_ / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


class RedisServer:
    """
    A redis-server that can be ended and started again on the same port; without persistence by default.

    :param folder: Where it keeps its files.
    :param settings: Further arguments of its command line.
    """

    def __init__(self, folder: Path | str = "/tmp", *settings: str) -> None:
        self.folder = folder
        self._settings = settings or ("--save", "")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        self._process = subprocess.Popen(
            ("redis-server", *self._settings, *where),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must not end it before the processes that use it
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._listens():
            assert self._process.poll() is None, "redis-server did not start"
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it at once; what it stores is lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it; what it persists is written."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait(START_TIMEOUT)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class SandboxProcess:
    """
    A sandbox in a process of its own, so that it does not wait for the threads of this one.

    :param options: Arguments of ``Sandbox``.
    """

    def __init__(self, **options: Any) -> None:
        context = get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs, options), daemon=True)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of a module there, with the ``Sandbox`` and further arguments."""
        self._pipe.send((function, arguments))
        result: T | Exception = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # ends it
        self._process.join(5)
        self._process.kill()


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    from airflow_provider_lemlist.sandbox import Sandbox

    os.setsid()  # Ctrl-C must not end it before its users, nor must it compete with them for their CPU
    with Sandbox(**options) as lemlist:
        while True:
            try:
                function, arguments = pipe.recv()
            except EOFError:
                return
            try:
                result = function(lemlist, *arguments)
            except Exception as error:
                result = error
            pipe.send(result)
