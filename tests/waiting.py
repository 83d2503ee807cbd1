# SPDX-License-Identifier: Apache-2.0
"""Wait for an effect of a thread, a process or a server, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Timeout in seconds, much longer than any operation takes on a busy machine.
LONGEST = 120

#: Seconds in which a sandbox allows 20 requests, where a test counts refusals. lemlist's window has two: the
#: difference is for a busy machine, which may delay a request on its way and not the twentieth after it. That
#: no two seconds get more is shown by the tests of the budget, whose clock is simulated.
WINDOW = 1.5


def wait_for(condition: Callable[[], object]) -> None:
    """Return when the condition is true."""
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, f"the condition is not true after {LONGEST} s"
        time.sleep(0.01)
