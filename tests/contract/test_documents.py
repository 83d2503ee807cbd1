# SPDX-License-Identifier: Apache-2.0
"""Our copy of the documents says what they say; the judge made of it finds what is wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.documents import HERE, operation_of, operations, violations

ORIGINALS = Path(__file__).parents[3] / "shared" / "lemlist-api"
PROSE = {"description", "example", "examples", "summary", "title", "tags", "info"}


def without_prose(node: Any, *, names: bool = False) -> Any:
    """Return a document without its prose; where the keys are names, ``title`` is a field and no prose."""
    if isinstance(node, dict):
        return {
            key: without_prose(value, names=key in ("properties", "paths", "responses", "content"))
            for key, value in node.items()
            if names or key not in PROSE
        }
    return [without_prose(each) for each in node] if isinstance(node, list) else node


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the documents themselves are not here")
@pytest.mark.parametrize("original", sorted(ORIGINALS.glob("openapi-*.yaml")), ids=lambda path: path.stem)
def test_the_copy_says_what_the_document_says(original: Path) -> None:
    ours = yaml.safe_load((HERE / original.name.removeprefix("openapi-")).read_text())
    assert ours == without_prose(yaml.safe_load(original.read_text()))


def test_the_copies_hold_no_prose() -> None:
    for file in HERE.glob("*.yaml"):
        document = yaml.safe_load(file.read_text())
        assert document == without_prose(document)


def test_all_three_operations_are_there() -> None:
    assert {(each.method, each.template) for each in operations()} == {
        ("POST", "/campaigns/{campaignId}/leads/"),
        ("POST", "/sequences/{sequenceId}/steps"),
        ("POST", "/leads/audio"),
    }


# --- The judge finds what is wrong ------------------------------------------------------------------------

HEADERS = {
    "content-type": "application/json; charset=utf-8",
    "retry-after": "2",
    "x-ratelimit-limit": "20",
    "x-ratelimit-remaining": "19",
    "x-ratelimit-reset": "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)",
}


def exchange(method: str, path: str, body: str, *, query: str = "", answer: str = "{}") -> dict[str, Any]:
    asked = {"authorization": "Basic", "content-type": "application/json"}
    return {
        "method": method,
        "path": path,
        "query": query,
        "status": 200,
        "request": {"headers": asked, "body": body, "encoding": "utf-8", "complete": True},
        "response": {"headers": HEADERS, "body": answer, "encoding": "utf-8", "complete": True},
    }


LEAD = exchange("POST", "/campaigns/cam_1/leads/", '{"email": "ana@example.com", "plan": "trial"}')
STEP = exchange("POST", "/sequences/seq_1/steps", '{"type": "email", "subject": "Hi", "message": "Hi"}')
AUDIO = exchange(
    "POST",
    "/leads/audio",
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.m4a"\r\n\r\nabc\r\n--x--\r\n',
    query="leadId=lea_1&stepId=stp_1",
)
AUDIO["request"]["headers"] = {"authorization": "Basic", "content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize("good", [LEAD, STEP, AUDIO])
def test_a_good_exchange_has_no_violations(good: dict[str, Any]) -> None:
    assert operation_of(good)
    assert violations(good) == []


@pytest.mark.parametrize(
    ("good", "place", "value", "complaint"),
    [
        (LEAD, "request.headers.authorization", "Bearer", "authorization is Bearer, not Basic"),
        (LEAD, "request.headers.content-type", "text/plain", "body: text/plain, not application/json"),
        (LEAD, "request.body", '{"email": 1}', "body: $.email 1 is not of type 'string'"),
        (LEAD, "request.body", '{"plan": 1}', "body: plan is a custom variable and not a string"),
        (LEAD, "request.body", "[", "body: not JSON"),
        (LEAD, "query", "deduplicate=True", "query: deduplicate is not the word true or false"),
        (LEAD, "query", "dedupe=true", "query: dedupe is not documented"),
        (LEAD, "status", 201, "answer: status 201 is not documented"),
        (LEAD, "response.body", '{"isPaused": "no"}', "answer: $.isPaused 'no' is not of type 'boolean'"),
        (LEAD, "response.headers.retry-after", "soon", "answer: retry-after is 'soon', not a number"),
        (LEAD, "response.headers.x-ratelimit-reset", "1613462562", "answer: x-ratelimit-reset is '1613"),
        (LEAD, "response.headers.content-type", "text/html", "answer: text/html with status 200"),
        (STEP, "request.body", '{"type": "fax"}', "body: $.type 'fax' is not one of"),
        (STEP, "request.body", '{"type": "email", "cc": "x"}', "body: cc is not documented"),
        (STEP, "request.body", '{"delay": 1.5}', "body: $.delay 1.5 is not of type 'integer'"),
        (AUDIO, "query", "leadId=lea_1", "query: stepId is missing"),
        (AUDIO, "request.body", "--x--\r\n", "body: the part file is missing"),
        (AUDIO, "status", None, "answer: none was sent"),
    ],
)  # fmt: skip
def test_a_broken_exchange_is_found(good: dict[str, Any], place: str, value: Any, complaint: str) -> None:
    broken = copy.deepcopy(good)
    *way, last = place.split(".")
    node = broken
    for key in way:
        node = node[key]
    node[last] = value
    assert any(found.startswith(complaint) for found in violations(broken)), violations(broken)


def test_a_route_of_no_document_is_told_apart() -> None:
    other = exchange("GET", "/team", "")
    assert operation_of(other) is None
    assert violations(other) == []
