# SPDX-License-Identifier: Apache-2.0
"""How a test waits for what a thread, a process or a server does: for the thing itself, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds after which a test hangs. Far more than anything takes on a busy machine: it is nobody's promise.
LONGEST = 120


def wait_for(condition: Callable[[], object]) -> None:
    """Come back as soon as a condition holds."""
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {LONGEST} s"
        time.sleep(0.01)
