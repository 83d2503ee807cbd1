# SPDX-License-Identifier: Apache-2.0
"""Make links of the site from those of the repository, and from names. Pure; needs no MkDocs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from tools.site.reference import GUIDES, path_of

#: Files outside docs/ of which the site has a page.
ADOPTED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}

_FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?)\)")
#: A name in backticks that is neither in a heading nor in a link.
_NAME = re.compile(r"^#.*$|\[[^\]]*\]\([^)]*\)|`([\w.]+)`", re.M)


def relinked(markdown: str, file: str, repository: str) -> str:
    """
    Return a page whose links work in the site.

    :param markdown: The page.
    :param file: Its file in the repository; links are relative to it.
    :param repository: Where files are that the site has no page of.
    """
    at = posixpath.dirname(ADOPTED.get(file, file.removeprefix("docs/")))

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(file), found[1]))
        if target.startswith("docs/") or target in ADOPTED:
            to = posixpath.relpath(ADOPTED.get(target, target.removeprefix("docs/")), at or ".")
        else:
            to = repository + target
        return f"]({to}{found[2]})"

    return _outside_fences(markdown, lambda text: _LINK.sub(link, text))


def named(markdown: str, uri: str) -> str:
    """Return a page in which the first mention of each public name leads to its page, or to its reference."""
    seen = {f"`{name}`" for name, guide in GUIDES.items() if guide == uri}  # no link to itself

    def link(found: re.Match[str]) -> str:
        code, path = found[0], path_of(found[1] or "")
        if path is None or code in seen:
            return code
        seen.add(code)
        if guide := GUIDES.get(found[1]):
            return f"[{code}]({posixpath.relpath(guide, posixpath.dirname(uri) or '.')})"
        return f"[{code}][{path}]"

    return _outside_fences(markdown, lambda text: _NAME.sub(link, text))


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts = _FENCE.split(markdown)
    parts[::2] = map(change, parts[::2])
    return "".join(parts)
