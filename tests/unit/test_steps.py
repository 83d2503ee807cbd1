# SPDX-License-Identifier: Apache-2.0
"""All documented limits of a step are checked before it is sent."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lemlist import steps
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.steps import CATALOGUE, FIELDS, Step, branches, check, problems

HTTPS = "https://cdn.example.com/a.png"

#: A valid value for each field.
VALID: dict[str, Any] = {
    "index": 2,
    "delay": 3,
    "subject": "{{firstName}}, a question",
    "message": "<p>Hi {{firstName}}</p>",
    "altMessage": "Hello",
    "title": "Call {{firstName}}",
    "method": "POST",
    "url": "http://hooks.example.com/x",
    "conditionKey": "linkedinInviteAccepted",
    "delayType": "within",
    "campaignId": "cam_1",
    "images": [HTTPS],
    "videos": ["https://cdn.example.com/a.mp4"],
    "skillName": "Python",
    "endorseAnyFallback": True,
    "recordMode": "ai",
}
TYPED = {cls.type: cls for cls in Step.__subclasses__()}


def full(kind: str) -> dict[str, Any]:
    return {"type": kind, **{name: VALID[name] for name in CATALOGUE[kind].fields}}


def reasons(step: Any) -> dict[str, str]:
    return {problem.field: problem.reason for problem in problems(step)}


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


class TestCatalogue:
    def test_catalogue_has_17_types_and_no_unused_field(self) -> None:
        assert len(CATALOGUE) == 17
        assert {name for kind in CATALOGUE.values() for name in kind.fields} == set(FIELDS)

    @pytest.mark.parametrize("kind", CATALOGUE)
    def test_step_with_all_its_fields_is_accepted(self, kind: str) -> None:
        assert check(full(kind)) == full(kind)

    @pytest.mark.parametrize("kind", CATALOGUE)
    def test_step_with_only_its_required_fields_is_accepted(self, kind: str) -> None:
        step = {"type": kind, **{name: VALID[name] for name in CATALOGUE[kind].required}}
        if kind == "conditional":
            step["delayType"] = "waitUntil"
        assert problems(step) == []

    @pytest.mark.parametrize(
        ("kind", "name"), [(kind, name) for kind in CATALOGUE for name in CATALOGUE[kind].required]
    )
    def test_missing_required_field_is_an_error(self, kind: str, name: str) -> None:
        step = full(kind)
        del step[name]
        assert name in reasons(step)
        assert name in reasons({**step, name: None})
        assert name in reasons({**step, name: "  "})

    @pytest.mark.parametrize(
        ("kind", "name"),
        [(kind, name) for kind in CATALOGUE for name in FIELDS if name not in CATALOGUE[kind].fields],
    )
    def test_field_of_another_type_is_refused_by_name(self, kind: str, name: str) -> None:
        assert f"{kind!r} has no such field" in reasons({**full(kind), name: VALID[name]})[name]


class TestLimits:
    @pytest.mark.parametrize("value", [0, 1500])
    def test_delay_at_the_limit_is_accepted(self, value: int) -> None:
        assert problems({"type": "phone", "delay": value}) == []

    @pytest.mark.parametrize("value", [-1, 1501, 1.0, 1.5, "1", True, False, [1]])
    def test_delay_beyond_the_limit_or_of_a_wrong_type_is_refused(self, value: Any) -> None:
        assert "delay" in reasons({"type": "phone", "delay": value})

    @pytest.mark.parametrize(("value", "right"), [(-1, True), (0, True), (10**6, True), (-2, False)])
    def test_index_is_minus_one_or_more(self, value: int, right: bool) -> None:
        assert (problems({"type": "phone", "index": value}) == []) is right

    @pytest.mark.parametrize(
        ("kind", "name"), [("email", "subject"), ("manual", "title")], ids=["subject", "title"]
    )
    def test_400_characters_are_accepted_and_401_are_not(self, kind: str, name: str) -> None:
        assert problems({**full(kind), name: "ü" * 400}) == []
        assert "401" in reasons({**full(kind), name: "{{firstName}}" + "x" * 388})[name]

    def test_message_has_no_length_limit(self) -> None:
        assert problems({**full("email"), "message": "x" * 100_000}) == []

    @pytest.mark.parametrize("path", ["{{ firstName }}", "?n={{firstName | default: 'a friend'}}"])
    def test_placeholder_in_a_url_may_contain_spaces(self, path: str) -> None:
        assert "url" not in reasons({**full("api"), "url": f"https://x.example.com/{path}"})
        assert "url" in reasons({**full("api"), "url": f"https://x.example.com/{path} {path}"})

    @pytest.mark.parametrize("url", ["ftp://x.example.com", "x.example.com", "https://", "http://a b.c", 3])
    def test_invalid_url_is_refused(self, url: Any) -> None:
        assert "url" in reasons({**full("api"), "url": url})

    @pytest.mark.parametrize("method", ["get", "HEAD", "", 1])
    def test_unknown_http_method_is_refused(self, method: Any) -> None:
        assert "method" in reasons({**full("api"), "method": method})

    @pytest.mark.parametrize(
        ("kind", "name"),
        [("conditional", "conditionKey"), ("conditional", "delayType"), ("linkedinVoiceNote", "recordMode")],
    )
    def test_only_documented_choices_are_accepted(self, kind: str, name: str) -> None:
        for choice in FIELDS[name].choices:
            assert problems({**full(kind), name: choice}) == []
        assert "not one of" in reasons({**full(kind), name: "other"})[name]

    def test_within_needs_a_delay_and_wait_until_does_not(self) -> None:
        step = {"type": "conditional", "conditionKey": "emailsOpened", "delayType": "within"}
        assert "delay" in reasons(step)
        assert problems({**step, "delay": 2}) == []
        assert problems({**step, "delayType": "waitUntil"}) == []

    def test_six_media_together_are_accepted_and_seven_are_not(self) -> None:
        step = {"type": "linkedinInvite", "images": [HTTPS] * 4, "videos": [HTTPS] * 2}
        assert problems(step) == []
        assert "images and videos" in reasons({**step, "videos": [HTTPS] * 3})

    @pytest.mark.parametrize(
        "url",
        [
            "http://cdn.example.com/a.png",
            "cdn.example.com/a.png",
            "https://localhost/a.png",
            "https://127.0.0.1/a.png",
            "https://10.0.0.8/a.png",
            "https://[::1]/a.png",
            "https://files.internal/a.png",
            7,
        ],
    )
    def test_media_urls_are_public_and_https(self, url: Any) -> None:
        assert reasons({"type": "linkedinInvite", "images": [HTTPS, url]})["images"].startswith("item 2 ")

    def test_media_are_a_list(self) -> None:
        assert "list" in reasons({"type": "linkedinInvite", "images": HTTPS})["images"]

    @pytest.mark.parametrize("value", ["true", 1, 0])
    def test_flag_is_a_boolean(self, value: Any) -> None:
        assert "endorseAnyFallback" in reasons({"type": "linkedinEndorse", "endorseAnyFallback": value})

    def test_text_field_refuses_a_number(self) -> None:
        assert "message" in reasons({"type": "sms", "message": 5})


class TestProblems:
    def test_typo_is_reported_with_the_closest_name(self) -> None:
        assert "did you mean 'subject'?" in reasons({**full("email"), "subjct": "x"})["subjct"]
        assert "did you mean 'linkedinInvite'?" in reasons({"type": "linkedInInvite"})["type"]
        assert (
            "did you mean 'emailsOpened'?"
            in reasons({**full("conditional"), "conditionKey": "emailOpened"})["conditionKey"]
        )

    @pytest.mark.parametrize("step", [None, "email", 3, ["email"], {}, {"type": None}, {"type": ["email"]}])
    def test_value_that_is_not_a_step_has_one_problem(self, step: Any) -> None:
        assert len(problems(step)) == 1

    def test_error_lists_all_problems_and_names_the_task(self) -> None:
        with pytest.raises(LemlistValidationError) as error:
            check({"type": "email", "delay": -1, "url": "x"}, "The step of task 'hello'")
        for name in ("'hello'", "subject", "message", "delay", "url"):
            assert name in str(error.value)

    def test_field_that_is_none_is_left_out(self) -> None:
        assert check({"type": "sms", "message": "x", "delay": None, "subject": None}) == {
            "type": "sms",
            "message": "x",
        }


class TestTypedSteps:
    def test_each_type_has_a_class_with_its_name(self) -> None:
        assert set(TYPED) == set(CATALOGUE)
        assert all(cls.__name__ == kind[0].upper() + kind[1:] for kind, cls in TYPED.items())
        assert steps.Condition is steps.Conditional

    @pytest.mark.parametrize("kind", CATALOGUE)
    def test_signature_matches_the_catalogue(self, kind: str) -> None:
        parameters = list(inspect.signature(TYPED[kind]).parameters.values())
        assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
        needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        assert needed == [snake(name) for name in CATALOGUE[kind].required]
        in_definition = {"name", "yes", "otherwise"} if kind == "conditional" else {"name"}
        assert {p.name for p in parameters} == {
            snake(name) for name in CATALOGUE[kind].fields
        } | in_definition

    @pytest.mark.parametrize("kind", CATALOGUE)
    def test_typed_step_equals_the_plain_dict(self, kind: str) -> None:
        typed = TYPED[kind](**{snake(name): VALID[name] for name in CATALOGUE[kind].fields})
        assert typed == full(kind)
        assert json.loads(json.dumps(typed)) == full(kind)
        assert copy.deepcopy(typed) == pickle.loads(pickle.dumps(typed)) == typed

    def test_omitted_argument_is_left_out(self) -> None:
        assert steps.Email(subject="s", message="m") == {"type": "email", "subject": "s", "message": "m"}

    def test_unknown_argument_is_a_type_error(self) -> None:
        with pytest.raises(TypeError):
            steps.Sms(message="m", subject="s")  # type: ignore[call-arg]  # the mistake under test


def test_branches_of_a_condition_are_named_by_their_keys() -> None:
    response = {
        "_id": "stp_1",
        "conditions": [
            {"sequenceId": "seq_yes", "label": "Accepted", "key": "linkedinInviteAccepted", "delay": 1},
            {"sequenceId": "seq_no", "fallback": True},
        ],
    }
    assert branches(response) == {"linkedinInviteAccepted": "seq_yes", "fallback": "seq_no"}
    assert branches({"_id": "stp_2", "type": "email"}) == {}


def test_steps_and_leads_do_not_import_airflow() -> None:
    code = (
        "import sys, airflow_provider_lemlist.steps, airflow_provider_lemlist.leads;"
        "print([name for name in sys.modules if name.split('.')[0] in ('airflow', 'requests', 'pendulum')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_tables_in_the_guide_match_the_catalogue() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "operators" / "add-step.md").read_text()

    def names(fields: tuple[str, ...]) -> str:
        return ", ".join(f"`{name}`" for name in fields) or "–"

    for kind, row in CATALOGUE.items():
        typed = TYPED[kind].__name__
        assert (
            f"| `{kind}` | `{typed}` | {names(row.required)} | {names(row.optional)} | {row.about} |" in guide
        )
    for name, field in FIELDS.items():
        (line,) = [line for line in guide.splitlines() if line.startswith(f"| `{name}` | `{snake(name)}` |")]
        assert line.endswith(f"| {'lemlist' if field.lemlist else 'Airflow'} | {field.about} |")
        for limit in (field.least, field.most, *field.choices, *field.schemes):
            assert limit is None or str(limit) in line
