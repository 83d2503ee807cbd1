# SPDX-License-Identifier: Apache-2.0
"""
Never twice: how a person gets into a campaign, or a step into a sequence, exactly once.

    identity   who is meant: the same person however a row describes them
    evidence   what is known: history of earlier attempts, what lemlist lists, what lemlist refused
    policy     what the user wants for a lead or a step that exists
    outcome    what follows from these three, and how it ends
    lead       carries it out for one lead, by the hook's methods

All but ``lead`` is pure. The operators and the loader differ only in where they keep the history: a task in
Airflow's task state store, a load in its ledger.
"""

from __future__ import annotations
