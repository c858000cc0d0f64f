"""The tag step with real Spark, Ray and Delta: exactly once, incremental, any partitioning."""

import pytest

from query_lakes import QUERIES, add_samples, tagged
from tagsieve import records
from tagsieve.errors import RunError
from tagsieve.tagging import MemoryTaggerConfig, tag, tagger_fingerprint


@pytest.fixture
def config(own_bank):
    return MemoryTaggerConfig(banks=(own_bank,))


def test_tag_twice_calls_the_model_once(lake, make_context, config):
    add_samples(lake, QUERIES)
    add_samples(lake, QUERIES[:3], pool="q")  # the same queries in another pool
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    assert (first.run.input, first.run.kept) == (5, 5)
    assert first.run.metrics["model_calls"] == 5
    version = lake.version("raw_tags")
    second = make_context("tag")
    tag(second, config)
    second.run.check()
    assert (second.run.known, second.run.metrics["model_calls"]) == (5, 0)
    assert lake.version("raw_tags") == version


def test_tag_a_grown_pool_calls_the_model_for_the_new_rows(lake, make_context, config):
    add_samples(lake, QUERIES)
    tag(make_context("tag"), config)
    before = tagged(lake)
    add_samples(lake, ["A poem on rain, please", QUERIES[0] + "  "], pool="new")
    context = make_context("tag")
    tag(context, config)
    context.run.check()
    # White space does not make a query new.
    assert (context.run.kept, context.run.known) == (1, 5)
    after = tagged(lake)
    assert len(after) == lake.arrow("raw_tags").num_rows == 6
    assert before.items() <= after.items()


def test_tag_with_another_bank_tags_anew_beside_the_old(lake, make_context, config):
    add_samples(lake, QUERIES)
    tag(make_context("tag"), config)
    both = config.model_copy(update={"banks": (*config.banks, "builtin")})
    context = make_context("tag")
    tag(context, both)
    assert context.run.kept == 5
    found = tagged(lake)
    one, joined = tagger_fingerprint(config), tagger_fingerprint(both)
    assert one != joined
    for text in QUERIES:
        query = records.query_id(text)
        assert set(found[query, one]) <= set(found[query, joined])


def test_tag_in_any_blocks_and_order_gives_the_same_tags(lake, make_context, config, spark):
    texts = [f"{query} ({n})" for n in range(20) for query in QUERIES]
    add_samples(lake, texts)
    tag(make_context("tag"), config)
    expected = tagged(lake)
    other = type(lake)(lake.root + "-2")
    add_samples(other, texts[::-1])
    context = make_context("tag")
    spark.conf.set("spark.sql.shuffle.partitions", "8")
    try:
        tag(context.__class__(other, context.engines, context.run, context.console), config)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
    assert tagged(other) == expected


def test_tag_killed_between_commits_goes_on_without_loss_or_repeats(
    lake, make_context, config, monkeypatch
):
    add_samples(lake, [f"{query} ({n})" for n in range(6) for query in QUERIES])
    commit = lake.append_next
    commits = 0

    def die_after_two(name, *arguments):
        nonlocal commits
        if name == "raw_tags":
            commits += 1
            if commits == 2:
                raise RunError("the machine died")
        return commit(name, *arguments)

    monkeypatch.setattr(lake, "append_next", die_after_two)
    with pytest.raises(RunError, match="died"):
        tag(make_context("tag"), config.model_copy(update={"commit_rows": 12}))
    monkeypatch.undo()
    done = len(tagged(lake))
    assert 0 < done < 30
    context = make_context("tag")
    tag(context, config)
    context.run.check()
    assert (context.run.known, context.run.kept) == (done, 30 - done)
    assert len(tagged(lake)) == lake.arrow("raw_tags").num_rows == 30


def test_tag_puts_what_it_cannot_read_into_quarantine_once(lake, make_context, config, own_bank):
    add_samples(lake, [*QUERIES, "🤷🤷", "?!"])
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    assert (first.run.kept, first.run.quarantined) == (5, {"unreadable": 2})
    stored = lake.arrow("quarantine").to_pylist()
    assert {row["payload"].decode() for row in stored} == {"🤷🤷", "?!"}
    assert all(row["step"] == "tag" and row["error"] for row in stored)
    assert {row["key"].split()[0] for row in stored} == {tagger_fingerprint(config)}
    add_samples(lake, ["A new query"], pool="new")
    second = make_context("tag")
    tag(second, config)
    second.run.check()
    assert (second.run.kept, second.run.known, second.run.quarantined) == (1, 7, {})
    assert lake.arrow("quarantine").num_rows == 2
    # Another tagger tries them for itself.
    both = config.model_copy(update={"banks": (*config.banks, "builtin")})
    third = make_context("tag")
    tag(third, both)
    assert (third.run.kept, third.run.quarantined) == (6, {"unreadable": 2})


def test_tag_counts_the_queries_on_which_it_abstained(lake, make_context, config):
    add_samples(lake, [*QUERIES, "zq xv 77 ##"])
    context = make_context("tag")
    tag(context, config)
    empty = sum(not tags for tags in tagged(lake).values())
    assert context.run.metrics["abstained"] == empty >= 1


def test_tag_with_a_limit_tags_only_that_many(lake, make_context, config):
    add_samples(lake, QUERIES)
    context = make_context("tag", limit=2)
    tag(context, config)
    context.run.check()
    assert len(tagged(lake)) == 2


def test_fingerprint_ignores_where_and_how_fast(config):
    faster = config.model_copy(update={"replicas": 2, "commit_rows": 7, "cpus_per_replica": 1})
    assert tagger_fingerprint(faster) == tagger_fingerprint(config)
