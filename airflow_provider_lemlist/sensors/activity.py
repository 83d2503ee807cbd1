# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for what prospects do: opens, clicks, replies, accepted invites, booked meetings."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import PokeReturnValue, conf

from airflow_provider_lemlist import activities
from airflow_provider_lemlist.activities import Activity, Bots, WaitCondition
from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    checked_id,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.run_window import parse_moment, run_window
from airflow_provider_lemlist.sensors.base import LemlistSensor
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context


class ActivitySensor(LemlistSensor):
    """
    Wait until lemlist lists enough activities of the given types since a moment.

    Returns the activities that counted, oldest first and at most 500 (or ``min_count``, if that is more),
    each with its ids, times and flags, without names, addresses and texts.

    With ``deferrable=True`` it waits in the triggerer, where all waiting sensors of one connection and
    campaign share their requests: a thousand of them cost the requests of one. Otherwise every sensor sends
    its own, one for each type and ``poke_interval``.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/activity-sensor/>

    :param activity_type: Type of activity, such as ``emailsReplied``, or several; an activity of any of them
        counts. (templated)
    :param campaign_id: ID of the campaign; None for all campaigns of the team. (templated)
    :param lead_id: ID of the lead; None for all leads. (templated)
    :param since: The first moment that counts, as a datetime or ISO 8601 text; UTC without a time zone.
        Default: the start of the run's data interval if it has a width, else the ``run_after`` of the run
        before, else this run's own. (templated)
    :param min_count: Number of activities to wait for.
    :param is_first: True to count only the first activity of its type, False only the later ones.
    :param bots: ``count`` to count opens and clicks that lemlist attributes to a bot, too.
    :param deferrable: Whether to wait in the triggerer.
    :param lemlist_conn_id: lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("activity_type", "campaign_id", "lead_id", "since", "lemlist_conn_id")
    template_fields_renderers = {"activity_type": "json"}
    operator_extra_links = (CampaignLink(),)

    def __init__(
        self,
        *,
        activity_type: str | list[str],
        campaign_id: str | None = NOT_GIVEN,
        lead_id: str | None = NOT_GIVEN,
        since: datetime | str | None = NOT_GIVEN,
        min_count: int = 1,
        is_first: bool | None = None,
        bots: Bots = "ignore",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.activity_type = activity_type
        self.campaign_id = or_none(campaign_id)
        self.lead_id = or_none(lead_id)
        self.since = or_none(since)
        self.min_count = min_count
        self.is_first = is_first
        self.bots = bots
        self.deferrable = deferrable
        mapped = is_from_mapped(self)
        self._given = given_names(
            {"campaign_id": campaign_id, "lead_id": lead_id, "since": since}, mapped=mapped
        )
        self._condition: WaitCondition | None = None
        # Those of a map index are known at run time only, and checked then.
        self.check_arguments({**vars(self), **(dict.fromkeys(self._given) if mapped else {})})

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        min_count, is_first = arguments["min_count"], arguments["is_first"]
        if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
            raise LemlistConfigurationError(f"min_count must be a whole number from 1, not {min_count!r}.")
        if is_first not in (None, True, False):
            raise LemlistConfigurationError(f"is_first must be True, False or None, not {is_first!r}.")
        check_choice("bots", arguments, Bots)
        if not is_open(arguments["activity_type"]):
            activities.checked_types(arguments["activity_type"])
        for name in ("campaign_id", "lead_id", "since"):
            value = arguments[name]
            if or_none(value) is not None and not is_open(value):
                _checked(name, arguments)

    def execute(self, context: Context) -> Any:
        # Before Airflow's loop, because soft_fail must not hide a wrong argument; and once, because the
        # default of since costs a request to Airflow.
        self._condition = condition = self._read_arguments(context)
        for warning in filter(None, map(activities.unknown_type_warning, condition.types)):
            self.log.warning(warning)
        self.log.info(
            "Waiting for %d of %s since %s",
            condition.min_count,
            " or ".join(condition.types),
            condition.since,
        )
        if not self.deferrable:
            with self._pushing_skips(context):
                return super().execute(context)

        from airflow_provider_lemlist.triggers.activity import ActivityTrigger

        # No request before deferring: a thousand sensors that start together would each send one.
        self._wait_in_triggerer(
            ActivityTrigger,
            activity_type=list(condition.types),
            since=condition.since.isoformat(),
            campaign_id=self.campaign_id,
            lead_id=self.lead_id,
            min_count=self.min_count,
            is_first=self.is_first,
            bots=self.bots,
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        condition = self._condition or self._read_arguments(context)
        bounds = activities.listing_bounds(condition.since, datetime.now(UTC))
        # One request for each type, as a rule: while the sensor waits, fewer than min_count are listed. One
        # listing of all types would hold every mail sent and opened, and hide a type unknown to lemlist.
        rows = chain.from_iterable(
            self.hook.list_activities(
                activity_type=activity_type,
                campaign_id=self.campaign_id,
                lead_id=self.lead_id,
                is_first=self.is_first,
                **bounds,
            )
            for activity_type in condition.types
        )
        found = condition.find(map(Activity.of, rows))
        return False if found is None else PokeReturnValue(is_done=True, xcom_value=self._done(found))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """
        Return the activities in the trigger's event, or raise the error in it.

        :raises LemlistError: The class that the hook raised in the triggerer.
        """
        return self._done(self._found(event, "activities"))

    def _read_arguments(self, context: Context) -> WaitCondition:
        """Check the rendered arguments, and strip the ids."""
        for name in self._given:
            setattr(self, name, _checked(name, vars(self)))
        since = self.since if "since" in self._given else run_window(context).since
        return WaitCondition.of(self, since)

    def _done(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.log.info("Found %d: %s", len(found), ", ".join(row["_id"] for row in found[:10]))
        if len(found) >= max(self.min_count, activities.RESULT_LIMIT):
            self.log.warning(
                "There may be more than these %d; LemlistHook.list_activities reads them all.", len(found)
            )
        return found


def _checked(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return the value of an argument that was given: a stripped id, or a moment."""
    value, what = arguments[name], the(name, arguments)
    if name != "since":
        return checked_id(value, what, error=LemlistConfigurationError)
    refuse_empty(value, what, error=LemlistConfigurationError)
    return parse_moment(value)
