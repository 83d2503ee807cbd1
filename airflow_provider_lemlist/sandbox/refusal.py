# SPDX-License-Identifier: Apache-2.0
"""How a rule says no: the status and the body that lemlist answers with."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """
    A request is not obeyed, and nothing was changed.

    :param status: HTTP status of the answer.
    :param body: A string becomes ``text/plain``, anything else JSON.
    :param violation: Why the request itself contradicts the documents; empty when it was in order.
    """

    def __init__(self, status: int, body: Any, *, violation: str = "") -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.violation = violation


def bad_team(violation: str = "") -> Refusal:
    """Return what lemlist says of most things that do not exist or belong to somebody else."""
    return Refusal(400, "Bad team", violation=violation)
