# SPDX-License-Identifier: Apache-2.0
"""
What MkDocs cannot do itself: the pages of the API reference, the version, links that leave docs/.

The pages in docs/ are plain Markdown that GitHub renders, too. Their links to files outside docs/, such as
the changelog, lead to the page that the site has of it, or else to the repository. The pages of the API
reference exist in the site only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

from airflow_provider_lemlist import __version__
from tools.site.links import ADOPTED, named, relinked
from tools.site.reference import MODULES, PACKAGE, PATHS, ROOT, page_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

#: Stands for the version of the package in the pages.
VERSION = "<version>"
#: What the reference shows of a name, or of a room of the package. Of all else, such as operators, it shows
#: the arguments; the methods are Airflow's to call.
_OPTIONS: dict[str, dict[str, bool]] = {
    "hooks": {},
    "sandbox": {},
    "exceptions": {"show_signature": False},
    "Reason": {"show_if_no_docstring": True},
    "pytest_plugin": {"show_signature": False},
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API reference to the navigation, and the version to the footer."""
    config.copyright = f"airflow-provider-lemlist {__version__}, Apache-2.0"
    for section in config.nav or []:
        if "API reference" in section:
            section["API reference"] = ["reference/index.md", *map(page_of, MODULES)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    pages = {page: (ROOT / file).read_text(encoding="utf-8") for file, page in ADOPTED.items()}
    pages |= {page_of(module): _reference_page(module) for module in MODULES}
    pages["reference/index.md"] = _reference_index()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Fill in the version, mend links that leave docs/, and link names to their place in the reference."""
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return markdown
    adopted = {page: file for file, page in ADOPTED.items()}
    text = markdown.replace(VERSION, __version__)
    text = relinked(text, adopted.get(uri, f"docs/{uri}"), f"{config.repo_url.rstrip('/')}/blob/main/")
    return named(text, uri)


def _reference_page(module: str) -> str:
    name = module.removeprefix(f"{PACKAGE}.")
    options = _OPTIONS.get(name.partition(".")[0], {"members": False})
    shown = [
        f"::: {module}.{each}\n    options: {json.dumps(_OPTIONS.get(each, options))}"
        for each in MODULES[module]
    ]
    return "\n\n".join([f"# {name}", f"`{module}`", *shown])


def _reference_index() -> str:
    rows = [
        f"| [`{module}`]({page_of(module).removeprefix('reference/')}) "
        f"| {', '.join(f'[`{name}`][{PATHS[name]}]' for name in names)} |"
        for module, names in MODULES.items()
    ]
    return "\n".join(
        [
            "# API reference",
            "",
            "From the docstrings of the package: what users import. Everything else may change.",
            "",
            "| Module | |",
            "| --- | --- |",
            *rows,
        ]
    )
