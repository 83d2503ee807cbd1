# SPDX-License-Identifier: Apache-2.0
"""What the operators of lemlist share: the connection, their manner of speaking, and their outlets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import Asset, BaseOperator

from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.operators.mapping import CheckedPartial
from airflow_provider_lemlist.storage import name_in_storage
from airflow_provider_lemlist.templating import is_open

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook


class LemlistOperator(BaseOperator):
    """
    The base of the operators.

    :param lemlist_conn_id: :ref:`lemlist connection <howto/connection:lemlist>` to use. (templated)
    """

    ui_color = "#e8eafd"

    def __init__(self, *, lemlist_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lemlist_conn_id = lemlist_conn_id
        #: What a request that is under way would do; empty when there is none.
        self._under_way = ""

    @classmethod
    def partial(cls, **kwargs: Any) -> CheckedPartial:  # type: ignore[override]  # stands in for Airflow's
        """Begin a mapped task, as Airflow does."""
        return CheckedPartial(super().partial(**kwargs), cls._check_mapped)

    @classmethod
    def _check_mapped(cls, arguments: Mapping[str, Any]) -> None:
        """Check one of the tasks that a mapped one stands for, without making it, which would add it."""
        known = dict(cls._parameters())
        for place in (arguments["dag"], arguments["task_group"]):
            known.update(getattr(place, "default_args", None) or {})
        known.update(arguments)
        if Parameter.empty not in known.values():
            task = cls.__new__(cls)
            vars(task).update(known)
            task._check_written()

    @classmethod
    @cache
    def _parameters(cls) -> Mapping[str, Any]:
        """Return the parameters of our constructors with their defaults. Cached: a DAG asks for every row."""
        return {
            parameter.name: parameter.default
            for each in reversed(cls.__mro__)
            if issubclass(each, LemlistOperator)
            for parameter in signature(each.__init__).parameters.values()
            if parameter.kind is Parameter.KEYWORD_ONLY
        }

    def _check_written(self) -> None:
        """Check what is known when the DAG is parsed."""

    @cached_property
    def hook(self) -> LemlistHook:
        """The hook of the connection."""
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        return LemlistHook(self.lemlist_conn_id)

    def on_kill(self) -> None:
        """Tell what was under way: it cannot be called back, but the next attempt looks for it."""
        if self._under_way:
            self.log.warning(
                "Killed while lemlist was asked to %s. It may have happened all the same.", self._under_way
            )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Tell OpenLineage, which asks where it is installed, what was read and which campaign was filled."""
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        campaign_id = self._filled_campaign()
        lemlist = f"lemlist://{urlsplit(self.hook.settings.base_url).netloc}"
        return OperatorLineage(
            inputs=self._lineage_inputs(),
            outputs=[Dataset(lemlist, f"campaigns/{campaign_id}")] if campaign_id else [],
        )

    def _filled_campaign(self) -> str | None:
        """Return the campaign that the task has changed, where it is known."""
        return getattr(self, "campaign_id", None)

    def _lineage_inputs(self) -> list[Any]:
        """Return what the task has read, as datasets of OpenLineage."""
        from airflow.providers.common.compat.openlineage.facet import Dataset

        file = self._source_file()
        return [Dataset(file.namespace, name_in_storage(file))] if file else []

    def _source_file(self) -> ObjectStoragePath | None:
        """Return the file that the task reads."""
        return None

    def _the(self, argument: str) -> str:
        return f"The {argument} of task {self.task_id!r}"

    def _refuse(self, argument: str, why: str) -> LemlistValidationError:
        return LemlistValidationError(f"{self._the(argument)} {why}; nothing was sent.")

    def _check_id(self, argument: str, *, needed: bool = True, written: bool = False) -> None:
        """
        Refuse an id that is none.

        :param written: Whether the DAG is parsed only, when an id may not be known yet.
        """
        value = getattr(self, argument)
        if (value is None and not needed) or (written and is_open(value)):
            return
        if not isinstance(value, str):
            raise self._refuse(argument, f"must be an id, not {type(value).__name__}")
        if not value.strip() or any(character.isspace() for character in value.strip()):
            raise self._refuse(argument, f"must be an id, not {value!r}")

    def _flag(self, name: str) -> bool | None:
        """Return a flag as the hook takes it; None, so that it is not sent, where it is not set."""
        value = getattr(self, name)
        if isinstance(value, str):
            value = {"true": True, "false": False, "none": False, "": False}.get(value.strip().lower(), value)
        if value is None or isinstance(value, bool):
            return value or None
        raise self._refuse(name, f"must be true or false, not {value!r}")

    def _push(self, context: Context, **values: Any) -> None:
        if self.do_xcom_push:
            for key, value in values.items():
                context["ti"].xcom_push(key=key, value=value)

    def _tell_outlets(self, context: Context, **extra: Any) -> None:
        """Put what was made into the event of every asset among the outlets."""
        for outlet in self.outlets or ():
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(extra)
