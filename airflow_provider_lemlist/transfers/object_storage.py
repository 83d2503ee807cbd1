# SPDX-License-Identifier: Apache-2.0
"""The operator that writes a dataset into files, on disk or in an object store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_lemlist.arguments import (
    NOT_GIVEN,
    check_choice,
    given_names,
    is_from_mapped,
    or_none,
    refuse_empty,
    the,
)
from airflow_provider_lemlist.datasets import dataset_named
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.extract.files import FileFormat
from airflow_provider_lemlist.extract.windows import days_of, reaching_back
from airflow_provider_lemlist.storage import name_in_storage, shown, storage_path
from airflow_provider_lemlist.templating import is_open
from airflow_provider_lemlist.transfers.base import READ_FIELDS, LemlistTransfer

if TYPE_CHECKING:
    import os
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_lemlist.datasets import Dataset
    from airflow_provider_lemlist.extract.files import Part
    from airflow_provider_lemlist.extract.options import ReadOptions

#: Stands for the day in the path of a target that has a directory for each day.
DAY = "{day}"


class LemlistToObjectStorageOperator(LemlistTransfer):
    """
    Write a dataset into the files of a directory, and replace those of an earlier run.

    The read is complete before the target is touched; if it fails, the target stays as it was. A target whose
    ``_manifest.json`` is there is complete. A window that is read again replaces exactly its own files.

    Returns the dataset, the number of rows, the files, the window and a fingerprint of the schema.

    Guide: <https://airflow-provider-lemlist.github.io/airflow-provider-lemlist/operators/lemlist-to-object-storage/>

    :param path: The directory, such as ``s3://lake/lemlist/leads/{{ ds }}``. With ``{day}``, such as
        ``s3://lake/lemlist/activities/day={day}``, each day of the window, in UTC, is read whole and replaces
        its own directory; today is read up to now. (templated)
    :param storage_conn_id: Connection of the object storage. (templated)
    :param file_format: ``parquet``, which needs pyarrow, or ``ndjson`` or ``csv``, compressed by gzip.
    :param kwargs: The arguments of ``LemlistTransfer``, which say what is read.
    """

    template_fields: Sequence[str] = ("path", "storage_conn_id", *READ_FIELDS, "lemlist_conn_id")

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | ObjectStoragePath | XComArg,
        storage_conn_id: str | XComArg | None = NOT_GIVEN,
        file_format: FileFormat = "parquet",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path: Any = path
        self.storage_conn_id: Any = or_none(storage_conn_id)
        self.file_format = file_format
        #: The directories that were written.
        self._targets: list[ObjectStoragePath] = []
        target = {"path": path, "storage_conn_id": storage_conn_id}
        self._given += given_names(target, mapped=is_from_mapped(self))
        self.check_arguments(vars(self))

    @classmethod
    def check_arguments(cls, arguments: Mapping[str, Any]) -> None:
        super().check_arguments(arguments)
        check_choice("file_format", arguments, FileFormat)
        path = arguments["path"]
        # A template may render the day, or nothing that is needed.
        if not is_open(path):
            refuse_empty(path, the("path", arguments), error=LemlistConfigurationError)
            _check_days(dataset_named(arguments["dataset"]), path, arguments["reread"])

    def transfer(self, context: Context) -> dict[str, Any]:
        """Read and write the window, or each of its days."""
        from airflow_provider_lemlist.extract.files import check_format, check_target

        check_format(self.file_format)
        _check_days(dataset_named(self.dataset), self.path, self.reread)
        options = self._options(context)
        parts = self._parts(options)
        targets = [self._target(part) for part in parts]
        for target in targets:
            check_target(target)
        self._targets = []
        files: list[str] = []
        rows = 0
        for part, target in zip(parts, targets, strict=True):
            written = self._write(context, part, target)
            files += written[0]
            rows += written[1]
        if not self._targets:
            self._refuse_empty_set(context)
        first, last = parts[0].window, parts[-1].window
        window = first and last and first._replace(until=last.until)
        return self._report(context, window, rows=rows, files=files)

    def _parts(self, options: ReadOptions) -> list[ReadOptions]:
        """Return what each target holds: the whole window, or one of its days."""
        if DAY not in str(self.path) or options.window is None:
            return [options]
        window = reaching_back(options.window, self.reread) if self.reread else options.window
        return [replace(options, window=day) for day in days_of(window, datetime.now(UTC))]

    def _target(self, part: ReadOptions) -> ObjectStoragePath:
        path = self.path
        if part.window is not None and DAY in str(path):
            path = str(path).replace(DAY, part.window.day)
        return storage_path(path, self.storage_conn_id, self._the("path"))

    def _write(self, context: Context, part: ReadOptions, target: ObjectStoragePath) -> tuple[list[str], int]:
        """Read a part, and replace the files of its target; return the files and the number of rows."""
        from airflow_provider_lemlist.extract.files import replace as replace_files
        from airflow_provider_lemlist.extract.files import stage, staging_directory
        from airflow_provider_lemlist.extract.reader import read

        with staging_directory() as directory:
            staged: list[Part] = stage(read(self.hook, part), part.columns, self.file_format, directory)
            rows = sum(each.rows for each in staged)
            if not rows and self.if_empty != "write":
                if self.if_empty == "fail":
                    self._refuse_empty_set(context)
                return [], 0
            files = replace_files(target, staged, directory, self._manifest(part))
        self._targets.append(target)
        self._log_written(shown(target), rows, part.window)
        return files, rows

    def _manifest(self, part: ReadOptions) -> dict[str, Any]:
        from airflow_provider_lemlist.extract.files import described

        window = part.window
        return {
            "dataset": self.dataset,
            **({"since": window.since.isoformat(), "until": window.until.isoformat()} if window else {}),
            "campaign_ids": list(part.campaign_ids),
            "activity_types": list(part.activity_types),
            **described(part.columns),
        }

    def _written_places(self) -> list[tuple[str, str]]:
        return [(target.namespace, name_in_storage(target)) for target in self._targets]


def _check_days(dataset: Dataset, path: Any, reread: timedelta | None) -> None:
    """Check that a path has days if one is needed for each, and none if the dataset has none."""
    has_days = DAY in str(path)
    if has_days and not dataset.has_window:
        raise LemlistConfigurationError(
            f"Dataset {dataset.name} has no days; write {{{{ ds }}}} instead of {DAY} in path."
        )
    if reread is not None and not has_days:
        raise LemlistConfigurationError(f"reread needs a directory for each day: write {DAY} into path.")
