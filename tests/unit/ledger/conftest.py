# SPDX-License-Identifier: Apache-2.0
"""The same disk and object store as for loads."""

from __future__ import annotations

from tests.unit.load.conftest import lemlist, place

__all__ = ["lemlist", "place"]
