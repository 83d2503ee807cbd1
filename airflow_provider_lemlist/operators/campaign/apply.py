# SPDX-License-Identifier: Apache-2.0
"""The operator that applies the definition of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from os.path import dirname, isabs
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_id,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.campaigns.checks import Document, checked
from airflow_provider_lemlist.campaigns.definition import (
    BRANCHES,
    TEXTS,
    UNKNOWN,
    parameters_in,
    read_value,
)
from airflow_provider_lemlist.campaigns.files import is_remote, read_document, with_texts
from airflow_provider_lemlist.delivery.policy import IfRunning, OnExtra
from airflow_provider_lemlist.links import FoundCampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.privacy import Hiding, masked, without_addresses
from airflow_provider_lemlist.templating import AirflowText, KeepsPlaceholders, is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_lemlist.campaigns.apply import Application


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

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/apply-campaign/>

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
    personal_in: ClassVar[Hiding] = {
        "campaign": without_addresses,
        "parameters": masked,
    }

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
        campaign = self._real("campaign")
        refuse_empty(campaign, what, ", but must be a definition")
        document = _document(campaign, folder)
        if "parameters" in self._given:
            refuse_empty(self._real("parameters"), self._the("parameters"))
        parameters = self._real("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise self._refuse("parameters", f"must be a mapping, not {type(parameters).__name__}")
        for name, value in parameters.items():
            refuse_empty(value, f"The parameter {name!r} of task {self.task_id!r}")
        return checked(document, parameters, what)


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
