"""Records come out of every type of file, each with the right row number and bytes."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from deltalake import write_deltalake

from tagsieve.errors import UsageError
from tagsieve.ingest import Input
from tagsieve.ingest.containers import read_records
from tagsieve.ingest.files import find_files
from tagsieve.lake import Lake


def alpaca(query, response="answer", **more):
    return {"instruction": query, "output": response, **more}


def table(*rows):
    return pa.Table.from_pylist(list(rows))


TEXT = 'tab\t, "quoted", back\\slash, cafe\u0301, 你好 👩‍💻\r\nnext\nlast '
LINES = (
    "\ufeff".encode()
    + json.dumps(alpaca("line 0")).encode()
    + b"\r\n\n"
    + json.dumps(alpaca("line 2")).encode()
    + b'\n{"instruction": "caf\xe9", "output": "latin"}\n'
    + b'{"instruction": "cut\n'
    + b'["no", "object"]\n'
    + b"null\n"
    + json.dumps(alpaca(TEXT), ensure_ascii=False).encode()
)
LINE_REASONS = {
    3: ("invalid_utf8", b'{"instruction": "caf\xe9", "output": "latin"}'),
    4: ("unparsable", b'{"instruction": "cut'),
    5: ("not_an_object", b'["no", "object"]'),
    6: ("not_an_object", b"null"),
}
ARRAY = json.dumps([alpaca("item 0"), 5, alpaca("X"), alpaca(TEXT)], indent=2).encode()
CSV = (
    b"\xef\xbb\xbfinstruction,output,a`b.c\r\n"
    b'"say ""hi"", please",one,m\r\n'
    b'"two\nlines",two,\r\n'
    b"caf\xe9,latin,x\r\n"
    b"caf\xc3\xa9 \xe4\xbd\xa0,utf8,\r\n"
    b"no answer,,z\r\n"
)
BROKEN_CSV = (
    b"instruction,output\n"
    b"whole,yes\n"
    b"q,Hello, caf\xe9, again\n"
    b"alone\n"
    b'q,"say \\"hi\\", then go"\n'
    b'"two\nlines","a ""b"", c"\n'
)
CSV_OTHER_ORDER = 'output,extra,instruction\nanswer,é,"{}"\n'.format(TEXT.replace('"', '""'))
GOOD = json.dumps(alpaca("good"))
TAILS = [
    GOOD + GOOD,
    GOOD + " garbage",
    f"{GOOD},{GOOD}",
    f"{GOOD}],[{GOOD}",
    GOOD + "] garbage",
    f'{GOOD}, "": {GOOD}}} garbage',
    GOOD + ",",
    "1],[2",
    GOOD + "\0",
]
ODD_NAMES = ("a b", "100%", "a%20b", "a+b", "a[1]", "a{1,2}", "what?*", "é#x", "d&=")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, run_ingest, write):
    """One run over one pool per container."""
    root = tmp_path_factory.mktemp("containers")
    write(root / "lines.jsonl", LINES)
    write(root / "lines.jsonl.gz", LINES)
    write(root / "json_lines.json", [alpaca("jl 0"), alpaca("jl 1")])
    write(root / "pretty.json", b"\xef\xbb\xbf" + ARRAY.replace(b'"X"', b'"caf\xe9"'))
    write(root / "pretty.json.gz", ARRAY)
    write(root / "compact.json", json.dumps([alpaca("c 0"), alpaca("c 1")]) + "\n")
    write(root / "one.json", json.dumps(alpaca("one"), indent=2))
    write(root / "broken.json", '[{"instruction": "q", "output": "r"}, {"instr')
    write(root / "tails.jsonl", "\n".join([*TAILS, f"\t{GOOD} ", GOOD]))
    one = json.dumps(alpaca("one"), indent=2)
    write(root / "objects" / "a.json", f"{one}\n{one}\n")
    write(root / "objects" / "b.json", f"{one} ] x")
    write(root / "objects" / "c.json", f"{one}\n \n")
    two = (["first", "second"], ["third", "fourth"])
    arrays = [json.dumps([alpaca(query) for query in queries], indent=2) for queries in two]
    write(root / "two.json", "\n".join(arrays))
    write(root / "broken_csv" / "a.csv", BROKEN_CSV)
    write(root / "csv" / "a.csv", CSV)
    write(root / "csv" / "b.csv", CSV_OTHER_ORDER)
    write(root / "csv" / "c.csv.gz", "instruction,output\nzipped,yes\n")
    for name in ("empty.csv", "empty.jsonl"):
        write(root / "empty" / name, "")
    write(root / "empty" / "empty.json", "[]")
    turns = [{"role": "user", "content": "p 0"}, {"role": "assistant", "content": TEXT}]
    (root / "parquet").mkdir()
    pq.write_table(table({"messages": turns, "n": 3}), root / "parquet" / "a.parquet")
    pq.write_table(table(alpaca("p 1"), alpaca("p 2", "")), root / "parquet" / "b.parquet")
    for query in ("d 0", "d 1"):
        write_deltalake(str(root / "delta"), table(alpaca(query)), mode="append")
    (root / "delta").rename(root / "delta [1] 100%")
    for name in ODD_NAMES:
        write(root / "odd" / f"{name}.jsonl", [alpaca(name)])
    Dataset.from_list([alpaca("hf 0"), alpaca("hf 1", "")]).save_to_disk(str(root / "hf"))
    parts = {split: Dataset.from_list([alpaca(split)]) for split in ("train", "test")}
    DatasetDict(parts).save_to_disk(str(root / "hf_splits"))
    paths = {
        "lines": "lines.jsonl", "lines_gz": "lines.jsonl.gz", "json_lines": "json_lines.json",
        "pretty": "pretty.json", "pretty_gz": "pretty.json.gz", "compact": "compact.json",
        "one": "one.json", "broken": "broken.json", "csv": "csv", "empty": "empty/*",
        "tails": "tails.jsonl", "objects": "objects", "two": "two.json", "broken_csv": "broken_csv",
        "parquet": "parquet", "delta": "delta [1] 100%", "odd": "odd",
    }  # fmt: skip
    inputs = [Input(pool=pool, path=f"{root}/{path}") for pool, path in paths.items()]
    inputs += [
        Input(pool="hf", dataset=f"{root}/hf"),
        Input(pool="splits", dataset=f"{root}/hf_splits", split="test"),
        Input(pool="splits", dataset=f"{root}/hf_splits"),
    ]
    return run_ingest(Lake(str(root / "lake")), inputs)


def queries(ingested, pool):
    return [texts[0] for texts in ingested.said(pool)]


@pytest.mark.parametrize("pool", ["lines", "lines_gz"])
def test_json_lines_are_numbered_by_line_and_refused_with_their_bytes(ingested, pool):
    rows = {row["source_row"]: row["turns"][0]["content"] for row in ingested.samples(pool)}
    assert rows == {0: "line 0", 2: "line 2", 7: TEXT}
    refused = {row["source_row"]: (row["reason"], row["payload"]) for row in ingested.rejects(pool)}
    assert refused == LINE_REASONS


def test_json_line_with_more_than_one_value_is_refused_whole(ingested):
    """What follows a value closes the list or the object in which a parser might look for it."""
    *refused, duplicate = ingested.rejects("tails")
    assert [row["payload"] for row in refused] == [text.encode() for text in TAILS]
    assert {row["reason"] for row in refused} == {"unparsable"}
    assert [row["source_row"] for row in ingested.samples("tails")] == [len(TAILS)]
    assert (duplicate["source_row"], duplicate["reason"]) == (len(TAILS) + 1, "duplicate")


def test_json_lines_in_a_json_file_are_read(ingested):
    assert queries(ingested, "json_lines") == ["jl 0", "jl 1"]


def test_json_array_with_one_damaged_element_refuses_only_this_one(ingested):
    assert queries(ingested, "pretty") == ["item 0", TEXT]
    assert ingested.reasons("pretty") == {1: "not_an_object", 2: "invalid_utf8"}
    number, damaged = ingested.rejects("pretty")
    assert number["payload"] == b"5"
    assert b'"caf\xe9"' in damaged["payload"]


def test_json_array_zipped_or_compact_is_read(ingested):
    assert queries(ingested, "pretty_gz") == ["item 0", "X", TEXT]
    assert [row["source_row"] for row in ingested.samples("pretty_gz")] == [0, 2, 3]
    assert queries(ingested, "compact") == ["c 0", "c 1"]


def test_json_object_over_many_lines_is_one_record(ingested):
    assert queries(ingested, "one") == ["one"]


def test_json_objects_over_many_lines_are_refused_not_cut_to_the_first(ingested):
    assert [row["source"][-6:] for row in ingested.samples("objects")] == ["c.json"]
    several, tail = ingested.rejects("objects")
    assert several["reason"] == tail["reason"] == "unparsable"
    assert several["payload"].count(b'"instruction"') == 2
    assert tail["payload"].endswith(b"} ] x")


def test_json_array_that_breaks_off_keeps_what_is_before_and_refuses_the_rest(ingested):
    assert queries(ingested, "broken") == ["q"]
    (row,) = ingested.rejects("broken")
    assert (row["source_row"], row["reason"]) == (1, "unparsable")
    assert row["payload"] == b'{"instr'
    assert row["payload_bytes"] == len(row["payload"])


def test_json_arrays_one_after_the_other_are_not_cut_to_the_first(ingested):
    assert queries(ingested, "two") == ["first", "second"]
    (row,) = ingested.rejects("two")
    assert (row["source_row"], row["reason"]) == (2, "unparsable")
    assert json.loads(row["payload"]) == [alpaca("third"), alpaca("fourth")]


def test_csv_keeps_quotes_line_breaks_and_utf8(ingested):
    rows = [row for row in ingested.samples("csv") if row["source"].endswith("a.csv")]
    assert {row["source_row"]: row["turns"][0]["content"] for row in rows} == {
        0: 'say "hi", please',
        1: "two\nlines",
        3: "café 你",
    }
    assert rows[0]["meta"] == {"a`b.c": "m"}
    assert rows[1]["meta"] == {}
    refused = ingested.rejects("csv")
    assert [(row["source_row"], row["reason"]) for row in refused] == [
        (2, "invalid_utf8"),
        (4, "empty_response"),
    ]
    assert b"latin" in refused[0]["payload"]
    assert json.loads(refused[1]["payload"]) == {"instruction": "no answer", "a`b.c": "z"}


def test_csv_rows_of_more_or_fewer_fields_are_refused_with_their_bytes(ingested):
    rows = {row["source_row"]: row["turns"] for row in ingested.samples("broken_csv")}
    assert {row: [turn["content"] for turn in turns] for row, turns in rows.items()} == {
        0: ["whole", "yes"],
        4: ["two\nlines", 'a "b", c'],
    }
    refused = [(row["reason"], row["payload"]) for row in ingested.rejects("broken_csv")]
    assert refused == [("unparsable", line) for line in BROKEN_CSV.split(b"\n")[2:5]]


def test_csv_files_of_one_folder_may_differ_in_their_header(ingested):
    *_, other, zipped = ingested.samples("csv")
    assert [turn["content"] for turn in other["turns"]] == [TEXT, "answer"]
    assert other["meta"] == {"extra": "é"}
    assert [turn["content"] for turn in zipped["turns"]] == ["zipped", "yes"]


def test_parquet_files_of_one_folder_may_differ_in_their_schema(ingested):
    assert ingested.said("parquet") == [["p 0", TEXT], ["p 1", "answer"]]
    assert ingested.samples("parquet")[0]["meta"] == {"n": "3"}
    assert ingested.reasons("parquet") == {1: "empty_response"}
    (row,) = ingested.rejects("parquet")
    assert json.loads(row["payload"]) == alpaca("p 2", "")


def test_delta_table_is_one_source_with_rows_numbered_through(ingested):
    assert sorted(queries(ingested, "delta")) == ["d 0", "d 1"]
    assert [row["source_row"] for row in ingested.samples("delta")] == [0, 1]
    (source,) = {row["source"] for row in ingested.samples("delta")}
    assert source.startswith("file:///")
    assert source.endswith("/delta [1] 100%")


def test_files_with_odd_names_are_read_and_named_as_they_are(ingested):
    found = {
        row["source"].rpartition("/")[2]: row["turns"][0]["content"]
        for row in ingested.samples("odd")
    }
    assert found == {f"{name}.jsonl": name for name in ODD_NAMES}


def test_empty_files_of_any_type_give_no_row(ingested):
    assert ingested.rows("samples", "empty") == ingested.rows("rejects", "empty") == []


def test_ledger_counts_what_is_in_the_tables(ingested):
    reasons = Counter(row["reason"] for row in ingested.rejects())
    assert reasons["unparsable"] == len(TAILS) + 9
    assert ingested.run.rejected == reasons
    assert ingested.run.input == len(ingested.samples()) + reasons.total()


def test_dataset_made_by_save_to_disk_is_read_and_named_after_itself(ingested):
    (row,) = ingested.samples("hf")
    assert row["turns"][0]["content"] == "hf 0"
    assert row["source"].startswith("hf:///")
    assert row["source"].endswith("/hf/train")
    assert ingested.reasons("hf") == {1: "empty_response"}
    assert ingested.rejects("hf")[0]["source"] == row["source"]


def test_dataset_splits_may_feed_one_pool(ingested):
    assert sorted(queries(ingested, "splits")) == ["test", "train"]


def test_dataset_that_is_not_there_is_refused(tmp_path, lake, run_ingest):
    Dataset.from_list([alpaca("x")]).save_to_disk(str(tmp_path / "hf"))
    same = Input(pool="p", dataset=str(tmp_path / "hf"))
    with pytest.raises(UsageError, match=r"inputs\.1: hf://.*/hf/train is in inputs\.0"):
        run_ingest(lake, [same, same])
    with pytest.raises(UsageError, match=r"dataset '.*nowhere', split 'train', cannot be had"):
        run_ingest(lake, [Input(pool="p", dataset=str(tmp_path / "nowhere"))])


def test_json_lines_read_in_many_blocks_are_numbered_in_file_order(tmp_path, spark, write):
    count = 3000
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", [{"n": n, "pad": "x" * (n % 97)} for n in range(count)])
    files = find_files(Input(pool="p", path=str(tmp_path)))
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "20000")
    try:
        frame = read_records(spark, files)
        blocks = frame.rdd.getNumPartitions()
        rows = frame.selectExpr("source", "source_row", "record:n::int").collect()
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    assert blocks > 8
    assert sorted(tuple(row) for row in rows) == [
        (file.uri, n, n) for file in files for n in range(count)
    ]


def rows_read(spark, folder):
    """File, row and record of what is in a folder, and the leaves (scans, lists) of its plan."""
    frame = read_records(spark, find_files(Input(pool="p", path=str(folder))))
    rows = frame.selectExpr("source", "source_row", "to_json(record) record").collect()
    found = sorted((row["source"].rpartition("/")[2], *row[1:]) for row in rows)
    leaves = frame._jdf.queryExecution().analyzed().collectLeaves().size()
    return [(name, number, json.loads(record)) for name, number, record in found], leaves


def test_parquet_files_are_read_by_schema_not_one_by_one(tmp_path, spark):
    expected = []
    for number in range(24):
        column = ("n", "m")[number % 2]
        # What pandas writes about the rows is no part of a schema.
        rows = [{column: row, "file": number} for row in range(number % 5 + 1)]
        data = table(*rows).replace_schema_metadata({"rows": str(len(rows))})
        name = f"{number:02}.parquet"
        pq.write_table(data, tmp_path / name, row_group_size=2)
        expected += [(name, place, row) for place, row in enumerate(rows)]
    rows, leaves = rows_read(spark, tmp_path)
    assert rows == expected
    assert leaves == 4


def test_csv_files_are_read_by_header_not_one_by_one(tmp_path, spark, write):
    heads = {
        "a,b\n": "ab", "b,a\n": "ba", "\n a,b\n": (" a", "b"), "a,b\r\n": "ab", "\ufeffa,b\n": "ab",
        'a,"b\nc"\n': ("a", "b\nc"), 'a,"b\nd"\n': ("a", "b\nd"), "a,a,\n": ("a0", "a1", "_c2"),
    }  # fmt: skip
    expected = []
    for number in range(3):
        for place, (head, columns) in enumerate(heads.items()):
            end = ".csv.gz" if number == 2 else ".csv"
            rows = [[f"{number} {row} {name[0]}" for name in columns] for row in range(number + 1)]
            line_end = "\r\n" if head.endswith("\r\n") else "\n"
            text = head + "".join(",".join(row) + line_end for row in rows)
            name = f"{number}{place}{end}"
            write(tmp_path / name, text)
            expected += [
                (name, row, dict(zip(columns, fields, strict=True)))
                for row, fields in enumerate(rows)
            ]
    write(tmp_path / "empty1.csv", "")
    write(tmp_path / "empty2.csv", "")
    rows, leaves = rows_read(spark, tmp_path)
    assert rows == expected
    assert leaves == 2 * (len(heads) + 1)


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path, spark, write):
    write(tmp_path / "p" / "a.parquet", "no parquet")
    write(tmp_path / "c" / "a.csv.gz", "a,b\n" * 1000)
    packed = tmp_path / "c" / "a.csv.gz"
    packed.write_bytes(packed.read_bytes()[:-10])
    with pytest.raises(UsageError, match=r"inputs: file://.*/p/a\.parquet cannot be read as Parq"):
        rows_read(spark, tmp_path / "p")
    with pytest.raises(UsageError, match=r"inputs: file://.*/c/a\.csv\.gz cannot be read: Trunc"):
        rows_read(spark, tmp_path / "c")
