# SPDX-License-Identifier: Apache-2.0
"""Build hook: the README as long description, with absolute links and images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class LongDescription(MetadataHookInterface):
    """Called by hatchling at every build."""

    def update(self, metadata: dict[str, Any]) -> None:
        # Link to the tag of this version, so that an old release does not show the docs of a newer one.
        project, tag = metadata["urls"]["Source"], f"v{metadata['version']}"
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\1{project}/raw/{tag}/", text)
        text = re.sub(r"(?<!!)(\[[^\]]*\]\()(?!https?:|#)", rf"\1{project}/blob/{tag}/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
