# SPDX-License-Identifier: Apache-2.0
"""What the sensors share: the wait in the triggerer, and the end of it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, BaseSensorOperator

from airflow_provider_lemlist import exceptions
from airflow_provider_lemlist.exceptions import LemlistError
from airflow_provider_lemlist.operators.base import LemlistOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger


class LemlistSensor(LemlistOperator, BaseSensorOperator):
    """The base of the sensors."""

    ui_color = "#e1f1fb"
    ui_fgcolor = "#0f3a5c"

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the wait in the triggerer, as Airflow does."""
        with self._pushing_skips(context):
            return super().resume_execution(next_method, next_kwargs, context)

    @contextmanager
    def _pushing_skips(self, context: Context) -> Iterator[None]:
        """Push why Airflow skips the sensor, as ``soft_fail`` and ``never_fail`` say."""
        try:
            yield
        except AirflowSkipException as skip:
            cause: BaseException = skip
            while isinstance(cause, AirflowSkipException) and cause.__cause__ is not None:
                cause = cause.__cause__  # Airflow's own text names only the argument
            # The text of any other exception may hold personal data.
            told = isinstance(cause, (LemlistError, AirflowException))
            message = str(cause) if told else type(cause).__name__
            self.log.info("Skipped: %s", message)
            self._push_report(context, "skipped", message)
            raise

    def _wait_in_triggerer(self, trigger: type[BaseTrigger], **arguments: Any) -> NoReturn:
        """Defer, with the arguments that all triggers of sensors have, until the trigger fires."""
        self.defer(
            trigger=trigger(
                **arguments,
                poke_interval=self.poke_interval,
                **({"max_consecutive_failures": None} if self.silent_fail else {}),
                lemlist_conn_id=self.lemlist_conn_id,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def _found(self, event: dict[str, Any] | None, key: str) -> Any:
        """
        Return what is in the trigger's event, or raise the error in it.

        :raises LemlistError: The class that the hook raised in the triggerer.
        """
        if event is None or event.get("status") not in ("success", "error"):
            raise LemlistError(f"The trigger returned {event!r} instead of a result.")
        if event["status"] == "success":
            return event[key]
        error_class = getattr(exceptions, event["error"], LemlistError)
        error = error_class(event["message"], status=event.get("http_status"))
        if self.never_fail:
            # On resuming, Airflow applies it to its own errors only, and before 3.0 to none.
            raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
        raise error

    def _changed_campaign(self) -> None:
        return None
