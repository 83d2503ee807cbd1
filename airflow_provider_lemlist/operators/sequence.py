# SPDX-License-Identifier: Apache-2.0
"""The operator that builds sequences: add a step, or a condition with its branches."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    check_id,
    given_names,
    is_from_mapped,
    or_none,
    the,
)
from airflow_provider_lemlist.delivery.policy import IfStepExists
from airflow_provider_lemlist.exceptions import LemlistConfigurationError, LemlistNotFoundError
from airflow_provider_lemlist.links import CampaignLink
from airflow_provider_lemlist.operators.base import LemlistOperator
from airflow_provider_lemlist.privacy import Hiding, masked
from airflow_provider_lemlist.templating import KeepsPlaceholders, is_open, misplaced_templates
from airflow_provider_lemlist.validation import validation_error

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_lemlist.delivery.evidence import StepEvidence
    from airflow_provider_lemlist.operators.history import TaskHistory


class AddStepOperator(KeepsPlaceholders, LemlistOperator):
    """
    Add a step to a sequence of a campaign, unless an equal one is there.

    The step is checked before anything is sent; literal values when the DAG is parsed. lemlist renders
    ``subject``, ``message``, ``altMessage`` and ``title``, so that ``{{firstName}}`` stays as it is; Airflow
    renders the other fields. An Airflow retry never adds the step again.

    Returns the id of the step. lemlist's whole response is pushed under the key ``step``, the campaign, if
    given, under ``campaign_id``, and under ``report`` whether the step existed, and which fields lemlist has
    other values of. A condition also pushes the sequence of each branch: under its condition key, such as
    ``linkedinInviteAccepted``, and under ``fallback``.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/add-step/>

    :param step: A typed step such as ``steps.Email(…)``, or a dict with ``type`` and the fields of that type.
        (templated, except the texts that lemlist renders)
    :param sequence_id: Id of the sequence. (templated)
    :param campaign_id: Id of the campaign; without ``sequence_id`` the step goes to its main sequence.
        (templated)
    :param if_exists: What to do when the sequence has an equal step, or the one that this task returned in
        an earlier run: ``return`` it, ``add`` another one, or ``fail``.
    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    template_fields: Sequence[str] = ("step", "sequence_id", "campaign_id", "lemlist_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"step": "json"}
    operator_extra_links = (CampaignLink(),)
    placeholders_in = ("step",)
    personal_in: ClassVar[Hiding] = {"step": masked}

    def __init__(
        self,
        *,
        step: Mapping[str, Any] | XComArg,
        sequence_id: str | XComArg | None = NOT_GIVEN,
        campaign_id: str | XComArg | None = NOT_GIVEN,
        if_exists: IfStepExists = "return",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.sequence_id = or_none(sequence_id)
        self.campaign_id = or_none(campaign_id)
        self.if_exists = if_exists
        self._given = given_names(
            {"sequence_id": sequence_id, "campaign_id": campaign_id}, mapped=is_from_mapped(self)
        )
        self._step_as_written = (_as_written(step), str(sequence_id), str(campaign_id))
        self.check_arguments(vars(self))

    @staticmethod
    def airflow_renders(name: str) -> bool:
        """Return whether Airflow renders a field; lemlist renders the texts."""
        return name == "type" or (name in steps.FIELDS and not steps.FIELDS[name].lemlist)

    @staticmethod
    def read_rendered(name: str, value: Any) -> Any:
        """Read a rendered text as the number or the flag that belongs there."""
        return steps.read_text(steps.FIELDS[name].type, value) if name in steps.FIELDS else value

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        check_choice("if_exists", arguments, IfStepExists)
        check_id("sequence_id", arguments, optional=True)
        check_id("campaign_id", arguments, optional=True)
        if or_none(arguments["sequence_id"]) is None and or_none(arguments["campaign_id"]) is None:
            raise LemlistConfigurationError(
                f"Task {arguments['task_id']!r} needs sequence_id, or campaign_id for the campaign's main "
                "sequence."
            )
        step = arguments["step"]
        if isinstance(step, Mapping):
            unknown = {
                name for name, value in step.items() if is_open(value, rendered=cls.airflow_renders(name))
            }
            if "type" in unknown:
                return
            found = [problem for problem in steps.problems(step) if problem.field not in unknown]
            found += misplaced_templates(step, lambda name: not cls.airflow_renders(name))
        elif isinstance(step, str) or is_open(step) or callable(step):
            return
        else:
            found = steps.problems(step)
        if found:
            raise validation_error(the("step", arguments), found)

    def execute(self, context: Context) -> str:
        """Add the step, or find the one that exists."""
        from airflow_provider_lemlist.delivery.evidence import differing_step_fields
        from airflow_provider_lemlist.delivery.outcome import choose_step
        from airflow_provider_lemlist.operators.history import TaskHistory

        self.sequence_id, self.campaign_id = self._id_or_none("sequence_id"), self._id_or_none("campaign_id")
        step = steps.check(cast("Mapping[str, Any]", self._real("step")), self._the("step"))
        history = TaskHistory(context)
        begun = history.read()
        if_exists: IfStepExists = "return" if history.is_lost else self.if_exists
        sequence = self._sequence(list_steps=begun is not None or if_exists != "add")
        evidence = self._evidence(step, sequence, begun, context)
        attempting = history.attempting(
            "the step",
            in_doubt=evidence.in_doubt,
            created=evidence.added is not None,
            may_look_up=False,
            check=f"Check sequence {sequence['_id']!r}, or clear the task: it lists the sequence before it "
            "adds the step.",
        )
        with attempting:
            choice = choose_step(step, evidence, if_exists)
            response = choice.row or self._add(step, sequence, history, choice.unclear)
        self._in_flight = ""
        step_id = str(response["_id"])
        history.finish(step_id, sequence_id=sequence["_id"])
        event = "already in sequence" if choice.row else "added to sequence"
        self.log.info("Step %s (%s): %s.", step_id, step["type"], event)
        differing, message = differing_step_fields(step, choice.row or {}), ""
        if differing:
            message = (
                f"lemlist has other values than the task in {', '.join(differing)}. Change the step in "
                "lemlist; or delete it there and clear the task."
            )
            self.log.warning("Step %s: %s", step_id, message)
        self._push_report(context, "exists" if choice.row else "created", message, differing)
        branches = steps.branches(response)
        if step["type"] == "conditional" and not branches:
            self.log.warning("Step %s: lemlist returned no branches of the condition.", step_id)
        if self.campaign_id:
            self._push(context, campaign_id=self.campaign_id)
        self._push(context, step=self._shown_response(response), **branches)
        self._update_outlets(
            context, step_id=step_id, sequence_id=sequence["_id"], campaign_id=self.campaign_id
        )
        return step_id

    def _sequence(self, *, list_steps: bool) -> dict[str, Any]:
        """
        Return the sequence with its ``steps``; without them where that would take a search for nothing.

        What lemlist lists before the step is sent makes it certain later which step is ours.
        """
        sequence_id, campaign_id = self.sequence_id, self.campaign_id
        if campaign_id is None:
            found = self.hook.find_sequence(str(sequence_id)) if list_steps else {}
            return {**found, "_id": sequence_id}
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

    def _add(
        self,
        step: dict[str, Any],
        sequence: Mapping[str, Any],
        history: TaskHistory,
        unclear: Collection[str],
    ) -> Mapping[str, Any]:
        if unclear:
            self.log.warning(
                "Steps %s: lemlist lists too little of them to tell whether they equal the step of the task, "
                "which is added.",
                ", ".join(unclear),
            )
        sequence_id, listed = sequence["_id"], sequence.get("steps")
        known = None if listed is None else [row["_id"] for row in listed if row.get("_id")]
        history.begin(sequence_id=sequence_id, known=known)
        self._in_flight = f"add a step to sequence {sequence_id}"
        return self.hook.add_step(
            sequence_id, step, campaign_id=self.campaign_id, known=known, resumable=True
        )

    # --- What Airflow and lemlist know of the step ------------------------------------------------------

    def _evidence(
        self,
        step: Mapping[str, Any],
        sequence: Mapping[str, Any],
        begun: Mapping[str, Any] | None,
        context: Context,
    ) -> StepEvidence:
        from airflow_provider_lemlist.delivery.evidence import StepEvidence

        listed = [row for row in sequence.get("steps") or () if row.get("type") == step["type"]]
        if not listed:
            return StepEvidence()  # nothing that could be the step, so no XCom has to be read
        if begun is not None and begun.get("sequence_id", sequence["_id"]) != sequence["_id"]:
            begun = None  # the task was cleared for another sequence
        added = begun.get("done") if begun else None
        dag = self.get_dag()
        others = [
            task.task_id
            for task in (dag.tasks if dag else ())
            if issubclass(getattr(task, "operator_class", type(task)), AddStepOperator)
        ]
        return StepEvidence(
            listed=listed,
            in_doubt=begun is not None and added is None,
            known=begun.get("known") if begun else None,
            added=added,
            earlier=self._returned_earlier(context, step, listed),
            claimed=self._returned(context, others),
            ahead=self._ahead(context, dag),
        )

    def _returned(self, context: Context, task_ids: list[str], **where: Any) -> set[str]:
        """Return the steps that tasks of this run of the DAG have returned."""
        # Imported here, because it costs as much as all operators together.
        from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY

        pulled = context["ti"].xcom_pull(task_ids=task_ids, key=XCOM_RETURN_KEY, **where) if task_ids else ()
        return {value for value in pulled or () if isinstance(value, str)}

    def _returned_earlier(
        self, context: Context, step: Mapping[str, Any], listed: Collection[Mapping[str, Any]]
    ) -> str | None:
        """Return the listed step that this task returned in an earlier run of the DAG."""
        from airflow_provider_lemlist.delivery.evidence import is_equal

        map_index = getattr(context["ti"], "map_index", -1)
        of_index = {} if map_index < 0 else {"map_indexes": [map_index]}
        earlier = self._returned(context, [self.task_id], include_prior_dates=True, **of_index)
        row = next((row for row in listed if row.get("_id") in earlier), None)
        if row is None or (map_index >= 0 and is_equal(step, row) is False):
            return None  # the rows that a mapped task is expanded over may have moved
        return str(row["_id"])

    def _ahead(self, context: Context, dag: Any) -> int:
        """Count the tasks that want an equal step before this one, and have not returned it yet."""
        if dag is None:
            return 0
        upstream = self.get_flat_relative_ids(upstream=True)  # those have returned theirs, or will not run
        equal = [
            task.task_id
            for task in takewhile(lambda task: task.task_id != self.task_id, dag.tasks)
            if task.task_id not in upstream
            and getattr(task, "_step_as_written", None) == self._step_as_written
        ]
        ahead = len(equal) - len(self._returned(context, equal))
        written = getattr(getattr(dag.get_task(self.task_id), "expand_input", None), "value", None)
        if isinstance(written, Mapping) and [*written] == ["step"] and isinstance(written["step"], list):
            rows = written["step"][: getattr(context["ti"], "map_index", 0)]
            before = [index for index, row in enumerate(rows) if _as_written(row) == self._step_as_written[0]]
            returned = self._returned(context, [self.task_id], map_indexes=before) if before else ()
            ahead += len(before) - len(returned)
        return ahead


def _as_written(step: Any) -> str:
    """Return a step as it is written in the DAG file, so that two of them can be compared."""
    if not isinstance(step, Mapping):
        return ""
    return repr(sorted((str(name), str(value)) for name, value in step.items()))
