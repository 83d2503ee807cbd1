# SPDX-License-Identifier: Apache-2.0
"""
What an event trigger has told: where it is kept while the triggerer restarts, and what follows from it.

``Cursor`` is pure. Airflow 3.3 keeps cursors in the state store of the watched asset, otherwise a file at
``state_path`` does; without one they last as long as the triggerer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import sync_to_async

from airflow_provider_lemlist.activities import LOOKBACK
from airflow_provider_lemlist.datasets import from_milliseconds, milliseconds, whole_milliseconds
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.storage import storage_path, write_whole

if TYPE_CHECKING:
    from airflow_provider_lemlist.activities import Activity

#: Maximum number of activities that a cursor names: more would exceed the 64 kB of JSON above which Airflow
#: warns. If more are told in a day, the cursor reaches back less far.
MAX_TOLD = 1_500

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The activities that were told: those before ``since``, and those of ``told``."""

    since: datetime
    #: By id, when the activity happened.
    told: Mapping[str, datetime] = field(default_factory=dict)

    def is_new(self, activity: Activity) -> bool:
        """Return whether an activity was not told yet."""
        return activity.at >= self.since and activity.id not in self.told

    def after(self, told: Iterable[Activity], complete_until: datetime, overlap: timedelta) -> Cursor:
        """
        Return the cursor when these activities were told, too, and with them all before a moment.

        It reaches back for ``LOOKBACK``, or less if it had to name too many activities, but for ``overlap``.
        """
        named = {**self.told, **{each.id: each.at for each in told}}
        since = max(self.since, complete_until - max(LOOKBACK, overlap))
        if len(named) > MAX_TOLD:
            # Above the newest that is one too many, or those of its moment would all have to be named.
            one_too_many = sorted(named.values(), reverse=True)[MAX_TOLD]
            since = max(since, min(one_too_many, complete_until - overlap - MILLISECOND) + MILLISECOND)
        since = whole_milliseconds(since)  # as precise as what is told
        return Cursor(since, {id: at for id, at in named.items() if at >= since})

    def as_json(self) -> dict[str, Any]:
        return {
            "since": self.since.isoformat(),
            "told": {id: milliseconds(at) for id, at in self.told.items()},
        }

    @classmethod
    def of_json(cls, value: Any) -> Cursor:
        try:
            told = {str(id): from_milliseconds(at) for id, at in value["told"].items()}
            return cls(datetime.fromisoformat(value["since"]), told)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise LemlistConfigurationError(
                f"The stored cursor is not valid: {value!r:.200}. "
                "Remove it, and the trigger begins at start again."
            ) from None


def joined(cursors: Sequence[Cursor]) -> Cursor:
    """
    Return the cursor for which an activity is new if it is new for any of these.

    Several assets with equal watchers share one trigger, and one of them may have missed what the others
    were told.
    """
    named = {id: at for each in cursors for id, at in each.told.items()}
    return Cursor(
        min(each.since for each in cursors),
        {id: at for id, at in named.items() if all(at < each.since or id in each.told for each in cursors)},
    )


# --- Where cursors are kept -------------------------------------------------------------------------------


class CursorStore(Protocol):
    """Keeps the cursors of a trigger, each under a key."""

    async def load(self, key: str) -> list[Any]:
        """Return the cursor as each keeper has it, None where one has none."""
        ...

    async def save(self, key: str, value: Any) -> None:
        """Keep a cursor."""
        ...


class AssetStates:
    """
    The state stores of the watched assets (Airflow 3.3).

    :param states: The accessor of each asset.
    """

    def __init__(self, states: Sequence[Any]) -> None:
        self._states = states

    async def load(self, key: str) -> list[Any]:
        return [await state.aget(key) for state in self._states]

    async def save(self, key: str, value: Any) -> None:
        for state in self._states:
            await state.aset(key, value)


class StateFile:
    """A JSON file, on disk or in an object storage, that several triggers may share."""

    def __init__(self, state_path: str) -> None:
        self._state_path = state_path

    async def load(self, key: str) -> list[Any]:
        return [(await _in_thread(self._read)).get(key)]

    async def save(self, key: str, value: Any) -> None:
        await _in_thread(self._write, {key: value})

    def _read(self) -> dict[str, Any]:
        path = storage_path(self._state_path, None, "state_path")
        try:
            with path.fs.open(path.path, "rb") as file:
                content = json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise LemlistConfigurationError(
                f"state_path {self._state_path} is not a file of cursors. "
                "Choose another path, or remove the file."
            )
        return content

    def _write(self, changed: dict[str, Any]) -> None:
        path = storage_path(self._state_path, None, "state_path")
        # Read again: another trigger may have written its own cursors meanwhile.
        content = self._read() | changed
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [json.dumps(content)])


class NoStore:
    """Keeps nothing: a restart of the triggerer begins again from ``start``."""

    async def load(self, key: str) -> list[Any]:
        return [None]

    async def save(self, key: str, value: Any) -> None:
        pass


#: One thread: triggers that share a file must not write it at the same time.
_FILE_THREAD = ThreadPoolExecutor(1, thread_name_prefix="lemlist-cursors")


async def _in_thread(function: Any, *arguments: Any) -> Any:
    # Not run_in_executor: before Airflow 3.3 the connection of a storage can be looked up in the triggerer
    # only from a thread that asgiref has started.
    return await sync_to_async(function, thread_sensitive=False, executor=_FILE_THREAD)(*arguments)
