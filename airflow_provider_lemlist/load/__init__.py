# SPDX-License-Identifier: Apache-2.0
"""
Loading many leads: what happens between a table of people and a campaign.

    choices      what a user may choose
    storage      paths on a disk or in an object store
    sources      rows from a list, a query or a file, one after the other
    mapping      columns become lemlist's fields and custom variables
    worklist     the checked rows of one load, in a private temporary database
    placeholders which variables the texts of a campaign use
    preflight    everything that is found out before the first lead is sent
    ledger       what became of every row, across attempts
    parts        the files of a ledger, on a disk or in an object store
    lock         one load at a time on one ledger
    sending      what is done for one row
    loader       the threads that send
    run          one load from its beginning to its end
    account      the counts, the progress line and the final table

Plain Python but for the storage and database hooks of Airflow; ``operators/load.py`` puts it together.
"""

from __future__ import annotations
