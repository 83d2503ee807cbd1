# SPDX-License-Identifier: Apache-2.0
"""Operators for one lead: put a person into a campaign, and give a voice note its audio."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_lemlist import leads
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistDuplicateError,
    LemlistError,
    LemlistNotFoundError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.operators.memory import Memory
from airflow_provider_lemlist.storage import storage_path
from airflow_provider_lemlist.templating import KeepsPlaceholders, is_open

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import BinaryIO

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

IfExists = Literal["return", "skip", "fail"]
IfElsewhere = Literal["skip", "fail"]
Move = Literal["create", "return", "look", "skip", "fail", "doubt"]

#: The enrichments and the check for duplicates: argument of the operator and of the hook alike.
FLAGS = ("deduplicate", "linkedin_enrichment", "find_email", "verify_email", "find_phone")

# A list of our own: the platform's table of types differs from machine to machine.
AUDIO_TYPES = {
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".amr": "audio/amr",
    ".caf": "audio/x-caf",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".wma": "audio/x-ms-wma",
}


def decide(
    *,
    interrupted: bool,
    has_email: bool,
    duplicate: Literal["campaign", "elsewhere"] | None = None,
    if_exists: IfExists = "return",
    if_elsewhere: IfElsewhere = "skip",
) -> Move:
    """
    Decide the next move for one lead: before it is sent, and after lemlist called it a duplicate.

    An attempt that was cut off may have created the lead. lemlist's own refusal of duplicates makes asking
    again safe, and then the duplicate is ours. Without an address lemlist finds no duplicate, nor do we.

    :param interrupted: Whether an earlier attempt of this task may have created the lead.
    :param has_email: Whether the lead has an address.
    :param duplicate: Where lemlist says the lead is; None before it was asked.
    :param if_exists: What the user wants for a lead that is in this campaign.
    :param if_elsewhere: What the user wants for a lead that is in another one.
    """
    if duplicate is None:
        return "doubt" if interrupted and not has_email else "create"
    if duplicate == "campaign":
        return "return" if interrupted else if_exists
    # Which of two duplicates lemlist names first is not documented: ours may stand behind the other.
    return "look" if interrupted else if_elsewhere


class CreateLeadOperator(KeepsPlaceholders, LemlistOperator):
    """
    Put a person into a campaign. With the campaign's ``autoReview`` on, lemlist starts to write at once.

    The lead is checked before anything is sent; what is written in the DAG file, when the file is parsed.
    Airflow leaves its values alone, so a ``{{firstName}}`` in them is lemlist's. An Airflow retry never
    creates the lead again.

    Returns the id of the lead. The whole answer of lemlist is pushed under the key ``lead``.

    .. seealso::
        For more information on how to use this operator, take a look at the guide:
        :ref:`howto/operator:CreateLeadOperator`

    :param campaign_id: Id of the campaign. (templated)
    :param lead: lemlist's fields (``email``, ``firstName``, …) and custom variables. Numbers, truth values
        and dates become text.
    :param deduplicate: Let lemlist refuse a person who is in another campaign. (templated)
    :param linkedin_enrichment: Enrich the lead from LinkedIn; costs credits. (templated)
    :param find_email: Find a verified address; costs credits. (templated)
    :param verify_email: Verify the address; costs credits. (templated)
    :param find_phone: Find a phone number; costs credits. (templated)
    :param if_exists: What to do when the person is in the campaign: ``return`` that lead, ``skip`` the task,
        or ``fail`` it.
    :param if_elsewhere: What to do when ``deduplicate`` found the person in another campaign: ``skip`` or
        ``fail``.
    :param variables: Custom variables whose names are close to a field of lemlist and yet meant.
    :param drop_empty: Leave empty values out; otherwise they are sent as empty texts.
    :param lemlist_conn_id: :ref:`lemlist connection <howto/connection:lemlist>` to use. (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "lead", *FLAGS, "lemlist_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"lead": "json"}
    operator_extra_links = (CampaignLink(),)
    placeholders_in = ("lead",)

    def __init__(
        self,
        *,
        campaign_id: str | XComArg,
        lead: Mapping[str, Any] | XComArg,
        deduplicate: bool | str | XComArg = False,
        linkedin_enrichment: bool | str | XComArg = False,
        find_email: bool | str | XComArg = False,
        verify_email: bool | str | XComArg = False,
        find_phone: bool | str | XComArg = False,
        if_exists: IfExists = "return",
        if_elsewhere: IfElsewhere = "skip",
        variables: Collection[str] = (),
        drop_empty: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.lead = lead
        self.deduplicate = deduplicate
        self.linkedin_enrichment = linkedin_enrichment
        self.find_email = find_email
        self.verify_email = verify_email
        self.find_phone = find_phone
        self.if_exists = if_exists
        self.if_elsewhere = if_elsewhere
        self.variables = variables
        self.drop_empty = drop_empty
        self._check_written()

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Say no: a value of a lead is what the prospect reads, or what lemlist puts there."""
        return False

    def execute(self, context: Context) -> str:
        """Create the lead, or find out that it is there."""
        self._check_id("campaign_id")
        flags = {name: self._flag(name) for name in FLAGS}
        lead = self._checked_lead()
        memory = Memory(context)
        note = memory.recall()
        if note and note["who"] != self._who(lead):
            # What is upstream has changed before the task was cleared. Another address is another person;
            # without one nobody can tell.
            note = None if lead.get("email") else {}
        reply = self._made_before(note) if note else None
        if reply is None:
            # What was made and is gone again leaves no doubt.
            cut_off = note is not None and not note.get("done")
            reply = self._create(lead, flags, memory, interrupted=cut_off)
        lead_id = str(reply["_id"])
        self._push(context, lead=reply)
        self._tell_outlets(context, lead_id=lead_id, campaign_id=self.campaign_id)
        return lead_id

    def _who(self, lead: dict[str, str]) -> str:
        """Return a mark of the person in the campaign, for the note; it tells nobody who it is."""
        from hashlib import sha256

        who = lead["email"].casefold() if lead.get("email") else sorted(lead.items())
        return sha256(repr((self.campaign_id, who)).encode()).hexdigest()[:32]

    def _made_before(self, note: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the lead that this task has made, None where it is not known or gone from lemlist."""
        if not note.get("done"):
            return None
        try:
            return self.hook.get_lead(note["done"])
        except LemlistNotFoundError:
            return None

    def _create(
        self, lead: dict[str, str], flags: dict[str, bool | None], memory: Memory, *, interrupted: bool
    ) -> dict[str, Any]:
        lead_email = lead.get("email")
        if decide(interrupted=interrupted, has_email=bool(lead_email)) == "doubt":
            memory.strike_out()
            raise LemlistUncertainError(
                f"An earlier run of task {self.task_id!r} may have created the lead, which has no email and "
                f"so cannot be looked up. Look in campaign {self.campaign_id!r}: if the lead is there, mark "
                "the task as succeeded, else clear it."
            )
        memory.note(campaign_id=self.campaign_id, who=self._who(lead))
        self._under_way = "create a lead"
        try:
            try:
                reply = self.hook.create_lead(str(self.campaign_id), lead, **flags)
                self.log.info("Created lead %s in campaign %s.", reply["_id"], self.campaign_id)
            except LemlistDuplicateError as error:
                reply = self._settle(error, lead_email, interrupted)
                self.log.info("Lead %s is already in campaign %s.", reply["_id"], self.campaign_id)
        except (LemlistError, AirflowSkipException) as error:
            # The hook knows that it did not happen this time, or tells a person to look. The doubt about an
            # earlier attempt stays for the next one.
            if not (interrupted and getattr(error, "retryable", False)):
                memory.strike_out()
            raise
        self._under_way = ""
        memory.done(reply["_id"])
        return reply

    def _settle(self, error: LemlistDuplicateError, lead_email: str | None, ours: bool) -> dict[str, Any]:
        """Do with a duplicate what was asked; return the lead where it is to be returned."""
        move = decide(
            interrupted=ours,
            has_email=bool(lead_email),
            duplicate=error.where,
            if_exists=self.if_exists,
            if_elsewhere=self.if_elsewhere,
        )
        found = None
        if move in ("return", "look") and lead_email:
            found = self.hook.find_lead(str(self.campaign_id), lead_email)
            if found is None and move == "look":
                move = self.if_elsewhere
        if found is not None:
            return found
        if move == "skip":
            place = "this campaign" if error.where == "campaign" else "another campaign"
            raise AirflowSkipException(f"The lead is already in {place}; skipped as asked.")
        if move == "return" and lead_email:
            raise LemlistUnexpectedReplyError(
                f"lemlist says that the lead is already in campaign {self.campaign_id!r}, and lists no such "
                "lead. It may have been added a moment ago; another attempt will find it.",
                operation=error.operation,
            ) from error
        raise error

    def _check_written(self) -> None:
        for argument, choices in (
            ("if_exists", get_args(IfExists)),
            ("if_elsewhere", get_args(IfElsewhere)),
        ):
            if getattr(self, argument) not in choices:
                raise LemlistConfigurationError(
                    f"{self._the(argument)} must be one of {', '.join(choices)}, "
                    f"not {getattr(self, argument)!r}."
                )
        if isinstance(self.variables, str):
            raise LemlistConfigurationError(f"{self._the('variables')} must be a list of names, not a text.")
        self._check_id("campaign_id", written=True)
        for name in FLAGS:
            if not is_open(getattr(self, name)):
                self._flag(name)
        if isinstance(self.lead, Mapping):
            unknown = [name for name, value in self.lead.items() if is_open(value, rendered=False)]
            # A lead of which nothing is known yet is not an empty one.
            self._checked_lead(ignore=[*unknown, "lead"] if unknown else ())
        elif not isinstance(self.lead, str) and not is_open(self.lead) and not callable(self.lead):
            raise self._refuse("lead", f"must be a dict, not {type(self.lead).__name__}")

    def _checked_lead(self, ignore: Collection[str] = ()) -> dict[str, str]:
        if not isinstance(self.lead, Mapping):
            raise self._refuse("lead", f"must be a dict, not {type(self.lead).__name__}")
        return leads.check(
            self.lead,
            self._the("lead"),
            variables=self.variables,
            drop_empty=self.drop_empty,
            ignore=ignore,
        )


class UploadVoiceAudioOperator(LemlistOperator):
    """
    Upload the audio of a voice note, for one lead and one LinkedIn voice-note step.

    The file is streamed from where it is. Doing it again replaces the audio, so retries are harmless.

    Returns the address of the file at lemlist. The whole answer is pushed under the key ``upload``.

    .. seealso::
        For more information on how to use this operator, take a look at the guide:
        :ref:`howto/operator:UploadVoiceAudioOperator`

    :param lead_id: Id of the lead. (templated)
    :param step_id: Id of the step. (templated)
    :param audio: Path on the worker, or an object-storage address such as ``s3://bucket/note.m4a``.
        (templated)
    :param file_name: Name that lemlist shows; the name of the file by default. (templated)
    :param storage_conn_id: Connection of the object storage. (templated)
    :param lemlist_conn_id: :ref:`lemlist connection <howto/connection:lemlist>` to use. (templated)
    """

    template_fields: Sequence[str] = (
        "lead_id",
        "step_id",
        "audio",
        "file_name",
        "storage_conn_id",
        "lemlist_conn_id",
    )
    operator_extra_links = (CampaignLink(),)

    def __init__(
        self,
        *,
        lead_id: str | XComArg,
        step_id: str | XComArg,
        audio: str | os.PathLike[str] | ObjectStoragePath | XComArg,
        file_name: str | None = None,
        storage_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lead_id = lead_id
        self.step_id = step_id
        self.audio = audio
        self.file_name = file_name
        self.storage_conn_id = storage_conn_id
        #: Known when lemlist has answered; for the link.
        self.campaign_id: str | None = None
        self._check_written()

    def execute(self, context: Context) -> str:
        """Check the file and upload it."""
        self._check_ids()
        path = self._source_file()
        content_type = self._content_type(path)
        with self._opened(path) as audio:
            self._under_way = "take a voice note"
            reply = self.hook.upload_audio(
                str(self.lead_id),
                str(self.step_id),
                audio,
                file_name=self.file_name or path.name,
                content_type=content_type,
            )
        self._under_way = ""
        status = reply.get("status")
        if not isinstance(status, dict) or not status.get("url"):
            raise LemlistUnexpectedReplyError("lemlist took the audio and gave no address for it; try again.")
        self.campaign_id = status.get("campaignId")
        self.log.info("Uploaded the voice note of lead %s for step %s.", self.lead_id, self.step_id)
        self._push(context, upload=reply)
        self._tell_outlets(context, url=status["url"], lead_id=self.lead_id, step_id=self.step_id)
        return str(status["url"])

    def _check_written(self) -> None:
        self._check_ids(written=True)
        if isinstance(self.audio, str) and not self.audio.strip():
            raise self._refuse("audio", "must be a path, and is empty")

    def _source_file(self) -> ObjectStoragePath:
        return storage_path(self.audio, self.storage_conn_id, self._the("audio"))

    def _check_ids(self, *, written: bool = False) -> None:
        self._check_id("lead_id", written=written)
        self._check_id("step_id", written=written)

    def _content_type(self, path: ObjectStoragePath) -> str:
        """Return the type of the audio by its extension, else as the storage says."""
        extension = os.path.splitext(path.name)[1].lower()
        if extension in AUDIO_TYPES:
            return AUDIO_TYPES[extension]
        with self._told(path):
            facts = path.fs.info(path.path)
        said = next(
            (facts[name] for name in ("ContentType", "contentType", "content_type") if facts.get(name)), ""
        )
        if str(said).startswith("audio/"):
            return str(said)
        if facts.get("type") == "directory":
            raise self._refuse("audio", f"is a directory: {path}")
        raise self._refuse("audio", f"is no audio by its name: {path}. Known are {', '.join(AUDIO_TYPES)}")

    @contextmanager
    def _opened(self, path: ObjectStoragePath) -> Iterator[BinaryIO]:
        with self._told(path):
            if path.is_dir():
                raise self._refuse("audio", f"is a directory: {path}")
            file = path.open("rb")  # type: ignore[no-untyped-call]  # Airflow leaves it without annotations
            size = file.seek(0, os.SEEK_END)
        with file:
            if not size:
                raise self._refuse("audio", f"is empty: {path}")
            file.seek(0)
            yield cast("BinaryIO", file)

    @contextmanager
    def _told(self, path: ObjectStoragePath) -> Iterator[None]:
        """Tell the faults of a file as ours; those of a storage are for Airflow to retry."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._refuse("audio", f"does not exist: {path}") from error
        except IsADirectoryError as error:
            raise self._refuse("audio", f"is a directory: {path}") from error
        except PermissionError as error:
            raise self._refuse("audio", f"may not be read by this worker: {path}") from error
