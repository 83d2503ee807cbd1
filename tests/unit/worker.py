# SPDX-License-Identifier: Apache-2.0
"""A worker that runs one attempt of a task after another, without Airflow's database."""

from __future__ import annotations

import json
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator


class StateStore(dict[str, Any]):
    """The task state store of Airflow 3.3, which outlives the attempts; values go through JSON, as there."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Worker:
    """
    Renders and executes tasks of one DAG run.

    :param has_store: Whether Airflow has a task state store, as since 3.3.
    """

    def __init__(self, *, has_store: bool) -> None:
        self.has_store = has_store
        self.stores: defaultdict[str, StateStore] = defaultdict(StateStore)
        self.earlier_xcoms: dict[str, dict[str, Any]] = {}
        self.xcoms: dict[str, dict[str, Any]] = {}
        self.asset_extras: dict[str, dict[str, Any]] = {}
        #: The run, for tasks that ask for its window.
        self.dag_run: Any = None
        self.run_id = "run_1"

    def run_mapped(self, mapped: Any, index: int, **values: Any) -> Any:
        """
        Run the first attempt of one map index.

        :param values: What upstream tasks returned for the arguments that the task is mapped over.
        """
        literal = {
            name: given[index] for name, given in mapped.expand_input.value.items() if name not in values
        }
        return self.run(mapped.unmap({**literal, **values}), map_index=index)

    def run(
        self,
        task: BaseOperator,
        *,
        attempt: int = 1,
        retries: int = 3,
        cleared: int = 0,
        map_index: int = -1,
    ) -> Any:
        """
        Run one attempt.

        :param attempt: Which automatic attempt it is.
        :param cleared: How often the task has been cleared after all its attempts were used.
        """
        task.retries = retries
        pushed = self.xcoms[task.task_id if map_index < 0 else f"{task.task_id} {map_index}"] = {}
        before = cleared * (retries + 1)
        ti = SimpleNamespace(
            task=task,
            dag_id="daily",
            run_id=self.run_id,
            task_id=task.task_id,
            map_index=map_index,
            try_number=before + attempt,
            max_tries=before + retries,
            xcom_push=lambda key, value: pushed.update({key: json.loads(json.dumps(value))}),
            xcom_pull=self._pull,
            get_previous_dagrun=lambda: None,
            get_relevant_upstream_map_indexes=lambda *_, **__: None,  # called by Airflow 2
        )
        events = self.asset_extras
        context: Any = {
            "ti": ti,
            "task_instance": ti,
            "dag": task.dag if task.has_dag() else None,
            "dag_run": self.dag_run,
            "ds": "2026-11-20",
            "params": {"campaign": "cam_of_params", "delay": 3, "yes": True},
            "expanded_ti_count": None,
        }
        if self.has_store:
            context["task_state_store"] = self.stores[
                f"{task.task_id} {map_index}" if map_index >= 0 else task.task_id
            ]

        class Events:
            def __getitem__(self, asset: Any) -> Any:
                return SimpleNamespace(extra=events.setdefault(asset.uri, {}))

        context["outlet_events"] = Events()
        task.render_template_fields(context)
        result = task.execute(context)
        if result is not None:
            pushed["return_value"] = result
        return result

    def next_run(self) -> None:
        """Start another run of the DAG, which has no history but can read the XComs of earlier runs."""
        for name, pushed in self.xcoms.items():
            self.earlier_xcoms[name] = {**self.earlier_xcoms.get(name, {}), **pushed}
        self.xcoms = {}
        self.stores.clear()
        self.run_id = f"run_{int(self.run_id.removeprefix('run_')) + 1}"

    def _pull(
        self,
        task_ids: str | list[str],
        key: str = "return_value",
        include_prior_dates: bool = False,
        map_indexes: list[int] | int | None = None,
        **_: Any,
    ) -> Any:
        earlier = self.earlier_xcoms if include_prior_dates else {}
        xcoms = {
            name: {**earlier.get(name, {}), **self.xcoms.get(name, {})} for name in {**earlier, **self.xcoms}
        }
        if isinstance(task_ids, str):
            index = map_indexes if isinstance(map_indexes, int) else -1
            return xcoms.get(task_ids if index < 0 else f"{task_ids} {index}", {}).get(key)
        if map_indexes is not None:
            names = [name if index < 0 else f"{name} {index}" for name in task_ids for index in map_indexes]
        else:
            names = [name for name in xcoms if name.split(" ")[0] in task_ids]
        return [xcoms[name][key] for name in names if key in xcoms.get(name, {})]
