# SPDX-License-Identifier: Apache-2.0
"""Processes that start with everything imported, and share nothing with this one."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any

import pytest


def forkserver(module: str) -> Any:
    """Return the context of processes that have imported a module, which must be on ``sys.path``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        first = context.Process(target=int)  # starts the server that forks the others
        first.start()
        first.join()
    return context
