# SPDX-License-Identifier: Apache-2.0
"""The docs match the code: snippets come from files that run, links resolve, names exist."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml

from airflow_provider_lemlist.campaigns.definition import SETTINGS, Setting
from airflow_provider_lemlist.campaigns.files import yaml_loader
from airflow_provider_lemlist.datasets import DATASETS
from airflow_provider_lemlist.get_provider_info import DOCS_URL
from airflow_provider_lemlist.hooks.lemlist import LemlistHook
from airflow_provider_lemlist.stats import METRICS
from tools import dataset_tables
from tools.site.reference import MODULES, PATHS, page_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_lemlist"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(
    r"(?:<!-- from (?P<file>[\w./]+): (?P<region>\w+) -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)```", re.S
)

SNIPPETS = [
    pytest.param(page, match["file"], match["region"], match["code"], id=f"{page.name}-{match['region']}")
    for page in PAGES
    for match in FENCE.finditer(page.read_text())
    if match["file"]
]
CODE = [
    pytest.param(match["code"], id=f"{page.name}-{number}")
    for page in PAGES
    for number, match in enumerate(FENCE.finditer(page.read_text()))
    if match["kind"] == "python"
]


def _region(file: str, name: str) -> str:
    lines = (ROOT / file).read_text().splitlines()
    start, end = (
        lines.index(next(line for line in lines if line.strip() == f"# [START {name}]")),
        lines.index(next(line for line in lines if line.strip() == f"# [END {name}]")),
    )
    part = lines[start + 1 : end]
    indent = min(len(line) - len(line.lstrip()) for line in part if line.strip())
    return "\n".join(line[indent:] for line in part).strip() + "\n"


@pytest.mark.parametrize(("page", "file", "region", "code"), SNIPPETS)
def test_snippet_is_part_of_a_file_that_runs(page: Path, file: str, region: str, code: str) -> None:
    assert code == _region(file, region)


def test_readme_shows_a_dag_that_runs() -> None:
    assert any("README.md" in str(snippet.id) for snippet in SNIPPETS)


def test_every_method_of_the_hook_is_documented() -> None:
    of_airflow = (
        "get_conn get_connection_form_widgets get_ui_field_behaviour load_settings close test_connection"
    )
    methods = {name for name, value in vars(LemlistHook).items() if name[0] != "_" and callable(value)}
    guide = (ROOT / "docs" / "hook.md").read_text()
    assert methods - set(of_airflow.split()) == methods & set(re.findall(r"`(\w+)\(", guide))


def test_example_of_a_campaign_file_names_its_schema_and_follows_it() -> None:
    file = ROOT / "dags_examples" / "campaigns" / "spring_webinar.yaml"
    first_line = re.match(r"# yaml-language-server: \$schema=(.*)", file.read_text())
    assert first_line
    schema = json.loads((file.parent / first_line[1]).read_text())
    jsonschema.validate(yaml.load(file.read_text(), yaml_loader()), schema)  # noqa: S506  (it is safe)


def _setting_rows(settings: Mapping[str, Setting], within: str = "") -> Iterator[str]:
    """Yield the row of each setting, and below it those of its fields, or of the fields of its items."""
    takes = {str: "text", bool: "true or false", int: "a number", list: "a list", dict: "an object"}
    changes = {("create",): "no", ("attach",): "added only", (): "no"}
    for name, setting in settings.items():
        choices = f": {', '.join(f'`{each}`' for each in setting.choices)}" if setting.choices else ""
        changed = changes.get(setting.sent_with, "yes")
        yield f"| `{within}{name}` | {takes[setting.type]}{choices} | {changed} | {setting.about} |"
        each, dot = (setting.items, "[].") if setting.items else (setting, ".")
        yield from _setting_rows(each.fields or {}, f"{within}{name}{dot}")


def test_table_of_settings_is_that_of_the_code() -> None:
    guide = (ROOT / "docs" / "campaigns.md").read_text()
    assert re.findall(r"^\| `[\w.\[\]]+` \| .* \| (?:yes|no|added only) \| .* \|$", guide, re.M) == list(
        _setting_rows(SETTINGS)
    )


def test_table_of_metrics_is_that_of_the_code() -> None:
    rows = []
    for name, metric in METRICS.items():
        counters = " / ".join(f"`{each}`" for each in (metric.counter, metric.whole) if each)
        channels = ", ".join(metric.channels or ("all",))
        rows.append(f"| `{name}` | {counters} | {channels} | {metric.about} |")
    guide = (ROOT / "docs" / "operators" / "campaign-stats-sensor.md").read_text().partition("## Metrics")[2]
    assert re.findall(r"^\| `\w+` \| .* \| .* \| .* \|$", guide.partition("\n## ")[0], re.M) == rows


def test_tables_of_datasets_are_those_of_the_code() -> None:
    assert dataset_tables.FILE.read_text(encoding="utf-8") == dataset_tables.text(), (
        "run python -m tools.dataset_tables"
    )
    assert dataset_tables.text().count("\n### ") == len(DATASETS)


@pytest.mark.parametrize("code", CODE)
def test_python_snippet_compiles(code: str) -> None:
    compile(code, "<docs>", "exec")


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings, and those that it sets itself."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {
        *(re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings),
        *re.findall(r'<a id="([^"]+)"></a>', text),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_resolves(page: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in _anchors(target), f"{file}#{anchor}"


def test_every_name_in_the_glossary_is_in_the_code() -> None:
    rows = re.findall(r"^\| .* \| (`.*`) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    names = {name for row in rows for name in re.findall(r"[A-Za-z_]+", row)} - {"error"}
    code = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    assert names - set(re.findall(r"\w+", code)) == set()


def test_tree_in_contributing_is_the_tree_of_the_package() -> None:
    tree = re.search(
        r"```\nairflow_provider_lemlist/\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S
    )
    assert tree
    drawn = set(re.findall(r"\w+(?:\.py|/)", tree[1]))
    rooms = {f"{path.parent.name}/" for path in PACKAGE.rglob("__init__.py")} - {f"{PACKAGE.name}/"}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert drawn - rooms - {path.name for path in PACKAGE.rglob("*.py")} == set()
    assert modules | {room for room in rooms if (PACKAGE / room).exists()} <= drawn


def _texts_of_the_code() -> list[str]:
    """Return each text in the package, with a … for what is filled in."""
    texts = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[\d.,]*[a-z]", "…", node.value))
    return texts


def test_every_message_in_troubleshooting_is_one_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## Airflow's own messages")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 40
    texts = "\n".join(text.replace("\n", " ") for text in _texts_of_the_code())
    # A … in the guide also stands for several values with text between them.
    missing = [
        message
        for message in messages
        if not re.search(".*".join(map(re.escape, re.split(" ?… ?", message.strip("… ")))), texts)
    ]
    assert missing == []


LINKS_TO_SITE = [
    pytest.param(path, anchor, id=f"{file.relative_to(ROOT)}-{path}")
    for file in [*sorted(PACKAGE.rglob("*.py")), *PAGES]
    for path, anchor in re.findall(
        rf"(?:\{{DOCS_URL\}}|{re.escape(DOCS_URL)})([\w./-]*)(?:#([\w-]+))?", file.read_text()
    )
]


@pytest.mark.parametrize(("path", "anchor"), LINKS_TO_SITE)
def test_every_link_to_the_site_leads_to_a_page_or_file_of_it(path: str, anchor: str) -> None:
    of_reference = {"reference/", *(page_of(module).removesuffix(".md") + "/" for module in MODULES)}
    if not path.endswith("/"):
        assert not path or (ROOT / "docs" / path).is_file()
    elif path not in of_reference:
        page = ROOT / "docs" / f"{path[:-1]}.md"
        assert page.is_file()
        assert not anchor or anchor in _anchors(page)


def test_every_operator_links_to_its_page() -> None:
    linked = {path for path, _ in (each.values for each in LINKS_TO_SITE)}
    pages = {f"operators/{page.stem}/" for page in ROOT.glob("docs/operators/*.md")}
    assert pages <= linked


def test_every_operator_sensor_and_transfer_has_a_page() -> None:
    titles = {page.read_text().partition("\n")[0] for page in ROOT.glob("docs/operators/*.md")}
    classes = {name for name in PATHS if name.endswith(("Operator", "Sensor"))}
    assert titles == {f"# {name}" for name in classes | {"ActivityEventTrigger"}}


def test_install_page_names_the_versions_that_ci_tests() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    rows = []
    for airflow in ("3.3", "2.11"):
        constraints = (ROOT / "constraints" / f"airflow-{airflow}.txt").read_text()
        exact = re.findall(r"^apache-airflow==(.*)$", constraints, re.M)
        pythons = [
            cell["python"]
            for cell in jobs["test"]["strategy"]["matrix"]["include"]
            if cell["airflow"] == airflow
        ]
        rows.append(f"| {'3.x' if airflow[0] == '3' else airflow} | {exact[0]} | {', '.join(pythons)} |")
    page = (ROOT / "docs" / "install.md").read_text()
    assert re.findall(r"^\| [\d.x]+ \| [\d.]+ \| .* \|$", page, re.M) == rows
