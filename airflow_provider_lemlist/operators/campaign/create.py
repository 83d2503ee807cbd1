# SPDX-License-Identifier: Apache-2.0
"""The operator that creates a campaign."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    checked_flag,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.campaigns.definition import SETTINGS
from airflow_provider_lemlist.delivery.policy import IfCampaignExists
from airflow_provider_lemlist.exceptions import LemlistNotFoundError, LemlistValidationError
from airflow_provider_lemlist.leads import wrong_time_zone
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_lemlist.operators.history import TaskHistory

#: The states of an email address with which leads may be launched.
REVIEW_CONDITIONS = SETTINGS["autoReviewConditions"].choices


class CreateCampaignOperator(LemlistOperator):
    """
    Create a campaign, unless lemlist has one of this name that is not archived.

    The arguments are checked before anything is sent; literal values when the DAG is parsed. An Airflow retry
    never creates the campaign again.

    Returns the id of the campaign. lemlist's whole response is pushed under the key ``campaign``, the id
    under ``campaign_id``, the main sequence under ``sequence_id``, and under ``report`` whether the campaign
    existed, and which arguments it has other values of.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/create-campaign/>

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
        from airflow_provider_lemlist.delivery.evidence import SENDS_AT_ONCE, campaigns_named
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
        if settings.get("auto_review") and not found:
            self.log.warning("Campaign %s: %s", campaign_id, SENDS_AT_ONCE)
        if not campaign.get("sequenceId"):
            campaign = self.hook.get_campaign(campaign_id)  # the list does not say it
        differing, message = self._differing(campaign, settings) if found else [], ""
        if differing:
            message = f"lemlist has other values than the task in {', '.join(differing)}, and keeps them."
            self.log.warning("Campaign %s: %s", campaign_id, message)
        self._push_report(context, "exists" if found else "created", message, differing)
        sequence = {"sequence_id": campaign["sequenceId"]} if campaign.get("sequenceId") else {}
        self._push(context, campaign=self._shown_response(campaign), campaign_id=campaign_id, **sequence)
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

    def _differing(self, campaign: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Return the arguments of which the campaign has another value."""
        fields = {
            "campaign_timezone": "timezone",
            "auto_review": "autoReview",
            "auto_review_conditions": "autoReviewConditions",
        }
        return [name for name in settings if campaign.get(fields[name], settings[name]) != settings[name]]


# --- The arguments ----------------------------------------------------------------------------------------


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
