# SPDX-License-Identifier: Apache-2.0
"""The error that a route raises: the status and the body of the response."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """
    The request is refused and nothing was changed.

    :param status: HTTP status of the response.
    :param body: Body of the response: ``text/plain`` if it is a string, otherwise JSON.
    :param violation: How the request contradicts the documents; empty if it does not.
    """

    def __init__(self, status: int, body: Any, *, violation: str = "") -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.violation = violation


def bad_team(violation: str = "") -> ApiError:
    """Return lemlist's error for most objects that do not exist or belong to another team."""
    return ApiError(400, "Bad team", violation=violation)
