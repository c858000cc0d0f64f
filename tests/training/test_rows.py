"""What is trained on: rows and order of selections and mixtures, tags under their names, files,
preferences."""

import json

import pytest

from handmade import answer, put, rows_of, sample
from query_lakes import add_samples
from stub_judge import engine, judge_of, worth
from tagsieve import records
from tagsieve.config import validate
from tagsieve.errors import UsageError
from tagsieve.judging import judge, preferences, task_of
from tagsieve.judging.config import JudgeAnswersConfig
from tagsieve.training import sources


def rows_of_source(context, source):
    context.run.reads(*source.tables)
    rows = source.rows(context).orderBy("place").collect()
    return [row.asDict(recursive=True) for row in rows]


def test_a_mixture_in_its_order_with_its_copies(lake, make_context):
    turns = [("user", "Add\n1"), ("assistant", "2")]
    put(lake, "samples", [sample("p", "a", ("q",)),
                          sample("q", "b", ("r",), turns, {"input": "1"})])  # fmt: skip
    mixed = [("q", "b", 0), ("p", "a", 0), ("q", "b", 1)]
    put(lake, "mixtures", [
        {"mixture": "m", "position": n, "pool": pool, "sample_id": key, "copy": copy, "part": pool,
         "run_id": "r"}
        for n, (pool, key, copy) in enumerate(mixed)
    ])  # fmt: skip
    rows = rows_of_source(make_context("train"), sources.conversations("m", mixed=True))
    assert [(row["id"], row["given"]) for row in rows] == [("b", "1"), ("a", ""), ("b", "1")]
    assert rows[0]["turns"][1] == {"role": "assistant", "content": "2"}
    assert rows_of_source(make_context("train"), sources.conversations("n", mixed=True)) == []


def test_tags_as_they_are_and_under_their_names(lake, make_context, spark):
    add_samples(lake, ["first", "second", "third"])
    first, second, third = (records.query_id(text) for text in ("first", "second", "third"))
    answers = [answer(first, "a", "b", "c"), answer(second, "z"), answer(third)]
    put(lake, "raw_tags", [*answers, answer(first, "x", tagger="other")])
    found = rows_of_source(make_context("train"), sources.tags_of("t", None))
    tags = {row["id"]: [tag["tag"] for tag in row["tags"]] for row in found}
    assert tags == {first: ["a", "b", "c"], second: ["z"], third: []}
    assert [row["id"] for row in found] == sorted(tags)
    named = [("c", "one"), ("a", "one"), ("b", "two"), ("z", None)]

    def names(context):
        return spark.createDataFrame(named, "raw_tag string, tag string")

    put(lake, "ontology", [{"version": "v", "raw_tag": "a", "tag": "one", "update": 0}])
    found = rows_of_source(make_context("train"), sources.tags_of("t", names))
    tags = {row["id"]: [tag["tag"] for tag in row["tags"]] for row in found}
    assert tags == {first: ["one", "two"], second: [], third: []}


def test_files_of_tags_and_of_examples(make_context, tmp_path):
    path = tmp_path / "tags.jsonl"
    lines = [{"query": f"q {n}", "tags": [{"tag": "t", "explanation": "why"}]} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, [*lines, lines[0]])))
    found = rows_of_source(make_context("train"), sources.tags_file(str(path)))
    assert {row["id"] for row in found} == {records.query_id(f"q {n}") for n in range(3)}

    def refused(source, why):
        with pytest.raises(UsageError, match=why):
            rows_of_source(make_context("train"), source)

    path.write_text('{"query": "q"}')
    refused(sources.tags_file(str(path)), r"tags_file=.*: a line lacks query .* or tags")
    path.write_text("")
    refused(sources.tags_file(str(path)), r"tags_file=.*: has no row")
    refused(sources.scorer_examples("not-there.parquet"), r"train.examples=not-there.*no such file")
    path.write_text(json.dumps({"prompt": "p", "completion": "seven"}))
    refused(sources.scorer_examples(str(path)), r"a completion is 'seven'; those of a scorer")
    path.write_text(json.dumps({"prompt": "p"}))
    refused(sources.scorer_examples(str(path)), r"lacks completion; it has: prompt")
    path.write_text(json.dumps({"prompt": "p", "completion": 3}))
    (row,) = rows_of_source(make_context("train"), sources.scorer_examples(str(path)))
    assert row["completion"] == "3"


def test_files_of_preferences(make_context, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "yes", "rejected": "no"}))
    (row,) = rows_of_source(make_context("train"), sources.preference_file(str(path)))
    assert (row["turns"], row["chosen"], row["rejected"]) == (
        [{"role": "user", "content": "p"}], "yes", "no"
    )  # fmt: skip
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]
    told = {
        name: [*asked, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")
    }
    path.write_text(json.dumps(told))
    (row,) = rows_of_source(make_context("train"), sources.preference_file(str(path)))
    assert (row["turns"], row["chosen"], row["rejected"]) == (asked, "chosen", "rejected")
    for lame in ({"chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "a", "rejected": None},
                 {"prompt": "p", **told, "rejected": "b"}):  # fmt: skip
        path.write_text(json.dumps(lame))
        with pytest.raises(UsageError, match=r"train.pairs=.*pairs.jsonl: (lacks|expected)"):
            rows_of_source(make_context("train"), sources.preference_file(str(path)))


def test_what_all_judges_prefer_in_both_orders(lake, make_context, endpoint, tmp_path):
    endpoint.reply = judge_of(2, 10)
    count = 12
    for name, key in (("asked", "q"), ("ours", "output"), ("theirs", "output")):
        rows = [json.dumps({key: f"{name} {n}"}) for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    config = validate(
        JudgeAnswersConfig,
        {
            "path": str(tmp_path / "out"),
            "test_sets": [{"name": "t", "path": str(tmp_path / "asked.jsonl"), "field": "q"}],
            "answers": {m: {"path": str(tmp_path / f"{m}.jsonl")} for m in ("ours", "theirs")},
            "judges": {"stub": {"engine": engine(endpoint)}},
        },
        "judge",
    )
    judge(make_context("judge"), task_of(config))
    assert len(rows_of(lake, "judgements")) == 2 * count
    expected = set()
    for n in range(count):
        ours, theirs = f"ours {n}", f"theirs {n}"
        ahead = worth(ours, 10) - worth(theirs, 10)
        if abs(ahead) > 2:  # else the first place decides, and the orders differ
            better, worse = (ours, theirs) if ahead > 0 else (theirs, ours)
            expected.add((f"asked {n}", better, worse))
    assert 2 < len(expected) < count
    found = preferences(make_context("train"), config).collect()
    assert {tuple(row) for row in found} == expected
    source = sources.preferences(lambda context: preferences(context, config))
    assert len(rows_of_source(make_context("train"), source)) == len(expected)
