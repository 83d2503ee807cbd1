# SPDX-License-Identifier: Apache-2.0
"""
Images and videos of LinkedIn steps: the eight error codes of the ingestion, each on demand by its URL.

Nothing is downloaded. The *name of the file* is the script: ``https://anything.example.com/too-large.png``
is refused with ``LINKEDIN_MEDIA_TOO_LARGE``. Three codes need no script: more than six items, an address that
is not HTTPS or not public, and a file ending of another type.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airflow_provider_lemlist.sandbox.refusal import Refusal

#: File name without its ending, code, status.
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

#: The endings of the types that lemlist takes. A URL without an ending tells nothing and passes.
ENDINGS = {
    "images": (".png", ".jpg", ".jpeg", ".gif"),
    "videos": (".mp4", ".mov", ".qt"),
}


def refuse_scripted(kind: str, url: str) -> None:
    """
    Refuse a URL whose file name asks for it, or whose ending is none of an allowed type.

    :param kind: ``images`` or ``videos``.
    """
    file = PurePosixPath(urlsplit(url).path)
    code, status = SCRIPTED.get(file.stem.lower(), ("", 0))
    if not code and file.suffix and file.suffix.lower() not in ENDINGS[kind]:
        code, status = SCRIPTED["invalid-type"]
    if code:
        # The form of the body is not documented; a client has to find the code in whatever comes.
        raise Refusal(status, f"{code}: the media could not be ingested")
