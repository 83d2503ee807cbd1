# SPDX-License-Identifier: Apache-2.0
"""In real Airflow, a run knows what the last one has applied, and other tasks get the ids of the steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dags.conftest import dag_bag, states, xcom

pytestmark = pytest.mark.airflow

FOLDER = Path(__file__).parent / "applying"
UPDATE = "PATCH /sequences/{sequenceId}/steps/{stepId}"


def test_each_run_sends_what_has_changed_since_the_last_one(lemlist, run):
    # lemlist does not list a title. With the memory of the first run, the third one would see no change.
    for title, updates in (("A", 0), ("B", 3), ("A", 3)):
        before = len(lemlist.requests(UPDATE))
        dag_run = run(dag_bag(FOLDER).dags["applying"], title=title)
        assert {state for found in states(dag_run).values() for state in found} == {"success"}
        assert len(lemlist.requests(UPDATE)) - before == updates
    world = lemlist.service.world
    assert sorted(campaign.name for campaign in world.campaigns.values()) == [
        "Spring 42",
        "Webinar in Paris",
        "Webinar in Rome",
    ]
    titles = [world.step(xcom(dag_run, "one", "call")).values["title"]]
    titles += [world.step(xcom(dag_run, "mapped", "call", index)).values["title"] for index in range(2)]
    assert titles == ["{{firstName}} A", "A", "A"]

    voice = xcom(dag_run, "one", "steps")["voice"]
    assert xcom(dag_run, "ids") == [voice, world.step(voice).sequence_id]
    assert {audio["stepId"] for audio in lemlist.state()["audio"]} == {voice}
