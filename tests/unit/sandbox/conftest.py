# SPDX-License-Identifier: Apache-2.0
"""A sandbox without a rate limit, and an HTTP client that is independent of the hook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_lemlist.sandbox import Sandbox
from tests.waiting import LONGEST


class Client(requests.Session):
    """A plain HTTP client with the base URL and the key."""

    def __init__(self, lemlist: Sandbox) -> None:
        super().__init__()
        self.base = lemlist.url
        self.auth = ("", lemlist.api_key)
        self.trust_env = False

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or LONGEST
        return super().request(method, url if url.startswith("http") else self.base + url, *args, **kwargs)


@pytest.fixture
def lemlist() -> Iterator[Sandbox]:
    with Sandbox(limit="none") as lemlist:
        yield lemlist


@pytest.fixture
def http(lemlist: Sandbox) -> Iterator[Client]:
    with Client(lemlist) as client:
        yield client


@pytest.fixture
def campaign(lemlist: Sandbox) -> dict[str, Any]:
    return lemlist.campaign("Spring webinar")
