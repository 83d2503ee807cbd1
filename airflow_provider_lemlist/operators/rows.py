# SPDX-License-Identifier: Apache-2.0
"""What the operators share that take many rows, and those that record the outcome of each in a ledger."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.privacy import hides_personal_data

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_lemlist.ledger.ledger import Run
    from airflow_provider_lemlist.load.report import LoadReport
    from airflow_provider_lemlist.load.run import Load
    from airflow_provider_lemlist.voice_notes import VoiceUploads


class Rows:
    """Rows of a source; where Airflow shows or stores them, there is only their number."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __str__(self) -> str:
        return f"{len(self.rows):,} rows" if isinstance(self.rows, Sized) else "rows"


class RowsOperator(LemlistOperator):
    """The base of the operators that take many rows. Airflow does not show or store them."""

    #: The template field that may hold rows.
    rows_in: ClassVar[str]
    storage_conn_id: Any

    def _are_rows(self, value: Any) -> bool:
        """Return whether the template field holds rows."""
        return value is not None and not isinstance(value, Rows)

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        # All ways to render lead here, also that of a mapped task; then Airflow stores what was rendered.
        if hides_personal_data():
            self._warn_of_xcom(self.rows_in)
        super()._do_render_template_fields(parent, *args, **kwargs)
        if self._are_rows(value := getattr(self, self.rows_in)):
            setattr(self, self.rows_in, Rows(value))

    def _rendered_rows(self) -> Any:
        value = getattr(self, self.rows_in)
        return value.rows if isinstance(value, Rows) else value

    def _storage(self, argument: str, default: str | None = None) -> ObjectStoragePath:
        from airflow_provider_lemlist.storage import storage_path

        value = getattr(self, argument)
        return storage_path(default if value is None else value, self.storage_conn_id, self._the(argument))


class LedgerOperator(RowsOperator):
    """The base of the operators that send many rows, with a ledger of their outcomes."""

    campaign_id: Any
    max_failed: int
    sends_nothing = False
    _load: Load | VoiceUploads | None = None
    _ledger: ObjectStoragePath

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the rows, and send those that take a request."""
        self._load = self._prepare(context)
        try:
            report = self._load.run()
        finally:
            if self._load.report is not None:
                self._push(context, report=self._counts(self._load.report))
        self._check_failures(report)
        counts = self._counts(report)
        self._update_outlets(context, **counts)
        return counts

    def on_kill(self) -> None:
        """Send no further row; rows in flight may complete."""
        if self._load is not None:
            self.log.warning("Stopping: no further row is sent. The next attempt continues from the ledger.")
            self._load.stop()

    def _prepare(self, context: Context) -> Load | VoiceUploads:
        """Check the rendered arguments, and set ``_ledger``."""
        raise NotImplementedError

    def _counts(self, report: LoadReport) -> dict[str, Any]:
        from airflow_provider_lemlist.storage import shown

        return {
            **report.counts(),
            "campaign_id": self.campaign_id,
            "ledger_path": None if self.sends_nothing else shown(self._ledger),
        }

    def _check_failures(self, report: LoadReport) -> None:
        """Fail the task if more than ``max_failed`` rows could not be sent."""
        bad = {name: report.outcomes[name] for name in ("invalid", "failed", "uncertain")}
        if sum(bad.values()) <= self.max_failed:
            return
        counts = ", ".join(f"{count:,} {name}" for name, count in bad.items() if count)
        rest = "Nothing was sent" if self.sends_nothing else "The other rows are settled"
        message = (
            f"{counts} of {report.rows:,} rows, and max_failed is {self.max_failed}. {rest}; see the log "
            "and the ledger."
        )
        if bad["failed"] or bad["uncertain"]:
            raise LemlistError(f"{message} A retry tries these rows again.")
        raise LemlistValidationError(message)  # invalid rows stay invalid, so the task is not retried


def run_of(context: Context) -> Run:
    """Return how the ledger knows the run of a task."""
    from airflow_provider_lemlist.ledger.ledger import Run, file_name
    from airflow_provider_lemlist.run_window import run_order

    ti: Any = context["ti"]
    index = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    source = f"{ti.dag_id}.{ti.task_id}"
    return Run(
        name=file_name(f"{ti.run_id}.{source}{index}"),
        order=run_order(context.get("dag_run")),
        source=source,
        owner=f"task {source}{index} of run {ti.run_id}, attempt {ti.try_number}",
    )
