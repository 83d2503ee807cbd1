# SPDX-License-Identifier: Apache-2.0
"""What a user may choose; the operator checks its arguments against it whenever a DAG is parsed."""

from __future__ import annotations

from typing import Literal

IfExists = Literal["skip", "update"]
IfElsewhere = Literal["skip", "fail"]
IfMissing = Literal["fail", "warn"]
