# SPDX-License-Identifier: Apache-2.0
"""
Check recorded requests and responses against the documented operations.

``openapi/`` contains our copy of the three documents without their prose. ``violations`` checks one exchange,
as ``Sandbox.requests()`` returns it, against them, independently of our client and of the sandbox's checks.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import yaml
from openapi_schema_validator import OAS30Validator, oas30_format_checker

HERE = Path(__file__).parent / "openapi"

#: Statuses in the prose of the documents that their response lists lack: the rate limit on every route, a
#: duplicate lead, and the ingestion of LinkedIn media.
ALSO = {
    "*": {429},
    "/campaigns/{campaignId}/leads/": {409, 500},
    "/sequences/{sequenceId}/steps": {413, 415, 422, 502, 503, 504},
}
#: Routes whose body may contain further keys with strings: custom variables.
OPEN = {"/campaigns/{campaignId}/leads/"}

RESET_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d\d \d{4} "
    r"\d\d:\d\d:\d\d GMT[+-]\d{4} \(.+\)"
)


@dataclass(frozen=True)
class Operation:
    """One documented operation."""

    method: str
    template: str
    description: Mapping[str, Any]
    parameters: tuple[Mapping[str, Any], ...]

    @property
    def path(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{\w+\}", "([^/]+)", self.template))


@cache
def operations() -> tuple[Operation, ...]:
    """Return every operation of the documents."""
    return tuple(_read())


def _read() -> Iterator[Operation]:
    for file in sorted(HERE.glob("*.yaml")):
        for template, item in yaml.safe_load(file.read_text())["paths"].items():
            shared = item.pop("parameters", [])
            for method, description in item.items():
                parameters = (*shared, *description.get("parameters", []))
                yield Operation(method.upper(), template, description, parameters)


def operation_of(exchange: Mapping[str, Any]) -> Operation | None:
    """Return the documented operation of a recorded request, or None for another route."""
    for operation in operations():
        if operation.method == exchange["method"] and operation.path.fullmatch(exchange["path"]):
            return operation
    return None


def violations(exchange: Mapping[str, Any]) -> list[str]:
    """
    Return how a recorded request and its response contradict the documents.

    :param exchange: One of ``Sandbox.requests()``, or of ``GET /_sandbox/requests``. A route that the three
        documents do not describe has no violations; ``operation_of`` returns None for it.
    """
    operation = operation_of(exchange)
    if operation is None:
        return []
    return [*request_violations(exchange, operation), *response_violations(exchange, operation)]


# --- Requests ---------------------------------------------------------------------------------------------


def request_violations(exchange: Mapping[str, Any], operation: Operation) -> list[str]:
    """Return how a request contradicts its operation."""
    request = exchange["request"]
    return [
        *_authorization(request["headers"]),
        *_path(exchange["path"], operation),
        *_query(exchange["query"], operation),
        *_request_body(request, operation),
    ]


def _authorization(headers: Mapping[str, str]) -> Iterator[str]:
    scheme = headers.get("authorization", "").partition(" ")[0]
    if scheme != "Basic":
        yield f"authorization is {scheme or 'missing'}, not Basic"


def _path(path: str, operation: Operation) -> Iterator[str]:
    for segment in operation.path.fullmatch(path).groups():  # type: ignore[union-attr]  # the path matched before
        if re.search(r"[^\w.~%!$&'()*+,;=:@-]", segment):
            yield f"path: {segment!r} is not percent-encoded"
        if not unquote(segment).strip():
            yield "path: an empty id"


def _query(query: str, operation: Operation) -> Iterator[str]:
    given = parse_qsl(query, keep_blank_values=True)
    known = {each["name"]: each for each in operation.parameters if each["in"] == "query"}
    names = [name for name, _ in given]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"query: {name} is repeated"
    for name, each in known.items():
        if each.get("required") and name not in names:
            yield f"query: {name} is missing"
    for name, value in given:
        if name not in known:
            yield f"query: {name} is not documented"
        elif known[name]["schema"]["type"] == "boolean":
            if value not in ("true", "false"):
                yield f"query: {name} is not true or false"
        elif not value:
            yield f"query: {name} is empty"


def _request_body(request: Mapping[str, Any], operation: Operation) -> Iterator[str]:
    content = operation.description["requestBody"]["content"]
    sent_as = request["headers"].get("content-type", "")
    kind = sent_as.partition(";")[0].strip()
    if kind not in content:
        yield f"body: {kind or 'no content type'}, not {' or '.join(content)}"
    elif not request["complete"]:
        yield "body: too long for the log, not checked"
    elif kind == "application/json":
        yield from _json_body(_bytes(request), content[kind]["schema"], operation)
    else:
        yield from _multipart(sent_as, _bytes(request), content[kind]["schema"])


def _json_body(body: bytes, schema: Mapping[str, Any], operation: Operation) -> Iterator[str]:
    try:
        value = json.loads(body)
    except ValueError:
        yield "body: not JSON"
        return
    yield from _schema("body", value, schema)
    if isinstance(value, dict):
        for name in value.keys() - schema["properties"].keys():
            if operation.template not in OPEN:
                yield f"body: {name} is not documented"
            elif not isinstance(value[name], str):
                yield f"body: {name} is a custom variable and not a string"


def _multipart(content_type: str, body: bytes, schema: Mapping[str, Any]) -> Iterator[str]:
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    parts = {
        part.get_param("name", header="content-disposition"): part
        for part in (message.iter_parts() if message.is_multipart() else ())
    }
    for name in parts.keys() - schema["properties"].keys():
        yield f"body: the part {name} is not documented"
    for name in schema["properties"]:
        part = parts.get(name)
        if part is None:
            yield f"body: the part {name} is missing"
        else:
            if not part.get_filename():
                yield f"body: the part {name} has no file name"
            if not part.get_payload(decode=True):
                yield f"body: the part {name} is empty"


def departures(exchanges: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return how the documented requests among these exchanges contradict the documents."""
    return [
        f"{exchange['method']} {exchange['path']}: {violation}"
        for exchange in exchanges
        if (operation := operation_of(exchange)) is not None
        for violation in request_violations(exchange, operation)
    ]


# --- Responses --------------------------------------------------------------------------------------------


def response_violations(exchange: Mapping[str, Any], operation: Operation) -> list[str]:
    """Return how a response contradicts its operation."""
    if exchange["status"] is None:
        return ["response: none was sent"]
    return [*_limit_headers(exchange["response"]["headers"]), *_response(exchange, operation)]


def _limit_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name in ("retry-after", "x-ratelimit-limit", "x-ratelimit-remaining"):
        if not headers.get(name, "").isdecimal():
            yield f"response: {name} is {headers.get(name)!r}, not a number"
    if not RESET_DATE.fullmatch(headers.get("x-ratelimit-reset", "")):
        yield f"response: x-ratelimit-reset is {headers.get('x-ratelimit-reset')!r}"


def _response(exchange: Mapping[str, Any], operation: Operation) -> Iterator[str]:
    response, status = exchange["response"], exchange["status"]
    documented = operation.description["responses"].get(str(status))
    if documented is None:
        if status not in ALSO["*"] | ALSO.get(operation.template, set()):
            yield f"response: status {status} is not documented"
        return
    content = documented.get("content", {})
    kind = response["headers"].get("content-type", "").partition(";")[0]
    if content and kind not in content:
        yield f"response: {kind} with status {status}, not {' or '.join(content)}"
    elif schema := content.get(kind, {}).get("schema"):
        yield from _schema("response", json.loads(_bytes(response)), schema)


# --- Both -------------------------------------------------------------------------------------------------


def _bytes(message: Mapping[str, Any]) -> bytes:
    body: str = message["body"]
    return base64.b64decode(body) if message["encoding"] == "base64" else body.encode()


def _schema(what: str, value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    for error in OAS30Validator(schema, format_checker=oas30_format_checker).iter_errors(value):
        yield f"{what}: {error.json_path} {error.message}"
