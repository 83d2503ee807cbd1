# SPDX-License-Identifier: Apache-2.0
"""
Campaigns as code: declare a campaign, see what differs from lemlist, and apply it; the same after every run.

    definition  what a campaign may say; checks: all its mistakes
    files       definitions in YAML files, with line numbers, and texts in files; schema: the same for editors
    present     what lemlist has, compared with a definition field by field
    align       which step in lemlist becomes which step of the definition
    plan        the changes from what lemlist has to the definition, and what forbids them
    describe    the plan as a text that reads like a diff
    apply       carries the changes out, one after another
    export      the definition of a campaign that was built by hand

``files``, ``apply`` and ``memory`` act; all else is pure.
"""

from __future__ import annotations

from airflow_provider_lemlist.campaigns.definition import Campaign

__all__ = ["Campaign"]
