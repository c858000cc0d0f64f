"""Tags that a model gave before, read from a file as answers like any other."""

import gzip
import json

import pytest

from query_lakes import QUERIES, add_samples, tagged
from tagsieve import records
from tagsieve.config import validate
from tagsieve.errors import RunError, UsageError
from tagsieve.recipe import Recipe
from tagsieve.tagging import check_tagger, replay, tag, tagger_fingerprint
from tagsieve.tagging.cost import tag_cost


def config_of(path, **settings):
    values = {"kind": "recorded", "model": "org/gpt", "path": str(path)} | settings
    return validate(Recipe, {"lake": "x", "steps": ["tag"], "tag": values}, "t").tag


def write(path, *answers):
    """The answers to the first queries."""
    lines = [{"query": q, "answer": a} for q, a in zip(QUERIES, answers, strict=False)]
    text = "\n".join([*map(json.dumps, lines), ""])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_answers_are_those_of_the_file_and_more_of_them_are_replayed(lake, make_context, tmp_path):
    add_samples(lake, QUERIES)
    path = write(  # half a character, which no table can hold, is replaced
        tmp_path / "tags.jsonl.gz", '[{"tag": "poem", "explanation": ""}]', "no idea \ud83d", "[]"
    )
    config = config_of(path)
    assert tagger_fingerprint(config).startswith("recorded-gpt-open_tags-")
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    assert first.run.kept == 2
    assert first.run.quarantined == {"unparseable": 1, "not_recorded": len(QUERIES) - 3}
    assert first.run.metrics["model_calls"] == 0
    payloads = {row["payload"].decode() for row in lake.arrow("quarantine").to_pylist()}
    assert "no idea \ufffd" in payloads
    found = {query: tags for (query, _), tags in tagged(lake).items()}
    assert found == {records.query_id(QUERIES[0]): ["poem"], records.query_id(QUERIES[2]): []}
    write(path, *["[]"] * len(QUERIES))
    again = make_context("replay")
    replay(again, config, ["not_recorded"])
    assert again.run.kept == len(QUERIES) - 3
    assert tag_cost(lake, config, 3).calls == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", r"tag.path=.*, line 1: not JSON"),
        ('{"query": "a"}', 'expected an object of texts: the fields of the prompt, and "answer"'),
        ('{"query": 1, "answer": "[]"}', "expected an object of texts"),
        ('{"query": "a", "answer": "x"}\n{"answer": "y", "query": "a"}',
         "line 2: another answer to a prompt of an earlier line"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_record_of_answers_ends_the_run(lake, make_context, tmp_path, line, told):
    add_samples(lake, QUERIES[:1])
    path = tmp_path / "tags.jsonl"
    path.write_text(line)
    with pytest.raises((RunError, UsageError), match=told):
        tag(make_context("tag"), config_of(path))


def test_a_file_that_is_not_there_is_refused_first(engines):
    with pytest.raises(UsageError, match=r"tag.path=gone.jsonl: no such file"):
        check_tagger(config_of("gone.jsonl"), engines.ray_config)
