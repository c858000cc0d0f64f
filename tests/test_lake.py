"""The lake: every table in both engines, commits that happen once, tables that are refused."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from delta.exceptions import ConcurrentAppendException
from delta.tables import DeltaMergeBuilder
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableMerger
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from tagsieve.errors import RunError
from tagsieve.lake import TABLES, Lake, rows_table

VALUES = {
    pa.string(): "ünï\n'code'",
    pa.int64(): 2**40,
    pa.float64(): 0.1,
    pa.binary(): b"\xff\x00",
}


def value_of(kind, number):
    """A value of an Arrow type that differs with `number`."""
    if pa.types.is_map(kind):
        return [("k", value_of(kind.item_type, number))]
    if pa.types.is_list(kind):
        return [value_of(kind.value_type, number)]
    if pa.types.is_struct(kind):
        return {field.name: value_of(field.type, number) for field in kind}
    if pa.types.is_timestamp(kind):
        return 1_764_000_000_123_456 + number
    value = VALUES[kind]
    return value + (number if isinstance(value, int | float) else str(number).encode()
                    if isinstance(value, bytes) else str(number))  # fmt: skip


def row_of(name, number):
    return {field.name: value_of(field.type, number) for field in TABLES[name].schema}


def samples(*keys, pool="p", source="s"):
    return [
        {"pool": pool, "sample_id": key, "turns": [], "source": source, "run_id": "r"}
        for key in keys
    ]


def frame_of(spark, name, rows):
    schema = from_arrow_schema(TABLES[name].schema)
    return spark.createDataFrame(rows_table(name, rows).to_pandas(), schema)


def bare(kind):
    """A type without the parts that engines name freely (nullability, list and map fields)."""
    if pa.types.is_map(kind):
        return ("map", bare(kind.key_type), bare(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return ("list", bare(kind.value_type))
    if pa.types.is_struct(kind):
        return ("struct", *((field.name, bare(field.type)) for field in kind))
    return str(kind).removeprefix("large_")


def columns_of(schema):
    return {field.name: bare(field.type) for field in schema}


def test_tables_have_keys_that_are_columns_and_never_null():
    for name, table in TABLES.items():
        assert name == table.name
        assert set(table.key) | set(table.partition_by) <= set(table.schema.names)
        assert all(not table.schema.field(column).nullable for column in table.key)


def test_create_every_table_has_one_schema_for_both_engines(lake, spark):
    for name, table in TABLES.items():
        made = lake.create(name)
        assert columns_of(lake.arrow(name).schema) == columns_of(table.schema), name
        seen = to_arrow_schema(lake.read(spark, name).schema)
        assert columns_of(seen) == columns_of(table.schema), name
        assert tuple(made.metadata().partition_columns) == table.partition_by
        assert (made.protocol().min_reader_version, made.protocol().min_writer_version) == (1, 2)
    assert lake.tables() == list(TABLES)


def test_create_again_changes_nothing(lake):
    assert lake.version("samples") is None
    assert lake.create("samples").version() == 0
    assert lake.create("samples").version() == 0
    assert lake.tables() == ["samples"]


@pytest.mark.parametrize("name", ["samples", "runs", "rejects"])
def test_rows_written_by_each_engine_are_read_by_the_other(lake, spark, name):
    expected = [rows_table(name, [row_of(name, n)]).to_pylist()[0] for n in (1, 2)]
    assert lake.append_once(name, rows_table(name, [expected[0]]), "app", 1)
    # What delta-rs wrote goes through Spark into a second lake, and is read by delta-rs there.
    other = Lake(f"{lake.root}-2")
    other.append(lake.read(spark, name), name)
    other.append_once(name, rows_table(name, [expected[1]]), "app", 1)
    key = TABLES[name].key[0]
    assert sorted(other.arrow(name).to_pylist(), key=lambda row: row[key]) == expected
    assert other.read(spark, name).count() == 2
    assert lake.read(spark, name, version=0).count() == 0


def test_working_leaves_nothing_of_the_run_behind(lake):
    for run_id in ("r1", "r2"):
        Path(lake.work_uri(run_id, "rows")).mkdir(parents=True)
    with lake.working("r1"):
        pass
    with pytest.raises(KeyboardInterrupt), lake.working("r2"):
        raise KeyboardInterrupt
    assert list(Path(lake.root, "_work").iterdir()) == []


def test_working_that_cannot_clear_up_raises_the_error_of_its_block(lake, monkeypatch):
    def refuse(*_, **options):
        raise PermissionError("no permission")

    Path(lake.work_uri("r", "rows")).mkdir(parents=True)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.rm", refuse)
    with pytest.raises(RunError, match="full disk") as caught, lake.working("r"):
        raise RunError("full disk")
    assert caught.value.__notes__ == ["then, too: PermissionError: no permission"]
    with pytest.raises(PermissionError), lake.working("r"):
        pass


def test_read_of_a_table_that_is_not_there_gives_no_rows(lake, spark):
    frame = lake.read(spark, "samples")
    assert frame.count() == 0
    assert frame.columns == TABLES["samples"].schema.names
    assert lake.arrow("samples").num_rows == 0
    assert lake.arrow("samples", ["pool"]).schema.names == ["pool"]
    assert lake.tables() == []


def test_arrow_with_columns_and_filters_reads_only_these(lake):
    lake.append_once("samples", rows_table("samples", samples("a", "b")), "app", 1)
    read = lake.arrow("samples", ["sample_id"], [("sample_id", "=", "b")])
    assert read.to_pylist() == [{"sample_id": "b"}]


def test_append_once_repeated_or_older_version_is_skipped(lake):
    rows = rows_table("samples", samples("a"))
    assert lake.append_once("samples", rows, "app", 2)
    assert not lake.append_once("samples", rows, "app", 2)
    assert not lake.append_once("samples", rows, "app", 1)
    assert lake.arrow("samples").num_rows == 1
    assert lake.append_once("samples", rows, "app", 3)
    assert lake.append_once("samples", rows, "other", 2)
    assert lake.arrow("samples").num_rows == 3


def test_append_once_picks_columns_by_name(lake):
    rows = rows_table("samples", samples("a"))
    lake.append_once("samples", rows.select(rows.schema.names[::-1]), "app", 1)
    assert lake.arrow("samples").to_pylist()[0]["sample_id"] == "a"


def test_upsert_updates_by_key_and_inserts_the_rest(lake):
    def row(step, status):
        return {"run_id": "r1", "step": step, "status": status, "rejected": {"why": 1}}

    lake.upsert("runs", rows_table("runs", [row("tag", "running"), row("ingest", "done")]))
    lake.upsert("runs", rows_table("runs", [row("tag", "done"), row("select", "running")]))
    found = {row["step"]: row["status"] for row in lake.arrow("runs").to_pylist()}
    assert found == {"ingest": "done", "tag": "done", "select": "running"}
    assert lake.arrow("runs").num_rows == 3


def in_threads(count, work):
    """Run `work(number)` in threads that start together; gives what each raised, or None."""
    start, outcomes = threading.Barrier(count), {}

    def run(number):
        start.wait()
        try:
            work(number)
            outcomes[number] = None
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[number] for number in range(count)]


def test_upsert_from_many_at_once_loses_no_row(lake):
    lake.create("runs")
    threads, rows = 12, 2

    def write(thread):
        for number in range(rows):
            row = {"run_id": f"r{thread}", "step": f"s{number}", "status": "done"}
            Lake(lake.root).upsert("runs", rows_table("runs", [row]))

    assert in_threads(threads, write) == [None] * threads
    keys = {(row["run_id"], row["step"]) for row in lake.arrow("runs").to_pylist()}
    assert keys == {(f"r{thread}", f"s{number}") for thread in range(threads)
                    for number in range(rows)}  # fmt: skip
    assert lake.arrow("runs").num_rows == len(keys)


def test_upsert_that_always_loses_says_to_run_again(lake, monkeypatch):
    def lose(merger):
        raise CommitFailedError("a concurrent transaction deleted data")

    monkeypatch.setattr(TableMerger, "execute", lose)
    monkeypatch.setattr("tagsieve.lake.PATIENCE", 0)
    row = {"run_id": "r", "step": "s", "status": "done"}
    with pytest.raises(RunError, match=r"runs cannot be written to while others.*run again when"):
        lake.upsert("runs", rows_table("runs", [row]))


def test_insert_new_twice_adds_nothing(lake, spark):
    first = frame_of(spark, "samples", samples("a", "b"))
    again = frame_of(spark, "samples", samples("b", "c", source="later"))
    assert lake.insert_new(first, "samples", {"pool": "p"}) == 2
    assert lake.insert_new(again, "samples", {"pool": ["p"]}) == 1
    assert lake.insert_new(again, "samples", {"pool": ["p"]}) == 0
    rows = {row["sample_id"]: row["source"] for row in lake.arrow("samples").to_pylist()}
    assert rows == {"a": "s", "b": "s", "c": "later"}
    assert lake.arrow("samples").num_rows == 3


@pytest.fixture
def overtaken(tmp_path):
    """Runs `work(frame)` and, after it has begun and before it can commit, `other()`; gives what
    `work` gives."""

    def run(frame, column, work, other):
        began, go = tmp_path / "began", tmp_path / "go"

        def hold(value):
            began.touch()
            for _ in range(1200):
                if go.exists():
                    break
                time.sleep(0.05)
            return value

        with ThreadPoolExecutor(1) as thread:
            # One task: the other core is for `other`.
            held = frame.coalesce(1).withColumn(column, F.udf(hold, "string")(column))
            done = thread.submit(work, held)
            while not began.exists() and not done.done():
                time.sleep(0.05)
            try:
                other()
            finally:
                go.touch()
            return done.result()

    return run


@pytest.mark.parametrize("pool", ["other", "p"])
def test_insert_new_overtaken_by_another_loses_no_row_and_doubles_none(
    lake, spark, overtaken, pool
):
    theirs = frame_of(spark, "samples", samples("b", "c", source="theirs", pool=pool))
    added = overtaken(
        frame_of(spark, "samples", samples("a", "b")),
        "lang",
        lambda frame: lake.insert_new(frame, "samples", {"pool": "p"}),
        lambda: lake.insert_new(theirs, "samples", {"pool": pool}),
    )
    assert added == (1 if pool == "p" else 2)
    rows = [(row["pool"], row["sample_id"], row["source"])
            for row in lake.arrow("samples").to_pylist()]  # fmt: skip
    expected = {(pool, "b", "theirs"), (pool, "c", "theirs"), ("p", "a", "s"), ("p", "b", "s")}
    if pool == "p":
        expected.remove(("p", "b", "s"))
    assert sorted(rows) == sorted(expected)


def test_resolve_overtaken_by_another_taggers_commit_closes_its_rows(lake, spark, overtaken):
    def quarantined(key):
        row = {"run_id": "r", "step": "tag", "key": key, "reason": "not_json"}
        return rows_table("quarantine", [row])

    lake.append_next("quarantine", quarantined("t1 q1"), "t1", 0)
    overtaken(
        spark.createDataFrame([("t1 q1",)], "key string"),
        "key",
        lambda keys: lake.resolve(keys, "r2", False),
        lambda: lake.append_next("quarantine", quarantined("t2 q1"), "t2", 0),
    )
    found = {row["key"]: row["resolved_by"] for row in lake.arrow("quarantine").to_pylist()}
    assert found == {"t1 q1": "r2", "t2 q1": None}


def test_insert_new_that_always_loses_says_to_run_again(lake, spark, monkeypatch):
    def lose(merging):
        raise ConcurrentAppendException("files were added\nby another")

    monkeypatch.setattr(DeltaMergeBuilder, "execute", lose)
    monkeypatch.setattr("tagsieve.lake.PATIENCE", 0)
    told = r"samples cannot be written to while others change it \(files were added\); run again"
    with pytest.raises(RunError, match=told):
        lake.insert_new(frame_of(spark, "samples", samples("a")), "samples", {"pool": "p"})


def test_replace_touches_only_its_partition(lake, spark):
    # Quotes and backslashes in a partition value must not leave the partition.
    odd = "it's \\ 'q'"
    for pool in ("a", odd):
        rows = rows_table("samples", samples("x", "y", pool=pool))
        lake.append_once("samples", rows, f"app {pool}", 1)
    frame = frame_of(spark, "samples", samples("z", pool=odd))
    lake.replace(frame, "samples", {"pool": odd})
    rows = sorted((row["pool"], row["sample_id"]) for row in lake.arrow("samples").to_pylist())
    assert rows == [("a", "x"), ("a", "y"), (odd, "z")]
    assert lake.version("samples") == 3


def create_as(lake, name, schema):
    """A table as an earlier tagsieve made it, with other columns."""
    DeltaTable.create(
        lake.uri(name),
        schema=schema,
        partition_by=list(TABLES[name].partition_by),
        configuration={"tagsieve.format": "1"},
        raise_if_key_not_exists=False,
    )


def test_table_of_an_earlier_tagsieve_gets_the_columns_that_it_lacks(lake, spark):
    old = pa.schema(list(TABLES["raw_tags"].schema)[:4])
    create_as(lake, "raw_tags", old)
    row = {"query_id": "q1", "tagger": "t", "tags": [], "run_id": "r"}
    write_deltalake(lake.uri("raw_tags"), pa.Table.from_pylist([row], schema=old), mode="append")
    names = TABLES["raw_tags"].schema.names
    assert lake.arrow("raw_tags").to_pylist() == [dict.fromkeys(names) | row]
    (read,) = lake.read(spark, "raw_tags").collect()
    assert (read.asDict()["query_id"], read.asDict()["flags"]) == ("q1", None)
    new = row | {"query_id": "q2", "flags": ["repaired"], "prompt_tokens": 5}
    lake.append_once("raw_tags", rows_table("raw_tags", [new]), "app", 1)
    assert lake.delta("raw_tags").schema().to_arrow().names == names
    found = {r["query_id"]: r["flags"] for r in lake.arrow("raw_tags").to_pylist()}
    assert found == {"q1": None, "q2": ["repaired"]}
    # The version before is still read, by whoever pinned it.
    assert lake.read(spark, "raw_tags", 1).select("prompt_tokens").collect()[0][0] is None


def test_table_of_an_earlier_tagsieve_takes_rows_without_a_column_that_is_gone(lake, spark):
    old = pa.schema([*TABLES["clusters"].schema, pa.field("label", pa.string())])
    create_as(lake, "clusters", old)
    rows = [{"clustering": "c", "sample_id": key, "cluster": 1} for key in "ab"]
    there = pa.Table.from_pylist([rows[0] | {"label": "x"}], schema=old)
    write_deltalake(lake.uri("clusters"), there, mode="append")
    lake.insert_new(frame_of(spark, "clusters", rows), "clusters", {"clustering": "c"})
    assert sorted(row["sample_id"] for row in lake.arrow("clusters").to_pylist()) == ["a", "b"]
    assert lake.read(spark, "clusters").columns == TABLES["clusters"].schema.names


def test_table_of_a_newer_tagsieve_takes_rows_without_the_columns_it_added(lake, spark):
    added = pa.schema(
        [pa.field("new", pa.string()), pa.field("newer", pa.map_(pa.string(), pa.int64()))]
    )
    for name in ("runs", "samples"):
        lake.create(name).alter.add_columns(Schema.from_arrow(added).fields)
    lake.append_once("samples", rows_table("samples", samples("a")), "app", 1)
    lake.append_next("samples", rows_table("samples", samples("b")), "other", 0)
    lake.append(frame_of(spark, "samples", samples("c")), "samples")
    lake.insert_new(frame_of(spark, "samples", samples("a", "d")), "samples", {"pool": "p"})
    lake.replace(frame_of(spark, "samples", samples("e", pool="q")), "samples", {"pool": "q"})
    for status in ("running", "done"):
        row = {"run_id": "r", "step": "s", "status": status}
        lake.upsert("runs", rows_table("runs", [row]))
    # The newer one finds its columns, without a value.
    for name, count in (("samples", 5), ("runs", 1)):
        rows = lake.delta(name).to_pyarrow_table()
        assert rows.schema.names == [*TABLES[name].schema.names, *added.names]
        assert (rows.num_rows, rows["new"].null_count, rows["newer"].null_count) == (count,) * 3
    assert sorted(lake.arrow("samples")["sample_id"].to_pylist()) == list("abcde")


def test_append_next_is_refused_after_somebody_elses_commit(lake):
    rows = rows_table("raw_tags", [{"query_id": "q", "tagger": "t", "tags": [], "run_id": "r"}])
    assert lake.append_next("raw_tags", rows, "tag t", 0) == 1
    assert lake.commits_of("raw_tags", "tag t") == 1
    with pytest.raises(RunError, match="another run committed to raw_tags"):
        lake.append_next("raw_tags", rows, "tag t", 0)
    assert lake.append_next("raw_tags", rows, "tag t", 1) == 2
    assert lake.append_next("raw_tags", rows, "tag other", 0) == 1
    assert lake.arrow("raw_tags").num_rows == 3


def test_append_next_from_several_at_once_lets_one_through(lake):
    rows = rows_table("raw_tags", [{"query_id": "q", "tagger": "t", "tags": [], "run_id": "r"}])
    lake.create("raw_tags")
    outcomes = in_threads(8, lambda _: lake.append_next("raw_tags", rows, "tag t", 0))
    assert sorted(map(type, outcomes), key=str) == [type(None), *[RunError] * 7]
    assert lake.arrow("raw_tags").num_rows == 1


def test_lake_of_a_newer_layout_is_refused_with_upgrade(lake):
    lake.create("samples")
    log = f"{lake.uri('samples')}/_delta_log/00000000000000000000.json"
    with open(log, encoding="utf-8") as stream:
        actions = [json.loads(line) for line in stream]
    for action in actions:
        if "metaData" in action:
            action["metaData"]["configuration"]["tagsieve.format"] = "2"
    with open(log, "w", encoding="utf-8") as stream:
        stream.write("\n".join(map(json.dumps, actions)))
    with pytest.raises(RunError, match=r"layout 2.*upgrade tagsieve"):
        lake.read(None, "samples")
    with pytest.raises(RunError, match="upgrade"):
        lake.create("samples")


def test_lake_with_a_foreign_delta_table_is_refused(lake):
    write_deltalake(lake.uri("samples"), pa.table({"x": [1]}))
    with pytest.raises(RunError, match="samples is a Delta table that tagsieve did not make"):
        lake.create("samples")
    assert DeltaTable(lake.uri("samples")).to_pyarrow_table().num_rows == 1


def test_lake_with_deletion_vectors_is_refused_with_the_feature(lake, spark):
    properties = "'delta.enableDeletionVectors' = 'true', 'tagsieve.format' = '1'"
    spark.sql(
        f"CREATE TABLE delta.`{lake.uri('samples')}` (pool STRING, sample_id STRING) "
        f"USING delta TBLPROPERTIES ({properties})"
    )
    with pytest.raises(RunError, match=r"deletionVectors.*DROP FEATURE"):
        lake.version("samples")


def test_lake_below_a_plain_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match="cannot create table samples"):
        Lake(str(tmp_path / "file")).create("samples")


def test_lake_root_with_spaces_and_relative_path_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lake = Lake("my lakes/ünï (1)")
    lake.append_once("samples", rows_table("samples", samples("a")), "app", 1)
    assert Lake(str(tmp_path / "my lakes" / "ünï (1)")).arrow("samples").num_rows == 1


def test_lake_uris_of_object_stores_are_spelled_for_each_engine():
    lake = Lake("s3://bucket/lake/")
    assert lake.uri("samples") == "s3://bucket/lake/samples"
    assert lake.spark_uri(lake.uri("samples")) == "s3a://bucket/lake/samples"
