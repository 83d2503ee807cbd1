# SPDX-License-Identifier: Apache-2.0
"""What the operators and the sensors share: the connection, the checks of arguments, lineage and outlets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, BaseOperator

from airflow_provider_lemlist.arguments import (
    checked_flag,
    checked_id,
    given_names,
    is_from_mapped,
    or_none,
    the,
)
from airflow_provider_lemlist.exceptions import LemlistValidationError
from airflow_provider_lemlist.get_provider_info import DEFAULT_CONN_ID
from airflow_provider_lemlist.operators.mapping import CheckedPartial
from airflow_provider_lemlist.privacy import Hiding, hides_personal_data, ids_in, without_addresses
from airflow_provider_lemlist.storage import name_in_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_lemlist.hooks.lemlist import LemlistHook


class LemlistOperator(BaseOperator):
    """
    The base of the operators and of the sensors.

    :param lemlist_conn_id: The lemlist connection to use. (templated)
    """

    #: Indigo. Orange is what makes lemlist contact people, blue what waits, green what brings data home.
    ui_color = "#e8eafd"
    ui_fgcolor = "#2a2a72"
    #: Template fields that are masked with ``[lemlist] hide_personal_data``, and how.
    personal_in: ClassVar[Hiding] = {}
    #: The values of these fields while their attributes are masked.
    _real_values: Mapping[str, Any] = {}
    #: Names of the optional arguments that were given, whose values must not be empty when the task runs.
    _given: tuple[str, ...] = ()

    def __init__(self, *, lemlist_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lemlist_conn_id = lemlist_conn_id
        #: What the request that is in flight would do; empty when there is none.
        self._in_flight = ""

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        """
        Check what is known of the arguments when the DAG is parsed.

        :param arguments: The arguments by name, as they are written in the DAG file, with ``task_id``.
        """

    @classmethod
    def partial(cls, **kwargs: Any) -> CheckedPartial:  # type: ignore[override]  # stands in for Airflow's
        """Begin a mapped task, as Airflow does."""
        return CheckedPartial(super().partial(**kwargs), cls._check_mapped)

    @classmethod
    def _check_mapped(cls, arguments: Mapping[str, Any]) -> None:
        """Check the arguments of one map index, with the defaults of the DAG and the task group."""
        known = dict(cls._parameters())
        for place in (arguments["dag"], arguments["task_group"]):
            known.update(getattr(place, "default_args", None) or {})
        known.update(arguments)
        if Parameter.empty not in known.values():
            cls.check_arguments(known)

    @classmethod
    @cache
    def _parameters(cls) -> Mapping[str, Any]:
        """Return the parameters of our constructors with their defaults; a DAG file needs them often."""
        return {
            parameter.name: parameter.default
            for each in reversed(cls.__mro__)
            if issubclass(each, LemlistOperator)
            for parameter in signature(each.__init__).parameters.values()
            if parameter.kind is Parameter.KEYWORD_ONLY
        }

    @cached_property
    def hook(self) -> LemlistHook:
        """The hook of the connection."""
        from airflow_provider_lemlist.hooks.lemlist import LemlistHook

        return LemlistHook(self.lemlist_conn_id)

    def on_kill(self) -> None:
        """Log what was in flight: it cannot be called back, but the next attempt looks for it."""
        if self._in_flight:
            self.log.warning(
                "The task was killed during a request to %s. lemlist may have carried it out.",
                self._in_flight,
            )

    # --- Arguments when the task runs -------------------------------------------------------------------

    def _note_given(self, names: Sequence[str]) -> None:
        """Note which of these optional arguments were given, and set the others to None."""
        optional = {name: getattr(self, name) for name in names}
        self._given = given_names(optional, mapped=is_from_mapped(self))
        for name, value in optional.items():
            setattr(self, name, or_none(value))

    def _the(self, argument: str) -> str:
        return the(argument, {"task_id": self.task_id})

    def _refuse(self, argument: str, why: str) -> LemlistValidationError:
        return LemlistValidationError(f"{self._the(argument)} {why}. Nothing was sent.")

    def _id(self, argument: str) -> str:
        """Return an id, without surrounding spaces."""
        return checked_id(getattr(self, argument), self._the(argument))

    def _id_or_none(self, argument: str) -> str | None:
        """Return an id that may be left out; one that was given must not be empty."""
        return self._id(argument) if argument in self._given else None

    def _flags(self, names: tuple[str, ...]) -> dict[str, bool | None]:
        """Return flags as the hook takes them: None, so that it is not sent, where one is not set."""
        return {name: checked_flag(getattr(self, name), self._the(name)) or None for name in names}

    # --- XCom -------------------------------------------------------------------------------------------

    def _push(self, context: Context, /, **values: Any) -> None:
        if self.do_xcom_push:
            for key, value in values.items():
                context["ti"].xcom_push(key=key, value=self._shown(value))

    def _push_report(
        self, context: Context, outcome: str, message: str = "", differing: Iterable[str] = ()
    ) -> None:
        """
        Push how the task ended, because a log line is not seen.

        :param outcome: What became of it, in one word.
        :param message: Why, if the outcome does not say it.
        :param differing: What lemlist has another value of, and keeps: names, never values.
        """
        self._push(context, report={"outcome": outcome, "message": message, "differing": sorted(differing)})

    def _skip(self, context: Context, outcome: str, message: str) -> NoReturn:
        """Skip the task, and push why."""
        # Airflow shows the text of the exception only in a part of the log that is folded.
        self.log.info("Skipped: %s", message)
        self._push_report(context, outcome, message)
        raise AirflowSkipException(message)

    # --- Personal data ----------------------------------------------------------------------------------

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        # All ways to render lead here, also that of a mapped task; then Airflow stores what was rendered.
        hides = hides_personal_data()
        for name in self.personal_in if hides else ():
            self._warn_of_xcom(name)
        super()._do_render_template_fields(parent, *args, **kwargs)
        if not hides:
            return
        self._real_values = {name: getattr(self, name) for name in self.personal_in}
        for name, hide in self.personal_in.items():
            setattr(self, name, hide(getattr(self, name)))

    def _warn_of_xcom(self, name: str) -> None:
        """Warn if the value of a template field, which is not rendered yet, comes from another task."""
        from airflow.providers.common.compat.sdk import XComArg

        if any(XComArg.iter_xcom_references(getattr(self, name))):
            self.log.warning(
                "%s comes from another task: what that has pushed, Airflow stores as it is, whatever "
                "hide_personal_data says. Read it from a file or a query.",
                self._the(name),
            )

    def _real(self, name: str) -> Any:
        """Return the value of a template field, also if it is masked."""
        return self._real_values[name] if name in self._real_values else getattr(self, name)

    def _shown(self, value: Any) -> Any:
        """Return a value as an XCom or an asset event may hold it."""
        return without_addresses(value) if hides_personal_data() else value

    def _shown_response(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return a response of lemlist as an XCom may hold it."""
        return ids_in(response) if hides_personal_data() else dict(response)

    # --- Lineage and outlets ----------------------------------------------------------------------------

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return to OpenLineage, where it is installed, what was read and which campaigns were changed."""
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        lemlist = f"lemlist://{urlsplit(self.hook.settings.base_url).netloc}"
        return OperatorLineage(
            inputs=self._lineage_inputs(),
            outputs=[Dataset(lemlist, f"campaigns/{each}") for each in self._changed_campaigns()],
        )

    def _changed_campaigns(self) -> list[str]:
        """Return the campaigns that the task has changed."""
        campaign_id = self._changed_campaign()
        return [campaign_id] if campaign_id else []

    def _changed_campaign(self) -> str | None:
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

    def _update_outlets(self, context: Context, **extra: Any) -> None:
        """Put what was created into the event of every asset among the outlets."""
        for outlet in self.outlets or ():
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(self._shown(extra))
