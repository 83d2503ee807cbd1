# SPDX-License-Identifier: Apache-2.0
"""
Which leads a run launches: chosen once, and kept in a file, so that no attempt of the run adds to them.

    <ledger_path>/launches/<run>.json    {"campaign_id": "cam_…", "lead_ids": ["lea_…", …]}

``lead_ids`` is null from the start of the first attempt until it has chosen: nothing was launched yet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistUncertainError,
)
from airflow_provider_lemlist.launch.checks import (
    ENRICHING,
    PAUSED,
    UNSUBSCRIBED,
    WAITING,
    LeadState,
    blank_variables,
)
from airflow_provider_lemlist.storage import shown, write_whole
from airflow_provider_lemlist.validation import Finding

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


#: The outcomes of the statuses that do not show that a lead was launched.
_NOT_LAUNCHED = {PAUSED: "paused", ENRICHING: "not_ready", UNSUBSCRIBED: "suppressed"}


class Choice(NamedTuple):
    """The leads that are launched, and what becomes of the others that were considered."""

    to_launch: Sequence[str] = ()
    #: What the file of the run is to contain: also the leads that earlier attempts have chosen.
    of_run: Sequence[str] = ()
    #: Chosen by earlier attempts, and launched since.
    launched_before: Sequence[str] = ()
    #: How many of the others have which outcome.
    outcomes: Mapping[str, int] = {}
    #: Ids that are not in the campaign.
    unknown: Sequence[str] = ()
    #: Variables that are blank in leads to launch; or in leads that are left out for that reason.
    blank: Mapping[str, Finding] = {}
    #: Whether the given leads, with those that earlier attempts have chosen, are more than allowed.
    is_too_many: bool = False


def choose(
    leads: Sequence[LeadState],
    max_leads: int,
    *,
    lead_ids: Sequence[str] | None = None,
    earlier: Sequence[str] | None = None,
    skip_blank: bool = False,
) -> Choice:
    """
    Choose the leads to launch.

    :param leads: The leads of the campaign, in the order of its export.
    :param max_leads: The most that all attempts of the run launch together.
    :param lead_ids: The wanted leads; None for those that wait for review.
    :param earlier: The leads that earlier attempts of the run have chosen; None if they have not.
    :param skip_blank: Whether to leave out leads that lack a variable, and take the next ones.
    """
    known = {lead.lead_id: lead for lead in leads}
    if lead_ids is not None:
        considered = lead_ids
    elif earlier is not None:
        considered = earlier
    else:
        considered = [lead.lead_id for lead in leads if lead.status in (WAITING, PAUSED)]
    chosen = dict.fromkeys(earlier or ())
    # A lead that is gone, or waits no more, may have been launched by an earlier attempt.
    spent = sum(lead_id not in known or known[lead_id].status != WAITING for lead_id in chosen)
    room = max(0, max_leads - spent)
    ready: list[LeadState] = []
    left_out: list[LeadState] = []
    launched_before: list[str] = []
    unknown: list[str] = []
    outcomes: Counter[str] = Counter()
    for lead_id in considered:
        lead = known.get(lead_id)
        if lead is None and lead_id not in chosen:
            unknown.append(lead_id)
        elif lead is None:
            outcomes["gone"] += 1
        elif lead.status != WAITING:
            if (outcome := _NOT_LAUNCHED.get(lead.status)) or lead_id not in chosen:
                outcomes[outcome or "already_launched"] += 1
            else:
                launched_before.append(lead_id)
        elif lead_ids is None and len(ready) == room:
            outcomes["waiting"] += 1
        elif lead.is_suppressed:
            outcomes["suppressed"] += 1
        elif lead.blank and skip_blank:
            outcomes["variable_missing"] += 1
            left_out.append(lead)
        else:
            ready.append(lead)
    to_launch = [lead.lead_id for lead in ready]
    of_run = list(chosen | dict.fromkeys(to_launch))
    return Choice(
        to_launch,
        of_run,
        launched_before,
        outcomes,
        unknown,
        blank_variables(left_out or ready),
        is_too_many=lead_ids is not None and len(of_run) > max_leads,
    )


class ChoiceFile:
    """
    The file in which a run keeps which leads it launches.

    :param folder: The directory of the campaign's ledger.
    :param run: Name of the run, the same for every attempt.
    """

    def __init__(self, folder: ObjectStoragePath, run: str, campaign_id: str) -> None:
        self.path = folder / "launches" / f"{run}.json"
        self._campaign_id = campaign_id

    def begin(self, *, must_exist: bool) -> list[str] | None:
        """
        Return the leads that earlier attempts have chosen; None if they have not, which is then on record.

        :param must_exist: Whether an earlier attempt has begun, so that its file must be there.
        :raises LemlistUncertainError: It is not, or cannot be read.
        """
        try:
            return self._read()
        except FileNotFoundError:
            if must_exist:
                raise LemlistUncertainError(
                    "An earlier attempt of this run may have launched leads, and this worker does not find "
                    f"{shown(self.path)}, which says which ones. Set ledger_path to a place that all workers "
                    "see, or pass lead_ids, or trigger a new run. No lead was launched by this attempt."
                ) from None
        self._write(None)
        return None

    def choose(self, lead_ids: Sequence[str], *, earlier: Sequence[str] | None) -> None:
        """
        Record which leads the run launches, before the first one is.

        :param earlier: What ``begin`` returned.
        :raises LemlistError: Another attempt has chosen since, which Airflow had given up too early.
        """
        if self._read() != earlier:
            raise LemlistError(
                f"Another attempt of this run has chosen leads at the same time, as {shown(self.path)} says. "
                "No lead was launched by this attempt; the next one launches those that still wait."
            )
        self._write(lead_ids)

    def _read(self) -> list[str] | None:
        try:
            content = json.loads(self.path.read_bytes())
            campaign_id, listed = content["campaign_id"], content["lead_ids"]
            lead_ids = None if listed is None else [str(each) for each in listed]
        except (ValueError, TypeError, LookupError) as error:
            raise LemlistUncertainError(
                f"{shown(self.path)} is damaged, so it is not known which leads this run has launched. "
                "Trigger a new run. No lead was launched by this attempt."
            ) from error
        if campaign_id != self._campaign_id:
            raise LemlistConfigurationError(
                f"This run has chosen leads of campaign {campaign_id!r}, as {shown(self.path)} says. "
                f"Trigger a new run for campaign {self._campaign_id!r}. Nothing was sent."
            )
        return lead_ids

    def _write(self, lead_ids: Sequence[str] | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, [json.dumps({"campaign_id": self._campaign_id, "lead_ids": lead_ids})])
