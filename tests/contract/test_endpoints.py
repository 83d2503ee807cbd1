# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_lemlist.api.operations import (
    CLOSED,
    OPERATIONS,
    UNLIKE_THEIR_METHOD,
    Effect,
    Shape,
    operation_for,
)
from airflow_provider_lemlist.exceptions import LemlistValidationError

HERE = Path(__file__).parent
#: The maintainers' digest of the API, beside the checkout; without it the test is skipped.
DIGEST = HERE.parents[2] / "shared" / "lemlist-api" / "endpoints.md"

DOCUMENTED = [
    tuple(line.split(maxsplit=1))
    for line in (HERE / "endpoints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.skipif(not DIGEST.exists(), reason="the digest of the API is not beside this checkout")
def test_the_list_of_operations_equals_the_digest() -> None:
    text = DIGEST.read_text().partition("## Not in v2")[0]
    rows = re.findall(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `([^`]+)` \| (.*?) \|", text, re.MULTILINE)
    assert [(verb, path) for verb, path, what in rows if "DEPRECATED" not in what] == DOCUMENTED


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_operation_of_the_hook_is_documented(operation: object) -> None:
    verb, _, path = str(operation).partition(" ")
    assert (verb, path) in DOCUMENTED


def test_every_exception_to_the_verb_is_documented() -> None:
    assert not {(verb, path) for verb, path, _ in UNLIKE_THEIR_METHOD} - set(DOCUMENTED)


@pytest.mark.parametrize(("verb", "path"), DOCUMENTED, ids=" ".join)
def test_every_documented_operation_can_be_called_unless_it_is_dangerous(verb: str, path: str) -> None:
    dangerous = {template for closed, template, _ in CLOSED if closed == "DELETE"}
    if verb == "DELETE" and re.sub(r"\{\w+\}$", "{leadId}", path.rstrip("/")) in dangerous:
        with pytest.raises(LemlistValidationError, match="delete_lead or unsubscribe_lead"):
            operation_for(verb, path, Shape.ANY)
        return
    assert str(operation_for(verb, path, Shape.ANY)) == f"{verb} {path}"


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/unsubscribes"),
        ("GET", "/unsubscribes/"),
        ("POST", "/unsubscribes/{email}"),
        ("DELETE", "/unsubscribes/x"),
        ("GET", "/unsubs/export"),
        ("GET", "/campaigns/{campaignId}/export"),
        ("GET", "/campaigns/cam_1/stats"),
        ("POST", "/campaigns/{campaignId}/leads/{email}"),
        ("DELETE", "/campaigns/cam_1/leads/"),
        ("DELETE", "/campaigns/cam_1/leads/lea_1"),
    ],
)
def test_deprecated_and_dangerous_routes_are_refused_with_an_alternative(verb: str, path: str) -> None:
    with pytest.raises(LemlistValidationError, match="use "):
        operation_for(verb, path, Shape.ANY)


@pytest.mark.parametrize(
    ("verb", "path", "effect"),
    [
        ("GET", "/campaigns/cam_1/export/start", Effect.CREATE),
        ("POST", "/inbox/email", Effect.CREATE),
        ("POST", "/v2/enrichments/bulk", Effect.CREATE),
        ("POST", "/leads/review/lea_1", Effect.SET),
        ("POST", "/database/people", Effect.READ),
        ("POST", "/campaigns/cam_1/start", Effect.SET),
        ("PATCH", "/schedules/skd_1", Effect.SET),
        ("DELETE", "/hooks/hoo_1", Effect.REMOVE),
    ],
)
def test_the_effect_of_any_operation_is_known(verb: str, path: str, effect: Effect) -> None:
    assert operation_for(verb, path, Shape.ANY).effect is effect


@pytest.mark.parametrize(
    "path",
    [
        "team",
        "/team?version=v2",
        "/team#x",
        "https://elsewhere.example/team",
        "/leads/ann@example.com",
        "/a/../b",
        "/campaigns/./cam_1/leads/lea_1",
    ],
)
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(LemlistValidationError):
        operation_for("GET", path, Shape.ANY)
