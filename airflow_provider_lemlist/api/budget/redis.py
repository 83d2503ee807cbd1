# SPDX-License-Identifier: Apache-2.0
"""
The store for a fleet of machines: one key in Redis, on the clock of the server.

The clocks of the machines may differ by any amount. A process reads the state, calculates, and writes the new
state if the key is still as it was read; otherwise another process has booked, and it calculates again with
what the key is now. Even so, 16 processes book far faster than a key needs (``benchmarks/README.md``).

Redis may be one server, a cluster, or the master that Sentinels name, see ``redis_url``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redis import ConnectionError as RedisConnectionError
from redis import RedisError, ResponseError
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ClusterDownError, MovedError, RedisClusterException
from redis.retry import Retry

from airflow_provider_lemlist.api.budget.arithmetic import dump
from airflow_provider_lemlist.api.budget.redis_url import read_redis_url
from airflow_provider_lemlist.api.budget.stores import Decide, Store, StoreError, T, restore

if TYPE_CHECKING:
    from redis.commands.core import Script

#: Seconds to wait for one reply of a server that does not reply.
TIMEOUT = 5.0
#: How often an unreachable server is tried again, within 3 seconds: enough for a restart.
ATTEMPTS = 8
#: What another attempt may cure: a restart, a failover, slots that move to another node of a cluster.
PASSING = (RedisConnectionError, ClusterDownError, RedisClusterException)
#: Seconds for which one change may be overtaken by those of other processes.
CONTENTION = 20.0
#: What was learned is kept for this many milliseconds after the last slot.
KEPT_FOR = 3_600_000

#: Write the key if it is still as it was read. Otherwise, or without arguments, return it and the time.
_SWAP = """
local held = redis.call('GET', KEYS[1]) or ''
if held == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return false
end
return {held, unpack(redis.call('TIME'))}
"""


class RedisStore(Store):
    """
    A key in Redis.

    :raises ValueError, TypeError, RedisError: The URL cannot be read.
    """

    shared_by = "all machines that use it"
    between_machines = True

    def __init__(self, url: str, digest: str) -> None:
        super().__init__()
        self._url = read_redis_url(url)
        # The braces keep all that may ever belong to one key on one node of a cluster.
        self._key = f"lemlist:budget:{{{digest}}}"
        self._script: Script | None = None

    @property
    def place(self) -> str:
        """The servers, without a password."""
        return str(self._url)

    def _change(self, decide: Decide[T]) -> T:
        try:
            found, deadline = self._swap(), time.monotonic() + CONTENTION
            while time.monotonic() < deadline:
                line, seconds, micros = found
                before, now = restore(line), int(seconds) * 1_000_000 + int(micros)
                after, result = decide(before, now)
                if after is before:
                    return result
                last = max(now, after.wide_until, *after.slots[-1:])
                written = dump(after), (last - now) // 1000 + KEPT_FOR
                found = self._swap(line, *written)
                if found is None:
                    return result
            raise TimeoutError(f"other processes overtook this one for {CONTENTION:g} s")
        except (RedisError, RedisClusterException, OSError) as error:
            raise StoreError(
                f"{self.place} does not work ({type(error).__name__}: {error}). Repair it, or name another "
                "one in budget_store of the connection"
            ) from error

    def _swap(self, *args: Any) -> Any:
        """Run the script, again if that may help. A change whose reply was lost then costs one slot."""
        started = time.monotonic()

        def give_up(error: Exception) -> None:
            if time.monotonic() - started > TIMEOUT:
                raise error

        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), ATTEMPTS, PASSING)
        return retry.call_with_retry(lambda: self._run_script(*args), give_up)

    def _run_script(self, *args: Any) -> Any:
        if self._script is None:
            client = self._url.open(
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=30,
            )
            self._script = client.register_script(_SWAP)
        try:
            return self._script(keys=[self._key], args=args)
        except ResponseError as error:
            # redis-py 5 has MovedError in its client of a cluster only.
            if not isinstance(error, MovedError) and not str(error).startswith("MOVED "):
                raise
            # The server is a node of a cluster, and the key belongs to another one.
            self._url, self._script = replace(self._url, kind="cluster"), None
            return self._run_script(*args)
