# SPDX-License-Identifier: Apache-2.0
"""
The switch that stops writes: ``stop_writes`` of the connection, read again while a task runs.

A load may run for hours, so the connection is not read once, but again before a write if the last time is
``READ_AGAIN_AFTER`` ago. One thread reads it; the others go by what is known.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistWritesStoppedError

log = logging.getLogger(__name__)

#: Seconds after which the connection is read again before a write.
READ_AGAIN_AFTER = 15.0


class WriteSwitch:
    """
    Refuse writes while the switch is set. Thread-safe.

    :param is_set: The value that was read with the connection.
    :param read: Reads it again.
    """

    def __init__(self, is_set: bool, read: Callable[[], bool]) -> None:
        self._is_set = is_set
        self._read = read
        self._read_at = CLOCK.now()
        self._reading = threading.Lock()
        self._has_warned = False

    def check(self, *, may_read: bool = True) -> None:
        """
        Raise if the switch is set.

        :param may_read: Whether there is time to read the connection again.
        :raises LemlistWritesStoppedError: The switch is set.
        """
        is_old = CLOCK.now() - self._read_at >= READ_AGAIN_AFTER
        if may_read and is_old and self._reading.acquire(blocking=False):
            try:
                self._read_again()
            finally:
                self._reading.release()
        if self._is_set:
            raise LemlistWritesStoppedError(
                "stop_writes of the connection is set, so requests that change something are not sent. "
                "Unset it, then clear the task."
            )

    def _read_again(self) -> None:
        self._read_at = CLOCK.now()
        try:
            self._is_set = self._read()
        except LemlistConfigurationError:
            # The field is neither true nor false: no other task would send anything with it.
            self._read_at = -math.inf
            raise
        except Exception as error:
            # Secrets backends have outages, and then a connection may seem not to exist.
            if not self._has_warned:
                log.warning(
                    "stop_writes of the connection could not be read again (%s); its last value applies.",
                    type(error).__name__,
                )
            self._has_warned = True
