# SPDX-License-Identifier: Apache-2.0
"""Read a CSV table line by line, however long it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

#: The longest cell of a CSV file. Python's default of 131,072 would refuse a lead with a longer variable.
MAX_CELL = 16 * 1024 * 1024


def read_rows(file: BinaryIO) -> Iterator[dict[str, str]]:
    """
    Yield the lines of a table by the names in its header line, from its start.

    :raises ValueError: The table has no header line with an ``_id``, or a line has more or fewer cells.
    :raises csv.Error: It is not CSV.
    """
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        csv.field_size_limit(MAX_CELL)
        lines = csv.reader(text, strict=True)
        names = next(lines, None)
        if not names or "_id" not in names:
            raise ValueError("the header line is missing")  # what is there could be a JSON array, or a text
        for cells in lines:
            if cells:  # an empty line is none
                yield dict(zip(names, cells, strict=True))
    finally:
        text.detach()  # closing it would close the file
