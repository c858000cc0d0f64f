"""The real vLLM on a CPU: the scores of transformers, by prompt log-probabilities."""

import pytest

from scored import PAIRS, add_pairs, scores_of
from tagsieve.scoring import ScoreConfig, score, scorer_fingerprints
from tiny_llama import FAST

TOLERANCE = 1e-3
"""Relative, in float32."""


@pytest.mark.slow
@pytest.mark.soak
def test_vllm_gives_the_scores_of_transformers(lake, make_context, tiny_llama):
    add_pairs(lake)
    model = {"model": tiny_llama, "dtype": "float32", "max_tokens": 1000}
    kinds = [
        {"kind": "ifd"},
        {"kind": "perplexity"},
        {"kind": "instruction_loss"},
        {"kind": "deita", "what": "complexity"},
        {"kind": "deita", "what": "quality"},
    ]
    scorers = [
        {**kind, "name": f"{backend}{n}", "backend": backend, **model}
        for backend in ("transformers", "vllm")
        for n, kind in enumerate(kinds)
    ]
    config = ScoreConfig(scorers=scorers, engine_args=FAST, cpus_per_replica=1)
    context = make_context("score")
    score(context, config)
    context.run.check()
    assert context.run.kept == 2 * len(kinds) * len(PAIRS)
    names = scorer_fingerprints(config)
    for n in range(len(kinds)):
        one, other = (scores_of(lake, names[f"{b}{n}"]) for b in ("transformers", "vllm"))
        assert one.keys() == other.keys()
        for key in one:
            assert other[key]["value"] == pytest.approx(one[key]["value"], rel=TOLERANCE)
            assert other[key]["tokens"] == one[key]["tokens"]


@pytest.mark.soak
def test_vllm_judges_by_guided_json(lake, make_context, tiny_llama):
    add_pairs(lake)
    engine = {"kind": "vllm", "model": tiny_llama, "dtype": "float32", "guided_json": True}
    engine |= {"engine_args": FAST, "decoding": {"max_tokens": 16}}
    scorer = {"kind": "direct", "name": "q", "what": "quality", "engine": engine}
    config = ScoreConfig(scorers=[scorer])
    context = make_context("score")
    score(context, config)
    context.run.check()
    assert context.run.kept == context.run.metrics["model_calls"] == len(PAIRS)
    rows = scores_of(lake, scorer_fingerprints(config)["q"]).values()
    assert {row["value"] for row in rows} <= {n / 2 for n in range(11)}  # what the grammar allows
    assert all(row["tokens"] > 100 for row in rows)
