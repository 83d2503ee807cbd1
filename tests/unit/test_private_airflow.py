# SPDX-License-Identifier: Apache-2.0
"""How the tools end the processes of Airflow."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.waiting import wait_for
from tools.private_airflow import signal_session

#: As a worker of Airflow 3: its task is a process with a group of its own.
WORKER = """
import os, time
task = os.fork()
if task == 0:
    os.setpgid(0, 0)
    print(os.getpid(), flush=True)
time.sleep(150)
"""


def test_a_kill_ends_a_task_that_has_a_process_group_of_its_own():
    command = (sys.executable, "-c", WORKER)
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as worker:
        assert worker.stdout
        worker.stdout.readline()
        assert signal_session(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for(lambda: not signal_session(worker.pid, 0))
