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

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path as LocalPath
from typing import Any

from airflow_provider_lemlist.campaigns.checks import Document, Mistake
from airflow_provider_lemlist.campaigns.definition import TEXTS, UNKNOWN, Path
from airflow_provider_lemlist.exceptions import LemlistError, LemlistValidationError

_FLAG, _DATE, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("bool", "timestamp", "merge"))
#: A text that begins with {{ or [[ and has no quotes.
_WITHOUT_QUOTES = re.compile(r"[:-]\s+(\{[{%]|\[\[)")


def is_remote(path: str) -> bool:
    """Return whether a path is in an object storage, and so is not read when the DAG is parsed."""
    return "://" in path and not path.startswith("file://")


def read_document(path: str, folder: str) -> Document:
    """
    Return the definition in a YAML file.

    :param path: The file.
    :param folder: The folder to which a relative path belongs.
    :raises LemlistValidationError: The file cannot be read, or is not YAML.
    :raises LemlistError: The object storage does not work now.
    """
    file = _locate(path, folder)
    try:
        text = _read(file)
    except _UNREADABLE as error:
        raise LemlistValidationError(
            f"The campaign file {str(file)!r} cannot be read: {_reason(error)}. Nothing was sent."
        ) from None
    return with_texts(parse_yaml(text, path), str(file.parent))


#: Errors that no other attempt cures: there is no such file, it is no text, or its storage lacks a package.
_UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, ImportError)


def _read(file: Any) -> str:
    try:
        return str(file.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte order mark
    except _UNREADABLE:
        raise
    except OSError as error:
        raise LemlistError(
            f"{str(file)!r} cannot be read now: {_reason(error)}. Nothing was sent."
        ) from error


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

    try:
        loader = yaml_loader()(text)
        node = loader.get_single_node()
        if node is None:
            raise LemlistValidationError(f"{file}, line 1: the file is empty. Nothing was sent.")
        lines = dict(_lines(node, (), node.start_mark))  # before the merges are carried out
        return Document(loader.construct_document(node), file, lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line if mark else text.encode()[: getattr(error, "position", 0)].count(b"\n")
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        if _WITHOUT_QUOTES.search("".join(text.splitlines()[line : line + 1])):
            problem = f"{problem}; put quotes around a text that begins with {{{{ or [["
        raise LemlistValidationError(
            f"{file}, line {line + 1}: not valid YAML: {problem}. Nothing was sent."
        ) from None


@cache
def yaml_loader() -> Any:
    """Return the loader of definitions, in which ``yes`` and dates are texts, as in YAML 1.2."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers = resolvers(yaml.SafeLoader)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (AttributeError, KeyError, TypeError, ValueError):  # such as !!int before a word
                raise _yaml_error(f"no value for {node.tag}", node.start_mark) from None

    return Loader


def resolvers(base: Any) -> dict[str, list[Any]]:
    """Return the resolvers of a loader or dumper, without those that read dates, and yes as a flag."""
    return {
        first: [each for each in known if each[0] != _DATE and (each[0] != _FLAG or first in "tTfF")]
        for first, known in base.yaml_implicit_resolvers.items()
    }


def _lines(node: Any, path: Path, mark: Any, within: tuple[Any, ...] = ()) -> Iterator[tuple[Path, int]]:
    """
    Yield the line of every value, from 1.

    :param mark: Where the value stands; of a value in a mapping, where its key stands.
    :param within: The nodes that the value is in.
    """
    if node in within:
        raise _yaml_error("an alias contains itself", mark)
    yield path, mark.line + 1
    within = (*within, node)
    if node.id == "sequence":
        if len(node.value) == 1 and node.flow_style and node.value[0].id == "sequence":
            raise _yaml_error("a list in a list", mark)
        for position, item in enumerate(node.value):
            yield from _lines(item, (*path, position), item.start_mark, within)
    elif node.id == "mapping":
        seen: set[str] = set()
        # What is merged comes first, because the mapping's own values take its place.
        for key, value in sorted(node.value, key=lambda entry: bool(entry[0].tag != _MERGE)):
            name = str(key.value)
            if name in seen:
                # YAML would take the last one and drop the others.
                raise _yaml_error(f"{name!r} is there twice", key.start_mark)
            seen.add(name)
            if key.tag != _MERGE:
                yield from _lines(value, (*path, name), key.start_mark, within)
                continue
            for merged in reversed(value.value) if value.id == "sequence" else (value,):
                yield from _lines(merged, path, mark, within)


def _yaml_error(problem: str, mark: Any) -> Exception:
    from yaml.constructor import ConstructorError

    return ConstructorError(problem=problem, problem_mark=mark)


# --- Texts in files ---------------------------------------------------------------------------------------


def with_texts(document: Document, folder: str) -> Document:
    """Return the definition with the texts that stand in files, written ``{file: opening.html}``."""
    unread: list[Mistake] = []

    def filled(value: Any, path: Path) -> Any:
        if isinstance(value, (list, tuple)):
            return [filled(item, (*path, position)) for position, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        file = value.get("file")
        if not (path and path[-1] in TEXTS and [*value] == ["file"] and isinstance(file, str)):
            return {name: filled(item, (*path, str(name))) for name, item in value.items()}
        try:
            # An editor ends a file with a line break, which is not meant to be sent.
            return _read(_locate(file, folder)).removesuffix("\n")
        except _UNREADABLE as error:
            unread.append(Mistake(path, f"the file {file!r} cannot be read: {_reason(error)}"))
            return UNKNOWN

    definition = filled(document.definition, ())
    return document._replace(definition=definition, unread=(*document.unread, *unread))
