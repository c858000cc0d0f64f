"""What ingest refuses, what it knows already, and that nothing of it depends on partitions."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from tagsieve.errors import UsageError
from tagsieve.ingest import IngestConfig, Input, ingest
from tagsieve.lake import PAYLOAD_BYTES, Lake
from tagsieve.records import query_ids, sample_id

QUERY = "Please explain how a steam engine works, in simple words"
ANSWER = "Water is heated until it becomes steam, and the steam pushes a piston."


def pair(query, answer=ANSWER, **more):
    return {"instruction": query, "output": answer, **more}


def chat(*texts, **more):
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"messages": turns, **more}


LONG = pair(QUERY, "x" * (PAYLOAD_BYTES + 10))
RECORDS = [
    (pair(f"{QUERY} ."), None),
    (pair(f"  {QUERY}\t. "), "duplicate"),
    (pair(f"{QUERY} of a caf\u00e9?", kind="first"), None),
    (chat(unicodedata.normalize("NFD", f"{QUERY} of a caf\u00e9?"), ANSWER), "duplicate"),
    (pair(QUERY, " \n"), "empty_response"),
    (pair("\u3000"), "empty_query"),
    (chat(QUERY), "no_response"),
    ({"messages": [{"role": "assistant", "content": ANSWER}]}, "no_human_turn"),
    (LONG, "too_long"),
    (chat(*[QUERY, ANSWER] * 2), None),
    (chat(*[QUERY, ANSWER] * 3), "too_many_turns"),
    (pair("请用简单的语言解释蒸汽机是如何工作的, 谢谢你的帮助。"), "language"),
    ({"other": 1}, "unknown_format"),
    (pair(QUERY, 5), "wrong_type"),
    # The first line again: its blank answer comes before it being a duplicate.
    (pair(QUERY, " \n"), "empty_response"),
]
STRICT = IngestConfig(max_chars=10_000, max_turns=2, languages=("en",))
OPEN = IngestConfig(empty_response="keep", no_response="keep", max_chars=None, meta=False)
# Reasons that no option switches off.
ALWAYS = ("duplicate", "empty_query", "no_human_turn", "unknown_format", "wrong_type")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, write):
    """A file with every reason, and one whose every row is in the first one too."""
    root = tmp_path_factory.mktemp("step")
    mixed = write(root / "mixed.jsonl", [record for record, _ in RECORDS])
    other = write(root / "other.jsonl", [record for record, reason in RECORDS if reason is None])
    return [Input(pool="mixed", path=mixed), Input(pool="other", path=other)]


@pytest.fixture(scope="module")
def strict(tmp_path_factory, run_ingest, inputs):
    return run_ingest(Lake(str(tmp_path_factory.mktemp("strict"))), inputs, STRICT)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, run_ingest, inputs):
    return run_ingest(Lake(str(tmp_path_factory.mktemp("open"))), inputs[:1], OPEN)


@pytest.fixture
def copied(tmp_path, strict):
    """A lake of its own with all that the strict run wrote."""
    shutil.copytree(strict.lake.root, tmp_path / "copy")
    return Lake(str(tmp_path / "copy"))


def test_ingest_strict_run_refuses_each_row_for_its_reason(strict):
    expected = {n: reason for n, (_, reason) in enumerate(RECORDS) if reason is not None}
    assert strict.reasons("mixed") == expected
    kept = [row["source_row"] for row in strict.samples("mixed")]
    assert kept == [n for n, (_, reason) in enumerate(RECORDS) if reason is None]


def test_ingest_rejects_hold_the_bytes_as_they_came(strict):
    for row in strict.rejects("mixed"):
        record, reason = RECORDS[row["source_row"]]
        line = json.dumps(record, ensure_ascii=False).encode()
        assert row["step"] == "ingest"
        assert row["run_id"] == "run1"
        assert row["source"].endswith("/mixed.jsonl")
        if reason == "duplicate":
            # The conversation is in `samples`, under the same id.
            ids = {sample["sample_id"] for sample in strict.samples("mixed")}
            assert row["sample_id"] in ids
        else:
            assert row["payload"] == line[:PAYLOAD_BYTES]
            assert row["payload_bytes"] == len(line)
    assert len(json.dumps(LONG)) > PAYLOAD_BYTES


def test_ingest_a_target_needs_no_answer(tmp_path, run_ingest, write):
    """Only its own rows: the same in another pool is refused."""
    asked = "How far is the moon?"
    records = [chat(QUERY), chat("How far is the sun?", ANSWER), pair(" "), pair(asked, " ")]
    path = write(tmp_path / "prompts.jsonl", records)
    inputs = [Input(pool="p", path=path), Input(pool="wanted", path=path, target=True)]
    done = run_ingest(Lake(str(tmp_path / "lake")), inputs, IngestConfig())
    assert done.reasons("p") == {0: "no_response", 2: "empty_query", 3: "empty_response"}
    assert done.reasons("wanted") == {2: "empty_query"}
    assert [row["source_row"] for row in done.samples("wanted")] == [0, 1, 3]
    assert done.samples("wanted")[-1]["turns"] == [{"role": "user", "content": asked}]


def test_ingest_ledger_counts_rows_by_reason(strict):
    run = strict.run
    good = sum(reason is None for _, reason in RECORDS)
    assert (run.unit, run.input, run.kept, run.known) == ("row", len(RECORDS) + good, 2 * good, 0)
    assert run.rejected["duplicate"] == 2
    assert run.rejected["empty_response"] == 2
    assert run.rejected.total() == len(RECORDS) - good
    assert set(run.written) == {"samples", "rejects"}


def test_ingest_samples_carry_identity_language_and_place(strict):
    for row in strict.samples():
        turns = [(turn["role"], turn["content"]) for turn in row["turns"]]
        assert row["sample_id"] == sample_id(turns)
        assert row["query_ids"] == query_ids(turns)
        assert row["lang"] == "en"
        assert row["run_id"] == "run1"


def test_ingest_duplicate_keeps_the_first_row_as_it_came(strict):
    first, cafe, *_ = strict.samples("mixed")
    assert first["turns"][0]["content"] == f"{QUERY} ."
    assert cafe["turns"][0]["content"] == f"{QUERY} of a caf\u00e9?"
    assert cafe["meta"] == {"kind": "first"}


def test_ingest_same_conversation_in_two_pools_is_kept_in_both(strict):
    ids = [row["sample_id"] for row in strict.samples("mixed")]
    assert [row["sample_id"] for row in strict.samples("other")] == ids
    assert strict.rejects("other") == []


def test_ingest_options_switched_off_keep_what_they_refused(opened):
    expected = {n: reason for n, (_, reason) in enumerate(RECORDS) if reason in ALWAYS}
    last = len(RECORDS) - 1
    assert opened.reasons("mixed") == expected | {last: "duplicate"}
    rows = {row["source_row"]: row for row in opened.samples("mixed")}
    assert set(rows) == set(range(last)) - set(expected)
    assert rows[4]["turns"][1]["content"] == " \n"
    assert rows[11]["lang"] == "zh"
    assert all(row["meta"] == {} for row in rows.values())


def test_ingest_in_many_partitions_gives_the_same_rows(tmp_path, run_ingest, inputs, strict, spark):
    settings = {"spark.sql.files.maxPartitionBytes": "9000", "spark.sql.shuffle.partitions": "8"}
    before = {name: spark.conf.get(name) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        other = run_ingest(Lake(str(tmp_path)), inputs, STRICT)
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    assert other.samples() == strict.samples()
    assert other.rejects() == strict.rejects()


def test_ingest_again_of_the_same_files_is_done_before(copied, run_ingest, inputs, strict):
    again = run_ingest(copied, inputs, STRICT, run_id="run2")
    assert again.run.metrics["from_earlier_run"] == 1
    assert again.run.known == again.run.input == strict.run.input
    assert again.samples() == strict.samples()
    assert again.rejects() == strict.rejects()


@pytest.fixture
def grown(inputs):
    """The same inputs, the first one touched, the second one with two rows more."""
    mixed, other = (Path(source.path) for source in inputs)
    before = other.read_bytes()
    os.utime(mixed, (1, 1))
    rows = [pair(f"{QUERY} !"), pair("")]
    other.write_bytes(before + "".join(json.dumps(row) + "\n" for row in rows).encode())
    yield inputs
    other.write_bytes(before)


def test_ingest_again_after_touch_and_growth_adds_only_what_is_new(
    copied, run_ingest, grown, strict
):
    again = run_ingest(copied, grown, STRICT, run_id="run2")
    assert "from_earlier_run" not in again.run.metrics
    known = strict.run.input
    assert (again.run.input, again.run.known, again.run.kept) == (known + 2, known, 1)
    assert again.run.rejected == {"empty_query": 1}
    (sample,) = [row for row in again.samples() if row["run_id"] == "run2"]
    (reject,) = [row for row in again.rejects() if row["run_id"] == "run2"]
    count = len(strict.samples("other"))
    assert (sample["pool"], sample["source_row"]) == ("other", count)
    assert (reject["pool"], reject["source_row"]) == ("other", count + 1)
    assert [row for row in again.samples() if row["run_id"] == "run1"] == strict.samples()
    assert [row for row in again.rejects() if row["run_id"] == "run1"] == strict.rejects()


def test_ingest_limit_reads_the_first_rows_of_each_input(lake, make_context, inputs, write):
    context = make_context("ingest", limit=3)
    ingest(context, inputs, IngestConfig())
    context.run.check()
    assert context.run.input == 6
    rows = lake.arrow("samples", ["pool", "source_row"]).to_pylist()
    assert sorted((row["pool"], row["source_row"]) for row in rows) == [
        ("mixed", 0),
        ("mixed", 2),
        ("other", 0),
        ("other", 1),
        ("other", 2),
    ]
    assert lake.arrow("rejects", ["source_row"]).to_pylist() == [{"source_row": 1}]


def test_ingest_of_records_of_unknown_shape_only_names_the_fields_found(
    tmp_path, lake, run_ingest, write
):
    odd = write(tmp_path / "odd.jsonl", [{"ask": "q", "reply": "r"}] * 2)
    huge = write(tmp_path / "huge.jsonl", [{"text": "x" * PAYLOAD_BYTES}])
    fine = write(tmp_path / "fine.jsonl", [pair(QUERY)])
    inputs = [
        Input(pool="fine", path=fine),
        Input(pool="odd", path=odd),
        Input(pool="huge", path=huge),
        Input(pool="set", path=fine, format="qa"),
    ]
    with pytest.raises(UsageError) as caught:
        run_ingest(lake, inputs)
    odd_line, huge_line, set_line = str(caught.value).splitlines()
    assert odd_line.startswith(f"inputs.1 ({odd}): none of its 2 records has the fields of any")
    assert "it has: ask, reply. Set format" in odd_line
    assert huge_line.startswith("inputs.2")
    assert "of format 'qa'; it has: instruction, output." in set_line
    assert lake.tables() == ["runs"]


def test_ingest_of_one_file_twice_in_a_pool_is_refused(tmp_path, lake, make_context, write):
    path = write(tmp_path / "a.jsonl", [pair(QUERY)])
    inputs = [Input(pool="p", path=str(tmp_path)), Input(pool="p", path=path)]
    with pytest.raises(UsageError, match=r"inputs\.1: file://.*a\.jsonl is in inputs\.0 of pool p"):
        ingest(make_context("ingest"), inputs, IngestConfig())
    assert lake.tables() == []


def test_ingest_of_a_missing_file_is_refused_before_any_table_is_made(tmp_path, lake, make_context):
    with pytest.raises(UsageError, match="matches no file"):
        ingest(make_context("ingest"), [Input(pool="p", path=f"{tmp_path}/no")], IngestConfig())
    assert lake.tables() == []


def test_ingest_of_rows_that_another_run_adds_meanwhile_knows_them(
    tmp_path, run_ingest, write, monkeypatch
):
    whole = [pair(f"{QUERY} {number}?") for number in range(3)]
    mine = Input(pool="p", path=write(tmp_path / "whole.jsonl", whole))
    theirs = Input(pool="p", path=write(tmp_path / "part.jsonl", whole[:2]))
    lake, insert_new = Lake(str(tmp_path / "lake")), Lake.insert_new

    def overtaken(self, *args):
        monkeypatch.setattr(Lake, "insert_new", insert_new)
        assert run_ingest(lake, [theirs], run_id="theirs").run.kept == 2
        return self.insert_new(*args)

    monkeypatch.setattr(Lake, "insert_new", overtaken)
    done = run_ingest(lake, [mine], run_id="mine")
    assert (done.run.input, done.run.known, done.run.kept) == (3, 2, 1)
    assert [row["run_id"] for row in done.samples()] == ["theirs", "theirs", "mine"]
