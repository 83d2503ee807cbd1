# SPDX-License-Identifier: Apache-2.0
"""
The account of what was done from here: one ledger for each campaign, and one for each step with voice notes.

    ledger   the files: who was loaded before, and the outcome of every row of every run
    lock     one load at a time on one ledger
    people   who is known: from the ledger, and from the campaign itself
    summary  what a ledger says, for the command

The load and the voice notes write it; the campaign is always believed before it.
"""

from __future__ import annotations
