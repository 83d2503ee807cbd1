# SPDX-License-Identifier: Apache-2.0
"""Our copy equals the documents, and the checks made from it find invalid exchanges."""

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
    """Return a document without its prose; among names of fields, ``title`` is a field, not prose."""
    if isinstance(node, dict):
        return {
            key: without_prose(value, names=key in ("properties", "paths", "responses", "content"))
            for key, value in node.items()
            if names or key not in PROSE
        }
    return [without_prose(each) for each in node] if isinstance(node, list) else node


@pytest.mark.skipif(not ORIGINALS.is_dir(), reason="the original documents are not available")
@pytest.mark.parametrize("original", sorted(ORIGINALS.glob("openapi-*.yaml")), ids=lambda path: path.stem)
def test_the_copy_equals_the_document(original: Path) -> None:
    ours = yaml.safe_load((HERE / original.name.removeprefix("openapi-")).read_text())
    assert ours == without_prose(yaml.safe_load(original.read_text()))


def test_the_copies_contain_no_prose() -> None:
    for file in HERE.glob("*.yaml"):
        document = yaml.safe_load(file.read_text())
        assert document == without_prose(document)


def test_the_copies_contain_the_three_operations() -> None:
    assert {(each.method, each.template) for each in operations()} == {
        ("POST", "/campaigns/{campaignId}/leads/"),
        ("POST", "/sequences/{sequenceId}/steps"),
        ("POST", "/leads/audio"),
    }


# --- Invalid exchanges ------------------------------------------------------------------------------------

HEADERS = {
    "content-type": "application/json; charset=utf-8",
    "retry-after": "2",
    "x-ratelimit-limit": "20",
    "x-ratelimit-remaining": "19",
    "x-ratelimit-reset": "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)",
}


def exchange(method: str, path: str, body: str, *, query: str = "", response: str = "{}") -> dict[str, Any]:
    headers = {"authorization": "Basic", "content-type": "application/json"}
    return {
        "method": method,
        "path": path,
        "query": query,
        "status": 200,
        "request": {"headers": headers, "body": body, "encoding": "utf-8", "complete": True},
        "response": {"headers": HEADERS, "body": response, "encoding": "utf-8", "complete": True},
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
def test_a_valid_exchange_has_no_violations(good: dict[str, Any]) -> None:
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
        (LEAD, "query", "deduplicate=True", "query: deduplicate is not true or false"),
        (LEAD, "query", "dedupe=true", "query: dedupe is not documented"),
        (LEAD, "status", 201, "response: status 201 is not documented"),
        (LEAD, "response.body", '{"isPaused": "no"}', "response: $.isPaused 'no' is not of type 'boolean'"),
        (LEAD, "response.headers.retry-after", "soon", "response: retry-after is 'soon', not a number"),
        (LEAD, "response.headers.x-ratelimit-reset", "1613462562", "response: x-ratelimit-reset is '1613"),
        (LEAD, "response.headers.content-type", "text/html", "response: text/html with status 200"),
        (STEP, "request.body", '{"type": "fax"}', "body: $.type 'fax' is not one of"),
        (STEP, "request.body", '{"type": "email", "cc": "x"}', "body: cc is not documented"),
        (STEP, "request.body", '{"delay": 1.5}', "body: $.delay 1.5 is not of type 'integer'"),
        (AUDIO, "query", "leadId=lea_1", "query: stepId is missing"),
        (AUDIO, "request.body", "--x--\r\n", "body: the part file is missing"),
        (AUDIO, "status", None, "response: none was sent"),
    ],
)  # fmt: skip
def test_an_invalid_exchange_has_violations(
    good: dict[str, Any], place: str, value: Any, complaint: str
) -> None:
    broken = copy.deepcopy(good)
    *way, last = place.split(".")
    node = broken
    for key in way:
        node = node[key]
    node[last] = value
    assert any(found.startswith(complaint) for found in violations(broken)), violations(broken)


def test_an_undocumented_route_has_no_operation() -> None:
    other = exchange("GET", "/team", "")
    assert operation_of(other) is None
    assert violations(other) == []
