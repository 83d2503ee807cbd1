# SPDX-License-Identifier: Apache-2.0
"""
Who must not be contacted: lemlist's list of unsubscribed values, and lists of the user's.

    values.py   pure: what an entry of a list means, and which entries concern a lead
    options.py  what the user asked for
    lists.py    the lists of a load, read and kept; the look-up of one person
    sync.py     values of the user's into lemlist's list
"""
