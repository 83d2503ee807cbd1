# SPDX-License-Identifier: Apache-2.0
"""
The hook: one connection to lemlist, and a thin typed method for each operation.

Everything that is hard about a request (the shared budget, retries, lost responses, lemlist's errors) happens
in ``api/``; a method here only says what is sent.
"""

from __future__ import annotations

import logging
import math
import threading
from datetime import UTC, datetime
from functools import cache
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

from airflow_provider_lemlist import __version__
from airflow_provider_lemlist.api import operations as ops
from airflow_provider_lemlist.connection import (
    Settings,
    read_settings,
    read_stop_writes,
    redis_url,
    secrets_in,
)
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
    LemlistValidationError,
    Reason,
)
from airflow_provider_lemlist.get_provider_info import (
    CONN_FIELDS,
    CONN_TYPE,
    DEFAULT_CONN_ID,
    FIELDS_URL,
    HOOK_NAME,
    UI_FIELD_BEHAVIOUR,
)
from airflow_provider_lemlist.version_compat import airflow_version, look_up_connection, runs_remotely

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_lemlist.api.budget import Budget
    from airflow_provider_lemlist.api.transport import RetryPolicy, Transport
    from airflow_provider_lemlist.datasets import PersonalData, Value

log = logging.getLogger(__name__)

#: Most values that lemlist takes in one bulk unsubscription.
UNSUBSCRIBE_AT_ONCE = 10_000


class LemlistHook(BaseHook):
    """
    Send requests to lemlist within the rate budget that all users of the key share.

    The connection is looked up at the first call. One hook serves any number of threads, and forked
    processes. Every failure is one of ``airflow_provider_lemlist.exceptions``.

    :param lemlist_conn_id: lemlist connection to use.
    """

    conn_name_attr = "lemlist_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = HOOK_NAME

    def __init__(self, lemlist_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lemlist_conn_id = lemlist_conn_id
        self._opening = threading.RLock()
        self._settings: Settings | None = None
        self._budget: Budget | None = None
        self._transport: Transport | None = None

    # --- The connection ---------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The connection, looked up once and checked."""
        with self._opening:
            if self._settings is None:
                self._settings = self._read_settings()
            return self._settings

    async def load_settings(self) -> Settings:
        """Look the connection up without blocking an event loop; ``settings`` returns it from then on."""
        from airflow.providers.common.compat.connection import get_async_connection

        if self._settings is None:
            try:
                conn = await get_async_connection(self.lemlist_conn_id, hook=self)
            except AirflowNotFoundException:
                raise self._no_connection() from None
            self._settings = read_settings(conn)
        return self._settings

    @property
    def budget(self) -> Budget:
        """The rate budget of the connection's key, shared with all processes that use the same store."""
        with self._opening:
            if self._budget is None:
                from airflow_provider_lemlist.api.budget import open_budget

                settings = self.settings
                store = self._budget_store(settings)
                if not store and settings.budget_share == 1 and runs_remotely():
                    _warn_not_shared()
                self._budget = open_budget(
                    settings.api_key,
                    store=store,
                    share=settings.budget_share,
                    max_wait=settings.max_wait,
                    directory=conf.get("lemlist", "budget_dir", fallback="") or None,
                )
            return self._budget

    def get_conn(self) -> Transport:
        """Return the transport that sends the requests; the methods of the hook are easier to use."""
        with self._opening:
            if self._transport is None:
                self._transport = self._open_transport()
            return self._transport

    def close(self) -> None:
        """Close the connections to lemlist; the next call opens them again."""
        with self._opening:
            if self._transport is not None:
                self._transport.close()

    def test_connection(self) -> tuple[bool, str]:
        """Look at the budget store and request the team of the key, once; return its name or what to do."""
        from airflow_provider_lemlist.api.budget.stores import StoreError
        from airflow_provider_lemlist.api.transport import RetryPolicy

        try:
            self._settings = self._read_settings(named=False)
            # A file would be one of the API server, which says nothing about those of the workers.
            if self.budget.store.between_machines:
                self.budget.store.read()
            team = self._open_transport(RetryPolicy(attempts=1, refusals=1)).call(ops.GET_TEAM)
        except StoreError as error:
            return False, f"The budget store cannot be used: {error}."
        except LemlistError as error:
            return False, error.message
        except Exception as error:
            return False, f"The connection could not be tested: {type(error).__name__}."
        return True, f"Connected to the lemlist team {team.get('name') or team['_id']!r}."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form for Airflow before 3.2, which does not read it from the provider info."""
        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the form for Airflow before 3.2."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import StringField

        # Numbers are text fields too, because the number fields of wtforms cannot stay empty. The help is
        # shown as it is, so a link is written out.
        return {
            name: StringField(
                lazy_gettext(field["label"]),
                widget=BS3TextFieldWidget(),
                description=f"{field['description']} {FIELDS_URL}",
            )
            for name, field in CONN_FIELDS.items()
        }

    # --- Leads ------------------------------------------------------------------------------------------

    def create_lead(
        self,
        campaign_id: str,
        lead: Mapping[str, Any],
        *,
        deduplicate: bool | None = None,
        linkedin_enrichment: bool | None = None,
        find_email: bool | None = None,
        verify_email: bool | None = None,
        find_phone: bool | None = None,
    ) -> dict[str, Any]:
        """
        Create a lead in a campaign. With the campaign's ``autoReview`` on, lemlist starts sending at once.

        If the response is lost, the lead is looked up by its email, so that it is never created twice.

        :param lead: lemlist's fields and custom variables, values as text.
        :param deduplicate: Whether lemlist refuses a lead that is in another campaign.
        :param linkedin_enrichment: Whether to enrich from LinkedIn. This costs credits, as ``find_email``,
            ``verify_email`` and ``find_phone`` do.
        :return: The lead, with ``_id``.
        :raises LemlistDuplicateError: The lead is in this campaign, or in another one with ``deduplicate``.
        :raises LemlistUncertainError: The response was lost, and a lead without an email cannot be looked up.
        """
        lead_email = lead.get("email")
        enriched = linkedin_enrichment or find_email or verify_email or find_phone
        return self._object(
            ops.CREATE_LEAD_TO_ENRICH if enriched else ops.CREATE_LEAD,
            {"campaignId": campaign_id},
            query={
                "deduplicate": deduplicate,
                "linkedinEnrichment": linkedin_enrichment,
                "findEmail": find_email,
                "verifyEmail": verify_email,
                "findPhone": find_phone,
            },
            body=dict(lead),
            reconcile=ops.Reconcile(
                (lambda: self.find_lead(campaign_id, str(lead_email))) if lead_email else None,
                f"Check whether the lead is in campaign {campaign_id!r} before you create it again.",
            ),
        )

    def get_leads_by_email(self, lead_email: str) -> list[dict[str, Any]]:
        """Return the leads of an email, one for each campaign; an empty list if lemlist has none."""
        try:
            return list(self._call(ops.GET_LEADS_BY_EMAIL, {"email": lead_email}, query={"version": "v2"}))
        except LemlistNotFoundError:
            return []

    def find_lead(self, campaign_id: str, lead_email: str) -> dict[str, Any] | None:
        """Return the lead of an email in one campaign as ``create_lead`` returns it, or None."""
        for entry in self.get_leads_by_email(lead_email):
            campaign = entry.get("campaign") or {}
            if campaign.get("id") == campaign_id:
                return {
                    **(entry.get("variables") or {}),
                    "_id": entry["_id"],
                    "campaignId": campaign_id,
                    "campaignName": campaign.get("name"),
                    "isPaused": entry.get("isPaused"),
                    "contactId": entry.get("contactId"),
                }
        return None

    def get_lead(self, lead_id: str) -> dict[str, Any]:
        return self._object(ops.GET_LEAD, query={"id": lead_id, "version": "v2"})

    def update_lead(self, campaign_id: str, lead_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a lead; those not given stay."""
        _require(fields, "fields", ops.UPDATE_LEAD)
        path = {"campaignId": campaign_id, "leadId": lead_id}
        return self._object(ops.UPDATE_LEAD, path, body=dict(fields))

    def pause_lead(self, lead_id: str, *, campaign_id: str | None = None) -> Any:
        """Pause a lead in every campaign, or in one."""
        return self._call(ops.PAUSE_LEAD, {"leadId": lead_id}, query={"campaignId": campaign_id})

    def resume_lead(self, lead_id: str) -> Any:
        return self._call(ops.RESUME_LEAD, {"leadId": lead_id})

    def launch_lead(self, lead_id: str) -> dict[str, Any]:
        """
        Launch a lead that waits for review: **lemlist then sends messages to a real person**.

        A lead that was launched before stays launched. Takes a plan with this route.

        :raises LemlistValidationError: lemlist refuses: ``reason`` is ``LEAD_PAUSED``,
            ``AI_VARIABLE_INVALID``, ``NO_SENDER`` or ``STEP_ERRORS``.
        """
        return self._object(ops.LAUNCH_LEAD, {"leadId": lead_id})

    def mark_lead_interested(self, lead: str, *, campaign_id: str | None = None) -> Any:
        """Mark a lead, by id or email, as interested in every campaign, or in one."""
        operation = ops.MARK_INTERESTED if campaign_id is None else ops.MARK_INTERESTED_IN_CAMPAIGN
        return self._call(operation, {"campaignId": campaign_id, "leadIdOrEmail": lead})

    def mark_lead_not_interested(self, lead: str, *, campaign_id: str | None = None) -> Any:
        """Mark a lead, by id or email, as not interested in every campaign, or in one."""
        operation = ops.MARK_NOT_INTERESTED if campaign_id is None else ops.MARK_NOT_INTERESTED_IN_CAMPAIGN
        return self._call(operation, {"campaignId": campaign_id, "leadIdOrEmail": lead})

    def delete_lead(self, campaign_id: str, lead_id: str) -> Any:
        """Delete a lead and its statistics from a campaign; the person may be contacted again."""
        # Without the action lemlist would unsubscribe the person instead.
        path = {"campaignId": campaign_id, "leadId": lead_id}
        return self._call(ops.DELETE_LEAD, path, query={"action": "remove"})

    def unsubscribe_lead(self, campaign_id: str, lead_email: str) -> Any:
        """
        Unsubscribe a lead by email, so that lemlist no longer writes to it.

        lemlist's documents contradict each other: from this campaign only, or from all campaigns. To be sure
        of all, use ``unsubscribe``.
        """
        if "@" not in lead_email:
            raise LemlistValidationError(
                "unsubscribe_lead() takes the email of the lead, not its id; delete_lead() takes the id.",
                operation=ops.UNSUBSCRIBE_LEAD,
            )
        return self._call(ops.UNSUBSCRIBE_LEAD, {"campaignId": campaign_id, "email": lead_email})

    def create_lead_variables(self, lead_id: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Create custom variables that the team does not have yet, with their values for one lead."""
        _require(variables, "variables", ops.CREATE_LEAD_VARIABLES)
        wanted = ops.query_text(variables)

        def find() -> dict[str, Any] | None:
            lead = self.get_lead(lead_id)
            return {"ok": True} if all(str(lead.get(name)) == wanted[name] for name in wanted) else None

        return self._object(
            ops.CREATE_LEAD_VARIABLES,
            {"leadId": lead_id},
            query=wanted,
            reconcile=ops.Reconcile(
                find, f"Check the variables of lead {lead_id!r} before you create them again."
            ),
        )

    def update_lead_variables(self, lead_id: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Change the values of custom variables that exist."""
        _require(variables, "variables", ops.UPDATE_LEAD_VARIABLES)
        return self._object(ops.UPDATE_LEAD_VARIABLES, {"leadId": lead_id}, query=variables)

    def erase_lead_variables(self, lead_id: str, names: Collection[str]) -> dict[str, Any]:
        """Erase the values of custom variables of one lead; the variables remain."""
        _require(names, "names", ops.ERASE_LEAD_VARIABLES)
        return self._object(ops.ERASE_LEAD_VARIABLES, {"leadId": lead_id}, query=dict.fromkeys(names, ""))

    def upload_audio(
        self, lead_id: str, step_id: str, audio: BinaryIO, *, file_name: str, content_type: str
    ) -> dict[str, Any]:
        """
        Upload the voice note of one lead and one voice-note step.

        If the response is lost, the file is uploaded again. lemlist does not document whether that replaces
        the first upload.

        :param audio: An open, seekable binary file; it is streamed.
        :param file_name: Name that lemlist shows.
        :param content_type: Type of the file, such as ``audio/mp4``.
        :return: ``{"ok": true, "status": {"url": …}}``.
        """
        from airflow_provider_lemlist.api.wire import MultipartFile

        upload = MultipartFile("file", audio, file_name=file_name, content_type=content_type)
        return self._object(ops.UPLOAD_AUDIO, query={"leadId": lead_id, "stepId": step_id}, upload=upload)

    def export_leads(self, campaign_id: str, *, state: str | Sequence[str] = "all") -> list[dict[str, Any]]:
        """Return all leads of a campaign with their fields, as ``iter_leads`` yields them."""
        return list(self.iter_leads(campaign_id, state=state))

    def iter_leads(
        self, campaign_id: str, *, state: str | Sequence[str] = "all", with_variables: bool = False
    ) -> Iterator[dict[str, Any]]:
        """
        Yield all leads of a campaign with their fields, from one request.

        The response is kept in a temporary file, so any number of leads takes little memory. It is complete
        and checked before the first lead is yielded.

        :param state: One state or several. Without any, lemlist returns none.
        :param with_variables: Whether to read the CSV export, which has the custom variables; its values are
            texts, empty where there is none.
        """
        operation = ops.EXPORT_LEADS_WITH_VARIABLES if with_variables else ops.EXPORT_LEADS
        query = {"state": state, "format": "csv" if with_variables else "json"}
        with TemporaryFile() as file:
            yield from self._call(operation, {"campaignId": campaign_id}, query=query, into=file)

    # --- Campaigns --------------------------------------------------------------------------------------

    def list_campaigns(
        self, *, status: str | None = None, created_by: str | None = None, newest_first: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield the campaigns of the team, the oldest first by default."""
        query = {
            "version": "v2",
            "status": status,
            "createdBy": created_by,
            "sortBy": "createdAt",
            "sortOrder": "desc" if newest_first else "asc",
        }
        return self._pages(ops.LIST_CAMPAIGNS, "offset", query=query)

    def get_campaign(self, campaign_id: str) -> dict[str, Any]:
        return self._object(ops.GET_CAMPAIGN, {"campaignId": campaign_id})

    def find_campaign(self, *names: str) -> dict[str, Any] | None:
        """
        Return the campaign with one of these names that is not archived, or None.

        :raises LemlistValidationError: Several campaigns have such a name.
        """
        from airflow_provider_lemlist.delivery.evidence import campaigns_named, only_campaign

        found = only_campaign(campaigns_named(self.list_campaigns(), *names))
        return None if found is None else dict(found)

    def create_campaign(
        self,
        name: str,
        *,
        campaign_timezone: str | None = None,
        auto_review: bool | None = None,
        auto_review_conditions: Sequence[str] | None = None,
        known: Collection[str] | None = None,
        resumable: bool = False,
    ) -> dict[str, Any]:
        """
        Create a campaign; its ``sequenceId`` takes the steps.

        If the response is lost and ``known`` is given, the new campaign is found by its name, so that it is
        never created twice.

        :param name: lemlist allows the same name twice.
        :param campaign_timezone: IANA time zone.
        :param auto_review: Whether leads are launched without a review by a person: **creating a lead then
            starts the sending**.
        :param auto_review_conditions: Email states that may be launched: ``deliverable``, ``risky``,
            ``undeliverable``, ``unverified``.
        :param known: Ids of the campaigns that had this name before; empty if there were none.
        :param resumable: Whether the caller finds the campaign in a later attempt, when it cannot be found
            now.
        :raises LemlistUncertainError: The response was lost, and it is not certain which campaign is the new
            one.
        """
        from airflow_provider_lemlist.delivery.evidence import campaigns_named, created_record

        fields = {
            "name": name,
            "timezone": campaign_timezone,
            "autoReview": auto_review,
            "autoReviewConditions": auto_review_conditions and list(auto_review_conditions),
        }

        def find() -> dict[str, Any] | None:
            found = created_record("campaign", campaigns_named(self.list_campaigns(), name), known=known)
            return self.get_campaign(found["_id"]) if found else None  # the list does not say sequenceId

        return self._object(
            ops.CREATE_CAMPAIGN,
            body=_given(fields),
            reconcile=ops.Reconcile(
                None if known is None else find,
                "Check whether the campaign exists before you create it again.",
                resumable,
            ),
        )

    def update_campaign(self, campaign_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Change settings of a campaign, in lemlist's names; those not given stay."""
        _require(settings, "settings", ops.UPDATE_CAMPAIGN)
        return self._object(ops.UPDATE_CAMPAIGN, {"campaignId": campaign_id}, body=dict(settings))

    def list_schedules(self, campaign_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the schedules of the team, or those that a campaign uses."""
        if campaign_id is None:
            return self._pages(ops.LIST_SCHEDULES, "page")
        return self._pages(ops.LIST_CAMPAIGN_SCHEDULES, "whole", path={"campaignId": campaign_id})

    def create_schedule(
        self, fields: Mapping[str, Any], *, known: Collection[str] | None = None
    ) -> dict[str, Any]:
        """
        Create a schedule of the team.

        If the response is lost and ``known`` is given, the new schedule is found by its name, so that it is
        never created twice.

        :param fields: ``name``, ``timezone``, ``start``, ``end``, ``weekdays``; also ``secondsToWait`` and
            ``public``.
        :param known: Ids of the schedules that had this name before; empty if there were none.
        """
        from airflow_provider_lemlist.delivery.evidence import created_record

        def find() -> dict[str, Any] | None:
            named = (row for row in self.list_schedules() if row.get("name") == fields.get("name"))
            found = created_record("schedule", named, known=known)
            return None if found is None else dict(found)

        return self._object(
            ops.CREATE_SCHEDULE,
            body=dict(fields),
            reconcile=ops.Reconcile(
                None if known is None else find,
                "Check whether the schedule exists before you create it again.",
            ),
        )

    def update_schedule(self, schedule_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of a schedule, for every campaign that uses it; those not given stay."""
        _require(fields, "fields", ops.UPDATE_SCHEDULE)
        return self._object(ops.UPDATE_SCHEDULE, {"scheduleId": schedule_id}, body=dict(fields))

    def attach_schedule(self, campaign_id: str, schedule_id: str) -> dict[str, Any]:
        """Attach a schedule of the team to a campaign; lemlist has no way to detach it."""
        return self._object(ops.ATTACH_SCHEDULE, {"campaignId": campaign_id, "scheduleId": schedule_id})

    def start_campaign(self, campaign_id: str) -> dict[str, Any]:
        """Start or resume a campaign; one that is running keeps running."""
        done = self._call(ops.START_CAMPAIGN, {"campaignId": campaign_id})
        return {"_id": campaign_id, "state": "running", **done}

    def pause_campaign(self, campaign_id: str) -> dict[str, Any]:
        """Pause a campaign; what is already scheduled may still be sent."""
        done = self._call(ops.PAUSE_CAMPAIGN, {"campaignId": campaign_id})
        return {"_id": campaign_id, "state": "paused", **done}

    def get_statutes(self, campaign_id: str) -> list[dict[str, Any]]:
        """
        Return what lemlist says about the readiness of a campaign, as ``level``, ``message`` and more.

        Level 3 blocks a launch, 2 is a warning, 1 is information. A message may contain HTML.
        """
        found = self._object(ops.GET_STATUTES, {"campaignId": campaign_id}).get("statutes")
        return list(found or ())

    def get_campaign_stats(
        self,
        campaign_id: str,
        start: datetime,
        end: datetime,
        *,
        send_user: str | None = None,
        variant: Literal["A", "B"] | None = None,
        channels: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """
        Return the statistics of a campaign between two moments.

        :param send_user: One sender, written ``<user id>|<email>``.
        :param variant: One variant of an A/B test.
        :param channels: Any of ``email``, ``linkedin``, ``others``.
        """
        query = _stats_of(start, end, send_user, variant, channels)
        return self._object(ops.GET_CAMPAIGN_STATS, {"campaignId": campaign_id}, query=query)

    def get_campaigns_stats(
        self,
        campaign_ids: Collection[str],
        start: datetime,
        end: datetime,
        *,
        send_user: str | None = None,
        variant: Literal["A", "B"] | None = None,
        channels: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Return the statistics of up to 100 campaigns as ``results``, and the failed ones as ``errors``."""
        _require(campaign_ids, "campaign_ids", ops.GET_CAMPAIGNS_STATS, most=100)
        stats = _stats_of(start, end, send_user, variant, channels)
        return self._object(ops.GET_CAMPAIGNS_STATS, body={"campaignIds": list(campaign_ids), **stats})

    # --- Sequences --------------------------------------------------------------------------------------

    def get_sequences(self, campaign_id: str) -> dict[str, dict[str, Any]]:
        """Return the sequences of a campaign by id: the main one (``level`` 0) and each branch, if any."""
        try:
            return self._object(ops.GET_SEQUENCES, {"campaignId": campaign_id})
        except LemlistValidationError as error:
            if error.reason is not Reason.NO_SEQUENCE:
                raise
            return {}

    def find_sequence(self, sequence_id: str, *, campaign_id: str | None = None) -> dict[str, Any]:
        """
        Return a sequence with its steps.

        :param campaign_id: The campaign it belongs to; if None, the sequences of each campaign are requested,
            the newest first, until one has the sequence.
        """
        campaigns: Iterable[dict[str, Any]]
        campaigns = [{"_id": campaign_id}] if campaign_id else self.list_campaigns(newest_first=True)
        for campaign in campaigns:
            try:
                sequences = self.get_sequences(campaign["_id"])
            except (LemlistNotFoundError, LemlistValidationError):
                if campaign_id:
                    raise
                continue  # the sequence is in a campaign that can be read
            if sequence_id in sequences:
                return sequences[sequence_id]
        raise LemlistNotFoundError(
            f"No campaign of connection {self.lemlist_conn_id!r} has a sequence {sequence_id!r}.",
            operation=ops.GET_SEQUENCES,
        )

    def add_step(
        self,
        sequence_id: str,
        step: Mapping[str, Any],
        *,
        campaign_id: str | None = None,
        known: Collection[str] | None = None,
        resumable: bool = False,
    ) -> dict[str, Any]:
        """
        Add a step, or a condition with its branches, to a sequence.

        If the response is lost, the new step is found among those of the sequence, so that it is never added
        twice. That takes the steps before: pass ``known``, or ``campaign_id`` to have them listed first.

        :param step: A dict or one of ``airflow_provider_lemlist.steps``.
        :param known: Ids of the steps that the sequence had before.
        :param resumable: Whether the caller finds the step in a later attempt, when it cannot be found now.
        :return: The step, with ``_id``; a condition holds its branches under ``conditions``.
        :raises LemlistUncertainError: The response was lost, and it is not certain which step is the new one.
        """
        from airflow_provider_lemlist import steps
        from airflow_provider_lemlist.delivery.evidence import added_step

        body = steps.check(step)

        def listed() -> list[dict[str, Any]]:
            return self.find_sequence(sequence_id, campaign_id=campaign_id).get("steps") or []

        if known is None and campaign_id is not None:
            known = [row["_id"] for row in listed() if row.get("_id")]

        return self._object(
            ops.ADD_STEP_WITH_MEDIA if body.get("images") or body.get("videos") else ops.ADD_STEP,
            {"sequenceId": sequence_id},
            body=body,
            reconcile=ops.Reconcile(
                None if known is None else lambda: added_step(body, listed(), known=known),
                f"Check sequence {sequence_id!r} before you add the step again.",
                resumable,
            ),
        )

    def update_step(self, sequence_id: str, step_id: str, step: Mapping[str, Any]) -> dict[str, Any]:
        """
        Change a step.

        :param step: ``type``, equal to the type of the step, and the fields that change.
        """
        if not step.get("type"):
            raise LemlistValidationError(
                "step needs its type, even if only other fields change.", operation=ops.UPDATE_STEP
            )
        path = {"sequenceId": sequence_id, "stepId": step_id}
        return self._object(ops.UPDATE_STEP, path, body=dict(step))

    def delete_step(self, sequence_id: str, step_id: str) -> Any:
        """Delete a step; lemlist refuses while the campaign runs."""
        return self._call(ops.DELETE_STEP, {"sequenceId": sequence_id, "stepId": step_id})

    # --- Activities -------------------------------------------------------------------------------------

    def list_activities(
        self,
        *,
        activity_type: str | None = None,
        campaign_id: str | None = None,
        lead_id: str | None = None,
        is_first: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the activities, the newest first, each once.

        :param activity_type: One type, such as ``emailsReplied``; lemlist refuses an unknown one.
        :param is_first: Only the first of its type, or only the others.
        :param since: From this moment on, inclusive.
        :param until: Up to this moment, inclusive; by default now, so that pages do not move.
        """
        query = {
            "version": "v2",
            "type": activity_type,
            "campaignId": campaign_id,
            "leadId": lead_id,
            "isFirst": is_first,
            "minDate": since,
            "maxDate": until or datetime.now(UTC),
        }
        return self._pages(ops.LIST_ACTIVITIES, "offset", query=query)

    # --- Whole datasets ---------------------------------------------------------------------------------

    def read(
        self,
        dataset: str,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        campaign_id: str | Sequence[str] | None = None,
        activity_type: str | Sequence[str] | None = None,
        columns: Collection[str] | None = None,
        personal_data: PersonalData = "keep",
        allow_missing: int = 0,
    ) -> Iterator[dict[str, Value]]:
        """
        Yield the rows of a dataset, typed and in a stable order, as the transfers write them.

        The whole rate budget is used, and memory stays flat. Rows are yielded while others are read: keep
        what you make of them only if the iteration ends without an error, because only then it is complete.

        :param dataset: ``activities``, ``leads``, ``campaigns``, ``campaign_stats``, ``sequences``,
            ``unsubscribes``, ``contacts``, ``companies`` or ``team_members``.
        :param since: First moment of the window of ``activities`` and ``campaign_stats``.
        :param until: The moment after the last; it must not be in the future.
        :param campaign_id: Only these campaigns, for datasets with a ``campaign_id``.
        :param activity_type: Only activities of these types.
        :param columns: Only these columns.
        :param personal_data: ``drop`` leaves the columns with personal data out.
        :param allow_missing: For how many campaigns lemlist may return no ``campaign_stats``.
        :raises LemlistError: The read is not complete.
        """
        from airflow_provider_lemlist.extract.options import ReadOptions
        from airflow_provider_lemlist.extract.reader import read

        options = ReadOptions.of(
            dataset,
            since=since,
            until=until,
            now=datetime.now(UTC),
            campaign_id=campaign_id,
            activity_type=activity_type,
            columns=columns,
            personal_data=personal_data,
            allow_missing=allow_missing,
        )
        names = [column.name for column in options.columns]
        return (dict(zip(names, row, strict=True)) for row in read(self, options))

    # --- Unsubscribes -----------------------------------------------------------------------------------

    def unsubscribe(self, value: str) -> dict[str, Any]:
        """Unsubscribe one email, ``@domain``, LinkedIn URL or phone number. It may be repeated."""
        return self._object(ops.UNSUBSCRIBE, {"value": value})

    def unsubscribe_many(self, values: Collection[str]) -> int:
        """Unsubscribe any number of values, 10,000 with each request; return how many were sent."""
        _require(values, "values", ops.UNSUBSCRIBE_MANY, least=0)
        wanted = list(dict.fromkeys(values))
        for start in range(0, len(wanted), UNSUBSCRIBE_AT_ONCE):
            self._call(ops.UNSUBSCRIBE_MANY, body={"values": wanted[start : start + UNSUBSCRIBE_AT_ONCE]})
        return len(wanted)

    def get_unsubscribe(self, value: str) -> dict[str, Any] | None:
        """Return the entry of an unsubscribed value, written as it is in lemlist, or None."""
        try:
            return self._object(ops.GET_UNSUBSCRIBE, {"value": value})
        except LemlistNotFoundError as error:
            # Any other 404 does not say that the person may be contacted.
            if error.reason is not Reason.NOT_UNSUBSCRIBED:
                raise
            return None

    def iter_unsubscribes(self) -> Iterator[dict[str, str]]:
        """
        Yield every unsubscribed value with its ``_id``, ``source`` and ``createdAt``, from one request.

        The response is kept in a temporary file, complete and checked before the first value is yielded.
        """
        with TemporaryFile() as file:
            yield from self._call(ops.EXPORT_UNSUBSCRIBES, into=file)

    def list_unsubscribes(self) -> Iterator[dict[str, Any]]:
        """Yield every unsubscribed value with its source, by pages; ``iter_unsubscribes`` is faster."""
        return self._pages(ops.LIST_UNSUBSCRIBES, "offset")

    def resubscribe(self, value: str) -> Any:
        """Remove a value from the list; lemlist refuses if the person unsubscribed or reported abuse."""
        return self._call(ops.RESUBSCRIBE, {"value": value})

    # --- Everything else --------------------------------------------------------------------------------

    def get_team(self) -> dict[str, Any]:
        """Return the team of the key. It holds secret webhook URLs: do not log it."""
        return self._object(ops.GET_TEAM, query={"version": "v2"})

    def request(
        self,
        method: str,
        path: str,
        *,
        path_values: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        response: Literal["any", "record", "object", "array", "rows", "text"] = "any",
    ) -> Any:
        """
        Send any documented operation, with the same care as the methods above.

        A POST counts as one that creates something, and is not sent again after a lost response, unless it is
        known to be harmless.

        :param path: The path below the Base URL, such as ``/users/{userId}``; trailing slashes count.
        :param path_values: Values of the names in the path; they are percent-encoded.
        :param query: Query parameters; flags become words, moments UTC, lists what lemlist documents (JSON or
            comma-separated); None is left out.
        :param response: What a success must look like; ``record`` is an object with an ``_id``.
        """
        operation = ops.operation_for(method, path, ops.Shape[response.upper()])
        return self._call(operation, path_values, query=query, body=body)

    def paginate(
        self,
        path: str,
        style: Literal["whole", "offset", "skip", "page", "page0", "body"],
        *,
        method: str = "GET",
        path_values: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        page_size: int = 100,
    ) -> Iterator[Any]:
        """
        Yield the rows of any list that comes in pages, each once.

        :param style: How the route takes its cursor: ``offset``, ``skip``, ``page`` from 1, ``page0`` from
            0, ``body`` for page and size in the body, ``whole`` for no cursor.
        :param page_size: Rows per request; each route has its own maximum, usually 100.
        """
        operation = ops.operation_for(method, path, ops.Shape.ROWS)
        return self._pages(operation, style, path=path_values, query=query, body=body, page_size=page_size)

    # --- Within -----------------------------------------------------------------------------------------

    def _call(self, operation: ops.Operation, path: Mapping[str, Any] | None = None, **parts: Any) -> Any:
        return self.get_conn().call(operation, path=path, **parts)

    def _object(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return cast("dict[str, Any]", self._call(*args, **kwargs))

    def _pages(
        self, operation: ops.Operation, style: str, *, page_size: int = 100, **parts: Any
    ) -> Iterator[Any]:
        from airflow_provider_lemlist.api.paging import paginate

        part = "body" if style == "body" else "query"

        def fetch(cursor: dict[str, Any]) -> Any:
            return self._call(operation, **{**parts, part: {**(parts.get(part) or {}), **cursor}})

        return paginate(fetch, style, page_size=page_size)

    def _open_transport(self, retry_policy: RetryPolicy | None = None) -> Transport:
        from airflow_provider_lemlist.api.switch import WriteSwitch
        from airflow_provider_lemlist.api.transport import Transport
        from airflow_provider_lemlist.audit import open_audit

        return Transport(
            self.settings,
            self.budget,
            user_agent=f"airflow-provider-lemlist/{__version__} (apache-airflow/{airflow_version()})",
            retry_policy=retry_policy,
            switch=WriteSwitch(self.settings.stop_writes, self._read_stop_writes),
            audit=open_audit(conf.get("lemlist", "audit_path", fallback=""), self.settings),
        )

    def _read_settings(self, *, named: bool = True) -> Settings:
        try:
            return read_settings(self.get_connection(self.lemlist_conn_id), named=named)
        except AirflowNotFoundException:
            raise self._no_connection() from None

    def _read_stop_writes(self) -> bool:
        return read_stop_writes(look_up_connection(self, self.lemlist_conn_id))

    def _no_connection(self) -> LemlistConfigurationError:
        conn_id = self.lemlist_conn_id
        return LemlistConfigurationError(
            f"Connection {conn_id!r} does not exist; create it with type {CONN_TYPE!r} and the API key as "
            f"password, or set the environment variable AIRFLOW_CONN_{conn_id.upper()}."
        )

    def _budget_store(self, settings: Settings) -> str:
        from airflow.providers.common.compat.sdk import mask_secret

        store = settings.budget_store
        if store and "://" not in store:
            store = self._redis_url(store, settings)
        # Airflow masks the password of a connection, but not one within an extra or a URL.
        for secret in secrets_in(store):
            mask_secret(secret)
        return store

    def _redis_url(self, store: str, settings: Settings) -> str:
        try:
            return redis_url(self.get_connection(store), settings.of_connection)
        except AirflowNotFoundException:
            raise LemlistConfigurationError(
                f"Extra field 'budget_store'{settings.of_connection} names the connection {store!r}, which "
                "does not exist; create it, or write redis://host:6379/0."
            ) from None


@cache  # one line per process is enough
def _warn_not_shared() -> None:
    from airflow_provider_lemlist.api.budget import NOT_SHARED

    log.warning(NOT_SHARED)


def _stats_of(
    start: datetime, end: datetime, send_user: str | None, variant: str | None, channels: Sequence[str] | None
) -> dict[str, Any]:
    _require(channels or (), "channels", ops.GET_CAMPAIGN_STATS, least=0)
    fields = {"sendUser": send_user, "ABSelected": variant, "channels": channels and list(channels)}
    return {"startDate": ops.iso(start), "endDate": ops.iso(end), **_given(fields)}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _require(
    given: Collection[Any], name: str, operation: ops.Operation, *, least: int = 1, most: float = math.inf
) -> None:
    size = len(given or ())
    # A text is a collection too, of letters.
    if isinstance(given, str) or not least <= size <= most:
        problem = "is one text" if isinstance(given, str) else f"holds {size} values"
        wanted = f"{least} to {most}" if most < math.inf else f"at least {least}"
        message = f"{name} {problem}; {operation} takes a collection of {wanted}."
        raise LemlistValidationError(message, operation=operation)
