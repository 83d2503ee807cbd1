# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for what prospects do: opens, clicks, replies, accepted invites, booked meetings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_lemlist import activities, exceptions
from airflow_provider_lemlist.activities import Activity, Wait
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

EVENT_STATUSES = frozenset({"success", "error"})


class ActivitySensor(BaseSensorOperator):
    """
    Wait until lemlist lists enough activities of the given types since a moment.

    Returns the activities that counted, oldest first and at most 500 (or ``min_count``, if that is more),
    each with its ids, times and flags, without names, addresses and texts.

    With ``deferrable=True`` it waits in the triggerer, where all waiting sensors of one connection and
    campaign ask lemlist together: a thousand of them cost the requests of one. Otherwise every sensor asks
    for itself, once per type and ``poke_interval``.

    A type unknown to this package is warned about with the nearest known one, and asked for all the same.

    .. seealso::
        For more information on how to use this sensor, take a look at the guide:
        :ref:`howto/operator:ActivitySensor`

    :param activity_type: Type of activity, such as ``emailsReplied``, or several, of which any counts.
        (templated)
    :param campaign_id: ID of the campaign to look at; None for all campaigns of the team. (templated)
    :param lead_id: ID of the lead to look at; None for all leads. (templated)
    :param since: The first moment that counts, as a datetime or ISO 8601 text; UTC where it names no zone.
        Default: the start of the run's data interval, or of the run itself where it has none. (templated)
    :param min_count: How many activities it takes.
    :param is_first: True to count only the first activity of its type, False only the later ones.
    :param deferrable: Whether to wait in the triggerer.
    :param lemlist_conn_id: :ref:`lemlist connection <howto/connection:lemlist>` to use. (templated)
    :return: The activities. Pushed to XCom.
    """

    template_fields: Sequence[str] = ("activity_type", "campaign_id", "lead_id", "since", "lemlist_conn_id")
    template_fields_renderers = {"activity_type": "json"}
    operator_extra_links = (CampaignLink(),)
    ui_color = "#e8eafd"

    def __init__(
        self,
        *,
        activity_type: str | list[str],
        campaign_id: str | None = None,
        lead_id: str | None = None,
        since: datetime | str | None = None,
        min_count: int = 1,
        is_first: bool | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        lemlist_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
            raise LemlistConfigurationError(f"min_count must be a whole number from 1, not {min_count!r}.")
        if is_first not in (None, True, False):
            raise LemlistConfigurationError(f"is_first must be True, False or None, not {is_first!r}.")
        self.activity_type = activity_type
        self.campaign_id = campaign_id
        self.lead_id = lead_id
        self.since = since
        self.min_count = min_count
        self.is_first = is_first
        self.deferrable = deferrable
        self.lemlist_conn_id = lemlist_conn_id
        self._given = [
            name for name in ("campaign_id", "lead_id", "since") if getattr(self, name) is not None
        ]
        if not is_open(activity_type):
            activities.as_types(activity_type)
        if since is not None and not is_open(since):
            activities.as_moment(since)

    @cached_property
    def hook(self) -> LemlistHook:
        """The hook of the sensor's connection."""
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        return LemlistHook(self.lemlist_conn_id)

    def execute(self, context: Context) -> Any:
        # Before Airflow's loop: a wrong argument is not a wait that failed, soft_fail must not hide it.
        wait = self._wait(context)
        for advice in filter(None, map(activities.advice, wait.types)):
            self.log.warning(advice)
        self.log.info("Waiting for %d of %s since %s", wait.min_count, " or ".join(wait.types), wait.since)
        if not self.deferrable:
            return super().execute(context)

        from airflow_provider_lemlist.triggers.activity import ActivityTrigger

        # No look before deferring: a thousand sensors that start together would each ask for themselves.
        self.defer(
            trigger=ActivityTrigger(
                activity_type=list(wait.types),
                since=wait.since.isoformat(),
                campaign_id=self.campaign_id,
                lead_id=self.lead_id,
                min_count=self.min_count,
                is_first=self.is_first,
                poke_interval=self.poke_interval,
                **({"max_consecutive_failures": None} if self.silent_fail else {}),
                lemlist_conn_id=self.lemlist_conn_id,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        wait = self._wait(context)
        window = activities.window(wait.since, datetime.now(UTC))
        # One request for each type, as a rule: while the sensor waits, fewer than min_count are there. One
        # listing of all types would hold every mail sent and opened, and hide a type unknown to lemlist.
        rows = chain.from_iterable(
            self.hook.list_activities(
                activity_type=activity_type,
                campaign_id=self.campaign_id,
                lead_id=self.lead_id,
                is_first=self.is_first,
                **window,
            )
            for activity_type in wait.types
        )
        found = wait.find(map(Activity.of, rows))
        return False if found is None else PokeReturnValue(is_done=True, xcom_value=self._done(found))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """
        Return what the trigger found, or raise what it met.

        :raises LemlistError: The class that the hook raised in the triggerer.
        """
        if event is None or event.get("status") not in EVENT_STATUSES:
            raise LemlistError(f"The trigger came back with {event!r} instead of a result.")
        if event["status"] == "success":
            return self._done(event["activities"])
        error_class = getattr(exceptions, event["error"], LemlistError)
        error = error_class(event["message"], status=event.get("http_status"))
        if self.never_fail:
            # Airflow applies it to errors of its own on resuming, and to none at all before 3.0.
            raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
        raise error

    def _wait(self, context: Context) -> Wait:
        """Read the rendered arguments."""
        for name in self._given:
            value = getattr(self, name)
            # An upstream XCom that was never pushed must not turn "this lead" into "anybody".
            if value in (None, "", "None"):
                raise LemlistConfigurationError(
                    f"{name} of task {self.task_id!r} is empty; see what its template or upstream task gave."
                )
            if name != "since" and not isinstance(value, str):
                raise LemlistConfigurationError(
                    f"{name} of task {self.task_id!r} must be an id, not {type(value).__name__}."
                )
        return Wait(
            types=activities.as_types(self.activity_type),
            since=activities.start_of_run(context["dag_run"])
            if self.since is None
            else activities.as_moment(self.since),
            min_count=self.min_count,
            lead_id=self.lead_id,
            is_first=self.is_first,
        )

    def _done(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.log.info(
            "Found what was waited for (%d): %s", len(found), ", ".join(row["_id"] for row in found[:10])
        )
        if len(found) >= max(self.min_count, activities.RESULT_LIMIT):
            self.log.warning(
                "There may be more than these %d; LemlistHook.list_activities reads them all.", len(found)
            )
        return found
