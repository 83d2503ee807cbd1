# SPDX-License-Identifier: Apache-2.0
"""One file as a multipart body that is read while it is sent, so that it never lives in memory whole."""

from __future__ import annotations

import io
import os
import secrets
from typing import BinaryIO


class MultipartFile:
    """
    A readable body of known length around an open file.

    requests would read the whole file to build the same bytes.

    :param field: Name of the form field.
    :param file: An open, seekable binary file; it is sent from its start.
    :param file_name: Name that lemlist shows.
    :param content_type: Type of the file's content.
    """

    def __init__(self, field: str, file: BinaryIO, *, file_name: str, content_type: str) -> None:
        boundary = secrets.token_hex(16)
        # The three characters that could end the header line or the quotes around the name.
        safe_name = file_name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{safe_name}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        )
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._file = file
        self._head = head.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._length = len(self._head) + file.seek(0, os.SEEK_END) + len(self._tail)
        self.rewind()

    def __len__(self) -> int:
        """Give the length of the whole body in bytes."""
        return self._length

    def rewind(self) -> None:
        """Begin again, for another attempt."""
        self._file.seek(0)
        self._parts: list[BinaryIO] = [io.BytesIO(self._head), self._file, io.BytesIO(self._tail)]

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes, all that is left when it is negative."""
        if size < 0:
            return b"".join(part.read() for part in self._parts)
        while self._parts:
            if chunk := self._parts[0].read(size):
                return chunk
            self._parts.pop(0)
        return b""
