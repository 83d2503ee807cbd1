# SPDX-License-Identifier: Apache-2.0
"""
Apply a definition, one way.

    look at the campaign -> plan -> refuse what is not permitted -> carry out change by change -> look again

Whatever a killed attempt has left is what the next one sees; its plan contains the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_lemlist.api.wire import CLOCK, SETTLE_TIME
from airflow_provider_lemlist.campaigns.definition import BRANCHES, SETTINGS, Path, plain_step, walk
from airflow_provider_lemlist.campaigns.describe import kind_of, plan_lines
from airflow_provider_lemlist.campaigns.plan import (
    AddStep,
    AttachSchedule,
    Change,
    CreateCampaign,
    CreateSchedule,
    DeleteStep,
    Plan,
    UpdateSchedule,
    UpdateSettings,
    UpdateStep,
    obstacles,
    plan_changes,
    provisional_name,
)
from airflow_provider_lemlist.campaigns.present import Applied, Present, branch_ids, digests
from airflow_provider_lemlist.delivery.evidence import SENDS_AT_ONCE, is_archived
from airflow_provider_lemlist.exceptions import (
    LemlistError,
    LemlistNotFoundError,
    LemlistUncertainError,
    LemlistUnexpectedReplyError,
    LemlistValidationError,
    Reason,
)

if TYPE_CHECKING:
    from airflow_provider_lemlist.campaigns.memory import Memory
    from airflow_provider_lemlist.delivery.policy import IfRunning, OnExtra
    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

log = logging.getLogger(__name__)

#: The same as SETTLE_TIME for a step with media, which lemlist may fetch for so long.
SETTLE_TIME_WITH_MEDIA = 50.0
_START_IT = "start the campaign in lemlist."


class ApplyOptions(NamedTuple):
    """
    What the user wants.

    :param campaign_id: The campaign; None to find it by the name in the definition.
    :param on_extra: What becomes of steps that lemlist has and the definition lacks.
    :param if_running: What to do if the campaign is running and something has to change.
    :param refresh_unseen: Whether fields that lemlist does not list are sent again.
    """

    campaign_id: str | None = None
    on_extra: OnExtra = "fail"
    if_running: IfRunning = "fail"
    refresh_unseen: bool = False


class Outcome(NamedTuple):
    """
    A campaign after a definition was applied, or as it is if nothing was.

    :param campaign_id: Its id; None if it does not exist.
    :param plan: The changes that were made, or would be.
    :param steps: The ids of the named steps.
    :param sequences: The sequence of each branch of the named conditions.
    """

    campaign_id: str | None
    plan: Plan
    steps: Mapping[str, str]
    sequences: Mapping[str, Mapping[str, str]]


class Application:
    """
    One definition and the campaign that it is applied to.

    :param definition: A definition without mistakes and without parameters.
    :param memory: What earlier runs and attempts left behind.
    """

    def __init__(
        self,
        hook: LemlistHook,
        definition: Mapping[str, Any],
        options: ApplyOptions,
        memory: Memory,
    ) -> None:
        self._hook = hook
        self._definition = definition
        self._options = options
        self._memory = memory
        self._steps = dict(walk(definition))
        self._campaign_id = options.campaign_id
        #: The sequences that exist by now, by their place in the definition.
        self._sequence_ids: dict[Path, str] = {}
        #: The ids of the steps of each sequence by now.
        self._known: dict[str, list[str]] = {}
        #: The ids of the schedules of the team before the first change.
        self._known_schedules: list[str] = []
        #: What the request that is in flight would do; empty when there is none.
        self.in_flight = ""

    # --- The two ways to use it -------------------------------------------------------------------------

    def plan(self) -> Outcome:
        """Return what would change, and log what would forbid it."""
        present, plan = self._look()
        self._log(plan, present)
        found = self._obstacles(plan, present)
        if found:
            log.warning("%s", found)
        return self._outcome(plan, plan)

    def apply(self, *, after_kill: bool) -> Outcome:
        """
        Change the campaign until it equals the definition.

        :param after_kill: Whether an earlier attempt may have requests in flight.
        :raises LemlistValidationError: Something is not permitted, or lemlist would refuse it. Nothing was
            sent.
        :raises LemlistError: The campaign does not equal the definition, although all changes were sent.
        """
        with _one_at_a_time(self._hook):
            if after_kill:
                has_media = any(step.get("images") or step.get("videos") for step in self._steps.values())
                CLOCK.sleep(SETTLE_TIME_WITH_MEDIA if has_media else SETTLE_TIME)
            try:
                present, plan = self._look()
                if self._memory.creating:
                    self._remember_lost(plan)
                    plan = self._plan(present)
                self._log(plan, present)
                self._refuse(plan, present)
                self._pause(plan, present)
                now = self._carry_out(plan, present) if plan.changes else plan
                self._remember(now)
                self._start_again()
            except Exception:
                if self._memory.paused:
                    log.warning("%s: stays paused. %s", self._campaign, self._who_starts_it)
                raise
        return self._outcome(plan, now)

    # --- Looking ----------------------------------------------------------------------------------------

    def _look(self) -> tuple[Present, Plan]:
        """Return what lemlist has, and the changes that are left."""
        present = self._present()
        return present, self._plan(present)

    def _plan(self, present: Present) -> Plan:
        return plan_changes(
            self._definition,
            present,
            self._memory.applied,
            on_extra=self._options.on_extra,
            refresh_unseen=self._options.refresh_unseen,
        )

    def _present(self) -> Present:
        schedules = list(self._hook.list_schedules()) if "schedules" in self._definition else []
        campaign = self._find()
        if campaign is None:
            return Present(schedules=schedules)
        campaign_id = self._campaign_id = str(campaign["_id"])
        if is_archived(campaign):
            raise LemlistValidationError(
                f"Campaign {campaign_id!r} is archived. Unarchive it in lemlist, or give the definition "
                "another name. Nothing was sent."
            )
        # The list of campaigns contains less than the response to one of them, which may not be complete.
        if "sendUserIds" in self._definition and "senders" not in campaign:
            campaign |= self._hook.get_campaign(campaign_id)
        if self._uses_schedules and campaign.get("scheduleIds") is None:
            attached = self._hook.list_schedules(campaign_id)
            campaign |= {"scheduleIds": [str(row["_id"]) for row in attached]}
        present = Present(campaign, self._hook.get_sequences(campaign_id), schedules)
        if present.main_id is None:
            present = replace(present, campaign=campaign | self._hook.get_campaign(campaign_id))
        if present.main_id is None:
            raise LemlistNotFoundError(f"Campaign {campaign_id!r} has no sequence.")
        return present

    @property
    def _uses_schedules(self) -> bool:
        return any("attach" in SETTINGS[name].sent_with for name in self._definition if name in SETTINGS)

    def _find(self) -> dict[str, Any] | None:
        """Return the campaign of the definition, or None if it does not exist."""
        if self._campaign_id:
            return self._hook.get_campaign(self._campaign_id)
        name, applied = self._definition["name"], self._memory.applied
        if applied.campaign_id and applied.name == name:
            try:
                return self._hook.get_campaign(applied.campaign_id)
            except LemlistNotFoundError:
                pass  # it was deleted; another one may have the name now
        return self._hook.find_campaign(name, provisional_name(name))

    # --- Before the first write -------------------------------------------------------------------------

    @property
    def _campaign(self) -> str:
        return f"Campaign {self._definition['name']!r} ({self._campaign_id or 'new'})"

    def _log(self, plan: Plan, present: Present) -> None:
        lines = plan_lines(plan)
        number = len(plan.changes)
        event = f"{number} change{'s' * (number > 1)}." if number else "no changes."
        log.info("%s: %s", self._campaign, "\n".join([event, *lines]))
        if self._definition.get("autoReview") is True:
            log.warning("%s: %s", self._campaign, SENDS_AT_ONCE)
        edits = any(isinstance(change, UpdateStep) for change in plan.changes)
        if edits and present.is_running and self._options.if_running == "edit":
            log.warning("%s: is running, so lemlist may refuse to change its steps.", self._campaign)

    def _obstacles(self, plan: Plan, present: Present) -> str:
        """Return what forbids to apply the plan, as a sentence for each; empty if nothing does."""
        found = obstacles(plan, present, self._options.on_extra, self._options.if_running)
        return " ".join(f"{each}." for each in found)

    def _refuse(self, plan: Plan, present: Present) -> None:
        if found := self._obstacles(plan, present):
            raise LemlistValidationError(
                f"{self._campaign}: the definition cannot be applied. {found} Nothing was sent."
            )

    def _pause(self, plan: Plan, present: Present) -> None:
        if not (plan.changes and present.is_running and self._options.if_running == "pause"):
            return
        self._memory.paused = str(self._campaign_id)
        self._memory.save()
        self.in_flight = f"pause campaign {self._campaign_id}"
        self._hook.pause_campaign(self._memory.paused)
        log.info("%s: paused until all changes are made.", self._campaign)
        if not self._memory.outlives_attempts:
            log.warning("%s: if the task is killed before that, %s", self._campaign, _START_IT)

    def _start_again(self) -> None:
        if self._memory.paused and self._memory.paused == self._campaign_id:
            self.in_flight = f"start campaign {self._campaign_id}"
            self._hook.start_campaign(self._memory.paused)
            self.in_flight = ""
            log.info("%s: started again.", self._campaign)
            self._memory.paused = ""
            self._memory.save()

    @property
    def _who_starts_it(self) -> str:
        if self._memory.outlives_attempts:
            return "The next attempt of this task starts it when the definition is applied."
        return f"When the definition is applied, {_START_IT}"

    # --- Carrying out -----------------------------------------------------------------------------------

    def _carry_out(self, plan: Plan, present: Present) -> Plan:
        """
        Carry out all changes; return the plan after them, which contains none.

        :raises LemlistError: It does contain some.
        """
        self._sequence_ids = dict(plan.sequence_ids)
        self._known = {
            each: [str(row["_id"]) for row in present.rows(each)] for each in plan.sequence_ids.values()
        }
        self._known_schedules = [str(row["_id"]) for row in present.schedules]
        self._memory.claim(self._campaign_id or "", self._definition["name"], plan.step_ids.values())
        for change in plan.changes:
            try:
                self._send(change)
            except LemlistUncertainError as error:
                # Not permanent: whatever has happened, the next plan contains the rest.
                raise LemlistError(
                    f"It is not known whether lemlist carried out a change: {error.__cause__ or error} Apply "
                    "the definition again.",
                    in_doubt=True,
                ) from error
            except LemlistError as error:
                if error.reason is Reason.CAMPAIGN_RUNNING:
                    raise LemlistValidationError(
                        f"{error} Set if_running to 'pause' to apply the definition.", reason=error.reason
                    ) from error
                raise
            self._memory.save()
        self.in_flight = ""
        _, rest = self._look()
        before = {str(row["_id"]) for row in plan.kept}
        if rest.changes or any(str(row["_id"]) not in before for row in rest.kept):
            lines = "\n".join(plan_lines(rest))
            raise LemlistError(
                f"{self._campaign}: differs from the definition after all changes were sent. lemlist did not "
                "take them, or the campaign was changed at the same time. What still differs:\n"
                f"{lines}"
            )
        log.info("%s: all changes are made.", self._campaign)
        return rest

    def _send(self, change: Change) -> None:
        hook, campaign_id = self._hook, str(self._campaign_id)
        self.in_flight = f"apply a change to campaign {campaign_id}"
        if isinstance(change, CreateCampaign):
            self._create(change)
        elif isinstance(change, UpdateSettings):
            values = _new_values(change.changed)
            hook.update_campaign(campaign_id, values)
            self._memory.sent_settings(campaign_id, self._definition["name"], values)
        elif isinstance(change, CreateSchedule):
            created = hook.create_schedule(change.values, known=self._known_schedules)
            hook.attach_schedule(campaign_id, str(created["_id"]))
        elif isinstance(change, UpdateSchedule):
            hook.update_schedule(str(change.row["_id"]), _new_values(change.changed))
        elif isinstance(change, AttachSchedule):
            hook.attach_schedule(campaign_id, change.schedule_id)
        elif isinstance(change, UpdateStep):
            values = _new_values(change.changed)
            step_id = str(change.row["_id"])
            hook.update_step(change.sequence_id, step_id, {"type": change.row["type"], **values})
            self._memory.sent_step(step_id, values)
        elif isinstance(change, DeleteStep):
            hook.delete_step(change.sequence_id, str(change.row["_id"]))
            self._known[change.sequence_id].remove(str(change.row["_id"]))
        else:
            self._add(change)

    def _create(self, change: CreateCampaign) -> None:
        self._memory.about_to_create(change.settings)
        first = dict(change.first)
        created = self._hook.create_campaign(
            first["name"],
            campaign_timezone=first.get("timezone"),
            auto_review=first.get("autoReview"),
            auto_review_conditions=first.get("autoReviewConditions"),
            known=(),
            resumable=True,
        )
        self._campaign_id = str(created["_id"])
        # Refuses a second one, which another machine has created, and may have completed by now.
        self._hook.find_campaign(self._definition["name"], provisional_name(self._definition["name"]))
        self._sequence_ids["steps",] = str(created.get("sequenceId") or self._present().main_id)
        if change.second:
            self._hook.update_campaign(self._campaign_id, change.second)
        self._memory.sent_settings(self._campaign_id, self._definition["name"], change.settings)

    def _add(self, change: AddStep) -> None:
        sequence_id = self._sequence_ids[change.sequence]
        known = self._known.setdefault(sequence_id, [])
        self._memory.about_to_create(change.step)
        step = {**change.step} if change.index is None else {**change.step, "index": change.index}
        row = self._hook.add_step(
            sequence_id, step, campaign_id=self._campaign_id, known=known, resumable=True
        )
        known.append(str(row["_id"]))
        self._memory.sent_step(str(row["_id"]), change.step)
        branches, step_in_definition = branch_ids(row), self._steps[change.path]
        if len(branches) < len(BRANCHES) and any(step_in_definition.get(branch) for branch in BRANCHES):
            raise LemlistUnexpectedReplyError(
                f"lemlist returned no branches of the {kind_of(change.step)} that was added; apply the "
                "definition again."
            )
        for branch, branch_id in branches.items():
            self._sequence_ids[*change.path, branch] = branch_id

    # --- Remembering ------------------------------------------------------------------------------------

    def _remember_lost(self, plan: Plan) -> None:
        """Remember what a killed attempt was about to create, if lemlist has it now."""
        memory, name = self._memory, self._definition["name"]
        if not self._campaign_id:
            return
        if not memory.of(self._campaign_id).campaign_id:
            lost = {each: self._definition.get(each) for each in memory.creating}
            if memory.was_creating(lost):
                memory.sent_settings(self._campaign_id, name, lost)
        for path, step_id in plan.step_ids.items():
            step = plain_step(self._steps[path])
            if step_id not in memory.of(self._campaign_id).steps and memory.was_creating(step):
                memory.sent_step(step_id, step)

    def _remember(self, rest: Plan) -> None:
        """Remember what is known to be in lemlist now: all but what was never sent from here."""

        def seen(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
            unseen = ("type", *rest.unseen.get(path, ()))
            return digests({name: value for name, value in values.items() if name not in unseen})

        settings = {name: value for name, value in self._definition.items() if name in SETTINGS}
        self._memory.applied = Applied(
            str(self._campaign_id),
            self._definition["name"],
            seen((), settings),
            {step_id: seen(path, plain_step(self._steps[path])) for path, step_id in rest.step_ids.items()},
        )
        self._memory.save()

    def _outcome(self, plan: Plan, now: Plan) -> Outcome:
        named = {path: step["name"] for path, step in self._steps.items() if step.get("name")}
        branches: dict[str, dict[str, str]] = {}
        for (*path, branch), sequence_id in now.sequence_ids.items():
            if name := named.get(tuple(path)):
                branches.setdefault(name, {})[str(branch)] = sequence_id
        steps = {name: now.step_ids[path] for path, name in named.items() if path in now.step_ids}
        return Outcome(self._campaign_id, plan, steps, branches)


def _new_values(changed: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {name: value for name, (_, value) in changed.items()}


@contextmanager
def _one_at_a_time(hook: LemlistHook) -> Iterator[None]:
    """
    Wait until no other process of this machine applies a definition with the same key.

    An apply on another machine is noticed at the end: the campaign then differs from the definition.
    """
    from airflow.providers.common.compat.sdk import conf

    from airflow_provider_lemlist.api.budget.sqlite import private_directory
    from airflow_provider_lemlist.api.budget.stores import StoreError

    key = hook.settings.api_key.encode()
    name = hashlib.blake2b(key, digest_size=16, person=b"lemlist-apply").hexdigest()
    try:
        directory = private_directory(conf.get("lemlist", "budget_dir", fallback="") or None)
    except StoreError as error:
        log.warning("Two applies on this machine will not wait for each other: %s", error)
        yield
        return
    file = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Another process applies a definition with this key. Waiting until it ends.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
