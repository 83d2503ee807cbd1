# SPDX-License-Identifier: Apache-2.0
"""
The store for a fleet of machines: one key in Redis, on the clock of the server.

The clocks of the machines may differ by any amount. A process reads the state, calculates, and writes the new
state if the key is still as it was read; otherwise another process has booked, and it calculates again with
what the key is now. Even so, 16 processes book far faster than a key needs (``benchmarks/README.md``).
"""

from __future__ import annotations

import time

from redis import ConnectionError as RedisConnectionError
from redis import Redis, RedisError
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from airflow_provider_lemlist.api.budget.arithmetic import dump
from airflow_provider_lemlist.api.budget.stores import Decide, Store, StoreError, T, restore

#: Seconds to wait for one reply of a server that does not reply.
TIMEOUT = 5.0
#: How often an unreachable server is tried again, within 3 seconds: enough for a restart.
ATTEMPTS = 8
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

    def __init__(self, url: str, digest: str) -> None:
        super().__init__()
        self._client = Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # A change that was made although its reply was lost is made again: that costs one slot.
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), ATTEMPTS, (RedisConnectionError,)),
            health_check_interval=30,
        )
        # Finds options that no connection has, without connecting.
        self._client.connection_pool.connection_class(**self._client.connection_pool.connection_kwargs)
        # The braces keep all that may ever belong to one key on one node of a cluster.
        self._key = f"lemlist:budget:{{{digest}}}"
        self._swap = self._client.register_script(_SWAP)

    def _change(self, decide: Decide[T]) -> T:
        try:
            found, deadline = self._swap(keys=[self._key]), time.monotonic() + CONTENTION
            while time.monotonic() < deadline:
                line, seconds, micros = found
                before, now = restore(line), int(seconds) * 1_000_000 + int(micros)
                after, result = decide(before, now)
                if after is before:
                    return result
                last = max(now, after.wide_until, *after.slots[-1:])
                written = dump(after), (last - now) // 1000 + KEPT_FOR
                found = self._swap(keys=[self._key], args=[line, *written])
                if found is None:
                    return result
            raise TimeoutError(f"other processes overtook this one for {CONTENTION:g} s")
        except (RedisError, OSError) as error:
            at = self._client.connection_pool.connection_kwargs
            raise StoreError(
                f"Redis at {at.get('host')}:{at.get('port', 6379)} does not work ({type(error).__name__}: "
                f"{error}). Repair it, or name another one in budget_store of the connection"
            ) from error
