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
from typing import Any, Self

from tools.private_airflow import free_port

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
    """A redis-server without persistence, which can be killed and started again on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"),
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
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def sandbox(prepare: Callable[[Any], Any], **options: Any) -> Iterator[tuple[str, str, Any]]:
    """
    Run a sandbox in a process of its own, so that it does not wait for the threads of this one.

    :param prepare: Called there with the ``Sandbox``, before the block starts; a function of a module.
    :param options: Arguments of ``Sandbox``.
    :return: The URL of the page, the Airflow connection as JSON, and what ``prepare`` returned.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, prepare, options), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join(5)
        process.kill()


def _serve(pipe: Connection, prepare: Callable[[Any], Any], options: dict[str, Any]) -> None:
    from airflow_provider_lemlist.sandbox import Sandbox

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of the pipe ends it
    with Sandbox(**options) as lemlist:
        pipe.send((lemlist.origin, lemlist.airflow_connection(), prepare(lemlist)))
        while True:
            try:
                pipe.recv()
            except EOFError:
                return
