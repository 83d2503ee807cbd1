# SPDX-License-Identifier: Apache-2.0
"""Operators for campaigns: apply a definition; create, start and pause one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from os import PathLike
from os.path import dirname, isabs
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_id,
    checked_flag,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.campaigns.checks import Document, checked
from airflow_provider_lemlist.campaigns.definition import (
    BRANCHES,
    SETTINGS,
    TEXTS,
    UNKNOWN,
    parameters_in,
    read_value,
)
from airflow_provider_lemlist.campaigns.files import is_remote, read_document, with_texts
from airflow_provider_lemlist.delivery.policy import IfCampaignExists, IfRunning, OnExtra
from airflow_provider_lemlist.exceptions import LemlistNotFoundError, LemlistValidationError
from airflow_provider_lemlist.leads import wrong_time_zone
from airflow_provider_lemlist.links import CampaignLink, FoundCampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.templating import AirflowText, KeepsPlaceholders, is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_lemlist.campaigns.apply import Application
    from airflow_provider_lemlist.operators.history import TaskHistory

#: The states of an email address with which leads may be launched.
REVIEW_CONDITIONS = SETTINGS["autoReviewConditions"].choices


class ApplyCampaignOperator(KeepsPlaceholders, LemlistOperator):
    """
    Change a campaign until it equals its definition; create it if it does not exist.

    Only what differs is sent, with as few changes as possible; the task log shows the plan before the first
    one. An Airflow retry continues where a killed attempt ended.

    The definition is checked when the DAG is parsed, except what is known only when the task runs. lemlist
    renders the texts of the steps, so that ``{{firstName}}`` stays as it is; Airflow renders the other
    fields. In a YAML file Airflow renders nothing; use ``parameters``.

    Returns the id of the campaign, which is also pushed under ``campaign_id``; None from a dry run if the
    campaign does not exist. The id of each named step is pushed under its name, and all of them under
    ``steps``; ``sequences`` contains the sequences of each named condition, ``yes`` and ``otherwise``;
    ``plan`` the lines of the plan. ``applied`` is for the next run: digests of what lemlist does not list.

    :param campaign: A ``Campaign``, a dict with lemlist's names, or the path of a YAML file: relative to the
        folder of the DAG file, absolute, or in an object storage (``s3://…``), which is read only when the
        task runs. (templated, except the texts that lemlist renders)
    :param parameters: Values for ``[[ name ]]`` in the definition. (templated)
    :param campaign_id: Id of the campaign; without it the campaign is found by its name. (templated)
    :param on_extra: What to do about steps that lemlist has and the definition lacks, or has at another
        place: ``fail`` before anything is changed, ``keep`` them, or ``delete`` them.
    :param if_running: What to do if something differs while the campaign is running: ``fail``, ``edit`` it,
        or ``pause`` it, apply the definition and start it again.
    :param refresh_unseen: Send the fields again that lemlist does not list, if it is not known whether they
        differ.
    :param dry_run: Show the plan, and change nothing.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("campaign", "parameters", "campaign_id", "lemlist_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"campaign": "json", "parameters": "json"}
    operator_extra_links = (FoundCampaignLink(),)
    placeholders_in = ("campaign",)

    def __init__(
        self,
        *,
        campaign: Mapping[str, Any] | str | PathLike[str] | XComArg,
        parameters: Mapping[str, Any] | XComArg | None = NOT_GIVEN,
        campaign_id: str | XComArg | None = NOT_GIVEN,
        on_extra: OnExtra = "fail",
        if_running: IfRunning = "fail",
        refresh_unseen: bool = False,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign: Any = str(campaign) if isinstance(campaign, PathLike) else campaign
        self.parameters = or_none(parameters)
        self.campaign_id = or_none(campaign_id)
        self.on_extra = on_extra
        self.if_running = if_running
        self.refresh_unseen = refresh_unseen
        self.sends_nothing = dry_run  # BaseOperator has a method named dry_run
        optional = {"campaign_id": campaign_id, "parameters": parameters}
        self._given = given_names(optional, mapped=is_from_mapped(self))
        self._application: Application | None = None
        self.check_arguments({**vars(self), "dag": self.get_dag()})

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Return whether Airflow renders a field; lemlist renders the texts."""
        return name not in TEXTS

    @staticmethod
    def read_rendered(name: str, value: Any) -> Any:
        """Read a rendered text as the number or the flag that belongs there."""
        return read_value(name, value)

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_choice("on_extra", arguments, OnExtra)
        check_choice("if_running", arguments, IfRunning)
        check_id("campaign_id", arguments, optional=True)
        given, parameters = arguments["campaign"], or_none(arguments["parameters"])
        folder = _folder_of(arguments["dag"])
        if isinstance(given, (str, PathLike)):
            path = str(given)
            if is_open(path) or is_remote(path) or not (folder or isabs(path)):
                return
            document = _document(path, folder)
        elif is_open(given) and not isinstance(given, Mapping):
            return
        else:
            document = _document(_known("", given), folder)
        if is_open(parameters) and not isinstance(parameters, Mapping):
            parameters = dict.fromkeys(parameters_in(document.definition), UNKNOWN)
        known = {name: UNKNOWN if is_open(value) else value for name, value in (parameters or {}).items()}
        checked(document, known, the("campaign", arguments))

    def execute(self, context: Context) -> str | None:
        """Apply the definition, or only show the plan."""
        from airflow_provider_lemlist.campaigns.apply import Application, ApplyOptions
        from airflow_provider_lemlist.campaigns.describe import plan_lines
        from airflow_provider_lemlist.campaigns.memory import APPLIED, TaskMemory

        self.campaign_id = self._id_or_none("campaign_id")
        memory = TaskMemory(context)
        options = ApplyOptions(self.campaign_id, self.on_extra, self.if_running, self.refresh_unseen)
        self._application = Application(self.hook, self._definition(), options, memory)
        if self.sends_nothing:
            outcome = self._application.plan()
        else:
            try:
                # A cleared task may follow one that was killed, too.
                outcome = self._application.apply(after_kill=context["ti"].try_number > 1)
            except Exception:
                self._push(context, **{APPLIED: memory.applied._asdict()})  # the next run continues
                raise
            self._push(context, **{APPLIED: memory.applied._asdict()})
        self.campaign_id = outcome.campaign_id
        self._push(context, **outcome.steps)
        self._push(
            context,
            campaign_id=outcome.campaign_id,
            steps=outcome.steps,
            sequences=outcome.sequences,
            plan=plan_lines(outcome.plan),
        )
        self._update_outlets(context, campaign_id=outcome.campaign_id, changes=len(outcome.plan.changes))
        return outcome.campaign_id

    def on_kill(self) -> None:
        self._in_flight = self._application.in_flight if self._application else ""
        super().on_kill()

    def _changed_campaign(self) -> str | None:
        return None if self.sends_nothing else super()._changed_campaign()

    def _definition(self) -> dict[str, Any]:
        """Return the definition with the values of its parameters."""
        folder, what = _folder_of(self.get_dag()), self._the("campaign")
        refuse_empty(self.campaign, what, ", but must be a definition")
        document = _document(self.campaign, folder)
        if "parameters" in self._given:
            refuse_empty(self.parameters, self._the("parameters"))
        parameters = self.parameters or {}
        if not isinstance(parameters, Mapping):
            raise self._refuse("parameters", f"must be a mapping, not {type(parameters).__name__}")
        for name, value in parameters.items():
            refuse_empty(value, f"The parameter {name!r} of task {self.task_id!r}")
        return checked(document, parameters, what)


class CreateCampaignOperator(LemlistOperator):
    """
    Create a campaign, unless lemlist has one of this name that is not archived.

    The arguments are checked before anything is sent; literal values when the DAG is parsed. An Airflow retry
    never creates the campaign again.

    Returns the id of the campaign. lemlist's whole response is pushed under the key ``campaign``, the id
    under ``campaign_id``, and the main sequence under ``sequence_id``.

    :param name: Name of the campaign, such as ``Signups {{ run_id }}`` for one in each run. (templated)
    :param campaign_timezone: IANA time zone of the campaign. (templated)
    :param auto_review: Launch leads without a review by a person: **creating a lead then starts the
        sending**. (templated)
    :param auto_review_conditions: States of the email address with which leads may be launched:
        ``deliverable``, ``risky``, ``undeliverable``, ``unverified``. (templated)
    :param if_exists: What to do when a campaign has this name: ``return`` it, ``fail``, or ``create`` another
        one. The campaign that an earlier attempt of the task created is returned in any case.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = (
        "name",
        "campaign_timezone",
        "auto_review",
        "auto_review_conditions",
        "lemlist_conn_id",
    )
    operator_extra_links = (CampaignLink(),)

    def __init__(
        self,
        *,
        name: str | XComArg,
        campaign_timezone: str | XComArg | None = NOT_GIVEN,
        auto_review: bool | str | XComArg | None = NOT_GIVEN,
        auto_review_conditions: Collection[str] | XComArg | None = NOT_GIVEN,
        if_exists: IfCampaignExists = "return",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.campaign_timezone = or_none(campaign_timezone)
        self.auto_review = or_none(auto_review)
        self.auto_review_conditions = or_none(auto_review_conditions)
        self.if_exists = if_exists
        #: Known when it was created or found; for the link.
        self.campaign_id: str | None = None
        settings = {
            "campaign_timezone": campaign_timezone,
            "auto_review": auto_review,
            "auto_review_conditions": auto_review_conditions,
        }
        self._given = given_names(settings, mapped=is_from_mapped(self))
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_choice("if_exists", arguments, IfCampaignExists)
        if not is_open(arguments["name"]):
            _checked_name(arguments["name"], the("name", arguments))
        for name, check in _SETTINGS.items():
            if not (is_open(arguments[name]) or or_none(arguments[name]) is None):
                check(arguments[name], the(name, arguments))

    def execute(self, context: Context) -> str:
        """Create the campaign, or find the one that exists."""
        from airflow_provider_lemlist.delivery.evidence import campaigns_named
        from airflow_provider_lemlist.delivery.outcome import choose_campaign
        from airflow_provider_lemlist.operators.history import TaskHistory

        name = _checked_name(self.name, self._the("name"))
        settings = {each: _SETTINGS[each](getattr(self, each), self._the(each)) for each in self._given}
        history = TaskHistory(context)
        begun = history.read()
        if begun and begun["name"] != name:
            begun = None  # the task was cleared for another campaign
        created = begun.get("done") if begun else None
        in_doubt = begun is not None and created is None
        attempting = history.attempting(
            "the campaign",
            in_doubt=in_doubt,
            created=created is not None,
            may_look_up=True,
            check=f"Check whether lemlist has a campaign {name!r}, or clear the task: it looks for the "
            "campaign before it creates one.",
        )
        with attempting:
            named: list[Mapping[str, Any]] = []
            found = self._still_there(created)
            if found is None:
                named = campaigns_named(self.hook.list_campaigns(), name)
                found = choose_campaign(
                    named,
                    "return" if history.is_lost else self.if_exists,
                    in_doubt=in_doubt,
                    known=begun.get("known") if begun else None,
                )
            campaign = found or self._create(name, settings, named, history)
        self._in_flight = ""
        campaign_id = self.campaign_id = str(campaign["_id"])
        history.finish(campaign_id, name=name)
        self.log.info("Campaign %s: %s.", campaign_id, "exists already" if found else "created")
        if not campaign.get("sequenceId"):
            campaign = self.hook.get_campaign(campaign_id)  # the list does not say it
        if found:
            self._warn_of_differences(campaign, settings)
        sequence = {"sequence_id": campaign["sequenceId"]} if campaign.get("sequenceId") else {}
        self._push(context, campaign=dict(campaign), campaign_id=campaign_id, **sequence)
        self._update_outlets(context, campaign_id=campaign_id, **sequence)
        return campaign_id

    def _still_there(self, created: str | None) -> Mapping[str, Any] | None:
        """Return the campaign that this task has created, unless it was deleted or archived since."""
        from airflow_provider_lemlist.delivery.evidence import is_archived

        if created is None:
            return None
        try:
            campaign = self.hook.get_campaign(created)
        except LemlistNotFoundError:
            return None
        return None if is_archived(campaign) else campaign

    def _create(
        self,
        name: str,
        settings: Mapping[str, Any],
        named: Collection[Mapping[str, Any]],
        history: TaskHistory,
    ) -> Mapping[str, Any]:
        known = [row["_id"] for row in named]
        history.begin(name=name, known=known)
        self._in_flight = "create a campaign"
        return self.hook.create_campaign(name, **settings, known=known, resumable=True)

    def _warn_of_differences(self, campaign: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        fields = {
            "campaign_timezone": "timezone",
            "auto_review": "autoReview",
            "auto_review_conditions": "autoReviewConditions",
        }
        differing = [
            name for name in settings if campaign.get(fields[name], settings[name]) != settings[name]
        ]
        if differing:
            self.log.warning(
                "Campaign %s: lemlist has other values than the task in %s, and keeps them.",
                campaign["_id"],
                ", ".join(differing),
            )


class _SwitchOperator(LemlistOperator):
    """The base of the operators that start and pause a campaign."""

    template_fields: Sequence[str] = ("campaign_id", "lemlist_conn_id")
    operator_extra_links = (CampaignLink(),)

    def __init__(self, *, campaign_id: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_id = campaign_id
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_id("campaign_id", arguments)

    def execute(self, context: Context) -> str:
        """Switch the campaign; return its id."""
        campaign_id = self.campaign_id = self._id("campaign_id")
        before = self.hook.get_campaign(campaign_id).get("status")  # what changes the state does not say it
        state = self._switch(campaign_id)["state"]
        self._in_flight = ""
        self.log.info("Campaign %s: %s%s.", campaign_id, "already " if before == state else "", state)
        self._push(context, campaign_id=campaign_id)
        self._update_outlets(context, campaign_id=campaign_id)
        return campaign_id

    def _switch(self, campaign_id: str) -> dict[str, Any]:
        raise NotImplementedError


class StartCampaignOperator(_SwitchOperator):
    """
    Start a campaign, or resume a paused one.

    **lemlist then sends messages to real people**: to the leads that were reviewed and, with the campaign's
    ``autoReview`` on, to every lead that is created. A campaign that is running keeps running.

    Returns the id of the campaign, which is also pushed under ``campaign_id``.

    :param campaign_id: Id of the campaign. (templated)
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    def _switch(self, campaign_id: str) -> dict[str, Any]:
        self._in_flight = f"start campaign {campaign_id}"
        return self.hook.start_campaign(campaign_id)


class PauseCampaignOperator(_SwitchOperator):
    """
    Pause a campaign. What lemlist has already scheduled may still be sent.

    A campaign that does not run stays as it is.

    Returns the id of the campaign, which is also pushed under ``campaign_id``.

    :param campaign_id: Id of the campaign. (templated)
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    def _switch(self, campaign_id: str) -> dict[str, Any]:
        self._in_flight = f"pause campaign {campaign_id}"
        return self.hook.pause_campaign(campaign_id)


# --- Definitions ------------------------------------------------------------------------------------------


def _folder_of(dag: Any) -> str:
    """Return the folder of the DAG file; empty if the task has no DAG yet."""
    return dirname(dag.fileloc) if dag is not None and dag.fileloc else ""


def _document(campaign: Any, folder: str) -> Document:
    """Return a definition, or the one in a file, with the texts of its files."""
    if isinstance(campaign, str):
        return read_document(campaign, folder)
    return with_texts(Document(campaign), folder)


def _known(name: str, value: Any) -> Any:
    """Return a part of a definition, with UNKNOWN for what is known only when the task runs."""
    if isinstance(value, Mapping) and not isinstance(value, AirflowText):
        return {key: _known(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and name in ("steps", *BRANCHES):
        return [_known(name, item) for item in value]
    return UNKNOWN if is_open(value, rendered=name not in TEXTS) else value


# --- The arguments of a campaign --------------------------------------------------------------------------


def _checked_name(value: Any, what: str) -> str:
    refuse_empty(value, what, ", but must be the name of the campaign")
    if not isinstance(value, str):
        raise LemlistValidationError(f"{what} must be text, not {type(value).__name__}. Nothing was sent.")
    return value.strip()


def _checked_time_zone(value: Any, what: str) -> str:
    refuse_empty(value, what, ", but must be an IANA time zone")
    zone = str(value).strip()
    if reason := wrong_time_zone(zone):
        raise LemlistValidationError(f"{what} {reason}, not {value!r}. Nothing was sent.")
    return zone


def _checked_auto_review(value: Any, what: str) -> bool | None:
    refuse_empty(value, what, ", but must be true or false")
    return checked_flag(value, what)


def _checked_conditions(value: Any, what: str) -> list[str]:
    refuse_empty(value, what, f", but must be a list of {', '.join(REVIEW_CONDITIONS)}")
    given = [*value] if isinstance(value, Collection) and not isinstance(value, str) else []
    if not given or not all(each in REVIEW_CONDITIONS for each in given):
        raise LemlistValidationError(
            f"{what} must be a list of {', '.join(REVIEW_CONDITIONS)}, not {value!r}. Nothing was sent."
        )
    return given


#: The optional arguments, and what checks each of them, when the DAG is parsed and when the task runs.
_SETTINGS: Mapping[str, Callable[[Any, str], Any]] = {
    "campaign_timezone": _checked_time_zone,
    "auto_review": _checked_auto_review,
    "auto_review_conditions": _checked_conditions,
}
