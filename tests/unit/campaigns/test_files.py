# SPDX-License-Identifier: Apache-2.0
"""Every error in a campaign file names the file, the line and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_lemlist.campaigns import files
from airflow_provider_lemlist.campaigns.checks import Document, all_mistakes
from airflow_provider_lemlist.campaigns.definition import UNKNOWN
from airflow_provider_lemlist.campaigns.files import is_remote, parse_yaml, read_document, with_texts
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError

SPRING = """\
name: Spring webinar
timezone: Europe/Paris
steps:
  - type: email
    subject: "{{firstName}}, a question"
    message: |
      Hi {{firstName}},
      yes: this is a text.

  - type: conditional
    conditionKey: emailsOpened
    delayType: within
    delay: 3
    yes:
      - type: sms
        message: yes
    otherwise: []
"""


@pytest.fixture(params=["libyaml", "Python"], autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read with libyaml, and without it, as PyYAML does where it is not installed."""
    files.yaml_loader.cache_clear()
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader")
    yield
    files.yaml_loader.cache_clear()


def parse(text: str) -> Any:
    return parse_yaml(text, "spring.yaml").definition


def error(text: str) -> str:
    with pytest.raises(LemlistValidationError) as raised:
        parse_yaml(text, "spring.yaml")
    return str(raised.value)


def found(text: str, **parameters: Any) -> list[str]:
    return all_mistakes(parse_yaml(text, "spring.yaml"), parameters)


def test_file_is_read_with_lemlists_names() -> None:
    assert parse(SPRING) == {
        "name": "Spring webinar",
        "timezone": "Europe/Paris",
        "steps": [
            {
                "type": "email",
                "subject": "{{firstName}}, a question",
                "message": "Hi {{firstName}},\nyes: this is a text.\n",
            },
            {
                "type": "conditional",
                "conditionKey": "emailsOpened",
                "delayType": "within",
                "delay": 3,
                "yes": [{"type": "sms", "message": "yes"}],
                "otherwise": [],
            },
        ],
    }
    assert found(SPRING) == []


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "Yes", "NO", "y"])
def test_yes_and_no_are_texts(word: str) -> None:
    assert parse(f"{word}: {word}") == {word: word}


@pytest.mark.parametrize(("word", "value"), [("true", True), ("False", False), ("null", None), ("3", 3)])
def test_true_and_false_are_flags(word: str, value: Any) -> None:
    assert parse(f"a: {word}") == {"a": value}


@pytest.mark.parametrize("date", ["2026-11-20", "2026-13-45", "2026-11-20T10:00:00Z"])
def test_date_is_a_text(date: str) -> None:
    assert parse(f"name: {date}") == {"name": date}


def test_byte_order_mark_and_line_ends_of_windows_do_not_matter(tmp_path: Path) -> None:
    text = SPRING + "colour: red\n"
    (tmp_path / "spring.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    document = read_document("spring.yaml", str(tmp_path))
    assert document.definition == parse(text)
    assert document.lines == parse_yaml(text, "").lines
    assert parse("\ufeff" + text.replace("\n", "\r\n")) == parse(text)


class TestMistakes:
    @pytest.mark.parametrize(
        ("old", "new", "mistake"),
        [
            ("delay: 3", "delay: soon", "line 13: step 2, delay: must be a whole number, not 'soon'"),
            (
                "    delay: 3\n",
                "",
                "line 10: step 2, delay: delayType 'within' needs it: the number of days to",
            ),
            (
                "delay: 3",
                "delay: 3\n    delya: 3",
                "line 14: step 2, delya: 'conditional' has no such field (did you mean",
            ),
            ("type: sms", "type: smss", "line 15: step 2, yes 1, type: 'smss' is not a step type; the types"),
            ("message: yes", "message:", "line 16: step 2, yes 1, message: has no value; leave it out"),
            ("otherwise: []", "otherwise:", "line 17: step 2, otherwise: has no value; leave it out"),
            ("otherwise: []", "otherwise: [null]", "line 17: step 2, otherwise 1: has no value; leave"),
            (
                "otherwise: []",
                "otherwise: off",
                "line 17: step 2, otherwise: must be a list of steps, not str",
            ),
            ("emailsOpened", "emailOpened", "line 11: step 2, conditionKey: 'emailOpened' is not one of"),
            ("Europe/Paris", "Paris", "line 2: timezone: must be an IANA time zone, such as Europe/Paris"),
            ("timezone", "time_zone", "line 2: time_zone: a campaign has no such setting (did you mean 'tim"),
            (
                "timezone: E",
                "tracking:\n  trackOpen: E",
                "line 3: tracking, trackOpen: tracking has no such fi",
            ),
            ("this is a text", "{{ ds }}", "line 6: step 1, message: contains an Airflow template ('ds')"),
            (
                "delay: 3",
                "delay: '[[ days ]]'",
                "line 13: step 2, delay: parameters has no value for [[ days ]]",
            ),
            (
                "delay: 3",
                "delay: 3\n    index: 0",
                "line 14: step 2, index: the place of a step is its place",
            ),
            (
                "type: sms",
                "name: 1st\n        type: sms",
                "line 15: step 2, yes 1, name: must begin with a let",
            ),
            ("name: Spring webinar\n", "", "line 1: a campaign needs 'name'"),
        ],
    )
    def test_mistake_names_file_line_and_field(self, old: str, new: str, mistake: str) -> None:
        [text] = found(SPRING.replace(old, new, 1))
        assert text.startswith(f"spring.yaml, {mistake}")

    def test_unused_parameter_names_the_file(self) -> None:
        assert found(SPRING, days=3) == ["spring.yaml, line 1: no text uses the parameter 'days'"]

    @pytest.mark.parametrize(
        ("text", "kind"), [("- a\n- b\n", "list"), ("hello", "str"), ("null", "NoneType")]
    )
    def test_top_must_be_a_mapping(self, text: str, kind: str) -> None:
        assert found(text) == [
            "spring.yaml, line 1: must be a Campaign, a mapping, or the path of a YAML file, not " + kind
        ]

    def test_parameter_is_a_number_where_one_is_needed(self) -> None:
        assert found(SPRING.replace("delay: 3", "delay: '[[ days ]]'"), days=3) == []

    def test_name_that_is_no_text_is_named(self) -> None:
        assert found("5: '[[ x ]]'\nname: a\nsteps: []\n") == [
            "spring.yaml, line 1: 5: parameters has no value for [[ x ]]",
            "spring.yaml, line 1: 5: a campaign has no such setting",
        ]


class TestNotYaml:
    @pytest.mark.parametrize(
        ("text", "line", "reason"),
        [
            ("name: a\n\tsteps: []\n", 2, "found"),
            ("name: a: b\n", 1, "mapping values are not allowed"),
            ("name: a\nsteps: [\n", 3, ""),
            ("name: a\nsteps: []\nname: b\n", 3, "'name' is there twice"),
            ("steps:\n- type: sms\n  type: email\n", 3, "'type' is there twice"),
            ("name: a\n---\nname: b\n", 2, "but found another document"),
            ("name: !foo a\n", 1, "could not determine a constructor for the tag '!foo'"),
            ("a: b\nname: !!int a\n", 2, "no value for tag:yaml.org,2002:int"),
            ("a: b\nname: !!bool maybe\n", 2, "no value for tag:yaml.org,2002:bool"),
            ("a: b\nname: a\x0bb\n", 2, ""),
            ("name: *nowhere\n", 1, "found undefined alias"),
            ("? [a, b]\n: c\n", 1, "found unhashable key"),
            ("a: b\nsteps: &s\n  - type: conditional\n    yes: *s\n", 4, "an alias contains itself"),
            ("a: b\nsteps: &s\n  - type: conditional\n    <<: *s\n", 3, "an alias contains itself"),
        ],
    )
    def test_error_names_file_and_line(self, text: str, line: int, reason: str) -> None:
        message = error(text)
        assert message.startswith(f"spring.yaml, line {line}: not valid YAML: {reason}")
        assert message.endswith(". Nothing was sent.")
        assert "quotes" not in message

    @pytest.mark.parametrize(
        "value",
        ["{{firstName}}", "{{firstName}}, a question", "[[ days ]]", "[[ name ]], a question", "{% if a %}b"],
    )
    def test_text_in_brackets_without_quotes_is_explained(self, value: str) -> None:
        message = error(f"name: a\nsteps:\n  - type: email\n    subject: {value}\n    message: m\n")
        assert message.startswith("spring.yaml, line 4: not valid YAML: ")
        assert message.endswith("; put quotes around a text that begins with {{ or [[. Nothing was sent.")

    @pytest.mark.parametrize("text", ["", "\n", "# Spring webinar\n"])
    def test_empty_file_is_refused(self, text: str) -> None:
        assert error(text) == "spring.yaml, line 1: the file is empty. Nothing was sent."


class TestAnchors:
    TEXT = """\
name: a
steps:
  - &mail
    type: email
    subject: s
    message: m
    delya: 1
  - subject: 5
    <<: *mail
  - <<: [{message: 6}, *mail]
  - *mail
"""

    def test_values_are_merged_as_yaml_says(self) -> None:
        mail = {"type": "email", "subject": "s", "message": "m", "delya": 1}
        assert parse(self.TEXT)["steps"] == [mail, mail | {"subject": 5}, mail | {"message": 6}, mail]

    def test_mistake_in_a_merged_value_names_the_line_where_it_is_written(self) -> None:
        places = [mistake.partition(" '")[0].partition(": must")[0] for mistake in found(self.TEXT)]
        assert places == [
            "spring.yaml, line 7: step 1, delya:",
            "spring.yaml, line 7: step 2, delya:",
            "spring.yaml, line 7: step 3, delya:",
            "spring.yaml, line 7: step 4, delya:",
            "spring.yaml, line 8: step 2, subject",
            "spring.yaml, line 10: step 3, message",
        ]


class TestTextsInFiles:
    DEFINITION = "name: a\nsteps:\n  - type: email\n    subject: s\n    message: {file: opening.html}\n"

    def test_text_is_read_beside_the_campaign_file(self, tmp_path: Path) -> None:
        (tmp_path / "campaigns").mkdir()
        (tmp_path / "campaigns" / "spring.yaml").write_text(self.DEFINITION)
        (tmp_path / "campaigns" / "opening.html").write_bytes("\ufeff<p>Ä {{firstName}}</p>\r\n".encode())
        document = read_document("campaigns/spring.yaml", str(tmp_path))
        assert document.definition["steps"][0]["message"] == "<p>Ä {{firstName}}</p>"
        assert all_mistakes(document, {}) == []

    def test_text_may_have_parameters(self, tmp_path: Path) -> None:
        (tmp_path / "opening.html").write_text("Hi [[ place ]]")
        document = with_texts(parse_yaml(self.DEFINITION, "spring.yaml"), str(tmp_path))
        assert all_mistakes(document, {}) == [
            "spring.yaml, line 5: step 1, message: parameters has no value for [[ place ]]"
        ]

    def test_missing_text_is_named_once_beside_the_other_mistakes(self, tmp_path: Path) -> None:
        text = self.DEFINITION.replace("subject: s", "subject: 5")
        document = with_texts(parse_yaml(text, "spring.yaml"), str(tmp_path))
        assert document.definition["steps"][0]["message"] is UNKNOWN
        missing = "the file 'opening.html' cannot be read: No such file or directory"
        assert all_mistakes(document, {}) == [
            "spring.yaml, line 4: step 1, subject: must be text, not int",
            f"spring.yaml, line 5: step 1, message: {missing}",
        ]

    def test_text_that_is_not_utf_8_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "opening.html").write_bytes(b"\xff\xfe")
        [mistake] = all_mistakes(with_texts(parse_yaml(self.DEFINITION, "spring.yaml"), str(tmp_path)), {})
        assert mistake.startswith(
            "spring.yaml, line 5: step 1, message: the file 'opening.html' cannot be read"
        )

    @pytest.mark.parametrize("value", ["{file: 5}", "{file: a, name: b}", "{files: a}", "{}"])
    def test_only_a_path_names_a_file(self, value: str, tmp_path: Path) -> None:
        text = self.DEFINITION.replace("{file: opening.html}", value)
        document = with_texts(parse_yaml(text, "spring.yaml"), str(tmp_path))
        assert all_mistakes(document, {}) == ["spring.yaml, line 5: step 1, message: must be text, not dict"]

    def test_only_texts_of_lemlist_stand_in_files(self, tmp_path: Path) -> None:
        (tmp_path / "url.txt").write_text("https://example.com")
        text = "name: a\nsteps:\n  - {type: api, method: GET, url: {file: url.txt}}\n"
        document = with_texts(parse_yaml(text, "spring.yaml"), str(tmp_path))
        assert all_mistakes(document, {}) == ["spring.yaml, line 3: step 1, url: must be text, not dict"]

    def test_definition_in_python_may_name_files_too(self, tmp_path: Path) -> None:
        (tmp_path / "sms.txt").write_text("Hi\n\n")
        definition = {"name": "a", "steps": [{"type": "sms", "message": {"file": "sms.txt"}}]}
        found = with_texts(Document(definition), str(tmp_path)).definition
        assert found == {"name": "a", "steps": [{"type": "sms", "message": "Hi\n"}]}

    def test_object_storage_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "spring.yaml").write_text(self.DEFINITION)
        (tmp_path / "opening.html").write_text("Hi")
        for path, folder in ((f"file://{tmp_path}/spring.yaml", "/"), ("spring.yaml", f"file://{tmp_path}")):
            document = read_document(path, folder)
            assert document.definition["steps"][0]["message"] == "Hi"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b"name: \xff", "can't decode byte")]
)
def test_campaign_file_that_cannot_be_read_is_named(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    if content:
        (tmp_path / "spring.yaml").write_bytes(content)
    with pytest.raises(LemlistValidationError, match=reason) as raised:
        read_document("spring.yaml", str(tmp_path))
    assert str(raised.value).startswith(f"The campaign file '{tmp_path}/spring.yaml' cannot be read: ")


@pytest.mark.parametrize(
    ("path", "remote"),
    [("a.yaml", False), ("/dags/a.yaml", False), ("file:///a.yaml", False), ("s3://bucket/a.yaml", True)],
)
def test_only_an_object_storage_is_remote(path: str, remote: bool) -> None:
    assert is_remote(path) is remote


def test_storage_that_fails_may_work_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spring.yaml").write_text("name: Spring\nsteps: []\n")

    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionResetError("reset by the storage")

    monkeypatch.setattr(type(tmp_path), "read_text", fail)
    with pytest.raises(LemlistError, match="cannot be read now: reset by the storage") as raised:
        read_document("spring.yaml", str(tmp_path))
    assert raised.value.retryable


def test_storage_whose_package_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LemlistValidationError, match="s3://bucket/spring.yaml.* cannot be read"):
        read_document("s3://bucket/spring.yaml", str(tmp_path))
