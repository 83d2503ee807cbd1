# SPDX-License-Identifier: Apache-2.0
"""
Images and videos of LinkedIn steps: the eight error codes of the ingestion, each requested by a URL.

Nothing is downloaded. The *file name* selects the error: ``https://anything.example.com/too-large.png`` is
refused with ``LINKEDIN_MEDIA_TOO_LARGE``. Three codes also occur without it: more than six items, a URL
that is not HTTPS or not public, and a file extension of another type.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_lemlist.sandbox.errors import ApiError

#: File name without its extension, code, status.
SCRIPTED: dict[str, tuple[str, int]] = {
    "too-many": ("LINKEDIN_MEDIA_TOO_MANY", 400),
    "unsafe-url": ("LINKEDIN_MEDIA_UNSAFE_URL", 400),
    "too-large": ("LINKEDIN_MEDIA_TOO_LARGE", 413),
    "invalid-type": ("LINKEDIN_MEDIA_INVALID_TYPE", 415),
    "gif-invalid": ("LINKEDIN_MEDIA_GIF_INVALID", 422),
    "download-failed": ("LINKEDIN_MEDIA_DOWNLOAD_FAILED", 502),
    "av-unavailable": ("LINKEDIN_MEDIA_AV_UNAVAILABLE", 503),
    "timeout": ("LINKEDIN_MEDIA_TIMEOUT", 504),
}

#: The extensions of the accepted types. A URL without an extension is accepted.
EXTENSIONS = {
    "images": (".png", ".jpg", ".jpeg", ".gif"),
    "videos": (".mp4", ".mov", ".qt"),
}


def refuse_scripted(kind: str, url: str) -> None:
    """
    Raise the error that a URL's file name requests, or the error for an extension that is not accepted.

    :param kind: ``images`` or ``videos``.
    """
    file = PurePosixPath(urlsplit(url).path)
    code, status = SCRIPTED.get(file.stem.lower(), ("", 0))
    if not code and file.suffix and file.suffix.lower() not in EXTENSIONS[kind]:
        code, status = SCRIPTED["invalid-type"]
    if code:
        # The format of the body is not documented; a client must search the whole body for the code.
        raise ApiError(status, f"{code}: the media could not be ingested")
