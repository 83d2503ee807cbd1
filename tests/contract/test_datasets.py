# SPDX-License-Identifier: Apache-2.0
"""What the datasets read is what lemlist documents: operations, pages, fields, types. What is personal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_provider_lemlist.datasets import DATASETS, Dataset, Reading

HERE = Path(__file__).parent
#: The maintainers' digest of the API, beside the checkout; without it some tests are skipped.
DIGEST = HERE.parents[2] / "shared" / "lemlist-api"
needs_digest = pytest.mark.skipif(
    not DIGEST.exists(), reason="the digest of the API is not beside this checkout"
)


class Field(NamedTuple):
    name: str
    kind: str
    mark: str


class Object(NamedTuple):
    """One object of a response: where it is, and its fields by name."""

    operation: str
    paging: str
    where: str
    fields: dict[str, Field]


def _objects() -> list[Object]:
    objects: list[Object] = []
    for line in (HERE / "responses.txt").read_text().splitlines():
        if line.startswith(" "):
            parts = re.fullmatch(r" +(\S+)(?: (\w+))?(?: \[(\w+)\])?", line)
            assert parts, line
            objects[-1].fields[parts[1]] = Field(parts[1], parts[2] or "text", parts[3] or "")
        elif line and not line.startswith("#"):
            objects.append(Object(*line.split(" | "), fields={}))
    return objects


OBJECTS = _objects()
#: The objects around the rows: what the columns that the request determines are filled from.
AROUND = {
    ("GET /campaigns/{campaignId}/sequences", "*"): {
        "_id": "sequence_id",
        "level": "sequence_level",
        "parentId": "parent_sequence_id",
    },
    ("GET /team", "."): {"_id": "team_id", "name": "team_name"},
}
#: Documented fields without a column, and the reason.
NO_COLUMN = {
    ("POST /v2/campaigns/stats/batch", "results[]", "steps"): "each step is a row",
    ("POST /v2/campaigns/stats/batch", "results[]", "perChannel"): "only observed; kept in extra",
    ("GET /campaigns/{campaignId}/sequences", "*", "steps"): "each step is a row",
    ("GET /campaigns/{campaignId}/sequences", "*", "conditionalStepIndex"): "the conditions name the branch",
    ("GET /contacts", "data[]", "emails"): "documented only for the response to an upsert; kept in extra",
    ("GET /companies", "data[]", "fields.picture"): "kept in fields",
    ("GET /team", ".", "users"): "each user is a row",
    **{
        ("GET /team", ".", name): "of the team, not of its members; hooks and slackWebhook hold secrets"
        for name in (
            *("userIds", "createdBy", "createdAt", "hooks", "slackWebhook", "beta", "pictureId"),
            *("invitedUsers", "agency", "customDomain", "billing"),
        )
    },
}
KINDS = {"moment": "timestamp", "flag": "boolean", "number": "integer", "object": "json", "list": "json"}

ALL = pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))


def objects_of(dataset: Dataset) -> list[Object]:
    return [each for each in OBJECTS if each.operation == dataset.operation]


def fields_of_rows(dataset: Dataset) -> dict[str, Field]:
    rows = [each for each in objects_of(dataset) if (each.operation, each.where) not in AROUND]
    return {name: field for each in rows for name, field in each.fields.items()}


@ALL
def test_operation_of_a_dataset_is_documented(dataset: Dataset) -> None:
    assert dataset.operation in (HERE / "endpoints.txt").read_text().splitlines()
    assert objects_of(dataset)


@ALL
def test_every_documented_field_is_a_source_of_a_column_or_left_out_for_a_reason(dataset: Dataset) -> None:
    sources = {source for column in dataset.columns for source in column.sources}
    for each in objects_of(dataset):
        filled = AROUND.get((each.operation, each.where), sources)
        without = {name for name in each.fields if name not in filled}
        assert without == {
            name for operation, where, name in NO_COLUMN if (operation, where) == (each.operation, each.where)
        }


@ALL
def test_every_source_of_a_column_is_documented_and_of_its_type(dataset: Dataset) -> None:
    fields = fields_of_rows(dataset)
    sources = {source: column.kind for column in dataset.columns for source in column.sources}
    assert sources == {
        source: KINDS.get(fields[source].kind, "text") if source in fields else "not documented"
        for source in sources
    }


@ALL
def test_what_is_around_the_rows_fills_columns(dataset: Dataset) -> None:
    for each in objects_of(dataset):
        for source, name in AROUND.get((each.operation, each.where), {}).items():
            field = each.fields[source]
            assert KINDS.get(field.kind, "text") == dataset.column(name).kind


@ALL
def test_a_dataset_is_read_in_the_pages_of_its_route(dataset: Dataset) -> None:
    (paging,) = {each.paging for each in objects_of(dataset)}
    assert paging.split()[0] == {
        Reading.BY_TIME: "offset",
        Reading.BY_OFFSET: "offset",
    }.get(dataset.reading, "whole")
    assert (dataset.reading is Reading.BY_CAMPAIGN) == ("{campaignId}" in dataset.operation)
    assert (dataset.reading is Reading.BY_BATCH) == (paging == "whole 100")


@ALL
def test_the_key_is_columns_that_are_always_kept(dataset: Dataset) -> None:
    assert dataset.key
    assert not any(dataset.column(name).is_personal for name in dataset.key)


@ALL
def test_what_no_column_names_has_a_column(dataset: Dataset) -> None:
    rest = dataset.column(dataset.rest)
    assert (rest.kind, rest.sources, rest.is_personal) == ("json", (), True)
    assert len({column.name for column in dataset.columns}) == len(dataset.columns)


@ALL
def test_a_snapshot_says_when_it_was_read(dataset: Dataset) -> None:
    assert dataset.has_window == (dataset.columns[-1].name != "read_at")


# --- What is personal -------------------------------------------------------------------------------------

#: Names, addresses, phone numbers, profiles and free text, by the words of a column's name.
PERSONAL = re.compile(
    r"(^|_)(name|email|phone|picture|linkedin|icebreaker|value|variables|enrichment|extra"
    r"|subject|title|message|note|recording|transcription|fields)(_|$)"
)
#: Columns with such a word that hold nothing about a person.
NOT_PERSONAL = {
    "the name of a company, campaign, team or template": {
        *("activities.campaign_name", "activities.lead_company_name", "activities.email_template_name"),
        *("leads.campaign_name", "leads.company_name", "campaigns.name", "campaign_stats.campaign_name"),
        *("sequences.campaign_name", "companies.name", "team_members.team_name"),
    },
    "an id, or a state": {
        *("activities.email_id", "activities.email_template_id", "activities.message_id"),
        *("leads.email_status", "sequences.email_template_id", "sequences.email_template_b_id"),
    },
    "the text of a campaign, with placeholders": {
        *("sequences.title", "sequences.subject", "sequences.message", "sequences.alt_message"),
    },
    "a position, which many people hold": {"leads.job_title"},
}
#: Personal although no word says so.
PERSONAL_TOO = {"contacts.field_rejections"}


@ALL
def test_names_addresses_profiles_and_free_text_are_personal(dataset: Dataset) -> None:
    by_words = {f"{dataset.name}.{column.name}" for column in dataset.columns if PERSONAL.search(column.name)}
    too = {name for name in PERSONAL_TOO if name.startswith(f"{dataset.name}.")}
    assert {f"{dataset.name}.{column.name}" for column in dataset.columns if column.is_personal} == (
        by_words - set().union(*NOT_PERSONAL.values()) | too
    )


def test_every_exception_is_a_column() -> None:
    names = {f"{dataset.name}.{column.name}" for dataset in DATASETS.values() for column in dataset.columns}
    assert set().union(*NOT_PERSONAL.values(), PERSONAL_TOO) <= names


# --- The list of fields is that of the digest -------------------------------------------------------------

EXAMPLES = {
    "activities.md: GET /activities": ("GET /activities", "[]"),
    "campaigns.md: GET /campaigns": ("GET /campaigns", "[]"),
    "contacts.md: GET /contacts": ("GET /contacts", "data[]"),
    "unsubscribes.md: GET /v2/unsubscribes/variables": ("GET /v2/unsubscribes/exports/variables", "[]"),
}


@needs_digest
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_field_of_an_example_of_the_digest_is_in_the_list(example: str) -> None:
    file, _, operation = example.partition(": ")
    text = (DIGEST / file).read_text().partition(f"`{operation}`")[2]
    sample = json.loads(re.search(r"```json\n(.*?)```", text, re.S)[1])  # type: ignore[index]
    sample = sample[0] if isinstance(sample, list) else sample
    (listed,) = (each.fields for each in OBJECTS if (each.operation, each.where) == EXAMPLES[example])
    assert set(sample) - {name.partition(".")[0] for name in listed} == set()
    for name, field in listed.items():
        value = sample.get(name)
        if value is not None:
            assert {bool: "flag", int: "number", list: "list", dict: "object"}.get(type(value)) == (
                None if field.kind in ("text", "moment") else field.kind
            )
            is_moment = isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value) is not None
            assert is_moment == (field.kind == "moment")


@needs_digest
def test_every_field_of_the_list_is_in_the_digest() -> None:
    words = set(re.findall(r"\w+", "\n".join(file.read_text() for file in DIGEST.glob("*.md"))))
    names = {part for each in OBJECTS for name in each.fields for part in name.split(".")}
    assert names - words == set()


@needs_digest
def test_pages_are_those_of_the_digest() -> None:
    text = (DIGEST / "README.md").read_text().partition("## Pagination")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(GET [^`]+)` \| (.*?) \| (.*?) \|", text, re.M)
    documented = {
        operation.replace("{id}", "{campaignId}"): f"offset {limits.rpartition('/ ')[2]}"
        if "offset" in parameters
        else "whole"
        for operation, parameters, limits in rows
    }
    listed = {each.operation: each.paging for each in OBJECTS}
    shared = listed.keys() & documented.keys()
    assert len(shared) == 5
    assert {name: listed[name] for name in shared} == {name: documented[name] for name in shared}
