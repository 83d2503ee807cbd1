# SPDX-License-Identifier: Apache-2.0
"""The same rows are the same bytes; a reader finds the old files, the new ones, or no manifest."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lemlist.datasets import Column, Row, fingerprint
from airflow_provider_lemlist.exceptions import LemlistConfigurationError
from airflow_provider_lemlist.extract import files
from airflow_provider_lemlist.extract.files import FORMATS, Part, check_format, described, replace, stage
from tests.forkserver import forkserver
from tests.unit.extract.replacing import replace_killed, stopped
from tests.unit.load.conftest import bucket

COLUMNS = (
    Column("id", "text", ()),
    Column("at", "timestamp", ()),
    Column("step", "integer", ()),
    Column("bot", "boolean", ()),
    Column("extra", "json", ()),
)
MANIFEST = {"dataset": "activities", "since": "2026-11-16T00:00:00Z", **described(COLUMNS)}
START = datetime(2026, 11, 16, tzinfo=UTC)


def rows(number: int) -> list[Row]:
    return [
        (f"act_{n}", START + timedelta(milliseconds=n), n, n % 2 == 0, f'{{"n": {n}}}') for n in range(number)
    ]


def staged(directory: Path, number: int, file_format: str = "ndjson") -> list[Part]:
    directory.mkdir()
    return stage(rows(number), COLUMNS, file_format, directory)


def text_of(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def read_back(file_format: str, path: Path) -> list[Any]:
    """Return the rows of a file, as a program that reads it finds them."""
    if file_format == "parquet":
        from pyarrow.parquet import read_table

        return [tuple(row.values()) for row in read_table(path).to_pylist()]
    if file_format == "ndjson":
        return [tuple(json.loads(line).values()) for line in text_of(path).split("\n")[:-1]]
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file, strict=True)][1:]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a part be at most four rows in groups of two."""
    monkeypatch.setattr(files, "PART_ROWS", 4)
    monkeypatch.setattr(files, "GROUP_ROWS", 2)


# --- Staging ------------------------------------------------------------------------------------------------

#: Half of a surrogate pair and an empty text are no values of a row.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(
    [
        'say "hi"',
        "a\nb",
        "a\r\nb",
        "\r",
        ",",
        ";",
        "👩‍🚀 é",
        "=1+1",
        "@x",
        "\u2028",
        " ",
        "null",
        "None",
        "\\N",
    ]
)
moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=UTC)
)


def maybe(values: Any) -> Any:
    return st.none() | values


@pytest.mark.parametrize("file_format", FORMATS)
@given(
    values=st.lists(
        st.tuples(
            maybe(texts),
            maybe(moments),
            maybe(st.integers(-(2**63), 2**63 - 1)),
            maybe(st.booleans()),
            maybe(texts.map(lambda text: json.dumps({"a": text}, ensure_ascii=False))),
        ),
        max_size=5,
    )
)
def test_values_are_read_back_as_they_were(file_format: str, values: list[Row]) -> None:
    def written(value: Any) -> Any:
        if file_format == "parquet":
            return value
        if isinstance(value, datetime):
            # strftime does not pad the year.
            value = f"{value.year:04}-{value:%m-%dT%H:%M:%S}.{value.microsecond // 1000:03}Z"
        if file_format == "ndjson":
            return value
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    with tempfile.TemporaryDirectory() as directory:
        [part] = stage(values, COLUMNS, file_format, Path(directory))
        path = Path(directory, part.name)
        assert read_back(file_format, path) == [tuple(map(written, row)) for row in values]
        assert (part.rows, part.bytes) == (len(values), path.stat().st_size)
        assert part.sha256 == sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("file_format", FORMATS)
def test_same_rows_are_the_same_bytes_in_parts_of_bounded_size(file_format: str, tmp_path: Path) -> None:
    first = staged(tmp_path / "first", 11, file_format)
    # A later moment, another directory, and rows that come one by one.
    (tmp_path / "second").mkdir()
    second = stage(iter(rows(11)), COLUMNS, file_format, tmp_path / "second")
    assert first == second
    ending = {"parquet": "parquet", "ndjson": "ndjson.gz", "csv": "csv.gz"}[file_format]
    assert [part.name for part in first] == [f"part-0000{n}.{ending}" for n in range(3)]
    assert [part.rows for part in first] == [4, 4, 3]
    for part in first:
        content = (tmp_path / "first" / part.name).read_bytes()
        assert content == (tmp_path / "second" / part.name).read_bytes()
        if file_format != "parquet":
            assert content[3:8] == bytes(5)  # flags and time: neither a name nor a moment
    found = [row for part in first for row in read_back(file_format, tmp_path / "first" / part.name)]
    assert [row[0] for row in found] == [row[0] for row in rows(11)]
    assert len(staged(tmp_path / "third", 8, file_format)) == 2


def test_file_of_each_format_reads_as_documented(tmp_path: Path) -> None:
    values: list[Row] = [
        ('a"b', datetime(1969, 12, 31, 23, 59, 59, 5000, UTC), -1, False, '{"x": "é"}'),
        (None,) * 5,
    ]
    for file_format in FORMATS:
        stage(values, COLUMNS, file_format, tmp_path)
    assert text_of(tmp_path / "part-00000.csv.gz") == (
        'id,at,step,bot,extra\r\n"a""b",1969-12-31T23:59:59.005Z,-1,false,"{""x"": ""é""}"\r\n,,,,\r\n'
    )
    assert text_of(tmp_path / "part-00000.ndjson.gz") == (
        '{"id": "a\\"b", "at": "1969-12-31T23:59:59.005Z", "step": -1, "bot": false, '
        '"extra": "{\\"x\\": \\"é\\"}"}\n'
        '{"id": null, "at": null, "step": null, "bot": null, "extra": null}\n'
    )


@pytest.mark.parametrize("number", [0, 1])
def test_schema_of_parquet_does_not_depend_on_rows(number: int, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import read_schema

    [part] = stage([(None,) * 5] * number, COLUMNS, "parquet", tmp_path)
    assert part.rows == number
    schema = read_schema(tmp_path / part.name)
    assert list(zip(schema.names, schema.types, strict=True)) == [
        ("id", pyarrow.string()),
        ("at", pyarrow.timestamp("ms", tz="UTC")),
        ("step", pyarrow.int64()),
        ("bot", pyarrow.bool_()),
        ("extra", pyarrow.string()),
    ]


def test_without_rows_there_is_one_file_without_rows(tmp_path: Path) -> None:
    for file_format, text in (("ndjson", ""), ("csv", "id,at,step,bot,extra\r\n")):
        [part] = stage([], COLUMNS, file_format, tmp_path)
        assert part.rows == 0
        assert text_of(tmp_path / part.name) == text


def test_unknown_format_is_named_with_the_known_ones() -> None:
    with pytest.raises(LemlistConfigurationError, match=r"parquet, ndjson, csv, not 'parqet'.*'parquet'"):
        check_format("parqet")


def test_only_parquet_needs_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_format("parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(LemlistConfigurationError, match=r"airflow-provider-lemlist\[parquet\]"):
        check_format("parquet")
    for file_format in ("ndjson", "csv"):
        check_format(file_format)
        assert stage(rows(3), COLUMNS, file_format, tmp_path)


# --- Replacing ----------------------------------------------------------------------------------------------

FOREIGN = {
    "notes.txt",
    "part-1.parquet",
    "part-00000.parquet.crc",
    "part-00009.parquet.new",
    "part-00000-a.csv.gz",
}


@pytest.fixture(params=["disk", "bucket"])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStoragePath:
    """Return a directory that does not exist yet, on disk, then in an object store."""
    bucket.use(tmp_path)
    if request.param == "disk":
        return ObjectStoragePath(f"file://{tmp_path}/lake/day=1")
    # A real store has no directories.
    monkeypatch.setattr(bucket.Bucket, "mkdir", lambda *_, **__: None)
    return ObjectStoragePath("bucket://lake/day=1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of the target, as other programs see it."""
    return tmp_path / "lake" / "day=1"


@pytest.fixture
def old(tmp_path: Path, target: ObjectStoragePath, place: Path, small_parts: None) -> dict[str, str]:
    """Fill the target with three files of an earlier run beside foreign ones; return the files of the run."""
    replace(target, staged(tmp_path / "old", 11), tmp_path / "old", MANIFEST)
    for name in FOREIGN:
        (place / name).write_text(name)
    return content_of(tmp_path / "old")


def content_of(place: Path) -> dict[str, str]:
    """Return the hashes of the files of a directory that are not foreign."""
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in place.iterdir()
        if path.name not in FOREIGN
    }


def assert_readable(place: Path, *sets: dict[str, str]) -> None:
    """Make sure that there is no manifest, or exactly the files of one set; foreign files always."""
    assert {path.name for path in place.iterdir()} >= FOREIGN
    found = content_of(place)
    visible = {name: content for name, content in found.items() if not name.startswith(".")}
    assert "_manifest.json" not in found or visible in sets


def test_manifest_says_what_the_files_are(
    target: ObjectStoragePath, place: Path, tmp_path: Path, small_parts: None
) -> None:
    parts = staged(tmp_path / "new", 6)
    paths = replace(target, parts, tmp_path / "new", MANIFEST)
    written = json.loads((place / "_manifest.json").read_text())
    assert written == {
        "dataset": "activities",
        "since": "2026-11-16T00:00:00Z",
        "schema": [
            {"name": "id", "type": "text"},
            {"name": "at", "type": "timestamp"},
            {"name": "step", "type": "integer"},
            {"name": "bot", "type": "boolean"},
            {"name": "extra", "type": "json"},
        ],
        "schema_fingerprint": fingerprint(COLUMNS),
        "rows": 6,
        "files": [
            {"name": part.name, "rows": part.rows, "bytes": part.bytes, "sha256": part.sha256}
            for part in parts
        ],
    }
    for part in parts:
        assert content_of(place)[part.name] == part.sha256
    where = str(place) if target.protocol == "file" else "bucket://lake/day=1"
    assert paths == [f"{where}/part-00000.ndjson.gz", f"{where}/part-00001.ndjson.gz"]


def test_surplus_files_of_any_format_are_removed_and_foreign_ones_stay(
    target: ObjectStoragePath, place: Path, tmp_path: Path, old: dict[str, str]
) -> None:
    (place / ".part-00007.parquet.new").touch()  # of a run that was killed
    replace(target, staged(tmp_path / "new", 3, "csv"), tmp_path / "new", MANIFEST)
    assert content_of(place) == content_of(tmp_path / "new")
    assert {*content_of(place)} == {"part-00000.csv.gz", "_manifest.json"}
    assert {path.name for path in place.iterdir()} >= FOREIGN


def test_target_that_is_a_file_is_refused(target: ObjectStoragePath, place: Path, tmp_path: Path) -> None:
    place.parent.mkdir()
    place.write_text("mine")
    with pytest.raises(LemlistConfigurationError, match="path must be a directory; .*day=1 is a file"):
        replace(target, staged(tmp_path / "new", 3), tmp_path / "new", MANIFEST)
    assert place.read_text() == "mine"


def test_files_that_another_worker_wrote_since_the_last_listing_are_removed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    listings: dict[str, list[Any]] = {}
    ls = bucket.Bucket.ls

    def remembered(self: Any, path: str, detail: bool = True, **_: Any) -> list[Any]:
        key = self._strip_protocol(path).strip("/")
        found = listings[key] if key in listings else listings.setdefault(key, ls(self, path))
        return found if detail else [each["name"] for each in found]

    def forget(self: Any, path: str | None = None) -> None:
        listings.pop(self._strip_protocol(path or "").strip("/"), None)

    bucket.use(tmp_path)
    monkeypatch.setattr(bucket.Bucket, "ls", remembered)
    monkeypatch.setattr(bucket.Bucket, "invalidate_cache", forget)
    target = ObjectStoragePath("bucket://lake/day=1")
    place.mkdir(parents=True)
    assert target.fs.ls(target.path) == []  # remembered from now on
    for name in ("part-00005.csv.gz", "_manifest.json"):
        (place / name).touch()
    replace(target, staged(tmp_path / "new", 3), tmp_path / "new", MANIFEST)
    assert content_of(place) == content_of(tmp_path / "new")


class Interrupted(BaseException):
    pass


def interrupt() -> None:
    raise Interrupted


def test_replacement_interrupted_at_any_line_can_be_told_and_repeated(
    target: ObjectStoragePath,
    place: Path,
    tmp_path: Path,
    old: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and the machine keeps running
    parts = staged(tmp_path / "new", 7)
    replace(target, parts, tmp_path / "new", MANIFEST)
    new = content_of(tmp_path / "new")
    assert len(new) == len(old) - 1  # one part is surplus
    seen = set()
    for line in count():
        replace(target, old_parts(tmp_path), tmp_path / "old", MANIFEST)
        assert_readable(place, old)
        try:
            with stopped(line, interrupt):
                replace(target, parts, tmp_path / "new", MANIFEST)
        except Interrupted:
            assert_readable(place, old, new)
            seen.add("_manifest.json" in content_of(place))
            replace(target, parts, tmp_path / "new", MANIFEST)
            assert content_of(place) == new
        else:
            break
    assert seen == {True, False}
    assert line > 20


def old_parts(tmp_path: Path) -> list[Part]:
    content = json.loads((tmp_path / "old" / "_manifest.json").read_text())
    return [Part(**file) for file in content["files"]]


def test_replacement_killed_anywhere_can_be_told_and_repeated(
    target: ObjectStoragePath, place: Path, tmp_path: Path, old: dict[str, str]
) -> None:
    parts = staged(tmp_path / "new", 7)
    processes = forkserver("tests.unit.extract.replacing")
    new: dict[str, str] = {}
    killed = 0
    for line in range(0, 1000, 11):
        arguments = (line, str(target), str(tmp_path), parts, tmp_path / "new", MANIFEST)
        process = processes.Process(target=replace_killed, args=arguments)
        process.start()
        process.join()
        new = content_of(tmp_path / "new")
        assert_readable(place, old, new)
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        killed += 1
        replace(target, old_parts(tmp_path), tmp_path / "old", MANIFEST)
        assert content_of(place) == old
    assert content_of(place) == new
    assert killed > 5
