# SPDX-License-Identifier: Apache-2.0
"""Which lists a load uses, and what a sync brings into lemlist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from airflow_provider_lemlist.sources import Row


class Exclusions(NamedTuple):
    """
    Which lists a task uses.

    :param unsubscribed: Whether lemlist's own list is one of them.
    :param lists: The user's, by the argument that names them; each opens its rows.
    :param allow_empty: Whether a list of the user's may be empty.
    """

    unsubscribed: bool = True
    lists: Mapping[str, Callable[[], Iterator[Row]]] = {}
    allow_empty: bool = False


class SyncOptions(NamedTuple):
    """
    What to bring into lemlist; the arguments of ``SyncUnsubscribesOperator``, checked.

    :param rows: Opens the rows with the values.
    :param argument: The argument that names them, for errors.
    """

    rows: Callable[[], Iterator[Row]]
    argument: str
    allow_empty: bool = False
    resubscribe_missing: bool = False
    max_missing: float = 0.1
    dry_run: bool = False
