# SPDX-License-Identifier: Apache-2.0
"""
Load many leads: from a table of people to leads in a campaign.

    options       what to load, and how
    sources       rows from a list, a query or a file, one after the other
    mapping       columns to lemlist's fields and custom variables
    preflight     everything that is checked before the first lead is sent
    worklist      the rows of one load, in a private temporary database
    plan          pure: what to do about each row
    sending       one row, by the decisions of ``delivery``
    pool          the threads that send
    report        the counts, the progress line and the final table
    run           one load from start to end

Plain Python except for Airflow's storage and database hooks; the operators are in ``operators/``.
"""

from __future__ import annotations
