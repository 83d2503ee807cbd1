# SPDX-License-Identifier: Apache-2.0
"""
Upload the voice notes of many leads.

    read the source -> check every file -> leave out what lemlist has -> upload -> write

The ledger is that of one step. The people in it are leads, and what was sent to a lead is the file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_lemlist import audio, sources
from airflow_provider_lemlist.arguments import given_but_empty
from airflow_provider_lemlist.concurrency import Concurrency, request_rate
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError, Reason
from airflow_provider_lemlist.ledger.ledger import Ledger, LedgerEntry
from airflow_provider_lemlist.load import preflight
from airflow_provider_lemlist.load.pool import SenderPool
from airflow_provider_lemlist.load.report import LoadReport
from airflow_provider_lemlist.load.sending import Sent, concerns_every_row, shortened
from airflow_provider_lemlist.load.worklist import Worklist
from airflow_provider_lemlist.storage import shown_to_workers, storage_path
from airflow_provider_lemlist.validation import Finding

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook
    from airflow_provider_lemlist.ledger.ledger import Run
    from airflow_provider_lemlist.ledger.people import People

log = logging.getLogger(__name__)


class VoiceOptions(NamedTuple):
    """
    Which voice notes to upload; the arguments of ``UploadVoiceAudiosOperator``, checked.

    :param source: A mapping of lead id to path, rows, or the path of a table or a directory of audio files.
    :param columns: The columns of the lead and of the audio.
    """

    campaign_id: str
    step_id: str
    source: Mapping[str, Any] | Iterable[Any] | ObjectStoragePath
    columns: tuple[str, str]
    storage_conn_id: str | None
    ledger_path: ObjectStoragePath
    run: Run
    time_limit: timedelta | None = None


class Note(NamedTuple):
    """One row of the source, with its line of the ledger; that of an upload as it is if it succeeds."""

    entry: LedgerEntry
    audio: audio.AudioFile | None = None

    @property
    def keys(self) -> Sequence[bytes]:
        return self.entry.keys

    @property
    def is_marked(self) -> bool:
        """Return True: after a kill it is not known which file lemlist has."""
        return True

    def settled(self, outcome: str, message: str = "") -> Note:
        """Return the row without an upload."""
        return Note(self.entry._replace(outcome=outcome, message=shortened(message), sent=None))


class VoiceReport(LoadReport):
    """The counts of the uploads."""

    names = ("uploaded", "unchanged", "newer", "invalid", "failed")

    def counts(self) -> dict[str, int]:
        """Return every count, as pushed to XCom."""
        outcomes = {name: self.outcomes[name] for name in self.names}
        return {"rows": self.rows, **outcomes, "not_tried": self.not_tried}


class VoiceUploads:
    """Upload the voice notes of a source for one step."""

    def __init__(self, hook: LemlistHook, options: VoiceOptions) -> None:
        self._hook = hook
        self._options = options
        self._stop_requested = False
        #: The counts; None until the files were checked.
        self.report: VoiceReport | None = None

    def stop(self) -> None:
        """Upload no further file. Safe to call from a signal handler."""
        self._stop_requested = True

    def run(self) -> VoiceReport:
        """
        Upload every file that lemlist does not have.

        :raises LemlistError: A mistake was found before anything was sent, an error concerns every row, or
            the task was stopped. The ledger contains what was done until then.
        """
        options = self._options
        log.info("The ledger is %s.", shown_to_workers(options.ledger_path))
        notes = self._checked()
        # The ledger of a load, or of another step, is refused.
        owner = f"{options.campaign_id}, step {options.step_id}"
        with (
            Ledger(options.ledger_path, owner, options.run) as ledger,
            closing(Worklist(ledger.secret)) as worklist,
        ):
            ledger.read(worklist.people)
            notes = [self._plan(note, worklist.people) for note in notes]
            report = self.report = VoiceReport(len(notes), {})
            try:
                self._send(notes, ledger, report)
                # A row that an earlier attempt has uploaded is unchanged now.
                replaced = {key: sys.maxsize for note in notes for key in note.keys}
                ledger.finish(worklist.people, report.counts(), replaced)
            finally:
                report.emit()
                log.info("Step %s: the uploads have ended.\n%s", options.step_id, report.table())
        return report

    def _rows(self) -> Iterator[sources.Row]:
        source = self._options.source
        if isinstance(source, Mapping):
            pairs = iter(source.items())
        elif isinstance(source, Iterable):
            return sources.from_list(source)
        elif source.is_dir():
            files = sorted(source.iterdir(), key=lambda file: file.name)
            pairs = ((file.stem, file) for file in files if file.name[0] not in "._")
        else:
            return sources.from_path(source)
        return (dict(zip(self._options.columns, pair, strict=True)) for pair in pairs)

    def _checked(self) -> list[Note]:
        """Check every row and its file."""
        notes: list[Note] = []
        for number, row in enumerate(self._rows(), 1):
            if self._stop_requested:
                raise LemlistError("The task was stopped before anything was sent.")
            note = Note(LedgerEntry(number, (), "uploaded"))
            try:
                lead_id, address = self._values(row)
                note = Note(note.entry._replace(lead_id=lead_id))
                notes.append(note._replace(audio=audio.check_file(self._path(address))))
            except LemlistValidationError as error:
                what = "the audio " if note.entry.lead_id else ""
                notes.append(note.settled("invalid", f"{what}{error}"))
        times = Counter(note.entry.lead_id for note in notes if note.entry.lead_id)
        problems: dict[str, Finding] = defaultdict(Finding)
        for place, note in enumerate(notes):
            lead_id = note.entry.lead_id or ""
            if times[lead_id] > 1:
                notes[place] = note = note.settled("invalid", "another row is for the same lead")
            if note.entry.message:
                problems[note.entry.message].add(lead_id or place + 1)
        preflight.log_problems(problems)
        return notes

    def _values(self, row: sources.Row) -> tuple[str, Any]:
        """Return the lead and the address of a row."""
        if isinstance(row, sources.MalformedRow):
            raise LemlistValidationError(row.reason)
        lead_id, address = map(row.get, self._options.columns)
        for name, value in zip(self._options.columns, (lead_id, address), strict=True):
            if given_but_empty(value):
                raise LemlistValidationError(f"{name} is empty")
        # What is no id may be personal data, so it is not repeated.
        if not isinstance(lead_id, str) or not re.fullmatch(r"[\w-]+", lead_id.strip()):
            raise LemlistValidationError(f"{self._options.columns[0]} must be an id such as lea_…")
        return lead_id.strip(), address

    def _path(self, address: Any) -> ObjectStoragePath:
        source = self._options.source
        if isinstance(address, str) and "://" not in address and not isinstance(source, Iterable):
            address = os.path.expanduser(address.strip())
            if not os.path.isabs(address):
                return cast("ObjectStoragePath", source.parent / address)
        return storage_path(address, self._options.storage_conn_id, self._options.columns[1])

    def _plan(self, note: Note, people: People) -> Note:
        """Leave out a file that lemlist has, or for which it has that of a newer run."""
        if note.audio is None:
            return note
        keys = people.keys_of({}, note.entry.lead_id)
        sent = people.sent({"audio": note.audio.fingerprint})
        note = note._replace(entry=note.entry._replace(keys=keys, sent=sent))
        for lead in people.find(keys):
            if not lead.in_doubt and json.loads(lead.sent) == sent:
                return note.settled("unchanged")
            if lead.run > self._options.run.order:
                return note.settled("newer", "a newer run has uploaded another file")
        return note

    def _send(self, notes: list[Note], ledger: Ledger, report: VoiceReport) -> None:
        options, hook = self._options, self._hook
        for entry in (note.entry for note in notes if note.audio is None):
            report.count(entry.outcome, sent=False)
            ledger.write(entry, urgent=False)
        if not (uploads := [note for note in notes if note.audio is not None]):
            return
        latency = self._check_step()
        rate = request_rate(hook.budget)
        preflight.log_estimate(options.campaign_id, len(uploads), rate, options.time_limit)
        concurrency, stop = Concurrency(rate, latency), hook.get_conn().stop
        pool = SenderPool(iter(uploads), self._upload, ledger, report, concurrency, interrupt=stop)
        with hook.get_conn().in_parts():
            pool.run(lambda: self._stop_requested)
        if report.not_tried:
            raise LemlistError(
                f"The task was stopped; {report.not_tried:,} files were not uploaded. "
                "The next attempt continues from the ledger."
            )

    def _check_step(self) -> float:
        """Make sure that the step is a voice note of the campaign; return the latency of lemlist."""
        campaign_id, step_id = self._options.campaign_id, self._options.step_id
        sequences, latency = preflight.read_sequences(self._hook, campaign_id)
        steps = [step for sequence in sequences.values() for step in sequence.get("steps") or ()]
        known = [str(step.get("_id")) for step in steps if step.get("type") == "linkedinVoiceNote"]
        if step_id not in known:
            raise LemlistValidationError(
                f"Step {step_id!r} is not a voice note of campaign {campaign_id!r}, whose voice notes are "
                f"{', '.join(known) or 'none'}. Nothing was sent."
            )
        return latency

    def _upload(self, note: Note) -> Sent:
        entry, file = note.entry, cast("audio.AudioFile", note.audio)
        try:
            with file.open() as opened:
                audio.upload(self._hook, str(entry.lead_id), self._options.step_id, file, opened)
        except LemlistError as error:
            # The campaign and the step exist, so what lemlist does not find is the lead.
            if concerns_every_row(error) and error.reason is not Reason.NOT_FOUND:
                return Sent(None, error.in_doubt, error)
            return Sent(note.settled("failed", str(error)).entry, error.in_doubt, error)
        return Sent(entry)
