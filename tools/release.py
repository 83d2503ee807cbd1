# SPDX-License-Identifier: Apache-2.0
"""
Build the wheel and the sdist twice, compare them, and write a page from which pip installs them.

The second build starts from the unpacked sdist, in another directory, with another umask and time zone: equal
files show that anyone can build the release from its source.
"""

from __future__ import annotations

import hashlib
import html
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
#: A page of links, as pip reads it with ``--find-links``.
PAGE = ROOT / "build" / "index.html"


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    build(ROOT, DIST)
    files = sorted(path for path in DIST.iterdir() if path.name.endswith((".whl", ".tar.gz")))
    with tempfile.TemporaryDirectory() as elsewhere:
        (sdist,) = (path for path in files if path.name.endswith(".tar.gz"))
        with tarfile.open(sdist) as source:
            source.extractall(elsewhere, filter="data")
        (unpacked,) = Path(elsewhere).iterdir()
        build(unpacked, Path(elsewhere) / "dist", TZ="Pacific/Auckland")
        different = [
            path.name for path in files if digest(path) != digest(Path(elsewhere) / "dist" / path.name)
        ]
    if different:
        sys.exit(f"The build is not reproducible: {', '.join(different)} differ when built from the sdist.")
    write_page(files)
    for path in files:
        print(f"{digest(path)}  {path.name}")


def build(source: Path, into: Path, **environment: str) -> None:
    """Build with the pinned build backend; only the second build has a strict umask."""
    subprocess.run(
        [
            Path(sys.executable).parent / "uv", "build", "--quiet", "--out-dir", into,
            "--build-constraint", ROOT / "constraints" / "build.txt", source,
        ],
        check=True, env=os.environ | environment, umask=0o077 if environment else -1,
    )  # fmt: skip


def write_page(files: list[Path]) -> None:
    """Write the page; pip compares a file with the hash in its link."""
    PAGE.parent.mkdir(exist_ok=True)
    links = (
        f'<a href="{html.escape(path.as_uri())}#sha256={digest(path)}">{html.escape(path.name)}</a><br>'
        for path in files
    )
    PAGE.write_text("<!DOCTYPE html>\n" + "\n".join(links) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
