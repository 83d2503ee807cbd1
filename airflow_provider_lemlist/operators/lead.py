# SPDX-License-Identifier: Apache-2.0
"""Operators for leads: put a person into a campaign, and upload the audio of voice notes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lemlist import leads, metrics
from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_count,
    check_flag,
    check_id,
    check_names,
    check_switch,
    checked_id,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.delivery.policy import IfElsewhere, IfExists, IfGone, LeadPolicy
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.operators.rows import LedgerOperator, Rows, run_of
from airflow_provider_lemlist.privacy import Hiding, masked
from airflow_provider_lemlist.storage import storage_path
from airflow_provider_lemlist.templating import KeepsPlaceholders, is_open, misplaced_templates
from airflow_provider_lemlist.validation import validation_error

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_lemlist.delivery.evidence import LeadEvidence
    from airflow_provider_lemlist.delivery.lead import Delivered
    from airflow_provider_lemlist.voice_notes import VoiceUploads

    AudioPath = str | os.PathLike[str] | ObjectStoragePath
    Audios = Mapping[str, AudioPath] | Iterable[Mapping[str, Any]] | AudioPath

#: The enrichments and the check for duplicates: argument of the operator and of the hook alike.
FLAGS = ("deduplicate", "linkedin_enrichment", "find_email", "verify_email", "find_phone")


class CreateLeadOperator(KeepsPlaceholders, LemlistOperator):
    """
    Put a person into a campaign. With the campaign's ``autoReview`` on, lemlist starts sending at once.

    The lead is checked before anything is sent; literal values when the DAG is parsed. Airflow does not
    render them, so that a ``{{firstName}}`` reaches lemlist. An Airflow retry never creates the lead again.

    Returns the id of the lead. lemlist's whole response is pushed under the key ``lead``, and under
    ``report`` the outcome: also why the task was skipped, and which fields lemlist has other values of.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/create-lead/>

    :param campaign_id: Id of the campaign. (templated)
    :param lead: lemlist's fields (``email``, ``firstName``, …) and custom variables. Numbers, truth values
        and dates become text.
    :param deduplicate: Let lemlist refuse a person who is in another campaign. (templated)
    :param linkedin_enrichment: Enrich the lead from LinkedIn; costs credits. (templated)
    :param find_email: Find a verified address; costs credits. (templated)
    :param verify_email: Verify the address; costs credits. (templated)
    :param find_phone: Find a phone number; costs credits. (templated)
    :param if_exists: What to do when the person is in the campaign: ``return`` that lead, ``update`` the
        fields that differ and return it, ``skip`` the task, or ``fail`` it.
    :param if_elsewhere: What to do when ``deduplicate`` found the person in another campaign: ``skip`` or
        ``fail``.
    :param if_gone: What to do when the lead that this task has created was deleted in lemlist: ``skip`` the
        task, ``create`` the lead again, or ``fail``.
    :param exclude_unsubscribed: Skip the task if lemlist's list of unsubscribed values has the address, the
        domain or a domain above it, the LinkedIn profile or the phone number of the person.
    :param allow_without_email: Accept a lead with neither an address, a LinkedIn profile nor a phone number,
        which cannot be found again.
    :param variables: Custom variables whose names resemble a field of lemlist and are meant so.
    :param drop_empty: Leave empty values out; otherwise they are sent as empty texts.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("campaign_id", "lead", *FLAGS, "lemlist_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"lead": "json"}
    operator_extra_links = (CampaignLink(),)
    placeholders_in = ("lead",)
    personal_in: ClassVar[Hiding] = {"lead": masked}

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
        if_gone: IfGone = "skip",
        exclude_unsubscribed: bool = True,
        allow_without_email: bool = False,
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
        self.if_gone = if_gone
        self.exclude_unsubscribed = exclude_unsubscribed
        self.allow_without_email = allow_without_email
        self.variables = variables
        self.drop_empty = drop_empty
        self.check_arguments(vars(self))

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Return False: the prospect reads the values of a lead, or lemlist puts them into its texts."""
        return False

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_choice("if_exists", arguments, IfExists)
        check_choice("if_elsewhere", arguments, IfElsewhere)
        check_choice("if_gone", arguments, IfGone)
        check_switch("exclude_unsubscribed", arguments)
        check_names("variables", arguments)
        check_id("campaign_id", arguments)
        for name in FLAGS:
            check_flag(name, arguments)
        lead = arguments["lead"]
        if isinstance(lead, Mapping):
            if found := misplaced_templates(lead, lambda name: not cls.airflow_renders(name)):
                raise validation_error(the("lead", arguments), found)
            unknown = [name for name, value in lead.items() if is_open(value, rendered=False)]
            # A lead of which nothing is known yet is not an empty one.
            checked_lead(arguments, ignore=[*unknown, "lead"] if unknown else ())
        elif not isinstance(lead, str) and not is_open(lead) and not callable(lead):
            checked_lead(arguments)

    def execute(self, context: Context) -> str:
        """Create the lead, or find the one that exists."""
        from airflow_provider_lemlist.delivery.identity import person_key
        from airflow_provider_lemlist.delivery.lead import deliver
        from airflow_provider_lemlist.operators.history import TaskHistory

        campaign_id = self.campaign_id = self._id("campaign_id")
        flags = self._flags(FLAGS)
        lead = checked_lead({**vars(self), "lead": self._real("lead")})
        if self.exclude_unsubscribed:
            self._skip_unsubscribed(context, lead)
        history = TaskHistory(context)
        # The person in the campaign; a hash, which does not show who it is.
        who = blake2b(person_key(lead) + campaign_id.encode(), digest_size=16).hexdigest()
        evidence = _evidence(lead, who, history.read())
        attempting = history.attempting(
            "the lead",
            in_doubt=evidence.in_doubt,
            created=evidence.lead_id is not None,
            may_look_up=evidence.has_email,
            check=f"Check campaign {campaign_id!r}, or clear the task: lemlist refuses a second lead with "
            "the same email.",
        )
        self._in_flight = "create a lead"
        with attempting:
            delivered = deliver(
                self.hook,
                campaign_id,
                lead,
                evidence,
                LeadPolicy(self.if_exists, self.if_elsewhere, self.if_gone),
                flags=flags,
                before_create=partial(history.begin, campaign_id=campaign_id, who=who),
            )
            metrics.ROWS.add(variant=delivered.outcome)
            found = self._wanted(context, delivered)
        self._in_flight = ""
        lead_id = str(found["_id"])
        history.finish(lead_id, campaign_id=campaign_id, who=who)
        self._push(context, lead=self._shown_response(found))
        self._tell(context, delivered)
        self._update_outlets(context, lead_id=lead_id, campaign_id=campaign_id)
        return lead_id

    def _skip_unsubscribed(self, context: Context, lead: Mapping[str, str]) -> None:
        from airflow_provider_lemlist.suppression.lists import find_unsubscribed

        if (form := find_unsubscribed(self.hook, lead)) is not None:
            self._skip(
                context,
                "suppressed",
                f"lemlist has the {form} of the person as unsubscribed. Nothing was sent.",
            )

    def _wanted(self, context: Context, delivered: Delivered) -> Mapping[str, Any]:
        """Return the lead, or raise what the policy wants where there is none to return."""
        outcome, lead_id = delivered.outcome, delivered.lead_id
        skip = partial(self._skip, context, outcome.value)
        if outcome == "gone":
            skip(f"Lead {lead_id}: {delivered.message}. Set if_gone to 'create' to put it back.")
        if outcome == "elsewhere":
            skip("The lead is in another campaign, and if_elsewhere is 'skip'.")
        if outcome == "exists" and not delivered.ours and self.if_exists == "skip":
            skip("The lead is in this campaign, and if_exists is 'skip'.")
        if delivered.lead is None:
            raise LemlistUnexpectedReplyError(
                f"lemlist says that the lead is in campaign {self.campaign_id!r}, but does not list it. "
                "It may have been added a moment ago; a retry will find it."
            )
        return delivered.lead

    def _tell(self, context: Context, delivered: Delivered) -> None:
        """Log and push what became of the lead."""
        outcome, lead_id, message = delivered.outcome, delivered.lead_id, delivered.message
        self.log.info("Lead %s: %s in campaign %s.", lead_id, outcome, self.campaign_id)
        if outcome == "created":
            # lemlist documents no way to read the setting, so it is not requested.
            self.log.info("Lead %s: contacted at once if autoReview of the campaign is on.", lead_id)
        if delivered.differing:
            names = ", ".join(sorted(delivered.differing))
            differs = f"lemlist has other values than the task in {names}. Set if_exists to 'update'."
            self.log.warning("Lead %s: %s", lead_id, differs)
            message = f"{message}; {differs}" if message else differs
        self._push_report(context, outcome.value, message, delivered.differing)


def checked_lead(arguments: Mapping[str, Any], *, ignore: Collection[str] = ()) -> dict[str, str]:
    """Return the lead of some arguments as it may be sent; ``ignore`` names fields that are not known yet."""
    from airflow_provider_lemlist.delivery.identity import IDENTIFIERS, identifies

    lead, what = arguments["lead"], the("lead", arguments)
    if not isinstance(lead, Mapping):
        raise LemlistValidationError(f"{what} must be a dict, not {type(lead).__name__}. Nothing was sent.")
    checked = leads.check(
        lead, what, variables=arguments["variables"], drop_empty=arguments["drop_empty"], ignore=ignore
    )
    if not (arguments["allow_without_email"] or identifies(checked) or {*IDENTIFIERS} & {*ignore}):
        raise LemlistValidationError(
            f"{what} has no email, linkedinUrl or phone, so it could not be found again. Nothing was sent. "
            "Give one of them, or set allow_without_email=True."
        )
    return checked


def _evidence(lead: Mapping[str, str], who: str, history: Mapping[str, Any] | None) -> LeadEvidence:
    """Read what the history of the task says about this person."""
    from airflow_provider_lemlist.delivery.evidence import LeadEvidence

    has_email = bool(lead.get("email"))
    if history is None or (history and history["who"] != who and has_email):
        return LeadEvidence(has_email)  # the values upstream have changed: another address is another person
    if history and history["who"] != who:
        # Without an address it is not known whether these are two people.
        return LeadEvidence(has_email, in_doubt=True)
    return LeadEvidence(has_email, in_doubt=not history.get("done"), lead_id=history.get("done"))


class UploadVoiceAudioOperator(LemlistOperator):
    """
    Upload the audio of a voice note, for one lead and one LinkedIn voice-note step.

    The file is streamed from where it is. lemlist does not document what a second upload for the same lead
    and step does; this package assumes that it replaces the first, and retries it.

    Returns the address of the file at lemlist. The whole response is pushed under the key ``upload``.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/upload-voice-audio/>

    :param lead_id: Id of the lead. (templated)
    :param step_id: Id of the step. (templated)
    :param audio: Path on the worker, or an object-storage address such as ``s3://bucket/note.m4a``.
        (templated)
    :param file_name: Name that lemlist shows; the name of the file by default. (templated)
    :param storage_conn_id: Connection of the object storage. (templated)
    :param lemlist_conn_id: The lemlist connection to use. (templated)
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
        audio: AudioPath | XComArg,
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
        #: Known from lemlist's response; for the link.
        self.campaign_id: str | None = None
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_id("lead_id", arguments)
        check_id("step_id", arguments)
        if isinstance(arguments["audio"], str) and not arguments["audio"].strip():
            raise LemlistValidationError(f"{the('audio', arguments)} must be a path, and is empty.")

    def execute(self, context: Context) -> str:
        """Check the file and upload it."""
        from airflow_provider_lemlist.audio import check_file, upload

        lead_id, step_id = self._id("lead_id"), self._id("step_id")
        path = self._source_file()
        try:
            audio = check_file(path)
            file = audio.open()
        except LemlistValidationError as error:
            raise self._refuse("audio", f"{error}: {path}") from error
        with file:
            self._in_flight = "upload a voice note"
            response = upload(self.hook, lead_id, step_id, audio, file, file_name=self.file_name or "")
        self._in_flight = ""
        status = response["status"]
        self.campaign_id = status.get("campaignId")
        self.log.info("Lead %s: uploaded the voice note of step %s.", lead_id, step_id)
        self._push(context, upload=self._shown_response(response))
        self._update_outlets(context, url=status["url"], lead_id=lead_id, step_id=step_id)
        return str(status["url"])

    def _source_file(self) -> ObjectStoragePath:
        return storage_path(self.audio, self.storage_conn_id, self._the("audio"))


class UploadVoiceAudiosOperator(LedgerOperator):
    """
    Upload the voice notes of many leads, for one LinkedIn voice-note step.

    Every file is checked before the first one is sent. A ledger, one for each step, records the outcome of
    each: after a kill, a stop or a clear, files that were uploaded and have not changed are not sent again.

    Returns the count of every outcome and the path of the ledger. They are also pushed under the key
    ``report``, including when the task fails.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/upload-voice-audios/>

    :param campaign_id: Id of the campaign. (templated)
    :param step_id: Id of the step. (templated)
    :param audio: A mapping of lead id to path; a directory of files that are named by lead id; or a table
        with a column of leads and one of paths: a CSV, NDJSON or Parquet file, or a list of dicts. Relative
        paths in a file are relative to it. (templated)
    :param lead_column: Column of the table that has the id of the lead.
    :param audio_column: Column of the table that has the path of the audio.
    :param storage_conn_id: Connection of the object storage. (templated)
    :param ledger_path: Directory of the ledger of this step; by default one on the worker. (templated)
    :param max_failed: How many rows may be invalid or failed before the task fails.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = (
        "campaign_id",
        "step_id",
        "audio",
        "storage_conn_id",
        "ledger_path",
        "lemlist_conn_id",
    )
    operator_extra_links = (CampaignLink(),)
    rows_in = "audio"

    def __init__(
        self,
        *,
        campaign_id: str | XComArg,
        step_id: str | XComArg,
        audio: Audios | XComArg,
        lead_column: str = "lead_id",
        audio_column: str = "audio",
        storage_conn_id: str | XComArg | None = NOT_GIVEN,
        ledger_path: str | os.PathLike[str] | ObjectStoragePath | XComArg | None = NOT_GIVEN,
        max_failed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.step_id = step_id
        self.audio: Any = audio
        self.lead_column = lead_column
        self.audio_column = audio_column
        optional = {"storage_conn_id": storage_conn_id, "ledger_path": ledger_path}
        self._given = given_names(optional, mapped=is_from_mapped(self))
        self.storage_conn_id = or_none(storage_conn_id)
        self.ledger_path = or_none(ledger_path)
        self.max_failed = max_failed
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_id("campaign_id", arguments)
        check_id("step_id", arguments)
        check_count("max_failed", arguments)
        for name in ("lead_column", "audio_column"):
            if not isinstance(arguments[name], str) or not arguments[name].strip():
                raise LemlistConfigurationError(f"{the(name, arguments)} must be the name of a column.")
        audio = arguments["audio"]
        if not is_open(audio):
            _check_audios(audio, the("audio", arguments))
        if isinstance(audio, Mapping):  # Airflow does not render its keys
            for lead_id in audio:
                checked_id(lead_id, f"A lead id in the audio of task {arguments['task_id']!r}")

    def _prepare(self, context: Context) -> VoiceUploads:
        from airflow_provider_lemlist.ledger.ledger import default_ledger_path
        from airflow_provider_lemlist.voice_notes import VoiceOptions, VoiceUploads

        self.campaign_id, self.step_id = self._id("campaign_id"), self._id("step_id")
        for name in self._given:
            refuse_empty(getattr(self, name), self._the(name))
        audio = self._rendered_rows()
        _check_audios(audio, self._the("audio"))
        ledger = default_ledger_path(self.campaign_id, self.hook.settings.other_host, step_id=self.step_id)
        self._ledger = self._storage("ledger_path", ledger)
        options = VoiceOptions(
            self.campaign_id,
            self.step_id,
            self._source_file() or audio,
            (self.lead_column, self.audio_column),
            self.storage_conn_id,
            self._ledger,
            run_of(context),
            self.execution_timeout,
        )
        return VoiceUploads(self.hook, options)

    def _are_rows(self, value: Any) -> bool:
        return isinstance(value, Iterable) and not isinstance(value, str)

    def _source_file(self) -> ObjectStoragePath | None:
        return None if isinstance(self.audio, Rows) or self._are_rows(self.audio) else self._storage("audio")


def _check_audios(audio: Any, what: str) -> None:
    refuse_empty(audio, what)
    if isinstance(audio, (bytes, int, float)):
        raise LemlistValidationError(
            f"{what} must be a mapping, a path or a list of dicts, not {type(audio).__name__}."
        )
