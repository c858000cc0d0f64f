"""A tagger against its teacher: figures by hand, and those of an independent reference."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from handmade import answer, put, recorded, rows_of
from pages import check_alone
from parity import matching as reference
from query_lakes import QUERIES, add_samples, tagged
from tagsieve import ontology, tagging
from tagsieve.config import validate
from tagsieve.console import Console
from tagsieve.engines.config import RayConfig
from tagsieve.engines.held_out import held_out
from tagsieve.errors import RunError, UsageError
from tagsieve.evaluating import TagSources, evaluate, replay, task_of
from tagsieve.evaluating.config import EvaluateTagsConfig
from tagsieve.evaluating.matching import FOUND, by_query, folded, measures_of, near_tags
from tagsieve.plan import plan
from tagsieve.recipe import load_recipe
from tagsieve.records import query_id
from tagsieve.runner import check_before, run_steps

IDS = [query_id(text) for text in QUERIES]
TAUGHT = [["Poem", "sea"], ["python", "sorting"], [], ["translation"], ["science", "child"]]
ANSWERED = [["poem", " POEM", "ocean", "waves"], ["sorting", "list", "Python"], [], None, []]

SPACE = {
    tag: np.eye(12, dtype=np.float32)[number]
    for number, tag in enumerate(
        ["poem", "sea", "python", "sorting", "translation", "science", "child", "poetry"]
    )
}
SPACE["ocean"] = 9 * SPACE["sea"] + np.eye(12, dtype=np.float32)[8]
SPACE["waves"] = 2 * SPACE["sea"] + np.eye(12, dtype=np.float32)[9]
SPACE["list"] = 3 * SPACE["sorting"] + 4 * np.eye(12, dtype=np.float32)[10]  # cosine 0.6


def write_answers(path, answers):
    lines = [
        {"query": text, "answer": json.dumps([{"tag": tag, "explanation": ""} for tag in tags])}
        for text, tags in answers
        if tags is not None
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def config_of(tmp_path):
    def make(**values):
        engine = {"kind": "recorded", "model": "small", "path": str(tmp_path / "answers.jsonl")}
        least = {"name": "t", "path": str(tmp_path / "out"), "engine": engine, "share": 1}
        return validate(EvaluateTagsConfig, least | values, "t")

    return make


def sources_of(config, **changes):
    engine, setting = config.engine, "evaluate.engine"
    values = {
        "teacher": "teacher",
        "tagger": tagging.tagger_fingerprint(engine),
        "ask": lambda context, rows: tagging.tag_queries(context, engine, rows, setting),
        "ask_again": lambda context, rows, reasons: tagging.replay_queries(
            context, engine, rows, reasons, setting
        ),
        "names": lambda context: ontology.names_of(context, "v1"),
        "vectors": lambda context, tags: np.stack([SPACE[tag] for tag in tags.to_pylist()]),
    }
    return TagSources(**values | changes)


def test_figures_of_a_handful_of_queries_are_those_by_hand(
    lake, engines, make_context, config_of, tmp_path
):
    add_samples(lake, QUERIES)
    rows = [answer(key, *tags, tagger="teacher") for key, tags in zip(IDS, TAUGHT, strict=True)]
    put(lake, "raw_tags", [*rows, answer("of no sample", "sea", tagger="teacher")])
    answers = tmp_path / "answers.jsonl"
    write_answers(answers, zip(QUERIES, ANSWERED, strict=True))

    def run(run_id, function=evaluate, *arguments, **changes):
        config = config_of(similarity=0.6, **changes)
        task = task_of(config, sources_of(config))
        line = recorded(lake, engines, "evaluate", run_id, function, task, *arguments)
        return line, json.loads((tmp_path / "out" / "t.json").read_text())

    config = config_of(similarity=0.6)
    tried = make_context("evaluate", limit=2)
    evaluate(tried, task_of(config, sources_of(config)))
    tried.run.check()
    figures = json.loads((tmp_path / "out" / "t.json").read_text())
    assert (tried.run.input, figures["queries"], figures["not_asked"]) == (2, 2, 3)

    line, figures = run("r1")
    assert (line.unit, line.input, line.known) == ("query", 5, 2)
    assert (line.quarantined + tried.run.quarantined) == {"not_recorded": 1}
    assert figures["exact"] == pytest.approx({
        "precision": 3 / 6, "recall": 3 / 7, "f1": 6 / 13, "macro_f1": (0.4 + 0.8 + 1) / 5,
        "macro_precision": (1 / 3 + 2 / 3 + 1) / 5, "macro_recall": (1 / 2 + 1 + 1) / 5,
    })  # fmt: skip
    assert figures["fuzzy"] == pytest.approx({
        "precision": 5 / 6, "recall": 4 / 7, "f1": 40 / 59, "macro_f1": (1 + 0.8 + 1) / 5,
        "macro_precision": (1 + 2 / 3 + 1) / 5, "macro_recall": 3 / 5,
    })  # fmt: skip
    assert (figures["queries"], figures["in_quarantine"], figures["not_asked"]) == (5, 1, 0)
    assert (figures["tags_per_query"], figures["teacher_tags_per_query"]) == (6 / 5, 7 / 5)
    assert line.metrics["f1_fuzzy"] == figures["fuzzy"]["f1"]
    assert line.metrics["macro_f1_exact"] == figures["exact"]["macro_f1"]
    worst = [row["query"] for row in figures["examples"]]
    assert worst == [QUERIES[4], QUERIES[1]]
    check_alone((tmp_path / "out" / "t.html").read_text())

    # The teacher's tags by their names in an ontology; "child" has none.
    names = {"Poem": "poetry", "sea": "sea", "python": "sorting", "sorting": "sorting"}
    known = [{"version": "v1", "raw_tag": raw, "count": 1, "tag": tag, "update": 0}
             for raw, tag in [*names.items(), ("child", None), ("science", "child")]]  # fmt: skip
    later = {"version": "v1", "raw_tag": "science", "count": 2, "tag": "science", "update": 1}
    other = {"version": "v2", "raw_tag": "translation", "count": 2, "tag": "sea", "update": 0}
    put(lake, "ontology", [*known, later, other])
    line, figures = run("r2", tags="normalised")
    assert (line.known, line.kept) == (5, 0)
    exact = figures["exact"]
    assert (exact["precision"], exact["recall"]) == pytest.approx((1 / 6, 1 / 4))
    assert {row["query"]: row["teacher_tags"] for row in figures["examples"]} == {
        QUERIES[0]: ["poetry", "sea"], QUERIES[1]: ["sorting"], QUERIES[4]: ["science"]
    }  # fmt: skip

    write_answers(answers, zip(QUERIES, [*ANSWERED[:3], ["translation"], []], strict=True))
    line, figures = run("r3", replay, ["not_recorded"])
    assert (line.input, line.kept) == (1, 1)
    assert figures["in_quarantine"] == 0
    assert figures["exact"]["f1"] == pytest.approx(2 * 4 / 14)


def test_a_teachers_file_is_split_by_a_hash_and_measured_with_real_vectors(engines, lake, tmp_path):
    words = ["Poem", "poetry", "the sea", "ocean", "python", "Python  code", "sorting", "list"]
    rng = np.random.default_rng(0)

    def some():
        return [str(word) for word in rng.choice(words, rng.integers(0, 5), replace=False)]

    texts = [f"<b>Question</b> {number}" for number in range(30)]
    taught, given_tags = ({text: some() for text in texts} for _ in range(2))
    listed = [{"query": t, "tags": [{"tag": tag, "explanation": ""} for tag in taught[t]]}
              for t in texts]  # fmt: skip
    file = tmp_path / "tags.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join([*map(json.dumps, listed), "", ""]).encode()))
    write_answers(tmp_path / "answers.jsonl", given_tags.items())
    engine = {"kind": "recorded", "model": "small", "path": str(tmp_path / "answers.jsonl")}
    values = {
        "lake": lake.root,
        "steps": ["evaluate"],
        "evaluate": {"task": "tags", "path": str(tmp_path / "out"), "engine": engine,
                     "tags_file": str(file), "share": 0.5, "seed": 7, "similarity": 0.5},
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    recipe = load_recipe(str(path))
    (step,) = plan(recipe, recipe.steps)
    assert (step.rows, step.unit) == (15, "queries")
    run_steps(recipe, recipe.steps, Console(quiet=True), engines)

    ids = {query_id(text): text for text in texts}
    frame = engines.spark.createDataFrame([(key,) for key in ids], "query_id string")
    held = {row[0] for row in frame.where(held_out(F.col("query_id"), 0.5, 7)).collect()}
    assert 5 < len(held) < 25
    assert {key for key, _ in tagged(lake)} == held
    figures = json.loads((tmp_path / "out" / "tagger.json").read_text())
    vectors = {row["tag"]: row["vector"] for row in rows_of(lake, "tag_vectors")}
    pairs = [(taught[ids[key]], given_tags[ids[key]]) for key in held]
    expected = reference.figures(pairs, vectors, 0.5)
    assert figures["teacher"] == str(file)
    for way in ("exact", "fuzzy"):
        assert figures[way] == pytest.approx(expected[way])
    assert expected["exact"]["f1"] < expected["fuzzy"]["f1"] < 1
    page = (tmp_path / "out" / "tagger.html").read_text()
    check_alone(page)
    assert "&lt;b&gt;Question" in page
    assert len(figures["examples"]) <= 20


TAGS = st.lists(
    st.sampled_from(["A", "a", " b", "B ", "c  c", "c C", "ß", "SS", "d", ""]), max_size=6
)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12), st.sampled_from([0.3, 0.8]))
def test_figures_are_those_of_the_reference(spark, pairs, similarity):
    tags = sorted(reference.fold([tag for pair in pairs for side in pair for tag in side]))
    space = np.random.default_rng(1).normal(size=(len(tags), 3)).astype(np.float32)
    rows = [(f"q{number}", *pair, number == 3) for number, pair in enumerate(pairs)]
    schema = "query_id string, gold array<string>, predicted array<string>, failed boolean"
    compared = spark.createDataFrame(rows, schema).withColumns(
        {side: folded()(side) for side in ("gold", "predicted")}
    )
    table = compared.toArrow()
    chunks = (table.slice(start, 5) for start in range(0, len(rows), 5))
    names = pa.array(tags, pa.string())
    near = pa.concat_tables(
        near_tags(chunks, names, space if tags else np.zeros((0, 1)), similarity)
    )
    found = measures_of(by_query(compared, spark.createDataFrame(near)))
    vectors = dict(zip(tags, space, strict=True))
    expected = reference.figures(pairs, vectors, similarity)
    for way in ("exact", "fuzzy"):
        assert found[way] == pytest.approx(expected[way])
    assert (found["queries"], found["in_quarantine"]) == (len(pairs), int(len(pairs) > 3))
    assert near.schema == FOUND


def test_settings_that_cannot_work_are_refused(lake, make_context, config_of, tmp_path):
    def check(config, **changes):
        task_of(config, sources_of(config, **changes)).check(RayConfig())

    (tmp_path / "answers.jsonl").write_text("")
    own = tagging.tagger_fingerprint(config_of().engine)
    with pytest.raises(UsageError, match=r"evaluate.engine: is the tagger of tag, .* own teacher"):
        check(config_of(), teacher=own)

    with pytest.raises(UsageError, match=r"evaluate.tags_file=gone: no such file"):
        check(config_of(tags_file="gone"))

    def run(config):
        evaluate(make_context("evaluate"), task_of(config, sources_of(config)))

    empty, bad = tmp_path / "empty.jsonl", tmp_path / "bad.jsonl"
    empty.write_text("\n")
    bad.write_text('{"query": "a"}')
    with pytest.raises(UsageError, match=r"evaluate.tags_file=.*empty.jsonl: has no row"):
        run(config_of(tags_file=str(empty)))
    with pytest.raises(UsageError, match=r"evaluate.tags_file=.*bad.jsonl: a line lacks query"):
        run(config_of(tags_file=str(bad)))
    config = config_of(share=0.25)
    with pytest.raises(RunError, match=r"evaluate.share=0.25: no query that has tags of teacher"):
        run(config)


def test_a_recipe_names_the_setting_of_the_tagger_that_is_measured(tmp_path):
    gone = {"kind": "recorded", "model": "m", "path": "gone.jsonl"}
    values = {
        "lake": str(tmp_path),
        "steps": ["evaluate"],
        "evaluate": {"task": "tags", "engine": gone},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    recipe = load_recipe(str(path))
    with pytest.raises(UsageError, match=r"evaluate.engine.path=gone.jsonl: no such file"):
        check_before(recipe, recipe.steps)
    lost = {"evaluate": recipe.evaluate.model_copy(update={"tags_file": "gone"})}
    with pytest.raises(UsageError, match=r"evaluate.tags_file=gone: cannot be read"):
        plan(recipe.model_copy(update=lost), recipe.steps)
    with pytest.raises(UsageError, match=r"evaluate: missing"):
        check_before(recipe.model_copy(update={"evaluate": None}), ["evaluate"])
