# SPDX-License-Identifier: Apache-2.0
"""The operator that builds sequences: add a step, or a condition with its branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.exceptions import (
    LemlistConfigurationError,
    LemlistError,
    LemlistNotFoundError,
)
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.operators.memory import Memory
from airflow_provider_lemlist.templating import KeepsPlaceholders, is_open
from airflow_provider_lemlist.validation import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg


class AddStepOperator(KeepsPlaceholders, LemlistOperator):
    """
    Add a step to a sequence of a campaign.

    The step is checked before anything is sent; what is written in the DAG file, when the file is parsed. Its
    ``subject``, ``message``, ``altMessage`` and ``title`` are lemlist's, so ``{{firstName}}`` stays as it is;
    Airflow renders its other fields. An Airflow retry never adds the step again.

    Returns the id of the step. The whole answer of lemlist is pushed under the key ``step``, the campaign,
    where it is given, under ``campaign_id``. A condition also pushes the sequence of each branch: under its
    condition key, such as ``linkedinInviteAccepted``, and under ``fallback``.

    .. seealso::
        For more information on how to use this operator, take a look at the guide:
        :ref:`howto/operator:AddStepOperator`

    :param step: A typed step such as ``steps.Email(…)``, or a dict with ``type`` and the fields of that type.
        (templated, but for lemlist's own texts)
    :param sequence_id: Id of the sequence. (templated)
    :param campaign_id: Id of the campaign; without ``sequence_id`` the step goes to its main sequence.
        (templated)
    :param lemlist_conn_id: :ref:`lemlist connection <howto/connection:lemlist>` to use. (templated)
    """

    template_fields: Sequence[str] = ("step", "sequence_id", "campaign_id", "lemlist_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"step": "json"}
    operator_extra_links = (CampaignLink(),)
    placeholders_in = ("step",)

    def __init__(
        self,
        *,
        step: Mapping[str, Any] | XComArg,
        sequence_id: str | XComArg | None = None,
        campaign_id: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.sequence_id = sequence_id
        self.campaign_id = campaign_id
        self._check_written()

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Say yes but for the texts that lemlist fills in."""
        return name == "type" or (name in steps.FIELDS and not steps.FIELDS[name].lemlist)

    @staticmethod
    def read_rendered(name: str, value: Any) -> Any:
        """Read a rendered text as the number or the flag that belongs there."""
        kind = steps.FIELDS[name].type if name in steps.FIELDS else str
        if not isinstance(value, str) or kind in (str, list):
            return value
        if kind is bool:
            return {"true": True, "false": False}.get(value.strip().lower(), value)
        try:
            return int(value)
        except ValueError:
            return value

    def execute(self, context: Context) -> str:
        """Add the step, or find out that an earlier attempt did."""
        self._check_place()
        step = steps.check(cast("Mapping[str, Any]", self.step), self._the("step"))
        memory = Memory(context)
        note = memory.recall(cleared=True)
        sequence = self._sequence(look=note is not None)
        sequence_id = sequence["_id"]
        try:
            reply = self._added_before(step, sequence, note, context) if note is not None else None
            if reply is None:
                reply = self._add(step, sequence, memory)
        except LemlistError as error:
            if not error.retryable:
                memory.strike_out()  # a person decides what happens next
            raise
        step_id = str(reply["_id"])
        memory.done(step_id)
        branches = steps.branches(reply)
        if step["type"] == "conditional" and not branches:
            self.log.warning("lemlist named no branches for condition %s.", step_id)
        if self.campaign_id:
            self._push(context, campaign_id=self.campaign_id)
        self._push(context, step=reply, **branches)
        self._tell_outlets(context, step_id=step_id, sequence_id=sequence_id, campaign_id=self.campaign_id)
        return step_id

    def _add(self, step: dict[str, Any], sequence: dict[str, Any], memory: Memory) -> dict[str, Any]:
        sequence_id, listed = sequence["_id"], sequence.get("steps")
        known = None if listed is None else [row["_id"] for row in listed if row.get("_id")]
        memory.note(sequence_id=sequence_id, known=known)
        self._under_way = f"add a step to sequence {sequence_id}"
        reply = self.hook.add_step(sequence_id, step, campaign_id=self._text(self.campaign_id), known=known)
        self._under_way = ""
        self.log.info("Added step %s (%s) to sequence %s.", reply["_id"], step["type"], sequence_id)
        return reply

    def _sequence(self, *, look: bool) -> dict[str, Any]:
        """
        Return the sequence with its ``steps``, without them where nobody needs to look.

        One look at the campaign before the step is sent makes it certain later which step is ours.
        """
        sequence_id, campaign_id = self._text(self.sequence_id), self._text(self.campaign_id)
        if campaign_id is None:
            return self.hook.find_sequence(str(sequence_id)) if look else {"_id": sequence_id}
        if sequence_id is not None:
            return {**self.hook.find_sequence(sequence_id, campaign_id=campaign_id), "_id": sequence_id}
        sequences = self.hook.get_sequences(campaign_id)
        main = next((key for key, sequence in sequences.items() if sequence.get("level") == 0), None)
        if main is not None:
            return {**sequences[main], "_id": main}
        main = self.hook.get_campaign(campaign_id).get("sequenceId")
        if not main:
            raise LemlistNotFoundError(f"Campaign {campaign_id!r} of task {self.task_id!r} has no sequence.")
        return {"steps": [], **sequences.get(main, {}), "_id": main}

    def _added_before(
        self, step: dict[str, Any], sequence: dict[str, Any], note: Mapping[str, Any], context: Context
    ) -> dict[str, Any] | None:
        """Return the step that an earlier run of this task has added, None when it has not or is gone."""
        listed: list[dict[str, Any]] = sequence.get("steps") or []
        known = note.get("known") if note.get("sequence_id") == sequence["_id"] else None
        step_id = note.get("done") or steps.recognise(
            step, listed, known=known, claimed=self._claimed(context)
        )
        added = next((row for row in listed if row.get("_id") == step_id), None) if step_id else None
        if added is None:
            return None
        self.log.info("Step %s was added by an earlier run of this task.", step_id)
        if steps.recognise(step, [added]) is None:
            self.log.warning(
                "Step %s differs from what the task says now. To have it as the task says, delete it in "
                "lemlist, or change it there, and clear the task.",
                step_id,
            )
        elif known is None and not note.get("done"):
            self.log.warning(
                "Nobody wrote down which steps were there before. If step %s is an older one that equals "
                "this one, and both are wanted, add the other by hand.",
                step_id,
            )
        return added

    def _claimed(self, context: Context) -> set[str]:
        """Return the steps that other tasks of this DAG run have added."""
        # Imported here, for it costs as much as all operators together.
        from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY

        dag = self.get_dag()
        others = [
            task.task_id
            for task in (dag.tasks if dag else ())
            if issubclass(getattr(task, "operator_class", type(task)), AddStepOperator)
        ]
        pulled = context["ti"].xcom_pull(task_ids=others, key=XCOM_RETURN_KEY) if others else ()
        return {value for value in pulled or () if isinstance(value, str)}

    def _check_place(self, *, written: bool = False) -> None:
        self._check_id("sequence_id", needed=False, written=written)
        self._check_id("campaign_id", needed=False, written=written)
        if self.sequence_id is None and self.campaign_id is None:
            raise LemlistConfigurationError(
                f"Task {self.task_id!r} needs sequence_id, or campaign_id for the campaign's main sequence."
            )

    def _check_written(self) -> None:
        self._check_place(written=True)
        if not isinstance(self.step, Mapping):
            if isinstance(self.step, str) or is_open(self.step) or callable(self.step):
                return
            raise refusal(self._the("step"), steps.problems(self.step))
        unknown = {
            name for name, value in self.step.items() if is_open(value, rendered=self.airflow_renders(name))
        }
        if "type" in unknown:
            return
        if found := [problem for problem in steps.problems(self.step) if problem.field not in unknown]:
            raise refusal(self._the("step"), found)

    @staticmethod
    def _text(value: Any) -> str | None:
        return None if value is None else str(value)
