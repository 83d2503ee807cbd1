# SPDX-License-Identifier: Apache-2.0
"""The audio file of a voice note: the checks before it is sent, and its upload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from airflow_provider_lemlist.exceptions import LemlistUnexpectedReplyError, LemlistValidationError

if TYPE_CHECKING:
    from typing import BinaryIO

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook

# Not the table of the mimetypes module, which differs from machine to machine.
AUDIO_TYPES = {
    ".aac": "audio/aac",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".amr": "audio/amr",
    ".caf": "audio/x-caf",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".wma": "audio/x-ms-wma",
}
#: How storages call the content type of a file, and what tells one version of it from another.
_TYPES = ("ContentType", "contentType", "content_type")
_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated")


class AudioFile(NamedTuple):
    """
    A file that can be uploaded.

    :param fingerprint: Its name, size and version: another text if the file has changed.
    """

    path: ObjectStoragePath
    content_type: str
    fingerprint: str

    def open(self) -> BinaryIO:
        """Open the file; errors as ``check_file`` raises them."""
        with _clear_errors():
            file = self.path.open("rb")  # type: ignore[no-untyped-call]  # Airflow leaves it without annotations
        return cast("BinaryIO", file)


def check_file(path: ObjectStoragePath) -> AudioFile:
    """
    Return a file, with what the storage says about it.

    :raises LemlistValidationError: It cannot be uploaded. The message says why, and does not name the file.
    """
    with _clear_errors():
        info = path.fs.info(path.path)
    if info.get("type") == "directory":
        raise LemlistValidationError("is a directory")
    if info.get("size") == 0:
        raise LemlistValidationError("is empty")
    content_type = AUDIO_TYPES.get(os.path.splitext(path.name)[1].lower()) or _first(info, _TYPES)
    if not content_type.startswith("audio/"):
        raise LemlistValidationError(f"must have the extension of an audio file ({', '.join(AUDIO_TYPES)})")
    return AudioFile(path, content_type, f"{path.name} {info.get('size')} {_first(info, _VERSIONS)}")


def upload(
    hook: LemlistHook, lead_id: str, step_id: str, audio: AudioFile, file: BinaryIO, *, file_name: str = ""
) -> dict[str, Any]:
    """Upload an opened file for one lead and one step; return lemlist's response, which has its URL."""
    response = hook.upload_audio(
        lead_id, step_id, file, file_name=file_name or audio.path.name, content_type=audio.content_type
    )
    status = response.get("status")
    if not isinstance(status, dict) or not status.get("url"):
        raise LemlistUnexpectedReplyError(
            "lemlist accepted the audio but returned no URL for it; retry.", in_doubt=True
        )
    return response


def _first(info: dict[str, Any], names: tuple[str, ...]) -> str:
    return str(next((info[name] for name in names if info.get(name)), ""))


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Raise validation errors for a wrong file; Airflow retries what a failing storage raises."""
    try:
        yield
    except FileNotFoundError as error:
        raise LemlistValidationError("does not exist") from error
    except IsADirectoryError as error:
        raise LemlistValidationError("is a directory") from error
    except PermissionError as error:
        raise LemlistValidationError("may not be read by this worker") from error
