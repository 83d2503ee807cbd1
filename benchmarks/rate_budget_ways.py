# SPDX-License-Identifier: Apache-2.0
"""
Ways to stay within a rate limit: this budget, and what a user would do instead.

Each way is a class: every process creates one object, and each ``send`` sends one request. The libraries are
not dependencies of the project; for a way without its library, the command to install it is printed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from airflow_provider_lemlist.api.budget import open_budget
from airflow_provider_lemlist.api.operations import GET_TEAM
from airflow_provider_lemlist.api.transport import RetryPolicy, Transport
from airflow_provider_lemlist.connection import Settings

# The table counts every refusal; a line for each would hide it.
logging.disable(logging.WARNING)
# Before the processes are forked: what is measured is the requests, not the imports.
with contextlib.suppress(ImportError):
    import redis  # noqa: F401  # as above

KEY = "a-key-of-the-benchmark"
PERIOD = 2.1


class Ours:
    """The provider's own transport, with the file of this machine."""

    share = 1.0

    def __init__(self, url: str, folder: Path, who: str, redis_url: str) -> None:
        self._who = who
        key = f"{KEY} {folder.name}"
        settings = Settings("benchmark", key, url, 60.0, 300.0, self.store(redis_url), self.share)
        budget = open_budget(
            key, store=settings.budget_store, share=self.share, max_wait=300, directory=self.directory(folder)
        )
        policy = RetryPolicy(seconds=math.inf, refusals=1_000)
        self._transport = Transport(settings, budget, user_agent="benchmark", retry_policy=policy)

    def store(self, redis_url: str) -> str:
        return ""

    def directory(self, folder: Path) -> str:
        return str(folder / "budget")

    def send(self) -> None:
        self._transport.call(GET_TEAM, query={"client": self._who, "since": time.monotonic()})


class OursRedis(Ours):
    """The provider's own transport, with Redis."""

    def store(self, redis_url: str) -> str:
        return redis_url


class OursUnshared(Ours):
    """The provider's own transport with a file for each process, although all use one key."""

    def directory(self, folder: Path) -> str:
        return str(folder / f"budget-{self._who}")


class OursQuarter(OursUnshared):
    """The same in four processes, with a quarter of the limit each."""

    share = 0.25


class Session:
    """A requests session for each thread, as a user would write it."""

    def __init__(self, url: str, folder: Path, who: str, redis_url: str) -> None:
        self._url, self._folder, self._who, self._redis_url = f"{url}/team", folder, who, redis_url
        self._session = self.session()

    def session(self) -> requests.Session:
        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_maxsize=64))
        return session

    def send(self) -> None:
        query: dict[str, Any] = {"client": self._who, "since": time.monotonic()}
        while True:
            self.acquire()
            response = self._session.get(self._url, params=query, timeout=60)
            if response.status_code == 200:
                return
            time.sleep(float(response.headers["Retry-After"]))

    def acquire(self) -> None:
        """Wait until a request is allowed."""


class RetryLoop(Session):
    """requests with urllib3's Retry, which honours Retry-After; no limit of its own."""

    def session(self) -> requests.Session:
        session = requests.Session()
        retry = Retry(
            total=1_000, status_forcelist=[429], allowed_methods=None, respect_retry_after_header=True
        )
        session.mount("http://", HTTPAdapter(pool_maxsize=64, max_retries=retry))
        return session


class PyrateSQLite(Session):
    """pyrate-limiter, SQLite with a file lock, 20 in 2.1 s."""

    needs = "pip install 'pyrate-limiter>=4.5' filelock"

    def session(self) -> requests.Session:
        from pyrate_limiter import Limiter, Rate, SQLiteBucket

        bucket = SQLiteBucket.init_from_file(
            [Rate(20, round(PERIOD * 1000))], db_path=str(self._folder / "pyrate.sqlite"), use_file_lock=True
        )
        self._limiter = Limiter(bucket)
        return super().session()

    def acquire(self) -> None:
        self._limiter.try_acquire("lemlist")


class PyrateRedis(PyrateSQLite):
    """pyrate-limiter, Redis, 20 in 2.1 s."""

    def session(self) -> requests.Session:
        from pyrate_limiter import Limiter, Rate, RedisBucket
        from redis import Redis

        rates = [Rate(20, round(PERIOD * 1000))]
        bucket = RedisBucket.init(rates, Redis.from_url(self._redis_url), f"pyrate-{self._folder.name}")
        self._limiter = Limiter(bucket)
        return Session.session(self)


class RequestsRatelimiter(Session):
    """requests-ratelimiter, SQLite with a file lock, 20 in 2.1 s."""

    needs = "pip install 'requests-ratelimiter>=0.10' 'pyrate-limiter>=4.5' filelock"

    def session(self) -> requests.Session:
        from pyrate_limiter import Limiter, Rate, SQLiteBucket
        from requests_ratelimiter import LimiterSession
        from requests_ratelimiter.buckets import HostBucketFactory

        factory = HostBucketFactory(
            rates=[Rate(20, round(PERIOD * 1000))],
            bucket_class=SQLiteBucket,
            bucket_init_kwargs={"path": str(self._folder / "ratelimiter.sqlite"), "use_file_lock": True},
        )
        return LimiterSession(limiter=Limiter(factory, buffer_ms=50))


WAYS: dict[str, Any] = {
    "ours-sqlite": Ours,
    "ours-redis": OursRedis,
    "ours-unshared": OursUnshared,
    "ours-quarter": OursQuarter,
    "retry-loop": RetryLoop,
    "pyrate-sqlite": PyrateSQLite,
    "pyrate-redis": PyrateRedis,
    "requests-ratelimiter": RequestsRatelimiter,
}


def missing(way: str) -> str:
    """Return what has to be installed for a way, empty if nothing."""
    from importlib.util import find_spec

    needs = getattr(WAYS[way], "needs", "")
    modules = {"pyrate_limiter"} | ({"requests_ratelimiter"} if way == "requests-ratelimiter" else set())
    return needs if needs and not all(find_spec(module) for module in modules) else ""
