# SPDX-License-Identifier: Apache-2.0
"""
Definitions in files: YAML with line numbers, and texts in files of their own.

    name: Spring webinar
    steps:
      - type: email
        subject: "{{firstName}}, a question"
        message: {file: opening.html}

A path is relative to the folder of the DAG file; one with a scheme, such as ``s3://…``, is in an object
storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path as LocalPath
from typing import Any

from airflow_provider_lemlist.campaigns.checks import Document, Mistake
from airflow_provider_lemlist.campaigns.definition import TEXTS, UNKNOWN, Path
from airflow_provider_lemlist.exceptions import LemlistValidationError


def is_remote(path: str) -> bool:
    """Return whether a path is in an object storage, and so is not read when the DAG is parsed."""
    return "://" in path and not path.startswith("file://")


def read_document(path: str, folder: str) -> Document:
    """
    Return the definition in a YAML file.

    :param path: The file.
    :param folder: The folder to which a relative path belongs.
    :raises LemlistValidationError: The file cannot be read, or is not YAML.
    """
    file = _locate(path, folder)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LemlistValidationError(
            f"The campaign file {path!r} cannot be read: {_reason(error)}. Nothing was sent."
        ) from None
    return with_texts(parse_yaml(text, path), str(file.parent))


def _locate(path: str, folder: str) -> Any:
    if "://" not in path:
        return LocalPath(folder, path) if "://" not in folder else _locate(f"{folder}/{path}", "")
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return ObjectStoragePath(path)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# --- YAML -------------------------------------------------------------------------------------------------


def parse_yaml(text: str, file: str) -> Document:
    """
    Return the definition in a YAML text.

    :param file: The name of the file, for errors.
    :raises LemlistValidationError: It is not YAML, or a mapping names something twice.
    """
    import yaml

    loader = yaml_loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise LemlistValidationError(f"{file} is empty. Nothing was sent.")
        lines = dict(_lines(node, (), file))
        return Document(loader.construct_document(node), file, lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise LemlistValidationError(f"{file}{line}: not valid YAML: {problem}. Nothing was sent.") from None
    except RecursionError:
        raise LemlistValidationError(f"{file}: an alias contains itself. Nothing was sent.") from None
    finally:
        loader.dispose()


@cache
def yaml_loader() -> Any:
    """Return the loader of definitions, in which ``yes`` is a text, as in YAML 1.2, and not a flag."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers = _without_yes(yaml.SafeLoader)

    return Loader


def _without_yes(base: Any) -> dict[str, list[Any]]:
    """Return the resolvers of a loader or dumper, without those that read yes, no, on and off as flags."""
    flag = "tag:yaml.org,2002:bool"
    return {
        first: [each for each in resolvers if each[0] != flag or first in "tTfF"]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }


def _lines(node: Any, path: Path, file: str) -> Iterator[tuple[Path, int]]:
    """Yield the line of every value, from 1: of a value in a mapping the line of its key."""
    if not path:
        yield path, node.start_mark.line + 1
    if node.id == "sequence":
        for position, item in enumerate(node.value):
            yield (*path, position), item.start_mark.line + 1
            yield from _lines(item, (*path, position), file)
    elif node.id == "mapping":
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                # YAML would take the last one and drop the others.
                raise LemlistValidationError(
                    f"{file}, line {line}: {name!r} is there twice. Nothing was sent."
                )
            seen.add(name)
            yield (*path, name), line
            yield from _lines(value, (*path, name), file)


# --- Texts in files ---------------------------------------------------------------------------------------


def with_texts(document: Document, folder: str) -> Document:
    """Return the definition with the texts that stand in files, written ``{file: opening.html}``."""
    unread: list[Mistake] = []

    def filled(value: Any, path: Path) -> Any:
        if isinstance(value, (list, tuple)):
            return [filled(item, (*path, position)) for position, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if not (path and path[-1] in TEXTS and [*value] == ["file"]):
            return {name: filled(item, (*path, str(name))) for name, item in value.items()}
        try:
            # An editor ends a file with a line break, which is not meant to be sent.
            return _locate(str(value["file"]), folder).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, ValueError) as error:
            unread.append(Mistake(path, f"the file {value['file']!r} cannot be read: {_reason(error)}"))
            return UNKNOWN

    definition = filled(document.definition, ())
    return document._replace(definition=definition, unread=(*document.unread, *unread))
