# SPDX-License-Identifier: Apache-2.0
"""Tidy HTML as lemlist may before it stores a message: other markup and other spaces, the same words."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

BLOCKS = ("p", "div", "ul", "ol", "li", "table", "tr", "h1", "h2", "h3", "blockquote")
VOID = ("br", "hr", "img")


class _Tidier(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.open and tag not in BLOCKS:
            self.handle_starttag("p", [])
        attributes = "".join(f' {name}="{escape(value or "")}"' for name, value in attrs)
        self.parts.append(f"<{tag}{attributes}>")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self.open:
            closed = self.open.pop()
            self.parts.append(f"</{closed}>" + "\n" * (closed in BLOCKS))
            if closed == tag:
                break

    def handle_data(self, data: str) -> None:
        if not self.open:
            data = data.lstrip()
            if not data:
                return
            self.handle_starttag("p", [])
        self.parts.append(escape(re.sub(r"\s+", " ", data), quote=False))


def tidy_html(html: str) -> str:
    """Return HTML with closed tags, paragraphs around bare text, double quotes and single spaces."""
    tidier = _Tidier()
    tidier.feed(html)
    tidier.close()
    while tidier.open:
        tidier.handle_endtag(tidier.open[-1])
    return "".join(tidier.parts).strip()
