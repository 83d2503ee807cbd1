# SPDX-License-Identifier: Apache-2.0
"""Budgets that use one key but share no store, in simulated time."""

from __future__ import annotations

import pytest

from benchmarks.limit_servers import KINDS
from benchmarks.rate_budget_simulation import Run, Simulation


@pytest.mark.parametrize("server", KINDS)
@pytest.mark.parametrize("stores", [2, 4, 16])
def test_of_the_requests_of_budgets_that_share_nothing_at_most_five_percent_are_refused(stores, server):
    run = Run("+-100 ms", server, clients=4 * stores, requests=1_200, stores=stores)
    result = Simulation(run).result()
    assert result.refusals <= 0.05 * run.requests
    assert result.share > 0.6
