# SPDX-License-Identifier: Apache-2.0
"""
A retry has no second effect: task processes of a running Airflow are killed during a request.

Each request hangs until its process is killed, either before or after it takes effect in lemlist. Airflow
retries the task, and the test counts the effects.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from airflow_provider_lemlist.sandbox import Sandbox
from tests.dags.conftest import EXAMPLES, assert_within_the_documents
from tests.dags.cut_off import cut_off, has_ended, running, wait_until
from tests.waiting import WINDOW
from tools.private_airflow import VERSION, PrivateAirflow

pytestmark = pytest.mark.airflow

TASKS = ("lead_before", "step_before", "lead_after", "step_after", "upload_after", "apply_after")
HAS_TASK_STATE_STORE = tuple(map(int, VERSION.split(".")[:2])) >= (3, 3)
AUDIO = EXAMPLES / "voice_notes" / "ada.m4a"


class Scene:
    """Two campaigns in a sandbox whose create requests hang once."""

    def __init__(self, lemlist: Sandbox) -> None:
        self.lemlist = lemlist
        self.campaigns = {when: lemlist.campaign(when) for when in ("before", "after")}
        sequence_id = self.campaigns["after"]["sequenceId"]
        self.voice_note = lemlist.step(sequence_id, "linkedinVoiceNote")
        # The campaign already has an equal step. Only the history of the task, which Airflow keeps since
        # 3.3, distinguishes it from the step that the task adds.
        for campaign in self.campaigns.values() if HAS_TASK_STATE_STORE else ():
            lemlist.step(
                campaign["sequenceId"],
                "email",
                subject="{{firstName}}, a question",
                message="<p>Hi {{firstName}}</p>",
            )
        self.listener = lemlist.lead(self.campaigns["after"]["_id"], "listener@example.com")
        self.steps_before = {when: self._steps(when) for when in self.campaigns}
        self.applied = lemlist.campaign("Applied")
        self.routes = {
            "upload_after": "POST /leads/audio",
            "apply_after": f"POST /sequences/{self.applied['sequenceId']}/steps",
        }
        for when, campaign in self.campaigns.items():
            self.routes[f"lead_{when}"] = f"POST /campaigns/{campaign['_id']}/leads/"
            self.routes[f"step_{when}"] = f"POST /sequences/{campaign['sequenceId']}/steps"
        for task_id, route in self.routes.items():
            lemlist.fault(route, "hang", when=task_id.rpartition("_")[2])

    def variables(self) -> dict[str, str]:
        """Return the Airflow variables of the DAG."""
        variables = {
            "listener": self.listener["_id"],
            "voice_note": self.voice_note["_id"],
            "audio": os.fspath(AUDIO),
        }
        for when, campaign in self.campaigns.items():
            variables |= {f"campaign_{when}": campaign["_id"], f"sequence_{when}": campaign["sequenceId"]}
        return variables

    def hangs(self, task_id: str) -> bool:
        """Return whether the request of a task hangs, before or after its effect as intended."""
        hanging = [exchange for exchange in self.lemlist.requests(self.routes[task_id]) if exchange["fault"]]
        return bool(hanging) and len(self.effects(task_id)) == (1 if task_id.endswith("after") else 0)

    def effects(self, task_id: str) -> list[str]:
        """Return the ids that the attempts of a task have created."""
        what, _, when = task_id.rpartition("_")
        if what == "step":
            return [step for step in self._steps(when) if step not in self.steps_before[when]]
        state = self.lemlist.state()
        if what == "apply":
            sequence = self.lemlist.service.world.sequences[self.applied["sequenceId"]]
            return [self.applied["_id"] for _ in sequence.steps]
        if what == "upload":
            return [audio["url"] for audio in state["audio"]]
        return [lead["_id"] for lead in state["leads"] if lead["variables"]["email"] == f"{when}@example.com"]

    def _steps(self, when: str) -> list[str]:
        campaign = next(each for each in self.lemlist.state()["campaigns"] if each["name"] == when)
        return [step["_id"] for step in campaign["sequences"][campaign["sequenceId"]]["steps"]]


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Scene, PrivateAirflow]]:
    """Run the tasks in Airflow, kill each during its request, and wait for the end of the run."""
    with Sandbox(window=WINDOW) as lemlist:
        scene = Scene(lemlist)
        with running("killed", lemlist, tasks=len(TASKS), variables=scene.variables()) as airflow:
            waiting = set(TASKS)

            def kill_hanging_tasks() -> bool:
                for task_id in sorted(waiting):
                    if scene.hangs(task_id):
                        cut_off(airflow, task_id, signal.SIGKILL)
                        waiting.remove(task_id)
                assert not (waiting and has_ended(airflow)), f"{waiting} did not hang:\n{airflow.tail(100)}"
                return not waiting

            wait_until(kill_hanging_tasks, "a hanging request of each task", airflow)
            wait_until(lambda: has_ended(airflow), "the end of the run", airflow)
            yield scene, airflow


@pytest.mark.parametrize("task_id", TASKS)
def test_a_killed_task_is_retried_and_takes_effect_once(scene, task_id: str):
    sandbox, airflow = scene
    [ti] = airflow.query("SELECT state, try_number FROM task_instance WHERE task_id = ?", task_id)
    assert ti["state"] == "success"
    assert ti["try_number"] >= 2
    [effect] = sandbox.effects(task_id)
    [returned] = airflow.query("SELECT value FROM xcom WHERE key = 'return_value' AND task_id = ?", task_id)
    assert effect in str(returned["value"])


def test_every_request_of_killed_tasks_agrees_with_the_documents(scene):
    assert_within_the_documents(scene[0].lemlist)
