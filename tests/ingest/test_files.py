"""Which files an input names, and the type of each."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tagsieve.errors import UsageError
from tagsieve.ingest.config import Input
from tagsieve.ingest.files import find_files

RECORD = {"instruction": "q", "output": "r"}
LINE = json.dumps(RECORD)
TABLE = pa.table({"instruction": ["q"], "output": ["r"]})


def names(path, root, **settings):
    """Paths found, relative to `root`."""
    found = find_files(Input(pool="p", path=str(path), **settings))
    return [file.uri.removeprefix(f"file://{root}/") for file in found]


def container(path, **settings):
    (file,) = find_files(Input(pool="p", path=str(path), **settings))
    return file.container


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", LINE + "\n", "jsonl"),
        ("a.ndjson", LINE, "jsonl"),
        ("a.json", f"[{LINE}]", "json"),
        ("a.json", f"[{LINE}]\n", "json"),
        ("a.json", json.dumps([RECORD, RECORD], indent=2), "json"),
        ("a.json", "\ufeff \n" + json.dumps([RECORD], indent=1) + "\n\n", "json"),
        ("a.json", json.dumps(RECORD, indent=2), "json"),
        ("a.json", f"{LINE}\n{LINE}\n", "jsonl"),
        ("a.json", LINE, "jsonl"),
        ("a.json", "\ufeff" + LINE, "jsonl"),
        ("a.jsonl", json.dumps([RECORD], indent=2), "json"),
        ("a.jsonl", "[1, 2]\n[3]\n", "jsonl"),
        ("a.jsonl", "not json", "jsonl"),
        ("a.json", "", "jsonl"),
        ("a.json.gz", json.dumps([RECORD], indent=2), "json"),
        ("a.jsonl.gz", LINE, "jsonl"),
        ("a.csv", "instruction,output\n", "csv"),
        ("a.CSV", '[",b\n', "csv"),
        ("a.csv.gz", "instruction,output\n", "csv"),
        ("a", LINE, "jsonl"),
        ("a.txt", f"[\n{LINE}]", "json"),
        ("a.data.gz", LINE, "jsonl"),
    ],
)
def test_find_files_container_is_told_by_name_then_by_content(
    tmp_path, write, name, content, expected
):
    assert container(write(tmp_path / name, content)) == expected


def test_find_files_container_of_parquet_and_delta_is_told(tmp_path):
    pq.write_table(TABLE, tmp_path / "no_suffix")
    write_deltalake(str(tmp_path / "table"), TABLE)
    assert container(tmp_path / "no_suffix") == "parquet"
    assert container(tmp_path / "table") == "delta"


def test_find_files_container_that_is_set_is_not_looked_for(tmp_path, write):
    path = write(tmp_path / "notes.txt", "instruction,output\n")
    assert container(path, container="csv") == "csv"


def test_find_files_of_a_folder_are_all_below_but_hidden_ones(tmp_path, write):
    for name in ("b.jsonl", "a/c.json", "a/deep er/d.csv", "_SUCCESS", ".x.jsonl", "_tmp/e.jsonl"):
        write(tmp_path / "in" / name, LINE)
    write_deltalake(str(tmp_path / "in" / "_old"), TABLE)
    expected = ["a/c.json", "a/deep er/d.csv", "b.jsonl"]
    assert names(tmp_path / "in", tmp_path / "in") == expected
    assert names(f"{tmp_path}/in/", tmp_path / "in") == expected


def test_find_files_of_a_glob_are_sorted_and_named_once(tmp_path, write):
    for name in ("b.jsonl", "a.jsonl", "c.csv", "d/e.jsonl", "_hidden.jsonl"):
        write(tmp_path / name, LINE)
    assert names(f"{tmp_path}/*.jsonl", tmp_path) == ["a.jsonl", "b.jsonl"]
    assert names(f"{tmp_path}/[ab].jsonl", tmp_path) == ["a.jsonl", "b.jsonl"]
    assert names(f"{tmp_path}/?.csv", tmp_path) == ["c.csv"]
    # `**` matches the folder d and the file in it.
    everything = ["a.jsonl", "b.jsonl", "c.csv", "d/e.jsonl"]
    assert names(f"{tmp_path}/**", tmp_path) == everything


@pytest.mark.parametrize("name", ["a b.jsonl", "100%.jsonl", "a%20b.jsonl", "a+b.jsonl", "é.jsonl"])
def test_find_files_with_signs_in_the_name_are_found_as_they_are(tmp_path, write, name):
    path = write(tmp_path / name, LINE)
    assert names(path, tmp_path) == [name]
    assert names(tmp_path, tmp_path) == [name]


@pytest.mark.parametrize("name", ["a[1].jsonl", "what?.jsonl", "a*.jsonl", "a{1,2}.jsonl"])
def test_find_files_with_glob_signs_in_a_real_name_are_that_file(tmp_path, write, name):
    write(tmp_path / "a1.jsonl", LINE)
    assert names(write(tmp_path / name, LINE), tmp_path) == [name]


def test_find_files_relative_path_starts_at_the_working_directory(tmp_path, write, monkeypatch):
    write(tmp_path / "data" / "a.jsonl", LINE)
    monkeypatch.chdir(tmp_path)
    assert names("data/*.jsonl", tmp_path) == ["data/a.jsonl"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/data", tmp_path) == ["data/a.jsonl"]
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert names("../data/*.jsonl", tmp_path) == ["data/a.jsonl"]


def test_find_files_changed_file_is_told_from_before(tmp_path, write):
    def listing():
        return find_files(Input(pool="p", path=str(tmp_path)))

    path = write(tmp_path / "a.jsonl", LINE)
    before = listing()
    assert listing() == before
    os.utime(path, (1, 1))
    assert listing() != before
    before = listing()
    write(tmp_path / "a.jsonl", LINE * 2)
    assert [file.size for file in listing()] != [file.size for file in before]


def test_find_files_delta_table_is_told_from_its_earlier_versions_after_a_checkpoint(tmp_path):
    source = Input(pool="p", path=str(tmp_path / "table"))
    seen = []
    for _ in range(3):
        write_deltalake(source.path, TABLE, mode="append")
        DeltaTable(source.path).create_checkpoint()
        seen += find_files(source)
        assert find_files(source) == seen[-1:]
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.jsonl", "matches no file; relative paths start at the working directory"),
        ("*.parquet", "matches no file"),
        ("empty", "has no files in it"),
        ("hidden", "has no files in it"),
        ("notes.md", "notes.md cannot be told from its name or its first bytes; set container to"),
        ("broken.json.gz", "broken.json.gz cannot be read"),
        ("_a.jsonl", "_a.jsonl: Spark skips names that start with _ or ."),
        ("nosuchstore://bucket/a.jsonl", "cannot be reached"),
    ],
)
def test_find_files_that_cannot_be_read_are_refused(tmp_path, write, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "hidden" / "_SUCCESS", "")
    write(tmp_path / "notes.md", "# Notes")
    write(tmp_path / "_a.jsonl", LINE)
    (tmp_path / "broken.json.gz").write_bytes(b"no gzip")
    with pytest.raises(UsageError) as caught:
        find_files(Input(pool="p", path=path))
    assert said in str(caught.value)


def test_find_files_delta_of_a_plain_folder_is_refused(tmp_path, write):
    write(tmp_path / "a.jsonl", LINE)
    with pytest.raises(UsageError, match="is no Delta table: it has no _delta_log"):
        find_files(Input(pool="p", path=str(tmp_path), container="delta"))
