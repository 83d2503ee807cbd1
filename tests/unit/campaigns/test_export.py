# SPDX-License-Identifier: Apache-2.0
"""The file of an exported campaign changes nothing, or is refused where a value must be filled in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.api.wire import CLOCK
from airflow_provider_lemlist.campaigns.checks import all_mistakes
from airflow_provider_lemlist.campaigns.export import definition_of, to_yaml
from airflow_provider_lemlist.campaigns.files import parse_yaml
from airflow_provider_lemlist.campaigns.plan import Plan, plan_changes
from airflow_provider_lemlist.campaigns.present import Applied, Present
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.sandbox import Sandbox
from airflow_provider_lemlist.steps import CATALOGUE
from tests.unit.test_steps import VALID

#: A campaign and its sequences as lemlist lists them.
CAMPAIGN = {
    "_id": "cam_1",
    "name": "Spring webinar",
    "emoji": "🚀",
    "timezone": "Europe/Paris",
    "labels": [],
    "status": "draft",
    "senders": [{"id": "usr_1", "email": "ann@example.com"}],
    "scheduleIds": ["skd_1"],
}
SEQUENCES: dict[str, Any] = {
    "seq_1": {
        "_id": "seq_1",
        "level": 0,
        "steps": [
            {
                "_id": "stp_1",
                "type": "email",
                "index": 1,
                "delay": 0,
                "subject": "{{firstName}}, a question: yes?",
                "message": "<p>Hi Ä</p>\n<p>🚀</p>\n",
                "emailTemplateId": "etp_1",
            },
            {
                "_id": "stp_2",
                "type": "conditional",
                "conditions": [
                    {"sequenceId": "seq_2", "key": "emailsOpened", "delay": 3, "delayType": "within"},
                    {"sequenceId": "seq_3", "fallback": True},
                ],
            },
        ],
    },
    "seq_2": {"_id": "seq_2", "level": 1, "steps": [{"_id": "stp_3", "type": "manual", "delay": 1}]},
    "seq_3": {"_id": "seq_3", "level": 1, "steps": []},
}
FILE = """\
# What this file does not say is left as lemlist has it. lemlist does not list, or has no value for:
# - autoReview, autoReviewConditions, stopOnEmailReplied, stopOnMeetingBooked, stopOnLinkClicked,
#   stopOnLinkClickedFilter, leadsPausedByInterest, opportunityReplied, opportunityClicked,
#   autoLeadInterest, disableTrackOpen, disableTrackClick, disableTrackReply, disableOutOfOffice,
#   sequenceSharing, labels, tracking, onReplied, onLinkClicked, onMeetingBooked, aiFeatures
# - title, message of step 2, yes 1
# Fill in what is null: the step needs it.
name: Spring webinar
timezone: Europe/Paris
sendUserIds:
  - usr_1
scheduleIds:
  - skd_1
steps:
  - type: email
    subject: '{{firstName}}, a question: yes?'
    message: |
      <p>Hi Ä</p>
      <p>🚀</p>
    delay: 0
  - type: conditional
    conditionKey: emailsOpened
    delayType: within
    delay: 3
    yes:
      - type: manual
        title: null
        delay: 1
"""


def test_file_says_what_lemlist_lists_and_names_the_rest() -> None:
    assert to_yaml(definition_of(CAMPAIGN, SEQUENCES)) == FILE


def test_file_is_refused_where_a_value_must_be_filled_in() -> None:
    [mistake] = all_mistakes(parse_yaml(FILE, "spring.yaml"), {})
    assert mistake.startswith("spring.yaml, line 27: step 2, yes 1, title: has no value")


def test_file_changes_nothing_once_the_value_is_filled_in() -> None:
    definition = parse_yaml(FILE.replace("null\n", "Call\n"), "spring.yaml").definition
    plan = plan_changes(definition, Present(CAMPAIGN, SEQUENCES), Applied())
    assert (plan.changes, plan.notes) == ((), ())
    assert plan.unseen == {("steps", 1, "yes", 0): ("title",)}


@pytest.mark.parametrize("senders", [[], None, [{"id": "mbx_1"}], [{"id": "usr_1"}, {"id": "mbx_1"}]])
def test_senders_that_cannot_be_sent_again_are_left_out(senders: Any) -> None:
    assert "sendUserIds" not in definition_of(CAMPAIGN | {"senders": senders}, SEQUENCES)


def test_type_that_is_not_known_is_refused() -> None:
    steps = [{"_id": "stp_1", "type": "fax", "delay": 1, "message": "m"}]
    text = to_yaml(definition_of(CAMPAIGN, {"seq_1": {"_id": "seq_1", "level": 0, "steps": steps}}))
    [mistake] = all_mistakes(parse_yaml(text, "a.yaml"), {})
    assert "step 1, type: 'fax' is not a step type" in mistake


@given(st.lists(st.text() | st.from_regex(r"[\s\-#:{\[|>'\"a-c\x85\u2028]+"), max_size=5))
def test_every_text_comes_back_as_it_was(texts: list[str]) -> None:
    definition = {"name": "a", "steps": [{"type": "sms", "message": text} for text in texts]}
    assert parse_yaml(to_yaml(definition), "a.yaml").definition == definition


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "2026-11-20",
        "true",
        "3",
        "null",
        "~",
        "",
        " a",
        "a\n",
        "\n",
        "[[ a ]]",
        "a\n\x85b",
        "a\n\u2028b",
    ],
)
def test_text_that_looks_like_something_else_stays_a_text(text: str) -> None:
    assert parse_yaml(to_yaml({"name": text, "steps": []}), "a.yaml").definition["name"] == text


def test_part_that_is_used_twice_is_written_twice() -> None:
    step = {"type": "sms", "message": "Hi"}
    assert to_yaml({"name": "a", "steps": [step, step]}).count("message: Hi") == 2


def test_long_line_is_not_folded() -> None:
    text = "a word and " * 60 + "an end"
    assert f"name: {text}\n" in to_yaml({"name": text, "steps": []})


# --- A campaign that was built in lemlist -----------------------------------------------------------------


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, budget: Any) -> Iterator[LemlistHook]:
    with Sandbox(limit="none") as lemlist:
        monkeypatch.setenv("AIRFLOW_CONN_LEMLIST_DEFAULT", lemlist.airflow_connection())
        monkeypatch.setattr(LemlistHook, "budget", budget)
        monkeypatch.setattr(CLOCK, "sleep", lambda seconds: None)
        yield LemlistHook()


def build(hook: LemlistHook) -> str:
    """Build a campaign with a step of every type, in the main sequence and beneath two conditions."""
    campaign = hook.create_campaign("Spring webinar", campaign_timezone="Europe/Madrid")
    other = hook.create_campaign("Autumn webinar")["_id"]
    values = VALID | {"campaignId": other, "message": "<p>Hi {{firstName}}</p>\n  yes: no\n"}
    sequence_id = campaign["sequenceId"]
    for _ in range(3):
        for kind in CATALOGUE:
            fields = [name for name in CATALOGUE[kind].fields if name != "index"]
            if kind != "conditional":
                hook.add_step(sequence_id, {"type": kind, **{name: values[name] for name in fields}})
        condition = {"type": "conditional", "conditionKey": "hasScore", "delayType": "within", "delay": 3}
        added = hook.add_step(sequence_id, condition)
        yes, otherwise = (branch["sequenceId"] for branch in added["conditions"])
        hook.add_step(yes, {"type": "conditional", "conditionKey": "hasScore", "delayType": "waitUntil"})
        sequence_id = otherwise
    return str(campaign["_id"])


def test_campaign_that_was_built_by_hand_is_exported_and_nothing_differs(hook: LemlistHook) -> None:
    campaign_id = build(hook)
    campaign, sequences = hook.get_campaign(campaign_id), hook.get_sequences(campaign_id)
    definition = definition_of(campaign, sequences)
    text = to_yaml(definition)
    document = parse_yaml(text, "spring.yaml")
    assert document.definition == definition

    # Only what the types need and lemlist does not list is missing, each named with its line.
    lines = text.splitlines()
    missing = [number for number, line in enumerate(lines, 1) if line.endswith(": null")]
    assert [mistake.partition(": ")[0] for mistake in all_mistakes(document, {})] == [
        f"spring.yaml, line {number}" for number in missing
    ]
    unlisted = {"title", "method", "url", "campaignId"}
    assert {lines[number - 1].partition(":")[0].strip() for number in missing} == unlisted

    for name in unlisted:
        text = text.replace(f" {name}: null", f" {name}: {VALID[name]}")
    document = parse_yaml(text, "spring.yaml")
    assert all_mistakes(document, {}) == []
    plan = plan_changes(document.definition, Present(campaign, sequences), Applied())
    assert plan == Plan(sequence_ids=plan.sequence_ids, step_ids=plan.step_ids, unseen=plan.unseen), (
        "something differs"
    )
    assert len(plan.step_ids) == 3 * (len(CATALOGUE) + 1)
    assert set(plan.sequence_ids.values()) >= {
        each for each, sequence in sequences.items() if sequence["steps"]
    }
