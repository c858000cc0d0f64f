"""The embed step with real Spark, Ray and Delta: exactly once, incremental, any partitioning."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from handmade import put, rows_of
from parity.embedding import sentence_vector
from ray_cluster import clean_environment
from tagsieve import records
from tagsieve.console import Console
from tagsieve.embedding import (
    CausalEmbedConfig,
    SentenceEmbedConfig,
    embed,
    encoder_fingerprint,
    replay,
)
from tagsieve.engines.encoders import packaged_minilm
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.lease import lease
from tagsieve.recipe import Recipe
from tagsieve.runner import run_replay
from talks import TALKS, add_talks, vectors_of

ROOT = Path(__file__).resolve().parents[2]
FP32 = SentenceEmbedConfig(dtype="float32")


def many(count):
    return [[("user", f"Say {n} " + "again " * (n % 7)), ("assistant", "ok")] for n in range(count)]


def test_embed_twice_calls_the_model_once(lake, make_context):
    add_talks(lake, TALKS)
    add_talks(lake, TALKS[:3], pool="q")  # the same conversations in another pool
    first = make_context("embed")
    embed(first, FP32)
    first.run.check()
    assert (first.run.unit, first.run.input, first.run.kept) == ("sample", 5, 5)
    assert first.run.metrics["model_calls"] == 5
    found = vectors_of(lake)
    for talk in TALKS:
        question = next(text for role, text in talk if role == "user")
        expected = sentence_vector(packaged_minilm(), question, 256)
        assert np.allclose(found[records.sample_id(talk)], expected, atol=1e-5)
    row = rows_of(lake, "embeddings", sample_id=records.sample_id(TALKS[0]))[0]
    assert row["encoder"] == encoder_fingerprint(FP32)
    assert (row["tokens"], row["truncated"], row["run_id"]) == (8, False, first.run.run_id)

    version = lake.version("embeddings")
    second = make_context("embed")
    embed(second, FP32)
    second.run.check()
    assert (second.run.known, second.run.metrics["model_calls"]) == (5, 0)
    assert lake.version("embeddings") == version


def test_embed_a_grown_pool_calls_the_model_for_the_new_rows(lake, make_context):
    add_talks(lake, TALKS)
    embed(make_context("embed"), FP32)
    before = vectors_of(lake)
    new = [[("user", "A poem on rain, please"), ("assistant", "Rain.")]]
    add_talks(lake, [*TALKS[:2], *new], pool="new")
    context = make_context("embed")
    embed(context, FP32)
    context.run.check()
    assert (context.run.kept, context.run.known, context.run.metrics["model_calls"]) == (1, 5, 1)
    after = vectors_of(lake)
    assert len(after) == 6
    assert before.items() <= after.items()


def test_embed_conversations_that_share_a_text_call_the_model_once(lake, make_context):
    talks = [[("user", f"Say {n % 3}"), ("assistant", f"ok {n}")] for n in range(30)]
    add_talks(lake, talks)
    context = make_context("embed")
    embed(context, FP32)
    context.run.check()
    assert (context.run.kept, context.run.metrics["model_calls"]) == (30, 3)
    found = vectors_of(lake)
    assert len({tuple(found[records.sample_id(talk)]) for talk in talks[::3]}) == 1
    assert len(set(map(tuple, found.values()))) == 3


@pytest.mark.soak
def test_embed_with_another_text_embeds_anew_beside_the_old(lake, make_context, tiny_llama):
    add_talks(lake, TALKS)
    whole = CausalEmbedConfig(model=tiny_llama, text="conversation", dtype="float32")
    configs = [FP32, whole]
    for config in configs:
        context = make_context("embed")
        embed(context, config)
        context.run.check()
        assert context.run.kept == 5
    for config, width in zip(configs, (384, 128), strict=True):
        rows = rows_of(lake, "embeddings", encoder=encoder_fingerprint(config))
        assert [len(row["vector"]) for row in rows] == [width] * 5


def test_embed_in_any_blocks_and_order_gives_the_same_bits(lake, make_context, spark):
    talks = many(24)
    add_talks(lake, talks)
    embed(make_context("embed"), FP32)
    expected = vectors_of(lake)
    other = Lake(lake.root + "-2")
    add_talks(other, talks[::-1])
    context = make_context("embed")
    spark.conf.set("spark.sql.shuffle.partitions", "8")
    try:
        few = FP32.model_copy(update={"commit_rows": 8})
        embed(context.__class__(other, context.engines, context.run, context.console), few)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
    assert vectors_of(other) == expected


def test_embed_killed_between_commits_goes_on_without_loss_or_repeats(
    lake, make_context, monkeypatch
):
    add_talks(lake, many(30))
    commit = lake.append_next
    commits = 0

    def die_after_two(name, *arguments):
        nonlocal commits
        if name == "embeddings":
            commits += 1
            if commits == 2:
                raise RunError("the machine died")
        return commit(name, *arguments)

    monkeypatch.setattr(lake, "append_next", die_after_two)
    with pytest.raises(RunError, match="died"):
        embed(make_context("embed"), FP32.model_copy(update={"commit_rows": 12}))
    monkeypatch.undo()
    done = len(vectors_of(lake))
    assert 0 < done < 30
    context = make_context("embed")
    embed(context, FP32)
    context.run.check()
    assert (context.run.known, context.run.kept) == (done, 30 - done)
    assert len(vectors_of(lake)) == 30


@pytest.mark.slow
@pytest.mark.soak
def test_embed_killed_with_minus_nine_loses_and_repeats_nothing_committed(lake, make_context):
    talks, rows = many(200), 40
    add_talks(lake, talks)
    settings = {
        "lake": lake.root,
        "steps": ["embed"],
        "embed": {"dtype": "float32", "commit_rows": rows},
        "spark": {"driver_memory": "1g", "shuffle_partitions": 1},
        "ray": {"object_store_gb": 0.1},
    }
    recipe = Path(lake.root).parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    command = [sys.executable, str(ROOT / "jobs" / "embed.py"), str(recipe)]
    process = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE)
    while lake.version("embeddings") in (None, 0):  # no first commit yet
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(vectors_of(lake))
    assert done < len(talks)
    context = make_context("embed")
    embed(context, FP32)
    context.run.check()
    assert (context.run.known, context.run.kept) == (done, len(talks) - done)
    undisturbed = Lake(lake.root + "-2")
    add_talks(undisturbed, talks)
    again = make_context("embed")
    embed(again.__class__(undisturbed, again.engines, again.run, again.console), FP32)
    assert vectors_of(lake) == vectors_of(undisturbed)


def test_embed_puts_what_has_no_vector_into_quarantine_once(lake, make_context, tiny_llama):
    silent = [("assistant", "Nobody asked.")]
    long = [("user", "one two " * 60), ("assistant", "ok")]
    add_talks(lake, [*TALKS, silent, long])
    config = CausalEmbedConfig(
        model=tiny_llama, dtype="float32", max_tokens=50, overlong="quarantine"
    )
    first = make_context("embed")
    embed(first, config)
    first.run.check()
    assert (first.run.kept, first.run.quarantined) == (5, {"no_text": 1, "overlong": 1})
    stored = {row["reason"]: row for row in rows_of(lake, "quarantine", step="embed")}
    assert stored["overlong"]["payload"] == long[0][1].encode()
    encoder = encoder_fingerprint(config)
    assert stored["no_text"]["key"] == f"{encoder} {records.sample_id(silent)}"
    add_talks(lake, many(1), pool="new")
    second = make_context("embed")
    embed(second, config)
    second.run.check()
    assert (second.run.kept, second.run.known, second.run.quarantined) == (1, 7, {})
    # Another encoder tries them for itself.
    third = make_context("embed")
    embed(third, config.model_copy(update={"overlong": "truncate"}))
    assert (third.run.kept, third.run.quarantined) == (7, {"no_text": 1})


@pytest.mark.soak
def test_replay_tries_again_what_lies_in_quarantine(lake, make_context, engines):
    silent = [("assistant", "Nobody asked.")]
    add_talks(lake, [*TALKS, silent])
    encoder = encoder_fingerprint(FP32)
    died = {"run_id": "earlier", "step": "embed", "reason": "engine_died", "payload": b""}
    keys = [f"{encoder} {records.sample_id(talk)}" for talk in TALKS[:2]]
    put(lake, "quarantine", [died | {"key": key} for key in (*keys, f"{encoder} gone")])
    embed(make_context("embed"), FP32)
    assert len(vectors_of(lake)) == 3
    with pytest.raises(RunError, match="for overlong; 4 do for other reasons"):
        replay(make_context("replay"), FP32, ["overlong"])
    recipe = Recipe(lake=lake.root, steps=("embed",), embed=FP32)
    run_id = run_replay(recipe, "embed", ["engine_died"], Console(quiet=True), engines)
    (told,) = rows_of(lake, "runs", run_id=run_id)
    assert (told["input"], told["kept"], told["rejected"]) == (3, 2, {"not_in_samples": 1})
    assert len(vectors_of(lake)) == 5
    resolved = {row["key"]: row["resolved_by"] for row in rows_of(lake, "quarantine")}
    assert [resolved[key] for key in keys] == [run_id, run_id]

    again = make_context("replay")
    replay(again, FP32, ["no_text"])
    again.run.check()
    assert (again.run.input, again.run.quarantined) == (1, {"no_text": 1})
    open_rows = rows_of(lake, "quarantine", reason="no_text", resolved_by=None)
    assert [row["run_id"] for row in open_rows] == [again.run.run_id]


def test_embed_with_a_limit_embeds_only_that_many(lake, make_context):
    add_talks(lake, TALKS)
    context = make_context("embed", limit=2)
    embed(context, FP32)
    context.run.check()
    assert (context.run.input, len(vectors_of(lake))) == (2, 2)


def test_embed_of_no_samples_is_done_at_once(lake, make_context):
    context = make_context("embed")
    embed(context, FP32)
    context.run.check()
    assert context.run.input == 0


def test_embed_is_refused_while_another_run_is_at_it(lake, make_context):
    add_talks(lake, TALKS)
    with lease(lake, f"embed-{encoder_fingerprint(FP32)}", "other"):
        with pytest.raises(RunError, match=r"run other .* is at this work"):
            embed(make_context("embed"), FP32)
