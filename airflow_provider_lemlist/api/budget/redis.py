# SPDX-License-Identifier: Apache-2.0
"""
The store for a fleet of machines: one key in Redis, changed by one Lua script on the clock of the server.

The clocks of the machines may differ by any amount. The script is loaded again by itself after the server
has forgotten it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis import ConnectionError as RedisConnectionError
from redis import Redis, RedisError
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from airflow_provider_lemlist.api.budget import arithmetic
from airflow_provider_lemlist.api.budget.arithmetic import Answer, Booking, State, Terms, load
from airflow_provider_lemlist.api.budget.stores import StoreError

#: Seconds to wait for a server that does not answer, once.
PATIENCE = 5.0
#: How often one that is not there is asked again, within 3 seconds: enough for a restart.
ATTEMPTS = 8

_CONSTANTS = (
    "WHOLE", "LIMIT", "WINDOW", "MOST", "KEPT", "MARGIN", "WARY_MARGIN", "WARY_FOR", "LEAST_MARGIN", "SLACK",
    "READING", "TOLERATED", "SPREAD", "REFUSED", "FORGET", "HEADROOM", "LONGEST_PAUSE",
)  # fmt: skip


class RedisStore:
    """
    A key in Redis.

    :param url: Where Redis is, as ``redis://`` or ``rediss://``, with what redis-py reads from it.
    :param digest: Stands for the key of lemlist.
    :raises ValueError, TypeError, RedisError: The URL cannot be read.
    """

    def __init__(self, url: str, digest: str) -> None:
        self._client = Redis.from_url(
            url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            # A slot that is booked twice because the answer was lost is only a slot less.
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), ATTEMPTS, (RedisConnectionError,)),
            health_check_interval=30,
        )
        # Finds options that no connection has, without connecting.
        self._client.connection_pool.connection_class(**self._client.connection_pool.connection_kwargs)
        # The braces keep all that may ever belong to one key on one node of a cluster.
        self._keys = [f"lemlist:budget:{{{digest}}}"]
        self._script = self._client.register_script(_script())

    def book(self, terms: Terms) -> Booking:
        granted, *numbers = self._run("book", *terms)
        return Booking(bool(granted), *numbers)

    def hear(self, answer: Answer) -> None:
        slot = answer.booking
        self._run("hear", slot.at, slot.number, slot.crowd, slot.capacity, int(answer.refused), *answer[2:])

    def look(self) -> State:
        line = self._run("look")
        return load(line if isinstance(line, str) else line.decode())

    def _run(self, *words: str | int) -> Any:
        try:
            return self._script(keys=self._keys, args=words)
        except (RedisError, OSError) as error:
            at = self._client.connection_pool.connection_kwargs
            raise StoreError(
                f"Redis at {at.get('host')}:{at.get('port', 6379)} does not work ({type(error).__name__}: "
                f"{error}). Mend it, or name another in budget_store of the connection"
            ) from error


def _script() -> str:
    constants = {name: getattr(arithmetic, name) for name in _CONSTANTS}
    table = ", ".join(f"{name} = {number}" for name, number in constants.items())
    body = Path(__file__).with_name("booking.lua").read_text(encoding="utf-8")
    return f"local C = {{FORMAT = '{arithmetic.FORMAT}', {table}}}\n{body}"
