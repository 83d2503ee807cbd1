# SPDX-License-Identifier: Apache-2.0
"""The links of the site: from those of the repository, and from the names of the package."""

from __future__ import annotations

import pytest

from tools.site.links import named, relinked

REPOSITORY = "https://example.com/blob/main/"


@pytest.mark.parametrize(
    ("file", "link", "expected"),
    [
        ("docs/events.md", "activities.md#types", "activities.md#types"),
        ("docs/operators/add-step.md", "../operators.md#retries", "../operators.md#retries"),
        ("docs/operators/add-step.md", "../images/sandbox.png", "../images/sandbox.png"),
        # A page that the site has of a file outside docs/, from both sides.
        ("docs/deploying.md", "../CHANGELOG.md", "changelog.md"),
        ("docs/operators/add-step.md", "../../CONTRIBUTING.md#releasing", "../contributing.md#releasing"),
        ("CHANGELOG.md", "docs/operators/add-step.md", "operators/add-step.md"),
        ("benchmarks/README.md", "../docs/index.md", "index.md"),
        # A file that only the repository has.
        ("docs/operators/add-step.md", "../../dags_examples/a.py", f"{REPOSITORY}dags_examples/a.py"),
        ("docs/events.md", "https://example.org/page.md", "https://example.org/page.md"),
        ("docs/events.md", "#cost", "#cost"),
    ],
)
def test_link_leads_to_the_same_place_in_the_site(file: str, link: str, expected: str) -> None:
    assert relinked(f"See [this]({link}).", file, REPOSITORY) == f"See [this]({expected})."


def test_code_keeps_its_links_and_names() -> None:
    fence = "```python\n[x](../CHANGELOG.md) `LemlistHook`\n```\n"
    assert named(relinked(fence, "docs/events.md", REPOSITORY), "events.md") == fence


def test_first_mention_of_a_name_leads_to_its_page_or_its_reference() -> None:
    names = "`LemlistHook`, `LemlistHook`, [`LemlistHook`](hook.md), `AddStepOperator`, `Other`"
    hook = "[`LemlistHook`][airflow_provider_lemlist.hooks.lemlist.LemlistHook]"
    step = "[`AddStepOperator`](operators/add-step.md)"
    linked = f"{hook}, `LemlistHook`, [`LemlistHook`](hook.md), {step}, `Other`"
    heading = "# `LemlistHook`\n\n"
    assert named(heading + names, "events.md") == heading + linked


def test_page_of_an_operator_does_not_link_to_itself() -> None:
    assert named("`AddStepOperator`", "operators/add-step.md") == "`AddStepOperator`"
