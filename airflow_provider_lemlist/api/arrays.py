# SPDX-License-Identifier: Apache-2.0
"""Read a JSON array of objects one by one, however long it is."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import partial
from json import JSONDecodeError, JSONDecoder
from typing import Any, BinaryIO

#: Bytes that are read at once.
CHUNK = 64 * 1024

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_decode = JSONDecoder().raw_decode


class NotAnObjectError(ValueError):
    """Raise when an item of the array is something else than an object."""


def is_array(beginning: bytes) -> bool:
    """Return whether a body that begins so can only be a JSON array."""
    return beginning.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\n\r").startswith(b"[")


def read_objects(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the objects of the array that a file holds, from its start; raise as ``parse_objects`` does."""
    file.seek(0)
    yield from parse_objects(iter(partial(file.read, CHUNK), b""))


def parse_objects(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """
    Yield the objects of an array that arrives in chunks, which may be cut anywhere.

    :raises NotAnObjectError: An item is not an object.
    :raises ValueError: The whole is not a JSON array.
    """
    # As json.loads() reads bytes.
    text = _Text(codecs.iterdecode(chunks, "utf-8-sig", "surrogatepass"))
    text.take("[")
    if text.next_character() != "]":
        yield text.take_object()
        while text.next_character() == ",":
            text.take(",")
            yield text.take_object()
    text.take("]")
    if text.next_character():
        raise ValueError("something follows the array")


class _Text:
    """A text that is read on when more of it is needed; what was taken is forgotten."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._buffer = ""
        self._at = 0

    def next_character(self) -> str:
        """Return the next character that is not white space, an empty text at the end."""
        while True:
            self._at = _WHITESPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr]  # fits all
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._read_on():
                return ""

    def take(self, character: str) -> None:
        if self.next_character() != character:
            raise ValueError(f"{character} is missing")
        self._at += 1

    def take_object(self) -> dict[str, Any]:
        if (first := self.next_character()) != "{":
            raise NotAnObjectError if first else ValueError("the end is missing")
        while True:
            try:
                value, self._at = _decode(self._buffer, self._at)
            except JSONDecodeError:
                # It is cut off here, or wrong; only the end of the text tells which.
                if not self._read_on():
                    raise
            else:
                return value  # type: ignore[no-any-return]  # it begins with a brace

    def _read_on(self) -> bool:
        """Read, and as much again as is left, so that a long object is not parsed once for each piece."""
        parts = [self._buffer[self._at :]]
        wanted = len(parts[0])
        for piece in self._pieces:
            parts.append(piece)
            wanted -= len(piece)
            if wanted <= 0:
                break
        self._buffer, self._at = "".join(parts), 0
        return len(parts) > 1
